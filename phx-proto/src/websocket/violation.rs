//! The errors that end a WebSocket: violations of RFC 6455 by the peer, and other faults.

use super::close::Close;
use super::upgrade::UpgradeError;

/// A violation of RFC 6455 or of a limit by the peer.
///
/// The connection has failed (section 7.1.7): later input is discarded, and the endpoint transmits
/// a close frame with [`close_code`](Self::close_code), unless it has already sent a close frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// A reserved bit is set, and no negotiated extension gives it a meaning.
    #[error("reserved bits {bits:#05b} are set")]
    ReservedBits {
        /// RSV1, RSV2 and RSV3, with RSV1 as the highest bit.
        bits: u8,
    },

    /// The opcode is reserved.
    #[error("opcode {opcode:#x} is unknown")]
    UnknownOpcode {
        /// The opcode.
        opcode: u8,
    },

    /// The server masked a frame.
    #[error("the server masked a frame")]
    MaskedByServer,

    /// The client did not mask a frame.
    #[error("the client did not mask a frame")]
    UnmaskedByClient,

    /// A control frame is a fragment.
    #[error("a control frame (opcode {opcode:#x}) is fragmented")]
    FragmentedControl {
        /// The opcode.
        opcode: u8,
    },

    /// The payload of a control frame has more than 125 bytes.
    #[error("a control frame (opcode {opcode:#x}) is longer than 125 bytes")]
    ControlTooLong {
        /// The opcode.
        opcode: u8,
    },

    /// The length is encoded in more bytes than necessary.
    #[error("the length {length} is not written in its shortest form")]
    LengthNotMinimal {
        /// The length.
        length: u64,
    },

    /// The highest bit of a 64-bit length is set.
    #[error("the highest bit of a length is set")]
    LengthTopBit,

    /// A continuation frame arrived without a message to continue.
    #[error("a continuation frame without a message to continue")]
    UnexpectedContinuation,

    /// A message begins before the last fragment of the previous message.
    #[error("a message (opcode {opcode:#x}) begins within another one")]
    InterleavedMessage {
        /// The opcode.
        opcode: u8,
    },

    /// A text message is not UTF-8.
    #[error("a text message is not UTF-8 at byte {at}")]
    TextNotUtf8 {
        /// The position in the message of the first invalid character.
        at: u64,
    },

    /// The data of a compressed message is not valid (RFC 1951), or the message ends within a block.
    #[cfg(feature = "deflate")]
    #[error("a compressed message is not valid DEFLATE data")]
    InvalidDeflate,

    /// A compressed message consists of so many small blocks that it would take too long to decompress.
    /// The limit grows with the message; zlib's shortest blocks (`memLevel` 1) are allowed. A final block
    /// counts as two.
    #[cfg(feature = "deflate")]
    #[error("a compressed message has more than {max} blocks")]
    TooManyBlocks {
        /// The limit for the part that was decompressed.
        max: usize,
    },

    /// The payload of a close frame is a single byte.
    #[error("the payload of a close frame is a single byte")]
    CloseTooShort,

    /// The code of a close frame must not be sent.
    #[error("close code {} must not be sent", .close.code.unwrap_or_default())]
    InvalidCloseCode {
        /// The close frame as it was received.
        close: Close,
    },

    /// The reason of a close frame is not UTF-8.
    #[error("the reason of a close frame is not UTF-8")]
    CloseReasonNotUtf8 {
        /// The close frame as it was received, with U+FFFD for bytes that are not UTF-8.
        close: Close,
    },

    /// A frame is longer than [`Limits::frame_bytes_max`](super::Limits::frame_bytes_max).
    #[error("a frame of {length} bytes is longer than {max}")]
    FrameTooLong {
        /// The length that the frame announces.
        length: u64,
        /// The limit.
        max: usize,
    },

    /// A message is longer than [`Limits::message_bytes_max`](super::Limits::message_bytes_max). The
    /// length of a compressed message is the one after decompression.
    #[error("a message of at least {length} bytes is longer than {max}")]
    MessageTooLong {
        /// The number of bytes of the message so far, including the announced length of its current
        /// frame.
        length: u64,
        /// The limit.
        max: usize,
    },

    /// A message has more fragments than [`Limits::fragments_max`](super::Limits::fragments_max).
    #[error("a message has more than {max} fragments")]
    TooManyFragments {
        /// The limit.
        max: u32,
    },

    /// A message has more empty fragments than
    /// [`Limits::empty_fragments_max`](super::Limits::empty_fragments_max).
    #[error("a message has more than {max} empty fragments")]
    TooManyEmptyFragments {
        /// The limit.
        max: u32,
    },
}

