//! Losses, reconnects and rejoins: when and how often they happen. The state of an old connection
//! never affects the new one.

use crate::cases::{cases, regressions};
use crate::hand::{Hand, config, ms, secs};
use phx_proto::config::{Backoff, CloseRule, DelayRange};
use phx_proto::event::{LeaveOutcome, NextStep, NotRetrying, NotSentCause, Refusal};
use phx_proto::{
    Action, Cause, ChannelStatus, Ended, Frame, Opened, PushOptions, PushOutcome, Signal, Socket,
    Status, Time,
};
use proptest::prelude::*;
use serde_json::json;

fn refused(status: u16, headers: &[(&str, &str)]) -> Cause {
    let headers = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    Cause::Refused(Refusal::new(status, headers, ""))
}

fn dial_failure() -> Cause {
    Cause::Dial { kind: phx_proto::event::DialKind::Refused, message: "refused".into() }
}

/// When either side ends the connection, no channel stays joined, because a join holds for one
/// connection. Reported in phoenixframework/phoenix#3669 and supabase/supabase-swift#196.
/// Protocol: CLOSE-7.
#[test]
fn connection_end_interrupts_channels_at_once() {
    type End = fn(&mut Hand);
    let ends: [(&str, End); 4] = [
        ("lost", |hand| {
            let id = hand.dialled.expect("a dial");
            let message = "reset".into();
            hand.socket.handle_closed(hand.now, id, Ended::Lost { message });
        }),
        ("closed", |hand| {
            let id = hand.dialled.expect("a dial");
            let ended = Ended::CloseFrame { code: Some(1000), reason: String::new() };
            hand.socket.handle_closed(hand.now, id, ended);
        }),
        ("disconnected", |hand| hand.socket.disconnect(hand.now)),
        ("too large", |hand| {
            let id = hand.dialled.expect("a dial");
            hand.socket.handle_frame(hand.now, id, Frame::from("x".repeat(1_001)));
        }),
    ];
    for (name, end) in ends {
        let mut hand = Hand::joined(config().max_message_bytes(1_000));
        hand.join("room:b");
        hand.answer_join("room:b");
        end(&mut hand);
        // The status is read before any action is polled.
        for topic in ["room:a", "room:b"] {
            let status = hand.socket.channel_status(topic);
            assert_ne!(status, ChannelStatus::Joined, "{name}");
        }
        assert_eq!(hand.socket.join_response("room:a"), None, "{name}");
    }
}

/// A topic has at most one unanswered join. The clock of a join starts when it is written, not when
/// it is requested. Reported in phoenixframework/phoenix#1579 and phoenixframework/phoenix#2035.
/// Protocol: JOIN-12.
#[test]
fn joins_of_one_topic_never_overlap() {
    let mut hand = Hand::open(config().heartbeat_interval(secs(0)));
    hand.writable(false);
    hand.join("room:a");
    hand.advance(secs(25));
    assert!(hand.signals.iter().all(|signal| !matches!(signal, Signal::JoinTimedOut { .. })));
    hand.writable(true);
    // The join is requested repeatedly, while joining and when joined.
    for _ in 0..3 {
        hand.join("room:a");
        hand.advance(secs(3));
    }
    assert_eq!(hand.count_sent("room:a", "phx_join"), 1);
    assert!(hand.signals.iter().all(|signal| !matches!(signal, Signal::JoinTimedOut { .. })));
    hand.answer_join("room:a");
    for _ in 0..3 {
        hand.join("room:a");
        hand.advance(secs(60));
    }
    assert_eq!(hand.count_sent("room:a", "phx_join"), 1);
}

