//! Counters of commands by kind and outcome.

use std::sync::atomic::{AtomicU64, Ordering};

use rangedb_proto::v1::{self, CommandReply, command, command_reply};

const COMMANDS: [&str; 10] = [
    "commit_one_range",
    "prewrite",
    "commit_keys",
    "rollback_keys",
    "check_transaction",
    "resolve_locks",
    "heartbeat_lock",
    "acquire_locks",
    "check_secondaries",
    "collect_garbage",
];

const OUTCOMES: [&str; 9] = [
    "done",
    "condition_failed",
    "locked",
    "write_conflict",
    "aborted",
    "too_old",
    "commit_too_low",
    "refused",
    "failed",
];

/// Number of commands by kind and outcome, on one node since its process began.
#[derive(Default)]
pub(super) struct CommandCounts([[AtomicU64; OUTCOMES.len()]; COMMANDS.len()]);

impl CommandCounts {
    pub fn count(&self, command: &command::Body, answer: &Result<CommandReply, v1::Error>) {
        self.0[kind(command)][outcome(answer)].fetch_add(1, Ordering::Relaxed);
    }

    /// Returns command, outcome and number, where the number is not 0.
    pub fn all(&self) -> Vec<(&'static str, &'static str, u64)> {
        let mut all = Vec::new();
        for (command, counts) in COMMANDS.into_iter().zip(&self.0) {
            for (outcome, count) in OUTCOMES.into_iter().zip(counts) {
                match count.load(Ordering::Relaxed) {
                    0 => {}
                    count => all.push((command, outcome, count)),
                }
            }
        }
        all
    }
}

fn kind(command: &command::Body) -> usize {
    use command::Body;
    match command {
        Body::CommitOneRange(_) => 0,
        Body::Prewrite(_) => 1,
        Body::CommitKeys(_) => 2,
        Body::RollbackKeys(_) => 3,
        Body::CheckTransaction(_) => 4,
        Body::ResolveLocks(_) => 5,
        Body::HeartbeatLock(_) => 6,
        Body::AcquireLocks(_) => 7,
        Body::CheckSecondaries(_) => 8,
        Body::CollectGarbage(_) => 9,
    }
}

fn outcome(answer: &Result<CommandReply, v1::Error>) -> usize {
    use command_reply::Body;
    let Ok(reply) = answer else { return 8 };
    match &reply.body {
        Some(
            Body::Committed(_)
            | Body::Prewritten(_)
            | Body::TransactionStatus(_)
            | Body::Resolved(_)
            | Body::LocksAcquired(_)
            | Body::GarbageCollected(_),
        ) => 0,
        Some(Body::ConditionFailed(_)) => 1,
        Some(Body::Locked(_)) => 2,
        Some(Body::WriteConflict(_)) => 3,
        Some(Body::Aborted(_)) => 4,
        Some(Body::TooOld(_)) => 5,
        Some(Body::CommitTooLow(_)) => 6,
        Some(Body::EpochChanged(_) | Body::Invalid(_) | Body::TooLarge(_)) | None => 7,
        Some(Body::Damaged(_)) => 8,
    }
}

#[cfg(test)]
mod tests {
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
