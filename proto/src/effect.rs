//! Effect of a request on the cluster, which decides how its repetition and its loss are handled.

use crate::v1::request::Body;

/// Effect of a request on the cluster. A request whose answer was lost may have had it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RequestEffect {
    /// None: it only reads.
    Read,
    /// A change that has the same effect once or twice, and the same answer.
    Idempotent,
    /// An operator's change. A repetition is recognised by what it names or by its id, and changes
    /// nothing. Whether the change happened matters to the operator.
    Recognised,
}

impl RequestEffect {
    /// True unless it only reads.
    pub fn changes(self) -> bool {
        self != RequestEffect::Read
    }
}

impl Body {
    /// The effect of the request. A passed-on one has that of the request in it.
    pub fn effect(&self) -> RequestEffect {
        match self {
            Body::PointRead(_)
            | Body::Scan(_)
            | Body::Validate(_)
            | Body::ListLocks(_)
            | Body::Timestamps(_)
            | Body::Locate(_)
            | Body::GarbageStatus(_)
            | Body::ClusterStatus(_)
            | Body::MetaRead(_)
            | Body::ConfigGet(_)
            | Body::PartitionList(_) => RequestEffect::Read,
            // Commands of transactions are known by their start_ts, the others by who sends them.
            Body::Write(_)
            | Body::TransactionCommand(_)
            | Body::Join(_)
            | Body::Heartbeat(_)
            | Body::LockWaits(_) => RequestEffect::Idempotent,
            // A release names the hold by its timestamp, and does not find it a second time.
            Body::HoldFloor(hold) if hold.timestamp == 0 => RequestEffect::Recognised,
            Body::HoldFloor(_) => RequestEffect::Idempotent,
            Body::RemoveNode(change) => RequestEffect::of_change(change.dry_run),
            Body::ConfigSet(change) => RequestEffect::of_change(change.dry_run),
            Body::SkipEntry(change) => RequestEffect::of_change(change.dry_run),
            Body::Forwarded(passed_on) | Body::ForUser(passed_on) => {
                passed_on.body.as_ref().map_or(RequestEffect::Read, Body::effect)
            }
        }
    }
}

impl RequestEffect {
    fn of_change(dry_run: bool) -> Self {
        if dry_run { RequestEffect::Read } else { RequestEffect::Recognised }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::{RemoveNode, Request};

    #[test]
    fn a_passed_on_request_has_the_effect_of_the_one_in_it() {
        let removal = Body::RemoveNode(RemoveNode::default());
        assert_eq!(removal.effect(), RequestEffect::Recognised);
        let passed_on = Request { body: Some(removal), ..Default::default() };
        assert_eq!(Body::ForUser(Box::new(passed_on)).effect(), RequestEffect::Recognised);
        assert_eq!(Body::Forwarded(Box::default()).effect(), RequestEffect::Read);
    }

    #[test]
    fn a_dry_run_changes_nothing() {
        let removal = |dry_run| Body::RemoveNode(RemoveNode { dry_run, ..Default::default() });
        assert!(removal(false).effect().changes());
        assert!(!removal(true).effect().changes());
    }
}
