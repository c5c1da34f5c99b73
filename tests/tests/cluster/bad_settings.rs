//! Bad settings: a node with an invalid setting refuses to start and names the setting.

use std::process::Command;

use crate::support::binary::rangedb;
use crate::support::cluster::Cluster;
use crate::support::node::Node;
use crate::support::process::without_settings;

/// Runs `rangedb server` with these arguments, which must fail before it creates a file. Returns
/// its standard error.
fn refused(arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(rangedb());
    without_settings(&mut command);
    command.arg("server").args(arguments).envs(environment.iter().copied());
    let output = command.current_dir(directory.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{arguments:?} {environment:?}: {said}");
    let made = std::fs::read_dir(directory.path()).unwrap().count();
    assert_eq!(made, 0, "{arguments:?} made files");
    said
}

#[test]
fn malformed_flags_are_named() {
    for (arguments, named) in [
        (&["--peer-address", "nowhere"][..], "--peer-address"),
        (&["--peer-address", "localhost:0"], "--peer-address"),
        (&["--peer-address", "0.0.0.0:8080", "--cluster-init"], "--listen-host"),
        (&["--client-address", "localhost:99999"], "--client-address"),
        (&["--status-address", ":8085"], "--status-address"),
        (&["--client-address", "localhost:8080", "--cluster-init"], "must be different"),
        (&["--peers", "a:1,b"], "--peers"),
        (&["--join", "a:b"], "--join"),
        (&["--split-keys", "a,_/x"], "`_/`"),
        (&["--split-keys", "a,b,a"], "twice"),
        (&["--log-level", "loud"], "--log-level"),
        (&["--log-format", "xml"], "--log-format"),
        (&["--read-mode", "guess"], "--read-mode"),
        (&["--no-such-flag"], "--no-such-flag"),
        (&["--config", "no/such/file.toml"], "no/such/file.toml"),
    ] {
        let said = refused(arguments, &[]);
        assert!(said.contains(named), "{named} is not in: {said}");
    }
    let said = refused(&["--cluster-init"], &[("RANGEDB_CLIENT_ADDRESS", "nowhere")]);
    assert!(said.contains("nowhere"), "{said}");
}

#[test]
fn malformed_and_unknown_settings_in_a_file_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("rangedb.toml");
    for (toml, named) in [
        ("peer_adress = \"localhost:1\"", "peer_adress"),
        ("[raft]\nflush_bytes = 1", "flush_bytes"),
        ("[rafts]\n", "rafts"),
        ("peer_address = 1", "peer_address"),
        ("peer_address = ", "rangedb.toml"),
        ("[raft]\nelection_ticks = 3\nheartbeat_ticks = 2", "raft.election_ticks"),
        ("[storage]\nblock_cache_bytes = \"many\"", "block_cache_bytes"),
        ("log_level = \"loud\"", "log_level"),
        ("stores = 0", "stores"),
        ("split_keys = [\"\"]", "--split-keys"),
    ] {
        std::fs::write(&file, toml).unwrap();
        let said = refused(&["--cluster-init", "--config", file.to_str().unwrap()], &[]);
        assert!(said.contains(named), "{named} is not in: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_told_of_no_cluster_says_what_it_could_be_told() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = Node::new(directory.path(), "n1");
    let said = node.refuses().await;
    for flag in ["--cluster-init", "--peers", "--join"] {
        assert!(said.contains(flag), "{flag} is not in: {said}");
    }
    assert!(!node.data.exists(), "it leaves nothing behind");
    let peers = "127.0.0.1:1,127.0.0.1:2,127.0.0.1:3";
    let mut stranger =
        Node::new(directory.path(), "n2").with_flags(["--cluster-init", "--peers", peers]);
    stranger.start();
    stranger.not_ready(&format!("{} is not among --peers {peers}", stranger.peer)).await;
    assert_eq!(stranger.stop().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_is_named() {
    let cluster = Cluster::started(1).await;
    let taken = cluster.nodes[0].client.clone();
    let mut second = Node::new(cluster.path(), "second").with_flags(["--cluster-init"]);
    second.client = taken.clone();
    let said = second.refuses().await;
    assert!(said.contains(&taken), "{taken} is not in: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn command_line_goes_before_environment_and_environment_before_file() {
    let cluster = Cluster::of(1).await;
    let file = cluster.file("rangedb.toml", "log_level = \"error\"\nlog_format = \"text\"\n");
    let mut cluster = cluster;
    let file = file.to_str().unwrap().to_owned();
    cluster.nodes[0].flags.extend(["--config".to_owned(), file]);
    cluster.nodes[0].through =
        ["env", "RANGEDB_LOG_LEVEL=debug", "RANGEDB_LOG_FORMAT=json"].map(str::to_owned).to_vec();
    cluster.nodes[0].flags.extend(["--log-level", "info"].map(str::to_owned));
    let cluster = cluster.start().await;
    // The format from the environment, the level from the command line.
    let log = cluster.nodes[0].log_text();
    assert!(
        log.starts_with('{') && log.contains("\"INFO\"") && !log.contains("\"DEBUG\""),
        "{log}"
    );
}
