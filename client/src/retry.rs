//! Retry policy of a request whose attempt failed: another attempt, at once or later, or the end.
//!
//! Two rules matter more than speed:
//!
//! * A write that may have happened is not reported as failed. Once the answer to an attempt was
//!   lost, only success is an answer: a refusal of a later attempt says nothing about the lost one,
//!   which may still be in flight. The request then ends with [`Error::Undetermined`].
//! * A silent node is given up after a second, and each node is asked once between two pauses. So a
//!   node that hangs costs one attempt, and a cluster that is down costs little more than the
//!   pauses.
//!
//! A third rule keeps retries from adding to an overload: a request that a range is still working
//! on is not sent again. The client probes the node that leads the range (`patience.rs`), and waits
//! for as long as the node says that it leads and the caller has time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rangedb_proto::v1;

use crate::backoff::Backoff;
use crate::error::{Error, Result};
use crate::net::Net;
use crate::patience::Patience;

/// Longest silence of a node. Well above a commit on a busy disk, and well below an election, so
/// that a silent node is given up before its range has a new leader.
const ATTEMPT_MAX: Duration = Duration::from_secs(1);

/// Shortest timeout of an attempt, within which a healthy node answers. Otherwise an attempt takes
/// half of the remaining time, so that there is time for another one.
pub(crate) const ATTEMPT_MIN: Duration = Duration::from_millis(100);

/// Retry safety of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RetrySafety {
    /// May be repeated freely, and whether it happened does not matter to the caller.
    Repeatable,
    /// A command with a start timestamp, which is idempotent: repeated, it is applied once and
    /// answered twice.
    Recognised,
    /// A change that would be applied twice: not repeated once an answer was lost.
    Once,
}

/// Outcome of an attempt.
#[derive(Debug)]
pub(crate) enum Outcome<T> {
    Answer(T),
    /// The request was not executed. Another node may execute it.
    Elsewhere(Error),
    /// The request was not executed, and the router has learned newer ranges.
    Rerouted(Error),
    /// The request was not executed. The next attempt needs a pause.
    Later {
        at_least: Duration,
        reason: Error,
    },
    /// The request may have been executed.
    Lost(String),
    /// The request was not executed and never will be, on any node.
    Refused(Error),
}

pub(crate) struct Retry<'a> {
    net: &'a dyn Net,
    effect: RetrySafety,
    deadline: Duration,
    backoff: Backoff,
    may_have_happened: bool,
    lost_answers: bool,
    /// Extra time for an attempt, because the node waits for a lock.
    hold: Duration,
    rerouted_since_pause: bool,
    last: Error,
    /// `last` is an obstacle that the range itself reported, such as a lock, so nothing was
    /// executed.
    is_blocked: bool,
    begun: Duration,
    /// The last lock or conflict in the way, unless it is gone, and the time at which the range
    /// reported it.
    obstacle: Option<(Error, Duration)>,
    /// Addresses asked since the last pause, for the request itself.
    pub asked: BTreeSet<Arc<str>>,
    /// Addresses asked in vain for the route to the range, until all were asked. A pause does not
    /// clear them: while a route is known, each round makes only one attempt to find a better one.
    pub directories_asked: BTreeSet<Arc<str>>,
}

impl<'a> Retry<'a> {
    pub fn new(net: &'a dyn Net, effect: RetrySafety, deadline: Duration) -> Self {
        Retry {
            net,
            effect,
            deadline,
            backoff: Backoff::new(),
            may_have_happened: false,
            lost_answers: false,
            hold: Duration::ZERO,
            rerouted_since_pause: false,
            last: Error::Unavailable("no time to ask anybody".to_owned()),
            is_blocked: false,
            begun: net.now(),
            obstacle: None,
            asked: BTreeSet::new(),
            directories_asked: BTreeSet::new(),
        }
    }

    /// Returns the final error of the request if its time is up.
    pub fn check_time(&self) -> Result<()> {
        // The outcome of a blocked write is known. An attempt that is cut off in the middle would
        // make it unknown.
        let is_known = self.is_blocked && self.effect != RetrySafety::Repeatable;
        let needed = if is_known { ATTEMPT_MIN } else { Duration::ZERO };
        if self.left() <= needed {
            return Err(self.end(self.obstacle(false).unwrap_or(&self.last).clone()));
        }
        Ok(())
    }

    /// For reads: the obstacle, if the attempt before this one met it, or if the range reported it
    /// in the second half of the time so far. The obstacle says more than a missing answer in the
    /// remaining time.
    fn obstacle(&self, was_blocked: bool) -> Option<&Error> {
        let (reason, at) = self.obstacle.as_ref()?;
        let is_late = *at - self.begun >= self.net.now() - *at;
        (self.effect == RetrySafety::Repeatable && (was_blocked || is_late)).then_some(reason)
    }

    /// Timeout of an attempt that begins now, at a node that gives no sign of life; none if the
    /// time is up.
    pub fn attempt_timeout(&self) -> Option<Duration> {
        let left = self.left();
        let timeout = match self.effect {
            // A lost attempt is not followed by another one.
            RetrySafety::Once => left,
            RetrySafety::Repeatable | RetrySafety::Recognised => {
                let answer = (left / 2).max(ATTEMPT_MIN).min(ATTEMPT_MAX);
                (answer + self.hold).min(left)
            }
        };
        (!timeout.is_zero()).then_some(timeout)
    }

