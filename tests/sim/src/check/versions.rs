//! A version of a key never changes: all clients that see a commit see the same value, version and
//! creation. No value is written twice, so a value is seen under one timestamp only, the one that
//! its writer was told. A write that was applied twice is seen under two.

use std::collections::BTreeMap;

use super::Verdict;
use crate::history::{Acknowledged, SeenVersion};

pub fn check(seen: &[SeenVersion], acknowledged: &[Acknowledged]) -> Verdict {
    let mut versions: BTreeMap<(&str, u64), &SeenVersion> = BTreeMap::new();
    let mut written: BTreeMap<(&str, u64), u64> = BTreeMap::new();
    for one in seen {
        let at = *written.entry((&one.key, one.value)).or_insert(one.mod_ts);
        if at != one.mod_ts {
            return Err(format!("what was written at {at} was seen as {one:?}"));
        }
        let other = versions.entry((&one.key, one.mod_ts)).or_insert(one);
        if *other != one {
            return Err(format!("a version was seen in two shapes: {other:?} and {one:?}"));
        }
        if one.create_ts > one.mod_ts || (one.version == 1) != (one.create_ts == one.mod_ts) {
            return Err(format!("a version that contradicts itself: {one:?}"));
        }
    }
    for Acknowledged { key, value, commit_ts } in acknowledged {
        let at = value.and_then(|value| written.get(&(&**key, value)));
        if let Some(at) = at.filter(|at| *at != commit_ts) {
            return Err(format!(
                "key {key}: {value:?} was acknowledged at {commit_ts} and seen at {at}"
            ));
        }
        let Some(one) = versions.get(&(&**key, *commit_ts)) else { continue };
        if Some(one.value) != *value {
            return Err(format!(
                "key {key}: {value:?} was acknowledged at {commit_ts}, where {one:?} was seen"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(value: u64, mod_ts: u64, version: u64, create_ts: u64) -> SeenVersion {
        SeenVersion { key: "k".into(), value, mod_ts, create_ts, version }
    }

    fn acknowledged(value: u64, commit_ts: u64) -> Acknowledged {
        Acknowledged { key: "k".into(), value: Some(value), commit_ts }
    }

    #[test]
    fn consistent_versions_pass() {
        let all = [seen(1, 10, 1, 10), seen(1, 10, 1, 10), seen(2, 11, 2, 10)];
        assert_eq!(check(&all, &[acknowledged(2, 11), acknowledged(3, 12)]), Ok(()));
    }

    #[test]
    fn a_write_that_is_seen_at_two_moments_or_not_when_it_was_acknowledged_is_caught() {
        assert!(check(&[seen(1, 10, 1, 10), seen(1, 12, 2, 10)], &[]).is_err());
        assert!(check(&[seen(2, 11, 1, 11)], &[acknowledged(2, 10)]).is_err());
    }

    #[test]
    fn a_version_that_changes_is_caught() {
        assert!(check(&[seen(1, 10, 1, 10), seen(2, 10, 1, 10)], &[]).is_err());
        assert!(check(&[seen(1, 10, 2, 9), seen(1, 10, 3, 9)], &[]).is_err());
    }

    #[test]
    fn a_first_version_that_was_not_created_by_its_commit_is_caught() {
        assert!(check(&[seen(1, 10, 1, 9)], &[]).is_err());
        assert!(check(&[seen(1, 10, 2, 10)], &[]).is_err());
    }

    #[test]
    fn an_acknowledged_timestamp_that_belongs_to_another_write_is_caught() {
        assert!(check(&[seen(1, 10, 1, 10)], &[acknowledged(2, 10)]).is_err());
    }
}
