//! Tests of the floor and its holds: the arithmetic, and a control plane whose commits fail.

use std::sync::Arc;

use futures::FutureExt;
use parking_lot::Mutex;
use rangedb_client::net::{BoxFuture, CallError, Net};
use rangedb_client::{Client, Config};
use rangedb_proto::v1::{request, response};
use rangedb_raftstore::Event;

use super::*;
use crate::control::{CONTROL, oracle::Oracle, state::State};
use crate::handle::{EventSink, StoreHandle};
use crate::status_board::StatusBoard;
use crate::surroundings::{Surroundings, WallClock};
use crate::system::{Owner, SystemStore};

const RETENTION: Duration = Duration::from_millis(100);
const NOW: Duration = Duration::from_secs(5);

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn hold(millis: u64, until: Option<Duration>) -> Hold {
    Hold { timestamp: at(millis), until }
}

fn backup_at(millis: u64) -> Garbage {
    Garbage::load(Timestamp::ZERO, [("backup".to_owned(), at(millis))].into_iter(), Duration::ZERO)
}

#[test]
fn the_floor_is_the_smallest_of_retention_and_holds() {
    let mut garbage = Garbage::default();
    assert_eq!(garbage.wanted(at(1_000), RETENTION, NOW), at(900));
    garbage.hold("backup", hold(700, None)).unwrap();
    garbage.hold("client", hold(600, Some(NOW + RETENTION))).unwrap();
    assert_eq!(garbage.wanted(at(1_000), RETENTION, NOW), at(600));
    assert_eq!(garbage.wanted(at(1_000), RETENTION, NOW + RETENTION), at(700));
    garbage.holds.clear();
    assert_eq!(garbage.wanted(at(50), RETENTION, NOW), at(0));
}

#[test]
fn the_floor_never_sinks() {
    let mut garbage =
        Garbage::load(at(500), [("old".to_owned(), at(400))].into_iter(), Duration::ZERO);
    assert_eq!(garbage.wanted(at(1_000), RETENTION, NOW), at(500));
    assert_eq!(garbage.wanted(at(10), RETENTION, NOW), at(500));
}

