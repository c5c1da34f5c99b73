//! Range snapshots between nodes. Each is a stream of its own, apart from heartbeats.
//!
//! Both directions are bounded. Few snapshots are sent at once and few received, and a sender reads
//! no faster than the receiver stages. A snapshot that finds no place is refused at once and tried
//! again later. No part of a snapshot is visible before all of it has arrived, is checked and
//! durable. A stream that breaks off leaves nothing behind.

mod pace;
mod receive;
mod send;

use rangedb_proto::v1::{SnapshotData, SnapshotRecord, SnapshotTrailer};
use rangedb_storage::{Chunk, ColumnFamily, SnapshotTotals};

pub(crate) use receive::SnapshotReceiver;
pub(crate) use send::SnapshotSender;

/// Chunks between disk and network: one is read while another is sent.
const CHUNKS_AHEAD: usize = 2;

fn to_wire(chunk: Chunk) -> SnapshotData {
    let record = |(key, value)| SnapshotRecord { key, value };
    SnapshotData {
        column_family: chunk.cf as u32,
        records: chunk.records.into_iter().map(record).collect(),
        crc32: chunk.crc32,
    }
}

fn from_wire(data: SnapshotData) -> Option<Chunk> {
    let cf = ColumnFamily::from_number(data.column_family)?;
    let records = data.records.into_iter().map(|record| (record.key, record.value)).collect();
    Some(Chunk { cf, records, crc32: data.crc32 })
}

fn totals_to_wire(totals: SnapshotTotals) -> SnapshotTrailer {
    SnapshotTrailer { records: totals.records, crc32: totals.crc32 }
}

fn totals_from_wire(trailer: SnapshotTrailer) -> SnapshotTotals {
    SnapshotTotals { records: trailer.records, crc32: trailer.crc32 }
}

#[cfg(test)]
mod tests;
