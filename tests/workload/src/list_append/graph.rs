//! Dependency graph of transactions: its edges say which came before which other.
//!
//! A serializable transaction is one point in time. A snapshot transaction is two points: its reads
//! and its writes. An edge says that one point is before another:
//!
//! | edge | from | to | because |
//! |---|---|---|---|
//! | ww | the write of a version | the start of the next version's writer | no write between |
//! | wr | the write of a version | the start of its reader | it was seen |
//! | rw | the start of a version's reader | the write of the next version | it was not seen |
//! | rt | the write | the start of a transaction that began after the answer | real time |
//!
//! "No write between" means that nobody writes a key between another transaction's read and write
//! of it.
//!
//! The points have an order if and only if the graph has no cycle. So one graph serves histories in
//! which both levels occur, and write skew between snapshot transactions is no cycle of it.
//!
//! Direct edges of real time would be as many as pairs of transactions. Instead, every answer has a
//! point. It comes after the answer before it, and before all transactions that begin after it.

use petgraph::graph::{DiGraph, NodeIndex};

use super::observe::{KeyId, Observations};
use super::{Element, Level};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Point {
    /// Reads of a transaction, and its writes too if it is serializable.
    Start(usize),
    /// Writes of a snapshot transaction.
    Commit(usize),
    /// Answer to a transaction.
    Answer,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    WriteWrite,
    WriteRead,
    ReadWrite,
    RealTime,
    /// From a snapshot transaction's start to its commit.
    Within,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Edge {
    pub kind: Kind,
    /// Key and element of the writer that prove the edge; none for real time and within.
    pub by: Option<(KeyId, Element)>,
}

pub type Graph = DiGraph<Point, Edge>;

struct Builder<'a> {
    observed: &'a Observations<'a>,
    graph: Graph,
    starts: Vec<Option<NodeIndex>>,
    commits: Vec<Option<NodeIndex>>,
}

pub fn build(observed: &Observations<'_>) -> Graph {
    let count = observed.history.len();
    let (starts, commits) = (vec![None; count], vec![None; count]);
    let mut builder = Builder { observed, graph: Graph::new(), starts, commits };
    builder.add_points();
    builder.add_dependencies();
    builder.add_real_time();
    builder.graph
}

impl Builder<'_> {
    fn add_points(&mut self) {
        for place in
            (0..self.observed.history.len()).filter(|place| self.observed.committed[*place])
        {
            let start = self.graph.add_node(Point::Start(place));
            let commit = match self.observed.transaction(place).level {
                Level::Serializable => start,
                Level::Snapshot => {
                    let commit = self.graph.add_node(Point::Commit(place));
                    self.graph.add_edge(start, commit, Edge { kind: Kind::Within, by: None });
                    commit
                }
            };
            self.starts[place] = Some(start);
            self.commits[place] = Some(commit);
        }
    }

    fn add_dependencies(&mut self) {
        for (key, versions) in self.observed.versions.iter().enumerate() {
            let order = &versions.order;
            for pair in order.windows(2) {
                self.add(Kind::WriteWrite, self.observed.writer(key, pair[0]), key, pair[1]);
            }
            for unseen in &versions.unseen {
                let last = order.last().and_then(|last| self.observed.writer(key, *last));
                self.add(Kind::WriteWrite, last, key, *unseen);
            }
            for seen in &versions.seen {
                if let Some(last) = order[..seen.length].last() {
                    let edge = Edge { kind: Kind::WriteRead, by: Some((key, *last)) };
                    self.connect(self.observed.writer(key, *last), Some(seen.reader), edge);
                }
                match order.get(seen.length) {
                    Some(next) => self.add(Kind::ReadWrite, Some(seen.reader), key, *next),
                    None => {
                        for unseen in &versions.unseen {
                            self.add(Kind::ReadWrite, Some(seen.reader), key, *unseen);
                        }
                    }
                }
            }
        }
    }

    /// Adds an edge to the writer of an element.
    fn add(&mut self, kind: Kind, from: Option<usize>, key: KeyId, element: Element) {
        let edge = Edge { kind, by: Some((key, element)) };
        self.connect(from, self.observed.writer(key, element), edge);
    }

    /// Adds an edge, unless both ends are the same transaction or one of them did not commit.
    fn connect(&mut self, from: Option<usize>, to: Option<usize>, edge: Edge) {
        let (Some(from), Some(to)) = (from, to) else { return };
        if from == to {
            return;
        }
        let (from, to) = match edge.kind {
            Kind::ReadWrite => (self.starts[from], self.commits[to]),
            _ => (self.commits[from], self.starts[to]),
        };
        let point = "a committed transaction has its points";
        self.graph.add_edge(from.expect(point), to.expect(point), edge);
    }

    fn add_real_time(&mut self) {
        enum Event {
            Answered(NodeIndex),
            Begun(NodeIndex),
        }
        let mut events = Vec::new();
        for (place, transaction) in self.observed.history.iter().enumerate() {
            let (Some(start), Some(commit)) = (self.starts[place], self.commits[place]) else {
                continue;
            };
            events.push((transaction.began, Event::Begun(start)));
            // A transaction with an unknown outcome may happen at any time after its begin. Its
            // answer does not bound that.
            if let (Some(ended), crate::history::Outcome::Ok) =
                (transaction.ended, transaction.outcome)
            {
                events.push((ended, Event::Answered(commit)));
            }
        }
        events.sort_by_key(|(stamp, _)| *stamp);
        let edge = Edge { kind: Kind::RealTime, by: None };
        let mut last = None;
        for (_, event) in events {
            match event {
                Event::Begun(start) => {
                    if let Some(last) = last {
                        self.graph.add_edge(last, start, edge);
                    }
                }
                Event::Answered(commit) => {
                    let answer = self.graph.add_node(Point::Answer);
                    self.graph.add_edge(commit, answer, edge);
                    if let Some(last) = last {
                        self.graph.add_edge(last, answer, edge);
                    }
                    last = Some(answer);
                }
            }
        }
    }
}
