//! Messages that RangeDB stores and sends, ids and timestamps as types of their own, and methods of
//! range descriptors about keys and epochs.
//!
//! The `.proto` files document each field. Messages of `command.proto` and `meta.proto` stand in
//! raft logs and in the state, so their field numbers are never reused. The service stubs need
//! feature `grpc`; without it this crate holds messages alone, which is all that the deterministic
//! crates see.

#[cfg(feature = "grpc")]
pub mod codec;
pub mod duration;
mod effect;
mod error;
mod ids;
pub mod limits;
mod range;
mod timestamp;

pub use effect::RequestEffect;
pub use ids::{NodeId, RangeId, ReplicaId};
pub use limits::{COMMAND_BYTES_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX};
pub use range::{RangeDescriptorExt, prefix_end, successor};
pub use timestamp::Timestamp;

/// Encoded descriptors of every `.proto` file, for gRPC reflection.
pub const FILE_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Generated from `proto/rangedb/v1/*.proto`.
#[allow(clippy::all, clippy::allow_attributes_without_reason, missing_docs, reason = "generated")]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/rangedb.v1.rs"));
}

/// Prefix of the system's own key space. User keys may not start with it.
pub const SYSTEM_PREFIX: &[u8] = b"_/";

/// Prefix of the control range's keys.
pub const CONTROL_PREFIX: &[u8] = b"_/cluster/";
