//! The SDK's example, as a program of its own against a cluster.

use std::process::Command;

use crate::support::binary::rangedb;
use crate::support::cluster::Cluster;

#[tokio::test(flavor = "multi_thread")]
async fn the_quickstart_of_the_sdk_runs_against_a_cluster() {
    let cluster = Cluster::started(3).await;
    // `cargo test` builds examples beside the binary.
    let example = rangedb().with_file_name("examples").join("quickstart");
    let how = "`cargo build --release --workspace --examples` makes it, and so does `make test`";
    assert!(example.exists(), "{} is not there: {how}", example.display());
    let mut command = Command::new(example);
    command.env("RANGEDB_ENDPOINTS", cluster.endpoints());
    let output = tokio::process::Command::from(command).output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let printed = String::from_utf8(output.stdout).unwrap();
    let rows: Vec<&str> = printed.lines().filter(|line| line.starts_with("/users/")).collect();
    assert_eq!(rows, ["/users/ada = programmer", "/users/grace = admiral"], "{printed}");
}
