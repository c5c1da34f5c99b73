//! [`TxnMachine`]: decodes a command, hands it to its file under `commands/`, encodes the reply.

use bytes::Bytes;
use prost::Message;
use rangedb_proto::v1::{Command, CommandReply, command};
use rangedb_storage::{ApplyContext, Batch, Reader, Result, StateMachine};

use crate::commands::{Stop, commit_one_range, invalid_reply};
use crate::range_record::RangeRecord;
use crate::window::AppliedWindow;

/// What one range replicates. See the crate's head for the rules.
///
/// Invariant: everything in memory can be made again from the state, and no reply and no write
/// depends on whether it was.
#[derive(Debug, Default)]
pub struct TxnMachine {
    /// `None` until the machine is loaded.
    memory: Option<Memory>,
}

/// What the machine keeps at hand of the state.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) range: RangeRecord,
    pub(crate) applied: AppliedWindow,
}

impl TxnMachine {
    /// A machine that must be loaded before it can apply.
    pub fn new() -> Self {
        Self::default()
    }
}

impl StateMachine for TxnMachine {
    fn load(&mut self, state: &dyn Reader, start_key: &[u8], _end_key: &[u8]) -> Result<()> {
        let range = RangeRecord::read(state, start_key)?;
        let applied = AppliedWindow::new(range.last_commit_ts);
        self.memory = Some(Memory { range, applied });
        Ok(())
    }

    /// Answers an encoded [`CommandReply`].
    fn apply(
        &mut self,
        context: &ApplyContext<'_>,
        command: &[u8],
        batch: &mut Batch<'_>,
    ) -> Result<Bytes> {
        let memory = self.memory.as_mut().expect("a machine is loaded before it applies");
        let reply = match Command::decode(command) {
            Err(error) => invalid_reply(format!("the command cannot be decoded: {error}")),
            Ok(Command { body: Some(command::Body::CommitOneRange(commit)) }) => {
                reply(commit_one_range::apply(context, memory, &commit, batch))?
            }
            Ok(Command { body: _ }) => invalid_reply("a command of an unknown kind"),
        };
        Ok(reply.encode_to_vec().into())
    }
}

fn reply(
    outcome: std::result::Result<rangedb_proto::v1::command_reply::Body, Stop>,
) -> Result<CommandReply> {
    match outcome {
        Ok(body) | Err(Stop::Reply(body)) => Ok(CommandReply { body: Some(body) }),
        Err(Stop::Engine(error)) => Err(error),
    }
}
