//! Replicas agree in what they apply: each is given the same commands at the same places of the
//! log, answers them the same, and reports the same changes. This holds for a replay of the log
//! after a crash too.

use std::collections::BTreeMap;

use rangedb_proto::RangeId;

use super::Verdict;

/// Application of one command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    /// Index of the entry and place in it.
    pub place: (u64, usize),
    /// Hashes.
    pub command: u64,
    pub reply: u64,
    pub changes: u64,
}

#[derive(Default)]
pub struct AppliesAgree {
    /// The first step at each place, and the slot of its node.
    steps: BTreeMap<(RangeId, (u64, usize)), (Step, usize)>,
}

impl AppliesAgree {
    pub fn applied(&mut self, range: RangeId, slot: usize, step: Step) -> Verdict {
        let (known, by) = *self.steps.entry((range, step.place)).or_insert((step, slot));
        let (index, place) = step.place;
        let differ = |what: &str| {
            Err(format!(
                "{what} command {place} of entry {index} of {range} differ between node-{by} and \
                 node-{slot}"
            ))
        };
        match step {
            _ if known == step => Ok(()),
            Step { command, .. } if known.command != command => differ("the bytes of"),
            Step { reply, .. } if known.reply != reply => differ("the replies to"),
            _ => differ("the changes by"),
        }
    }

    /// Number of commands that some replica applied.
    pub fn commands(&self) -> usize {
        self.steps.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_command_reply_or_change_at_the_same_place_is_caught() {
        let mut applies = AppliesAgree::default();
        let step = Step { place: (7, 1), command: 10, reply: 20, changes: 30 };
        assert_eq!(applies.applied(RangeId(1), 0, step), Ok(()));
        assert_eq!(applies.applied(RangeId(1), 1, step), Ok(()));
        let next = Step { place: (7, 2), command: 11, reply: 21, changes: 31 };
        assert_eq!(applies.applied(RangeId(1), 1, next), Ok(()));
        assert!(applies.applied(RangeId(1), 2, Step { command: 12, ..step }).is_err());
        assert!(applies.applied(RangeId(1), 2, Step { reply: 22, ..next }).is_err());
        assert!(applies.applied(RangeId(1), 2, Step { changes: 32, ..next }).is_err());
    }
}
