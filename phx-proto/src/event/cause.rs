//! Why things ended: connections, channels, pushes and leaves.
//!
//! Causes are kept whole (close code, HTTP answer, the server's own words), because a policy can
//! only be right about what it can see.

use core::fmt;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use crate::event::excerpt::{Excerpt, reason};
use crate::event::refusal::{OfProxy, Refusal, SocksRefusal};
use crate::topic::Topic;
use crate::wire::ByteStr;
use crate::wire::payload::Payload;

/// Why a connection, or an attempt at one, ended.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Cause {
    /// The server sent a close frame.
    RemoteClose {
        /// Its code, if it had one.
        code: Option<u16>,
        /// Its reason; Phoenix leaves it empty.
        reason: String,
    },
    /// The transport ended without a close frame: a killed server, a cut network, a reset.
    TransportLost {
        /// What the transport said.
        message: String,
    },
    /// A message was larger than [`Config::max_message_bytes`](crate::Config::max_message_bytes);
    /// the connection was closed with code 1009. When it happens again on the next connection, the
    /// attempt after that waits by [`Config::refused_after`](crate::Config::refused_after).
    MessageTooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// The attempt took longer than [`Config::connect_timeout`](crate::Config::connect_timeout).
    ConnectTimeout,
    /// Name resolution, TCP or the upgrade failed.
    Dial {
        /// Which of these, and how.
        kind: DialKind,
        /// What failed.
        message: String,
    },
    /// TLS failed: the server's certificate is not trusted, say.
    Tls {
        /// Whose fault it is, to say what to do about it.
        kind: TlsKind,
        /// What failed.
        message: String,
    },
    /// The proxy answered with an HTTP status other than 2xx. 407 says that it wants credentials,
    /// or others than these.
    ProxyRefused(Refusal),
    /// The SOCKS5 proxy refused the tunnel: it wants credentials, or forbids the address.
    SocksRefused(SocksRefusal),
    /// The address asks for something that is not built in, or can never work. Final.
    Unsupported {
        /// What it is.
        message: String,
    },
    /// The server answered the upgrade with an HTTP status other than 101.
    Refused(Refusal),
    /// The credential provider failed; the attempt counts as a failure with backoff.
    CredentialsFailed {
        /// What it said.
        message: String,
    },
    /// The credential provider gave up. Final.
    CredentialsGaveUp {
        /// Its reason.
        reason: String,
    },
    /// The credential provider had nothing new after the server refused what it gave. Final.
    CredentialsUnchanged,
    /// A heartbeat went unanswered.
    HeartbeatTimeout,
    /// The transport took no frame for too long.
    WriteStalled,
    /// A join kept the socket silent for longer than
    /// [`Config::join_block_max`](crate::Config::join_block_max).
    JoinStalled {
        /// The topic whose join it was; it is joined last on the next connection.
        topic: Topic,
    },
    /// [`Socket::connect_now`](crate::Socket::connect_now) replaced the attempt.
    Superseded,
    /// [`Socket::disconnect`](crate::Socket::disconnect) was called.
    LocalDisconnect,
    /// The driver panicked: a bug of its transport, its runtime or a codec. Final for this
    /// driver; a supervisor starts another one.
    DriverPanicked,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RemoteClose { code, reason } => {
                match code {
                    Some(code) => write!(f, "the server closed the connection with code {code}")?,
                    None => f.write_str("the server closed the connection without a code")?,
                }
                if reason.is_empty() { Ok(()) } else { write!(f, ": {}", Excerpt(reason)) }
            }
            Self::TransportLost { message } => write!(f, "the connection was lost: {message}"),
            Self::MessageTooLarge { limit } => {
                write!(
                    f,
                    "the server sent a message of more than {limit} bytes; if it may, raise \
                     `Config::max_message_bytes` (the key `max_message_bytes`)"
                )
            }
            Self::ConnectTimeout => f.write_str("connecting took too long"),
            Self::Dial { message, .. } => write!(f, "connecting failed: {message}"),
            Self::Tls { kind, message } => {
                write!(f, "TLS failed: {message}")?;
                kind.advice().map_or(Ok(()), |advice| write!(f, "; {advice}"))
            }
            Self::ProxyRefused(refusal) => {
                write!(f, "the proxy refused the tunnel: {}", OfProxy(refusal))
            }
            Self::SocksRefused(refusal) => {
                write!(f, "the proxy refused the tunnel: {refusal}")
            }
            Self::Unsupported { message } => f.write_str(message),
            Self::Refused(refusal) => write!(f, "the server refused the upgrade: {refusal}"),
            Self::CredentialsFailed { message } => {
                write!(f, "the credential provider failed: {message}")
            }
            Self::CredentialsGaveUp { reason } => {
                write!(f, "the credential provider gave up: {reason}")
            }
            Self::CredentialsUnchanged => {
                f.write_str("the server refused the credentials and there are no others")
            }
            Self::HeartbeatTimeout => f.write_str("a heartbeat went unanswered"),
            Self::WriteStalled => f.write_str("the transport took no frame for too long"),
            Self::JoinStalled { topic } => {
                write!(f, "the join of {topic:?} kept the socket silent for too long")
            }
            Self::Superseded => f.write_str("the attempt was replaced by a new one"),
            Self::LocalDisconnect => f.write_str("disconnect was called"),
            Self::DriverPanicked => f.write_str("the driver panicked"),
        }
    }
}

