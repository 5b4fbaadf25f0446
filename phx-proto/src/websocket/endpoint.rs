//! A WebSocket endpoint: the receiving half, the sending half and the closing handshake of one
//! connection, from the upgrade to the end of the stream.
//!
//! ```text
//!                  101 Switching Protocols            both close frames, a violation,
//!   Upgrading ──────────────────────────────▶ Open ──── or the end of the stream ────▶ closed
//!      │ anything else                                                                    ▲
//!      └──────────────────────────────────────────────────────────────────────────────────┘
//!
//!   Ping received ──▶ pong       Close received ──▶ answer       violation ──▶ close code
//! ```

use core::fmt;

use bytes::{Bytes, BytesMut};

use super::close::{Close, Handshake, UnsendableCode};
use super::deflate::Scratch;
#[cfg(feature = "deflate")]
use super::deflate::{Compressor, Decompressor};
use super::receive::{Received, Receiver};
use super::send::{PingRefused, SendError, Sender, Upload};
use super::upgrade::{Upgrade, UpgradeStep, Upgraded};
use super::violation::Fault;
#[cfg(feature = "deflate")]
use crate::config::Compression;
use crate::wire::Frame;

/// The limits of an endpoint for received messages and for queued ones.
///
/// If a received message exceeds a limit, the endpoint fails the connection with 1009
/// ([`Violation::close_code`](super::Violation::close_code)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The maximum number of bytes in a received message, over all its fragments. The buffer for
    /// fragments grows by doubling, so for a while it may hold twice as many.
    pub message_bytes_max: usize,
    /// The maximum number of bytes in the payload of a received data frame. The caller's buffer
    /// must be able to hold that many.
    pub frame_bytes_max: usize,
    /// The maximum number of fragments of a received message.
    pub fragments_max: u32,
    /// The maximum number of empty fragments of a received message. They cost time, and no limit in
    /// bytes applies to them.
    pub empty_fragments_max: u32,
    /// The capacity of the outbox: while it holds this many bytes or more, [`Endpoint::send`] fails
    /// with [`SendError::Full`]. Each message counts 64 bytes in addition to its length. The
    /// message that reaches the limit may exceed it.
    pub outbox_bytes_max: usize,
    /// The maximum number of payload bytes in a sent data frame. Longer messages are cut into
    /// fragments. After this many bytes of messages, a ping goes before the next data frame; see
    /// [`Event::Acknowledged`]. Zero counts as one.
    pub fragment_bytes: usize,
}

impl Default for Limits {
    /// 64 MiB for a message or a frame; 131,072 fragments, of which 1,024 may be empty; an outbox
    /// of 1 MiB; fragments of 32 KiB.
    fn default() -> Self {
        Self {
            message_bytes_max: 64 << 20,
            frame_bytes_max: 64 << 20,
            fragments_max: 131_072,
            empty_fragments_max: 1_024,
            outbox_bytes_max: 1 << 20,
            fragment_bytes: 32 << 10,
        }
    }
}

/// A received event. `Debug` prints lengths in place of contents.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The stream was upgraded: messages can be sent and received. [`Upgraded::leftover`] is empty;
    /// bytes that followed the server's response stay in the caller's buffer.
    Opened(Box<Upgraded>),
    /// A complete message. A text message is valid UTF-8.
    Message(Frame),
    /// A ping. The latest one is answered by the next [`Endpoint::poll_transmit`].
    Ping(Bytes),
    /// A pong that acknowledges no further bytes of an upload; see
    /// [`Acknowledged`](Self::Acknowledged).
    Pong(Bytes),
    /// A pong that acknowledges an upload, with the number of message bytes that the peer has read
    /// since the connection was opened ([`Upload::acknowledged`]).
    Acknowledged(u64),
    /// The peer's close frame. No event follows it. Unless the endpoint has already sent a close
    /// frame, the next frame that [`Endpoint::poll_transmit`] appends is the reply.
    Close(Close),
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opened(upgraded) => f.debug_tuple("Opened").field(upgraded).finish(),
            Self::Message(frame) => frame.fmt(f),
            Self::Ping(payload) => write!(f, "Ping({} bytes)", payload.len()),
            Self::Pong(payload) => write!(f, "Pong({} bytes)", payload.len()),
            Self::Acknowledged(bytes) => write!(f, "Acknowledged({bytes})"),
            Self::Close(close) => close.fmt(f),
        }
    }
}

