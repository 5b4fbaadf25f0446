//! The rule for the names of CloudEvents extension attributes.

/// Names that the specification or its JSON format reserves.
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

/// Whether an extension attribute may have this name: 1 to 20 characters of `a` to `z` and `0` to
/// `9`, and not a reserved name of CloudEvents.
///
/// The specification only recommends the limit of length. It is enforced here so that every
/// transport can carry the name.
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
    fn attribute_names_are_short_and_unreserved() {
        for name in ["sessionid", "a", "x1", "abcdefghijklmnopqrst"] {
            assert!(is_attribute_name(name), "{name}");
        }
        for name in ["", "session_id", "Session", "time", "data", "ü", "abcdefghijklmnopqrstu"] {
            assert!(!is_attribute_name(name), "{name}");
        }
    }
}
