//! Places of clients. A client may end and be replaced, or stand still for a while.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rangedb_client::{Client, Config};

use crate::attacker::Attacker;
use crate::clock::Clock;
use crate::net::client_address;
use crate::occurrence::{Fault, Host, Occurrence};
use crate::process::Site;
use crate::schedule::Micros;
use crate::workload::Worker;
use crate::world::World;

/// Timeout of an operation that sets none of its own.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A place for a client.
pub struct ClientPlace {
    /// Number of clients that have ended at this place.
    pub life: u64,
    pub clock: Clock,
    /// Occurrences held back until the client goes on, in order; `None` if it is not paused.
    pub held: Option<VecDeque<(Host, Occurrence)>>,
}

impl ClientPlace {
    pub fn draw(rng: &mut fastrand::Rng, drift: u32) -> Self {
        ClientPlace { life: 0, clock: Clock::draw(rng, drift), held: None }
    }
}

impl World {
    /// Returns a worker for the client at a place. The caller decides what it does.
    pub fn worker(&self, me: usize) -> Worker {
        let ClientPlace { life, clock, .. } = self.clients[me];
        let host = Host::Client { place: me, life };
        let net = Site { clock, ..self.slots[0].site.clone() }.net(host);
        let mut addresses: Vec<String> = (0..self.slots.len()).map(client_address).collect();
        self.schedule.random(|rng| rng.shuffle(&mut addresses));
        let attacker = Attacker::new(net.clone(), addresses.clone(), &self.schedule, me);
        let config = Config::new(addresses).timeout(TIMEOUT);
        let client = Client::with_net(net, config).expect("addresses are valid");
        Worker { me, host, client, common: self.common.clone(), attacker }
    }

    /// Draws a client that is in the middle of a transaction, if there is one.
    pub fn client_in_transaction(&self) -> Option<usize> {
        let in_transaction = &self.common.in_transaction;
        let places = 0..in_transaction.len();
        let places: Vec<usize> =
            places.filter(|place| in_transaction[*place].load(Ordering::Relaxed)).collect();
        if places.is_empty() {
            return None;
        }
        Some(places[self.schedule.random(|rng| rng.usize(0..places.len()))])
    }

    /// Ends a client in the middle of its work, the rest of which is never done. Another one takes
    /// its place.
    pub fn kill_client(&mut self, place: usize) {
        // The run depends on the settings that the first client makes.
        if place == 0 && self.settings_unset.load(Ordering::Relaxed) > 0 {
            return;
        }
        let client = &mut self.clients[place];
        let host = Host::Client { place, life: client.life };
        client.life += 1;
        client.held = None;
        self.common.in_transaction[place].store(false, Ordering::Relaxed);
        self.executor.end(host);
        let worker = self.worker(place);
        self.spawn(worker.host, worker.run());
    }

    /// Pauses a client: it receives nothing, sends nothing, and keeps no lock or hold alive.
    pub fn pause_client(&mut self, place: usize, duration: Micros) {
        let client = &mut self.clients[place];
        if client.held.is_none() {
            client.held = Some(VecDeque::new());
            let resume = Occurrence::Fault(Fault::ResumeClient { place });
            self.schedule.after(duration, Host::World, resume);
        }
    }

    pub fn resume_client(&mut self, place: usize) {
        for (host, occurrence) in self.clients[place].held.take().into_iter().flatten() {
            self.schedule.after(0, host, occurrence);
        }
    }
}
