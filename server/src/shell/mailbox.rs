//! Mailbox of a store: bounded for events that may be refused, unbounded for events that must not
//! be lost.
//!
//! Requests and Raft messages come from outside in any number. They are refused while the waiting
//! bytes are at the store's limit, so that the backlog can be worked off in a moment. Answers to
//! the store's own effects (a finished append, a flush, a fence) are never refused: there are no
//! more of them than the store asked for. Both kinds share one queue, in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use prost::Message;
use rangedb_raftstore::Event;

use crate::handle::EventSink;

/// Bytes that an event takes up besides its payload. They bound the number of small events.
const EVENT_BYTES: usize = 256;

/// Event and its bytes. Without an event, the mail asks the driver to end.
type Mail = (Option<Event>, usize);

/// Sending end of a mailbox. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Mailbox {
    mail: Sender<Mail>,
    load: Arc<Load>,
}

/// Load of a mailbox: waiting bytes and counts of refusals.
pub(crate) struct Load {
    bytes: AtomicUsize,
    bytes_max: usize,
    requests_refused: AtomicU64,
    messages_dropped: AtomicU64,
}

/// Receiving end of a mailbox, for the driver.
pub(crate) struct Inbox {
    mail: Receiver<Mail>,
    load: Arc<Load>,
}

/// Result of a read from an [`Inbox`].
pub(crate) enum Taken {
    Event(Event),
    Nothing,
    Stop,
}

pub(crate) fn new(bytes_max: usize) -> (Mailbox, Inbox) {
    let (sender, receiver) = crossbeam_channel::unbounded();
    let load = Arc::new(Load {
        bytes: AtomicUsize::new(0),
        bytes_max,
        requests_refused: AtomicU64::new(0),
        messages_dropped: AtomicU64::new(0),
    });
    (Mailbox { mail: sender, load: load.clone() }, Inbox { mail: receiver, load })
}

impl Mailbox {
    pub fn load(&self) -> &Load {
        &self.load
    }

    /// Asks the driver to end.
    pub fn stop(&self) {
        // A driver that has ended needs no request.
        let _ = self.mail.send((None, 0));
    }
}

impl EventSink for Mailbox {
    fn send(&self, event: Event) -> Result<(), Event> {
        let bytes = refusable_bytes(&event);
        if let Some(bytes) = bytes
            && !self.load.reserve(bytes)
        {
            let is_message = matches!(event, Event::Message(_));
            let counter =
                if is_message { &self.load.messages_dropped } else { &self.load.requests_refused };
            counter.fetch_add(1, Ordering::Relaxed);
            return Err(event);
        }
        let sent = self.mail.send((Some(event), bytes.unwrap_or(0)));
        sent.map_err(|unsent| unsent.into_inner().0.expect("an event was sent"))
    }
}

impl Load {
    /// Returns the bytes that wait now.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    pub fn requests_refused(&self) -> u64 {
        self.requests_refused.load(Ordering::Relaxed)
    }

    pub fn messages_dropped(&self) -> u64 {
        self.messages_dropped.load(Ordering::Relaxed)
    }

    fn reserve(&self, bytes: usize) -> bool {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        // An empty mailbox takes any event. Otherwise a command larger than the bound could never
        // pass.
        let fits = before == 0 || before + bytes <= self.bytes_max;
        if !fits {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        fits
    }
}

impl Inbox {
    /// Waits for mail until the time is up.
    pub fn wait(&self, timeout: Duration) -> Taken {
        match self.mail.recv_timeout(timeout) {
            Ok(mail) => self.open(mail),
            Err(RecvTimeoutError::Timeout) => Taken::Nothing,
            Err(RecvTimeoutError::Disconnected) => Taken::Stop,
        }
    }

    /// Returns the next mail without waiting.
    pub fn take(&self) -> Taken {
        self.mail.try_recv().map_or(Taken::Nothing, |mail| self.open(mail))
    }

    fn open(&self, (event, bytes): Mail) -> Taken {
        self.load.bytes.fetch_sub(bytes, Ordering::Relaxed);
        event.map_or(Taken::Stop, Taken::Event)
    }
}

/// Returns the bytes of an event that may be refused. `None` for an event that must not be lost.
fn refusable_bytes(event: &Event) -> Option<usize> {
    match event {
        Event::Propose { command, .. } => Some(EVENT_BYTES + command.len()),
        Event::Read { .. } => Some(EVENT_BYTES),
        Event::Message(envelope) => Some(EVENT_BYTES + envelope.encoded_len()),
        Event::Tick
        | Event::Operate { .. }
        | Event::Persisted { .. }
        | Event::Applied { .. }
        | Event::Installed { .. }
        | Event::Destroyed { .. }
        | Event::Quarantined { .. }
        | Event::QuarantineLifted { .. }
        | Event::SkipEntry { .. }
        | Event::Flushed { .. }
        | Event::SnapshotReceived { .. }
        | Event::SnapshotSent { .. }
        | Event::Fenced { .. }
        | Event::DescriptorHint(_)
        | Event::Unreachable(_)
        | Event::DiskRoom(_)
        | Event::LogStalled(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use rangedb_proto::RangeId;
    use rangedb_raftstore::RangeRef;

    use super::*;

    fn propose(bytes: usize) -> Event {
        let range = RangeRef { id: RangeId(1), epoch: Default::default() };
        let command = Bytes::from(vec![0; bytes]);
        Event::Propose { request: 1, range, command, cost: 1, frees_space: false }
    }

    #[test]
    fn requests_are_refused_above_the_bound_and_taken_again_below_it() {
        let (mailbox, inbox) = new(1000);
        assert!(mailbox.send(propose(700)).is_ok());
        assert!(mailbox.send(propose(700)).is_err());
        assert_eq!(mailbox.load().requests_refused(), 1);
        assert!(matches!(inbox.take(), Taken::Event(_)));
        assert_eq!(mailbox.load().bytes(), 0);
        assert!(mailbox.send(propose(700)).is_ok());
    }

    #[test]
    fn what_must_not_be_lost_is_taken_by_a_full_mailbox() {
        let (mailbox, inbox) = new(1);
        assert!(mailbox.send(propose(10)).is_ok());
        assert!(mailbox.send(Event::Persisted { token: 1 }).is_ok());
        mailbox.stop();
        assert!(matches!(inbox.take(), Taken::Event(Event::Propose { .. })));
        assert!(matches!(inbox.take(), Taken::Event(Event::Persisted { token: 1 })));
        assert!(matches!(inbox.take(), Taken::Stop));
        assert!(matches!(inbox.take(), Taken::Nothing));
    }

    #[test]
    fn a_command_larger_than_the_bound_passes_through_an_empty_mailbox() {
        let (mailbox, _inbox) = new(1000);
        assert!(mailbox.send(propose(5000)).is_ok());
    }

    #[test]
    fn a_store_that_has_ended_gives_events_back() {
        let (mailbox, inbox) = new(1000);
        drop(inbox);
        assert!(mailbox.send(Event::Tick).is_err());
    }
}
