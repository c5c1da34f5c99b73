//! [`Client`]: reads, and writes that are one request.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use rangedb_proto::{
    RangeDescriptorExt, Timestamp,
    v1::{self, RangeDescriptor, RangeHeader, request, response},
};

use crate::admin::Admin;
use crate::background::Background;
use crate::batch::{
    Batch, Committed, DeleteOptions, Deleted, OperationResult, PutOptions, Written,
};
use crate::condition::{Condition, Test};
use crate::config::Config;
use crate::delete_range::{self, DeletedRange};
use crate::error::{Error, Result};
use crate::grpc::GrpcNet;
use crate::holds::Holds;
use crate::key_value::KeyValue;
use crate::keys::{Span, View};
use crate::locks::resolve::{Extent, Resolver};
use crate::locks::turns::Turns;
use crate::metrics::{Metrics, Path};
use crate::net::SharedNet;
use crate::one_range;
use crate::range::{RangeOptions, RangeStream};
use crate::routing::router::RouteTarget;
use crate::routing::sender::{Sender, unexpected_response};
use crate::timestamps::Timestamps;
use crate::trace::traced;
use crate::transaction::over_ranges;

/// Reads of [`Client::get_many`] in flight at once: enough to fill the batches of a few nodes, few
/// enough that one caller cannot fill a node's queue.
pub(crate) const GET_MANY_CONCURRENCY: usize = 64;

/// A connection to a cluster. Clones are cheap and share everything but the timeout.
///
/// The client retries every request until its timeout, as long as a retry can do no harm; [`Error`]
/// lists how a request can end. Dropping a request's future abandons the request: a write may
/// happen all the same.
#[derive(Clone)]
pub struct Client {
    pub(crate) sender: Arc<Sender>,
    pub(crate) timestamps: Timestamps,
    pub(crate) resolver: Arc<Resolver>,
    pub(crate) background: Arc<Background>,
    pub(crate) holds: Arc<Holds>,
    pub(crate) turns: Turns,
    cluster_id: Arc<OnceLock<u64>>,
    pub(crate) timeout: Duration,
    pub(crate) view: View,
}

