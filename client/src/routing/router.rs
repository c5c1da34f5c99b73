//! Routing cache from keys to ranges and their leaders, filled from responses of the directory and
//! of nodes.
//!
//! The cache need not be right. A request carries the epoch that it was routed by. A node with a
//! newer descriptor refuses the request and returns what it knows. A wrong entry costs one round
//! trip, so three rules suffice:
//!
//! * Cached ranges never overlap. Of two that do, the one with the newer epoch stays.
//! * A doubtful range (a node did not know it, or no node leads it) is looked up again before its
//!   next use, and the directory's reply replaces it. If the directory does not respond, the
//!   range stays: data must not become unreachable because the control range is.
//! * A leader is believed until it fails or denies leading. The node that failed last is tried
//!   last.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use rangedb_proto::v1::{self, RangeDescriptor, ReplicaRole};
use rangedb_proto::{RangeDescriptorExt, v1::RangeLocation};

use crate::config::AddressKind;

/// Ranges cached at most, some 20 MB of them. Beyond that the cache is cleared: a client that uses
/// so many ranges pays one look-up for 16 of them.
const RANGES_MAX: usize = 64 * 1024;

/// Place in the key space whose range a request needs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RouteTarget<'a> {
    /// The range that holds this key.
    Key(&'a [u8]),
    /// The range that holds the last key before this one; empty: the last range.
    Below(&'a [u8]),
}

impl RouteTarget<'_> {
    pub fn is_in(&self, descriptor: &RangeDescriptor) -> bool {
        match *self {
            RouteTarget::Key(key) => descriptor.contains(key),
            RouteTarget::Below(end) => {
                let starts_below = end.is_empty() || descriptor.start_key < end;
                let reaches = descriptor.end_key.is_empty()
                    || (!end.is_empty() && end <= &descriptor.end_key[..]);
                starts_below && reaches
            }
        }
    }
}

/// A cached range, and the node to send to.
pub(crate) struct Route {
    pub descriptor: Arc<RangeDescriptor>,
    pub doubtful: bool,
    /// None: every replica with a known address was tried already.
    pub node: Option<NodeAddress>,
}

#[derive(Clone)]
pub(crate) struct NodeAddress {
    pub node_id: u64,
    pub address: Arc<str>,
}

pub(crate) struct Router {
    address_kind: AddressKind,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By start key.
    ranges: BTreeMap<Bytes, CachedRange>,
    /// By node id.
    addresses: BTreeMap<u64, Arc<str>>,
}

struct CachedRange {
    descriptor: Arc<RangeDescriptor>,
    /// Node id of the leader; 0: unknown.
    leader: u64,
    /// Node id of the node that failed last; 0: none.
    avoid: u64,
    doubtful: bool,
}

impl Router {
    pub fn new(address_kind: AddressKind) -> Self {
        Router { address_kind, state: Mutex::default() }
    }

    pub fn address_kind(&self) -> AddressKind {
        self.address_kind
    }

    /// Returns the cached range at a target, and the next of its nodes that is not in `tried`.
    pub fn route(&self, target: RouteTarget<'_>, tried: &BTreeSet<Arc<str>>) -> Option<Route> {
        let state = self.state.lock();
        let cached = state.find(target)?;
        Some(Route {
            descriptor: cached.descriptor.clone(),
            doubtful: cached.doubtful,
            node: state.next_node(cached, tried),
        })
    }

    /// Returns the node that leads the range of a key, if it is known.
    pub fn leader(&self, key: &[u8]) -> Option<NodeAddress> {
        let state = self.state.lock();
        let cached = state.find(RouteTarget::Key(key))?;
        let address = state.addresses.get(&cached.leader)?.clone();
        Some(NodeAddress { node_id: cached.leader, address })
    }

    pub fn addresses(&self) -> Vec<Arc<str>> {
        self.state.lock().addresses.values().cloned().collect()
    }

    /// Stores a reply of the directory. The range at the requested target replaces a doubtful one.
    pub fn learn(&self, target: RouteTarget<'_>, reply: v1::LocateReply) {
        let mut state = self.state.lock();
        for node in &reply.nodes {
            let address = self.address_kind.of_node(node);
            if !address.is_empty() {
                state.addresses.insert(node.node_id, Arc::from(address));
            }
        }
        let doubtful = state.find(target).is_some_and(|cached| cached.doubtful);
        for RangeLocation { descriptor, leader_node_id } in reply.ranges {
            if let Some(descriptor) = descriptor {
                let replace = doubtful && target.is_in(&descriptor);
                state.insert(descriptor, leader_node_id, replace);
            }
        }
    }

    /// Stores the descriptors from a node that refused a request's epoch.
    pub fn learn_descriptors(&self, descriptors: Vec<RangeDescriptor>) {
        let mut state = self.state.lock();
        for descriptor in descriptors {
            state.insert(descriptor, 0, false);
        }
    }

    /// Notes that the node answered as the leader.
    pub fn leads(&self, descriptor: &RangeDescriptor, node_id: u64) {
        self.update(descriptor, |cached| {
            cached.leader = node_id;
            if cached.avoid == node_id {
                cached.avoid = 0;
            }
        });
    }

    /// Notes the leader that another node named. If that leader has just failed here, the other
    /// nodes come first: they learn of its failure later, and one of them leads next.
    pub fn hint(&self, descriptor: &RangeDescriptor, leader_node_id: u64, address: &str) {
        let mut state = self.state.lock();
        if !address.is_empty() {
            state.addresses.insert(leader_node_id, Arc::from(address));
        }
        state.update(descriptor, |cached| {
            cached.leader = if leader_node_id == cached.avoid { 0 } else { leader_node_id };
        });
    }

