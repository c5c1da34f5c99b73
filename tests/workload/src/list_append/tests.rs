//! Histories that are known to be good or bad, and the class of each bad one.

use super::*;
use CycleClass::{G0, G1c, G2, GNonadjacent, GSingle};

/// A history written by hand: `x` and `y` are keys.
#[derive(Default)]
struct History(Vec<Transaction>);

impl History {
    fn add(&mut self, span: (u64, u64), level: Level, outcome: Outcome, ops: Vec<Op>) -> &mut Self {
        let (began, ended) = (span.0, (outcome == Outcome::Ok).then_some(span.1));
        let client = self.0.len();
        self.0.push(Transaction {
            client,
            level,
            mode: Mode::Optimistic,
            began,
            ended,
            outcome,
            ops,
        });
        self
    }

    /// Adds a transaction that overlaps all others of this kind, so that real time orders nothing.
    fn ok(&mut self, ops: Vec<Op>) -> &mut Self {
        self.add((1, 1000), Level::Serializable, Outcome::Ok, ops)
    }

    fn snapshot(&mut self, ops: Vec<Op>) -> &mut Self {
        self.add((1, 1000), Level::Snapshot, Outcome::Ok, ops)
    }

    fn at(&mut self, began: u64, ended: u64, ops: Vec<Op>) -> &mut Self {
        self.add((began, ended), Level::Serializable, Outcome::Ok, ops)
    }

    fn snapshot_at(&mut self, began: u64, ended: u64, ops: Vec<Op>) -> &mut Self {
        self.add((began, ended), Level::Snapshot, Outcome::Ok, ops)
    }

    fn failed(&mut self, ops: Vec<Op>) -> &mut Self {
        self.add((1, 1000), Level::Serializable, Outcome::Failed, ops)
    }

    fn unknown(&mut self, ops: Vec<Op>) -> &mut Self {
        self.add((1, 1000), Level::Serializable, Outcome::Unknown, ops)
    }

    #[track_caller]
    fn passes(&self) {
        if let Err(anomalies) = check(&self.0) {
            panic!("{}", anomalies[0]);
        }
    }

    /// Asserts that the check fails, with this class as the worst.
    #[track_caller]
    fn fails(&self, class: Class) {
        let anomalies = check(&self.0).expect_err("a bad history");
        assert_eq!(anomalies[0].class, class, "{}", anomalies[0]);
    }

    #[track_caller]
    fn has_cycle(&self, class: CycleClass, real_time: bool) {
        self.fails(Class::Cycle { class, real_time });
    }
}

fn history() -> History {
    History::default()
}

fn r<const N: usize>(key: &str, list: [Element; N]) -> Op {
    Op::Read { key: key.into(), list: list.to_vec() }
}

fn a(key: &str, element: Element) -> Op {
    Op::Append { key: key.into(), element }
}

#[test]
fn what_runs_one_after_the_other_passes() {
    let mut good = history();
    good.at(1, 2, vec![r("x", []), a("x", 1), r("x", [1])]);
    good.at(3, 4, vec![r("x", [1]), a("x", 2), r("y", []), a("y", 3)]);
    good.at(5, 6, vec![r("x", [1, 2]), r("y", [3])]);
    good.passes();
    let summary = check(&good.0).unwrap();
    assert_eq!((summary.committed, summary.failed, summary.unknown), (3, 0, 0));
    assert!(summary.edges > 4, "{summary:?}");
    history().passes();
}

#[test]
fn concurrent_transactions_may_be_in_any_order_that_explains_them() {
    history()
        .at(1, 10, vec![a("x", 1)])
        .at(2, 9, vec![r("x", [])])
        .at(3, 8, vec![r("x", [1])])
        .passes();
}

#[test]
fn a_value_from_nowhere_is_caught() {
    history().ok(vec![r("x", [5])]).fails(Class::Garbage);
}

#[test]
fn an_append_applied_twice_is_caught() {
    history().ok(vec![a("x", 1)]).ok(vec![r("x", [1, 1])]).fails(Class::Duplicate);
}

#[test]
fn a_transaction_that_does_not_see_its_own_appends_is_caught() {
    history().ok(vec![r("x", []), a("x", 1), r("x", [])]).fails(Class::Internal);
    history().ok(vec![a("x", 1), r("x", [])]).fails(Class::Internal);
    history().ok(vec![a("x", 1)]).ok(vec![r("x", []), r("x", [1])]).fails(Class::Internal);
    history().ok(vec![a("x", 1)]).ok(vec![a("x", 2), r("x", [1, 2]), r("x", [1, 2])]).passes();
}

#[test]
fn a_read_of_a_transaction_that_failed_is_g1a() {
    history().failed(vec![a("x", 1)]).ok(vec![r("x", [1])]).fails(Class::AbortedRead);
    history().failed(vec![a("x", 1)]).ok(vec![r("x", [])]).passes();
}

#[test]
fn a_read_in_the_middle_of_a_transaction_is_g1b() {
    let writes = vec![a("x", 1), a("x", 2)];
    history().ok(writes.clone()).ok(vec![r("x", [1])]).fails(Class::IntermediateRead);
    history().ok(writes).ok(vec![r("x", [1, 2])]).passes();
}

