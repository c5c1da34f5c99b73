//! Reads of RocksDB: points, scans, snapshots.

use std::mem::transmute;
use std::sync::{Arc, RwLockReadGuard};

use bytes::Bytes;
use rocksdb::{DB, DBRawIterator, ReadOptions, Snapshot};

use super::Engine;
use super::errors::engine_error;
use crate::{ColumnFamily, Direction, Reader, Records, Result};

impl Engine {
    /// Locks the view while a read begins, so that the read sees all of an install or nothing.
    pub(super) fn view(&self) -> RwLockReadGuard<'_, ()> {
        self.view.read().expect("a thread panicked in the middle of an install")
    }

    pub(super) fn get(
        &self,
        cf: ColumnFamily,
        key: &[u8],
        options: &ReadOptions,
    ) -> Result<Option<Bytes>> {
        let found = self.db.get_pinned_cf_opt(self.family(cf), key, options);
        Ok(found.map_err(engine_error)?.map(|value| Bytes::copy_from_slice(&value)))
    }

    pub(super) fn records(
        &self,
        cf: ColumnFamily,
        start: &[u8],
        end: &[u8],
        direction: Direction,
        mut options: ReadOptions,
    ) -> RocksRecords<'_> {
        options.set_iterate_lower_bound(start);
        if !end.is_empty() {
            options.set_iterate_upper_bound(end);
        }
        let iterator = self.db.raw_iterator_cf_opt(self.family(cf), options);
        // With reversed bounds an iterator may show anything.
        let place =
            if !end.is_empty() && start >= end { ScanPosition::Ended } else { ScanPosition::Begin };
        RocksRecords { iterator, direction, place }
    }
}

/// Position of a scan.
#[derive(PartialEq, Eq)]
enum ScanPosition {
    Begin,
    OnRecord,
    Ended,
}

/// Scan within the bounds of its iterator.
pub(super) struct RocksRecords<'a> {
    iterator: DBRawIterator<'a>,
    direction: Direction,
    place: ScanPosition,
}

impl Records for RocksRecords<'_> {
    fn next(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        match (&self.place, self.direction) {
            (ScanPosition::Ended, _) => return Ok(None),
            (ScanPosition::Begin, Direction::Forward) => self.iterator.seek_to_first(),
            (ScanPosition::Begin, Direction::Reverse) => self.iterator.seek_to_last(),
            (ScanPosition::OnRecord, Direction::Forward) => self.iterator.next(),
            (ScanPosition::OnRecord, Direction::Reverse) => self.iterator.prev(),
        }
        if !self.iterator.valid() {
            self.place = ScanPosition::Ended;
            self.iterator.status().map_err(engine_error)?;
            return Ok(None);
        }
        self.place = ScanPosition::OnRecord;
        Ok(self.iterator.item())
    }
}

/// Reader of the state as of one moment.
pub(super) struct RocksSnapshot {
    /// Options that name the snapshot, for point reads.
    options: ReadOptions,
    // Dropped before the engine that it belongs to: fields are dropped in this order.
    snapshot: Snapshot<'static>,
    engine: Arc<Engine>,
}

impl RocksSnapshot {
    pub(super) fn new(engine: &Arc<Engine>) -> Self {
        let engine = Arc::clone(engine);
        let snapshot = engine.db.snapshot();
        // SAFETY: the snapshot borrows the database, which stands at one place in memory within the
        // Arc. This struct holds that Arc for longer than the snapshot (see the order of its
        // fields), nothing moves the database out of it, and the lifetime made up here does not
        // leave this struct.
        let snapshot = unsafe { transmute::<Snapshot<'_>, Snapshot<'static>>(snapshot) };
        let mut options = ReadOptions::default();
        options.set_snapshot::<DB>(&snapshot);
        Self { options, snapshot, engine }
    }
}

impl Reader for RocksSnapshot {
    fn get(&self, cf: ColumnFamily, key: &[u8]) -> Result<Option<Bytes>> {
        self.engine.get(cf, key, &self.options)
    }

    fn scan<'a>(
        &'a self,
        cf: ColumnFamily,
        start: &[u8],
        end: &[u8],
        direction: Direction,
    ) -> Result<Box<dyn Records + 'a>> {
        let mut options = ReadOptions::default();
        options.set_snapshot::<DB>(&self.snapshot);
        Ok(Box::new(self.engine.records(cf, start, end, direction, options)))
    }
}
