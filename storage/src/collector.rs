//! CollectBounds below which compaction may drop records, by span, and the moment from which each is in
//! force.
//!
//! Compaction drops records where it meets them ([`crate::is_collectable`]), so that garbage
//! collection reads nothing that would not be rewritten anyway. Three rules keep replicas
//! identical:
//!
//! - *A bound is in force only once a flush that began after it was set has finished.* Example:
//!   entry 10 raises the floor, and the last flush covers entry 5. Compaction must not yet drop
//!   records below the floor. A crash takes the state back to entry 5 but does not bring dropped
//!   records back, so replay would evaluate entries 6 to 9 over fewer records than the first time.
//! - *A bound belongs to a span.* Replicas of one node are at different positions of their logs.
//! - *CollectBounds are forgotten where a snapshot is installed*, because the snapshot's floor may be
//!   lower. A compaction takes the bounds after its files were chosen, so none applies an old bound
//!   to new files.
//!
//! Readers that hold a snapshot of the engine lose dropped records too, so they must not read at or
//! below the bound. A view that is streamed to another replica meanwhile has some of these records
//! and not others. The receiver continues from the view by the log, whose commands look down to the
//! bound of the view. So the collector remembers the highest bound that was ever in force. With it
//! the sender can check whether the view has lost a record that it had to keep. Forgotten bounds
//! count too: forgetting a bound does not bring back what a compaction dropped by it, or is still
//! dropping.

use std::sync::{Arc, Mutex, MutexGuard};

use crate::Span;
use crate::collect_bounds::CollectBounds;
use crate::planted::planted;

/// CollectBounds of the whole state, shared with all compactions.
#[derive(Default)]
pub(crate) struct Collector {
    stages: Mutex<Stages>,
}

/// CollectBounds in each stage on their way into force.
#[derive(Default)]
struct Stages {
    /// CollectBounds set since the newest flush that carries bounds began.
    waiting: CollectBounds,
    /// CollectBounds that the flush in flight carries, if there is one.
    carried: Option<CollectBounds>,
    /// CollectBounds that compaction filters use. Shared without a copy, and replaced as a whole.
    in_force: Arc<CollectBounds>,
    /// Highest bounds that were ever in force, including forgotten ones.
    highest: CollectBounds,
}

impl Collector {
    fn stages(&self) -> MutexGuard<'_, Stages> {
        self.stages.lock().expect("a thread panicked while it changed the bounds")
    }

    pub fn raise(&self, span: &Span, bound: u64) {
        let mut stages = self.stages();
        if planted!(CollectBeforeFlush) {
            Arc::make_mut(&mut stages.in_force).raise(span, bound);
            stages.highest.raise(span, bound);
        }
        stages.waiting.raise(span, bound);
    }

    /// Forgets the bounds in a span whose data is about to be replaced.
    pub fn forget(&self, span: &Span) {
        let mut stages = self.stages();
        stages.waiting.clear(span);
        if let Some(carried) = &mut stages.carried {
            carried.clear(span);
        }
        Arc::make_mut(&mut stages.in_force).clear(span);
    }

    /// Runs a flush. If it succeeds, the bounds set before it are in force afterwards.
    pub fn carry<E>(&self, flush: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        let carries = self.begin_flush();
        let flushed = flush();
        self.end_flush(carries, flushed.is_ok());
        flushed
    }

    /// Begins a flush. True if it carries bounds. Of concurrent flushes only the first does: the
    /// others may have begun too early for the bounds.
    pub fn begin_flush(&self) -> bool {
        let mut stages = self.stages();
        let carries = stages.carried.is_none();
        if carries {
            stages.carried = Some(std::mem::take(&mut stages.waiting));
        }
        carries
    }

    /// Ends a flush.
    pub fn end_flush(&self, carries: bool, flushed: bool) {
        if !carries {
            return;
        }
        let mut stages = self.stages();
        let carried = stages.carried.take().expect("put there when the flush began");
        if flushed {
            Arc::make_mut(&mut stages.in_force).raise_to(&carried);
            stages.highest.raise_to(&carried);
        } else {
            stages.waiting.raise_to(&carried);
        }
    }

    /// Returns the highest bound that was ever in force at a key of the span.
    pub fn highest(&self, span: &Span) -> u64 {
        self.stages().highest.highest(span)
    }

    /// CollectBounds for a compaction that begins now.
    pub fn in_force(&self) -> Arc<CollectBounds> {
        Arc::clone(&self.stages().in_force)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_force(collector: &Collector) -> u64 {
        collector.in_force().at(b"key")
    }

    #[test]
    fn a_bound_is_in_force_behind_a_finished_flush_that_began_after_it_was_set() {
        let collector = Collector::default();
        collector.raise(&Span::everything(), 5);
        assert_eq!(in_force(&collector), 0);
        assert_eq!(collector.carry(|| Err("no room")), Err("no room"));
        assert_eq!(in_force(&collector), 0);
        let flushed = collector.carry(|| {
            collector.raise(&Span::everything(), 8);
            assert_eq!(in_force(&collector), 0);
            Ok::<(), ()>(())
        });
        assert_eq!((flushed, in_force(&collector)), (Ok(()), 5));
        collector.carry(|| Ok::<(), ()>(())).unwrap();
        assert_eq!(in_force(&collector), 8);
    }

    #[test]
    fn a_flush_within_another_carries_no_bound_of_its_own() {
        let collector = Collector::default();
        let flushed = collector.carry(|| {
            collector.raise(&Span::everything(), 8);
            collector.carry(|| Ok::<(), ()>(()))
        });
        assert_eq!((flushed, in_force(&collector)), (Ok(()), 0));
    }

    #[test]
    fn a_bound_that_is_forgotten_during_the_flush_that_carries_it_does_not_come_back() {
        let collector = Collector::default();
        collector.raise(&Span::everything(), 3);
        collector.carry(|| Ok::<(), ()>(())).unwrap();
        collector.raise(&Span::everything(), 5);
        let installed = Span { start: "k".into(), end: "l".into() };
        let flushed = collector.carry(|| {
            collector.raise(&Span::everything(), 8);
            collector.forget(&installed);
            Ok::<(), ()>(())
        });
        assert_eq!((flushed, in_force(&collector)), (Ok(()), 0));
        assert_eq!(collector.in_force().at(b"a"), 5);
        collector.carry(|| Ok::<(), ()>(())).unwrap();
        assert_eq!((in_force(&collector), collector.in_force().at(b"a")), (0, 8));
        // Records dropped by the forgotten bound do not come back, so it still counts.
        assert_eq!((collector.highest(&installed), collector.highest(&Span::everything())), (3, 8));
    }
}
