//! Garbage collection of a range: raises its floors, and drops the garbage below them.
//!
//! The sender finds out which spans are worth the command, with
//! [`garbage_ahead`](crate::garbage_ahead): a log entry that drops nothing is a waste.

use rangedb_proto::v1::{self, CollectGarbage, GarbageCollected, command_reply};

use super::range_check::RangeCheck;
use super::{Evaluate, Stop};
use crate::evaluation::Evaluation;
use crate::facts::{CommandFacts, Cost, NamedTimestamps, Visit};
use crate::garbage::{GARBAGE_WALK_MAX, Garbage};
use crate::limits::{check_span, check_timestamp, span_end};

impl CommandFacts for CollectGarbage {
    fn name(&self) -> &'static str {
        "collect_garbage"
    }

    fn check(&self) -> Result<(), v1::Error> {
        check_timestamp("floor_ts", self.floor_ts)?;
        if self.collect_below_ts > self.floor_ts {
            let CollectGarbage { floor_ts, collect_below_ts, .. } = self;
            let message =
                format!("collect_below_ts {collect_below_ts} is above floor_ts {floor_ts}");
            return Err(v1::Error::invalid("collect_below_ts", message));
        }
        check_span("collect-garbage", &self.start_key, &self.end_key).map(|_| ())
    }

    fn start_ts(&self) -> u64 {
        0
    }

    fn timestamps(&self) -> NamedTimestamps {
        let CollectGarbage { floor_ts, collect_below_ts, start_key: _, end_key: _ } = self;
        NamedTimestamps::handed_out([*floor_ts, *collect_below_ts])
    }

    fn cost(&self) -> Cost {
        match self.collect_below_ts {
            0 => Cost::new(1, true),
            // One walk over each of three families.
            _ => Cost::new(3 * GARBAGE_WALK_MAX, true),
        }
    }

    fn visit_named<'a>(&'a self, visit: Visit<'_, 'a>) {
        // Which keys it names does not matter: nobody but nodes may send it.
        let _ = visit;
    }

    fn is_of_nodes(&self) -> bool {
        true
    }
}

impl Evaluate for CollectGarbage {
    /// Never lowers a floor. The highest collect_below so far decides what is dropped.
    fn evaluate(&self, evaluation: &mut Evaluation<'_, '_>) -> Result<command_reply::Body, Stop> {
        let context = evaluation.context;
        let start = match &self.start_key[..] {
            [] => context.start_key,
            start => start,
        };
        let end = span_end(&self.end_key, context.end_key);
        RangeCheck::of(context).check_part("collect-garbage", start, end)?;
        let collect_below = evaluation.memory().range.collected_below_ts.max(self.collect_below_ts);
        let found = match self.collect_below_ts {
            0 => Garbage::default(),
            _ => Garbage::find(evaluation.reader(), (start, end), collect_below, GARBAGE_WALK_MAX)?,
        };
        evaluation.raise_floors(self.floor_ts, self.collect_below_ts);
        let dropped = found.stored.len() as u64;
        for (cf, stored_key) in found.stored {
            evaluation.drop_garbage(cf, stored_key);
        }
        Ok(command_reply::Body::GarbageCollected(GarbageCollected {
            floor_ts: evaluation.memory().range.floor_ts,
            dropped,
            resume_key: found.next.unwrap_or_default(),
        }))
    }
}
