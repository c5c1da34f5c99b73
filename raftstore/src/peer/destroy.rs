//! The end of a replica that is no longer a member: all that is stored of it goes, and a tombstone
//! stays, so that a late message does not bring it back.

use prost::Message as _;
use rangedb_proto::v1::Tombstone;
use rangedb_storage::{ColumnFamily, LogChange, Result, keys};

use super::Peer;
use crate::pass::Pass;
use crate::{Effect, Error};

impl Peer {
    /// Removes all that is stored of this replica and answers all who wait for it.
    ///
    /// # Errors
    ///
    /// The engine's alone.
    pub fn destroy(mut self, pass: &mut Pass<'_>) -> Result<()> {
        let range_id = self.range.0;
        // Raft has agreed to it and has not handed it back for installing.
        if let Some(waiting) = self.staged.take() {
            pass.state.discard(waiting.staged)?;
        }
        if self.is_initialized() {
            for cf in ColumnFamily::DATA {
                pass.behind.delete_span(cf, self.span());
            }
            pass.behind.delete(ColumnFamily::Meta, keys::range_state(range_id));
        }
        let tombstone = Tombstone { replica_ids_below: self.me.replica_id + 1 };
        let value = tombstone.encode_to_vec();
        pass.behind.put(ColumnFamily::Meta, keys::tombstone(range_id), value);
        pass.log.changes.push(LogChange::Destroy { range_id });
        pass.structural = true;

        let gone = Error::RangeNotFound(self.range);
        let mut answers = self.refuse_waiting(&gone);
        answers.extend(self.refuse_reads(&gone));
        answers.extend(self.give_up_in_flight());
        answers.extend(self.fail_operation());
        for answer in answers {
            pass.answer(answer);
        }
        if self.is_leader() {
            pass.effects.push(Effect::SteppedDown { range: self.range });
        }
        Ok(())
    }
}
