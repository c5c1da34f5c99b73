//! A range's records on their way to another node, in chunks that are checked at the far end.
//!
//! The sender reads a [`Span`] out of a state that does not move ([`ChunkReader`]), but for what
//! compaction drops: whoever drives the reader sees to it that this is nothing that the receiver needs,
//! or does not end the stream (`Compaction::collected_up_to`). The receiver checks each chunk before it
//! stages its records ([`ChunkReceiver`]), and the whole before the staged snapshot gets a name. Wire
//! messages are made of chunks by the server, and by nobody in the simulator; what is checked is the
//! same.
//!
//! Invariants of a stream: families in the order of [`ColumnFamily::DATA`], keys ascending within
//! them, every key within the span, every chunk of one family and never empty.

use std::sync::Arc;

use bytes::Bytes;

use crate::{ColumnFamily, Direction, Error, Reader, Result, Span, StagedSnapshot, Staging};

/// A chunk ends with the record that reaches this. Large enough that a seek and a message each cost
/// little against it, small enough that a stream holds little memory and that the default limit on
/// a gRPC message, 4 MiB, leaves room for the longest record.
pub const SNAPSHOT_CHUNK_BYTES: usize = 1 << 20;

/// Records of one family, in key order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chunk {
    pub cf: ColumnFamily,
    pub records: Vec<(Bytes, Bytes)>,
    /// See [`chunk_crc32`].
    pub crc32: u32,
}

/// What the whole stream held, sent behind its last chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotTotals {
    pub records: u64,
    /// CRC-32 over the chunks' checksums, each as 4 little-endian bytes, in order.
    pub crc32: u32,
}

/// CRC-32 of the family's number as one byte and then of each record: length of the key and length
/// of the value as 4 little-endian bytes each, key, value.
pub fn chunk_crc32(cf: ColumnFamily, records: &[(Bytes, Bytes)]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&[cf as u8]);
    for (key, value) in records {
        crc.update(&(key.len() as u32).to_le_bytes());
        crc.update(&(value.len() as u32).to_le_bytes());
        crc.update(key);
        crc.update(value);
    }
    crc.finalize()
}

/// Counts and sums chunks, the same at both ends.
#[derive(Default)]
struct Totals {
    records: u64,
    crc: crc32fast::Hasher,
}

impl Totals {
    fn add(&mut self, chunk: &Chunk) {
        self.records += chunk.records.len() as u64;
        self.crc.update(&chunk.crc32.to_le_bytes());
    }

    fn finish(self) -> SnapshotTotals {
        SnapshotTotals { records: self.records, crc32: self.crc.finalize() }
    }
}

/// Reads a span as chunks. Between two chunks nothing of the engine is held but the reader.
pub struct ChunkReader {
    state: Arc<dyn Reader>,
    span: Span,
    /// Place in [`ColumnFamily::DATA`] of the family that is being read.
    family: usize,
    /// Where the next chunk of it begins.
    from: Bytes,
    totals: Totals,
}

impl ChunkReader {
    pub fn new(state: Arc<dyn Reader>, span: Span) -> Self {
        let from = span.start.clone();
        Self { state, span, family: 0, from, totals: Totals::default() }
    }

    /// The next chunk; `None` behind the last.
    pub fn next_chunk(&mut self) -> Result<Option<Chunk>> {
        while let Some(cf) = ColumnFamily::DATA.get(self.family).copied() {
            let records = self.read(cf)?;
            let Some((last, _)) = records.last() else {
                self.family += 1;
                self.from = self.span.start.clone();
                continue;
            };
            // The least key above the last one read.
            self.from = [&last[..], &[0]].concat().into();
            let chunk = Chunk { cf, crc32: chunk_crc32(cf, &records), records };
            self.totals.add(&chunk);
            return Ok(Some(chunk));
        }
        Ok(None)
    }

    fn read(&self, cf: ColumnFamily) -> Result<Vec<(Bytes, Bytes)>> {
        let mut walk = self.state.scan(cf, &self.from, &self.span.end, Direction::Forward)?;
        let mut records = Vec::new();
        let mut bytes = 0;
        while bytes < SNAPSHOT_CHUNK_BYTES {
            let Some((key, value)) = walk.next()? else { break };
            bytes += key.len() + value.len();
            records.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
        }
        Ok(records)
    }

    /// What was read. All chunks must have been taken.
    pub fn finish(self) -> SnapshotTotals {
        assert_eq!(self.family, ColumnFamily::DATA.len(), "chunks are left");
        self.totals.finish()
    }
}

/// Checks chunks and stages their records. Dropped before it has finished, it leaves nothing behind.
pub struct ChunkReceiver {
    staging: Box<dyn Staging>,
    span: Span,
    /// Family and key of the last record.
    last: Option<(ColumnFamily, Bytes)>,
    totals: Totals,
}

impl ChunkReceiver {
    /// Of records within the span; any other would end up in a range that it does not belong to.
    pub fn new(staging: Box<dyn Staging>, span: Span) -> Self {
        Self { staging, span, last: None, totals: Totals::default() }
    }

    /// # Errors
    /// [`Error::Corrupt`] if the chunk is not what a [`ChunkReader`] could have sent next; whatever
    /// the staging answers.
    pub fn add(&mut self, chunk: &Chunk) -> Result<()> {
        let Chunk { cf, records, crc32 } = chunk;
        let found = chunk_crc32(*cf, records);
        if found != *crc32 {
            let message = format!("a snapshot chunk with checksum {found:08x}, not {crc32:08x}");
            return Err(Error::corrupt(message));
        }
        self.check_order(*cf, records)?;
        self.staging.add(*cf, records)?;
        self.totals.add(chunk);
        Ok(())
    }

    fn check_order(&mut self, cf: ColumnFamily, records: &[(Bytes, Bytes)]) -> Result<()> {
        let Some((newest, _)) = records.last() else {
            return Err(Error::corrupt("a snapshot chunk without records"));
        };
        if !ColumnFamily::DATA.contains(&cf) {
            return Err(Error::corrupt(format!("a snapshot chunk of {}", cf.name())));
        }
        let mut before = self.last.as_ref().map(|(cf, key)| (*cf, &key[..]));
        for (key, _) in records {
            if !self.span.contains(key) {
                return Err(Error::corrupt(format!("a snapshot with {key:?}, not of its range")));
            }
            if before.is_some_and(|before| before >= (cf, key)) {
                return Err(Error::corrupt(format!("a snapshot with {key:?} out of order")));
            }
            before = Some((cf, key));
        }
        self.last = Some((cf, newest.clone()));
        Ok(())
    }

    /// Checks the whole and makes it durable.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if records are missing; whatever the staging answers.
    pub fn finish(self, sent: SnapshotTotals) -> Result<StagedSnapshot> {
        let received = self.totals.finish();
        if received != sent {
            return Err(Error::corrupt(format!("a snapshot of {received:?}, not of {sent:?}")));
        }
        let staged = self.staging.finish()?;
        assert_eq!(staged.records, sent.records, "the engine staged another number of records");
        Ok(staged)
    }
}
