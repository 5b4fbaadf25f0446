//! A tree of a document that keeps every key of an object, including duplicates.
//!
//! A map would silently keep the last of two equal keys. This tree lets the reader report the
//! second one.

use std::collections::BTreeSet;

use serde_json::value::RawValue;
use serde_json::{Number, Value};

use crate::wire::raw::members;

/// One value of a document.
#[derive(Clone, PartialEq)]
pub(super) enum Node {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Self>),
    Object(Vec<(String, Self)>),
}

impl Node {
    /// The kind of the value, for messages, which must not contain values.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Object(_) => "an object",
        }
    }

    /// A key that occurs twice in the same object, at any depth.
    pub(super) fn repeated_key(&self) -> Option<&str> {
        match self {
            Self::Object(members) => {
                let mut seen = BTreeSet::new();
                let repeated = members.iter().find(|(key, _)| !seen.insert(key));
                repeated
                    .map(|(key, _)| key.as_str())
                    .or_else(|| members.iter().find_map(|(_, node)| node.repeated_key()))
            }
            Self::List(nodes) => nodes.iter().find_map(Self::repeated_key),
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::Text(_) => None,
        }
    }

    /// Replaces every string in the value, at every depth. This includes the keys of objects, because such a
    /// key may be a topic or the name of a header.
    pub(super) fn try_map_texts<E>(
        &mut self,
        map: &mut impl FnMut(&str) -> Result<String, E>,
    ) -> Result<(), E> {
        match self {
            Self::Text(text) => *text = map(text)?,
            Self::List(nodes) => {
                for node in nodes {
                    node.try_map_texts(map)?;
                }
            }
            Self::Object(members) => {
                for (key, node) in members {
                    *key = map(key)?;
                    node.try_map_texts(map)?;
                }
            }
            Self::Null | Self::Bool(_) | Self::Number(_) => {}
        }
        Ok(())
    }
}

impl Node {
    /// Parses JSON text, keeping duplicate keys.
    pub(super) fn from_json(text: &str) -> serde_json::Result<Self> {
        // This limits the nesting as serde_json does, and gives serde_json's error messages.
        serde_json::from_str::<Value>(text)?;
        serde_json::from_str::<&RawValue>(text.trim()).map(Self::from_raw)
    }

    fn from_raw(raw: &RawValue) -> Self {
        if let Ok(members) = members(raw) {
            let members = members.into_iter();
            return Self::Object(members.map(|(key, raw)| (key, Self::from_raw(raw))).collect());
        }
        match serde_json::from_str::<Vec<&RawValue>>(raw.get()) {
            Ok(list) => Self::List(list.into_iter().map(Self::from_raw).collect()),
            Err(_) => serde_json::from_str(raw.get()).map_or(Self::Null, Self::from_value),
        }
    }

    /// Converts a value of serde_json.
    pub(super) fn from_value(value: Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(value),
            Value::Number(value) => Self::Number(value),
            Value::String(value) => Self::Text(value),
            Value::Array(list) => Self::List(list.into_iter().map(Self::from_value).collect()),
            Value::Object(members) => Self::Object(
                members.into_iter().map(|(key, value)| (key, Self::from_value(value))).collect(),
            ),
        }
    }
}
