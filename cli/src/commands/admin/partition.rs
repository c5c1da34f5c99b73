//! `rangedb admin partition list` and `rangedb admin partition skip-entry`.

use bytesize::ByteSize;
use clap::{Args, Subcommand};
use futures::{StreamExt, TryStreamExt, pin_mut};
use rangedb_proto::v1::{
    PartitionStatus, QuarantinedReplica, RangeDescriptor, RangeReport, SkipEntryReply,
};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Value, json};

use super::{known_node, list as id_list, replica_role};
use crate::args::Output;
use crate::confirm::{self, Consent};
use crate::duration;
use crate::escape::escape;
use crate::failure::Failure;
use crate::json;
use crate::session::Session;
use crate::table;

/// Ranges, the pieces of the key space
#[derive(Debug, Subcommand)]
pub enum Partition {
    /// List ranges in key order, with their replicas and leaders
    List,
    SkipEntry(SkipEntry),
}

/// Leave out an entry of a range's log that none of its replicas can apply
///
/// A replica that cannot apply an entry stands still, and `partition list` says at which. A newer
/// version may be able to: try that first, and start no node while an entry is left out. Left out,
/// what the entry was to write is lost, though its writer may have been told otherwise. It is
/// refused unless every replica of the range stands at the entry. Who did it stays on record, under
/// `_/cluster/skipped-entries/`.
#[derive(Debug, Args)]
pub struct SkipEntry {
    /// The range's id
    range: u64,
    /// The entry's index
    index: u64,
    #[command(flatten)]
    consent: Consent,
}

impl Partition {
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), Failure> {
        match self {
            Partition::List => list(session).await,
            Partition::SkipEntry(skip) => skip.run(session).await,
        }
    }
}

impl SkipEntry {
    async fn run(self, session: &mut Session<'_>) -> Result<(), Failure> {
        let SkipEntry { range, index, consent } = self;
        if consent.must_ask() {
            confirm::check_can_ask(&session.streams)?;
            let reply = session.client.admin().skip_entry(range, index, true).await?;
            let question = format!(
                "This loses what entry {index} of range {range} was to write ({}). Go on?",
                reason(&reply)
            );
            confirm::ask(&mut session.streams, &question)?;
        }
        let dry_run = consent.dry_run;
        let reply = session.client.admin().skip_entry(range, index, dry_run).await?;
        let nodes: Vec<u64> = reply.replicas.iter().map(|replica| replica.node_id).collect();
        let out = &mut session.streams.out;
        if session.output == Output::Json {
            let reason = reason(&reply);
            return Ok(json::print(
                out,
                &json!({
                    "range_id": range,
                    "index": index,
                    "dry_run": dry_run,
                    "node_ids": nodes,
                    "reason": reason,
                }),
            )?);
        }
        match dry_run {
            true => writeln!(
                out,
                "dry run: entry {index} of range {range} would be left out; nothing was changed"
            )?,
            false => writeln!(out, "OK (entry {index} of range {range} has no effect)")?,
        }
        writeln!(out, "replicas that stand there: on nodes {}", id_list(nodes))?;
        Ok(writeln!(out, "why: {}", reason(&reply))?)
    }
}

/// Returns the reason why the entry could not be applied.
fn reason(reply: &SkipEntryReply) -> &str {
    reply.replicas.first().map_or("no reason is known", |replica| &replica.reason)
}

async fn list(session: &mut Session<'_>) -> Result<(), Failure> {
    let partitions = session.client.admin().partitions();
    pin_mut!(partitions);
    match session.output {
        Output::Json => {
            while let Some(partition) = partitions.next().await {
                json::print(session.streams.out, &Row::new(partition?))?;
            }
            Ok(())
        }
        // Collects all rows first: the widths of the columns depend on every row.
        Output::Table => {
            let rows: Vec<_> =
                partitions.map_ok(|partition| Row::new(partition).cells()).try_collect().await?;
            Ok(table::print(session.streams.out, HEAD, rows)?)
        }
    }
}

const HEAD: [&str; 12] = [
    "RANGE",
    "START",
    "END",
    "EPOCH",
    "LEADER",
    "REPLICAS",
    "DOWN",
    "QUARANTINED",
    "ROWS",
    "SIZE",
    "REPORTED",
    "OPERATION",
];

/// A range as a row of the listing.
struct Row {
    descriptor: RangeDescriptor,
    report: RangeReport,
    reported_ms: Option<u64>,
    operation: String,
    quarantined: Vec<QuarantinedReplica>,
}

impl Row {
    fn new(status: PartitionStatus) -> Self {
        let mut report = status.report.unwrap_or_default();
        Row {
            descriptor: report.descriptor.take().unwrap_or_default(),
            report,
            reported_ms: status.reported_ms,
            operation: status.operation,
            quarantined: status.quarantined,
        }
    }

    /// Returns the range's row of the table. A replica is shown as the id of its node and its role.
    fn cells(&self) -> [String; HEAD.len()] {
        let descriptor = &self.descriptor;
        let key = |key: &[u8], none: &str| {
            if key.is_empty() { none.to_owned() } else { escape(key) }
        };
        let epoch = descriptor.epoch.unwrap_or_default();
        let replicas =
            descriptor.replicas.iter().map(|r| format!("{}:{}", r.node_id, replica_role(r.role)));
        let reported_figure =
            |figure| if self.reported_ms.is_some() { figure } else { "-".to_owned() };
        let reported = self.reported_ms.map(|millis| format!("{} ago", duration::rounded(millis)));
        [
            descriptor.range_id.to_string(),
            key(&descriptor.start_key, "(first)"),
            key(&descriptor.end_key, "(last)"),
            format!("{}.{}", epoch.version, epoch.conf_ver),
            id_list(known_node(self.report.leader_node_id)),
            id_list(replicas),
            id_list(self.down_node_ids()),
            id_list(self.quarantined.iter().map(|r| format!("{}@{}", r.node_id, r.index))),
            reported_figure(self.report.rows.to_string()),
            reported_figure(ByteSize::b(self.report.row_bytes).display().iec().to_string()),
            reported.unwrap_or_else(|| "never".to_owned()),
            if self.operation.is_empty() { "-".to_owned() } else { self.operation.clone() },
        ]
    }

