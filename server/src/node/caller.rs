//! Callers of a node, users and other nodes: their permissions, and the memory for their answers.
//!
//! The listener on which a request arrived tells users from nodes. A node that acts for a user says
//! so in the request ([`request::Body::ForUser`], see `user_net.rs`). So the node that holds a
//! range judges every request by its true caller, whatever way the request came.

use std::time::Duration;

use futures::future::{self, Either};
use rangedb_client::net::Net;
use rangedb_proto::v1::{self, ReadCheck, request};
use rangedb_proto::{SYSTEM_PREFIX, prefix_end};
use rangedb_txn::{CommandFacts, Named, facts, is_system_key};

use crate::memory::{Share, Taken};

/// Time for which a request waits for memory that all callers share, before it is refused. Answers
/// of others leave in less, unless nobody reads them.
const MEMORY_WAIT_MAX: Duration = Duration::from_millis(500);

/// Milliseconds after which a caller that was refused for lack of memory may retry.
const RETRY_AFTER_MS: u32 = 200;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CallerKind {
    User,
    Node,
}

/// A user or a node, and the share of memory for its answers. Cheap to clone.
#[derive(Clone)]
pub struct Caller {
    pub kind: CallerKind,
    /// Callers with the same number share a turn among heavy reads: those of one connection.
    pub number: u64,
    /// Share from which the bytes of an answer are taken before it is evaluated.
    pub answers: Share,
}

impl Caller {
    /// A caller within this process, whose own caller has already taken the bytes.
    pub fn within(kind: CallerKind) -> Caller {
        Caller { kind, number: 0, answers: Share::unbounded() }
    }

    /// The same caller as a user.
    pub(super) fn for_user(self) -> Caller {
        Caller { kind: CallerKind::User, ..self }
    }

    /// Takes bytes for an answer. A caller that has used up its own share waits for its own
    /// answers. For the answers of others it waits `MEMORY_WAIT_MAX` at most.
    pub(crate) async fn room(&self, bytes: usize, net: &dyn Net) -> Result<Taken, v1::Error> {
        let bytes = bytes as u64;
        if let Some(taken) = self.answers.try_take(bytes) {
            return Ok(taken);
        }
        if let Some(own) = self.answers.take_own(bytes).await {
            let rest = Box::pin(self.answers.take_rest(bytes, own));
            let first = future::select(rest, net.sleep(MEMORY_WAIT_MAX)).await;
            if let Either::Left((Some(taken), _)) = first {
                return Ok(taken);
            }
        }
        Err(self.no_room())
    }

    /// Counts a refusal for lack of memory, and returns its error.
    pub(crate) fn no_room(&self) -> v1::Error {
        self.answers.count_refusal();
        let message = "no memory for the answer: answers that nobody reads take it up";
        v1::Error::too_busy(RETRY_AFTER_MS, message)
    }

    /// Refuses requests that the caller has no permission for. This is the only place that judges
    /// it.
    pub(super) fn check(&self, body: &request::Body) -> Result<(), v1::Error> {
        use request::Body;
        let from_nodes_alone = matches!(
            body,
            Body::Join(_)
                | Body::Heartbeat(_)
                | Body::LockWaits(_)
                | Body::Forwarded(_)
                | Body::ForUser(_)
        );
        if from_nodes_alone && self.kind == CallerKind::User {
            return Err(v1::Error::permission_denied("only nodes ask for that"));
        }
        let is_denied = match body {
            Body::PointRead(read) => self.is_user() && is_system_key(&read.key),
            Body::Scan(scan) => self.is_user() && meets_system(&scan.start_key, &scan.end_key),
            Body::Validate(validate) => self.is_user() && validate.reads.iter().any(is_system_read),
            Body::ListLocks(locks) => {
                self.is_user() && meets_system(&locks.start_key, &locks.end_key)
            }
            // Only the control plane writes system keys, and its commits do not pass here.
            Body::Write(write) => write.commit.as_ref().is_some_and(|commit| self.is_denied_command(commit)),
            Body::TransactionCommand(ask) => {
                let body = ask.command.as_ref().and_then(|command| command.body.as_ref());
                body.is_some_and(|body| self.is_denied_command(facts(body)))
            }
            Body::Timestamps(_)
            | Body::Locate(_)
            | Body::Join(_)
            | Body::Heartbeat(_)
            | Body::LockWaits(_)
            | Body::HoldFloor(_)
            | Body::GarbageStatus(_)
            | Body::ClusterStatus(_)
            | Body::RemoveNode(_)
            | Body::SkipEntry(_)
            // Shows the system's keys to people, and nothing that must stay hidden.
            | Body::MetaRead(_)
            | Body::ConfigGet(_)
            | Body::ConfigSet(_)
            | Body::PartitionList(_)
            // Checked after they are unpacked.
            | Body::Forwarded(_)
            | Body::ForUser(_) => false,
        };
        match is_denied {
            true => Err(v1::Error::permission_denied("keys under `_/` belong to the system")),
            false => Ok(()),
        }
    }

