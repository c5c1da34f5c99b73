//! Tests of the queue alone. `client/tests/sdk/turns.rs` tests its timing.

use futures::FutureExt;
use futures::future::pending;

use super::*;
use crate::net::{BoxFuture, CallError, Net};

/// A clock that is moved by hand. Sleeps never end, and there are no calls.
#[derive(Default)]
struct Still(Mutex<Duration>);

impl Net for Still {
    fn call<'a>(
        &'a self,
        _: &'a str,
        _: v1::request::Body,
        _: Duration,
    ) -> BoxFuture<'a, Result<v1::response::Body, CallError>> {
        unreachable!("a queue makes no calls")
    }

    fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
        Box::pin(pending())
    }

    fn now(&self) -> Duration {
        *self.0.lock()
    }

    fn random_below(&self, _: u64) -> u64 {
        unreachable!("a queue throws no dice")
    }

    fn spawn(&self, _: BoxFuture<'static, ()>) {
        unreachable!("a queue has no tasks")
    }
}

const LATER: Duration = Duration::from_secs(100);

fn turns() -> (Turns, Arc<Still>) {
    let net = Arc::new(Still::default());
    (Turns::new(net.clone()), net)
}

fn key() -> Bytes {
    "k".into()
}

fn turn(turns: &Turns, taker: Taker) -> Turn {
    turns.join(&key(), taker).unwrap_or_else(|_| panic!("it is taken"))
}

fn wait(turns: &Turns, taker: Taker) -> oneshot::Receiver<Notification> {
    turns.join(&key(), taker).err().expect("somebody has it")
}

fn notification(wait: &mut oneshot::Receiver<Notification>) -> Option<Notification> {
    wait.try_recv().expect("somebody answers for it")
}

fn its_turn(wait: &mut oneshot::Receiver<Notification>) -> Turn {
    match notification(wait) {
        Some(Notification::Turn(turn)) => turn,
        _ => panic!("its turn has not come"),
    }
}

fn row(version: u64) -> v1::KeyValue {
    v1::KeyValue { key: key(), version, ..Default::default() }
}

#[test]
fn only_waiters_from_before_a_write_was_sent_are_answered_with_its_row() {
    let (turns, _) = turns();
    let first = turn(&turns, Taker::Write);
    let mut early = wait(&turns, Taker::Write);
    assert!(first.sending());
    let mut late = wait(&turns, Taker::Write);
    first.found(Some(&row(7)));
    assert!(
        matches!(notification(&mut early), Some(Notification::Found(Some(found))) if found.version == 7)
    );
    let second = its_turn(&mut late);
    assert!(!second.sending(), "nobody waits");
    drop(second);
    turn(&turns, Taker::Write);
    assert!(turns.state.lock().queues.is_empty(), "nothing is left of a key at rest");
}

#[test]
fn a_transaction_only_waits_for_its_turn() {
    let (turns, _) = turns();
    let first = turn(&turns, Taker::Write);
    let mut transaction = wait(&turns, Taker::Transaction);
    assert!(!first.sending());
    let mut write = wait(&turns, Taker::Write);
    assert!(first.sending());
    first.found(Some(&row(7)));
    assert!(matches!(notification(&mut write), Some(Notification::Found(_))));
    drop(its_turn(&mut transaction));
    turn(&turns, Taker::Write);
}

#[test]
fn a_turn_that_is_given_up_goes_to_the_first_that_still_waits() {
    for taker in [Taker::Write, Taker::Transaction] {
        let (turns, _) = turns();
        let first = turn(&turns, taker);
        let gone = wait(&turns, taker);
        let (mut second, mut third) = (wait(&turns, taker), wait(&turns, taker));
        drop(gone);
        drop(first);
        assert!(notification(&mut third).is_none());
        // The waiter leaves when it has its turn and does not know it yet.
        drop(second);
        second = wait(&turns, taker);
        drop(its_turn(&mut third));
        drop(its_turn(&mut second));
        turn(&turns, taker);
    }
}

#[test]
fn a_transaction_that_takes_too_long_loses_its_turn_and_a_write_does_not() {
    let (turns, net) = turns();
    let slow = turn(&turns, Taker::Transaction);
    let second = turns.enter(&"k".into(), Taker::Transaction, LATER).now_or_never();
    assert!(second.is_none() && slow.is_held_of(&key()));
    let key = key();
    let mut next = Box::pin(turns.enter(&key, Taker::Write, LATER));
    assert!(next.as_mut().now_or_never().is_none());
    *net.0.lock() = TURN_MAX;
    assert!(slow.is_held_of(&key), "nobody has looked");
    turns.end_overdue(&key, TURN_MAX);
    assert!(!slow.is_held_of(&key));
    let Some(Entered::Turn { turn: write, waited: true }) = next.as_mut().now_or_never() else {
        panic!("its turn has come")
    };
    // Dropping a lost turn does not end the turn of its next holder.
    drop(slow);
    assert!(write.is_held_of(&key) && !write.is_held_of(&"other".into()));
    assert!(turns.end_overdue(&key, LATER).is_none());
    assert!(write.is_held_of(&key));
}

#[test]
fn a_taker_without_time_does_not_wait() {
    let (turns, _) = turns();
    let _first = turn(&turns, Taker::Transaction);
    let entered = turns.enter(&key(), Taker::Transaction, Duration::ZERO).now_or_never();
    assert!(matches!(entered, Some(Entered::TimeUp)));
}

#[test]
fn a_hot_key_knows_the_time_of_its_last_change() {
    let (turns, net) = turns();
    drop(turn(&turns, Taker::Transaction));
    assert!(!turns.is_hot(&key()));
    turns.met_conflict(&key());
    assert!(turns.is_hot(&key()));
    let later = Duration::from_millis(1);
    *net.0.lock() = later;
    assert!(!turns.has_changed_since(&key(), later));
    drop(turn(&turns, Taker::Transaction));
    assert!(turns.has_changed_since(&key(), later));
}
