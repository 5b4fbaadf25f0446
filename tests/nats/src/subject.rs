//! From bus topics to NATS subjects.
//!
//! Both are segments between dots, and a segment of the bus has neither dots, `*` nor what cannot
//! be seen: those are percent-encoded there. What is left is `>`, which NATS reserves, the empty
//! segment, which it does not know, and a length that a broker refuses a connection for. So a
//! pattern of the bus is a pattern of NATS, with `>` for `**`, and two topics are never one subject.

/// A broker reads lines of 4,096 bytes, and a header has its share of them.
const BYTES_MAX: usize = 2_048;

/// The subject for a bus topic; none for one that is too long.
pub fn subject(topic: &str) -> Option<String> {
    let mut subject = String::with_capacity(topic.len());
    for (index, segment) in topic.split('.').enumerate() {
        if index > 0 {
            subject.push('.');
        }
        if segment.is_empty() {
            // No other segment is that: a percent sign of the bus has two digits behind it.
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
    fn what_nats_reserves_is_encoded_and_nothing_else() {
        let same = "jido.protocol.phoenix.a.room:lobby_1";
        assert_eq!(subject(same).as_deref(), Some(same));
        assert_eq!(subject("jido.a>b.>").as_deref(), Some("jido.a%3Eb.%3E"));
        assert_eq!(subject("jido.signal.").as_deref(), Some("jido.signal.%"));
        assert_eq!(subject("jido.%2E%20").as_deref(), Some("jido.%2E%20"));
    }

    #[test]
    fn a_subject_that_would_cost_the_connection_is_none() {
        assert!(subject(&"x".repeat(BYTES_MAX)).is_some());
        assert_eq!(subject(&"x".repeat(BYTES_MAX + 1)), None);
    }
}
