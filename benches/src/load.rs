//! Closed load: workers that each send their next request when the last one is answered. The load
//! on one shared key is in `counter.rs`.

use std::fmt;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use hdrhistogram::Histogram;

use crate::Failure;
use crate::cluster::Contestant;

/// Kind of request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    Put,
    Get,
    /// An increment of the one counter that all workers share.
    Increment(Way),
}

/// Way to increment a counter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Way {
    /// One write under the condition that the version is the one last seen. If it is not, the
    /// answer carries the current version, and the next attempt begins there.
    Condition,
    /// The same with the value in place of the version.
    Swap,
    /// A transaction that reads the value and swaps it, run anew after a conflict.
    Transaction,
    /// A transaction that locks the key, then reads and writes it.
    Locked,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Put => "put",
            Kind::Get => "get",
            Kind::Increment(Way::Condition) => "increment by condition",
            Kind::Increment(Way::Swap) => "increment by swap",
            Kind::Increment(Way::Transaction) => "increment by transaction",
            Kind::Increment(Way::Locked) => "increment under a lock",
        })
    }
}

/// A database under load. An error ends the measurement, because a figure that includes failed
/// requests says nothing.
pub trait Target: Send + Sync {
    fn put(&self, worker: usize, key: Bytes, value: Bytes) -> BoxFuture<'_, Result<(), Failure>>;
    /// Reads a key, which must be there.
    fn get(&self, worker: usize, key: Bytes) -> BoxFuture<'_, Result<(), Failure>>;

    /// True if counters can be incremented that way.
    fn can_increment(&self, way: Way) -> bool;
    /// Reads the counter; its value is 0 if it was never incremented.
    fn counter(&self, worker: usize, key: Bytes) -> BoxFuture<'_, Result<CounterValue, Failure>>;
    /// Adds 1, in one attempt of [`Way::Condition`] or [`Way::Swap`].
    fn add_if(
        &self,
        worker: usize,
        key: Bytes,
        seen: CounterValue,
        way: Way,
    ) -> BoxFuture<'_, Result<Attempt, Failure>>;
    /// Adds 1 in a transaction. False if it gave up after conflicts; nothing was added then.
    fn add_in_transaction(
        &self,
        worker: usize,
        key: Bytes,
        locked: bool,
    ) -> BoxFuture<'_, Result<bool, Failure>>;
}

/// Value of a counter, with a mark that distinguishes it from every other value.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CounterValue {
    pub value: u64,
    /// 0 if the key is absent. Otherwise the database defines its meaning.
    pub mark: u64,
}

/// Outcome of one attempt, with the current value of the counter.
pub enum Attempt {
    Added(CounterValue),
    Lost(CounterValue),
}

/// Figures of one measurement.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    pub per_second: f64,
    pub p50: Duration,
    pub p99: Duration,
    pub longest: Duration,
    /// Attempts for each success; 1 if no attempt can be lost.
    pub attempts: f64,
    /// Successes of the worker with the fewest, divided by those of the worker with the most; 1 is
    /// fair.
    pub fairness: f64,
    /// Processor time of the servers for each success.
    pub server_cpu: Duration,
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0}/s, p50 {:.2?}, p99 {:.2?}", self.per_second, self.p50, self.p99)?;
        write!(f, ", longest {:.2?}, {:.1} attempts each", self.longest, self.attempts)?;
        write!(f, ", fewest to most {:.2}", self.fairness)?;
        write!(f, ", {:.1?} of the servers' processors each", self.server_cpu)
    }
}

impl Run {
    /// Computes the figures from the microseconds that each success took, worker by worker.
    pub fn new(
        histograms: Vec<Histogram<u64>>,
        took: Duration,
        attempts: u64,
        server_cpu: Duration,
    ) -> Result<Run, Failure> {
        let successes = histograms.iter().map(Histogram::len);
        let (fewest, most) = (successes.clone().min(), successes.max());
        let fairness = fewest.unwrap_or(0) as f64 / most.unwrap_or(0).max(1) as f64;
        let mut all = Histogram::<u64>::new(3)?;
        for histogram in histograms {
            all.add(histogram)?;
        }
        let at = |quantile| Duration::from_micros(all.value_at_quantile(quantile));
        let per_second = all.len() as f64 / took.as_secs_f64();
        let successes = all.len().max(1) as f64;
        let attempts = attempts as f64 / successes;
        let server_cpu = server_cpu.div_f64(successes);
        let (p50, p99, longest) = (at(0.5), at(0.99), at(1.0));
        Ok(Run { per_second, p50, p99, longest, attempts, fairness, server_cpu })
    }
}

pub struct Load {
    keys: u64,
    value: Bytes,
    lasts: Duration,
}

/// Requests in flight while the keys are written; the number does not matter.
const FILL_WORKERS: usize = 64;

impl Load {
    pub fn new(keys: u64, value_bytes: usize, lasts: Duration) -> Self {
        let mut numbers = Numbers(7);
        let value = (0..value_bytes).map(|_| numbers.next() as u8).collect();
        Load { keys, value, lasts }
    }

    /// Writes every key once.
    pub async fn fill(&self, target: &dyn Target) -> Result<(), Failure> {
        let mut under_way = FuturesUnordered::new();
        for number in 0..self.keys {
            if under_way.len() >= FILL_WORKERS {
                under_way.next().await.transpose()?;
            }
            under_way.push(target.put(number as usize, key(number), self.value.clone()));
        }
        while under_way.next().await.transpose()?.is_some() {}
        Ok(())
    }

    /// Runs one measurement. All workers run on the runtime's threads, as in an application.
    pub async fn run(
        &self,
        contestant: &Contestant,
        kind: Kind,
        workers: usize,
    ) -> Result<Run, Failure> {
        let (begin, cpu_before) = (Instant::now(), contestant.cluster.cpu()?);
        let end = begin + self.lasts;
        let target = &*contestant.target;
        let results = (0..workers).map(|worker| self.work(target, kind, worker, end));
        let histograms = futures::future::try_join_all(results).await?;
        let (took, cpu) = (begin.elapsed(), contestant.cluster.cpu()?.saturating_sub(cpu_before));
        let attempts = histograms.iter().map(Histogram::len).sum();
        Run::new(histograms, took, attempts, cpu)
    }

    async fn work(
        &self,
        target: &dyn Target,
        kind: Kind,
        worker: usize,
        end: Instant,
    ) -> Result<Histogram<u64>, Failure> {
        let mut histogram = Histogram::new(3)?;
        let mut numbers = Numbers(worker as u64 + 1);
        loop {
            let begin = Instant::now();
            if begin >= end {
                return Ok(histogram);
            }
            let key = key(numbers.next() % self.keys);
            match kind {
                Kind::Put => target.put(worker, key, self.value.clone()).await?,
                Kind::Get => target.get(worker, key).await?,
                Kind::Increment(_) => return Err("increments are another load".into()),
            }
            histogram.record(begin.elapsed().as_micros() as u64)?;
        }
    }
}

fn key(number: u64) -> Bytes {
    format!("/bench/{number:012}").into()
}

/// SplitMix64: the same keys in the same order for every target.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
