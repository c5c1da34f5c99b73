//! Requests to the cluster, on their way to the control plane: answered here if this node is it, else
//! passed on once to the node that is. A request that was passed on is never passed on again, so
//! nodes with stale ideas of each other cannot send it in circles.

use std::collections::BTreeSet;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use rangedb_client::net::CallError;
use rangedb_proto::RangeDescriptorExt;
use rangedb_proto::v1::{self, Request, error::Kind, request, response};
use rangedb_raftstore::Error as RangeError;

use super::Node;
use crate::control::CONTROL;

/// Time for one attempt: a node that hangs must not use up the request's time.
const ATTEMPT_MAX: Duration = Duration::from_secs(1);

/// Nodes asked for one request. Behind that, the client tries again.
const ATTEMPTS_MAX: usize = 5;

/// What is known of where the control plane is, by what nodes answered.
#[derive(Default)]
pub(super) struct ControlPlane {
    /// Where it was the last time.
    address: Option<String>,
    /// Nodes whose last answer did not come.
    silent: BTreeSet<String>,
}

impl ControlPlane {
    /// Says something of that node alone: requests on their way to others may know better.
    fn heard(&mut self, address: &str, answer: &Result<response::Body, CallError>) {
        if answer.is_err() {
            self.silent.insert(address.to_owned());
        } else {
            self.silent.remove(address);
        }
        let is_it = match answer {
            Ok(response::Body::Error(error)) => !is_not_leader(error),
            answer => answer.is_ok(),
        };
        if is_it {
            self.address = Some(address.to_owned());
        } else if self.address.as_deref() == Some(address) {
            self.address = None;
        }
    }
}

impl Node {
    /// A request that another node passed on in the belief that this one is the control plane.
    pub(super) async fn handle_forwarded(
        self: &Arc<Self>,
        ask: Request,
    ) -> Result<response::Body, v1::Error> {
        let body = ask.body.ok_or_else(|| v1::Error::invalid("body", "it is missing"))?;
        match self.control() {
            Some(control) => Ok(control.handle(body).await),
            None => Err(self.not_control_plane()),
        }
    }

    pub(super) async fn to_control(
        self: &Arc<Self>,
        body: request::Body,
        timeout: Duration,
    ) -> Result<response::Body, v1::Error> {
        if let Some(control) = self.control() {
            return Ok(self.noted(control.handle(body).await));
        }
        let deadline = self.net.now() + timeout;
        let mut asked = BTreeSet::new();
        asked.insert(self.descriptor.peer_address.clone());
        let mut hint = self.believed_control_address();
        for _ in 0..ATTEMPTS_MAX {
            let left = deadline.saturating_sub(self.net.now());
            let hinted = hint.take().filter(|hint| !asked.contains(hint));
            let is_guess = hinted.is_none();
            let Some(address) = hinted.or_else(|| self.next_to_ask(&asked)) else { break };
            if left.is_zero() {
                break;
            }
            asked.insert(address.clone());
            // A guess leaves time for another one.
            let most = if is_guess { left / 2 } else { left };
            let forwarded = Request { body: Some(body.clone()), ..Default::default() };
            let forwarded = request::Body::Forwarded(Box::new(forwarded));
            let answer = self.net.call(&address, forwarded, most.min(ATTEMPT_MAX)).await;
            self.control_plane().heard(&address, &answer);
            match answer {
                Ok(response::Body::Error(error)) if is_not_leader(&error) => {
                    hint = self.hinted_peer_address(&error);
                }
                Ok(answer) => return Ok(self.noted(answer)),
                Err(CallError::NotSent(_)) => {}
                Err(CallError::Lost(reason)) => {
                    if changes_something(&body) {
                        return Err(v1::Error::undetermined(reason));
                    }
                }
            }
        }
        Err(v1::Error::unavailable("the control plane cannot be reached"))
    }

    /// An answer of the control plane, with what it says of the oracle's time taken in.
    fn noted(&self, answer: response::Body) -> response::Body {
        if let response::Body::Timestamps(timestamps) = &answer {
            self.saw(timestamps.last);
        }
        answer
    }

