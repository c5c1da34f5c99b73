//! Calls to the formation service of other nodes, in parallel.

use std::time::Duration;

use futures::future::join_all;
use rangedb_proto::v1::bootstrap_request::Body;
use rangedb_proto::v1::peer_client::PeerClient;
use rangedb_proto::v1::{BootstrapProbe, BootstrapReply, BootstrapRequest, NodeDescriptor};
use tonic::transport::Endpoint;

use crate::control::describes_a_node;
use crate::shell::identity::Membership;

/// Time that one node may take to answer: a connection and two syncs. A slower node counts as
/// absent in this round.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// Asks all addresses. Returns the answers that came, with the address that gave each.
pub(super) async fn ask_all(addresses: &[String], body: &Body) -> Vec<(String, BootstrapReply)> {
    let calls = addresses.iter().map(|address| async move {
        match tokio::time::timeout(ANSWER_MAX, ask(address, body.clone())).await {
            Ok(Ok(reply)) => Some((address.clone(), reply)),
            Ok(Err(reason)) => {
                tracing::debug!(address, reason, "no answer about the cluster");
                None
            }
            Err(_) => {
                tracing::debug!(address, "no answer about the cluster in time");
                None
            }
        }
    });
    join_all(calls).await.into_iter().flatten().collect()
}

pub(crate) async fn probe_all(addresses: &[String]) -> Vec<(String, BootstrapReply)> {
    ask_all(addresses, &Body::Probe(BootstrapProbe {})).await
}

/// Returns the other members of this node's cluster among the nodes that answered, as they describe
/// themselves.
pub(crate) fn members(
    own: Membership,
    replies: &[(String, BootstrapReply)],
) -> Vec<NodeDescriptor> {
    let of_cluster = replies.iter().filter(|(_, reply)| reply.cluster_id == own.cluster_id);
    let nodes = of_cluster.filter_map(|(_, reply)| reply.node.as_ref());
    let others = nodes.filter(|node| node.node_id != 0 && node.node_id != own.node_id);
    others.filter(|node| describes_a_node(node)).cloned().collect()
}

async fn ask(address: &str, body: Body) -> Result<BootstrapReply, String> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"));
    let endpoint = endpoint.map_err(|error| error.to_string())?.connect_timeout(ANSWER_MAX);
    let channel = endpoint.connect().await.map_err(|error| error.to_string())?;
    let request = BootstrapRequest { body: Some(body) };
    let reply = PeerClient::new(channel).bootstrap(request).await;
    reply.map(tonic::Response::into_inner).map_err(|status| status.to_string())
}
