//! Scripts for state engines. `-` is an empty key; `;` stands between the writes of one batch.
//!
//! ```text
//! put CF KEY VALUE | delete CF KEY | delete_span CF START END [; ...]
//! get CF KEY [@SNAPSHOT]
//! scan CF START END [reverse] [@SNAPSHOT]
//! snapshot NAME                     remember the state as it is now
//! stage NAME CF KEY=VALUE ... [; CF ...]
//! install NAME START END [; write ...]
//! discard NAME
//! flush | restart | crash
//! prefix CF KEY ...                 whether those of the keys that exist are the first ones
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use rangedb_storage::{
    ColumnFamily, Direction, Install, Reader, Result, Span, StagedSnapshot, WriteBatch,
};

use crate::golden::{Conversation, play_all};
use crate::state_node::{MemNode, StateNode};

struct StateScript<N> {
    node: N,
    snapshots: BTreeMap<String, Arc<dyn Reader>>,
    staged: BTreeMap<String, StagedSnapshot>,
}

impl<N: StateNode> StateScript<N> {
    fn new(node: N) -> Self {
        Self { node, snapshots: BTreeMap::new(), staged: BTreeMap::new() }
    }

    fn end_life(&mut self, end: impl Fn(&mut N)) -> String {
        self.snapshots.clear();
        end(&mut self.node);
        "ok".into()
    }

    fn stage(&mut self, name: &str, families: &str) -> Result<String> {
        let mut staging = self.node.engine().stage()?;
        for family in families.split(';') {
            let words: Vec<&str> = family.split_whitespace().collect();
            let record = |word: &&str| {
                let (key, value) = word.split_once('=').expect("KEY=VALUE");
                (Bytes::copy_from_slice(key.as_bytes()), Bytes::copy_from_slice(value.as_bytes()))
            };
            let records: Vec<_> = words[1..].iter().map(record).collect();
            staging.add(parse_family(words[0]), &records)?;
        }
        let staged = staging.finish()?;
        let records = staged.records;
        self.staged.insert(name.into(), staged);
        Ok(format!("{records} records"))
    }

    fn install(&mut self, words: &[&str], writes: &str) -> Result<String> {
        let span = Span { start: parse_key(words[1]), end: parse_key(words[2]) };
        let staged = self.staged[words[0]].clone();
        self.node.engine().install(Install { staged, span, meta: parse_writes(writes) })?;
        Ok("ok".into())
    }

    fn read(&self, words: &[&str]) -> Result<String> {
        let snapshot = words.iter().find_map(|word| word.strip_prefix('@'));
        match snapshot {
            Some(name) => read(&*self.snapshots[name], words),
            None => read(self.node.engine(), words),
        }
    }

    fn prefix(&self, words: &[&str]) -> Result<String> {
        let cf = parse_family(words[0]);
        let mut there = Vec::new();
        for key in &words[1..] {
            there.push(self.node.engine().get(cf, key.as_bytes())?.is_some());
        }
        Ok(if there.is_sorted_by(|a, b| a >= b) { "yes".into() } else { format!("no: {there:?}") })
    }

    fn run(&mut self, command: &str) -> Result<String> {
        let (first, rest) = command.split_once(" ;").unwrap_or((command, ""));
        let words: Vec<&str> = first.split_whitespace().collect();
        match words[0] {
            "put" | "delete" | "delete_span" => {
                self.node.engine().write(parse_writes(command))?;
                Ok("ok".into())
            }
            "get" | "scan" => self.read(&words),
            "snapshot" => {
                self.snapshots.insert(words[1].into(), self.node.engine().snapshot());
                Ok("ok".into())
            }
            "stage" => {
                let (name, families) = command["stage ".len()..].split_once(' ').unwrap();
                self.stage(name, families)
            }
            "install" => self.install(&words[1..], rest),
            "discard" => {
                self.node.engine().discard(self.staged[words[1]].clone())?;
                Ok("ok".into())
            }
            "flush" => self.node.engine().flush().map(|()| "ok".into()),
            "restart" => Ok(self.end_life(N::restart)),
            "crash" => Ok(self.end_life(N::crash)),
            "prefix" => self.prefix(&words[1..]),
            other => panic!("unknown command {other}"),
        }
    }
}

impl<N: StateNode> Conversation for StateScript<N> {
    fn answer(&mut self, command: &str) -> String {
        self.run(command).unwrap_or_else(|error| format!("error: {error}"))
    }
}

/// Runs `get` or `scan` on a reader.
pub fn read(reader: &dyn Reader, words: &[&str]) -> Result<String> {
    let cf = parse_family(words[1]);
    if words[0] == "get" {
        let value = reader.get(cf, &parse_key(words[2]))?;
        return Ok(value.map_or("nothing".into(), |value| text(&value)));
    }
    let reverse = words.contains(&"reverse");
    let direction = if reverse { Direction::Reverse } else { Direction::Forward };
    let mut records = reader.scan(cf, &parse_key(words[2]), &parse_key(words[3]), direction)?;
    let mut found = Vec::new();
    while let Some((key, value)) = records.next()? {
        found.push(format!("{}={}", text(key), text(value)));
    }
    assert!(records.next()?.is_none(), "a walk that has ended stays at its end");
    Ok(if found.is_empty() { "nothing".into() } else { found.join(" ") })
}

pub fn parse_writes(writes: &str) -> WriteBatch {
    let mut batch = WriteBatch::default();
    for write in writes.split(';').filter(|write| !write.trim().is_empty()) {
        let words: Vec<&str> = write.split_whitespace().collect();
        let cf = parse_family(words[1]);
        let key = parse_key(words[2]);
        match words[0] {
            "put" => batch.put(cf, key, words[3].to_owned()),
            "delete" => batch.delete(cf, key),
            "delete_span" => batch.delete_span(cf, Span { start: key, end: parse_key(words[3]) }),
            other => panic!("unknown write {other}"),
        }
    }
    batch
}

fn parse_family(name: &str) -> ColumnFamily {
    ColumnFamily::ALL.into_iter().find(|cf| cf.name() == name).expect("a family's name")
}

fn parse_key(word: &str) -> Bytes {
    if word == "-" { Bytes::new() } else { Bytes::copy_from_slice(word.as_bytes()) }
}

fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

#[test]
fn the_state_in_memory_plays_the_scripts_whatever_a_crash_keeps() {
    for seed in 0..20 {
        play_all("state", || StateScript::new(MemNode::new(seed)));
    }
}

#[cfg(feature = "disk")]
#[test]
fn the_state_on_disk_plays_the_same_scripts() {
    play_all("state", || StateScript::new(crate::state_node::RocksNode::new()));
}
