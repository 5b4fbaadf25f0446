//! Facts about Phoenix servers, and how the core handles each. Each fact was recorded from a server.
//! Where vsn 1 differs, both versions are tested.

use crate::hand::{Hand, config, config_v1, ms, secs};
use phx_proto::event::{
    ChannelEnd, Interruption, LeaveOutcome, PushErrorKind, Refusal, RejectionKind, Warning,
};
use phx_proto::wire::EncodeError;
use phx_proto::{
    Cause, ChannelStatus, Config, JoinParams, Opened, Payload, PushOptions, PushOutcome, Signal,
    Status,
};
use serde_json::{Value, json};

/// Both versions of the protocol.
fn versions() -> [Config; 2] {
    [config(), config_v1()]
}

fn push(hand: &mut Hand, event: &str) {
    hand.socket
        .push(hand.now, "room:a", event, json!({}), PushOptions::call())
        .expect("an accepted push");
    hand.drain();
}

fn leaves(hand: &Hand) -> Vec<LeaveOutcome> {
    let outcome = |signal: &Signal| match signal {
        Signal::Left { outcome, .. } => Some(*outcome),
        _ => None,
    };
    hand.signals.iter().filter_map(outcome).collect()
}

/// The kind of the last refusal of a join, and whether it was final.
fn rejection(hand: &Hand) -> Option<(RejectionKind, bool)> {
    hand.signals.iter().rev().find_map(|signal| match signal {
        Signal::JoinRejected { rejection, last, .. } => Some((rejection.kind, *last)),
        _ => None,
    })
}

fn unmatched() -> Value {
    json!({"status": "error", "response": {"reason": "unmatched topic"}})
}

/// The join_ref is null on broadcasts (`wire/broadcast_text`), on heartbeat replies
/// (`wire/heartbeat_ok`) and on "unmatched topic" (`wire/push_unjoined_topic`).
/// Protocol: REF-8, EVENT-2, REPLY-1, REPLY-7.
#[test]
fn null_join_ref_matches_topic_and_ref() {
    for config in versions() {
        let mut hand = Hand::joined(config);
        hand.receive(&json!([null, null, "room:a", "shout", {"x": 1}]));
        assert!(matches!(hand.take_signals().as_slice(), [Signal::Message { .. }]));

        hand.socket.probe(hand.now).unwrap();
        hand.drain();
        hand.answer_heartbeat();
        assert!(matches!(hand.take_signals().as_slice(), [Signal::HeartbeatAcked { .. }]));

        push(&mut hand, "echo");
        let echo = hand.last_sent("room:a", "echo");
        hand.receive(&json!([null, echo.msg_ref, "room:a", "phx_reply", unmatched()]));
        let signals = hand.take_signals();
        assert!(
            matches!(
                signals.as_slice(),
                [
                    Signal::PushEnded { outcome: PushOutcome::Reply(_), .. },
                    Signal::Interrupted { cause: Interruption::Unmatched, .. }
                ]
            ),
            "{signals:#?}"
        );
    }
}

/// Only ref and topic show which join was refused (`wire/join_unmatched_topic`).
/// Protocol: JOIN-4.
#[test]
fn unmatched_topic_refuses_the_right_join() {
    for config in versions() {
        let mut hand = Hand::open(config);
        hand.join("nosuch:1");
        let msg_ref = hand.join_ref("nosuch:1");
        hand.receive(&json!([null, msg_ref, "nosuch:1", "phx_reply", unmatched()]));
        assert_eq!(rejection(&hand), Some((RejectionKind::UnmatchedTopic, true)));
        assert_eq!(hand.socket.channel_status("nosuch:1"), ChannelStatus::Closed);
    }
}

/// The ok of the new join arrives first, and the `phx_close` of the old one after it
/// (`wire/join_double`). The new instance stays.
/// Protocol: JOIN-11.
#[test]
fn close_of_replaced_instance_is_stale() {
    for config in versions() {
        let mut hand = Hand::joined(config);
        let old = hand.join_ref("room:a");
        hand.socket.rejoin(hand.now, "room:a").unwrap();
        hand.advance(secs(1));
        assert_ne!(hand.join_ref("room:a"), old);
        hand.answer_join("room:a");
        hand.receive(&json!([old, old, "room:a", "phx_close", {}]));
        assert_eq!(hand.socket.channel_status("room:a"), ChannelStatus::Joined);
        assert_eq!(hand.socket.stats().stale_frames, 1);
    }
}

