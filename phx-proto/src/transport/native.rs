//! An open WebSocket over [`Endpoint`], on a byte stream of any runtime.
//!
//! ```text
//!          send, close                          poll_receive
//!               │                                    ▲ one event
//!        ┌──────▼───────── Endpoint ─────────────────┴──────┐
//!        │  fragments, masks, pongs, the closing handshake  │
//!        └──────┬───────────────────────────────────▲───────┘
//!         poll_transmit                         poll_event
//!               ▼                                   │
//!          write buffer                        read buffer
//!               └────────────▶ TCP or TLS ──────────┘
//! ```
//!
//! How a connection ended is determined by reading, as in the
//! [WebSocket over tungstenite](super::streams). When Phoenix stops, it sends a close frame and then
//! resets the connection (`wire/close_graceful_shutdown`), so a write can fail before the close frame
//! was read. Therefore a failed write stops further writes, and reading continues.
//!
//! An idle connection has no buffers. When bytes arrive, they are read into a small buffer on the
//! stack and copied into an allocation of exactly their size. After a read that fills its buffer,
//! the next read gets a larger buffer on the heap, up to [`Config::buffers`], and the messages are
//! slices of that buffer.

use core::fmt;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::io;

use bytes::{Buf, BytesMut};
use futures_io::{AsyncRead, AsyncWrite};

use super::entropy;
use super::stream::Io;
use super::streams::Totals;
use crate::client::{Received, Transport, WriteFailed};
use crate::config::Config;
use crate::event::input::{Ended, Progress};
use crate::websocket::acknowledgements::Acknowledgements;
#[cfg(feature = "deflate")]
use crate::websocket::compressed_max;
use crate::websocket::upgrade::Upgraded;
use crate::websocket::{
    Close, Endpoint, Event, Fault, Limits, MaskKeys, SendError, Violation, codecs,
};
use crate::wire::Frame;

/// The largest read whose buffer is on the stack.
const SMALL: usize = 2 << 10;

/// For a long frame, the read buffer first grows by this many bytes, or by the size of a read if that
/// is larger. After that it is doubled step by step, because a peer may announce more than it sends.
const PORTION: usize = 64 << 10;

/// Masked frames are added to the write buffer until it holds at least this many bytes.
const WRITE: usize = 32 << 10;

/// An open WebSocket over an [`Endpoint`].
pub struct Native<S> {
    stream: Io<S>,
    totals: Totals,
    endpoint: Endpoint,
    keys: MaskKeys<fn(&mut [u8])>,
    /// Bytes that were read and that the endpoint has not taken yet.
    read: BytesMut,
    /// The size of the next read, if it is the first after a wake-up or if the last read filled its buffer.
    size: usize,
    size_max: usize,
    /// The maximum size of the next read of a long frame, if it is larger than `size`. The buffer
    /// of a read is first filled with zeros, which costs time. So a read that does not fill its buffer
    /// resets this to [`PORTION`].
    portion: usize,
    /// Whether the last read did not fill its buffer, so that the stream probably has no more
    /// bytes.
    drained: bool,
    /// Masked bytes that are not written yet.
    write: BytesMut,
    acknowledgements: Acknowledgements,
    /// The bytes that the operating system had accepted at the last complete flush.
    flushed: u64,
    /// The bytes that the stream has accepted since then. A TLS stream may still hold some of them.
    handed: u64,
    /// When this many bytes are queued, further messages wait for a flush.
    write_max: usize,
    /// Whether a pong or the reply to a close frame is still to be written.
    reply_due: bool,
    /// The error of a message that could not be sent. The next read reports it as the end of
    /// the connection.
    unsendable: Option<Ended>,
}

