//! Full disks: they stop writes, with the reason, and nothing else.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rangedb_client::Error;
use rustix::fs::FallocateFlags;
use tokio::task::JoinSet;

use crate::support::cluster::Cluster;
use crate::support::process::Process;
use crate::support::wait::{SOON, check, until};

/// Size of the disk: room for a small node and its reserve.
const DISK_MIB: usize = 256;

/// Size of a file that leaves less than the reserve.
const FILL_BYTES: usize = 245 << 20;

/// Settings for small files, so that the node itself does not fill the disk.
const SMALL_NODE: &str = "[storage]\nwrite_buffer_bytes = \"2MiB\"\n";

/// Size of a fast writer's values, and number of its writes at once.
const LARGE_VALUE_BYTES: usize = 1_000_000;
const WRITERS: usize = 4;

/// Number of rounds without an accepted write, after which the disk counts as full for good.
const REFUSED_ROUNDS: usize = 5;

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_writes_with_the_reason_until_there_is_room_again() {
    let mut cluster = Cluster::of(1).await.configured(SMALL_NODE);
    let disk = SmallDisk::mounted(&cluster, DISK_MIB).await;
    disk.is_under(&mut cluster);
    let mut cluster = cluster.start().await;
    cluster.cli(["put", "/before", "1"]).await.success();

    let filling = disk.seen_from_outside().join("filling");
    // The write may fail: the part that does not fit is left out.
    let _ = std::fs::write(&filling, vec![1; FILL_BYTES]);
    let refused = until("writes are refused", SOON, async || {
        let ran = cluster.cli(["--timeout", "2s", "put", "/during", "1"]).await;
        check(ran.code != 0, "a write was taken")?;
        Ok::<_, String>(ran)
    });
    refused.await.failure(1, "RESOURCE_EXHAUSTED: disk full");
    reads_go_on(&cluster).await;
    // A node can start on a full disk, too: its control plane begins anew.
    cluster.nodes[0].kill();
    cluster.nodes[0].start();
    cluster.nodes[0].ready().await;
    reads_go_on(&cluster).await;
    // Another key from here on: the node may still have taken a write of `/during` before it
    // noticed the full disk.
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

/// Asserts that reads work, for clients that have cached nothing yet.
async fn reads_go_on(cluster: &Cluster) {
    assert_eq!(cluster.cli(["get", "/before"]).await.success(), "1\n");
    assert_eq!(cluster.cli(["range", "/b", "/c"]).await.success(), "/before\t1\n");
    cluster.nodes[0].ready().await;
    assert_eq!(cluster.nodes[0].metric("rangedb_storage_disk_full").await.unwrap(), 1.0);
}

/// A file system in memory, in a mount namespace of its own. It outlives the nodes on it.
struct SmallDisk {
    mount: PathBuf,
    holder: Process,
}

impl SmallDisk {
    async fn mounted(cluster: &Cluster, mib: usize) -> SmallDisk {
        let mount = cluster.path().join("disk");
        std::fs::create_dir(&mount).unwrap();
        let path = mount.to_str().unwrap();
        let script =
            format!("mount -t tmpfs -o size={mib}m tmpfs {path} && exec tail -f /dev/null");
        let mut unshare = Command::new("unshare");
        unshare.args(["--map-root-user", "--mount", "sh", "-c", &script]);
        let holder = Process::start(&mut unshare);
        let mounts = format!("/proc/{}/mounts", holder.id());
        until("the disk is mounted", SOON, async || {
            let mounts = std::fs::read_to_string(&mounts).unwrap_or_default();
            check(mounts.contains(path), "not yet")
        })
        .await;
        SmallDisk { mount, holder }
    }

    /// Puts the cluster's only node on this disk.
    fn is_under(&self, cluster: &mut Cluster) {
        let holder = self.holder.id().to_string();
        let words = ["nsenter", "--target", &holder, "--user", "--mount", "--preserve-credentials"];
        cluster.nodes[0].data = self.mount.join("data");
        cluster.nodes[0].through = words.map(str::to_owned).to_vec();
    }

    fn seen_from_outside(&self) -> PathBuf {
        let mount = self.mount.strip_prefix("/").expect("an absolute path");
        PathBuf::from(format!("/proc/{}/root", self.holder.id())).join(mount)
    }
}

/// Makes a value that does not compress, the same for each number.
fn large_value(number: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(number as u64);
    (0..LARGE_VALUE_BYTES).map(|_| random.u8(..)).collect()
}

fn large_key(number: usize) -> String {
    format!("/large/{number:05}")
}

/// Writes until the disk is full. Adds the numbers of the written values.
async fn fill(cluster: &Cluster, written: &mut BTreeSet<usize>) {
    let client = cluster.client();
    let mut next = written.last().map_or(0, |last| last + 1);
    let mut refused_rounds = 0;
    while refused_rounds < REFUSED_ROUNDS {
        let mut writes = JoinSet::new();
        for number in next..next + WRITERS {
            let client = client.clone();
            let write = async move { client.put(large_key(number), large_value(number)).await };
            writes.spawn(async move { (number, write.await) });
        }
        next += WRITERS;
        refused_rounds += 1;
        for (number, result) in writes.join_all().await {
            match result {
                Ok(_) => {
                    written.insert(number);
                    refused_rounds = 0;
                }
                Err(Error::DiskFull(_)) => {}
                Err(error) => panic!("value {number}: {error}"),
            }
        }
    }
}

async fn all_is_there(cluster: &Cluster, written: &BTreeSet<usize>) {
    let client = cluster.client();
    for number in written {
        let found = client.get(large_key(*number)).await.unwrap();
        let found = found.unwrap_or_else(|| panic!("value {number} is lost"));
        assert!(found.value == large_value(*number), "value {number} is another");
    }
}

/// Fills a disk, restarts the node and fills it again; no value may be lost. The data of a very
/// small disk fit into memtables, the data of a larger one are flushed and compacted many times.
async fn a_fast_writer_fills(mib: usize) {
    let mut cluster = Cluster::of(1).await;
    let disk = SmallDisk::mounted(&cluster, mib).await;
    disk.is_under(&mut cluster);
    let mut cluster = cluster.start().await;
    let mut written = BTreeSet::new();
    fill(&cluster, &mut written).await;
    // Every value is written twice, to the log and to the state, and a part is kept free.
    assert!(written.len() > mib / 5, "{} values fill {mib} MiB", written.len());
    all_is_there(&cluster, &written).await;
    for ends_with in ["kill -9", "SIGTERM"] {
        match ends_with {
            "kill -9" => cluster.nodes[0].kill(),
            _ => assert!(cluster.nodes[0].stop().await.success()),
        }
        cluster.nodes[0].start();
        cluster.nodes[0].ready().await;
        all_is_there(&cluster, &written).await;
        fill(&cluster, &mut written).await;
        all_is_there(&cluster, &written).await;
        assert!(cluster.nodes[0].is_running(), "after {ends_with}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fast_writer_fills_a_very_small_disk_and_the_node_goes_on_and_starts_again() {
    a_fast_writer_fills(150).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fast_writer_fills_a_small_disk_and_the_node_goes_on_and_starts_again() {
    a_fast_writer_fills(crate::repeats(500, 1200)).await;
}

/// Maximum time until an emptied disk has room: a new control plane's pause, the retention, the
/// collection, and the rewriting of files.
const EMPTIED_WITHIN: Duration = Duration::from_secs(180);

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_emptied_by_deletes_and_takes_writes_again() {
    let mut cluster = Cluster::of(1).await.configured(SMALL_NODE);
    let disk = SmallDisk::mounted(&cluster, DISK_MIB).await;
    disk.is_under(&mut cluster);
    let mut cluster = cluster.start().await;
    cluster.cli(["admin", "config", "set", "gc_retention", "5s"]).await.success();
    let mut written = BTreeSet::new();
    fill(&cluster, &mut written).await;

    let client = cluster.client();
    for number in &written {
        // Rewriting files may take the rest of the room for a moment.
        until("a delete is taken", SOON, async || client.delete(large_key(*number)).await).await;
    }
    let first_again = *written.last().expect("values were written") + 1;
    let half = written.len() / 2;
    for number in first_again..first_again + half {
        until("there is room for writes again", EMPTIED_WITHIN, async || {
            client.put(large_key(number), large_value(number)).await
        })
        .await;
    }
    for number in &written {
        assert!(client.get(large_key(*number)).await.unwrap().is_none(), "{number} is still there");
    }
    all_is_there(&cluster, &(first_again..first_again + half).collect()).await;
    assert!(cluster.nodes[0].is_running());
}

/// Settings for frequent flushes, so that a flush is soon among the writes without room.
const FLUSHED_OFTEN: &str =
    "[storage]\nwrite_buffer_bytes = \"2MiB\"\n[raft]\nflush_log_bytes = \"4MiB\"\n";

/// Number of values written before the room is taken, when all writers are at work.
const WRITTEN_BEFORE: usize = 40;

/// Takes all room that there is, far sooner than the node looks at the disk again.
fn take_all_room(file: &Path) {
    let file = File::create(file).unwrap();
    let space = rustix::fs::fstatvfs(&file).unwrap();
    let (mut length, mut more) = (0, space.f_bavail * space.f_frsize);
    while more > 0 {
        match rustix::fs::fallocate(&file, FallocateFlags::empty(), length, more) {
            Ok(()) => length += more,
            // Another process took some of it meanwhile.
            Err(_) => more /= 2,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_room_others_take_at_once_waits_and_loses_nothing() {
    let mut cluster = Cluster::of(1).await.configured(FLUSHED_OFTEN);
    let disk = SmallDisk::mounted(&cluster, 700).await;
    disk.is_under(&mut cluster);
    let mut cluster = cluster.start().await;
    let acknowledged = Arc::new(Mutex::new(BTreeSet::new()));
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (client, acknowledged) = (cluster.client(), acknowledged.clone());
        writers.spawn(async move {
            // Ends at the first write that fails or whose outcome is unknown.
            for number in (writer..).step_by(WRITERS) {
                if client.put(large_key(number), large_value(number)).await.is_err() {
                    return;
                }
                acknowledged.lock().insert(number);
            }
        });
    }
    until("writers are in full swing", SOON, async || {
        let written = acknowledged.lock().len();
        check(written >= WRITTEN_BEFORE, format!("{written} are written"))
    })
    .await;
    let filling = disk.seen_from_outside().join("filling");
    take_all_room(&filling);
    while writers.join_next().await.is_some() {}
    assert!(cluster.nodes[0].is_running(), "a node that found no room has ended");

    std::fs::remove_file(&filling).unwrap();
    until("writes are taken again", 2 * SOON, async || {
        cluster.cli(["--timeout", "2s", "put", "/after", "1"]).await.succeeded()
    })
    .await;
    let written = acknowledged.lock().clone();
    all_is_there(&cluster, &written).await;
    cluster.nodes[0].kill();
    cluster.nodes[0].start();
    cluster.nodes[0].ready().await;
    all_is_there(&cluster, &written).await;
}
