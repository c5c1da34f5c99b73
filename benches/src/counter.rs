//! Load on one key that all workers increment: it measures the progress of contending writers. An
//! increment counts when it is acknowledged, and its time is that of all its attempts. At the end
//! the counter must have grown by exactly the number of increments.
//!
//! With a condition, both databases answer a lost attempt with the current value, so the next
//! attempt needs no read. No worker pauses between attempts, on either side, unless the SDK does.

use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;

use crate::Failure;
use crate::cluster::Contestant;
use crate::load::{Attempt, Run, Target, Way};

/// Figures of one worker.
struct Part {
    histogram: Histogram<u64>,
    attempts: u64,
}

pub async fn run(
    contestant: &Contestant,
    way: Way,
    workers: usize,
    lasts: Duration,
    key: Bytes,
) -> Result<Run, Failure> {
    let target = &*contestant.target;
    let before = target.counter(0, key.clone()).await?.value;
    let (begin, cpu_before) = (Instant::now(), contestant.cluster.cpu()?);
    let end = begin + lasts;
    let parts = (0..workers).map(|worker| work(target, way, worker, end, key.clone()));
    let parts = futures::future::try_join_all(parts).await?;
    let (took, cpu) = (begin.elapsed(), contestant.cluster.cpu()?.saturating_sub(cpu_before));
    let attempts = parts.iter().map(|part| part.attempts).sum();
    let counted: u64 = parts.iter().map(|part| part.histogram.len()).sum();
    let after = target.counter(0, key).await?.value;
    if after != before + counted {
        let name = &contestant.name;
        return Err(format!("{name}: {counted} increments took {before} to {after}").into());
    }
    Run::new(parts.into_iter().map(|part| part.histogram).collect(), took, attempts, cpu)
}

async fn work(
    target: &dyn Target,
    way: Way,
    worker: usize,
    end: Instant,
    key: Bytes,
) -> Result<Part, Failure> {
    let mut part = Part { histogram: Histogram::new(3)?, attempts: 0 };
    let mut seen = target.counter(worker, key.clone()).await?;
    let mut begin = Instant::now();
    // An increment that has begun is completed, so that all workers count the same thing.
    while begin < end {
        part.attempts += 1;
        let key = key.clone();
        let added = match way {
            Way::Condition | Way::Swap => match target.add_if(worker, key, seen, way).await? {
                Attempt::Added(now) => {
                    seen = now;
                    true
                }
                Attempt::Lost(now) => {
                    seen = now;
                    false
                }
            },
            Way::Transaction => target.add_in_transaction(worker, key, false).await?,
            Way::Locked => target.add_in_transaction(worker, key, true).await?,
        };
        if added {
            let now = Instant::now();
            part.histogram.record((now - begin).as_micros() as u64)?;
            begin = now;
        }
    }
    Ok(part)
}