impl<S> fmt::Debug for Native<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Native").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Native<S> {
    /// Wraps an upgraded stream; `leftover` is what was read after the server's response.
    pub(super) fn new(stream: Io<S>, upgraded: &Upgraded, config: &Config) -> Self {
        let limits = Limits {
            message_bytes_max: config.max_message_bytes,
            frame_bytes_max: config.max_message_bytes,
            // The outbox has no limit here, because `poll_ready` already limits the queued bytes.
            outbox_bytes_max: usize::MAX,
            ..Limits::default()
        };
        let endpoint = endpoint(&limits, upgraded);
        let size_max = config.read_buffer_bytes.get();
        Self {
            totals: Totals::new(stream.meter().clone()),
            stream,
            endpoint,
            keys: MaskKeys::new(entropy),
            read: BytesMut::from(&upgraded.leftover[..]),
            size: SMALL.min(size_max),
            size_max,
            portion: PORTION,
            drained: false,
            write: BytesMut::new(),
            acknowledgements: Acknowledgements::default(),
            flushed: 0,
            handed: 0,
            write_max: config.write_buffer_bytes.max(1),
            reply_due: false,
            unsendable: None,
        }
    }

    /// Reads once and appends to the buffer. Zero is the end of the stream.
    fn fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let missing = self.endpoint.missing(self.read.len());
        let size = if self.drained { self.size.min(SMALL) } else { self.size };
        let (size, polled) = if size <= SMALL && missing <= size {
            let mut bytes = [0; SMALL];
            let polled = Pin::new(&mut self.stream).poll_read(cx, &mut bytes[..size]);
            if let Poll::Ready(Ok(read)) = polled {
                self.read.extend_from_slice(&bytes[..read]);
            }
            (size, polled)
        } else {
            let filled = self.read.len();
            let size = self.reserve(size, missing).min(size.max(self.portion));
            self.read.resize(filled + size, 0);
            let polled = Pin::new(&mut self.stream).poll_read(cx, &mut self.read[filled..]);
            let read = if let Poll::Ready(Ok(read)) = polled { read } else { 0 };
            self.read.truncate(filled + read);
            (size, polled)
        };
        let Poll::Ready(Ok(read)) = polled else {
            self.drained = false;
            self.portion = PORTION;
            if self.read.is_empty() {
                self.read = BytesMut::new();
            }
            return polled;
        };
        let is_first = !self.drained;
        self.drained = read < size;
        if !self.drained {
            self.size = self.size.max((size * 4).min(self.size_max));
            self.portion = self.portion.max(size * 4);
        } else {
            self.portion = PORTION;
            if is_first && read < self.size / 4 {
                self.size = (self.size / 4).max(SMALL.min(self.size_max));
            }
        }
        Poll::Ready(Ok(read))
    }

    /// Reserves space in the buffer for a read, and returns the maximum size of that read.
    ///
    /// Growing the buffer copies its contents. To avoid that, a new buffer has twice the size of a
    /// read, so the rest of an incomplete frame usually fits. For a long frame the buffer is
    /// doubled step by step instead of allocated at once, because the peer may have announced more
    /// than it sends.
    fn reserve(&mut self, size: usize, missing: usize) -> usize {
        let portion = missing.min(PORTION.max(self.read.len()));
        let spare = self.read.capacity() - self.read.len();
        if self.read.is_empty() && spare < size.max(portion) {
            self.read = BytesMut::with_capacity((2 * size).max(portion));
        } else if spare < SMALL.max(portion) {
            self.read.reserve(size.max(portion));
        }
        (self.read.capacity() - self.read.len()).min(size.max(portion))
    }

    /// Converts an event of the endpoint for the driver, and answers a close frame.
    fn received(&mut self, event: Event, cx: &mut Context<'_>) -> Received {
        match event {
            Event::Message(frame) => Received::Frame(frame),
            Event::Ping(_) => {
                self.reply_due = true;
                Received::Control
            }
            Event::Close(close) => {
                self.reply(cx);
                Received::Ended(close_frame(close))
            }
            Event::Acknowledged(count) => {
                self.acknowledgements.answered(count);
                Received::Control
            }
            Event::Pong(_) | Event::Opened(_) => Received::Control,
        }
    }

    /// Ends the connection after a fault. After a violation a close frame is written if the stream
    /// accepts it at once; the function does not wait for that.
    fn failed(&mut self, fault: &Fault, cx: &mut Context<'_>) -> Ended {
        self.reply(cx);
        let lost = |message: String| Ended::Lost { message };
        match fault {
            Fault::Violation(violation) => match violation {
                // The peer has closed the connection, even if its close frame is invalid.
                Violation::InvalidCloseCode { close } | Violation::CloseReasonNotUtf8 { close } => {
                    close_frame(close.clone())
                }
                Violation::CloseTooShort => Ended::CloseFrame { code: None, reason: String::new() },
                Violation::FrameTooLong { .. }
                | Violation::MessageTooLong { .. }
                | Violation::TooManyFragments { .. }
                | Violation::TooManyEmptyFragments { .. } => Ended::MessageTooLarge,
                #[cfg(feature = "deflate")]
                Violation::TooManyBlocks { .. } => Ended::MessageTooLarge,
                violation => lost(format!("the server broke the WebSocket protocol: {violation}")),
            },
            Fault::Eof => lost("the server ended the connection without a close frame".to_owned()),
            Fault::Upgrade(error) => lost(error.to_string()),
        }
    }

    /// Writes the pending pong or close frame, if the stream accepts it at once.
    fn reply(&mut self, cx: &mut Context<'_>) {
        self.reply_due = self.poll_write_out(cx).is_pending();
    }

    /// Writes and flushes all output. If a write fails, the stream records that in its meter and
    /// discards later writes.
    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WriteFailed>> {
        loop {
            while !self.write.is_empty() {
                let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.write));
                match written {
                    Ok(written) if written > 0 => {
                        self.write.advance(written);
                        self.handed += written as u64;
                    }
                    _ => return Poll::Ready(Err(WriteFailed)),
                }
            }
            self.write.clear();
            if self.write.capacity() == 0 {
                self.write.reserve(self.endpoint.queued_bytes().min(WRITE));
            }
            let probed = self.endpoint.upload().probed;
            let keys = || self.keys.next_key();
            if codecs::poll_transmit(&mut self.endpoint, &mut self.write, WRITE, keys) == 0 {
                break;
            }
            let count = self.endpoint.upload().probed;
            if count > probed {
                // The ping is in the buffer, behind everything that the stream has accepted.
                let written = self.totals.progress().written;
                self.acknowledgements.asked(count, written.max(self.flushed + self.handed));
            }
        }
        self.write = BytesMut::new();
        let flushed = ready!(Pin::new(&mut self.stream).poll_flush(cx));
        (self.flushed, self.handed) = (self.totals.progress().written, 0);
        Poll::Ready(flushed.map_err(|_| WriteFailed).and_then(|()| self.totals.state()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> Transport for Native<S> {
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Received> {
        if let Some(ended) = self.unsendable.take() {
            return Poll::Ready(Received::Ended(ended));
        }
        let mut has_read = false;
        loop {
            match codecs::poll_event(&mut self.endpoint, &mut self.read) {
                Ok(Some(event)) => return Poll::Ready(self.received(event, cx)),
                Ok(None) if has_read => return Poll::Ready(Received::Part),
                Ok(None) => {}
                Err(fault) => return Poll::Ready(Received::Ended(self.failed(&fault, cx))),
            }
            // One pong answers all pings of a read.
            if self.reply_due {
                self.reply(cx);
            }
            let Poll::Ready(read) = self.fill(cx) else {
                let part = self.totals.read_refused();
                return if part { Poll::Ready(Received::Part) } else { Poll::Pending };
            };
            let ended = match read {
                Ok(0) => match self.endpoint.handle_eof() {
                    Ok(()) => Ended::Lost { message: "the connection has ended".to_owned() },
                    Err(fault) => self.failed(&fault, cx),
                },
                Ok(_) => {
                    has_read = true;
                    continue;
                }
                Err(error) => Ended::Lost { message: error.to_string() },
            };
            return Poll::Ready(Received::Ended(ended));
        }
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WriteFailed>> {
        self.totals.state()?;
        if self.endpoint.queued_bytes() + self.write.len() < self.write_max {
            return Poll::Ready(Ok(()));
        }
        self.poll_write_out(cx)
    }

    fn space(&self) -> usize {
        self.write_max.saturating_sub(self.endpoint.queued_bytes() + self.write.len())
    }

    fn send(&mut self, frame: Frame) -> Result<(), WriteFailed> {
        match self.endpoint.send(frame) {
            Ok(()) => self.totals.state(),
            Err(SendError::NotUtf8(_)) => {
                let message = "the codec made a text frame that is not UTF-8".to_owned();
                self.unsendable = Some(Ended::Lost { message });
                Ok(())
            }
            Err(_) => Err(WriteFailed),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WriteFailed>> {
        if self.unsendable.is_some() {
            // The next read reports the end of the connection.
            cx.waker().wake_by_ref();
            return Poll::Ready(Err(WriteFailed));
        }
        let flushed = ready!(self.poll_write_out(cx));
        self.reply_due = false;
        Poll::Ready(flushed)
    }

    fn progress(&mut self) -> Progress {
        self.acknowledgements.report(self.totals.progress())
    }

    fn close(&mut self, code: u16, reason: &str) {
        // The core passes only codes that may be sent. For any other code, 1000 is sent.
        if self.endpoint.close(code, reason).is_err() {
            let _ = self.endpoint.close(1000, reason);
        }
    }
}

#[cfg(not(feature = "deflate"))]
fn endpoint(limits: &Limits, _: &Upgraded) -> Endpoint {
    Endpoint::client(limits)
}

#[cfg(feature = "deflate")]
fn endpoint(limits: &Limits, upgraded: &Upgraded) -> Endpoint {
    let Some(agreed) = &upgraded.compression else { return Endpoint::client(limits) };
    let frame_bytes_max = compressed_max(limits.frame_bytes_max);
    Endpoint::client(&Limits { frame_bytes_max, ..*limits }).compressed(agreed)
}

fn close_frame(close: Close) -> Ended {
    Ended::CloseFrame { code: close.code, reason: close.reason }
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use core::task::Waker;
    use std::cell::RefMut;

    use bytes::Bytes;

    use super::*;
    use crate::transport::test_stream::{Ends, TestStream};

    /// A transport and the other end of its stream.
    struct Bench {
        native: Native<TestStream>,
        stream: TestStream,
        server: Endpoint,
        unread: BytesMut,
    }

    impl Bench {
        fn new(wrap: impl FnOnce(TestStream) -> Io<TestStream>) -> Self {
            let config = Config::new("ws://localhost/socket/websocket").expect("a valid URI");
            let config = config.buffers(64 << 10, 1_000).expect("not zero");
            let stream = TestStream::default();
            let native = Native::new(wrap(stream.clone()), &Upgraded::default(), &config);
            let server = Endpoint::server(&Limits::default());
            Self { native, stream, server, unread: BytesMut::new() }
        }

        fn ends(&self) -> RefMut<'_, Ends> {
            self.stream.ends()
        }

        fn receive(&mut self) -> Poll<Received> {
            self.native.poll_receive(&mut Context::from_waker(Waker::noop()))
        }

        fn flush(&mut self) -> Poll<Result<(), WriteFailed>> {
            self.native.poll_flush(&mut Context::from_waker(Waker::noop()))
        }

        fn is_ready(&mut self) -> bool {
            let mut cx = Context::from_waker(Waker::noop());
            self.native.poll_ready(&mut cx).is_ready()
        }

        /// The server reads everything that was written, and returns the events.
        fn serve(&mut self) -> Vec<Event> {
            let written = core::mem::take(&mut self.ends().written);
            self.unread.extend_from_slice(&written);
            let mut events = Vec::new();
            while let Some(event) = self.server.poll_event(&mut self.unread).expect("no fault") {
                events.push(event);
            }
            let mut out = BytesMut::new();
            if self.server.poll_transmit(&mut out, usize::MAX, || [0; 4]) > 0 {
                self.ends().reads.push_back(out.to_vec());
            }
            events
        }

        fn acknowledged(&mut self) -> (u64, u64) {
            let progress = self.native.progress();
            (progress.acknowledged, progress.acknowledged_next)
        }
    }

    /// The size of a fragment of 32 KiB and of a ping of the client, with their headers.
    const FRAGMENT: u64 = (32 << 10) + 8;
    const PING: u64 = 6 + 12;

    /// Four fragments with a ping after each of the first three. The server answers the latest ping.
    #[test]
    fn pong_acknowledges_bytes_of_stream() {
        let mut bench = Bench::new(Io::new);
        for message in 0..2 {
            let before = message * (3 * (FRAGMENT + PING) + 8 + 1_000);
            bench.native.send(Frame::Binary(vec![7; (96 << 10) + 1_000].into())).expect("open");
            assert!(bench.flush().is_ready());
            let acknowledged = bench.acknowledged().0;
            // The last 1,000 bytes of the first message cause no ping, so the next ping follows the first
            // fragment of the second message.
            assert_eq!(bench.acknowledged(), (acknowledged, before + FRAGMENT));
            assert!(matches!(bench.serve().last(), Some(Event::Message(_))));
            assert_eq!(bench.receive(), Poll::Ready(Received::Control));
            let all = before + 3 * FRAGMENT + 2 * PING;
            assert_eq!(bench.acknowledged(), (all, all));
        }
    }

    /// A TLS stream accepts bytes that it has not written yet, and writes more bytes than it accepts.
    #[cfg(feature = "tls")]
    #[test]
    fn bytes_held_by_tls_are_ahead_of_ping() {
        use crate::transport::streams::Meter;
        let meter = Meter::default();
        let mut bench = Bench::new(|stream| Io::above(stream, meter.clone()));
        bench.native.send(Frame::Binary(vec![7; 100].into())).expect("open");
        assert!(bench.flush().is_ready());
        let handed = bench.ends().written.len();
        assert_eq!(handed, 2 + 4 + 100);
        // The next flush notices the overhead of encryption.
        meter.wrote(handed + 29);
        assert!(bench.flush().is_ready());
        bench.ends().flush_is_pending = true;
        bench.native.send(Frame::Binary(vec![7; 40 << 10].into())).expect("open");
        assert!(bench.flush().is_pending());
        assert_eq!(bench.acknowledged(), (0, handed as u64 + 29 + FRAGMENT));
    }

    #[test]
    fn pong_is_written_once_stream_accepts_it() {
        let mut bench = Bench::new(Io::new);
        bench.ends().accepts = 0;
        bench.ends().reads.push_back(b"\x89\x02hi".to_vec());
        assert_eq!(bench.receive(), Poll::Ready(Received::Control));
        for _ in 0..2 {
            assert!(bench.receive().is_pending());
        }
        bench.ends().accepts = usize::MAX;
        assert!(bench.receive().is_pending());
        assert_eq!(bench.serve(), [Event::Pong(Bytes::from_static(b"hi"))]);
        assert!(bench.receive().is_pending());
        assert_eq!(bench.serve(), []);
    }

    #[test]
    fn read_of_part_of_message_is_part() {
        let mut bench = Bench::new(Io::new);
        for read in [&b"\x81"[..], b"\x03ab", b"c\x81\x01d"] {
            bench.ends().reads.push_back(read.to_vec());
        }
        assert_eq!(bench.receive(), Poll::Ready(Received::Part));
        assert_eq!(bench.receive(), Poll::Ready(Received::Part));
        for text in ["abc", "d"] {
            assert_eq!(bench.receive(), Poll::Ready(Received::Frame(Frame::from(text))));
        }
        assert!(bench.receive().is_pending());
    }

    #[test]
    fn close_frame_is_answered() {
        let mut bench = Bench::new(Io::new);
        bench.ends().reads.push_back(b"\x88\x02\x03\xf4".to_vec());
        let ended = Ended::CloseFrame { code: Some(1012), reason: String::new() };
        assert_eq!(bench.receive(), Poll::Ready(Received::Ended(ended)));
        let close = Close { code: Some(1012), reason: String::new() };
        assert_eq!(bench.serve(), [Event::Close(close)]);
    }

    #[test]
    fn violation_is_answered() {
        let mut bench = Bench::new(Io::new);
        bench.ends().reads.push_back(b"\xc1\x00".to_vec());
        let Poll::Ready(Received::Ended(Ended::Lost { message })) = bench.receive() else {
            panic!("expected a lost connection");
        };
        assert!(message.starts_with("the server broke the WebSocket protocol"), "{message}");
        let events = bench.serve();
        assert!(matches!(&events[..], [Event::Close(close)] if close.code == Some(1002)));
    }

    #[test]
    fn write_of_zero_bytes_fails() {
        let mut bench = Bench::new(Io::new);
        bench.ends().accepts_none = true;
        bench.native.send(Frame::from("hi")).expect("open");
        assert_eq!(bench.flush(), Poll::Ready(Err(WriteFailed)));
    }

    /// Bytes in the write buffer delay further frames, although the endpoint no longer holds them.
    #[test]
    fn unwritten_bytes_delay_further_frames() {
        let mut bench = Bench::new(Io::new);
        assert!(bench.is_ready());
        bench.ends().accepts = 10;
        bench.native.send(Frame::Binary(vec![7; 2_000].into())).expect("open");
        assert!(bench.flush().is_pending());
        assert!(!bench.is_ready());
        bench.ends().accepts = usize::MAX;
        assert!(bench.is_ready());
        assert!(bench.flush().is_ready());
        assert_eq!(bench.serve().len(), 1);
    }

    #[test]
    fn text_that_is_not_utf8_ends_connection() {
        let mut bench = Bench::new(Io::new);
        bench.native.send(Frame::Text(Bytes::from_static(b"\xff"))).expect("reported by the read");
        assert_eq!(bench.flush(), Poll::Ready(Err(WriteFailed)));
        assert!(matches!(bench.receive(), Poll::Ready(Received::Ended(Ended::Lost { .. }))));
        assert_eq!(bench.serve(), []);
    }

    #[test]
    fn unsendable_close_code_becomes_1000() {
        for (code, sent) in [(1001, 1001), (1005, 1000)] {
            let mut bench = Bench::new(Io::new);
            bench.native.close(code, "bye");
            assert!(bench.flush().is_ready());
            let close = Close { code: Some(sent), reason: "bye".to_owned() };
            assert_eq!(bench.serve(), [Event::Close(close)]);
        }
    }

    #[test]
    fn idle_transport_has_no_buffers() {
        let mut bench = Bench::new(Io::new);
        bench.native.send(Frame::Binary(vec![7; 100 << 10].into())).expect("open");
        assert!(bench.flush().is_ready());
        let mut flood = Vec::new();
        for _ in 0..1_000 {
            flood.extend_from_slice(b"\x82\x64");
            flood.extend_from_slice(&[7; 100]);
        }
        bench.ends().reads.push_back(flood);
        while bench.receive().is_ready() {}
        assert_eq!((bench.native.read.capacity(), bench.native.write.capacity()), (0, 0));
    }

    /// Reads grow while they fill their buffers, to the configured size.
    #[test]
    fn reads_grow_during_a_flood() {
        let mut bench = Bench::new(Io::new);
        bench.ends().reads.push_back(b"\x82\x00".repeat(50_000));
        let mut frames = 0;
        while bench.receive().is_ready() {
            frames += 1;
        }
        assert!(frames >= 50_000);
        let asked = core::mem::take(&mut bench.ends().asked);
        assert_eq!(asked[0], SMALL);
        assert!(asked.iter().max() >= Some(&(64 << 10)), "{asked:?}");
        assert!(asked.len() <= 8, "{asked:?}");
    }

    /// A long frame is read in few reads, and its buffer grows with what has arrived.
    #[test]
    fn long_frame_is_read_in_portions() {
        let mut bench = Bench::new(Io::new);
        let mut frame = b"\x82\x7f\x00\x00\x00\x00\x00\x10\x00\x00".to_vec();
        frame.resize(frame.len() + (1 << 20), 7);
        bench.ends().reads.push_back(frame);
        let received = loop {
            match bench.receive() {
                Poll::Ready(Received::Part) => {}
                other => break other,
            }
        };
        let Poll::Ready(Received::Frame(frame)) = received else { panic!("{received:?}") };
        assert_eq!(frame.len(), 1 << 20);
        let asked = core::mem::take(&mut bench.ends().asked);
        assert_eq!(asked[0], SMALL);
        assert!(asked[1] <= PORTION + SMALL, "{asked:?}");
        assert!(asked.len() <= 10, "{asked:?}");
    }

    /// The rest of a long frame arrives slowly: after a read that did not fill its buffer, only a
    /// portion of the rest is cleared for the next read, also if no byte arrives.
    #[test]
    fn slow_long_frame_clears_portions() {
        let mut bench = Bench::new(Io::new);
        let mut part = b"\x82\x7f\x00\x00\x00\x00\x00\x80\x00\x00".to_vec();
        part.resize(part.len() + (4 << 20), 7);
        bench.ends().reads.push_back(part);
        while !bench.ends().reads.is_empty() {
            assert_eq!(bench.receive(), Poll::Ready(Received::Part));
        }
        bench.ends().asked.clear();
        for _ in 0..100 {
            bench.ends().reads.push_back(vec![7]);
            assert_eq!(bench.receive(), Poll::Ready(Received::Part));
        }
        for _ in 0..100 {
            assert!(bench.receive().is_pending());
        }
        let asked = core::mem::take(&mut bench.ends().asked);
        let max = asked[1..].iter().max();
        assert!(asked.len() == 200 && max <= Some(&(PORTION + SMALL)), "{max:?}");
    }

    /// A read from a TLS stream returns at most 16 KiB.
    #[test]
    fn long_frame_in_records_clears_little() {
        const LENGTH: usize = 8 << 20;
        let mut bench = Bench::new(Io::new);
        let mut frame = b"\x82\x7f\x00\x00\x00\x00\x00\x80\x00\x00".to_vec();
        frame.resize(frame.len() + LENGTH, 7);
        let records = frame.chunks(16 << 10).map(<[u8]>::to_vec);
        bench.ends().reads.extend(records);
        let received = loop {
            match bench.receive() {
                Poll::Ready(Received::Part) => {}
                other => break other,
            }
        };
        let Poll::Ready(Received::Frame(frame)) = received else { panic!("{received:?}") };
        assert_eq!(frame.len(), LENGTH);
        let cleared: usize = bench.ends().asked.iter().sum();
        assert!(cleared <= 5 * LENGTH, "{cleared}");
    }
}
