//! Limits on which both ends of a connection rely, and the relations between them.
//!
//! A limit that only one crate knows stands in that crate. Evaluation rules that replicas must agree
//! on (those of commands) change only with a new feature level in the log header.

use std::time::Duration;

/// Bytes of a key at most. Long enough for a path, short enough that an index block of the engine
/// still holds many.
pub const KEY_BYTES_MAX: usize = 8 * 1024;

/// Bytes of a value at most: well below the size of a raft entry and of a gRPC message.
pub const VALUE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes of keys and values in one command at most. A raft entry holds a whole command, and a
/// follower must take it in one message.
pub const COMMAND_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Conditions, operations, reads and keys of one command at most. Each costs some lookups and up to
/// four writes, about ten microseconds. So a full command takes some ten milliseconds, during which
/// the range evaluates nothing else. Larger transactions come in several commands.
pub const COMMAND_ITEMS_MAX: usize = 1024;

/// Keys of an asynchronous commit beside its primary. The primary lock names them. This lock is read
/// and written again with every heartbeat and by all clients that meet one of the locks. A client
/// that finds the transaction's client dead asks for each key. For a larger commit, one more round
/// costs little in comparison.
pub const ASYNC_COMMIT_KEYS_MAX: usize = 64;

/// Bytes of the secondary keys of an asynchronous commit, for the same reason.
pub const ASYNC_COMMIT_BYTES_MAX: usize = 16 * 1024;

/// Bytes of a message between clients and nodes at most.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// Bytes of requests after which a sender closes a message.
pub const BATCH_BYTES_MAX: usize = 1024 * 1024;

/// Timestamps in one call at most. A quarter of the timestamps that the oracle has in a millisecond.
pub const TIMESTAMPS_MAX: u32 = 1 << 16;

/// Life of a lock without a heartbeat, for which others wait for a dead client. Several elections
/// fit into it, so that a live client's heartbeat gets through.
pub const LOCK_TTL: Duration = Duration::from_secs(10);

/// Longest life of a lock that a client may ask for, above the oracle's time: a client that died can
/// block others for so long. Other clients may have reasons for more than [`LOCK_TTL`].
pub const LOCK_TTL_MAX: Duration = Duration::from_secs(60);

/// Life of a client's hold of the GC floor without renewal. A hold lives in the control plane's
/// memory, and a new control plane leaves the floor where it is for this long.
pub const HOLD_TTL: Duration = Duration::from_secs(10);

const _: () = {
    // A row and its key fit into a command, and a command behind a full batch into a message.
    assert!(VALUE_BYTES_MAX + KEY_BYTES_MAX < COMMAND_BYTES_MAX);
    assert!(COMMAND_BYTES_MAX + 2 * BATCH_BYTES_MAX < MESSAGE_BYTES_MAX);
    // The primary and the secondaries of an asynchronous commit are one command's keys.
    assert!(ASYNC_COMMIT_KEYS_MAX < COMMAND_ITEMS_MAX);
    assert!(ASYNC_COMMIT_BYTES_MAX < COMMAND_BYTES_MAX);
    assert!(ASYNC_COMMIT_BYTES_MAX > KEY_BYTES_MAX);
    assert!(LOCK_TTL.as_millis() <= LOCK_TTL_MAX.as_millis());
    // The floor stays below a transaction's start for as long as its locks may stand.
    assert!(HOLD_TTL.as_millis() >= LOCK_TTL.as_millis());
};
