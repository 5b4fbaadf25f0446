//! The byte stream under a WebSocket, for any runtime.
//!
//! After a failed write it discards further writes, and reading continues to the end of the stream;
//! see [`streams`](super::streams). With TLS, only the stream under TLS counts bytes, so that no byte
//! is counted twice.
//!
//! TLS reads in an internal loop until it has data. Records without data, such as session tickets, could
//! keep that loop running, because a server may send any number of them. To prevent this, the stream
//! under TLS is read a limited number of times in one poll of the handshake and in one read above TLS.
//! It refuses further reads and wakes the task. An open WebSocket reports a refused read as
//! [`Part`](crate::client::Received::Part), so that the driver does not take the stream for empty.

use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::io;

use bytes::Bytes;
use futures_io::{AsyncRead, AsyncWrite};

use super::incoming::Reads;
use super::streams::Meter;

/// A byte stream and its [`Meter`].
#[derive(Debug)]
pub struct Io<S> {
    stream: S,
    meter: Meter,
    counts: bool,
    /// Limits the reads of tungstenite; `None` during the upgrade.
    reads: Option<Reads>,
    /// Bytes that followed the upgrade response in the same read. They are returned before any
    /// others.
    leftover: Bytes,
}

impl<S> Io<S> {
    /// Wraps a stream and counts its bytes.
    pub fn new(stream: S) -> Self {
        let (meter, leftover) = (Meter::default(), Bytes::new());
        Self { stream, meter, counts: true, reads: None, leftover }
    }

    /// Wraps a TLS stream; the stream under it counts the bytes and records failed writes.
    #[cfg(feature = "tls")]
    pub(crate) fn above(stream: S, meter: Meter) -> Self {
        Self { meter, counts: false, ..Self::new(stream) }
    }

    pub(crate) fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Makes reads return `leftover` before they read from the stream.
    ///
    /// If tungstenite received these bytes directly, they would become its first read buffer, and the
    /// later buffers would be as small as these bytes. Then each frame would cost a system call.
    pub(crate) fn with_leftover(mut self, leftover: Bytes) -> Self {
        self.leftover = leftover;
        self
    }

    /// Limits the reads from now on: each must be allowed by `reads`.
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
            if !self.counts {
                self.meter.allow_tls_reads();
            } else if !self.meter.take_tls_read() {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
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

/// Takes up to `max` bytes from the front.
fn take_front(bytes: &mut Bytes, max: usize) -> Bytes {
    // If everything is taken, no reference to the buffer is kept.
    if bytes.len() <= max { core::mem::take(bytes) } else { bytes.split_to(max) }
}

#[cfg(test)]
mod tests {
    use core::task::Waker;

    use super::*;
    use crate::transport::test_stream::TestStream;

    /// The failure of a flush is reported by the meter, so that reading goes on.
    #[test]
    fn failed_flush_is_recorded() {
        let broken = TestStream::default();
        broken.ends().is_broken = true;
        let mut stream = Io::new(broken);
        let meter = stream.meter().clone();
        let mut cx = Context::from_waker(Waker::noop());
        let mut stream = Pin::new(&mut stream);
        assert!(matches!(stream.as_mut().poll_write(&mut cx, b"ab"), Poll::Ready(Ok(2))));
        assert!(!meter.failed());
        assert!(matches!(stream.as_mut().poll_flush(&mut cx), Poll::Ready(Ok(()))));
        assert!(meter.failed());
        // The caller requested the close, so it receives the error.
        assert!(matches!(stream.as_mut().poll_close(&mut cx), Poll::Ready(Err(_))));
    }
}
