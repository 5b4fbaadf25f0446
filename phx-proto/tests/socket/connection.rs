//! The connection machine on virtual time, without a transport.

use std::time::Duration;

use crate::hand::{Hand, check, config, ms, secs};
use phx_proto::config::{Backoff, CloseRule, DelayRange, StatusRule};
use phx_proto::event::{ChannelEnd, NextStep, NotRetrying, Refusal, Warning};
use phx_proto::socket::TimerKind;
use phx_proto::{Action, Cause, ChannelStatus, Credentials, Ended, Opened, Signal, Status};

fn dial_failure() -> Cause {
    Cause::Dial { kind: phx_proto::event::DialKind::Refused, message: "refused".into() }
}

fn refused(status: u16, headers: &[(&str, &str)]) -> Cause {
    let headers = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    Cause::Refused(Refusal::new(status, headers, ""))
}

/// An attempt without an answer is aborted after `connect_timeout`, and retried. Reported in
/// firezone/firezone#11591.
#[test]
fn unanswered_attempt_is_aborted_after_connect_timeout() {
    let mut hand = Hand::new(config());
    hand.connect();
    assert_eq!(hand.socket.poll_timeout().map(|t| t.kind), Some(TimerKind::Connect));
    hand.advance(ms(9_999));
    assert!(!hand.has_abort());
    hand.advance(ms(1));
    assert!(hand.has_abort());
    assert_eq!(hand.reconnect_after().1, Cause::ConnectTimeout);
}

/// The delay before the first retry is random, in a range that depends on how the connection ended.
/// Reported in phoenixframework/phoenix#4045 and phoenixframework/phoenix#5942.
/// Protocol: RETRY-5.
#[test]
fn first_retry_is_spread_by_cause() {
    for seed in 0..50 {
        for (code, to) in
            [(None, 1_500), (Some(1000), 2_000), (Some(1001), 2_000), (Some(1012), 2_000)]
        {
            let mut hand = Hand::with_seed(config(), seed);
            hand.connect();
            hand.opened();
            match code {
                None => hand.lost(),
                Some(code) => hand.close_frame(code),
            }
            check(hand.reconnect_after().0, 10, to, "first retry");
        }
    }
}

/// After close code 1012, the delays of 200 clients use both ends of the range. Reported in
/// phoenixframework/phoenix#4045 and phoenixframework/phoenix#5942.
#[test]
fn deploy_spread_uses_its_whole_range() {
    let delays: Vec<_> = (0..200)
        .map(|seed| {
            let mut hand = Hand::with_seed(config(), seed);
            hand.connect();
            hand.opened();
            hand.close_frame(1012);
            hand.reconnect_after().0
        })
        .collect();
    assert!(delays.iter().any(|delay| *delay < ms(200)));
    assert!(delays.iter().any(|delay| *delay > ms(1_800)));
}

/// Retries follow the steps of the backoff, with jitter. The last step repeats.
/// Protocol: RETRY-5.
#[test]
fn retries_follow_steps_with_jitter() {
    for seed in 0..20 {
        let mut hand = Hand::with_seed(config(), seed);
        hand.connect();
        for step in [10, 50, 100, 150, 200, 250, 500, 1_000, 2_000, 5_000, 5_000, 5_000] {
            hand.failed(dial_failure());
            let (delay, _) = hand.reconnect_after();
            check(delay, (step / 2).max(10), step, "step");
            assert_eq!(hand.until_dial(), delay);
        }
    }
}

#[test]
fn exponential_schedule_can_be_chosen() {
    let backoff = Backoff::exponential(ms(100), 3.0, secs(1)).unwrap().jitter(0.0).unwrap();
    let mut hand = Hand::new(config().reconnect_after(backoff));
    hand.connect();
    for expected in [100, 300, 900, 1_000] {
        hand.failed(dial_failure());
        assert_eq!(hand.until_dial(), ms(expected));
    }
}

/// A server accepts each connection and drops it after a second: the delay grows with every loss.
/// Reported in phoenixframework/phoenix#6766.
#[test]
fn accept_and_drop_server_is_not_hammered() {
    let mut hand = Hand::new(config());
    hand.connect();
    let mut last = Duration::ZERO;
    for _ in 0..12 {
        hand.opened();
        hand.advance(secs(1));
        hand.lost();
        last = hand.reconnect_after().0;
        hand.until_dial();
    }
    check(last, 2_500, 5_000, "the twelfth loss in a row");
}

#[test]
fn attempt_counter_resets_after_stable_connection() {
    let mut hand = Hand::new(config());
    hand.connect();
    for _ in 0..10 {
        hand.failed(dial_failure());
        hand.until_dial();
    }
    hand.opened();
    hand.advance(secs(10));
    hand.lost();
    check(hand.reconnect_after().0, 10, 1_500, "after ten stable seconds");
    hand.until_dial();
    hand.failed(dial_failure());
    check(hand.reconnect_after().0, 1_000, 2_000, "the second attempt");
}

