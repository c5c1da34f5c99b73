//! Between the phases of a commit over ranges: is what was read still so at the commit timestamp?
//!
//! A lock in what was read may be of a transaction that commits below that timestamp, and would then
//! have been missed. Its transaction is made to commit above (`CheckTransaction.push_above_ts`), and
//! is passed by. Two that validate each other's keys could push each other up for ever, so who was
//! pushed itself (its own commit timestamp turned out too low) pushes nobody any more: it waits, and
//! gives way to an older one.

use rangedb_proto::v1::{self, RangeDescriptor, RangeHeader, request, response};

use super::chunks::{Item, Sent, send_all};
use super::read_set::Check;
use super::two_phase::TwoPhase;
use crate::client::header;
use crate::error::{Error, Result};
use crate::lock_wait::Waiting;
use crate::retry::{Effect, Retry};
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
        chunk: Vec<Check>,
        commit_ts: u64,
        may_push: bool,
    ) -> Result<Sent<Check, ()>> {
        let sender = &*self.client.sender;
        let reads: Vec<v1::ReadCheck> = chunk.iter().map(Check::to_wire).collect();
        let of_range = |range: Option<RangeHeader>, pass_locks_of: &[u64]| v1::Validate {
            range,
            start_ts: self.start_ts,
            commit_ts,
            reads: reads.clone(),
            pass_locks_of: pass_locks_of.to_vec(),
        };
        let fits = |range: &RangeDescriptor| chunk.iter().all(|check| check.is_in(range));
        let mut passed = Vec::new();
        let mut retry = Retry::new(&*sender.net, Effect::Read, self.deadline);
        let mut waiting = Waiting::new(sender, self.clock);
        let place = Place::Key(chunk[0].key());
        loop {
            let build = |range: &RangeDescriptor| match fits(range) {
                true => Ok(request::Body::Validate(of_range(Some(header(range)), &passed))),
                false => Err(Error::Unavailable("the range split on the way".to_owned())),
            };
            match sender.to_range(place, &build, &mut retry).await {
                Ok((_, Reached::Answer(response::Body::Validate(reply)))) => {
                    return match reply.conflict {
                        None => Ok(Sent::Done(())),
                        Some(conflict) => Err(conflict.into()),
                    };
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
