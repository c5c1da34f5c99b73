//! A timestamp for each stored key, as a step function.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

use crate::Span;

/// A timestamp for each stored key. A piece begins at each key of the map and ends where the next
/// one begins. Below the first key the timestamp is 0, and at first it is 0 everywhere.
///
/// Invariant: neighbouring pieces differ, so there are at most two for each span ever changed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct CollectBounds {
    pieces: BTreeMap<Bytes, u64>,
}

impl CollectBounds {
    pub fn at(&self, key: &[u8]) -> u64 {
        self.piece_around(key).1
    }

    /// Returns the bound of the key, and the span around the key that has this bound.
    pub fn piece_around(&self, key: &[u8]) -> (Span, u64) {
        let up_to = (Bound::Unbounded, Bound::Included(key));
        let below = self.pieces.range::<[u8], _>(up_to).next_back();
        let (start, bound) =
            below.map_or((Bytes::new(), 0), |(start, bound)| (start.clone(), *bound));
        let behind = (Bound::Excluded(key), Bound::Unbounded);
        let end = self.pieces.range::<[u8], _>(behind).next();
        (Span { start, end: end.map_or(Bytes::new(), |(end, _)| end.clone()) }, bound)
    }

    /// Returns the highest bound of a key in the span.
    pub fn highest(&self, span: &Span) -> u64 {
        let pieces = self.pieces.range(span.start.clone()..);
        let within = pieces.take_while(|(start, _)| span.contains(start)).map(|(_, bound)| *bound);
        within.fold(self.at(&span.start), u64::max)
    }

    /// Raises bounds in the span that are lower than `bound`.
    pub fn raise(&mut self, span: &Span, bound: u64) {
        self.change(span, |old| old.max(bound));
    }

    /// Resets the bounds in the span to 0.
    pub fn clear(&mut self, span: &Span) {
        self.change(span, |_| 0);
    }

    /// Raises every key's bound that is lower than the other's.
    pub fn raise_to(&mut self, other: &CollectBounds) {
        for (piece, bound) in other.pieces() {
            self.raise(&piece, bound);
        }
    }

    /// The pieces in ascending order, without the one below the first key.
    fn pieces(&self) -> impl Iterator<Item = (Span, u64)> {
        let ends = self.pieces.keys().skip(1).cloned().chain([Bytes::new()]);
        self.pieces
            .iter()
            .zip(ends)
            .map(|((start, bound), end)| (Span { start: start.clone(), end }, *bound))
    }

    fn change(&mut self, span: &Span, change: impl Fn(u64) -> u64) {
        if span.is_empty() {
            return;
        }
        self.cut_at(&span.start);
        if !span.end.is_empty() {
            self.cut_at(&span.end);
        }
        for (start, bound) in self.pieces.range_mut(span.start.clone()..) {
            if !span.contains(start) {
                break;
            }
            *bound = change(*bound);
        }
        self.join_neighbours(span);
    }

    /// Removes pieces with the same bound as the piece before them, within the span and at its end.
    fn join_neighbours(&mut self, span: &Span) {
        let below = self.pieces.range(..span.start.clone()).next_back();
        let mut before = below.map_or(0, |(_, bound)| *bound);
        let mut joined = Vec::new();
        for (start, bound) in self.pieces.range(span.start.clone()..) {
            if std::mem::replace(&mut before, *bound) == *bound {
                joined.push(start.clone());
            }
            if !span.contains(start) {
                break;
            }
        }
        for start in joined {
            self.pieces.remove(&start);
        }
    }

    fn cut_at(&mut self, key: &Bytes) {
        let bound = self.at(key);
        self.pieces.insert(key.clone(), bound);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(start: &'static str, end: &'static str) -> Span {
        Span { start: start.into(), end: end.into() }
    }

    /// Compares with an array that holds the bound of each key.
    #[test]
    fn bounds_are_those_of_the_changes_key_by_key() {
        let keys: Vec<Bytes> = (b'a'..=b'p').map(|byte| Bytes::from(vec![byte])).collect();
        let mut rng = fastrand::Rng::with_seed(1);
        for _ in 0..500 {
            let (mut bounds, mut expected) = (CollectBounds::default(), vec![0; keys.len()]);
            for _ in 0..rng.usize(1..12) {
                let (from, to) = (rng.usize(0..keys.len()), rng.usize(0..=keys.len()));
                let end = keys.get(to).cloned().unwrap_or_default();
                let changed = Span { start: keys[from].clone(), end };
                let bound = rng.u64(1..5);
                let clears = rng.u8(0..4) == 0;
                match clears {
                    true => bounds.clear(&changed),
                    false => bounds.raise(&changed, bound),
                }
                for old in expected.get_mut(from..to).unwrap_or_default() {
                    *old = if clears { 0 } else { bound.max(*old) };
                }
            }
            let found: Vec<u64> = keys.iter().map(|key| bounds.at(key)).collect();
            assert_eq!(found, expected, "{bounds:?}");
            for key in &keys {
                let (span, bound) = bounds.piece_around(key);
                assert!(span.contains(key) && bound == bounds.at(&span.start), "{bounds:?}");
                assert!(span.end.is_empty() || bound != bounds.at(&span.end), "{bounds:?}");
            }
            for (from, key) in keys.iter().enumerate() {
                let to = rng.usize(from + 1..=keys.len());
                let span =
                    Span { start: key.clone(), end: keys.get(to).cloned().unwrap_or_default() };
                let highest = expected[from..to].iter().max();
                assert_eq!(Some(&bounds.highest(&span)), highest, "{span:?} of {bounds:?}");
            }
            let pieces: Vec<_> = bounds.pieces().map(|(_, bound)| bound).collect();
            assert!(pieces.windows(2).all(|pair| pair[0] != pair[1]), "{bounds:?}");
            let mut merged = CollectBounds::default();
            merged.raise(&span("c", "f"), 3);
            merged.raise_to(&bounds);
            for (key, expected) in keys.iter().zip(expected) {
                let least = if span("c", "f").contains(key) { 3 } else { 0 };
                assert_eq!(merged.at(key), expected.max(least), "{key:?}");
            }
        }
    }

    #[test]
    fn a_bound_for_everything_holds_from_the_first_key_on() {
        let mut bounds = CollectBounds::default();
        bounds.raise(&Span::everything(), 7);
        bounds.raise(&span("b", "c"), 5);
        assert_eq!((bounds.at(b""), bounds.at(b"bb"), bounds.at(b"\xff\xff")), (7, 7, 7));
        bounds.clear(&span("b", "c"));
        assert_eq!((bounds.at(b"az"), bounds.at(b"b"), bounds.at(b"c")), (7, 0, 7));
    }
}
