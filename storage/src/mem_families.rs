//! Column families as copy-on-write maps: both the in-memory state and a snapshot of it.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::collect_bounds::CollectBounds;
use crate::span::bounds;
use crate::{
    ColumnFamily, Direction, Reader, Records, Result, Span, Write, WriteBatch, is_collectable,
};

type Map = BTreeMap<Bytes, Bytes>;

/// One map for each family, by its number. A clone shares the maps until either side is written.
#[derive(Clone, Default)]
pub(crate) struct Families {
    maps: [Arc<Map>; ColumnFamily::ALL.len()],
    /// Number of reads of data records, by readers of this value and of its clones.
    data_reads: Arc<AtomicU64>,
}

impl Families {
    pub(crate) fn data_reads(&self) -> u64 {
        self.data_reads.load(Ordering::Relaxed)
    }

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

    /// Drops records in the span that no reader sees at the bounds. Returns their number.
    pub(crate) fn collect(&mut self, cf: ColumnFamily, span: &Span, at: &CollectBounds) -> usize {
        let Some(within) = bounds(&span.start, &span.end) else { return 0 };
        let records = self.maps[cf as usize].range::<[u8], _>(within);
        let gone = records.filter(|(key, value)| is_collectable(cf, value, at.at(key)));
        let gone: Vec<Bytes> = gone.map(|(key, _)| key.clone()).collect();
        for key in &gone {
            self.map_mut(cf).remove(key);
        }
        gone.len()
    }

    /// Draws a span: everything, or the keys between two keys of the family.
    pub(crate) fn draw_span(&self, cf: ColumnFamily, rng: &mut fastrand::Rng) -> Span {
        let map = &self.maps[cf as usize];
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
            map: Arc::clone(&self.maps[cf as usize]),
            data_reads: is_data(cf).then(|| Arc::clone(&self.data_reads)),
            start: Bytes::copy_from_slice(start),
            end: Bytes::copy_from_slice(end),
            direction,
            last: None,
        }
    }

    fn map_mut(&mut self, cf: ColumnFamily) -> &mut Map {
        Arc::make_mut(&mut self.maps[cf as usize])
    }
}

fn is_data(cf: ColumnFamily) -> bool {
    ColumnFamily::DATA.contains(&cf)
}

impl Reader for Families {
    fn get(&self, cf: ColumnFamily, key: &[u8]) -> Result<Option<Bytes>> {
        if is_data(cf) {
            self.data_reads.fetch_add(1, Ordering::Relaxed);
        }
        Ok(self.maps[cf as usize].get(key).cloned())
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

/// Iterator over a shared map. It looks up its position again for each record: a map iterator would
/// have to borrow from the map that this struct keeps alive.
pub(crate) struct MemRecords {
    map: Arc<Map>,
    /// Counter of read records, if they are data.
    data_reads: Option<Arc<AtomicU64>>,
    start: Bytes,
    end: Bytes,
    direction: Direction,
    last: Option<(Bytes, Bytes)>,
}

impl Records for MemRecords {
    fn next(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        if let Some(reads) = &self.data_reads {
            reads.fetch_add(1, Ordering::Relaxed);
        }
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
