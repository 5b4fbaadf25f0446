//! Which keys there are, and which one somebody may have meant.

/// The keys of a connection.
pub(super) const CONNECTION: &[&str] = &[
    "allow_insecure",
    "attributes",
    "auth_token",
    "auto_join_channels",
    "close_timeout_msec",
    "connect_timeout_msec",
    "first_retry_spread_msec",
    "headers",
    "heartbeat_interval_msec",
    "heartbeat_timeout_msec",
    "join_block_max_msec",
    "join_concurrency",
    "join_rejections_max",
    "join_timeout_msec",
    "leave_timeout_msec",
    "mailbox_bytes_max",
    "mailbox_messages_max",
    "max_elapsed_msec",
    "max_message_bytes",
    "max_push_bytes",
    "max_restarts",
    "max_restarts_msec",
    "max_retries",
    "params",
    "push_timeout_msec",
    "queued_bytes_max",
    "queued_pushes_max",
    "read_buffer_bytes",
    "reconnect",
    "reconnect_after_msec",
    "refused_after_msec",
    "rejected_after_msec",
    "rejoin_after_msec",
    "restart",
    "retry_after_max_msec",
    "stable_after_msec",
    "strict_payloads",
    "tls",
    "uri",
    "vsn",
    "write_buffer_bytes",
    "write_stall_timeout_msec",
];

/// The known key that is nearest to `key`, if any is near at all.
pub(super) fn suggestion(key: &str, known: &[&'static str]) -> Option<&'static str> {
    let near = known.iter().map(|known| (distance(key, known), *known)).min()?;
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
        assert_eq!(suggestion("header", CONNECTION), Some("headers"));
        assert_eq!(suggestion("heartbeat_interval", CONNECTION), Some("heartbeat_interval_msec"));
        assert_eq!(suggestion("auto_join_chanels", CONNECTION), Some("auto_join_channels"));
        assert_eq!(suggestion("colour", CONNECTION), None);
    }

    #[test]
    fn keys_are_sorted() {
        assert!(CONNECTION.is_sorted());
    }
}
