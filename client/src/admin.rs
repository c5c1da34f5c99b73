//! Requests about the cluster itself. Any node accepts them and forwards them to the control plane.
//! The client sends them to the control plane directly if it knows its node.
//!
//! Replies are the wire's own messages: they are lists of figures for people and tools, and a
//! second set of types would only have to be kept equal.

use std::time::Duration;

use futures::{Stream, TryStreamExt, stream};
use rangedb_proto::Timestamp;
use rangedb_proto::v1::{self, request, response};

use crate::client::Client;
use crate::error::{Error, Result};
use crate::routing::retry::{Retry, RetrySafety};
use crate::routing::sender::unexpected_response;

/// Entries in one page of a listing.
const PAGE_ENTRIES: u64 = 500;

/// Requests about the cluster, made by [`Client::admin`].
pub struct Admin<'a> {
    pub(crate) client: &'a Client,
}

/// Sends a request to the cluster and takes the reply out of its envelope.
macro_rules! request {
    ($admin:expr, $kind:ident($request:expr)) => {
        match $admin.send(request::Body::$kind($request)).await? {
            response::Body::$kind(reply) => Ok(reply),
            _ => Err(unexpected_response("the cluster")),
        }
    };
}

impl<'a> Admin<'a> {
    pub(crate) fn new(client: &'a Client) -> Self {
        Admin { client }
    }

    pub async fn cluster_status(&self) -> Result<v1::ClusterStatus> {
        request!(self, ClusterStatus(v1::ClusterStatusRequest {}))
    }

    /// Every node that is or was part of the cluster.
    pub async fn nodes(&self) -> Result<Vec<v1::NodeStatus>> {
        Ok(self.cluster_status().await?.nodes)
    }

    /// Removes a node for good; its replicas are made again elsewhere. `node` is its id, peer
    /// address or client address. With `dry_run`, only returns the affected ranges.
    ///
    /// # Errors
    ///
    /// [`crate::Error::NotFound`] if there is no such node; [`crate::Error::FailedPrecondition`] if it
    /// is the last living one.
    pub async fn remove_node(&self, node: &str, dry_run: bool) -> Result<v1::RemoveNodeReply> {
        let request = v1::RemoveNode { node: node.to_owned(), dry_run: true };
        let found: v1::RemoveNodeReply = request!(self, RemoveNode(request))?;
        if dry_run {
            return Ok(found);
        }
        // By its id, so that a repetition cannot meet another node at the address.
        let node = found.node.unwrap_or_default().node_id.to_string();
        request!(self, RemoveNode(v1::RemoveNode { node, dry_run }))
    }

    /// Removes the effect of an entry that no replica of the range can apply: all replicas go on
    /// behind it. With `dry_run`, only returns these replicas.
    ///
    /// # Errors
    ///
    /// [`crate::Error::FailedPrecondition`] unless every replica of the range is known to stand at
    /// the entry; [`crate::Error::NotFound`] if there is no such range.
    pub async fn skip_entry(
        &self,
        range_id: u64,
        index: u64,
        dry_run: bool,
    ) -> Result<v1::SkipEntryReply> {
        let request = v1::SkipEntry { range_id, index, dry_run };
        request!(self, SkipEntry(request))
    }

    /// The value of one key under `_/`, as JSON.
    pub async fn meta_get(&self, key: &[u8]) -> Result<Option<v1::MetaEntry>> {
        let prefix = key.to_vec().into();
        let request = v1::MetaRead { prefix, exact: true, limit: 1, after: Default::default() };
        let reply: v1::MetaReadReply = request!(self, MetaRead(request))?;
        Ok(reply.entries.into_iter().next())
    }

    /// One page of the keys that start with `prefix`, behind the key `after`.
    pub async fn meta_page(
        &self,
        prefix: &[u8],
        after: &[u8],
        limit: u64,
    ) -> Result<v1::MetaReadReply> {
        let (prefix, after) = (prefix.to_vec().into(), after.to_vec().into());
        let request = v1::MetaRead { prefix, exact: false, limit, after };
        request!(self, MetaRead(request))
    }

    /// All keys that start with `prefix`, page by page.
    pub fn meta(&self, prefix: &[u8]) -> impl Stream<Item = Result<v1::MetaEntry>> + Send + use<> {
        let (client, prefix) = (self.client.clone(), prefix.to_vec());
        pages(move |after| {
            let (client, prefix) = (client.clone(), prefix.clone());
            async move {
                let reply = client.admin().meta_page(&prefix, &after, PAGE_ENTRIES).await?;
                let last = reply.entries.last().map(|entry| entry.key.to_vec());
                Ok((reply.entries, last.filter(|_| reply.more)))
            }
        })
    }

    /// Every setting of the cluster, with its default.
    pub async fn config_list(&self) -> Result<Vec<v1::ConfigEntry>> {
        self.config_read("", false).await
    }

    /// One setting; with `history`, also its earlier values. [`crate::Error::NotFound`] if there is
    /// no setting of that name.
    pub async fn config_get(&self, name: &str, history: bool) -> Result<v1::ConfigEntry> {
        if name.is_empty() {
            return Err(Error::invalid("name", "a setting has a name"));
        }
        let entries = self.config_read(name, history).await?;
        let not_found = || Error::NotFound(format!("no setting is called `{name}`"));
        entries.into_iter().next().ok_or_else(not_found)
    }

