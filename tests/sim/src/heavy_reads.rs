//! Delayed evaluation of heavy reads. As in production, other work comes first.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rangedb_server::node::HeavyReads;

use crate::occurrence::{Host, Occurrence};
use crate::schedule::{Micros, Schedule};

/// The queue of heavy reads of one process.
pub struct HeavyReadsLater {
    pub schedule: Schedule,
    pub host: Host,
    /// Maximum delay of a read. With 0, reads are evaluated at once.
    pub delay_max: Arc<AtomicU64>,
}

impl HeavyReads for HeavyReadsLater {
    fn run(&self, _: u64, work: Box<dyn FnOnce() + Send>) -> bool {
        let delay_max: Micros = self.delay_max.load(Ordering::Relaxed);
        if delay_max == 0 {
            work();
            return true;
        }
        let delay = self.schedule.between(1, delay_max);
        self.schedule.after(delay, self.host, Occurrence::HeavyRead(work));
        true
    }
}