/// The state of a connection (RFC 6455 sections 4.1, 7.1.3 and 7.1.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// The upgrade is in progress.
    Connecting,
    /// Messages are sent and received.
    Open,
    /// The closing handshake has begun, or a close frame is queued.
    Closing,
    /// Nothing more is sent or received. A client lets the server end the stream first, for a
    /// limited time (RFC 6455 section 7.1.1).
    Closed,
}

/// A WebSocket endpoint. See the [module](super).
///
/// Read from the stream into a buffer, then call [`poll_event`](Self::poll_event) until it returns
/// `None`. After that, and after every command, call [`poll_transmit`](Self::poll_transmit) and
/// write its output. At the end of the stream, call [`handle_eof`](Self::handle_eof).
///
/// ```
/// use bytes::BytesMut;
/// use phx_proto::Frame;
/// use phx_proto::upgrade::{Upgrade, UpgradeRequest};
/// use phx_proto::websocket::{Endpoint, Event, Limits, MaskKeys};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // In a program, both come from the operating system's entropy.
/// let mut keys = MaskKeys::new(|block| block.fill(7));
/// let key = *b"the sample nonce";
///
/// let request = UpgradeRequest {
///     host: "localhost:4000",
///     target: "/socket/websocket?vsn=2.0.0",
///     headers: &[],
///     subprotocols: &[],
///     key,
/// };
/// let mut endpoint = Endpoint::connecting(Upgrade::new(&request)?, &Limits::default());
/// let (mut read, mut write) = (BytesMut::new(), BytesMut::new());
/// endpoint.poll_transmit(&mut write, 16_384, || keys.next_key());
/// assert!(write.starts_with(b"GET /socket/websocket?vsn=2.0.0 HTTP/1.1\r\n"));
/// write.clear(); // A program writes it to the stream.
///
/// // One read returns the response and the first frame.
/// read.extend_from_slice(
///     b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
///       Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n\x81\x05hello",
/// );
/// assert!(matches!(endpoint.poll_event(&mut read)?, Some(Event::Opened(_))));
/// assert_eq!(endpoint.poll_event(&mut read)?, Some(Event::Message(Frame::from("hello"))));
/// assert_eq!(endpoint.poll_event(&mut read)?, None);
///
/// endpoint.send(Frame::from("bye"))?;
/// endpoint.close(1000, "")?;
/// endpoint.poll_transmit(&mut write, 16_384, || keys.next_key());
/// assert_eq!(write.len(), (2 + 4 + 3) + (2 + 4 + 2));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Endpoint {
    phase: Phase,
    receiver: Receiver,
    sender: Sender,
    close: Handshake,
}

#[derive(Clone, Debug)]
enum Phase {
    Upgrading(Box<Upgrade>),
    Open,
}

impl Endpoint {
    /// A client whose stream is not upgraded yet.
    #[must_use]
    pub fn connecting(upgrade: Upgrade, limits: &Limits) -> Self {
        Self { phase: Phase::Upgrading(Box::new(upgrade)), ..Self::client(limits) }
    }

    /// A client on an upgraded stream.
    #[must_use]
    pub fn client(limits: &Limits) -> Self {
        Self::open(true, limits)
    }

