//! Room on the disks of a range's replicas: which entries a leader proposes and a follower accepts.
//!
//! Deletes empty a full disk, so they must get through when other commands do not:
//!
//! 1. Each message says if its sender is short of room. A leader proposes an entry that takes up
//!    space only if it has room itself and a quorum has room.
//! 2. Entries that the leader proposed before it knew are in flight, in front of the deletes. A
//!    follower accepts them into its reserve, up to [`RESERVE_TAKEN_BYTES_MAX`]. Commands that still
//!    wait at the leader are refused.
//! 3. A follower that alone is short does the same, up to that bound. From then on it falls behind,
//!    and the others commit without it.

use prost::Message as _;
use raft::eraftpb::{Entry, EntryType, Message};
use rangedb_proto::SYSTEM_PREFIX;
use rangedb_proto::v1::LogEntry;

use super::Peer;
use crate::membership::conf_state;
use crate::pass::Pass;
use crate::planted::planted;
use crate::{Error, Room, Shard};

/// Bytes of entries that a node without room for them still accepts, until there is room again. They
/// count twice, in the log and in the state: half of the reserve of the smallest disk. The last append
/// may go beyond it, because an entry may be larger and deletes may stand behind it.
const RESERVE_TAKEN_BYTES_MAX: u64 = 8 << 20;

/// Share of one store in [`RESERVE_TAKEN_BYTES_MAX`].
pub(crate) fn reserve_bytes(shard: Shard) -> u64 {
    RESERVE_TAKEN_BYTES_MAX / shard.count
}

impl Peer {
    pub fn set_room(&mut self, room: Room) {
        self.room = room;
    }

    /// True if this node's disk has no room for entries that take up space.
    pub(super) fn is_short_of_room(&self) -> bool {
        !self.has_own_room_for(false)
    }

    /// True if this node has room for an entry and, unless the entry frees space, a quorum has room
    /// too. The last message of each other replica counts; a replica that sent none has room.
    pub(super) fn has_room_for(&self, frees_space: bool) -> bool {
        self.has_own_room_for(frees_space) && (frees_space || self.quorum_has_room())
    }

    /// Ranges of the system's own keys always have room.
    pub(super) fn has_own_room_for(&self, frees_space: bool) -> bool {
        self.room.is_for(frees_space) || self.descriptor().start_key.starts_with(SYSTEM_PREFIX)
    }

    fn quorum_has_room(&self) -> bool {
        // Asked for each command, and nearly always true.
        if !self.heard.values().any(|heard| heard.said.short_of_room) {
            return true;
        }
        let is_short = |id: &&u64| self.heard.get(id).is_some_and(|heard| heard.said.short_of_room);
        let conf = conf_state(self.descriptor());
        [&conf.voters, &conf.voters_outgoing].into_iter().all(|voters| {
            let short = voters.iter().filter(is_short).count();
            voters.is_empty() || voters.len() - short > voters.len() / 2
        })
    }

    /// True if a follower has room on its disk for the entries of an append. A leader's first entry
    /// and a membership change need almost none, and help to free some.
    pub(super) fn accepts_entries(&self, append: &Message, pass: &mut Pass) -> bool {
        if self.has_own_room_for(false) {
            return true;
        }
        if !self.has_own_room_for(true) {
            return append.entries.iter().all(is_small);
        }
        if planted!(EntriesRefusedForRoom) {
            return append.entries.iter().all(frees_space);
        }
        let log = &self.raw.raft.raft_log;
        // Raft refuses an append of an earlier term, and one that does not fit the log. It takes up
        // nothing here, and neither do entries that the log has already.
        if append.term < self.term() || !log.match_term(append.index, append.log_term) {
            return true;
        }
        let is_new = |entry: &&Entry| !log.match_term(entry.index, entry.term);
        let taken = append.entries.iter().filter(is_new).filter(|entry| !frees_space(entry));
        let bytes: u64 = taken.map(|entry| entry.data.len() as u64).sum();
        if bytes > 0 && pass.reserve_bytes_left == 0 {
            return false;
        }
        pass.reserve_bytes_left = pass.reserve_bytes_left.saturating_sub(bytes);
        true
    }

    /// Refuses commands that wait to be proposed and that take up space, if there is no room for
    /// them any more.
    pub(super) fn refuse_for_room(&mut self, pass: &mut Pass) {
        if !self.proposals.has_queued() || self.has_room_for(false) {
            return;
        }
        let refused = self.proposals.take_queued(|command| !command.frees_space);
        for command in refused {
            pass.reply(command.request, Err(Error::DiskFull(self.range)));
        }
    }
}

/// True for a leader's first entry and for a membership change.
fn is_small(entry: &Entry) -> bool {
    entry.get_entry_type() != EntryType::EntryNormal || entry.data.is_empty()
}

fn frees_space(entry: &Entry) -> bool {
    is_small(entry) || LogEntry::decode(&entry.data[..]).is_ok_and(|log| log.frees_space)
}
