//! Puts to one range beside heavy work in another: deletes of long spans, validations of long
//! reads, and scans whose answers are not read. The measure is how much longer the puts take than
//! alone, in the same run. Besides, no leadership must move, and the nodes must keep within their
//! memory.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::ops::Range;
use std::pin::pin;
use std::time::{Duration, Instant};

use bytes::Bytes;
use comfy_table::Table;
use futures::StreamExt;
use futures::future::{Either, select, try_join_all};
use futures::stream::{self, TryStreamExt};
use hdrhistogram::Histogram;
use rangedb_client::{Batch, Client, Config};
use rangedb_proto::RangeDescriptorExt;
use rangedb_proto::v1::node_client::NodeClient;
use rangedb_proto::v1::{
    NodeDescriptor, RangeDescriptor, RangeHeader, ReadCheck, Request, Requests, Scan, Validate,
    request, response,
};
use tonic::transport::{Channel, Endpoint};

use crate::Failure;
use crate::cluster::Cluster;

/// Prefixes of the heavy keys and of the keys that are put beside them. In every cluster, a
/// boundary of the first ranges lies between the two.
const HEAVY: &str = "heavy/";
const BESIDE: &str = "A/";

const PUT_WORKERS: usize = 16;

/// Deletes at once, validations at once, and scans whose answers are not read.
const DELETES: usize = 8;
const VALIDATIONS: usize = 64;
const SCANS: usize = 2048;

/// Scans of one stream.
const SCANS_EACH: usize = 256;

/// Keys of one commit while the keys are written, and commits at once.
const FILL_KEYS: u64 = 1000;
const FILL_WORKERS: usize = 4;

/// Timeout of each call of the client. Eight deletes of a million keys at once take a quarter of an
/// hour on two cores.
const CALL_TIMEOUT: Duration = Duration::from_secs(3600);

/// Extent of the measurement.
pub struct Settings {
    /// Keys of a span that is deleted, validated or scanned.
    pub keys: u64,
    /// Duration of the puts alone, and of those beside scans.
    pub lasts: Duration,
    pub memory_limit: u64,
}

/// Latencies of puts beside one kind of work.
struct Phase {
    name: String,
    took: Duration,
    /// Microseconds.
    puts: Histogram<u64>,
    /// Number of ranges whose term changed.
    moved: usize,
    /// Highest memory of any node so far, in bytes.
    resident: u64,
}

struct Bench<'a> {
    settings: Settings,
    cluster: &'a Cluster,
    client: Client,
}

/// Measures all phases and returns them as a table.
pub async fn measure(cluster: &Cluster, settings: Settings) -> Result<Table, Failure> {
    let client = Client::connect(Config::new(cluster.endpoints()))?.with_timeout(CALL_TIMEOUT);
    let bench = Bench { settings, cluster, client };
    // One span more than that, so that the single delete leaves enough for the others.
    for span in 0..=DELETES {
        eprintln!("heavy: writing span {span} of {} keys", bench.settings.keys);
        bench.fill(span).await?;
    }
    bench.balanced().await?;
    let lasts = bench.settings.lasts;
    let alone = || async {
        tokio::time::sleep(lasts).await;
        Ok(())
    };
    let mut phases = vec![bench.phase("nothing", alone()).await?];
    let validations = format!("{VALIDATIONS} validations");
    phases.push(bench.phase(&validations, bench.validations()).await?);
    let scans = format!("{SCANS} unread scans");
    phases.push(bench.phase(&scans, bench.unread_scans(lasts)).await?);
    phases.push(bench.phase("1 delete", bench.deletes(0..1)).await?);
    let deletes = format!("{DELETES} deletes");
    phases.push(bench.phase(&deletes, bench.deletes(1..DELETES + 1)).await?);
    phases.push(bench.phase("nothing again", alone()).await?);
    Ok(table(&phases, bench.settings.memory_limit))
}

fn span(number: usize) -> (Bytes, Bytes) {
    (format!("{HEAVY}{number}/").into(), format!("{HEAVY}{number}0").into())
}

