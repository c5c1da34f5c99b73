//! Minimal state machine, which shows the context of each apply: `put K=V`.

use rangedb_storage::{
    Applied, ApplyContext, Batch, ColumnFamily, RangeSize, Reader, Result, StateMachine,
};

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
    ) -> Result<Applied> {
        let text = std::str::from_utf8(command).unwrap();
        let (key, value) = text.strip_prefix("put ").unwrap().split_once('=').unwrap();
        batch.put(ColumnFamily::Current, key.to_owned(), value.to_owned());
        let reply = format!("entry {} above {}", context.index, context.fence).into();
        Ok(Applied { reply, changes: Vec::new() })
    }

    fn size(&self) -> RangeSize {
        RangeSize::default()
    }
}
