//! Start timestamp of a transaction, which identifies it and as of which it reads.
//!
//! The timestamp is taken when the transaction begins. Until it is used, nothing depends on it: a
//! transaction that had to wait before its first read can still take a later one, and so sees what
//! was committed while it waited.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rangedb_proto::Timestamp;

use crate::holds::{Hold, Holds};

pub(super) struct Snapshot(Mutex<Taken>);

struct Taken {
    start_ts: u64,
    /// Time at which the timestamp was requested. Commits after that time may be missing in the
    /// snapshot.
    requested_at: Duration,
    is_settled: bool,
    /// Keeps the versions at the timestamp from garbage collection.
    _hold: Hold,
}

impl Snapshot {
    pub fn new(holds: &Arc<Holds>, start_ts: Timestamp, requested_at: Duration) -> Self {
        let start_ts = start_ts.0;
        let _hold = holds.hold(start_ts);
        Snapshot(Mutex::new(Taken { start_ts, requested_at, is_settled: false, _hold }))
    }

    /// Returns the timestamp and settles it.
    pub fn start_ts(&self) -> u64 {
        let mut taken = self.0.lock();
        taken.is_settled = true;
        taken.start_ts
    }

    pub fn is_settled(&self) -> bool {
        self.0.lock().is_settled
    }

    pub fn requested_at(&self) -> Duration {
        self.0.lock().requested_at
    }

    /// Replaces the timestamp by a newer one, unless it is settled. True if it was replaced.
    pub fn renew(&self, newer: Snapshot) -> bool {
        let mut taken = self.0.lock();
        if !taken.is_settled {
            *taken = newer.0.into_inner();
            return true;
        }
        false
    }
}