impl Bench<'_> {
    async fn fill(&self, number: usize) -> Result<(), Failure> {
        let (start, _) = span(number);
        let start = String::from_utf8_lossy(&start).into_owned();
        let commits = (0..self.settings.keys).step_by(FILL_KEYS as usize).map(|first| {
            let (client, start) = (self.client.clone(), start.clone());
            let end = (first + FILL_KEYS).min(self.settings.keys);
            async move {
                let put = |batch: Batch, key| batch.put(format!("{start}{key:08}"), "0123456789");
                client.batch((first..end).fold(Batch::new(), put)).await
            }
        });
        stream::iter(commits).buffer_unordered(FILL_WORKERS).try_for_each(async |_| Ok(())).await?;
        Ok(())
    }

    /// Puts beside the work until the work is done.
    async fn phase(
        &self,
        name: &str,
        work: impl Future<Output = Result<(), Failure>>,
    ) -> Result<Phase, Failure> {
        let (before, begin) = (self.terms().await?, Instant::now());
        let mut parts = vec![Histogram::<u64>::new(3)?; PUT_WORKERS];
        {
            let each = parts.iter_mut().enumerate().map(|(worker, part)| self.put(worker, part));
            // Only an error ends the puts.
            match select(pin!(work), pin!(try_join_all(each))).await {
                Either::Left((done, _)) => done?,
                Either::Right((ended, _)) => drop::<Vec<Infallible>>(ended?),
            }
        }
        let took = begin.elapsed();
        let mut puts = Histogram::new(3)?;
        for part in parts {
            puts.add(part)?;
        }
        let after = self.terms().await?;
        let moved = after.iter().filter(|(range, term)| before.get(range) != Some(term)).count();
        let resident = self.cluster.peak_memory()?;
        let phase = Phase { name: name.to_owned(), took, puts, moved, resident };
        eprintln!("heavy: beside {name}: {} puts in {took:.1?}", phase.puts.len());
        Ok(phase)
    }

    /// Puts one key after the other, without end.
    async fn put(&self, worker: usize, times: &mut Histogram<u64>) -> Result<Infallible, Failure> {
        let mut number = 0_u64;
        loop {
            let begin = Instant::now();
            let key = format!("{BESIDE}{worker}/{}", number % 1000);
            self.client.put(key, vec![b'v'; 256]).await?;
            times.record(begin.elapsed().as_micros() as u64)?;
            number += 1;
        }
    }

    async fn deletes(&self, spans: Range<usize>) -> Result<(), Failure> {
        let deletes = spans.map(|number| {
            let (start, end) = span(number);
            self.client.delete_range(start, end)
        });
        for deleted in try_join_all(deletes).await? {
            if deleted.deleted != self.settings.keys {
                return Err(format!("{deleted:?} of {} keys", self.settings.keys).into());
            }
        }
        Ok(())
    }

    /// Runs the validations. Each looks at a whole span, with as many requests as that takes.
    async fn validations(&self) -> Result<(), Failure> {
        let (range, mut node) = self.home().await?;
        let start_ts = self.client.timestamp().await?.0;
        let commit_ts = self.client.timestamp().await?.0;
        let mut left: BTreeMap<u64, Bytes> =
            (0..VALIDATIONS as u64).map(|id| (id, span(id as usize % DELETES).0)).collect();
        while !left.is_empty() {
            let validate = |(id, start_key): (&u64, &Bytes)| {
                let (_, end_key) = span(*id as usize % DELETES);
                let read = ReadCheck { start_key: start_key.clone(), end_key, read_ts: start_ts };
                let reads = vec![read];
                let validate = Validate {
                    range: Some(range),
                    start_ts,
                    commit_ts,
                    reads,
                    ..Default::default()
                };
                of_node(*id, request::Body::Validate(validate))
            };
            let requests = Requests { requests: left.iter().map(validate).collect() };
            let mut answers = node.stream(stream::iter([requests])).await?.into_inner();
            while let Some(message) = answers.message().await? {
                for answer in message.responses {
                    let Some(response::Body::Validate(reply)) = answer.body else {
                        return Err(format!("a validation came to {:?}", answer.body).into());
                    };
                    if reply.conflict.is_some() {
                        return Err("a validation met a conflict".into());
                    }
                    match reply.more {
                        true => drop(left.insert(answer.id, reply.resume_key)),
                        false => drop(left.remove(&answer.id)),
                    }
                }
            }
        }
        Ok(())
    }

    async fn unread_scans(&self, lasts: Duration) -> Result<(), Failure> {
        let (range, node) = self.home().await?;
        let mut unread = Vec::new();
        for first in (0..SCANS).step_by(SCANS_EACH) {
            let scan = |id: usize| {
                let (start_key, end_key) = span(id % DELETES);
                let scan = Scan { range: Some(range), start_key, end_key, ..Default::default() };
                of_node(id as u64, request::Body::Scan(scan))
            };
            let requests = Requests { requests: (first..first + SCANS_EACH).map(scan).collect() };
            // A stream whose sender is open stays open.
            let sent = stream::iter([requests]).chain(stream::pending());
            unread.push(node.clone().stream(sent).await?);
        }
        tokio::time::sleep(lasts).await;
        Ok(())
    }

    /// Returns the header of the heavy range, and a connection to its leader.
    async fn home(&self) -> Result<(RangeHeader, NodeClient<Channel>), Failure> {
        let nodes = self.client.admin().nodes().await?;
        let nodes: Vec<NodeDescriptor> = nodes.into_iter().filter_map(|node| node.node).collect();
        let holds_heavy = |range: &RangeDescriptor| range.contains(HEAVY.as_bytes());
        let partitions: Vec<_> = self.client.admin().partitions().try_collect().await?;
        for report in partitions.into_iter().filter_map(|partition| partition.report) {
            let Some(range) = report.descriptor.filter(holds_heavy) else { continue };
            let leader = nodes.iter().find(|node| node.node_id == report.leader_node_id);
            let address = &leader.ok_or("the heavy range has no leader")?.client_address;
            let channel = Endpoint::new(format!("http://{address}"))?.connect().await?;
            let header = RangeHeader { range_id: range.range_id, epoch: range.epoch };
            return Ok((header, NodeClient::new(channel)));
        }
        Err("no range holds the heavy keys".into())
    }

    /// Waits until no leadership will be moved for balance: such a move would count as one of the
    /// load's.
    async fn balanced(&self) -> Result<(), Failure> {
        let begin = Instant::now();
        while begin.elapsed() < CALL_TIMEOUT {
            let mut leaders = BTreeMap::<u64, usize>::new();
            let partitions: Vec<_> = self.client.admin().partitions().try_collect().await?;
            for report in partitions.into_iter().filter_map(|partition| partition.report) {
                *leaders.entry(report.leader_node_id).or_default() += 1;
            }
            let (fewest, most) = (leaders.values().min(), leaders.values().max());
            let is_level = fewest.zip(most).is_some_and(|(fewest, most)| most - fewest < 2);
            if is_level && leaders.len() == self.cluster.endpoints().len() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        Err("leaderships are not balanced".into())
    }

    async fn terms(&self) -> Result<BTreeMap<u64, u64>, Failure> {
        let partitions: Vec<_> = self.client.admin().partitions().try_collect().await?;
        let reports = partitions.into_iter().filter_map(|partition| partition.report);
        let term = |report: rangedb_proto::v1::RangeReport| {
            report.descriptor.map(|descriptor| (descriptor.range_id, report.term))
        };
        Ok(reports.filter_map(term).collect())
    }
}

fn of_node(id: u64, body: request::Body) -> Request {
    let timeout_ms = CALL_TIMEOUT.as_millis() as u32;
    Request { id, timeout_ms, body: Some(body), ..Default::default() }
}

fn table(phases: &[Phase], memory_limit: u64) -> Table {
    let mut table = Table::new();
    table.set_header([
        "beside",
        "took",
        "puts per second",
        "p50",
        "p99",
        "times alone",
        "longest",
        "leaderships moved",
        "most memory, of the limit",
    ]);
    let p99 = |phase: &Phase| phase.puts.value_at_quantile(0.99).max(1) as f64;
    for phase in phases {
        let at =
            |quantile| format!("{:.2} ms", phase.puts.value_at_quantile(quantile) as f64 / 1e3);
        table.add_row([
            phase.name.clone(),
            format!("{:.1} s", phase.took.as_secs_f64()),
            format!("{:.0}", phase.puts.len() as f64 / phase.took.as_secs_f64()),
            at(0.5),
            at(0.99),
            format!("{:.2}", p99(phase) / p99(&phases[0])),
            at(1.0),
            phase.moved.to_string(),
            format!("{:.2}", phase.resident as f64 / memory_limit as f64),
        ]);
    }
    table
}
