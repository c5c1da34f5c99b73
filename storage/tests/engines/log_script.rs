//! Scripts for log engines; `;` stands between the changes of one batch.
//!
//! ```text
//! append RANGE INDEX@TERM=DATA ... | hard RANGE TERM VOTE COMMIT | truncate RANGE INDEX@TERM
//!     | reset RANGE INDEX@TERM | destroy RANGE [; ...]
//! state RANGE
//! entries RANGE LOW HIGH [BYTES_MAX]
//! ranges | purge | restart | crash
//! ```

use raft_proto::eraftpb::{Entry, HardState};
use rangedb_storage::{LogBatch, LogChange, LogEngine, Result};

use crate::golden::{Conversation, play_all};
use crate::log_node::{LogNode, MemNode};

struct LogScript<N>(N);

impl<N: LogNode> LogScript<N> {
    fn run(&mut self, command: &str) -> Result<String> {
        let words: Vec<&str> = command.split_whitespace().collect();
        let number = |place: usize| -> u64 { words[place].parse().expect("a number") };
        let engine = self.0.engine();
        match words[0] {
            "state" => Ok(state(engine, number(1))?),
            "entries" => {
                let bytes_max = if words.len() > 4 { number(4) } else { u64::MAX };
                let entries = engine.entries(number(1), number(2), number(3), bytes_max)?;
                let entries: Vec<String> = entries.iter().map(entry_text).collect();
                Ok(if entries.is_empty() { "nothing".into() } else { entries.join(" ") })
            }
            "ranges" => Ok(format!("{:?}", engine.ranges()?)),
            "purge" => engine.purge().map(|()| "ok".into()),
            "restart" => {
                self.0.restart();
                Ok("ok".into())
            }
            "crash" => {
                self.0.crash();
                Ok("ok".into())
            }
            _ => {
                let changes = command.split(';').map(parse_change).collect();
                engine.append(LogBatch { changes })?;
                Ok("ok".into())
            }
        }
    }
}

impl<N: LogNode> Conversation for LogScript<N> {
    fn answer(&mut self, command: &str) -> String {
        self.run(command).unwrap_or_else(|error| format!("error: {error}"))
    }
}

fn state(engine: &dyn LogEngine, range_id: u64) -> Result<String> {
    let Some(state) = engine.state(range_id)? else { return Ok("nothing".into()) };
    let HardState { term, vote, commit, .. } = state.hard_state;
    let (index, at) = (state.truncated_index, state.truncated_term);
    let last = state.last_index;
    Ok(format!("term {term} vote {vote} commit {commit}, behind {index}@{at} to {last}"))
}

fn parse_change(change: &str) -> LogChange {
    let words: Vec<&str> = change.split_whitespace().collect();
    let range_id = words[1].parse().expect("a range");
    let number = |place: usize| -> u64 { words[place].parse().expect("a number") };
    match words[0] {
        "append" => {
            let entries = words[2..].iter().map(|word| {
                let (place, data) = word.split_once('=').expect("INDEX@TERM=DATA");
                let (index, term) = parse_place(place);
                entry(index, term, data.as_bytes())
            });
            LogChange::Append { range_id, entries: entries.collect() }
        }
        "hard" => {
            let (term, vote, commit) = (number(2), number(3), number(4));
            let state = HardState { term, vote, commit, ..HardState::default() };
            LogChange::HardState { range_id, state }
        }
        "truncate" => {
            let (index, term) = parse_place(words[2]);
            LogChange::Truncate { range_id, index, term }
        }
        "reset" => {
            let (index, term) = parse_place(words[2]);
            LogChange::Reset { range_id, index, term }
        }
        "destroy" => LogChange::Destroy { range_id },
        other => panic!("unknown command {other}"),
    }
}

fn parse_place(word: &str) -> (u64, u64) {
    let (index, term) = word.split_once('@').expect("INDEX@TERM");
    (index.parse().expect("an index"), term.parse().expect("a term"))
}

pub fn entry(index: u64, term: u64, data: &[u8]) -> Entry {
    Entry { index, term, data: data.to_vec().into(), ..Entry::default() }
}

fn entry_text(entry: &Entry) -> String {
    format!("{}@{}={}", entry.index, entry.term, entry.data.escape_ascii())
}

#[test]
fn logs_in_memory_play_the_scripts() {
    play_all("log", || LogScript(MemNode::default()));
}

#[cfg(feature = "disk")]
#[test]
fn logs_on_disk_play_the_same_scripts() {
    play_all("log", || LogScript(crate::log_node::DiskNode::new()));
}
