//! Client that sends requests which the SDK never sends, directly to some node.
//!
//! Nobody checks the answers that this client gets. The answers to other clients must be right,
//! replicas must stay equal, and no process may end.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rangedb_client::net::Net;
use rangedb_workload::hostile::Hostile;

use crate::net::SimNet;
use crate::schedule::{Micros, Schedule};

/// Number of requests of one attack: enough that they meet each other at the same keys.
const REQUESTS: usize = 24;

/// Prefix of the keys that hostile clients write.
pub const HOSTILE_PREFIX: &str = "!hostile-";

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
        // These keys are outside of what other clients read and scan.
        let hostile = Mutex::new(Hostile::new(seed, &format!("{HOSTILE_PREFIX}{client}/")));
        Attacker { net, addresses, hostile }
    }

    /// Sends many requests at once, and learns from their answers.
    pub async fn attack(&self, schedule: &Schedule, timeout: Micros) {
        let one = || async {
            let request = self.hostile.lock().request();
            let place = schedule.random(|rng| rng.usize(0..self.addresses.len()));
            let timeout = Duration::from_micros(timeout);
            let answer = self.net.call(&self.addresses[place], request, timeout).await;
            if let Ok(body) = answer {
                self.hostile.lock().hear(&body);
            }
        };
        futures::future::join_all((0..REQUESTS).map(|_| one())).await;
    }
}
