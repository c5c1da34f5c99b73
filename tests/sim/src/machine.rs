//! State machine of a range under observation. Its commands and replies are compared with those of
//! the other replicas, and of its own earlier lives.

use bytes::Bytes;
use prost::Message;
use rangedb_proto::RangeId;
use rangedb_proto::v1::{Command, CommandReply, GarbageCollected, command_reply};
use rangedb_storage::{Applied, ApplyContext, Batch, RangeSize, Reader, Result, StateMachine};
use rangedb_txn::TxnMachine;

use crate::check::Watch;
use crate::check::applies_agree::Step;
use crate::occurrence::shortened;
use crate::schedule::Schedule;
use crate::trace::Trace;

pub struct WatchedMachine {
    machine: TxnMachine,
    range: RangeId,
    slot: usize,
    watch: Watch,
    schedule: Schedule,
    /// Entry of the last command, and the number of commands of that entry applied so far.
    place: (u64, usize),
}

impl WatchedMachine {
    pub fn new(range: RangeId, slot: usize, watch: Watch, schedule: Schedule) -> Self {
        let place = (0, 0);
        WatchedMachine { machine: TxnMachine::new(), range, slot, watch, schedule, place }
    }
}

impl StateMachine for WatchedMachine {
    fn load(&mut self, state: &dyn Reader, start_key: &[u8], end_key: &[u8]) -> Result<()> {
        self.place = (0, 0);
        self.machine.load(state, start_key, end_key)
    }

    fn apply(
        &mut self,
        context: &ApplyContext<'_>,
        command: &[u8],
        batch: &mut Batch<'_>,
    ) -> Result<Applied> {
        let context = &ApplyContext { with_changes: true, ..*context };
        let applied = self.machine.apply(context, command, batch)?;
        let reply = &applied.reply;
        let (index, count) = self.place;
        self.place = if index == context.index { (index, count + 1) } else { (context.index, 1) };
        let hash = |bytes: &[u8]| {
            let mut trace = Trace::default();
            trace.bytes(bytes);
            trace.hash()
        };
        let step = Step {
            place: self.place,
            command: hash(command),
            reply: hash(&agreed(reply)),
            changes: hash(format!("{:?}", applied.changes).as_bytes()),
        };
        self.schedule.remark(|| {
            let command = shortened(&Command::decode(command));
            let reply = shortened(&CommandReply::decode(reply.clone()));
            format!(
                "    node-{} {} applies {:?}: {command} -> {reply}",
                self.slot, self.range, self.place
            )
        });
        self.watch.note(|checks| {
            checks.applies.applied(self.range, self.slot, step)?;
            checks.changes.applied(self.range, self.place, &applied.changes);
            checks.given_up.applied(self.range, self.place, command, reply)?;
            checks.fences.applied(self.range, self.place, command, reply)?;
            let now = self.schedule.now();
            checks.floor.applied((self.range, self.place), now, command, reply)
        });
        Ok(applied)
    }

    fn size(&self) -> RangeSize {
        self.machine.size()
    }
}

/// Returns the part of a reply that is equal on all replicas. The number of records that a command
/// dropped is not: on one replica, compaction may have dropped some of them before.
fn agreed(reply: &Bytes) -> Bytes {
    match CommandReply::decode(reply.clone()) {
        Ok(CommandReply {
            body: Some(command_reply::Body::GarbageCollected(collected)), ..
        }) => {
            let floor_ts = collected.floor_ts;
            GarbageCollected { floor_ts, ..Default::default() }.encode_to_vec().into()
        }
        _ => reply.clone(),
    }
}
