//! Conversion of bus topics to NATS subjects.
//!
//! Both are segments separated by dots, and the bus percent-encodes dots, `*` and invisible characters in
//! a segment. Three differences remain: `>`, which NATS reserves, is written `%3E`; an empty segment,
//! which NATS does not allow, is written `%`; and a subject for which a broker would close the
//! connection, because it is too long, is refused. So a pattern of the bus is a pattern of NATS, with `>`
//! for `**`, and two topics never have the same subject.

/// A broker reads lines of at most 4,096 bytes, which include the header.
const BYTES_MAX: usize = 2_048;

/// The subject for a bus topic; `None` if it is too long.
pub fn subject(topic: &str) -> Option<String> {
    let mut subject = String::with_capacity(topic.len());
    for (index, segment) in topic.split('.').enumerate() {
        if index > 0 {
            subject.push('.');
        }
        if segment.is_empty() {
            // No other segment becomes a single `%`, because the bus writes two digits after a percent
            // sign.
            subject.push('%');
        }
        for letter in segment.chars() {
            match letter {
                '>' => subject.push_str("%3E"),
                letter => subject.push(letter),
            }
        }
    }
    (subject.len() <= BYTES_MAX).then_some(subject)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_reserved_characters_are_encoded() {
        let same = "jido.protocol.phoenix.a.room:lobby_1";
        assert_eq!(subject(same).as_deref(), Some(same));
        assert_eq!(subject("jido.a>b.>").as_deref(), Some("jido.a%3Eb.%3E"));
        assert_eq!(subject("jido.signal.").as_deref(), Some("jido.signal.%"));
        assert_eq!(subject("jido.%2E%20").as_deref(), Some("jido.%2E%20"));
    }

    /// A broker would close the connection for a longer subject.
    #[test]
    fn oversized_subject_is_refused() {
        assert!(subject(&"x".repeat(BYTES_MAX)).is_some());
        assert_eq!(subject(&"x".repeat(BYTES_MAX + 1)), None);
    }
}
