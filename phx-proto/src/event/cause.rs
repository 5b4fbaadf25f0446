//! Causes: why connections, channels, pushes and leaves ended.
//!
//! Causes keep all details (close code, HTTP response, the server's reason), because a retry policy needs
//! them.
//!
//! The `Display` text of a cause is one complete line, which includes the text of any inner error.
//! `source()` does not return that inner error again, so printing the chain of sources repeats no text.

use core::fmt;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use crate::event::excerpt::{Excerpt, reason};
use crate::event::names::{InWords, names};
use crate::event::refusal::{OfProxy, Refusal, SocksRefusal};
use crate::topic::Topic;
use crate::wire::ByteStr;
use crate::wire::payload::Payload;

/// Why a connection, or an attempt to connect, ended.
///
/// The driver passes the cause of a failed attempt to
/// [`Socket::handle_failed`](crate::Socket::handle_failed). Other causes come from the socket itself.
///
/// The serialized form is for recordings and logs. It contains only two parts of a [`Refusal`]: the status,
/// and the headers that determine the delay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Cause {
    /// The server sent a close frame.
    #[error(fmt = remote_close)]
    RemoteClose {
        /// The close code, if the frame had one.
        code: Option<u16>,
        /// The close reason. Phoenix leaves it empty.
        reason: String,
    },
    /// The transport ended without a close frame, because the server was killed, the network failed or the
    /// connection was reset.
    #[error("the connection was lost: {message}")]
    TransportLost {
        /// The error of the transport.
        message: String,
    },
    /// A message was larger than [`Config::max_message_bytes`](crate::Config::max_message_bytes), so the
    /// connection was closed with code 1009. If this happens again on the next connection, the attempt after
    /// that waits for the delays of [`Config::refused_after`](crate::Config::refused_after).
    #[error(
        "the server sent a message of more than {limit} bytes: to accept it, raise \
         `Config::max_message_bytes` (the key `max_message_bytes`)"
    )]
    MessageTooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// The attempt took longer than [`Config::connect_timeout`](crate::Config::connect_timeout).
    #[error("connecting took too long")]
    ConnectTimeout,
    /// Name resolution, TCP or the upgrade failed.
    #[error("connecting failed: {message}")]
    Dial {
        /// The kind of failure.
        kind: DialKind,
        /// The error.
        message: String,
    },
    /// TLS failed, for example because the server's certificate is not trusted.
    #[error("TLS failed: {message}{}", Advice(.kind))]
    Tls {
        /// The kind of failure, which determines the advice in the message.
        kind: TlsKind,
        /// The error.
        message: String,
    },
    /// The proxy replied with an HTTP status other than 2xx. Status 407 means that the proxy credentials
    /// are missing or wrong.
    #[error("the proxy refused the tunnel: {}", OfProxy(.0))]
    ProxyRefused(Refusal),
    /// The SOCKS5 proxy refused the tunnel, because of the credentials or the address.
    #[error("the proxy refused the tunnel: {0}")]
    SocksRefused(SocksRefusal),
    /// The address needs a feature that is not enabled, or can never work. The client does not retry.
    #[error("{message}")]
    Unsupported {
        /// Description of the missing feature or of the problem.
        message: String,
    },
    /// The server replied to the upgrade with an HTTP status other than 101.
    #[error("the server refused the upgrade: {0}")]
    Refused(Refusal),
    /// The credential provider failed. The client retries after a backoff delay.
    #[error("the credential provider failed: {message}")]
    CredentialsFailed {
        /// The error of the credential provider.
        message: String,
    },
    /// The credential provider gave up. The client does not retry.
    #[error("the credential provider gave up: {reason}")]
    CredentialsGaveUp {
        /// The reason of the credential provider.
        reason: String,
    },
    /// The server refused the credentials, and the provider returned no new ones. The client does not
    /// retry.
    #[error("the server refused the credentials, and the credential provider has no others")]
    CredentialsUnchanged,
    /// The server did not reply to a heartbeat in time.
    #[error("the server did not reply to a heartbeat in time")]
    HeartbeatTimeout,
    /// The transport accepted no frame for longer than
    /// [`Config::write_stall_timeout`](crate::Config::write_stall_timeout).
    #[error("the transport accepted no frame for too long")]
    WriteStalled,
    /// The server sent nothing while a join was unanswered, for longer than
    /// [`Config::join_block_max`](crate::Config::join_block_max).
    #[error("the server sent nothing for too long while the join of {topic:?} was unanswered")]
    JoinStalled {
        /// The topic of the join. It is joined last on the next connection.
        topic: Topic,
    },
    /// [`Socket::connect_now`](crate::Socket::connect_now) replaced the attempt.
    #[error("the attempt was replaced by a new one")]
    Superseded,
    /// [`Socket::disconnect`](crate::Socket::disconnect) was called.
    #[error("disconnect was called")]
    LocalDisconnect,
    /// The driver panicked, because of a bug in its transport, its runtime or a codec. This driver ends; a
    /// supervisor starts another one.
    #[error("the driver panicked")]
    DriverPanicked,
}