/// The server answers a leave with a reply and a `phx_close`, and sometimes only one of them arrives
/// (`wire/leave_ok`, `wire/leave_rejoin_pipelined`).
/// Protocol: LEAVE-2.
#[test]
fn leave_ends_with_reply_or_close() {
    for config in versions() {
        for by_close in [false, true] {
            let mut hand = Hand::joined(config.clone());
            hand.leave("room:a");
            if by_close {
                hand.end_channel("room:a", "phx_close");
            } else {
                hand.answer("room:a", "phx_leave", "ok", json!({}));
            }
            assert_eq!(leaves(&hand), [LeaveOutcome::Acked]);
        }
    }
}

/// A leave that the server considers stale gets no reply at all (`wire/leave_wrong_join_ref`).
/// Protocol: LEAVE-3.
#[test]
fn unanswered_leave_ends_and_topic_rejoins() {
    for config in versions() {
        let mut hand = Hand::joined(config.heartbeat_interval(secs(0)));
        hand.leave("room:a");
        hand.join("room:a");
        assert_eq!(hand.count_sent("room:a", "phx_join"), 1);
        hand.advance(secs(10));
        assert_eq!(leaves(&hand), [LeaveOutcome::TimedOut]);
        assert_eq!(hand.count_sent("room:a", "phx_join"), 2);
        hand.answer_join("room:a");
        assert_eq!(hand.socket.channel_status("room:a"), ChannelStatus::Joined);
    }
}

/// While one `join/3` runs, the server answers neither a heartbeat nor another join
/// (`wire/join_slow_blocks_socket`). A slow join does not shorten the time of the next one.
/// Protocol: JOIN-9, HB-6.
#[test]
fn slow_join_is_no_dead_connection() {
    let mut hand = Hand::open(config().heartbeat_interval(secs(10)));
    hand.join("room:slow");
    hand.join("room:b");
    hand.advance(secs(40));
    assert_eq!(hand.socket.status(), Status::Open, "four heartbeats without a reply");
    let timed_out = |topic: &str| Signal::JoinTimedOut { topic: topic.into() };
    assert!(hand.signals.contains(&timed_out("room:slow")));
    assert!(!hand.signals.contains(&timed_out("room:b")), "it has not begun to run");
    hand.answer_join("room:slow");
    hand.answer_join("room:b");
    hand.answer_heartbeat();
    hand.advance(secs(5));
    assert_eq!(hand.socket.status(), Status::Open);
    for topic in ["room:slow", "room:b"] {
        assert_eq!(hand.socket.channel_status(topic), ChannelStatus::Joined);
        assert_eq!(hand.count_sent(topic, "phx_join"), 1);
    }
}

/// `phx_close` and `phx_error` repeat the join_ref as their ref. In vsn 1 they have only the ref
/// (`wire/leave_ok`, `wire/v1_with_join_ref`).
/// Protocol: END-4, V1-4, RETRY-4.
#[test]
fn close_and_error_match_by_ref() {
    for config in versions() {
        for event in ["phx_close", "phx_error"] {
            let mut hand = Hand::joined(config.clone());
            let old = hand.join_ref("room:a");
            hand.lost();
            hand.until_dial();
            hand.opened();
            hand.answer_join("room:a");
            hand.receive(&json!([old, old, "room:a", event, {}]));
            assert_eq!(hand.socket.channel_status("room:a"), ChannelStatus::Joined);
            assert_eq!(hand.socket.stats().stale_frames, 1);
            hand.end_channel("room:a", event);
            assert_ne!(hand.socket.channel_status("room:a"), ChannelStatus::Joined);
        }
    }
}

