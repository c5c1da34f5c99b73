//! Replicas agree in what they apply: each is given the same commands at the same places of the
//! log, and answers them the same. This holds for a replay of the log after a crash too.

use std::collections::BTreeMap;

use rangedb_proto::RangeId;

use super::Verdict;

/// Index of the entry and place in it; hash of the command; hash of the reply.
pub type Step = ((u64, usize), u64, u64);

#[derive(Default)]
pub struct AppliesAgree {
    steps: BTreeMap<(RangeId, u64, usize), (u64, u64, usize)>,
}

impl AppliesAgree {
    pub fn applied(&mut self, range: RangeId, slot: usize, step: Step) -> Verdict {
        let ((index, place), command, reply) = step;
        let known = self.steps.entry((range, index, place)).or_insert((command, reply, slot));
        let (known_command, known_reply, by) = *known;
        if known_command != command {
            return Err(format!(
                "command {place} of entry {index} of {range} differs between node-{by} and \
                 node-{slot}"
            ));
        }
        if known_reply != reply {
            return Err(format!(
                "the reply to command {place} of entry {index} of {range} differs between \
                 node-{by} and node-{slot}"
            ));
        }
        Ok(())
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
    fn another_command_and_another_reply_at_the_same_place_are_caught() {
        let mut applies = AppliesAgree::default();
        assert_eq!(applies.applied(RangeId(1), 0, ((7, 1), 10, 20)), Ok(()));
        assert_eq!(applies.applied(RangeId(1), 1, ((7, 1), 10, 20)), Ok(()));
        assert_eq!(applies.applied(RangeId(1), 1, ((7, 2), 11, 21)), Ok(()));
        assert!(applies.applied(RangeId(1), 2, ((7, 1), 12, 20)).is_err());
        assert!(applies.applied(RangeId(1), 2, ((7, 2), 11, 22)).is_err());
    }
}
