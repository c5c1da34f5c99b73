//! Connections with the caller at their other end, and the caller's shares of memory.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::Status;
use tonic::transport::server::Connected;

use crate::memory::Share;
use crate::node::{Caller, CallerKind};
use crate::shell::memory::Budget;

/// Origin of a request: the caller of its connection, and its shares. Requests carry it as an
/// extension.
#[derive(Clone)]
pub(crate) struct Origin {
    pub caller: Caller,
    /// Share that the bytes of the connection's requests are taken from.
    pub requests: Share,
    /// Share for the cost of the requests beside their bytes.
    pub tasks: Share,
}

/// Returns the origin of a request.
///
/// # Errors
///
/// None on any listener of this server: each gives its connections an origin.
pub(super) fn origin<T>(request: &tonic::Request<T>) -> Result<Origin, Status> {
    let origin = request.extensions().get::<Origin>().cloned();
    origin.ok_or_else(|| Status::internal("a connection without an origin"))
}

/// Source of the origins of a listener's connections.
pub(crate) struct Origins {
    kind: CallerKind,
    budget: Budget,
}

/// Number of the last connection, over all listeners. 0 is the node itself.
static LAST_NUMBER: AtomicU64 = AtomicU64::new(0);

impl Origins {
    pub fn new(kind: CallerKind, budget: Budget) -> Self {
        Origins { kind, budget }
    }

    pub fn of<C>(&self, connection: C) -> FromOrigin<C> {
        let number = LAST_NUMBER.fetch_add(1, Ordering::Relaxed) + 1;
        let Budget { requests, tasks, answers, .. } = self.budget.of_connection();
        let caller = Caller { kind: self.kind, number, answers };
        FromOrigin { connection, origin: Origin { caller, requests, tasks } }
    }
}

/// A connection with its origin.
pub(crate) struct FromOrigin<C> {
    connection: C,
    origin: Origin,
}

impl<C> Connected for FromOrigin<C> {
    type ConnectInfo = Origin;

    fn connect_info(&self) -> Origin {
        self.origin.clone()
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for FromOrigin<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_read(context, buffer)
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for FromOrigin<C> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write(context, buffer)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(context)
    }
}
