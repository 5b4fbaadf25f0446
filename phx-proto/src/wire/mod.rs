//! Frames and messages: what the bytes on a Phoenix socket mean.

use core::fmt;

use bytes::Bytes;

use crate::id::Ref;
use crate::payload::Payload;

/// One WebSocket data frame (a whole message, never a fragment).
#[derive(Clone, PartialEq, Eq)]
pub enum Frame {
    /// A text frame. The bytes should be UTF-8; what is not becomes a decode error, not a panic.
    Text(Bytes),
    /// A binary frame.
    Binary(Bytes),
}

/// A UTF-8 slice of a frame (zero copy).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteStr(Bytes);

/// A ref or join_ref member as it stood in an incoming message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WireRef {
    /// `null` (or absent): broadcasts, heartbeat replies, the "unmatched topic" reply.
    Null,
    /// A canonical decimal, the only kind this client ever sends.
    Ref(Ref),
    /// Any other value: nothing of ours.
    Foreign,
}

/// A decoded incoming message.
#[derive(Clone, Debug)]
pub struct Message {
    /// The channel instance, if the server named one.
    pub join_ref: WireRef,
    /// The request this answers, if any.
    pub msg_ref: WireRef,
    /// The topic.
    pub topic: ByteStr,
    /// What is said.
    pub body: Body,
}

/// What an incoming message says.
#[derive(Clone, Debug)]
pub enum Body {
    /// `phx_reply`: the status and the response, the latter untouched.
    Reply {
        /// Usually `ok` or `error`, but any string is possible.
        status: ByteStr,
        /// The response: any JSON value, or bytes.
        response: Payload,
    },
    /// Anything else.
    Event {
        /// The event's name.
        event: ByteStr,
        /// The payload: any JSON value, or bytes.
        payload: Payload,
    },
}

/// A message to be written.
#[derive(Debug)]
pub struct Outgoing<'a> {
    /// The channel instance; none only on heartbeats.
    pub join_ref: Option<Ref>,
    /// The ref that the reply will name.
    pub msg_ref: Ref,
    /// The topic.
    pub topic: &'a str,
    /// The event.
    pub event: &'a str,
    /// The payload; consumed so that the envelope can be written into its headroom.
    pub payload: Payload,
}

/// Why a frame could not be decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Placeholder.
    #[error("placeholder")]
    Placeholder,
}

/// Why a message could not be encoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// Placeholder.
    #[error("placeholder")]
    Placeholder,
}

/// A way to write messages as frames and back, with the version string that asks the server
/// for it.
pub trait Serializer: fmt::Debug + Send + Sync {
    /// The `vsn` query parameter that selects this serializer on the server.
    fn vsn(&self) -> &str;
    /// Reads one frame.
    fn decode(&self, frame: &Frame) -> Result<Message, DecodeError>;
    /// Writes one message.
    fn encode(&self, message: Outgoing<'_>) -> Result<Frame, EncodeError>;
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(bytes) => f.debug_tuple("Text").field(bytes).finish(),
            Self::Binary(bytes) => f.debug_tuple("Binary").field(bytes).finish(),
        }
    }
}

impl fmt::Debug for ByteStr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}