/// The rejoin after a reconnect replaces a rejoin that a crash had scheduled. Reported in
/// phoenixframework/phoenix#1579 and phoenixframework/phoenix#2035.
/// Protocol: RETRY-4.
#[test]
fn scheduled_rejoin_ends_with_its_connection() {
    let mut hand = Hand::joined(config());
    for _ in 0..5 {
        hand.end_channel("room:a", "phx_error");
        hand.advance(hand.rejoin_after("room:a"));
        hand.answer_join("room:a");
    }
    hand.end_channel("room:a", "phx_error");
    assert!(hand.rejoin_after("room:a") >= secs(5));
    hand.lost();
    hand.until_dial();
    hand.opened();
    hand.answer_join("room:a");
    let joins = hand.count_sent("room:a", "phx_join");
    hand.advance(secs(12));
    assert_eq!(hand.count_sent("room:a", "phx_join"), joins);
    assert_eq!(hand.socket.channel_status("room:a"), ChannelStatus::Joined);
}

/// Joins are not queued while offline: several requests cause one frame when the connection opens.
/// Reported in davidstump/SwiftPhoenixClient#177 and phoenixframework/phoenix#2035.
/// Protocol: CONN-10.
#[test]
fn offline_join_is_one_frame_on_open() {
    let mut hand = Hand::new(config());
    hand.join("room:a");
    hand.connect();
    hand.failed(dial_failure());
    hand.join("room:a");
    hand.until_dial();
    hand.opened();
    hand.advance(secs(5));
    assert_eq!(hand.sent.len(), 1, "{:?}", hand.sent);
    assert_eq!(hand.count_sent("room:a", "phx_join"), 1);
}

/// A leave is not repeated on the next connection, and its late reply does not close the new
/// instance. Reported in supabase/supabase-py#1311 and supabase/realtime-js#169.
/// Protocol: RETRY-2, RETRY-4.
#[test]
fn reconnect_sends_no_leave() {
    let mut hand = Hand::joined(config());
    hand.leave("room:a");
    let leave = hand.last_sent("room:a", "phx_leave");
    hand.join("room:a");
    hand.lost();
    hand.sent.clear();
    hand.until_dial();
    hand.opened();
    let events: Vec<_> = hand.sent.iter().map(|sent| sent.event.as_str()).collect();
    assert_eq!(events, ["phx_join"]);
    hand.answer_join("room:a");
    hand.forget();
    let ok = json!({"status": "ok", "response": {}});
    hand.receive(&json!([leave.join_ref, leave.msg_ref, "room:a", "phx_reply", ok]));
    hand.receive(&json!([leave.join_ref, leave.join_ref, "room:a", "phx_close", {}]));
    assert_eq!(hand.take_signals(), []);
    assert_eq!(hand.socket.channel_status("room:a"), ChannelStatus::Joined);
    let stats = hand.socket.stats();
    assert_eq!((stats.late_replies, stats.stale_frames), (1, 1));
}

/// The tenth loss is handled like the first, whatever kinds of losses come before it. Reported in
/// davidstump/SwiftPhoenixClient#176 and supabase/realtime-py#258.
#[test]
fn every_loss_recovers_repeatedly() {
    let mut hand = Hand::joined(config());
    for round in 0..50 {
        match round % 5 {
            0 => hand.lost(),
            1 => hand.close_frame(1000),
            2 => {
                // Half-open: nothing arrives any more.
                while hand.socket.status() == Status::Open {
                    hand.advance(secs(1));
                }
            }
            3 => {
                hand.lost();
                hand.until_dial();
                hand.failed(dial_failure());
            }
            _ => {
                hand.lost();
                hand.until_dial();
                // The next dial is not answered either.
                hand.advance(secs(10));
            }
        }
        if !matches!(hand.socket.status(), Status::Connecting { .. }) {
            hand.until_dial();
        }
        hand.opened();
        hand.answer_join("room:a");
        assert_eq!(hand.socket.channel_status("room:a"), ChannelStatus::Joined, "{round}");
    }
}

