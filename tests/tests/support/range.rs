//! Ranges as the cluster reports them, for requests that are addressed to one.

use rangedb_proto::RangeDescriptorExt;
use rangedb_proto::v1::RangeHeader;

use super::cluster::Cluster;
use super::wait::{SOON, until};

/// Returns the header for requests to the range that holds the key. Waits until the range's leader
/// has reported it.
pub async fn header_of(cluster: &Cluster, key: &[u8]) -> RangeHeader {
    until("the range is known", SOON, async || {
        let partitions = cluster.partitions().await.map_err(|error| error.to_string())?;
        let reports = partitions.into_iter().filter_map(|partition| partition.report);
        let mut ranges = reports.filter_map(|report| report.descriptor);
        let range = ranges.find(|range| range.contains(key)).ok_or("no range holds the key")?;
        Ok::<_, String>(RangeHeader { range_id: range.range_id, epoch: range.epoch })
    })
    .await
}
