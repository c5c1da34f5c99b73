//! Idle connections: they take no place from clients that send requests.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::cluster::Cluster;
use crate::support::wait::{SOON, check, until};

/// Limit of files that the process may have open: fewer than the connections that the test opens.
const OPEN_FILES: usize = 256;
const CONNECTIONS: usize = 300;

/// Preface of a connection, and an empty frame of settings (RFC 9113, 3.4 and 4.1).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HTTP2_SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
const HTTP2_FRAME_TYPE: usize = 3;

/// Number of writes, enough to fill memtables, so that the engine makes files meanwhile.
const WRITES: usize = 40;
const VALUE_BYTES: usize = 200_000;
const SMALL_MEMTABLES: &str = "[storage]\nwrite_buffer_bytes = \"1MiB\"\n";

fn few_open_files() -> Vec<String> {
    let limited = format!("ulimit -n {OPEN_FILES} && exec \"$@\"");
    ["sh", "-c", &limited, "sh"].map(str::to_owned).to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn more_connections_than_open_files_leave_the_engines_theirs() {
    let mut cluster = Cluster::of(1).await.configured(SMALL_MEMTABLES);
    cluster.nodes[0].through = few_open_files();
    let mut cluster = cluster.start().await;
    let client = cluster.client();
    client.put("/before", "1").await.unwrap();

    let mut idle = Vec::new();
    for number in 0..CONNECTIONS {
        let node = &cluster.nodes[0];
        let address = [&node.client, &node.peer, &node.status][number % 3];
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    // Beyond its share of connections, the node closes new ones.
    let mut byte = [0];
    let closed = tokio::time::timeout(SOON, idle.last_mut().unwrap().read(&mut byte));
    assert_eq!(closed.await.expect("it is still open").unwrap_or(0), 0);
    for number in 0..WRITES {
        let value: Vec<u8> = (0..VALUE_BYTES).map(|_| fastrand::u8(..)).collect();
        client.put(format!("/during/{number}"), value).await.unwrap();
    }
    assert!(cluster.nodes[0].is_running());
    let log = cluster.nodes[0].log_text();
    let said = log.matches("new ones are closed").count();
    assert!((1..CONNECTIONS / 10).contains(&said), "not for each connection: {log}");

    drop(idle);
    until("a new client finds a place", SOON, async || {
        cluster.cli(["--timeout", "2s", "get", "/before"]).await.succeeded()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_clients_shuts_neither_nodes_nor_status_pages_out() {
    let mut cluster = Cluster::of(1).await;
    cluster.nodes[0].through = few_open_files();
    let cluster = cluster.start().await;
    let node = &cluster.nodes[0];
    let mut storm = Vec::new();
    for _ in 0..CONNECTIONS {
        storm.push(TcpStream::connect(&node.client).await.unwrap());
    }
    let mut byte = [0];
    let closed = tokio::time::timeout(SOON, storm.last_mut().unwrap().read(&mut byte));
    assert_eq!(closed.await.expect("it is still open").unwrap_or(0), 0);
    node.ready().await;
    // Connects as another node would.
    let mut peer = TcpStream::connect(&node.peer).await.unwrap();
    peer.write_all(HTTP2_PREFACE).await.unwrap();
    peer.write_all(&HTTP2_SETTINGS).await.unwrap();
    let mut answer = [0; HTTP2_SETTINGS.len()];
    let answered = tokio::time::timeout(SOON, peer.read_exact(&mut answer));
    answered.await.expect("no answer").expect("it was closed");
    assert_eq!(answer[HTTP2_FRAME_TYPE], HTTP2_SETTINGS[HTTP2_FRAME_TYPE]);
    drop(storm);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_never_begins_to_speak_is_closed() {
    let cluster = Cluster::started(1).await;
    let mut silent = TcpStream::connect(&cluster.nodes[0].client).await.unwrap();
    let mut half = TcpStream::connect(&cluster.nodes[0].peer).await.unwrap();
    half.write_all(b"PRI * HTTP").await.unwrap();
    for stream in [&mut silent, &mut half] {
        let closed = tokio::time::timeout(SOON, async {
            let mut bytes = Vec::new();
            // An error is an end too.
            let _ = stream.read_to_end(&mut bytes).await;
        });
        check(closed.await.is_ok(), "it is still open").unwrap();
    }
    cluster.cli(["put", "/still", "here"]).await.success();
}
