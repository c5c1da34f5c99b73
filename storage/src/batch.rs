//! Write batch under construction, over the state that it will change. Reads through the batch see
//! its writes.
//!
//! Several commands are applied before their writes reach the engine in one batch, and each must
//! see the writes of those before it. A read of a key that the batch did not write costs one map
//! lookup more than a read of the engine. A scan of a span without writes costs nothing more.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::iter::Peekable;

use bytes::Bytes;

use crate::span::bounds;
use crate::{ColumnFamily, Direction, Reader, Records, Result, WriteBatch};

/// The newest write of each key of one family; `None` deletes the key.
type Overlay = BTreeMap<Bytes, Option<Bytes>>;

/// Collected writes over the state that they will change. Reads see the writes.
pub struct Batch<'a> {
    state: &'a dyn Reader,
    /// One overlay for each family, by the family's number.
    overlays: [Overlay; ColumnFamily::ALL.len()],
    bytes: usize,
}

impl<'a> Batch<'a> {
    pub fn new(state: &'a dyn Reader) -> Self {
        Self { state, overlays: Default::default(), bytes: 0 }
    }

    pub fn put(&mut self, cf: ColumnFamily, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.set(cf, key.into(), Some(value.into()));
    }

    /// Deletes a key, which need not exist.
    pub fn delete(&mut self, cf: ColumnFamily, key: impl Into<Bytes>) {
        self.set(cf, key.into(), None);
    }

    fn set(&mut self, cf: ColumnFamily, key: Bytes, value: Option<Bytes>) {
        let key_bytes = key.len();
        self.bytes += key_bytes + value.as_ref().map_or(0, Bytes::len);
        if let Some(replaced) = self.overlays[cf as usize].insert(key, value) {
            self.bytes -= key_bytes + replaced.map_or(0, |value| value.len());
        }
    }

    /// True if nothing was written since the start, or the last [`Batch::take`].
    pub fn is_empty(&self) -> bool {
        self.overlays.iter().all(BTreeMap::is_empty)
    }

    /// Bytes of the collected keys and values, each key counted once.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the collected writes, sorted by family and then by key, each key once. Empties the
    /// batch: until the writes reach the state, reads show the state without them.
    pub fn take(&mut self) -> WriteBatch {
        self.bytes = 0;
        let mut batch = WriteBatch::default();
        for (cf, overlay) in ColumnFamily::ALL.into_iter().zip(&mut self.overlays) {
            for (key, value) in std::mem::take(overlay) {
                match value {
                    Some(value) => batch.put(cf, key, value),
                    None => batch.delete(cf, key),
                }
            }
        }
        batch
    }

    /// Consumes the batch and returns its writes, as [`Batch::take`] does.
    pub fn into_writes(mut self) -> WriteBatch {
        self.take()
    }
}

impl Reader for Batch<'_> {
    fn get(&self, cf: ColumnFamily, key: &[u8]) -> Result<Option<Bytes>> {
        match self.overlays[cf as usize].get(key) {
            Some(written) => Ok(written.clone()),
            None => self.state.get(cf, key),
        }
    }

    fn scan<'b>(
        &'b self,
        cf: ColumnFamily,
        start: &[u8],
        end: &[u8],
        direction: Direction,
    ) -> Result<Box<dyn Records + 'b>> {
        let below = self.state.scan(cf, start, end, direction)?;
        let Some(bounds) = bounds(start, end) else { return Ok(below) };
        let range = self.overlays[cf as usize].range::<[u8], _>(bounds);
        if range.clone().next().is_none() {
            return Ok(below);
        }
        let written: Written<'b> = match direction {
            Direction::Forward => Box::new(range),
            Direction::Reverse => Box::new(range.rev()),
        };
        Ok(Box::new(Merged { written: written.peekable(), below: Below::new(below), direction }))
    }
}

type Written<'a> = Box<dyn Iterator<Item = (&'a Bytes, &'a Option<Bytes>)> + 'a>;

/// Merge of the batch's writes and the records below them.
struct Merged<'a> {
    written: Peekable<Written<'a>>,
    below: Below<'a>,
    direction: Direction,
}

impl Records for Merged<'_> {
    fn next(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        loop {
            self.below.load()?;
            let order = match (self.written.peek(), self.below.loaded) {
                (None, false) => return Ok(None),
                (None, true) => Ordering::Greater,
                (Some(_), false) => Ordering::Less,
                (Some((key, _)), true) => match self.direction {
                    Direction::Forward => key[..].cmp(&self.below.key),
                    Direction::Reverse => self.below.key[..].cmp(key),
                },
            };
            if order.is_ge() {
                self.below.loaded = false;
            }
            if order.is_gt() {
                return Ok(Some((&self.below.key, &self.below.value)));
            }
            if let Some((key, Some(value))) = self.written.next() {
                return Ok(Some((key, value)));
            }
        }
    }
}

/// Iterator with its next record copied out, so that the record can be compared before it is
/// returned.
struct Below<'a> {
    records: Box<dyn Records + 'a>,
    key: Vec<u8>,
    value: Vec<u8>,
    /// True if key and value hold a record that was not returned yet.
    loaded: bool,
}

impl<'a> Below<'a> {
    fn new(records: Box<dyn Records + 'a>) -> Self {
        Self { records, key: Vec::new(), value: Vec::new(), loaded: false }
    }

    fn load(&mut self) -> Result<()> {
        if self.loaded {
            return Ok(());
        }
        if let Some((key, value)) = self.records.next()? {
            self.key.clear();
            self.key.extend_from_slice(key);
            self.value.clear();
            self.value.extend_from_slice(value);
            self.loaded = true;
        }
        Ok(())
    }
}
