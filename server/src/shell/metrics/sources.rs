//! Sources of metrics, with the help text of each.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::proto::MetricFamily;
use rangedb_proto::v1::NodeState;
use rangedb_raftstore::{Counters, RangeStatus, Room};
use rangedb_storage::{RaftEngineLog, RocksState};

use super::{sample::Sample, transactions};
use crate::node::Node;
use crate::shell::disk_watch::DiskWatch;
use crate::shell::heavy_reads::HeavyReadPool;
use crate::shell::log_writer::Backlog;
use crate::shell::logging;
use crate::shell::mailbox::Mailbox;
use crate::shell::memory::Budget;
use crate::shell::transport::Counts;
use crate::status_board::StatusBoard;

pub(crate) struct Sources {
    pub node: Arc<Node>,
    pub board: Arc<StatusBoard>,
    pub mailboxes: Vec<Mailbox>,
    pub transport: Arc<Counts>,
    pub budget: Budget,
    pub heavy_reads: Arc<HeavyReadPool>,
    pub state: Arc<RocksState>,
    pub log: Arc<RaftEngineLog>,
    pub disk: Arc<DiskWatch>,
    pub log_backlog: Backlog,
    pub cluster_id: u64,
    pub node_id: u64,
}

type Count = fn(&Counters) -> u64;

/// Counters of every store, since the process began.
const STORE_COUNTERS: [(&str, &str, Count); 14] = [
    ("passes_total", "Passes of the store's thread over its ranges.", |c| c.passes),
    ("messages_received_total", "Raft messages taken in.", |c| c.messages_received),
    ("messages_sent_total", "Raft messages handed to the transport.", |c| c.messages_sent),
    ("requests_answered_total", "Commands and operations answered.", |c| c.requests_answered),
    ("reads_under_lease_total", "Reads served under a leader's lease.", |c| c.reads_under_lease),
    ("reads_confirmed_total", "Reads for which a quorum was asked.", |c| c.reads_confirmed),
    ("appends_total", "Batches handed to the log writer.", |c| c.appends),
    ("flushes_total", "Flushes of the state asked for.", |c| c.flushes),
    ("snapshots_sent_total", "Snapshots that were begun to be sent.", |c| c.snapshots_sent),
    ("snapshots_received_total", "Snapshots that came in whole.", |c| c.snapshots_received),
    ("replicas_created_total", "Replicas made on this node.", |c| c.replicas_created),
    ("replicas_destroyed_total", "Replicas taken off this node.", |c| c.replicas_destroyed),
    ("leaderships_won_total", "Times a replica of this node became leader.", |c| c.leaderships_won),
    (
        "stalled_hand_overs_total",
        "Hand-overs of leaderships begun because log writes did not complete.",
        |c| c.stalled_hand_overs,
    ),
];

type Figure = fn(&RangeStatus) -> u64;

/// Gauges of every replica on this node.
const RANGE_GAUGES: [(&str, &str, Figure); 9] = [
    ("leads", "1 if this node's replica leads the range.", |s| s.leads.into()),
    ("has_leader", "1 if this node's replica knows a leader.", |s| {
        u64::from(s.leader_replica_id != 0)
    }),
    ("term", "Raft term.", |s| s.term),
    ("applied_index", "Index of the last entry applied.", |s| s.applied_index),
    ("commit_index", "Index of the last entry known to be committed.", |s| s.commit_index),
    ("log_entries", "Entries that the raft log holds.", |s| s.log_entries),
    ("rows", "Keys that have a value.", |s| s.size.rows),
    ("row_bytes", "Bytes of the keys that have a value, and of their values.", |s| s.size.bytes),
    (
        "quarantined",
        "1 if this node's replica stands still at an entry that it cannot apply.",
        |s| u64::from(s.quarantine.is_some()),
    ),
];

impl Sources {
    pub fn gather(&self) -> Vec<MetricFamily> {
        let mut families = self.stores();
        families.extend(self.transport());
        families.extend(self.ranges());
        families.extend(self.storage());
        families.extend(self.memory());
        families.extend(transactions::gather(&self.node, &self.state.stats()));
        let (cluster_id, node_id) = (format!("{:016x}", self.cluster_id), self.node_id.to_string());
        let labels = [
            ("cluster_id", cluster_id.as_str()),
            ("node_id", &node_id),
            ("version", env!("CARGO_PKG_VERSION")),
        ];
        let info = Sample::gauge("rangedb_node_info", "Always 1; says which node this is.");
        families.push(info.with(&labels, 1.0).finish());
        families.extend(self.clocks());
        families.extend(self.cluster());
        let lost = Sample::counter(
            "rangedb_log_lines_dropped_total",
            "Log lines lost because standard error could not be written.",
        );
        families.push(lost.with(&[], logging::lines_dropped() as f64).finish());
        families
    }

