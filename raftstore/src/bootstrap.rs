//! First state of the founding ranges, the same on every founding node.

use prost::Message as _;
use raft::eraftpb::HardState;
use rangedb_proto::v1::{RangeDescriptor, RangeState};
use rangedb_storage::{
    ColumnFamily, LogBatch, LogChange, LogEngine, Result, StateEngine, WriteBatch, keys,
};

/// Index behind which every founding replica's log begins. Above 0, so that a replica created later
/// can never be brought up from an empty log: it needs a snapshot.
const FIRST_INDEX: u64 = 1;
const FIRST_TERM: u64 = 1;

/// Writes the founding state of the given ranges, durably. May be repeated after a crash, as long
/// as no store was opened on these engines.
pub fn bootstrap(
    log: &dyn LogEngine,
    state: &dyn StateEngine,
    ranges: &[RangeDescriptor],
) -> Result<()> {
    let mut states = WriteBatch::default();
    let mut logs = LogBatch::default();
    for range in ranges {
        let first = RangeState {
            descriptor: Some(range.clone()),
            applied_index: FIRST_INDEX,
            applied_term: FIRST_TERM,
            snapshot_index: FIRST_INDEX,
            ..Default::default()
        };
        let key = keys::range_state(range.range_id);
        states.put(ColumnFamily::Meta, key, first.encode_to_vec());
        let range_id = range.range_id;
        logs.changes.push(LogChange::Reset { range_id, index: FIRST_INDEX, term: FIRST_TERM });
        let hard_state = HardState { term: FIRST_TERM, commit: FIRST_INDEX, ..Default::default() };
        logs.changes.push(LogChange::HardState { range_id, state: hard_state });
    }
    state.write(states)?;
    state.flush()?;
    log.append(logs)
}