names! { Cause {
    Self::RemoteClose { .. } => "remote_close",
        Self::RemoteClose { code: Some(1012), reason: "restart".to_owned() };
    Self::TransportLost { .. } => "transport_lost", Self::TransportLost { message: "cut".to_owned() };
    Self::MessageTooLarge { .. } => "message_too_large", Self::MessageTooLarge { limit: 1_000 };
    Self::ConnectTimeout => "connect_timeout", Self::ConnectTimeout;
    Self::Dial { kind: DialKind::Dns, .. } => "dial_dns", dial(DialKind::Dns);
    Self::Dial { kind: DialKind::Refused, .. } => "dial_refused", dial(DialKind::Refused);
    Self::Dial { kind: DialKind::Unreachable, .. } => "dial_unreachable", dial(DialKind::Unreachable);
    Self::Dial { kind: DialKind::TimedOut, .. } => "dial_timed_out", dial(DialKind::TimedOut);
    Self::Dial { kind: DialKind::Tls, .. } => "dial_tls", dial(DialKind::Tls);
    Self::Dial { kind: DialKind::Other, .. } => "dial_other", dial(DialKind::Other);
    Self::Tls { .. } => "tls",
        Self::Tls { kind: TlsKind::UnknownIssuer, message: "not trusted".to_owned() };
    Self::ProxyRefused(_) => "proxy_refused", Self::ProxyRefused(refusal(407));
    Self::SocksRefused(_) => "socks_refused", Self::SocksRefused(SocksRefusal::NotAllowed);
    Self::Unsupported { .. } => "unsupported", Self::Unsupported { message: "no TLS".to_owned() };
    Self::Refused(_) => "refused", Self::Refused(refusal(503));
    Self::CredentialsFailed { .. } => "credentials_failed",
        Self::CredentialsFailed { message: "the vault is sealed".to_owned() };
    Self::CredentialsGaveUp { .. } => "credentials_gave_up",
        Self::CredentialsGaveUp { reason: "signed out".to_owned() };
    Self::CredentialsUnchanged => "credentials_unchanged", Self::CredentialsUnchanged;
    Self::HeartbeatTimeout => "heartbeat_timeout", Self::HeartbeatTimeout;
    Self::WriteStalled => "write_stalled", Self::WriteStalled;
    Self::JoinStalled { .. } => "join_stalled", Self::JoinStalled { topic: "room:slow".into() };
    Self::Superseded => "superseded", Self::Superseded;
    Self::LocalDisconnect => "local_disconnect", Self::LocalDisconnect;
    Self::DriverPanicked => "driver_panicked", Self::DriverPanicked;
} }

#[cfg(any(test, feature = "testing"))]
fn dial(kind: DialKind) -> Cause {
    Cause::Dial { kind, message: "no luck".to_owned() }
}

#[cfg(any(test, feature = "testing"))]
fn refusal(status: u16) -> Refusal {
    Refusal::new(status, vec![("retry-after".to_owned(), "30".to_owned())], "no")
}

fn remote_close(code: &Option<u16>, reason: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match code {
        Some(code) => write!(f, "the server closed the connection with code {code}")?,
        None => f.write_str("the server closed the connection without a code")?,
    }
    if reason.is_empty() { Ok(()) } else { write!(f, ": {}", Excerpt(reason)) }
}

