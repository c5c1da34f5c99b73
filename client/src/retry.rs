//! Retry policy of a request whose attempt failed: another attempt, at once or later, or the end.
//!
//! Two rules matter more than speed:
//!
//! * A write that may have happened is not reported as failed. Once the answer to an attempt was
//!   lost, only success is an answer; a refusal of a later attempt says nothing about the lost one,
//!   which may still be on its way. The end is then [`Error::Undetermined`].
//! * A node that says nothing is left after a second, and a node is asked once between two pauses. So a
//!   node that hangs costs one attempt, and a cluster that is down costs little more than its pauses.
//!
//! And one that keeps load from feeding on itself: what a range is still working on is not sent
//! once more. Whoever leads it is asked whether it still does (`patience.rs`), and is waited for as
//! long as it says so and the caller has time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rangedb_proto::v1;

use crate::backoff::Backoff;
use crate::error::{Error, Result};
use crate::net::Net;
use crate::patience::Patience;

/// Longest silence of a node. Well above a commit on a busy disk, well below an election, so
/// that a node that went silent is left before its range has a new leader.
const ATTEMPT_MAX: Duration = Duration::from_secs(1);

/// An attempt takes half of what is left, so that there is time for another one; but never is cut
/// below this, in which a healthy node answers.
pub(crate) const ATTEMPT_MIN: Duration = Duration::from_millis(100);

/// What it means to send a request twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Changes nothing: may be repeated freely.
    Read,
    /// A command that carries its start timestamp: repeated, it is applied once and answered twice.
    Recognised,
    /// A change that would be made twice: not repeated once an answer was lost.
    Once,
}

/// How an attempt ended.
#[derive(Debug)]
pub(crate) enum Outcome<T> {
    Answer(T),
    /// It did not happen there. Another node may do it.
    Elsewhere(Error),
    /// It did not happen, but more is known about ranges now.
    Rerouted(Error),
    /// It did not happen, and needs time.
    Later {
        at_least: Duration,
        reason: Error,
    },
    /// It may have happened.
    Lost(String),
    /// It did not happen and will not, wherever it is asked.
    Refused(Error),
}

pub(crate) struct Retry<'a> {
    net: &'a dyn Net,
    effect: Effect,
    deadline: Duration,
    backoff: Backoff,
    may_have_happened: bool,
    lost_answers: bool,
    /// How much longer an attempt may take, because the node waits for a lock.
    hold: Duration,
    rerouted_since_pause: bool,
    last: Error,
    /// It is what stands in the way, told by the range itself.
    is_blocked: bool,
    begun: Duration,
    /// The last lock or conflict in the way, unless it is gone, and when the range told of it.
    obstacle: Option<(Error, Duration)>,
    /// Addresses asked since the last pause, for the request itself.
    pub asked: BTreeSet<Arc<str>>,
    /// Addresses asked in vain for the way to the range, until all were. A pause does not end that:
    /// while a range is known, each round asks for a better way only once.
    pub directories_asked: BTreeSet<Arc<str>>,
}

impl<'a> Retry<'a> {
    pub fn new(net: &'a dyn Net, effect: Effect, deadline: Duration) -> Self {
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

    /// The end of the request if its time is up.
    pub fn check_time(&self) -> Result<()> {
        // Cut off in the middle, a change would have an outcome that nobody knows.
        let is_known = self.is_blocked && self.effect != Effect::Read;
        let needed = if is_known { ATTEMPT_MIN } else { Duration::ZERO };
        if self.left() <= needed {
            return Err(self.end(self.obstacle(false).unwrap_or(&self.last).clone()));
        }
        Ok(())
    }

    /// The obstacle, if the attempt before this one met it, or if the range told of it in the second
    /// half of the time so far. It tells more than that there was no answer in what was left.
    fn obstacle(&self, was_blocked: bool) -> Option<&Error> {
        let (reason, at) = self.obstacle.as_ref()?;
        let is_late = *at - self.begun >= self.net.now() - *at;
        (self.effect == Effect::Read && (was_blocked || is_late)).then_some(reason)
    }

    /// Time that an attempt that begins now may take at a node that does not say that it is there; none
    /// if the time is up.
    pub fn attempt_timeout(&self) -> Option<Duration> {
        let left = self.left();
        let timeout = match self.effect {
            // There is no second attempt after a lost one.
            Effect::Once => left,
            Effect::Read | Effect::Recognised => {
                let answer = (left / 2).max(ATTEMPT_MIN).min(ATTEMPT_MAX);
                (answer + self.hold).min(left)
            }
        };
        (!timeout.is_zero()).then_some(timeout)
    }

    /// Patience with a node that is asked now; none if the time is up.
    pub fn patience(&self) -> Option<Patience> {
        let attempt = self.attempt_timeout()?;
        // Half of the silence before the node is asked, half for its answer.
        let answer = attempt.saturating_sub(self.hold) / 2;
        Some(Patience { quiet: attempt - answer, answer, all: self.left() })
    }

    /// The node that is asked from now on may hold each attempt back for so long before it answers.
    pub fn set_hold(&mut self, hold: Duration) {
        self.hold = hold;
    }

    pub fn left(&self) -> Duration {
        self.deadline.saturating_sub(self.net.now())
    }

    /// Returns the answer, or none when the next attempt is due.
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
                // Once is a range that moved; more in a row are nodes that disagree.
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
                self.may_have_happened |= self.effect != Effect::Read;
                if self.effect == Effect::Once {
                    return Err(self.end(self.last.clone()));
                }
            }
        }
        Ok(None)
    }

    /// What stood in the way is gone, or may be passed: the same node may be asked again at once.
    pub fn unblocked(&mut self) {
        self.obstacle = None;
        self.asked.clear();
    }

    /// Something stands in the way that needs time: asked again after a pause.
    pub async fn blocked(&mut self, reason: Error) {
        self.note_obstacle(reason);
        self.pause(Duration::ZERO).await;
    }

    /// As `blocked`, after a node waited already.
    pub fn held(&mut self, reason: Error) {
        self.note_obstacle(reason);
        self.asked.clear();
    }

    fn note_obstacle(&mut self, reason: Error) {
        self.obstacle = Some((reason.clone(), self.net.now()));
        self.last = reason;
        self.is_blocked = true;
    }

    /// True if an answer was lost of a request that changes something.
    pub fn may_have_happened(&self) -> bool {
        self.may_have_happened
    }

    /// True if an answer was lost, whatever the request does.
    pub fn has_lost_answers(&self) -> bool {
        self.lost_answers
    }

    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Everybody was asked in vain: the same again after a pause. Keeps the reason.
    pub fn round_over<T>(&self) -> Outcome<T> {
        Outcome::Later { at_least: Duration::ZERO, reason: self.last.clone() }
    }

    async fn pause(&mut self, at_least: Duration) {
        let wait = self.backoff.wait(self.net).max(at_least).min(self.left());
        self.net.sleep(wait).await;
        self.asked.clear();
        self.rerouted_since_pause = false;
    }

    /// How the request ends if this is the last thing that is known.
    ///
    /// A write conflict stands whatever became of lost attempts: had one been applied, the range
    /// would have recognised this one; and one that arrives later meets the same newer version.
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

/// What a node's error means for the request, apart from what it teaches about ranges.
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
