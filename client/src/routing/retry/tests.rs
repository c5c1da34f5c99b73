//! Tests of the final error of requests whose time is up while a lock is in their way.

use futures::FutureExt;
use parking_lot::Mutex;

use super::*;
use crate::net::{BoxFuture, CallError};

/// A clock that is set by hand. No call is made.
#[derive(Default)]
struct Hands(Mutex<Duration>);

impl Hands {
    fn set(&self, millis: u64) {
        *self.0.lock() = Duration::from_millis(millis);
    }
}

impl Net for Hands {
    fn call<'a>(
        &'a self,
        _: &'a str,
        _: v1::request::Body,
        _: Duration,
    ) -> BoxFuture<'a, std::result::Result<v1::response::Body, CallError>> {
        unreachable!("nobody is called")
    }

    fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
        Box::pin(async {})
    }

    fn now(&self) -> Duration {
        *self.0.lock()
    }

    fn random_below(&self, _: u64) -> u64 {
        0
    }

    fn spawn(&self, _: BoxFuture<'static, ()>) {
        unreachable!("no task is begun")
    }
}

const DEADLINE_MS: u64 = 1000;

fn locked() -> Error {
    v1::KeyLocked { key: "k".into(), ..Default::default() }.into()
}

/// Runs a request that is blocked at `blocked_ms` and loses attempts at `lost_ms`. Returns its
/// error.
fn end(safety: RetrySafety, blocked_ms: u64, lost_ms: &[u64]) -> Error {
    let net = Hands::default();
    let mut retry = Retry::new(&net, safety, Duration::from_millis(DEADLINE_MS));
    net.set(blocked_ms);
    retry.held(locked());
    for millis in lost_ms {
        net.set(*millis);
        let lost: Attempt<()> = Attempt::Lost("silence".to_owned());
        match retry.after(lost).now_or_never().expect("a lost attempt is followed at once") {
            Ok(answer) => assert!(answer.is_none()),
            Err(error) => return error,
        }
    }
    net.set(DEADLINE_MS);
    retry.check_time().unwrap_err()
}

fn is_lock(error: &Error) -> bool {
    matches!(error, Error::Locked { .. })
}

#[test]
fn a_lock_that_the_time_was_spent_on_is_told_though_the_last_attempts_were_lost() {
    // One attempt is lost just before the deadline; the next one, which had no time, at the
    // deadline.
    for lost_ms in [&[999, DEADLINE_MS][..], &[999], &[DEADLINE_MS], &[800, 950, DEADLINE_MS]] {
        let error = end(RetrySafety::Repeatable, 700, lost_ms);
        assert!(is_lock(&error), "{lost_ms:?}: {error}");
    }
    // The one attempt since then was held back for the lock.
    assert!(is_lock(&end(RetrySafety::Repeatable, 100, &[DEADLINE_MS])));
}

#[test]
fn a_node_that_was_silent_for_most_of_the_time_is_no_lock() {
    let error = end(RetrySafety::Repeatable, 100, &[400, 700, DEADLINE_MS]);
    assert!(matches!(error, Error::Unavailable(_)), "{error}");
}

#[test]
fn a_change_whose_answer_was_lost_is_undetermined_whatever_stood_in_its_way() {
    let error = end(RetrySafety::Recognised, 900, &[999, DEADLINE_MS]);
    assert!(matches!(error, Error::Undetermined(_)), "{error}");
}
