//! Which keys there are, what may stand there, and which one somebody may have meant.
//!
//! The reader knows no other keys, and the schema is made of this table; a test reads the same
//! documents with both.

/// What may stand at a key. `null`, everywhere, asks for the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// `true` or `false`.
    Flag,
    /// A string, with `${references}`.
    Text,
    /// One of these strings, or a reference to one.
    OneOf(&'static [&'static str]),
    /// Milliseconds.
    Msec,
    /// A whole number.
    Count,
    /// A whole number that is not 0.
    Positive,
    /// A whole number of 32 bits.
    Small,
    /// Milliseconds, one after another.
    Steps,
    /// Two times in milliseconds, the first not later than the second.
    Range,
    /// An object, or a list of pairs, of strings; numbers and booleans are written out.
    Pairs,
    /// Pairs whose names are those of CloudEvents' extension attributes.
    Attributes,
    /// Topics, pairs of topic and parameters, or an object of them.
    Channels,
    /// The files of TLS.
    Tls,
}

/// The keys of a connection: what may stand there, and what it is.
pub(super) const CONNECTION: &[(&str, Shape, &str)] = &[
    ("allow_insecure", Shape::Flag, "Lets ws:// leave this machine."),
    ("attributes", Shape::Attributes, "CloudEvents extension attributes, added to every event."),
    ("auth_token", Shape::Text, "The token of Phoenix's auth_token."),
    (
        "auto_join_channels",
        Shape::Channels,
        "Topics, pairs of topic and parameters, or an object of them.",
    ),
    ("close_timeout_msec", Shape::Msec, "How long a close may take."),
    ("connect_timeout_msec", Shape::Msec, "How long an attempt to connect may take."),
    ("connect_to", Shape::Text, "host:port to dial in place of the URI's; Host and TLS name stay."),
    ("first_retry_spread_msec", Shape::Range, "[from, to] of the first retry after a loss."),
    ("headers", Shape::Pairs, "Headers of the upgrade; Phoenix shows the socket those with x-."),
    ("heartbeat_interval_msec", Shape::Msec, "How often a heartbeat is sent; 0 for never."),
    ("heartbeat_timeout_msec", Shape::Msec, "How long its answer may take."),
    ("join_block_max_msec", Shape::Msec, "How long a join may block the connection."),
    ("join_concurrency", Shape::Positive, "Joins that wait for their answer at a time."),
    ("join_rejections_max", Shape::Small, "Rejections in a row before a topic is given up."),
    ("join_timeout_msec", Shape::Msec, "How long a join may take."),
    ("leave_timeout_msec", Shape::Msec, "How long a leave may take."),
    ("mailbox_bytes_max", Shape::Count, "Payload bytes that wait for one consumer."),
    ("mailbox_messages_max", Shape::Positive, "Messages that wait for one consumer."),
    ("max_elapsed_msec", Shape::Msec, "How long to try before giving up; null for ever."),
    ("max_message_bytes", Shape::Count, "The largest message that is received."),
    ("max_push_bytes", Shape::Count, "The largest frame that is sent."),
    ("max_restarts", Shape::Small, "Restarts within max_restarts_msec that are not too many."),
    ("max_restarts_msec", Shape::Msec, "The time that max_restarts counts in."),
    ("max_retries", Shape::Small, "Retries before giving up; null for ever."),
    ("params", Shape::Pairs, "Parameters of the socket."),
    (
        "progress_max_msec",
        Shape::Msec,
        "The longest time that bytes moved may extend the deadline of an answer.",
    ),
    ("push_timeout_msec", Shape::Msec, "How long a push may take, from the call to its outcome."),
    ("pushes_in_flight_max", Shape::Positive, "Calls that may await their replies."),
    ("queued_bytes_max", Shape::Count, "Bytes of payloads and event names of pushes that wait."),
    ("queued_pushes_max", Shape::Count, "Pushes that wait."),
    ("read_buffer_bytes", Shape::Positive, "The buffer for reading."),
    (
        "receive_rate_min",
        Shape::Count,
        "Bytes per second; how much time the bytes read buy an answer.",
    ),
    ("reconnect", Shape::Flag, "false means max_retries 0."),
    ("reconnect_after_msec", Shape::Steps, "Delays between attempts to connect; the last repeats."),
    ("refused_after_msec", Shape::Steps, "Delays after a refused upgrade; the last repeats."),
    ("rejected_after_msec", Shape::Steps, "Delays after a rejected join; the last repeats."),
    ("rejoin_after_msec", Shape::Steps, "Delays after a crashed channel; the last repeats."),
    (
        "restart",
        Shape::OneOf(&["permanent", "temporary", "transient"]),
        "When an ended connection is started again.",
    ),
    ("retry_after_max_msec", Shape::Msec, "The longest Retry-After that is obeyed."),
    (
        "send_rate_min",
        Shape::Count,
        "Bytes per second; how much time the bytes written buy an answer.",
    ),
    ("stable_after_msec", Shape::Msec, "How long a connection is open before it counts as stable."),
    ("strict_payloads", Shape::Flag, "Whether payloads are checked on arrival."),
    ("tls", Shape::Tls, "Files in PEM, read when the document is, and the name to verify."),
    ("uri", Shape::Text, "ws:// or wss://, with the path of the socket."),
    ("vsn", Shape::OneOf(&["1.0.0", "2.0.0"]), "The version of the wire format."),
    ("write_buffer_bytes", Shape::Count, "The buffer for writing."),
    ("write_stall_timeout_msec", Shape::Msec, "How long a write may be stuck, without heartbeats."),
];

/// The keys inside of `tls`.
pub(super) const TLS: &[(&str, &str)] = &[
    ("ca_file", "The certificate authorities to trust, in place of Mozilla's."),
    ("cert_file", "The certificate chain to show."),
    ("key_file", "Its key."),
    ("server_name", "The name to verify, in place of the host of the address."),
];

/// Whether a connection has such a key.
pub(super) fn is_known(key: &str) -> bool {
    CONNECTION.iter().any(|(known, ..)| *known == key)
}

/// The names of the keys of a connection.
pub(super) fn connection() -> impl Iterator<Item = &'static str> {
    CONNECTION.iter().map(|(name, ..)| *name)
}

/// The known key that is nearest to `key`, if any is near at all.
pub(super) fn suggestion(
    key: &str,
    known: impl IntoIterator<Item = &'static str>,
) -> Option<&'static str> {
    let near = known.into_iter().map(|known| (distance(key, known), known)).min()?;
    (near.0 <= 1 + key.len() / 4).then_some(near.1)
}

/// How many letters must be added, taken away or changed.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_anything_else_is_not() {
        assert_eq!(suggestion("header", connection()), Some("headers"));
        assert_eq!(suggestion("heartbeat_interval", connection()), Some("heartbeat_interval_msec"));
        assert_eq!(suggestion("auto_join_chanels", connection()), Some("auto_join_channels"));
        assert_eq!(suggestion("colour", connection()), None);
    }

    #[test]
    fn keys_are_sorted() {
        assert!(connection().is_sorted());
        assert!(TLS.is_sorted());
    }
}
