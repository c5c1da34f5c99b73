//! Requests to the control plane. This node answers them if it is the control plane, and otherwise
//! forwards them once to the node that is. A forwarded request is never forwarded again, so nodes
//! with stale knowledge of each other cannot send it in circles.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{self, Either};
use parking_lot::MutexGuard;
use rangedb_client::net::CallError;
use rangedb_proto::v1::{self, Request, error::Kind, request, response};
use rangedb_proto::{RangeDescriptorExt, RequestEffect};
use rangedb_raftstore::Error as RangeError;

use super::Node;
use crate::control::CONTROL;
use crate::planted::planted;

/// Time for one attempt: a node that hangs must not use up the whole time of the request.
const ATTEMPT_MAX: Duration = Duration::from_secs(1);

/// Nodes asked for one request at most. After that, the client tries again.
const ATTEMPTS_MAX: usize = 5;

/// Address of the control plane, as far as the answers of nodes show it.
#[derive(Default)]
pub(super) struct ControlPlane {
    /// Address of the last node that answered as the control plane.
    address: Option<String>,
    /// Nodes that did not answer the last call.
    silent: BTreeSet<String>,
}

impl ControlPlane {
    /// Takes note of a node's answer. It concerns that node alone: other requests in flight may
    /// learn more of other nodes.
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
    /// Answers a request that another node forwarded because it takes this one for the control
    /// plane.
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
            let is_change = body.effect().changes();
            // A control plane that was deposed may wait for ever for the fate of its last commit.
            let answering = future::select(control.handle(body), self.around.net.sleep(timeout));
            return match answering.await {
                Either::Left((answer, _)) => Ok(self.noted(answer)),
                Either::Right(_) if is_change => {
                    Err(v1::Error::undetermined("the control plane does not answer"))
                }
                Either::Right(_) => {
                    Err(v1::Error::unavailable("the control plane does not answer"))
                }
            };
        }
        let deadline = self.around.net.now() + timeout;
        let mut asked = BTreeSet::new();
        asked.insert(self.descriptor.peer_address.clone());
        let mut hint = self.believed_control_address();
        let is_recognised = body.effect() == RequestEffect::Recognised;
        let mut lost = None;
        for _ in 0..ATTEMPTS_MAX {
            let left = deadline.saturating_sub(self.around.net.now());
            let hinted = hint.take().filter(|hint| !asked.contains(hint));
            let is_guess = hinted.is_none();
            let Some(address) = hinted.or_else(|| self.next_to_ask(&asked)) else { break };
            if left.is_zero() {
                break;
            }
            asked.insert(address.clone());
            // After a guess, time is left for another attempt.
            let most = if is_guess { left / 2 } else { left };
            let forwarded = Request { body: Some(body.clone()), ..Default::default() };
            let forwarded = request::Body::Forwarded(Box::new(forwarded));
            let answer = self.around.net.call(&address, forwarded, most.min(ATTEMPT_MAX)).await;
            self.control_plane().heard(&address, &answer);
            match answer {
                Ok(response::Body::Error(error)) if is_not_leader(&error) => {
                    hint = self.hinted_peer_address(&error);
                }
                // A node that was asked before may have made the change that this one refuses.
                Ok(response::Body::Error(_)) if is_recognised && lost.is_some() => break,
                Ok(answer) => return Ok(self.noted(answer)),
                Err(CallError::NotSent(_)) => {}
                // Asked again elsewhere: a change that was made is recognised.
                Err(CallError::Lost(reason)) => lost = Some(reason),
            }
        }
        match lost {
            Some(reason) if is_recognised => Err(v1::Error::undetermined(reason)),
            _ => Err(v1::Error::unavailable("the control plane cannot be reached")),
        }
    }

    /// Returns the control plane's answer, after the oracle's time in it has been noted.
    fn noted(&self, answer: response::Body) -> response::Body {
        if let response::Body::Timestamps(timestamps) = &answer {
            self.saw(timestamps.last);
        }
        answer
    }

    /// Most likely address of the control plane: that of the control range's leader, as this node's
    /// replica knows it, or else the last known one.
    fn believed_control_address(&self) -> Option<String> {
        let status = self.around.board.range(CONTROL);
        let leader = status.and_then(|status| {
            status.descriptor.replica(status.leader_replica_id).map(|replica| replica.node_id)
        });
        let leader = leader.filter(|id| *id != self.descriptor.node_id);
        let known = leader.and_then(|id| self.address_of(id)).map(|node| node.peer_address);
        known.or_else(|| self.control_plane().address.clone())
    }

    /// Next node to ask. Nodes that did not answer the last call come last: a node that hangs would
    /// otherwise take the time of every request.
    fn next_to_ask(&self, asked: &BTreeSet<String>) -> Option<String> {
        let (book, control_plane) = (self.book(), self.control_plane());
        let known = book.nodes().map(|node| &node.peer_address).chain(&self.seeds);
        let left = known.filter(|address| !asked.contains(*address));
        let (silent, others): (Vec<_>, Vec<_>) =
            left.partition(|address| control_plane.silent.contains(*address));
        others.into_iter().chain(silent).next().cloned()
    }

    fn control_plane(&self) -> MutexGuard<'_, ControlPlane> {
        self.control_plane.lock()
    }

    /// Refusal of a node that is not the control plane, with its idea of where that is. A node without
    /// a replica of the control range still knows where the control plane answered last. The caller
    /// may know no other node.
    fn not_control_plane(&self) -> v1::Error {
        let status = self.around.board.range(CONTROL);
        let leader =
            status.and_then(|status| status.descriptor.replica(status.leader_replica_id).copied());
        let mut error = v1::Error::from(RangeError::NotLeader { range: CONTROL, leader });
        if leader.is_none()
            && let Some(Kind::NotLeader(not_leader)) = &mut error.kind
            && let Some(address) = self.believed_control_address()
        {
            not_leader.leader_peer_address = address;
        }
        error
    }

    /// Address of the leader according to a `NotLeader` answer. The node that answered knows the
    /// leader better than this node: it is in contact with the leader, and a node that has just
    /// joined knows nobody else.
    fn hinted_peer_address(&self, error: &v1::Error) -> Option<String> {
        let Some(Kind::NotLeader(not_leader)) = &error.kind else { return None };
        if !not_leader.leader_peer_address.is_empty() && !planted!(HintedAddressIgnored) {
            return Some(not_leader.leader_peer_address.clone());
        }
        let leader = not_leader.leader.as_ref()?;
        self.address_of(leader.node_id).map(|node| node.peer_address)
    }
}