#[test]
fn names_of_holds_are_plain() {
    for good in ["backup", "client-00ff", "a:b"] {
        assert!(check_name(good).is_ok(), "{good}");
    }
    for bad in ["", "a/b", "a b", "ä", &"x".repeat(HOLD_NAME_MAX + 1)] {
        assert!(check_name(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_hold_that_ends_by_itself_does_not_take_the_place_of_a_durable_one() {
    let mut garbage = backup_at(700);
    let refused = garbage.hold("backup", hold(800, Some(NOW + RETENTION))).unwrap_err();
    assert!(matches!(refused.kind, Some(Kind::FailedPrecondition(_))), "{refused:?}");
    assert_eq!(refused.message, "`backup` holds the floor durably: release it first");
    assert_eq!(garbage.wanted(at(1_000), RETENTION, NOW + 2 * RETENTION), at(700));
    // A durable hold may replace one that ends by itself.
    garbage.hold("client", hold(600, Some(NOW + RETENTION))).unwrap();
    garbage.hold("client", hold(650, None)).unwrap();
    assert_eq!(garbage.holds["client"].until, None);
}

/// A control plane that leads no range, so that none of its commits is applied.
fn cut_off(garbage: Garbage) -> (Control, Arc<Isolated>) {
    let net = Arc::new(Isolated(Mutex::new(NOW)));
    let config = Config::new(["127.0.0.1:1"]);
    let around = Surroundings {
        cluster_id: 1,
        node_id: 1,
        stores: StoreHandle::new(vec![net.clone()]),
        board: Arc::new(StatusBoard::new(1)),
        net: net.clone(),
        clock: net.clone(),
        client: Client::with_net(net.clone(), config).unwrap(),
        formation: None,
        oracle_seen: Arc::default(),
    };
    let owner = Owner::new(&records::CONTROL_TERM.only(), &1);
    let mut oracle = Oracle::behind(Timestamp::ZERO, None);
    oracle.extend(at(1_000_000));
    let mut state = State::new(Duration::ZERO);
    state.garbage = garbage;
    let control = Control {
        term: 1,
        store: SystemStore::new(around.clone(), CONTROL, owner),
        around,
        oracle: Mutex::new(oracle),
        extending: Default::default(),
        state: Mutex::new(state),
        changing: Default::default(),
        deadlocks: Mutex::default(),
    };
    (control, net)
}

impl Control {
    /// Holds the floor durably, or releases it at timestamp 0. Returns the error.
    fn fails_to_hold(&self, name: &str, timestamp: Timestamp) -> v1::Error {
        let (name, timestamp) = (name.to_owned(), timestamp.0);
        let hold = HoldFloor { name, timestamp, ..Default::default() };
        at_once(self.hold_floor(hold)).unwrap_err()
    }

    /// Floor that would be possible if only holds kept it down.
    fn held_at(&self) -> Timestamp {
        self.state().garbage.wanted(at(900_000), RETENTION, self.around.net.now())
    }
}

fn at_once<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("there is nothing to wait for")
}

fn is_commit_error(error: &v1::Error) -> bool {
    matches!(error.kind, Some(Kind::RangeNotFound(_)))
}

#[test]
fn a_durable_hold_that_cannot_be_moved_stays_where_it_may_be_stored() {
    for (stored, wanted) in [(400, 700), (700, 400)] {
        let (control, net) = cut_off(backup_at(stored));
        let error = control.fails_to_hold("backup", at(wanted));
        assert!(is_commit_error(&error), "{error:?}");
        assert_eq!(control.held_at(), at(400));
        net.pass(2 * HOLD_TTL);
        assert_eq!(control.held_at(), at(400), "and does not end by itself");
    }
}

#[test]
fn a_hold_whose_commit_failed_can_be_released() {
    let (control, net) = cut_off(Garbage::default());
    assert!(is_commit_error(&control.fails_to_hold("backup", at(400))));
    net.pass(2 * HOLD_TTL);
    assert_eq!(control.held_at(), at(400));
    // The hold may be stored. So its release is a commit too, and fails here.
    let error = control.fails_to_hold("backup", Timestamp::ZERO);
    assert!(is_commit_error(&error), "{error:?}");
    assert_eq!(control.held_at(), at(400), "nor was that stored, as far as anybody knows");
    let unknown = control.fails_to_hold("other", Timestamp::ZERO);
    assert!(matches!(unknown.kind, Some(Kind::NotFound(_))), "{unknown:?}");
}

/// A release that arrives late, after its name has been given to another hold, leaves that one alone.
#[test]
fn a_release_ends_only_the_hold_that_it_means() {
    let (control, _) = cut_off(Garbage::default());
    control.state().garbage.hold("client", hold(600, Some(NOW + RETENTION))).unwrap();
    let release = |meant: Timestamp| {
        let name = "client".to_owned();
        let ask = HoldFloor { name, released_ts: meant.0, ..Default::default() };
        at_once(control.hold_floor(ask))
    };
    let late = release(at(500)).unwrap_err();
    assert!(matches!(late.kind, Some(Kind::NotFound(_))), "{late:?}");
    assert_eq!(control.held_at(), at(600));
    release(at(600)).unwrap();
    assert!(control.held_at() > at(600));
}

#[test]
fn nothing_is_held_below_a_floor_that_may_be_stored() {
    let (control, net) = cut_off(Garbage::default());
    // Real time passed too, so no version is too young to be dropped.
    net.pass(Duration::from_secs(600));
    // The clock shows 800 s, and the retention is ten minutes.
    let error = at_once(control.raise_floor()).unwrap_err();
    assert!(is_commit_error(&error), "{error:?}");
    assert_eq!(control.state().garbage.floor, Timestamp::ZERO, "nobody is told");
    let refused = control.fails_to_hold("backup", at(199_999));
    let too_old = TooOld { floor_ts: at(200_000).0 };
    assert_eq!(refused.kind, Some(Kind::TooOld(too_old)));
    assert!(is_commit_error(&control.fails_to_hold("backup", at(200_000))));
    assert_eq!(control.held_at(), at(200_000));
}

/// A world without stores and other nodes, with a clock that the test sets.
struct Isolated(Mutex<Duration>);

impl Isolated {
    fn pass(&self, time: Duration) {
        *self.0.lock() += time;
    }
}

impl Net for Isolated {
    fn call<'a>(
        &'a self,
        _: &'a str,
        _: request::Body,
        _: Duration,
    ) -> BoxFuture<'a, Result<response::Body, CallError>> {
        Box::pin(async { Err(CallError::NotSent("there is nobody".to_owned())) })
    }

    fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
        Box::pin(async {})
    }

    fn now(&self) -> Duration {
        *self.0.lock()
    }

    fn random_below(&self, _: u64) -> u64 {
        0
    }

    fn spawn(&self, _: BoxFuture<'static, ()>) {}
}

impl EventSink for Isolated {
    fn send(&self, event: Event) -> Result<(), Event> {
        Err(event)
    }
}

impl WallClock for Isolated {
    fn unix_millis(&self) -> u64 {
        800_000
    }
}

#[test]
fn whoever_leads_no_more_promises_no_hold() {
    let (control, _net) = cut_off(Garbage::default());
    let name = "client".to_owned();
    let timestamp = at(500).0;
    let ask = HoldFloor { name, timestamp, ttl_ms: 1_000, released_ts: 0 };
    let refused = at_once(control.hold_floor(ask)).unwrap_err();
    assert!(is_commit_error(&refused), "{refused:?}");
}
