//! Writers that run until they are stopped, and the outcome of every write.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rangedb_client::{Client, Error};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::wait::{SOON, check, until};

/// Bytes of each value.
const VALUE_BYTES: usize = 100;

/// A write and its result.
pub struct Written {
    pub writer: usize,
    pub key: String,
    pub value: String,
    pub began: Instant,
    pub ended: Instant,
    pub result: Result<(), Error>,
}

/// Running writers, each with one write at a time. All keys are different.
pub struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: watch::Sender<u64>,
    writers: JoinSet<Vec<Written>>,
}

impl Load {
    /// Starts one writer for each client, with keys below `prefix`.
    pub fn start(clients: impl IntoIterator<Item = Client>, prefix: &str) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let (acknowledged, _) = watch::channel(0);
        let mut writers = JoinSet::new();
        for (writer, client) in clients.into_iter().enumerate() {
            let prefix = format!("{prefix}{writer}/");
            writers.spawn(write(client, writer, prefix, stop.clone(), acknowledged.clone()));
        }
        Load { stop, acknowledged, writers }
    }

    pub fn acknowledged(&self) -> u64 {
        *self.acknowledged.borrow()
    }

    /// Waits until this many more writes are acknowledged.
    pub async fn progress(&self, more: u64) {
        let wanted = self.acknowledged() + more;
        until("writes are acknowledged", SOON, async || {
            let now = self.acknowledged();
            check(now >= wanted, format!("{now} of {wanted}"))
        })
        .await;
    }

    /// Stops the writers and returns all their writes.
    pub async fn stop(self) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        Outcome { writes: self.writers.join_all().await.into_iter().flatten().collect() }
    }
}

async fn write(
    client: Client,
    writer: usize,
    prefix: String,
    stop: Arc<AtomicBool>,
    acknowledged: watch::Sender<u64>,
) -> Vec<Written> {
    let mut writes = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let key = format!("{prefix}{:08}", writes.len());
        let value = format!("{key:=<VALUE_BYTES$}");
        let began = Instant::now();
        let result = client.put(key.clone(), value.clone()).await.map(drop);
        if result.is_ok() {
            acknowledged.send_modify(|count| *count += 1);
        }
        writes.push(Written { writer, key, value, began, ended: Instant::now(), result });
    }
    writes
}

pub struct Outcome {
    pub writes: Vec<Written>,
}

impl Outcome {
    pub fn failures(&self) -> Vec<String> {
        let failed =
            self.writes.iter().filter_map(|write| Some((write, write.result.as_ref().err()?)));
        failed.map(|(write, error)| format!("{}: {error}", write.key)).collect()
    }

    /// Returns the time from `cut` until every writer has had a write acknowledged that began after
    /// `cut`.
    pub fn resumed_after(&self, cut: Instant) -> Duration {
        let writers = self.writes.iter().map(|write| write.writer).max().map_or(0, |last| last + 1);
        let resumed = |writer: usize| {
            let later = self.writes.iter().filter(|write| {
                write.writer == writer && write.began >= cut && write.result.is_ok()
            });
            let first = later.map(|write| write.ended).min();
            first.unwrap_or_else(|| panic!("writer {writer} never got through again")) - cut
        };
        (0..writers).map(resumed).max().expect("at least one writer")
    }

    /// Asserts that every acknowledged write can be read back.
    pub async fn verify(&self, client: &Client) {
        let acknowledged: Vec<&Written> =
            self.writes.iter().filter(|write| write.result.is_ok()).collect();
        assert!(!acknowledged.is_empty(), "nothing was acknowledged");
        let keys = acknowledged.iter().map(|write| write.key.clone());
        let found = client.get_many(keys).await.expect("acknowledged keys can be read");
        for (write, found) in acknowledged.iter().zip(found) {
            let found =
                found.unwrap_or_else(|| panic!("{} was acknowledged and is lost", write.key));
            assert_eq!(found.value, write.value, "{}", write.key);
        }
    }
}