/// After an open connection was lost, the first retry is spread over a range of time. Steps of the
/// backoff that are shorter than this spread are skipped.
#[test]
fn steps_below_the_spread_are_skipped() {
    let spread = |max| DelayRange::new(ms(10), ms(max)).expect("a range");
    for (max, steps) in [
        (1_500, &[2_000, 5_000, 5_000][..]),
        (400, &[500, 1_000, 2_000, 5_000]),
        // With a short spread the short steps are kept.
        (50, &[50, 100, 150, 200]),
        (9_999, &[5_000, 5_000]),
    ] {
        let mut hand = Hand::new(config().first_retry_spread(spread(max)));
        hand.connect();
        hand.opened();
        hand.lost();
        check(hand.reconnect_after().0, 10, max, "the first retry");
        for step in steps {
            hand.until_dial();
            hand.failed(dial_failure());
            check(hand.reconnect_after().0, step / 2, *step, "a step");
        }
        // A gateway that answers while the server is still down belongs to the same outage.
        hand.until_dial();
        hand.failed(refused(503, &[]));
        check(hand.reconnect_after().0, steps[steps.len() - 1] / 2, 5_000, "503");
    }
}

/// A second loss in a row neither restarts nor shortens the steps.
#[test]
fn second_loss_keeps_the_steps() {
    let mut hand = Hand::new(config());
    hand.connect();
    for (from, to) in [(10, 1_500), (1_000, 2_000), (2_500, 5_000)] {
        hand.opened();
        hand.lost();
        check(hand.reconnect_after().0, from, to, "a connection that does not hold");
        hand.until_dial();
    }
}

/// A stable connection ends the skipping of short steps: the next failure waits as after any loss.
/// Reported in phoenixframework/phoenix#5155.
#[test]
fn stable_connection_restores_skipped_steps() {
    let range = DelayRange::new(secs(4), secs(5)).unwrap();
    let mut hand = Hand::open(config().close_rule(4001, CloseRule::RetryWithin(range)));
    hand.close_frame(4001);
    hand.until_dial();
    hand.opened();
    hand.advance(secs(10));
    hand.lost();
    hand.until_dial();
    hand.failed(dial_failure());
    check(hand.reconnect_after().0, 1_000, 2_000, "as after any loss");
}

#[test]
fn max_retries_counts_scheduled_reconnects() {
    for max in [0, 1, 3] {
        let mut hand = Hand::new(config().max_retries(Some(max)));
        hand.connect();
        for _ in 0..max {
            hand.failed(dial_failure());
            hand.until_dial();
        }
        hand.forget();
        hand.failed(dial_failure());
        let cause =
            Cause::Dial { kind: phx_proto::event::DialKind::Refused, message: "refused".into() };
        assert_eq!(hand.socket.status(), Status::GaveUp { cause: cause.clone() });
        assert_eq!(hand.signals.last(), Some(&Signal::GaveUp { cause }));
        hand.advance(secs(10_000));
        assert!(matches!(hand.socket.status(), Status::GaveUp { .. }));
    }
}

/// If the next delay would exceed `max_elapsed`, the client gives up. Reported in
/// phoenixframework/phoenix#5155.
#[test]
fn delay_beyond_max_elapsed_gives_up() {
    let steps = Backoff::steps_msec(&[400]).unwrap().jitter(0.0).unwrap();
    let limits = config().reconnect_after(steps).max_elapsed(Some(ms(1_000)));
    let mut hand = Hand::new(limits);
    hand.connect();
    for _ in 0..2 {
        hand.failed(dial_failure());
        hand.until_dial();
    }
    hand.failed(dial_failure());
    assert!(matches!(hand.socket.status(), Status::GaveUp { .. }));
}

/// By default, the client reconnects after every close code of the server. Reported in
/// phoenixframework/phoenix#3161 and mtrudel/bandit#582.
/// Protocol: CLOSE-1.
#[test]
fn every_remote_close_code_reconnects_by_default() {
    for code in [1000, 1001, 1002, 1006, 1008, 1011, 1012, 1013, 4000] {
        let mut hand = Hand::open(config());
        hand.close_frame(code);
        assert!(matches!(hand.socket.status(), Status::Waiting { .. }), "{code}");
    }
}

/// A close rule can stop reconnecting after a code, or delay it, because some applications want the
/// connection to stay closed. Reported in phoenixframework/phoenix#3161 and mtrudel/bandit#582.
#[test]
fn close_rules_can_stop_or_delay() {
    let range = DelayRange::new(secs(30), secs(60)).unwrap();
    let rules =
        config().close_rule(4001, CloseRule::Stop).close_rule(1013, CloseRule::RetryWithin(range));
    let mut hand = Hand::open(rules.clone());
    hand.close_frame(4001);
    assert!(matches!(hand.socket.status(), Status::GaveUp { .. }));
    let mut hand = Hand::open(rules);
    hand.close_frame(1013);
    check(hand.reconnect_after().0, 30_000, 60_000, "1013");
}

