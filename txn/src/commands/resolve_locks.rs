//! Resolution of a transaction's locks, by the decision at its primary.

use bytes::Bytes;
use rangedb_proto::v1::{self, ResolveLocks, Resolved, command_reply};
use rangedb_storage::{Direction, Record};

use super::commit_keys::check_high_enough;
use super::range_check::RangeCheck;
use super::{Evaluate, Stop, undecided};
use crate::check::{check_commit_ts, check_keys};
use crate::evaluation::Evaluation;
use crate::facts::{CommandFacts, Cost, LockChange, NamedTimestamps, Visit, visit_written};
use crate::limits::{COMMAND_ITEMS_MAX, COMMAND_WALK_MAX, check_key, check_span, span_end};
use crate::lock::Lock;
use crate::lock_walk::LockWalk;
use crate::versions;

/// Keys with a record in the lock family that one command walks over in a span. Most do not belong
/// to the transaction, and cost less than a lock that is finished. Only commands drop records of
/// this family, so every replica walks over the same ones.
pub(crate) const RESOLVE_WALK_MAX: usize = COMMAND_WALK_MAX;

/// Locks of the transaction that one command finishes.
#[derive(Default)]
struct Work {
    locked: Vec<(Bytes, Lock, Option<Record>)>,
    /// Key at which the next command goes on, if the span was too long.
    next: Option<Bytes>,
}

impl CommandFacts for ResolveLocks {
    fn name(&self) -> &'static str {
        "resolve_locks"
    }

    fn check(&self) -> Result<(), v1::Error> {
        let ResolveLocks { start_ts, commit_ts, keys, start_key, end_key, primary } = self;
        if !primary.is_empty() {
            check_key(primary)?;
        }
        if *commit_ts != 0 {
            check_commit_ts(*start_ts, *commit_ts)?;
        }
        check_span("resolve-locks", start_key, end_key)?;
        check_keys(*start_ts, keys)
    }

    fn start_ts(&self) -> u64 {
        self.start_ts
    }

    fn timestamps(&self) -> NamedTimestamps {
        let ResolveLocks { start_ts, commit_ts, keys: _, start_key: _, end_key: _, primary: _ } =
            self;
        NamedTimestamps::of_commit(*start_ts, *commit_ts)
    }

    fn cost(&self) -> Cost {
        let records = if self.keys.is_empty() { RESOLVE_WALK_MAX } else { self.keys.len() };
        Cost::new(records, true)
    }

    fn visit_named<'a>(&'a self, visit: Visit<'_, 'a>) {
        // The span holds locks of one transaction, and whoever took those may name them.
        visit_written(&self.keys, visit);
    }

    fn lock_change(&self, reply: &command_reply::Body) -> LockChange<'_> {
        let start_ts = self.start_ts;
        match (reply, &self.keys[..]) {
            (command_reply::Body::Resolved(_), []) => LockChange::ReleasedInSpan { start_ts },
            (command_reply::Body::Resolved(_), keys) => LockChange::Released { start_ts, keys },
            _ => LockChange::None,
        }
    }
}

impl Evaluate for ResolveLocks {
    /// Keys without a lock of the transaction stay as they are: another client was faster. The reply
    /// says how many had one.
    fn evaluate(&self, evaluation: &mut Evaluation<'_, '_>) -> Result<command_reply::Body, Stop> {
        let work = match self.keys.is_empty() {
            true => in_span(evaluation, self)?,
            false => at_keys(evaluation, self)?,
        };
        if self.commit_ts > 0 {
            let promises = work.locked.iter().map(|(key, lock, _)| lock.promise(key));
            check_high_enough(promises.max().unwrap_or_default(), self.commit_ts)?;
        }
        let keys = work.locked.len() as u64;
        if self.commit_ts > 0 {
            let timestamps = (self.start_ts, self.commit_ts);
            undecided::commit(evaluation, timestamps, work.locked)?;
        } else {
            for (key, lock, _) in &work.locked {
                evaluation.roll_back(key, self.start_ts, Some(lock));
            }
        }
        let resume_key = work.next.unwrap_or_default();
        Ok(command_reply::Body::Resolved(Resolved { keys, resume_key }))
    }
}

/// True if the command finishes this lock: it has the start_ts, and names the command's primary if
/// the command has one. A transaction that failed to lock its first primary may have gone on with a
/// second one. Then a lock that was met under the first may now stand under the second, and may be
/// committed there.
fn is_meant(resolve: &ResolveLocks, lock: &Lock) -> bool {
    let follows = resolve.primary.is_empty() || lock.primary == resolve.primary;
    lock.start_ts == resolve.start_ts && follows
}

fn at_keys(evaluation: &Evaluation<'_, '_>, resolve: &ResolveLocks) -> Result<Work, Stop> {
    RangeCheck::of(evaluation.context).check_keys(&resolve.keys)?;
    let (memory, reader) = (evaluation.memory(), evaluation.reader());
    let mut work = Work::default();
    for key in &resolve.keys {
        if let Some(lock) = memory.locks.get(reader, key)?
            && is_meant(resolve, &lock)
        {
            work.locked.push((key.clone(), lock, versions::current(reader, key)?));
        }
    }
    Ok(work)
}

fn in_span(evaluation: &Evaluation<'_, '_>, resolve: &ResolveLocks) -> Result<Work, Stop> {
    let (context, reader) = (evaluation.context, evaluation.reader());
    let start = match &resolve.start_key[..] {
        [] => context.start_key,
        start => start,
    };
    let end = span_end(&resolve.end_key, context.end_key);
    RangeCheck::of(context).check_part("resolve-locks", start, end)?;
    let mut work = Work::default();
    if evaluation.memory().locks.is_empty() {
        return Ok(work);
    }
    let mut walk = LockWalk::new(reader, (start, end), Direction::Forward)?;
    let mut walked = 0;
    while let Some((key, lock)) = walk.next()? {
        if walked == RESOLVE_WALK_MAX || work.locked.len() == COMMAND_ITEMS_MAX {
            work.next = Some(key);
            break;
        }
        walked += 1;
        if let Some(lock) = lock.filter(|lock| is_meant(resolve, lock)) {
            let current = versions::current(reader, &key)?;
            work.locked.push((key, lock, current));
        }
    }
    Ok(work)
}