impl Cause {
    /// The kind of dial failure, if this is one: the kind of [`Dial`](Self::Dial), [`DialKind::Tls`] for
    /// [`Tls`](Self::Tls), and [`DialKind::TimedOut`] for [`ConnectTimeout`](Self::ConnectTimeout).
    #[must_use]
    pub const fn dial_kind(&self) -> Option<DialKind> {
        match self {
            Self::Dial { kind, .. } => Some(*kind),
            Self::Tls { .. } => Some(DialKind::Tls),
            Self::ConnectTimeout => Some(DialKind::TimedOut),
            _ => None,
        }
    }

    /// The text inside the cause; empty if it has none.
    #[cfg(any(feature = "driver", feature = "recording"))]
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::RemoteClose { reason: text, .. }
            | Self::TransportLost { message: text }
            | Self::Dial { message: text, .. }
            | Self::Tls { message: text, .. }
            | Self::Unsupported { message: text }
            | Self::CredentialsFailed { message: text }
            | Self::CredentialsGaveUp { reason: text } => text,
            Self::JoinStalled { topic } => topic,
            Self::MessageTooLarge { .. }
            | Self::ConnectTimeout
            | Self::ProxyRefused(_)
            | Self::SocksRefused(_)
            | Self::Refused(_)
            | Self::CredentialsUnchanged
            | Self::HeartbeatTimeout
            | Self::WriteStalled
            | Self::Superseded
            | Self::LocalDisconnect
            | Self::DriverPanicked => "",
        }
    }

    /// The memory that the cause holds, in bytes.
    #[cfg(feature = "driver")]
    pub(crate) fn held_bytes(&self) -> usize {
        match self {
            Self::ProxyRefused(refusal) | Self::Refused(refusal) => refusal.held_bytes(),
            other => other.text().len(),
        }
    }

    /// Replaces the message of a credential provider with `redacted`. The message comes from the application
    /// or from its HTTP client, and may contain the address and the credentials of a request.
    #[cfg(feature = "recording")]
    pub(crate) fn redacted(self, redacted: &str) -> Self {
        let redacted = redacted.to_owned();
        match self {
            Self::CredentialsFailed { .. } => Self::CredentialsFailed { message: redacted },
            Self::CredentialsGaveUp { .. } => Self::CredentialsGaveUp { reason: redacted },
            other => other,
        }
    }

    /// The name in words with its code or topic: `remote close 1012`, `refused 503`.
    pub(crate) const fn brief(&self) -> Brief<'_, Self> {
        Brief(self)
    }
}

/// A short text for traces, which is the same on every machine.
pub(crate) struct Brief<'a, T>(&'a T);

impl fmt::Display for Brief<'_, Cause> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        InWords(self.0.name()).fmt(f)?;
        match self.0 {
            Cause::RemoteClose { code: Some(code), .. } => write!(f, " {code}"),
            Cause::Refused(refusal) => write!(f, " {}", refusal.status()),
            Cause::JoinStalled { topic } => write!(f, " {topic}"),
            _ => Ok(()),
        }
    }
}

/// How an attempt failed before there was an HTTP response.
///
/// ```
/// use phx_proto::Cause;
/// use phx_proto::event::DialKind;
///
/// fn advice(cause: &Cause) -> &'static str {
///     match cause.dial_kind() {
///         Some(DialKind::Dns) => "is the name right?",
///         Some(DialKind::Refused) => "does the server run?",
///         Some(DialKind::Unreachable) => "is there a network?",
///         _ => "see the message",
///     }
/// }
/// # let refused = Cause::Dial { kind: DialKind::Refused, message: String::new() };
/// # assert_eq!(advice(&refused), "does the server run?");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DialKind {
    /// The name could not be resolved, or has no address.
    Dns,
    /// Nothing listens on the port: the server's machine, or a proxy on its behalf, refused the connection.
    Refused,
    /// There is no route to the address, or no network.
    Unreachable,
    /// The operating system or the proxy timed out. An attempt that takes longer than
    /// [`Config::connect_timeout`](crate::Config::connect_timeout) ends with [`Cause::ConnectTimeout`].
    TimedOut,
    /// TLS failed; see [`Cause::Tls`].
    Tls,
    /// Any other failure, such as a stream that ended early or an invalid response.
    Other,
}

