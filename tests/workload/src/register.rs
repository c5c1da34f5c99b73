//! Keys by themselves, as registers: put, get, delete and compare-and-swap, each of which must seem to
//! happen at one moment between call and answer.
//!
//! `workload.rs` makes the operations, `linearizable.rs` is the verdict on those of one key.

pub mod linearizable;
mod workload;

pub use workload::{Registers, Settings, Summary};

/// What a key holds: the number in its value, or nothing.
pub type Value = Option<u64>;

/// What was asked of one key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Input {
    Read,
    /// None deletes.
    Write(Value),
    CompareAndSwap {
        expected: Value,
        new: u64,
    },
}

/// What was answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Output {
    Value(Value),
    /// With what stood there before, if that was asked.
    Written(Option<Value>),
    Swapped,
    /// With what stood there instead.
    Mismatch(Value),
}

/// One operation on one key. What certainly did not happen is not in a history.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Operation {
    pub client: usize,
    pub input: Input,
    /// Stamp of before it began.
    pub called: u64,
    /// Stamp when the answer came, and the answer; none if the outcome is not known.
    pub returned: Option<(u64, Output)>,
}
