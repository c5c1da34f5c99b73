//! Stream of a range's records to another node, in chunks that the receiver checks.
//!
//! The sender reads a [`Span`] from an unchanging view of the state ([`ChunkReader`]). Compaction
//! may still drop records from the view. The caller of the reader ensures that the receiver needs
//! none of them, or does not finish the stream (`Compaction::collected_up_to`). The receiver checks
//! each chunk before it stages the chunk's records ([`ChunkReceiver`]), and the whole stream before
//! the staged snapshot gets a name. The server converts chunks to wire messages; the simulator does
//! not. Both make the same checks.
//!
//! Invariants of a stream: families come in the order of [`ColumnFamily::DATA`], with keys
//! ascending within them; every key is within the span; every chunk has one family and is never
//! empty.

use std::sync::Arc;

use bytes::Bytes;

use crate::{ColumnFamily, Direction, Error, Reader, Result, Span, StagedSnapshot, Staging};

/// Bytes at which a chunk ends, including the record that reaches them. Large enough that a seek
/// and a message each cost little in comparison. Small enough that a stream holds little memory and
/// that the default limit on a gRPC message, 4 MiB, leaves room for the longest record.
pub const SNAPSHOT_CHUNK_BYTES: usize = 1 << 20;

/// Records of one family, in key order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chunk {
    pub cf: ColumnFamily,
    pub records: Vec<(Bytes, Bytes)>,
    /// Checksum by [`chunk_crc32`].
    pub crc32: u32,
}

/// Totals of a whole stream, sent behind its last chunk.
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

/// Running totals of chunks, computed in the same way at both ends.
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

/// Reads a span as chunks. Between two chunks it holds only the reader of the engine.
pub struct ChunkReader {
    state: Arc<dyn Reader>,
    span: Span,
    /// Index in [`ColumnFamily::DATA`] of the family being read.
    family: usize,
    /// Lower bound of the next chunk's keys.
    from: Bytes,
    totals: Totals,
}

impl ChunkReader {
    pub fn new(state: Arc<dyn Reader>, span: Span) -> Self {
        let from = span.start.clone();
        Self { state, span, family: 0, from, totals: Totals::default() }
    }

    /// Reads the next chunk; `None` behind the last.
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

    /// Returns the totals of the stream. All chunks must have been read.
    pub fn finish(self) -> SnapshotTotals {
        assert_eq!(self.family, ColumnFamily::DATA.len(), "chunks are left");
        self.totals.finish()
    }
}

/// Checks chunks and stages their records. If it is dropped before it has finished, nothing is left
/// behind.
pub struct ChunkReceiver {
    staging: Box<dyn Staging>,
    span: Span,
    /// Family and key of the last record.
    last: Option<(ColumnFamily, Bytes)>,
    totals: Totals,
}

impl ChunkReceiver {
    /// Receives records of the span; any other would end up in a range that it does not belong to.
    pub fn new(staging: Box<dyn Staging>, span: Span) -> Self {
        Self { staging, span, last: None, totals: Totals::default() }
    }

    /// Checks a chunk and stages its records.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if a [`ChunkReader`] could not have sent the chunk next; errors of the
    /// staging.
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

    /// Checks the totals and makes the staged records durable.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if records are missing; errors of the staging.
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
