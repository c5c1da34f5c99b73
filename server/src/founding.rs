//! The ranges that exist from the beginning (design, "Key space"): made from the decided formation
//! alone, so that every founding node makes the same.

use rangedb_proto::v1::{Epoch, Formation, RangeDescriptor, Replica, ReplicaRole};

/// The range that holds the cluster's own state. Its leader runs the control plane; it never splits.
pub const CONTROL_RANGE_ID: u64 = 3;

/// Start keys of the founding ranges, in key order; ids count from 1.
const START_KEYS: [&[u8]; 6] = [b"", b"_/", b"_/b", b"_/s", b"_/t", b"_0"];

/// The first id that the control plane gives to a range made later.
pub const FIRST_FREE_RANGE_ID: u64 = START_KEYS.len() as u64 + 1;

/// Descriptors of all founding ranges, each on as many of the founding nodes as the replication
/// factor asks for. With more nodes than that, replicas are dealt out by rotating over the nodes.
pub fn founding_ranges(formation: &Formation) -> Vec<RangeDescriptor> {
    let nodes: Vec<u64> = formation.nodes.iter().map(|node| node.node_id).collect();
    let replicas = (formation.replication_factor as usize).clamp(1, nodes.len());
    let range = |place: usize| {
        let chosen = (0..replicas).map(|r| nodes[(place + r) % nodes.len()]);
        let replica = |(id, node_id)| Replica {
            replica_id: id as u64 + 1,
            node_id,
            role: ReplicaRole::Voter.into(),
        };
        RangeDescriptor {
            range_id: place as u64 + 1,
            start_key: START_KEYS[place].into(),
            end_key: START_KEYS.get(place + 1).copied().unwrap_or_default().into(),
            epoch: Some(Epoch { version: 1, conf_ver: 1 }),
            replicas: chosen.enumerate().map(replica).collect(),
            next_replica_id: replicas as u64 + 1,
        }
    };
    (0..START_KEYS.len()).map(range).collect()
}

#[cfg(test)]
mod tests {
    use rangedb_proto::RangeDescriptorExt;
    use rangedb_proto::v1::NodeDescriptor;

    use super::*;

    fn formation(nodes: u64) -> Formation {
        let node = |node_id| NodeDescriptor { node_id, ..Default::default() };
        Formation { cluster_id: 7, nodes: (1..=nodes).map(node).collect(), replication_factor: 3 }
    }

    #[test]
    fn founding_ranges_cover_the_key_space() {
        let ranges = founding_ranges(&formation(3));
        assert!(ranges[0].start_key.is_empty());
        assert!(ranges.last().unwrap().end_key.is_empty());
        assert!(ranges.windows(2).all(|pair| pair[0].end_key == pair[1].start_key));
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
