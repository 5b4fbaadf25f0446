//! A serde deserializer for document nodes, with error messages in terms of documents. Errors contain
//! names, and no other values, because many values are secrets.

use core::fmt::{self, Display};

use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, MapDeserializer, SeqDeserializer};
use serde::de::{self, Deserializer, Expected, IntoDeserializer, Unexpected, Visitor};
use serde_json::Number;

use super::error::ProblemKind;
use super::node::Node;

/// Deserializes a struct from these keys and values.
pub(super) fn read<T: for<'de> Deserialize<'de>>(
    members: impl IntoIterator<Item = (String, Node)>,
) -> Result<T, ProblemKind> {
    let members = members.into_iter().map(|(key, node)| (Key(key), node));
    T::deserialize(MapDeserializer::new(members)).map_err(|Fault(problem)| problem)
}

/// The keys of a struct that denies unknown fields, from its derived `Deserialize`.
pub(super) fn keys<T: for<'de> Deserialize<'de>>() -> &'static [&'static str] {
    struct Names(&'static [&'static str]);

    impl fmt::Debug for Names {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.fmt(f)
        }
    }

    impl Display for Names {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{self:?}")
        }
    }

    impl core::error::Error for Names {}

    impl de::Error for Names {
        fn custom<M: Display>(_: M) -> Self {
            Self(&[])
        }

        fn unknown_field(_: &str, expected: &'static [&'static str]) -> Self {
            Self(expected)
        }
    }

    let unknown = MapDeserializer::<_, Names>::new(core::iter::once(("", ())));
    T::deserialize(unknown).map_or_else(|Names(names)| names, |_| &[])
}

/// The known key that is most similar to `key`, if one is similar enough.
pub(super) fn suggestion(
    key: &str,
    known: impl IntoIterator<Item = &'static str>,
) -> Option<&'static str> {
    let near = known.into_iter().map(|known| (distance(key, known), known)).min()?;
    (near.0 <= 1 + key.len() / 4).then_some(near.1)
}

/// The edit distance (Levenshtein) between two strings.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in other.iter().enumerate() {
            let changed = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

/// A problem, as a deserializer's error.
#[derive(Debug)]
pub(super) struct Fault(ProblemKind);

