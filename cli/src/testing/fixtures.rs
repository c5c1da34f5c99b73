//! Fixed answers of the cluster in memory about itself.

use rangedb_proto::{Timestamp, v1};

use super::rows::START_MS;

pub fn nodes() -> Vec<v1::NodeDescriptor> {
    let node = |node_id: u64, state: v1::NodeState| v1::NodeDescriptor {
        node_id,
        peer_address: format!("n{node_id}:8080"),
        client_address: format!("n{node_id}:8081"),
        status_address: format!("n{node_id}:8085"),
        directory_id: node_id,
        state: state.into(),
        version: "0.1.0".to_owned(),
        starts: 1,
    };
    vec![node(1, v1::NodeState::NodeUp), node(2, v1::NodeState::NodeDead)]
}

pub fn locate() -> v1::LocateReply {
    let replicas = vec![v1::Replica { replica_id: 1, node_id: 1, role: 0 }];
    let descriptor = v1::RangeDescriptor {
        range_id: 1,
        epoch: Some(v1::Epoch { version: 1, conf_ver: 1 }),
        replicas,
        next_replica_id: 2,
        ..Default::default()
    };
    let range = v1::RangeLocation { descriptor: Some(descriptor), leader_node_id: 1 };
    v1::LocateReply { ranges: vec![range], nodes: nodes() }
}

pub fn status(cluster_id: u64) -> v1::ClusterStatus {
    let stats = v1::NodeStats {
        disk_total_bytes: 8 << 30,
        disk_available_bytes: 2 << 30,
        ..Default::default()
    };
    let [first, second] = nodes().try_into().unwrap();
    let first = v1::NodeStatus {
        node: Some(first),
        silent_ms: Some(40),
        stats: Some(stats),
        clock_offset_ms: Some(3),
        replicas: 6,
        leaders: 5,
        ..Default::default()
    };
    let second = v1::NodeStatus {
        node: Some(second),
        clock_offset_ms: Some(-172_800_000),
        clock_differs: true,
        ..Default::default()
    };
    v1::ClusterStatus {
        cluster_id,
        nodes: vec![first, second],
        replication_factor: 3,
        ranges: 6,
        ranges_under_replicated: 6,
        ranges_without_leader: 1,
        control_leader_node_id: 1,
        timestamps_ahead_ms: Some(12_000),
        clock_doubt: "why".to_owned(),
        ranges_quarantined: 1,
        ranges_replica_down: 2,
        ranges_without_quorum: 1,
        ranges_under_factor: 6,
        problems: vec![
            v1::Problem {
                severity: v1::problem::Severity::Down.into(),
                what: "1 range has lost its quorum".to_owned(),
                advice: "start node 2 again".to_owned(),
            },
            v1::Problem { what: "node 2 is silent".to_owned(), ..Default::default() },
        ],
    }
}

/// Answers a read of system keys with one entry a page.
pub fn meta_read(read: &v1::MetaRead) -> v1::MetaReadReply {
    let keys = [
        ("_/cluster/id", "\"ab\""),
        ("_/cluster/nodes/1", "{\"node_id\":1}"),
        ("_/cluster/nodes/2", "{\"node_id\":2}"),
    ];
    let matches = |key: &[u8]| {
        if read.exact { key == &read.prefix[..] } else { key.starts_with(&read.prefix) }
    };
    let mut found = keys
        .into_iter()
        .filter(|(key, _)| matches(key.as_bytes()) && key.as_bytes() > &read.after[..])
        .map(|(key, json)| v1::MetaEntry {
            key: key.into(),
            json: json.into(),
            version: 1,
            mod_ts: 9,
        });
    let entries: Vec<_> = found.next().into_iter().collect();
    v1::MetaReadReply { more: found.next().is_some(), entries }
}

pub fn partitions() -> Vec<v1::PartitionStatus> {
    let partition = |range_id: u64, start: &'static [u8], end: &'static [u8], conf_ver: u64| {
        let descriptor = v1::RangeDescriptor {
            range_id,
            start_key: start.into(),
            end_key: end.into(),
            epoch: Some(v1::Epoch { version: 1, conf_ver }),
            replicas: vec![v1::Replica { replica_id: 1, node_id: 1, role: 0 }],
            next_replica_id: 2,
        };
        v1::RangeReport { descriptor: Some(descriptor), term: 5, ..Default::default() }
    };
    let mut growing = partition(1, b"", b"a\t", 3);
    let learner = v1::Replica { replica_id: 7, node_id: 2, role: v1::ReplicaRole::Learner.into() };
    growing.descriptor.as_mut().unwrap().replicas.push(learner);
    growing.leader_node_id = 1;
    growing.down_replica_ids = vec![7];
    growing.rows = 3;
    growing.row_bytes = 2560;
    vec![
        v1::PartitionStatus {
            report: Some(growing),
            reported_ms: Some(30),
            operation: "add learner".to_owned(),
            quarantined: Vec::new(),
        },
        v1::PartitionStatus {
            report: Some(partition(4, b"a\t", b"", 1)),
            quarantined: vec![v1::QuarantinedReplica {
                range_id: 4,
                replica_id: 1,
                node_id: 1,
                index: 9,
                reason: "unknown".to_owned(),
                lost_entries: false,
            }],
            ..Default::default()
        },
    ]
}

/// Lists two locks: a live one, and one whose client is gone.
pub fn locks(list: &v1::ListLocks) -> v1::ListLocksReply {
    use v1::lock_info::Kind;
    let lock = |key: &'static str, kind: Kind, alive_until_ms, async_commit| v1::LockInfo {
        key: key.into(),
        primary: "/held\n".into(),
        start_ts: Timestamp::from_millis(START_MS - 3_000).0,
        kind: kind.into(),
        alive_until_ms,
        async_commit,
        ..Default::default()
    };
    let mut locks = vec![
        lock("/held\n", Kind::Pessimistic, START_MS + 8_000, false),
        lock("/left", Kind::Put, START_MS - 2_000, true),
    ];
    let inside = |key: &[u8]| {
        key >= &list.start_key[..] && (list.end_key.is_empty() || key < &list.end_key[..])
    };
    locks.retain(|lock| inside(&lock.key));
    v1::ListLocksReply { locks, ..Default::default() }
}

/// Reports the state of garbage collection: the given holds, and one hold of another client's
/// transaction.
pub fn garbage(holds: &[v1::HoldFloor]) -> v1::GarbageStatus {
    let floor_ts = Timestamp::from_millis(100_000).0;
    let somebody = v1::HoldInfo {
        name: "transactions".to_owned(),
        timestamp: floor_ts,
        remaining_ms: Some(7_000),
    };
    let held = |hold: &v1::HoldFloor| v1::HoldInfo {
        name: hold.name.clone(),
        timestamp: hold.timestamp,
        remaining_ms: None,
    };
    v1::GarbageStatus {
        now_ts: Timestamp::from_millis(700_000).0,
        floor_ts,
        collect_below_ts: 0,
        retention_ms: 600_000,
        holds: [somebody].into_iter().chain(holds.iter().map(held)).collect(),
    }
}