/// A close frame is followed by a reset: the cause is the close frame, and the reset is stale.
/// Protocol: CLOSE-8.
#[test]
fn first_cause_wins_over_later_reset() {
    let mut hand = Hand::open(config());
    hand.close_frame(1012);
    hand.lost();
    assert_eq!(
        hand.reconnect_after().1,
        Cause::RemoteClose { code: Some(1012), reason: String::new() }
    );
    assert_eq!(hand.socket.stats().stale_inputs, 1);
}

#[test]
fn status_401_stops_without_fresh_credentials() {
    let mut hand = Hand::new(config());
    hand.connect();
    hand.failed(refused(401, &[]));
    assert!(matches!(hand.socket.status(), Status::GaveUp { .. }));

    let mut hand = Hand::new(config().credentials_refreshed(true));
    hand.connect();
    hand.failed(refused(401, &[]));
    check(hand.reconnect_after().0, 10, 10, "a first 401 gets fresh credentials soon");
    hand.until_dial();
    hand.failed(refused(401, &[]));
    check(hand.reconnect_after().0, 2_500, 5_000, "a repeated 401 is a refusal");
}

/// Refusals wait longer than losses do, and are counted separately.
/// Protocol: RETRY-7.
#[test]
fn refusals_have_their_own_counter() {
    for status in [301, 400, 403, 404] {
        let mut hand = Hand::new(config());
        hand.connect();
        for step in [5_000, 15_000, 60_000, 300_000, 300_000] {
            hand.failed(refused(status, &[]));
            check(hand.reconnect_after().0, step / 2, step, "refusal");
            hand.until_dial();
        }
        if status == 404 {
            // After an accepted upgrade, a 404 is not counted as a refusal.
            continue;
        }
        // An accepted upgrade resets the counter.
        hand.opened();
        hand.lost();
        hand.until_dial();
        hand.failed(refused(status, &[]));
        check(hand.reconnect_after().0, 2_500, 5_000, "the first refusal of a new row");
    }
}

#[test]
fn busy_server_gets_ordinary_backoff() {
    for status in [408, 425, 429, 500, 502, 503, 599] {
        let mut hand = Hand::new(config());
        hand.connect();
        hand.failed(refused(status, &[]));
        check(hand.reconnect_after().0, 10, 10, "busy");
    }
}

/// Rules can make a 403 final, and make a 500 count as a refusal. Reported in firezone/firezone#2464
/// and firezone/firezone#14735.
#[test]
fn status_rules_can_be_changed() {
    let rules = config().status_rule(403, StatusRule::Stop).status_rule(500, StatusRule::Refused);
    let mut hand = Hand::new(rules.clone());
    hand.connect();
    hand.failed(refused(403, &[]));
    assert!(matches!(hand.socket.status(), Status::GaveUp { .. }));
    let mut hand = Hand::new(rules);
    hand.connect();
    hand.failed(refused(500, &[]));
    check(hand.reconnect_after().0, 2_500, 5_000, "500 as a refusal");
}

/// A refusal with 404 hints at the path, because paths of Phoenix sockets usually end in
/// `/websocket`.
#[test]
fn status_404_hints_at_websocket_path() {
    let Cause::Refused(refusal) = refused(404, &[]) else { unreachable!("built above") };
    assert!(Cause::Refused(refusal).to_string().contains("/websocket"));
}

/// `Retry-After` has two forms: seconds and an HTTP date. The delay is obeyed up to a maximum.
/// Reported in phoenixframework/phoenix#4045 and phoenixframework/phoenix#5942.
/// Protocol: CONN-15.
#[test]
fn retry_after_is_obeyed_up_to_maximum() {
    let date = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
    let later = ("retry-after", "Sun, 06 Nov 1994 08:50:37 GMT");
    for seed in 0..20 {
        for (headers, from, to) in [
            (vec![("retry-after", "10")], 10_000, 12_000),
            (vec![date, later], 60_000, 72_000),
            (vec![("retry-after", "99999")], 3_600_000, 4_320_000),
            (vec![("retry-after", "soon")], 10, 10),
        ] {
            let mut hand = Hand::with_seed(config(), seed);
            hand.connect();
            hand.failed(refused(503, &headers));
            check(hand.reconnect_after().0, from, to, "retry-after");
        }
    }
}

/// If the credentials provider fails, the attempt is retried. If it gives up, the client gives up.
#[test]
fn provider_error_backs_off() {
    let mut hand = Hand::new(config().credentials_refreshed(true));
    hand.connect();
    hand.failed(Cause::CredentialsFailed { message: "vault is sealed".into() });
    check(hand.reconnect_after().0, 10, 10, "a provider error");
    hand.until_dial();
    hand.failed(Cause::CredentialsGaveUp { reason: "signed out".into() });
    assert!(matches!(hand.socket.status(), Status::GaveUp { .. }));
}

