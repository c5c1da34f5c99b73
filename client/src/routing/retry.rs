//! Retry policy of a request whose attempt failed: another attempt, at once or later, or the end.
//!
//! Two rules matter more than speed:
//!
//! * A write that may have happened is not reported as failed. Once the response to an attempt was
//!   lost, only success ends the request well: a refusal of a later attempt says nothing about the
//!   lost one, which may still be in flight. The request then ends with [`Error::Undetermined`].
//! * A silent node is given up after a second, and each node is tried once between two pauses. So a
//!   node that hangs costs one attempt, and a cluster that is down costs little more than the
//!   pauses.
//!
//! A third rule keeps retries from adding to an overload: a request that a range is still working
//! on is not sent again. The client probes the node that leads the range (`leader_probe.rs`), and
//! waits for as long as the node says that it leads and the caller has time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rangedb_proto::v1;

use super::backoff::Backoff;
use super::leader_probe::LeaderProbe;
use crate::error::{Error, Result};
use crate::net::{CallError, Net};
use crate::planted::planted;

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
    /// A command with a start timestamp, or an operator's change. Repeated, it is applied once and
    /// answered twice.
    Recognised,
}

/// Result of one attempt.
#[derive(Debug)]
pub(crate) enum Attempt<T> {
    Response(T),
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
    safety: RetrySafety,
    deadline: Duration,
    backoff: Backoff,
    may_have_happened: bool,
    lost_responses: bool,
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
    /// Addresses tried since the last pause, for the request itself.
    pub tried: BTreeSet<Arc<str>>,
    /// Addresses tried in vain for the route to the range, until all were tried. A pause does not
    /// clear them: while a route is known, each round makes only one attempt to find a better one.
    pub directories_tried: BTreeSet<Arc<str>>,
}

impl<'a> Retry<'a> {
    pub fn new(net: &'a dyn Net, safety: RetrySafety, deadline: Duration) -> Self {
        Retry {
            net,
            safety,
            deadline,
            backoff: Backoff::new(),
            may_have_happened: false,
            lost_responses: false,
            hold: Duration::ZERO,
            rerouted_since_pause: false,
            last: Error::Unavailable("no time to ask anybody".to_owned()),
            is_blocked: false,
            begun: net.now(),
            obstacle: None,
            tried: BTreeSet::new(),
            directories_tried: BTreeSet::new(),
        }
    }

    /// Returns the final error of the request if its time is up.
    pub fn check_time(&self) -> Result<()> {
        // The outcome of a blocked write is known. An attempt that is cut off in the middle would
        // make it unknown.
        let is_known = self.is_blocked && self.safety != RetrySafety::Repeatable;
        let needed = if is_known { ATTEMPT_MIN } else { Duration::ZERO };
        if self.left() <= needed {
            return Err(self.end(self.obstacle(false).unwrap_or(&self.last).clone()));
        }
        Ok(())
    }

    /// For reads: the obstacle, if the attempt before this one met it, or if the range reported it
    /// in the second half of the time so far. The obstacle says more than a missing response in
    /// the remaining time.
    fn obstacle(&self, was_blocked: bool) -> Option<&Error> {
        let (reason, at) = self.obstacle.as_ref()?;
        let is_late = *at - self.begun >= self.net.now() - *at;
        (self.safety == RetrySafety::Repeatable && (was_blocked || is_late)).then_some(reason)
    }

    /// Timeout of an attempt that begins now, at a node that gives no sign of life; none if the
    /// time is up.
    pub fn attempt_timeout(&self) -> Option<Duration> {
        let left = self.left();
        let response = (left / 2).max(ATTEMPT_MIN).min(ATTEMPT_MAX);
        let timeout = (response + self.hold).min(left);
        (!timeout.is_zero()).then_some(timeout)
    }

    /// Timeouts for a node that receives the request now; none if the time is up.
    pub fn leader_probe(&self) -> Option<LeaderProbe> {
        let attempt = self.attempt_timeout()?;
        // Half of the silence passes before the probe, half is for its response.
        let timeout = attempt.saturating_sub(self.hold) / 2;
        Some(LeaderProbe { interval: attempt - timeout, timeout, total: self.left() })
    }

    /// Sets the time for which the node may hold each further attempt back before it answers.
    pub fn set_hold(&mut self, hold: Duration) {
        self.hold = hold;
    }

    pub fn left(&self) -> Duration {
        self.deadline.saturating_sub(self.net.now())
    }

    /// Evaluates an attempt. Returns its response, or none when the next attempt is due.
    pub async fn after<T>(&mut self, attempt: Attempt<T>) -> Result<Option<T>> {
        let was_blocked = std::mem::take(&mut self.is_blocked);
        let is_over = self.left().is_zero();
        let obstacle = self.obstacle(was_blocked).filter(|_| is_over).cloned();
        match (attempt, obstacle) {
            (Attempt::Response(response), _) => return Ok(Some(response)),
            (_, Some(obstacle)) => return Err(obstacle),
            (Attempt::Refused(error), None) => return Err(self.end(error)),
            (Attempt::Elsewhere(reason), None) => self.last = reason,
            (Attempt::Rerouted(reason), None) => {
                self.last = reason;
                // A single reroute is a range that moved; several in a row are nodes that disagree.
                if self.rerouted_since_pause {
                    self.pause(Duration::ZERO).await;
                }
                self.rerouted_since_pause = true;
                self.tried.clear();
            }
            (Attempt::Later { at_least, reason }, None) => {
                self.last = reason;
                self.pause(at_least).await;
            }
            (Attempt::Lost(reason), None) => {
                self.last = Error::Unavailable(reason);
                self.lost_responses = true;
                self.may_have_happened |= self.safety != RetrySafety::Repeatable;
            }
        }
        Ok(None)
    }

