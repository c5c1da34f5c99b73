//! Admission of connections, within the limit of open files.
//!
//! [`ConnectionLimit`] gives clients, other nodes and status pages a share each of the files that
//! the process may have open. A connection beyond its share is closed at once. So clients that open
//! many connections reach a limit before the engines do, which cannot work without files. The
//! shares are separate: a flood of clients neither cuts the node off from its cluster nor makes it
//! look dead. [`IdleTimeout`] closes a connection on which nothing arrives and frees its place.
//! After an error of `accept` itself the listener pauses before it tries again, so that it never
//! loops on a full core.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tonic::transport::server::Connected;

use crate::shell::logging::Seldom;

/// Parts of the files that the process may have open, as divisors. RocksDB gets a half
/// (`engines.rs`). The logs and the connections to other nodes get the rest.
const CLIENTS_SHARE: u64 = 4;
const NODES_SHARE: u64 = 16;
const STATUS_SHARE: u64 = 32;

/// Maximum number of connections of one kind. A node could not serve more anyway.
const CONNECTIONS_MAX: u64 = 1 << 20;

/// Pause before `accept` is tried again after an error that will not go away by itself.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Length of the preface with which an HTTP/2 connection begins.
const HTTP2_PREFACE_BYTES: usize = 24;

/// Time within which a client must send the preface: some round trips of a slow network. A client
/// sends the preface without being asked. After it, pings detect a silent connection.
const PREFACE_MAX: Duration = Duration::from_secs(5);

/// Maximum time between two requests on a connection for status pages. A client that asks less
/// often connects again.
const STATUS_IDLE_MAX: Duration = Duration::from_secs(60);

/// Limit on the open connections of one kind.
pub(crate) struct ConnectionLimit {
    /// Kind of clients, as log lines name it.
    from: &'static str,
    places: Arc<Semaphore>,
    places_max: usize,
    /// Rate limit of the log lines about connections beyond the limit.
    full: Seldom,
}

impl ConnectionLimit {
    /// Returns the limit for clients of a process that may have `open_files_max` files open.
    pub fn of_clients(open_files_max: u64) -> ConnectionLimit {
        ConnectionLimit::new("clients", open_files_max / CLIENTS_SHARE)
    }

    pub fn of_nodes(open_files_max: u64) -> ConnectionLimit {
        ConnectionLimit::new("other nodes", open_files_max / NODES_SHARE)
    }

    pub fn of_status_pages(open_files_max: u64) -> ConnectionLimit {
        ConnectionLimit::new("readers of status pages", open_files_max / STATUS_SHARE)
    }

    fn new(from: &'static str, places: u64) -> ConnectionLimit {
        let places_max = places.clamp(1, CONNECTIONS_MAX) as usize;
        let places = Arc::new(Semaphore::new(places_max));
        ConnectionLimit { from, places, places_max, full: Seldom::default() }
    }

    fn enter(&self) -> Option<OwnedSemaphorePermit> {
        let place = self.places.clone().try_acquire_owned().ok();
        if place.is_none()
            && let Some(left_out) = self.full.may_write()
        {
            let connections = self.places_max;
            tracing::error!(
                connections,
                left_out,
                "as many connections of {} as the limit of open files allows: new ones are closed",
                self.from
            );
        }
        place
    }
}

/// Time for which a connection may stay silent.
#[derive(Clone, Copy)]
pub(crate) struct IdleTimeout {
    silence_max: Duration,
    /// Bytes after which the timeout ends, because pings detect silence from then on. `None`: the
    /// timeout never ends.
    preface_bytes: Option<usize>,
}

impl IdleTimeout {
    pub const GRPC: IdleTimeout =
        IdleTimeout { silence_max: PREFACE_MAX, preface_bytes: Some(HTTP2_PREFACE_BYTES) };
    pub const STATUS: IdleTimeout =
        IdleTimeout { silence_max: STATUS_IDLE_MAX, preface_bytes: None };
}

/// Listener that accepts connections within a [`ConnectionLimit`].
pub(crate) struct LimitedListener {
    listener: TcpListener,
    limit: ConnectionLimit,
    idle_timeout: IdleTimeout,
    /// Rate limit of the log lines about failures to accept.
    failed: Seldom,
}

impl LimitedListener {
    pub fn new(
        listener: TcpListener,
        limit: ConnectionLimit,
        idle_timeout: IdleTimeout,
    ) -> LimitedListener {
        LimitedListener { listener, limit, idle_timeout, failed: Seldom::default() }
    }

    /// Waits for the next connection that the limit admits.
    pub async fn next(&self) -> (Connection, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, from)) => {
                    // Dropping the stream closes the connection.
                    let Some(place) = self.limit.enter() else { continue };
                    if let Err(error) = stream.set_nodelay(true) {
                        // The other side has closed the connection already.
                        tracing::debug!(%from, "a connection without a future: {error}");
                    }
                    return (Connection::new(stream, place, self.idle_timeout), from);
                }
                Err(error) => {
                    if is_of_one_connection(&error) {
                        continue;
                    }
                    if let Some(left_out) = self.failed.may_write() {
                        tracing::error!(left_out, "connections cannot be accepted: {error}");
                    }
                    tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
                }
            }
        }
    }
}

impl axum::serve::Listener for LimitedListener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        self.next().await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// True if the error concerns one connection, which ended before it was accepted. The next one may
/// work.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Accepted connection, which holds a place of the limit.
pub(crate) struct Connection {
    stream: TcpStream,
    idle_timeout: IdleTimeout,
    /// Timer of the idle timeout. `None` once pings detect silence.
    silence: Option<Pin<Box<Sleep>>>,
    heard_bytes: usize,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    fn new(stream: TcpStream, place: OwnedSemaphorePermit, idle_timeout: IdleTimeout) -> Self {
        let silence = Some(Box::pin(tokio::time::sleep(idle_timeout.silence_max)));
        Connection { stream, idle_timeout, silence, heard_bytes: 0, _place: place }
    }

    fn hear(&mut self, bytes: usize) {
        let Some(silence) = &mut self.silence else { return };
        match self.idle_timeout.preface_bytes {
            Some(preface) => {
                self.heard_bytes += bytes;
                if self.heard_bytes >= preface {
                    self.silence = None;
                }
            }
            None => {
                silence.as_mut().reset(tokio::time::Instant::now() + self.idle_timeout.silence_max)
            }
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(cx, buf) {
            self.hear(buf.filled().len() - before);
            return Poll::Ready(read);
        }
        match &mut self.silence {
            Some(silence) => {
                ready!(silence.as_mut().poll(cx));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            None => Poll::Pending,
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

#[cfg(test)]
mod tests;
