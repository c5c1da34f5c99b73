//! Savepoints, back to which a transaction can undo its later writes.
//!
//! A savepoint holds the previous write of every key that was written after it. Only writes are
//! undone. Reads and locks stay, because the caller's next steps may follow from them.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::Transaction;
use super::buffer::{TRANSACTION_BYTES_MAX, Write};
use crate::error::{Error, Result};

/// Savepoints that one transaction may have at once.
pub const SAVEPOINTS_MAX: usize = 1000;

/// A savepoint in a transaction, made by [`Transaction::savepoint`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Savepoint {
    start_ts: u64,
    id: u64,
}

impl Transaction {
    /// Makes a savepoint for [`Transaction::rollback_to`]. A suspended transaction forgets its
    /// savepoints.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] beyond [`SAVEPOINTS_MAX`].
    pub fn savepoint(&self) -> Result<Savepoint> {
        let start_ts = self.inner.start_ts();
        let id = self.inner.open()?.buffer.savepoint()?;
        Ok(Savepoint { start_ts, id })
    }

    /// Undoes the writes since the savepoint. The savepoint can be used again; later ones are gone.
    /// Reads and locks stay.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if the savepoint is gone, or of another transaction.
    pub fn rollback_to(&self, savepoint: Savepoint) -> Result<()> {
        let unknown = || Error::invalid("savepoint", "the transaction does not know it");
        if savepoint.start_ts != self.inner.start_ts() {
            return Err(unknown());
        }
        let mut state = self.inner.open()?;
        if state.buffer.roll_back_to(savepoint.id) { Ok(()) } else { Err(unknown()) }
    }
}

/// Undo log: the previous writes of keys, by savepoint. Invariant: `bytes` is the size of all
/// entries.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Undo {
    layers: Vec<Layer>,
    next_id: u64,
    bytes: usize,
}

#[derive(Clone, Debug, PartialEq)]
struct Layer {
    id: u64,
    before: BTreeMap<Bytes, Option<Write>>,
}

fn bytes_of(key: &Bytes, before: Option<&Write>) -> usize {
    key.len() + before.map_or(0, Write::bytes)
}

impl Undo {
    pub fn savepoint(&mut self) -> Result<u64> {
        if self.layers.len() == SAVEPOINTS_MAX {
            let what = format!("a transaction of {} savepoints", SAVEPOINTS_MAX + 1);
            return Err(Error::TooLarge { what, limit: SAVEPOINTS_MAX as u64 });
        }
        let id = self.next_id;
        self.next_id += 1;
        self.layers.push(Layer { id, before: BTreeMap::new() });
        Ok(id)
    }

    /// Notes the previous write of a key that is about to be written. On an error nothing changes.
    pub fn note(&mut self, key: &Bytes, before: Option<&Write>) -> Result<()> {
        let Some(layer) = self.layers.last_mut() else { return Ok(()) };
        if layer.before.contains_key(key) {
            return Ok(());
        }
        let bytes = self.bytes + bytes_of(key, before);
        if bytes > TRANSACTION_BYTES_MAX {
            let what = format!("a transaction that can undo writes of {bytes} bytes");
            return Err(Error::TooLarge { what, limit: TRANSACTION_BYTES_MAX as u64 });
        }
        self.bytes = bytes;
        layer.before.insert(key.clone(), before.cloned());
        Ok(())
    }

    /// Returns the writes to put back, in this order; none if the savepoint is not known.
    pub fn roll_back_to(&mut self, id: u64) -> Option<Vec<(Bytes, Option<Write>)>> {
        let at = self.layers.iter().position(|layer| layer.id == id)?;
        let mut before = Vec::new();
        for layer in self.layers.drain(at..).rev() {
            before.extend(layer.before);
        }
        self.bytes -=
            before.iter().map(|(key, write)| bytes_of(key, write.as_ref())).sum::<usize>();
        self.layers.push(Layer { id, before: BTreeMap::new() });
        Some(before)
    }
}
