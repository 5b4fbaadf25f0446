//! What can be wrong with a frame.

use core::fmt;

use crate::wire::payload::EVIDENCE_MAX;

/// Why an incoming frame could not be decoded: the peer's fault. The frame is skipped and the
/// connection goes on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem} at byte {offset} of a frame of {} bytes", .evidence.frame_len())]
#[non_exhaustive]
pub struct DecodeError {
    /// What was wrong.
    pub problem: DecodeProblem,
    /// Where in the frame.
    pub offset: usize,
    /// The frame, or the start of it.
    pub evidence: Evidence,
}

/// What was wrong with an incoming frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeProblem {
    /// The text is not what the protocol has there.
    #[error("expected {expected}")]
    Expected {
        /// What the protocol has there.
        expected: &'static str,
    },
    /// Bytes that must be text are not UTF-8.
    #[error("the {field} is not UTF-8")]
    NotUtf8 {
        /// Which field.
        field: &'static str,
    },
    /// A binary frame ended before its header said it would.
    #[error("the frame ends inside its {field}")]
    Truncated {
        /// Which field.
        field: &'static str,
    },
    /// A binary frame of a kind that a server does not send.
    #[error("unknown kind {kind} of binary frame")]
    UnknownKind {
        /// Its first byte.
        kind: u8,
    },
    /// A payload that is not JSON, found by strict checking.
    #[error("the payload is not JSON: {message}")]
    Payload {
        /// What the parser said.
        message: String,
    },
    /// What a custom codec has to say.
    #[error("{message}")]
    Other {
        /// Its words.
        message: String,
    },
}

/// The start of a bad frame, kept for the report: at most 256 bytes.
///
/// `Debug` shows the length of the frame only: what a frame says may be secret, even more so in a frame
/// that is not what it should be. [`escaped`](Self::escaped) shows what is kept of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Evidence {
    start: Vec<u8>,
    len: usize,
}

impl DecodeError {
    /// An error about `frame`, of which the start is kept.
    #[must_use]
    pub fn new(problem: DecodeProblem, offset: usize, frame: &[u8]) -> Self {
        let start = frame[..frame.len().min(EVIDENCE_MAX)].to_vec();
        Self { problem, offset, evidence: Evidence { start, len: frame.len() } }
    }

    /// The bytes that it holds in memory.
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

    /// The start of the frame in quotes, as printable ASCII; with an ellipsis if there was more of it.
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

/// Words of a parser or a serializer, which may repeat what they are about.
///
/// `Debug` does not show them.
#[derive(Clone, PartialEq, Eq)]
pub struct Detail(String);

impl Detail {
    pub(crate) const fn new(words: String) -> Self {
        Self(words)
    }

    /// The words, with whatever they repeat of the payload.
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

/// Why a message could not be encoded: the caller's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The codec has no binary payloads; nor has vsn 1.0.0 (`wire/v1_binary`: the server
    /// closes with 1011).
    #[error("this codec has no binary payloads")]
    NoBinary,
    /// A binary frame has one byte for the length of each header field.
    #[error("a binary payload allows 255 bytes of {field}, this has {len}")]
    FieldTooLong {
        /// Which field.
        field: &'static str,
        /// Its length in bytes.
        len: usize,
    },
    /// What a custom codec has to say.
    #[error("{message}")]
    Other {
        /// Its words.
        message: String,
    },
}