/// Phoenix 1.8.3 to 1.8.11 silently drop a push with a null join_ref
/// (`wire/push_null_join_ref__1.8.9`). Phoenix 1.7.24 and 1.8.9 drop a leave with a null join_ref
/// (`wire/leave_null_join_ref__1.8.9`). Phoenix 1.8.3 and later drop a binary push with an empty
/// join_ref (`wire/binary_empty_refs`).
/// Protocol: REF-5, V1-3.
#[test]
fn channel_frames_carry_join_ref() {
    for (config, binary) in [(config(), true), (config_v1(), false)] {
        let mut hand = Hand::joined(config);
        push(&mut hand, "text");
        if binary {
            let bytes = Payload::binary(vec![1, 2, 3]);
            hand.socket
                .push(hand.now, "room:a", "bytes", bytes, PushOptions::call())
                .expect("vsn 2 has binary pushes");
            hand.drain();
            assert_eq!(hand.last_sent("room:a", "bytes").payload, json!([1, 2, 3]));
        }
        hand.leave("room:a");
        let join_ref = hand.join_ref("room:a");
        assert_eq!(hand.sent.len(), if binary { 4 } else { 3 });
        for sent in &hand.sent {
            assert_eq!(sent.join_ref.as_deref(), Some(join_ref.as_str()), "{sent:?}");
        }
    }
}

/// The kinds of refusals: the server's own (`wire/join_unmatched_topic`, `wire/join_crash`,
/// `wire/join_too_many_channels`) and the application's (`wire/join_denied`). A join that crashed is
/// retried.
/// Protocol: JOIN-5, JOIN-6.
#[test]
fn server_refusals_have_kinds() {
    for (reason, kind, last) in [
        ("unmatched topic", RejectionKind::UnmatchedTopic, true),
        ("join crashed", RejectionKind::JoinCrashed, false),
        ("too many channels joined", RejectionKind::TooManyChannels, true),
        ("not_allowed", RejectionKind::Application, true),
    ] {
        let mut hand = Hand::open(config());
        hand.join("room:a");
        hand.answer("room:a", "phx_join", "error", json!({"reason": reason}));
        assert_eq!(rejection(&hand), Some((kind, last)), "{reason}");
        hand.advance(secs(5));
        let joins = if last { 1 } else { 2 };
        assert_eq!(hand.count_sent("room:a", "phx_join"), joins, "{reason}");
    }
    // An auto-join waits for a free slot instead of retrying at once.
    let auto = config().auto_join("room:a", JoinParams::none()).expect("no reserved topic");
    let mut hand = Hand::open(auto);
    hand.answer("room:a", "phx_join", "error", json!({"reason": "too many channels joined"}));
    assert_eq!(rejection(&hand), Some((RejectionKind::TooManyChannels, false)));
    assert!(hand.rejoin_after("room:a") >= secs(15));
}

/// The payload of `phx_error` is `{"reason":"channel_crash"}` in `wire/channel_crash` and `{}` in
/// `wire/channel_crash__1.7.24`.
/// Protocol: END-3.
#[test]
fn crash_ignores_its_payload() {
    for config in versions() {
        for payload in [json!({"reason": "channel_crash"}), json!({}), json!(null), json!([1])] {
            let mut hand = Hand::joined(config.clone());
            let join_ref = hand.join_ref("room:a");
            hand.receive(&json!([join_ref, join_ref, "room:a", "phx_error", payload]));
            let signals = hand.take_signals();
            let [Signal::Errored { payload: delivered, .. }, Signal::Interrupted { cause, .. }] =
                signals.as_slice()
            else {
                panic!("{signals:#?}")
            };
            assert_eq!((delivered.to_value().unwrap(), cause), (payload, &Interruption::Crashed));
            hand.advance(hand.rejoin_after("room:a"));
            hand.answer_join("room:a");
            assert_eq!(hand.socket.channel_status("room:a"), ChannelStatus::Joined);
        }
    }
}

/// A deploy closes with 1012 (`wire/close_graceful_shutdown`). A `disconnect` by id closes with 1001
/// (`wire/close_disconnect_by_id`), or with 1000 or 1011 in other versions. An idle timeout closes
/// with 1002 (`wire/idle_timeout_close`). A killed process sends no close frame
/// (`wire/transport_killed`).
/// Protocol: CLOSE-1.
#[test]
fn server_close_codes_all_reconnect() {
    for code in [1000, 1001, 1002, 1011, 1012] {
        let mut hand = Hand::joined(config());
        hand.close_frame(code);
        let cause = Cause::RemoteClose { code: Some(code), reason: String::new() };
        assert_eq!(hand.reconnect_after().1, cause);
        hand.until_dial();
        hand.opened();
        hand.answer_join("room:a");
        assert_eq!(hand.socket.channel_status("room:a"), ChannelStatus::Joined, "{code}");
    }
    let mut hand = Hand::joined(config());
    hand.lost();
    assert!(matches!(hand.socket.status(), Status::Waiting { .. }));
}