/// If the provider returns unchanged credentials after a 401 or a 403, the client gives up. At any other
/// time it uses them.
#[test]
fn unchanged_credentials_are_final_after_refusal() {
    for status in [401, 403] {
        let mut hand = Hand::new(config().credentials_refreshed(true));
        hand.connect();
        let first = hand.dialled.unwrap();
        hand.socket.credentials_unchanged(hand.now, first);
        assert!(matches!(hand.socket.status(), Status::Connecting { .. }));
        hand.failed(refused(status, &[]));
        hand.until_dial();
        let second = hand.dialled.unwrap();
        hand.socket.credentials_unchanged(hand.now, second);
        hand.drain();
        let cause = Cause::CredentialsUnchanged;
        assert_eq!(hand.socket.status(), Status::GaveUp { cause });
        assert!(hand.has_abort());
    }
}

/// New credentials replace every earlier parameter, and the next dial uses them.
#[test]
fn credentials_are_replaced_as_a_whole() {
    let hand_config = config().param("token", "old").param("keep", "no");
    let mut hand = Hand::new(hand_config);
    hand.socket.set_credentials(hand.now, Credentials::new().param("token", "new")).unwrap();
    let target =
        hand.socket.connect_request().expect("an address that may be dialled").uri.target();
    assert_eq!(target, "/socket/websocket?token=new&vsn=2.0.0");
    hand.socket.set_credentials(hand.now, Credentials::new()).unwrap();
    assert_eq!(
        hand.socket.connect_request().expect("an address that may be dialled").uri.target(),
        "/socket/websocket?vsn=2.0.0"
    );
}

/// The auth token is sent as a subprotocol. A server that selects no subprotocol causes a warning.
#[test]
fn auth_token_travels_as_subprotocol() {
    let mut hand = Hand::new(config().auth_token("secret-token-1"));
    let request = hand.socket.connect_request().expect("an address that may be dialled");
    let offered: Vec<_> = request.subprotocols.iter().map(|s| s.expose().to_owned()).collect();
    assert_eq!(offered, ["phoenix", "base64url.bearer.phx.c2VjcmV0LXRva2VuLTE"]);
    assert!(!format!("{request:?}").contains("c2VjcmV0"));
    hand.connect();
    hand.opened();
    let warning = Signal::Warning(Warning::AuthTokenNotAcknowledged);
    assert!(hand.signals.contains(&warning));

    let mut hand = Hand::new(config().auth_token("secret-token-1"));
    hand.connect();
    let id = hand.dialled.unwrap();
    hand.socket.handle_opened(hand.now, id, Opened { protocol: Some("phoenix".into()) });
    hand.drain();
    assert!(!hand.signals.contains(&warning));
}

/// After a disconnect in any state, the socket is closed and has no deadline. Reported in
/// phoenixframework/phoenix#1841 and phoenixframework/phoenix#2187.
#[test]
fn disconnect_wins_in_every_state() {
    type Prepare = fn(&mut Hand);
    let states: [(&str, Prepare); 6] = [
        ("idle", |_| {}),
        ("connecting", Hand::connect),
        ("open", |hand| {
            hand.connect();
            hand.opened();
        }),
        ("waiting", |hand| {
            hand.connect();
            hand.failed(dial_failure());
        }),
        ("closing", |hand| {
            hand.connect();
            hand.opened();
            hand.socket.disconnect(hand.now);
            hand.drain();
        }),
        ("gave up", |hand| {
            hand.connect();
            hand.failed(refused(401, &[]));
        }),
    ];
    for (name, prepare) in states {
        let mut hand = Hand::new(config());
        prepare(&mut hand);
        hand.socket.disconnect(hand.now);
        hand.drain();
        hand.advance(secs(1_000));
        assert_eq!(hand.socket.status(), Status::Closed, "{name}");
        let closed = hand.signals.iter().filter(|signal| **signal == Signal::Closed).count();
        assert_eq!(closed, 1, "{name}");
        assert_eq!(hand.socket.poll_timeout(), None, "{name}");
    }
}

/// A disconnect sends close code 1000. The connection is aborted if the peer does not answer in time.
/// Protocol: CLOSE-9.
#[test]
fn disconnect_sends_1000_then_aborts() {
    let mut hand = Hand::open(config());
    hand.socket.disconnect(hand.now);
    hand.drain();
    assert_eq!(hand.close_code(), Some(1000));
    assert_eq!(hand.socket.status(), Status::Closing);
    hand.advance(ms(1_999));
    assert!(!hand.has_abort());
    hand.advance(ms(1));
    assert!(hand.has_abort());
    assert_eq!(hand.socket.status(), Status::Closed);
}

