//! The lines of a recording.

use core::fmt;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::config::{ConfigRecord, CredentialsRecord, Nanos, ParamsRecord};
use super::redact::{FrameRecord, PayloadRecord};
use crate::event::cause::Cause;
use crate::event::input::Ended;
use crate::time::Time;

/// The version of the format. A change that an older reader would misread is a new one.
pub(super) const FORMAT: u32 = 2;

/// The first line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Header {
    /// The version of the format.
    pub(super) phx_recording: u32,
    /// The version of this crate that wrote it.
    pub(super) version: String,
}

/// Every other line.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Line {
    /// Whose: the clients of one recorder are numbered from 1.
    pub(super) client: u64,
    /// When.
    pub(super) at: Time,
    /// What.
    #[serde(flatten)]
    pub(super) what: What,
}

/// As in the entries of a presence: not by `flatten`, which keeps no number of serde_json's feature
/// `arbitrary_precision`.
impl<'de> Deserialize<'de> for Line {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut what = Map::<String, Value>::deserialize(deserializer)?;
        let mut take = |name| what.remove(name).ok_or_else(|| D::Error::missing_field(name));
        let (client, at) = (take("client")?, take("at")?);
        Ok(Self {
            client: serde_json::from_value(client).map_err(D::Error::custom)?,
            at: serde_json::from_value(at).map_err(D::Error::custom)?,
            what: serde_json::from_value(Value::Object(what)).map_err(D::Error::custom)?,
        })
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum What {
    /// The client was made.
    Start(Box<Start>),
    /// It was told this.
    In(InputRecord),
    /// What it answered to the command of the line before.
    Answer(String),
    /// It put this frame out.
    Sent(FrameRecord),
    /// It put this out, in words.
    Out(String),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Start {
    pub(super) seed: u64,
    /// Whether payloads are told.
    pub(super) payloads: bool,
    pub(super) config: ConfigRecord,
}

/// An [`Input`](crate::Input): what decides, without secrets.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum InputRecord {
    Connect,
    Disconnect,
    ConnectNow,
    Probe,
    Join {
        topic: String,
        params: ParamsRecord,
        /// It is wanted already, with other parameters.
        #[serde(default, skip_serializing_if = "core::ops::Not::not")]
        conflicting: bool,
    },
    Attach {
        topic: String,
    },
    Release {
        interest: u64,
    },
    Leave {
        topic: String,
    },
    Rejoin {
        topic: String,
    },
    SetJoinParams {
        topic: String,
        params: ParamsRecord,
    },
    Push {
        topic: String,
        event: String,
        payload: PayloadRecord,
        cast: bool,
        fail_fast: bool,
        timeout: Option<Nanos>,
    },
    CancelPush {
        push: u64,
    },
    Reseed {
        seed: u64,
    },
    SetCredentials(CredentialsRecord),
    CredentialsUnchanged {
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
    },
    Timeout,
    Wake,
    /// The driver panicked.
    Panicked,
}

impl What {
    /// The bytes of the fillers that it asks for, which are not in the recording.
    pub(super) fn claims(&self) -> u64 {
        let params = |params: &ParamsRecord| match params {
            ParamsRecord::Fixed(payload) => payload.claims(),
            ParamsRecord::Function => 0,
        };
        match self {
            Self::Start(start) => {
                let joins = start.config.auto_joins.iter();
                joins.map(|(_, record)| params(record)).fold(0, u64::saturating_add)
            }
            Self::In(
                InputRecord::Join { params: record, .. }
                | InputRecord::SetJoinParams { params: record, .. },
            ) => params(record),
            Self::In(InputRecord::Push { payload, .. }) => payload.claims(),
            Self::In(InputRecord::Frame { frame, .. }) | Self::Sent(frame) => frame.claims(),
            Self::In(_) | Self::Answer(_) | Self::Out(_) => 0,
        }
    }
}

/// An [`Ended`].
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

/// The line of a trace: small letters for what the machine was told.
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
            Self::Reseed { .. } => f.write_str("reseed"),
            Self::SetCredentials(_) => f.write_str("set credentials"),
            Self::CredentialsUnchanged { .. } => f.write_str("credentials unchanged"),
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
            Self::Progress { read, written, flushed, .. } => {
                let flushed = if *flushed { ", flushed" } else { "" };
                write!(f, "progress ({read} read, {written} written{flushed})")
            }
            Self::Timeout => f.write_str("timeout"),
            Self::Wake => f.write_str("wake"),
            Self::Panicked => f.write_str("the driver panicked"),
        }
    }
}