/// Why TLS failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TlsKind {
    /// The server's certificate is signed by an authority that is not trusted.
    UnknownIssuer,
    /// The server's certificate is for other names.
    WrongName,
    /// The server's certificate has expired, or this machine's clock is ahead.
    Expired,
    /// The server's certificate is not valid yet, or this machine's clock is behind.
    NotYetValid,
    /// The server's certificate is invalid for another reason, which is in the message.
    BadCertificate,
    /// The server requires a client certificate, and none is configured. With TLS 1.3 the server reports
    /// this only after the handshake.
    CertificateRequired,
    /// The server rejected the client certificate.
    CertificateRefused,
    /// The peer does not speak TLS.
    NotTls,
    /// The connection ended during the handshake.
    Lost,
    /// Any other failure.
    Other,
}

impl TlsKind {
    /// How to fix the failure, with the names of this crate and the keys of a connections document.
    const fn advice(self) -> Option<&'static str> {
        match self {
            Self::UnknownIssuer => Some(
                "if it is the right one, trust its authority with `Roots::pem` (the key `ca_file`)",
            ),
            Self::WrongName => Some(
                "if it is the right one, set the name to verify with `Tls::server_name` (the key \
                 `server_name`)",
            ),
            Self::CertificateRequired => Some(
                "configure one with `Tls::with_identity` (the keys `cert_file` and `key_file`)",
            ),
            _ => None,
        }
    }
}

struct Advice<'a>(&'a TlsKind);

impl fmt::Display for Advice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.advice().map_or(Ok(()), |advice| write!(f, "; {advice}"))
    }
}

/// Why a joined channel was interrupted. The channel is still wanted, and the client joins it again.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Interruption {
    /// The connection was lost. The channel is joined again on the next connection.
    #[error("{0}")]
    Disconnected(Cause),
    /// The channel crashed on the server (`phx_error`). It is joined again after a delay.
    #[error("the channel crashed on the server")]
    Crashed,
    /// The server replied to a push as if the channel did not exist. The channel is joined again.
    #[error("the server does not know the channel any more")]
    Unmatched,
    /// [`Socket::rejoin`](crate::Socket::rejoin) was called, for example by a consumer that fell behind.
    #[error("a rejoin was requested")]
    Resync,
}

impl Interruption {
    /// The name for logs and events. For a disconnect it is the name of the [`Cause`].
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Disconnected(cause) => cause.name(),
            Self::Crashed => "channel_crashed",
            Self::Unmatched => "unmatched_topic",
            Self::Resync => "resync",
        }
    }

    /// The memory that the interruption holds, in bytes.
    #[cfg(feature = "driver")]
    pub(crate) fn held_bytes(&self) -> usize {
        match self {
            Self::Disconnected(cause) => cause.held_bytes(),
            Self::Crashed | Self::Unmatched | Self::Resync => 0,
        }
    }

    pub(crate) const fn brief(&self) -> Brief<'_, Self> {
        Brief(self)
    }
}

impl fmt::Display for Brief<'_, Interruption> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Interruption::Disconnected(cause) => cause.brief().fmt(f),
            other => fmt::Debug::fmt(other, f),
        }
    }
}

/// Why a channel is joined again after a delay.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RejoinCause {
    /// The channel crashed on the server (`phx_error`), or the server replied to a push as if the channel
    /// did not exist.
    #[error("the channel crashed on the server")]
    Crashed,
    /// The channel's `join` crashed on the server ("join crashed").
    #[error("the channel crashed in its join: see the log of the server")]
    JoinCrashed,
    /// [`Socket::rejoin`](crate::Socket::rejoin) was called.
    #[error("a rejoin was requested")]
    Resync,
    /// The reply to the join will not arrive, because the server has replied to a heartbeat that was
    /// written after the join.
    #[error("the server replied to a heartbeat written after the join, but not to the join")]
    JoinUnanswered,
    /// The server refused the join with this response.
    #[error("the server refused the join: {}", reason(.0))]
    Rejected(Payload),
}

names! { RejoinCause {
    Self::Crashed => "crashed";
    Self::JoinCrashed => "join_crashed";
    Self::Resync => "resync";
    Self::JoinUnanswered => "join_unanswered";
    Self::Rejected(_) => "rejected";
} }

