//! The heartbeat machine on virtual time: when heartbeats are due, what counts as an answer, and the
//! effect of a sleep of the machine.

use std::time::Duration;

use crate::hand::{Hand, check, config, ms, secs};
use phx_proto::event::{Progress, Warning};
use phx_proto::{Cause, Signal, Status};

/// The first heartbeat is due in the second half of the first interval.
/// Protocol: HB-2.
#[test]
fn heartbeat_is_due_every_interval() {
    for seed in 0..20 {
        let mut hand = Hand::with_seed(config(), seed);
        hand.connect();
        hand.opened();
        let open = hand.now;
        let mut answered = 0;
        for _ in 0..20 {
            hand.advance(secs(5));
            if hand.count_sent("phoenix", "heartbeat") > answered {
                hand.answer_heartbeat();
                answered += 1;
            }
        }
        let beats: Vec<_> = hand.sent.iter().filter(|sent| sent.event == "heartbeat").collect();
        check(beats[0].at.since(open), 15_000, 30_000, "the first heartbeat");
        assert!(beats.len() >= 3, "{beats:?}");
        for pair in beats.windows(2) {
            assert_eq!(pair[1].at.since(pair[0].at), secs(30));
        }
    }
}

/// Inbound traffic neither delays a heartbeat nor counts as its reply. Heartbeats are needed because
/// TCP does not report a dead peer.
/// Reported in firezone/firezone#8220, firezone/firezone#12248, firezone/firezone#12312 and
/// firezone/firezone#4484.
/// Protocol: HB-5.
#[test]
fn inbound_traffic_replaces_no_heartbeat() {
    let mut hand = Hand::joined(config());
    let mut open_for = 0;
    while hand.socket.status() == Status::Open {
        hand.advance(secs(1));
        hand.receive(&serde_json::json!([null, null, "room:a", "tick", {}]));
        open_for += 1;
    }
    assert_eq!(hand.reconnect_after().1, Cause::HeartbeatTimeout);
    assert!((25..=40).contains(&open_for), "{open_for} s");
}

/// An unanswered heartbeat aborts the connection, and the client reconnects. Reported in
/// firezone/firezone#2916 and phoenixframework/phoenix#2123.
/// Protocol: HB-4.
#[test]
fn missed_heartbeat_aborts_and_reconnects() {
    let mut hand = Hand::open(config().heartbeat_interval(secs(20)));
    hand.advance(secs(20));
    assert_eq!(hand.count_sent("phoenix", "heartbeat"), 1);
    hand.advance(secs(10));
    assert!(hand.has_abort());
    assert_eq!(hand.reconnect_after().1, Cause::HeartbeatTimeout);
}

/// A heartbeat that cannot be written detects a peer that has stopped reading: the direction to the
/// peer is dead. Reported in firezone/firezone#2916 and phoenixframework/phoenix#2123.
#[test]
fn unwritten_heartbeat_detects_stalled_peer() {
    let mut hand = Hand::open(config());
    hand.writable(false);
    hand.advance(secs(40));
    assert_eq!(hand.count_sent("phoenix", "heartbeat"), 0);
    assert_eq!(hand.reconnect_after().1, Cause::HeartbeatTimeout);
}

#[test]
fn write_stall_detects_dead_peer_without_heartbeats() {
    let mut hand = Hand::open(config().heartbeat_interval(Duration::ZERO));
    hand.advance(secs(1_000));
    assert_eq!(hand.sent, []);
    hand.writable(false);
    hand.advance(secs(29));
    assert!(!hand.has_abort());
    hand.advance(secs(1));
    assert_eq!(hand.reconnect_after().1, Cause::WriteStalled);
}

/// A reply with another ref or another topic does not answer a heartbeat; a reply with any status
/// does. Reported in firezone/firezone#4296.
#[test]
fn heartbeat_reply_must_match_topic_and_ref() {
    let mut hand = Hand::open(config());
    hand.socket.probe(hand.now).unwrap();
    hand.drain();
    let msg_ref = hand.last_sent("phoenix", "heartbeat").msg_ref;
    let ok = serde_json::json!({"status": "ok", "response": {}});
    hand.receive(&serde_json::json!([null, "999", "phoenix", "phx_reply", ok]));
    hand.receive(&serde_json::json!([null, msg_ref, "other", "phx_reply", ok]));
    assert!(!hand.signals.iter().any(|s| matches!(s, Signal::HeartbeatAcked { .. })));
    hand.advance(ms(40));
    let refusal = serde_json::json!({"status": "error", "response": {}});
    hand.receive(&serde_json::json!([null, msg_ref, "phoenix", "phx_reply", refusal]));
    assert!(hand.signals.contains(&Signal::HeartbeatAcked { rtt: ms(40) }));
    assert_eq!(hand.socket.stats().last_rtt, Some(ms(40)));
}

/// After a jump of the clock, the client sends a probe first, and declares the connection dead only
/// if the probe is not answered. Reported in phoenixframework/phoenix#5984 and
/// davidstump/SwiftPhoenixClient#117.
#[test]
fn clock_jump_probes_the_connection_first() {
    let mut hand = Hand::open(config());
    hand.sleep(secs(3_600));
    assert_eq!(hand.socket.status(), Status::Open);
    assert_eq!(hand.count_sent("phoenix", "heartbeat"), 1);
    hand.answer_heartbeat();
    assert_eq!(hand.socket.status(), Status::Open);
    // Coarse ticks look like jumps of the clock. They must not keep a dead peer alive forever.
    for _ in 0..20 {
        hand.sleep(secs(60));
    }
    assert_ne!(hand.socket.status(), Status::Open);
}

