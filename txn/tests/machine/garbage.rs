//! Garbage collection in cases that a script cannot show: a replica that has lost records to
//! compaction which another still has, and spans too long for one command.

use crate::model::draw::Draw;
use crate::support::{Entry, Replica, forget_dropped, operation};
use bytes::Bytes;
use rangedb_proto::v1::command::Body as CommandBody;
use rangedb_proto::v1::command_reply::Body as Answer;
use rangedb_proto::v1::operation::Body as Op;
use rangedb_proto::v1::{CollectGarbage, CommitOneRange, Put, RollbackKeys};
use rangedb_storage::{ColumnFamily, Direction, Reader};
use rangedb_txn::{GARBAGE_WALK_MAX, garbage_ahead};

#[test]
fn replicas_that_compaction_thinned_out_answer_and_write_the_same() {
    let mut thinned = 0;
    for seed in 0..40 {
        let mut draw = Draw::new(seed);
        let mut replicas = [Replica::new(b"b", b"y"), Replica::new(b"b", b"y")];
        for _ in 0..400 {
            let ask = match draw.rng.u32(0..12) {
                0 => CommandBody::CollectGarbage(draw.collect()),
                _ => CommandBody::CommitOneRange(draw.command()),
            };
            let fence = draw.rng.u64(0..=draw.now());
            let mut replies =
                replicas.each_mut().map(|replica| replica.apply(&[Entry::of(ask.clone(), fence)]));
            replies.iter_mut().flatten().for_each(forget_dropped);
            assert_eq!(replies[0], replies[1], "seed {seed}: {ask:?}");
            let before = replicas[1].records().len();
            replicas[1].thin_out(|| draw.rng.u32(0..4) == 0);
            thinned += before - replicas[1].records().len();
        }
        let [whole, thin] = replicas.map(|replica| replica.records_above_garbage());
        assert_eq!(whole, thin, "seed {seed}");
    }
    assert!(thinned > 1_000, "only {thinned} records were thinned out");
}

fn key(place: usize) -> Bytes {
    format!("{place:08}").into()
}

fn put(replica: &mut Replica, key: Bytes, start_ts: u64) {
    let put = Put { key, value: Bytes::from_static(b"x"), lease_id: 0 };
    let operations = vec![operation(Op::Put(put))];
    let commit = CommitOneRange { start_ts, operations, ..Default::default() };
    replica.apply(&[Entry::new(&commit, 0)]);
}

/// Collects as a server does: looks ahead, and sends commands for the garbage found. Returns the
/// number of commands and of dropped records.
fn collect_all(replica: &mut Replica, below: u64) -> (usize, u64) {
    let (mut commands, mut dropped) = (0, 0);
    let mut from = Some(Bytes::new());
    while let Some(start) = from {
        let ahead = garbage_ahead(&replica.state, &start, b"", below, GARBAGE_WALK_MAX).unwrap();
        let moves_on = ahead.worth.is_some() || ahead.next.as_ref() != Some(&start);
        assert!(moves_on, "looking ahead stays at {start:?}");
        from = ahead.next;
        let Some((mut start_key, end_key)) = ahead.worth else { continue };
        loop {
            let collect = CollectGarbage {
                floor_ts: below,
                collect_below_ts: below,
                start_key,
                end_key: end_key.clone(),
            };
            let reply =
                replica.apply(&[Entry::of(CommandBody::CollectGarbage(collect), 0)]).remove(0);
            let Some(Answer::GarbageCollected(collected)) = reply.body else { panic!("{reply:?}") };
            assert!(collected.dropped > 0, "a command that drops nothing");
            commands += 1;
            dropped += collected.dropped;
            if collected.resume_key.is_empty() {
                break;
            }
            start_key = collected.resume_key;
        }
    }
    (commands, dropped)
}

/// Counts superseded versions. Beside each stands the record that finds it by its start_ts.
fn history(replica: &Replica) -> usize {
    let mut records =
        replica.state.scan(ColumnFamily::History, b"", b"", Direction::Forward).unwrap();
    let mut count = 0;
    while records.next().unwrap().is_some() {
        count += 1;
    }
    assert_eq!(count % 2, 0, "one of the two is left alone");
    count / 2
}

#[test]
fn a_long_span_is_collected_by_commands_of_bounded_length() {
    let mut replica = Replica::new(b"", b"");
    let keys = 2 * GARBAGE_WALK_MAX + 10;
    for place in 0..keys {
        put(&mut replica, key(place), 1 + place as u64);
    }
    let second = 1 + keys as u64;
    for place in 0..keys {
        put(&mut replica, key(place), second + place as u64);
    }
    assert_eq!(collect_all(&mut replica, second), (0, 0), "nothing ended below");
    let (commands, dropped) = collect_all(&mut replica, u64::MAX >> 1);
    assert_eq!((dropped, history(&replica)), (2 * keys as u64, 0));
    assert!((5..12).contains(&commands), "{commands} commands");
}

#[test]
fn a_hot_key_is_collected_piece_by_piece_and_costs_little_while_it_is_not() {
    let mut replica = Replica::new(b"", b"");
    let versions = GARBAGE_WALK_MAX as u64 + 100;
    for start_ts in 1..=versions {
        put(&mut replica, key(7), start_ts);
    }
    put(&mut replica, key(8), versions + 1);
    // With so few records to walk over, looking ahead passes the key only by skipping its versions.
    let first = garbage_ahead(&replica.state, b"", b"", 1, 8).unwrap();
    assert_eq!((first.worth, first.next), (None, None));
    let (commands, dropped) = collect_all(&mut replica, versions - 50);
    assert!(commands >= 2, "{commands} commands");
    assert!(dropped > GARBAGE_WALK_MAX as u64, "{dropped} records");
    // Versions that ended at or above the bound: at versions - 50 and at each of the fifty above.
    assert_eq!(history(&replica), 51);
}

#[test]
fn records_of_rolled_back_transactions_at_one_key_are_collected_piece_by_piece() {
    let mut replica = Replica::new(b"", b"");
    let count = GARBAGE_WALK_MAX as u64 + 100;
    for start_ts in 1..=count {
        let rollback = RollbackKeys { start_ts, keys: vec![key(7)] };
        replica.apply(&[Entry::of(CommandBody::RollbackKeys(rollback), 0)]);
    }
    assert_eq!(collect_all(&mut replica, count - 9).1, count - 10);
    // The range record, and the outcome records that can still be asked for.
    assert_eq!(replica.records().len(), 1 + 10);
}