fn is_not_leader(error: &v1::Error) -> bool {
    matches!(error.kind, Some(Kind::NotLeader(_) | Kind::RangeNotFound(_)))
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use rangedb_proto::v1::{NodeDescriptor, RemoveNode};

    use super::*;
    use crate::node::test_world;

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

    /// Asks for the removal of a node, first of one that does not answer, then of one that refuses.
    /// Returns the error that the caller sees.
    fn refused_after_a_loss(dry_run: bool) -> Kind {
        let (node, net) = test_world::node();
        for node_id in [2, 3] {
            let peer_address = format!("n{node_id}:1");
            let other = NodeDescriptor { node_id, peer_address, ..Default::default() };
            node.book().meet(&other).unwrap();
        }
        let gone = v1::Error::not_found("there is no such node");
        let lost = Err(CallError::Lost("no answer".to_owned()));
        net.answers.lock().extend([lost, Ok(response::Body::Error(gone))]);
        let body = request::Body::RemoveNode(RemoveNode { node: "4".to_owned(), dry_run });
        let answer = node.to_control(body, 2 * ATTEMPT_MAX).now_or_never().unwrap();
        assert!(net.answers.lock().is_empty(), "both were asked");
        match answer {
            Err(error) | Ok(response::Body::Error(error)) => error.kind.unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_refusal_after_a_lost_answer_does_not_say_whether_the_change_was_made() {
        let refused = refused_after_a_loss(false);
        assert!(matches!(refused, Kind::Undetermined(_)), "{refused:?}");
        let refused = refused_after_a_loss(true);
        assert!(matches!(refused, Kind::NotFound(_)), "a dry run changes nothing: {refused:?}");
    }
}
