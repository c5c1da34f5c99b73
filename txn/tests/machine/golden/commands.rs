//! Commands and requests, parsed from steps.

use bytes::Bytes;
use rangedb_proto::Timestamp;
use rangedb_proto::v1::command::Body;
use rangedb_proto::v1::condition::Test;
use rangedb_proto::v1::{
    AcquireLocks, CheckSecondaries, CheckTransaction, CollectGarbage, CommitKeys, CommitOneRange,
    Condition, Delete, DeleteRange, HeartbeatLock, Operation, Prewrite, Put, ReadCheck,
    ResolveLocks, RollbackKeys, Validate, operation,
};

use super::words::Words;
use crate::support::operation;

/// Returns the command of a step, if the step is a command.
pub fn command(name: &str, mut words: Words<'_>, items: &str) -> Option<Body> {
    Some(match name {
        "commit" => {
            let return_previous = words.flag("previous");
            let start_ts = words.number();
            let Items { conditions, operations, reads } = Items::parse(items);
            let commit =
                CommitOneRange { start_ts, conditions, operations, return_previous, reads };
            Body::CommitOneRange(commit)
        }
        "prewrite" => {
            let Items { conditions, operations, reads } = Items::parse(items);
            assert!(reads.is_empty(), "reads are validated on their own");
            Body::Prewrite(Prewrite {
                primary: words.named_key("primary"),
                alive_until_ms: words.named("alive"),
                for_update_ts: words.named("update"),
                async_commit: words.flag("async"),
                min_commit_ts: words.named("from"),
                start_ts: words.number(),
                secondaries: words.rest(),
                conditions,
                operations,
            })
        }
        "commit_keys" => Body::CommitKeys(CommitKeys {
            commit_ts: words.named("at"),
            start_ts: words.number(),
            keys: words.rest(),
        }),
        "rollback_keys" => {
            Body::RollbackKeys(RollbackKeys { start_ts: words.number(), keys: words.rest() })
        }
        "check_transaction" => Body::CheckTransaction(CheckTransaction {
            now_ts: Timestamp::from_millis(words.named("now")).next().0,
            push_above_ts: words.named("push"),
            met_alive_until_ms: words.named("met"),
            start_ts: words.number(),
            primary: words.bytes(),
        }),
        "check_secondaries" => Body::CheckSecondaries(CheckSecondaries {
            start_ts: words.number(),
            keys: words.rest(),
        }),
        "resolve_locks" => {
            let (is_span, commit_ts) = (words.flag("span"), words.named("at"));
            let has_primary = words.has("primary");
            let primary = if has_primary { words.named_key("primary") } else { Bytes::new() };
            let (start_ts, mut keys) = (words.number(), words.rest());
            let (end_key, start_key) = match is_span {
                true => (keys.pop().unwrap(), keys.pop().unwrap()),
                false => Default::default(),
            };
            Body::ResolveLocks(ResolveLocks {
                start_ts,
                commit_ts,
                keys,
                start_key,
                end_key,
                primary,
            })
        }
        "collect_garbage" => {
            let (floor_ts, collect_below_ts) = (words.named("floor"), words.named("below"));
            let mut span = words.rest().into_iter();
            let mut bound = || span.next().unwrap_or_default();
            let (start_key, end_key) = (bound(), bound());
            Body::CollectGarbage(CollectGarbage { floor_ts, collect_below_ts, start_key, end_key })
        }
        "heartbeat_lock" => Body::HeartbeatLock(HeartbeatLock {
            alive_until_ms: words.named("alive"),
            start_ts: words.number(),
            primary: words.bytes(),
        }),
        "acquire_locks" => Body::AcquireLocks(AcquireLocks {
            primary: words.named_key("primary"),
            for_update_ts: words.named("update"),
            alive_until_ms: words.named("alive"),
            start_ts: words.number(),
            keys: words.rest(),
        }),
        _ => return None,
    })
}

pub fn validation(mut words: Words<'_>, items: &str) -> Validate {
    Validate {
        pass_locks_of: words.passed(),
        range: None,
        commit_ts: words.named("at"),
        start_ts: words.number(),
        reads: Items::parse(items).reads,
    }
}

#[derive(Default)]
struct Items {
    conditions: Vec<Condition>,
    operations: Vec<Operation>,
    reads: Vec<ReadCheck>,
}

impl Items {
    fn parse(text: &str) -> Self {
        let mut items = Self::default();
        for item in text.split("; ").filter(|item| !item.is_empty()) {
            let mut words = Words::of(item);
            if words.flag("if") {
                items.conditions.push(condition(words));
            } else if words.flag("read") {
                let read_ts = words.named("at");
                let start_key = words.bytes();
                let end_key = words.rest().pop().unwrap_or_default();
                items.reads.push(ReadCheck { start_key, end_key, read_ts });
            } else {
                items.operations.push(operation(operation_body(words)));
            }
        }
        items
    }
}

fn condition(mut words: Words<'_>) -> Condition {
    let kind = words.take();
    let key = words.bytes();
    let test = match kind {
        "exists" => Test::Exists(true),
        "absent" => Test::Exists(false),
        "version" => Test::Version(words.number()),
        "modified" => Test::ModTs(words.number()),
        "value" => Test::Value(words.bytes()),
        other => panic!("no condition is called {other:?}"),
    };
    Condition { key, test: Some(test) }
}

fn operation_body(mut words: Words<'_>) -> operation::Body {
    match words.take() {
        "put" => {
            let lease_id = words.named("lease");
            operation::Body::Put(Put { key: words.bytes(), value: words.bytes(), lease_id })
        }
        "delete" => operation::Body::Delete(Delete { key: words.bytes() }),
        "delete_range" => {
            let (start_key, end_key) = (words.bytes(), words.bytes());
            operation::Body::DeleteRange(DeleteRange { start_key, end_key })
        }
        other => panic!("no operation is called {other:?}"),
    }
}
