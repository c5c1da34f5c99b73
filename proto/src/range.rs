//! Methods of a range descriptor about keys, replicas and epochs.

use crate::v1::{Epoch, RangeDescriptor, Replica, ReplicaRole};

/// Methods of a [`RangeDescriptor`]. An empty end key means that the range has no end.
pub trait RangeDescriptorExt {
    /// True if the range holds the key.
    fn contains(&self, key: &[u8]) -> bool;
    /// True if the range holds every key of `[start, end)`; an empty `end` has no end.
    fn covers(&self, start: &[u8], end: &[u8]) -> bool;
    /// Returns the epoch, or zeros if none was set.
    fn epoch(&self) -> Epoch;
    fn replica(&self, replica_id: u64) -> Option<&Replica>;
    fn replica_on(&self, node_id: u64) -> Option<&Replica>;
    /// True if a joint-consensus change is under way.
    fn in_joint_change(&self) -> bool;
}

impl RangeDescriptorExt for RangeDescriptor {
    fn contains(&self, key: &[u8]) -> bool {
        self.start_key <= key && (self.end_key.is_empty() || key < &self.end_key[..])
    }

    fn covers(&self, start: &[u8], end: &[u8]) -> bool {
        let end_covered = self.end_key.is_empty() || (!end.is_empty() && end <= &self.end_key[..]);
        self.start_key <= start && end_covered
    }

    fn epoch(&self) -> Epoch {
        self.epoch.unwrap_or_default()
    }

    fn replica(&self, replica_id: u64) -> Option<&Replica> {
        self.replicas.iter().find(|r| r.replica_id == replica_id)
    }

    fn replica_on(&self, node_id: u64) -> Option<&Replica> {
        self.replicas.iter().find(|r| r.node_id == node_id)
    }

    fn in_joint_change(&self) -> bool {
        self.replicas
            .iter()
            .any(|r| matches!(r.role(), ReplicaRole::IncomingVoter | ReplicaRole::OutgoingVoter))
    }
}

/// Returns the first key after all keys that start with `prefix`; empty if there is none.
///
/// Appending a high byte instead would miss keys with a byte above it.
pub fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end;
        }
    }
    end
}

/// Returns the least key above `key`.
pub fn successor(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: &str, end: &str) -> RangeDescriptor {
        RangeDescriptor {
            start_key: start.to_owned().into(),
            end_key: end.to_owned().into(),
            ..Default::default()
        }
    }

    #[test]
    fn contains_its_start_and_not_its_end() {
        let r = range("b", "d");
        assert!(r.contains(b"b") && r.contains(b"c\xff"));
        assert!(!r.contains(b"a") && !r.contains(b"d"));
        assert!(range("", "").contains(b"anything"));
    }

    #[test]
    fn covers_only_what_lies_wholly_inside() {
        let r = range("b", "d");
        assert!(r.covers(b"b", b"d") && r.covers(b"c", b"c"));
        assert!(!r.covers(b"b", b"e") && !r.covers(b"a", b"c") && !r.covers(b"b", b""));
        assert!(range("b", "").covers(b"c", b""));
    }

    #[test]
    fn no_key_lies_between_a_key_and_its_successor() {
        assert_eq!(successor(b"a"), b"a\0");
        assert!(successor(b"a") < b"a\0\0".to_vec() && successor(b"a") < b"a\x01".to_vec());
    }

    #[test]
    fn prefix_end_carries_over_high_bytes() {
        assert_eq!(prefix_end(b"_/"), b"_0");
        assert_eq!(prefix_end(b"a\xff\xff"), b"b");
        assert_eq!(prefix_end(b"\xff"), b"");
        assert_eq!(prefix_end(b""), b"");
    }
}
