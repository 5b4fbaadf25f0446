//! An open WebSocket over tungstenite, for any runtime's wrapper of it.
//!
//! ```text
//!          send, close                          poll_receive
//!               │                                    ▲
//!        ┌──────▼───────── tungstenite ──────────────┴──────┐
//!        │  masks, frames                                   │
//!        └──────┬───────────────────────────────────▲───────┘
//!               │        ┌──────── Io ─────────┐    │
//!               └───────▶│ a failed write only │────┘
//!                        │ stops the writing   │
//!                        └──── TCP or TLS ─────┘
//! ```
//!
//! How a connection ended is determined by reading. When Phoenix stops, it sends a close frame and
//! then resets the connection (`wire/close_graceful_shutdown`), so a write can fail before the close
//! frame was read. Therefore [`Io`](super::Io) discards further writes after a failed one, and reading
//! continues to the end of the stream. On a broken connection that end comes at once. `Io` records the
//! failure in [`Meter`], where it also counts the transferred bytes.
//!
//! [`incoming`](super::incoming) hides pings and the close frame from tungstenite, and limits each call of
//! tungstenite to one read.

use core::fmt;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::sync::Arc;

use bytes::Bytes;
use futures_core::Stream;
use futures_sink::Sink;
use tungstenite::error::{CapacityError, ProtocolError};
use tungstenite::protocol::WebSocketConfig;
use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tungstenite::protocol::frame::{CloseFrame, Frame as RawFrame};
use tungstenite::{Error, Message, Utf8Bytes};

use super::incoming::Reads;
use super::{Socket, Wrap};
use crate::client::{Received, Transport, WriteFailed};
use crate::config::Config;
use crate::event::input::{Ended, Progress};
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::websocket::control_watch::SentClose;
use crate::wire::Frame;

/// An open WebSocket, the same type on every runtime.
pub struct WebSocket(Box<dyn Transport + Send>);

impl WebSocket {
    /// Wraps the WebSocket of one runtime.
    #[doc(hidden)]
    pub fn new<N>(socket: Socket<N>) -> Self
    where
        N: Wrap,
        N::Stream: Send,
        N::Socket: Send,
    {
        match socket {
            Socket::Tungstenite(socket) => Self(socket),
            #[cfg(feature = "websocket")]
            Socket::Native(socket) => Self(socket),
        }
    }
}

impl fmt::Debug for WebSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocket").finish_non_exhaustive()
    }
}