    /// Notes that the node did not answer, or does not lead and does not know who does.
    pub fn turned_away(&self, descriptor: &RangeDescriptor, node_id: u64) {
        self.update(descriptor, |cached| {
            cached.avoid = node_id;
            if cached.leader == node_id {
                cached.leader = 0;
            }
        });
    }

    /// Marks a range that changed or cannot be reached: it is looked up before its next use.
    pub fn doubt(&self, descriptor: &RangeDescriptor) {
        self.update(descriptor, |cached| cached.doubtful = true);
    }

    /// Clears the doubt about a range that could not be looked up: it is used as it is.
    pub fn trust(&self, descriptor: &RangeDescriptor) {
        self.update(descriptor, |cached| cached.doubtful = false);
    }

    fn update(&self, descriptor: &RangeDescriptor, change: impl FnOnce(&mut CachedRange)) {
        self.state.lock().update(descriptor, change);
    }
}

impl State {
    fn find(&self, target: RouteTarget<'_>) -> Option<&CachedRange> {
        let below = match target {
            RouteTarget::Key(key) => (Bound::Unbounded, Bound::Included(key)),
            RouteTarget::Below([]) => (Bound::Unbounded, Bound::Unbounded),
            RouteTarget::Below(end) => (Bound::Unbounded, Bound::Excluded(end)),
        };
        let (_, cached) = self.ranges.range::<[u8], _>(below).next_back()?;
        target.is_in(&cached.descriptor).then_some(cached)
    }

    /// Changes the cached range if it still is the one that the caller used.
    fn update(&mut self, descriptor: &RangeDescriptor, change: impl FnOnce(&mut CachedRange)) {
        if let Some(cached) = self.ranges.get_mut(&descriptor.start_key) {
            let same = cached.descriptor.range_id == descriptor.range_id
                && cached.descriptor.epoch() == descriptor.epoch();
            if same {
                change(cached);
            }
        }
    }

    /// The next node to send to: the leader, then voters, then learners; the one that failed last
    /// comes last.
    fn next_node(&self, cached: &CachedRange, tried: &BTreeSet<Arc<str>>) -> Option<NodeAddress> {
        let address_of = |node_id: u64| {
            let address = self.addresses.get(&node_id).filter(|a| !tried.contains(*a))?;
            Some(NodeAddress { node_id, address: address.clone() })
        };
        let replicas = &cached.descriptor.replicas;
        let usual = replicas.iter().filter(|r| r.node_id != cached.avoid);
        let voters = usual.clone().filter(|r| r.role() != ReplicaRole::Learner);
        let learners = usual.filter(|r| r.role() == ReplicaRole::Learner);
        let avoided = replicas.iter().filter(|r| r.node_id == cached.avoid);
        let in_order = voters.chain(learners).chain(avoided).map(|r| r.node_id);
        std::iter::once(cached.leader).chain(in_order).find_map(address_of)
    }

    /// Inserts a range, unless a newer one is cached that overlaps it. `leader` is 0 if unknown.
    /// With `replace`, the range replaces newer ones too.
    fn insert(&mut self, descriptor: RangeDescriptor, leader: u64, replace: bool) {
        let overlapping = self.overlapping(&descriptor);
        let mut inherited = None;
        for start in &overlapping {
            let cached = self.ranges.get_mut(start).expect("found just now");
            let same_range = cached.descriptor.range_id == descriptor.range_id;
            if same_range {
                inherited = Some((cached.leader, cached.avoid));
            }
            if !replace && is_newer(&cached.descriptor, &descriptor) {
                return;
            }
            if !replace && same_range && cached.descriptor.epoch() == descriptor.epoch() {
                // Nothing is new except perhaps the leader. The node that answered last knows the
                // leader better than the directory.
                if cached.leader == 0 && leader != cached.avoid {
                    cached.leader = leader;
                }
                return;
            }
        }
        for start in &overlapping {
            self.ranges.remove(start);
        }
        if self.ranges.len() >= RANGES_MAX {
            self.ranges.clear();
        }
        let (leader_before, avoid) = inherited.unwrap_or((0, 0));
        // The directory learns of a dead leader later than the client.
        let leader = if leader == 0 || leader == avoid { leader_before } else { leader };
        let leader = if descriptor.replica_on(leader).is_some() { leader } else { 0 };
        let start = descriptor.start_key.clone();
        let descriptor = Arc::new(descriptor);
        self.ranges.insert(start, CachedRange { descriptor, leader, avoid, doubtful: false });
    }

    /// Start keys of cached ranges that overlap this one.
    fn overlapping(&self, descriptor: &RangeDescriptor) -> Vec<Bytes> {
        let (start, end) = (&descriptor.start_key, &descriptor.end_key);
        let before = self.ranges.range::<Bytes, _>(..start).next_back();
        let before = before.filter(|(_, cached)| {
            cached.descriptor.end_key.is_empty() || cached.descriptor.end_key > start
        });
        let from = self.ranges.range::<Bytes, _>(start..);
        let inside = from.take_while(|(cached, _)| end.is_empty() || *cached < end);
        before.into_iter().chain(inside).map(|(start, _)| start.clone()).collect()
    }
}

/// True if `a` is newer than `b`, for one range or for two that overlap. A split or merge gives the
/// resulting ranges a higher version than their sources.
fn is_newer(a: &RangeDescriptor, b: &RangeDescriptor) -> bool {
    let (ea, eb) = (a.epoch(), b.epoch());
    if a.range_id == b.range_id {
        (ea.version, ea.conf_ver) > (eb.version, eb.conf_ver)
    } else {
        ea.version > eb.version
    }
}

#[cfg(test)]
mod tests;
