//! A transaction's turn at a key where transactions of the same client get in each other's way.
//!
//! All that read the same version of a key and write it can be sent, and one of them commits. So a
//! transaction that is about to read such a key waits until those before it are through, takes its
//! snapshot then, and holds the turn until it has ended (`../turns.rs`).
//!
//! A transaction that has read something else before cannot wait any more: its snapshot stays. It goes
//! on, and if it loses at the key, [`Client::transaction`] takes the turn before it begins anew.
//!
//! The wait is a chance and not a duty. When it takes too long, or the turn is taken away, the
//! transaction goes on as if there were none, and the range decides.

use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;

use super::phases::Phase;
use super::snapshot::Snapshot;
use super::{Inner, TransactionOptions};
use crate::client::Client;
use crate::error::Error;
use crate::turns::{Entered, Taker, Turn};

/// The longest wait for a turn: a thousand transactions that take some milliseconds each. Of more, those
/// at the end go on in the dark, which costs the range but stops nobody.
const TURN_WAIT_MAX: Duration = Duration::from_secs(5);

#[derive(Default)]
pub(super) struct TransactionTurn(Mutex<State>);

#[derive(Default)]
struct State {
    /// Once is enough: with two turns, transactions could wait for each other.
    asked: bool,
    held: Option<Turn>,
}

impl TransactionTurn {
    /// True if nobody asked before.
    fn ask(&self) -> bool {
        !std::mem::replace(&mut self.0.lock().unwrap().asked, true)
    }

    pub fn was_asked_for(&self) -> bool {
        self.0.lock().unwrap().asked
    }

    pub fn hold(&self, turn: Option<Turn>) {
        let mut state = self.0.lock().unwrap();
        state.asked |= turn.is_some();
        state.held = turn;
    }

    /// For another attempt at the same.
    pub fn take(&self) -> Option<Turn> {
        self.0.lock().unwrap().held.take()
    }

    /// The next may go.
    pub fn end(&self) {
        drop(self.take());
    }
}

impl Inner {
    /// Before a key is read: waits for its turn there, if it is one that many want.
    pub(super) async fn take_turn(&self, key: &Bytes) {
        let turns = &self.client.turns;
        if self.is_read_only() || !turns.is_hot(key) {
            return;
        }
        if self.snapshot.is_settled() || !self.turn.ask() {
            return;
        }
        let net = &*self.client.sender.net;
        let wait = self.client.turn_of(key, self.client.timeout);
        let Some((turn, waited)) = self.phases.time(Phase::Turn, net, wait).await else {
            self.renew_snapshot().await;
            return;
        };
        let is_old = waited || turns.has_changed_since(key, self.snapshot.asked_at());
        if !is_old || self.renew_snapshot().await {
            self.turn.hold(Some(turn));
        }
    }

    /// True if the snapshot is one of now.
    async fn renew_snapshot(&self) -> bool {
        let Client { sender, timestamps, holds, .. } = &self.client;
        let asked_at = sender.net.now();
        match timestamps.next(self.client.deadline()).await {
            Ok(start_ts) => self.snapshot.renew(Snapshot::new(holds, start_ts, asked_at)),
            // The old one does as well.
            Err(_) => false,
        }
    }
}

impl Client {
    /// The turn at a key, and whether it was waited for; none: it did not come in time. Of a timeout a
    /// part is left for what comes then.
    pub(super) async fn turn_of(&self, key: &Bytes, timeout: Duration) -> Option<(Turn, bool)> {
        let until = self.sender.net.now() + TURN_WAIT_MAX.min(timeout / 2);
        match self.turns.enter(key, Taker::Transaction, until).await {
            Entered::Turn { turn, waited } => Some((turn, waited)),
            Entered::Found(_) | Entered::TimeUp => None,
        }
    }

    /// The turn for another attempt after one that lost, of which `held` is left.
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
