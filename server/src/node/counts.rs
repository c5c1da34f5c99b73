//! Counters of commands by kind and outcome.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use rangedb_proto::v1::{self, CommandReply, command};
use rangedb_txn::{CommandOutcome, facts};

/// Number of commands of one kind, by outcome.
type Counts = [AtomicU64; CommandOutcome::ALL.len()];

/// Number of commands by kind and outcome, on one node since its process began.
#[derive(Default)]
pub(super) struct CommandCounts(RwLock<BTreeMap<&'static str, Counts>>);

impl CommandCounts {
    pub fn count(&self, command: &command::Body, answer: &Result<CommandReply, v1::Error>) {
        let kind = facts(command).name();
        let outcome = match answer {
            Ok(reply) => CommandOutcome::of(reply),
            Err(_) => CommandOutcome::Failed,
        };
        let add = |counts: &Counts| counts[outcome as usize].fetch_add(1, Ordering::Relaxed);
        let known = self.0.read().get(kind).map(add);
        if known.is_none() {
            add(self.0.write().entry(kind).or_default());
        }
    }

    /// Returns command, outcome and number, where the number is not 0.
    pub fn all(&self) -> Vec<(&'static str, &'static str, u64)> {
        let mut all = Vec::new();
        for (command, counts) in &*self.0.read() {
            for (outcome, count) in CommandOutcome::ALL.into_iter().zip(counts) {
                match count.load(Ordering::Relaxed) {
                    0 => {}
                    count => all.push((*command, outcome.name(), count)),
                }
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use rangedb_proto::v1::command_reply;

    use super::*;

    #[test]
    fn an_answer_is_counted_under_its_command_and_outcome() {
        let counts = CommandCounts::default();
        let command = command::Body::HeartbeatLock(v1::HeartbeatLock::default());
        let aborted = command_reply::Body::Aborted(v1::TransactionAborted::default());
        counts.count(&command, &Ok(CommandReply { body: Some(aborted) }));
        counts.count(&command, &Err(v1::Error::unavailable("nobody leads")));
        let expected = [("heartbeat_lock", "aborted", 1), ("heartbeat_lock", "failed", 1)];
        assert_eq!(counts.all(), expected);
    }
}
