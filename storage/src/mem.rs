//! The applied state in memory: the twin of the state on disk, which can crash.
//!
//! Families are copy-on-write maps: a snapshot costs a reference, and a write costs a copy only
//! while a snapshot of its family is held. Beside them stands what a crash would leave: the state
//! as of the last flush, and the batches since. [`MemState::crash`] goes back to that state and
//! applies none, some or all of the batches, which is all that the contract of [`StateEngine`]
//! promises. [`MemState::compact`] drops records that [`Compaction`] allows to drop, also from the
//! flushed state and from held snapshots, as the files of the twin on disk lose them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use bytes::Bytes;

use crate::collector::Collector;
use crate::mem_families::Families;
use crate::{
    ColumnFamily, Compaction, Direction, Error, Install, Reader, Records, Result, Span,
    StagedSnapshot, Staging, StateEngine, WriteBatch,
};

/// Applied state in memory, the twin of [`crate::RocksState`], which can crash, fail and be full.
/// All methods may be called from any thread.
#[derive(Default)]
pub struct MemState {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    /// State that readers see.
    visible: Families,
    /// State as of the last flush.
    flushed: Families,
    /// Batches written since the last flush, in order: `flushed` with these is `visible`.
    unflushed: VecDeque<WriteBatch>,
    /// Number of batches ever flushed.
    flushed_batches: u64,
    staged: BTreeMap<u64, StagedRecords>,
    next_staged_id: u64,
    /// Number of crashes: a staging that began before a crash is void.
    incarnation: u64,
    fail_next_flush: bool,
    full: bool,
    collector: Arc<Collector>,
    /// Snapshots handed out, some of which may still be held.
    snapshots: Vec<Weak<Mutex<Families>>>,
    /// Length of `snapshots` at which those no longer held are removed.
    snapshots_max: usize,
}

/// Lower limit of `snapshots_max`.
const SNAPSHOTS_MIN: usize = 64;

/// A flush in flight, in one run of the process.
#[derive(Clone, Copy, Debug)]
pub struct FlushUnderWay {
    /// Number of batches, counted from the first ever, that are durable at its end.
    covers: u64,
    /// True if bounds of compaction are in force at its end.
    carries: bool,
}

/// Staged records of each family, by the family's number.
type StagedRecords = [Vec<(Bytes, Bytes)>; ColumnFamily::ALL.len()];

impl MemState {
    pub fn new() -> Self {
        Self::default()
    }

    /// Simulates a crash and a restart of the process. Of the batches since the last flush it keeps
    /// none, all, or a random number of the first ones, each as often. Staged records and
    /// configured faults are gone. Returns the number of lost batches.
    pub fn crash(&self, rng: &mut fastrand::Rng) -> usize {
        let mut guard = self.lock();
        let inner = &mut *guard;
        let kept = match rng.u32(0..3) {
            0 => 0,
            1 => inner.unflushed.len(),
            _ => rng.usize(0..=inner.unflushed.len()),
        };
        let lost = inner.unflushed.len() - kept;
        for batch in inner.unflushed.drain(..kept) {
            inner.flushed.apply(&batch);
        }
        *inner = Inner {
            visible: inner.flushed.clone(),
            flushed: std::mem::take(&mut inner.flushed),
            flushed_batches: inner.flushed_batches,
            incarnation: inner.incarnation + 1,
            next_staged_id: inner.next_staged_id,
            ..Inner::default()
        };
        lost
    }

    /// Begins a flush that takes its time. It covers the batches written by now.
    pub fn begin_flush(&self) -> FlushUnderWay {
        let inner = self.lock();
        let covers = inner.flushed_batches + inner.unflushed.len() as u64;
        FlushUnderWay { covers, carries: inner.collector.begin_flush() }
    }

    /// Ends a flush: the batches that it covers are durable from now on.
    ///
    /// # Errors
    ///
    /// Errors of [`StateEngine::flush`].
    pub fn finish_flush(&self, flush: FlushUnderWay) -> Result<()> {
        let mut inner = self.lock();
        let batches = flush.covers.saturating_sub(inner.flushed_batches);
        let flushed = inner.flush(batches as usize);
        inner.collector.end_flush(flush.carries, flushed.is_ok());
        flushed
    }