    /// A server on an upgraded stream, for tests. A server does not mask, so
    /// [`poll_transmit`](Self::poll_transmit) does not call its closure.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn server(limits: &Limits) -> Self {
        Self::open(false, limits)
    }

    /// Sets the compression that was agreed in the upgrade of the stream. An endpoint that was created
    /// with [`connecting`](Self::connecting) does this itself.
    ///
    /// ```
    /// use bytes::BytesMut;
    /// use phx_proto::Frame;
    /// use phx_proto::config::Compression;
    /// use phx_proto::websocket::{Endpoint, Limits, MaskKeys, Scratch};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let agreed = Compression::balanced(); // See `Upgraded::compression`.
    /// let mut endpoint = Endpoint::client(&Limits::default()).compressed(&agreed);
    ///
    /// let mut keys = MaskKeys::new(|block| block.fill(7));
    /// let (mut write, mut scratch) = (BytesMut::new(), Scratch::new());
    /// endpoint.send(Frame::from("the same words, ".repeat(8)))?;
    /// endpoint.poll_transmit_with(&mut write, 16_384, || keys.next_key(), &mut scratch);
    /// assert!(write.len() < 40, "{}", write.len());
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "deflate")]
    #[must_use]
    pub fn compressed(mut self, agreed: &Compression) -> Self {
        self.compress(agreed);
        self
    }

    #[cfg(feature = "deflate")]
    fn compress(&mut self, agreed: &Compression) {
        self.receiver.decompressor = Some(Box::new(Decompressor::new(agreed)));
        self.sender.compressor = Compressor::new(agreed, self.sender.is_client()).map(Box::new);
    }

    /// Whether compression was agreed.
    #[cfg(all(feature = "deflate", any(feature = "adapter", feature = "testing")))]
    pub(crate) const fn is_compressed(&self) -> bool {
        self.receiver.decompressor.is_some()
    }

    fn open(is_client: bool, limits: &Limits) -> Self {
        Self {
            phase: Phase::Open,
            receiver: Receiver::new(!is_client, limits),
            sender: Sender::new(is_client, limits),
            close: Handshake::default(),
        }
    }

    /// Returns the next event. Call it until `None` after every read.
    ///
    /// It removes consumed bytes from the front of `buffer`. After `None`, the rest is the
    /// beginning of a frame: leave it there, and append the bytes of the next read.
    ///
    /// # Errors
    ///
    /// [`Fault`], once. Later input is discarded, as after [`Event::Close`].
    #[inline]
    pub fn poll_event(&mut self, buffer: &mut BytesMut) -> Result<Option<Event>, Fault> {
        self.poll_event_in(buffer, None)
    }

    /// Like [`poll_event`](Self::poll_event), which allocates a codec for each compressed message, but
    /// uses the codecs of `scratch`. The results are the same.
    ///
    /// # Errors
    ///
    /// The errors of [`poll_event`](Self::poll_event).
    #[cfg(feature = "deflate")]
    #[inline]
    pub fn poll_event_with(
        &mut self,
        buffer: &mut BytesMut,
        scratch: &mut Scratch,
    ) -> Result<Option<Event>, Fault> {
        self.poll_event_in(buffer, Some(scratch))
    }

    #[inline]
    fn poll_event_in(
        &mut self,
        buffer: &mut BytesMut,
        scratch: Option<&mut Scratch>,
    ) -> Result<Option<Event>, Fault> {
        if let Phase::Upgrading(_) = self.phase {
            return self.poll_upgrade(buffer);
        }
        if let Some(frame) = self.receiver.poll_whole(buffer) {
            return Ok(Some(Event::Message(frame)));
        }
        self.poll_frames(buffer, scratch)
    }

    fn poll_frames(
        &mut self,
        buffer: &mut BytesMut,
        scratch: Option<&mut Scratch>,
    ) -> Result<Option<Event>, Fault> {
        match self.receiver.poll(buffer, scratch) {
            Ok(Some(Received::Message(frame))) => Ok(Some(Event::Message(frame))),
            Ok(None) => Ok(None),
            Ok(Some(received)) => Ok(Some(self.control(received))),
            Err(violation) => {
                self.close.fail(&violation);
                self.sender.abandon();
                Err(Fault::Violation(violation))
            }
        }
    }

    /// The number of bytes that are missing from the frame that is arriving; zero until its header
    /// is complete. `buffered` is the length of the buffer.
    ///
    /// If the buffer has capacity for them, it is not moved while they arrive. But the peer has
    /// only announced them, so reserve the capacity in steps.
    #[must_use]
    pub fn missing(&self, buffered: usize) -> usize {
        self.receiver.missing(buffered)
    }

    /// Handles the end of the stream.
    ///
    /// # Errors
    ///
    /// [`Fault::Eof`] if no close frame was received and the endpoint had not failed before,
    /// [`Fault::Upgrade`] if the server had not completed the upgrade.
    pub fn handle_eof(&mut self) -> Result<(), Fault> {
        let was_closed = self.close.was_received() || self.close.is_closed();
        let failed = self.close.is_failing();
        self.close.end();
        self.sender.abandon();
        if was_closed || failed {
            return Ok(());
        }
        match &mut self.phase {
            Phase::Upgrading(upgrade) => Err(Fault::Upgrade(Box::new(upgrade.handle_eof()))),
            Phase::Open => Err(Fault::Eof),
        }
    }

    /// Queues a message. One that is longer than [`Limits::fragment_bytes`] is sent in fragments.
    ///
    /// During the upgrade, messages are queued, and transmitted after it.
    ///
    /// # Errors
    ///
    /// [`SendError`], which returns the message.
    #[inline]
    pub fn send(&mut self, frame: Frame) -> Result<(), SendError> {
        // RFC 6455 section 5.5.1: no data frames after a close frame; section 6.1: only while OPEN.
        if !self.close.is_open() {
            return Err(SendError::Closing(frame));
        }
        self.sender.push(frame)
    }

    /// Queues a message that may break the protocol: a text need not be UTF-8. It is dropped if the
    /// connection is closing.
    #[cfg(all(feature = "adapter", feature = "deflate", feature = "testing"))]
    pub(crate) fn send_unchecked(&mut self, frame: Frame) {
        if self.close.is_open() {
            self.sender.queue(frame);
        }
    }

    /// Queues a ping, which is sent before queued messages.
    ///
    /// # Errors
    ///
    /// [`PingRefused`].
    pub fn ping(&mut self, payload: Bytes) -> Result<(), PingRefused> {
        if !self.close.is_open() {
            return Err(PingRefused::Closing);
        }
        self.sender.ping(payload)
    }

    /// Starts the closing handshake: a close frame is sent after the queued messages. Later calls
    /// have no effect. The reason is cut to 123 bytes.
    ///
    /// Messages are received until the peer's close frame ([`Event::Close`]). The caller decides
    /// how long to wait for that.
    ///
    /// # Errors
    ///
    /// [`UnsendableCode`] for a code that a close frame must not have (RFC 6455 section 7.4).
    pub fn close(&mut self, code: u16, reason: &str) -> Result<(), UnsendableCode> {
        self.close.start(code, reason)
    }

    /// Appends frames to `out` until it holds at least `max` bytes or nothing is left, and returns
    /// how many bytes it has appended.
    ///
    /// Appended frames are final, and a pong or a reply to a close frame comes after them. So write
    /// the contents of `out` before the next call, and set `max` to the number of bytes that the
    /// stream accepts at once. The output may exceed `max` by one frame.
    ///
    /// `keys` returns a mask key for each frame of a client (RFC 6455 section 5.3); see
    /// [`MaskKeys`](super::MaskKeys).
    ///
    /// ```
    /// use bytes::BytesMut;
    /// use phx_proto::Frame;
    /// use phx_proto::websocket::{Endpoint, Limits, MaskKeys};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// // In a program, the keys come from the operating system's entropy.
    /// let mut keys = MaskKeys::new(|block| block.fill(7));
    /// let mut endpoint = Endpoint::client(&Limits::default());
    /// endpoint.send(Frame::from("hello"))?;
    ///
    /// let mut write = BytesMut::new();
    /// while endpoint.poll_transmit(&mut write, 16_384, || keys.next_key()) > 0 {
    ///     assert_eq!(write.len(), 2 + 4 + 5);
    ///     write.clear(); // A program writes it to the stream.
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn poll_transmit(
        &mut self,
        out: &mut BytesMut,
        max: usize,
        keys: impl FnMut() -> [u8; 4],
    ) -> usize {
        self.poll_transmit_in(out, max, keys, None)
    }

    /// Like [`poll_transmit`](Self::poll_transmit), which allocates a codec for each message that it
    /// compresses, but uses the codecs of `scratch`. The output is the same.
    #[cfg(feature = "deflate")]
    pub fn poll_transmit_with(
        &mut self,
        out: &mut BytesMut,
        max: usize,
        keys: impl FnMut() -> [u8; 4],
        scratch: &mut Scratch,
    ) -> usize {
        self.poll_transmit_in(out, max, keys, Some(scratch))
    }

    fn poll_transmit_in(
        &mut self,
        out: &mut BytesMut,
        max: usize,
        mut keys: impl FnMut() -> [u8; 4],
        mut scratch: Option<&mut Scratch>,
    ) -> usize {
        let before = out.len();
        if self.close.is_closed() {
            return 0;
        }
        if let Phase::Upgrading(upgrade) = &mut self.phase {
            // RFC 6455 section 4.1: the client sends no frame before the server's response.
            let request = upgrade.poll_write();
            let length = request.len();
            out.extend_from_slice(request);
            upgrade.handle_written(length);
            return length;
        }
        while out.len() < max
            && self.sender.transmit(out, &mut self.close, &mut keys, scratch.as_deref_mut())
        {
        }
        out.len() - before
    }

    /// The state of the connection.
    #[must_use]
    pub const fn state(&self) -> State {
        match self.phase {
            _ if self.close.is_closed() => State::Closed,
            Phase::Upgrading(_) => State::Connecting,
            Phase::Open if self.close.is_open() => State::Open,
            Phase::Open => State::Closing,
        }
    }

    /// The progress of sent messages.
    #[must_use]
    pub const fn upload(&self) -> Upload {
        self.sender.upload()
    }

    /// The number of queued messages, including a partly transmitted one. They are dropped when the
    /// peer closes the connection or violates the protocol.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.sender.queued()
    }

    /// The size of the queued messages, as [`Limits::outbox_bytes_max`] counts it.
    #[must_use]
    pub const fn queued_bytes(&self) -> usize {
        self.sender.queued_bytes()
    }

    /// The upgrade while it is in progress, for [`Upgrade::pending_refusal`].
    #[must_use]
    pub fn upgrade(&self) -> Option<&Upgrade> {
        match &self.phase {
            Phase::Upgrading(upgrade) => Some(upgrade),
            Phase::Open => None,
        }
    }

    fn poll_upgrade(&mut self, buffer: &mut BytesMut) -> Result<Option<Event>, Fault> {
        let Phase::Upgrading(upgrade) = &mut self.phase else { return Ok(None) };
        if self.close.is_closed() || buffer.is_empty() {
            buffer.clear();
            return Ok(None);
        }
        let progress = upgrade.handle_read(buffer);
        buffer.clear();
        match progress {
            Ok(UpgradeStep::More) => Ok(None),
            Ok(UpgradeStep::Done(mut upgraded)) => {
                buffer.extend_from_slice(&core::mem::take(&mut upgraded.leftover));
                self.phase = Phase::Open;
                #[cfg(feature = "deflate")]
                if let Some(agreed) = &upgraded.compression {
                    self.compress(agreed);
                }
                Ok(Some(Event::Opened(Box::new(upgraded))))
            }
            Err(error) => {
                self.close.end();
                self.sender.abandon();
                Err(Fault::Upgrade(Box::new(error)))
            }
        }
    }

    fn control(&mut self, received: Received) -> Event {
        match received {
            Received::Message(frame) => Event::Message(frame),
            Received::Ping(payload) => {
                self.sender.answer(payload.clone());
                Event::Ping(payload)
            }
            Received::Pong(payload) => {
                self.sender.acknowledge(&payload).map_or(Event::Pong(payload), Event::Acknowledged)
            }
            Received::Close(close) => {
                self.close.receive(&close);
                self.sender.abandon();
                Event::Close(close)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The endpoint of an idle connection has no buffers, so its memory is the size of the struct. That
    /// includes two pointers to the histories of compression.
    #[test]
    fn endpoint_is_small() {
        let size = size_of::<Endpoint>();
        assert!(size <= 408, "{size}");
        assert!(size_of::<Result<Option<Event>, Fault>>() <= 56);
    }
}
