//! Joining of a node without an identity: the node asks the cluster to admit it, again and again,
//! as in production.

use std::sync::Arc;
use std::time::Duration;

use rangedb_client::net::Net;
use rangedb_proto::v1::{JoinCluster, request, response};

use crate::net::{SimNet, peer_address};
use crate::occurrence::Occurrence;
use crate::process::descriptor;

/// Maximum time that a node may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Maximum pause between two rounds over all peers, in milliseconds.
const PAUSE_MAX_MS: u64 = 1000;

/// Asks the peers until one has this directory admitted. The world then starts the node.
pub async fn join(net: Arc<SimNet>, slot: usize, peers: Vec<usize>, directory_id: u64) {
    loop {
        for peer in peers.iter().copied().filter(|peer| *peer != slot) {
            let node = Some(descriptor(slot, directory_id));
            let request = request::Body::Join(JoinCluster { node });
            let answer = net.call(&peer_address(peer), request, ANSWER_MAX).await;
            if let Ok(response::Body::Join(reply)) = answer
                && reply.node_id != 0
            {
                let (cluster_id, node_id) = (reply.cluster_id, reply.node_id);
                net.schedule.after(1, net.host, Occurrence::Joined { cluster_id, node_id });
                return;
            }
        }
        net.sleep(Duration::from_millis(net.random_below(PAUSE_MAX_MS))).await;
    }
}
