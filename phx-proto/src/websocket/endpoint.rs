//! One side of a WebSocket, from the upgrade to the end of the stream: its phases, and how the
//! receiving half, the sending half and the closing handshake work together.
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
use super::receive::{Received, Receiver};
use super::send::{PingRefused, SendError, Sender, Upload};
use super::upgrade::{Upgrade, UpgradeStep, Upgraded};
use super::violation::Fault;
use crate::wire::Frame;

/// How much an endpoint receives at once, and how much of what it sends it holds.
///
/// Where a peer exceeds one, the connection fails with 1009
/// ([`Violation::close_code`](super::Violation::close_code)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most bytes of a message that is received, of all its fragments together. Their buffer grows
    /// by doubling, so for a while it may hold twice as much.
    pub message_bytes_max: usize,
    /// The most bytes of the payload of one data frame that is received. The caller's buffer has to
    /// hold as many.
    pub frame_bytes_max: usize,
    /// The most fragments of a message that is received.
    pub fragments_max: u32,
    /// The most fragments without a payload of a message that is received: they cost time, and no
    /// limit of bytes ends them.
    pub empty_fragments_max: u32,
    /// With as many bytes waiting to be transmitted, [`Endpoint::send`] answers
    /// [`SendError::Full`]. A message counts 64 bytes beside its own; the last one may exceed it.
    pub outbox_bytes_max: usize,
    /// The most bytes of a data frame that is sent. Longer messages are cut into fragments, with a ping
    /// after each but the last; zero is taken for one.
    pub fragment_bytes: usize,
}

impl Default for Limits {
    /// 64 MiB of a message or a frame, 131,072 fragments, 1,024 of them empty; an outbox of 1 MiB,
    /// fragments of 32 KiB.
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

/// What was received. `Debug` shows lengths.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The stream was upgraded: messages can be sent and received. [`Upgraded::leftover`] is empty: what
    /// the server sent behind its answer is in the buffer.
    Opened(Box<Upgraded>),
    /// A whole message, a text being UTF-8.
    Message(Frame),
    /// A ping. The latest one is answered by the next [`Endpoint::poll_transmit`].
    Ping(Bytes),
    /// A pong that is not about an upload.
    Pong(Bytes),
    /// A pong: the peer has read so many bytes of messages since the opening
    /// ([`Upload::acknowledged`]).
    Acknowledged(u64),
    /// The peer's close frame. Nothing is received behind it. The answer, unless ours went out before,
    /// is the next frame that [`Endpoint::poll_transmit`] hands over.
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

/// What a connection is up to (RFC 6455 sections 4.1, 7.1.3 and 7.1.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// The upgrade is under way.
    Connecting,
    /// Messages are sent and received.
    Open,
    /// The closing handshake has begun, or a close frame waits to be transmitted.
    Closing,
    /// Nothing more is sent or received. A client leaves the end of the stream to the server, for a
    /// while (RFC 6455 section 7.1.1).
    Closed,
}

