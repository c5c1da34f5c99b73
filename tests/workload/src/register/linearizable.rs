//! Check that a key is a linearizable register: its operations must have an order that explains
//! every answer. In this order, an operation comes after all that were answered before it began.
//!
//! The search is Wing and Gong's ("Testing and Verifying Concurrent Objects", 1993) with Lowe's
//! memory of visited states. It goes depth first over the next operation, and never twice from the
//! same set of done operations and the same value. An operation with an unknown outcome may come at
//! any time after its call, or never.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::{Input, Operation, Output, Value};

/// Maximum steps of a search, which take some seconds. The history of a run takes a few thousand.
/// One that takes more has dozens of overlapping operations with unknown outcomes.
const STEPS_MAX: usize = 2_000_000;

/// Completeness of a search that found no breach.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Search {
    Complete,
    GaveUp,
}

/// Checks the history of one key, which holds nothing in the beginning.
pub fn check(key: &str, operations: &[Operation]) -> Result<Search, String> {
    let mut operations: Vec<Operation> =
        operations.iter().filter(|op| may_matter(op, operations)).copied().collect();
    operations.sort_by_key(|operation| operation.called);
    Searching::new(&operations).run().map_err(|stuck| {
        let mut message = format!("the operations of key {key} are in no possible order; ");
        message += &format!("{} of {} fit, then none of:", stuck.done, operations.len());
        for operation in stuck.candidates.iter().take(12) {
            message += &format!("\n    {operation:?}");
        }
        message
    })
}

/// False for an operation with an unknown outcome that can be left out: a read, or a write of a
/// value that nobody ever saw. Whatever order there is with the operation, the same order without
/// it explains as much.
fn may_matter(operation: &Operation, all: &[Operation]) -> bool {
    let written = match (operation.returned, operation.input) {
        (None, Input::Read) => return false,
        (None, Input::Write(Some(value)) | Input::CompareAndSwap { new: value, .. }) => value,
        _ => return true,
    };
    let sees = |other: &Operation| {
        let expects = matches!(other.input, Input::CompareAndSwap { expected, .. }
            if expected == Some(written));
        let found = match other.returned {
            Some((_, Output::Value(value) | Output::Mismatch(value))) => value,
            Some((_, Output::Written(Some(previous)))) => previous,
            _ => None,
        };
        expects || found == Some(written)
    };
    all.iter().any(sees)
}

/// Returns the value after an operation. None if the value before the operation does not explain
/// its answer.
fn step(operation: &Operation, before: Value) -> Option<Value> {
    let output = operation.returned.map(|(_, output)| output);
    match (operation.input, output) {
        (Input::Read, Some(Output::Value(value))) => (value == before).then_some(before),
        (Input::Write(value), Some(Output::Written(previous))) => {
            previous.is_none_or(|previous| previous == before).then_some(value)
        }
        (Input::Write(value), None) => Some(value),
        (Input::CompareAndSwap { expected, new }, Some(Output::Swapped)) => {
            (expected == before).then_some(Some(new))
        }
        (Input::CompareAndSwap { expected, .. }, Some(Output::Mismatch(actual))) => {
            (actual == before && expected != before).then_some(before)
        }
        (Input::CompareAndSwap { expected, new }, None) => {
            Some(if expected == before { Some(new) } else { before })
        }
        _ => None,
    }
}

/// Set of done operations: a prefix of all, and some beyond it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
struct Done {
    prefix: usize,
    beyond: BTreeSet<usize>,
}

impl Done {
    fn contains(&self, place: usize) -> bool {
        place < self.prefix || self.beyond.contains(&place)
    }

    fn with(&self, place: usize) -> Done {
        let mut done = self.clone();
        done.beyond.insert(place);
        while done.beyond.remove(&done.prefix) {
            done.prefix += 1;
        }
        done
    }

    fn count(&self) -> usize {
        self.prefix + self.beyond.len()
    }
}

/// State in which the search got furthest.
struct Stuck {
    done: usize,
    candidates: Vec<Operation>,
}

struct Searching<'a> {
    operations: &'a [Operation],
    /// Number of operations with an answer. All of them must find a place.
    answered: usize,
    /// Visited states, each behind a hash. There are many large sets that differ little, and
    /// comparing them would take most of the time.
    tried: BTreeSet<(u64, Done, Value)>,
}

impl<'a> Searching<'a> {
    fn new(operations: &'a [Operation]) -> Self {
        let answered = operations.iter().filter(|op| op.returned.is_some()).count();
        Searching { operations, answered, tried: BTreeSet::new() }
    }

    fn run(mut self) -> Result<Search, Stuck> {
        let mut stack = vec![(Done::default(), None::<u64>, 0)];
        let mut furthest = Stuck { done: 0, candidates: Vec::new() };
        let mut steps = 0;
        while let Some((done, value, answered)) = stack.pop() {
            if answered == self.answered {
                return Ok(Search::Complete);
            }
            steps += 1;
            if steps > STEPS_MAX {
                return Ok(Search::GaveUp);
            }
            let mut hasher = DefaultHasher::new();
            done.hash(&mut hasher);
            if !self.tried.insert((hasher.finish(), done.clone(), value)) {
                continue;
            }
            let candidates = self.candidates(&done);
            if done.count() >= furthest.done {
                let candidates = candidates.iter().map(|place| self.operations[*place]).collect();
                furthest = Stuck { done: done.count(), candidates };
            }
            // The last pushed is tried first: operations with an answer before those without.
            let (known, unknown): (Vec<_>, Vec<_>) = candidates
                .into_iter()
                .partition(|place| self.operations[*place].returned.is_some());
            for place in unknown.into_iter().chain(known.into_iter().rev()) {
                let operation = &self.operations[place];
                if let Some(after) = step(operation, value) {
                    let answered = answered + usize::from(operation.returned.is_some());
                    stack.push((done.with(place), after, answered));
                }
            }
        }
        Err(furthest)
    }

