//! Founding ranges (design, "Key space"). They are computed from the decided formation alone, so
//! every founding node creates the same ones.
//!
//! `--split-keys` gives the users' keys more ranges from the start, for operators who know where
//! the load will be. The ids of these ranges follow those that every cluster has.

use rangedb_proto::v1::{Epoch, Formation, RangeDescriptor, Replica, ReplicaRole};
use rangedb_proto::{KEY_BYTES_MAX, SYSTEM_PREFIX};

/// The range that holds the cluster's own state. Its leader runs the control plane. It never
/// splits.
pub const CONTROL_RANGE_ID: u64 = 3;

/// Start keys of the ranges that every cluster has, in key order; ids count from 1.
const START_KEYS: [&[u8]; 6] = [b"", b"_/", b"_/b", b"_/s", b"_/t", b"_0"];

/// Split keys at most: each makes a range with a Raft group on every node from the first moment on.
const SPLIT_KEYS_MAX: usize = 256;

/// Descriptors of all founding ranges in key order. Each range has as many replicas as the
/// replication factor asks for, on founding nodes. If there are more nodes than that, the replicas
/// are dealt out by rotating over the nodes.
pub fn founding_ranges(formation: &Formation) -> Vec<RangeDescriptor> {
    let splits = formation.split_keys.iter().map(String::as_bytes);
    let mut starts: Vec<(&[u8], u64)> = START_KEYS.into_iter().chain(splits).zip(1..).collect();
    starts.sort_unstable();
    let nodes: Vec<u64> = formation.nodes.iter().map(|node| node.node_id).collect();
    let replicas = (formation.replication_factor as usize).clamp(1, nodes.len());
    let range = |(place, &(start_key, range_id)): (usize, &(&[u8], u64))| {
        let turn = range_id as usize - 1;
        let chosen = (0..replicas).map(|r| nodes[(turn + r) % nodes.len()]);
        let replica = |(id, node_id)| Replica {
            replica_id: id as u64 + 1,
            node_id,
            role: ReplicaRole::Voter.into(),
        };
        let end_key = starts.get(place + 1).map_or(&[][..], |(next, _)| next);
        RangeDescriptor {
            range_id,
            start_key: start_key.to_vec().into(),
            end_key: end_key.to_vec().into(),
            epoch: Some(Epoch { version: 1, conf_ver: 1 }),
            replicas: chosen.enumerate().map(replica).collect(),
            next_replica_id: replicas as u64 + 1,
        }
    };
    starts.iter().enumerate().map(range).collect()
}

