//! Excerpts of a peer's text for messages: bounded, on one line, and without characters that could move
//! the cursor or reverse the text.

use core::fmt::{self, Write as _};

use crate::wire::payload::Payload;

/// The maximum number of characters in an excerpt.
const CHARS_MAX: usize = 200;

/// A text of a peer, escaped and bounded.
pub(crate) struct Excerpt<'a>(pub(crate) &'a str);

impl fmt::Display for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut chars = self.0.chars();
        for c in chars.by_ref().take(CHARS_MAX) {
            match c {
                // Quotes and backslashes are harmless and frequent in JSON, so they are not escaped.
                '"' | '\'' | '\\' => f.write_char(c)?,
                // Escapes control characters, line breaks and format characters such as U+202E.
                c => write!(f, "{}", c.escape_debug())?,
            }
        }
        match chars.count() {
            0 => Ok(()),
            more => write!(f, "… ({more} more characters)"),
        }
    }
}

/// The reason in a response: its member `reason` if that is a string, otherwise the whole response.
pub(crate) fn reason(response: &Payload) -> String {
    if response.is_binary() {
        return format!("{} bytes that are not JSON", response.len());
    }
    let text = String::from_utf8_lossy(response.as_bytes());
    if let Ok(serde_json::Value::Object(members)) = response.to_value() {
        match members.get("reason") {
            Some(serde_json::Value::String(reason)) => return Excerpt(reason).to_string(),
            None if members.is_empty() => return "it gave no reason".to_owned(),
            _ => {}
        }
    }
    Excerpt(&text).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn response_reason_is_one_bounded_line() {
        for (response, expected) in [
            (json!({"reason": "unauthorized"}), "unauthorized"),
            (
                json!({"reason": "a\nb\r\u{1b}[2J\u{202e}c\u{9b}"}),
                r"a\nb\r\u{1b}[2J\u{202e}c\u{9b}",
            ),
            (json!({"reason": {"code": 7}}), r#"{"reason":{"code":7}}"#),
            (json!({"code": "x", "user_id": 7}), r#"{"code":"x","user_id":7}"#),
            (json!("no"), r#""no""#),
            (json!({}), "it gave no reason"),
            (json!(null), "null"),
        ] {
            assert_eq!(reason(&Payload::from(response)), expected);
        }
        assert_eq!(reason(&Payload::binary([0, 255])), "2 bytes that are not JSON");
        let long = reason(&Payload::from(json!({"reason": "ä".repeat(1_000)})));
        assert_eq!(long, format!("{}… (800 more characters)", "ä".repeat(200)));
        let broken = Payload::unparsed(bytes::Bytes::from_static(b"{\"reason\": \xff\n"));
        assert_eq!(reason(&broken), "{\"reason\": \u{fffd}\\n");
    }
}