/// A `connect` while the connection is closing takes effect afterwards. A later disconnect cancels
/// it.
#[test]
fn connect_while_closing_is_remembered() {
    for cancel in [false, true] {
        let mut hand = Hand::open(config());
        let first = hand.dialled;
        hand.socket.disconnect(hand.now);
        hand.socket.connect(hand.now);
        if cancel {
            hand.socket.disconnect(hand.now);
        }
        hand.drain();
        hand.close_frame(1000);
        if cancel {
            assert_eq!(hand.socket.status(), Status::Closed);
        } else {
            assert_eq!(hand.socket.status(), Status::Connecting { attempt: 0 });
            assert!(hand.dialled > first, "a new id");
        }
    }
}

#[test]
fn connect_after_end_keeps_auto_joins_only() {
    let auto =
        config().auto_join("room:auto", phx_proto::JoinParams::none()).expect("no reserved topic");
    let mut hand = Hand::open(auto);
    hand.join("room:a");
    let first = hand.dialled;
    hand.socket.disconnect(hand.now);
    hand.drain();
    hand.close_frame(1000);
    assert_eq!(hand.socket.channels().count(), 0);
    assert!(hand.socket.join(hand.now, "room:a", serde_json::json!({})).is_err());
    hand.connect();
    hand.opened();
    assert!(hand.dialled > first);
    let topics: Vec<_> = hand.socket.channels().map(|(topic, _)| topic.to_string()).collect();
    assert_eq!(topics, ["room:auto"]);
    assert_eq!(hand.count_sent("room:auto", "phx_join"), 2);
}

#[test]
fn give_up_ends_every_channel() {
    let mut hand = Hand::open(config().max_retries(Some(0)));
    hand.join("room:a");
    hand.forget();
    hand.lost();
    assert!(hand.signals.iter().any(|signal| matches!(signal, Signal::ChannelClosed { .. })));
    assert_eq!(hand.socket.channel_status("room:a"), ChannelStatus::Closed);
}

/// `connect_now` ends a wait, and replaces an attempt that is under way. Reported in
/// firezone/firezone#5065 and firezone/firezone#13438.
#[test]
fn connect_now_dials_at_once() {
    let mut hand = Hand::new(config());
    assert_eq!(hand.socket.connect_now(hand.now), Err(NotRetrying));
    hand.connect();
    hand.failed(refused(403, &[]));
    hand.socket.connect_now(hand.now).unwrap();
    hand.drain();
    assert_eq!(hand.socket.status(), Status::Connecting { attempt: 0 });
    let before = hand.dialled;
    hand.socket.connect_now(hand.now).unwrap();
    hand.drain();
    assert!(hand.has_abort() && hand.dialled > before);
    hand.opened();
    assert_eq!(hand.socket.connect_now(hand.now), Ok(()));
    hand.socket.disconnect(hand.now);
    assert_eq!(hand.socket.connect_now(hand.now), Err(NotRetrying));
    hand.drain();
    hand.close_frame(1000);
    assert_eq!(hand.socket.connect_now(hand.now), Err(NotRetrying));
}

/// A wake-up ends an ordinary wait. It does not end the wait after a refusal, or a wait that the
/// server asked for with `Retry-After`.
#[test]
fn wake_skips_wait_but_not_retry_after() {
    type Fail = fn(&mut Hand);
    let ordinary = |hand: &mut Hand| hand.failed(dial_failure());
    let refusal = |hand: &mut Hand| hand.failed(refused(403, &[]));
    let asked = |hand: &mut Hand| hand.failed(refused(503, &[("retry-after", "60")]));
    let cases: [(Fail, bool); 3] = [(ordinary, true), (refusal, false), (asked, false)];
    for (fail, skips) in cases {
        let mut hand = Hand::new(config());
        hand.connect();
        fail(&mut hand);
        hand.socket.handle_wake(hand.now);
        hand.drain();
        assert_eq!(matches!(hand.socket.status(), Status::Connecting { .. }), skips);
    }
}

#[test]
fn wake_acts_at_most_once_a_second() {
    let steps = Backoff::steps_msec(&[60_000]).unwrap();
    let mut hand = Hand::new(config().reconnect_after(steps));
    hand.connect();
    let mut dials = 0;
    for _ in 0..20 {
        if matches!(hand.socket.status(), Status::Connecting { .. }) {
            hand.failed(dial_failure());
            dials += 1;
        }
        hand.socket.handle_wake(hand.now);
        hand.drain();
        hand.advance(ms(100));
    }
    assert_eq!(dials, 3, "the first, and one for each second begun");
}

