//! Views of a range's state, each described by what it holds itself.
//!
//! The applier writes the state while the store looks the other way, so nothing in the store's memory
//! says which entries a view shows. The view does: applied index, term and descriptor stand in the
//! same batch as the data (design D3 and D13).

use std::sync::Arc;

use prost::Message as _;
use rangedb_proto::RangeId;
use rangedb_proto::v1::RangeState;
use rangedb_storage::{ColumnFamily, Error as StorageError, Reader, Result, StateEngine, keys};

/// A reader of the engine and the state of one range as it shows it.
pub(crate) struct View {
    pub reader: Arc<dyn Reader>,
    pub state: RangeState,
}

impl View {
    /// A view of now. `None` if it shows no replica of the range.
    ///
    /// # Errors
    ///
    /// The engine's, and [`StorageError::Corrupt`] for a record that is none.
    pub fn take(engine: &dyn StateEngine, range: RangeId) -> Result<Option<View>> {
        let reader = engine.snapshot();
        let stored = reader.get(ColumnFamily::Meta, &keys::range_state(range.0))?;
        let Some(stored) = stored else { return Ok(None) };
        let state = RangeState::decode(stored)
            .map_err(|e| StorageError::corrupt(format!("state of range {range}: {e}")))?;
        Ok(Some(View { reader, state }))
    }
}
