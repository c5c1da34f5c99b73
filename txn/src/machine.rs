//! [`TxnMachine`]: decodes a command, hands it to its file under `commands/`, encodes the reply.

use prost::Message;
use rangedb_proto::v1::{Command, CommandReply, command_reply};
use rangedb_storage::{Applied, ApplyContext, Batch, RangeSize, Reader, Result, StateMachine};

use crate::check::check_command;
use crate::commands::{self, Stop};
use crate::evaluation::Evaluation;
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

    /// Replies with an encoded [`CommandReply`].
    fn apply(
        &mut self,
        context: &ApplyContext<'_>,
        command: &[u8],
        batch: &mut Batch<'_>,
    ) -> Result<Applied> {
        let memory = self.memory.as_mut().expect("a machine is loaded before it applies");
        let mut evaluation = Evaluation::new(context, memory, batch);
        let (body, changes) = match evaluate(command, &mut evaluation) {
            Ok(body) => (body, evaluation.finish()),
            Err(stop) => {
                evaluation.stop();
                match stop {
                    Stop::Reply(body) => (body, Vec::new()),
                    Stop::Engine(error) => return Err(error),
                }
            }
        };
        let reply = CommandReply { body: Some(body) }.encode_to_vec().into();
        Ok(Applied { reply, changes })
    }

    fn size(&self) -> RangeSize {
        self.memory.as_ref().map(|memory| memory.range.size).unwrap_or_default()
    }
}

fn evaluate(
    command: &[u8],
    evaluation: &mut Evaluation<'_, '_>,
) -> std::result::Result<command_reply::Body, Stop> {
    let command = Command::decode(command)
        .map_err(|error| Stop::invalid(format!("the command cannot be decoded: {error}")))?;
    check_command(&command).map_err(|error| Stop::invalid(error.message))?;
    let body = command.body.as_ref().expect("check_command refuses commands of unknown kinds");
    commands::evaluate(body, evaluation)
}
