//! The byte stream under a WebSocket, whichever runtime it is of.
//!
//! After a failed write it swallows what is written, so that reading reaches the true end; see
//! [`streams`](super::streams). It counts the bytes that it moves, once: the stream under TLS does,
//! and the one on top does not.

use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::io;

use bytes::Bytes;
use futures_io::{AsyncRead, AsyncWrite};

use super::incoming::Reads;
use super::streams::Meter;

/// A stream with its [`Meter`].
#[derive(Debug)]
pub struct Io<S> {
    stream: S,
    meter: Meter,
    counts: bool,
    /// From when tungstenite reads.
    reads: Option<Reads>,
    /// What was read with the upgrade and comes first.
    leftover: Bytes,
}

impl<S> Io<S> {
    /// A stream whose bytes are counted.
    pub fn new(stream: S) -> Self {
        let (meter, leftover) = (Meter::default(), Bytes::new());
        Self { stream, meter, counts: true, reads: None, leftover }
    }

    /// TLS on a stream of this meter, which counts and whose writes fail.
    #[cfg(feature = "tls")]
    pub(crate) fn above(stream: S, meter: Meter) -> Self {
        Self { meter, counts: false, ..Self::new(stream) }
    }

    pub(crate) fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Returns these bytes before it reads on.
    ///
    /// Given to tungstenite, they would become its read buffer: one that is as small as they are,
    /// and that grows by a frame at a time, which makes a system call of every frame.
    pub(crate) fn with_leftover(mut self, leftover: Bytes) -> Self {
        self.leftover = leftover;
        self
    }

    /// Reads by these rules from now on.
    pub(super) fn with_reads(mut self, reads: Reads) -> Self {
        self.reads = Some(reads);
        self
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Io<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if self.reads.as_ref().is_some_and(|reads| !reads.may_read()) {
            return Poll::Pending;
        }
        let length = if self.leftover.is_empty() {
            let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
            if self.counts {
                self.meter.read(read);
            }
            read
        } else {
            let front = take_front(&mut self.leftover, buffer.len());
            buffer[..front.len()].copy_from_slice(&front);
            front.len()
        };
        if let Some(reads) = &self.reads {
            reads.took(&mut buffer[..length]);
        }
        Poll::Ready(Ok(length))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Io<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if !self.meter.failed() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, bytes)) {
                Ok(written) => {
                    if self.counts {
                        self.meter.wrote(written);
                    }
                    return Poll::Ready(Ok(written));
                }
                Err(_) => self.meter.fail(),
            }
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.meter.failed() && ready!(Pin::new(&mut self.stream).poll_flush(cx)).is_err() {
            self.meter.fail();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

/// Takes so many bytes from the front, or all there are.
fn take_front(bytes: &mut Bytes, max: usize) -> Bytes {
    // Nothing is kept alive once all of it is taken.
    if bytes.len() <= max { core::mem::take(bytes) } else { bytes.split_to(max) }
}
