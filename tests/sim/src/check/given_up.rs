//! A transaction takes no lock at a key where it was rolled back. A prewrite or a lock request that
//! arrives late must be refused. Otherwise clients that find its locks could commit the transaction
//! after its own client was told that it failed.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;
use rangedb_proto::RangeId;
use rangedb_proto::v1::transaction_status::State;
use rangedb_proto::v1::{self, Command, CommandReply, command, command_reply, operation};

use super::Verdict;
use crate::attacker::HOSTILE_PREFIX;

/// Index of the entry and place in it.
type CommandPosition = (u64, usize);

#[derive(Default)]
pub struct GivenUp {
    /// First command that was answered with a rollback, by range, key and start timestamp.
    rolled_back: BTreeMap<(RangeId, Bytes, u64), CommandPosition>,
}

impl GivenUp {
    /// Checks a command that some replica has applied, maybe not for the first time.
    pub fn applied(
        &mut self,
        range: RangeId,
        at: CommandPosition,
        command: &[u8],
        reply: &[u8],
    ) -> Verdict {
        let command = Command::decode(command).ok().and_then(|command| command.body);
        let reply = CommandReply::decode(reply).ok().and_then(|reply| reply.body);
        let (Some(command), Some(reply)) = (command, reply) else { return Ok(()) };
        use command::Body as Sent;
        use command_reply::Body as Reply;
        match (command, reply) {
            (Sent::RollbackKeys(rollback), Reply::Resolved(_)) => {
                self.given_up(range, at, rollback.keys, rollback.start_ts);
            }
            (Sent::CheckTransaction(check), Reply::TransactionStatus(status))
                if status.state() == State::RolledBack =>
            {
                self.given_up(range, at, vec![check.primary], check.start_ts);
            }
            (Sent::AcquireLocks(acquire), Reply::LocksAcquired(_)) => {
                return self.locked(range, at, acquire.keys, acquire.start_ts);
            }
            (Sent::Prewrite(prewrite), Reply::Prewritten(_)) => {
                let key = |operation: v1::Operation| match operation.body? {
                    operation::Body::Put(put) => Some(put.key),
                    operation::Body::Delete(delete) => Some(delete.key),
                    operation::Body::DeleteRange(_) => None,
                };
                let keys = prewrite.operations.into_iter().filter_map(key).collect();
                return self.locked(range, at, keys, prewrite.start_ts);
            }
            _ => {}
        }
        Ok(())
    }

    fn given_up(&mut self, range: RangeId, at: CommandPosition, keys: Vec<Bytes>, start_ts: u64) {
        // A hostile client's locks name primaries that are none. Such a lock is told to go without a
        // rollback record, because no primary decides.
        for key in keys.into_iter().filter(|key| !key.starts_with(HOSTILE_PREFIX.as_bytes())) {
            let first = self.rolled_back.entry((range, key, start_ts)).or_insert(at);
            *first = at.min(*first);
        }
    }

    fn locked(
        &self,
        range: RangeId,
        at: CommandPosition,
        keys: Vec<Bytes>,
        start_ts: u64,
    ) -> Verdict {
        for key in keys {
            let place = (range, key, start_ts);
            let Some(before) = self.rolled_back.get(&place).filter(|before| **before < at) else {
                continue;
            };
            return Err(format!(
                "transaction {start_ts} locks key {} of {range} by command {at:?}, and was rolled \
                 back there by {before:?}",
                place.1.escape_ascii()
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rangedb_proto::v1::{AcquireLocks, LocksAcquired, Resolved, RollbackKeys};

    use super::*;

    const RANGE: RangeId = RangeId(1);

    fn bytes(command: command::Body, reply: command_reply::Body) -> (Vec<u8>, Vec<u8>) {
        let command = Command { body: Some(command) }.encode_to_vec();
        (command, CommandReply { body: Some(reply) }.encode_to_vec())
    }

    fn rollback(start_ts: u64) -> (Vec<u8>, Vec<u8>) {
        let asked = RollbackKeys { start_ts, keys: vec![Bytes::from_static(b"k")] };
        let told = Resolved { keys: 1, ..Default::default() };
        bytes(command::Body::RollbackKeys(asked), command_reply::Body::Resolved(told))
    }

    fn lock(start_ts: u64) -> (Vec<u8>, Vec<u8>) {
        let keys = vec![Bytes::from_static(b"k")];
        let asked = AcquireLocks { start_ts, keys, ..Default::default() };
        let told = command_reply::Body::LocksAcquired(LocksAcquired::default());
        bytes(command::Body::AcquireLocks(asked), told)
    }

    #[test]
    fn a_lock_behind_a_rollback_is_caught_and_one_before_it_or_of_another_is_not() {
        let mut given_up = GivenUp::default();
        let mut apply = |at, (command, reply): (Vec<u8>, Vec<u8>)| {
            given_up.applied(RANGE, (at, 1), &command, &reply)
        };
        assert_eq!(apply(4, lock(10)), Ok(()));
        assert_eq!(apply(5, rollback(10)), Ok(()));
        assert_eq!(apply(4, lock(10)), Ok(()), "again, by another replica");
        assert_eq!(apply(6, lock(11)), Ok(()));
        assert!(apply(6, lock(10)).is_err());
    }
}
