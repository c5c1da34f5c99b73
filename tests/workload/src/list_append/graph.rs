//! Dependency graph of transactions: which must have come before which other.
//!
//! Every serializable transaction is a point in time, a snapshot transaction two: where it read and
//! where it wrote. An edge says that one point is before another:
//!
//! | edge | from | to | because |
//! |---|---|---|---|
//! | ww | the write of a version | the start of who wrote the next one | nobody writes a key between another's read and write of it |
//! | wr | the write of a version | the start of who read it | it was seen |
//! | rw | the start of who read a version | the write of the next one | it was not seen |
//! | rt | the write | the start of who began after the answer | real time |
//!
//! The points cannot be put in order if and only if there is a cycle. So one graph serves histories
//! in which both levels occur, and write skew between snapshot transactions is no cycle of it.
//!
//! Edges of real time would be as many as pairs of transactions. Instead there is a point for every
//! answer, after the answer before it, and before whatever begins next: edges lead through those.

use petgraph::graph::{DiGraph, NodeIndex};

use super::observe::{KeyId, Observations};
use super::{Element, Level};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Point {
    /// Where a transaction read, and where it wrote too if it is serializable.
    Start(usize),
    /// Where a snapshot transaction wrote.
    Commit(usize),
    /// An answer came.
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
    /// Which key and element of the writer tell it; none for real time and within.
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

    /// An edge to the writer of an element.
    fn add(&mut self, kind: Kind, from: Option<usize>, key: KeyId, element: Element) {
        let edge = Edge { kind, by: Some((key, element)) };
        self.connect(from, self.observed.writer(key, element), edge);
    }

    /// Nobody depends on himself, nor on a transaction that did not commit.
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
            // What is unknown may happen at any time after its begin: no answer tells otherwise.
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
