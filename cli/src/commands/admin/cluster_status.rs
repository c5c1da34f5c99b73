//! `rangedb admin cluster status`.

use rangedb_proto::v1;
use serde::Serialize;

use super::known_node;
use super::node::{self, NodeView};
use crate::args::Output;
use crate::failure::Failure;
use crate::json;
use crate::session::Session;
use crate::table;

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
            ("cluster id", view.cluster_id),
            ("control leader", leader.unwrap_or_else(|| "none".to_owned())),
            ("replication factor", view.replication_factor.to_string()),
            ("ranges", view.ranges.to_string()),
            ("under-replicated", view.ranges_under_replicated.to_string()),
            ("without a leader", view.ranges_without_leader.to_string()),
        ],
    )?;
    writeln!(out)?;
    Ok(node::print_table(out, &status.nodes)?)
}

/// The status, as JSON.
#[derive(Serialize)]
struct StatusView {
    /// Hexadecimal: JSON readers round integers of 64 bits.
    cluster_id: String,
    control_leader_node_id: Option<u64>,
    replication_factor: u32,
    ranges: u32,
    ranges_under_replicated: u32,
    ranges_without_leader: u32,
    nodes: Vec<NodeView>,
}

impl StatusView {
    fn of(status: &v1::ClusterStatus) -> Self {
        StatusView {
            cluster_id: format!("{:016x}", status.cluster_id),
            control_leader_node_id: known_node(status.control_leader_node_id),
            replication_factor: status.replication_factor,
            ranges: status.ranges,
            ranges_under_replicated: status.ranges_under_replicated,
            ranges_without_leader: status.ranges_without_leader,
            nodes: status.nodes.iter().map(NodeView::of).collect(),
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
            "cluster id          00000000000000ab",
            "control leader      node 1",
            "replication factor  3",
            "ranges              6",
            "under-replicated    6",
            "without a leader    1",
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
        assert_eq!(status["ranges_under_replicated"], 6);
        assert_eq!(status["nodes"][0]["state"], "up");
        assert_eq!(status["nodes"][0]["silent_ms"], 40);
        assert_eq!(status["nodes"][1]["silent_ms"], serde_json::Value::Null);
    }
}
