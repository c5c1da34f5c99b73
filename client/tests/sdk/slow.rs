//! The log of slow transactions, and traces.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::fake::Cluster;
use rangedb_client::net::Net;
use rangedb_client::trace::TraceContext;
use rangedb_client::{Client, Config, TransactionOptions};
use tracing::field::{Field, Visit};
use tracing::{Event, Metadata, Subscriber, span};

/// A subscriber that records events of the level WARN and, if `wants_spans`, spans.
#[derive(Clone)]
struct Listener {
    wants_spans: bool,
    heard: Arc<Mutex<Vec<String>>>,
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = write!(self.0, "{}={value:?} ", field.name());
    }
}

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::WARN
            || (self.wants_spans && metadata.target() == "rangedb_client::trace")
    }

    fn new_span(&self, attributes: &span::Attributes<'_>) -> span::Id {
        let mut line = Line(String::new());
        attributes.record(&mut line);
        let mut heard = self.heard.lock();
        heard.push(line.0);
        span::Id::from_u64(heard.len() as u64)
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        self.heard.lock().push(line.0);
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// Runs a task, and returns the lines that were recorded.
fn hear(wants_spans: bool, task: impl FnOnce()) -> Vec<String> {
    let listener = Listener { wants_spans, heard: Arc::default() };
    tracing::subscriber::with_default(listener.clone(), task);
    std::mem::take(&mut listener.heard.lock())
}

async fn write(client: &Client) {
    let txn = client.begin(TransactionOptions::default()).await.unwrap();
    txn.get("a").await.unwrap();
    for key in ["a", "b", "z"] {
        txn.put(key, "1").await.unwrap();
    }
    txn.commit().await.unwrap();
}

#[test]
fn a_slow_transaction_is_logged_with_what_it_spent_its_time_on() {
    for (threshold, lines) in [(Duration::from_millis(5), 1), (Duration::from_secs(1), 0)] {
        let cluster = Cluster::with_seed(1);
        let config = Config::new(["n1:1"]).slow_transaction(threshold);
        let client = Client::with_net(Arc::new(cluster.clone()), config).unwrap();
        let heard = hear(false, || cluster.run(write(&client)));
        assert_eq!(heard.len(), lines, "{heard:?}");
        for said in heard {
            for part in ["path=\"two-phase\"", "keys=3", "ranges=2", "outcome=\"committed\""] {
                assert!(said.contains(part), "{said}");
            }
            for phase in ["reads=", "prewrite=", "timestamp=", "validate=", "primary="] {
                assert!(!said.contains(&format!("{phase}0ns")), "{said}");
            }
            assert!(said.contains("locks=0ns"), "{said}");
        }
    }
}

#[test]
fn operations_and_calls_are_spans_of_the_callers_trace() {
    let cluster = Cluster::with_seed(1);
    let client = cluster.client();
    let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let context = TraceContext::parse(text).unwrap();
    let put = client.put("a", "1");
    let heard = hear(true, || drop(cluster.run(context.scope(put)).unwrap()));
    let of_trace = heard.iter().filter(|said| said.contains("4bf92f3577b34da6a3ce929d0e0e4736"));
    assert!(
        of_trace.clone().any(|said| {
            said.contains("operation=\"write\"") && said.contains("00f067aa0ba902b7")
        })
    );
    assert!(of_trace.clone().any(|said| said.contains("operation=\"call\"")), "{heard:?}");
    assert_eq!(TraceContext::current(), None);
}

#[test]
fn without_a_listener_or_a_trace_nothing_is_made_up() {
    let random = |traced: bool| {
        let cluster = Cluster::with_seed(1);
        let client = cluster.client();
        let put = client.put("a", "1");
        hear(traced, || drop(cluster.run(put).unwrap()));
        cluster.random_below(u64::MAX)
    };
    assert_eq!(random(false), {
        let cluster = Cluster::with_seed(1);
        cluster.run(cluster.client().put("a", "1")).unwrap();
        cluster.random_below(u64::MAX)
    });
    assert_ne!(random(false), random(true));
}