    /// Returns the operations that may come next. Each began before any operation that is not done
    /// was answered.
    fn candidates(&self, done: &Done) -> Vec<usize> {
        let mut candidates = Vec::new();
        let mut first_answer = u64::MAX;
        for place in done.prefix..self.operations.len() {
            if done.contains(place) {
                continue;
            }
            let operation = &self.operations[place];
            if operation.called > first_answer {
                break;
            }
            candidates.push(place);
            if let Some((at, _)) = operation.returned {
                first_answer = first_answer.min(at);
            }
        }
        candidates
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(called: u64, returned: u64, input: Input, output: Output) -> Operation {
        Operation { client: 0, input, called, returned: Some((returned, output)) }
    }

    fn unknown(called: u64, input: Input) -> Operation {
        Operation { client: 0, input, called, returned: None }
    }

    fn write(called: u64, returned: u64, value: u64) -> Operation {
        op(called, returned, Input::Write(Some(value)), Output::Written(None))
    }

    fn read(called: u64, returned: u64, value: Value) -> Operation {
        op(called, returned, Input::Read, Output::Value(value))
    }

    fn cas(called: u64, returned: u64, expected: Value, new: u64, output: Output) -> Operation {
        op(called, returned, Input::CompareAndSwap { expected, new }, output)
    }

    fn passes(operations: &[Operation]) {
        assert_eq!(check("k", operations), Ok(Search::Complete));
    }

    fn fails(operations: &[Operation]) {
        assert!(check("k", operations).is_err(), "{operations:?}");
    }

    #[test]
    fn reads_after_writes_see_them() {
        passes(&[read(1, 2, None), write(3, 4, 1), read(5, 6, Some(1))]);
        fails(&[write(1, 2, 1), read(3, 4, None)]);
        fails(&[write(1, 2, 1), write(3, 4, 2), read(5, 6, Some(1))]);
        fails(&[read(1, 2, Some(7))]);
    }

    #[test]
    fn overlapping_writes_may_be_seen_in_either_order_but_in_one() {
        let writes = [write(1, 10, 1), write(2, 9, 2)];
        passes(&[writes[0], writes[1], read(11, 12, Some(1))]);
        passes(&[writes[0], writes[1], read(11, 12, Some(2))]);
        fails(&[writes[0], writes[1], read(11, 12, Some(1)), read(13, 14, Some(2))]);
    }

    #[test]
    fn a_value_once_seen_does_not_go_back() {
        let slow = write(1, 20, 1);
        passes(&[slow, read(2, 3, None), read(4, 5, Some(1))]);
        fails(&[slow, read(2, 3, Some(1)), read(4, 5, None)]);
    }

    #[test]
    fn an_unknown_write_may_happen_late_or_never_but_not_twice() {
        let lost = unknown(1, Input::Write(Some(1)));
        passes(&[lost, read(2, 3, None)]);
        passes(&[lost, read(2, 3, None), write(4, 5, 2), read(6, 7, Some(1))]);
        fails(&[lost, read(2, 3, Some(1)), write(4, 5, 2), read(6, 7, Some(1))]);
        fails(&[read(2, 3, Some(1)), unknown(4, Input::Write(Some(1)))]);
    }

    #[test]
    fn an_unknown_delete_may_explain_an_absent_key() {
        passes(&[write(1, 2, 1), unknown(3, Input::Write(None)), read(4, 5, None)]);
        fails(&[write(1, 2, 1), read(3, 4, None), unknown(5, Input::Write(None))]);
    }

    #[test]
    fn only_one_of_two_swaps_of_the_same_value_succeeds() {
        let first = write(1, 2, 1);
        let swap = |new, output| cas(3, 6, Some(1), new, output);
        passes(&[first, swap(2, Output::Swapped), swap(3, Output::Mismatch(Some(2)))]);
        fails(&[first, swap(2, Output::Swapped), swap(3, Output::Swapped)]);
        fails(&[first, swap(2, Output::Mismatch(Some(1)))]);
    }

    #[test]
    fn what_a_write_says_it_replaced_must_have_been_there() {
        let replacing = |previous| op(3, 4, Input::Write(Some(2)), Output::Written(Some(previous)));
        passes(&[write(1, 2, 1), replacing(Some(1))]);
        fails(&[write(1, 2, 1), replacing(None)]);
        fails(&[write(1, 2, 1), replacing(Some(9))]);
    }

    #[test]
    fn many_overlapping_unknown_writes_are_searched_in_time() {
        let mut operations: Vec<_> = (0..40).map(|n| unknown(n, Input::Write(Some(n)))).collect();
        operations.extend((0..12).map(|n| read(100 + 2 * n, 101 + 2 * n, Some(3 * n))));
        passes(&operations);
        operations.push(read(200, 201, Some(0)));
        fails(&operations);
    }
}
