//! Frames and messages of Phoenix Channels, and the codecs between them.
//!
//! [`V2`] implements vsn 2.0.0: JSON arrays as text, and binary frames for binary payloads. [`V1`]
//! implements vsn 1.0.0: JSON objects, without binary payloads. For a server with another serializer,
//! implement [`Codec`].
//!
//! [`Frame`], [`Incoming`], [`Body`], [`Outgoing`] and [`WireRef`] are exhaustive on purpose: they list
//! what the protocol has, and a codec has to handle all of it.

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
    /// A text frame. Bytes that are not UTF-8 cause a decode error, not a panic.
    Text(Bytes),
    /// A binary frame.
    Binary(Bytes),
}

/// A ref or join_ref of an incoming message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WireRef {
    /// `null` or absent. Broadcasts have neither ref; heartbeat replies and the "unmatched topic" reply have
    /// no join_ref.
    Null,
    /// A canonical decimal number, the only kind that this client sends.
    Ref(Ref),
    /// Any other value, which this client did not send.
    Foreign,
}

impl WireRef {
    /// Parses the text of a ref that is not null. Canonical decimals such as `1` and `27` are
    /// [`Ref`](Self::Ref); anything else, such as `01`, is [`Foreign`](Self::Foreign).
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

/// A message decoded from a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// The join_ref of the channel instance, if the server named one.
    pub join_ref: WireRef,
    /// The ref of the request that this message replies to, if any.
    pub msg_ref: WireRef,
    /// The topic.
    pub topic: ByteStr,
    /// The reply or the event.
    pub body: Body,
}

/// The content of an incoming message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// A `phx_reply`. Its response is not parsed.
    Reply {
        /// Usually `ok` or `error`, but any string is possible.
        status: ByteStr,
        /// The response: any JSON value, or bytes.
        response: Payload,
    },
    /// Any other event.
    Event {
        /// The name of the event.
        event: ByteStr,
        /// The payload: any JSON value, or bytes.
        payload: Payload,
    },
}

/// A message to encode.
#[derive(Debug)]
pub struct Outgoing<'a> {
    /// The join_ref of the channel instance; `None` on heartbeats only.
    pub join_ref: Option<Ref>,
    /// The ref that the reply will carry.
    pub msg_ref: Ref,
    /// The topic.
    pub topic: &'a str,
    /// The event.
    pub event: &'a str,
    /// The payload, owned so that the envelope can be written into its headroom.
    pub payload: Payload,
}

/// Checks that the payload of a decoded message is JSON, for
/// [`Config::strict_payloads`](crate::Config::strict_payloads). Binary payloads pass.
///
/// # Errors
///
/// [`DecodeError`] if the payload is not JSON.
pub fn check_strict(message: &Incoming) -> Result<(), DecodeError> {
    let payload = match &message.body {
        Body::Reply { response, .. } => response,
        Body::Event { payload, .. } => payload,
    };
    if payload.is_binary() {
        return Ok(());
    }
    let found = payload.as_bytes();
    // The parser skips strings without checking that they are UTF-8.
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
    /// The bytes of the frame.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(bytes) | Self::Binary(bytes) => bytes,
        }
    }

    /// The length of the frame in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.as_bytes().len()
    }

    /// Whether the frame has no bytes.
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

/// Shows kind and length only, because a join carries tokens and actions end up in logs.
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
    fn frame_debug_is_redacted() {
        let frame = Frame::from(r#"["1","1","room:a","phx_join",{"token":"s3cret"}]"#);
        assert_eq!(format!("{frame:?}"), "Text(48 bytes)");
    }
}
