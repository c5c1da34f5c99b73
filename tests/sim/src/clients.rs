//! Clients at their places: they end, and others take their place; or they stand still for a while.

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

/// Time for which a client tries an operation, unless it says otherwise.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A place for a client.
pub struct ClientPlace {
    /// Counts clients at this place.
    pub life: u64,
    pub clock: Clock,
    /// While the client stands still: what happens to it afterwards.
    pub held: Option<VecDeque<(Host, Occurrence)>>,
}

impl ClientPlace {
    pub fn draw(rng: &mut fastrand::Rng, drift: u32) -> Self {
        ClientPlace { life: 0, clock: Clock::draw(rng, drift), held: None }
    }
}

impl World {
    /// A client at a place of its own. What it does is up to the caller.
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

    /// One in the middle of a transaction, if there is one.
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

    /// A client ends, whatever it was at; what it would have done yet is not done. Another one takes
    /// its place.
    pub fn kill_client(&mut self, place: usize) {
        // What the runs rest on has to be set by somebody.
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

    /// The client stands still for a while: it hears nothing, says nothing and keeps nothing alive.
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
