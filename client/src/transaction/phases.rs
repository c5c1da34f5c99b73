//! Phases of a transaction with the time they take, and the log of slow transactions.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::net::Net;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Phase {
    /// Waiting for the turn at a hot key.
    Turn,
    Reads,
    Locks,
    /// The command of a one-range commit.
    OneRange,
    Prewrite,
    Timestamp,
    Validate,
    Primary,
}

const PHASES: usize = Phase::Primary as usize + 1;

/// Time of each phase. Of concurrent activities, each counts.
#[derive(Debug, Default)]
pub(crate) struct Phases {
    micros: [AtomicU64; PHASES],
    /// Ids of the ranges that are written.
    ranges: Mutex<BTreeSet<u64>>,
}

impl Phases {
    pub async fn time<T>(&self, phase: Phase, net: &dyn Net, future: impl Future<Output = T>) -> T {
        let began = net.now();
        let output = future.await;
        self.add(phase, net.now().saturating_sub(began));
        output
    }

    pub fn add(&self, phase: Phase, time: Duration) {
        self.micros[phase as usize].fetch_add(time.as_micros() as u64, Ordering::Relaxed);
    }

    pub fn writes_in(&self, range_id: u64) {
        self.ranges.lock().insert(range_id);
    }

    fn of(&self, phase: Phase) -> Duration {
        Duration::from_micros(self.micros[phase as usize].load(Ordering::Relaxed))
    }

    /// Time of all phases, without the caller's own time in between.
    pub fn total(&self) -> Duration {
        self.micros.iter().map(|micros| Duration::from_micros(micros.load(Ordering::Relaxed))).sum()
    }

    pub fn warn(&self, start_ts: u64, isolation: &str, path: &str, outcome: &str, keys: usize) {
        tracing::warn!(
            start_ts,
            isolation,
            path,
            outcome,
            keys,
            ranges = self.ranges.lock().len(),
            total = ?self.total(),
            turn = ?self.of(Phase::Turn),
            reads = ?self.of(Phase::Reads),
            locks = ?self.of(Phase::Locks),
            one_range = ?self.of(Phase::OneRange),
            prewrite = ?self.of(Phase::Prewrite),
            timestamp = ?self.of(Phase::Timestamp),
            validate = ?self.of(Phase::Validate),
            primary = ?self.of(Phase::Primary),
            "a slow transaction"
        );
    }
}
