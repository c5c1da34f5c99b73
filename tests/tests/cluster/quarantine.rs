//! Quarantine of a range whose log holds an entry that no replica can apply. The range stands still
//! and names the reason, the other ranges go on, and an operator can skip the entry.

use prost::Message;
use raft_proto::eraftpb::Entry;
use rangedb_proto::v1::LogEntry;
use rangedb_storage::{LogBatch, LogChange, LogEngine, LogOptions, RaftEngineLog};

use crate::support::cluster::Cluster;
use crate::support::node::Node;
use crate::support::range::header_of;
use crate::support::wait::{SOON, check, until};

/// A feature level that no version has.
const LEVEL: u32 = 1000;

/// A key of the range that is quarantined, and a key of a range that is not.
const STANDING: &str = "k";
const OTHER: &str = "A";

fn log_of(node: &Node) -> RaftEngineLog {
    RaftEngineLog::open(&node.data, LogOptions::default()).expect("the log of a node that stopped")
}

/// Appends one entry behind the longest of the logs to all logs. Returns its index.
fn append_to_all(nodes: &[Node], range_id: u64) -> u64 {
    let logs: Vec<RaftEngineLog> = nodes.iter().map(log_of).collect();
    let states = logs.iter().map(|log| log.state(range_id).unwrap().expect("it has a replica"));
    let last: Vec<u64> = states.map(|state| state.last_index).collect();
    let longest = last.iter().copied().max().unwrap();
    let longest_log = &logs[last.iter().position(|last| *last == longest).unwrap()];
    let term = longest_log.entries(range_id, longest, longest + 1, u64::MAX).unwrap()[0].term;
    let commands = LogEntry { feature_level: LEVEL, ..Default::default() };
    let data = commands.encode_to_vec().into();
    let unknown = Entry { index: longest + 1, term, data, ..Default::default() };
    for (log, last) in logs.iter().zip(&last) {
        let missing = longest_log.entries(range_id, last + 1, longest + 1, u64::MAX);
        let mut entries = if *last < longest { missing.unwrap() } else { Vec::new() };
        entries.push(unknown.clone());
        log.append(LogBatch { changes: vec![LogChange::Append { range_id, entries }] }).unwrap();
    }
    longest + 1
}

async fn standing(cluster: &Cluster, wanted: f64) {
    until("the range's replicas stand still, or go on", SOON, async || {
        for node in &cluster.nodes {
            let standing = node.metric("rangedb_range_quarantined").await?;
            check(standing == wanted, format!("{standing} on {}", node.name))?;
        }
        Ok::<_, String>(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_stands_still_at_an_entry_of_a_newer_version_until_it_is_left_out() {
    let mut cluster = Cluster::started(3).await;
    cluster.replicated(3, SOON).await;
    for key in [STANDING, OTHER] {
        cluster.cli(["put", key, "before"]).await.success();
    }
    let range_id = header_of(&cluster, STANDING.as_bytes()).await.range_id;
    for node in &mut cluster.nodes {
        assert!(node.stop().await.success());
    }
    let index = append_to_all(&cluster.nodes, range_id);
    let mut cluster = cluster.start().await;
    standing(&cluster, 1.0).await;

    // The other ranges go on, and a request to this one is answered with the reason.
    cluster.cli(["put", OTHER, "beside"]).await.success();
    let refused = cluster.cli(["--timeout", "2s", "put", STANDING, "beside"]).await;
    assert!(refused.code != 0 && refused.notes.contains("feature level 1000"), "{refused:?}");
    until("the list of ranges shows where they stand", SOON, async || {
        let listed = cluster.cli(["admin", "partition", "list"]).await.succeeded()?;
        let places: Vec<String> = (1..=3).map(|node| format!("{node}@{index}")).collect();
        check(listed.contains(&places.join(",")), listed)
    })
    .await;
    let (range, wrong, right) = (range_id.to_string(), (index - 1).to_string(), index.to_string());
    let skip = ["admin", "partition", "skip-entry", &range];
    let refused = cluster.cli([skip[0], skip[1], skip[2], skip[3], &wrong, "--confirm"]).await;
    refused.failure(1, "FAILED_PRECONDITION");

    // One of the nodes may know an entry that the others do not. Without that node, the control
    // plane decides nothing.
    cluster.nodes[2].kill();
    until("a node that is not heard of holds the decision up", SOON, async || {
        let asked = [skip[0], skip[1], skip[2], skip[3], &right, "--dry-run"];
        let refused = cluster.cli(asked).await;
        check(refused.notes.contains("was not heard of"), format!("{refused:?}"))
    })
    .await;
    cluster.nodes[2].start();
    cluster.ready().await;
    standing(&cluster, 1.0).await;

    until("the entry is left out", SOON, async || {
        let asked = [skip[0], skip[1], skip[2], skip[3], &right, "--confirm"];
        cluster.cli(asked).await.succeeded()
    })
    .await;
    standing(&cluster, 0.0).await;
    let found = cluster.cli(["get", STANDING]).await.success();
    assert!(found.contains("before"), "{found}");
    cluster.cli(["put", STANDING, "after"]).await.success();
    let record = format!("_/cluster/skipped-entries/{range_id}/{index}");
    let record = cluster.cli(["admin", "meta", "get", &record]).await.success();
    assert!(record.contains("feature level 1000") && record.contains("operator"), "{record}");

    // A replay of the log leaves the entry out, too.
    cluster.nodes.iter_mut().for_each(Node::kill);
    let cluster = cluster.start().await;
    standing(&cluster, 0.0).await;
    let found = cluster.cli(["get", STANDING]).await.success();
    assert!(found.contains("after"), "{found}");
}
