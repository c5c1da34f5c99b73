//! Garbage collection in the ranges that this node leads. `control/garbage.rs` explains the two
//! steps and the two bounds.
//!
//! Once a second, for each range:
//!
//! 1. If the cluster's floor is above the range's, a command raises the range's floor.
//! 2. Locks of transactions that started below the floor are settled: the node asks the primary of
//!    each. Once no such lock is left, none can come. The range then counts as unlocked below the
//!    floor, which the heartbeats report.
//! 3. A walk looks for versions to drop in a view of the range, a bounded number of records at a
//!    time. Only spans in which it found some get a command. The walk continues in the next round,
//!    and a new one begins only when `collect_below` has risen.
//!
//! All of this may stop anywhere and begin again. The state kept here only saves work, and a range
//! that was unlocked stays so under any leader.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::MutexGuard;
use prost::Message;
use rangedb_proto::RangeId;
use rangedb_proto::v1::{
    self, CollectGarbage, Command, CommandReply, GarbageCollected, KeyLocked, LockInfo, command,
    command_reply,
};
use rangedb_raftstore::{RangeRef, RangeStatus, ReadMode};

use super::Node;
use crate::handle::ReadView;
use crate::surroundings::storage_error;

/// Pause between two rounds.
const INTERVAL: Duration = Duration::from_secs(1);

/// Locks settled in one round at most. The others are left for the next round.
const LOCKS_IN_ROUND: u64 = 256;

/// Speed of the walks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WalkPace {
    /// Records of each column family that one step of a walk looks at.
    pub records_in_look: usize,
    pub looks_in_round: usize,
}

impl Default for WalkPace {
    /// Slow enough to leave a disk to others, fast enough for millions of versions in an hour.
    fn default() -> Self {
        WalkPace { records_in_look: 4_096, looks_in_round: 8 }
    }
}

/// The node's state of garbage collection.
#[derive(Default)]
pub(super) struct Garbage {
    /// As the control plane last reported them.
    floor_ts: u64,
    collect_below_ts: u64,
    ranges: BTreeMap<RangeId, Progress>,
    counts: GarbageCounts,
}

/// Progress of garbage collection in a range.
#[derive(Clone, Default)]
struct Progress {
    unlocked_below_ts: u64,
    /// `collect_below_ts` of the last complete walk: all droppable versions below it have been
    /// dropped.
    collected_below_ts: u64,
    walk: Option<Walk>,
}

#[derive(Clone)]
struct Walk {
    collect_below_ts: u64,
    next: Bytes,
}

/// Figures of this node: current bounds, and counts since the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GarbageCounts {
    pub floor_ts: u64,
    pub collect_below_ts: u64,
    pub locks_settled: u64,
    pub records_dropped: u64,
}

impl Node {
    pub(super) fn start_collecting(self: &Arc<Self>) {
        let weak = Arc::downgrade(self);
        let net = self.around.net.clone();
        let collecting = async move {
            loop {
                net.sleep(INTERVAL).await;
                let Some(node) = weak.upgrade() else { return };
                node.collect().await;
            }
        };
        self.around.net.spawn(Box::pin(collecting));
    }

    /// Raises both bounds. They never sink: an answer of an earlier control plane may arrive late.
    pub(super) fn learn_garbage_bounds(&self, floor_ts: u64, collect_below_ts: u64) {
        let mut garbage = self.garbage();
        garbage.floor_ts = garbage.floor_ts.max(floor_ts);
        garbage.collect_below_ts = garbage.collect_below_ts.max(collect_below_ts);
    }

    /// Timestamp below which the range is known to be unlocked.
    pub(super) fn unlocked_below(&self, range: RangeId) -> u64 {
        self.garbage().ranges.get(&range).map_or(0, |progress| progress.unlocked_below_ts)
    }

    pub fn garbage_counts(&self) -> GarbageCounts {
        let garbage = self.garbage();
        let (floor_ts, collect_below_ts) = (garbage.floor_ts, garbage.collect_below_ts);
        GarbageCounts { floor_ts, collect_below_ts, ..garbage.counts }
    }