/// A heartbeat interval without slack causes a warning when the socket is constructed. Reported in
/// firezone/firezone#4348 and firezone/firezone#12246.
#[test]
fn heartbeat_interval_without_slack_is_warned() {
    let hand = Hand::new(config().heartbeat_interval(secs(60)));
    assert_eq!(hand.signals, [Signal::Warning(Warning::HeartbeatIntervalTooLong)]);
}

/// The peer gets time to answer even if the wake-up is reported before the timeout is handled.
#[test]
fn heartbeat_due_during_sleep_gets_time() {
    let mut hand = Hand::open(config());
    // The machine slept past the heartbeat and its deadline. The wake-up is reported first, and the
    // actions that it causes are carried out before any deadline is handled.
    hand.now += secs(50);
    hand.socket.handle_wake(hand.now);
    hand.drain();
    hand.answer_heartbeat();
    hand.sleep(ms(1));
    assert_eq!(hand.count_sent("phoenix", "heartbeat"), 2);
    hand.advance(secs(5));
    assert!(!hand.has_abort(), "{:?}", hand.signals);
    hand.advance(secs(5));
    assert!(hand.has_abort(), "and no more than its time");
}

/// The machine fell asleep while the transport accepted no frames. After the sleep the connection is
/// probed before it is declared dead.
#[test]
fn transport_blocked_before_sleep_is_probed_first() {
    let mut hand = Hand::open(config().heartbeat_interval(secs(0)));
    hand.writable(false);
    hand.sleep(secs(3_600));
    assert!(!hand.has_abort(), "a clock that jumped proves nothing");
    let (mut alive, mut dead) = (hand, Hand::open(config().heartbeat_interval(secs(0))));
    alive.writable(true);
    alive.answer_heartbeat();
    alive.advance(secs(100));
    assert!(!alive.has_abort());
    dead.writable(false);
    for _ in 0..3 {
        dead.sleep(secs(3_600));
    }
    assert!(dead.has_abort(), "coarse ticks keep no dead peer alive");
}

/// The driver handles a deadline later than a short `heartbeat_timeout` allows, and still sends a
/// probe first.
#[test]
fn late_driver_still_probes_first() {
    let mut hand = Hand::open(config().heartbeat_interval(secs(10)).heartbeat_timeout(secs(2)));
    hand.now = hand.socket.poll_timeout().expect("a heartbeat").at + secs(3);
    hand.socket.handle_timeout(hand.now);
    hand.drain();
    assert_eq!(hand.count_sent("phoenix", "heartbeat"), 1);
    hand.advance(ms(1_999));
    assert_eq!(hand.socket.status(), Status::Open);
    hand.advance(ms(1));
    assert!(matches!(hand.socket.status(), Status::Waiting { .. }));
}

fn reply_to(hand: &mut Hand, msg_ref: &str) {
    let ok = serde_json::json!({"status": "ok", "response": {}});
    hand.receive(&serde_json::json!([null, msg_ref, "phoenix", "phx_reply", ok]));
}

/// The time until the first heartbeat of a hand without other deadlines.
fn until_heartbeat(hand: &Hand) -> Duration {
    hand.socket.poll_timeout().expect("a heartbeat").at.since(hand.now)
}

/// After slow joins the timeout of every unanswered heartbeat starts over, not only that of the oldest. The
/// replies arrive one after another.
#[test]
fn slow_joins_restart_every_heartbeat() {
    let mut hand = Hand::open(config());
    let until = until_heartbeat(&hand);
    hand.advance(until - secs(1));
    hand.join("room:a");
    hand.join("room:b");
    hand.advance(secs(1));
    let first = hand.last_sent("phoenix", "heartbeat").msg_ref;
    hand.answer_join("room:a");
    hand.advance(secs(42));
    assert_eq!(hand.count_sent("phoenix", "heartbeat"), 2, "the second is 12 s old");
    hand.answer_join("room:b");
    hand.advance(secs(1));
    reply_to(&mut hand, &first);
    hand.advance(ms(8_999));
    assert_eq!(hand.socket.status(), Status::Open);
    hand.advance(ms(1));
    assert_eq!(hand.reconnect_after().1, Cause::HeartbeatTimeout);
}

/// A late caller extends the timeout of every unanswered heartbeat, not only that of the oldest.
#[test]
fn late_caller_forgives_every_heartbeat() {
    let mut hand = Hand::open(config());
    let id = hand.dialled.expect("a dial");
    let until = until_heartbeat(&hand);
    hand.advance(until);
    let first = hand.last_sent("phoenix", "heartbeat").msg_ref;
    // These bytes extend the timeout of the first heartbeat to 32 s, so a second follows after 30 s.
    let read = Progress { read: 22 * 1_024, ..Progress::default() };
    hand.socket.handle_progress(hand.now, id, read);
    hand.advance(secs(30));
    assert_eq!(hand.count_sent("phoenix", "heartbeat"), 2);
    hand.sleep(secs(11));
    assert_eq!(hand.socket.status(), Status::Open, "the caller is 9 s late");
    reply_to(&mut hand, &first);
    hand.advance(ms(9_999));
    assert_eq!(hand.socket.status(), Status::Open);
    hand.advance(ms(1));
    assert_eq!(hand.reconnect_after().1, Cause::HeartbeatTimeout);
}
