//! Commands and requests, made from steps.

use rangedb_proto::Timestamp;
use rangedb_proto::v1::command::Body;
use rangedb_proto::v1::condition::Test;
use rangedb_proto::v1::{
    AcquireLocks, CheckTransaction, CommitKeys, CommitOneRange, Condition, Delete, DeleteRange,
    HeartbeatLock, Operation, Prewrite, Put, ReadCheck, ResolveLocks, RollbackKeys, Validate,
    operation,
};

use super::support::operation;
use super::words::Words;

/// The command of a step, if it is one.
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
                start_ts: words.number(),
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
            start_ts: words.number(),
            primary: words.bytes(),
        }),
        "resolve_locks" => Body::ResolveLocks(ResolveLocks {
            commit_ts: words.named("at"),
            start_ts: words.number(),
            keys: words.rest(),
        }),
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
