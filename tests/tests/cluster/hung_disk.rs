//! Hung disks: a node whose disk hangs hands over its leaderships by itself, and no client waits
//! for the disk.

use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::cluster::Cluster;
use crate::support::node::Node;
use crate::support::process::Process;
use crate::support::wait::{SOON, check, until};

/// Delay of a sync, far longer than a test takes. Syncs end when the disk is let go.
const SYNC_DELAY_US: u64 = 3_600_000_000;

/// One key of each range of users: ranges 1 and 6.
const KEYS: [&str; 2] = ["/k", "_0/k"];

const CONTROL_RANGE: &str = "3";

/// Process that delays every sync of a node: strace, which delays the calls as they begin.
struct HungDisk(Process);

impl HungDisk {
    async fn of(node: &mut Node) -> HungDisk {
        let pid = node.process().id();
        let inject = format!("inject=fdatasync,fsync,sync_file_range:delay_enter={SYNC_DELAY_US}");
        let mut strace = Command::new("strace");
        strace.args([
            "-qq",
            "-f",
            "-o",
            "/dev/null",
            "-e",
            "trace=fdatasync,fsync,sync_file_range",
        ]);
        strace.args(["-e", &inject, "-p", &pid.to_string()]);
        let strace = Process::start(&mut strace);
        until("every thread is traced", SOON, async || {
            let tasks =
                std::fs::read_dir(format!("/proc/{pid}/task")).map_err(|e| e.to_string())?;
            for task in tasks {
                let status = task.map_err(|error| error.to_string())?.path().join("status");
                // A thread may end meanwhile.
                let status = std::fs::read_to_string(status).unwrap_or_default();
                check(!status.contains("TracerPid:\t0\n"), "one is not")?;
            }
            Ok::<_, String>(())
        })
        .await;
        HungDisk(strace)
    }

    async fn let_go(mut self) {
        self.0.signal(Signal::TERM);
        self.0.ended(SOON).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_disk_hangs_is_followed_by_another_at_once() {
    let strace = Command::new("strace").arg("--version").output();
    assert!(strace.is_ok(), "this test needs strace: install the package of that name");

    let mut cluster = Cluster::started(3).await;
    for key in KEYS {
        cluster.cli(["put", key, "0"]).await.success();
    }
    let leader = cluster.status().await.unwrap().control_leader_node_id;
    let place = cluster.place_of(leader).await.unwrap();

    let disk = HungDisk::of(&mut cluster.nodes[place]).await;
    // The control plane writes to its range by itself. A client must write to each of the other
    // ranges.
    leads_nothing_that_is_written(&cluster.nodes[place], &[CONTROL_RANGE]).await;
    let client = cluster.client();
    let began = Instant::now();
    for key in KEYS {
        client.put(key, "1").await.unwrap();
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    leads_nothing_that_is_written(&cluster.nodes[place], &[CONTROL_RANGE, "1", "6"]).await;
    let node = &cluster.nodes[place];
    node.not_ready("log writes have not completed for").await;
    let said = node.log_text();
    assert!(said.contains("log writes do not complete"), "{said}");
    assert!(node.metric("rangedb_storage_log_stalled_seconds").await.unwrap() > 0.0);
    assert!(node.metric("rangedb_raft_stalled_hand_overs_total").await.unwrap() >= 1.0);

    disk.let_go().await;
    cluster.nodes[place].ready().await;
    cluster.replicated(3, SOON).await;
    assert!(cluster.nodes[place].is_running());
    for key in KEYS {
        let found = client.get(key).await.unwrap().expect("an acknowledged value");
        assert_eq!(found.value, "1");
    }
}

/// Waits until the node leads none of these ranges.
async fn leads_nothing_that_is_written(node: &Node, ranges: &[&str]) {
    until("it leads none of the ranges that are written to", SOON, async || {
        for range in ranges {
            let leads =
                node.sample(&format!("rangedb_range_leads{{range_id=\"{range}\"}}")).await?;
            check(leads == 0.0, format!("it leads range {range}"))?;
        }
        Ok::<_, String>(())
    })
    .await;
}
