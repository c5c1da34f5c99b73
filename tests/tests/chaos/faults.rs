//! Faults of a cluster while clients work: processes and links, drawn from a seed.
//!
//! A round first draws its kinds of faults: a few kinds that come often find more than all of them
//! at once. An episode is one fault, or one of processes and one of links together, and lasts for a
//! drawn time.

use std::fmt;
use std::time::Duration;

use fastrand::Rng;

use super::link::State;
use super::network::NetworkPlace;
use super::world::World;

/// Duration of an episode: from less than an election to a few of them (about two seconds each).
const LASTS_MS: std::ops::RangeInclusive<u64> = 300..=6_000;

/// Duration of the quiet after an episode.
const QUIET_MS: std::ops::RangeInclusive<u64> = 0..=2_500;

/// Delay of a slow link: up to well beyond a heartbeat (100 ms).
const SLOW_MS: std::ops::RangeInclusive<u64> = 5..=300;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// `kill -9` of one node.
    KillOne,
    /// `kill -9` of a majority, or of all nodes.
    KillMany,
    /// SIGSTOP, later SIGCONT.
    Freeze,
    /// Each node in turn is stopped in good order and started again.
    RollingRestart,
    /// One node loses all others and keeps its clients.
    Isolate,
    /// One node hears nothing from the others, or they nothing from it.
    OneWay,
    /// Two sides; clients reach both.
    Split,
    /// Every node reaches its two neighbours only. In a ring of five, no majority is fully
    /// connected; of three nodes, two lose each other.
    Ring,
    /// Some links in one direction, those to and from clients too.
    Links,
    /// Clients lose a node that everybody else reaches.
    NoClients,
    Slow,
    /// Connections are reset, and new ones are refused while the fault lasts.
    Break,
}

impl Kind {
    const PROCESSES: [Kind; 4] =
        [Kind::KillOne, Kind::KillMany, Kind::Freeze, Kind::RollingRestart];
    const LINKS: [Kind; 8] = [
        Kind::Isolate,
        Kind::OneWay,
        Kind::Split,
        Kind::Ring,
        Kind::Links,
        Kind::NoClients,
        Kind::Slow,
        Kind::Break,
    ];

    /// Draws the kinds of faults of a round: some of processes, some of links, or some of both.
    pub fn draw(rng: &mut Rng) -> Vec<Kind> {
        let mut some = |kinds: &[Kind]| {
            let mut kinds = kinds.to_vec();
            rng.shuffle(&mut kinds);
            kinds.truncate(rng.usize(1..=kinds.len()));
            kinds
        };
        let (processes, links) = (some(&Kind::PROCESSES), some(&Kind::LINKS));
        match rng.u8(0..4) {
            0 => processes,
            1 => links,
            _ => [processes, links].concat(),
        }
    }

    fn is_of_processes(self) -> bool {
        Kind::PROCESSES.contains(&self)
    }
}

/// A drawn fault with its nodes or links.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fault {
    Kill(Vec<NetworkPlace>),
    Freeze(NetworkPlace),
    RollingRestart,
    Links(Vec<(NetworkPlace, NetworkPlace)>, State),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Kill(nodes) => write!(f, "kill {nodes:?}"),
            Fault::Freeze(node) => write!(f, "freeze {node}"),
            Fault::RollingRestart => write!(f, "rolling restart"),
            Fault::Links(links, state) => write!(f, "{state:?} {links:?}"),
        }
    }
}

/// Faults of one episode and its times.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Episode {
    pub faults: Vec<Fault>,
    pub lasts: Duration,
    pub quiet: Duration,
}

impl fmt::Display for Episode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: Vec<String> = self.faults.iter().map(Fault::to_string).collect();
        write!(f, "{}, for {:?}, then quiet for {:?}", faults.join(", "), self.lasts, self.quiet)
    }
}

impl Episode {
    /// Draws an episode. The places of nodes count from 0; the place behind the last is that of
    /// clients.
    pub fn draw(rng: &mut Rng, kinds: &[Kind], nodes: usize) -> Episode {
        let first = kinds[rng.usize(0..kinds.len())];
        let mut faults = vec![Fault::draw(rng, first, nodes)];
        let others: Vec<Kind> = kinds
            .iter()
            .copied()
            .filter(|kind| kind.is_of_processes() != first.is_of_processes())
            .collect();
        // A graceful restart of a node needs the other nodes, so no second fault is added.
        let alone = |kind: Kind| kind == Kind::RollingRestart;
        if !others.is_empty() && !alone(first) && rng.bool() {
            let second = others[rng.usize(0..others.len())];
            if !alone(second) {
                faults.push(Fault::draw(rng, second, nodes));
            }
        }
        let lasts = Duration::from_millis(rng.u64(LASTS_MS));
        let quiet = Duration::from_millis(rng.u64(QUIET_MS));
        Episode { faults, lasts, quiet }
    }
}

