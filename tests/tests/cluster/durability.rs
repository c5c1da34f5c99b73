//! Durability: a write is on the disks of a quorum before its client gets the answer.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::support::cluster::Cluster;
use crate::support::gateway::Gateway;
use crate::support::wait::{SOON, check, until};

/// Number of observed writes. A sync for another reason can coincide with one of them, never with
/// all.
const WRITES: usize = 20;

/// Seconds since 1970, as strace prints them.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64()
}

/// A successful call of fdatasync or fsync: its begin and its return.
#[derive(Clone, Copy, Debug)]
struct Sync {
    began: f64,
    ended: f64,
}

/// Parses the output of `strace -f -ttt -T`.
fn syncs(trace: &str) -> Vec<Sync> {
    let mut under_way: BTreeMap<&str, f64> = BTreeMap::new();
    let mut syncs = Vec::new();
    for line in trace.lines() {
        let mut words = line.split_whitespace();
        let (Some(thread), Some(time)) = (words.next(), words.next()) else { continue };
        let Ok(time) = time.parse::<f64>() else { continue };
        if line.contains("<unfinished ...>") {
            under_way.insert(thread, time);
        } else if line.contains(" = 0") {
            let lasted = line.rsplit_once('<').and_then(|(_, rest)| rest.strip_suffix('>'));
            let Some(lasted) = lasted.and_then(|lasted| lasted.parse::<f64>().ok()) else {
                continue;
            };
            let began = if line.contains(" resumed>") {
                under_way.remove(thread).unwrap_or(time)
            } else {
                time
            };
            syncs.push(Sync { began, ended: began + lasted });
        }
    }
    syncs
}

fn read(trace: &Path) -> Vec<Sync> {
    syncs(&std::fs::read_to_string(trace).unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_is_synced_by_a_quorum_before_it_is_acknowledged() {
    let strace = std::process::Command::new("strace").arg("--version").output();
    assert!(strace.is_ok(), "this test needs strace: install the package of that name");

    let mut cluster = Cluster::of(3).await;
    let traces: Vec<_> = cluster
        .nodes
        .iter()
        .map(|node| cluster.path().join(format!("{}.strace", node.name)))
        .collect();
    for (node, trace) in cluster.nodes.iter_mut().zip(&traces) {
        // -D: the node stays this process's child, with strace as its grandchild.
        let trace = trace.to_str().expect("a path in UTF-8");
        let command =
            ["strace", "-D", "-f", "-ttt", "-T", "-e", "trace=fdatasync,fsync", "-o", trace];
        node.through = command.map(str::to_owned).to_vec();
    }
    let cluster = cluster.start().await;
    let mut gateway = Gateway::of(&cluster.nodes[0].client).await;
    gateway.put("/warm", "up").await.unwrap();
    let mut writes = Vec::new();
    for number in 0..WRITES {
        let began = now();
        gateway.put(&format!("/k/{number}"), "v").await.unwrap();
        writes.push((began, now()));
    }
    for (began, ended) in writes {
        until("the traces are written", SOON, async || {
            let syncing = traces.iter().filter(|trace| {
                read(trace).iter().any(|sync| sync.began >= began && sync.ended <= ended)
            });
            let nodes = syncing.count();
            check(nodes >= 2, format!("{nodes} of 3 nodes synced between {began} and {ended}"))
        })
        .await;
    }
}

#[test]
fn traces_are_read_in_one_piece_and_in_two() {
    let trace = "7 10.5 fdatasync(3) = 0 <0.25>\n\
                 7 11.0 fsync(3 <unfinished ...>\n\
                 8 11.1 fdatasync(4) = -1 EIO (Input/output error) <0.1>\n\
                 7 11.5 <... fsync resumed>) = 0 <0.5>\n\
                 9 12.0 +++ exited with 0 +++\n";
    let found: Vec<_> = syncs(trace).iter().map(|sync| (sync.began, sync.ended)).collect();
    assert_eq!(found, [(10.5, 10.75), (11.0, 11.5)]);
}
