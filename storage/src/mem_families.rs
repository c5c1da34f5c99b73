//! Column families as copy-on-write maps: at once the in-memory state and a snapshot of it.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use crate::bounds::Bounds;
use crate::span::bounds;
use crate::{
    ColumnFamily, Direction, Reader, Records, Result, Span, Write, WriteBatch, is_collectable,
};

type Map = BTreeMap<Bytes, Bytes>;

/// One map for each family, by its number. A clone shares them until either side is written.
#[derive(Clone, Default)]
pub(crate) struct Families([Arc<Map>; ColumnFamily::ALL.len()]);

impl Families {
    pub(crate) fn apply(&mut self, batch: &WriteBatch) {
        for write in &batch.writes {
            match write {
                Write::Put { cf, key, value } => {
                    self.map_mut(*cf).insert(key.clone(), value.clone());
                }
                Write::Delete { cf, key } => {
                    self.map_mut(*cf).remove(key);
                }
                Write::DeleteSpan { cf, span } => {
                    if span.is_empty() {
                        continue;
                    }
                    let Span { start, end } = span;
                    let to = if end.is_empty() { Bound::Unbounded } else { Bound::Excluded(end) };
                    let dropped = (Bound::Included(start), to);
                    self.map_mut(*cf).extract_if(dropped, |_, _| true).for_each(drop);
                }
            }
        }
    }

    /// Drops what is out of sight at the bounds in the span. Returns how many records that were.
    pub(crate) fn collect(&mut self, cf: ColumnFamily, span: &Span, at: &Bounds) -> usize {
        let Some(within) = bounds(&span.start, &span.end) else { return 0 };
        let records = self.0[cf as usize].range::<[u8], _>(within);
        let gone = records.filter(|(key, value)| is_collectable(cf, value, at.at(key)));
        let gone: Vec<Bytes> = gone.map(|(key, _)| key.clone()).collect();
        for key in &gone {
            self.map_mut(cf).remove(key);
        }
        gone.len()
    }

    /// Everything, or what lies between two keys of the family.
    pub(crate) fn draw_span(&self, cf: ColumnFamily, rng: &mut fastrand::Rng) -> Span {
        let map = &self.0[cf as usize];
        if map.is_empty() || rng.bool() {
            return Span::everything();
        }
        let mut draw = || map.keys().nth(rng.usize(0..map.len())).expect("so many").clone();
        let (one, other) = (draw(), draw());
        Span { start: one.clone().min(other.clone()), end: one.max(other) }
    }

    pub(crate) fn records(
        &self,
        cf: ColumnFamily,
        start: &[u8],
        end: &[u8],
        direction: Direction,
    ) -> MemRecords {
        MemRecords {
            map: Arc::clone(&self.0[cf as usize]),
            start: Bytes::copy_from_slice(start),
            end: Bytes::copy_from_slice(end),
            direction,
            last: None,
        }
    }

    fn map_mut(&mut self, cf: ColumnFamily) -> &mut Map {
        Arc::make_mut(&mut self.0[cf as usize])
    }
}

impl Reader for Families {
    fn get(&self, cf: ColumnFamily, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.0[cf as usize].get(key).cloned())
    }

    fn scan<'a>(
        &'a self,
        cf: ColumnFamily,
        start: &[u8],
        end: &[u8],
        direction: Direction,
    ) -> Result<Box<dyn Records + 'a>> {
        Ok(Box::new(self.records(cf, start, end, direction)))
    }
}

/// A walk over a map it shares. It finds its place again for each record: an iterator would have to
/// borrow from the map that it keeps alive.
pub(crate) struct MemRecords {
    map: Arc<Map>,
    start: Bytes,
    end: Bytes,
    direction: Direction,
    last: Option<(Bytes, Bytes)>,
}

impl Records for MemRecords {
    fn next(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        let next = bounds(&self.start, &self.end).and_then(|(mut from, mut to)| {
            match (self.direction, &self.last) {
                (_, None) => {}
                (Direction::Forward, Some((key, _))) => from = Bound::Excluded(&key[..]),
                (Direction::Reverse, Some((key, _))) => to = Bound::Excluded(&key[..]),
            }
            let mut range = self.map.range::<[u8], _>((from, to));
            let record = match self.direction {
                Direction::Forward => range.next(),
                Direction::Reverse => range.next_back(),
            };
            record.map(|(key, value)| (key.clone(), value.clone()))
        });
        let Some(next) = next else { return Ok(None) };
        let (key, value) = self.last.insert(next);
        Ok(Some((key, value)))
    }
}
