//! `rangedb admin cluster status`.

use rangedb_proto::v1::{self, problem::Severity};
use serde::Serialize;

use super::known_node;
use super::node::{self, NodeView};
use crate::args::Output;
use crate::duration;
use crate::failure::Failure;
use crate::json;
use crate::session::Session;
use crate::table;

/// Offset from the clocks below which timestamps count as in step. A new oracle starts at the bound
/// that the oracle before it committed, so timestamps may be some seconds ahead.
const WORTH_A_WORD_MS: u64 = 5_000;

pub async fn run(session: &mut Session<'_>) -> Result<(), Failure> {
    let status = session.client.admin().cluster_status().await?;
    let out = &mut *session.streams.out;
    let view = StatusView::of(&status);
    if session.output == Output::Json {
        return Ok(json::print(out, &view)?);
    }
    let leader = view.control_leader_node_id.map(|id| format!("node {id}"));
    table::print_fields(
        out,
        [
            ("health", view.health.to_owned()),
            ("cluster id", view.cluster_id),
            ("control leader", leader.unwrap_or_else(|| "none".to_owned())),
            ("replication factor", view.replication_factor.to_string()),
            ("ranges", view.ranges.to_string()),
            ("under-replicated", view.ranges_under_replicated.to_string()),
            ("with a replica down", view.ranges_replica_down.to_string()),
            ("without a quorum", view.ranges_without_quorum.to_string()),
            ("without a leader", view.ranges_without_leader.to_string()),
            ("quarantined", view.ranges_quarantined.to_string()),
            ("clocks", clocks(&status)),
            ("timestamps", timestamps(&status)),
        ],
    )?;
    writeln!(out)?;
    node::print_table(out, &status.nodes)?;
    if !view.problems.is_empty() {
        writeln!(out)?;
    }
    for problem in &view.problems {
        writeln!(out, "! {}", problem.what)?;
        if !problem.advice.is_empty() {
            writeln!(out, "  -> {}", problem.advice)?;
        }
    }
    Ok(())
}

/// Word for the health of a cluster: that of its worst problem.
fn health(status: &v1::ClusterStatus) -> &'static str {
    match status.problems.iter().map(v1::Problem::severity).max_by_key(|s| *s as i32) {
        None => "OK",
        Some(Severity::Degraded) => "DEGRADED",
        Some(Severity::Down) => "DOWN",
    }
}

/// Lists nodes whose clocks differ from the majority's.
fn clocks(status: &v1::ClusterStatus) -> String {
    let differing = status.nodes.iter().filter(|node| node.clock_differs).map(|status| {
        let id = status.node.as_ref().map_or(0, |node| node.node_id);
        format!("node {id} is {}", apart(status.clock_offset_ms.unwrap_or(0)))
    });
    let differing: Vec<String> = differing.collect();
    match status.timestamps_ahead_ms {
        None => "too few were heard".to_owned(),
        Some(_) if differing.is_empty() => "agree".to_owned(),
        Some(_) => differing.join(", "),
    }
}

/// Describes the offset of the oracle's time from the clocks, and the reason if the oracle does not
/// follow its node's clock.
fn timestamps(status: &v1::ClusterStatus) -> String {
    let place = match status.timestamps_ahead_ms {
        None => "go on".to_owned(),
        Some(ahead_ms) if ahead_ms.unsigned_abs() < WORTH_A_WORD_MS => {
            "in step with the clocks".to_owned()
        }
        Some(ahead_ms) => format!("{} of the clocks", apart(ahead_ms)),
    };
    match status.clock_doubt.as_str() {
        "" => place,
        doubt => format!("{place}: {doubt}"),
    }
}

fn apart(ms: i64) -> String {
    let word = if ms < 0 { "behind" } else { "ahead" };
    format!("{} {word}", duration::rounded(ms.unsigned_abs()))
}