/// How an attempt failed before there was an HTTP answer.
///
/// ```
/// use phx_proto::{Cause, DialKind};
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

/// The source is the server's HTTP answer, where there is one.
impl core::error::Error for Cause {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            Self::SocksRefused(refusal) => Some(refusal),
            _ => None,
        }
    }
}

/// A [`Cause`] without its details, to count by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum CauseKind {
    /// [`Cause::RemoteClose`].
    RemoteClose,
    /// [`Cause::TransportLost`].
    TransportLost,
    /// [`Cause::MessageTooLarge`].
    MessageTooLarge,
    /// [`Cause::ConnectTimeout`].
    ConnectTimeout,
    /// [`Cause::Dial`].
    Dial(DialKind),
    /// [`Cause::Tls`].
    Tls,
    /// [`Cause::ProxyRefused`].
    ProxyRefused,
    /// [`Cause::SocksRefused`].
    SocksRefused,
    /// [`Cause::Unsupported`].
    Unsupported,
    /// [`Cause::Refused`].
    Refused,
    /// [`Cause::CredentialsFailed`].
    CredentialsFailed,
    /// [`Cause::CredentialsGaveUp`].
    CredentialsGaveUp,
    /// [`Cause::CredentialsUnchanged`].
    CredentialsUnchanged,
    /// [`Cause::HeartbeatTimeout`].
    HeartbeatTimeout,
    /// [`Cause::WriteStalled`].
    WriteStalled,
    /// [`Cause::JoinStalled`].
    JoinStalled,
    /// [`Cause::Superseded`].
    Superseded,
    /// [`Cause::LocalDisconnect`].
    LocalDisconnect,
    /// [`Cause::DriverPanicked`].
    DriverPanicked,
}

impl CauseKind {
    /// A name for logs and metrics: `heartbeat_timeout`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RemoteClose => "remote_close",
            Self::TransportLost => "transport_lost",
            Self::MessageTooLarge => "message_too_large",
            Self::ConnectTimeout => "connect_timeout",
            Self::Dial(DialKind::Dns) => "dial_dns",
            Self::Dial(DialKind::Refused) => "dial_refused",
            Self::Dial(DialKind::Unreachable) => "dial_unreachable",
            Self::Dial(DialKind::TimedOut) => "dial_timed_out",
            Self::Dial(DialKind::Tls) => "dial_tls",
            Self::Dial(DialKind::Other) => "dial_other",
            Self::Tls => "tls",
            Self::ProxyRefused => "proxy_refused",
            Self::SocksRefused => "socks_refused",
            Self::Unsupported => "unsupported",
            Self::Refused => "refused",
            Self::CredentialsFailed => "credentials_failed",
            Self::CredentialsGaveUp => "credentials_gave_up",
            Self::CredentialsUnchanged => "credentials_unchanged",
            Self::HeartbeatTimeout => "heartbeat_timeout",
            Self::WriteStalled => "write_stalled",
            Self::JoinStalled => "join_stalled",
            Self::Superseded => "superseded",
            Self::LocalDisconnect => "local_disconnect",
            Self::DriverPanicked => "driver_panicked",
        }
    }
}

impl Cause {
    /// Which kind of cause it is.
    #[must_use]
    pub const fn kind(&self) -> CauseKind {
        match self {
            Self::RemoteClose { .. } => CauseKind::RemoteClose,
            Self::TransportLost { .. } => CauseKind::TransportLost,
            Self::MessageTooLarge { .. } => CauseKind::MessageTooLarge,
            Self::ConnectTimeout => CauseKind::ConnectTimeout,
            Self::Dial { kind, .. } => CauseKind::Dial(*kind),
            Self::Tls { .. } => CauseKind::Tls,
            Self::ProxyRefused(_) => CauseKind::ProxyRefused,
            Self::SocksRefused(_) => CauseKind::SocksRefused,
            Self::Unsupported { .. } => CauseKind::Unsupported,
            Self::Refused(_) => CauseKind::Refused,
            Self::CredentialsFailed { .. } => CauseKind::CredentialsFailed,
            Self::CredentialsGaveUp { .. } => CauseKind::CredentialsGaveUp,
            Self::CredentialsUnchanged => CauseKind::CredentialsUnchanged,
            Self::HeartbeatTimeout => CauseKind::HeartbeatTimeout,
            Self::WriteStalled => CauseKind::WriteStalled,
            Self::JoinStalled { .. } => CauseKind::JoinStalled,
            Self::Superseded => CauseKind::Superseded,
            Self::LocalDisconnect => CauseKind::LocalDisconnect,
            Self::DriverPanicked => CauseKind::DriverPanicked,
        }
    }
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
}

