//! Joining: asks a cluster to admit this node.

use std::sync::Arc;
use std::time::Duration;

use rangedb_proto::v1::error::Kind;
use rangedb_proto::v1::{BootstrapReply, JoinCluster, NodeDescriptor, request, response};

use super::{Bootstrap, BootstrapError, blocking};
use crate::shell::identity::Membership;

/// Time that a cluster may take to admit a node: it may be electing a leader.
const ADMISSION_MAX: Duration = Duration::from_secs(5);

impl Bootstrap {
    /// Asks the members among the nodes that answered, until one of them has this node admitted.
    /// Idempotent: the cluster gives the same directory the same id.
    pub(super) async fn join_one_of(
        self: &Arc<Self>,
        replies: &[(String, BootstrapReply)],
    ) -> Result<Option<Membership>, BootstrapError> {
        let mut refused = None;
        for (address, reply) in replies.iter().filter(|(_, reply)| reply.cluster_id != 0) {
            match self.ask_to_join(address).await {
                Ok((membership, nodes)) if membership.cluster_id == reply.cluster_id => {
                    let (this, formation) = (self.clone(), reply.accepted.clone());
                    blocking(move || {
                        this.data.update(|identity| {
                            identity.become_member(membership, formation.as_ref());
                            identity.set_nodes(&nodes);
                        })?;
                        Ok(())
                    })
                    .await?;
                    tracing::info!(
                        cluster_id = format!("{:016x}", membership.cluster_id),
                        node_id = membership.node_id,
                        "joined the cluster"
                    );
                    return Ok(Some(membership));
                }
                Ok(_) => {
                    let reason = format!("{address} admits to another cluster than its own");
                    refused.get_or_insert(Refusal { by_the_cluster: false, reason });
                }
                // A decision of the cluster says more than a failure to ask it.
                Err(new) if refused.as_ref().is_none_or(|old: &Refusal| !old.by_the_cluster) => {
                    refused = Some(new);
                }
                Err(_) => {}
            }
        }
        if let Some(Refusal { reason, .. }) = refused {
            self.set_progress(format!("not admitted to the cluster yet: {reason}"));
        }
        tokio::time::sleep(self.random_below(Duration::from_secs(1))).await;
        Ok(None)
    }

    /// Asks one node for admission. Returns the membership, and the nodes of the cluster.
    async fn ask_to_join(
        &self,
        address: &str,
    ) -> Result<(Membership, Vec<NodeDescriptor>), Refusal> {
        let request = request::Body::Join(JoinCluster { node: Some(self.node.clone()) });
        let failed = |reason| Err(Refusal { by_the_cluster: false, reason });
        match self.net.call(address, request, ADMISSION_MAX).await {
            Ok(response::Body::Join(reply)) if reply.node_id != 0 => {
                let (cluster_id, node_id) = (reply.cluster_id, reply.node_id);
                Ok((Membership { cluster_id, node_id }, reply.nodes))
            }
            Ok(response::Body::Error(error)) => Err(Refusal {
                by_the_cluster: matches!(error.kind, Some(Kind::FailedPrecondition(_))),
                reason: error.message,
            }),
            Ok(_) => failed(format!("{address} answered something else")),
            Err(error) => failed(format!("{address}: {error:?}")),
        }
    }
}

/// Reason why this node is not admitted.
struct Refusal {
    by_the_cluster: bool,
    reason: String,
}
