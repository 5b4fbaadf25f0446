//! Frames and messages: what the bytes on a Phoenix socket mean.
//!
//! [`V2`] speaks vsn 2.0.0: JSON arrays as text, and binary frames for binary payloads. [`V1`]
//! speaks vsn 1.0.0: JSON objects, and nothing binary. A server that configures another serializer
//! can be spoken to with a [`Codec`] of your own.
//!
//! [`Frame`], [`Incoming`], [`Body`], [`Outgoing`] and [`WireRef`] are exhaustive on purpose: they are what
//! the protocol has, and a codec makes and reads all of it.

mod binary;
mod byte_str;
mod codec;
mod error;
mod front;
pub(crate) mod payload;
#[cfg(any(feature = "service", feature = "testing"))]
pub(crate) mod raw;
mod scan;
mod simple;
mod text;
mod v1;
pub(crate) mod weight;

use core::fmt;

use bytes::Bytes;

pub use byte_str::ByteStr;
pub(crate) use codec::largest_envelope;
pub use codec::{Codec, V1, V2};
pub use error::{DecodeError, DecodeProblem, Detail, EncodeError, Evidence};
pub use payload::{Payload, PayloadError};
pub(crate) use scan::first_of_members;

use crate::id::Ref;

/// One WebSocket data frame (a whole message, never a fragment).
#[derive(Clone, PartialEq, Eq)]
pub enum Frame {
    /// A text frame. The bytes should be UTF-8; what is not becomes a decode error, not a panic.
    Text(Bytes),
    /// A binary frame.
    Binary(Bytes),
}

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

impl WireRef {
    /// Reads the text of a ref that is not null: `1`, `27`, as this client writes them. Anything
    /// else, such as `01`, is somebody else's.
    #[must_use]
    pub fn parse(text: &[u8]) -> Self {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(u64::from(byte - b'0')),
            _ => None,
        };
        let first = text.first().is_some_and(|first| matches!(first, b'1'..=b'9'));
        let number = text
            .iter()
            .try_fold(0_u64, |number, byte| number.checked_mul(10)?.checked_add(digit(*byte)?));
        match number.filter(|_| first) {
            Some(number) => Self::Ref(Ref(number)),
            None => Self::Foreign,
        }
    }
}

/// A message as it was read from a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming {
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
#[derive(Clone, Debug, PartialEq, Eq)]
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

/// Parses the payload of a decoded message strictly, as
/// [`Config::strict_payloads`](crate::Config::strict_payloads) asks.
///
/// # Errors
///
/// [`DecodeError`] when it is not JSON.
pub fn check_strict(message: &Incoming) -> Result<(), DecodeError> {
    let payload = match &message.body {
        Body::Reply { response, .. } => response,
        Body::Event { payload, .. } => payload,
    };
    if payload.is_binary() {
        return Ok(());
    }
    let found = payload.as_bytes();
    // The parser skips over strings without looking at their bytes.
    let text = core::str::from_utf8(found).map_err(|error| {
        let problem = DecodeProblem::NotUtf8 { field: "payload" };
        DecodeError::new(problem, error.valid_up_to(), found)
    })?;
    match serde_json::from_str::<serde::de::IgnoredAny>(text) {
        Ok(_) => Ok(()),
        Err(error) => {
            let problem = DecodeProblem::Payload { message: error.to_string() };
            Err(DecodeError::new(problem, error.column(), found))
        }
    }
}

impl Frame {
    /// The bytes, of text or not.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(bytes) | Self::Binary(bytes) => bytes,
        }
    }

    /// The length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.as_bytes().len()
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.as_bytes().is_empty()
    }

    /// Whether it is a text frame.
    #[must_use]
    pub const fn is_text(&self) -> bool {
        matches!(self, Self::Text(_))
    }
}

impl From<&str> for Frame {
    fn from(text: &str) -> Self {
        Self::Text(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<String> for Frame {
    fn from(text: String) -> Self {
        Self::Text(Bytes::from(text))
    }
}

/// Kind and length only: a join carries tokens, and actions end up in logs.
impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_text() { "Text" } else { "Binary" };
        write!(f, "{kind}({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_of_a_frame_shows_nothing_of_what_it_says() {
        let frame = Frame::from(r#"["1","1","room:a","phx_join",{"token":"s3cret"}]"#);
        assert_eq!(format!("{frame:?}"), "Text(48 bytes)");
    }
}
