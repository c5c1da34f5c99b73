//! Views of a range's state, each with the applied index, term and descriptor that it shows.
//!
//! The applier writes the state concurrently with the store, so nothing in the store's memory says
//! which entries a view shows. The view does: applied index, term and descriptor stand in the same
//! batch as the data (design D3 and D13).

use std::sync::Arc;

use prost::Message as _;
use rangedb_proto::RangeId;
use rangedb_proto::v1::RangeState;
use rangedb_storage::{ColumnFamily, Error as StorageError, Reader, Result, StateEngine, keys};

/// A reader of the engine, and one range's state as the reader shows it.
pub(crate) struct View {
    pub reader: Arc<dyn Reader>,
    pub state: RangeState,
}

impl View {
    /// Takes a view of the current state. `None` if the state holds no replica of the range.
    ///
    /// # Errors
    ///
    /// Errors of the storage engine, and [`StorageError::Corrupt`] for a record that does not
    /// decode.
    pub fn take(engine: &dyn StateEngine, range: RangeId) -> Result<Option<View>> {
        let reader = engine.snapshot();
        let stored = reader.get(ColumnFamily::Meta, &keys::range_state(range.0))?;
        let Some(stored) = stored else { return Ok(None) };
        let state = RangeState::decode(stored)
            .map_err(|e| StorageError::corrupt(format!("state of range {range}: {e}")))?;
        Ok(Some(View { reader, state }))
    }
}