/// A disconnect and a `connect` leave one connection: the old one is closed first. Reported in
/// phoenixframework/phoenix#6600 and phoenixframework/phoenix#6103.
#[test]
fn disconnect_then_connect_leaves_one_connection() {
    for connecting in [true, false] {
        let mut hand = Hand::new(config());
        hand.connect();
        if !connecting {
            hand.opened();
        }
        let old = hand.dialled.expect("a dial");
        hand.socket.disconnect(hand.now);
        hand.socket.connect(hand.now);
        hand.drain();
        if !connecting {
            assert_eq!(hand.close_code(), Some(1000));
            // There is one dial at a time, so the next one waits for the end of the old connection.
            assert_eq!(hand.dialled, Some(old));
            hand.advance(secs(2));
        }
        let gone = |action: &Action| matches!(action, Action::Abort { id } if *id == old);
        assert_eq!(hand.actions.iter().filter(|action| gone(action)).count(), 1);
        let new = hand.dialled.expect("a dial");
        assert!(new > old);
        hand.opened();
        // The old transport opens late.
        hand.socket.handle_opened(hand.now, old, Opened::default());
        hand.socket.handle_frame(hand.now, old, Frame::from("[]"));
        hand.socket.handle_closed(hand.now, old, Ended::MessageTooLarge);
        hand.drain();
        assert_eq!(hand.socket.connection_id(), Some(new));
        assert_eq!(hand.socket.status(), Status::Open);
        assert_eq!(hand.socket.stats().stale_inputs, 3);
    }
}

/// `connect_now` resets the wait and the counters that led to it. Reported in
/// firezone/firezone#5065 and firezone/firezone#13438.
#[test]
fn connect_now_resets_the_counters() {
    let mut hand = Hand::new(config().max_retries(Some(10)));
    hand.connect();
    for _ in 0..10 {
        hand.failed(dial_failure());
        hand.until_dial();
    }
    // No retry is left: without `connect_now`, the next failure would be final.
    hand.socket.connect_now(hand.now).unwrap();
    hand.drain();
    assert_eq!(hand.socket.status(), Status::Connecting { attempt: 0 });
    hand.failed(dial_failure());
    assert_eq!(hand.reconnect_after().0, ms(10), "the first step of the schedule");
    // `connect_now` also resets the counter of refusals.
    let mut hand = Hand::new(config());
    hand.connect();
    for _ in 0..3 {
        hand.failed(refused(403, &[]));
        hand.until_dial();
    }
    hand.failed(refused(403, &[]));
    assert!(hand.reconnect_after().0 >= secs(150));
    hand.socket.connect_now(hand.now).unwrap();
    hand.drain();
    hand.advance(ms(1));
    assert_eq!(hand.socket.status(), Status::Connecting { attempt: 0 }, "no second dial is due");
    hand.failed(refused(403, &[]));
    assert!(hand.reconnect_after().0 <= secs(5));
}

/// Connecting and joining have separate deadlines. Reported in firezone/firezone#11591.
#[test]
fn connecting_and_joining_have_own_deadlines() {
    let mut hand = Hand::new(config());
    hand.join("room:a");
    hand.connect();
    hand.advance(ms(9_999));
    hand.opened();
    // The time that connecting took does not shorten the time of the join.
    hand.advance(ms(9_999));
    assert!(hand.signals.iter().all(|signal| !matches!(signal, Signal::JoinTimedOut { .. })));
    hand.advance(ms(1));
    assert!(hand.signals.contains(&Signal::JoinTimedOut { topic: "room:a".into() }));
}

