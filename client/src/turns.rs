//! Conditional writes of one key that are made at the same time through one client: one of them is on
//! its way, the others wait for what becomes of it.
//!
//! Of many that want to replace the same version, one can succeed. Sent all together, the others cost
//! the range as much as that one, and their next attempts meet in the same way. So a client sends one
//! at a time. When it ends, what stands at the key now is known, and those whose condition this breaks
//! are answered with it, without a request of their own. In a crowd every round trip then is a success.
//!
//! # Why an answer of somebody else's is right
//!
//! A write takes effect, or is found not to, at some moment after it was sent. Whoever waited already
//! when it was sent (`early`) may be answered as if it had been looked at in that same moment, which
//! lies between its call and its answer. Whoever came later may not: it might know of something newer.
//! It takes its turn.
//!
//! # What is left out
//!
//! Writes of several keys, and conditions that many can meet at once ([`Test::Exists`]
//! alone): these go their own ways. Waiters need no bound of their own: each is a call that its caller
//! waits in, until its deadline.
//!
//! [`Test::Exists`]: crate::Test::Exists

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::channel::oneshot;
use rangedb_proto::v1::{self, condition, operation};

/// Whose turn it is, by key. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Turns {
    /// A key is here as long as somebody has its turn: those who wait for it.
    keys: Arc<Mutex<BTreeMap<Bytes, VecDeque<Waiter>>>>,
}

struct Waiter {
    /// It waited before the write was sent that is under way.
    early: bool,
    told: oneshot::Sender<Told>,
}

/// What ends a wait.
pub(crate) enum Told {
    YourTurn(Turn),
    /// What stood at the key at some moment of the wait; none: nothing.
    Found(Option<v1::KeyValue>),
}

/// The right to write the key. Passed on when it is dropped.
pub(crate) struct Turn {
    turns: Turns,
    key: Bytes,
    passed_on: bool,
}

pub(crate) enum Entered {
    Turn(Turn),
    Wait(oneshot::Receiver<Told>),
}

impl Turns {
    pub fn enter(&self, key: &Bytes) -> Entered {
        let mut keys = self.keys.lock().unwrap();
        match keys.get_mut(key) {
            Some(waiting) => {
                let (told, wait) = oneshot::channel();
                waiting.push_back(Waiter { early: false, told });
                Entered::Wait(wait)
            }
            None => {
                keys.insert(key.clone(), VecDeque::new());
                Entered::Turn(Turn { turns: self.clone(), key: key.clone(), passed_on: false })
            }
        }
    }
}

impl Turn {
    /// To be called before the write is sent for the first time. Whether somebody waits for its end.
    pub fn sending(&self) -> bool {
        let mut keys = self.turns.keys.lock().unwrap();
        let waiting = keys.get_mut(&self.key).expect("it stays while somebody has the turn");
        // Those who went away do not count.
        waiting.retain(|waiter| !waiter.told.is_canceled());
        waiting.iter_mut().for_each(|waiter| waiter.early = true);
        !waiting.is_empty()
    }

    /// The write has ended, and this stood at the key then.
    pub fn found(self, row: Option<&v1::KeyValue>) {
        let early = {
            let mut keys = self.turns.keys.lock().unwrap();
            let waiting = keys.get_mut(&self.key).expect("it stays while somebody has the turn");
            let all = std::mem::take(waiting);
            let (early, late) = all.into_iter().partition::<Vec<_>, _>(|waiter| waiter.early);
            *waiting = late.into();
            early
        };
        for waiter in early {
            // One that has gone away needs no answer.
            let _ = waiter.told.send(Told::Found(row.cloned()));
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.passed_on {
            return;
        }
        self.passed_on = true;
        let (turns, key) = (self.turns.clone(), self.key.clone());
        let mut turn = Turn { turns: turns.clone(), key: key.clone(), passed_on: false };
        loop {
            let next = {
                let mut keys = turns.keys.lock().unwrap();
                let next = keys.get_mut(&key).and_then(VecDeque::pop_front);
                if next.is_none() {
                    keys.remove(&key);
                    turn.passed_on = true;
                }
                next
            };
            let Some(next) = next else { return };
            match next.told.send(Told::YourTurn(turn)) {
                Ok(()) => return,
                // It went away.
                Err(Told::YourTurn(back)) => turn = back,
                Err(Told::Found(_)) => unreachable!("a turn was sent"),
            }
        }
    }
}

/// The key of a command that takes turns: one put or delete under conditions on the same key, of which
/// at least one is broken by whoever writes the key.
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

/// The first of the conditions, all of them on one key, that does not hold for what stands there.
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

/// What a command's one operation has left at its key, as far as the answer to it says: for that it
/// must have been asked what was replaced. The inner none: nothing.
pub(crate) fn left_by(
    command: &v1::CommitOneRange,
    committed: &v1::Committed,
) -> Option<Option<v1::KeyValue>> {
    if !command.return_previous {
        return None;
    }
    let previous = committed.results.first()?.previous.as_ref();
    // The answer to a command that was applied before may no longer know what it replaced.
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

    fn turn(turns: &Turns) -> Turn {
        match turns.enter(&"k".into()) {
            Entered::Turn(turn) => turn,
            Entered::Wait(_) => panic!("it is taken"),
        }
    }

    fn wait(turns: &Turns) -> oneshot::Receiver<Told> {
        match turns.enter(&"k".into()) {
            Entered::Turn(_) => panic!("nobody has it"),
            Entered::Wait(wait) => wait,
        }
    }

    fn told(wait: &mut oneshot::Receiver<Told>) -> Option<Told> {
        wait.try_recv().expect("somebody answers for it")
    }

    fn row(version: u64) -> v1::KeyValue {
        v1::KeyValue { key: "k".into(), version, ..Default::default() }
    }

    #[test]
    fn who_waited_when_it_was_sent_learns_what_came_of_it_and_who_came_later_does_not() {
        let turns = Turns::default();
        let first = turn(&turns);
        let mut early = wait(&turns);
        assert!(first.sending());
        let mut late = wait(&turns);
        first.found(Some(&row(7)));
        assert!(matches!(told(&mut early), Some(Told::Found(Some(found))) if found.version == 7));
        let Some(Told::YourTurn(second)) = told(&mut late) else { panic!("its turn has come") };
        assert!(!second.sending(), "nobody waits");
        drop(second);
        turn(&turns);
        assert!(turns.keys.lock().unwrap().is_empty(), "nothing is left of a key at rest");
    }

    #[test]
    fn a_turn_that_is_given_up_goes_to_the_first_who_still_waits() {
        let turns = Turns::default();
        let first = turn(&turns);
        let gone = wait(&turns);
        let (mut second, mut third) = (wait(&turns), wait(&turns));
        drop(gone);
        drop(first);
        assert!(told(&mut third).is_none());
        // It goes away when it has its turn and does not know it yet.
        let Some(Told::YourTurn(turn)) = told(&mut second) else { panic!("its turn has come") };
        drop(turn);
        assert!(matches!(told(&mut third), Some(Told::YourTurn(_))));
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
    fn turns_are_for_conditions_that_one_alone_can_meet() {
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
    fn what_a_put_left_is_known_by_what_it_replaced() {
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
        // Such an answer does not belong to what was asked.
        assert!(left_by(&command, &answer(None)).is_none());
        let created = left_by(&put(vec![condition::Test::Exists(false)]), &answer(None));
        let created = created.unwrap().unwrap();
        assert_eq!((created.version, created.create_ts, created.mod_ts), (1, 50, 50));
    }
}
