//! Facts about the replies to commands.

use rangedb_proto::Timestamp;
use rangedb_proto::v1::{CommandReply, command_reply};

/// Outcome of a command, by its reply.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum CommandOutcome {
    Done,
    ConditionFailed,
    Locked,
    WriteConflict,
    /// The transaction was rolled back, maybe by this command.
    Aborted,
    TooOld,
    CommitTooLow,
    /// The command breaks a rule or a limit.
    Refused,
    /// A record that it needs is damaged.
    Failed,
}

impl CommandOutcome {
    pub const ALL: [CommandOutcome; 9] = [
        CommandOutcome::Done,
        CommandOutcome::ConditionFailed,
        CommandOutcome::Locked,
        CommandOutcome::WriteConflict,
        CommandOutcome::Aborted,
        CommandOutcome::TooOld,
        CommandOutcome::CommitTooLow,
        CommandOutcome::Refused,
        CommandOutcome::Failed,
    ];

    /// Returns the outcome that a reply shows. A reply without a body refuses the command.
    pub fn of(reply: &CommandReply) -> Self {
        use command_reply::Body;
        match &reply.body {
            Some(
                Body::Committed(_)
                | Body::Prewritten(_)
                | Body::TransactionStatus(_)
                | Body::Resolved(_)
                | Body::LocksAcquired(_)
                | Body::GarbageCollected(_),
            ) => CommandOutcome::Done,
            Some(Body::ConditionFailed(_)) => CommandOutcome::ConditionFailed,
            Some(Body::Locked(_)) => CommandOutcome::Locked,
            Some(Body::WriteConflict(_)) => CommandOutcome::WriteConflict,
            Some(Body::Aborted(_)) => CommandOutcome::Aborted,
            Some(Body::TooOld(_)) => CommandOutcome::TooOld,
            Some(Body::CommitTooLow(_)) => CommandOutcome::CommitTooLow,
            Some(Body::Invalid(_) | Body::TooLarge(_)) | None => CommandOutcome::Refused,
            Some(Body::Damaged(_)) => CommandOutcome::Failed,
        }
    }

    /// Name of the outcome, in metrics.
    pub fn name(self) -> &'static str {
        match self {
            CommandOutcome::Done => "done",
            CommandOutcome::ConditionFailed => "condition_failed",
            CommandOutcome::Locked => "locked",
            CommandOutcome::WriteConflict => "write_conflict",
            CommandOutcome::Aborted => "aborted",
            CommandOutcome::TooOld => "too_old",
            CommandOutcome::CommitTooLow => "commit_too_low",
            CommandOutcome::Refused => "refused",
            CommandOutcome::Failed => "failed",
        }
    }

    /// True if the command changed nothing, whatever its kind.
    pub fn is_refusal(self) -> bool {
        !matches!(self, CommandOutcome::Done | CommandOutcome::Aborted)
    }
}

/// Newest commit that the reply reveals, or 0 if it reveals none. Every snapshot that begins once the
/// sender has the reply must show it.
pub fn newest_commit(reply: &CommandReply) -> Timestamp {
    use command_reply::Body;
    Timestamp(match &reply.body {
        Some(Body::Committed(committed)) => committed.commit_ts,
        // A transaction with asynchronous commit may be acknowledged as soon as this reply is
        // returned.
        Some(Body::Prewritten(prewritten)) if prewritten.async_commit => prewritten.min_commit_ts,
        Some(Body::ConditionFailed(failed)) => failed.newest_ts,
        Some(Body::WriteConflict(conflict)) => conflict.winner_commit_ts,
        Some(Body::TransactionStatus(status)) => status.commit_ts,
        Some(Body::LocksAcquired(acquired)) => {
            acquired.current.iter().map(|kv| kv.mod_ts).max().unwrap_or_default()
        }
        Some(
            // The locks in these replies may never be committed.
            Body::Prewritten(_)
            | Body::Locked(_)
            | Body::CommitTooLow(_)
            | Body::Aborted(_)
            // These replies reveal no commit.
            | Body::Resolved(_)
            | Body::GarbageCollected(_)
            | Body::TooOld(_)
            | Body::Damaged(_)
            | Body::TooLarge(_)
            | Body::Invalid(_),
        )
        | None => 0,
    })
}
