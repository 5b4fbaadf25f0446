//! Why things ended: connections, channels, pushes and leaves.
//!
//! Causes are kept whole (close code, HTTP answer, the server's own words), because a policy can
//! only be right about what it can see.
//!
//! The text of each is whole too, and one line: what it holds is part of it. So its `source()` is what
//! comes after the text, most often nothing, and a chain of sources repeats no text.

use core::fmt;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use crate::event::excerpt::{Excerpt, reason};
use crate::event::names::{InWords, names};
use crate::event::refusal::{OfProxy, Refusal, SocksRefusal};
use crate::topic::Topic;
use crate::wire::ByteStr;
use crate::wire::payload::Payload;

/// Why a connection, or an attempt at one, ended.
///
/// A driver reports those of a failed attempt to
/// [`Socket::handle_failed`](crate::Socket::handle_failed); the socket adds its own.
///
/// It is serialized for recordings and logs: of a [`Refusal`] its status and how long to wait.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Cause {
    /// The server sent a close frame.
    #[error(fmt = remote_close)]
    RemoteClose {
        /// Its code, if it had one.
        code: Option<u16>,
        /// Its reason; Phoenix leaves it empty.
        reason: String,
    },
    /// The transport ended without a close frame: a killed server, a cut network, a reset.
    #[error("the connection was lost: {message}")]
    TransportLost {
        /// What the transport said.
        message: String,
    },
    /// A message was larger than [`Config::max_message_bytes`](crate::Config::max_message_bytes);
    /// the connection was closed with code 1009. When it happens again on the next connection, the
    /// attempt after that waits by [`Config::refused_after`](crate::Config::refused_after).
    #[error(
        "the server sent a message of more than {limit} bytes; if it may, raise \
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
        /// Which of these, and how.
        kind: DialKind,
        /// What failed.
        message: String,
    },
    /// TLS failed: the server's certificate is not trusted, say.
    #[error("TLS failed: {message}{}", Advice(.kind))]
    Tls {
        /// Whose fault it is, to say what to do about it.
        kind: TlsKind,
        /// What failed.
        message: String,
    },
    /// The proxy answered with an HTTP status other than 2xx. 407 says that it wants credentials,
    /// or others than these.
    #[error("the proxy refused the tunnel: {}", OfProxy(.0))]
    ProxyRefused(Refusal),
    /// The SOCKS5 proxy refused the tunnel: it wants credentials, or forbids the address.
    #[error("the proxy refused the tunnel: {0}")]
    SocksRefused(SocksRefusal),
    /// The address asks for something that is not built in, or can never work. Final.
    #[error("{message}")]
    Unsupported {
        /// What it is.
        message: String,
    },
    /// The server answered the upgrade with an HTTP status other than 101.
    #[error("the server refused the upgrade: {0}")]
    Refused(Refusal),
    /// The credential provider failed; the attempt counts as a failure with backoff.
    #[error("the credential provider failed: {message}")]
    CredentialsFailed {
        /// What it said.
        message: String,
    },
    /// The credential provider gave up. Final.
    #[error("the credential provider gave up: {reason}")]
    CredentialsGaveUp {
        /// Its reason.
        reason: String,
    },
    /// The credential provider had nothing new after the server refused what it gave. Final.
    #[error("the server refused the credentials and there are no others")]
    CredentialsUnchanged,
    /// A heartbeat went unanswered.
    #[error("a heartbeat went unanswered")]
    HeartbeatTimeout,
    /// The transport took no frame for too long.
    #[error("the transport took no frame for too long")]
    WriteStalled,
    /// A join kept the socket silent for longer than
    /// [`Config::join_block_max`](crate::Config::join_block_max).
    #[error("the join of {topic:?} kept the socket silent for too long")]
    JoinStalled {
        /// The topic whose join it was; it is joined last on the next connection.
        topic: Topic,
    },
    /// [`Socket::connect_now`](crate::Socket::connect_now) replaced the attempt.
    #[error("the attempt was replaced by a new one")]
    Superseded,
    /// [`Socket::disconnect`](crate::Socket::disconnect) was called.
    #[error("disconnect was called")]
    LocalDisconnect,
    /// The driver panicked: a bug of its transport, its runtime or a codec. Final for this
    /// driver; a supervisor starts another one.
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
    /// How dialling failed, if it did: the kind of [`Dial`](Self::Dial), [`DialKind::Tls`] for
    /// [`Tls`](Self::Tls), [`DialKind::TimedOut`] for [`ConnectTimeout`](Self::ConnectTimeout).
    #[must_use]
    pub const fn dial_kind(&self) -> Option<DialKind> {
        match self {
            Self::Dial { kind, .. } => Some(*kind),
            Self::Tls { .. } => Some(DialKind::Tls),
            Self::ConnectTimeout => Some(DialKind::TimedOut),
            _ => None,
        }
    }

    /// The text that it holds; empty where there is none.
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

    /// The bytes that it holds in memory.
    #[cfg(feature = "driver")]
    pub(crate) fn held_bytes(&self) -> usize {
        match self {
            Self::ProxyRefused(refusal) | Self::Refused(refusal) => refusal.held_bytes(),
            other => other.text().len(),
        }
    }

    /// The same without the words of a credential provider: they are those of the application, or of
    /// its HTTP client, which may print the address and the credentials of its request.
    #[cfg(feature = "recording")]
    pub(crate) fn redacted(self, redacted: &str) -> Self {
        let redacted = redacted.to_owned();
        match self {
            Self::CredentialsFailed { .. } => Self::CredentialsFailed { message: redacted },
            Self::CredentialsGaveUp { .. } => Self::CredentialsGaveUp { reason: redacted },
            other => other,
        }
    }

    /// The name in words, and what tells it apart: `remote close 1012`, `refused 503`.
    pub(crate) const fn brief(&self) -> Brief<'_, Self> {
        Brief(self)
    }
}