/// Inputs with the id of an earlier connection are counted as stale and have no other effect.
/// Reported in phoenixframework/phoenix#6600 and phoenixframework/phoenix#6103.
/// Protocol: RETRY-4.
#[test]
fn inputs_of_earlier_connection_change_nothing() {
    let mut hand = Hand::open(config());
    let old = hand.dialled.unwrap();
    hand.lost();
    hand.until_dial();
    hand.opened();
    hand.forget();
    let before = format!("{:?}", (hand.socket.status(), hand.socket.poll_timeout()));
    hand.socket.handle_opened(hand.now, old, Opened::default());
    hand.socket.handle_failed(hand.now, old, dial_failure());
    hand.socket.handle_closed(hand.now, old, Ended::MessageTooLarge);
    hand.socket.handle_frame(hand.now, old, phx_proto::Frame::from("garbage"));
    hand.socket.handle_writable(hand.now, old, false);
    hand.drain();
    let after = format!("{:?}", (hand.socket.status(), hand.socket.poll_timeout()));
    assert_eq!(before, after);
    assert!(hand.signals.is_empty() && hand.actions.is_empty());
    assert_eq!(hand.socket.stats().stale_inputs, 5);
}

/// A message over the limit closes the connection with 1009, and the next connection works. Reported
/// in phoenixframework/phoenix#1873.
#[test]
fn message_over_limit_closes_with_1009() {
    let mut hand = Hand::joined(config().max_message_bytes(200));
    hand.receive_text(&format!("[null,null,\"room:a\",\"big\",\"{}\"]", "x".repeat(300)));
    assert_eq!(hand.close_code(), Some(1009));
    hand.close_frame(1009);
    assert_eq!(hand.reconnect_after().1, Cause::MessageTooLarge { limit: 200 });
    hand.until_dial();
    hand.opened();
    hand.answer_join("room:a");
    assert_eq!(hand.socket.channel_status("room:a"), ChannelStatus::Joined);
}

/// If a message over the limit follows a join, the server sends it again after every rejoin. So after
/// repeated messages over the limit, the retry waits as long as after a refusal.
#[test]
fn repeated_message_too_large_waits_as_refused() {
    let mut hand = Hand::joined(config().max_message_bytes(200).heartbeat_interval(secs(0)));
    let too_large = |hand: &mut Hand, open_for| {
        hand.advance(open_for);
        hand.ended(Ended::MessageTooLarge);
        let (delay, cause) = hand.reconnect_after();
        assert_eq!(cause, Cause::MessageTooLarge { limit: 200 });
        delay
    };
    let again = |hand: &mut Hand| {
        hand.until_dial();
        hand.opened();
        hand.answer_join("room:a");
    };
    // Each connection lasts longer than `stable_after`, as on a slow link, and failed attempts are in
    // between.
    for (nth, (from, to)) in [(10, 1_500), (2_500, 5_000), (7_500, 15_000)].into_iter().enumerate()
    {
        let delay = too_large(&mut hand, secs(15));
        check(delay, from, to, &format!("after {nth}"));
        hand.until_dial();
        hand.failed(dial_failure());
        again(&mut hand);
    }
    // A wake-up does not shorten any of these waits.
    let delay = too_large(&mut hand, secs(1));
    check(delay, 30_000, 60_000, "the fourth");
    hand.socket.handle_wake(hand.now);
    hand.drain();
    assert!(matches!(hand.socket.status(), Status::Waiting { .. }));
    again(&mut hand);
    // Any other cause in between resets the count, and so does a connection that lasted longer than the
    // longest wait.
    hand.lost();
    again(&mut hand);
    let delay = too_large(&mut hand, secs(15));
    check(delay, 10, 1_500, "another end in between");
    again(&mut hand);
    let delay = too_large(&mut hand, secs(301));
    check(delay, 10, 1_500, "longer than any wait");
    again(&mut hand);
    let delay = too_large(&mut hand, secs(300));
    check(delay, 2_500, 5_000, "as long as the longest wait is not enough");
}

#[test]
fn message_too_large_names_its_setter() {
    let text = Cause::MessageTooLarge { limit: 200 }.to_string();
    assert!(text.contains("200 bytes") && text.contains("`Config::max_message_bytes`"), "{text}");
}

#[test]
fn many_connections_take_smaller_messages() {
    let defaults = config();
    assert_eq!(defaults.max_message_bytes, 64 << 20);
    assert_eq!(defaults.for_many_connections().max_message_bytes, 8 << 20);
}

/// One refusal may end thousands of channels, so they share its headers instead of a copy each.
#[test]
fn refusal_is_shared_by_every_channel() {
    let mut hand = Hand::new(config().max_retries(Some(0)));
    let topics = ["room:a", "room:b", "room:c"];
    topics.iter().for_each(|topic| hand.join(topic));
    hand.connect();
    let refusal = Refusal::new(403, vec![("x-why".to_owned(), "full".to_owned())], "");
    let headers = refusal.headers().as_ptr();
    hand.failed(Cause::Refused(refusal));
    let mut ended = 0;
    for signal in &hand.signals {
        let cause = match signal {
            Signal::ChannelClosed { cause: ChannelEnd::GaveUp(cause), .. } => cause,
            Signal::GaveUp { cause } | Signal::ConnectFailed { cause, .. } => cause,
            _ => continue,
        };
        let Cause::Refused(refusal) = cause else { panic!("{cause}") };
        assert_eq!(refusal.headers().as_ptr(), headers);
        ended += 1;
    }
    assert_eq!(ended, topics.len() + 2);
}

