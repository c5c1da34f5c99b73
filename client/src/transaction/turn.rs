//! A transaction's turn at a hot key, where transactions of the same client conflict.
//!
//! Of all transactions that read the same version of a key and write it, one commits. So a
//! transaction that is about to read such a key waits until those before it have ended. It then
//! takes its snapshot, and holds the turn until it has ended itself (`../locks/turns.rs`).
//!
//! A transaction that has already read something cannot wait, because its snapshot stays. It goes
//! on, and if it loses at the key, [`Client::transaction`] takes the turn before it begins again.
//!
//! No transaction depends on its turn. If the wait takes too long, or the turn is taken away, the
//! transaction goes on without one, and the range decides.

use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use super::phases::Phase;
use super::snapshot::Snapshot;
use super::{Inner, TransactionOptions};
use crate::client::Client;
use crate::error::Error;
use crate::locks::turns::{Entered, Taker, Turn};

/// Longest wait for a turn: a thousand transactions that take some milliseconds each. Beyond that,
/// waiters go on without a turn, which costs the range but stops nobody.
const TURN_WAIT_MAX: Duration = Duration::from_secs(5);

#[derive(Default)]
pub(super) struct TransactionTurn(Mutex<State>);

#[derive(Default)]
struct State {
    /// True once the transaction has requested a turn. With two turns, transactions could wait for
    /// each other.
    requested: bool,
    held: Option<Turn>,
}

impl TransactionTurn {
    /// Notes that the transaction requests a turn. True for the first request.
    fn request(&self) -> bool {
        !std::mem::replace(&mut self.0.lock().requested, true)
    }

    pub fn was_requested(&self) -> bool {
        self.0.lock().requested
    }

    pub fn hold(&self, turn: Option<Turn>) {
        let mut state = self.0.lock();
        state.requested |= turn.is_some();
        state.held = turn;
    }

    /// Takes the turn out, for another attempt at the same transaction.
    pub fn take(&self) -> Option<Turn> {
        self.0.lock().held.take()
    }

    /// Ends the turn, so that the next waiter may go.
    pub fn end(&self) {
        drop(self.take());
    }
}

impl Inner {
    /// Waits for the turn at a key before the key is read, if the key is hot.
    pub(super) async fn take_turn(&self, key: &Bytes) {
        let turns = &self.client.turns;
        if self.is_read_only() || !turns.is_hot(key) {
            return;
        }
        if self.snapshot.is_settled() || !self.turn.request() {
            return;
        }
        let net = &*self.client.sender.net;
        let wait = self.client.turn_of(key, self.client.timeout);
        let Some((turn, waited)) = self.phases.time(Phase::Turn, net, wait).await else {
            self.renew_snapshot().await;
            return;
        };
        let is_old = waited || turns.has_changed_since(key, self.snapshot.requested_at());
        if !is_old || self.renew_snapshot().await {
            self.turn.hold(Some(turn));
        }
    }

    /// Replaces the snapshot by one of now. True if that was possible.
    async fn renew_snapshot(&self) -> bool {
        let Client { sender, timestamps, holds, .. } = &self.client;
        let requested_at = sender.net.now();
        match timestamps.next(self.client.deadline()).await {
            Ok(start_ts) => self.snapshot.renew(Snapshot::new(holds, start_ts, requested_at)),
            // The old snapshot does as well.
            Err(_) => false,
        }
    }
}

impl Client {
    /// Returns the turn at a key, and true if others had it first; none if it did not come in time.
    /// Waits for half of the timeout at most, which leaves time for the transaction.
    pub(super) async fn turn_of(&self, key: &Bytes, timeout: Duration) -> Option<(Turn, bool)> {
        let until = self.sender.net.now() + TURN_WAIT_MAX.min(timeout / 2);
        match self.turns.enter(key, Taker::Transaction, until).await {
            Entered::Turn { turn, waited } => Some((turn, waited)),
            Entered::Found(_) | Entered::TimeUp => None,
        }
    }

    /// Returns the turn for another attempt after one that lost; `held` is the turn of the lost
    /// one.
    pub(super) async fn turn_to_begin_anew(
        &self,
        options: &TransactionOptions,
        lost: &Error,
        held: Option<Turn>,
    ) -> Option<Turn> {
        let Error::WriteConflict { key, .. } = lost else { return None };
        if held.as_ref().is_some_and(|turn| turn.is_held_of(key)) {
            return held;
        }
        drop(held);
        let timeout = options.timeout.unwrap_or(self.timeout);
        self.turn_of(key, timeout).await.map(|(turn, _)| turn)
    }
}