    /// Timeouts for a node that is asked now; none if the time is up.
    pub fn patience(&self) -> Option<Patience> {
        let attempt = self.attempt_timeout()?;
        // Half of the silence passes before the probe, half is for its answer.
        let answer = attempt.saturating_sub(self.hold) / 2;
        Some(Patience { quiet: attempt - answer, answer, all: self.left() })
    }

    /// Sets the time for which the node may hold each further attempt back before it answers.
    pub fn set_hold(&mut self, hold: Duration) {
        self.hold = hold;
    }

    pub fn left(&self) -> Duration {
        self.deadline.saturating_sub(self.net.now())
    }

    /// Evaluates an attempt. Returns its answer, or none when the next attempt is due.
    pub async fn after<T>(&mut self, outcome: Outcome<T>) -> Result<Option<T>> {
        let was_blocked = std::mem::take(&mut self.is_blocked);
        let is_over = self.left().is_zero();
        let obstacle = self.obstacle(was_blocked).filter(|_| is_over).cloned();
        match (outcome, obstacle) {
            (Outcome::Answer(answer), _) => return Ok(Some(answer)),
            (_, Some(obstacle)) => return Err(obstacle),
            (Outcome::Refused(error), None) => return Err(self.end(error)),
            (Outcome::Elsewhere(reason), None) => self.last = reason,
            (Outcome::Rerouted(reason), None) => {
                self.last = reason;
                // A single reroute is a range that moved; several in a row are nodes that disagree.
                if self.rerouted_since_pause {
                    self.pause(Duration::ZERO).await;
                }
                self.rerouted_since_pause = true;
                self.asked.clear();
            }
            (Outcome::Later { at_least, reason }, None) => {
                self.last = reason;
                self.pause(at_least).await;
            }
            (Outcome::Lost(reason), None) => {
                self.last = Error::Unavailable(reason);
                self.lost_answers = true;
                self.may_have_happened |= self.effect != RetrySafety::Repeatable;
                if self.effect == RetrySafety::Once {
                    return Err(self.end(self.last.clone()));
                }
            }
        }
        Ok(None)
    }

    /// Notes that the obstacle is gone or may be passed: the same node may be asked again at once.
    pub fn unblocked(&mut self) {
        self.obstacle = None;
        self.asked.clear();
    }

    /// Notes an obstacle that needs time, and pauses before the next attempt.
    pub async fn blocked(&mut self, reason: Error) {
        self.note_obstacle(reason);
        self.pause(Duration::ZERO).await;
    }

    /// As `blocked`, without a pause, because a node has already waited.
    pub fn held(&mut self, reason: Error) {
        self.note_obstacle(reason);
        self.asked.clear();
    }

    fn note_obstacle(&mut self, reason: Error) {
        self.obstacle = Some((reason.clone(), self.net.now()));
        self.last = reason;
        self.is_blocked = true;
    }

    /// True if an answer was lost and the request changes something.
    pub fn may_have_happened(&self) -> bool {
        self.may_have_happened
    }

    /// True if an answer was lost, for reads too.
    pub fn has_lost_answers(&self) -> bool {
        self.lost_answers
    }

    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Outcome after every node was asked in vain: the same again after a pause, with the last
    /// reason.
    pub fn round_over<T>(&self) -> Outcome<T> {
        Outcome::Later { at_least: Duration::ZERO, reason: self.last.clone() }
    }

    async fn pause(&mut self, at_least: Duration) {
        let wait = self.backoff.wait(self.net).max(at_least).min(self.left());
        self.net.sleep(wait).await;
        self.asked.clear();
        self.rerouted_since_pause = false;
    }

    /// Final error of the request, if `error` is the last that is known.
    ///
    /// A write conflict is final even after lost attempts. Had one of them been applied, the range
    /// would have recognised the command; one that arrives later meets the same newer version.
    pub fn end(&self, error: Error) -> Error {
        #[cfg(feature = "planted")]
        if rangedb_planted::Bug::UndeterminedAsFailed.is_planted() {
            return error;
        }
        if self.may_have_happened && !matches!(error, Error::WriteConflict { .. }) {
            return Error::Undetermined(format!("an answer was lost, and since then: {error}"));
        }
        error
    }
}

/// Maps a node's error to the outcome of the attempt. `sender.rs` updates the router from the
/// error.
pub(crate) fn outcome_of<T>(error: v1::Error) -> Outcome<T> {
    use v1::error::Kind;
    let message = error.message.clone();
    match &error.kind {
        Some(Kind::NotLeader(_) | Kind::RangeNotFound(_)) => {
            Outcome::Elsewhere(Error::Unavailable(message))
        }
        Some(Kind::StaleEpoch(_)) => Outcome::Rerouted(Error::Unavailable(message)),
        Some(Kind::TooBusy(busy)) => {
            let at_least = Duration::from_millis(busy.retry_after_ms.into());
            Outcome::Later { at_least, reason: error.into() }
        }
        Some(Kind::Unavailable(_) | Kind::DeadlineExceeded(_) | Kind::KeyLocked(_)) => {
            Outcome::Later { at_least: Duration::ZERO, reason: Error::Unavailable(message) }
        }
        Some(Kind::Undetermined(_)) | None => Outcome::Lost(message),
        Some(_) => Outcome::Refused(error.into()),
    }
}

#[cfg(test)]
mod tests;
