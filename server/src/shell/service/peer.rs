//! Service of messages that only nodes exchange.

use std::sync::Arc;

use futures::StreamExt;
use rangedb_proto::v1::peer_server::Peer;
use rangedb_proto::v1::{
    BootstrapReply, BootstrapRequest, RaftMessages, RaftSummary, SnapshotChunk, SnapshotReceipt,
};
use tonic::{Request, Response, Status, Streaming};

use super::ServiceState;

pub(super) struct PeerService(pub Arc<ServiceState>);

#[tonic::async_trait]
impl Peer for PeerService {
    async fn raft(
        &self,
        request: Request<Streaming<RaftMessages>>,
    ) -> Result<Response<RaftSummary>, Status> {
        let member = self.0.member()?;
        member.arrivals.begin(request.metadata());
        let mut batches = request.into_inner();
        let stopped = self.0.stopped();
        tokio::pin!(stopped);
        loop {
            let batch = tokio::select! {
                batch = batches.next() => batch,
                () = &mut stopped => None,
            };
            match batch {
                Some(batch) => member.arrivals.take(batch?)?,
                None => return Ok(Response::new(RaftSummary {})),
            }
        }
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<SnapshotChunk>>,
    ) -> Result<Response<SnapshotReceipt>, Status> {
        let receipt = self.0.member()?.snapshots.receive(request.into_inner()).await?;
        Ok(Response::new(receipt))
    }

    async fn bootstrap(
        &self,
        request: Request<BootstrapRequest>,
    ) -> Result<Response<BootstrapReply>, Status> {
        let bootstrap = self.0.bootstrap.clone();
        let request = request.into_inner();
        let answered = tokio::task::spawn_blocking(move || bootstrap.answer(request)).await;
        let answered = answered.map_err(|panic| Status::internal(panic.to_string()))?;
        answered.map(Response::new).map_err(|error| Status::internal(error.to_string()))
    }
}
