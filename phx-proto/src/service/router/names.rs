//! Names of types and topics on the bus.

use core::fmt::Write as _;

/// One segment of a bus topic. `:` and `_` stay as they are, because Phoenix's topics are full of
/// them; what separates segments, what a pattern gives a meaning to, and what cannot be seen is
/// percent-encoded. Two different names never become the same segment.
pub(super) fn push_segment(topic: &mut String, name: &str) {
    for letter in name.chars() {
        if matches!(letter, '.' | '*' | '%') || letter.is_whitespace() || letter.is_control() {
            let mut bytes = [0; 4];
            for byte in letter.encode_utf8(&mut bytes).bytes() {
                // Writing to a string cannot fail.
                let _ = write!(topic, "%{byte:02X}");
            }
        } else {
            topic.push(letter);
        }
    }
}

/// One part of a templated type: readable, and therefore lossy. The raw topic is the subject of
/// the event.
pub(super) fn push_type_part(part: &mut String, name: &str) {
    part.extend(name.chars().map(|letter| match letter {
        letter if letter.is_alphanumeric() || letter == '-' => letter,
        _ => '_',
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(name: &str) -> String {
        let mut text = String::new();
        push_segment(&mut text, name);
        text
    }

    #[test]
    fn separators_wildcards_and_what_cannot_be_seen_are_encoded() {
        assert_eq!(segment("room:lobby_1"), "room:lobby_1");
        assert_eq!(segment("a.b*c%d e\n"), "a%2Eb%2Ac%25d%20e%0A");
        assert_eq!(segment("żółw\u{a0}🐢"), "żółw%C2%A0🐢");
        assert_ne!(segment("a.b"), segment("a%2Eb"));
    }

    #[test]
    fn types_are_readable() {
        let mut part = String::new();
        push_type_part(&mut part, "room:lobby.x y");
        assert_eq!(part, "room_lobby_x_y");
    }
}
