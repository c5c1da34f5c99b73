//! Spans of stored keys.

use std::ops::Bound;

use crate::Span;

pub(crate) type KeyBounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// Converts `[start, end)` to bounds of an ordered map; an empty `end` has no end. `None` if no key
/// can be in it: the map panics on such bounds.
pub(crate) fn bounds<'a>(start: &'a [u8], end: &'a [u8]) -> Option<KeyBounds<'a>> {
    if end.is_empty() {
        return Some((Bound::Included(start), Bound::Unbounded));
    }
    (start < end).then_some((Bound::Included(start), Bound::Excluded(end)))
}

impl Span {
    /// The span of all keys.
    pub fn everything() -> Self {
        Self::default()
    }

    pub fn contains(&self, key: &[u8]) -> bool {
        *self.start <= *key && (self.end.is_empty() || *key < *self.end)
    }

    /// True if no key can be in the span.
    pub fn is_empty(&self) -> bool {
        !self.end.is_empty() && self.start >= self.end
    }
}