    /// Notes that the obstacle is gone or may be passed: the same node may be tried again at once.
    pub fn unblocked(&mut self) {
        self.obstacle = None;
        self.tried.clear();
    }

    /// Notes an obstacle that needs time, and pauses before the next attempt.
    pub async fn blocked(&mut self, reason: Error) {
        self.note_obstacle(reason);
        self.pause(Duration::ZERO).await;
    }

    /// As `blocked`, without a pause, because a node has already waited.
    pub fn held(&mut self, reason: Error) {
        self.note_obstacle(reason);
        self.tried.clear();
    }

    fn note_obstacle(&mut self, reason: Error) {
        self.obstacle = Some((reason.clone(), self.net.now()));
        self.last = reason;
        self.is_blocked = true;
    }

    /// True if a response was lost, for reads too.
    pub fn has_lost_responses(&self) -> bool {
        self.lost_responses
    }

    /// Checks that no attempt was executed, before the caller does the same by another request.
    /// `reason` says why this request cannot be sent again.
    ///
    /// # Errors
    ///
    /// `Undetermined` if an attempt may have been executed.
    pub fn check_not_executed(&self, reason: &str) -> Result<()> {
        match self.may_have_happened {
            true => Err(self.end(Error::Unavailable(reason.to_owned()))),
            false => Ok(()),
        }
    }

    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Attempt after every node was tried in vain: the same again after a pause, with the last
    /// reason.
    pub fn round_over<T>(&self) -> Attempt<T> {
        Attempt::Later { at_least: Duration::ZERO, reason: self.last.clone() }
    }

    async fn pause(&mut self, at_least: Duration) {
        let wait = self.backoff.wait(self.net).max(at_least).min(self.left());
        self.net.sleep(wait).await;
        self.tried.clear();
        self.rerouted_since_pause = false;
    }

    /// Final error of the request, if `error` is the last that is known.
    ///
    /// A write conflict is final even after lost attempts. Had one of them been applied, the range
    /// would have recognised the command; one that arrives later meets the same newer version.
    pub fn end(&self, error: Error) -> Error {
        if planted!(UndeterminedAsFailed) {
            return error;
        }
        if self.may_have_happened && !matches!(error, Error::WriteConflict { .. }) {
            return Error::Undetermined(format!("an answer was lost, and since then: {error}"));
        }
        error
    }
}

impl<T> Attempt<T> {
    /// Evaluates a node's error. `sender.rs` updates the router from it.
    pub fn from_error(error: v1::Error) -> Self {
        use v1::error::Kind;
        let message = error.message.clone();
        match &error.kind {
            Some(Kind::NotLeader(_) | Kind::RangeNotFound(_)) => {
                Attempt::Elsewhere(Error::Unavailable(message))
            }
            Some(Kind::StaleEpoch(_)) => Attempt::Rerouted(Error::Unavailable(message)),
            Some(Kind::TooBusy(busy)) => {
                let at_least = Duration::from_millis(busy.retry_after_ms.into());
                Attempt::Later { at_least, reason: error.into() }
            }
            Some(Kind::Unavailable(_) | Kind::DeadlineExceeded(_) | Kind::KeyLocked(_)) => {
                Attempt::Later { at_least: Duration::ZERO, reason: Error::Unavailable(message) }
            }
            Some(Kind::Undetermined(_)) | None => Attempt::Lost(message),
            Some(_) => Attempt::Refused(error.into()),
        }
    }

    /// Evaluates a call that brought no response.
    pub fn from_call_error(error: CallError, address: &str) -> Self {
        match error {
            CallError::NotSent(reason) => {
                Attempt::Elsewhere(Error::Unavailable(format!("{address}: {reason}")))
            }
            CallError::Lost(reason) if planted!(LostAnswerAsRefusal) => {
                Attempt::Elsewhere(Error::Unavailable(reason))
            }
            CallError::Lost(reason) => Attempt::Lost(format!("{address}: {reason}")),
        }
    }

    /// Turns a pause or a reroute into `Elsewhere`: this node cannot reach the one that answers,
    /// but other nodes may. They are tried before the pause.
    pub fn elsewhere_first(self) -> Self {
        match self {
            Attempt::Later { at_least: Duration::ZERO, reason } | Attempt::Rerouted(reason) => {
                Attempt::Elsewhere(reason)
            }
            other => other,
        }
    }

    /// Converts the failed attempt of a look-up to an attempt of the request that needed it.
    pub fn without_response<U>(self) -> Attempt<U> {
        match self {
            Attempt::Response(_) => unreachable!("only failed attempts are passed on"),
            Attempt::Elsewhere(reason) => Attempt::Elsewhere(reason),
            Attempt::Rerouted(reason) => Attempt::Rerouted(reason),
            Attempt::Later { at_least, reason } => Attempt::Later { at_least, reason },
            // Only a look-up was lost, which changes nothing.
            Attempt::Lost(reason) => Attempt::Elsewhere(Error::Unavailable(reason)),
            Attempt::Refused(error) => Attempt::Refused(error),
        }
    }
}

#[cfg(test)]
mod tests;