impl Fault {
    fn invalid(message: impl Into<String>) -> Self {
        Self(ProblemKind::Invalid { message: message.into() })
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl core::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<M: Display>(message: M) -> Self {
        Self::invalid(message.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let expected = expected.to_string();
        let found = kind(&found);
        match integer_description(&expected) {
            Some(expected) if found == A_NUMBER => Self::invalid(format!("it must be {expected}")),
            Some(_) => Self(ProblemKind::WrongType { expected: A_NUMBER.to_owned(), found }),
            None => Self(ProblemKind::WrongType { expected: description_of(expected), found }),
        }
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let expected = expected.to_string();
        let known = integer_description(&expected).map(str::to_owned);
        Self::invalid(format!("it must be {}", known.unwrap_or_else(|| description_of(expected))))
    }

    fn invalid_length(_: usize, expected: &dyn Expected) -> Self {
        Self::invalid(format!("it must be {}", description_of(expected.to_string())))
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Self::invalid(format!("it must be {}", either(expected)))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let near = suggestion(field, expected.iter().copied());
        let hint = near.map(|near| format!("; did you mean {near:?}?")).unwrap_or_default();
        Self::invalid(format!("unknown key {field:?} in it{hint}"))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::invalid(format!("the key {field:?} is missing in it"))
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::invalid(format!("the key {field:?} occurs twice in it"))
    }
}

const A_NUMBER: &str = "a number";

/// The kind of the value that serde found.
fn kind(found: &Unexpected<'_>) -> &'static str {
    match found {
        Unexpected::Unit | Unexpected::Option => "null",
        Unexpected::Bool(_) => "a boolean",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) | Unexpected::Float(_) => A_NUMBER,
        Unexpected::Seq => "a list",
        Unexpected::Map => "an object",
        _ => "a string",
    }
}

/// A description of an integer type that serde calls by its Rust name.
fn integer_description(expected: &str) -> Option<&'static str> {
    match expected {
        "u32" | "u64" | "usize" => Some("a non-negative integer that is not too large"),
        "a nonzero usize" => Some("an integer of at least 1 that is not too large"),
        _ => None,
    }
}

fn description_of(expected: String) -> String {
    let word = match expected.as_str() {
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "a map" => "an object",
        "newtype variant" => "an object with this name and its value",
        "unit variant" => "a name without a value",
        "f64" => A_NUMBER,
        text if text.starts_with("struct ") => "an object",
        _ => return expected,
    };
    word.to_owned()
}

/// `"a", "b" or "c"`.
pub(super) fn either<T: core::fmt::Debug>(names: &[T]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

impl IntoDeserializer<'_, Fault> for Node {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Node {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self {
            Self::Null => visitor.visit_unit(),
            Self::Bool(value) => visitor.visit_bool(value),
            Self::Number(number) => visit_number(number, visitor),
            Self::Text(text) => visitor.visit_string(text),
            Self::List(nodes) => {
                let expected = description_of((&visitor as &dyn Expected).to_string());
                let mut nodes = SeqDeserializer::new(nodes.into_iter());
                let value = visitor.visit_seq(&mut nodes)?;
                let too_long = |_: Fault| Fault::invalid(format!("it must be {expected}"));
                nodes.end().map(|()| value).map_err(too_long)
            }
            Self::Object(members) => visitor.visit_map(object(members)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self {
            Self::Null => visitor.visit_none(),
            node => visitor.visit_some(node),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    /// Accepts only an object. serde would also accept a list of a struct's values, which would be
    /// hard to read in a document.
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self {
            Self::Object(members) => visitor.visit_map(object(members)),
            node => {
                let (expected, found) = ("an object".to_owned(), node.kind());
                Err(Fault(ProblemKind::WrongType { expected, found }))
            }
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self {
            Self::Text(text) => visitor.visit_enum(text.into_deserializer()),
            // With null, serde would accept a variant without a value.
            Self::Object(members) if matches!(members[..], [(_, ref node)] if *node != Self::Null) => {
                visitor.visit_enum(MapAccessDeserializer::new(object(members)))
            }
            node => {
                let (expected, found) = (either(variants), node.kind());
                Err(Fault(ProblemKind::WrongType { expected, found }))
            }
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct identifier ignored_any
    }
}

fn object<'de>(
    members: Vec<(String, Node)>,
) -> MapDeserializer<'de, impl Iterator<Item = (Key, Node)>, Fault> {
    MapDeserializer::new(members.into_iter().map(|(key, node)| (Key(key), node)))
}

fn visit_number<'de, V: Visitor<'de>>(number: Number, visitor: V) -> Result<V::Value, Fault> {
    if let Some(whole) = number.as_u64() {
        return visitor.visit_u64(whole);
    }
    if let Some(whole) = number.as_i64() {
        return visitor.visit_i64(whole);
    }
    match number.as_f64().filter(|value| Number::from_f64(*value).as_ref() == Some(&number)) {
        Some(value) => visitor.visit_f64(value),
        // With serde_json's feature `arbitrary_precision`, only serde_json can pass this number on. Its
        // error would show the number.
        None => {
            let expected = (&visitor as &dyn Expected).to_string();
            let invalid = |_| de::Error::invalid_value(Unexpected::Other("number"), &&*expected);
            number.deserialize_any(visitor).map_err(invalid)
        }
    }
}

/// The key of an object.
struct Key(String);

impl IntoDeserializer<'_, Fault> for Key {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Key {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_string(self.0)
    }

    /// A close code.
    fn deserialize_u16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let digits = self.0.bytes().all(|byte| byte.is_ascii_digit());
        match self.0.parse() {
            Ok(number) if digits => visitor.visit_u16(number),
            _ => Err(Fault::invalid(format!("the key {:?} in it is not a close code", self.0))),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Options;

    #[test]
    fn suggestion_is_similar_or_none() {
        let known = || keys::<Options>().iter().copied();
        assert_eq!(suggestion("max_retry", known()), Some("max_retries"));
        assert_eq!(suggestion("heartbeat_interval", known()), Some("heartbeat_interval_msec"));
        assert_eq!(suggestion("colour", known()), None);
    }
}