/// The status, as JSON.
#[derive(Serialize)]
struct StatusView {
    /// OK, DEGRADED or DOWN.
    health: &'static str,
    problems: Vec<ProblemView>,
    /// Hexadecimal: JSON readers round integers of 64 bits.
    cluster_id: String,
    control_leader_node_id: Option<u64>,
    replication_factor: u32,
    ranges: u32,
    ranges_under_replicated: u32,
    ranges_without_leader: u32,
    ranges_replica_down: u32,
    ranges_without_quorum: u32,
    ranges_under_factor: u32,
    /// Ranges with a quarantined replica.
    ranges_quarantined: u32,
    /// Offset of the timestamps from the clocks of a majority of nodes, positive if ahead; null if
    /// too few nodes were heard.
    timestamps_ahead_ms: Option<i64>,
    /// Reason why timestamps do not go by the control leader's clock; null if they do.
    clock_doubt: Option<String>,
    nodes: Vec<NodeView>,
}

impl StatusView {
    fn of(status: &v1::ClusterStatus) -> Self {
        StatusView {
            health: health(status),
            problems: status.problems.iter().map(ProblemView::of).collect(),
            cluster_id: format!("{:016x}", status.cluster_id),
            control_leader_node_id: known_node(status.control_leader_node_id),
            replication_factor: status.replication_factor,
            ranges: status.ranges,
            ranges_under_replicated: status.ranges_under_replicated,
            ranges_without_leader: status.ranges_without_leader,
            ranges_replica_down: status.ranges_replica_down,
            ranges_without_quorum: status.ranges_without_quorum,
            ranges_under_factor: status.ranges_under_factor,
            ranges_quarantined: status.ranges_quarantined,
            timestamps_ahead_ms: status.timestamps_ahead_ms,
            clock_doubt: Some(status.clock_doubt.clone()).filter(|doubt| !doubt.is_empty()),
            nodes: status.nodes.iter().map(NodeView::of).collect(),
        }
    }
}

/// A problem, as JSON.
#[derive(Serialize)]
struct ProblemView {
    /// True if some of the data cannot be read or written.
    is_down: bool,
    what: String,
    advice: String,
}

impl ProblemView {
    fn of(problem: &v1::Problem) -> Self {
        ProblemView {
            is_down: problem.severity() == Severity::Down,
            what: problem.what.clone(),
            advice: problem.advice.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::Cluster;

    #[test]
    fn the_status_has_the_cluster_and_its_nodes() {
        let ran = Cluster::new().run(["admin", "cluster", "status"]);
        let text = String::from_utf8(ran.out).unwrap();
        for line in [
            "health               DOWN",
            "cluster id           00000000000000ab",
            "control leader       node 1",
            "replication factor   3",
            "ranges               6",
            "under-replicated     6",
            "with a replica down  2",
            "without a quorum     1",
            "without a leader     1",
            "quarantined          1",
            "clocks               node 2 is 48h behind",
            "timestamps           12s ahead of the clocks: why",
            "! 1 range has lost its quorum",
            "  -> start node 2 again",
            "! node 2 is silent",
            "",
        ] {
            assert!(text.lines().any(|printed| printed == line), "`{line}` is not in\n{text}");
        }
        assert!(text.contains("n1:8080") && text.contains("n2:8081"), "{text}");
    }

    #[test]
    fn json_has_the_same_figures() {
        let ran = Cluster::new().run(["admin", "cluster", "status", "--output", "json"]);
        let status: serde_json::Value = serde_json::from_slice(&ran.out).unwrap();
        assert_eq!(status["cluster_id"], "00000000000000ab");
        assert_eq!(status["control_leader_node_id"], 1);
        assert_eq!(
            (&status["health"], &status["ranges_under_factor"]),
            (&"DOWN".into(), &6.into())
        );
        assert_eq!(status["problems"][0]["is_down"], true);
        assert_eq!(status["ranges_under_replicated"], 6);
        assert_eq!(status["timestamps_ahead_ms"], 12_000);
        assert_eq!(status["clock_doubt"], "why");
        assert_eq!(status["nodes"][1]["clock_offset_ms"], -172_800_000);
        assert_eq!(status["nodes"][0]["state"], "up");
        assert_eq!(status["nodes"][0]["silent_ms"], 40);
        assert_eq!(status["nodes"][1]["silent_ms"], serde_json::Value::Null);
    }
}