/// Refuses split keys at which no founding range can begin. The error is the key and the reason.
pub fn check_split_keys(split_keys: &[String]) -> Result<(), (String, String)> {
    let refuse = |key: &String, reason: String| Err((key.clone(), reason));
    if let Some(first_too_many) = split_keys.get(SPLIT_KEYS_MAX) {
        return refuse(first_too_many, format!("there may be {SPLIT_KEYS_MAX} split keys at most"));
    }
    for key in split_keys {
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return refuse(key, format!("a key has 1 to {KEY_BYTES_MAX} bytes"));
        }
        if key.as_bytes().starts_with(SYSTEM_PREFIX) {
            return refuse(key, "keys that begin with `_/` are the cluster's own".to_owned());
        }
        if START_KEYS.contains(&key.as_bytes()) {
            return refuse(key, "every cluster has a range that begins there".to_owned());
        }
    }
    match split_keys.windows(2).find(|pair| pair[0] >= pair[1]) {
        Some(pair) if pair[0] == pair[1] => refuse(&pair[1], "is given twice".to_owned()),
        Some(pair) => refuse(&pair[1], "split keys must ascend".to_owned()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use rangedb_proto::RangeDescriptorExt;
    use rangedb_proto::v1::NodeDescriptor;

    use super::*;

    fn formation(nodes: u64) -> Formation {
        let node = |node_id| NodeDescriptor { node_id, ..Default::default() };
        Formation {
            cluster_id: 7,
            nodes: (1..=nodes).map(node).collect(),
            replication_factor: 3,
            ..Default::default()
        }
    }

    fn split_at(keys: &[&str]) -> Formation {
        let split_keys = keys.iter().map(|&key| key.to_owned()).collect();
        Formation { split_keys, ..formation(3) }
    }

    #[test]
    fn founding_ranges_cover_the_key_space() {
        for keys in [&[][..], &["/a", "/m", "_1", "z"]] {
            let ranges = founding_ranges(&split_at(keys));
            assert_eq!(ranges.len(), START_KEYS.len() + keys.len());
            assert!(ranges[0].start_key.is_empty());
            assert!(ranges.last().unwrap().end_key.is_empty());
            assert!(ranges.windows(2).all(|pair| pair[0].end_key == pair[1].start_key));
            assert!(ranges.windows(2).all(|pair| pair[0].start_key < pair[1].start_key));
            let mut ids: Vec<u64> = ranges.iter().map(|range| range.range_id).collect();
            ids.sort_unstable();
            assert!(ids.into_iter().eq(1..=ranges.len() as u64));
        }
    }

    #[test]
    fn split_keys_leave_the_ids_of_the_other_ranges_alone() {
        let ranges = founding_ranges(&split_at(&["/a", "z"]));
        let start_of =
            |id| &ranges.iter().find(|range| range.range_id == id).unwrap().start_key[..];
        for (start, id) in START_KEYS.into_iter().zip(1..) {
            assert_eq!(start_of(id), start);
        }
        assert_eq!((start_of(7), start_of(8)), (&b"/a"[..], &b"z"[..]));
    }

    #[test]
    fn split_keys_that_cannot_be_are_refused_with_the_reason() {
        let owned = |keys: &[&str]| keys.iter().map(|&key| key.to_owned()).collect::<Vec<_>>();
        assert_eq!(check_split_keys(&owned(&["/a", "_", "_00", "b"])), Ok(()));
        let long = "k".repeat(KEY_BYTES_MAX + 1);
        for (keys, bad, why) in [
            (&[""][..], "", "1 to"),
            (&[long.as_str()], long.as_str(), "1 to"),
            (&["a", "_/x"], "_/x", "own"),
            (&["_0"], "_0", "begins there"),
            (&["a", "a"], "a", "twice"),
            (&["b", "a"], "a", "ascend"),
        ] {
            let (key, reason) = check_split_keys(&owned(keys)).unwrap_err();
            assert!(key == bad && reason.contains(why), "{key}: {reason}");
        }
        let many: Vec<String> = (0..=SPLIT_KEYS_MAX).map(|n| format!("{n:06}")).collect();
        assert!(check_split_keys(&many).is_err() && check_split_keys(&many[1..]).is_ok());
    }

    #[test]
    fn the_control_range_holds_cluster_and_partition_keys() {
        let ranges = founding_ranges(&formation(3));
        let control = ranges.iter().find(|r| r.range_id == CONTROL_RANGE_ID).unwrap();
        assert!(control.contains(b"_/cluster/id") && control.contains(b"_/partitions/1"));
        assert!(control.contains(b"_/backups/x") && control.contains(b"_/ops/x"));
        assert!(!control.contains(b"_/sync/x") && !control.contains(b"_/audit/x"));
    }

    #[test]
    fn replicas_are_as_many_as_nodes_allow_and_never_two_on_one() {
        for nodes in 1..=5 {
            for range in founding_ranges(&formation(nodes)) {
                assert_eq!(range.replicas.len() as u64, nodes.min(3));
                let mut on: Vec<_> = range.replicas.iter().map(|r| r.node_id).collect();
                on.sort_unstable();
                on.dedup();
                assert_eq!(on.len(), range.replicas.len());
            }
        }
    }
}
