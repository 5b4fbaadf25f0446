//! A CloudEvents 1.0 event in the JSON format.

use std::collections::BTreeMap;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::data::EventData;
use super::stamp::rfc3339;
use crate::time::Time;

/// An event of CloudEvents 1.0. It serialises to the JSON format of CloudEvents, on one line.
///
/// `Debug` shows no payload: see [`EventData`].
///
/// ```
/// use phx_proto::service::CloudEvent;
///
/// let text = r#"{"specversion": "1.0", "id": "1", "source": "/phoenix/backend",
///     "type": "phoenix.channel.joined", "subject": "room:lobby",
///     "time": "2026-08-22T12:00:00.000Z", "datacontenttype": "application/json",
///     "data": {}, "sessionid": "nightly"}"#;
/// let event: CloudEvent = serde_json::from_str(text)?;
/// assert_eq!(event.subject.as_deref(), Some("room:lobby"));
/// assert_eq!(event.attributes["sessionid"], "nightly");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CloudEvent {
    /// The version of CloudEvents, `1.0`. When reading, `1.0.2` is accepted too, because some
    /// producers write the version of the specification's text.
    #[serde(deserialize_with = "version")]
    pub specversion: String,
    /// The id, which is unique together with the source and sorts by time.
    pub id: String,
    /// The source of the event.
    pub source: String,
    /// The type of the event.
    #[serde(rename = "type")]
    pub kind: String,
    /// The subject: the topic, for events of a channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The time of the event by RFC 3339.
    pub time: String,
    /// The type of the data, `application/json`.
    pub datacontenttype: String,
    /// The details of the event.
    pub data: EventData,
    /// The extension attributes.
    #[serde(flatten)]
    pub attributes: BTreeMap<String, String>,
}

impl CloudEvent {
    /// Makes an event of the application, for consumers that also read the events of a
    /// [`Router`](crate::service::Router). `id` must be unique. `at` is the time since the Unix
    /// epoch.
    ///
    /// ```
    /// use phx_proto::Time;
    /// use phx_proto::service::CloudEvent;
    ///
    /// let mut event = CloudEvent::new("/agent", "agent.started", "1", Time::from_millis(1));
    /// event.data.insert("version", 7);
    /// assert_eq!(event.time, "1970-01-01T00:00:00.001Z");
    /// ```
    #[must_use]
    pub fn new(
        source: impl Into<String>,
        kind: impl Into<String>,
        id: impl Into<String>,
        at: Time,
    ) -> Self {
        Self {
            specversion: "1.0".to_owned(),
            id: id.into(),
            source: source.into(),
            kind: kind.into(),
            subject: None,
            time: rfc3339(at),
            datacontenttype: "application/json".to_owned(),
            data: EventData::new(),
            attributes: BTreeMap::new(),
        }
    }
}

fn version<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let version = String::deserialize(deserializer)?;
    match version.as_str() {
        "1.0" | "1.0.2" => Ok("1.0".to_owned()),
        _ => Err(D::Error::custom("the specversion is not 1.0")),
    }
}
