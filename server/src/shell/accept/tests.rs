//! Tests of connection limits and idle timeouts.

use std::time::Instant;

use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// Idle timeout of the tests: short for the tests' sake, and long for a peer that sends at once.
const SILENCE_MAX: Duration = Duration::from_millis(300);

async fn listener(open_files_max: u64, idle_timeout: IdleTimeout) -> (LimitedListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (
        LimitedListener::new(listener, ConnectionLimit::of_clients(open_files_max), idle_timeout),
        address,
    )
}

async fn is_closed(stream: &mut TcpStream) -> bool {
    !matches!(stream.read(&mut [0]).await, Ok(1))
}

#[tokio::test]
async fn beyond_the_share_of_open_files_a_connection_is_closed_at_once() {
    let (listener, address) = listener(2 * CLIENTS_SHARE, IdleTimeout::GRPC).await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(TcpStream::connect(address).await.unwrap());
    }
    let first = listener.next().await;
    let _second = listener.next().await;
    let next = tokio::spawn(async move { listener.next().await.1 });
    assert!(is_closed(&mut streams[2]).await);
    // The place of the dropped connection goes to the next one.
    drop(first);
    let after = TcpStream::connect(address).await.unwrap();
    assert_eq!(next.await.unwrap(), after.local_addr().unwrap());
}

#[tokio::test]
async fn a_connection_that_does_not_finish_its_preface_ends() {
    let idle_timeout = IdleTimeout { silence_max: SILENCE_MAX, ..IdleTimeout::GRPC };
    let (listener, address) = listener(100, idle_timeout).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let (mut connection, _) = listener.next().await;
    stream.write_all(&[1; HTTP2_PREFACE_BYTES - 1]).await.unwrap();
    let mut heard = [0; HTTP2_PREFACE_BYTES];
    let ended = connection.read_exact(&mut heard).await.unwrap_err();
    assert_eq!(ended.kind(), io::ErrorKind::TimedOut);
    assert_eq!(heard[HTTP2_PREFACE_BYTES - 1], 0);
}

#[tokio::test]
async fn once_the_preface_has_come_silence_is_no_end() {
    let idle_timeout = IdleTimeout { silence_max: SILENCE_MAX, ..IdleTimeout::GRPC };
    let (listener, address) = listener(100, idle_timeout).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let (mut connection, _) = listener.next().await;
    stream.write_all(&[1; HTTP2_PREFACE_BYTES]).await.unwrap();
    connection.read_exact(&mut [0; HTTP2_PREFACE_BYTES]).await.unwrap();
    let silent = tokio::time::timeout(2 * SILENCE_MAX, connection.read_u8()).await;
    assert!(silent.is_err(), "{silent:?}");
    stream.write_u8(7).await.unwrap();
    assert_eq!(connection.read_u8().await.unwrap(), 7);
}

#[tokio::test]
async fn a_status_connection_ends_after_a_silence_that_begins_with_the_last_word() {
    let idle_timeout = IdleTimeout { silence_max: SILENCE_MAX, ..IdleTimeout::STATUS };
    let (listener, address) = listener(100, idle_timeout).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let (mut connection, _) = listener.next().await;
    let begun = Instant::now();
    stream.write_all(&[7; 100]).await.unwrap();
    connection.read_exact(&mut [0; 100]).await.unwrap();
    let ended = connection.read_u8().await.unwrap_err();
    assert_eq!(ended.kind(), io::ErrorKind::TimedOut);
    assert!(begun.elapsed() >= SILENCE_MAX);
}

#[test]
fn without_a_file_to_spare_accepting_pauses_and_says_so_once() {
    // EMFILE and ENFILE.
    for number in [24, 23] {
        assert!(!is_of_one_connection(&io::Error::from_raw_os_error(number)));
    }
    assert!(is_of_one_connection(&io::ErrorKind::ConnectionAborted.into()));
}
