//! Cluster id that a caller means, in the metadata of its streams and of the answers to them.
//!
//! A node refuses a caller that means another cluster before it reads any request. A caller that
//! knows no cluster yet takes that of the first node that answers, and keeps to it.
//!
//! A node marks the status of each stream that it refuses unread, for whatever reason. Without the
//! mark a caller could not tell such a refusal from the end of a stream whose requests were read.
//! Then it would have to treat their outcome as unknown; with the mark it tries the next node.

use std::sync::atomic::{AtomicU64, Ordering};

use tonic::Status;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};

/// Metadata key of the cluster id, whose value is the id in 16 hexadecimal digits.
pub const CLUSTER_ID_KEY: &str = "rangedb-cluster-id";

/// Metadata key in the status of a stream that a node refused before it read any of it.
const UNREAD_KEY: &str = "rangedb-unread";

/// Id of the cluster that the caller means; 0: not known yet.
#[derive(Default)]
pub(super) struct Cluster(AtomicU64);

impl Cluster {
    pub fn keep_to(&self, id: u64) {
        self.0.store(id, Ordering::Relaxed);
    }

    /// Adds the cluster id, if it is known, to the metadata of a stream.
    pub fn name(&self, metadata: &mut MetadataMap) {
        let id = self.0.load(Ordering::Relaxed);
        if id != 0 {
            metadata.insert(CLUSTER_ID_KEY, value(id));
        }
    }

    /// Checks the cluster id that a node sent, and adopts it if none is known yet. An error if
    /// another cluster is meant.
    pub fn meet(&self, metadata: &MetadataMap) -> Result<(), String> {
        let Some(id) = named(metadata) else { return Ok(()) };
        let meant = self.0.compare_exchange(0, id, Ordering::Relaxed, Ordering::Relaxed);
        match meant {
            Err(meant) if meant != id => Err(other(id, meant)),
            _ => Ok(()),
        }
    }
}

/// True if the node read nothing of the stream that it answers with this status.
pub(super) fn is_unread(status: &Status) -> bool {
    status.metadata().contains_key(UNREAD_KEY)
}

/// Marks the status of a stream that was refused before any of it was read.
pub fn unread(mut status: Status) -> Status {
    status.metadata_mut().insert(UNREAD_KEY, MetadataValue::from_static("1"));
    status
}

/// Metadata value of a cluster id, for a node's answers.
pub fn value(id: u64) -> MetadataValue<Ascii> {
    MetadataValue::try_from(format!("{id:016x}")).expect("digits")
}

/// Refuses, at a node of the cluster `id`, a caller that means another cluster.
pub fn check(id: u64, metadata: &MetadataMap) -> Result<(), Status> {
    match named(metadata) {
        Some(meant) if meant != id => {
            let mut status = Status::failed_precondition(other(id, meant));
            status.metadata_mut().insert(CLUSTER_ID_KEY, value(id));
            Err(unread(status))
        }
        _ => Ok(()),
    }
}

fn named(metadata: &MetadataMap) -> Option<u64> {
    let text = metadata.get(CLUSTER_ID_KEY)?.to_str().ok()?;
    u64::from_str_radix(text, 16).ok()
}

fn other(id: u64, meant: u64) -> String {
    format!("a node of cluster {id:016x} listens there, not one of {meant:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(id: u64) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        metadata.insert(CLUSTER_ID_KEY, value(id));
        metadata
    }

    #[test]
    fn the_first_cluster_that_answers_is_kept_to() {
        let cluster = Cluster::default();
        let mut first = MetadataMap::new();
        cluster.name(&mut first);
        assert!(first.is_empty());
        cluster.meet(&MetadataMap::new()).unwrap();
        cluster.meet(&of(7)).unwrap();
        let mut next = MetadataMap::new();
        cluster.name(&mut next);
        assert_eq!(named(&next), Some(7));
        assert!(cluster.meet(&of(8)).unwrap_err().contains("0000000000000008"));
    }

    #[test]
    fn a_node_refuses_only_those_who_mean_another_cluster() {
        check(7, &MetadataMap::new()).unwrap();
        check(7, &of(7)).unwrap();
        let refusal = check(7, &of(8)).unwrap_err();
        assert!(is_unread(&refusal));
        assert!(!is_unread(&Status::failed_precondition("something else")));
    }
}
