//! Writes that are being gathered, over the state they will change: reads through the batch see
//! them already.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{ColumnFamily, Direction, Reader, Records, Result, WriteBatch};

/// Several commands are applied before their writes reach the engine in one batch; each must see
/// what the ones before it wrote.
pub struct Batch<'a> {
    state: &'a dyn Reader,
    /// The newest write of each key; `None` deletes it.
    overlay: BTreeMap<(ColumnFamily, Bytes), Option<Bytes>>,
}