impl Fault {
    fn draw(rng: &mut Rng, kind: Kind, nodes: usize) -> Fault {
        let clients = nodes;
        let one = rng.usize(0..nodes);
        let others = || (0..nodes).filter(move |node| *node != one);
        let mut shuffled: Vec<NetworkPlace> = (0..nodes).collect();
        rng.shuffle(&mut shuffled);
        let stalled = |links| Fault::Links(links, State::Stalled);
        match kind {
            Kind::KillOne => Fault::Kill(vec![one]),
            Kind::KillMany => {
                shuffled.truncate(rng.usize(nodes / 2 + 1..=nodes));
                Fault::Kill(shuffled)
            }
            Kind::Freeze => Fault::Freeze(one),
            Kind::RollingRestart => Fault::RollingRestart,
            Kind::Isolate => stalled(others().flat_map(|other| both_ways(one, other)).collect()),
            Kind::OneWay => {
                let mute = rng.bool();
                let link = |other| if mute { (one, other) } else { (other, one) };
                stalled(others().map(link).collect())
            }
            Kind::Split => {
                let side = rng.usize(1..nodes);
                let (left, right) = shuffled.split_at(side);
                let pairs = left.iter().flat_map(|l| right.iter().map(|r| (*l, *r)));
                stalled(pairs.flat_map(|(l, r)| both_ways(l, r)).collect())
            }
            Kind::Ring => {
                // In a ring of three, all nodes are neighbours, so one link is cut instead.
                let reach = if nodes > 3 { shuffled.len() } else { 0 };
                let next = |place: usize| (place + 1) % nodes;
                let cut = |a: usize, b: usize| match reach {
                    0 => (a, b) == (0, 1),
                    _ => next(a) != b && next(b) != a,
                };
                let pairs = (0..nodes).flat_map(|a| (a + 1..nodes).map(move |b| (a, b)));
                let missing = pairs.filter(|(a, b)| cut(*a, *b));
                let links = missing.flat_map(|(a, b)| both_ways(shuffled[a], shuffled[b]));
                stalled(links.collect())
            }
            Kind::Links => stalled(some_links(rng, nodes + 1)),
            Kind::NoClients => stalled(both_ways(one, clients).to_vec()),
            Kind::Slow => {
                let delay = Duration::from_millis(rng.u64(SLOW_MS));
                Fault::Links(some_links(rng, nodes + 1), State::Slow(delay))
            }
            Kind::Break => Fault::Links(some_links(rng, nodes + 1), State::Broken),
        }
    }

    /// Begins the fault. A rolling restart is over when this returns; other faults last until
    /// `end`.
    pub async fn begin(&self, world: &mut World) {
        match self {
            Fault::Kill(nodes) => nodes.iter().for_each(|node| world.kill(*node)),
            Fault::Freeze(node) => world.freeze(*node).await,
            Fault::Links(links, state) => world.set(links, *state),
            Fault::RollingRestart => {
                for node in 0..world.nodes() {
                    world.stop(node).await;
                    world.start_node(node);
                    world.whole().await;
                }
            }
        }
    }

    pub fn end(&self, world: &mut World) {
        match self {
            Fault::Kill(nodes) => nodes.iter().for_each(|node| world.start_node(*node)),
            Fault::Freeze(node) => world.thaw(*node),
            Fault::Links(links, _) => world.set(links, State::Open),
            Fault::RollingRestart => {}
        }
    }
}

fn both_ways(a: NetworkPlace, b: NetworkPlace) -> [(NetworkPlace, NetworkPlace); 2] {
    [(a, b), (b, a)]
}

/// Draws at least one directed link, at most half of them.
fn some_links(rng: &mut Rng, places: usize) -> Vec<(NetworkPlace, NetworkPlace)> {
    let pairs = (0..places).flat_map(|from| (0..places).map(move |to| (from, to)));
    let mut links: Vec<(NetworkPlace, NetworkPlace)> =
        pairs.filter(|(from, to)| from != to).collect();
    rng.shuffle(&mut links);
    links.truncate(rng.usize(1..=links.len() / 2));
    links
}

#[test]
fn a_seed_always_draws_the_same_faults() {
    let draw = |seed| {
        let mut rng = Rng::with_seed(seed);
        let kinds = Kind::draw(&mut rng);
        (0..20).map(|_| Episode::draw(&mut rng, &kinds, 5)).collect::<Vec<_>>()
    };
    assert_eq!(draw(3), draw(3));
    assert_ne!(draw(3), draw(4));
}

#[test]
fn every_kind_of_fault_is_drawn_and_concerns_places_that_there_are() {
    let mut rng = Rng::with_seed(1);
    let mut seen = Vec::new();
    for _ in 0..200 {
        let kinds = Kind::draw(&mut rng);
        assert!(!kinds.is_empty());
        for nodes in [3, 5] {
            for fault in Episode::draw(&mut rng, &kinds, nodes).faults {
                match fault {
                    Fault::Kill(killed) => assert!(killed.iter().all(|node| *node < nodes)),
                    Fault::Freeze(node) => assert!(node < nodes),
                    Fault::Links(links, _) => {
                        assert!(!links.is_empty());
                        assert!(links.iter().all(|(a, b)| a != b && *a.max(b) <= nodes));
                    }
                    Fault::RollingRestart => {}
                }
            }
        }
        seen.extend(kinds);
    }
    for kind in Kind::PROCESSES.into_iter().chain(Kind::LINKS) {
        assert!(seen.contains(&kind), "{kind:?}");
    }
}

#[test]
fn in_a_ring_of_five_every_node_reaches_two_others() {
    let mut rng = Rng::with_seed(1);
    let Fault::Links(cut, State::Stalled) = Fault::draw(&mut rng, Kind::Ring, 5) else {
        panic!("a ring is made of links")
    };
    for node in 0..5 {
        let reached = (0..5).filter(|other| *other != node && !cut.contains(&(node, *other)));
        assert_eq!(reached.count(), 2);
    }
}
