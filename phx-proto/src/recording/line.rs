//! The lines of a recording.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::config::{ConfigRecord, ParamsRecord};
use super::input::InputRecord;
use super::redact::FrameRecord;
use crate::time::Time;

/// The version of the format. It changes when older readers would misread a recording.
pub(super) const FORMAT: u32 = 2;

/// The first line of a recording.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Header {
    /// The version of the format.
    pub(super) phx_recording: u32,
    /// The version of this crate that wrote the recording.
    pub(super) version: String,
}

/// Any line after the first.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Line {
    /// The number of the client. The clients of one recorder are numbered from 1.
    pub(super) client: u64,
    /// The time of the event.
    pub(super) at: Time,
    /// The event.
    #[serde(flatten)]
    pub(super) what: What,
}

/// The implementation is written by hand, like the reader of presence entries: a derived
/// one with `flatten` cannot read numbers if serde_json's feature `arbitrary_precision`
/// is enabled.
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
    /// The client was created.
    Start(Box<Start>),
    /// An input.
    In(InputRecord),
    /// The result of the input in the line before.
    Answer(String),
    /// A frame that the client wrote.
    Sent(FrameRecord),
    /// The text of any other action.
    Out(String),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Start {
    pub(super) seed: u64,
    /// Whether payloads are recorded.
    pub(super) payloads: bool,
    pub(super) config: ConfigRecord,
}

impl What {
    /// The number of filler bytes that a replay allocates for this line.
    pub(super) fn filler_len(&self) -> u64 {
        let params = |params: &ParamsRecord| match params {
            ParamsRecord::Fixed(payload) => payload.filler_len(),
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
            Self::In(InputRecord::Push { payload, .. }) => payload.filler_len(),
            Self::In(InputRecord::Frame { frame, .. }) | Self::Sent(frame) => frame.filler_len(),
            Self::In(_) | Self::Answer(_) | Self::Out(_) => 0,
        }
    }
}
