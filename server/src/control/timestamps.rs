//! Allocation of timestamps: from memory, below a committed bound, and only while this node leads.

use rangedb_proto::Timestamp;
use rangedb_proto::limits::TIMESTAMPS_MAX;
use rangedb_proto::v1::{self, TimestampsReply};

use super::Control;
use super::oracle::NoneNow;
use crate::planted::planted;
use crate::system::records;
use crate::system::{Changes, CommitError, no_longer};

/// Adds a bound below which timestamps may be handed out.
///
/// An attempt that was given up may still be applied. The next attempt may then carry the same
/// `start_ts`. With the same bound and term, the range takes it for the same command and answers
/// without applying it again. Otherwise the range refuses it, as a `start_ts` names one command.
pub fn bound_changes(changes: Changes, bound: Timestamp) -> Changes {
    changes.put(records::TIMESTAMP_BOUND.only(), &bound)
}

impl Control {
    pub(super) async fn timestamps(&self, count: u32) -> Result<TimestampsReply, v1::Error> {
        if count == 0 || count > TIMESTAMPS_MAX {
            let message = format!("from 1 to {TIMESTAMPS_MAX} timestamps can be had at once");
            return Err(v1::Error::invalid("count", message));
        }
        let last = self.allocate(count).await?;
        if planted!(TimestampsUnproven) {
            return Ok(TimestampsReply { last: last.0, count });
        }
        // The lease is checked after the timestamps were taken: another oracle can only have begun
        // later than this read.
        self.store.read().await?;
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
        if planted!(BoundNotPersisted) {
            self.oracle().extend(bound);
            return Ok(());
        }
        let changes = bound_changes(Changes::default(), bound);
        // The term makes the command another one than a predecessor's with the same start_ts.
        let changes = changes.put(records::CONTROL_TERM.only(), &self.term);
        let bound = match self.store.commit(start_ts, changes).await {
            Ok(committed) if !committed.repeated_command => bound,
            Ok(_) | Err(CommitError::StartUsed) => self.own_bound().await?,
            Err(error) => return Err(error.into()),
        };
        self.oracle().extend(bound);
        Ok(())
    }

    /// The bound that an earlier attempt of this control plane committed. Fails if a newer control
    /// plane took over: it may have committed a bound with the same `start_ts`, and hands out the
    /// timestamps below it.
    async fn own_bound(&self) -> Result<Timestamp, v1::Error> {
        let view = self.store.read().await?;
        match view.get(&records::TIMESTAMP_BOUND.only())? {
            Some(bound) if view.is_owned_by(&self.store)? => Ok(bound.record),
            _ => Err(no_longer()),
        }
    }
}
