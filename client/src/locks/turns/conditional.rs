//! Turns of conditional writes, and the row with which a finished write answers its waiters.

use bytes::Bytes;
use rangedb_proto::v1::{self, condition, operation};

/// The key of a command that takes turns: one put or delete under conditions on the same key, at
/// least one of which breaks when another writer writes the key.
pub(crate) fn key_of(command: &v1::CommitOneRange) -> Option<&Bytes> {
    let [v1::Operation { body: Some(body) }] = &command.operations[..] else { return None };
    let key = match body {
        operation::Body::Put(put) => &put.key,
        operation::Body::Delete(delete) => &delete.key,
        operation::Body::DeleteRange(_) => return None,
    };
    let breaks = |condition: &v1::Condition| {
        !matches!(condition.test, None | Some(condition::Test::Exists(true)))
    };
    let same_key = command.conditions.iter().all(|condition| condition.key == *key);
    let takes_turns = same_key && command.reads.is_empty() && command.conditions.iter().any(breaks);
    takes_turns.then_some(key)
}

/// Index of the first condition that does not hold for `row`. All conditions are on one key.
pub(crate) fn first_broken(
    conditions: &[v1::Condition],
    row: Option<&v1::KeyValue>,
) -> Option<usize> {
    conditions.iter().position(|condition| match &condition.test {
        Some(condition::Test::Exists(exists)) => *exists != row.is_some(),
        Some(condition::Test::Version(version)) => *version != row.map_or(0, |row| row.version),
        Some(condition::Test::ModTs(mod_ts)) => *mod_ts != row.map_or(0, |row| row.mod_ts),
        Some(condition::Test::Value(value)) => row.is_none_or(|row| row.value != *value),
        None => false,
    })
}

/// Row that a command's one operation has left at its key, by the command's result. Known only if
/// the command requests the previous row. Outer none: not known; inner none: no row.
pub(crate) fn left_by(
    command: &v1::CommitOneRange,
    committed: &v1::Committed,
) -> Option<Option<v1::KeyValue>> {
    if !command.return_previous {
        return None;
    }
    let previous = committed.results.first()?.previous.as_ref();
    // The result of a command that was applied before may lack the previous row.
    if first_broken(&command.conditions, previous).is_some() {
        return None;
    }
    match command.operations.first()?.body.as_ref()? {
        operation::Body::Put(put) => Some(Some(v1::KeyValue {
            key: put.key.clone(),
            value: put.value.clone(),
            version: previous.map_or(1, |previous| previous.version + 1),
            create_ts: previous.map_or(committed.commit_ts, |previous| previous.create_ts),
            mod_ts: committed.commit_ts,
            lease_id: put.lease_id,
        })),
        operation::Body::Delete(_) => Some(None),
        operation::Body::DeleteRange(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(version: u64) -> v1::KeyValue {
        v1::KeyValue { key: "k".into(), version, ..Default::default() }
    }

    fn put(conditions: Vec<condition::Test>) -> v1::CommitOneRange {
        let put = v1::Put { key: "k".into(), value: "new".into(), lease_id: 0 };
        let condition = |test| v1::Condition { key: "k".into(), test: Some(test) };
        v1::CommitOneRange {
            operations: vec![v1::Operation { body: Some(operation::Body::Put(put)) }],
            conditions: conditions.into_iter().map(condition).collect(),
            return_previous: true,
            ..Default::default()
        }
    }

    #[test]
    fn turns_are_for_conditions_that_only_one_writer_can_meet() {
        use condition::Test;
        assert!(key_of(&put(vec![])).is_none());
        assert!(key_of(&put(vec![Test::Exists(true)])).is_none());
        for test in [Test::Exists(false), Test::Version(1), Test::ModTs(1), Test::Value("v".into())]
        {
            assert_eq!(key_of(&put(vec![Test::Exists(true), test])).unwrap(), "k");
        }
        let mut other_key = put(vec![Test::Version(1)]);
        other_key.conditions[0].key = "other".into();
        assert!(key_of(&other_key).is_none());
    }

    #[test]
    fn the_row_that_a_put_left_is_known_from_the_row_that_it_replaced() {
        let answer = |previous| v1::Committed {
            commit_ts: 50,
            results: vec![v1::OperationResult { deleted: 0, previous }],
            ..Default::default()
        };
        let command = put(vec![condition::Test::Version(3)]);
        let previous = v1::KeyValue { create_ts: 20, mod_ts: 40, ..row(3) };
        let left = left_by(&command, &answer(Some(previous))).unwrap().unwrap();
        assert_eq!((left.version, left.create_ts, left.mod_ts), (4, 20, 50));
        assert_eq!(left.value, "new");
        // An answer that contradicts the condition says nothing about the row.
        assert!(left_by(&command, &answer(None)).is_none());
        let created = left_by(&put(vec![condition::Test::Exists(false)]), &answer(None));
        let created = created.unwrap().unwrap();
        assert_eq!((created.version, created.create_ts, created.mod_ts), (1, 50, 50));
    }
}