impl Transport for WebSocket {
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Received> {
        self.0.poll_receive(cx)
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WriteFailed>> {
        self.0.poll_ready(cx)
    }

    fn space(&self) -> usize {
        self.0.space()
    }

    fn send(&mut self, frame: Frame) -> Result<(), WriteFailed> {
        self.0.send(frame)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WriteFailed>> {
        self.0.poll_flush(cx)
    }

    fn progress(&mut self) -> Progress {
        self.0.progress()
    }

    fn close(&mut self, code: u16, reason: &str) {
        self.0.close(code, reason);
    }
}

/// The byte counts of a stream and whether a write has failed, shared by the stream and the
/// WebSocket on it. With TLS, the stream under TLS counts the bytes.
#[derive(Clone, Debug, Default)]
pub struct Meter(Arc<Counts>);

/// The state of a [`Meter`]. The totals of bytes wrap around at `usize::MAX`, because not every target has
/// 64-bit atomics.
#[derive(Debug, Default)]
struct Counts {
    failed: AtomicBool,
    read: AtomicUsize,
    written: AtomicUsize,
    /// One more than the number of reads that the stream under TLS may still make in the present poll of
    /// the handshake, or in the present read above TLS. Zero means that there is no limit.
    reads_left: AtomicUsize,
    /// Whether a read was refused since the limit was last reset.
    read_refused: AtomicBool,
}

/// The maximum number of reads under TLS in one poll of the handshake, and in one read above TLS. A
/// record of 16 KiB usually takes fewer.
const TLS_READS_MAX: usize = 16;

impl Meter {
    /// Records a failed write: the stream discards further writes.
    pub(super) fn fail(&self) {
        self.0.failed.store(true, Ordering::Relaxed);
    }

    /// Whether a write has failed.
    pub(super) fn failed(&self) -> bool {
        self.0.failed.load(Ordering::Relaxed)
    }

    /// Counts bytes that were read.
    #[inline]
    pub(super) fn read(&self, bytes: usize) {
        self.0.read.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts bytes that were written.
    #[inline]
    pub(super) fn wrote(&self, bytes: usize) {
        self.0.written.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Resets the limit of reads under TLS, before a poll of the TLS handshake or a read above TLS.
    #[inline]
    pub(super) fn allow_tls_reads(&self) {
        self.0.reads_left.store(1 + TLS_READS_MAX, Ordering::Relaxed);
        self.0.read_refused.store(false, Ordering::Relaxed);
    }

    /// Takes one read from the limit under TLS. Returns false if none is left, so that the read is refused.
    #[inline]
    pub(super) fn take_tls_read(&self) -> bool {
        let left = self.0.reads_left.load(Ordering::Relaxed);
        if left > 1 {
            self.0.reads_left.store(left - 1, Ordering::Relaxed);
        }
        if left == 1 {
            self.0.read_refused.store(true, Ordering::Relaxed);
        }
        left != 1
    }

    /// How many bytes were read. The counter wraps around.
    #[cfg(feature = "testing")]
    pub(crate) fn bytes_read(&self) -> usize {
        self.0.read.load(Ordering::Relaxed)
    }

    fn state(&self) -> Result<(), WriteFailed> {
        if self.failed() { Err(WriteFailed) } else { Ok(()) }
    }

    fn counts(&self) -> (usize, usize) {
        (self.0.read.load(Ordering::Relaxed), self.0.written.load(Ordering::Relaxed))
    }
}

/// The totals of a meter since the connection was opened, without the bytes of the handshakes.
#[derive(Debug)]
pub(super) struct Totals {
    meter: Meter,
    /// The counts of the meter at the last call of `progress`.
    seen: (usize, usize),
    moved: Progress,
}

impl Totals {
    /// Starts to count at zero now.
    pub(super) fn new(meter: Meter) -> Self {
        Self { seen: meter.counts(), meter, moved: Progress::default() }
    }

    /// An error if a write has failed.
    pub(super) fn state(&self) -> Result<(), WriteFailed> {
        self.meter.state()
    }

    /// Whether the limit of reads under TLS stopped the last read above TLS. The stream may have more to
    /// read.
    pub(super) fn read_refused(&self) -> bool {
        self.meter.0.read_refused.load(Ordering::Relaxed)
    }

    pub(super) fn progress(&mut self) -> Progress {
        let (read, written) = self.meter.counts();
        self.moved.read += read.wrapping_sub(self.seen.0) as u64;
        self.moved.written += written.wrapping_sub(self.seen.1) as u64;
        self.seen = (read, written);
        self.moved
    }
}

/// An open WebSocket over a runtime's wrapper of tungstenite.
pub struct Tungstenite<S> {
    socket: S,
    totals: Totals,
    reads: Reads,
    /// Whether a pong is in the write buffer. Until it is written, no second pong is queued.
    pong_waits: bool,
    /// The size of the write buffer.
    write_buffer: usize,
    /// The bytes of the frames that were sent since the last complete flush. The write buffer holds at most
    /// these frames.
    unflushed: usize,
}

impl<S> fmt::Debug for Tungstenite<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tungstenite").finish_non_exhaustive()
    }
}

impl<S> Tungstenite<S> {
    /// Wraps tungstenite's socket; `meter` and `reads` are shared with the stream under it.
    pub(super) fn new(socket: S, meter: Meter, reads: Reads, write_buffer: usize) -> Self {
        let totals = Totals::new(meter);
        Self { socket, totals, reads, pong_waits: false, write_buffer, unflushed: 0 }
    }
}

impl<S> Tungstenite<S>
where
    S: Sink<Message, Error = Error> + Unpin,
{
    /// Queues a close frame, and writes it if the stream takes it at once.
    fn start_close(&mut self, code: CloseCode, reason: &str) {
        let frame = CloseFrame { code, reason: within_control_frame(reason).into() };
        self.send_close(Some(frame));
    }

    fn send_close(&mut self, frame: Option<CloseFrame>) {
        // Fails if a close frame was sent before, or if the connection is lost.
        let _ = Pin::new(&mut self.socket).start_send(Message::Close(frame));
    }

    /// Queues a pong for the latest ping, if it has not been answered, and writes as much as the
    /// stream takes at once. Another ping may have arrived while the pong waited, so this repeats until
    /// none is left or the stream takes no more.
    fn answer_ping(&mut self, cx: &mut Context<'_>) {
        loop {
            if !self.pong_waits {
                let Some(payload) = self.reads.take_ping() else { return };
                // Fails if a close frame was sent before, or if the connection is lost.
                let sent = Pin::new(&mut self.socket).start_send(Message::Pong(payload));
                self.pong_waits = sent.is_ok();
            }
            if self.pong_waits && Pin::new(&mut self.socket).poll_flush(cx).is_pending() {
                return;
            }
            self.pong_waits = false;
        }
    }

    /// Ends the connection, with a close frame if the server sent one or is at fault.
    fn ended(&mut self, error: Error) -> Ended {
        if let Error::Protocol(ProtocolError::FragmentedControlFrame) = error {
            if let Some(close) = self.reads.sent_close() {
                return self.answer_close(close);
            }
        }
        self.fault(error)
    }

    /// Answers the server's close frame, even if it is invalid, and reports it as it was sent.
    fn answer_close(&mut self, close: SentClose) -> Ended {
        let SentClose { code, reason, reply } = close;
        self.send_close(reply.map(|code| CloseFrame { code, reason: Utf8Bytes::default() }));
        Ended::CloseFrame { code, reason }
    }

    fn fault(&mut self, error: Error) -> Ended {
        let lost = |message: String| Ended::Lost { message };
        match error {
            Error::Capacity(CapacityError::MessageTooLong { .. }) => {
                self.start_close(CloseCode::Size, "");
                Ended::MessageTooLarge
            }
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
                lost("the server ended the connection without a close frame".to_owned())
            }
            Error::Protocol(error) => {
                self.start_close(CloseCode::Protocol, "");
                lost(format!("the server broke the WebSocket protocol: {error}"))
            }
            Error::Utf8(_) => {
                self.start_close(CloseCode::Invalid, "");
                lost("the server sent a text frame that is not UTF-8".to_owned())
            }
            Error::Io(error) => lost(error.to_string()),
            error => lost(error.to_string()),
        }
    }
}

impl<S> Transport for Tungstenite<S>
where
    S: Stream<Item = Result<Message, Error>> + Sink<Message, Error = Error> + Unpin + 'static,
{
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Received> {
        self.reads.allow();
        let message = match Pin::new(&mut self.socket).poll_next(cx) {
            Poll::Ready(Some(Ok(message))) => message,
            Poll::Ready(Some(Err(error))) => {
                return Poll::Ready(Received::Ended(self.ended(error)));
            }
            Poll::Ready(None) => {
                let message = "the connection has ended".to_owned();
                return Poll::Ready(Received::Ended(Ended::Lost { message }));
            }
            Poll::Pending => {
                self.answer_ping(cx);
                // After a refused read the stream may have more, and no waker is registered with it.
                let part = self.reads.refused() || self.totals.read_refused();
                return if part { Poll::Ready(Received::Part) } else { Poll::Pending };
            }
        };
        Poll::Ready(match message {
            Message::Text(text) => Received::Frame(Frame::Text(without_spare(text.into()))),
            Message::Binary(bytes) => Received::Frame(Frame::Binary(without_spare(bytes))),
            Message::Close(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {
                self.answer_ping(cx);
                Received::Control
            }
        })
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WriteFailed>> {
        let ready = ready!(Pin::new(&mut self.socket).poll_ready(cx));
        Poll::Ready(ready.map_err(|_| WriteFailed).and_then(|()| self.totals.state()))
    }

    /// The free space in the write buffer. Frames that fit into it cause no write.
    fn space(&self) -> usize {
        self.write_buffer.saturating_sub(self.unflushed)
    }

    fn send(&mut self, frame: Frame) -> Result<(), WriteFailed> {
        self.unflushed = self.unflushed.saturating_add(frame.len() + HEADER_MAX);
        // The frame is sent raw, because tungstenite would validate the UTF-8 of a text message again.
        let (bytes, kind) = match frame {
            Frame::Text(bytes) => (bytes, Data::Text),
            Frame::Binary(bytes) => (bytes, Data::Binary),
        };
        let message = Message::Frame(RawFrame::message(bytes, OpCode::Data(kind), true));
        Pin::new(&mut self.socket).start_send(message).map_err(|_| WriteFailed)?;
        self.totals.state()
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WriteFailed>> {
        let flushed = ready!(Pin::new(&mut self.socket).poll_flush(cx));
        self.pong_waits = false;
        self.unflushed = 0;
        self.answer_ping(cx);
        Poll::Ready(flushed.map_err(|_| WriteFailed).and_then(|()| self.totals.state()))
    }

    fn progress(&mut self) -> Progress {
        self.totals.progress()
    }

    fn close(&mut self, code: u16, reason: &str) {
        self.start_close(code.into(), reason);
    }
}

/// Frees the spare capacity of a large message that came in fragments. tungstenite collects
/// fragments in a vector that grows by doubling. A message of one frame is a slice of the read
/// buffer that tungstenite still uses, so it is returned unchanged.
#[inline]
fn without_spare(bytes: Bytes) -> Bytes {
    /// Below this length the saving is not worth the check.
    const LARGE: usize = 64 << 10;
    if bytes.len() < LARGE { bytes } else { shrunk(bytes) }
}

#[cold]
fn shrunk(bytes: Bytes) -> Bytes {
    match bytes.try_into_mut() {
        Ok(own) => {
            let mut own = Vec::from(own);
            own.shrink_to_fit();
            Bytes::from(own)
        }
        Err(shared) => shared,
    }
}

/// The longest header of a frame.
const HEADER_MAX: usize = 14;

/// The capacity for a pong and a close frame in the write buffer, in addition to the frames.
const CONTROL: usize = 4_096;

/// The limits and the buffer sizes of tungstenite.
pub(super) fn socket_config(config: &Config) -> WebSocketConfig {
    let write_buffer = config.write_buffer_bytes;
    // No frame is accepted while a write is blocked, so the buffer holds at most its size, one more frame,
    // a pong and a close frame. The limit is not reached.
    let write_max = write_buffer.saturating_add(config.max_push_bytes).saturating_add(CONTROL);
    WebSocketConfig::default()
        .read_buffer_size(config.read_buffer_bytes.get())
        .write_buffer_size(write_buffer.min(write_max - 1))
        .max_write_buffer_size(write_max)
        .max_message_size(Some(config.max_message_bytes))
        .max_frame_size(Some(config.max_message_bytes))
}

/// Cuts a close reason to fit a control frame: 125 bytes less the code (RFC 6455 section 5.5).
fn within_control_frame(reason: &str) -> &str {
    let mut end = reason.len().min(123);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    &reason[..end]
}

#[cfg(test)]
mod tests {
    use core::task::Waker;
    use std::cell::{Cell, RefCell};
    use std::io::{self, Read, Write};
    use std::rc::Rc;

    use proptest::prelude::*;
    use tungstenite::WebSocket;
    use tungstenite::protocol::Role;

    use super::*;
    use crate::wire::weight::ReadBuffer;

    /// A stream that returns a server's bytes in reads of given sizes and discards writes.
    struct Script {
        bytes: Vec<u8>,
        at: usize,
        reads: Vec<usize>,
        turn: usize,
    }

    impl Read for Script {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let left = &self.bytes[self.at..];
            if left.is_empty() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let most = self.reads[self.turn % self.reads.len()];
            let count = left.len().min(buffer.len()).min(most);
            buffer[..count].copy_from_slice(&left[..count]);
            (self.at, self.turn) = (self.at + count, self.turn + 1);
            Ok(count)
        }
    }

    impl Write for Script {
        fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
            Ok(buffer.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A binary message in `count` fragments.
    fn frames(len: usize, count: usize) -> Vec<u8> {
        let parts: Vec<usize> =
            (0..count).map(|n| (len * (n + 1) / count) - len * n / count).collect();
        fragments(&parts)
    }

    /// A binary message in fragments of these lengths.
    fn fragments(parts: &[usize]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (n, part) in parts.iter().enumerate() {
            let end = if n + 1 == parts.len() { 0x80 } else { 0 };
            bytes.extend([end | if n == 0 { 2 } else { 0 }, 127]);
            bytes.extend((*part as u64).to_be_bytes());
            bytes.resize(bytes.len() + part, 7);
        }
        bytes
    }

    const READ_BUFFER: usize = 4 << 10;

    fn length() -> impl Strategy<Value = usize> {
        prop_oneof![
            4 => 0_usize..100,
            2 => 100_usize..2 * READ_BUFFER,
            1 => 2 * READ_BUFFER..20 * READ_BUFFER,
        ]
    }

    proptest! {
        /// A kept message keeps little more than the estimate alive, whatever the sizes of the messages,
        /// fragments and reads around it.
        #[test]
        fn kept_message_memory_within_estimate(
            messages in proptest::collection::vec((length(), prop_oneof![6 => Just(1_usize), 1 => 2_usize..9]), 1..40),
            reads in proptest::collection::vec(prop_oneof![1_usize..200, Just(usize::MAX)], 1..4),
            kept in any::<prop::sample::Index>(),
        ) {
            let kept = kept.index(messages.len());
            let bytes = messages.iter().flat_map(|(len, fragments)| frames(*len, *fragments)).collect();
            let stream = Script { bytes, at: 0, reads, turn: 0 };
            let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER);
            let mut buffer = ReadBuffer::new(READ_BUFFER);
            let (mut held, mut estimate) = (None, 0);
            let info = allocation_counter::measure(|| {
                let mut socket = WebSocket::from_raw_socket(stream, Role::Client, Some(config));
                for number in 0..messages.len() {
                    let message = socket.read().expect("a message");
                    buffer.received(message.len());
                    if number == kept {
                        (held, estimate) = (Some(message), buffer.kept());
                    }
                }
                allocation_counter::opt_out(|| drop(core::mem::take(&mut socket.get_mut().bytes)));
            });
            drop(held);
            let alive = u64::try_from(info.bytes_current).unwrap_or_default();
            prop_assert!(alive as usize <= estimate + estimate / 4 + 256, "{alive} of {estimate}");
        }
    }

    /// The memory that a message keeps alive, and its peak, as multiples of its length.
    fn costs(len: usize, parts: &[usize]) -> (f64, f64) {
        let bytes = fragments(parts);
        let stream = Script { bytes, at: 0, reads: vec![usize::MAX], turn: 0 };
        let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER);
        let mut held = None;
        let info = allocation_counter::measure(|| {
            let mut socket = WebSocket::from_raw_socket(stream, Role::Client, Some(config));
            let Ok(Message::Binary(bytes)) = socket.read() else { panic!("a message") };
            held = Some(without_spare(bytes));
            allocation_counter::opt_out(|| drop(core::mem::take(&mut socket.get_mut().bytes)));
        });
        drop(held);
        (info.bytes_current as f64 / len as f64, info.bytes_max as f64 / len as f64)
    }

    /// Two fragments are the worst case: the vector holds the first and doubles for the second.
    #[test]
    fn fragmented_message_has_no_spare_capacity() {
        const LEN: usize = 4 << 20;
        for parts in [&[LEN][..], &[LEN - 1, 1], &[1, LEN - 1], &[LEN / 2 + 1, LEN / 2 - 1]] {
            let (kept, most) = costs(LEN, parts);
            assert!(kept < 1.01, "{parts:?}: {kept:.2} times its length is kept");
            // The peak includes the read buffer and both copies of the vector, which moves when it
            // is doubled.
            assert!(most < 4.01, "{parts:?}: the peak is {most:.2} times its length");
        }
    }

    /// A socket that receives nothing and, while it is blocked, flushes nothing.
    #[derive(Clone, Default)]
    struct Blockable {
        is_blocked: Rc<Cell<bool>>,
        pongs: Rc<RefCell<Vec<Bytes>>>,
    }

    impl Stream for Blockable {
        type Item = Result<Message, Error>;

        fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
            Poll::Pending
        }
    }

    impl Sink<Message> for Blockable {
        type Error = Error;

        fn poll_ready(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
            Poll::Ready(Ok(()))
        }

        fn start_send(self: Pin<&mut Self>, message: Message) -> Result<(), Error> {
            self.pongs.borrow_mut().push(message.into_data());
            Ok(())
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
            if self.is_blocked.get() { Poll::Pending } else { Poll::Ready(Ok(())) }
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
            Poll::Ready(Ok(()))
        }
    }

    /// A second ping arrives while the pong to the first waits for a blocked write. Whichever call
    /// completes the write also answers the second ping, because no other wake-up may follow.
    #[test]
    fn ping_during_blocked_pong_is_answered() {
        let flushes: [fn(&mut Tungstenite<Blockable>, &mut Context<'_>); 2] = [
            |transport, cx| assert!(transport.poll_receive(cx).is_pending()),
            |transport, cx| assert!(transport.poll_flush(cx).is_ready()),
        ];
        for flush in flushes {
            let (socket, reads) = (Blockable::default(), Reads::default());
            let mut transport =
                Tungstenite::new(socket.clone(), Meter::default(), reads.clone(), 1_024);
            let cx = &mut Context::from_waker(Waker::noop());
            socket.is_blocked.set(true);
            for mut ping in [*b"\x89\x01a", *b"\x89\x01b", *b"\x89\x01c"] {
                reads.took(&mut ping);
                assert!(transport.poll_receive(cx).is_pending());
            }
            assert_eq!(*socket.pongs.borrow(), ["a"]);
            socket.is_blocked.set(false);
            flush(&mut transport, cx);
            assert_eq!(*socket.pongs.borrow(), ["a", "c"]);
        }
    }

    #[test]
    fn close_reason_cut_between_characters() {
        let reason = "ä".repeat(100);
        assert_eq!(within_control_frame(&reason).len(), 122);
        assert_eq!(within_control_frame("bye"), "bye");
    }
}