#[test]
fn lists_that_are_not_one_behind_the_other_are_caught() {
    history()
        .ok(vec![a("x", 1)])
        .ok(vec![a("x", 2)])
        .ok(vec![r("x", [1, 2])])
        .ok(vec![r("x", [2])])
        .fails(Class::IncompatibleOrder);
}

#[test]
fn a_lost_update_is_caught_without_anybody_who_reads() {
    for level in [Level::Serializable, Level::Snapshot] {
        history()
            .add((1, 9), level, Outcome::Ok, vec![r("x", []), a("x", 1)])
            .add((1, 9), level, Outcome::Ok, vec![r("x", []), a("x", 2)])
            .fails(Class::IncompatibleOrder);
    }
}

#[test]
fn an_acknowledged_append_that_is_never_seen_again_is_lost() {
    history()
        .at(1, 2, vec![a("x", 1)])
        .at(3, 4, vec![a("x", 2)])
        .at(5, 6, vec![r("x", [1])])
        .fails(Class::LostAppend);
    // Nobody read the key after the append was acknowledged.
    history()
        .at(1, 2, vec![a("x", 1)])
        .at(3, 9, vec![a("x", 2)])
        .at(5, 6, vec![r("x", [1])])
        .passes();
}

#[test]
fn dirty_writes_are_g0() {
    history()
        .ok(vec![a("x", 1), a("y", 1)])
        .ok(vec![a("x", 2), a("y", 2)])
        .ok(vec![r("x", [1, 2])])
        .ok(vec![r("y", [2, 1])])
        .has_cycle(G0, false);
}

#[test]
fn writes_against_the_order_of_real_time_are_g0_realtime() {
    history()
        .at(5, 6, vec![a("x", 1)])
        .at(1, 2, vec![a("x", 2)])
        .at(1, 20, vec![r("x", [1, 2])])
        .has_cycle(G0, true);
}

#[test]
fn two_transactions_that_see_each_other_are_g1c() {
    history()
        .ok(vec![a("x", 1), r("y", [2])])
        .ok(vec![a("y", 2), r("x", [1])])
        .has_cycle(G1c, false);
}

#[test]
fn a_read_of_the_future_is_g1c_realtime() {
    let mut bad = history();
    bad.at(1, 2, vec![r("x", [1])]).at(3, 4, vec![a("x", 1)]);
    bad.has_cycle(G1c, true);
    let mut bad = history();
    bad.snapshot_at(1, 2, vec![r("x", [1])]).snapshot_at(3, 4, vec![a("x", 1)]);
    bad.has_cycle(G1c, true);
}

#[test]
fn half_of_a_transaction_seen_is_g_single() {
    let mut bad = history();
    bad.ok(vec![a("x", 1), a("y", 1)]).ok(vec![r("x", [1]), r("y", [])]).ok(vec![r("y", [1])]);
    bad.has_cycle(GSingle, false);
    let mut bad = history();
    bad.snapshot(vec![a("x", 1), a("y", 1)]);
    bad.snapshot(vec![r("x", [1]), r("y", [])]).snapshot(vec![r("y", [1])]);
    bad.has_cycle(GSingle, false);
}

#[test]
fn a_read_that_misses_what_was_acknowledged_is_g_single_realtime_at_either_level() {
    let mut bad = history();
    bad.at(1, 2, vec![a("x", 1)]).at(3, 4, vec![r("x", [])]).at(5, 6, vec![r("x", [1])]);
    bad.has_cycle(GSingle, true);
    let mut bad = history();
    bad.snapshot_at(1, 2, vec![a("x", 1)]).snapshot_at(3, 4, vec![r("x", [])]);
    bad.snapshot_at(5, 6, vec![r("x", [1])]);
    bad.has_cycle(GSingle, true);
}

#[test]
fn write_skew_is_g2_and_allowed_between_snapshots_alone() {
    let [first, second] = [vec![r("x", []), a("y", 1)], vec![r("y", []), a("x", 2)]];
    let seen = vec![r("x", [2]), r("y", [1])];
    history().ok(first.clone()).ok(second.clone()).ok(seen.clone()).has_cycle(G2, false);
    history().snapshot(first.clone()).snapshot(second.clone()).ok(seen.clone()).passes();
    // The serializable transaction did not see the snapshot transaction. The latter need not have
    // seen the former.
    history().ok(first.clone()).snapshot(second).ok(seen).passes();
}

#[test]
fn a_serializable_reader_between_snapshots_sees_one_order() {
    // The reader saw the first without the second, and the second saw no write. One order explains
    // that: the second reads, the first commits, the reader reads, the second commits.
    history()
        .snapshot(vec![r("x", []), r("y", []), a("x", 1)])
        .snapshot(vec![r("x", []), r("y", []), a("y", 2)])
        .ok(vec![r("x", [1]), r("y", [])])
        .ok(vec![r("x", [1]), r("y", [2])])
        .passes();
}