/// A refused connect is answered with 403 and an empty body, or with the response of an
/// `error_handler`. If `connect` raises, the answer is a 500 (`wire/handshake_rejected`).
/// Protocol: CONN-14, RETRY-7.
#[test]
fn refused_connect_keeps_status_headers_body() {
    let retry_after = vec![("retry-after".to_owned(), "1".to_owned())];
    for (status, headers, body) in
        [(403, vec![], ""), (429, retry_after, "Too many requests"), (500, vec![], "oops")]
    {
        let mut hand = Hand::new(config());
        hand.connect();
        hand.failed(Cause::Refused(Refusal::new(status, headers.clone(), body)));
        let (delay, Cause::Refused(refusal)) = hand.reconnect_after() else {
            panic!("{:?}", hand.actions)
        };
        assert_eq!(refusal.status(), status);
        assert_eq!((refusal.headers(), &*refusal.body_text()), (headers.as_slice(), body));
        match status {
            403 => assert!(delay >= ms(2_500), "a refusal is not hammered: {delay:?}"),
            429 => assert!(delay >= secs(1), "as long as it asked for: {delay:?}"),
            _ => assert_eq!(delay, ms(10), "an ordinary retry"),
        }
    }
}

/// The auth token is sent in the standard alphabet without padding, although the name of the
/// subprotocol contains `base64url`: Phoenix answers the URL-safe alphabet with a 500
/// (`wire/handshake_auth_token_variants`). A server without `auth_token` selects no subprotocol
/// (`wire/handshake_auth_token__1.7.24`), which is not an error.
/// Protocol: CONN-6, CONN-7, CONN-8.
#[test]
fn auth_token_is_unpadded_standard_base64() {
    // Bytes that give '+', '/' and padding in base64.
    let mut hand = Hand::new(config().auth_token("\u{3ff}?>~~"));
    let request = hand.socket.connect_request().expect("an address that may be dialled");
    let offered: Vec<_> = request.subprotocols.iter().map(|s| s.expose().to_owned()).collect();
    assert_eq!(offered[0], "phoenix");
    let token = offered[1].strip_prefix("base64url.bearer.phx.").expect("the prefix");
    assert_eq!(token, "z78/Pn5+");
    let mut unpadded = Hand::new(config().auth_token("a"));
    unpadded.connect();
    let request = unpadded.socket.connect_request().expect("an address that may be dialled");
    assert_eq!(request.subprotocols[1].expose(), "base64url.bearer.phx.YQ");

    hand.connect();
    hand.opened();
    assert_eq!(hand.socket.status(), Status::Open);
    let warning = Signal::Warning(Warning::AuthTokenNotAcknowledged);
    assert!(hand.signals.contains(&warning));
    // A server that accepted it selects `phoenix`.
    let id = unpadded.dialled.expect("a dial");
    let opened = Opened { protocol: Some("phoenix".into()) };
    unpadded.socket.handle_opened(unpadded.now, id, opened);
    unpadded.drain();
    assert!(!unpadded.signals.contains(&warning));
}

/// If the server cannot decode a frame, it closes the whole connection
/// (`wire/malformed_closes_all_channels`), so the client refuses to write such frames: fields of
/// binary frames have at most 255 bytes, and vsn 1 has no binary frames (`wire/v1_binary`).
/// Protocol: BIN-6, V1-5.
#[test]
fn undecodable_frames_are_refused_locally() {
    let long = "e".repeat(256);
    for (config, event, ok) in
        [(config(), &long[..255], true), (config(), &long[..], false), (config_v1(), "e", false)]
    {
        let mut hand = Hand::joined(config);
        let payload = Payload::binary(vec![7]);
        let pushed =
            hand.socket.push(hand.now, "room:a", event, payload.clone(), PushOptions::call());
        hand.drain();
        match pushed {
            Ok(_) => assert!(ok),
            Err(error) => {
                assert!(!ok, "{error}");
                assert!(
                    matches!(
                        error.kind,
                        PushErrorKind::Encode(
                            EncodeError::FieldTooLong { .. } | EncodeError::NoBinary
                        )
                    ),
                    "{error:?}"
                );
                assert_eq!(error.payload, payload);
            }
        }
        assert_eq!(hand.count_sent("room:a", event), usize::from(ok));
    }
}