    /// Compacts a random part of some families: drops records that the bounds in force allow to
    /// drop. Returns their number.
    pub fn compact(&self, rng: &mut fastrand::Rng) -> usize {
        let mut guard = self.lock();
        let inner = &mut *guard;
        let bounds = inner.collector.in_force();
        let mut dropped = 0;
        for cf in [ColumnFamily::Current, ColumnFamily::History] {
            if rng.u8(0..4) == 0 {
                continue;
            }
            let span = inner.flushed.draw_span(cf, rng);
            dropped += inner.flushed.collect(cf, &span, &bounds);
            // A rewritten file is rewritten for every reader.
            inner.visible.collect(cf, &span, &bounds);
            for snapshot in inner.snapshots.iter().filter_map(Weak::upgrade) {
                lock_snapshot(&snapshot).collect(cf, &span, &bounds);
            }
        }
        dropped
    }

    /// Makes the next flush fail with [`Error::Io`] and persist nothing.
    pub fn fail_next_flush(&self) {
        self.lock().fail_next_flush = true;
    }

    /// Fills the disk or frees it. While it is full, calls that need space answer [`Error::Full`]
    /// and change nothing.
    pub fn set_full(&self, full: bool) {
        self.lock().full = full;
    }

    /// Number of point reads and scan steps over data, by any reader.
    pub fn data_reads(&self) -> u64 {
        self.lock().visible.data_reads()
    }

    /// Batches that a crash may lose.
    pub fn unflushed_batches(&self) -> usize {
        self.lock().unflushed.len()
    }

    /// Number of staged snapshots that were neither installed nor discarded.
    pub fn staged_snapshots(&self) -> usize {
        self.lock().staged.len()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }
}

fn lock(inner: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    inner.lock().expect("a thread panicked while it changed the state")
}

impl Inner {
    fn check_space(&self) -> Result<()> {
        if self.full { Err(Error::Full("the simulated disk".into())) } else { Ok(()) }
    }

    /// Makes this many of the first batches durable.
    fn flush(&mut self, batches: usize) -> Result<()> {
        self.check_space()?;
        if std::mem::take(&mut self.fail_next_flush) {
            return Err(Error::Io("the simulated flush failed".into()));
        }
        for batch in self.unflushed.drain(..batches) {
            self.flushed.apply(&batch);
        }
        self.flushed_batches += batches as u64;
        Ok(())
    }

    fn check_staged(&self, staged: &StagedSnapshot) -> Result<()> {
        let known = self.staged.contains_key(&staged.id);
        if known {
            Ok(())
        } else {
            Err(Error::Refused(format!("no staged snapshot {}", staged.id)))
        }
    }
}

impl Reader for MemState {
    fn get(&self, cf: ColumnFamily, key: &[u8]) -> Result<Option<Bytes>> {
        self.lock().visible.get(cf, key)
    }

    fn scan<'a>(
        &'a self,
        cf: ColumnFamily,
        start: &[u8],
        end: &[u8],
        direction: Direction,
    ) -> Result<Box<dyn Records + 'a>> {
        Ok(Box::new(self.lock().visible.records(cf, start, end, direction)))
    }
}

/// State as of the snapshot's creation, without records compacted since.
struct MemSnapshot(Arc<Mutex<Families>>);

fn lock_snapshot(snapshot: &Mutex<Families>) -> MutexGuard<'_, Families> {
    snapshot.lock().expect("a thread panicked while it compacted a snapshot")
}

impl Reader for MemSnapshot {
    fn get(&self, cf: ColumnFamily, key: &[u8]) -> Result<Option<Bytes>> {
        lock_snapshot(&self.0).get(cf, key)
    }

    fn scan<'a>(
        &'a self,
        cf: ColumnFamily,
        start: &[u8],
        end: &[u8],
        direction: Direction,
    ) -> Result<Box<dyn Records + 'a>> {
        Ok(Box::new(lock_snapshot(&self.0).records(cf, start, end, direction)))
    }
}

