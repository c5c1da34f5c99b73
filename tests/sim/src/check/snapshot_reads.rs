//! A snapshot does not move: all reads of a key at one timestamp find the same. They also find
//! every commit that was acknowledged at or below that timestamp.

use std::collections::BTreeMap;

use super::Verdict;
use crate::history::{Acknowledged, SnapshotRead};

pub fn check(
    reads: &[SnapshotRead],
    acknowledged: &[Acknowledged],
    unknown_deletes: &BTreeMap<String, u64>,
) -> Verdict {
    let mut found: BTreeMap<(&str, u64), &SnapshotRead> = BTreeMap::new();
    for read in reads {
        let other = found.entry((&read.key, read.at)).or_insert(read);
        if other.found != read.found {
            return Err(format!(
                "key {} at {} held {:?}, and later {:?}",
                read.key, read.at, other.found, read.found
            ));
        }
        if read.found.is_some_and(|(_, mod_ts)| mod_ts > read.at) {
            return Err(format!("a read finds what was committed after it: {read:?}"));
        }
    }
    let mut commits: BTreeMap<&str, BTreeMap<u64, &Acknowledged>> = BTreeMap::new();
    for one in acknowledged {
        commits.entry(&one.key).or_default().insert(one.commit_ts, one);
    }
    for read in reads {
        let Some(commits) = commits.get(&*read.key) else { continue };
        let newest = commits.range(..=read.at).next_back().map(|(_, one)| *one);
        if let Some(newest) = newest {
            let deleted_above = unknown_deletes.get(&read.key);
            check_sees(read, newest, deleted_above.is_some_and(|ts| read.at > *ts))?;
        }
    }
    Ok(())
}

/// Checks that a read sees a commit, or a later one with an outcome that its writer does not know.
fn check_sees(read: &SnapshotRead, newest: &Acknowledged, may_be_deleted: bool) -> Verdict {
    let missed = match (read.found, newest.value) {
        (Some((value, mod_ts)), Some(put)) => {
            mod_ts < newest.commit_ts || (mod_ts == newest.commit_ts && value != put)
        }
        (Some((_, mod_ts)), None) => mod_ts <= newest.commit_ts,
        (None, Some(_)) => !may_be_deleted,
        (None, None) => false,
    };
    if missed {
        return Err(format!("{read:?} does not see the acknowledged {newest:?}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(at: u64, found: Option<(u64, u64)>) -> SnapshotRead {
        SnapshotRead { key: "k".into(), at, found }
    }

    fn checked(reads: &[SnapshotRead], acknowledged: &[Acknowledged]) -> Verdict {
        check(reads, acknowledged, &BTreeMap::new())
    }

    fn commit(value: Option<u64>, commit_ts: u64) -> Acknowledged {
        Acknowledged { key: "k".into(), value, commit_ts }
    }

    #[test]
    fn repeatable_reads_that_see_all_commits_below_them_pass() {
        let reads = [read(10, Some((1, 5))), read(10, Some((1, 5))), read(12, Some((2, 11)))];
        let commits = [commit(Some(1), 5), commit(Some(2), 11), commit(None, 13)];
        assert_eq!(checked(&reads, &commits), Ok(()));
    }

    #[test]
    fn a_snapshot_that_moves_is_caught() {
        assert!(checked(&[read(10, Some((1, 5))), read(10, Some((2, 9)))], &[]).is_err());
        assert!(checked(&[read(10, None), read(10, Some((2, 9)))], &[]).is_err());
    }

    #[test]
    fn a_commit_below_the_timestamp_that_is_not_seen_is_caught() {
        assert!(checked(&[read(10, Some((1, 5)))], &[commit(Some(2), 9)]).is_err());
        assert!(checked(&[read(10, Some((1, 5)))], &[commit(None, 9)]).is_err());
        assert!(checked(&[read(10, None)], &[commit(Some(2), 9)]).is_err());
    }

    #[test]
    fn a_delete_with_an_unknown_outcome_may_explain_an_absent_key() {
        let deleted = [("k".to_owned(), 9)].into();
        assert_eq!(check(&[read(10, None)], &[commit(Some(2), 9)], &deleted), Ok(()));
    }

    #[test]
    fn a_delete_that_was_asked_for_later_explains_nothing() {
        let deleted = [("k".to_owned(), 11)].into();
        assert!(check(&[read(10, None)], &[commit(Some(2), 9)], &deleted).is_err());
    }

    #[test]
    fn a_commit_above_the_timestamp_that_is_seen_is_caught() {
        assert!(checked(&[read(10, Some((1, 11)))], &[]).is_err());
    }
}
