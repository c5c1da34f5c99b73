//! `rangedb admin node list` and `rangedb admin node remove`.

use std::io::{self, Write};

use clap::{Args, Subcommand};
use rangedb_proto::v1;
use serde::Serialize;
use serde_json::json;

use super::{list, node_state};
use crate::args::Output;
use crate::confirm::{self, Consent};
use crate::duration;
use crate::failure::Failure;
use crate::json;
use crate::session::Session;
use crate::table;

/// The cluster's nodes
#[derive(Debug, Subcommand)]
pub enum Node {
    /// List every node that is or was part of the cluster
    List,
    Remove(Remove),
}

/// Take a node out for good
///
/// Its replicas are made again on other nodes. Its data directory never comes back into this
/// cluster.
#[derive(Debug, Args)]
pub struct Remove {
    /// The node's peer address, client address or id
    #[arg(value_name = "ADDR")]
    node: String,
    #[command(flatten)]
    consent: Consent,
}

impl Node {
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), Failure> {
        match self {
            Node::List => {
                let nodes = session.client.admin().nodes().await?;
                match session.output {
                    Output::Table => print_table(session.streams.out, &nodes)?,
                    Output::Json => {
                        for node in &nodes {
                            json::print(session.streams.out, &NodeView::of(node))?;
                        }
                    }
                }
                Ok(())
            }
            Node::Remove(remove) => remove.run(session).await,
        }
    }
}

impl Remove {
    async fn run(self, session: &mut Session<'_>) -> Result<(), Failure> {
        if self.consent.must_ask() {
            confirm::check_can_ask(&session.streams)?;
        }
        let plan = session.client.admin().remove_node(&self.node, true).await?;
        if self.consent.dry_run || Removal(&plan).was_before() {
            return Ok(Removal(&plan).print(session, self.consent.dry_run)?);
        }
        if self.consent.must_ask() {
            let question = format!("This removes {} for good. Go on?", Removal(&plan).subject());
            confirm::ask(&mut session.streams, &question)?;
        }
        let mut reply = session.client.admin().remove_node(&self.node, false).await?;
        // The plan tells a node that is removed now from one that was before.
        if let (Some(node), Some(before)) = (&mut reply.node, &plan.node) {
            node.state = before.state;
        }
        Ok(Removal(&reply).print(session, false)?)
    }
}

/// The node and the ranges that a removal affects.
struct Removal<'a>(&'a v1::RemoveNodeReply);

impl Removal<'_> {
    /// True if the node was removed before this command.
    fn was_before(&self) -> bool {
        self.0.node.as_ref().is_some_and(|node| node.state() == v1::NodeState::NodeRemoved)
    }

    fn subject(&self) -> String {
        let node = self.0.node.clone().unwrap_or_default();
        format!("node {} ({})", node.node_id, node.peer_address)
    }

    fn print(&self, session: &mut Session<'_>, dry_run: bool) -> io::Result<()> {
        let out = &mut session.streams.out;
        let ranges = &self.0.range_ids;
        if session.output == Output::Json {
            let node_id = self.0.node.as_ref().map(|node| node.node_id);
            let answer = json!({ "node_id": node_id, "dry_run": dry_run, "range_ids": ranges });
            return json::print(out, &answer);
        }
        let subject = self.subject();
        match dry_run {
            _ if self.was_before() => writeln!(out, "OK ({subject} was removed before)")?,
            true => writeln!(out, "dry run: {subject} would be removed; nothing was changed")?,
            false => writeln!(out, "OK ({subject} is removed)")?,
        }
        match ranges.len() {
            0 => writeln!(out, "no range has a replica there"),
            count => {
                writeln!(out, "replicas to be made again: {count}, of ranges {}", list(ranges))
            }
        }
    }
}

/// A node, as JSON.
#[derive(Serialize)]
pub struct NodeView {
    node_id: u64,
    peer_address: String,
    client_address: String,
    status_address: String,
    state: String,
    version: String,
    /// Time since the node's last heartbeat; null if the control plane has seen none since it
    /// started.
    silent_ms: Option<u64>,
    /// Offset of the node's clock from the clocks of a majority of nodes, positive if ahead; null
    /// if too few nodes were heard.
    clock_offset_ms: Option<i64>,
    uptime_ms: u64,
    replicas: u32,
    leaders: u32,
    disk_total_bytes: u64,
    disk_available_bytes: u64,
}

