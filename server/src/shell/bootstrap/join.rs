//! Asking a cluster to take this node in.

use std::sync::Arc;
use std::time::Duration;

use rangedb_proto::v1::{BootstrapReply, JoinCluster, request, response};

use super::{Bootstrap, BootstrapError, blocking};
use crate::shell::identity::Membership;

/// How long a cluster may take to admit a node: it may be electing a leader.
const ADMISSION_MAX: Duration = Duration::from_secs(5);

impl Bootstrap {
    /// Asks each member among those that answered until one has this node admitted. The same
    /// directory is always given the same id, so asking again is harmless.
    pub(super) async fn join_one_of(
        self: &Arc<Self>,
        replies: &[(String, BootstrapReply)],
    ) -> Result<Option<Membership>, BootstrapError> {
        for (address, reply) in replies.iter().filter(|(_, reply)| reply.cluster_id != 0) {
            match self.ask_to_join(address).await {
                Ok(membership) if membership.cluster_id == reply.cluster_id => {
                    let (this, formation) = (self.clone(), reply.accepted.clone());
                    blocking(move || {
                        this.data.update(|identity| {
                            identity.become_member(membership, formation.as_ref());
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
                    self.set_progress(format!("{address} admits to another cluster than its own"));
                }
                Err(reason) => {
                    self.set_progress(format!("not admitted to the cluster yet: {reason}"));
                }
            }
        }
        tokio::time::sleep(self.random_below(Duration::from_secs(1))).await;
        Ok(None)
    }

    async fn ask_to_join(&self, address: &str) -> Result<Membership, String> {
        let request = request::Body::Join(JoinCluster { node: Some(self.node.clone()) });
        match self.net.call(address, request, ADMISSION_MAX).await {
            Ok(response::Body::Join(reply)) if reply.node_id != 0 => {
                Ok(Membership { cluster_id: reply.cluster_id, node_id: reply.node_id })
            }
            Ok(response::Body::Error(error)) => Err(error.message),
            Ok(_) => Err("it answered something else".to_owned()),
            Err(error) => Err(format!("{error:?}")),
        }
    }
}
