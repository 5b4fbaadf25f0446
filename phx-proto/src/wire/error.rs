//! Errors of decoding and encoding frames.

use core::fmt;

use crate::wire::payload::EVIDENCE_MAX;

/// An error in an incoming frame, which the peer caused. The client skips the frame and keeps the
/// connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem} at byte {offset} of a frame of {} bytes", .evidence.frame_len())]
#[non_exhaustive]
pub struct DecodeError {
    /// The kind of error.
    pub problem: DecodeProblem,
    /// Offset of the error in the frame, in bytes.
    pub offset: usize,
    /// The start of the frame.
    pub evidence: Evidence,
}

/// The kind of a [`DecodeError`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeProblem {
    /// The text does not match the protocol.
    #[error("expected {expected}")]
    Expected {
        /// The part of the protocol that is missing.
        expected: &'static str,
    },
    /// Bytes that must be text are not UTF-8.
    #[error("the {field} is not UTF-8")]
    NotUtf8 {
        /// Name of the field.
        field: &'static str,
    },
    /// A binary frame is shorter than its header declares.
    #[error("the frame ends inside its {field}")]
    Truncated {
        /// Name of the field in which the frame ends.
        field: &'static str,
    },
    /// The kind of a binary frame is not one that a server sends.
    #[error("unknown kind {kind} of binary frame")]
    UnknownKind {
        /// The first byte of the frame.
        kind: u8,
    },
    /// The payload is not JSON. Only strict checking reports this.
    #[error("the payload is not JSON: {message}")]
    Payload {
        /// The message of the parser.
        message: String,
    },
    /// An error of a custom codec.
    #[error("{message}")]
    Other {
        /// The message of the codec.
        message: String,
    },
}

/// The first bytes of an invalid frame, at most 256, kept for the report.
///
/// `Debug` shows only the length of the frame, because its content may be secret.
/// [`escaped`](Self::escaped) shows the bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Evidence {
    start: Vec<u8>,
    len: usize,
}

impl DecodeError {
    /// Creates an error about `frame` and keeps the start of the frame.
    #[must_use]
    pub fn new(problem: DecodeProblem, offset: usize, frame: &[u8]) -> Self {
        let start = frame[..frame.len().min(EVIDENCE_MAX)].to_vec();
        Self { problem, offset, evidence: Evidence { start, len: frame.len() } }
    }

    /// The memory that the error holds, in bytes.
    #[cfg(feature = "driver")]
    pub(crate) fn held_bytes(&self) -> usize {
        let message = match &self.problem {
            DecodeProblem::Payload { message } | DecodeProblem::Other { message } => message.len(),
            DecodeProblem::Expected { .. }
            | DecodeProblem::NotUtf8 { .. }
            | DecodeProblem::Truncated { .. }
            | DecodeProblem::UnknownKind { .. } => 0,
        };
        message + self.evidence.as_bytes().len()
    }
}

impl Evidence {
    /// The start of the frame.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.start
    }

    /// The start of the frame in quotes, as printable ASCII, with an ellipsis if the frame is longer.
    #[must_use]
    pub fn escaped(&self) -> String {
        let more = if self.start.len() < self.len { "…" } else { "" };
        format!("\"{}{more}\"", self.start.escape_ascii())
    }

    /// The length of the whole frame.
    #[must_use]
    pub const fn frame_len(&self) -> usize {
        self.len
    }
}

impl fmt::Debug for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Evidence({} bytes)", self.len)
    }
}

/// The message of a parser or a serializer, which may quote the payload.
///
/// `Debug` redacts it.
#[derive(Clone, PartialEq, Eq)]
pub struct Detail(String);

impl Detail {
    pub(crate) const fn new(message: String) -> Self {
        Self(message)
    }

    /// The message, including anything that it quotes of the payload.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// An error in a message to be sent, which the caller caused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The codec has no binary payloads. [`V1`](crate::wire::V1) has none: the server would close with
    /// 1011 (`wire/v1_binary`).
    #[error("the codec does not support binary payloads")]
    NoBinary,
    /// A field is longer than 255 bytes, the maximum that the header of a binary frame allows.
    #[error("the {field} of a binary push has {len} bytes, more than 255")]
    FieldTooLong {
        /// Name of the field.
        field: &'static str,
        /// Length of the field in bytes.
        len: usize,
    },
    /// An error of a custom codec.
    #[error("{message}")]
    Other {
        /// The message of the codec.
        message: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detail_is_shown_on_request_only() {
        let detail = Detail::new("invalid type: string \"s3cret\"".to_owned());
        assert_eq!(format!("{detail:?}"), "[redacted]");
        assert_eq!(detail.expose(), "invalid type: string \"s3cret\"");
    }

    /// Only a frame that is longer than what is kept has an ellipsis.
    #[test]
    fn ellipsis_means_a_longer_frame() {
        for (len, is_longer) in [(0, false), (1, false), (EVIDENCE_MAX, false), (257, true)] {
            let error =
                DecodeError::new(DecodeProblem::NotUtf8 { field: "topic" }, 0, &vec![b'x'; len]);
            assert_eq!(error.evidence.escaped().ends_with("…\""), is_longer, "{len}");
        }
    }

    /// The error holds its message and at most 256 bytes of the frame.
    #[test]
    #[cfg(feature = "driver")]
    fn held_bytes_count_message_and_evidence() {
        let error = |problem, len| DecodeError::new(problem, 0, &vec![b'x'; len]).held_bytes();
        assert_eq!(error(DecodeProblem::NotUtf8 { field: "topic" }, 10), 10);
        assert_eq!(error(DecodeProblem::Payload { message: "12345".to_owned() }, 10), 15);
        assert_eq!(error(DecodeProblem::Other { message: "12345".to_owned() }, 10_000), 5 + 256);
    }
}
