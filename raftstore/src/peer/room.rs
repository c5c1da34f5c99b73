//! Room on the disks of a range's replicas: which entries a leader proposes and a follower accepts.
//!
//! Deletes empty a full disk, so they must get through when other commands do not:
//!
//! 1. Each message says if its sender is short of room. A leader proposes an entry that takes up
//!    space only if it has room itself and a quorum has room.
//! 2. Entries that the leader proposed before it knew are in flight, in front of the deletes. A
//!    follower accepts them into its reserve, up to [`RESERVE_TAKEN_BYTES_MAX`].
//! 3. A follower that alone is short does the same, up to that bound. From then on it falls behind,
//!    and the others commit without it.

use prost::Message as _;
use raft::eraftpb::{Entry, EntryType, Message};
use rangedb_proto::SYSTEM_PREFIX;
use rangedb_proto::v1::LogEntry;

use super::Peer;
use crate::Room;
use crate::membership::conf_state;
use crate::pass::Pass;

/// Bytes of entries that a store without room for them still accepts, until there is room
/// again. Far below the reserve of the smallest disk, in which they count twice: in the log and in
/// the state.
pub(crate) const RESERVE_TAKEN_BYTES_MAX: u64 = 8 << 20;

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
    fn has_own_room_for(&self, frees_space: bool) -> bool {
        self.room.is_for(frees_space) || self.descriptor().start_key.starts_with(SYSTEM_PREFIX)
    }

    fn quorum_has_room(&self) -> bool {
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
        #[cfg(feature = "planted")]
        if rangedb_planted::Bug::EntriesRefusedForRoom.is_planted() {
            return append.entries.iter().all(frees_space);
        }
        let last = self.raw.raft.raft_log.last_index();
        // Raft refuses an append that does not fit the log, so its entries take up nothing here.
        let is_new = |entry: &&Entry| append.index <= last && entry.index > last;
        let taken = append.entries.iter().filter(is_new).filter(|entry| !frees_space(entry));
        let bytes: u64 = taken.map(|entry| entry.data.len() as u64).sum();
        match pass.reserve_bytes_left.checked_sub(bytes) {
            Some(left) => {
                pass.reserve_bytes_left = left;
                true
            }
            None => false,
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
