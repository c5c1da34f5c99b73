//! etcd under load, through its gRPC protocol.

use bytes::Bytes;
use futures::future::BoxFuture;
use tonic::transport::{Channel, Endpoint};

use crate::Failure;
use crate::load::Target;

#[allow(clippy::all)]
mod pb {
    include!(concat!(env!("OUT_DIR"), "/etcdserverpb.rs"));
}

use pb::kv_client::KvClient;

/// Connections to each node. etcd's own benchmark tool is at its best with some tens of clients on
/// each.
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
    fn name(&self) -> &'static str {
        "etcd"
    }

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
}
