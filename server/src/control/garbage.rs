//! GC floor of the cluster: the timestamp back to which versions can be read, the holds that keep
//! it down, and the bound below which versions may be dropped.
//!
//! The floor is the smallest of
//!
//! - the oracle's time less the retention (`gc_retention`);
//! - the timestamps of holds. Clients with long transactions report holds that are kept in memory,
//!   for as long as the report says. Durable holds are kept under `_/cluster/gc-holds/`.
//!
//! The floor is stored before it is told to any node. It only rises, and no faster than time passes
//! (`garbage/pace.rs`). A hold below the floor is refused.
//!
//! A failed commit may still be applied, now or later. While a commit is in flight, and from then
//! on if it fails, memory holds values that are safe in both cases:
//!
//! - for a hold that is moved, the earlier timestamp;
//! - for the floor, the higher one: holds below a floor that may be stored are refused.
//!
//! To hold or release once more corrects this. So does the next control plane, which reads the
//! stored values.
//!
//! # Two steps
//!
//! A reader that meets a lock asks the transaction's primary, in any range, how the transaction
//! ended. So a range may drop the records that answer for old transactions only once no range has a
//! lock of a transaction that old:
//!
//! 1. Nodes learn the floor with their heartbeats and raise it in the ranges that they lead. From
//!    then on no transaction from below the floor takes a lock there. The node settles the existing
//!    locks and then reports the range as unlocked below the floor.
//! 2. *collect_below* is the timestamp below which all ranges are unlocked. Nodes learn it and drop
//!    the versions that no read at or above it can see (`node/garbage.rs`).
//!
//! A range that does not report, because it has no leader or its node is cut off, stops the second
//! step for all ranges.
//!
//! A new control plane does not know the holds in its predecessor's memory. It leaves the floor
//! where it is until all of these holds have been reported again or have ended.

mod pace;

use std::collections::BTreeMap;
use std::time::Duration;

use rangedb_proto::Timestamp;
use rangedb_proto::v1::{
    self, GarbageStatus, HoldFloor, HoldFloorReply, HoldInfo, TooOld, error::Kind,
};

use rangedb_proto::limits::HOLD_TTL;

use super::Control;
use crate::planted::planted;
use crate::system::Changes;
use crate::system::records;
use pace::Pace;

/// Bytes of a hold's name at most.
const HOLD_NAME_MAX: usize = 128;

/// Holds of clients with long transactions, backups and the like, at most: some megabytes.
const HOLDS_MAX: usize = 100_000;

/// Steps in which the floor rises over one retention: each step costs a commit in every range.
const STEPS_IN_RETENTION: u32 = 10;

/// Shortest step of the floor, however short the retention is.
const STEP_MIN: Duration = Duration::from_secs(1);

/// The floor and its holds, as far as they are in memory.
#[derive(Default)]
pub struct Garbage {
    /// No read below it is served, by any node.
    floor: Timestamp,
    /// The floor that was last sent to be stored. Above `floor` if it is not known whether it was
    /// stored.
    perhaps_stored: Timestamp,
    /// Holds by name. Has every durable hold that may be stored, at the stored timestamp or an
    /// earlier one.
    holds: BTreeMap<String, Hold>,
    pace: Pace,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hold {
    timestamp: Timestamp,
    /// `None` for a durable hold.
    until: Option<Duration>,
}

impl Garbage {
    /// Creates the state from the stored floor and durable holds.
    pub fn load(
        floor: Timestamp,
        durable: impl Iterator<Item = (String, Timestamp)>,
        now: Duration,
    ) -> Self {
        let hold = |(name, timestamp)| (name, Hold { timestamp, until: None });
        let holds = durable.map(hold).collect();
        Garbage { floor, perhaps_stored: floor, holds, pace: Pace::from(floor, now) }
    }

    /// Puts a hold into force. The caller stores a durable hold afterwards. Until then, the earlier
    /// one of its timestamp and that of the hold that it replaces is in force.
    fn hold(&mut self, name: &str, mut hold: Hold) -> Result<(), v1::Error> {
        if hold.timestamp < self.perhaps_stored {
            return Err(too_old(self.perhaps_stored));
        }
        match (self.holds.get(name), hold.until) {
            (None, _) if self.holds.len() >= HOLDS_MAX => {
                return Err(v1::Error::too_busy(1_000, "too many hold the floor"));
            }
            (Some(Hold { until: None, .. }), Some(_)) => {
                let message = format!("`{name}` holds the floor durably: release it first");
                return Err(v1::Error::failed_precondition(message));
            }
            (Some(earlier), None) => hold.timestamp = hold.timestamp.min(earlier.timestamp),
            _ => {}
        }
        self.holds.insert(name.to_owned(), hold);
        Ok(())
    }

