//! How far compaction may drop what nobody sees any more, replica by replica.
//!
//! A replica drops by what it has itself applied: its own record says below what its range collects.
//! What leaders know, or what the cluster decided, is no measure for one that lags and has still to
//! come to the same results over what the others saw. The engine waits for a flush before it uses a
//! bound, so that a replay after a crash finds what it needs.

use rangedb_raftstore::RangeStatus;
use rangedb_storage::{Result, RocksState, StateEngine, keys};
use rangedb_txn::floors;

/// Tells the engine the bounds of these replicas.
///
/// # Errors
///
/// The engine's alone.
pub(crate) fn raise_bounds(state: &RocksState, replicas: &[RangeStatus]) -> Result<()> {
    let reader = state.snapshot();
    for status in replicas {
        let (start, end) = (&status.descriptor.start_key, &status.descriptor.end_key);
        // Strictly below is dropped, and the engine's bound includes itself.
        let below = floors(&*reader, start)?.collect_below_ts;
        if below > 0 && status.applied_index > 0 {
            state.set_collect_below(&keys::data_span(start, end), below - 1);
        }
    }
    Ok(())
}