    /// Where the control plane most likely is: this node's replica of the control range knows its
    /// leader, or else it is where it was.
    fn believed_control_address(&self) -> Option<String> {
        let status = self.board.range(CONTROL);
        let leader = status.and_then(|status| {
            status.descriptor.replica(status.leader_replica_id).map(|replica| replica.node_id)
        });
        let leader = leader.filter(|id| *id != self.descriptor.node_id);
        let known = leader.and_then(|id| self.address_of(id)).map(|node| node.peer_address);
        known.or_else(|| self.control_plane().address.clone())
    }

    /// Whoever said nothing the last time comes last: a node that hangs would otherwise take the time of
    /// every request.
    fn next_to_ask(&self, asked: &BTreeSet<String>) -> Option<String> {
        let (book, control_plane) = (self.book(), self.control_plane());
        let known = book.nodes().map(|node| &node.peer_address).chain(&self.seeds);
        let left = known.filter(|address| !asked.contains(*address));
        let (silent, others): (Vec<_>, Vec<_>) =
            left.partition(|address| control_plane.silent.contains(*address));
        others.into_iter().chain(silent).next().cloned()
    }

    fn control_plane(&self) -> MutexGuard<'_, ControlPlane> {
        self.control_plane.lock().expect("no panic holds it")
    }

    fn not_control_plane(&self) -> v1::Error {
        let status = self.board.range(CONTROL);
        let leader =
            status.and_then(|status| status.descriptor.replica(status.leader_replica_id).copied());
        RangeError::NotLeader { range: CONTROL, leader }.into()
    }

    /// Whoever was asked knows better than this node: it hears the leader, and a node that has just
    /// joined knows nobody else.
    fn hinted_peer_address(&self, error: &v1::Error) -> Option<String> {
        let Some(Kind::NotLeader(not_leader)) = &error.kind else { return None };
        if !not_leader.leader_peer_address.is_empty() {
            return Some(not_leader.leader_peer_address.clone());
        }
        let leader = not_leader.leader.as_ref()?;
        self.address_of(leader.node_id).map(|node| node.peer_address)
    }
}

fn is_not_leader(error: &v1::Error) -> bool {
    matches!(error.kind, Some(Kind::NotLeader(_) | Kind::RangeNotFound(_)))
}

/// Asking again somewhere else could make the change twice, or find that there is nothing to change
/// any more, as with a hold that was let go.
fn changes_something(body: &request::Body) -> bool {
    matches!(
        body,
        request::Body::RemoveNode(_)
            | request::Body::SkipEntry(_)
            | request::Body::ConfigSet(_)
            | request::Body::HoldFloor(v1::HoldFloor { timestamp: 0, .. })
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn not_leader() -> Result<response::Body, CallError> {
        let error = RangeError::NotLeader { range: CONTROL, leader: None };
        Ok(response::Body::Error(error.into()))
    }

    #[test]
    fn what_one_node_does_not_answer_says_nothing_of_another() {
        let mut control_plane = ControlPlane::default();
        let lost = Err(CallError::Lost("no answer".to_owned()));
        control_plane.heard("hangs:1", &lost);
        control_plane.heard("leads:1", &Ok(response::Body::Error(v1::Error::too_busy(1, "later"))));
        control_plane.heard("hangs:1", &lost);
        control_plane.heard("follows:1", &not_leader());
        assert_eq!(control_plane.address.as_deref(), Some("leads:1"));
        assert_eq!(control_plane.silent, ["hangs:1".to_owned()].into());
    }

    #[test]
    fn the_control_plane_is_forgotten_when_its_node_is_silent_or_leads_no_more() {
        for answer in [not_leader(), Err(CallError::NotSent("refused".to_owned()))] {
            let mut control_plane = ControlPlane::default();
            control_plane
                .heard("n1:1", &Ok(response::Body::Error(v1::Error::too_busy(1, "later"))));
            control_plane.heard("n1:1", &answer);
            assert_eq!(control_plane.address, None);
        }
    }
}
