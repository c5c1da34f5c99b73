//! Single operations on few keys in several ranges.
//!
//! The search for an order takes longer the more operations with unknown outcomes a key has. So a
//! key with enough operations is replaced by a new one.

use std::collections::BTreeMap;
use std::sync::Arc;

use fastrand::Rng;
use parking_lot::{Mutex, MutexGuard};
use rangedb_client::{Client, DeleteOptions, Error, KeyValue, PutOptions};

use super::linearizable::{self, Search};
use super::{Input, Operation, Output, Value};
use crate::history::{Outcome, Stamps, is_explained};

/// Maximum number of recorded surprises: one that comes every time would fill the memory.
const SURPRISES_MAX: usize = 16;

#[derive(Clone, Debug)]
pub struct Settings {
    /// Prefixes of keys, one for each range that should take part.
    pub prefixes: Vec<String>,
    /// Number of keys in use at a time, under each prefix.
    pub keys: usize,
    /// Number of operations on a key, after which a new one takes its place.
    pub operations_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        let prefixes = vec!["/register/".to_owned(), "register/".to_owned()];
        Settings { prefixes, keys: 2, operations_max: 400 }
    }
}

/// A key in use.
#[derive(Clone, Default)]
struct Register {
    generation: usize,
    operations: usize,
    /// Value of the key after an operation that was answered not long ago. A swap expects this
    /// value.
    last_seen: Value,
}

struct State {
    registers: Vec<Register>,
    last_number: u64,
    history: BTreeMap<String, Vec<Operation>>,
    surprises: Vec<String>,
}

/// The workload with its history. Clones share both.
#[derive(Clone)]
pub struct Registers {
    settings: Arc<Settings>,
    stamps: Stamps,
    state: Arc<Mutex<State>>,
}

/// Counts of a clean history.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Summary {
    pub keys: usize,
    pub known: usize,
    pub unknown: usize,
    /// Keys for which the search gave up.
    pub undecided: usize,
}

impl Registers {
    pub fn new(settings: Settings, stamps: Stamps) -> Self {
        let state = State {
            registers: vec![Register::default(); settings.prefixes.len() * settings.keys],
            last_number: 0,
            history: BTreeMap::new(),
            surprises: Vec::new(),
        };
        Registers { settings: Arc::new(settings), stamps, state: Arc::new(Mutex::new(state)) }
    }

    /// Runs one operation. Returns its outcome, which is `Ok` for a swap that found another value.
    pub async fn step(&self, client: &Client, me: usize, rng: &mut Rng) -> Outcome {
        let (place, key, input) = self.draw(rng);
        let with_previous = rng.bool();
        let (outcome, output) = self.perform(client, me, &key, input, with_previous).await;
        if let Some(output) = output {
            self.state().registers[place].last_seen = value_after(input, output);
        }
        outcome
    }

    /// Reads every key there ever was, those no longer in use included. Otherwise nobody would miss
    /// an acknowledged write that vanished behind the last read of its key. False if a key could
    /// not be read; what was read is in the history all the same.
    pub async fn read_all(&self, client: &Client, me: usize) -> bool {
        for key in self.keys() {
            let (outcome, _) = self.perform(client, me, &key, Input::Read, false).await;
            if outcome != Outcome::Ok {
                return false;
            }
        }
        true
    }

    /// Sends an operation and records it in the history, with its answer if there is one.
    async fn perform(
        &self,
        client: &Client,
        me: usize,
        key: &str,
        input: Input,
        with_previous: bool,
    ) -> (Outcome, Option<Output>) {
        let called = self.stamps.next();
        let entry = self.begin(key, Operation { client: me, input, called, returned: None });
        let result = self.call(client, key, input, with_previous).await;
        let outcome = match &result {
            Ok(_) => Outcome::Ok,
            // A read without an answer has no effect, so it counts as failed.
            Err(_) if input == Input::Read => Outcome::Failed,
            Err(error) => Outcome::of(error),
        };
        if let Err(error) = &result
            && !is_explained(error)
        {
            self.surprise(format!("{input:?} of {key} ended in {error}"));
        }
        let mut state = self.state();
        let of_key = state.history.get_mut(key).expect("begun");
        let output = result.ok();
        if let Some(output) = output {
            of_key[entry].returned = Some((self.stamps.next(), output));
        } else if outcome == Outcome::Failed {
            // The operation did not happen. It becomes a read without an answer, which the checker
            // leaves out.
            of_key[entry].input = Input::Read;
        }
        (outcome, output)
    }

