//! Bad data directories: a node refuses one that is damaged, foreign or in use, and names it. A
//! node accepts one that a crash left unfinished.

use std::fs::{OpenOptions, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::support::cluster::{Cluster, SMALL_LOG};
use crate::support::load::Load;
use crate::support::node::Node;
use crate::support::wait::{SOON, check, until};

fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|found| found == extension));
    paths.sort();
    paths
}

/// Returns the offset behind the last byte that is not zero. Files of the log have space allocated
/// ahead.
fn content_end(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

fn flip(path: &Path, at: impl FnOnce(&[u8]) -> usize) {
    let mut bytes = std::fs::read(path).unwrap();
    let at = at(&bytes);
    bytes[at] ^= 0x40;
    std::fs::write(path, bytes).unwrap();
}

async fn write_some(cluster: &Cluster) -> crate::support::load::Outcome {
    let load = Load::start([cluster.client()], "/load/");
    load.progress(200).await;
    load.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_never_share_a_data_directory() {
    let cluster = Cluster::started(1).await;
    let mut second = Node::new(cluster.path(), "second").with_flags(["--cluster-init"]);
    second.data = cluster.nodes[0].data.clone();
    let said = second.refuses().await;
    assert!(said.contains("another process uses the data directory"), "{said}");
    assert!(said.contains(second.data.to_str().unwrap()), "{said}");
    cluster.cli(["put", "/still", "here"]).await.success();
}

/// Returns the files and directories below a path that others than its owner may use.
fn open_to_others(path: &Path, found: &mut Vec<PathBuf>) {
    let metadata = path.symlink_metadata().unwrap();
    if metadata.permissions().mode() & 0o077 != 0 {
        found.push(path.to_owned());
    }
    if metadata.is_dir() {
        let entries = std::fs::read_dir(path).unwrap();
        entries.for_each(|entry| open_to_others(&entry.unwrap().path(), found));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_no_nodes_is_refused_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = Node::new(directory.path(), "n1").with_flags(["--cluster-init"]);
    std::fs::create_dir(&node.data).unwrap();
    std::fs::write(node.data.join("letter"), "dear").unwrap();
    std::fs::set_permissions(&node.data, Permissions::from_mode(0o1777)).unwrap();
    let said = node.refuses().await;
    assert!(said.contains("letter"), "{said}");
    let mode = node.data.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o1777, "its permissions stay");
    // An identity that is a link to nowhere is no new node's.
    let mut other = Node::new(directory.path(), "n2").with_flags(["--cluster-init"]);
    std::fs::create_dir(&other.data).unwrap();
    std::os::unix::fs::symlink("/nowhere/IDENTITY", other.data.join("IDENTITY")).unwrap();
    let said = other.refuses().await;
    assert!(said.contains("holds IDENTITY"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_is_its_owners_alone_also_one_that_was_made_for_the_node() {
    let mut cluster = Cluster::of(1).await;
    let data = cluster.nodes[0].data.clone();
    std::fs::create_dir(&data).unwrap();
    std::fs::set_permissions(&data, Permissions::from_mode(0o755)).unwrap();
    cluster = cluster.start().await;
    cluster.cli(["put", "/secret", "s"]).await.success();
    assert!(cluster.nodes[0].stop().await.success());
    let mut found = Vec::new();
    open_to_others(&data, &mut found);
    assert!(found.is_empty(), "others may use {found:?}");
}

/// Files that may not be read are no files that are gone. Only root can start a process as another
/// user.
#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_of_another_user_is_called_that_and_not_lost() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let mut cluster = Cluster::started(1).await;
    assert!(cluster.nodes[0].stop().await.success());
    std::fs::set_permissions(cluster.path(), Permissions::from_mode(0o755)).unwrap();
    let node = &mut cluster.nodes[0];
    let program = crate::support::binary::rangedb();
    let (data, nobody) = (node.data.clone(), 65534);
    // A binary that the other user may run.
    let copy = node.data.with_file_name("rangedb-of-nobody");
    std::fs::copy(program, &copy).unwrap();
    node.through = ["setpriv", "--reuid", "65534", "--clear-groups"].map(str::to_owned).to_vec();
    for (given, named) in [(None, "IDENTITY"), (Some(()), "state")] {
        if given.is_some() {
            // All but the engines' own files.
            for path in [data.clone(), data.join("IDENTITY"), data.join("LOCK")] {
                std::os::unix::fs::chown(path, Some(nobody), None).unwrap();
            }
        }
        let said = node.refuses().await;
        assert!(said.contains("belongs to user 0, and this process is user 65534"), "{said}");
        assert!(said.contains(named) && !said.contains("is gone"), "{named}: {said}");
    }
    node.through.clear();
    for path in [data.clone(), data.join("IDENTITY"), data.join("LOCK")] {
        std::os::unix::fs::chown(path, Some(0), None).unwrap();
    }
    node.start();
    node.ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_of_another_cluster_is_refused() {
    let mut ours = Cluster::started(1).await;
    let mut theirs = Node::new(ours.path(), "other").with_flags(["--cluster-init"]);
    theirs.start();
    theirs.ready().await;
    assert!(theirs.stop().await.success());
    theirs.flags = vec!["--join".to_owned(), ours.nodes[0].peer.clone()];
    let said = theirs.refuses().await;
    assert!(said.contains("belongs to cluster"), "{said}");
    ours.ready().await;
    let status = ours.status().await.unwrap();
    assert_eq!(status.nodes.len(), 1, "the stranger is not taken in: {status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_of_another_format_is_refused_and_left_as_it_is() {
    let mut cluster = Cluster::started(1).await;
    let node = &mut cluster.nodes[0];
    assert!(node.stop().await.success());
    let path = node.data.join("IDENTITY");
    let text = std::fs::read_to_string(&path).unwrap();
    let json = text.lines().next().unwrap();
    let newer = json.replace("\"format_version\":2", "\"format_version\":3");
    assert_ne!(newer, json);
    let newer = format!("{newer}\n{:08x}\n", crc32fast::hash(newer.as_bytes()));
    std::fs::write(&path, &newer).unwrap();
    let said = node.refuses().await;
    assert!(said.contains("has format 3") && said.contains(node.data.to_str().unwrap()), "{said}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), newer);
    // A flipped bit is reported as corruption, not as another format.
    std::fs::write(&path, text.replacen("\"format_version\":2", "\"format_version\":3", 1))
        .unwrap();
    let said = node.refuses().await;
    assert!(said.contains("corrupt") && said.contains(path.to_str().unwrap()), "{said}");
    std::fs::write(&path, text).unwrap();
    node.start();
    node.ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_that_lost_a_part_is_refused_and_goes_on_once_it_is_back() {
    let mut cluster = Cluster::started(1).await;
    cluster.cli(["put", "/kept", "1"]).await.success();
    let aside = cluster.path().join("aside");
    for (part, named) in [
        ("IDENTITY", "has no IDENTITY but holds "),
        ("state", "state/CURRENT is gone"),
        ("log", "log/ is gone"),
    ] {
        let node = &mut cluster.nodes[0];
        assert!(node.stop().await.success());
        std::fs::rename(node.data.join(part), &aside).unwrap();
        let said = node.refuses().await;
        assert!(said.contains(named) && said.contains(node.data.to_str().unwrap()), "{said}");
        assert!(!node.data.join(part).exists(), "{part} was made anew");
        std::fs::rename(&aside, node.data.join(part)).unwrap();
        node.start();
        node.ready().await;
        assert_eq!(cluster.cli(["get", "/kept"]).await.success(), "1\n");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_tail_of_the_log_is_cut_and_nothing_acknowledged_is_lost() {
    let mut cluster = Cluster::started(3).await;
    let outcome = write_some(&cluster).await;
    let victim = cluster.leader_of(b"/load/").await;
    cluster.nodes[victim].kill();
    // As after a power failure while the last batch was written.
    let newest = files(&cluster.nodes[victim].data.join("log"), "raftlog").pop().unwrap();
    let end = content_end(&std::fs::read(&newest).unwrap());
    OpenOptions::new().write(true).open(&newest).unwrap().set_len(end as u64 - 3).unwrap();
    cluster.nodes[victim].start();
    cluster.ready().await;
    // With another node gone, every quorum needs the mended node.
    cluster.nodes[(victim + 1) % 3].kill();
    outcome.verify(&cluster.client()).await;
    cluster.client().put("/after", "1").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_in_the_log_is_refused_and_the_file_named() {
    let mut cluster = Cluster::started(1).await;
    write_some(&cluster).await;
    let node = &mut cluster.nodes[0];
    node.kill();
    let newest = files(&node.data.join("log"), "raftlog").pop().unwrap();
    flip(&newest, |bytes| content_end(bytes) / 2);
    let damaged = std::fs::read(&newest).unwrap();
    let said = node.refuses().await;
    assert!(said.contains("corrupt") && said.contains(newest.to_str().unwrap()), "{said}");
    assert_eq!(std::fs::read(&newest).unwrap(), damaged, "it is left for an operator");
    flip(&newest, |bytes| content_end(bytes) / 2);
    node.start();
    node.ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_in_a_file_of_the_state_is_refused_and_the_file_named() {
    let mut cluster = Cluster::of(1).await.configured(SMALL_LOG).start().await;
    let state = cluster.nodes[0].data.join("state");
    let client = cluster.client();
    let mut number = 0;
    until("rows are flushed to a file", SOON, async || {
        for _ in 0..20 {
            // Random bytes do not compress.
            let value: Vec<u8> = (0..400).map(|_| fastrand::u8(..)).collect();
            client.put(format!("/k/{number}"), value).await.map_err(|error| error.to_string())?;
            number += 1;
        }
        let large = |path: &PathBuf| path.metadata().is_ok_and(|file| file.len() > 64 << 10);
        check(files(&state, "sst").iter().any(large), "not yet")
    })
    .await;
    let node = &mut cluster.nodes[0];
    // Stopped gracefully: a kill could leave a file which is not yet, or no longer, part of the
    // state.
    assert!(node.stop().await.success());
    let largest =
        files(&state, "sst").into_iter().max_by_key(|path| path.metadata().unwrap().len());
    let largest = largest.unwrap();
    flip(&largest, |bytes| bytes.len() / 2);
    let said = node.refuses().await;
    assert!(said.contains("corrupt") && said.contains(largest.to_str().unwrap()), "{said}");
    flip(&largest, |bytes| bytes.len() / 2);
    node.start();
    node.ready().await;
}
