//! Recorded inputs: everything that affects the core, with secrets redacted.

use core::fmt;

use serde::{Deserialize, Serialize};

use super::config::{CredentialsRecord, Nanos, ParamsRecord, REDACTED};
use super::redact::{FrameRecord, PayloadRecord};
use crate::config::ConfigError;
use crate::config::join_params::JoinParams;
use crate::event::cause::Cause;
use crate::event::input::{Ended, Input, Opened, Progress, PushOptions};
use crate::id::{ConnectionId, InterestId, PushId};
use crate::socket::Socket;
use crate::topic::Topic;
use crate::wire::Codec;

const fn is_zero(bytes: &u64) -> bool {
    *bytes == 0
}

/// The record of an [`Input`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum InputRecord {
    Connect,
    Disconnect,
    ConnectNow,
    Probe,
    Join {
        topic: Topic,
        params: ParamsRecord,
        /// Whether the socket already had the topic, with other parameters.
        #[serde(default, skip_serializing_if = "core::ops::Not::not")]
        conflicting: bool,
    },
    Attach {
        topic: Topic,
    },
    Release {
        interest: u64,
    },
    Leave {
        topic: Topic,
    },
    Rejoin {
        topic: Topic,
    },
    SetJoinParams {
        topic: Topic,
        params: ParamsRecord,
    },
    Push {
        topic: Topic,
        event: String,
        payload: PayloadRecord,
        cast: bool,
        fail_fast: bool,
        timeout: Option<Nanos>,
    },
    CancelPush {
        push: u64,
    },
    ReportUnrouted {
        on: bool,
    },
    Reseed {
        seed: u64,
    },
    SetCredentials(CredentialsRecord),
    CredentialsUnchanged {
        conn: u64,
    },
    Dialled {
        conn: u64,
    },
    Opened {
        conn: u64,
        protocol: Option<String>,
    },
    Failed {
        conn: u64,
        cause: Cause,
    },
    Closed {
        conn: u64,
        ended: EndedRecord,
    },
    Frame {
        conn: u64,
        frame: FrameRecord,
    },
    Writable {
        conn: u64,
        writable: bool,
    },
    Progress {
        conn: u64,
        read: u64,
        written: u64,
        flushed: bool,
        #[serde(default, skip_serializing_if = "is_zero")]
        acknowledged: u64,
        #[serde(default, skip_serializing_if = "is_zero")]
        acknowledged_next: u64,
    },
    Timeout,
    Wake,
    /// The driver panicked.
    Panicked,
}

impl InputRecord {
    /// Records an input that is about to be applied to this socket. Returns `None` for
    /// [`Input::SupplyJoin`], whose parameters are in the frame that follows. With `payloads`, payloads are
    /// not redacted.
    pub(super) fn of(input: &Input, socket: &Socket, payloads: bool) -> Option<Self> {
        let topic = Topic::clone;
        Some(match input {
            Input::Connect => Self::Connect,
            Input::Disconnect => Self::Disconnect,
            Input::ConnectNow => Self::ConnectNow,
            Input::Probe => Self::Probe,
            Input::Join { topic: of, params } => Self::Join {
                topic: topic(of),
                params: ParamsRecord::of(params),
                conflicting: conflicts(socket, of, params),
            },
            Input::Attach { topic: of } => Self::Attach { topic: topic(of) },
            Input::Release { interest } => Self::Release { interest: interest.as_u64() },
            Input::Leave { topic: of } => Self::Leave { topic: topic(of) },
            Input::Rejoin { topic: of } => Self::Rejoin { topic: topic(of) },
            Input::SetJoinParams { topic: of, params } => {
                Self::SetJoinParams { topic: topic(of), params: ParamsRecord::of(params) }
            }
            Input::SupplyJoin { .. } => return None,
            Input::Push { topic: of, event, payload, options } => Self::Push {
                topic: topic(of),
                event: event.to_string(),
                payload: match payloads {
                    true => PayloadRecord::full(payload),
                    false => PayloadRecord::redacted(payload),
                },
                cast: options.cast,
                fail_fast: options.fail_fast,
                timeout: options.timeout.map(Into::into),
            },
            Input::CancelPush { id } => Self::CancelPush { push: id.as_u64() },
            Input::ReportUnrouted { on } => Self::ReportUnrouted { on: *on },
            Input::Reseed { seed } => Self::Reseed { seed: *seed },
            Input::SetCredentials(credentials) => {
                Self::SetCredentials(CredentialsRecord::of(credentials))
            }
            Input::CredentialsUnchanged { id } => Self::CredentialsUnchanged { conn: id.as_u64() },
            Input::Dialled { id } => Self::Dialled { conn: id.as_u64() },
            Input::Opened { id, opened } => Self::Opened {
                conn: id.as_u64(),
                // A protocol other than `phoenix` may contain the token, because a server may repeat the
                // offered protocols.
                protocol: opened.protocol.as_deref().map(|protocol| match protocol {
                    "phoenix" => "phoenix".to_owned(),
                    _ => "other".to_owned(),
                }),
            },
            Input::Failed { id, cause } => {
                Self::Failed { conn: id.as_u64(), cause: cause.clone().redacted(REDACTED) }
            }
            Input::Closed { id, ended } => {
                Self::Closed { conn: id.as_u64(), ended: EndedRecord::of(ended) }
            }
            Input::Frame { id, frame } => Self::Frame {
                conn: id.as_u64(),
                frame: match frame.len() > socket.config().max_message_bytes {
                    true => FrameRecord::unreadable(frame),
                    false => FrameRecord::received(frame, codec_of(socket), payloads),
                },
            },
            Input::Writable { id, writable } => {
                Self::Writable { conn: id.as_u64(), writable: *writable }
            }
            Input::Progress { id, progress } => {
                let Progress { read, written, flushed, acknowledged, acknowledged_next } =
                    *progress;
                let conn = id.as_u64();
                Self::Progress { conn, read, written, flushed, acknowledged, acknowledged_next }
            }
            Input::Timeout => Self::Timeout,
            Input::Wake => Self::Wake,
            Input::Panicked => Self::Panicked,
        })
    }

