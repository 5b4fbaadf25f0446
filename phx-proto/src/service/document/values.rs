//! Values of a document that have more than one form.

use core::fmt;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::deserialize::either;
use crate::config::{codec_of, codecs};
use crate::topic::Topic;
use crate::wire::Codec;

/// Pairs of strings, from `{"a": "1"}` or `[["a", "1"]]`. Numbers and booleans become strings.
#[derive(Clone, Default, PartialEq)]
pub(super) struct Pairs(pub(super) Vec<(String, String)>);

/// A value in [`Pairs`].
struct Word(String);

#[derive(serde::Deserialize)]
#[serde(expecting = "a pair of a name and a value")]
struct Pair(String, Word);

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) => Ok(Self(text)),
            Value::Number(number) => Ok(Self(number.to_string())),
            Value::Bool(value) => Ok(Self(value.to_string())),
            _ => Err(D::Error::custom("its values must be strings, numbers or booleans")),
        }
    }
}

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object, or a list of pairs")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some((name, Word(value))) = map.next_entry()? {
                    pairs.push((name, value));
                }
                Ok(Pairs(pairs))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(Pair(name, Word(value))) = list.next_element()? {
                    pairs.push((name, value));
                }
                Ok(Pairs(pairs))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

/// Distinct topics with their join parameters.
#[derive(Clone, Default, PartialEq)]
pub(super) struct Channels(pub(super) Vec<(Topic, Value)>);

/// A topic with or without parameters.
struct Listed(Topic, Value);

#[derive(serde::Deserialize)]
#[serde(expecting = "a topic, or a pair with its parameters")]
struct WithParams(String, Value);

impl<'de> Deserialize<'de> for Listed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Listed;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of topics and of pairs with their parameters")
            }

            fn visit_str<E: Error>(self, topic: &str) -> Result<Listed, E> {
                Ok(Listed(Topic::from(topic), Value::Null))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Listed, A::Error> {
                let list = serde::de::value::SeqAccessDeserializer::new(list);
                let WithParams(topic, params) = WithParams::deserialize(list)?;
                Ok(Listed(Topic::from(topic.as_str()), params))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl Channels {
    fn add<E: Error>(&mut self, topic: Topic, params: Value) -> Result<(), E> {
        if self.0.iter().any(|(known, _)| *known == topic) {
            return Err(E::custom(format!("the topic {:?} occurs twice in it", &*topic)));
        }
        // Omitted parameters equal an empty object.
        let params = if params.is_null() { Value::Object(Map::new()) } else { params };
        self.0.push((topic, params));
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Channels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Channels;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of topics, or an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Channels, A::Error> {
                let mut channels = Channels::default();
                while let Some((topic, params)) = map.next_entry::<String, Value>()? {
                    channels.add(Topic::from(topic.as_str()), params)?;
                }
                Ok(channels)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Channels, A::Error> {
                let mut channels = Channels::default();
                while let Some(Listed(topic, params)) = list.next_element()? {
                    channels.add(topic, params)?;
                }
                Ok(channels)
            }
        }

        deserializer.deserialize_any(Either)
    }
}

/// A version of the protocol that this crate has a codec for.
#[derive(Clone, PartialEq, serde::Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Vsn(String);

impl Vsn {
    pub(super) fn all() -> Vec<String> {
        codecs().iter().map(|codec| codec.vsn().to_owned()).collect()
    }

    pub(super) fn of(codec: &dyn Codec) -> Self {
        Self(codec.vsn().to_owned())
    }

    pub(super) fn codec(&self) -> Option<Arc<dyn Codec>> {
        codec_of(&self.0)
    }
}

impl TryFrom<String> for Vsn {
    type Error = String;

    fn try_from(vsn: String) -> Result<Self, String> {
        match codec_of(&vsn) {
            Some(_) => Ok(Self(vsn)),
            None => Err(format!("it must be {}", either(&Self::all()))),
        }
    }
}
