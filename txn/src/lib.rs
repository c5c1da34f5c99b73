//! Transactional state machine of a range: versions of keys, the commands that write them, and
//! reads.
//!
//! Every replica of a range runs a [`TxnMachine`] over the same log. A log entry carries what the
//! client asks for, conditions and operations, and not their result. Each replica evaluates them
//! against its own state, at apply, in log order. No command waits for another, a hot key is
//! written at the speed of apply, and replicas can be compared byte for byte.
//!
//! # Versions
//!
//! A write never changes a version; it makes a new one. Example: `a` is put at 5 and again at 8,
//! `b` is put at 5 and deleted at 9, and of `c` only its deletion at 8 is left:
//!
//! ```text
//! current   a    put "2"  mod 8  start 7  version 2  create 5
//!           b    deleted  mod 9  start 9
//!           c    deleted  mod 8  start 7
//!
//! history   a 5  put "1"  end 8  start 5  version 1  create 5
//!           b 5  put "1"  end 9  start 5  version 1  create 5
//!           a start 5  was committed at 5, end 8
//!           b start 5  was committed at 5, end 9
//! ```
//!
//! The newest version of a key stands alone in `current`. So a latest read, a condition and the
//! count of versions each take one point get, however often the key was written. A superseded
//! version moves to `history`, newest first, with the timestamp at which it ended.
//!
//! For example, a read of `a` at 6 finds the version in `current` to be newer, seeks `a 6` in
//! `history` and lands on `a 5`. This version ended at 8, above 6, so the read returns it.
//!
//! A deleted key keeps its row in `current`. So a scan at any timestamp walks `current` alone, and
//! looks into `history` only for keys that were written later. Values of more than 512 bytes stand
//! apart in `value`, where they stay when their version moves.
//!
//! # Timestamps
//!
//! A version has two timestamps. `start_ts` comes from the oracle and distinguishes its command
//! from every other. `mod_ts` is the commit timestamp. For a command of one range it is the largest
//! of start_ts, the fence + 1 and the range's last commit + 1. The fence stands in the log entry:
//! it is the highest timestamp at which the range had been read when the leader proposed. So
//!
//! - a command of one range commits above every earlier commit of the range;
//! - a read that was served at T sees the same when it is repeated at T, whatever was committed
//!   since, because the fence keeps later commits above T.
//!
//! The second holds if the caller of a read follows three steps:
//!
//! 1. Raise the fence to the read's timestamp.
//! 2. Wait for the commands that were proposed before.
//! 3. Only then take the state to read.
//!
//! # Repeated commands
//!
//! A client that got no answer may send the same command again, with its start_ts. However late the
//! copy arrives, it is recognised by the start_ts of the versions that it would write, and answered
//! as the first one was (`commands/repeat.rs`). For this, a delete writes a version even where
//! there was nothing to delete, and a version in `history` has a second record that finds it by its
//! start_ts. A different command is refused if one of its keys already knows its start_ts
//! (`commands/identity.rs`): nothing that is stored under a start_ts is ever written twice.
//!
//! # Bounds
//!
//! A range evaluates one command after the other, so each is bounded in records, keys and bytes
//! (`limits.rs`, `cost.rs`), and long reads go on in steps. A command over a limit is refused with
//! a reply, and so is one that needs a damaged record. Nothing that a command says or meets ends
//! the machine.
//!
//! # Transactions over ranges
//!
//! A transaction over ranges first writes locks, which name its *primary*, and then turns them into
//! versions. Each step is a command of its own in each range (`docs/transactions.md` describes the
//! whole commit). Example: the transaction that began at 10 wrote `a`, its primary, and `x` in
//! another range:
//!
//! ```text
//!             range of a                            range of x
//! prewrite    lock a 10 put "3", from 12            lock x 10 put "1", from 11
//! commit      current a  put "3"  mod 20            lock x 10 put "1", from 11
//!             current a  put "3"  mod 20            current x  put "1"  mod 20
//! ```
//!
//! The primary decides the transaction. It is committed once a version, or a record of the commit,
//! stands there, and rolled back once a record of the rollback does. A client that meets another
//! lock of the transaction asks the primary (`commands/check_transaction.rs`) and finishes the lock
//! accordingly. Every command is answered from what its keys know of the transaction
//! (`commands/fate.rs`). So it may come twice, late, or after another command has ended the
//! transaction.
//!
//! A lock promises a min_commit_ts, above everything that was read and committed in the range.
//! Reads below it pass the lock; all others wait until the transaction is decided. Pessimistic
//! locks, taken ahead of a write, stop only writers.
//!
//! An *asynchronous* commit leaves the second step for later. The transaction is committed as soon
//! as all of its locks stand, at the largest of their min_commit_ts. From then on nobody may push
//! it, and once it has expired, all of its locks must be checked (`commands/check_secondaries.rs`).
//! Such a transaction validates nothing at its commit timestamp, so its own locks must cover its
//! reads.
//!
//! # Isolation
//!
//! Commands of one range are serializable and, in log order, linearizable: a command's conditions
//! and operations see everything that was committed before it and nothing else. A snapshot read
//! sees the state as of one timestamp. A transaction over ranges reads at its start and writes at
//! its commit. It is serializable if [`validate()`] confirms its reads at the commit timestamp, in
//! every range, after all of its locks are in place. Otherwise it has snapshot isolation.
//!
//! # Garbage
//!
//! Superseded versions and the records of ended transactions are dropped below a bound, when no
//! read or client needs them any more (`floors.rs`, `garbage.rs`). A command raises the bound.
//! Below the floor, reads and new work are answered `TooOld`.
//!
//! # Left out
//!
//! - Records of commands whose conditions failed. A later copy of a failed command is checked anew
//!   and may succeed. So a sender with copies in flight must not take the failure of one for the
//!   outcome of all.
//! - Waiting. A command that meets a lock reports it at once. The node queues the requests that
//!   wait, and the control plane detects deadlocks.
//! - Proof that no range has a lock from below a timestamp. The sender that raises collect_below
//!   has looked for such locks, with [`locks`] in each range.
//! - Permissions and the reserved key space. Senders check them ([`is_system_key`]), because the
//!   system's own commands are ordinary ones.
//! - Feature levels. The rules for an entry are chosen where entries are decoded. There is one set
//!   of rules so far.
//!
//! # Files
//!
//! There is one file per command under `commands/`, one per kind of read (`read.rs`, `scan.rs`,
//! `validate.rs`, `list_locks.rs`), and the base of both in `versions.rs` and `lock.rs`. Scripts
//! under `testscripts/` show each rule at work.

