//! The codec: how messages are written as frames and read from them, one implementation for each `vsn`.

use core::fmt;

use crate::wire::payload::Payload;
use crate::wire::{
    DecodeError, DecodeProblem, EncodeError, Frame, Incoming, Outgoing, binary, text, v1,
};

/// Writes messages as frames and reads frames as messages, under the version string that asks the
/// server for it; chosen with [`Config::codec`](crate::Config::codec).
///
/// [`V2`] and [`V1`] are Phoenix's own. Implement it for a server that configures another serializer.
/// A format that is not JSON translates: a payload on this side is JSON text or plain bytes.
///
/// # Payloads without a copy
///
/// A payload that stands in a received frame as JSON text is
/// [`Payload::received_json`] of that slice of the frame, and bytes are [`Payload::binary_shared`]:
/// neither is copied or parsed. Only what has to be translated is serialised, with
/// [`Payload::json`].
///
/// A payload to be sent has room in front of it, [`Payload::HEADROOM`], and room for one byte behind it
/// if it is JSON. [`Payload::enclose`] writes an envelope there, and the payload becomes the frame
/// without a copy. A codec that needs more room, or more bytes behind the payload, builds a buffer of
/// its own from [`Payload::as_bytes`].
///
/// # The lock
///
/// A codec is called under the lock of its client, for every frame: it takes no locks, does not wait,
/// and does not call back into the client, from where its bytes are dropped either.
pub trait Codec: fmt::Debug + Send + Sync {
    /// The `vsn` query parameter that selects this format on the server.
    fn vsn(&self) -> &str;

    /// Reads one frame.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] for what is not the protocol. It must not panic, whatever the bytes.
    fn decode(&self, frame: &Frame) -> Result<Incoming, DecodeError>;

    /// Writes one message.
    ///
    /// # Errors
    ///
    /// [`EncodeError`] for what [`check`](Self::check) refuses.
    fn encode(&self, message: Outgoing<'_>) -> Result<Frame, EncodeError>;

    /// Whether a reply names the join of the channel that it came from, as the replies of vsn 2.0.0 do.
    ///
    /// Only Phoenix's own "unmatched topic" has a null join_ref there, and the channel is joined again.
    /// Without, as in vsn 1.0.0, the same words may be an application's: they make a channel join
    /// again at most once in [`Config::stable_after`](crate::Config::stable_after). The default is yes.
    fn names_joins(&self) -> bool {
        true
    }

    /// Whether such a message can be written, asked when a push is accepted.
    ///
    /// # Errors
    ///
    /// [`EncodeError`] if not. The default accepts everything.
    fn check(&self, topic: &str, event: &str, payload: &Payload) -> Result<(), EncodeError> {
        let _ = (topic, event, payload);
        Ok(())
    }

    /// The most bytes that the frame of such a message has beside its payload: at most 256, and six for
    /// each byte of topic and event.
    ///
    /// A push whose frame could be larger than
    /// [`Config::max_push_bytes`](crate::Config::max_push_bytes) is refused. A payload that leaves room
    /// for the largest envelope is accepted without asking.
    fn max_envelope_len(&self, topic: &str, event: &str) -> usize;
}

/// The length of the largest envelope that [`Codec::max_envelope_len`] allows for: every byte of a name
/// may need an escape.
#[inline]
pub(crate) const fn largest_envelope(topic: &str, event: &str) -> usize {
    topic.len().saturating_add(event.len()).saturating_mul(6).saturating_add(256)
}

/// vsn 2.0.0, the format of every Phoenix since 1.4.
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

/// vsn 1.0.0, what a Phoenix server speaks to clients that name no version.
///
/// It has no binary payloads, and a server says only through the `ref` of `phx_close` and
/// `phx_error` which instance of a channel it means. An error reply with the reason "unmatched topic"
/// makes a channel join again, but at most once in
/// [`Config::stable_after`](crate::Config::stable_after), because an application may use the same
/// words. Choose it for servers that have nothing else.
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
                let expected = "text: vsn 1.0.0 has no binary frames";
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

    /// No reply of vsn 1.0.0 has a join_ref (`wire/v1_with_join_ref`).
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
        fn envelopes_stay_in_the_bound_of_the_trait(topic in any::<String>(), event in "[\\PC\\x00-\\x1f\"\\\\]*") {
            for codec in [&V2 as &dyn Codec, &V1] {
                let most = largest_envelope(&topic, &event);
                prop_assert!(codec.max_envelope_len(&topic, &event) <= most);
            }
        }
    }
}
