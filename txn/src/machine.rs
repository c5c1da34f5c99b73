//! [`TxnMachine`]: decodes a command, hands it to its file under `commands/`, encodes the reply.

use bytes::Bytes;
use prost::Message;
use rangedb_proto::v1::{Command, CommandReply, command_reply};
use rangedb_storage::{ApplyContext, Batch, Reader, Result, StateMachine};

use crate::check::check_command;
use crate::commands::{self, Stop, invalid_reply};
use crate::memory::Memory;

/// State machine that every replica of a range runs: it evaluates commands against the range's
/// state.
///
/// Invariant: everything in memory can be rebuilt from the state, and no reply and no write depends
/// on whether it was.
#[derive(Debug, Default)]
pub struct TxnMachine {
    /// `None` until the machine is loaded.
    memory: Option<Memory>,
}

impl TxnMachine {
    /// Returns a machine that must be loaded before it can apply.
    pub fn new() -> Self {
        Self::default()
    }
}

impl StateMachine for TxnMachine {
    fn load(&mut self, state: &dyn Reader, start_key: &[u8], end_key: &[u8]) -> Result<()> {
        self.memory = Some(Memory::load(state, start_key, end_key)?);
        Ok(())
    }

    /// Returns an encoded [`CommandReply`].
    fn apply(
        &mut self,
        context: &ApplyContext<'_>,
        command: &[u8],
        batch: &mut Batch<'_>,
    ) -> Result<Bytes> {
        let memory = self.memory.as_mut().expect("a machine is loaded before it applies");
        let reply = match Command::decode(command) {
            Err(error) => invalid_reply(format!("the command cannot be decoded: {error}")),
            Ok(command) => match evaluate(context, memory, &command, batch) {
                Ok(body) | Err(Stop::Reply(body)) => CommandReply { body: Some(body) },
                Err(Stop::Engine(error)) => return Err(error),
            },
        };
        Ok(reply.encode_to_vec().into())
    }
}

fn evaluate(
    context: &ApplyContext<'_>,
    memory: &mut Memory,
    command: &Command,
    batch: &mut Batch<'_>,
) -> std::result::Result<command_reply::Body, Stop> {
    check_command(command).map_err(|error| Stop::invalid(error.message))?;
    let body = command.body.as_ref().expect("check_command refuses commands of unknown kinds");
    commands::evaluate(context, memory, body, batch)
}
