//! Tests of the sources of settings, their order, and the settings that are refused.

use clap::Parser;

use super::*;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    server: ServerArgs,
}

fn args(line: &[&str]) -> ServerArgs {
    Cli::try_parse_from([&["rangedb"], line].concat()).unwrap_or_else(|e| panic!("{e}")).server
}

fn refused(line: &[&str]) -> String {
    match Cli::try_parse_from([&["rangedb"], line].concat()) {
        Err(error) => error.to_string(),
        Ok(cli) => Config::load(cli.server).unwrap_err().to_string(),
    }
}

fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rangedb.toml");
    std::fs::write(&path, text).unwrap();
    (dir, path)
}

fn load_file(text: &str, line: &[&str]) -> Result<Config, ConfigError> {
    let (_dir, path) = file(text);
    Config::load(ServerArgs { config: Some(path), ..args(line) })
}

#[test]
fn without_any_source_the_defaults_hold() {
    let config = Config::load(args(&[])).unwrap();
    assert_eq!(config.peer_address, "localhost:8080");
    assert_eq!(config.client_address, "localhost:8081");
    assert_eq!(config.data_dir, PathBuf::from("./data"));
    assert!(config.raft.lease_reads && !config.cluster_init);
    assert!((1..=STORES_MAX).contains(&config.stores));
}

#[test]
fn clients_find_the_node_at_the_host_where_other_nodes_do() {
    for (peer, client) in
        [("n1:8080", "n1:8081"), ("10.0.0.7:1", "10.0.0.7:8081"), ("[::1]:1", "[::1]:8081")]
    {
        let config = Config::load(args(&["--peer-address", peer])).unwrap();
        assert_eq!(config.client_address, client);
    }
    let given = ["--peer-address", "n1:8080", "--client-address", "public.example:1"];
    assert_eq!(Config::load(args(&given)).unwrap().client_address, "public.example:1");
}

#[test]
fn a_client_address_that_other_hosts_cannot_reach_is_refused_where_the_peer_address_is_not_one() {
    for local in
        ["localhost", "127.0.0.1", "127.8.8.8", "[::1]", "LocalHost.", "[::ffff:127.0.0.1]"]
    {
        let client = format!("{local}:8081");
        let said = refused(&["--peer-address", "n1:8080", "--client-address", &client]);
        assert!(said.contains("n1:8081") && said.contains(local), "{said}");
        let peer = format!("{local}:8080");
        Config::load(args(&["--peer-address", &peer, "--client-address", &client])).unwrap();
    }
}

#[test]
fn the_command_line_goes_before_the_file_and_the_file_before_the_default() {
    let text = r#"
        peer_address = "a:1"
        client_address = "a:2"
        log_level = "debug"
        peers = ["a:1", "b:1"]
        cluster_init = true
        [raft]
        tick_ms = 50
        flush_log_bytes = "8MiB"
        [storage]
        disk_reserve_bytes = "1GiB"
    "#;
    let config = load_file(text, &["--peer-address", "b:1", "--read-mode", "read-index"]).unwrap();
    assert_eq!(config.peer_address, "b:1");
    assert_eq!(config.client_address, "a:2");
    assert_eq!(config.log_level, LogLevel::Debug);
    assert_eq!(config.peers, ["a:1", "b:1"]);
    assert!(config.cluster_init && !config.raft.lease_reads);
    assert_eq!((config.raft.tick_us, config.raft.flush_log_bytes), (50_000, 8 << 20));
    assert_eq!(config.storage.disk_reserve_bytes, Some(1 << 30));
}

#[test]
fn an_unknown_key_is_named() {
    for (text, key) in [("peer_adress = \"a:1\"", "peer_adress"), ("[raft]\nticks = 1", "ticks")] {
        let error = load_file(text, &[]).unwrap_err().to_string();
        assert!(error.contains(key) && error.contains("rangedb.toml"), "{error}");
    }
}

#[test]
fn a_malformed_flag_is_named_with_its_value() {
    for (flag, value) in [
        ("--peer-address", "localhost"),
        ("--client-address", "localhost:http"),
        ("--status-address", "localhost:0"),
        ("--peers", "a:1,b"),
        ("--log-level", "loud"),
        ("--read-mode", "stale"),
        ("--peer-address", "0.0.0.0:8080"),
    ] {
        let error = refused(&[flag, value]);
        let bad = value.rsplit(',').next().unwrap();
        assert!(error.contains(flag) && error.contains(bad), "{flag} {value}: {error}");
    }
}

#[test]
fn an_election_timeout_too_near_the_heartbeat_is_refused() {
    let error = load_file("[raft]\nelection_ticks = 3", &[]).unwrap_err().to_string();
    assert!(error.contains("raft.election_ticks"), "{error}");
}

#[test]
fn two_services_at_one_address_are_refused() {
    let line = ["--peer-address", "a:1", "--client-address", "a:1"];
    assert!(refused(&line).contains("must be different"));
}

#[test]
fn a_list_of_peers_that_names_nobody_is_refused() {
    for value in ["", ",", " , "] {
        for flag in ["--peers", "--join"] {
            let error = refused(&[flag, value, "--cluster-init"]);
            assert!(error.contains(flag) && error.contains("names nobody"), "{value:?}: {error}");
        }
    }
}

#[test]
fn lists_lose_blanks_and_repetitions() {
    let config = Config::load(args(&["--peers", "a:1, b:1,a:1,"])).unwrap();
    assert_eq!(config.peers, ["a:1", "b:1"]);
}
