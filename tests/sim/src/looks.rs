//! Observation of a process for the checks and the ambush: events that go into its stores, and
//! effects that come out.

use std::collections::BTreeMap;

use raft_proto::eraftpb::MessageType;
use rangedb_proto::RangeId;
use rangedb_proto::v1::RaftEnvelope;
use rangedb_raftstore::{Answer, Effect, Event, ReadGrant, ReadMode, RoleChange, Store};

use crate::ambush::{Moment, ReachedMoment};
use crate::check::raft_message;
use crate::occurrence::Host;
use crate::process::Site;

/// Tells the checks that a read came to a store.
pub fn look_at_event(event: &Event, host: Host, site: &Site) {
    let Event::Read { request, range, at, .. } = event else { return };
    let read = (host, *request);
    site.watch.note(|checks| {
        if let ReadMode::Snapshot(timestamp) = at {
            checks.fences.came(read, *timestamp);
        }
        checks.lease_reads.came(read, range.id.0)
    });
}

/// Tells the checks which node leads, and which reads it serves in the belief that it leads.
pub fn look_at_effects(store: &Store, effects: &[Effect], (host, node): (Host, u64), site: &Site) {
    for effect in effects {
        if let Effect::Role(RoleChange::NeedFence { range, term }) = effect {
            site.watch.note(|checks| {
                checks.lease_reads.leads(range.0, *term, node);
                checks.leaders.leads(range.0, *term, node)
            });
        }
    }
    let granted = effects.iter().filter_map(|effect| match effect {
        Effect::Answer(Answer::Read { request, result: Ok(grant) }) => Some((request, grant)),
        _ => None,
    });
    let mut granted = granted.peekable();
    if granted.peek().is_none() {
        return;
    }
    let terms: BTreeMap<u64, u64> =
        store.status().iter().map(|status| (status.descriptor.range_id, status.term)).collect();
    for (request, ReadGrant { descriptor, lease_until, .. }) in granted {
        let Some(term) = terms.get(&descriptor.range_id) else { continue };
        let (read, range) = ((host, *request), descriptor.range_id);
        let by = (range, *term, node);
        let leased = lease_until.is_some();
        let mut of_the_past = false;
        site.watch.note(|checks| {
            of_the_past = checks.fences.served(read, RangeId(range));
            checks.lease_reads.served(read, by, leased)
        });
        if of_the_past {
            comes(Moment::PastIsRead, range, None, site);
        }
    }
}

/// Tells the checks and the ambush that a message leaves. `to` is the receiver's slot, if known.
pub fn look_at_message(envelope: &RaftEnvelope, to: Option<usize>, site: &Site) {
    site.watch.note(|checks| checks.leaders.sent(envelope));
    let waits = |moment| site.ambush.waits_for(moment);
    if !waits(Moment::VoteIsAsked) && !waits(Moment::VoteIsGiven) {
        return;
    }
    let Some(message) = raft_message(envelope) else { return };
    let moment = match message.get_msg_type() {
        MessageType::MsgRequestPreVote => Moment::VoteIsAsked,
        MessageType::MsgRequestVoteResponse if !message.reject => Moment::VoteIsGiven,
        _ => return,
    };
    comes(moment, envelope.range_id, to, site);
}

fn comes(moment: Moment, range: u64, other: Option<usize>, site: &Site) {
    let came = ReachedMoment { moment, slot: site.slot, range: Some(range), other };
    site.ambush.comes(came, &site.schedule);
}
