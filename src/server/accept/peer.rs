//! A connection that is being served.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

use super::slots::Slot;
use crate::publication::Connection;
use crate::server::observer::Observer;

/// What each request of a connection carries: who sent it.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// What the three calls know of the connection.
    pub(crate) connection: Arc<Connection>,
    /// One permit for each call that may run at a time.
    pub(crate) calls: Arc<Semaphore>,
}

impl Caller {
    pub(crate) fn new(number: u64, uid: u32, calls: usize) -> Self {
        Self {
            connection: Connection::new(number, uid).into(),
            calls: Semaphore::new(calls).into(),
        }
    }
}

/// A stream to a peer, with all that ends when it is closed.
pub(crate) struct Peer {
    stream: UnixStream,
    caller: Caller,
    /// Ready when every connection is to end at once.
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    observer: Arc<dyn Observer>,
    _slot: Slot,
}

impl Peer {
    pub(super) fn new(
        stream: UnixStream,
        caller: Caller,
        slot: Slot,
        observer: Arc<dyn Observer>,
        cut: CancellationToken,
    ) -> Self {
        observer.connection_opened();
        let cut = Box::pin(cut.cancelled_owned());
        Self {
            stream,
            caller,
            cut,
            observer,
            _slot: slot,
        }
    }

    fn is_cut(&mut self, cx: &mut Context<'_>) -> bool {
        self.cut.as_mut().poll(cx).is_ready()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.observer.connection_closed();
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer")
            .field("caller", &self.caller)
            .finish_non_exhaustive()
    }
}

impl Connected for Peer {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for Peer {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_cut(cx) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Peer {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_cut(cx) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.is_cut(cx) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
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
