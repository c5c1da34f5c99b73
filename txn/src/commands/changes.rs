//! Changes of one command, key by key, and how they are written.
//!
//! For each key, the version in `current` moves to `history`, with the command's commit timestamp
//! as its end, and the new version replaces it. A long value goes to `value`, under the command's
//! start_ts, and stays there when its version moves. No other value can stand at that place: no two
//! versions of a key have the same start_ts (`identity.rs`).

use std::collections::BTreeMap;

use bytes::Bytes;
use rangedb_proto::v1::KeyValue;
use rangedb_storage::{Record, RecordValue, Result};

use crate::evaluation::Evaluation;
use crate::versions;

/// The changes of a command.
pub(crate) struct Changes {
    pub(crate) start_ts: u64,
    pub(crate) commit_ts: u64,
    pub(crate) keys: BTreeMap<Bytes, Change>,
}

/// A key that the command writes.
pub(crate) struct Change {
    /// The newest version before the command.
    pub(crate) before: Option<Record>,
    /// `None` until the command has written the key.
    pub(crate) after: Option<After>,
}

pub(crate) enum After {
    Put(Value),
    Deleted,
}

/// Value that the command leaves at a key.
pub(crate) struct Value {
    pub(crate) value: Bytes,
    pub(crate) version: u64,
    pub(crate) create_ts: u64,
    pub(crate) lease_id: u64,
}

impl Change {
    /// True if the key has a value after the operations so far.
    pub(crate) fn has_value(&self) -> bool {
        match (&self.after, &self.before) {
            (Some(after), _) => matches!(after, After::Put(_)),
            (None, before) => before.as_ref().is_some_and(|before| !before.is_deleted()),
        }
    }

    /// Returns the length of the key's value after the operations so far.
    pub(crate) fn value_bytes(&self) -> usize {
        match (&self.after, &self.before) {
            (Some(After::Put(own)), _) => own.value.len(),
            (Some(After::Deleted), _) | (None, None) => 0,
            (None, Some(before)) => versions::value_bytes(before),
        }
    }
}

impl Value {
    pub(crate) fn key_value(&self, key: Bytes, mod_ts: u64) -> KeyValue {
        KeyValue {
            key,
            value: self.value.clone(),
            version: self.version,
            create_ts: self.create_ts,
            mod_ts,
            lease_id: self.lease_id,
        }
    }
}

impl Changes {
    /// Returns the keys that get a new version.
    pub(crate) fn written(&self) -> impl Iterator<Item = &Bytes> {
        self.keys.iter().filter(|(_, change)| change.after.is_some()).map(|(key, _)| key)
    }

    /// Checks that the command commits above every version that it supersedes.
    ///
    /// # Errors
    ///
    /// [`rangedb_storage::Error::Damaged`] if a version is not older than the command.
    pub(crate) fn check_order(&self) -> Result<()> {
        let mut written = self.keys.iter().filter(|(_, change)| change.after.is_some());
        written.try_for_each(|(key, change)| {
            versions::check_order(key, change.before.as_ref(), self.commit_ts)
        })
    }

    /// Writes the changes. [`Changes::check_order`] comes first.
    pub(crate) fn write_to(self, evaluation: &mut Evaluation<'_, '_>) {
        let (start_ts, commit_ts) = (self.start_ts, self.commit_ts);
        for (key, change) in self.keys {
            let Some(after) = change.after else { continue };
            let record = after.record(start_ts, commit_ts);
            if let (RecordValue::Reference { .. }, After::Put(put)) = (&record.value, &after) {
                evaluation.put_value(&key, start_ts, put.value.clone());
            }
            evaluation.put_version(&key, change.before, record);
        }
    }
}

impl After {
    /// Returns the record of a command that started and committed at these timestamps.
    pub(crate) fn record(&self, start_ts: u64, mod_ts: u64) -> Record {
        match self {
            After::Put(put) => Record {
                mod_ts,
                start_ts,
                create_ts: put.create_ts,
                version: put.version,
                lease_id: put.lease_id,
                value: RecordValue::of(&put.value),
            },
            After::Deleted => Record {
                mod_ts,
                start_ts,
                create_ts: 0,
                version: 0,
                lease_id: 0,
                value: RecordValue::Deleted,
            },
        }
    }
}