    /// For each range that this node leads, the timestamp below which all droppable versions have
    /// been dropped. 0 if unknown, as after an election until the first walk is complete.
    pub fn collected_below(&self) -> Vec<(RangeId, u64)> {
        let led = self.around.board.ranges().into_iter().filter(|status| status.leads);
        let garbage = self.garbage();
        let below = |id: &RangeId| garbage.ranges.get(id).map_or(0, |p| p.collected_below_ts);
        led.map(|status| RangeId(status.descriptor.range_id)).map(|id| (id, below(&id))).collect()
    }

    async fn collect(&self) {
        let here = self.around.board.ranges();
        let on_node = |id: &RangeId| here.iter().any(|s| s.descriptor.range_id == id.0);
        self.garbage().ranges.retain(|id, _| on_node(id));
        for status in here.iter().filter(|status| status.leads && status.fenced) {
            // A lost leadership, a full queue or an unreachable primary: the next round tries
            // again.
            if let Err(error) = self.collect_in(status).await {
                let range = status.descriptor.range_id;
                tracing::debug!(range, message = error.message, "garbage is left for later");
            }
        }
    }

    async fn collect_in(&self, status: &RangeStatus) -> Result<(), v1::Error> {
        let id = RangeId(status.descriptor.range_id);
        let range = RangeRef { id, epoch: status.descriptor.epoch.unwrap_or_default() };
        let (floor_ts, collect_below_ts, mut progress) = {
            let garbage = self.garbage();
            let progress = garbage.ranges.get(&id).cloned().unwrap_or_default();
            (garbage.floor_ts, garbage.collect_below_ts, progress)
        };
        if floor_ts == 0 {
            return Ok(());
        }
        let mut view = self.around.stores.read(range, ReadMode::Latest).await?;
        if floors(&view)?.floor_ts < floor_ts {
            self.propose_collect(range, floor_ts, 0, &view.descriptor.start_key, b"").await?;
            view = self.around.stores.read(range, ReadMode::Latest).await?;
        }
        if progress.unlocked_below_ts < floor_ts && self.settle_locks(&view, floor_ts).await? {
            progress.unlocked_below_ts = floor_ts;
            self.garbage().ranges.insert(id, progress.clone());
        }
        if progress.walk.is_none() && progress.collected_below_ts < collect_below_ts {
            let next = view.descriptor.start_key.clone();
            progress.walk = Some(Walk { collect_below_ts, next });
        }
        if let Some(walk) = progress.walk.take() {
            progress.walk = self.walk_on(range, floor_ts, walk.clone()).await?;
            if progress.walk.is_none() {
                progress.collected_below_ts = walk.collect_below_ts;
            }
        }
        self.garbage().ranges.insert(id, progress);
        Ok(())
    }

    /// True if the view has no lock from below the floor. The view must be newer than the floor in
    /// the range. Locks that it has are settled, as far as their transactions have ended.
    async fn settle_locks(&self, view: &ReadView, floor_ts: u64) -> Result<bool, v1::Error> {
        let (start, end) = (view.descriptor.start_key.clone(), view.descriptor.end_key.clone());
        let mut next = start;
        loop {
            let span = (&next[..], &end[..]);
            let page = rangedb_txn::locks(&*view.reader, span, LOCKS_IN_ROUND, floor_ts);
            let (locks, resume) = page.map_err(storage_error)?;
            if !locks.is_empty() {
                let settled = settle_each(locks, |lock| self.around.client.settle(lock)).await;
                self.garbage().counts.locks_settled += settled;
                return Ok(false);
            }
            match resume {
                Some(resume) => next = resume,
                None => return Ok(true),
            }
        }
    }

