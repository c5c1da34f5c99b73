//! Status of a transaction, asked at its primary by a client that met one of its locks.
//!
//! The command may itself decide the transaction. It rolls back a transaction that has expired. It
//! also rolls back one that has left nothing at the primary, because the prewrite may still come
//! and must then be refused. It does so only after the lock that the client met has expired:
//! prewrites go to all ranges at once, and the primary's may still be in flight. Time is the
//! oracle's, as the client took it, so no other clock counts.
//!
//! An asynchronous commit is not decided here, but by all of its locks together. The reply names
//! their keys, even if the transaction has expired.
//!
//! Malformed transactions: a sound transaction has one primary. If the lock at the asked key names
//! another primary, that key is no primary, and nothing was ever committed through it. Once both
//! locks have expired, the reply lets the client roll back the lock that it met; otherwise two
//! locks that name each other would block for ever. A client may finish only locks that name the
//! primary that it asked (`resolve_locks.rs`). The lock at the asked key stays, because the primary
//! that it names decides it.
//!
//! A transaction from below the floor can do nothing new, so its rollback needs no record. Of a
//! transaction from below collect_below nothing is known: it may have committed.

use rangedb_proto::Timestamp;
use rangedb_proto::v1::transaction_status::State;
use rangedb_proto::v1::{self, CheckTransaction, TransactionStatus, command_reply};

use super::fate::Fate;
use super::range_check::RangeCheck;
use super::{Evaluate, Stop};
use crate::evaluation::Evaluation;
use crate::facts::{CommandFacts, Cost, LockChange, Named, NamedTimestamps, Visit};
use crate::limits::{check_key, check_timestamp};
use crate::lock::Lock;

impl CommandFacts for CheckTransaction {
    fn name(&self) -> &'static str {
        "check_transaction"
    }

    fn check(&self) -> Result<(), v1::Error> {
        check_timestamp("start_ts", self.start_ts)?;
        check_timestamp("now_ts", self.now_ts)?;
        // A transaction that is pushed above the last timestamp could never commit.
        if self.push_above_ts >= Timestamp::MAX.0 {
            let message = format!("push_above_ts {} is not a timestamp", self.push_above_ts);
            return Err(v1::Error::invalid("push_above_ts", message));
        }
        check_key(&self.primary)
    }

    fn start_ts(&self) -> u64 {
        self.start_ts
    }

    fn timestamps(&self) -> NamedTimestamps {
        let CheckTransaction {
            start_ts,
            now_ts,
            push_above_ts,
            primary: _,
            // While this is in the future, the transaction is left alone. That only makes the
            // sender wait.
            met_alive_until_ms: _,
        } = self;
        NamedTimestamps::handed_out([*start_ts, *now_ts, *push_above_ts])
    }

    fn cost(&self) -> Cost {
        Cost::new(1, true)
    }

    fn visit_named<'a>(&'a self, visit: Visit<'_, 'a>) {
        visit(Named::Written(&self.primary));
    }

    fn lock_change(&self, reply: &command_reply::Body) -> LockChange<'_> {
        match reply {
            command_reply::Body::TransactionStatus(status)
                if status.state() == State::RolledBack =>
            {
                let keys = std::slice::from_ref(&self.primary);
                LockChange::Released { start_ts: self.start_ts, keys }
            }
            _ => LockChange::None,
        }
    }
}

impl Evaluate for CheckTransaction {
    fn evaluate(&self, evaluation: &mut Evaluation<'_, '_>) -> Result<command_reply::Body, Stop> {
        let key = &self.primary;
        RangeCheck::of(evaluation.context).check_key(key)?;
        Ok(match evaluation.find(key, self.start_ts)?.fate {
            Fate::Locked(lock) if lock.primary != key => {
                let alive_until_ms = lock.alive_until_ms.max(self.met_alive_until_ms);
                if Timestamp(self.now_ts).millis() <= alive_until_ms {
                    return Ok(on_its_way(alive_until_ms));
                }
                rolled_back()
            }
            Fate::Locked(mut lock) => {
                if lock.async_commit.is_some() {
                    // It may be committed, at the largest of its locks' min_commit_ts: too late to
                    // change that.
                    return Ok(alive(&lock));
                }
                if Timestamp(self.now_ts).millis() > lock.alive_until_ms {
                    evaluation.roll_back(key, self.start_ts, Some(&lock));
                    return Ok(rolled_back());
                }
                if self.push_above_ts >= lock.min_commit_ts {
                    lock.min_commit_ts = self.push_above_ts + 1;
                    evaluation.replace_lock(key, &lock);
                }
                alive(&lock)
            }
            Fate::Committed { commit_ts } => committed(commit_ts),
            Fate::RolledBack => rolled_back(),
            Fate::Unknown => {
                evaluation.memory().check_remembered(self.start_ts)?;
                if !evaluation.memory().may_lock(self.start_ts) {
                    return Ok(rolled_back());
                }
                if Timestamp(self.now_ts).millis() <= self.met_alive_until_ms {
                    return Ok(on_its_way(self.met_alive_until_ms));
                }
                evaluation.roll_back(key, self.start_ts, None);
                rolled_back()
            }
        })
    }
}

pub(super) fn alive(lock: &Lock) -> command_reply::Body {
    status(TransactionStatus {
        state: State::Alive.into(),
        alive_until_ms: lock.alive_until_ms,
        min_commit_ts: lock.min_commit_ts,
        async_commit: lock.async_commit.is_some(),
        secondaries: lock.async_commit.clone().unwrap_or_default(),
        ..Default::default()
    })
}

/// Returns the status of a transaction that reached another key before its primary, or of one asked
/// about at a key that is no primary. The lowest commit timestamp is not known yet, so no reader
/// may pass the lock.
fn on_its_way(alive_until_ms: u64) -> command_reply::Body {
    status(TransactionStatus { state: State::Alive.into(), alive_until_ms, ..Default::default() })
}

pub(super) fn committed(commit_ts: u64) -> command_reply::Body {
    status(TransactionStatus { state: State::Committed.into(), commit_ts, ..Default::default() })
}

pub(super) fn rolled_back() -> command_reply::Body {
    status(TransactionStatus { state: State::RolledBack.into(), ..Default::default() })
}

pub(super) fn status(status: TransactionStatus) -> command_reply::Body {
    command_reply::Body::TransactionStatus(status)
}