#[test]
fn write_skew_against_real_time_is_caught_between_snapshots_too() {
    history()
        .snapshot_at(1, 2, vec![r("x", []), a("y", 1)])
        .snapshot_at(3, 4, vec![r("y", []), a("x", 2)])
        .snapshot_at(5, 6, vec![r("x", [2]), r("y", [1])])
        .has_cycle(GSingle, true);
}

#[test]
fn a_long_fork_is_g_nonadjacent_and_forbidden_to_snapshots() {
    for level in [Level::Serializable, Level::Snapshot] {
        let mut bad = history();
        for ops in [
            vec![a("x", 1)],
            vec![a("y", 2)],
            vec![r("x", [1]), r("y", [])],
            vec![r("x", []), r("y", [2])],
        ] {
            bad.add((1, 1000), level, Outcome::Ok, ops);
        }
        bad.has_cycle(GNonadjacent, false);
    }
}

#[test]
fn what_is_unknown_may_have_happened_or_not() {
    let lost = vec![r("x", []), a("x", 1), a("y", 1)];
    history().unknown(lost.clone()).ok(vec![r("x", [])]).passes();
    history().unknown(lost.clone()).ok(vec![r("x", [1]), r("y", [1])]).passes();
    // The unknown transaction may happen late, but not in part, and not before it began.
    let late = history().unknown(lost.clone()).at(1, 2, vec![r("x", [])]).0.clone();
    History(late).at(3, 4, vec![r("x", [1]), r("y", [1])]).passes();
    history().unknown(lost.clone()).ok(vec![r("x", [1]), r("y", [])]).has_cycle(GSingle, false);
    let mut early = history();
    early.at(1, 2, vec![r("x", [1])]);
    early.add((3, 4), Level::Serializable, Outcome::Unknown, lost);
    early.has_cycle(G1c, true);
}

#[test]
fn what_an_unknown_transaction_read_counts_if_somebody_saw_it() {
    let skewed = vec![r("x", []), a("y", 1)];
    let other = vec![r("y", []), a("x", 2)];
    let unseen =
        history().unknown(skewed.clone()).ok(other.clone()).ok(vec![r("x", [2])]).0.clone();
    History(unseen).passes();
    let seen = vec![r("x", [2]), r("y", [1])];
    history().unknown(skewed).ok(other).ok(seen).has_cycle(G2, false);
}

#[test]
fn an_unknown_transaction_is_seen_through_another_one() {
    // Only the third proves that the second is committed, and only the second proves that the first
    // is.
    history()
        .unknown(vec![a("x", 1), a("z", 3)])
        .unknown(vec![r("x", [1]), a("y", 2)])
        .ok(vec![r("y", [2]), r("z", [])])
        .has_cycle(GSingle, false);
}

#[test]
fn the_worst_cycle_of_many_is_told_and_told_briefly() {
    // Write skew among the first two; dirty writes among all.
    let mut bad = history();
    bad.ok(vec![r("p", []), a("q", 5), a("x", 1), a("y", 1)]);
    bad.ok(vec![r("q", []), a("p", 6), a("x", 2), a("y", 2)]);
    bad.ok(vec![r("x", [1, 2])]).ok(vec![r("y", [2, 1])]).ok(vec![r("p", [6]), r("q", [5])]);
    let anomalies = check(&bad.0).unwrap_err();
    assert_eq!(anomalies[0].class, Class::Cycle { class: G0, real_time: false });
    let text = anomalies[0].to_string();
    assert_eq!(text.lines().count(), 5, "{text}");
    assert!(text.contains("T0 before T1: on x the append of 2 comes next (ww)"), "{text}");
    assert!(text.contains("T1 before T0: on y the append of 1 comes next (ww)"), "{text}");
}

#[test]
fn real_time_is_told_with_its_stamps() {
    let mut bad = history();
    bad.at(1, 2, vec![a("x", 1)]).at(3, 4, vec![r("x", [])]).at(5, 6, vec![r("x", [1])]);
    let text = check(&bad.0).unwrap_err()[0].to_string();
    assert!(
        text.contains("T0 before T1: it was answered at 2, the other began at 3 (rt)"),
        "{text}"
    );
    assert!(text.contains("T1 before T0: it read x without 1, which came next (rw)"), "{text}");
}

#[test]
fn the_same_element_from_two_transactions_is_a_bad_history() {
    history().ok(vec![a("x", 1)]).ok(vec![a("x", 1)]).fails(Class::BadHistory);
}

#[test]
fn of_each_class_a_few_are_told() {
    let mut bad = history();
    for number in 0..20 {
        bad.ok(vec![r("x", [1000 + number])]);
    }
    bad.failed(vec![a("y", 1)]).ok(vec![r("y", [1])]);
    let classes: Vec<Class> =
        check(&bad.0).unwrap_err().iter().map(|anomaly| anomaly.class).collect();
    assert_eq!(classes.iter().filter(|class| **class == Class::Garbage).count(), 4);
    assert!(classes.contains(&Class::AbortedRead), "{classes:?}");
}
