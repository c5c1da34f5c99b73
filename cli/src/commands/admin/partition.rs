//! `rangedb admin partition list`.

use futures::{StreamExt, TryStreamExt, pin_mut};
use rangedb_proto::v1::{PartitionStatus, RangeDescriptor, RangeReport};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Value, json};

use super::{known_node, list as id_list, replica_role};
use crate::args::Output;
use crate::duration;
use crate::escape::escape;
use crate::failure::Failure;
use crate::json;
use crate::session::Session;
use crate::table;

pub async fn list(session: &mut Session<'_>) -> Result<(), Failure> {
    let partitions = session.client.admin().partitions();
    pin_mut!(partitions);
    match session.output {
        Output::Json => {
            while let Some(partition) = partitions.next().await {
                json::print(session.streams.out, &Partition::new(partition?))?;
            }
            Ok(())
        }
        // All of them: how wide the columns are shows with the last.
        Output::Table => {
            let rows: Vec<_> = partitions
                .map_ok(|partition| Partition::new(partition).cells())
                .try_collect()
                .await?;
            Ok(table::print(session.streams.out, HEAD, rows)?)
        }
    }
}

const HEAD: [&str; 9] =
    ["RANGE", "START", "END", "EPOCH", "LEADER", "REPLICAS", "DOWN", "REPORTED", "OPERATION"];

/// A range with its parts at hand.
struct Partition {
    descriptor: RangeDescriptor,
    report: RangeReport,
    reported_ms: Option<u64>,
    operation: String,
}

impl Partition {
    fn new(status: PartitionStatus) -> Self {
        let mut report = status.report.unwrap_or_default();
        Partition {
            descriptor: report.descriptor.take().unwrap_or_default(),
            report,
            reported_ms: status.reported_ms,
            operation: status.operation,
        }
    }

    /// The range's line of the table. Replicas are shown by the node they are on.
    fn cells(&self) -> [String; HEAD.len()] {
        let descriptor = &self.descriptor;
        let key = |key: &[u8], none: &str| {
            if key.is_empty() { none.to_owned() } else { escape(key) }
        };
        let epoch = descriptor.epoch.unwrap_or_default();
        let replicas =
            descriptor.replicas.iter().map(|r| format!("{}:{}", r.node_id, replica_role(r.role)));
        let reported = self.reported_ms.map(|millis| format!("{} ago", duration::rounded(millis)));
        [
            descriptor.range_id.to_string(),
            key(&descriptor.start_key, "(first)"),
            key(&descriptor.end_key, "(last)"),
            format!("{}.{}", epoch.version, epoch.conf_ver),
            id_list(known_node(self.report.leader_node_id)),
            id_list(replicas),
            id_list(self.down_node_ids()),
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

impl Serialize for Partition {
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
                "30ms ago",
                "add learner"
            ]
        );
        assert_eq!(filled(1), ["4", r"a\t", "(last)", "1.1", "-", "1:voter", "-", "never", "-"]);
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
    }
}
