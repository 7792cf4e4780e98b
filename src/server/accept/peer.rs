//! A connection that is being served.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::time::Sleep;

use super::frames::Frames;
use super::preface::PREFACE;
use super::slots::Slot;
use crate::observer::Observer;
use crate::publication::Connection;

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

/// What a peer that may be served is given.
pub(super) struct Admission {
    pub(super) caller: Caller,
    pub(super) slot: Slot,
    pub(super) observer: Arc<dyn Observer>,
    pub(super) patience: Patience,
}

/// How long a peer may leave us waiting.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// To write.
    pub(super) write: Duration,
    /// For the end of a frame, or of a call's headers, that it has begun.
    pub(super) frame: Duration,
}

/// A stream to a peer, with all that ends when it is closed.
pub(crate) struct Peer {
    stream: UnixStream,
    caller: Caller,
    patience: Patience,
    /// What the peer is in the middle of.
    frames: Frames,
    /// Runs while the peer is in the middle of something.
    begun: Option<Pin<Box<Sleep>>>,
    /// Runs while a write waits. HTTP/2's keepalive does not help there: it would close the
    /// connection with a frame that waits behind that write.
    stalled: Option<Pin<Box<Sleep>>>,
    observer: Arc<dyn Observer>,
    _slot: Slot,
}

impl Peer {
    pub(super) fn new(stream: UnixStream, admission: Admission) -> Self {
        let Admission {
            caller,
            slot,
            observer,
            patience,
        } = admission;
        observer.connection_opened();
        Self {
            stream,
            caller,
            patience,
            frames: Frames::before_preface(PREFACE.len()),
            begun: None,
            stalled: None,
            observer,
            _slot: slot,
        }
    }

    pub(crate) fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Passes on how a read of these bytes went, and fails where what the peer has begun takes it
    /// too long. Until headers are whole, there is no call that could have a deadline.
    fn hurry(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        read: Poll<io::Result<()>>,
    ) -> Poll<io::Result<()>> {
        let ended = self.frames.advance(bytes);
        if ended || self.frames.is_between() {
            self.begun = None;
        }
        if read.is_ready() || self.frames.is_between() {
            return read;
        }
        wait(&mut self.begun, self.patience.frame, cx)
    }

    /// Passes on how a write went, and fails where the peer has read nothing for too long.
    fn watch<T>(
        &mut self,
        cx: &mut Context<'_>,
        write: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if write.is_ready() {
            self.stalled = None;
            return write;
        }
        wait(&mut self.stalled, self.patience.write, cx)
    }
}

/// Waits, and fails where that has taken too long since the first time.
fn wait<T>(
    since: &mut Option<Pin<Box<Sleep>>>,
    patience: Duration,
    cx: &mut Context<'_>,
) -> Poll<io::Result<T>> {
    since
        .get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)))
        .as_mut()
        .poll(cx)
        .map(|()| Err(io::ErrorKind::TimedOut.into()))
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

impl AsyncRead for Peer {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.hurry(cx, &buf.filled()[before..], read)
    }
}

impl AsyncWrite for Peer {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let write = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.watch(cx, write)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let write = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.watch(cx, write)
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