    /// Restores the input for this socket, with fillers instead of redacted data.
    pub(super) fn input(&self, socket: &Socket) -> Result<Input, ConfigError> {
        let conn = |number: &u64| ConnectionId::from_u64(*number);
        let topic = Topic::clone;
        Ok(match self {
            Self::Connect => Input::Connect,
            Self::Disconnect => Input::Disconnect,
            Self::ConnectNow => Input::ConnectNow,
            Self::Probe => Input::Probe,
            Self::Join { topic: of, params, conflicting } => Input::Join {
                topic: topic(of),
                params: params_for(socket, of, params, *conflicting),
            },
            Self::Attach { topic: of } => Input::Attach { topic: topic(of) },
            Self::Release { interest } => {
                Input::Release { interest: InterestId::from_u64(*interest) }
            }
            Self::Leave { topic: of } => Input::Leave { topic: topic(of) },
            Self::Rejoin { topic: of } => Input::Rejoin { topic: topic(of) },
            Self::SetJoinParams { topic: of, params } => {
                Input::SetJoinParams { topic: topic(of), params: params.params() }
            }
            Self::Push { topic: of, event, payload, cast, fail_fast, timeout } => {
                let (cast, fail_fast) = (*cast, *fail_fast);
                let options = PushOptions { cast, fail_fast, timeout: timeout.map(Into::into) };
                let (event, payload) = (event.as_str().into(), payload.payload());
                Input::Push { topic: topic(of), event, payload, options }
            }
            Self::CancelPush { push } => Input::CancelPush { id: PushId::from_u64(*push) },
            Self::ReportUnrouted { on } => Input::ReportUnrouted { on: *on },
            Self::Reseed { seed } => Input::Reseed { seed: *seed },
            Self::SetCredentials(credentials) => Input::SetCredentials(credentials.credentials()?),
            Self::CredentialsUnchanged { conn: id } => Input::CredentialsUnchanged { id: conn(id) },
            Self::Dialled { conn: id } => Input::Dialled { id: conn(id) },
            Self::Opened { conn: id, protocol } => {
                Input::Opened { id: conn(id), opened: Opened { protocol: protocol.clone() } }
            }
            Self::Failed { conn: id, cause } => {
                Input::Failed { id: conn(id), cause: cause.clone() }
            }
            Self::Closed { conn: id, ended } => {
                Input::Closed { id: conn(id), ended: ended.ended() }
            }
            Self::Frame { conn: id, frame } => {
                let vsn_1 = codec_of(socket).vsn() == "1.0.0";
                Input::Frame { id: conn(id), frame: frame.frame(vsn_1) }
            }
            Self::Writable { conn: id, writable } => {
                Input::Writable { id: conn(id), writable: *writable }
            }
            Self::Progress {
                conn: id,
                read,
                written,
                flushed,
                acknowledged,
                acknowledged_next,
            } => {
                let progress = Progress {
                    read: *read,
                    written: *written,
                    flushed: *flushed,
                    acknowledged: *acknowledged,
                    acknowledged_next: *acknowledged_next,
                };
                Input::Progress { id: conn(id), progress }
            }
            Self::Timeout => Input::Timeout,
            Self::Wake => Input::Wake,
            Self::Panicked => Input::Panicked,
        })
    }
}