    /// Continues the walk and drops what it finds. Returns `None` once the walk is complete.
    async fn walk_on(
        &self,
        range: RangeRef,
        floor_ts: u64,
        mut walk: Walk,
    ) -> Result<Option<Walk>, v1::Error> {
        for _ in 0..self.walk_pace.looks_in_round {
            // Each step takes a fresh view: an old one keeps dropped records from being removed.
            let view = self.around.stores.read(range, ReadMode::Latest).await?;
            let end = &view.descriptor.end_key;
            let below = walk.collect_below_ts;
            let records = self.walk_pace.records_in_look;
            let ahead = rangedb_txn::garbage_ahead(&*view.reader, &walk.next, end, below, records);
            let ahead = ahead.map_err(storage_error)?;
            drop(view);
            if let Some((mut start, end)) = ahead.worth {
                while !start.is_empty() {
                    let collected =
                        self.propose_collect(range, floor_ts, below, &start, &end).await?;
                    self.garbage().counts.records_dropped += collected.dropped;
                    start = collected.resume_key;
                }
            }
            match ahead.next {
                Some(next) => walk.next = next,
                None => return Ok(None),
            }
        }
        Ok(Some(walk))
    }

    async fn propose_collect(
        &self,
        range: RangeRef,
        floor_ts: u64,
        collect_below_ts: u64,
        start_key: &Bytes,
        end_key: &[u8],
    ) -> Result<GarbageCollected, v1::Error> {
        let collect = CollectGarbage {
            floor_ts,
            collect_below_ts,
            start_key: start_key.clone(),
            end_key: Bytes::copy_from_slice(end_key),
        };
        let command = Command { body: Some(command::Body::CollectGarbage(collect)) };
        let reply = self.around.stores.propose(range, &command).await?;
        match CommandReply::decode(reply).ok().and_then(|reply| reply.body) {
            Some(command_reply::Body::GarbageCollected(collected)) => Ok(collected),
            other => {
                let message = format!("the range answered garbage collection by {other:?}");
                Err(v1::Error::undetermined(message))
            }
        }
    }

    fn garbage(&self) -> MutexGuard<'_, Garbage> {
        self.garbage.lock()
    }
}

fn floors(view: &ReadView) -> Result<rangedb_txn::Floors, v1::Error> {
    rangedb_txn::floors(&*view.reader, &view.descriptor.start_key).map_err(storage_error)
}

/// Settles the locks one by one, until one cannot be settled because its primary's range is out of
/// reach. That of the next is most likely out of reach too, and each would cost the whole time of a
/// call. Returns the number of locks that are gone.
async fn settle_each<F>(locks: Vec<LockInfo>, mut settle: impl FnMut(KeyLocked) -> F) -> u64
where
    F: Future<Output = Result<bool, rangedb_client::Error>>,
{
    let mut settled = 0;
    for lock in locks.into_iter().map(in_the_way) {
        let key = lock.key.clone();
        match settle(lock).await {
            Ok(gone) => settled += u64::from(gone),
            Err(error) => {
                let key = key.escape_ascii();
                tracing::debug!(%key, %error, "locks from below the floor are left for later");
                break;
            }
        }
    }
    settled
}

fn in_the_way(lock: LockInfo) -> KeyLocked {
    let LockInfo { key, primary, start_ts, alive_until_ms, .. } = lock;
    KeyLocked { key, primary, start_ts, alive_until_ms }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use futures::FutureExt;
    use rangedb_client::Error;

    use super::*;

    #[test]
    fn a_lock_that_cannot_be_settled_ends_the_round_of_its_range() {
        let lock = |start_ts| LockInfo { start_ts, ..Default::default() };
        let mut asked = Vec::new();
        let settled = settle_each((1..=256).map(lock).collect(), |lock| {
            asked.push(lock.start_ts);
            ready(match lock.start_ts {
                1 | 3 => Ok(true),
                // Its transaction is alive: that is no reason to leave the locks after it.
                2 => Ok(false),
                _ => Err(Error::Unavailable("no leader".to_owned())),
            })
        });
        assert_eq!(settled.now_or_never(), Some(2));
        assert_eq!(asked, [1, 2, 3, 4]);
    }
}