    fn down_node_ids(&self) -> Vec<u64> {
        let down = |replica_id: &u64| self.report.down_replica_ids.contains(replica_id);
        let replicas = self.descriptor.replicas.iter().filter(|r| down(&r.replica_id));
        replicas.map(|replica| replica.node_id).collect()
    }
}

impl Serialize for Row {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (descriptor, report) = (&self.descriptor, &self.report);
        let epoch = descriptor.epoch.unwrap_or_default();
        let replicas = descriptor.replicas.iter().map(|replica| {
            json!({
                "replica_id": replica.replica_id,
                "node_id": replica.node_id,
                "role": replica_role(replica.role),
            })
        });
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("range_id", &descriptor.range_id)?;
        json::bytes_entry(&mut map, "start_key", &descriptor.start_key)?;
        json::bytes_entry(&mut map, "end_key", &descriptor.end_key)?;
        let epoch = json!({ "version": epoch.version, "conf_ver": epoch.conf_ver });
        map.serialize_entry("epoch", &epoch)?;
        map.serialize_entry("leader_node_id", &known_node(report.leader_node_id))?;
        map.serialize_entry("term", &report.term)?;
        map.serialize_entry("replicas", &replicas.collect::<Vec<Value>>())?;
        map.serialize_entry("down_replica_ids", &report.down_replica_ids)?;
        map.serialize_entry("lagging_replica_ids", &report.lagging_replica_ids)?;
        map.serialize_entry("applied_index", &report.applied_index)?;
        map.serialize_entry("log_entries", &report.log_entries)?;
        map.serialize_entry("rows", &report.rows)?;
        map.serialize_entry("row_bytes", &report.row_bytes)?;
        let quarantined = self.quarantined.iter().map(|replica| {
            json!({
                "node_id": replica.node_id,
                "replica_id": replica.replica_id,
                "index": replica.index,
                "reason": replica.reason,
            })
        });
        map.serialize_entry("quarantined", &quarantined.collect::<Vec<Value>>())?;
        map.serialize_entry("in_joint_change", &report.in_joint_change)?;
        map.serialize_entry("reported_ms", &self.reported_ms)?;
        map.serialize_entry("operation", &self.operation)?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::Cluster;

    #[test]
    fn ranges_are_listed_with_bounds_replicas_and_what_is_being_done() {
        let ran = Cluster::new().run(["admin", "partition", "list"]);
        let text = String::from_utf8(ran.out).unwrap();
        let cells: Vec<Vec<&str>> =
            text.lines().skip(1).map(|line| line.split("  ").map(str::trim).collect()).collect();
        let filled = |at: usize| -> Vec<&str> {
            cells[at].iter().copied().filter(|cell| !cell.is_empty()).collect()
        };
        assert_eq!(
            filled(0),
            [
                "1",
                "(first)",
                r"a\t",
                "1.3",
                "1",
                "1:voter,2:learner",
                "2",
                "-",
                "3",
                "2.5 KiB",
                "30ms ago",
                "add learner"
            ]
        );
        assert_eq!(
            filled(1),
            ["4", r"a\t", "(last)", "1.1", "-", "1:voter", "-", "1@9", "-", "-", "never", "-"]
        );
        assert_eq!(cells.len(), 2);
    }

    #[test]
    fn json_has_a_range_on_each_line() {
        let ran = Cluster::new().run(["admin", "partition", "list", "--output", "json"]);
        let text = String::from_utf8(ran.out).unwrap();
        let ranges: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(ranges[0]["end_key"], "a\t");
        assert_eq!(ranges[0]["replicas"][1]["role"], "learner");
        assert_eq!(ranges[0]["down_replica_ids"][0], 7);
        assert_eq!(ranges[1]["leader_node_id"], serde_json::Value::Null);
        assert_eq!(ranges[1]["range_id"], 4);
        assert_eq!(ranges[1]["quarantined"][0]["reason"], "unknown");
    }

    #[test]
    fn an_entry_is_left_out_with_consent_alone() {
        let cluster = Cluster::new();
        let skip = ["admin", "partition", "skip-entry", "4", "9"];
        cluster.run(skip).fails(2, "error: INVALID_ARGUMENT: this");
        let dry = ["admin", "partition", "skip-entry", "4", "9", "--dry-run"];
        let ran = cluster.run(dry);
        assert!(ran.out.starts_with(b"dry run: entry 9 of range 4 would be left out;"));
        assert!(cluster.skipped().is_empty());
        cluster.run(["admin", "partition", "skip-entry", "4", "9", "--confirm"]).prints(
            "OK (entry 9 of range 4 has no effect)\nreplicas that stand there: on nodes 1\nwhy: unknown\n",
        );
        assert_eq!(cluster.skipped(), [(4, 9)]);
        let no = cluster.run_at_terminal(skip, "n\n");
        assert!(
            no.notes
                .starts_with("This loses what entry 9 of range 4 was to write (unknown). Go on?")
        );
        cluster
            .run(["admin", "partition", "skip-entry", "1", "9", "--confirm"])
            .fails(1, "error: FAILED_PRECONDITION: ");
    }
}
