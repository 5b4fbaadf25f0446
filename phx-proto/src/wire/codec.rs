//! The codec between messages and frames, with one implementation for each `vsn`.

use core::fmt;

use crate::wire::payload::Payload;
use crate::wire::{
    DecodeError, DecodeProblem, EncodeError, Frame, Incoming, Outgoing, binary, text, v1,
};

/// Encodes messages as frames and decodes frames to messages, for one `vsn` of the server.
///
/// [`V2`] and [`V1`] are the formats of Phoenix. Implement the trait for a server that configures another
/// serializer, and set it with [`Config::codec`](crate::Config::codec). A payload in this crate is JSON
/// text or plain bytes, so a codec for another format translates its payloads.
///
/// # Payloads without a copy
///
/// If a received frame contains a payload as JSON text, return that slice of the frame as
/// [`Payload::received_json`]; return bytes as [`Payload::binary_shared`]. Neither copies or parses.
/// Only a payload that has to be translated is serialised, with [`Payload::json`].
///
/// A payload to be sent has [`Payload::HEADROOM`] unused bytes in front of it, and one after it if it is
/// JSON. [`Payload::enclose`] writes an envelope there, and the payload becomes the frame without a
/// copy. A codec that needs more space in front, or more than one byte after the payload, builds its own
/// buffer from [`Payload::as_bytes`].
///
/// # The lock
///
/// The client holds its lock while it calls the codec for a frame. A codec must not block, take locks or
/// call back into the client. The same holds for code that runs when a buffer of the codec is dropped.
pub trait Codec: fmt::Debug + Send + Sync {
    /// The `vsn` query parameter that selects this format on the server.
    fn vsn(&self) -> &str;

    /// Decodes one frame. It must not panic, whatever the bytes are.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] for a frame that violates the protocol.
    fn decode(&self, frame: &Frame) -> Result<Incoming, DecodeError>;

    /// Encodes one message.
    ///
    /// # Errors
    ///
    /// [`EncodeError`] for a message that [`check`](Self::check) refuses.
    fn encode(&self, message: Outgoing<'_>) -> Result<Frame, EncodeError>;

    /// Whether every reply of a channel carries the join_ref of that channel, as in vsn 2.0.0. The
    /// default is `true`.
    ///
    /// In such a format an "unmatched topic" reply with a null join_ref can only come from Phoenix itself,
    /// and the channel is joined again. In vsn 1.0.0 an application may send the same reason, so such a
    /// reply makes a channel join again at most once in
    /// [`Config::stable_after`](crate::Config::stable_after).
    fn names_joins(&self) -> bool {
        true
    }

    /// Checks that a message can be encoded, before its push is accepted. The default accepts every
    /// message.
    ///
    /// # Errors
    ///
    /// [`EncodeError`] if the message cannot be encoded.
    fn check(&self, topic: &str, event: &str, payload: &Payload) -> Result<(), EncodeError> {
        let _ = (topic, event, payload);
        Ok(())
    }

    /// An upper bound on the bytes that a frame has besides its payload. It must not exceed 256 bytes,
    /// plus six bytes for each byte of topic and event.
    ///
    /// A push whose frame could be larger than
    /// [`Config::max_push_bytes`](crate::Config::max_push_bytes) is refused. This method is called only
    /// for payloads that would not fit with the largest envelope allowed.
    fn max_envelope_len(&self, topic: &str, event: &str) -> usize;
}

/// The greatest value that [`Codec::max_envelope_len`] may return. Every byte of a name may become an
/// escape of six bytes.
#[inline]
pub(crate) const fn largest_envelope(topic: &str, event: &str) -> usize {
    topic.len().saturating_add(event.len()).saturating_mul(6).saturating_add(256)
}

/// The codec of vsn 2.0.0, the default format of Phoenix since 1.4.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct V2;

impl Codec for V2 {
    fn vsn(&self) -> &str {
        "2.0.0"
    }

    fn decode(&self, frame: &Frame) -> Result<Incoming, DecodeError> {
        match frame {
            Frame::Text(bytes) => text::decode(bytes),
            // Protocol: BIN-8.
            Frame::Binary(bytes) => binary::decode(bytes),
        }
    }

    fn encode(&self, message: Outgoing<'_>) -> Result<Frame, EncodeError> {
        if message.payload.is_binary() {
            binary::encode(message).map(Frame::Binary)
        } else {
            Ok(Frame::Text(text::encode(message)))
        }
    }

    fn check(&self, topic: &str, event: &str, payload: &Payload) -> Result<(), EncodeError> {
        if payload.is_binary() { binary::check(topic, event) } else { Ok(()) }
    }

    fn max_envelope_len(&self, topic: &str, event: &str) -> usize {
        text::max_envelope_len(topic, event)
    }
}

/// The codec of vsn 1.0.0, which a Phoenix server uses for clients that name no version.
///
/// It has no binary payloads. Only the `ref` of `phx_close` and `phx_error` identifies the instance of a
/// channel. An error reply with the reason "unmatched topic" makes a channel join again, but at most once
/// in [`Config::stable_after`](crate::Config::stable_after), because an application may use the same
/// reason. Use it only for servers without vsn 2.0.0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct V1;

impl Codec for V1 {
    fn vsn(&self) -> &str {
        "1.0.0"
    }

    fn decode(&self, frame: &Frame) -> Result<Incoming, DecodeError> {
        match frame {
            Frame::Text(bytes) => v1::decode(bytes),
            Frame::Binary(bytes) => {
                let expected = "a text frame: vsn 1.0.0 has no binary frames";
                Err(DecodeError::new(DecodeProblem::Expected { expected }, 0, bytes))
            }
        }
    }

    fn encode(&self, message: Outgoing<'_>) -> Result<Frame, EncodeError> {
        self.check(message.topic, message.event, &message.payload)?;
        Ok(Frame::Text(v1::encode(message)))
    }

    fn check(&self, _: &str, _: &str, payload: &Payload) -> Result<(), EncodeError> {
        // Protocol: V1-5.
        if payload.is_binary() { Err(EncodeError::NoBinary) } else { Ok(()) }
    }

    /// Replies of vsn 1.0.0 carry no join_ref (`wire/v1_with_join_ref`).
    fn names_joins(&self) -> bool {
        false
    }

    fn max_envelope_len(&self, topic: &str, event: &str) -> usize {
        v1::max_envelope_len(topic, event)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn envelope_len_is_within_trait_bound(topic in any::<String>(), event in "[\\PC\\x00-\\x1f\"\\\\]*") {
            for codec in [&V2 as &dyn Codec, &V1] {
                let most = largest_envelope(&topic, &event);
                prop_assert!(codec.max_envelope_len(&topic, &event) <= most);
            }
        }
    }
}