/// Few words that say the same on every machine, for traces.
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

/// How an attempt failed before there was an HTTP answer.
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
    /// The server's machine, or a proxy in its name, refused the connection: nothing listens on
    /// the port.
    Refused,
    /// There is no way to the address: no route, no network.
    Unreachable,
    /// The operating system or the proxy gave up waiting. An attempt that outlasts
    /// [`Config::connect_timeout`](crate::Config::connect_timeout) is [`Cause::ConnectTimeout`].
    TimedOut,
    /// TLS failed, which is [`Cause::Tls`].
    Tls,
    /// Anything else: a stream that ended in the middle, an answer that makes no sense.
    Other,
}

/// Why TLS failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TlsKind {
    /// The server's certificate is signed by an authority that is not trusted.
    UnknownIssuer,
    /// The server's certificate bears other names.
    WrongName,
    /// The server's certificate has expired, or this machine's clock is ahead.
    Expired,
    /// The server's certificate is not valid yet, or this machine's clock is behind.
    NotYetValid,
    /// The server's certificate cannot be used for another reason, which the message has.
    BadCertificate,
    /// The server wants a certificate of the client, and was shown none. With TLS 1.3 it says so
    /// only after the handshake.
    CertificateRequired,
    /// The server does not accept the certificate that it was shown.
    CertificateRefused,
    /// What answers does not speak TLS.
    NotTls,
    /// The connection ended in the handshake.
    Lost,
    /// Anything else.
    Other,
}

impl TlsKind {
    /// What to do about it, in terms of this crate and of the keys of a connections document.
    const fn advice(self) -> Option<&'static str> {
        match self {
            Self::UnknownIssuer => Some(
                "if it is the right one, trust its authority with `Roots::pem` (the key `ca_file`)",
            ),
            Self::WrongName => Some(
                "if it is the right one, say which name to verify with `Tls::server_name` (the key \
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

/// Why a joined channel stopped being joined while it was still wanted.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Interruption {
    /// The connection was lost; the channel is joined again once there is another.
    #[error("{0}")]
    Disconnected(Cause),
    /// The server's channel crashed (`phx_error`); it is joined again after a delay.
    #[error("the channel crashed on the server")]
    Crashed,
    /// The server answered a push as if the channel did not exist; it is joined again.
    #[error("the server does not know the channel any more")]
    Unmatched,
    /// [`Socket::rejoin`](crate::Socket::rejoin) was called, by a consumer that fell behind, say.
    #[error("the channel is joined anew on request")]
    Resync,
}

impl Interruption {
    /// The name for logs and events: that of the [`Cause`], where there is one.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Disconnected(cause) => cause.name(),
            Self::Crashed => "channel_crashed",
            Self::Unmatched => "unmatched_topic",
            Self::Resync => "resync",
        }
    }

