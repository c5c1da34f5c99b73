//! A disk that is full stops writes, with the reason, and nothing else.

use std::path::PathBuf;

use crate::support::cluster::Cluster;
use crate::support::wait::{SOON, check, until};

/// Room for a small node and its reserve.
const DISK: &str = "256m";

/// Leaves less than the reserve.
const FILL_BYTES: usize = 245 << 20;

/// Small files, so that the node itself does not fill the disk.
const SMALL_NODE: &str = "[storage]\nwrite_buffer_bytes = \"2MiB\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_writes_with_the_reason_until_there_is_room_again() {
    let mut cluster = Cluster::of(1).await.configured(SMALL_NODE);
    // A file system of the node's own, in a mount namespace that ends with the node.
    let mount = cluster.path().join("disk");
    std::fs::create_dir(&mount).unwrap();
    let script = format!("mount -t tmpfs -o size={DISK} tmpfs {} && exec \"$@\"", mount.display());
    let node = &mut cluster.nodes[0];
    node.data = mount.join("data");
    node.through = ["unshare", "--map-root-user", "--mount", "sh", "-c", &script, "sh"]
        .map(str::to_owned)
        .to_vec();
    let mut cluster = cluster.start().await;
    cluster.cli(["put", "/before", "1"]).await.success();

    let inside = format!("/proc/{}/root{}", cluster.nodes[0].process().id(), mount.display());
    let filling = PathBuf::from(inside).join("filling");
    // What does not fit is left out.
    let _ = std::fs::write(&filling, vec![1; FILL_BYTES]);
    let refused = until("writes are refused", SOON, async || {
        let ran = cluster.cli(["--timeout", "2s", "put", "/during", "1"]).await;
        check(ran.code != 0, "a write was taken")?;
        Ok::<_, String>(ran)
    });
    refused.await.failure(1, "RESOURCE_EXHAUSTED: disk full");
    assert_eq!(cluster.cli(["get", "/before"]).await.success(), "1\n");
    assert_eq!(cluster.cli(["range", "/b", "/c"]).await.success(), "/before\t1\n");
    cluster.nodes[0].ready().await;
    assert_eq!(cluster.nodes[0].metric("rangedb_storage_disk_full").await.unwrap(), 1.0);
    // Before the disk was seen to be full, a write may still have been taken.
    let during = cluster.cli(["get", "/refused"]).await;
    during.failure(3, "key not found");
    cluster.cli(["put", "/refused", "1"]).await.failure(1, "disk full");

    std::fs::remove_file(&filling).unwrap();
    until("writes are taken again", SOON, async || {
        cluster.cli(["--timeout", "2s", "put", "/after", "1"]).await.succeeded()
    })
    .await;
    cluster.cli(["get", "/refused"]).await.failure(3, "key not found");
    assert_eq!(cluster.cli(["get", "/after"]).await.success(), "1\n");
}
