//! Figures of transactions and of garbage collection: `rangedb_txn_*` and `rangedb_gc_*`.
//!
//! The leader that decides a command counts it, whoever sent the command. Commits by path,
//! conflicts and waits of a coordinator are known only to its client. Those of this node's own
//! client, which serves unary requests, are shown here. An application shows those of its own
//! client.

use prometheus::proto::MetricFamily;
use rangedb_proto::Timestamp;
use rangedb_storage::StateStats;

use super::sample::Sample;
use crate::node::Node;

pub(super) fn gather(node: &Node, stats: &StateStats) -> Vec<MetricFamily> {
    let mut families = vec![commands(node), gateway_commits(node)];
    families.extend(gateway(node));
    families.extend(lock_waits(node));
    families.extend(garbage(node, stats));
    families.retain(|family| !family.get_metric().is_empty());
    families
}

fn commands(node: &Node) -> MetricFamily {
    let help = "Commands that ranges led here decided, by what was answered.";
    let sample = Sample::counter("rangedb_txn_commands_total", help);
    let add = |sample: Sample, (command, outcome, count): (&str, &str, u64)| {
        sample.with(&[("command", command), ("outcome", outcome)], count as f64)
    };
    node.command_counts().into_iter().fold(sample, add).finish()
}

fn gateway_commits(node: &Node) -> MetricFamily {
    let metrics = node.gateway().metrics();
    let help = "Commits of this node's own client, by the way that they took.";
    let paths = [
        ("read_only", metrics.commits_read_only),
        ("one_range", metrics.commits_one_range),
        ("two_phase", metrics.commits_two_phase),
        ("async", metrics.commits_async),
    ];
    let sample = Sample::counter("rangedb_txn_gateway_commits_total", help);
    let add = |sample: Sample, (path, count)| sample.with(&[("path", path)], count as f64);
    paths.into_iter().fold(sample, add).finish()
}

fn gateway(node: &Node) -> Vec<MetricFamily> {
    let metrics = node.gateway().metrics();
    let counters = [
        ("conflicts", "Commits that ended because of another transaction.", metrics.conflicts),
        ("deadlocks", "Transactions that were told of a deadlock.", metrics.deadlocks),
        ("lock_waits", "Requests that were answered with a lock.", metrics.lock_waits),
        ("resolved_locks", "Locks of others that were finished.", metrics.resolved_locks),
        ("retries", "Attempts after the first one of a request.", metrics.retries),
        ("restarts", "Transactions that were begun anew.", metrics.restarts),
        ("undetermined", "Commits whose outcome was not known.", metrics.undetermined),
    ];
    let family = |(name, help, count): (&str, &str, u64)| {
        Sample::counter(&format!("rangedb_txn_gateway_{name}_total"), help)
            .with(&[], count as f64)
            .finish()
    };
    counters.into_iter().map(family).collect()
}

fn lock_waits(node: &Node) -> Vec<MetricFamily> {
    let counts = node.lock_waits();
    let waiting = Sample::gauge("rangedb_txn_lock_waiting", "Requests that wait for a lock here.");
    let begun = Sample::counter("rangedb_txn_lock_waits_total", "Waits for a lock here.");
    let deadlocks =
        Sample::counter("rangedb_txn_deadlocks_total", "Waits that ended because of a deadlock.");
    vec![
        waiting.with(&[], counts.waiting as f64).finish(),
        begun.with(&[], counts.begun as f64).finish(),
        deadlocks.with(&[], counts.deadlocks as f64).finish(),
    ]
}

fn garbage(node: &Node, stats: &StateStats) -> Vec<MetricFamily> {
    let counts = node.garbage_counts();
    let seconds = |timestamp: u64| Timestamp(timestamp).millis() as f64 / 1e3;
    let gauge = |name: &str, help: &str, value: f64| {
        Sample::gauge(&format!("rangedb_gc_{name}"), help).with(&[], value).finish()
    };
    let counter = |name: &str, help: &str, value: u64| {
        Sample::counter(&format!("rangedb_gc_{name}_total"), help).with(&[], value as f64).finish()
    };
    let mut families = vec![
        counter(
            "locks_settled",
            "Locks from below the floor that were settled.",
            counts.locks_settled,
        ),
        counter(
            "records_dropped",
            "Records dropped by walks over led ranges.",
            counts.records_dropped,
        ),
        counter(
            "compaction_history_dropped",
            "Superseded versions dropped by compaction.",
            stats.history_records_collected,
        ),
        counter(
            "compaction_deleted_dropped",
            "Deleted markers dropped by compaction.",
            stats.deleted_markers_collected,
        ),
    ];
    let mut collected = Sample::gauge(
        "rangedb_gc_collected_below_seconds",
        "Of led ranges: what is out of sight below has been dropped; since 1970.",
    );
    for (range, below) in node.collected_below().into_iter().filter(|(_, below)| *below > 0) {
        collected = collected.with(&[("range_id", &range.0.to_string())], seconds(below));
    }
    families.push(collected.finish());
    // Without a floor there is no figure: it would report a lag of half a century.
    if counts.floor_ts > 0 {
        let lag = seconds(node.newest_timestamp()) - seconds(counts.floor_ts);
        families.extend([
            gauge("floor_seconds", "Floor, since 1970.", seconds(counts.floor_ts)),
            gauge("floor_lag_seconds", "Floor behind the oracle's time as known here.", lag),
            gauge(
                "collect_below_seconds",
                "What is out of sight below is dropped; since 1970.",
                seconds(counts.collect_below_ts),
            ),
        ]);
    }
    families
}
