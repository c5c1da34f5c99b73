//! Transactional state machine of a range: versions of keys, the commands that make them, and reads of
//! them.
//!
//! Every replica of a range runs a [`TxnMachine`] over the same log. A log entry carries what a
//! client wants, conditions and operations, not what came of it: each replica works that out from
//! the state it has, at apply, in log order. No command waits for another, a hot key is written at
//! the speed of apply, and replicas can be compared byte for byte.
//!
//! # Versions
//!
//! A write never changes a version, it makes a new one. Say `a` is put at 5 and again at 8, `b` is
//! put at 5 and deleted at 9, and all that is left of `c` is that it was deleted at 8:
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
//! The newest version of a key stands alone in `current`, so that a latest read, a condition and the
//! count of versions each take one point get, however often the key was written. What it took the
//! place of stands in `history`, newest first, with the timestamp at which its time ended. A read at
//! 6 finds `a` in `current` to be newer, seeks `a 6` in `history` and lands on `a 5`; its end, 8, is
//! above 6, so that is what was there. A deleted key keeps its row in `current`, so a scan at any
//! timestamp walks `current` alone and looks aside only for keys that were written later. Values of
//! more than 512 bytes stand apart in `value`, where they stay when their version moves.
//!
//! # Timestamps
//!
//! A version has two: `start_ts`, which its command took from the oracle and which tells the command
//! from every other, and `mod_ts`, at which it was committed. The latter is the largest of start_ts,
//! the fence + 1 and the range's last commit + 1. The fence stands in the log entry: the highest
//! timestamp that the range had been read at when the leader proposed. So
//!
//! - commits of a range get strictly increasing timestamps in log order;
//! - a read that was served at T sees the same when it is repeated at T, whatever was committed
//!   since: the fence keeps later commits above it.
//!
//! The second holds if a reader raises the fence first, then waits for the commands that were
//! proposed before it did, and only then takes the state it reads. That is the caller's part.
//!
//! # Repeated commands
//!
//! Whoever gets no answer may send the same command again, with its start_ts. The copy is known by
//! the start_ts of the versions it would write, however late it comes, and is answered as the first
//! one was, see `commands/repeat.rs`. A deleted version therefore stays also where there was
//! nothing to delete, and beside a version in `history` stands what finds it by its start_ts.
//! Another command of a start_ts that one of its keys knows is refused, see `commands/identity.rs`:
//! nothing that is stored under a start_ts is ever written twice.
//!
//! # Bounds
//!
//! A range evaluates one command after the other, so each is bounded in records, keys and bytes
//! (`limits.rs`, `cost.rs`), and reads go on in steps. What a client may send is refused with a
//! reply if it asks for more, and so is a command that needs a record which is damaged: nothing
//! that a command says or meets ends the machine.
//!
//! # Transactions over ranges
//!
//! A write of such a transaction is first a lock, which names the transaction's *primary*, and then a
//! version; each step is a command of its own, in each range (`docs/transactions.md` has the way of a
//! whole commit). Say the transaction that began at 10 wrote `a`, its primary, and `x` in another range:
//!
//! ```text
//!             range of a                            range of x
//! prewrite    lock a 10 put "3", from 12            lock x 10 put "1", from 11
//! commit      current a  put "3"  mod 20            lock x 10 put "1", from 11
//!             current a  put "3"  mod 20            current x  put "1"  mod 20
//! ```
//!
//! Whether it is committed is decided at the primary: from the moment that a version stands there, or
//! a record that it was rolled back. Who meets another lock asks there (`commands/check_transaction.rs`)
//! and finishes the lock accordingly. Every command is answered by what its keys know of the
//! transaction (`commands/fate.rs`), so it may come twice, late, or after others have ended it.
//!
//! A lock promises a least commit timestamp, above all that was read and committed in the range: reads
//! below pass it, all others wait until the transaction is decided. Pessimistic locks, taken ahead of
//! a write, stop writers alone.
//!
//! An *asynchronous* commit leaves the second step for later: the transaction is committed as soon as
//! all of its locks stand, at the largest of their promises. Then nobody may push it, and when its
//! time is up all of its locks have to be looked at (`commands/check_secondaries.rs`). Who commits like
//! that has validated nothing at its commit timestamp: its reads must be covered by its own locks.
//!
//! # Isolation
//!
//! Commands of one range are serializable and, as the log orders them, linearizable: a command's
//! conditions and operations see everything that was committed before it and nothing else. A
//! snapshot read sees the state as of one timestamp. A transaction over ranges reads at its start
//! and writes at its commit; what it read is still so at the commit if [`validate`] says so at that
//! timestamp, in every range, after all of its locks are in place. Without that it has snapshot
//! isolation.
//!
//! # Garbage
//!
//! Superseded versions and the records of ended transactions are dropped below a bound that rises with
//! a command, when nobody reads there or asks for them any more (`floors.rs`, `garbage.rs`). Below the
//! floor reads and new work are answered `TooOld`.
//!
//! # What is left out
//!
//! - A trace of commands whose conditions failed. If one copy of a command failed, another that
//!   comes later is checked anew, and may succeed: a sender that has copies under way must not take
//!   the failure of one for the outcome of all.
//! - Waiting. A command that meets a lock says so at once; who waits, in which order, and who waits
//!   for whom in a circle is for others to see.
//! - Knowing that no range has a lock from below a timestamp: whoever raises the bound of garbage has
//!   found that out, with [`locks`] in each of them.
//! - Who may do what, and the reserved key space: senders check that ([`is_system_key`]), because
//!   the system's own commands are ordinary ones.
//! - Feature levels: which rules an entry is evaluated by is decided where entries are decoded.
//!   There is one set of rules so far.
//!
//! # Where things are
//!
//! One file per command under `commands/`, one per kind of read (`read.rs`, `scan.rs`, `validate.rs`,
//! `list_locks.rs`), and what both rest on in `versions.rs` and `lock.rs`. Scripts under
//! `testscripts/` show each rule at work.

mod check;
mod commands;
mod cost;
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
mod range_record;
mod read;
mod read_checks;
mod scan;
mod spans;
mod validate;
mod versions;
mod walk_budget;

pub use check::{check_command, check_commit, check_validate};
pub use cost::{Cost, cost};
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
pub use scan::{PAGE_BYTES_MAX, PAGE_WALK_MAX, Page, ScanRequest, scan};
pub use spans::{check_spans, names_spans};
pub use validate::{VALIDATE_WALK_MAX, ValidateOutcome, validate};
