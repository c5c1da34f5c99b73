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
//! # What it promises
//!
//! * `get` is linearizable: it sees every write that was acknowledged before it began.
//! * A write that is acknowledged is durable on a quorum and applied.
//! * A batch is applied whole or not at all; its conditions are checked in the same step.
//!
//! # What is left out
//!
//! Transactions over more than one range: a batch that needs one is refused before anything is sent.
//! Watches and leases' lifetimes. TLS.
//!
//! # The world outside
//!
//! Calls, time, tasks and randomness come through [`net::Net`]. [`grpc::GrpcNet`] is the real one;
//! the simulator has another, under which this crate is deterministic: a `clippy.toml` bans the
//! rest.

mod admin;
mod backoff;
mod batch;
mod client;
mod command;
mod condition;
mod config;
mod endpoints;
mod error;
pub mod grpc;
mod key_value;
mod keys;
pub mod net;
mod one_range;
mod range;
mod resolve;
mod retry;
mod router;
mod sender;
pub mod status;
mod timestamps;
mod transaction;

pub use admin::Admin;
pub use batch::{Batch, Committed, DeleteOptions, Deleted, OperationResult, PutOptions, Written};
pub use client::Client;
pub use condition::{Condition, Test};
pub use config::{AddressKind, Config, TIMEOUT_DEFAULT};
pub use error::{Error, Result};
pub use key_value::KeyValue;
pub use range::{RangeOptions, RangeStream};
pub use rangedb_proto::{Timestamp, v1};
pub use transaction::{
    DELETE_RANGE_KEYS_MAX, Isolation, TRANSACTION_ATTEMPTS_MAX, TRANSACTION_BYTES_MAX,
    TRANSACTION_KEYS_MAX, TRANSACTION_READ_BYTES_MAX, TRANSACTION_READS_MAX, Transaction,
    TransactionOptions, TransactionRange,
};