    /// Figures of the cluster, at the control plane alone.
    fn cluster(&self) -> Vec<MetricFamily> {
        let Some(status) = self.node.cluster_status() else { return Vec::new() };
        let in_state = |wanted| {
            let nodes = status.nodes.iter().filter(|status| {
                status.node.as_ref().is_some_and(|node| node.state() == wanted) && !status.suspect
            });
            nodes.count()
        };
        let suspects = status.nodes.iter().filter(|node| node.suspect).count();
        let by_state = |sample: Sample, figures: &[(&str, usize)]| {
            let add = |sample: Sample, (state, count): &(&str, usize)| {
                sample.with(&[("state", *state)], *count as f64)
            };
            figures.iter().fold(sample, add).finish()
        };
        let nodes = Sample::gauge(
            "rangedb_cluster_nodes",
            "Nodes by state; a suspect one has not answered for some heartbeats.",
        );
        let ranges = Sample::gauge(
            "rangedb_cluster_ranges",
            "Ranges with a problem, by its kind; one range may have several.",
        );
        let problems =
            Sample::gauge("rangedb_cluster_problems", "Problems of the cluster's status.");
        vec![
            by_state(
                nodes,
                &[
                    ("up", in_state(NodeState::NodeUp)),
                    ("suspect", suspects),
                    ("dead", in_state(NodeState::NodeDead)),
                ],
            ),
            by_state(
                ranges,
                &[
                    ("replica_down", status.ranges_replica_down as usize),
                    ("without_quorum", status.ranges_without_quorum as usize),
                    ("without_leader", status.ranges_without_leader as usize),
                    ("under_factor", status.ranges_under_factor as usize),
                    ("quarantined", status.ranges_quarantined as usize),
                ],
            ),
            problems.with(&[], status.problems.len() as f64).finish(),
        ]
    }

    fn clocks(&self) -> Vec<MetricFamily> {
        let offset = Sample::gauge(
            "rangedb_clock_offset_seconds",
            "How far this node's clock is ahead of the majority's; absent where too few are heard.",
        );
        let ahead = Sample::gauge(
            "rangedb_clock_timestamps_ahead_seconds",
            "How far timestamps are ahead of the majority's clocks; at the control plane alone.",
        );
        let values = [self.node.clock_offset_ms(), self.node.timestamps_ahead_ms()];
        let known = [offset, ahead].into_iter().zip(values);
        known
            .filter_map(|(sample, ms)| Some(sample.with(&[], ms? as f64 / 1000.0).finish()))
            .collect()
    }

    fn stores(&self) -> Vec<MetricFamily> {
        let views = self.board.views();
        let counters = STORE_COUNTERS.iter().map(|(name, help, count)| {
            let name = format!("rangedb_raft_{name}");
            let sample = Sample::counter(&name, help);
            let views = views.iter().enumerate();
            views.fold(sample, |sample, (shard, view)| {
                let count = count(&view.counters);
                sample.with(&[("store", &shard.to_string())], count as f64)
            })
        });
        let mut families: Vec<MetricFamily> = counters.map(Sample::finish).collect();
        let waiting = Sample::gauge(
            "rangedb_raft_mailbox_bytes",
            "Bytes of requests and messages that wait for the store.",
        );
        let refused = Sample::counter(
            "rangedb_raft_mailbox_refused_total",
            "Requests refused because the store's mailbox was full.",
        );
        let dropped = Sample::counter(
            "rangedb_raft_mailbox_dropped_total",
            "Raft messages dropped because the store's mailbox was full.",
        );
        let mut of_mailboxes = [waiting, refused, dropped];
        for (shard, mailbox) in self.mailboxes.iter().enumerate() {
            let load = mailbox.load();
            let values = [load.bytes() as u64, load.requests_refused(), load.messages_dropped()];
            let shard = shard.to_string();
            let mut values = values.into_iter();
            of_mailboxes = of_mailboxes.map(|sample| {
                let value = values.next().expect("one for each family");
                sample.with(&[("store", &shard)], value as f64)
            });
        }
        families.extend(of_mailboxes.map(Sample::finish));
        families
    }

    fn transport(&self) -> Vec<MetricFamily> {
        let counts = &self.transport;
        let counter = |name: &str, help: &str, value: &AtomicU64| {
            let value = value.load(Ordering::Relaxed) as f64;
            Sample::counter(&format!("rangedb_raft_transport_{name}"), help)
                .with(&[], value)
                .finish()
        };
        vec![
            counter("sent_total", "Raft messages sent to other nodes.", &counts.sent),
            counter("received_total", "Raft messages received.", &counts.received),
            counter("dropped_total", "Raft messages dropped on the way.", &counts.dropped),
            counter("connects_total", "Connections tried to other nodes.", &counts.connects),
            counter("refused_total", "Streams of strangers refused.", &counts.refused),
        ]
    }