/// A frame that cannot be decoded is reported, and the next valid frame still works.
#[test]
fn garbage_is_reported_and_skipped() {
    let mut hand = Hand::joined(config());
    for garbage in ["", "garbage", "{}", "[1,2]", "[null,null,\"room:a\",\"e\"]", "[null,1,2,3,4]"]
    {
        hand.receive_text(garbage);
        assert!(
            matches!(hand.take_signals().as_slice(), [Signal::ProtocolError { .. }]),
            "{garbage:?}"
        );
    }
    hand.receive(&serde_json::json!([null, null, "room:a", "tick", {}]));
    assert!(matches!(hand.take_signals().as_slice(), [Signal::Message { .. }]));
    assert_eq!(hand.socket.stats().protocol_errors, 6);
}

type End = fn(&mut Hand);

const FAILED: End = |hand| hand.failed(dial_failure());
const PANICKED: End = |hand| hand.socket.handle_panicked(hand.now);
const LEFT: End = |hand| hand.socket.disconnect(hand.now);

/// `ConnectFailed` is emitted for every way in which an attempt ends that never opened.
#[test]
fn connect_failed_ends_every_attempt() {
    let replaced: End = |hand| hand.socket.connect_now(hand.now).expect("it is connecting");
    let late: End = |hand| hand.advance(secs(10));
    for (number, end) in [FAILED, Hand::lost, PANICKED, LEFT, replaced, late].iter().enumerate() {
        let mut hand = Hand::new(config());
        hand.connect();
        let attempt = hand.dialled.expect("a dial");
        hand.forget();
        end(&mut hand);
        hand.drain();
        let first = &hand.signals[0];
        let failed = matches!(first, Signal::ConnectFailed { id, .. } if *id == attempt);
        assert!(failed, "{number}: {:?}", hand.signals);
    }
}

/// `Disconnected` is emitted for every way in which an open connection ends.
#[test]
fn disconnected_ends_every_open_connection() {
    let closed: End = |hand| {
        hand.socket.disconnect(hand.now);
        hand.close_frame(1000);
    };
    for (number, end) in [FAILED, Hand::lost, PANICKED, closed].iter().enumerate() {
        let mut hand = Hand::open(config());
        let open = hand.dialled.expect("a dial");
        hand.forget();
        end(&mut hand);
        hand.drain();
        let first = &hand.signals[0];
        let lost = matches!(first, Signal::Disconnected { id, .. } if *id == open);
        assert!(lost, "{number}: {:?}", hand.signals);
    }
}

/// `Disconnected` contains the delay and the number of the next attempt. Reported in
/// supabase/supabase-flutter#536.
#[test]
fn disconnected_names_the_next_step() {
    let mut hand = Hand::open(config());
    hand.forget();
    hand.lost();
    let (delay, cause) = hand.reconnect_after();
    let id = hand.dialled.unwrap();
    let next = NextStep::Retry { delay, attempt: 1 };
    assert_eq!(hand.take_signals(), [Signal::Disconnected { id, cause, next }]);
    assert!(matches!(hand.actions.as_slice(), [Action::ReconnectAfter { attempt: 1, .. }]));
}

/// A driver may report the end of a connection whose opening it has not reported. Then the attempt
/// with that id has failed.
#[test]
fn closed_before_opened_is_failed_attempt() {
    let mut hand = Hand::new(config());
    hand.connect();
    hand.lost();
    assert_eq!(hand.reconnect_after().1, Cause::TransportLost { message: "reset".into() });
    assert_eq!(hand.socket.stats().failed_attempts, 1);
    assert_eq!(hand.socket.stats().stale_inputs, 0);
    hand.until_dial();
    assert_eq!(hand.socket.poll_timeout().map(|t| t.kind), Some(TimerKind::Connect));
    // A close frame proves that the connection was open: its rule applies.
    let mut hand = Hand::new(config().close_rule(4000, CloseRule::Stop));
    hand.connect();
    hand.close_frame(4000);
    assert!(matches!(hand.socket.status(), Status::GaveUp { .. }));
    let mut hand = Hand::new(config());
    hand.connect();
    hand.close_frame(1012);
    check(hand.reconnect_after().0, 10, 2_000, "a restart");
    hand.until_dial();
    hand.ended(Ended::MessageTooLarge);
    assert!(matches!(hand.reconnect_after().1, Cause::MessageTooLarge { .. }));
}

#[test]
fn failed_after_opened_is_a_loss() {
    let mut hand = Hand::joined(config());
    hand.failed(dial_failure());
    let refused =
        Cause::Dial { kind: phx_proto::event::DialKind::Refused, message: "refused".into() };
    assert_eq!(hand.reconnect_after().1, refused);
    assert_eq!(hand.socket.stats().lost_connections, 1);
    assert_eq!(hand.socket.stats().stale_inputs, 0);
    let interrupted = |signal: &Signal| matches!(signal, Signal::Interrupted { .. });
    assert!(hand.signals.iter().any(interrupted), "{:?}", hand.signals);
    assert_eq!(hand.socket.poll_timeout().map(|t| t.kind), Some(TimerKind::Reconnect));
}