proptest! {
    #![proptest_config(cases(256, regressions!("reconnect")))]

    /// No configured schedule can lead to a retry every millisecond. Reported in
    /// braverhealth/phoenix-socket-dart#34.
    #[test]
    fn floor_bounds_every_schedule(
        steps in prop::collection::vec(0_u64..30, 1..5),
        jitter in 0.0_f64..=1.0,
        seed: u64,
        failures in prop::collection::vec(0_u8..6, 1..20),
    ) {
        let schedule = || Backoff::steps_msec(&steps).unwrap().jitter(jitter).unwrap();
        let none = DelayRange::new(ms(0), ms(0)).unwrap();
        let config = config()
            .reconnect_after(schedule())
            .refused_after(schedule())
            .first_retry_spread(none)
            .close_rule(4_000, CloseRule::RetryWithin(none));
        let mut hand = Hand::with_seed(config, seed);
        hand.connect();
        for failure in failures {
            match failure {
                0 => hand.failed(dial_failure()),
                1 => hand.failed(refused(403, &[])),
                2 => hand.failed(refused(503, &[("retry-after", "0")])),
                3 => {
                    hand.opened();
                    hand.lost();
                }
                4 => {
                    hand.opened();
                    hand.close_frame(4_000);
                }
                _ => {
                    hand.opened();
                    hand.advance(secs(11));
                    hand.close_frame(1000);
                }
            }
            prop_assert!(hand.reconnect_after().0 >= ms(10), "{:?}", hand.reconnect_after());
            prop_assert!(hand.until_dial() >= ms(10));
        }
    }
}

#[test]
fn short_retry_after_keeps_the_backoff() {
    let steps = Backoff::steps_msec(&[60_000]).unwrap().jitter(0.0).unwrap();
    for seed in 0..20 {
        let mut hand = Hand::with_seed(config().reconnect_after(steps.clone()), seed);
        hand.connect();
        hand.failed(refused(503, &[("retry-after", "1")]));
        let (delay, _) = hand.reconnect_after();
        assert!((secs(60)..=secs(72)).contains(&delay), "{delay:?}");
        // The server asked for this wait, so a wake-up does not end it.
        hand.socket.handle_wake(hand.now);
        hand.drain();
        assert!(matches!(hand.socket.status(), Status::Waiting { .. }));
    }
}

/// A connection that is closing with 1009 because a received message was too large.
fn closing(config: phx_proto::Config) -> Hand {
    let mut hand = Hand::joined(config.max_message_bytes(100));
    hand.receive_text(&"x".repeat(101));
    assert_eq!((hand.close_code(), hand.socket.status()), (Some(1009), Status::Closing));
    hand
}

/// A `connect` changes nothing, because the client reconnects anyway.
#[test]
fn connect_while_closing_1009_changes_nothing() {
    let mut hand = closing(config());
    hand.connect();
    assert_eq!(hand.socket.connect_now(hand.now), Err(NotRetrying));
    assert_eq!(hand.socket.status(), Status::Closing);
    // The peer never answers the close frame.
    hand.advance(secs(2));
    assert!(hand.has_abort());
    assert_eq!(hand.reconnect_after().1, Cause::MessageTooLarge { limit: 100 });
    hand.until_dial();
    hand.opened();
    assert_eq!(hand.count_sent("room:a", "phx_join"), 2, "the topic is still wanted");
}

/// A `disconnect` while the connection is closing with 1009 prevents the reconnect. A later `connect`
/// starts again.
#[test]
fn disconnect_while_closing_1009_wins() {
    for reconnect in [false, true] {
        let mut hand = closing(config());
        let id = hand
            .socket
            .push(hand.now, "room:a", "queued", json!({}), PushOptions::call())
            .expect("the channel is wanted while we close");
        hand.forget();
        hand.socket.disconnect(hand.now);
        hand.drain();
        let outcome = PushOutcome::NotSent(NotSentCause::Disconnected);
        let ended = Signal::PushEnded { id, topic: "room:a".into(), outcome };
        assert!(hand.signals.contains(&ended), "{:?}", hand.signals);
        if reconnect {
            hand.connect();
        }
        hand.close_frame(1009);
        if reconnect {
            assert_eq!(hand.socket.status(), Status::Connecting { attempt: 0 });
            hand.opened();
            assert_eq!(hand.count_sent("room:a", "phx_join"), 1, "not wanted any more");
        } else {
            assert_eq!(hand.socket.status(), Status::Closed);
            assert_eq!(hand.signals.last(), Some(&Signal::Closed));
            assert_eq!(hand.socket.poll_timeout(), None);
        }
    }
}

