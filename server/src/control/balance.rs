//! Balance of leaderships: every node should lead about as many ranges as any other. A pure
//! function from the leaders' reports to one move.
//!
//! A leadership moves to a node that leads at least two ranges fewer. Each move lowers the sum of
//! the squares of the numbers of ranges that nodes lead. So the moves end, and no move is ever
//! undone by another. The scheduler makes one move at a time, with a pause. After its leadership
//! has changed for any reason, a range is not moved for a while: balance is worth little against
//! requests that meet a change of leaders. The control range is counted and never moved.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rangedb_proto::RangeDescriptorExt;
use rangedb_proto::v1::{
    RangeOperation, Replica, ReplicaRole, TransferLeader, range_operation::Body,
};

use super::directory::Entry;
use crate::founding::CONTROL_RANGE_ID;

/// Pause between two moves in the whole cluster: several heartbeats, so that the next move is
/// decided from reports that show the last one.
pub const MOVE_EVERY: Duration = Duration::from_secs(2);

/// Age below which a leadership is not moved. Otherwise a node that comes and goes would be given
/// leaderships each time.
const LEADERSHIP_AGE_MIN: Duration = Duration::from_secs(20);

/// Age of a leader's last report beyond which it is not counted: several heartbeats.
const REPORT_AGE_MAX: Duration = Duration::from_secs(5);

/// Number of ranges by which a node must lead more than another before it hands one over. With a
/// surplus of one, the move would only swap the two nodes.
const SURPLUS_MIN: usize = 2;

/// Returns the range and the step for its leader, if the node `from` should hand a leadership over.
/// Only nodes in `fit` may be given one.
pub fn next_move<'a>(
    entries: impl Iterator<Item = &'a Entry>,
    fit: BTreeSet<u64>,
    from: u64,
    now: Duration,
) -> Option<(u64, RangeOperation)> {
    let is_reported = |entry: &&Entry| age(entry.reported_at, now) < REPORT_AGE_MAX;
    let reported: Vec<&Entry> = entries.filter(is_reported).collect();
    let down: BTreeSet<u64> = reported.iter().flat_map(|entry| down_nodes(entry)).collect();
    let mut leads: BTreeMap<u64, usize> = BTreeMap::new();
    for entry in &reported {
        *leads.entry(entry.report.leader_node_id).or_default() += 1;
    }
    let led_by = |node: u64| leads.get(&node).copied().unwrap_or(0);
    let mut best: Option<(usize, &Entry, u64)> = None;
    for entry in reported.iter().filter(|entry| is_led_by(entry, from) && may_move(entry, now)) {
        for voter in caught_up_voters(entry) {
            let node = voter.node_id;
            let may_lead = fit.contains(&node) && !down.contains(&node);
            let is_better = best.is_none_or(|(fewest, _, _)| led_by(node) < fewest);
            if may_lead && is_better && led_by(node) + SURPLUS_MIN <= led_by(from) {
                best = Some((led_by(node), entry, voter.replica_id));
            }
        }
    }
    let (_, entry, to_replica_id) = best?;
    let descriptor = entry.descriptor();
    let body = Some(Body::TransferLeader(TransferLeader { to_replica_id }));
    let (range_id, epoch) = (descriptor.range_id, descriptor.epoch);
    Some((range_id, RangeOperation { range_id, epoch, body }))
}

fn age(at: Option<Duration>, now: Duration) -> Duration {
    at.map_or(Duration::MAX, |at| now.saturating_sub(at))
}

fn is_led_by(entry: &Entry, node: u64) -> bool {
    entry.report.leader_node_id == node
}

fn may_move(entry: &Entry, now: Duration) -> bool {
    entry.descriptor().range_id != CONTROL_RANGE_ID
        && !entry.report.in_joint_change
        && !entry.descriptor().in_joint_change()
        && entry.led_since.is_some()
        && age(entry.led_since, now) >= LEADERSHIP_AGE_MIN
}

/// Nodes that the range's leader does not reach. A node that one leader does not reach should be
/// given no leadership.
fn down_nodes(entry: &Entry) -> impl Iterator<Item = u64> {
    let replicas = entry.descriptor().replicas.iter();
    let down = replicas.filter(|r| entry.report.down_replica_ids.contains(&r.replica_id));
    down.map(|replica| replica.node_id)
}

