//! Reclaiming the space of deleted records without waiting for RocksDB's own compaction. RocksDB
//! compacts as it is written to, and nothing is written to a full disk.

use crate::ColumnFamily;

use super::RocksState;

/// A family is rewritten if at least one in this many of its records marks a deletion.
const DELETIONS_SHARE: u64 = 10;

/// Totals over a family's files.
#[derive(Clone, Copy, Default)]
struct Files {
    bytes: u64,
    records: u64,
    deletions: u64,
}

impl Files {
    fn is_worth_it(self) -> bool {
        self.deletions > 0 && self.deletions >= self.records / DELETIONS_SHARE
    }

    /// Estimates the bytes left after a rewrite: each deletion mark removes itself and one record.
    fn bytes_left(self) -> u64 {
        let left = self.records.saturating_sub(2 * self.deletions);
        let part = u128::from(self.bytes) * u128::from(left) / u128::from(self.records.max(1));
        part as u64
    }
}

impl RocksState {
    /// Rewrites the families with many deletions, each only if its estimated remainder fits into
    /// `room` bytes. Returns the number of rewritten families. Blocks.
    pub fn reclaim(&self, room: u64) -> crate::Result<usize> {
        let mut families = [Files::default(); ColumnFamily::ALL.len()];
        for file in self.engine.db.live_files().map_err(super::engine_error)? {
            let cf = ColumnFamily::ALL.into_iter().find(|cf| cf.name() == file.column_family_name);
            let Some(files) = cf.and_then(|cf| families.get_mut(cf as usize)) else { continue };
            files.bytes += file.size as u64;
            files.records += file.num_entries;
            files.deletions += file.num_deletions;
        }
        let mut rewritten = 0;
        for cf in ColumnFamily::ALL {
            let files = families[cf as usize];
            if files.is_worth_it() && files.bytes_left() <= room {
                let all: (Option<&[u8]>, Option<&[u8]>) = (None, None);
                self.engine.db.compact_range_cf(self.engine.family(cf), all.0, all.1);
                rewritten += 1;
            }
        }
        Ok(rewritten)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{StateEngine, StateOptions, Write, WriteBatch};

    #[test]
    fn what_is_left_of_a_family_is_estimated_by_its_marks() {
        let files = |records, deletions| Files { bytes: 1000, records, deletions };
        assert!(!files(100, 0).is_worth_it() && !files(100, 9).is_worth_it());
        assert!(files(100, 10).is_worth_it());
        assert_eq!(files(100, 10).bytes_left(), 800);
        assert_eq!(files(100, 60).bytes_left(), 0);
    }

    #[test]
    fn the_room_of_deleted_values_is_given_back_only_where_the_rest_fits() {
        let dir = tempfile::tempdir().unwrap();
        let state = RocksState::open(dir.path(), StateOptions::default()).unwrap();
        let cf = ColumnFamily::Value;
        let key = |number: u32| number.to_be_bytes().to_vec().into();
        let mut random = fastrand::Rng::with_seed(1);
        let mut write = |numbers: std::ops::Range<u32>, put: bool| {
            for number in numbers {
                let key = key(number);
                let value: Vec<u8> = (0..10_000).map(|_| random.u8(..)).collect();
                let write = match put {
                    true => Write::Put { cf, key, value: value.into() },
                    false => Write::Delete { cf, key },
                };
                state.write(WriteBatch { writes: vec![write] }).unwrap();
            }
            state.flush().unwrap();
        };
        write(0..200, true);
        write(0..150, false);
        let before = state.stats().file_bytes;
        assert!(before > 2_000_000, "{before}");
        assert_eq!(state.reclaim(100_000).unwrap(), 0, "a quarter stays, and has no room");
        assert_eq!(state.reclaim(1_000_000).unwrap(), 1);
        let after = state.stats().file_bytes;
        assert!(after < before / 2, "{after} of {before}");
        assert_eq!(state.reclaim(u64::MAX).unwrap(), 0, "nothing is deleted any more");
    }
}
