//! A byte stream for tests. The test plays its other end.

use core::pin::Pin;
use core::task::{Context, Poll};
use std::cell::{RefCell, RefMut};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

use futures_io::{AsyncRead, AsyncWrite};

/// A byte stream with two ends. A clone is the same stream.
#[derive(Clone)]
pub(super) struct TestStream(Rc<RefCell<Ends>>);

/// The scripted results of reads and writes, and a record of both.
pub(super) struct Ends {
    /// The bytes of each read. Without any, a read is pending.
    pub(super) reads: VecDeque<Vec<u8>>,
    /// The sizes of the buffers that were passed to reads.
    pub(super) asked: Vec<usize>,
    pub(super) written: Vec<u8>,
    /// The number of bytes that writes still accept. At zero, writes are pending.
    pub(super) accepts: usize,
    /// Whether writes return `Ok(0)`. A writer must treat that as an error.
    pub(super) accepts_none: bool,
    pub(super) flush_is_pending: bool,
    /// Whether flushing and closing fail.
    pub(super) is_broken: bool,
}

impl Ends {
    fn state(&self) -> io::Result<()> {
        if self.is_broken { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
    }
}

impl Default for TestStream {
    fn default() -> Self {
        Self(Rc::new(RefCell::new(Ends {
            reads: VecDeque::new(),
            asked: Vec::new(),
            written: Vec::new(),
            accepts: usize::MAX,
            accepts_none: false,
            flush_is_pending: false,
            is_broken: false,
        })))
    }
}

impl TestStream {
    pub(super) fn ends(&self) -> RefMut<'_, Ends> {
        self.0.borrow_mut()
    }
}

impl AsyncRead for TestStream {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut ends = self.ends();
        ends.asked.push(buffer.len());
        let Some(front) = ends.reads.front_mut() else { return Poll::Pending };
        let length = front.len().min(buffer.len());
        buffer[..length].copy_from_slice(&front[..length]);
        front.drain(..length);
        if front.is_empty() {
            ends.reads.pop_front();
        }
        Poll::Ready(Ok(length))
    }
}

impl AsyncWrite for TestStream {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut ends = self.ends();
        if ends.accepts_none {
            return Poll::Ready(Ok(0));
        }
        let length = bytes.len().min(ends.accepts);
        if length == 0 {
            return Poll::Pending;
        }
        ends.accepts -= length;
        ends.written.extend_from_slice(&bytes[..length]);
        Poll::Ready(Ok(length))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ends = self.ends();
        if ends.flush_is_pending { Poll::Pending } else { Poll::Ready(ends.state()) }
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.ends().state())
    }
}