#[test]
fn give_up_after_1009_waits_for_close() {
    let mut hand = closing(config().max_retries(Some(0)));
    assert_ne!(hand.socket.channel_status("room:a"), ChannelStatus::Closed);
    hand.forget();
    hand.close_frame(1009);
    let cause = Cause::MessageTooLarge { limit: 100 };
    assert_eq!(hand.socket.status(), Status::GaveUp { cause: cause.clone() });
    let id = hand.dialled.expect("a dial");
    let stop = Signal::Disconnected { id, cause: cause.clone(), next: NextStep::Stop };
    let signals = hand.take_signals();
    assert_eq!(signals.first(), Some(&stop));
    assert_eq!(signals.last(), Some(&Signal::GaveUp { cause }));
    assert_eq!(hand.socket.channel_status("room:a"), ChannelStatus::Closed);
}

#[test]
fn backward_clock_counts_as_stopped() {
    // `at` maps the number of milliseconds since the previous call to the time that is passed.
    fn play(mut at: impl FnMut(i64) -> Time) -> String {
        let mut socket = Socket::new(config(), 7, at(5_000));
        let mut seen = Vec::new();
        let mut id = None;
        let mut run = |socket: &mut Socket, id: &mut Option<phx_proto::ConnectionId>, now| {
            while let Some(action) = socket.poll_action(now) {
                if let Action::Connect { id: dialled, .. } = &action {
                    *id = Some(*dialled);
                }
                seen.push(format!("{action:?}"));
            }
            seen.push(format!("{:?} {:?}", socket.poll_timeout(), socket.status()));
        };
        socket.connect(at(-3_000));
        run(&mut socket, &mut id, at(-1));
        socket.handle_opened(at(-500), id.expect("a dial"), Opened::default());
        socket.join(at(2_000), "room:a", json!({})).expect("accepted");
        run(&mut socket, &mut id, at(-1_500));
        let ok = r#"["1","1","room:a","phx_reply",{"status":"ok","response":{}}]"#;
        socket.handle_frame(at(-10), id.expect("a dial"), Frame::from(ok));
        let options = PushOptions::call().timeout(secs(1));
        socket.push(at(-5), "room:a", "echo", json!({}), options).expect("accepted");
        run(&mut socket, &mut id, at(900));
        socket.handle_timeout(at(-2_000));
        run(&mut socket, &mut id, at(0));
        socket.handle_timeout(at(9_000));
        run(&mut socket, &mut id, at(-100));
        seen.join("\n")
    }
    let (mut now, mut latest) = (0_i64, 0_i64);
    let backwards = play(|step| {
        now += step;
        Time::from_millis(u64::try_from(now).expect("after the origin"))
    });
    now = 0;
    let clamped = play(|step| {
        now += step;
        latest = latest.max(now);
        Time::from_millis(u64::try_from(latest).expect("after the origin"))
    });
    assert_eq!(backwards, clamped);
    assert!(backwards.contains("PushEnded"), "{backwards}");
}

/// A leave during a dial, or between two dials, ends without a connection. Reported in
/// phoenixframework/phoenix#1265 and phoenixframework/phoenix#1483.
#[test]
fn leave_while_dialling_needs_no_connection() {
    let mut hand = Hand::new(config());
    hand.connect();
    hand.join("room:a");
    hand.leave("room:a");
    hand.failed(dial_failure());
    hand.join("room:b");
    hand.leave("room:b");
    let local = |topic: &str| Signal::Left { topic: topic.into(), outcome: LeaveOutcome::Local };
    assert!(hand.signals.contains(&local("room:a")) && hand.signals.contains(&local("room:b")));
    hand.until_dial();
    hand.opened();
    assert_eq!(hand.sent, []);
}
