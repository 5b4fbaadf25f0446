//! The names that CloudEvents allows for extension attributes.

/// Names that the specification uses itself, or that its JSON format does.
pub(crate) const TAKEN: &[&str] = &[
    "data",
    "data_base64",
    "datacontenttype",
    "dataschema",
    "id",
    "source",
    "specversion",
    "subject",
    "time",
    "type",
];

/// Whether an extension attribute may have this name: 1 to 20 of `a` to `z` and `0` to `9`, and
/// none of CloudEvents' own.
///
/// The specification says "should" of the length; a name that every transport carries is worth
/// the limit.
#[must_use]
pub fn is_attribute_name(name: &str) -> bool {
    (1..=20).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        && !TAKEN.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_plain_and_free() {
        for name in ["sessionid", "a", "x1", "abcdefghijklmnopqrst"] {
            assert!(is_attribute_name(name), "{name}");
        }
        for name in ["", "session_id", "Session", "time", "data", "ü", "abcdefghijklmnopqrstu"] {
            assert!(!is_attribute_name(name), "{name}");
        }
    }
}