mod check;
mod commands;
mod evaluation;
mod facts;
mod floors;
mod garbage;
mod limits;
mod list_locks;
mod lock;
mod lock_table;
mod lock_walk;
mod machine;
mod memory;
mod outcome_record;
mod planted;
mod range_record;
mod read;
mod read_checks;
mod replies;
mod scan;
mod spans;
mod validate;
mod versions;
mod walk_budget;

pub use check::{check_command, check_commit, check_validate};
pub use commands::{facts, facts_mut};
pub use facts::{CommandFacts, Cost, LockChange, Named, NamedTimestamps, Visit, newest_read};
pub use floors::{Floors, floors};
pub use garbage::{GARBAGE_BYTES_MAX, GARBAGE_WALK_MAX, GarbageAhead, garbage_ahead};
pub use limits::{
    ASYNC_COMMIT_BYTES_MAX, ASYNC_COMMIT_KEYS_MAX, COMMAND_ITEMS_MAX, COMMAND_WALK_MAX,
    DELETE_RANGE_BYTES_MAX, DELETE_RANGE_KEYS_MAX, PREVIOUS_BYTES_MAX, check_key, is_system_key,
};
pub use list_locks::locks;
pub use machine::TxnMachine;
pub use read::{Found, Locks, ReadAt, ReadOutcome, get};
pub use read_checks::ResumeAt;
pub use replies::{CommandOutcome, newest_commit};
pub use scan::{PAGE_BYTES_MAX, PAGE_WALK_MAX, Page, ScanRequest, scan};
pub use spans::{check_spans, names_spans};
pub use validate::{VALIDATE_WALK_MAX, ValidateOutcome, validate};
