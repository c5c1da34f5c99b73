//! Cycles of dependencies, and their classes.
//!
//! The names are Adya's ("Weak Consistency: A Generalized Theory and Optimistic Implementations for
//! Distributed Transactions", 1999), as Elle has refined them. From the worst on:
//!
//! | class | edges | known as |
//! |---|---|---|
//! | G0 | ww | dirty write |
//! | G1c | ww, wr | circular information flow |
//! | G-single | one rw | read skew, lost update, a stale read if real time is among the edges |
//! | G-nonadjacent | several rw, never two in a row | long fork |
//! | G2 | two rw in a row | write skew |
//!
//! Each class also exists with edges of real time, if without them there would be no cycle of the
//! class.
//!
//! For each strongly connected component, the search returns one short cycle of the worst class
//! that it finds. The search is bounded. In a component that is larger than the bounds it may
//! return a milder class than the worst, but never none.

use std::collections::VecDeque;
use std::fmt;

use petgraph::algo::kosaraju_scc;
use petgraph::graph::NodeIndex;
use petgraph::visit::EdgeRef;

use super::graph::{Edge, Graph, Kind, Point};

/// Maximum number of edges from which cycles are searched in one component and class. A search
/// visits the component once. Components of this size are already beyond what anybody reads.
const STARTS_MAX: usize = 512;

/// Maximum number of components with a returned cycle. A broken cluster has thousands.
const COMPONENTS_MAX: usize = 16;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum CycleClass {
    G0,
    G1c,
    GSingle,
    GNonadjacent,
    G2,
}

impl fmt::Display for CycleClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CycleClass::G0 => "G0",
            CycleClass::G1c => "G1c",
            CycleClass::GSingle => "G-single",
            CycleClass::GNonadjacent => "G-nonadjacent",
            CycleClass::G2 => "G2",
        })
    }
}

/// An edge of a cycle, from one point to the next.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub from: Point,
    pub to: Point,
    pub edge: Edge,
}

#[derive(Clone, Debug)]
pub struct Cycle {
    pub class: CycleClass,
    /// True if one of the edges follows from real time alone.
    pub real_time: bool,
    pub steps: Vec<Step>,
}

/// Finds one cycle for each of the smallest components.
pub fn find(graph: &Graph) -> Vec<Cycle> {
    let mut components = kosaraju_scc(graph);
    components.retain(|component| component.len() > 1);
    components.sort_by_key(Vec::len);
    components.truncate(COMPONENTS_MAX);
    components.iter().map(|component| Component::of(graph, component).worst()).collect()
}

/// Edges that a search may use.
#[derive(Clone, Copy)]
struct Allowed {
    write_read: bool,
    real_time: bool,
    read_write: ReadWrite,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ReadWrite {
    /// Only the edge that the search begins with.
    First,
    Nonadjacent,
    Any,
}

impl Allowed {
    fn edge(&self, kind: Kind) -> bool {
        match kind {
            Kind::WriteWrite | Kind::Within => true,
            Kind::WriteRead => self.write_read,
            Kind::RealTime => self.real_time,
            Kind::ReadWrite => self.read_write != ReadWrite::First,
        }
    }
}

#[derive(Clone, Copy)]
struct Arc {
    from: usize,
    to: usize,
    edge: Edge,
}

/// A strongly connected component of the graph by itself.
struct Component {
    points: Vec<Point>,
    arcs: Vec<Arc>,
    /// Indexes into `arcs`, by the point where the arc begins.
    leaving: Vec<Vec<usize>>,
}

impl Component {
    fn of(graph: &Graph, nodes: &[NodeIndex]) -> Self {
        let mut nodes = nodes.to_vec();
        nodes.sort();
        let place = |node: NodeIndex| nodes.binary_search(&node).ok();
        let mut arcs = Vec::new();
        let mut leaving = vec![Vec::new(); nodes.len()];
        for (from, node) in nodes.iter().enumerate() {
            for edge in graph.edges(*node) {
                let Some(to) = place(edge.target()) else { continue };
                leaving[from].push(arcs.len());
                arcs.push(Arc { from, to, edge: *edge.weight() });
            }
        }
        Component { points: nodes.iter().map(|node| graph[*node]).collect(), arcs, leaving }
    }