impl Violation {
    /// The section of RFC 6455 that the peer violated or, for a limit, the section that allows the
    /// limit. For compressed data it is the section of RFC 7692.
    #[must_use]
    pub const fn clause(&self) -> &'static str {
        match self {
            #[cfg(feature = "deflate")]
            Self::InvalidDeflate => "7.2.2",
            Self::ReservedBits { .. }
            | Self::UnknownOpcode { .. }
            | Self::LengthNotMinimal { .. }
            | Self::LengthTopBit => "5.2",
            Self::MaskedByServer | Self::UnmaskedByClient => "5.1",
            Self::FragmentedControl { .. } | Self::ControlTooLong { .. } => "5.5",
            Self::UnexpectedContinuation | Self::InterleavedMessage { .. } => "5.4",
            Self::TextNotUtf8 { .. } => "8.1",
            Self::CloseTooShort | Self::CloseReasonNotUtf8 { .. } => "5.5.1",
            Self::InvalidCloseCode { .. } => "7.4",
            Self::FrameTooLong { .. }
            | Self::MessageTooLong { .. }
            | Self::TooManyFragments { .. }
            | Self::TooManyEmptyFragments { .. } => "10.4",
            #[cfg(feature = "deflate")]
            Self::TooManyBlocks { .. } => "10.4",
        }
    }

    /// The RFC that [`clause`](Self::clause) refers to.
    const fn rfc(&self) -> u32 {
        match self {
            #[cfg(feature = "deflate")]
            Self::InvalidDeflate => 7692,
            _ => 6455,
        }
    }

    /// The code of the close frame for this violation (RFC 6455 section 7.4.1).
    #[must_use]
    pub const fn close_code(&self) -> u16 {
        match self {
            // 1007: the data does not fit the type of the message.
            Self::TextNotUtf8 { .. } | Self::CloseReasonNotUtf8 { .. } => 1007,
            #[cfg(feature = "deflate")]
            Self::InvalidDeflate => 1007,
            // 1009: the message is too big to process.
            Self::FrameTooLong { .. }
            | Self::MessageTooLong { .. }
            | Self::TooManyFragments { .. }
            | Self::TooManyEmptyFragments { .. } => 1009,
            #[cfg(feature = "deflate")]
            Self::TooManyBlocks { .. } => 1009,
            // 1002: a protocol error.
            _ => 1002,
        }
    }

    /// The peer's close frame, if the violation is in that frame.
    #[must_use]
    pub const fn received_close(&self) -> Option<&Close> {
        match self {
            Self::InvalidCloseCode { close } | Self::CloseReasonNotUtf8 { close } => Some(close),
            _ => None,
        }
    }
}

/// The reason why a WebSocket ended without a closing handshake.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The server did not upgrade the stream.
    #[error("the upgrade failed: {0}")]
    Upgrade(#[source] Box<UpgradeError>),

    /// The peer violated the protocol or a limit.
    #[error("the peer broke the WebSocket protocol: {0} (RFC {rfc} section {clause})", rfc = .0.rfc(), clause = .0.clause())]
    Violation(#[from] Violation),

    /// The stream ended without a close frame (RFC 6455 section 7.1.5 calls this 1006).
    #[error("the stream ended without a close frame")]
    Eof,
}
