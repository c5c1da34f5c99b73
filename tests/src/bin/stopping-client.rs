//! A client that stops in the middle of a commit, for tests to kill. It never resumes the commit,
//! but its heartbeats continue as long as it lives.
//!
//! `stopping-client ENDPOINTS POINT VALUE KEY...` puts the value at all keys in one transaction. It
//! prints "stopped" when it reaches the point, and "committed" if the commit was answered. The keys
//! must lie in several ranges.
//!
//! The client is the unchanged SDK over a network that keeps requests back. So the set of requests
//! that a killed client has sent is the same in every run.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use futures::future::pending;
use parking_lot::Mutex;
use rangedb_client::grpc::GrpcNet;
use rangedb_client::net::{BoxFuture, CallError, Net};
use rangedb_client::v1::{command, request, response};
use rangedb_client::{Client, Config, TransactionOptions};
use tokio::sync::watch;

/// Point of a commit at which the client stops.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Point {
    /// One range has its locks, the others have none.
    HalfPrewritten,
    /// Every range has its locks.
    Prewritten,
    /// One range, the first to get the command, has turned its locks into versions.
    HalfCommitted,
}

impl Point {
    fn parse(text: &str) -> Option<Point> {
        match text {
            "half-prewritten" => Some(Point::HalfPrewritten),
            "prewritten" => Some(Point::Prewritten),
            "half-committed" => Some(Point::HalfCommitted),
            _ => None,
        }
    }
}

struct StoppingNet {
    inner: GrpcNet,
    point: Point,
    /// Ranges that have been sent the kind of command that the point counts.
    let_through: Mutex<BTreeSet<u64>>,
    /// True once one of these ranges has answered.
    answered: watch::Sender<bool>,
}

enum Turn {
    Pass,
    /// Pass, as the first command of the kind that the point counts.
    PassFirst,
    /// Keep back for ever. The point is reached once the first command is answered.
    KeepBack,
}

impl StoppingNet {
    fn turn(&self, body: &request::Body) -> Turn {
        let request::Body::TransactionCommand(sent) = body else { return Turn::Pass };
        let command = sent.command.as_ref().and_then(|command| command.body.as_ref());
        let is_counted = match (self.point, command) {
            (Point::HalfPrewritten, Some(command::Body::Prewrite(_))) => true,
            (Point::HalfCommitted, Some(command::Body::CommitKeys(_))) => true,
            (Point::Prewritten, Some(command::Body::CommitKeys(_))) => return Turn::KeepBack,
            _ => false,
        };
        if !is_counted {
            return Turn::Pass;
        }
        let range = sent.range.as_ref().map_or(0, |range| range.range_id);
        let mut let_through = self.let_through.lock();
        // The same range once more is a retry.
        if let_through.is_empty() || let_through.contains(&range) {
            let_through.insert(range);
            return Turn::PassFirst;
        }
        Turn::KeepBack
    }
}

impl Net for StoppingNet {
    fn call<'a>(
        &'a self,
        address: &'a str,
        request: request::Body,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<response::Body, CallError>> {
        let turn = self.turn(&request);
        Box::pin(async move {
            if let Turn::KeepBack = turn {
                if self.point != Point::Prewritten {
                    let mut answered = self.answered.subscribe();
                    answered.wait_for(|answered| *answered).await.expect("the sender is here");
                }
                say("stopped");
                return pending().await;
            }
            let answer = self.inner.call(address, request, timeout).await;
            let is_reply = matches!(answer, Ok(response::Body::TransactionCommand(_)));
            if matches!(turn, Turn::PassFirst) && is_reply {
                self.answered.send_replace(true);
            }
            answer
        })
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.inner.sleep(duration)
    }

    fn now(&self) -> Duration {
        self.inner.now()
    }

    fn random_below(&self, bound: u64) -> u64 {
        self.inner.random_below(bound)
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.inner.spawn(task);
    }
}

/// Timeout of the client, longer than any test lasts. At the timeout the client would roll back.
const PATIENCE: Duration = Duration::from_secs(600);

/// Prints a line and flushes it, so that a waiting reader gets it at once.
fn say(line: &str) {
    let mut out = std::io::stdout();
    writeln!(out, "{line}").and_then(|()| out.flush()).expect("somebody reads this");
}

#[tokio::main]
async fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [endpoints, point, value, keys @ ..] = &words[..] else {
        panic!("stopping-client ENDPOINTS POINT VALUE KEY...");
    };
    let point = Point::parse(point).expect("half-prewritten, prewritten or half-committed");
    let net = StoppingNet {
        inner: GrpcNet::new(),
        point,
        let_through: Mutex::default(),
        answered: watch::Sender::new(false),
    };
    let config = Config::from_list(endpoints).timeout(PATIENCE);
    let client = Client::with_net(Arc::new(net), config).unwrap();
    let txn = client.begin(TransactionOptions::default()).await.unwrap();
    for key in keys {
        txn.put(key.clone(), value.clone()).await.unwrap();
    }
    txn.commit().await.unwrap();
    say("committed");
    pending::<()>().await;
}
