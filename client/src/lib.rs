//! The RangeDB client: keys and values of a cluster as if it were one sorted map.
//!
//! ```no_run
#![doc = include_str!("../examples/quickstart.rs")]
//! ```
//!
//! # How a request finds its way
//!
//! The key space is cut into ranges, each led by one node at a time. [`Client`] keeps a cache of
//! which range holds a key and who leads it (`router.rs`), sends a request straight there, and
//! learns from the answer when the leader moved or the range split (`sender.rs`). What is not known
//! is asked of any node. Trying again happens in that one place, until the request's timeout and
//! only while it is harmless (`retry.rs`).
//!
//! Reads of the newest value need no timestamp. A commit takes one from the cluster's oracle; all
//! requests that wait share a call (`timestamps.rs`). The timestamp makes a repeated command
//! recognisable, so a write whose answer was lost can be sent again. If no answer comes in time, the
//! error says [`Error::Undetermined`], never that the write failed.
//!
//! Of conditional writes of one key that are made through one client at the same time, one is sent and
//! the others are answered by what came of it; transactions that want the same key go one after the
//! other (`turns.rs`). So a crowd at one key makes about as many writes a second as there are round
//! trips, and everybody in it has the same share.
//!
//! # Transactions
//!
//! ```no_run
#![doc = include_str!("../examples/bank.rs")]
//! ```
//!
//! [`Client::transaction`] runs a closure and begins again when another transaction was in the way;
//! [`Client::begin`] leaves that to the caller. Single writes and batches whose keys lie in one range
//! take one round, and so does a transaction whose reads and writes do. Over several ranges the
//! client coordinates two phases itself (`transaction.rs`). No node keeps a transaction open: what a
//! client that dies leaves behind are locks, which whoever meets them clears (`resolve.rs`).
//!
//! What to do about errors:
//!
//! | error | what it means | what to do |
//! |---|---|---|
//! | [`Error::WriteConflict`], [`Error::Aborted`], [`Error::Locked`], [`Error::Deadlock`] | another transaction was in the way, nothing was written | begin anew, as [`Client::transaction`] does |
//! | [`Error::Conflict`] | the caller's own condition does not hold, nothing was written | read and decide again |
//! | [`Error::TooLarge`] | more than one request or transaction may do | split the work |
//! | [`Error::Unavailable`], [`Error::TooBusy`] | nobody could do it in time, it did not happen | try later |
//! | [`Error::Undetermined`] | it may have happened, or happen still | read, then decide |
//!
//! # What it promises
//!
//! * `get` is linearizable: it sees every write that was acknowledged before it began.
//! * A write that is acknowledged is durable on a quorum and applied.
//! * A batch is applied whole or not at all, wherever its keys lie; its conditions hold at the moment
//!   of that.
//! * Transactions are serializable, in an order that agrees with real time, unless snapshot isolation
//!   is asked for by name ([`Isolation`]).
//! * A client that dies holds up nobody for longer than ten seconds, and what it was doing is there
//!   as a whole or not at all.
//!
//! # What is left out
//!
//! Watches and leases. TLS.
//!
//! # The world outside
//!
//! Calls, time, tasks and randomness come through [`net::Net`]. [`grpc::GrpcNet`] is the real one;
//! the simulator has another, under which this crate is deterministic: a `clippy.toml` bans the
//! rest.

mod admin;
mod background;
mod backoff;
mod batch;
mod client;
mod command;
mod condition;
mod config;
mod delete_range;
mod endpoints;
mod error;
pub mod grpc;
mod holds;
mod key_value;
mod keys;
mod lock_wait;
mod locks;
mod metrics;
pub mod net;
mod one_range;
mod patience;
mod range;
mod resolve;
mod retry;
mod router;
mod sender;
mod settle;
pub mod status;
mod timestamps;
pub mod trace;
mod transaction;
mod turns;

pub use admin::Admin;
pub use batch::{Batch, Committed, DeleteOptions, Deleted, OperationResult, PutOptions, Written};
pub use client::Client;
pub use condition::{Condition, Test};
pub use config::{AddressKind, Config, SLOW_TRANSACTION_DEFAULT, TIMEOUT_DEFAULT};
pub use delete_range::DeletedRange;
pub use error::{Error, LockWait, Result};
pub use key_value::KeyValue;
pub use metrics::Metrics;
pub use range::{RangeOptions, RangeStream};
pub use rangedb_proto::{Timestamp, v1};
pub use transaction::{
    DELETE_RANGE_KEYS_MAX, Isolation, SAVEPOINTS_MAX, Savepoint, SuspendedTransaction,
    TRANSACTION_ATTEMPTS_MAX, TRANSACTION_BYTES_MAX, TRANSACTION_KEYS_MAX,
    TRANSACTION_READ_BYTES_MAX, TRANSACTION_READS_MAX, Transaction, TransactionOptions,
    TransactionRange,
};
