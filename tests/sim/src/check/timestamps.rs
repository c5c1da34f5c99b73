//! Timestamps are unique and follow real time. A timestamp is above every other that was received
//! before its request, and above every commit that was acknowledged before. Timestamps are also
//! near the time of day, as long as the clocks of a majority of the nodes are.

use std::collections::BTreeMap;

use rangedb_proto::Timestamp;
use rangedb_proto::v1::TimestampsReply;

use super::Verdict;

/// Maximum difference between a timestamp and the true time, in milliseconds. Clocks are a minute
/// off, or some more after many steps, and each new oracle may begin a few seconds ahead. Only the
/// clock of the node that leaps is days off.
const NEAR_MS: u64 = 60 * 60 * 1000;

#[derive(Default)]
pub struct Timestamps {
    /// True if timestamps are checked against the true time: the clocks of a majority are near it.
    pub near: bool,
    /// First to last timestamp of every reply that came.
    handed_out: BTreeMap<u64, u64>,
    /// Moments at which a higher timestamp became known, and that timestamp; both ascend.
    known: Vec<(u64, u64)>,
}

impl Timestamps {
    /// Checks a reply to a request made at `asked`. Both moments are stamps of the schedule.
    pub fn received(&mut self, asked: u64, received: u64, reply: &TimestampsReply) -> Verdict {
        let (last, count) = (reply.last, u64::from(reply.count));
        let first = last + 1 - count;
        let before = self.handed_out.range(..=last).next_back();
        if let Some((other_first, other_last)) = before.filter(|(_, other)| **other >= first) {
            return Err(format!(
                "timestamps {first}..={last} overlap {other_first}..={other_last}, which were \
                 handed out too"
            ));
        }
        self.handed_out.insert(first, last);
        let known = self.known_at(asked);
        if known >= first {
            return Err(format!(
                "timestamps {first}..={last} were asked for when {known} was known already"
            ));
        }
        self.learn(received, last);
        Ok(())
    }

    /// Checks a reply against the true time of day.
    pub fn at(&self, true_ms: u64, reply: &TimestampsReply) -> Verdict {
        let millis = Timestamp(reply.last).millis();
        if self.near && millis.abs_diff(true_ms) > NEAR_MS {
            return Err(format!("timestamp {} is of {millis} ms, at {true_ms} ms", reply.last));
        }
        Ok(())
    }

    /// Notes that a client was told of a commit.
    pub fn acknowledged(&mut self, at: u64, commit_ts: u64) -> Verdict {
        self.learn(at, commit_ts);
        Ok(())
    }

    fn known_at(&self, moment: u64) -> u64 {
        let end = self.known.partition_point(|(at, _)| *at < moment);
        end.checked_sub(1).map_or(0, |last| self.known[last].1)
    }

    fn learn(&mut self, at: u64, timestamp: u64) {
        let highest = self.known.last().map_or(0, |(_, highest)| *highest);
        if timestamp > highest {
            self.known.push((at, timestamp));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(last: u64, count: u32) -> TimestampsReply {
        TimestampsReply { last, count }
    }

    #[test]
    fn disjoint_replies_in_order_pass() {
        let mut timestamps = Timestamps::default();
        assert_eq!(timestamps.received(1, 4, &reply(10, 3)), Ok(()));
        // Requested before the first reply came, so it may be below that.
        assert_eq!(timestamps.received(2, 5, &reply(7, 2)), Ok(()));
        assert_eq!(timestamps.received(6, 7, &reply(11, 1)), Ok(()));
    }

    #[test]
    fn a_timestamp_below_an_acknowledged_commit_is_caught() {
        let mut timestamps = Timestamps::default();
        assert_eq!(timestamps.acknowledged(3, 20), Ok(()));
        assert_eq!(timestamps.received(2, 5, &reply(19, 1)), Ok(()));
        assert!(timestamps.received(4, 6, &reply(20, 1)).is_err());
    }

    #[test]
    fn a_timestamp_handed_out_twice_is_caught() {
        let mut timestamps = Timestamps::default();
        assert_eq!(timestamps.received(1, 4, &reply(10, 3)), Ok(()));
        assert!(timestamps.received(2, 5, &reply(8, 1)).is_err());
        assert!(timestamps.received(2, 5, &reply(12, 3)).is_err());
    }

    #[test]
    fn a_timestamp_far_from_the_true_time_is_caught_where_clocks_are_good() {
        let mut timestamps = Timestamps::default();
        let noon_ms = 1_780_000_000_000;
        let reply = |ms| reply(Timestamp::from_millis(ms).0, 1);
        assert_eq!(timestamps.at(noon_ms, &reply(noon_ms + 2 * NEAR_MS)), Ok(()));
        timestamps.near = true;
        assert_eq!(timestamps.at(noon_ms, &reply(noon_ms + NEAR_MS / 2)), Ok(()));
        assert!(timestamps.at(noon_ms, &reply(noon_ms + 2 * NEAR_MS)).is_err());
        assert!(timestamps.at(noon_ms, &reply(noon_ms - 2 * NEAR_MS)).is_err());
    }

    #[test]
    fn a_timestamp_below_one_that_had_come_is_caught() {
        let mut timestamps = Timestamps::default();
        assert_eq!(timestamps.received(1, 4, &reply(10, 3)), Ok(()));
        assert!(timestamps.received(5, 6, &reply(7, 1)).is_err());
    }
}
