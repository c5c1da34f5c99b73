//! Taking connections in, within what the process may have open.
//!
//! Connections get a share of the files that the process may have open ([`ConnectionLimit`]): beyond it
//! a new one is closed at once, so that whoever opens many finds an end before the engines do, which
//! cannot do without files. Clients, other nodes and status pages have a share each: a storm of
//! clients may neither cut the node off from its cluster nor make it look dead. Every connection
//! has to show that it speaks ([`IdleTimeout`]): one that is opened and says nothing gives its place
//! back. Where accepting itself fails, it is tried again after a pause, never in a loop that takes
//! a core.

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

/// Of the files that the process may have open: RocksDB gets a half (`engines.rs`), and the logs and
/// the way to other nodes what is left.
const CLIENTS_SHARE: u64 = 4;
const NODES_SHARE: u64 = 16;
const STATUS_SHARE: u64 = 32;

/// More could not be served anyway.
const CONNECTIONS_MAX: u64 = 1 << 20;

/// Before accepting is tried again after an error that will not go away by itself.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// What an HTTP/2 connection begins with.
const HTTP2_PREFACE_BYTES: usize = 24;

/// For the preface, which a client sends without being asked: some round trips of a slow way. What
/// comes later is watched over by pings.
const PREFACE_MAX: Duration = Duration::from_secs(5);

/// Between two requests on a connection for status pages. Who asks less often connects again.
const STATUS_IDLE_MAX: Duration = Duration::from_secs(60);

/// The places that all connections of one kind share.
pub(crate) struct ConnectionLimit {
    /// Who comes through it, for people.
    from: &'static str,
    places: Arc<Semaphore>,
    places_max: usize,
    /// Lines about connections beyond the limit.
    full: Seldom,
}

impl ConnectionLimit {
    /// These are for a process that may have so many files open.
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

/// Time for which a connection may say nothing.
#[derive(Clone, Copy)]
pub(crate) struct IdleTimeout {
    silence_max: Duration,
    /// Once so many bytes have come, silence is watched over elsewhere; none: it never is.
    preface_bytes: Option<usize>,
}

impl IdleTimeout {
    pub const GRPC: IdleTimeout =
        IdleTimeout { silence_max: PREFACE_MAX, preface_bytes: Some(HTTP2_PREFACE_BYTES) };
    pub const STATUS: IdleTimeout =
        IdleTimeout { silence_max: STATUS_IDLE_MAX, preface_bytes: None };
}

/// A socket that connections are taken from.
pub(crate) struct LimitedListener {
    listener: TcpListener,
    limit: ConnectionLimit,
    idle_timeout: IdleTimeout,
    /// Lines about failures to accept.
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

    /// The next connection that there is a place for.
    pub async fn next(&self) -> (Connection, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, from)) => {
                    // Dropped, it is closed.
                    let Some(place) = self.limit.enter() else { continue };
                    if let Err(error) = stream.set_nodelay(true) {
                        // Gone already, then.
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

/// True if it went away before it was accepted; the next one may be well.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// A connection in its place.
pub(crate) struct Connection {
    stream: TcpStream,
    idle_timeout: IdleTimeout,
    /// While silence is watched over here.
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