/// The client's binary push has a ref, the server's has none (`wire/binary_echo`,
/// `wire/broadcast_binary`).
/// Protocol: BIN-1, BIN-2, BIN-3, BIN-4.
#[test]
fn binary_frames_are_asymmetric() {
    let mut hand = Hand::joined(config());
    let join_ref = hand.join_ref("room:a");
    assert_eq!(join_ref, "1");
    let bytes = Payload::binary(vec![1]);
    hand.socket.push(hand.now, "room:a", "echo", bytes, PushOptions::call()).unwrap();
    hand.drain();
    let echo = hand.last_sent("room:a", "echo");
    assert_eq!((echo.join_ref.as_deref(), echo.msg_ref.as_str()), (Some("1"), "2"));

    let reply = b"\x01\x01\x01\x06\x0212room:aok\x01\xff";
    hand.receive_binary(reply);
    let push = b"\x00\x01\x06\x041room:anews\xfe";
    hand.receive_binary(push);
    let broadcast = b"\x02\x06\x05room:ashout\xfd";
    hand.receive_binary(broadcast);
    let signals = hand.take_signals();
    let [Signal::PushEnded { outcome: PushOutcome::Reply(reply), .. }, first, second] =
        signals.as_slice()
    else {
        panic!("{signals:#?}")
    };
    assert_eq!((&*reply.status, reply.response.as_bytes()), ("ok", &[1, 0xff][..]));
    for (signal, wanted, byte) in [(first, "news", 0xfe), (second, "shout", 0xfd)] {
        let Signal::Message { event, payload, .. } = signal else { panic!("{signal:?}") };
        assert_eq!((&**event, payload.as_bytes()), (wanted, &[byte][..]));
    }
    // A message of an earlier instance is not delivered.
    hand.receive_binary(b"\x00\x01\x06\x049room:anews\xfe");
    assert!(hand.take_signals().is_empty());
    assert_eq!(hand.socket.stats().stale_frames, 1);
}

/// Any received data resets the server's idle timeout of 60 s (`wire/idle_timeout_close`,
/// `wire/idle_timeout_pings`). The client needs the reply to its heartbeat, which is the only
/// evidence that the peer is there.
/// Protocol: HB-2, HB-5.
#[test]
fn heartbeats_stay_within_server_idle_timeout() {
    for config in versions() {
        let mut hand = Hand::joined(config);
        let start = hand.now;
        // A client that writes other frames sends heartbeats all the same.
        for _ in 0..59 {
            push(&mut hand, "busy");
            hand.advance(secs(1));
            if hand.sent.last().is_some_and(|sent| sent.event == "heartbeat") {
                hand.answer_heartbeat();
            }
        }
        assert!(hand.count_sent("phoenix", "heartbeat") >= 1);
        assert_eq!(hand.socket.status(), Status::Open);
        // The application's traffic continues, but the heartbeat gets no reply.
        let mut seconds = 0;
        while hand.socket.status() == Status::Open && seconds < 100 {
            hand.receive(&json!([null, null, "room:a", "tick", {}]));
            hand.advance(secs(1));
            seconds += 1;
        }
        assert_eq!(hand.reconnect_after().1, Cause::HeartbeatTimeout);
        assert!(hand.now.since(start) < secs(59 + 41), "{:?}", hand.now.since(start));
    }
}

/// The server answers a leave of a channel that it does not have with ok (`wire/leave_never_joined`).
/// A close by the server is final (`wire/channel_stop_normal`).
/// Protocol: END-1.
#[test]
fn server_close_of_channel_is_final() {
    for config in versions() {
        let mut hand = Hand::joined(config);
        hand.end_channel("room:a", "phx_close");
        let closed = ChannelEnd::ClosedByServer;
        let end = Signal::ChannelClosed { topic: "room:a".into(), cause: closed };
        assert_eq!(hand.take_signals(), [end]);
        hand.advance(secs(12));
        assert_eq!(hand.count_sent("room:a", "phx_join"), 1);
    }
}
