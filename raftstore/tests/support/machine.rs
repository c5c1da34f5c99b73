//! Minimal state machine, which shows the context of each apply: `put K=V`.

use bytes::Bytes;
use rangedb_storage::{ApplyContext, Batch, ColumnFamily, Reader, Result, StateMachine};

pub struct Machine;

impl StateMachine for Machine {
    fn load(&mut self, _state: &dyn Reader, _start_key: &[u8], _end_key: &[u8]) -> Result<()> {
        Ok(())
    }

    fn apply(
        &mut self,
        context: &ApplyContext<'_>,
        command: &[u8],
        batch: &mut Batch<'_>,
    ) -> Result<Bytes> {
        let text = std::str::from_utf8(command).unwrap();
        let (key, value) = text.strip_prefix("put ").unwrap().split_once('=').unwrap();
        batch.put(ColumnFamily::Current, key.to_owned(), value.to_owned());
        Ok(format!("entry {} above {}", context.index, context.fence).into())
    }
}