/// Why a channel ended. The client does not join it again.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelEnd {
    /// The server closed the channel (`phx_close`).
    #[error("the server closed the channel")]
    ClosedByServer,
    /// The server refused the join, and no retry is left.
    #[error("the server refused the join: {0}")]
    Rejected(Rejection),
    /// The application left the channel.
    #[error("the application left the channel")]
    Left,
    /// The join parameters could not be sent.
    #[error("the join parameters cannot be sent: {message}")]
    InvalidParams {
        /// The problem with the parameters.
        message: String,
    },
    /// The connection gave up.
    #[error("the connection gave up: {0}")]
    GaveUp(Cause),
    /// `disconnect` was called.
    #[error("disconnect was called")]
    Disconnected,
}

impl ChannelEnd {
    /// The name for logs and events. For a refused join it is the name of the [`RejectionKind`], and after
    /// the connection gave up it is the name of the [`Cause`].
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::ClosedByServer => "closed_by_server",
            Self::Rejected(rejection) => rejection.kind.name(),
            Self::Left => "left",
            Self::InvalidParams { .. } => "invalid_params",
            Self::GaveUp(cause) => cause.name(),
            Self::Disconnected => "disconnected",
        }
    }

    pub(crate) const fn brief(&self) -> Brief<'_, Self> {
        Brief(self)
    }
}

impl fmt::Display for Brief<'_, ChannelEnd> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ChannelEnd::Rejected(rejection) => write!(f, "Rejected, {:?}", rejection.kind),
            ChannelEnd::GaveUp(cause) => write!(f, "GaveUp, {}", cause.brief()),
            other => fmt::Debug::fmt(other, f),
        }
    }
}

/// A refused join. `Display` shows at most 200 characters of the server's reason, on one line.
///
/// ```
/// use phx_proto::Payload;
/// use phx_proto::event::{Rejection, RejectionKind};
///
/// let response = Payload::from(serde_json::json!({"reason": "unauthorized"}));
/// let rejection = Rejection::new(RejectionKind::Application, response);
/// assert_eq!(rejection.to_string(), "unauthorized");
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Rejection {
    /// The kind of refusal.
    pub kind: RejectionKind,
    /// The server's response, not parsed.
    pub response: Payload,
}

impl Rejection {
    /// Creates a refusal of this kind.
    #[must_use]
    pub fn new(kind: RejectionKind, response: impl Into<Payload>) -> Self {
        Self { kind, response: response.into() }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            RejectionKind::Application => f.write_str(&reason(&self.response)),
            RejectionKind::UnmatchedTopic => {
                f.write_str("no channel of the server matches the topic")
            }
            RejectionKind::JoinCrashed => {
                f.write_str("the channel crashed in its join: see the log of the server")
            }
            RejectionKind::TooManyChannels => {
                f.write_str("the connection has reached the server's limit of channels")
            }
        }
    }
}

impl core::error::Error for Rejection {}

/// The kind of a refused join: a refusal of the application, or one of Phoenix itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RejectionKind {
    /// The application's `join` returned an error. The response has its reason.
    Application,
    /// No channel of the server matches the topic (`wire/join_unmatched_topic`).
    UnmatchedTopic,
    /// The application's `join` raised ("join crashed"; `wire/join_crash`). The client retries with
    /// backoff.
    JoinCrashed,
    /// The socket has reached the server's limit of channels (`wire/join_too_many_channels`).
    TooManyChannels,
}

names! { RejectionKind {
    Self::Application => "rejected";
    Self::UnmatchedTopic => "unmatched_topic";
    Self::JoinCrashed => "join_crashed";
    Self::TooManyChannels => "too_many_channels";
} }

/// How a push ended. Every accepted push has exactly one outcome.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PushOutcome {
    /// The server replied.
    #[error("the server replied {:?}: {}", .0.status, reason(&.0.response))]
    Reply(Reply),
    /// A cast was written. Whether the server handled it is not known.
    #[error("the push was written")]
    Written,
    /// The push was written, and no reply arrived in time. The server may have handled it.
    #[error("no reply came in time")]
    TimedOut,
    /// The push was written, and no reply can arrive any more. The server may have handled it.
    #[error("the push was sent and its outcome is unknown: {0}")]
    Unknown(UnknownCause),
    /// The push was never written, so it is safe to push again.
    #[error("the push was not sent: {0}")]
    NotSent(NotSentCause),
    /// The caller cancelled the push.
    #[error("the push was cancelled")]
    Cancelled,
}

names! { PushOutcome {
    Self::Reply(_) => "replied";
    Self::Written => "written";
    Self::TimedOut => "timed_out";
    Self::Unknown(_) => "unknown";
    Self::NotSent(_) => "not_sent";
    Self::Cancelled => "cancelled";
} }

