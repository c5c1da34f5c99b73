//! Requests to the cluster, on their way to the control plane: answered here if this node is it, else
//! passed on once to the node that is. A request that was passed on is never passed on again, so
//! nodes with stale ideas of each other cannot send it in circles.

use std::collections::BTreeSet;
use std::sync::Arc;
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
            return Ok(control.handle(body).await);
        }
        let deadline = self.net.now() + timeout;
        let mut asked = BTreeSet::new();
        asked.insert(self.descriptor.peer_address.clone());
        let mut hint = self.believed_control_address();
        for _ in 0..ATTEMPTS_MAX {
            let left = deadline.saturating_sub(self.net.now());
            let next = hint.take().filter(|hint| !asked.contains(hint));
            let Some(address) = next.or_else(|| self.next_to_ask(&asked)) else { break };
            if left.is_zero() {
                break;
            }
            asked.insert(address.clone());
            let forwarded = Request { body: Some(body.clone()), ..Default::default() };
            let forwarded = request::Body::Forwarded(Box::new(forwarded));
            match self.net.call(&address, forwarded, left.min(ATTEMPT_MAX)).await {
                Ok(response::Body::Error(error)) if is_not_leader(&error) => {
                    hint = self.hinted_peer_address(&error);
                }
                Ok(answer) => {
                    self.note_control_address(Some(address));
                    if let response::Body::Timestamps(timestamps) = &answer {
                        self.saw(timestamps.last);
                    }
                    return Ok(answer);
                }
                Err(CallError::NotSent(_)) => {}
                Err(CallError::Lost(reason)) => {
                    self.note_control_address(None);
                    if changes_something(&body) {
                        return Err(v1::Error::undetermined(reason));
                    }
                }
            }
        }
        self.note_control_address(None);
        Err(v1::Error::unavailable("the control plane cannot be reached"))
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
        known.or_else(|| self.control_address.lock().expect("no panic holds it").clone())
    }

    fn next_to_ask(&self, asked: &BTreeSet<String>) -> Option<String> {
        let book = self.book();
        let known = book.values().map(|node| &node.peer_address).chain(&self.seeds);
        known.into_iter().find(|address| !asked.contains(*address)).cloned()
    }

    fn note_control_address(&self, address: Option<String>) {
        *self.control_address.lock().expect("no panic holds it") = address;
    }

    fn not_control_plane(&self) -> v1::Error {
        let status = self.board.range(CONTROL);
        let leader =
            status.and_then(|status| status.descriptor.replica(status.leader_replica_id).copied());
        RangeError::NotLeader { range: CONTROL, leader }.into()
    }

    fn hinted_peer_address(&self, error: &v1::Error) -> Option<String> {
        let Some(Kind::NotLeader(not_leader)) = &error.kind else { return None };
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
            | request::Body::ConfigSet(_)
            | request::Body::HoldFloor(v1::HoldFloor { timestamp: 0, .. })
    )
}
