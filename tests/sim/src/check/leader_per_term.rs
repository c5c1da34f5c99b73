//! At most one replica leads a range in a term. A replica that sends what only leaders send counts
//! as a leader.

use std::collections::BTreeMap;

use raft_proto::eraftpb::MessageType;
use rangedb_proto::v1::RaftEnvelope;

use super::{Verdict, raft_message};

#[derive(Default)]
pub struct LeaderPerTerm {
    /// The node that leads, by range and term.
    leaders: BTreeMap<(u64, u64), u64>,
}

impl LeaderPerTerm {
    pub fn leads(&mut self, range: u64, term: u64, node: u64) -> Verdict {
        let leader = *self.leaders.entry((range, term)).or_insert(node);
        if leader == node {
            return Ok(());
        }
        Err(format!("two leaders of range {range} in term {term}: nodes {leader} and {node}"))
    }

    /// Checks a message that a node sends.
    pub fn sent(&mut self, envelope: &RaftEnvelope) -> Verdict {
        let Some(message) = raft_message(envelope) else { return Ok(()) };
        let leads = matches!(
            message.get_msg_type(),
            MessageType::MsgAppend | MessageType::MsgHeartbeat | MessageType::MsgSnapshot
        );
        match envelope.from {
            Some(from) if leads => self.leads(envelope.range_id, message.term, from.node_id),
            _ => Ok(()),
        }
    }

    /// Number of elections won so far.
    pub fn elections(&self) -> usize {
        self.leaders.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_may_lead_again_in_another_term_but_no_other_in_its_own() {
        let mut leaders = LeaderPerTerm::default();
        for (range, term, node) in [(1, 1, 1), (1, 1, 1), (1, 2, 2), (2, 1, 3), (1, 3, 1)] {
            assert_eq!(leaders.leads(range, term, node), Ok(()));
        }
        assert!(leaders.leads(1, 2, 1).is_err());
    }
}