#[test]
fn failed_while_closing_ends_the_close() {
    let mut hand = Hand::open(config());
    hand.socket.disconnect(hand.now);
    hand.drain();
    hand.failed(dial_failure());
    assert_eq!(hand.socket.status(), Status::Closed);
    assert_eq!(hand.socket.poll_timeout(), None);
}

/// Thousands of clients that got the same hour in `Retry-After` must not reconnect in the same
/// second.
#[test]
fn retry_after_at_its_cap_is_spread() {
    let mut delays = Vec::new();
    for seed in 0..50 {
        let mut hand = Hand::with_seed(config(), seed);
        hand.connect();
        hand.failed(refused(503, &[("retry-after", "7200")]));
        let (delay, _) = hand.reconnect_after();
        check(delay, 3_600_000, 4_320_000, "an hour and up to a fifth more");
        delays.push(delay);
    }
    let (least, most) = (delays.iter().min().unwrap(), delays.iter().max().unwrap());
    assert!(*most - *least > secs(600), "{least:?} to {most:?}");
}

/// A router without a backend answers 404 during a deploy. If a connection was open before, the path
/// is right and the client retries soon.
#[test]
fn status_404_after_open_is_a_deploy() {
    let mut hand = Hand::new(config().heartbeat_interval(Duration::ZERO));
    hand.connect();
    hand.opened();
    hand.advance(secs(60));
    hand.lost();
    hand.until_dial();
    let first = hand.now;
    loop {
        let waited = hand.now.since(first);
        hand.failed(refused(404, &[]));
        let (delay, _) = hand.reconnect_after();
        if waited >= secs(120) {
            check(delay, 2_500, 5_000, "refused_after from its first step");
            break;
        }
        check(delay, 500, 5_000, "reconnect_after");
        assert!(hand.socket.stats().failed_attempts < 100);
        hand.until_dial();
    }
    // After two minutes the 404 counts as a refusal.
    hand.until_dial();
    hand.failed(refused(404, &[]));
    check(hand.reconnect_after().0, 7_500, 15_000, "refused_after");
    // After the connection was open again, the two minutes start over.
    hand.until_dial();
    hand.opened();
    hand.advance(secs(10));
    hand.lost();
    hand.until_dial();
    hand.failed(refused(404, &[]));
    check(hand.reconnect_after().0, 500, 2_000, "reconnect_after");
    // They also start over if the connection was open only for a moment. A wake-up skips the wait.
    hand.advance(secs(130));
    hand.opened();
    hand.lost();
    hand.until_dial();
    hand.failed(refused(404, &[]));
    check(hand.reconnect_after().0, 500, 5_000, "reconnect_after");
    let before = hand.dialled;
    hand.socket.handle_wake(hand.now);
    hand.drain();
    assert_ne!(hand.dialled, before, "dialled at once");
    // A refusal with another status is not retried soon.
    hand.failed(refused(403, &[]));
    check(hand.reconnect_after().0, 2_500, 5_000, "refused_after");
}

#[test]
fn status_404_elsewhere_is_refused() {
    let at = |uri: &str| Credentials::new().uri(phx_proto::config::Uri::parse(uri).unwrap());
    let delay = |uri: &str, rule: Option<StatusRule>| {
        let config = match rule {
            Some(rule) => config().status_rule(404, rule),
            None => config(),
        };
        let mut hand = Hand::new(config.heartbeat_interval(Duration::ZERO));
        hand.connect();
        hand.opened();
        hand.advance(secs(60));
        hand.lost();
        hand.until_dial();
        hand.socket.set_credentials(hand.now, at(uri)).unwrap();
        hand.failed(refused(404, &[]));
        match hand.socket.status() {
            Status::Waiting { .. } => Some(hand.reconnect_after().0),
            _ => None,
        }
    };
    let same = "ws://localhost:4000/socket/websocket?token=another";
    check(delay(same, None).unwrap(), 500, 2_000, "the query does not count");
    for other in [
        "wss://localhost:4000/socket/websocket",
        "ws://127.0.0.1:4000/socket/websocket",
        "ws://localhost:4001/socket/websocket",
        "ws://localhost:4000/socket",
    ] {
        check(delay(other, None).unwrap(), 2_500, 5_000, other);
    }
    assert_eq!(delay(same, Some(StatusRule::Stop)), None, "a configured rule holds");
    // No connection was ever open, so the path is wrong.
    let mut hand = Hand::new(config());
    hand.connect();
    hand.failed(refused(404, &[]));
    check(hand.reconnect_after().0, 2_500, 5_000, "refused_after");
}
