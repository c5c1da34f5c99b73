//! Conditions of a write.

use bytes::Bytes;
use rangedb_proto::{
    Timestamp,
    v1::{self, condition},
};

/// A test of what stands at a key when the write is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    Exists,
    Absent,
    /// An absent key has version 0.
    Version(u64),
    /// The commit that wrote the value. An absent key has [`Timestamp::ZERO`].
    ModTs(Timestamp),
    /// Byte for byte. An absent key has no value, so this fails for it.
    Value(Bytes),
}

/// A [`Test`] of one key. If any condition of a write fails, nothing of the write happens and the
/// answer is [`crate::Error::Conflict`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    pub key: Bytes,
    pub test: Test,
}

impl Condition {
    pub fn new(key: impl Into<Bytes>, test: Test) -> Self {
        Condition { key: key.into(), test }
    }

    pub fn exists(key: impl Into<Bytes>) -> Self {
        Self::new(key, Test::Exists)
    }

    pub fn absent(key: impl Into<Bytes>) -> Self {
        Self::new(key, Test::Absent)
    }

    pub fn version(key: impl Into<Bytes>, version: u64) -> Self {
        Self::new(key, Test::Version(version))
    }

    pub fn mod_ts(key: impl Into<Bytes>, mod_ts: Timestamp) -> Self {
        Self::new(key, Test::ModTs(mod_ts))
    }

    pub fn value(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self::new(key, Test::Value(value.into()))
    }

    /// Bytes that the condition adds to a command.
    pub(crate) fn bytes(&self) -> usize {
        let value = if let Test::Value(value) = &self.test { value.len() } else { 0 };
        self.key.len() + value
    }
}

impl From<Condition> for v1::Condition {
    fn from(condition: Condition) -> Self {
        let test = match condition.test {
            Test::Exists => condition::Test::Exists(true),
            Test::Absent => condition::Test::Exists(false),
            Test::Version(version) => condition::Test::Version(version),
            Test::ModTs(mod_ts) => condition::Test::ModTs(mod_ts.0),
            Test::Value(value) => condition::Test::Value(value),
        };
        v1::Condition { key: condition.key, test: Some(test) }
    }
}
