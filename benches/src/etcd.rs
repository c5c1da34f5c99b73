//! etcd under load, through its gRPC protocol.

use bytes::Bytes;
use futures::future::BoxFuture;
use tonic::transport::{Channel, Endpoint};

use crate::Failure;
use crate::load::{Attempt, CounterValue, Target, Way};

#[allow(clippy::all, clippy::allow_attributes_without_reason, reason = "generated")]
mod pb {
    include!(concat!(env!("OUT_DIR"), "/etcdserverpb.rs"));
}

use pb::kv_client::KvClient;

/// Connections to each node. etcd's own benchmark tool is fastest with some tens of clients on each
/// connection.
const CONNECTIONS_PER_NODE: usize = 4;

pub struct Etcd {
    connections: Vec<KvClient<Channel>>,
}

impl Etcd {
    pub async fn connect(endpoints: &[String]) -> Result<Self, Failure> {
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS_PER_NODE {
            for endpoint in endpoints {
                let channel = Endpoint::new(format!("http://{endpoint}"))?.connect().await?;
                connections.push(KvClient::new(channel));
            }
        }
        Ok(Etcd { connections })
    }

    fn connection(&self, worker: usize) -> KvClient<Channel> {
        self.connections[worker % self.connections.len()].clone()
    }
}

impl Target for Etcd {
    fn put(&self, worker: usize, key: Bytes, value: Bytes) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            let put = pb::PutRequest { key: key.to_vec(), value: value.to_vec() };
            self.connection(worker).put(put).await?;
            Ok(())
        })
    }

    fn get(&self, worker: usize, key: Bytes) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            let range = pb::RangeRequest { key: key.to_vec() };
            let found = self.connection(worker).range(range).await?.into_inner();
            found.kvs.first().map(drop).ok_or_else(|| "a key that was written is not there".into())
        })
    }

    fn can_increment(&self, way: Way) -> bool {
        // etcd's locks are keys, and waiting for one takes rounds of its own.
        way != Way::Locked
    }

    fn counter(&self, worker: usize, key: Bytes) -> BoxFuture<'_, Result<CounterValue, Failure>> {
        Box::pin(async move {
            let range = pb::RangeRequest { key: key.to_vec() };
            let found = self.connection(worker).range(range).await?.into_inner();
            seen(&found)
        })
    }

    fn add_if(
        &self,
        worker: usize,
        key: Bytes,
        last: CounterValue,
        way: Way,
    ) -> BoxFuture<'_, Result<Attempt, Failure>> {
        Box::pin(async move {
            let value = last.value + 1;
            let put = pb::PutRequest { key: key.to_vec(), value: value.to_string().into_bytes() };
            let mut unchanged = pb::Compare {
                result: pb::compare::CompareResult::Equal.into(),
                target: pb::compare::CompareTarget::Mod.into(),
                key: key.to_vec(),
                mod_revision: last.mark.try_into()?,
                value: Vec::new(),
            };
            if way == Way::Swap && last.mark > 0 {
                unchanged.target = pb::compare::CompareTarget::Value.into();
                unchanged.mod_revision = 0;
                unchanged.value = last.value.to_string().into_bytes();
            }
            let range = pb::RangeRequest { key: key.to_vec() };
            let txn = pb::TxnRequest {
                compare: vec![unchanged],
                success: vec![operation(pb::request_op::Request::RequestPut(put))],
                failure: vec![operation(pb::request_op::Request::RequestRange(range))],
            };
            let answer = self.connection(worker).txn(txn).await?.into_inner();
            if answer.succeeded {
                let revision = answer.header.ok_or("a transaction without a revision")?.revision;
                return Ok(Attempt::Added(CounterValue { value, mark: revision.try_into()? }));
            }
            let found = answer.responses.into_iter().next().and_then(|response| response.response);
            let Some(pb::response_op::Response::ResponseRange(found)) = found else {
                return Err("a transaction without the answer to its read".into());
            };
            Ok(Attempt::Lost(seen(&found)?))
        })
    }

    /// Works as a software transaction of etcd's client libraries does: reads, writes if the value
    /// read has not changed, and begins anew if it has.
    fn add_in_transaction(
        &self,
        worker: usize,
        key: Bytes,
        _locked: bool,
    ) -> BoxFuture<'_, Result<bool, Failure>> {
        Box::pin(async move {
            loop {
                let last = self.counter(worker, key.clone()).await?;
                if let Attempt::Added(_) =
                    self.add_if(worker, key.clone(), last, Way::Condition).await?
                {
                    return Ok(true);
                }
            }
        })
    }
}

fn operation(request: pb::request_op::Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

fn seen(found: &pb::RangeResponse) -> Result<CounterValue, Failure> {
    let Some(row) = found.kvs.first() else { return Ok(CounterValue::default()) };
    let value = std::str::from_utf8(&row.value)?.parse()?;
    Ok(CounterValue { value, mark: row.mod_revision.try_into()? })
}
