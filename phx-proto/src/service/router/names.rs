//! The segments of event types and bus topics. They can be compared with a pattern without an
//! allocation, and are written only for events with a subscriber.

use core::fmt::{self, Write};

/// The maximum number of characters of a topic or an event in a type.
const TYPE_PART_MAX: usize = 256;

/// One segment of a bus topic that is not yet written.
#[derive(Clone, Copy, Debug)]
pub(super) enum Segment<'a> {
    /// A segment that is written as it is.
    Plain(&'a str),
    /// A name. `:` and `_` are kept, because Phoenix's topics contain them often. Dots, stars,
    /// percent signs, whitespace and control characters are percent-encoded, so two different names
    /// never become the same segment.
    Name(&'a str),
    /// A part of a templated type. It is lossy for the sake of readability. The exact topic is the
    /// subject of the event, and the exact event name is in its data.
    TypePart(&'a str),
}

impl Segment<'_> {
    /// Whether the written segment equals `text`.
    pub(super) fn is(self, text: &str) -> bool {
        let mut rest = Rest(text);
        self.write(&mut rest).is_ok() && rest.0.is_empty()
    }

    fn write(self, out: &mut impl Write) -> fmt::Result {
        match self {
            Self::Plain(text) => out.write_str(text),
            Self::Name(name) => {
                for letter in name.chars() {
                    if is_encoded(letter) {
                        let mut bytes = [0; 4];
                        for byte in letter.encode_utf8(&mut bytes).bytes() {
                            write!(out, "%{byte:02X}")?;
                        }
                    } else {
                        out.write_char(letter)?;
                    }
                }
                Ok(())
            }
            Self::TypePart(name) => name.chars().take(TYPE_PART_MAX).try_for_each(|letter| {
                let is_kept = letter.is_alphanumeric() || letter == '-';
                out.write_char(if is_kept { letter } else { '_' })
            }),
        }
    }
}

fn is_encoded(letter: char) -> bool {
    matches!(letter, '.' | '*' | '%') || letter.is_whitespace() || letter.is_control()
}

/// Whether `text` is a written [`Segment::Name`].
pub(super) fn is_name(text: &str) -> bool {
    decoded(text).is_some_and(|name| Segment::Name(&name).is(text))
}

/// Whether `text` is a written [`Segment::TypePart`].
pub(super) fn is_type_part(text: &str) -> bool {
    Segment::TypePart(text).is(text)
}

/// Decodes the percent-encoded characters; `None` if they are invalid.
fn decoded(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut name = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (code, rest) = part.split_at_checked(2)?;
        name.push(u8::from_str_radix(code, 16).ok()?);
        name.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(name).ok()
}

/// Writes the segments with dots between them.
pub(super) fn joined<'a>(segments: impl IntoIterator<Item = Segment<'a>>) -> String {
    let mut text = String::new();
    for (index, segment) in segments.into_iter().enumerate() {
        if index > 0 {
            text.push('.');
        }
        // Writing to a string cannot fail.
        let _ = segment.write(&mut text);
    }
    text.shrink_to_fit();
    text
}

/// The rest of a text that is compared with a segment. Writing to it removes the written prefix,
/// and fails if the text does not begin with it.
struct Rest<'a>(&'a str);

impl Write for Rest<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 = self.0.strip_prefix(text).ok_or(fmt::Error)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn segment(name: &str) -> String {
        joined([Segment::Name(name)])
    }

    #[test]
    fn special_and_invisible_characters_are_encoded() {
        assert_eq!(segment("room:lobby_1"), "room:lobby_1");
        assert_eq!(segment("a.b*c%d e\n"), "a%2Eb%2Ac%25d%20e%0A");
        assert_eq!(segment("żółw\u{a0}🐢"), "żółw%C2%A0🐢");
        assert_ne!(segment("a.b"), segment("a%2Eb"));
    }

    /// Text that no name is written as.
    #[test]
    fn other_text_is_not_a_name() {
        for text in ["my room", "a*", "100%", "%2", "%41", "%ff", "a%2eb", "a.b"] {
            assert!(!is_name(text), "{text}");
        }
        for text in ["room:lobby", "a_b", "a%2Eb"] {
            assert_eq!(is_type_part(text), text == "a_b", "{text}");
        }
    }

    #[test]
    fn type_parts_are_readable() {
        assert_eq!(joined([Segment::TypePart("room:lobby.x y")]), "room_lobby_x_y");
    }

    /// The name of an event may be as long as a message; its type is truncated.
    #[test]
    fn type_parts_are_short() {
        let (long, cut) = ("ż".repeat(1_000_000), "ż".repeat(TYPE_PART_MAX));
        assert_eq!(joined([Segment::TypePart(&long)]), cut);
        assert!(Segment::TypePart(&long).is(&cut));
    }

    proptest! {
        /// Comparison agrees with the written form.
        #[test]
        fn segment_equals_its_written_form(name in "[a.*% \\PC]{0,4}", other in "[a.%2E_\\PC]{0,4}") {
            for segment in [Segment::Plain(&name), Segment::Name(&name), Segment::TypePart(&name)] {
                let written = joined([segment]);
                prop_assert!(segment.is(&written));
                let is_recognized = match segment {
                    Segment::Plain(_) => true,
                    Segment::Name(_) => is_name(&written),
                    Segment::TypePart(_) => is_type_part(&written),
                };
                prop_assert!(is_recognized);
                prop_assert_eq!(segment.is(&other), written == other);
                let longer = format!("{}a", written);
                prop_assert!(!segment.is(&longer));
            }
        }
    }
}
