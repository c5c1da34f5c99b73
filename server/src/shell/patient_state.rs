//! State engine of the stores, whose writes wait for room on the disk. An error instead would end
//! the process when a committed command cannot be applied, and the next start would find the
//! command again.

use std::sync::Arc;

use bytes::Bytes;
use rangedb_storage::{
    ColumnFamily, Direction, Install, Reader, Records, Result, RocksState, Span, StagedSnapshot,
    Staging, StateEngine, WriteBatch,
};

use crate::shell::disk_watch::DiskWatch;

/// State engine whose writes wait for room on the disk.
pub(crate) struct PatientState {
    state: Arc<RocksState>,
    disk: Arc<DiskWatch>,
}

impl PatientState {
    pub fn new(state: Arc<RocksState>, disk: Arc<DiskWatch>) -> Self {
        PatientState { state, disk }
    }
}

impl Reader for PatientState {
    fn get(&self, cf: ColumnFamily, key: &[u8]) -> Result<Option<Bytes>> {
        self.state.get(cf, key)
    }

    fn scan<'a>(
        &'a self,
        cf: ColumnFamily,
        start: &[u8],
        end: &[u8],
        direction: Direction,
    ) -> Result<Box<dyn Records + 'a>> {
        self.state.scan(cf, start, end, direction)
    }
}

impl StateEngine for PatientState {
    fn snapshot(&self) -> Arc<dyn Reader> {
        self.state.snapshot()
    }

    fn write(&self, batch: WriteBatch) -> Result<()> {
        // The clone shares the bytes.
        self.disk.insist("apply commands", 0, || self.state.write(batch.clone()))
    }

    fn flush(&self) -> Result<()> {
        self.disk.insist("flush the state", 0, || self.state.flush())
    }

    fn stage(&self) -> Result<Box<dyn Staging>> {
        self.state.stage()
    }

    fn install(&self, install: Install) -> Result<()> {
        self.disk.insist("install a snapshot", 0, || self.state.install(install.clone()))
    }

    fn discard(&self, staged: StagedSnapshot) -> Result<()> {
        self.state.discard(staged)
    }

    fn approximate_bytes(&self, span: &Span) -> Result<u64> {
        self.state.approximate_bytes(span)
    }
}