impl Client {
    /// Creates a client and checks the configuration. Connections are opened when requests need
    /// them, so an unreachable cluster shows with the first request.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn connect(config: Config) -> Result<Client> {
        Self::with_net(Arc::new(GrpcNet::new()), config)
    }

    /// As [`Client::connect`], over the caller's implementation of `Net`.
    pub fn with_net(net: SharedNet, config: Config) -> Result<Client> {
        config.check()?;
        let background = Arc::new(Background::new(net.clone()));
        let sender = Arc::new(Sender::new(net, &config));
        let timestamps = Timestamps::new(sender.clone());
        let resolver = Arc::new(Resolver::new(sender.clone(), timestamps.clone()));
        let holds = Arc::new(Holds::new(sender.clone()));
        let (timeout, view, cluster_id) = (config.timeout, View::User, Arc::default());
        let turns = Turns::new(sender.net.clone());
        let client = Client {
            sender,
            timestamps,
            resolver,
            background,
            holds,
            turns,
            cluster_id,
            timeout,
            view,
        };
        Ok(client)
    }

    /// Returns the same client with another timeout for each request.
    pub fn with_timeout(&self, timeout: Duration) -> Client {
        Client { timeout, ..self.clone() }
    }

    /// Returns the same client with access to keys under `_/`, for the control plane inside a node.
    #[doc(hidden)]
    pub fn system(&self) -> Client {
        Client { view: View::System, ..self.clone() }
    }

    /// Waits for the background work of requests that were answered: locks of committed
    /// transactions that are still being turned into values, and rollbacks. A program that ends
    /// without this call loses nothing, but leaves that work to the requests that meet the locks.
    pub async fn finish(&self) {
        self.background.ended().await;
    }

    /// Counters of all requests of this client and its clones so far.
    pub fn metrics(&self) -> Metrics {
        self.sender.metrics.snapshot()
    }

    /// Cluster id: a random number, assigned when the cluster formed. Fetched once.
    pub async fn cluster_id(&self) -> Result<u64> {
        if let Some(cluster_id) = self.cluster_id.get() {
            return Ok(*cluster_id);
        }
        let cluster_id = self.admin().cluster_status().await?.cluster_id;
        Ok(*self.cluster_id.get_or_init(|| cluster_id))
    }

    /// Requests about the cluster itself.
    pub fn admin(&self) -> Admin<'_> {
        Admin::new(self)
    }

    /// Returns a timestamp above every commit that was acknowledged before this call, for `get_at`
    /// and [`RangeOptions::at`].
    pub async fn timestamp(&self) -> Result<Timestamp> {
        self.timestamps.next(self.deadline()).await
    }

    /// Reads the newest committed value of a key; linearizable.
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<Option<KeyValue>> {
        self.read(key.into(), 0).await
    }

    /// Reads a key's value as of a timestamp.
    pub async fn get_at(&self, key: impl Into<Bytes>, at: Timestamp) -> Result<Option<KeyValue>> {
        if at == Timestamp::ZERO {
            return Err(Error::invalid("read_ts", "0 is before every commit"));
        }
        self.read(key.into(), at.0).await
    }

    /// Reads the newest values of many keys, in the order of the keys. Each key is read separately,
    /// so the values are not a snapshot; for that, read each with [`Client::get_at`] at one
    /// timestamp.
    pub async fn get_many<K: Into<Bytes>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<KeyValue>>> {
        let keys: Vec<Bytes> = keys.into_iter().map(Into::into).collect();
        let reads = keys.into_iter().map(|key| self.read(key, 0));
        stream::iter(reads).buffered(GET_MANY_CONCURRENCY).try_collect().await
    }

    /// Scans rows in key order, fetched as they are read.
    pub fn range(&self, options: RangeOptions) -> RangeStream {
        RangeStream::new(self.clone(), options)
    }

    /// Sets a key unconditionally.
    pub async fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<Written> {
        self.put_with(key, value, PutOptions::default()).await
    }

    pub async fn put_with(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
        options: PutOptions,
    ) -> Result<Written> {
        let key = key.into();
        let batch = Batch::new().put(key.clone(), value);
        let batch = when_all(batch, &key, options.conditions);
        let batch = if options.return_previous { batch.return_previous() } else { batch };
        let (commit_ts, result) = self.commit_one(batch).await?;
        Ok(Written { commit_ts, previous: result.previous })
    }

    /// Deletes a key; it need not exist.
    pub async fn delete(&self, key: impl Into<Bytes>) -> Result<Deleted> {
        self.delete_with(key, DeleteOptions::default()).await
    }

    pub async fn delete_with(
        &self,
        key: impl Into<Bytes>,
        options: DeleteOptions,
    ) -> Result<Deleted> {
        let key = key.into();
        let batch = when_all(Batch::new().delete(key.clone()), &key, options.conditions);
        let batch = if options.return_previous { batch.return_previous() } else { batch };
        let (commit_ts, result) = self.commit_one(batch).await?;
        Ok(Deleted { commit_ts, existed: result.deleted > 0, previous: result.previous })
    }

    /// Deletes every key of `[start, end)`; an empty `end` is behind every key. Returns the number
    /// of deleted keys.
    ///
    /// A span in one range that holds no more than one command may delete (about a thousand keys)
    /// is deleted at once. A larger span is deleted in steps, in key order, each of them a commit
    /// of its own. Readers may then see it half deleted, and keys that others write in it meanwhile
    /// may be deleted or not. All steps together have the client's timeout, so make it long enough:
    /// some ten thousand keys take a second. For a delete of all keys at once use
    /// [`Batch::delete_range`] or a transaction, which have limits.
    ///
    /// # Errors
    ///
    /// As for every write. If a step fails, the deletes of the earlier steps stay, and the error
    /// says how far they got; call again to continue.
    pub async fn delete_range(
        &self,
        start: impl Into<Bytes>,
        end: impl Into<Bytes>,
    ) -> Result<DeletedRange> {
        let deleting = delete_range::delete_range(self, Span::new(start, end));
        traced(&*self.sender.net, "delete_range", deleting).await
    }

    /// Sets the key to `new` if its value is `expected` (none: if it has none). Otherwise returns
    /// [`Error::Conflict`] with the current row.
    pub async fn compare_and_swap(
        &self,
        key: impl Into<Bytes>,
        expected: Option<Bytes>,
        new: impl Into<Bytes>,
    ) -> Result<Written> {
        let test = expected.map_or(Test::Absent, Test::Value);
        let options = PutOptions { conditions: vec![test], ..PutOptions::default() };
        self.put_with(key, new, options).await
    }

    /// Applies all of a batch or nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Conflict`] if a condition does not hold. [`Error::TooLarge`] if a delete of a span
    /// that lies in several ranges finds more than [`crate::DELETE_RANGE_KEYS_MAX`] keys.
    pub async fn batch(&self, batch: Batch) -> Result<Committed> {
        let deadline = self.deadline();
        let (command, hull) = batch.into_command(self.view)?;
        let net = &*self.sender.net;
        let commit = one_range::commit_in_turn(self, command.clone(), &hull, deadline);
        let committed = match traced(net, "write", commit).await {
            Ok(Some(committed)) => Ok(Committed::from(committed)),
            Ok(None) => return over_ranges::commit_batch(self, &command, deadline).await,
            Err(error) => Err(error),
        };
        self.sender.metrics.ended(&committed, Path::OneRange);
        committed
    }

    /// Commits a batch of one operation.
    async fn commit_one(&self, batch: Batch) -> Result<(Timestamp, OperationResult)> {
        let mut committed = self.batch(batch).await?;
        let result = committed.results.pop().expect("one result for each operation");
        Ok((committed.commit_ts, result))
    }

    /// Reads the key's value at `read_ts`; 0: the newest.
    pub(crate) async fn read(&self, key: Bytes, read_ts: u64) -> Result<Option<KeyValue>> {
        self.view.check_key(&key)?;
        let build = |descriptor: &RangeDescriptor, read_ts: u64, passed: &[u64]| {
            request::Body::PointRead(v1::PointRead {
                range: Some(header(descriptor)),
                key: key.clone(),
                read_ts,
                pass_locks_of: passed.to_vec(),
            })
        };
        let (target, deadline) = (RouteTarget::Key(&key), self.deadline());
        let read = self.resolver.read(target, Extent::Key, read_ts, deadline, &build);
        match traced(&*self.sender.net, "get", read).await? {
            (_, response::Body::PointRead(reply)) => Ok(reply.kv.map(KeyValue::from)),
            _ => Err(unexpected_response("the range's leader")),
        }
    }

    /// Deadline of a request that begins now.
    pub(crate) fn deadline(&self) -> Duration {
        self.sender.net.now().saturating_add(self.timeout)
    }
}

/// Header with the range's id and its epoch as the caller knows it.
pub(crate) fn header(descriptor: &RangeDescriptor) -> RangeHeader {
    RangeHeader { range_id: descriptor.range_id, epoch: Some(descriptor.epoch()) }
}

fn when_all(batch: Batch, key: &Bytes, tests: Vec<Test>) -> Batch {
    let conditions = tests.into_iter().map(|test| Condition::new(key.clone(), test));
    conditions.fold(batch, Batch::when)
}