fn caught_up_voters(entry: &Entry) -> impl Iterator<Item = &Replica> {
    let replicas = entry.descriptor().replicas.iter();
    replicas.filter(|replica| {
        replica.role() == ReplicaRole::Voter
            && !entry.report.lagging_replica_ids.contains(&replica.replica_id)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rangedb_proto::v1::{RangeDescriptor, RangeReport};

    use super::*;

    const NOW: Duration = Duration::from_secs(1000);
    const LONG_AGO: Duration = Duration::from_secs(1);

    /// Replica ids equal node ids.
    fn entry(range_id: u64, on: &[u64], leader: u64) -> Entry {
        let replica = |id: &u64| Replica { replica_id: *id, node_id: *id, role: 0 };
        Entry {
            report: RangeReport {
                descriptor: Some(RangeDescriptor {
                    range_id,
                    replicas: on.iter().map(replica).collect(),
                    ..Default::default()
                }),
                leader_node_id: leader,
                ..Default::default()
            },
            reported_at: Some(NOW),
            stored: true,
            operation: String::new(),
            led_since: Some(LONG_AGO),
        }
    }

    /// Range ids from 10 on: none is the control range.
    fn all_on_three(leaders: &[u64]) -> Vec<Entry> {
        leaders.iter().zip(10..).map(|(leader, id)| entry(id, &[1, 2, 3], *leader)).collect()
    }

    /// The range and the node that takes it.
    fn decide(entries: &[Entry], fit: &[u64], from: u64) -> Option<(u64, u64)> {
        let fit = fit.iter().copied().collect();
        let (range, operation) = next_move(entries.iter(), fit, from, NOW)?;
        let Some(Body::TransferLeader(transfer)) = operation.body else { panic!("{operation:?}") };
        assert_eq!(operation.range_id, range);
        Some((range, transfer.to_replica_id))
    }

    #[test]
    fn the_node_that_leads_least_is_given_one() {
        let entries = all_on_three(&[2, 2, 2, 2, 1]);
        assert_eq!(decide(&entries, &[1, 2, 3], 2), Some((10, 3)));
        assert_eq!(decide(&entries, &[1, 2, 3], 1), None, "it has one alone");
        assert_eq!(decide(&entries, &[1, 2], 2), Some((10, 1)), "node 3 is not fit");
        assert_eq!(decide(&entries, &[2], 2), None);
    }

    #[test]
    fn a_difference_of_one_is_balance() {
        assert_eq!(decide(&all_on_three(&[1, 1, 2, 2, 3]), &[1, 2, 3], 1), None);
    }

    #[test]
    fn a_young_leadership_and_the_control_range_stay() {
        let mut entries = all_on_three(&[1, 1, 1]);
        for entry in &mut entries {
            entry.led_since = Some(NOW - LEADERSHIP_AGE_MIN / 2);
        }
        assert_eq!(decide(&entries, &[1, 2, 3], 1), None);
        entries[1].led_since = Some(LONG_AGO);
        assert_eq!(decide(&entries, &[1, 2, 3], 1), Some((11, 2)));
        let alone = [entry(CONTROL_RANGE_ID, &[1, 2], 1), entry(CONTROL_RANGE_ID, &[1, 2], 1)];
        assert_eq!(decide(&alone, &[1, 2], 1), None);
    }

    #[test]
    fn nothing_goes_to_a_replica_that_is_down_or_behind_or_no_voter() {
        let mut entries = all_on_three(&[1, 1, 1]);
        entries[2].report.down_replica_ids = vec![2];
        entries[0].report.lagging_replica_ids = vec![3];
        entries[1].report.descriptor.as_mut().unwrap().replicas[2].set_role(ReplicaRole::Learner);
        assert_eq!(decide(&entries, &[1, 2, 3], 1), Some((12, 3)), "down once is down");
    }

    proptest! {
        /// With every decision carried out, moves come to rest, in whatever order nodes report: no
        /// range is moved for ever. If all nodes have replicas of all ranges, the numbers of ranges
        /// that the fit nodes lead differ by one at most.
        #[test]
        fn it_comes_to_rest(
            placed in prop::collection::vec((prop::sample::subsequence(vec![1, 2, 3, 4, 5], 3), 0..3_usize), 1..40),
            everywhere in any::<bool>(),
            unfit in 0..6_u64,
            turns in prop::collection::vec(1..=5_u64, 5),
        ) {
            let all = [1, 2, 3, 4, 5];
            let mut entries: Vec<Entry> = placed
                .iter()
                .zip(10..)
                .map(|((on, leader), id)| {
                    entry(id, if everywhere { &all } else { on }, on[*leader])
                })
                .collect();
            let fit: Vec<u64> = all.into_iter().filter(|node| *node != unfit).collect();
            let squares = |entries: &[Entry]| -> usize {
                let leads = |node| entries.iter().filter(|e| e.report.leader_node_id == node).count();
                all.iter().map(|node| leads(*node).pow(2)).sum()
            };
            let mut order: Vec<u64> = turns;
            order.extend(all);
            loop {
                let next = order.iter().find_map(|from| decide(&entries, &fit, *from));
                let Some((range, to)) = next else { break };
                prop_assert_ne!(to, unfit);
                let before = squares(&entries);
                entries[(range - 10) as usize].report.leader_node_id = to;
                prop_assert!(squares(&entries) < before);
            }
            if everywhere {
                let leads = |node: &u64| entries.iter().filter(|e| e.report.leader_node_id == *node).count();
                let counts: Vec<usize> = fit.iter().map(leads).collect();
                prop_assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1);
            }
        }
    }
}
