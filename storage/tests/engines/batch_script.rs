//! Scripts for a batch over a state. `below WRITE` writes to the state, `put` and `delete` to the
//! batch; `get` and `scan` read through the batch; `take` prints what would be written.

use bytes::Bytes;
use rangedb_storage::{Batch, MemState, StateEngine, Write, WriteBatch};

use crate::golden::{Conversation, play_all};
use crate::state_script::{parse_writes, read};

/// State of a script. A batch borrows its state, so each command makes a new one.
#[derive(Default)]
struct BatchScript {
    state: MemState,
    written: WriteBatch,
}

impl BatchScript {
    fn batch(&self) -> Batch<'_> {
        let mut batch = Batch::new(&self.state);
        for write in self.written.writes.clone() {
            match write {
                Write::Put { cf, key, value } => batch.put(cf, key, value),
                Write::Delete { cf, key } => batch.delete(cf, key),
                Write::DeleteSpan { .. } => panic!("a batch does not delete spans"),
            }
        }
        batch
    }

    fn take(&mut self) -> String {
        let mut batch = self.batch();
        let bytes = batch.bytes();
        let taken = batch.take();
        assert_eq!(bytes, taken.bytes());
        assert!(batch.is_empty() && batch.bytes() == 0);
        let text = |bytes: &Bytes| bytes.escape_ascii().to_string();
        let lines = taken.writes.iter().map(|write| match write {
            Write::Put { cf, key, value } => {
                format!("put {} {} {}", cf.name(), text(key), text(value))
            }
            Write::Delete { cf, key } => format!("delete {} {}", cf.name(), text(key)),
            Write::DeleteSpan { .. } => panic!("a batch does not delete spans"),
        });
        let lines: Vec<String> = lines.chain([format!("{bytes} bytes")]).collect();
        self.state.write(taken).unwrap();
        self.written = WriteBatch::default();
        lines.join("\n")
    }
}

impl Conversation for BatchScript {
    fn answer(&mut self, command: &str) -> String {
        let words: Vec<&str> = command.split_whitespace().collect();
        match words[0] {
            "below" => {
                self.state.write(parse_writes(&command["below ".len()..])).unwrap();
                "ok".into()
            }
            "put" | "delete" => {
                self.written.writes.extend(parse_writes(command).writes);
                "ok".into()
            }
            "take" => self.take(),
            _ => read(&self.batch(), &words).unwrap(),
        }
    }
}

#[test]
fn batches_play_the_scripts() {
    play_all("batch", BatchScript::default);
}