    /// The bytes that it holds in memory.
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

/// Why the core goes on to join a channel again after a delay.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RejoinCause {
    /// The server's channel crashed (`phx_error`), or answered a push as if it did not exist.
    #[error("the channel crashed on the server")]
    Crashed,
    /// The join itself crashed on the server ("join crashed").
    #[error("the channel crashed in its join: see the log of the server")]
    JoinCrashed,
    /// [`Socket::rejoin`](crate::Socket::rejoin) was called.
    #[error("a rejoin was requested")]
    Resync,
    /// The reply to the join will never come: a heartbeat written after it was answered.
    #[error("the server did not answer the join, and answered a heartbeat written after it")]
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

/// Why a channel ended. It is not joined again by itself.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelEnd {
    /// The server closed the channel (`phx_close`).
    #[error("the server closed the channel")]
    ClosedByServer,
    /// The server refused the join for good.
    #[error("the server refused the join: {0}")]
    Rejected(Rejection),
    /// The application left.
    #[error("the application left the channel")]
    Left,
    /// The join parameters could not be sent.
    #[error("the join parameters cannot be sent: {message}")]
    InvalidParams {
        /// What is wrong with them.
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
    /// The name for logs and events: that of the refusal or of the [`Cause`], where there is one.
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

/// A refused join. `Display` gives the server's reason, on one line and not more than 200
/// characters of it.
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
    /// What kind of refusal it is.
    pub kind: RejectionKind,
    /// The server's response, untouched.
    pub response: Payload,
}

impl Rejection {
    /// A refusal of this kind.
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
                f.write_str("the channel crashed in its join: the server's log says why")
            }
            RejectionKind::TooManyChannels => {
                f.write_str("the connection has as many channels as the server allows")
            }
        }
    }
}

impl core::error::Error for Rejection {}

/// The refusals that Phoenix itself makes, told apart from the application's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RejectionKind {
    /// The channel's `join` said no; the response holds its reason.
    Application,
    /// No channel of the server matches the topic (`wire/join_unmatched_topic`).
    UnmatchedTopic,
    /// The server's `join` raised ("join crashed"; `wire/join_crash`). Tried again with backoff.
    JoinCrashed,
    /// The socket has as many channels as the server allows (`wire/join_too_many_channels`).
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
    /// A cast was written; nothing more is known of it.
    #[error("the push was written")]
    Written,
    /// It was written, and no reply came in time. The server may have handled it.
    #[error("no reply came in time")]
    TimedOut,
    /// It was written, and no reply can come any more. The server may have handled it.
    #[error("the push was sent and its outcome is unknown: {0}")]
    Unknown(UnknownCause),
    /// It was never written: safe to push again.
    #[error("the push was not sent: {0}")]
    NotSent(NotSentCause),
    /// The caller withdrew it.
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
    /// `ok`, `error`, or whatever the server says (`wire/push_replies`).
    pub status: ByteStr,
    /// The response: any JSON value, or bytes.
    pub response: Payload,
}

impl Reply {
    /// A reply with this status.
    #[must_use]
    pub fn new(status: impl Into<ByteStr>, response: impl Into<Payload>) -> Self {
        Self { status: status.into(), response: response.into() }
    }
}

/// Why the fate of a written push is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnknownCause {
    /// The connection was lost.
    #[error("the connection was lost")]
    Disconnected,
    /// The server's channel crashed (`wire/channel_crash`: no reply is sent).
    #[error("the channel crashed on the server")]
    ChannelCrashed,
    /// The server closed the channel.
    #[error("the server closed the channel")]
    ChannelClosed,
    /// The channel is being replaced by a new join (`wire/join_double`: the server answers
    /// nothing of the old one).
    #[error("the channel is joined again")]
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
    /// Its time ran out while it waited for the channel.
    #[error("its time ran out while it waited for the channel")]
    TimedOut,
    /// It was to [fail fast](crate::PushOptions::fail_fast), and the channel was interrupted
    /// before it was written.
    #[error("the channel was interrupted")]
    Interrupted,
    /// The server closed the channel.
    #[error("the server closed the channel")]
    ChannelClosed,
    /// The application left the channel.
    #[error("the application left the channel")]
    Left,
    /// The server refused the join for good.
    #[error("the server refused the join")]
    JoinRejected,
    /// The connection gave up.
    #[error("the connection gave up")]
    GaveUp,
    /// `disconnect` was called.
    #[error("disconnect was called")]
    Disconnected,
    /// It could not be encoded, or grew over the limit with its envelope.
    #[error("it cannot be encoded, or is too large with its envelope")]
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
    /// The server confirmed it, in one of the ways it does (`wire/leave_ok`).
    #[error("the server confirmed the leave")]
    Acked,
    /// The server did not confirm it in time.
    #[error("the server did not confirm the leave in time")]
    TimedOut,
    /// The connection was lost first, which ends the channel too.
    #[error("the connection ended before the leave was confirmed")]
    Offline,
    /// Nothing of the channel was on the server.
    #[error("the server did not hold the channel")]
    Local,
}

names! { LeaveOutcome {
    Self::Acked => "acked";
    Self::TimedOut => "timed_out";
    Self::Offline => "offline";
    Self::Local => "local";
} }

/// What happens next after a connection was lost, or an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NextStep {
    /// Another attempt follows after this delay.
    Retry {
        /// The delay that was chosen.
        delay: Duration,
        /// Which attempt it will be, from 1.
        attempt: u32,
    },
    /// A new connection was asked for and is dialled at once.
    Reconnect,
    /// Nothing: the connection gave up, or was closed on request.
    Stop,
}
