//! Stored state of ranges, as the engine shows it. An applier may have moved it on ahead of its
//! store.

use prost::Message as _;
use rangedb_proto::v1::RangeState;
use rangedb_storage::{ColumnFamily, Error, Reader, Result, keys};

/// Returns the stored state of a range; `None` if no replica of it has state.
pub fn stored_range(state: &dyn Reader, range: u64) -> Result<Option<RangeState>> {
    let Some(stored) = state.get(ColumnFamily::Meta, &keys::range_state(range))? else {
        return Ok(None);
    };
    let decoded = RangeState::decode(stored);
    decoded.map(Some).map_err(|e| Error::corrupt(format!("state of range {range}: {e}")))
}
