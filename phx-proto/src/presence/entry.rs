//! What a presence consists of, and what can happen to one.

use serde::de::{DeserializeOwned, Deserializer, Error as _, Unexpected};
use serde::{Deserialize, Serialize};
use serde_json::{Error, Map, Value};

use crate::wire::weight::members_weight;

/// Everything that is present under one key: usually a user, with a meta for each of their
/// devices.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PresenceEntry<M = Value> {
    /// One for each tracked process, oldest first.
    pub metas: Vec<PresenceMeta<M>>,
    /// What the server's `fetch` callback added beside the metas, as of the latest join.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// One tracked process.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct PresenceMeta<M = Value> {
    /// Its identity: new for each track and each update.
    pub phx_ref: String,
    /// The meta that this one replaced by an update (`wire/presence_update`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phx_ref_prev: Option<String>,
    /// What the application said about it.
    #[serde(flatten)]
    pub data: M,
    /// The memory behind it, as the bound of the list counts it: that of the values it was read
    /// from, which is an upper estimate for a type of the application.
    #[serde(skip)]
    pub(super) behind: usize,
}

/// The same content.
impl<M: PartialEq> PartialEq for PresenceMeta<M> {
    fn eq(&self, other: &Self) -> bool {
        self.phx_ref == other.phx_ref
            && self.phx_ref_prev == other.phx_ref_prev
            && self.data == other.data
    }
}

// What the application said is read from serde_json's own values. By `flatten` it would go through
// values of serde's, in which a number is an object once another crate turns on the feature
// `arbitrary_precision` of serde_json.

impl<'de, M: DeserializeOwned> Deserialize<'de> for PresenceEntry<M> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        entry(Value::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl<'de, M: DeserializeOwned> Deserialize<'de> for PresenceMeta<M> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        meta(Value::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// An entry from its value, whose parts are moved and not read again.
pub(super) fn entry<M: DeserializeOwned>(value: Value) -> Result<PresenceEntry<M>, Error> {
    // Protocol: PRES-11.
    let Value::Object(mut extra) = value else { return Err(unexpected(&value, "an object")) };
    match extra.remove("metas") {
        Some(Value::Array(metas)) => {
            let metas = metas.into_iter().map(meta).collect::<Result<_, _>>()?;
            // A map that became empty keeps a node.
            let extra = if extra.is_empty() { Map::new() } else { extra };
            Ok(PresenceEntry { metas, extra })
        }
        Some(other) => Err(unexpected(&other, "an array of metas")),
        None => Err(Error::missing_field("metas")),
    }
}

fn meta<M: DeserializeOwned>(value: Value) -> Result<PresenceMeta<M>, Error> {
    let Value::Object(mut members) = value else { return Err(unexpected(&value, "an object")) };
    let phx_ref = match members.remove("phx_ref") {
        Some(Value::String(phx_ref)) => phx_ref,
        Some(other) => return Err(unexpected(&other, "a string")),
        None => return Err(Error::missing_field("phx_ref")),
    };
    let phx_ref_prev = match members.remove("phx_ref_prev") {
        Some(Value::String(phx_ref_prev)) => Some(phx_ref_prev),
        Some(Value::Null) | None => None,
        Some(other) => return Err(unexpected(&other, "a string")),
    };
    let refs = phx_ref.len() + phx_ref_prev.as_ref().map_or(0, String::len);
    let behind = refs + members_weight(&members);
    let data = M::deserialize(Value::Object(members))?;
    Ok(PresenceMeta { phx_ref, phx_ref_prev, data, behind })
}

/// Without the value, which is the user's.
fn unexpected(value: &Value, expected: &'static str) -> Error {
    let kind = match value {
        Value::Null => Unexpected::Unit,
        Value::Bool(_) => Unexpected::Other("boolean"),
        Value::Number(_) => Unexpected::Other("number"),
        Value::String(_) => Unexpected::Other("string"),
        Value::Array(_) => Unexpected::Seq,
        Value::Object(_) => Unexpected::Map,
    };
    Error::invalid_type(kind, &expected)
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
