//! Keys by themselves, as registers: put, get, delete and compare-and-swap. Each operation must
//! seem to happen at one moment between call and answer.
//!
//! `workload.rs` makes the operations, `linearizable.rs` checks those of one key.

pub mod linearizable;
mod workload;

pub use workload::{Registers, Settings, Summary};

/// Content of a key: the number in its value, or nothing.
pub type Value = Option<u64>;

/// Request for one key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Input {
    Read,
    /// None deletes the key.
    Write(Value),
    CompareAndSwap {
        expected: Value,
        new: u64,
    },
}

/// Answer to a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Output {
    Value(Value),
    /// With the previous value, if it was requested.
    Written(Option<Value>),
    Swapped,
    /// With the actual value.
    Mismatch(Value),
}

/// One operation on one key. An operation that certainly did not happen stands in a history as a
/// read without an answer, which the checker leaves out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Operation {
    pub client: usize,
    pub input: Input,
    /// Stamp from before the operation began.
    pub called: u64,
    /// Stamp of the answer, and the answer; none if the outcome is unknown.
    pub returned: Option<(u64, Output)>,
}
