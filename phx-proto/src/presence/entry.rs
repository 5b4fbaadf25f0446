//! What a presence consists of, and what can happen to one.

use serde::de::{DeserializeOwned, Deserializer, Error};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Everything that is present under one key: usually a user, with a meta for each of their
/// devices.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PresenceEntry<M = Value> {
    /// One for each tracked process, oldest first.
    pub metas: Vec<PresenceMeta<M>>,
    /// What the server's `fetch` callback added beside the metas, as of the latest join.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// One tracked process.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PresenceMeta<M = Value> {
    /// Its identity: new for each track and each update.
    pub phx_ref: String,
    /// The meta that this one replaced by an update (`wire/presence_update`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phx_ref_prev: Option<String>,
    /// What the application said about it.
    #[serde(flatten)]
    pub data: M,
}

// What the application said is read from serde_json's own values. By `flatten` it would go through
// values of serde's, in which a number is an object once another crate turns on the feature
// `arbitrary_precision` of serde_json.

impl<'de, M: DeserializeOwned> Deserialize<'de> for PresenceEntry<M> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut extra = Map::<String, Value>::deserialize(deserializer)?;
        let metas = extra.remove("metas").ok_or_else(|| D::Error::missing_field("metas"))?;
        Ok(Self { metas: serde_json::from_value(metas).map_err(D::Error::custom)?, extra })
    }
}

impl<'de, M: DeserializeOwned> Deserialize<'de> for PresenceMeta<M> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut members = Map::<String, Value>::deserialize(deserializer)?;
        let phx_ref =
            members.remove("phx_ref").ok_or_else(|| D::Error::missing_field("phx_ref"))?;
        let phx_ref_prev = members.remove("phx_ref_prev").unwrap_or_default();
        Ok(Self {
            phx_ref: serde_json::from_value(phx_ref).map_err(D::Error::custom)?,
            phx_ref_prev: serde_json::from_value(phx_ref_prev).map_err(D::Error::custom)?,
            data: serde_json::from_value(Value::Object(members)).map_err(D::Error::custom)?,
        })
    }
}

/// One thing that happened to the list.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum PresenceChange<M = Value> {
    /// Metas came.
    Join {
        /// Under this key.
        key: String,
        /// Which.
        metas: Vec<PresenceMeta<M>>,
        /// Whether the key was not present before.
        first: bool,
    },
    /// Metas went.
    Leave {
        /// Under this key.
        key: String,
        /// Which.
        metas: Vec<PresenceMeta<M>>,
        /// Whether nothing of the key is left.
        last: bool,
    },
    /// A meta was replaced: the server sends it as a join and a leave that point at each other.
    Update {
        /// Under this key.
        key: String,
        /// What it was.
        before: PresenceMeta<M>,
        /// What it is now.
        after: PresenceMeta<M>,
    },
}

impl<M> PresenceChange<M> {
    /// The key that changed.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::Join { key, .. } | Self::Leave { key, .. } | Self::Update { key, .. } => key,
        }
    }
}