    fn ranges(&self) -> Vec<MetricFamily> {
        let ranges = self.board.ranges();
        let gauges = RANGE_GAUGES.iter().map(|(name, help, figure)| {
            let sample = Sample::gauge(&format!("rangedb_range_{name}"), help);
            let add = |sample: Sample, status: &RangeStatus| {
                let range_id = status.descriptor.range_id.to_string();
                sample.with(&[("range_id", &range_id)], figure(status) as f64)
            };
            ranges.iter().fold(sample, add).finish()
        });
        let mut families: Vec<MetricFamily> =
            gauges.filter(|family| !family.get_metric().is_empty()).collect();
        let replicas = Sample::gauge("rangedb_range_replicas", "Replicas on this node.");
        families.push(replicas.with(&[], ranges.len() as f64).finish());
        families
    }

    fn storage(&self) -> Vec<MetricFamily> {
        let stats = self.state.stats();
        let disk = self.disk.seen();
        let gauge = |name: &str, help: &str, value: u64| {
            Sample::gauge(&format!("rangedb_storage_{name}"), help).with(&[], value as f64).finish()
        };
        vec![
            gauge("file_bytes", "Bytes of the state's files.", stats.file_bytes),
            gauge("memtable_bytes", "Bytes written and not yet flushed.", stats.memtable_bytes),
            gauge(
                "pending_compaction_bytes",
                "Bytes that compaction has still to rewrite; an estimate.",
                stats.pending_compaction_bytes,
            ),
            gauge("block_cache_bytes", "Bytes in the block cache.", stats.block_cache_bytes),
            gauge("running_flushes", "Flushes under way.", stats.running_flushes),
            gauge("running_compactions", "Compactions under way.", stats.running_compactions),
            gauge(
                "writes_stopped",
                "1 while RocksDB holds writes up.",
                stats.writes_stopped.into(),
            ),
            gauge("log_bytes", "Bytes of the raft logs' files.", self.log.used_bytes()),
            Sample::gauge(
                "rangedb_storage_log_stalled_seconds",
                "How long the log write under way has waited to be durable.",
            )
            .with(&[], self.log_backlog.stalled_for().as_secs_f64())
            .finish(),
            gauge("disk_total_bytes", "Size of the file system.", disk.space.total_bytes),
            gauge(
                "disk_available_bytes",
                "Bytes free on the file system.",
                disk.space.available_bytes,
            ),
            gauge(
                "disk_needed_bytes",
                "Bytes that must be free for writes to be taken.",
                disk.needed_bytes,
            ),
            gauge(
                "disk_full",
                "1 while writes are refused for want of room.",
                (disk.room != Room::Enough).into(),
            ),
            gauge(
                "disk_full_for_deletes",
                "1 while even writes that free space are refused for want of room.",
                (disk.room == Room::None).into(),
            ),
        ]
    }

    fn memory(&self) -> Vec<MetricFamily> {
        let Budget { division, requests, tasks, answers } = &self.budget;
        let queued = self.mailboxes.iter().map(|mailbox| mailbox.load().bytes() as u64).sum();
        let stats = self.state.stats();
        // Name, limit, bytes used and number of refusals of each share.
        let shares = [
            ("block_cache", division.block_cache, stats.block_cache_bytes, None),
            ("memtables", division.memtables, stats.memtable_bytes, None),
            ("requests", division.requests, requests.used(), Some(requests.refused())),
            ("tasks", division.tasks, tasks.used(), Some(tasks.refused())),
            ("answers", division.answers, answers.used(), Some(answers.refused())),
            ("store_queues", division.store_queues, queued, None),
        ];
        let limit = Sample::gauge(
            "rangedb_memory_limit_bytes",
            "Bytes that the node uses at most (--memory-limit).",
        );
        let mut of_share = Sample::gauge(
            "rangedb_memory_share_limit_bytes",
            "Bytes that a share of the node's memory has at most.",
        );
        let mut used = Sample::gauge(
            "rangedb_memory_share_used_bytes",
            "Bytes that are taken from a share of the node's memory.",
        );
        let mut refused = Sample::counter(
            "rangedb_memory_refused_total",
            "Requests sent away because a share of the node's memory was used up.",
        );
        for (share, most, taken, refusals) in shares {
            let labels = [("share", share)];
            of_share = of_share.with(&labels, most as f64);
            used = used.with(&labels, taken as f64);
            if let Some(refusals) = refusals {
                refused = refused.with(&labels, refusals as f64);
            }
        }
        let waiting = Sample::gauge(
            "rangedb_heavy_reads_waiting",
            "Scans, validations and listings of locks that wait for a thread.",
        );
        vec![
            limit.with(&[], division.limit as f64).finish(),
            of_share.finish(),
            used.finish(),
            refused.finish(),
            waiting.with(&[], self.heavy_reads.waiting() as f64).finish(),
        ]
    }
}