impl Compaction for MemState {
    fn set_collect_below(&self, span: &Span, bound: u64) {
        self.lock().collector.raise(span, bound);
    }

    fn collected_up_to(&self, span: &Span) -> u64 {
        self.lock().collector.highest(span)
    }
}

impl StateEngine for MemState {
    fn snapshot(&self) -> Arc<dyn Reader> {
        let mut inner = self.lock();
        if inner.snapshots.len() >= inner.snapshots_max {
            inner.snapshots.retain(|snapshot| snapshot.strong_count() > 0);
            inner.snapshots_max = SNAPSHOTS_MIN.max(2 * inner.snapshots.len());
        }
        let snapshot = Arc::new(Mutex::new(inner.visible.clone()));
        inner.snapshots.push(Arc::downgrade(&snapshot));
        Arc::new(MemSnapshot(snapshot))
    }

    fn write(&self, batch: WriteBatch) -> Result<()> {
        let mut inner = self.lock();
        inner.check_space()?;
        inner.visible.apply(&batch);
        inner.unflushed.push_back(batch);
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        let mut inner = self.lock();
        let all = inner.unflushed.len();
        let collector = Arc::clone(&inner.collector);
        collector.carry(|| inner.flush(all))
    }

    fn stage(&self) -> Result<Box<dyn Staging>> {
        let incarnation = self.lock().incarnation;
        let engine = Arc::clone(&self.inner);
        Ok(Box::new(MemStaging { engine, incarnation, families: Default::default() }))
    }

    fn install(&self, install: Install) -> Result<()> {
        let mut inner = self.lock();
        inner.check_staged(&install.staged)?;
        // Batches survive in order, so what came before this durable one becomes durable first.
        let all = inner.unflushed.len();
        inner.flush(all)?;
        let families = inner.staged.remove(&install.staged.id).expect("checked above");
        let mut batch = WriteBatch::default();
        for cf in ColumnFamily::DATA {
            batch.delete_span(cf, install.span.clone());
        }
        for (cf, records) in ColumnFamily::ALL.into_iter().zip(families) {
            for (key, value) in records {
                assert!(install.span.contains(&key), "staged {key:?} is outside of the span");
                batch.put(cf, key, value);
            }
        }
        batch.writes.extend(install.meta.writes);
        inner.visible.apply(&batch);
        inner.flushed.apply(&batch);
        inner.collector.forget(&install.span);
        Ok(())
    }

    fn discard(&self, staged: StagedSnapshot) -> Result<()> {
        self.lock().staged.remove(&staged.id);
        Ok(())
    }

    fn approximate_bytes(&self, span: &Span) -> Result<u64> {
        let visible = self.lock().visible.clone();
        let mut bytes = 0;
        for cf in ColumnFamily::DATA {
            let mut records = visible.records(cf, &span.start, &span.end, Direction::Forward);
            while let Some((key, value)) = records.next()? {
                bytes += (key.len() + value.len()) as u64;
            }
        }
        Ok(bytes)
    }
}

struct MemStaging {
    engine: Arc<Mutex<Inner>>,
    incarnation: u64,
    families: StagedRecords,
}

impl Staging for MemStaging {
    fn add(&mut self, cf: ColumnFamily, records: &[(Bytes, Bytes)]) -> Result<()> {
        lock(&self.engine).check_space()?;
        let staged = &mut self.families[cf as usize];
        for (key, value) in records {
            if let Some((last, _)) = staged.last() {
                assert!(last < key, "staged {key:?} does not come after {last:?}");
            }
            staged.push((key.clone(), value.clone()));
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<StagedSnapshot> {
        let mut inner = lock(&self.engine);
        inner.check_space()?;
        if inner.incarnation != self.incarnation {
            return Err(Error::Refused("the engine crashed while records were staged".into()));
        }
        let id = inner.next_staged_id;
        inner.next_staged_id += 1;
        let records = self.families.iter().map(|records| records.len() as u64).sum();
        inner.staged.insert(id, self.families);
        Ok(StagedSnapshot { id, records })
    }
}
