//! Readiness of a node, as far as the control plane's replies to its heartbeats show: the node
//! takes part in the cluster, and holds the replicas that it should.

use std::time::Duration;

/// Time without an answer of the control plane beyond which the node is not ready. It answers every
/// half second. Silence for several elections means that it has no quorum, or that this node is cut
/// off from it.
const UNANSWERED_MAX: Duration = Duration::from_secs(10);

/// Ranges that are named in a reason at most.
const RANGES_NAMED_MAX: usize = 8;

/// The control plane's last answer, and the node's readiness by it.
#[derive(Default)]
pub(super) struct Readiness {
    answered_at: Option<Duration>,
    /// Ranges that the node is a voter of and has no replica of.
    missing: Vec<u64>,
    /// Ranges that lack a voter, which this node could become.
    awaited: Vec<u64>,
    /// True once nothing was missing or awaited. From then on, the repair of a range that lost a
    /// voter elsewhere does not make this node unready: otherwise all nodes that could take part
    /// would be.
    was_whole: bool,
    /// Set by the node itself: it is stopping or cannot write.
    pub unfit_to_lead: bool,
}

impl Readiness {
    pub fn answered(&mut self, now: Duration, missing: Vec<u64>, awaited: Vec<u64>) {
        self.answered_at = Some(now);
        self.was_whole |= missing.is_empty() && awaited.is_empty();
        self.missing = missing;
        self.awaited = awaited;
    }

    pub fn unanswered_for(&self, started: Duration, now: Duration) -> Duration {
        now.saturating_sub(self.answered_at.unwrap_or(started))
    }

    /// Reason why the node is not ready.
    pub fn reason(&self, started: Duration, now: Duration) -> Option<String> {
        if self.answered_at.is_none() {
            return Some("the control plane has not answered this node yet".to_owned());
        }
        if self.unanswered_for(started, now) > UNANSWERED_MAX {
            let message = format!("the control plane has not answered for {UNANSWERED_MAX:?}");
            return Some(message);
        }
        if !self.missing.is_empty() {
            return Some(format!("without the replicas of ranges {}", named(&self.missing)));
        }
        if !self.was_whole && !self.awaited.is_empty() {
            return Some(format!("to be given replicas of ranges {}", named(&self.awaited)));
        }
        None
    }
}

fn named(ranges: &[u64]) -> String {
    let named: Vec<String> = ranges.iter().take(RANGES_NAMED_MAX).map(u64::to_string).collect();
    let more = if ranges.len() > named.len() { " and others" } else { "" };
    format!("{}{more}", named.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(100);

    fn at(seconds: u64) -> Duration {
        START + Duration::from_secs(seconds)
    }

    #[test]
    fn a_node_is_not_ready_before_the_control_plane_answered_nor_long_after() {
        let mut readiness = Readiness::default();
        assert!(readiness.reason(START, at(1)).unwrap().contains("not answered"));
        readiness.answered(at(2), vec![], vec![]);
        assert_eq!(readiness.reason(START, at(3)), None);
        assert!(readiness.reason(START, at(13)).unwrap().contains("has not answered for 10s"));
    }

    #[test]
    fn a_node_that_was_just_started_waits_for_what_it_is_to_be_given() {
        let mut readiness = Readiness::default();
        readiness.answered(at(1), vec![], vec![1, 2]);
        assert_eq!(readiness.reason(START, at(1)).unwrap(), "to be given replicas of ranges 1, 2");
        readiness.answered(at(2), vec![], vec![]);
        assert_eq!(readiness.reason(START, at(2)), None);
        readiness.answered(at(3), vec![], vec![3]);
        assert_eq!(readiness.reason(START, at(3)), None, "a repair elsewhere");
    }

    #[test]
    fn a_voter_that_is_not_there_makes_the_node_unready_at_any_time() {
        let mut readiness = Readiness::default();
        readiness.answered(at(1), vec![], vec![]);
        readiness.answered(at(2), (1..=9).collect(), vec![]);
        let reason = readiness.reason(START, at(2)).unwrap();
        assert_eq!(reason, "without the replicas of ranges 1, 2, 3, 4, 5, 6, 7, 8 and others");
    }
}
