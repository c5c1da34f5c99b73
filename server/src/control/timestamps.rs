//! Allocation of timestamps: from memory, below a committed bound, and only while this node leads.

use rangedb_proto::Timestamp;
use rangedb_proto::v1::{self, Condition, KeyValue, TimestampsReply};

use rangedb_proto::limits::TIMESTAMPS_MAX;

use super::commit::{CommitError, get_in, in_term, no_longer, put};
use super::oracle::NoneNow;
use super::{Control, Surroundings, keys};

/// Commits a bound below which timestamps may be handed out. False if an earlier attempt was
/// applied instead, perhaps with another bound.
///
/// An attempt that was given up may still be applied. The next attempt may then carry the same
/// `start_ts`. With the same bound, the range takes it for the same command and answers without
/// applying it again. With another bound the range refuses it, as a `start_ts` names one command.
pub async fn commit_bound(
    around: &Surroundings,
    term: u64,
    start_ts: Timestamp,
    bound: Timestamp,
    condition: Condition,
) -> Result<bool, v1::Error> {
    let operations = vec![
        put(keys::TIMESTAMP_BOUND.into(), bound.to_string()),
        put(keys::CONTROL_TERM.into(), term.to_string()),
    ];
    match around.commit_control(start_ts, vec![condition], operations).await {
        Ok(committed) => Ok(!committed.repeated_command),
        Err(CommitError::StartUsed) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The stored bound, which earlier oracles stayed below, and the version of its key.
pub async fn stored_bound(around: &Surroundings) -> Result<(Timestamp, u64), v1::Error> {
    let Some(kv) = around.get_control(keys::TIMESTAMP_BOUND).await? else {
        return Ok((Timestamp::ZERO, 0));
    };
    Ok((timestamp(&kv)?, kv.version))
}

/// Parses a timestamp that is stored in decimal.
pub fn timestamp(kv: &KeyValue) -> Result<Timestamp, v1::Error> {
    let stored = std::str::from_utf8(&kv.value).ok().and_then(|text| text.parse().ok());
    stored.map(Timestamp).filter(|stored| *stored <= Timestamp::MAX).ok_or_else(|| {
        let what = format!("the timestamp at {}", kv.key.escape_ascii());
        crate::node::storage_error(rangedb_storage::Error::corrupt(what))
    })
}

impl Control {
    pub(super) async fn timestamps(&self, count: u32) -> Result<TimestampsReply, v1::Error> {
        if count == 0 || count > TIMESTAMPS_MAX {
            let message = format!("from 1 to {TIMESTAMPS_MAX} timestamps can be had at once");
            return Err(v1::Error::invalid("count", message));
        }
        let last = self.allocate(count).await?;
        #[cfg(feature = "planted")]
        if rangedb_planted::Bug::TimestampsUnproven.is_planted() {
            return Ok(TimestampsReply { last: last.0, count });
        }
        // The lease is checked after the timestamps were taken: another oracle can only have begun
        // later than this read.
        self.around.read_control().await?;
        Ok(TimestampsReply { last: last.0, count })
    }

    /// Returns a timestamp for the control plane's own commits, which the log refuses if this node
    /// no longer leads.
    pub(super) async fn fresh_timestamp(&self) -> Result<Timestamp, v1::Error> {
        self.allocate(1).await
    }

    async fn allocate(&self, count: u32) -> Result<Timestamp, v1::Error> {
        loop {
            let now_ms = self.now_ms();
            let allocated = self.oracle().allocate(now_ms, count);
            match allocated {
                Ok(last) => return Ok(last),
                Err(NoneNow::BoundReached) => self.extend().await?,
                Err(NoneNow::TooMany { for_ms }) => {
                    let message = "more timestamps were asked for than time has";
                    return Err(v1::Error::too_busy(for_ms, message));
                }
            }
        }
    }

    /// The oracle's time.
    pub(super) fn now_ms(&self) -> u64 {
        let (clock_ms, monotonic) = (self.around.clock.unix_millis(), self.around.net.now());
        self.oracle().time_ms(clock_ms, monotonic)
    }

    /// Commits a higher bound if one is wanted.
    pub(super) async fn extend(&self) -> Result<(), v1::Error> {
        let _one_at_a_time = self.extending.lock().await;
        let now_ms = self.now_ms();
        let (start_ts, bound) = {
            let mut oracle = self.oracle();
            let Some(bound) = oracle.wanted_bound(now_ms) else { return Ok(()) };
            // The start_ts is taken from the rest of the window. If the window is used up, it is
            // the bound itself, which has not been handed out.
            let fresh = oracle.allocate(now_ms, 1);
            (fresh.unwrap_or(oracle.bound()), bound)
        };
        #[cfg(feature = "planted")]
        if rangedb_planted::Bug::BoundNotPersisted.is_planted() {
            self.oracle().extend(bound);
            return Ok(());
        }
        let condition = in_term(self.term);
        let set = commit_bound(&self.around, self.term, start_ts, bound, condition).await?;
        let bound = if set { bound } else { self.own_bound().await? };
        self.oracle().extend(bound);
        Ok(())
    }

    /// The bound that an earlier attempt of this control plane committed. Fails if a newer control
    /// plane took over: it may have committed a bound with the same `start_ts`, and hands out the
    /// timestamps below it.
    async fn own_bound(&self) -> Result<Timestamp, v1::Error> {
        let view = self.around.read_control().await?;
        let term = get_in(&view, keys::CONTROL_TERM)?;
        match (term, get_in(&view, keys::TIMESTAMP_BOUND)?) {
            (Some(term), Some(bound)) if term.value == self.term.to_string() => timestamp(&bound),
            _ => Err(no_longer()),
        }
    }
}
