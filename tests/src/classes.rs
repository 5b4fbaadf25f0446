//! The class of each recording: whether it checks the client, the test server, or neither.

/// Which side a recording checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// A client of this library could have sent every frame: string refs (of any value), a join
    /// whose join_ref is its ref, the join_ref on every push and leave, pushes only on a joined
    /// topic, one heartbeat at a time, no ping, a close with code 1000 and no reason, and an
    /// upgrade request that the library can make. A second join of a joined topic corresponds to
    /// `Socket::rejoin`. A join after an unanswered leave corresponds to a client whose
    /// `leave_timeout` has passed. A payload may be any JSON text, because the application may push
    /// raw JSON. Such a recording checks the client and the server.
    ///
    /// `client_recordings` derives the class from each file and compares it with the table.
    Conforming,
    /// Any other WebSocket recording. It checks only the test server.
    Server,
    /// Long-poll, a transport that this project does not implement.
    OutOfScope,
}

/// Every recording, by name, with its class.
pub const TABLE: &[(&str, Class)] = &[
    ("binary_echo", Class::Conforming),
    ("binary_empty_refs", Class::Server),
    ("binary_empty_refs__1.7.24", Class::Server),
    ("binary_reply_to_text_join_ref_int", Class::Server),
    ("binary_topic_too_long", Class::Conforming),
    ("broadcast_binary", Class::Server),
    ("broadcast_text", Class::Server),
    ("channel_crash", Class::Server),
    ("channel_crash__1.7.24", Class::Server),
    ("channel_crash_one_of_two", Class::Conforming),
    ("channel_stop_left", Class::Conforming),
    ("channel_stop_normal", Class::Server),
    ("channel_stop_other_reason", Class::Conforming),
    ("channel_stop_shutdown", Class::Conforming),
    // The recorded close frame has a reason, which the core never sends.
    ("close_by_client", Class::Server),
    ("close_by_client_nocode", Class::Server),
    ("close_disconnect_by_id", Class::Conforming),
    ("close_disconnect_by_id__1.8.9", Class::Conforming),
    ("close_graceful_shutdown", Class::Conforming),
    ("close_graceful_shutdown__1.7.24", Class::Conforming),
    ("close_graceful_shutdown_client_silent", Class::Conforming),
    ("close_push_after_close", Class::Server),
    ("frame_too_big", Class::Conforming),
    ("handshake_auth_token", Class::Conforming),
    // The server ignores the token, but the client still sends it.
    ("handshake_auth_token__1.7.24", Class::Conforming),
    ("handshake_auth_token_variants", Class::Server),
    ("handshake_compress_off", Class::Server),
    ("handshake_ok", Class::Conforming),
    ("handshake_pipelined_frame", Class::Server),
    ("handshake_rejected", Class::Conforming),
    ("handshake_vsn", Class::Server),
    ("handshake_vsn__1.7.24", Class::Server),
    ("handshake_wrong_path", Class::Conforming),
    ("heartbeat_ok", Class::Conforming),
    ("idle_timeout_close", Class::Conforming),
    ("idle_timeout_pings", Class::Server),
    ("join_crash", Class::Conforming),
    ("join_denied", Class::Server),
    ("join_double", Class::Server),
    ("join_double__1.7.24", Class::Server),
    ("join_double_same_ref", Class::Server),
    ("join_null_join_ref", Class::Server),
    ("join_null_join_ref__1.7.24", Class::Server),
    ("join_null_join_ref__1.8.9", Class::Server),
    ("join_ok", Class::Conforming),
    ("join_ok_empty_reply", Class::Conforming),
    ("join_pipelined", Class::Server),
    ("join_ref_differs_from_ref", Class::Server),
    ("join_slow_blocks_socket", Class::Conforming),
    ("join_timeout_leave_rejoin", Class::Conforming),
    // The second join of a joined topic is `Socket::rejoin`.
    ("join_too_many_channels", Class::Conforming),
    ("join_unicode_topic", Class::Conforming),
    ("join_unmatched_topic", Class::Server),
    ("large_server_push", Class::Conforming),
    ("large_text_echo", Class::Conforming),
    ("leave_never_joined", Class::Server),
    ("leave_null_join_ref__1.8.9", Class::Server),
    ("leave_ok", Class::Conforming),
    ("leave_rejoin_pipelined", Class::Conforming),
    ("leave_rejoin_sequential", Class::Conforming),
    ("leave_then_push", Class::Server),
    ("leave_then_push_alt", Class::Server),
    ("leave_wrong_join_ref", Class::Server),
    ("leave_wrong_join_ref__1.7.24", Class::Server),
    ("longpoll_auth_token_header", Class::OutOfScope),
    ("longpoll_bad_token", Class::OutOfScope),
    ("longpoll_binary_messages", Class::OutOfScope),
    ("longpoll_error_replies_status", Class::OutOfScope),
    ("longpoll_malformed", Class::OutOfScope),
    ("longpoll_ndjson_binary", Class::OutOfScope),
    ("longpoll_ndjson_over_100", Class::OutOfScope),
    ("longpoll_poll_empty", Class::OutOfScope),
    ("longpoll_preflight_and_methods", Class::OutOfScope),
    ("longpoll_presence", Class::OutOfScope),
    ("longpoll_rejected", Class::OutOfScope),
    ("longpoll_session", Class::OutOfScope),
    ("longpoll_session__1.7.24", Class::OutOfScope),
    ("longpoll_token_in_header", Class::OutOfScope),
    ("longpoll_token_in_header__1.7.24", Class::OutOfScope),
    ("longpoll_token_in_header__1.8.9", Class::OutOfScope),
    ("malformed_array6", Class::Server),
    ("malformed_binary_bad_utf8_event", Class::Server),
    ("malformed_binary_empty", Class::Server),
    ("malformed_binary_is_json", Class::Server),
    ("malformed_binary_kind1", Class::Server),
    ("malformed_binary_kind9", Class::Server),
    ("malformed_closes_all_channels", Class::Server),
    // Duplicate keys and numbers out of range are allowed in a payload, which is raw JSON.
    ("malformed_duplicate_keys", Class::Conforming),
    ("malformed_empty_text", Class::Server),
    ("malformed_json_scalar", Class::Server),
    ("malformed_not_json", Class::Server),
    ("malformed_number_overflow", Class::Conforming),
    ("malformed_numbers", Class::Conforming),
    ("malformed_object", Class::Server),
    ("malformed_reserved_opcode", Class::Server),
    ("malformed_topic_null_join", Class::Server),
    ("malformed_topic_number_join", Class::Server),
    ("malformed_trailing_garbage", Class::Server),
    ("malformed_unmasked_frame", Class::Server),
    ("ping_pong", Class::Server),
    ("ping_too_long", Class::Server),
    // The second join is `Socket::rejoin` with new parameters.
    ("presence_double_join", Class::Conforming),
    ("presence_drop", Class::Conforming),
    ("presence_state_and_own_diff", Class::Conforming),
    ("presence_state_and_own_diff__1.7.24", Class::Conforming),
    ("presence_track_extra_untrack", Class::Conforming),
    ("presence_two_clients", Class::Server),
    ("presence_update", Class::Conforming),
    ("push_null_join_ref", Class::Server),
    ("push_null_join_ref__1.7.24", Class::Server),
    ("push_null_join_ref__1.8.9", Class::Server),
    ("push_replies", Class::Conforming),
    // Only `phx_join` and `phx_leave` are reserved for the client itself.
    ("push_reserved_events", Class::Conforming),
    ("push_server_push_order", Class::Conforming),
    ("push_stale_join_ref", Class::Server),
    ("push_stale_join_ref__1.7.24", Class::Server),
    ("push_unjoined_topic", Class::Server),
    ("push_unknown_event", Class::Conforming),
    ("push_whoami_headers", Class::Conforming),
    ("transport_killed", Class::Conforming),
    // No recording of vsn 1 is conforming, because the recorder omits the join_ref, or sends a
    // stale join_ref or a null ref. The test `client_recordings` plays v1_with_join_ref and
    // v1_heartbeat without those frames.
    ("v1_binary", Class::Server),
    ("v1_heartbeat", Class::Server),
    ("v1_join_push_leave", Class::Server),
    ("v1_malformed", Class::Server),
    ("v1_v2_mixed_broadcast", Class::Server),
    ("v1_with_join_ref", Class::Server),
    ("v1_with_join_ref__1.7.24", Class::Server),
];

/// The class of a recording; `None` if it is not in the table.
#[must_use]
pub fn class_of(name: &str) -> Option<Class> {
    TABLE.iter().find(|(named, _)| *named == name).map(|(_, class)| *class)
}