    fn is_user(&self) -> bool {
        self.kind == CallerKind::User
    }

    /// True if the caller may not send the command. A lock may not name a primary or secondary
    /// under `_/` either: a reader of the lock could not ask there for the transaction's outcome,
    /// so the lock would stand for ever.
    fn is_denied_command(&self, command: &dyn CommandFacts) -> bool {
        // Commands of nodes come from this node itself, and do not pass here.
        let mut is_denied = command.is_of_nodes();
        command.visit_named(&mut |named| {
            is_denied |= match named {
                Named::Written(key) => is_system_key(key),
                Named::Deleted(start, end) => meets_system(start, end),
                Named::Read(key) => self.is_user() && is_system_key(key),
                Named::ReadSpan(start, end) => self.is_user() && meets_system(start, end),
            };
        });
        is_denied
    }
}

fn is_system_read(read: &ReadCheck) -> bool {
    match read.end_key.is_empty() {
        true => is_system_key(&read.start_key),
        false => meets_system(&read.start_key, &read.end_key),
    }
}

/// True if the span `[start, end)` holds keys of the system; an empty end has no end.
fn meets_system(start: &[u8], end: &[u8]) -> bool {
    *start < prefix_end(SYSTEM_PREFIX)[..] && (end.is_empty() || *end > *SYSTEM_PREFIX)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use rangedb_proto::v1::error::Kind;
    use rangedb_proto::v1::request::Body;
    use rangedb_proto::v1::{Heartbeat, ListLocks, PointRead, Request, Scan, Validate};

    use super::*;

    fn reads(start: &'static [u8], end: &'static [u8]) -> Vec<Body> {
        let (start_key, end_key) = (Bytes::from_static(start), Bytes::from_static(end));
        let read = ReadCheck { start_key: start_key.clone(), end_key: end_key.clone(), read_ts: 1 };
        let commit = v1::CommitOneRange { reads: vec![read.clone()], ..Default::default() };
        vec![
            Body::Scan(Scan {
                start_key: start_key.clone(),
                end_key: end_key.clone(),
                ..Default::default()
            }),
            Body::ListLocks(ListLocks { start_key, end_key, ..Default::default() }),
            Body::Validate(Validate { reads: vec![read], ..Default::default() }),
            Body::Write(v1::Write { commit: Some(commit), ..Default::default() }),
        ]
    }

    fn is_denied(kind: CallerKind, body: &Body) -> bool {
        match Caller::within(kind).check(body) {
            Ok(()) => false,
            Err(error) => {
                assert!(matches!(error.kind, Some(Kind::PermissionDenied(_))), "{error:?}");
                true
            }
        }
    }

    #[test]
    fn users_read_nothing_of_the_system_and_nodes_may() {
        let key = Bytes::from_static(b"_/cluster/id");
        let mut of_system = reads(b"_/", b"_0");
        of_system.extend(reads(b"_", b"_/cluster/"));
        of_system.extend(reads(b"_/cluster/x", b"z"));
        of_system.push(Body::PointRead(PointRead { key, ..Default::default() }));
        for body in &of_system {
            assert!(is_denied(CallerKind::User, body), "{body:?}");
            assert!(!is_denied(CallerKind::Node, body), "{body:?}");
        }
        for body in reads(b"a", b"_/").into_iter().chain(reads(b"_0", b"_1")) {
            assert!(!is_denied(CallerKind::User, &body), "{body:?}");
        }
    }

    #[test]
    fn what_nodes_tell_each_other_is_no_users_to_say() {
        let inner = || Box::new(Request::default());
        for body in [
            Body::Heartbeat(Heartbeat::default()),
            Body::Join(v1::JoinCluster::default()),
            Body::LockWaits(v1::LockWaits::default()),
            Body::Forwarded(inner()),
            Body::ForUser(inner()),
        ] {
            assert!(is_denied(CallerKind::User, &body), "{body:?}");
            assert!(!is_denied(CallerKind::Node, &body), "{body:?}");
        }
    }
}