impl PushOutcome {
    pub(crate) const fn brief(&self) -> Brief<'_, Self> {
        Brief(self)
    }
}

impl fmt::Display for Brief<'_, PushOutcome> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            PushOutcome::Reply(reply) => write!(f, "Reply {}", reply.status),
            other => fmt::Debug::fmt(other, f),
        }
    }
}

/// A reply to a push.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Reply {
    /// The status: `ok`, `error`, or any other string of the server (`wire/push_replies`).
    pub status: ByteStr,
    /// The response: any JSON value, or bytes.
    pub response: Payload,
}

impl Reply {
    /// Creates a reply with this status.
    #[must_use]
    pub fn new(status: impl Into<ByteStr>, response: impl Into<Payload>) -> Self {
        Self { status: status.into(), response: response.into() }
    }
}

/// Why it is unknown whether the server handled a written push.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnknownCause {
    /// The connection was lost.
    #[error("the connection was lost")]
    Disconnected,
    /// The channel crashed on the server, which then sends no replies (`wire/channel_crash`).
    #[error("the channel crashed on the server")]
    ChannelCrashed,
    /// The server closed the channel.
    #[error("the server closed the channel")]
    ChannelClosed,
    /// A new join replaces the channel. The server does not reply to pushes of the old instance
    /// (`wire/join_double`).
    #[error("a new join replaced the channel")]
    ChannelReplaced,
    /// The application left the channel.
    #[error("the application left the channel")]
    Left,
}

names! { UnknownCause {
    Self::Disconnected => "disconnected";
    Self::ChannelCrashed => "channel_crashed";
    Self::ChannelClosed => "channel_closed";
    Self::ChannelReplaced => "channel_replaced";
    Self::Left => "left";
} }

/// Why a push was never written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotSentCause {
    /// The push timed out while it waited for the channel.
    #[error("it timed out while it waited for the channel")]
    TimedOut,
    /// The push was made with [`fail_fast`](crate::PushOptions::fail_fast), and the channel was interrupted
    /// before the push was written.
    #[error("the channel was interrupted")]
    Interrupted,
    /// The server closed the channel.
    #[error("the server closed the channel")]
    ChannelClosed,
    /// The application left the channel.
    #[error("the application left the channel")]
    Left,
    /// The server refused the join, and no retry is left.
    #[error("the server refused the join")]
    JoinRejected,
    /// The connection gave up.
    #[error("the connection gave up")]
    GaveUp,
    /// `disconnect` was called.
    #[error("disconnect was called")]
    Disconnected,
    /// The push could not be encoded, or its frame exceeded the limit.
    #[error("it cannot be encoded, or its frame is too large")]
    Encoding,
}

names! { NotSentCause {
    Self::TimedOut => "timed_out";
    Self::Interrupted => "interrupted";
    Self::ChannelClosed => "channel_closed";
    Self::Left => "left";
    Self::JoinRejected => "join_rejected";
    Self::GaveUp => "gave_up";
    Self::Disconnected => "disconnected";
    Self::Encoding => "encoding";
} }

/// How a leave ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LeaveOutcome {
    /// The server confirmed the leave (`wire/leave_ok`), or the channel ended on the server meanwhile.
    #[error("the server confirmed the leave")]
    Acked,
    /// The server did not confirm the leave in time.
    #[error("the server did not confirm the leave in time")]
    TimedOut,
    /// The connection was lost before the confirmation, which ends the channel on the server too.
    #[error("the connection ended before the leave was confirmed")]
    Offline,
    /// The channel was not joined on the server, so nothing was sent.
    #[error("the channel was not joined on the server")]
    Local,
}

names! { LeaveOutcome {
    Self::Acked => "acked";
    Self::TimedOut => "timed_out";
    Self::Offline => "offline";
    Self::Local => "local";
} }

/// The next step after a connection was lost, or an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NextStep {
    /// Another attempt follows after this delay.
    Retry {
        /// The delay before the attempt.
        delay: Duration,
        /// The number of the attempt, from 1.
        attempt: u32,
    },
    /// The caller requested a new connection, which is dialled at once.
    Reconnect,
    /// No attempt follows: the connection gave up, or the caller closed it.
    Stop,
}