    fn worst(&self) -> Cycle {
        let passes = [
            (Kind::WriteWrite, false, ReadWrite::First),
            (Kind::WriteRead, true, ReadWrite::First),
            (Kind::ReadWrite, true, ReadWrite::First),
            (Kind::ReadWrite, true, ReadWrite::Nonadjacent),
            (Kind::ReadWrite, true, ReadWrite::Any),
        ];
        for (through, write_read, read_write) in passes {
            for real_time in [false, true] {
                let allowed = Allowed { write_read, real_time, read_write };
                if let Some(cycle) = self.shortest(through, allowed) {
                    return cycle;
                }
            }
        }
        // The passes found nothing within their bounds. Every edge within a component lies on a
        // cycle of it.
        let any = Allowed { write_read: true, real_time: true, read_write: ReadWrite::Any };
        self.cycle_through(0, any).expect("an edge within a component lies on a cycle")
    }

    /// Finds the shortest of the cycles through edges of a kind.
    fn shortest(&self, through: Kind, allowed: Allowed) -> Option<Cycle> {
        let starts = (0..self.arcs.len()).filter(|arc| self.arcs[*arc].edge.kind == through);
        let found = starts.take(STARTS_MAX).filter_map(|arc| self.cycle_through(arc, allowed));
        found.min_by_key(|cycle| cycle.steps.len())
    }

    /// Finds the shortest cycle that begins with an edge.
    fn cycle_through(&self, first: usize, allowed: Allowed) -> Option<Cycle> {
        let Arc { from: goal, to: start, edge } = self.arcs[first];
        let nonadjacent = allowed.read_write == ReadWrite::Nonadjacent;
        // A state is a point, and a flag that is set if an rw edge led there. The flag only matters
        // if two rw edges in a row are not allowed.
        let state = |point: usize, kind: Kind| {
            2 * point + usize::from(nonadjacent && kind == Kind::ReadWrite)
        };
        let begin = state(start, edge.kind);
        let mut reached_by: Vec<Option<(usize, usize)>> = vec![None; 2 * self.points.len()];
        let mut pending = VecDeque::from([begin]);
        while let Some(at) = pending.pop_front() {
            let (point, by_read_write) = (at / 2, at % 2 == 1);
            for place in &self.leaving[point] {
                let arc = self.arcs[*place];
                let in_a_row = by_read_write && arc.edge.kind == Kind::ReadWrite;
                if !allowed.edge(arc.edge.kind) || in_a_row {
                    continue;
                }
                let next = state(arc.to, arc.edge.kind);
                if arc.to == goal && !(nonadjacent && next % 2 == 1) {
                    return Some(self.cycle(first, begin, at, *place, &reached_by));
                }
                if next != begin && reached_by[next].is_none() {
                    reached_by[next] = Some((at, *place));
                    pending.push_back(next);
                }
            }
        }
        None
    }

    fn cycle(
        &self,
        first: usize,
        begin: usize,
        mut at: usize,
        last: usize,
        reached_by: &[Option<(usize, usize)>],
    ) -> Cycle {
        let mut arcs = vec![last];
        while at != begin {
            let (before, arc) = reached_by[at].expect("reached from the begin");
            arcs.push(arc);
            at = before;
        }
        arcs.push(first);
        arcs.reverse();
        let step = |arc: &usize| {
            let Arc { from, to, edge } = self.arcs[*arc];
            Step { from: self.points[from], to: self.points[to], edge }
        };
        let steps: Vec<Step> = arcs.iter().map(step).collect();
        let real_time = steps.iter().any(|step| step.edge.kind == Kind::RealTime);
        Cycle { class: class_of(&steps), real_time, steps }
    }
}

fn class_of(steps: &[Step]) -> CycleClass {
    let is = |step: &Step, kind: Kind| step.edge.kind == kind;
    let read_writes = steps.iter().filter(|step| is(step, Kind::ReadWrite)).count();
    let next = |place: usize| &steps[(place + 1) % steps.len()];
    let mut pairs = steps.iter().enumerate();
    let in_a_row = |(place, step): (usize, &Step)| {
        is(step, Kind::ReadWrite) && is(next(place), Kind::ReadWrite)
    };
    match read_writes {
        0 if steps.iter().any(|step| is(step, Kind::WriteRead)) => CycleClass::G1c,
        0 => CycleClass::G0,
        1 => CycleClass::GSingle,
        _ if pairs.any(in_a_row) => CycleClass::G2,
        _ => CycleClass::GNonadjacent,
    }
}
