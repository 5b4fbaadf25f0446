//! The members of a JSON object as text: in their order, including duplicate keys.
//!
//! The values stay text, for serde_json to read. A visitor of our own would receive every number as an
//! object once another crate enables serde_json's feature `arbitrary_precision`.

use core::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The members of an object; an error if the value is not an object, or if a key has an unpaired surrogate.
pub(crate) fn members(value: &RawValue) -> serde_json::Result<Vec<(String, &RawValue)>> {
    serde_json::from_str::<Members<'_>>(value.get()).map(|members| members.0)
}

/// Copies the value and replaces line breaks and tabs with spaces. They can only be between tokens: in
/// a string they are escaped.
#[cfg(feature = "service")]
pub(crate) fn one_line(value: &RawValue) -> Box<RawValue> {
    if !value.get().contains(BREAKS) {
        return value.to_owned();
    }
    let mut bytes = value.get().as_bytes().to_vec();
    for byte in &mut bytes {
        if BREAKS.contains(&char::from(*byte)) {
            *byte = b' ';
        }
    }
    // The text has the same length and is still JSON.
    let text = String::from_utf8(bytes).ok();
    text.and_then(|text| RawValue::from_string(text).ok()).unwrap_or_else(|| value.to_owned())
}

#[cfg(feature = "service")]
const BREAKS: [char; 3] = ['\n', '\r', '\t'];

/// Whether arrays and objects are nested deeper than `levels`, in text that should be JSON.
#[cfg(feature = "service")]
pub(crate) fn is_nested_deeper(text: &str, levels: usize) -> bool {
    let (mut depth, mut bytes) = (0_usize, text.bytes());
    while let Some(byte) = bytes.next() {
        match byte {
            b'[' | b'{' => {
                depth += 1;
                if depth > levels {
                    return true;
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => {
                while let Some(byte) = bytes.next() {
                    match byte {
                        b'"' => break,
                        b'\\' => drop(bytes.next()),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    false
}

struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;

        impl<'de> Visitor<'de> for Keys {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Keys)
    }
}

#[cfg(all(test, feature = "service"))]
mod tests {
    use super::*;

    #[test]
    fn nesting_is_counted_outside_strings() {
        for (text, levels) in
            [("1", 0), ("[1]", 1), (r#"{"a":[1],"b":{}}"#, 2), (r#"["[[\"{"]"#, 1)]
        {
            assert!(!is_nested_deeper(text, levels), "{text}");
            assert!(levels == 0 || is_nested_deeper(text, levels - 1), "{text}");
        }
    }

    #[test]
    fn one_line_has_no_breaks() {
        let line = |text: &str| {
            let value = RawValue::from_string(text.to_owned()).expect("JSON");
            one_line(&value).get().to_owned()
        };
        assert_eq!(line("{\r\n\t\"a\": \"\\n\"}"), "{   \"a\": \"\\n\"}");
        assert_eq!(line("[1, 2]"), "[1, 2]");
    }
}
