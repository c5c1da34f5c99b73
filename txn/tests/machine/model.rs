//! Random commands and reads, compared with a model. The model keeps every version of every key in
//! a list, and knows nothing of records or column families.
//!
//! The model collects no garbage. The machine does, at random. It may then answer `TooOld` only
//! where the model says so too, for what lies below a floor. All other answers must be those of the
//! model.
//!
//! During a run the machine is loaded again, the state crashes and the log is replayed, and a
//! second replica applies the same log in batches of other sizes. None of this may change a reply
//! or a byte.

pub mod draw;
mod state;

use crate::support::logged::Logged;
use crate::support::{Replica, get_unlocked, scan_unlocked};
use bytes::Bytes;
use draw::Draw;
use rangedb_proto::v1::{KeyValue, TooOld, command, command_reply};
use rangedb_storage::Direction;
use rangedb_txn::{ReadAt, ScanRequest};
use state::{Model, REUSED};

const START_KEY: &[u8] = b"b";
const END_KEY: &[u8] = b"y";

#[test]
fn every_reply_and_read_is_what_the_model_says() {
    let (dropped, reused) = (0..80)
        .map(|seed| Run::new(seed).steps(500))
        .fold((0, 0), |(dropped, reused), run| (dropped + run.dropped, reused + run.reused));
    assert!(reused > 300, "only {reused} commands with the start_ts of another");
    assert!(
        dropped > 1_000,
        "{dropped} records dropped: a run without garbage proves nothing of it"
    );
}

struct Run {
    seed: u64,
    draw: Draw,
    model: Model,
    range: Logged,
    dropped: u64,
    /// Commands that were refused because another command has their start_ts.
    reused: u64,
}

impl Run {
    fn new(seed: u64) -> Self {
        Run {
            seed,
            draw: Draw::new(seed),
            model: Model::new(START_KEY, END_KEY),
            range: Logged::new(seed, START_KEY, END_KEY),
            dropped: 0,
            reused: 0,
        }
    }

    fn steps(mut self, count: usize) -> Self {
        for _ in 0..count {
            match self.draw.rng.u32(0..100) {
                0..60 => self.commit(),
                60..75 => self.read_one(),
                75..87 => self.scan_all(),
                // Not in every run: with a floor, most commands are too old to do much.
                87..90 if !self.seed.is_multiple_of(4) => self.collect(),
                _ => self.range.disturb(&mut self.draw.rng),
            }
        }
        self.range.check_second_replica(&mut self.draw.rng);
        self
    }

    fn collect(&mut self) {
        let collect = self.draw.collect();
        self.model.raise_floor(&collect);
        let reply = self.range.apply(command::Body::CollectGarbage(collect));
        match reply.body {
            Some(command_reply::Body::GarbageCollected(collected)) => {
                assert_eq!(collected.floor_ts, self.model.floor_ts);
                assert_eq!(collected.resume_key, "", "few keys are no work for two commands");
                self.dropped += collected.dropped;
            }
            other => panic!("seed {}: {other:?}", self.seed),
        }
    }

    fn commit(&mut self) {
        let commit = self.draw.command();
        let mut reply = self.range.apply(command::Body::CommitOneRange(commit.clone()));
        if let Some(command_reply::Body::Invalid(reason)) = &mut reply.body
            && reason.contains(REUSED)
        {
            *reason = REUSED.into();
            self.reused += 1;
        }
        if let Some(command_reply::Body::ConditionFailed(failed)) = &mut reply.body {
            // The model does not record deletions of keys without a value.
            let newest_ts = std::mem::take(&mut failed.newest_ts);
            let found = failed.actual.as_ref().map(|kv| kv.mod_ts);
            let is_told = newest_ts > commit.start_ts;
            let is_right = found.map_or(is_told || newest_ts == 0, |mod_ts| match is_told {
                true => newest_ts == mod_ts,
                false => newest_ts == 0 && mod_ts <= commit.start_ts,
            });
            assert!(is_right, "seed {}: {newest_ts} of {found:?}: {commit:?}", self.seed);
        }
        let expected = self.model.commit(&commit, self.range.fence);
        assert_eq!(reply, expected, "seed {}: {commit:?}", self.seed);
    }

    /// Draws the timestamp of a read. A snapshot read raises the fence: no commit may change what
    /// it saw.
    fn read_at(&mut self) -> ReadAt {
        let read_ts = if self.draw.rng.bool() { 0 } else { self.draw.rng.u64(1..=self.draw.now()) };
        self.range.fence = self.range.fence.max(read_ts);
        ReadAt::from_read_ts(read_ts)
    }

    fn read_one(&mut self) {
        let at = self.read_at();
        let key = self.draw.key();
        let actual = get_unlocked(&self.range.replica, &key, at);
        let expected = self.model.check_floor(at).map(|()| self.model.get(&key, at));
        assert_eq!(actual, expected, "seed {}: {key:?} {at:?}", self.seed);
    }

    fn scan_all(&mut self) {
        let at = self.read_at();
        let request = self.draw.scan(at);
        let mut expected = self.model.scan(&request.start, &request.end, at);
        if request.direction == Direction::Reverse {
            expected.reverse();
        }
        if request.keys_only {
            expected.iter_mut().for_each(|kv| kv.value = Bytes::new());
        }
        let actual = scan_pages(&self.range.replica, &request);
        let expected = self.model.check_floor(at).map(|()| expected);
        assert_eq!(actual, expected, "seed {}: {request:?}", self.seed);
    }
}

/// Reads all rows of the request, page by page. Each page must keep the request's bounds.
fn scan_pages(replica: &Replica, request: &ScanRequest) -> Result<Vec<KeyValue>, TooOld> {
    let mut request = request.clone();
    let mut rows = Vec::new();
    loop {
        let page = scan_unlocked(replica, &request)?;
        let bytes: usize = page.kvs.iter().map(|kv| kv.key.len() + kv.value.len()).sum();
        assert!(request.limit == 0 || page.kvs.len() as u64 <= request.limit);
        assert!(request.bytes_max == 0 || page.kvs.len() == 1 || bytes as u64 <= request.bytes_max);
        let progress = !page.kvs.is_empty();
        rows.extend(page.kvs);
        match (page.next, request.direction) {
            (None, _) => return Ok(rows),
            (Some(next), Direction::Forward) => request.start = next,
            (Some(next), Direction::Reverse) => request.end = next,
        }
        assert!(progress, "a page of few records that says there are more has a row");
    }
}