/// One side of a WebSocket. See the [module](super).
///
/// Read from the stream into a buffer, then [`poll_event`](Self::poll_event) until `None`. Whenever that
/// or a command may have left something to write, [`poll_transmit`](Self::poll_transmit) and write. At
/// the end of the stream, [`handle_eof`](Self::handle_eof).
///
/// ```
/// use bytes::BytesMut;
/// use phx_proto::Frame;
/// use phx_proto::upgrade::{Upgrade, UpgradeRequest};
/// use phx_proto::websocket::{Endpoint, Event, Limits, MaskKeys};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // In a program, both come from the entropy of the system.
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
/// // The answer, and the first frame in the same read.
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
    /// A client whose stream is yet to be upgraded.
    #[must_use]
    pub fn connecting(upgrade: Upgrade, limits: &Limits) -> Self {
        Self { phase: Phase::Upgrading(Box::new(upgrade)), ..Self::client(limits) }
    }

    /// A client on a stream that was upgraded.
    #[must_use]
    pub fn client(limits: &Limits) -> Self {
        Self::open(true, limits)
    }

    /// A server on a stream that was upgraded, for tests. It masks nothing, so
    /// [`poll_transmit`](Self::poll_transmit) asks for no keys.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn server(limits: &Limits) -> Self {
        Self::open(false, limits)
    }

    fn open(is_client: bool, limits: &Limits) -> Self {
        Self {
            phase: Phase::Open,
            receiver: Receiver::new(!is_client, limits),
            sender: Sender::new(is_client, limits),
            close: Handshake::default(),
        }
    }

    /// The next thing that was received. Call it until `None` after every read.
    ///
    /// It takes what it has read off the front of the buffer. The rest, the beginning of a frame, has to
    /// stay there: the next read goes behind it.
    ///
    /// # Errors
    ///
    /// [`Fault`], once. What comes after it is discarded, as after [`Event::Close`].
    #[inline]
    pub fn poll_event(&mut self, buffer: &mut BytesMut) -> Result<Option<Event>, Fault> {
        if let Phase::Upgrading(_) = self.phase {
            return self.poll_upgrade(buffer);
        }
        if let Some(frame) = self.receiver.poll_whole(buffer) {
            return Ok(Some(Event::Message(frame)));
        }
        self.poll_frames(buffer)
    }

    fn poll_frames(&mut self, buffer: &mut BytesMut) -> Result<Option<Event>, Fault> {
        match self.receiver.poll(buffer) {
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

    /// How many more bytes complete the frame that is arriving; 0 while its header is not complete.
    /// `buffered` is the length of the buffer.
    ///
    /// A buffer that has room for them is not moved while they arrive. The peer has only announced them:
    /// reserve some at a time.
    #[must_use]
    pub fn missing(&self, buffered: usize) -> usize {
        self.receiver.missing(buffered)
    }

    /// The stream ended.
    ///
    /// # Errors
    ///
    /// [`Fault::Eof`] when no close frame was received and nothing had failed before,
    /// [`Fault::Upgrade`] when the server had not answered.
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
    /// It is accepted while the upgrade is under way, and transmitted after it.
    ///
    /// # Errors
    ///
    /// [`SendError`], with the message.
    #[inline]
    pub fn send(&mut self, frame: Frame) -> Result<(), SendError> {
        // RFC 6455 section 5.5.1: no data frames after a close frame; section 6.1: only while OPEN.
        if !self.close.is_open() {
            return Err(SendError::Closing(frame));
        }
        self.sender.push(frame)
    }

    /// Queues a ping, which goes out before the messages that wait.
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

    /// Starts the closing handshake: a close frame goes out behind the messages that wait. Of several
    /// calls the first counts. The reason is cut to 123 bytes.
    ///
    /// Messages are received until the peer's close frame ([`Event::Close`]); how long to wait for that
    /// is up to the caller.
    ///
    /// # Errors
    ///
    /// [`UnsendableCode`] for a code that no close frame may have (RFC 6455 section 7.4).
    pub fn close(&mut self, code: u16, reason: &str) -> Result<(), UnsendableCode> {
        self.close.start(code, reason)
    }

    /// Appends frames that are to be written, until `out` holds at least `max` bytes or nothing is left,
    /// and returns how many bytes it has appended.
    ///
    /// What is appended is final: a pong or an answer to a close frame goes out behind it. So write what
    /// is in `out` before asking for more, and let `max` be what the stream takes at once. The last
    /// frame may exceed it by a fragment.
    ///
    /// `keys` returns a mask key for each frame of a client (RFC 6455 section 5.3): see
    /// [`MaskKeys`](super::MaskKeys).
    pub fn poll_transmit(
        &mut self,
        out: &mut BytesMut,
        max: usize,
        mut keys: impl FnMut() -> [u8; 4],
    ) -> usize {
        let before = out.len();
        if self.close.is_closed() {
            return 0;
        }
        if let Phase::Upgrading(upgrade) = &mut self.phase {
            // RFC 6455 section 4.1: no frame before the server's answer.
            let request = upgrade.poll_write();
            let length = request.len();
            out.extend_from_slice(request);
            upgrade.handle_written(length);
            return length;
        }
        while out.len() < max && self.sender.transmit(out, &mut self.close, &mut keys) {}
        out.len() - before
    }

    /// What it is up to.
    #[must_use]
    pub const fn state(&self) -> State {
        match self.phase {
            _ if self.close.is_closed() => State::Closed,
            Phase::Upgrading(_) => State::Connecting,
            Phase::Open if self.close.is_open() => State::Open,
            Phase::Open => State::Closing,
        }
    }

    /// How far the messages that were sent have come.
    #[must_use]
    pub const fn upload(&self) -> Upload {
        self.sender.upload()
    }

    /// How many messages wait to be transmitted, with one that is under way. They are dropped when the
    /// peer closes the connection or breaks the protocol.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.sender.queued()
    }

    /// How many bytes the messages take that wait to be transmitted, as
    /// [`Limits::outbox_bytes_max`] counts them.
    #[must_use]
    pub const fn queued_bytes(&self) -> usize {
        self.sender.queued_bytes()
    }

    /// The upgrade while it is under way, for [`Upgrade::pending_refusal`].
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

    /// An idle connection is this and no buffers.
    #[test]
    fn endpoint_is_small() {
        let size = size_of::<Endpoint>();
        assert!(size <= 400, "{size}");
        assert!(size_of::<Result<Option<Event>, Fault>>() <= 56);
    }
}
