//! Rules of voting. Pure: they change an [`Identity`], which the caller makes durable before it
//! answers.

use rangedb_proto::Timestamp;
use rangedb_proto::v1::{BootstrapReply, Formation, NodeDescriptor};

use crate::founding::check_split_keys;
use crate::shell::identity::{Ballot, Identity};

/// Latest time at which a cluster is founded, in milliseconds since 1970: half of what timestamps can
/// count.
pub(super) const FOUNDED_UNIX_MS_MAX: u64 = Timestamp::MILLIS_MAX / 2;

/// Maximum distance of a ballot's round above the promised one: more rounds than proposers can have
/// tried, and few enough that rounds do not run out.
const ROUNDS_AHEAD_MAX: u64 = 1 << 32;

/// Promises to take no part in lower ballots. True if promised.
pub(super) fn prepare(identity: &mut Identity, ballot: Ballot) -> bool {
    // A second request under one ballot is from the same proposer, which lost the answer.
    if identity.membership().is_some()
        || identity.promised() > Some(ballot)
        || !is_near(identity, ballot)
    {
        return false;
    }
    identity.set_promised(ballot);
    true
}

/// Accepts a formation under a ballot, unless a higher one was promised. True if accepted.
pub(super) fn accept(identity: &mut Identity, ballot: Ballot, formation: &Formation) -> bool {
    let promised_higher = identity.promised() > Some(ballot);
    if identity.membership().is_some()
        || promised_higher
        || !is_near(identity, ballot)
        || !is_sound(formation)
    {
        return false;
    }
    identity.set_promised(ballot);
    identity.set_accepted(ballot, formation);
    true
}

/// True if other proposers can still go above the ballot. A promised ballot of the last round would
/// keep a cluster from ever being formed.
fn is_near(identity: &Identity, ballot: Ballot) -> bool {
    let promised = identity.promised().map_or(0, |promised| promised.round);
    ballot.round <= promised.saturating_add(ROUNDS_AHEAD_MAX)
}

/// True if a cluster can be made of the formation.
pub(super) fn is_sound(formation: &Formation) -> bool {
    let ids = formation.nodes.iter().map(|node| node.node_id);
    formation.cluster_id != 0
        && !formation.nodes.is_empty()
        && ids.eq(1..=formation.nodes.len() as u64)
        && check_split_keys(&formation.split_keys).is_ok()
        && formation.founded_unix_ms <= FOUNDED_UNIX_MS_MAX
}

/// Returns this node's description of itself. A member includes the formation of its cluster, so
/// that a founding node that missed the decision learns of it.
pub(super) fn reply(identity: &Identity, node: &NodeDescriptor, granted: bool) -> BootstrapReply {
    let membership = identity.membership();
    let (accepted_ballot, accepted) = identity.accepted().unzip();
    BootstrapReply {
        node: Some(NodeDescriptor {
            node_id: membership.map_or(0, |membership| membership.node_id),
            ..node.clone()
        }),
        cluster_id: membership.map_or(0, |membership| membership.cluster_id),
        granted,
        promised: identity.promised().map(Into::into),
        accepted_ballot: accepted_ballot.map(Into::into),
        accepted: if membership.is_some() { identity.formation() } else { accepted },
        // The caller knows the time.
        clock_unix_ms: 0,
    }
}