    /// Floor that is possible now: below `newest` by the retention, no further than real time
    /// allows, and at or below every hold.
    fn wanted(&mut self, newest: Timestamp, retention: Duration, now: Duration) -> Timestamp {
        self.holds.retain(|_, hold| hold.until.is_none_or(|until| until > now));
        let millis = newest.millis().saturating_sub(retention.as_millis() as u64);
        let kept = Timestamp::from_millis(millis).min(self.pace.most(retention, now));
        let held = self.holds.values().map(|hold| hold.timestamp).min();
        let held = held.filter(|_| !planted!(CollectAboveReader));
        held.map_or(kept, |held| held.min(kept)).max(self.perhaps_stored)
    }
}

impl Control {
    pub(super) async fn hold_floor(&self, ask: HoldFloor) -> Result<HoldFloorReply, v1::Error> {
        check_name(&ask.name)?;
        let durable = ask.ttl_ms == 0;
        let ttl = Duration::from_millis(ask.ttl_ms.into());
        if ttl > HOLD_TTL {
            let message = format!("a hold lasts {HOLD_TTL:?} at most; 0 keeps it until released");
            return Err(v1::Error::invalid("ttl_ms", message));
        }
        // Durable holds change the stored state, and both kinds share the names.
        let change = self.changing.lock().await;
        if ask.timestamp == 0 {
            return self.release_floor(&ask.name, Timestamp(ask.released_ts)).await;
        }
        let timestamp = Timestamp(ask.timestamp);
        let until = (!durable).then(|| self.around.net.now() + ttl);
        let hold = Hold { timestamp, until };
        self.state().garbage.hold(&ask.name, hold)?;
        if durable {
            let key = records::GC_HOLDS.key(&ask.name);
            self.commit(Changes::default().put(key, &timestamp)).await?;
            self.state().garbage.holds.insert(ask.name, hold);
        } else {
            // A successor waits as long as the holds of its predecessors last. It relies on each
            // hold having been taken while its predecessor led, which this read proves.
            drop(change);
            self.store.read().await?;
        }
        Ok(HoldFloorReply { floor_ts: self.state().garbage.floor.0 })
    }

    async fn release_floor(
        &self,
        name: &str,
        meant: Timestamp,
    ) -> Result<HoldFloorReply, v1::Error> {
        let is_meant = |hold: &&Hold| meant == Timestamp::ZERO || hold.timestamp == meant;
        let known = {
            let state = self.state();
            let hold = state.garbage.holds.get(name).filter(is_meant);
            hold.map(|hold| hold.until.is_none())
        };
        match known {
            None => {
                return Err(v1::Error::not_found(format!("nothing holds the floor as `{name}`")));
            }
            Some(true) => {
                self.commit(Changes::default().delete(records::GC_HOLDS.key(name))).await?;
            }
            Some(false) => {}
        }
        let mut state = self.state();
        state.garbage.holds.remove(name);
        Ok(HoldFloorReply { floor_ts: state.garbage.floor.0 })
    }

    pub(super) async fn garbage_status(&self) -> Result<GarbageStatus, v1::Error> {
        let now_ts = self.timestamps(1).await?.last;
        let now = self.around.net.now();
        let (floor_ts, collect_below_ts) = self.garbage_bounds();
        let state = self.state();
        let holds = state.garbage.holds.iter();
        let holds = holds.filter(|(_, hold)| hold.until.is_none_or(|until| until > now));
        let holds = holds.map(|(name, hold)| HoldInfo {
            name: name.clone(),
            timestamp: hold.timestamp.0,
            remaining_ms: hold.until.map(|until| (until - now).as_millis() as u64),
        });
        Ok(GarbageStatus {
            now_ts,
            floor_ts,
            collect_below_ts,
            retention_ms: state.settings().gc_retention.as_millis() as u64,
            holds: holds.collect(),
        })
    }

    /// The floor, and the timestamp below which every range has been reported as unlocked.
    pub(super) fn garbage_bounds(&self) -> (u64, u64) {
        let state = self.state();
        let floor = state.garbage.floor.0;
        let reported = state.directory.entries().map(|entry| entry.report.unlocked_below_ts);
        (floor, reported.min().unwrap_or(0).min(floor))
    }

    /// Raises the floor by a step, if a step is due.
    pub(super) async fn raise_floor(&self) -> Result<(), v1::Error> {
        let (now, time) = (self.around.net.now(), Timestamp::from_millis(self.now_ms()));
        {
            let mut state = self.state();
            let retention = state.settings().gc_retention;
            state.garbage.pace.note(time, retention, now);
            if now < state.since + HOLD_TTL {
                return Ok(());
            }
        }
        let newest = self.fresh_timestamp().await?;
        let _change = self.changing.lock().await;
        let floor = {
            let mut state = self.state();
            let retention = state.settings().gc_retention;
            let step = (retention / STEPS_IN_RETENTION).max(STEP_MIN).as_millis() as u64;
            let floor = state.garbage.wanted(newest, retention, now);
            if floor.millis() < state.garbage.floor.millis() + step {
                return Ok(());
            }
            state.garbage.perhaps_stored = floor;
            floor
        };
        self.commit(Changes::default().put(records::GC_FLOOR.only(), &floor)).await?;
        self.state().garbage.floor = floor;
        Ok(())
    }
}

fn check_name(name: &str) -> Result<(), v1::Error> {
    let fits = !name.is_empty() && name.len() <= HOLD_NAME_MAX;
    if fits && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/') {
        return Ok(());
    }
    let message = format!("1 to {HOLD_NAME_MAX} visible ASCII characters without `/`");
    Err(v1::Error::invalid("name", message))
}

fn too_old(floor: Timestamp) -> v1::Error {
    let message = format!("what was there below the floor {floor} is not kept");
    v1::Error::new(Kind::TooOld(TooOld { floor_ts: floor.0 }), message)
}

#[cfg(test)]
mod tests;