/// Why a joined channel stopped being joined while it was still wanted.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Interruption {
    /// The connection was lost; the channel is joined again once there is another.
    Disconnected(Cause),
    /// The server's channel crashed (`phx_error`); it is joined again after a delay.
    Crashed,
    /// The server answered a push as if the channel did not exist; it is joined again.
    Unmatched,
    /// [`Socket::rejoin`](crate::Socket::rejoin) was called, by a consumer that fell behind, say.
    Resync,
}

impl fmt::Display for Interruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disconnected(cause) => cause.fmt(f),
            Self::Crashed => f.write_str("the channel crashed on the server"),
            Self::Unmatched => f.write_str("the server does not know the channel any more"),
            Self::Resync => f.write_str("the channel is joined anew on request"),
        }
    }
}

/// Why the core goes on to join a channel again after a delay.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum RejoinCause {
    /// The server's channel crashed (`phx_error`), or answered a push as if it did not exist.
    Crashed,
    /// The join itself crashed on the server ("join crashed").
    JoinCrashed,
    /// [`Socket::rejoin`](crate::Socket::rejoin) was called.
    Resync,
    /// The reply to the join will never come: a heartbeat written after it was answered.
    JoinUnanswered,
    /// The server refused the join with this response.
    Rejected(Payload),
}

/// Why a channel ended. It is not joined again by itself.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ChannelEnd {
    /// The server closed the channel (`phx_close`).
    ClosedByServer,
    /// The server refused the join for good.
    Rejected(Rejection),
    /// The application left.
    Left,
    /// The join parameters could not be sent.
    InvalidParams {
        /// What is wrong with them.
        message: String,
    },
    /// The connection gave up.
    GaveUp(Cause),
    /// `disconnect` was called.
    Disconnected,
}

impl fmt::Display for ChannelEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClosedByServer => f.write_str("the server closed the channel"),
            Self::Rejected(rejection) => write!(f, "the server refused the join: {rejection}"),
            Self::Left => f.write_str("the application left the channel"),
            Self::InvalidParams { message } => {
                write!(f, "the join parameters cannot be sent: {message}")
            }
            Self::GaveUp(cause) => write!(f, "the connection gave up: {cause}"),
            Self::Disconnected => f.write_str("disconnect was called"),
        }
    }
}

/// A refused join. `Display` gives the server's reason, on one line and not more than 200
/// characters of it.
///
/// ```
/// use phx_proto::{Payload, Rejection, RejectionKind};
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

/// How a push ended. Every accepted push has exactly one outcome.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum PushOutcome {
    /// The server replied.
    Reply(Reply),
    /// A cast was written; nothing more is known of it.
    Written,
    /// It was written, and no reply came in time. The server may have handled it.
    TimedOut,
    /// It was written, and no reply can come any more. The server may have handled it.
    Unknown(UnknownCause),
    /// It was never written: safe to push again.
    NotSent(NotSentCause),
    /// The caller withdrew it.
    Cancelled,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UnknownCause {
    /// The connection was lost.
    Disconnected,
    /// The server's channel crashed (`wire/channel_crash`: no reply is sent).
    ChannelCrashed,
    /// The server closed the channel.
    ChannelClosed,
    /// The channel is being replaced by a new join (`wire/join_double`: the server answers
    /// nothing of the old one).
    ChannelReplaced,
    /// The application left the channel.
    Left,
}

impl fmt::Display for UnknownCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disconnected => "the connection was lost",
            Self::ChannelCrashed => "the channel crashed on the server",
            Self::ChannelClosed => "the server closed the channel",
            Self::ChannelReplaced => "the channel is joined again",
            Self::Left => "the application left the channel",
        })
    }
}

/// Why a push was never written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotSentCause {
    /// Its time ran out while it waited for the channel.
    TimedOut,
    /// It was to [fail fast](crate::PushOptions::fail_fast), and the channel was interrupted
    /// before it was written.
    Interrupted,
    /// The server closed the channel.
    ChannelClosed,
    /// The application left the channel.
    Left,
    /// The server refused the join for good.
    JoinRejected,
    /// The connection gave up.
    GaveUp,
    /// `disconnect` was called.
    Disconnected,
    /// It could not be encoded, or grew over the limit with its envelope.
    Encoding,
}

impl fmt::Display for NotSentCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TimedOut => "its time ran out while it waited for the channel",
            Self::Interrupted => "the channel was interrupted",
            Self::ChannelClosed => "the server closed the channel",
            Self::Left => "the application left the channel",
            Self::JoinRejected => "the server refused the join",
            Self::GaveUp => "the connection gave up",
            Self::Disconnected => "disconnect was called",
            Self::Encoding => "it cannot be encoded, or is too large with its envelope",
        })
    }
}

/// How a leave ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LeaveOutcome {
    /// The server confirmed it, in one of the ways it does (`wire/leave_ok`).
    Acked,
    /// The server did not confirm it in time.
    TimedOut,
    /// The connection was lost first, which ends the channel too.
    Offline,
    /// Nothing of the channel was on the server.
    Local,
}

/// What happens next after a connection was lost.
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
