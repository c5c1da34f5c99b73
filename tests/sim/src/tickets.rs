//! Tickets: transactions that depend on the absence of keys.
//!
//! A transaction counts the tickets of a book and adds one with the count as its number. It reads a
//! span, and writes a key that no other transaction writes. So only the validation of the span
//! keeps two transactions from drawing the same number. Serial transactions give a book the numbers
//! 0, 1, 2 and so on (`check/tickets.rs`). Some books lie in one range and some in both.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use rangedb_client::{Client, Error, RangeOptions, TransactionOptions};
use rangedb_workload::history::{Outcome, Stamps, is_explained, is_too_old};

/// Tickets of a book, after which the next book is opened. So a transaction counts few of them.
const TICKETS_MAX: u64 = 24;

/// Prefixes of the keys. The first user range ends before `_/`; the last begins after it.
const PREFIXES: [&str; 2] = ["%ticket/", "y/ticket/"];

/// Kinds of books, by the prefixes that they lie under.
const KINDS: [&[&str]; 3] = [&PREFIXES, &[PREFIXES[0]], &[PREFIXES[1]]];

/// A ticket that somebody tried to draw.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Draw {
    pub book: String,
    /// Number of the ticket; 0 until the count is known.
    pub number: u64,
    pub outcome: Outcome,
    pub began: u64,
    /// `None` while the outcome is unknown.
    pub ended: Option<u64>,
}

#[derive(Default)]
struct State {
    /// The current book of each kind.
    books: [u64; KINDS.len()],
    draws: Vec<Draw>,
    /// Tickets found at the end: the number of each, by the index of its draw.
    end: Option<BTreeMap<usize, u64>>,
    surprise: Option<String>,
}

/// The workload with its history. Clones share the state.
#[derive(Clone)]
pub struct Tickets {
    stamps: Stamps,
    /// True if old versions are not kept for longer than a transaction may take.
    soon_too_old: bool,
    state: Arc<Mutex<State>>,
}

impl Tickets {
    pub fn new(stamps: Stamps, soon_too_old: bool) -> Self {
        Tickets { stamps, soon_too_old, state: Arc::default() }
    }

    /// Draws one ticket.
    pub async fn step(&self, client: &Client, rng: &mut fastrand::Rng) {
        let kind = rng.usize(0..KINDS.len());
        let prefix = KINDS[kind][rng.usize(0..KINDS[kind].len())];
        let began = self.stamps.next();
        let (place, book) = {
            let mut state = self.state();
            let book = format!("{kind}/{:04}/", state.books[kind]);
            let (number, outcome, ended) = (0, Outcome::Unknown, None);
            state.draws.push(Draw { book: book.clone(), number, outcome, began, ended });
            (state.draws.len() - 1, book)
        };
        let key = format!("{prefix}{book}{place:06}");
        let outcome = match self.draw(client, kind, &book, &key, place).await {
            Ok(outcome) => outcome,
            Err(error) => {
                self.note_error(&error);
                Outcome::Failed
            }
        };
        let mut state = self.state();
        state.draws[place].outcome = outcome;
        state.draws[place].ended = (outcome != Outcome::Unknown).then(|| self.stamps.next());
    }

    /// Draws a ticket in a transaction. Errors are from before the commit.
    async fn draw(
        &self,
        client: &Client,
        kind: usize,
        book: &str,
        key: &str,
        place: usize,
    ) -> Result<Outcome, Error> {
        let txn = client.begin(TransactionOptions::default()).await?;
        let mut count = 0;
        for prefix in KINDS[kind] {
            let mut rows = txn.range(RangeOptions::prefix(format!("{prefix}{book}")));
            while let Some(row) = rows.next().await {
                row?;
                count += 1;
            }
        }
        if count >= TICKETS_MAX {
            let mut state = self.state();
            if book == format!("{kind}/{:04}/", state.books[kind]) {
                state.books[kind] += 1;
            }
            return Ok(Outcome::Failed);
        }
        self.state().draws[place].number = count;
        txn.put(key.to_owned(), count.to_string()).await?;
        Ok(match txn.commit().await {
            Ok(_) => Outcome::Ok,
            Err(error) => {
                self.note_error(&error);
                Outcome::of(&error)
            }
        })
    }

    /// Reads all tickets. False if there was no answer.
    pub async fn read_end(&self, client: &Client) -> bool {
        match self.all(client).await {
            Ok(end) => {
                self.state().end = Some(end);
                true
            }
            Err(error) => {
                self.note_error(&error);
                false
            }
        }
    }

    async fn all(&self, client: &Client) -> Result<BTreeMap<usize, u64>, Error> {
        let txn = client.begin(TransactionOptions::default()).await?;
        let mut end = BTreeMap::new();
        for prefix in PREFIXES {
            let mut rows = txn.range(RangeOptions::prefix(prefix));
            while let Some(row) = rows.next().await {
                let row = row?;
                let key = String::from_utf8_lossy(&row.key).into_owned();
                let place = key.rsplit('/').next().and_then(|place| place.parse().ok());
                let number = String::from_utf8_lossy(&row.value).parse().ok();
                match (place, number) {
                    (Some(place), Some(number)) => drop(end.insert(place, number)),
                    _ => self.surprise(format!("{row:?} is no ticket")),
                }
            }
        }
        Ok(end)
    }

    /// Returns all draws, and the tickets found at the end, if they were read.
    pub fn history(&self) -> (Vec<Draw>, Option<BTreeMap<usize, u64>>) {
        let state = self.state();
        (state.draws.clone(), state.end.clone())
    }

    /// Returns the first error that no fault and no other client explains.
    pub fn surprises(&self) -> Option<String> {
        self.state().surprise.clone()
    }

    fn note_error(&self, error: &Error) {
        let too_old = self.soon_too_old && is_too_old(error);
        if !is_explained(error) && !too_old {
            self.surprise(format!("a ticket ended in {error}"));
        }
    }

    fn surprise(&self, what: String) {
        self.state().surprise.get_or_insert(what);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}
