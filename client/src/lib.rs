//! The RangeDB client: keys and values of a cluster as if it were one sorted map.
//!
//! ```no_run
#![doc = include_str!("../examples/quickstart.rs")]
//! ```
//!
//! # Request routing
//!
//! The key space is cut into ranges; one node at a time leads each of them. [`Client`] caches the
//! range of a key and the range's leader (`routing/router.rs`), and sends a request straight to
//! that leader. From the response it learns that the leader moved or the range split
//! (`routing/sender.rs`). It requests routes that it does not know from any node. All retries are
//! made in that one place, until the request's timeout and only while they are harmless
//! (`routing/retry.rs`).
//!
//! Reads of the newest value need no timestamp. A commit takes one from the cluster's timestamp
//! oracle; all requests that wait share a call (`timestamps.rs`). The timestamp makes a command
//! idempotent, so a write can be sent again after its response was lost. If no response arrives in
//! time, the error is [`Error::Undetermined`]; it never says that the write failed.
//!
//! Of concurrent conditional writes of one key through one client, one is sent, and its result
//! answers the others. Transactions that want the same key run one after the other
//! (`locks/turns.rs`). So writers that contend for a key make about as many writes a second as
//! there are round trips, and all of them get the same share.
//!
//! # Transactions
//!
//! ```no_run
#![doc = include_str!("../examples/bank.rs")]
//! ```
//!
//! [`Client::transaction`] runs a closure and begins again after a conflict with another
//! transaction; [`Client::begin`] leaves that to the caller. Single writes and batches whose keys
//! lie in one range take one round. So does a transaction whose reads and writes lie in one range.
//! Over several ranges the client coordinates a two-phase commit itself (`transaction.rs`). No node
//! keeps a transaction open: a client that dies leaves only locks, and the next request that meets
//! one clears it (`locks/resolve.rs`).
//!
//! Errors and the caller's next step ([`Client::transaction`] begins again by itself):
//!
//! | error | meaning | next step |
//! |---|---|---|
//! | [`Error::WriteConflict`], [`Error::Aborted`] | conflict, nothing was written | begin again |
//! | [`Error::Locked`], [`Error::Deadlock`] | conflict, nothing was written | begin again |
//! | [`Error::Conflict`] | the caller's own condition failed, no write | read, then decide again |
//! | [`Error::TooLarge`] | over a limit of a request or transaction | split the work |
//! | [`Error::Unavailable`], [`Error::TooBusy`] | out of time, certainly not executed | try later |
//! | [`Error::Undetermined`] | it may have happened, or happen still | read, then decide |
//!
//! # Guarantees
//!
//! * `get` is linearizable: it sees every write that was acknowledged before it began.
//! * A write that is acknowledged is durable on a quorum and applied.
//! * A batch is applied whole or not at all, wherever its keys lie; its conditions hold at the
//!   moment at which it is applied.
//! * Transactions are serializable, in an order that agrees with real time, unless snapshot
//!   isolation is asked for by name ([`Isolation`]).
//! * A client that dies blocks others for at most ten seconds, and its transaction is applied as a
//!   whole or not at all.
//!
//! # Not implemented
//!
//! Watches and leases. TLS.
//!
//! # Environment
//!
//! Calls, time, tasks and randomness come through [`net::Net`]. [`grpc::GrpcNet`] is the production
//! implementation. The simulator has another, under which this crate is deterministic;
//! `clippy.toml` bans all other sources.

mod admin;
mod background;
mod batch;
mod client;
mod command;
mod condition;
mod config;
mod delete_range;
mod error;
pub mod grpc;
mod holds;
mod key_value;
mod keys;
mod locks;
mod metrics;
pub mod net;
mod one_range;
mod planted;
mod range;
mod routing;
pub mod status;
mod timestamps;
pub mod trace;
mod transaction;

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