    /// Returns every key that was ever used.
    fn keys(&self) -> Vec<String> {
        self.state().history.keys().cloned().collect()
    }

    /// Returns the number of answered operations.
    pub fn answered(&self) -> usize {
        let state = self.state();
        state.history.values().flatten().filter(|operation| operation.returned.is_some()).count()
    }

    /// Returns errors that no fault and no other client explains, and values that make no sense.
    pub fn surprises(&self) -> Vec<String> {
        self.state().surprises.clone()
    }

    /// Checks every key's history as it is now.
    pub fn check(&self) -> Result<Summary, Vec<String>> {
        let history = self.state().history.clone();
        let (mut summary, mut problems) = (Summary::default(), Vec::new());
        for (key, operations) in &history {
            summary.keys += 1;
            let known = operations.iter().filter(|operation| operation.returned.is_some()).count();
            summary.known += known;
            let unknown = operations
                .iter()
                .filter(|operation| operation.returned.is_none() && operation.input != Input::Read);
            summary.unknown += unknown.count();
            match linearizable::check(key, operations) {
                Ok(Search::Complete) => {}
                Ok(Search::GaveUp) => summary.undecided += 1,
                Err(problem) => problems.push(problem),
            }
        }
        if problems.is_empty() { Ok(summary) } else { Err(problems) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    fn draw(&self, rng: &mut Rng) -> (usize, String, Input) {
        let settings = &self.settings;
        let mut state = self.state();
        let place = rng.usize(0..state.registers.len());
        state.last_number += 1;
        let number = state.last_number;
        let register = &mut state.registers[place];
        if register.operations >= settings.operations_max {
            let generation = register.generation + 1;
            *register = Register { generation, ..Register::default() };
        }
        register.operations += 1;
        let input = match rng.u8(0..10) {
            0..4 => Input::Read,
            4..7 => Input::Write(Some(number)),
            7 => Input::Write(None),
            _ => Input::CompareAndSwap { expected: register.last_seen, new: number },
        };
        let (prefix, slot) = (place / settings.keys, place % settings.keys);
        let key = format!("{}{slot}/{:06}", settings.prefixes[prefix], register.generation);
        (place, key, input)
    }

    /// Puts the operation into the history before it is sent. Returns its index.
    fn begin(&self, key: &str, operation: Operation) -> usize {
        let mut state = self.state();
        let of_key = state.history.entry(key.to_owned()).or_default();
        of_key.push(operation);
        of_key.len() - 1
    }

    async fn call(
        &self,
        client: &Client,
        key: &str,
        input: Input,
        return_previous: bool,
    ) -> Result<Output, Error> {
        let key = key.to_owned();
        let replaced = |previous: Option<KeyValue>| {
            Output::Written(return_previous.then(|| self.number(previous.as_ref())))
        };
        match input {
            Input::Read => {
                let found = client.get(key).await?;
                Ok(Output::Value(self.number(found.as_ref())))
            }
            Input::Write(Some(number)) => {
                let options = PutOptions { return_previous, ..PutOptions::default() };
                let written = client.put_with(key, number.to_string(), options).await?;
                Ok(replaced(written.previous))
            }
            Input::Write(None) => {
                let options = DeleteOptions { return_previous, ..DeleteOptions::default() };
                let deleted = client.delete_with(key, options).await?;
                Ok(replaced(deleted.previous))
            }
            Input::CompareAndSwap { expected, new } => {
                let expected = expected.map(|number| number.to_string().into());
                match client.compare_and_swap(key, expected, new.to_string()).await {
                    Ok(_) => Ok(Output::Swapped),
                    Err(Error::Conflict { actual, .. }) => {
                        Ok(Output::Mismatch(self.number(actual.as_deref())))
                    }
                    Err(error) => Err(error),
                }
            }
        }
    }

    fn number(&self, found: Option<&KeyValue>) -> Value {
        let found = found?;
        let number = std::str::from_utf8(&found.value).ok().and_then(|text| text.parse().ok());
        if number.is_none() {
            self.surprise(format!("a value that nobody wrote: {found:?}"));
        }
        number
    }

    fn surprise(&self, what: String) {
        let mut state = self.state();
        if state.surprises.len() < SURPRISES_MAX {
            state.surprises.push(what);
        }
    }
}

/// Returns the value of the key right after an answered operation.
fn value_after(input: Input, output: Output) -> Value {
    match (input, output) {
        (_, Output::Value(value) | Output::Mismatch(value)) => value,
        (Input::Write(value), _) => value,
        (Input::CompareAndSwap { new, .. }, _) => Some(new),
        (Input::Read, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_left_after_enough_operations() {
        let settings = Settings { operations_max: 10, ..Settings::default() };
        let registers = Registers::new(settings, Stamps::counter());
        let mut rng = Rng::with_seed(1);
        let mut uses: BTreeMap<String, usize> = BTreeMap::new();
        for _ in 0..200 {
            let (_, key, _) = registers.draw(&mut rng);
            *uses.entry(key).or_default() += 1;
        }
        assert!(uses.len() >= 20, "{uses:?}");
        assert!(uses.values().all(|uses| *uses <= 10), "{uses:?}");
        assert!(uses.keys().any(|key| key.starts_with("/register/")), "{uses:?}");
        assert!(uses.keys().any(|key| key.starts_with("register/")), "{uses:?}");
    }

    #[test]
    fn the_keys_to_read_at_the_end_are_all_that_were_ever_used() {
        let settings = Settings { operations_max: 10, ..Settings::default() };
        let registers = Registers::new(settings, Stamps::counter());
        let mut rng = Rng::with_seed(1);
        let mut used = std::collections::BTreeSet::new();
        for called in 0..200 {
            let (_, key, input) = registers.draw(&mut rng);
            registers.begin(&key, Operation { client: 0, input, called, returned: None });
            used.insert(key);
        }
        assert!(used.len() > registers.state().registers.len(), "{used:?}");
        assert_eq!(registers.keys(), used.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn a_write_that_vanished_behind_its_last_read_is_missed_by_the_read_at_the_end() {
        let registers = Registers::new(Settings::default(), Stamps::counter());
        let done = |input, called, output| Operation {
            client: 0,
            input,
            called,
            returned: Some((called + 1, output)),
        };
        registers.begin("k", done(Input::Write(Some(7)), 1, Output::Written(None)));
        assert_eq!(registers.check().unwrap().known, 1, "nobody looked");
        registers.begin("k", done(Input::Read, 3, Output::Value(None)));
        assert!(registers.check().unwrap_err()[0].contains("no possible order"));
    }

    #[test]
    fn what_an_answer_says_of_the_key_is_what_a_swap_expects_next() {
        let swap = Input::CompareAndSwap { expected: None, new: 5 };
        assert_eq!(value_after(swap, Output::Swapped), Some(5));
        assert_eq!(value_after(swap, Output::Mismatch(Some(3))), Some(3));
        assert_eq!(value_after(Input::Write(Some(2)), Output::Written(Some(None))), Some(2));
        assert_eq!(value_after(Input::Write(None), Output::Written(None)), None);
        assert_eq!(value_after(Input::Read, Output::Value(Some(9))), Some(9));
    }
}
