//! What the world did: the arguments of the `handle_*` methods.

/// What an opened connection agreed on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// The subprotocol that the server chose, if any.
    pub protocol: Option<String>,
}

/// How many bytes a connection has moved since it opened, counted below TLS.
///
/// Totals, so a report that is left out loses nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes read from the peer. Leave out those that lay in a buffer while the process did not
    /// run: they are no evidence that the peer is alive now.
    pub read: u64,
    /// Bytes that the operating system took to be sent.
    pub written: u64,
    /// Every frame handed to the transport is among them.
    pub flushed: bool,
}

/// How an open connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ended {
    /// A close frame was read. Report this even when a reset follows at once: the close frame is
    /// the cause.
    CloseFrame {
        /// Its code, if it had one.
        code: Option<u16>,
        /// Its reason.
        reason: String,
    },
    /// The transport ended or failed without a close frame.
    Lost {
        /// What the transport said.
        message: String,
    },
    /// The transport gave up on a message over the limit.
    MessageTooLarge,
}
