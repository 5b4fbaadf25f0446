//! The lines of a recording.

use core::fmt;

use serde::{Deserialize, Serialize};

use super::config::{ConfigRecord, CredentialsRecord, HIDDEN, Nanos, ParamsRecord};
use super::hidden::{FrameRecord, PayloadRecord};
use crate::event::input::{Ended, Failure};
use crate::event::refusal::Refusal;
use crate::time::Time;

/// The version of the format. A change that an older reader would misread is a new one.
pub(super) const FORMAT: u32 = 1;

/// The first line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Header {
    /// The version of the format.
    pub(super) phx_recording: u32,
    /// The version of this crate that wrote it.
    pub(super) version: String,
}

/// Every other line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Line {
    /// Whose: the clients of one recorder are numbered from 1.
    pub(super) client: u64,
    /// When.
    pub(super) at: Time,
    /// What.
    #[serde(flatten)]
    pub(super) what: What,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum What {
    /// The client was made.
    Start(Box<Start>),
    /// It was told this.
    In(Input),
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

/// A command, or something that the world did.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Input {
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
        failure: FailureRecord,
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
    Timeout,
    Wake,
    /// The driver panicked.
    Panicked,
}

/// A [`Failure`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FailureRecord {
    Dial { message: String },
    Tls { message: String },
    ProxyRefused(RefusalRecord),
    Unsupported { message: String },
    Refused(RefusalRecord),
    Credentials { message: String },
    CredentialsGaveUp { reason: String },
}

/// A [`Refusal`]: what decides, and nothing of what else the server said.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RefusalRecord {
    status: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry_after: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    date: Option<String>,
}

/// An [`Ended`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum EndedRecord {
    CloseFrame { code: Option<u16>, reason: String },
    Lost { message: String },
    MessageTooLarge,
}

impl FailureRecord {
    pub(super) fn of(failure: &Failure) -> Self {
        match failure.clone() {
            Failure::Dial { message } => Self::Dial { message },
            Failure::Tls { message } => Self::Tls { message },
            Failure::ProxyRefused(refusal) => Self::ProxyRefused(RefusalRecord::of(&refusal)),
            Failure::Unsupported { message } => Self::Unsupported { message },
            Failure::Refused(refusal) => Self::Refused(RefusalRecord::of(&refusal)),
            // The words of a provider are those of the application, or of its HTTP client, which
            // says where it asked and may say with what.
            Failure::Credentials { .. } => Self::Credentials { message: HIDDEN.to_owned() },
            Failure::CredentialsGaveUp { .. } => {
                Self::CredentialsGaveUp { reason: HIDDEN.to_owned() }
            }
        }
    }

    pub(super) fn failure(&self) -> Failure {
        match self.clone() {
            Self::Dial { message } => Failure::Dial { message },
            Self::Tls { message } => Failure::Tls { message },
            Self::ProxyRefused(refusal) => Failure::ProxyRefused(refusal.refusal()),
            Self::Unsupported { message } => Failure::Unsupported { message },
            Self::Refused(refusal) => Failure::Refused(refusal.refusal()),
            Self::Credentials { message } => Failure::Credentials { message },
            Self::CredentialsGaveUp { reason } => Failure::CredentialsGaveUp { reason },
        }
    }
}

impl RefusalRecord {
    fn of(refusal: &Refusal) -> Self {
        let header = |name| refusal.header(name).map(str::to_owned);
        Self { status: refusal.status(), retry_after: header("retry-after"), date: header("date") }
    }

    fn refusal(&self) -> Refusal {
        let headers = [("retry-after", &self.retry_after), ("date", &self.date)];
        let headers = headers
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value.clone()?)))
            .collect();
        Refusal::new(self.status, headers, "")
    }
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
impl fmt::Display for Input {
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
            Self::SetCredentials(_) => f.write_str("set credentials"),
            Self::CredentialsUnchanged { .. } => f.write_str("credentials unchanged"),
            Self::Opened { .. } => f.write_str("opened"),
            Self::Failed { failure, .. } => write!(f, "failed ({failure})"),
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
            Self::Timeout => f.write_str("timeout"),
            Self::Wake => f.write_str("wake"),
            Self::Panicked => f.write_str("the driver panicked"),
        }
    }
}

impl fmt::Display for FailureRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dial { message } => write!(f, "dial: {message}"),
            Self::Tls { message } => write!(f, "TLS: {message}"),
            Self::ProxyRefused(refusal) => write!(f, "refused by the proxy: {}", refusal.status),
            Self::Unsupported { message } => f.write_str(message),
            Self::Refused(refusal) => write!(f, "refused: {}", refusal.status),
            Self::Credentials { message } => write!(f, "credentials: {message}"),
            Self::CredentialsGaveUp { reason } => write!(f, "credentials gave up: {reason}"),
        }
    }
}
