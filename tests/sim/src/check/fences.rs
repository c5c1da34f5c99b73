//! Fences: no command commits on its own at or below a timestamp at which its range was read
//! before, whichever replica led the range then.
//!
//! The check observes the read and the commit at the range. So it does not depend on a client that
//! reads the very key that is written. A commit over ranges brings a timestamp of its own, and
//! readers that meet its locks keep the order: the checks on what clients read cover it.

use std::collections::BTreeMap;

use prost::Message;
use rangedb_proto::v1::{Command, CommandReply, command, command_reply};
use rangedb_proto::{RangeId, Timestamp};
use rangedb_raftstore::RequestId;

use super::Verdict;
use crate::occurrence::Host;

/// Index of the entry and place in it.
type CommandPosition = (u64, usize);

/// A read as its process identifies it.
type Read = (Host, RequestId);

#[derive(Default)]
pub struct Fences {
    /// Timestamps of the reads that came in and were not served yet. Few stay for ever.
    came: BTreeMap<Read, u64>,
    /// Highest timestamp at which each range was read.
    read_at: BTreeMap<RangeId, u64>,
    /// Last command of each range that some replica has applied.
    applied: BTreeMap<RangeId, CommandPosition>,
}

impl Fences {
    /// Notes that a read at a timestamp came to a store.
    pub fn came(&mut self, read: Read, at: Timestamp) {
        self.came.insert(read, at.0);
    }

    /// Notes that a leader gives out a reader. True if the reader is for a read at a timestamp.
    pub fn served(&mut self, read: Read, range: RangeId) -> bool {
        let Some(at) = self.came.remove(&read) else { return false };
        let highest = self.read_at.entry(range).or_default();
        *highest = at.max(*highest);
        true
    }

    /// Checks a command that some replica has applied. Only its first application shows when it was
    /// committed.
    pub fn applied(
        &mut self,
        range: RangeId,
        at: CommandPosition,
        command: &[u8],
        reply: &[u8],
    ) -> Verdict {
        let newest = self.applied.entry(range).or_default();
        if at <= *newest {
            return Ok(());
        }
        *newest = at;
        let Some(read_at) = self.read_at.get(&range) else { return Ok(()) };
        let command = Command::decode(command).ok().and_then(|command| command.body);
        let reply = CommandReply::decode(reply).ok().and_then(|reply| reply.body);
        match (command, reply) {
            (
                Some(command::Body::CommitOneRange(commit)),
                Some(command_reply::Body::Committed(committed)),
            ) if !committed.repeated_command && committed.commit_ts <= *read_at => Err(format!(
                "command {at:?} of {range} commits transaction {} at {}, where the range was read \
                 up to {read_at} before",
                commit.start_ts, committed.commit_ts
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use rangedb_proto::v1::{CommitOneRange, Committed};

    use super::*;

    const RANGE: RangeId = RangeId(1);
    const READ: Read = (Host::Slot(0), 7);

    fn applied(fences: &mut Fences, index: u64, commit_ts: u64, repeated: bool) -> Verdict {
        let asked = command::Body::CommitOneRange(CommitOneRange::default());
        let told = Committed { commit_ts, repeated_command: repeated, ..Default::default() };
        let command = Command { body: Some(asked) }.encode_to_vec();
        let reply = CommandReply { body: Some(command_reply::Body::Committed(told)) };
        fences.applied(RANGE, (index, 1), &command, &reply.encode_to_vec())
    }

    #[test]
    fn a_commit_where_the_range_was_read_is_caught_and_one_above_it_is_not() {
        let mut fences = Fences::default();
        fences.came(READ, Timestamp(20));
        assert_eq!(applied(&mut fences, 1, 15, false), Ok(()), "nobody has read yet");
        assert!(fences.served(READ, RANGE));
        assert_eq!(applied(&mut fences, 2, 21, false), Ok(()));
        assert!(applied(&mut fences, 3, 20, false).is_err());
    }

    #[test]
    fn what_was_committed_before_may_be_applied_again_and_told_again() {
        let mut fences = Fences::default();
        assert_eq!(applied(&mut fences, 1, 15, false), Ok(()));
        fences.came(READ, Timestamp(20));
        assert!(fences.served(READ, RANGE));
        assert_eq!(applied(&mut fences, 1, 15, false), Ok(()), "by another replica");
        assert_eq!(applied(&mut fences, 2, 15, true), Ok(()), "a copy of the command");
    }
}
