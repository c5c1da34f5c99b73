//! Watch over the clocks that nodes report. The oracle is given the majority's time. The log names
//! wrong clocks once for each change, and the cluster's status names them too.

use std::collections::BTreeSet;
use std::time::Duration;

use rangedb_proto::v1::NodeState;

use super::Control;
use super::clocks::{Change, difference_ms};
use super::state::State;
use super::time::Doubt;

/// Lead of timestamps over the clocks, in milliseconds, that is logged: more than a new oracle's
/// bound has.
const AHEAD_SAID_MS: i64 = 10_000;

/// Lead, in milliseconds, up to which timestamps count as in step again after a larger lead was
/// logged.
const IN_STEP_MS: i64 = 5_000;

/// The last state of time that was logged, so that each state is logged once.
#[derive(Default)]
pub struct LoggedTime {
    doubt: Option<Doubt>,
    ahead: bool,
}

impl Doubt {
    /// Reason of the doubt in words for people, and its effect on timestamps.
    pub fn reason(self) -> &'static str {
        match self {
            Doubt::Unheard => {
                "timestamps go on from where they were until a majority of nodes is heard"
            }
            Doubt::Alone => {
                "this node's clock leapt, and too few other nodes were heard: timestamps do not follow"
            }
            Doubt::Outvoted => {
                "this node's clock differs from a majority's: timestamps follow the majority"
            }
            Doubt::CatchingUp => {
                "the nodes' clocks leapt: timestamps catch up with them at twice the speed of time"
            }
        }
    }
}

impl Control {
    /// Takes note of the time on a node's clock. Returns the clock's lead over the majority's time.
    pub(super) fn hear_clock(
        &self,
        node_id: u64,
        unix_ms: Option<u64>,
        now: Duration,
    ) -> Option<i64> {
        let (majority, changes, offset_ms) = {
            let mut state = self.state();
            let nodes = nodes_up(&state);
            let clocks = &mut state.clocks;
            clocks.keep(&nodes);
            if let Some(unix_ms) = unix_ms.filter(|_| nodes.contains(&node_id)) {
                clocks.hear(node_id, unix_ms, now);
            }
            let majority = clocks.majority(&nodes, now);
            let offset_ms = majority.and_then(|shown| clocks.offset_ms(node_id, shown, now));
            (majority, clocks.compare(&nodes, now), offset_ms)
        };
        if let Some(shown) = majority {
            self.oracle().agree(shown, now);
        }
        changes.into_iter().for_each(say_of_clock);
        self.say_of_time(now);
        offset_ms
    }

    /// Lead of timestamps over the time that a majority of the nodes' clocks shows, and the reason
    /// why timestamps do not follow this node's clock.
    pub(super) fn oracle_state(&self) -> (Option<i64>, Option<Doubt>) {
        let now_ms = self.now_ms();
        let oracle = self.oracle();
        (oracle.ahead_ms(now_ms, self.around.net.now()), oracle.doubt())
    }

    pub fn timestamps_ahead_ms(&self) -> Option<i64> {
        self.oracle_state().0
    }

    /// Lead of a node's clock over the majority's time. `None` if the node was not heard of lately.
    pub(super) fn clock_offset(state: &State, node_id: u64, now: Duration) -> Option<i64> {
        let majority = state.clocks.majority(&nodes_up(state), now)?;
        state.clocks.offset_ms(node_id, majority, now)
    }

    fn say_of_time(&self, now: Duration) {
        let now_ms = self.now_ms();
        let (ahead_ms, doubt) = {
            let oracle = self.oracle();
            (oracle.ahead_ms(now_ms, now), oracle.doubt())
        };
        let clock = Duration::from_millis(self.around.clock.unix_millis());
        let clock_ahead_ms = difference_ms(clock, Duration::from_millis(now_ms));
        let mut state = self.state();
        let said = &mut state.said_of_time;
        let doubt_before = std::mem::replace(&mut said.doubt, doubt);
        match doubt {
            _ if doubt == doubt_before => {}
            Some(doubt @ Doubt::Unheard) => tracing::info!(clock_ahead_ms, "{}", doubt.reason()),
            Some(doubt) => tracing::warn!(clock_ahead_ms, "{}", doubt.reason()),
            None => tracing::info!(clock_ahead_ms, "timestamps go by this node's clock again"),
        }
        let Some(ahead_ms) = ahead_ms else { return };
        let bound_ms = if said.ahead { IN_STEP_MS } else { AHEAD_SAID_MS };
        let ahead_before = std::mem::replace(&mut said.ahead, ahead_ms > bound_ms);
        if said.ahead && !ahead_before {
            tracing::warn!(
                ahead_ms,
                "timestamps are ahead of the nodes' clocks, which were wrong once: they pass at half \
                 the speed of time until the clocks have caught up"
            );
        } else if ahead_before && !said.ahead {
            tracing::info!(ahead_ms, "timestamps are in step with the nodes' clocks again");
        }
    }
}

/// Nodes whose clocks count.
fn nodes_up(state: &State) -> BTreeSet<u64> {
    let up = state.nodes.values().filter(|node| node.state() == NodeState::NodeUp);
    up.map(|node| node.node_id).collect()
}

fn say_of_clock(Change { node_id, differs, offset_ms }: Change) {
    if differs {
        tracing::warn!(
            node_id,
            offset_ms,
            "the clock of node {node_id} differs from the majority's: have it set by NTP"
        );
    } else {
        tracing::info!(node_id, offset_ms, "the clock of node {node_id} agrees with the others");
    }
}
