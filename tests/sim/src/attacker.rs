//! A client that sends what the SDK never sends, straight to some node.
//!
//! Nobody judges what it is told: the other clients must be content beside it, replicas equal, and no
//! process may end.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rangedb_client::net::Net;
use rangedb_workload::hostile::Hostile;

use crate::net::SimNet;
use crate::schedule::{Micros, Schedule};

/// Requests of one attack: enough that they meet each other at the same keys.
const REQUESTS: usize = 24;

pub struct Attacker {
    net: Arc<SimNet>,
    addresses: Vec<String>,
    hostile: Mutex<Hostile>,
}

impl Attacker {
    pub fn new(
        net: Arc<SimNet>,
        addresses: Vec<String>,
        schedule: &Schedule,
        client: usize,
    ) -> Self {
        let seed = schedule.random(|rng| rng.u64(..));
        // Before all keys that other clients use.
        let hostile = Mutex::new(Hostile::new(seed, &format!("!hostile-{client}/")));
        Attacker { net, addresses, hostile }
    }

    /// Many requests at once, and what is to be learnt from their answers.
    pub async fn attack(&self, schedule: &Schedule, timeout: Micros) {
        let one = || async {
            let request = self.hostile.lock().expect("no panic holds it").request();
            let place = schedule.random(|rng| rng.usize(0..self.addresses.len()));
            let timeout = Duration::from_micros(timeout);
            let answer = self.net.call(&self.addresses[place], request, timeout).await;
            if let Ok(body) = answer {
                self.hostile.lock().expect("no panic holds it").hear(&body);
            }
        };
        futures::future::join_all((0..REQUESTS).map(|_| one())).await;
    }
}
