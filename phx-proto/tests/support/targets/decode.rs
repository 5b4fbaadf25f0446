//! Passes bytes to the decoders: they do not panic, and they read an envelope like a strict parser.

use bytes::Bytes;
use phx_proto::Frame;
use phx_proto::wire::{Body, Codec, DecodeError, Incoming, V1, V2, check_strict};

use crate::wire::strict::{read_parts, read_v1, read_v2};

/// Text frames in both versions. The decoder and `serde_json` find the same content, or both refuse
/// it.
pub fn decode_text(data: &[u8]) {
    for (codec, strict) in [(&V2 as &dyn Codec, read_v2(data)), (&V1, read_v1(data))] {
        let decoded = exercise(codec, &Frame::Text(Bytes::copy_from_slice(data)));
        let parts = decoded.as_ref().ok().and_then(read_parts);
        assert_eq!(parts, strict, "vsn {}", codec.vsn());
        let checked = decoded.is_ok_and(|message| check_strict(&message).is_ok());
        assert_eq!(checked, parts.is_some(), "check_strict, vsn {}", codec.vsn());
    }
}

/// Binary frames: vsn 2 decodes them or returns an error; vsn 1 has none.
pub fn decode_binary(data: &[u8]) {
    let frame = Frame::Binary(Bytes::copy_from_slice(data));
    if let Ok(message) = exercise(&V2, &frame) {
        // The frame contains the lengths. No field exceeds its length, and no byte is lost.
        let (name, payload) = match &message.body {
            Body::Reply { status, response } => (status, response),
            Body::Event { event, payload } => (event, payload),
        };
        let read = message.topic.as_str().len() + name.as_str().len() + payload.len();
        assert!(read + 3 <= data.len());
        assert!(data.ends_with(payload.as_bytes()));
    }
    assert!(exercise(&V1, &frame).is_err());
}

/// Decodes a frame, and reads every part of the result.
fn exercise(codec: &dyn Codec, frame: &Frame) -> Result<Incoming, DecodeError> {
    let decoded = codec.decode(frame);
    match &decoded {
        Ok(message) => {
            let _ = (check_strict(message), format!("{message:?}"));
            let (Body::Reply { response: payload, .. } | Body::Event { payload, .. }) =
                &message.body;
            let _ = (payload.get(), payload.to_value(), payload.clone().into_compact());
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            assert!(error.evidence.as_bytes().len() <= 256, "evidence is bounded");
            assert!(frame.as_bytes().starts_with(error.evidence.as_bytes()));
            assert_eq!(error.evidence.frame_len(), frame.len());
            assert!(error.offset <= frame.len());
        }
    }
    decoded
}