impl NodeView {
    pub fn of(status: &v1::NodeStatus) -> Self {
        let node = status.node.clone().unwrap_or_default();
        let stats = status.stats.clone().unwrap_or_default();
        NodeView {
            node_id: node.node_id,
            peer_address: node.peer_address,
            client_address: node.client_address,
            status_address: node.status_address,
            state: if status.suspect { "suspect".to_owned() } else { node_state(node.state) },
            version: node.version,
            silent_ms: status.silent_ms,
            clock_offset_ms: status.clock_offset_ms,
            uptime_ms: stats.uptime_ms,
            replicas: status.replicas,
            leaders: status.leaders,
            disk_total_bytes: stats.disk_total_bytes,
            disk_available_bytes: stats.disk_available_bytes,
        }
    }
}

/// Prints the table of nodes, for this command and for the cluster's status.
pub fn print_table(out: &mut dyn Write, nodes: &[v1::NodeStatus]) -> io::Result<()> {
    let head = [
        "NODE",
        "PEER ADDRESS",
        "CLIENT ADDRESS",
        "STATE",
        "LAST HEARTBEAT",
        "REPLICAS",
        "LEADERS",
        "DISK FREE",
        "VERSION",
    ];
    let rows = nodes.iter().map(NodeView::of).map(|node| {
        let heartbeat = match node.silent_ms {
            Some(millis) => format!("{} ago", duration::rounded(millis)),
            None => "none yet".to_owned(),
        };
        [
            node.node_id.to_string(),
            node.peer_address,
            node.client_address,
            node.state,
            heartbeat,
            node.replicas.to_string(),
            node.leaders.to_string(),
            disk(node.disk_available_bytes, node.disk_total_bytes),
            node.version,
        ]
    });
    table::print(out, head, rows)
}

fn disk(available: u64, total: u64) -> String {
    const GIB: f64 = 1024.0 * 1024.0 * 1024.0;
    if total == 0 {
        return "-".to_owned();
    }
    format!("{:.1} of {:.1} GiB", available as f64 / GIB, total as f64 / GIB)
}

#[cfg(test)]
mod tests {
    use crate::testing::Cluster;

    const NODE: &str = "n2:8080";

    #[test]
    fn nodes_are_listed_with_address_state_and_load() {
        let ran = Cluster::new().run(["admin", "node", "list"]);
        let text = String::from_utf8(ran.out).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        let words: Vec<&str> = lines[1].split_whitespace().collect();
        assert_eq!(words[..6], ["1", "n1:8080", "n1:8081", "up", "40ms", "ago"]);
        assert!(lines[1].contains("2.0 of 8.0 GiB"), "{text}");
        assert!(lines[2].contains("dead") && lines[2].contains("none yet"), "{text}");
    }

    #[test]
    fn removing_needs_consent_where_nobody_can_be_asked() {
        let cluster = Cluster::new();
        cluster.run(["admin", "node", "remove", NODE]).fails(2, "error: INVALID_ARGUMENT: this");
        assert!(cluster.removed().is_empty());
        cluster.run(["admin", "node", "remove", NODE, "--confirm"]).prints(
            "OK (node 2 (n2:8080) is removed)\nreplicas to be made again: 2, of ranges 1,4\n",
        );
        assert_eq!(cluster.removed(), [NODE]);
    }

    #[test]
    fn a_dry_run_removes_nothing_with_or_without_consent() {
        let cluster = Cluster::new();
        for line in [
            &["admin", "node", "remove", NODE, "--dry-run"][..],
            &["admin", "node", "remove", NODE, "--dry-run", "--confirm"],
        ] {
            let ran = cluster.run(line.iter().copied());
            assert!(ran.out.starts_with(b"dry run: node 2 (n2:8080) would be removed;"));
            assert_eq!((ran.code, cluster.removed().len()), (0, 0));
        }
    }

    #[test]
    fn at_a_terminal_a_person_is_asked_first() {
        let cluster = Cluster::new();
        let no = cluster.run_at_terminal(["admin", "node", "remove", NODE], "n\n");
        assert!(no.notes.starts_with("This removes node 2 (n2:8080) for good. Go on? [y/N] "));
        assert!(no.notes.ends_with("error: not confirmed, nothing was done\n"));
        assert_eq!((no.code, cluster.removed().len()), (1, 0));
        let yes = cluster.run_at_terminal(["admin", "node", "remove", NODE], "y\n");
        assert_eq!((yes.code, cluster.removed()), (0, vec![NODE.to_owned()]));
    }

    #[test]
    fn a_node_that_is_not_there_is_not_found() {
        Cluster::new()
            .run(["admin", "node", "remove", "n9:8080", "--confirm"])
            .fails(1, "error: NOT_FOUND: ");
    }
}
