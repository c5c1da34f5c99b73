//! A closed load: workers that each send their next request when the last one is answered.

use std::fmt;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use hdrhistogram::Histogram;

use crate::Failure;

/// What a request does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    Put,
    Get,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Put => "put",
            Kind::Get => "get",
        })
    }
}

/// A database under load. An error ends the measurement: a figure with failed requests in it says
/// nothing.
pub trait Target: Send + Sync {
    fn name(&self) -> &'static str;
    fn put(&self, worker: usize, key: Bytes, value: Bytes) -> BoxFuture<'_, Result<(), Failure>>;
    /// The key must be there.
    fn get(&self, worker: usize, key: Bytes) -> BoxFuture<'_, Result<(), Failure>>;
}

/// One measurement.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    pub per_second: f64,
    pub p50: Duration,
    pub p99: Duration,
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0}/s, p50 {:.2?}, p99 {:.2?}", self.per_second, self.p50, self.p99)
    }
}

pub struct Load {
    keys: u64,
    value: Bytes,
    lasts: Duration,
}

/// Requests under way while the keys are written: any number does.
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

    /// One measurement. All workers run on the runtime's threads, as in an application.
    pub async fn run(
        &self,
        target: &dyn Target,
        kind: Kind,
        workers: usize,
    ) -> Result<Run, Failure> {
        let begin = Instant::now();
        let end = begin + self.lasts;
        let results = (0..workers).map(|worker| self.work(target, kind, worker, end));
        let histograms = futures::future::try_join_all(results).await?;
        let took = begin.elapsed();
        let mut all = Histogram::<u64>::new(3)?;
        for histogram in histograms {
            all.add(histogram)?;
        }
        let at = |quantile| Duration::from_micros(all.value_at_quantile(quantile));
        let per_second = all.len() as f64 / took.as_secs_f64();
        Ok(Run { per_second, p50: at(0.5), p99: at(0.99) })
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
