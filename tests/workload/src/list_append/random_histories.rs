//! Random histories: those of a store that is right by construction pass, and with one change they
//! fail.

use std::collections::BTreeMap;

use fastrand::Rng;
use proptest::prelude::*;

use super::*;

const KEYS: usize = 5;

/// Runs transactions against lists in memory. Several are open at a time; each takes effect at one
/// moment between its begin and its end, so the history is strictly serializable.
fn serial(seed: u64, count: usize) -> Vec<Transaction> {
    let mut rng = Rng::with_seed(seed);
    let mut lists: BTreeMap<Key, Vec<Element>> = BTreeMap::new();
    let mut history: Vec<Transaction> = Vec::new();
    let (mut open, mut stamp, mut element) = (Vec::new(), 0, 0);
    while history.len() < count || !open.is_empty() {
        stamp += 1;
        if history.len() < count && (open.is_empty() || rng.u8(0..3) > 0) {
            open.push(history.len());
            let level = if rng.bool() { Level::Serializable } else { Level::Snapshot };
            let (ended, outcome) = (None, Outcome::Unknown);
            let client = open.len();
            history.push(Transaction {
                client,
                level,
                mode: Mode::Optimistic,
                began: stamp,
                ended,
                outcome,
                ops: vec![],
            });
            if rng.bool() {
                continue;
            }
        }
        let place = open.swap_remove(rng.usize(0..open.len()));
        let (outcome, happens) = match rng.u8(0..10) {
            0 => (Outcome::Failed, false),
            1 => (Outcome::Unknown, rng.bool()),
            _ => (Outcome::Ok, true),
        };
        let mut after = lists.clone();
        for _ in 0..rng.usize(1..6) {
            let key: Key = format!("k{}", rng.usize(0..KEYS)).into();
            let list = after.entry(key.clone()).or_default();
            history[place].ops.push(Op::Read { key: key.clone(), list: list.clone() });
            if rng.bool() {
                element += 1;
                list.push(element);
                history[place].ops.push(Op::Append { key, element });
            }
        }
        if happens {
            lists = after;
        }
        history[place].outcome = outcome;
        history[place].ended = Some(stamp);
    }
    let reads = lists.into_iter().map(|(key, list)| Op::Read { key, list }).collect();
    let (began, ended) = (stamp + 1, Some(stamp + 2));
    let (level, outcome) = (Level::Serializable, Outcome::Ok);
    history.push(Transaction {
        client: 0,
        level,
        mode: Mode::Optimistic,
        began,
        ended,
        outcome,
        ops: reads,
    });
    history
}

fn is_read(transaction: &Transaction, place: usize) -> bool {
    matches!(&transaction.ops[place], Op::Read { list, .. } if !list.is_empty())
}

/// Makes a transaction that only reads.
fn read_of(key: Key, list: Vec<Element>, stamp: u64) -> Transaction {
    let ops = vec![Op::Read { key, list }];
    let (began, ended) = (stamp, Some(stamp + 1));
    let (level, outcome) = (Level::Snapshot, Outcome::Ok);
    Transaction { client: 0, level, mode: Mode::Optimistic, began, ended, outcome, ops }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_is_serial_always_passes(seed: u64, count in 1..120usize) {
        let verdict = check(&serial(seed, count));
        prop_assert!(verdict.is_ok(), "{}", verdict.unwrap_err()[0]);
    }

    #[test]
    fn an_acknowledged_append_that_vanishes_is_noticed(seed: u64, count in 20..80usize) {
        let mut history = serial(seed, count);
        let appended = history.iter().filter(|txn| txn.outcome == Outcome::Ok).find_map(|txn| {
            txn.ops.iter().find_map(|op| match op {
                Op::Append { element, .. } => Some(*element),
                Op::Read { .. } => None,
            })
        });
        let Some(lost) = appended else { return Ok(()) };
        for transaction in &mut history {
            for op in &mut transaction.ops {
                if let Op::Read { list, .. } = op {
                    list.retain(|element| *element != lost);
                }
            }
        }
        prop_assert!(check(&history).is_err());
    }

    #[test]
    fn a_read_that_is_too_old_is_noticed(seed: u64, count in 20..80usize) {
        let mut history = serial(seed, count);
        let last = history.pop().expect("the reads at the end");
        let stamp = last.ended.expect("answered") + 1;
        history.push(last.clone());
        let place = (0..last.ops.len()).find(|place| is_read(&last, *place));
        let Some(Op::Read { key, list }) = place.map(|place| last.ops[place].clone()) else {
            return Ok(());
        };
        let current = read_of(key.clone(), list.clone(), stamp);
        history.push(current);
        prop_assert!(check(&history).is_ok());
        let stale = read_of(key, list[..list.len() - 1].to_vec(), stamp + 2);
        history.push(stale);
        prop_assert!(check(&history).is_err());
    }

    #[test]
    fn a_failed_transaction_that_was_seen_is_noticed(seed: u64, count in 20..80usize) {
        let mut history = serial(seed, count);
        let seen = history.last().expect("the reads at the end").ops.iter().find_map(|op| match op {
            Op::Read { list, .. } => list.last().copied(),
            Op::Append { .. } => None,
        });
        let Some(seen) = seen else { return Ok(()) };
        let appends = |txn: &Transaction| {
            txn.ops.iter().any(|op| matches!(op, Op::Append { element, .. } if *element == seen))
        };
        let writer = history.iter_mut().find(|txn| appends(txn)).expect("somebody appended it");
        writer.outcome = Outcome::Failed;
        let anomalies = check(&history).unwrap_err();
        prop_assert!(anomalies.iter().any(|anomaly| anomaly.class == Class::AbortedRead));
    }
}

#[test]
fn large_histories_are_checked_in_one_go() {
    // Deep chains and wide histories must exceed neither the stack nor anybody's patience. The test
    // checks that the search ends, and how much it saw.
    let mut rng = Rng::with_seed(3);
    let mut lists: BTreeMap<Key, Vec<Element>> = BTreeMap::new();
    let mut history = Vec::new();
    for number in 0..50_000u64 {
        let mut ops = Vec::new();
        for _ in 0..4 {
            let key: Key = format!("k{}/{}", rng.usize(0..6), number / 200).into();
            let list = lists.entry(key.clone()).or_default();
            ops.push(Op::Read { key: key.clone(), list: list.clone() });
            if rng.bool() {
                let element = 10 * number + ops.len() as u64;
                list.push(element);
                ops.push(Op::Append { key, element });
            }
        }
        let level = if rng.bool() { Level::Serializable } else { Level::Snapshot };
        let (began, ended) = (2 * number, Some(2 * number + 5));
        history.push(Transaction {
            client: 0,
            level,
            mode: Mode::Optimistic,
            began,
            ended,
            outcome: Outcome::Ok,
            ops,
        });
    }
    let summary = check(&history).unwrap_or_else(|anomalies| panic!("{}", anomalies[0]));
    assert_eq!(summary.committed, 50_000);
    assert!(summary.edges > 250_000, "{summary:?}");
}
