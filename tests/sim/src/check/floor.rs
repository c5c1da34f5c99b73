//! GC floor: it passes no hold that a client was told to be in force, and no client is refused for
//! a floor that no range has. The retention is not checked: the node that raises the floor goes by
//! timestamps of its own, which nobody else sees.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;
use rangedb_proto::RangeId;
use rangedb_proto::v1::{Command, CommandReply, command, command_reply};

use super::Verdict;
use crate::schedule::Micros;

/// A range, the index of an entry and a place in it.
type CommandPosition = (RangeId, (u64, usize));

/// A hold as a client requested it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    pub name: String,
    /// Timestamp that the floor must not pass; 0 to release the hold.
    pub timestamp: u64,
    /// Stamp of the request.
    pub asked: u64,
    /// True time until which the hold is in force at least, once it was answered.
    pub until: Micros,
}

#[derive(Default)]
pub struct Floor {
    highest: u64,
    rises: u64,
    dropped: u64,
    compacted: u64,
    /// Commands whose dropped records were counted.
    counted: BTreeSet<CommandPosition>,
    holds: BTreeMap<String, Held>,
    /// Stamp of the last request under each name.
    asked: BTreeMap<String, u64>,
}

impl Floor {
    /// Notes a client's request for a hold. From now on an earlier hold of that name may be gone,
    /// unless the new one is as low.
    pub fn asked_for(&mut self, held: &Held) -> Verdict {
        self.asked.insert(held.name.clone(), held.asked);
        let lets_go = |earlier: &Held| held.timestamp == 0 || held.timestamp > earlier.timestamp;
        if self.holds.get(&held.name).is_some_and(lets_go) {
            self.holds.remove(&held.name);
        }
        Ok(())
    }

    /// Notes that a request for a hold was answered. A later request under the name may have been
    /// executed before, so an overtaken answer has no effect.
    pub fn held(&mut self, held: Held) -> Verdict {
        if held.timestamp > 0 && self.asked.get(&held.name) == Some(&held.asked) {
            self.holds.insert(held.name.clone(), held);
        }
        Ok(())
    }

    /// Checks a command that some replica has applied, maybe not for the first time.
    pub fn applied(
        &mut self,
        place: CommandPosition,
        now: Micros,
        command: &[u8],
        reply: &[u8],
    ) -> Verdict {
        let command = Command::decode(command).ok().and_then(|command| command.body);
        let reply = CommandReply::decode(reply).ok().and_then(|reply| reply.body);
        let (
            Some(command::Body::CollectGarbage(collect)),
            Some(command_reply::Body::GarbageCollected(collected)),
        ) = (command, reply)
        else {
            return Ok(());
        };
        if self.counted.insert(place) {
            self.dropped += collected.dropped;
        }
        if collect.floor_ts <= self.highest {
            return Ok(());
        }
        (self.highest, self.rises) = (collect.floor_ts, self.rises + 1);
        let passed =
            self.holds.values().find(|held| held.timestamp < self.highest && now < held.until);
        match passed {
            Some(held) => Err(format!("the floor {} has passed {held:?}", self.highest)),
            None => Ok(()),
        }
    }

    /// Checks the floor that a client was refused for.
    pub fn told(&self, floor_ts: u64) -> Verdict {
        match floor_ts <= self.highest {
            true => Ok(()),
            false => Err(format!(
                "refused for a floor {floor_ts}, where {} is the highest",
                self.highest
            )),
        }
    }

    /// Counts records that compaction dropped on a node.
    pub fn compacted(&mut self, records: u64) -> Verdict {
        self.compacted += records;
        Ok(())
    }

    /// Returns the number of times that the floor rose, of records that commands dropped, and of
    /// records that compaction dropped on the nodes.
    pub fn counts(&self) -> (u64, u64, u64) {
        (self.rises, self.dropped, self.compacted)
    }
}

#[cfg(test)]
mod tests {
    use rangedb_proto::v1::{CollectGarbage, GarbageCollected};

    use super::*;

    fn raise(floor: &mut Floor, now: Micros, floor_ts: u64) -> Verdict {
        let collect = CollectGarbage { floor_ts, ..Default::default() };
        let command = Command { body: Some(command::Body::CollectGarbage(collect)) };
        let collected = command_reply::Body::GarbageCollected(GarbageCollected::default());
        let reply = CommandReply { body: Some(collected) }.encode_to_vec();
        floor.applied((RangeId(1), (floor_ts, 1)), now, &command.encode_to_vec(), &reply)
    }

    fn held(timestamp: u64, asked: u64) -> Held {
        Held { name: "client".into(), timestamp, asked, until: 30 }
    }

    #[test]
    fn a_floor_above_a_hold_is_caught_until_it_is_over_or_let_go() {
        let mut floor = Floor::default();
        let hold = held(70, 1);
        assert_eq!((floor.asked_for(&hold), floor.held(hold)), (Ok(()), Ok(())));
        assert_eq!(raise(&mut floor, 20, 70), Ok(()));
        assert!(raise(&mut floor, 20, 71).is_err());
        assert_eq!(raise(&mut floor, 30, 72), Ok(()));
        assert_eq!(floor.asked_for(&held(80, 2)), Ok(()));
        assert_eq!(raise(&mut floor, 20, 73), Ok(()));
        assert_eq!(floor.counts(), (4, 0, 0));
    }

    #[test]
    fn an_answer_that_was_overtaken_says_nothing() {
        let mut floor = Floor::default();
        let (early, late) = (held(70, 1), held(90, 2));
        assert_eq!((floor.asked_for(&early), floor.asked_for(&late)), (Ok(()), Ok(())));
        assert_eq!((floor.held(late), floor.held(early)), (Ok(()), Ok(())));
        assert_eq!(raise(&mut floor, 20, 80), Ok(()));
    }

    #[test]
    fn nobody_is_refused_for_a_floor_that_there_is_not() {
        let mut floor = Floor::default();
        assert!(floor.told(1).is_err());
        assert_eq!(raise(&mut floor, 20, 70), Ok(()));
        assert_eq!(floor.told(70), Ok(()));
    }
}