fn codec_of(socket: &Socket) -> &dyn Codec {
    &*socket.config().codec
}

/// Whether the socket wants the topic with other parameters than these.
fn conflicts(socket: &Socket, topic: &str, params: &JoinParams) -> bool {
    socket.join_params(topic).is_some_and(|current| !current.same(params))
}

/// The parameters of a replayed join. They are in conflict with the current parameters of the topic exactly
/// if the recorded ones were.
fn params_for(
    socket: &Socket,
    topic: &str,
    record: &ParamsRecord,
    conflicting: bool,
) -> JoinParams {
    let restored = record.params();
    let current = socket.join_params(topic);
    match (conflicting, conflicts(socket, topic, &restored), record, current) {
        (false, true, _, Some(current)) => current.clone(),
        (true, false, ParamsRecord::Fixed(payload), _) => payload.filled(b'y').into(),
        _ => restored,
    }
}

/// The record of an [`Ended`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum EndedRecord {
    CloseFrame { code: Option<u16>, reason: String },
    Lost { message: String },
    MessageTooLarge,
}

impl EndedRecord {
    pub(super) fn of(ended: &Ended) -> Self {
        match ended.clone() {
            Ended::CloseFrame { code, reason } => Self::CloseFrame { code, reason },
            Ended::Lost { message } => Self::Lost { message },
            Ended::MessageTooLarge => Self::MessageTooLarge,
        }
    }

    pub(super) fn ended(&self) -> Ended {
        match self.clone() {
            Self::CloseFrame { code, reason } => Ended::CloseFrame { code, reason },
            Self::Lost { message } => Ended::Lost { message },
            Self::MessageTooLarge => Ended::MessageTooLarge,
        }
    }
}

/// The text of the input in a trace, in lower case.
impl fmt::Display for InputRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect => f.write_str("connect"),
            Self::Disconnect => f.write_str("disconnect"),
            Self::ConnectNow => f.write_str("connect now"),
            Self::Probe => f.write_str("probe"),
            Self::Join { topic, .. } => write!(f, "join {topic}"),
            Self::Attach { topic } => write!(f, "attach {topic}"),
            Self::Release { interest } => write!(f, "release interest#{interest}"),
            Self::Leave { topic } => write!(f, "leave {topic}"),
            Self::Rejoin { topic } => write!(f, "rejoin {topic}"),
            Self::SetJoinParams { topic, .. } => write!(f, "set join params {topic}"),
            Self::Push { topic, event, payload, cast, .. } => {
                write!(f, "{} {topic} {event} {payload}", if *cast { "cast" } else { "push" })
            }
            Self::CancelPush { push } => write!(f, "cancel push#{push}"),
            Self::ReportUnrouted { on: true } => f.write_str("report unrouted"),
            Self::ReportUnrouted { on: false } => f.write_str("do not report unrouted"),
            Self::Reseed { .. } => f.write_str("reseed"),
            Self::SetCredentials(_) => f.write_str("set credentials"),
            Self::CredentialsUnchanged { .. } => f.write_str("credentials unchanged"),
            Self::Dialled { .. } => f.write_str("dialled"),
            Self::Opened { .. } => f.write_str("opened"),
            Self::Failed { cause, .. } => match cause.text() {
                "" => write!(f, "failed ({})", cause.brief()),
                text => write!(f, "failed ({}: {text})", cause.brief()),
            },
            Self::Closed { ended, .. } => match ended {
                EndedRecord::CloseFrame { code: Some(code), .. } => {
                    write!(f, "closed (close frame {code})")
                }
                EndedRecord::CloseFrame { code: None, .. } => f.write_str("closed (close frame)"),
                EndedRecord::Lost { message } => write!(f, "closed (lost: {message})"),
                EndedRecord::MessageTooLarge => f.write_str("closed (message too large)"),
            },
            Self::Frame { frame, .. } => write!(f, "<- {frame}"),
            Self::Writable { writable: true, .. } => f.write_str("writable"),
            Self::Writable { writable: false, .. } => f.write_str("not writable"),
            Self::Progress { read, written, flushed, acknowledged, .. } => {
                write!(f, "progress ({read} read, {written} written")?;
                if *acknowledged > 0 {
                    write!(f, ", {acknowledged} acknowledged")?;
                }
                f.write_str(if *flushed { ", flushed)" } else { ")" })
            }
            Self::Timeout => f.write_str("timeout"),
            Self::Wake => f.write_str("wake"),
            Self::Panicked => f.write_str("the driver panicked"),
        }
    }
}
