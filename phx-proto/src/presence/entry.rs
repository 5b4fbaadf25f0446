//! Presence entries, their metas, and changes of the list.

use serde::de::{DeserializeOwned, Deserializer, Error as _, Unexpected};
use serde::{Deserialize, Serialize};
use serde_json::{Error, Map, Value};

use crate::wire::weight::members_weight;

/// The presence of one key: usually a user, with a meta for each of their devices.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PresenceEntry<M = Value> {
    /// One meta for each tracked process, oldest first.
    pub metas: Vec<PresenceMeta<M>>,
    /// Members that the server's `fetch` callback added to the entry, as of the latest join.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// The meta of one tracked process.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct PresenceMeta<M = Value> {
    /// The id of the meta. The server assigns a new one for each track and each update.
    pub phx_ref: String,
    /// The `phx_ref` of the meta that this one replaced in an update (`wire/presence_update`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phx_ref_prev: Option<String>,
    /// The application's own data.
    #[serde(flatten)]
    pub data: M,
    /// The weight of the values that the meta was read from, without the struct itself. For a type of
    /// the application this is an upper estimate.
    #[serde(skip)]
    pub(super) weight: usize,
}

/// Compares the content and ignores the weight.
impl<M: PartialEq> PartialEq for PresenceMeta<M> {
    fn eq(&self, other: &Self) -> bool {
        self.phx_ref == other.phx_ref
            && self.phx_ref_prev == other.phx_ref_prev
            && self.data == other.data
    }
}

// The application's data is read from values of serde_json. With `flatten` it would be read from
// serde's own buffered values, in which a number is an object once another crate enables the feature
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

/// Reads an entry from its value. The parts of the value are moved, not copied.
pub(super) fn entry<M: DeserializeOwned>(value: Value) -> Result<PresenceEntry<M>, Error> {
    // Protocol: PRES-11.
    let Value::Object(mut extra) = value else { return Err(unexpected(&value, "an object")) };
    match extra.remove("metas") {
        Some(Value::Array(metas)) => {
            let metas = metas.into_iter().map(meta).collect::<Result<_, _>>()?;
            // A map that became empty keeps its root node allocated, so a new map replaces it.
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
    let weight = refs + members_weight(&members);
    let data = M::deserialize(Value::Object(members))?;
    Ok(PresenceMeta { phx_ref, phx_ref_prev, data, weight })
}

/// Creates the error for a value of the wrong type. It does not contain the value, which is private.
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

/// One change of the presence list.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum PresenceChange<M = Value> {
    /// Metas were added to a key.
    Join {
        /// The key.
        key: String,
        /// The added metas.
        metas: Vec<PresenceMeta<M>>,
        /// Whether the key was not present before.
        first: bool,
    },
    /// Metas were removed from a key.
    Leave {
        /// The key.
        key: String,
        /// The removed metas.
        metas: Vec<PresenceMeta<M>>,
        /// Whether the key has no metas left.
        last: bool,
    },
    /// A meta was replaced. The server sends an update as a join of the new meta, which names the old one,
    /// and a leave of the old one.
    Update {
        /// The key.
        key: String,
        /// The meta before the update.
        before: PresenceMeta<M>,
        /// The meta after the update.
        after: PresenceMeta<M>,
    },
}

impl<M> PresenceChange<M> {
    /// The key whose presence changed.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::Join { key, .. } | Self::Leave { key, .. } | Self::Update { key, .. } => key,
        }
    }
}
