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

use rangedb_proto::v1::{self, RangeDescriptor, RangeHeader, request, response};

use super::chunks::{Item, Sent, send_all};
use super::read_set::Check;
use super::two_phase::TwoPhase;
use crate::client::header;
use crate::error::{Error, Result};
use crate::lock_wait::Waiting;
use crate::retry::{Retry, RetrySafety};
use crate::router::Place;
use crate::sender::{Reached, unexpected_answer};

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
        let mut waiting = Waiting::new(sender, self.clock);
        loop {
            let reads: Vec<v1::ReadCheck> = chunk.iter().map(Check::to_wire).collect();
            let of_range = |range: Option<RangeHeader>, pass_locks_of: &[u64]| v1::Validate {
                range,
                start_ts: self.start_ts,
                commit_ts,
                reads: reads.clone(),
                pass_locks_of: pass_locks_of.to_vec(),
            };
            let fits = |range: &RangeDescriptor| chunk.iter().all(|check| check.is_in(range));
            let first = chunk[0].key().clone();
            let place = Place::Key(&first);
            let build = |range: &RangeDescriptor| match fits(range) {
                true => Ok(request::Body::Validate(of_range(Some(header(range)), &passed))),
                false => Err(Error::Unavailable("the range split on the way".to_owned())),
            };
            match sender.to_range(place, &build, &mut retry).await {
                Ok((_, Reached::Answer(response::Body::Validate(reply)))) => {
                    match reply.conflict {
                        Some(conflict) => return Err(conflict.into()),
                        None if !reply.more => return Ok(Sent::Done(())),
                        None => chunk = rest_of(chunk, &reply)?,
                    }
                    retry.unblocked();
                }
                Ok((_, Reached::Locked(lock))) => {
                    let resolver = &self.client.resolver;
                    if may_push
                        && !passed.contains(&lock.start_ts)
                        && resolver.push(&lock, commit_ts, self.deadline).await?
                    {
                        passed.push(lock.start_ts);
                        retry.unblocked();
                    } else {
                        self.give_way(lock, &[], &mut waiting, &mut retry).await?;
                    }
                }
                Ok((_, Reached::Answer(_))) => {
                    return Err(unexpected_answer("the range's leader"));
                }
                Err(error) => {
                    let range = sender.locate(place, self.deadline).await?;
                    if fits(&range) {
                        return Err(error);
                    }
                    return Ok(Sent::Regroup(chunk));
                }
            }
        }
    }
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
    fn what_is_left_begins_where_the_range_stopped_and_nowhere_before() {
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
