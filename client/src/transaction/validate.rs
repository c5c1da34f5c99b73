//! Validation between the phases of a commit over ranges: no read may have changed by the commit
//! timestamp.
//!
//! A lock on a key that was read may belong to a transaction that commits below that timestamp. Its
//! write would then have been missed. So that transaction is pushed to commit above the timestamp
//! (`CheckTransaction.push_above_ts`), and its lock is passed. Two transactions that validate each
//! other's keys could push each other for ever. So a transaction that was pushed itself (its own
//! commit timestamp turned out too low) no longer pushes: it waits, and gives way to an older one.
//!
//! A range reads a bounded number of records for one request and says how far it came. So a span
//! with millions of keys, or of remains of deleted keys, is confirmed request by request. All
//! requests read at the commit timestamp, so a confirmed part stays confirmed.

use rangedb_proto::v1::{self, RangeDescriptor, request, response};

use super::chunks::{Item, Sent, send_all};
use super::read_set::Check;
use super::two_phase::TwoPhase;
use crate::client::header;
use crate::error::{Error, Result};
use crate::locks::wait::LockWaiter;
use crate::routing::retry::{Retry, RetrySafety};
use crate::routing::router::RouteTarget;
use crate::routing::sender::{Reached, unexpected_response};

impl TwoPhase {
    pub(super) async fn validate(&self, commit_ts: u64, may_push: bool) -> Result<()> {
        if self.checks.is_empty() {
            return Ok(());
        }
        let send = |chunk| self.validate_chunk(chunk, commit_ts, may_push);
        let checks = self.checks.clone();
        send_all(&self.client.sender, checks, self.deadline, send).await.map(|_| ())
    }

    async fn validate_chunk(
        &self,
        mut chunk: Vec<Check>,
        commit_ts: u64,
        may_push: bool,
    ) -> Result<Sent<Check, ()>> {
        let sender = &*self.client.sender;
        let mut passed = Vec::new();
        let mut retry = Retry::new(&*sender.net, RetrySafety::Repeatable, self.deadline);
        let mut waiter = LockWaiter::new(sender, self.clock);
        loop {
            match self.send_checks(&chunk, commit_ts, &passed, &mut retry).await {
                Ok(Some(Reached::Response(response::Body::Validate(reply)))) => {
                    match reply.conflict {
                        Some(conflict) => return Err(conflict.into()),
                        None if !reply.more => return Ok(Sent::Done(())),
                        None => chunk = rest_of(chunk, &reply)?,
                    }
                    retry.unblocked();
                }
                Ok(Some(Reached::Locked(lock))) => {
                    let resolver = &self.client.resolver;
                    if may_push
                        && !passed.contains(&lock.start_ts)
                        && resolver.push(&lock, commit_ts, self.deadline).await?
                    {
                        passed.push(lock.start_ts);
                        retry.unblocked();
                    } else {
                        self.give_way(lock, &[], &mut waiter, &mut retry).await?;
                    }
                }
                Ok(Some(Reached::Response(_))) => {
                    return Err(unexpected_response("the range's leader"));
                }
                Ok(None) => return Ok(Sent::Regroup(chunk)),
                // The range may have changed its shape with the last attempt.
                Err(error) => {
                    let first = RouteTarget::Key(chunk[0].key());
                    let range = sender.locate(first, self.deadline).await?;
                    if are_in(&range, &chunk) {
                        return Err(error);
                    }
                    return Ok(Sent::Regroup(chunk));
                }
            }
        }
    }

    /// Sends the checks until their range responds. None if they no longer lie in one range.
    async fn send_checks(
        &self,
        chunk: &[Check],
        commit_ts: u64,
        passed: &[u64],
        retry: &mut Retry<'_>,
    ) -> Result<Option<Reached>> {
        let sender = &*self.client.sender;
        loop {
            let to = sender.route(RouteTarget::Key(chunk[0].key()), retry).await?;
            if !are_in(&to.range, chunk) {
                return Ok(None);
            }
            let body = request::Body::Validate(v1::Validate {
                range: Some(header(&to.range)),
                start_ts: self.start_ts,
                commit_ts,
                reads: chunk.iter().map(Check::to_wire).collect(),
                pass_locks_of: passed.to_vec(),
            });
            let reached = sender.send(&to, body, retry).await?;
            if reached.is_some() {
                return Ok(reached);
            }
        }
    }
}

fn are_in(range: &RangeDescriptor, chunk: &[Check]) -> bool {
    chunk.iter().all(|check| check.is_in(range))
}

/// Rest of a chunk after its range has confirmed a part of it.
fn rest_of(mut chunk: Vec<Check>, reply: &v1::ValidateReply) -> Result<Vec<Check>> {
    let done = reply.resume_read as usize;
    let no_progress = || Error::protocol("a part of a validation ended where it began");
    let span = &chunk.get(done).ok_or_else(no_progress)?.span;
    let moves = reply.resume_key > span.start;
    let is_inside = moves && (span.end.is_empty() || reply.resume_key < span.end);
    if !(is_inside || done > 0 && reply.resume_key.is_empty()) {
        return Err(no_progress());
    }
    let mut rest = chunk.split_off(done);
    if is_inside {
        rest[0].span.start = reply.resume_key.clone();
    }
    Ok(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Span;

    #[test]
    fn the_rest_begins_where_the_range_stopped_and_nowhere_before() {
        let check = |start: &'static str, end: &'static str| Check {
            span: Span::new(start, end),
            read_ts: 1,
        };
        let chunk = vec![check("a", "c"), check("d", "f")];
        let rest = |resume_read: u32, resume_key: &'static str| {
            let resume_key = resume_key.into();
            let reply = v1::ValidateReply { conflict: None, more: true, resume_read, resume_key };
            rest_of(chunk.clone(), &reply).ok()
        };
        assert_eq!(rest(0, "b"), Some(vec![check("b", "c"), check("d", "f")]));
        assert_eq!(rest(1, "e"), Some(vec![check("e", "f")]));
        assert_eq!(rest(1, ""), Some(vec![check("d", "f")]));
        for (read, key) in [(0, ""), (0, "a"), (0, "c"), (1, "d"), (1, "f"), (2, ""), (9, "x")] {
            assert_eq!(rest(read, key), None, "{read} {key}");
        }
    }
}