    /// Changes a setting; with `dry_run`, only checks the value. Returns the setting as it is then.
    pub async fn config_set(
        &self,
        name: &str,
        value: &str,
        dry_run: bool,
    ) -> Result<v1::ConfigEntry> {
        let (name, value) = (name.to_owned(), value.to_owned());
        let request_id = self.client.sender.net.random_below(u64::MAX) + 1;
        let request = v1::ConfigSet { name, value, dry_run, request_id };
        let reply: v1::ConfigSetReply = request!(self, ConfigSet(request))?;
        reply.entry.ok_or_else(|| unexpected_response("the cluster"))
    }

    /// Holds the GC floor under a name, so that the state at a timestamp stays readable until the
    /// hold is released, or for `ttl`. A later hold of the same name replaces the earlier one.
    /// Returns the oldest timestamp that can be read.
    ///
    /// # Errors
    ///
    /// [`crate::Error::TooOld`] if versions at that timestamp may be gone already.
    pub async fn hold_floor(
        &self,
        name: &str,
        timestamp: Timestamp,
        ttl: Option<Duration>,
    ) -> Result<Timestamp> {
        if timestamp == Timestamp::ZERO {
            return Err(Error::invalid("timestamp", "0 is before every commit"));
        }
        // On the wire 0 means for ever.
        let millis = |ttl: Duration| u32::try_from(ttl.as_millis()).unwrap_or(u32::MAX).max(1);
        let (name, timestamp, ttl_ms) = (name.to_owned(), timestamp.0, ttl.map_or(0, millis));
        let request = v1::HoldFloor { name, timestamp, ttl_ms, released_ts: 0 };
        let reply: v1::HoldFloorReply = request!(self, HoldFloor(request))?;
        Ok(Timestamp(reply.floor_ts))
    }

    /// Releases a hold. [`crate::Error::NotFound`] if there is none of that name.
    pub async fn release_floor(&self, name: &str) -> Result<()> {
        let holds = self.garbage_status().await?.holds;
        let Some(hold) = holds.into_iter().find(|hold| hold.name == name) else {
            return Err(Error::NotFound(format!("nothing holds the floor as `{name}`")));
        };
        let (name, released_ts) = (hold.name, hold.timestamp);
        let request = v1::HoldFloor { name, timestamp: 0, ttl_ms: 0, released_ts };
        let (sender, deadline) = (&self.client.sender, self.client.deadline());
        // A late copy finds this hold no more, and releases no other.
        let mut retry = Retry::new(&*sender.net, RetrySafety::Repeatable, deadline);
        match sender.to_cluster_by(&mut retry, &request::Body::HoldFloor(request)).await {
            // The request whose answer was lost has released it.
            Err(Error::NotFound(_)) if retry.has_lost_responses() => Ok(()),
            Err(error) if retry.has_lost_responses() => Err(Error::Undetermined(error.to_string())),
            response => response.map(drop),
        }
    }

    /// Returns the GC floor, from which on reads are possible, and the holds that keep it there.
    pub async fn garbage_status(&self) -> Result<v1::GarbageStatus> {
        request!(self, GarbageStatus(v1::GarbageStatusRequest {}))
    }

    /// One page of ranges in key order, behind the range that starts at `after`.
    pub async fn partition_page(&self, after: &[u8], limit: u64) -> Result<v1::PartitionListReply> {
        let request = v1::PartitionList { after: after.to_vec().into(), limit };
        request!(self, PartitionList(request))
    }

    /// All ranges in key order, page by page.
    pub fn partitions(&self) -> impl Stream<Item = Result<v1::PartitionStatus>> + Send + use<> {
        let client = self.client.clone();
        pages(move |after| {
            let client = client.clone();
            async move {
                let reply = client.admin().partition_page(&after, PAGE_ENTRIES).await?;
                let last = reply.partitions.last().and_then(|p| p.report.as_ref());
                let start = last.and_then(|report| report.descriptor.as_ref());
                let start = start.map(|descriptor| descriptor.start_key.to_vec());
                Ok((reply.partitions, start.filter(|_| reply.more)))
            }
        })
    }

    /// Join request of a node to the control plane. The node's data directory distinguishes a
    /// repeated request from a second node, so the request may be repeated.
    #[doc(hidden)]
    pub async fn join(&self, node: v1::NodeDescriptor) -> Result<v1::JoinClusterReply> {
        request!(self, Join(v1::JoinCluster { node: Some(node) }))
    }

    /// Heartbeat of a node to the control plane. It only reports, so it may be repeated.
    #[doc(hidden)]
    pub async fn heartbeat(&self, heartbeat: v1::Heartbeat) -> Result<v1::HeartbeatReply> {
        request!(self, Heartbeat(heartbeat))
    }

    async fn config_read(&self, name: &str, history: bool) -> Result<Vec<v1::ConfigEntry>> {
        let request = v1::ConfigGet { name: name.to_owned(), history };
        let reply: v1::ConfigGetReply = request!(self, ConfigGet(request))?;
        Ok(reply.entries)
    }

    async fn send(&self, body: request::Body) -> Result<response::Body> {
        let deadline = self.client.deadline();
        self.client.sender.to_cluster(deadline, &body).await
    }
}

/// Entries of all pages. `page` fetches the entries behind a key, and returns the key behind which
/// the next page begins.
fn pages<T, F>(page: impl Fn(Vec<u8>) -> F + Send) -> impl Stream<Item = Result<T>> + Send
where
    T: Send,
    F: Future<Output = Result<(Vec<T>, Option<Vec<u8>>)>> + Send,
{
    let start = (page, Some(Vec::new()));
    let pages = stream::try_unfold(start, |(page, after)| async move {
        let Some(after) = after else { return Ok::<_, Error>(None) };
        let (entries, next) = page(after).await?;
        Ok(Some((stream::iter(entries.into_iter().map(Ok::<T, Error>)), (page, next))))
    });
    pages.try_flatten()
}
