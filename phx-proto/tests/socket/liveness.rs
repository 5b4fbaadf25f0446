//! Heartbeats, probes and wake-ups across reconnects. The tests of one connection's heartbeats are in
//! `heartbeat.rs`.

use crate::hand::{Hand, config, ms, secs};
use phx_proto::{Cause, ChannelStatus, Ended, Signal, Status};
use serde_json::json;

/// A heartbeat that the old connection did not answer is no evidence against the new one. Reported
/// in phoenixframework/phoenix#3083 and braverhealth/phoenix-socket-dart#28.
#[test]
fn outstanding_heartbeat_ends_with_its_connection() {
    let mut hand = Hand::joined(config());
    hand.socket.probe(hand.now).unwrap();
    hand.drain();
    let old = hand.last_sent("phoenix", "heartbeat").msg_ref;
    hand.advance(secs(9));
    hand.lost();
    hand.until_dial();
    hand.opened();
    hand.answer_join("room:a");
    hand.forget();
    // The deadline of the old heartbeat has no effect, and its reply proves nothing.
    hand.advance(secs(5));
    assert_eq!(hand.socket.status(), Status::Open);
    let ok = json!({"status": "ok", "response": {}});
    hand.receive(&json!([null, old, "phoenix", "phx_reply", ok]));
    assert_eq!(hand.take_signals(), []);
    assert_eq!(hand.socket.stats().late_replies, 1);
    assert_eq!(hand.count_sent("phoenix", "heartbeat"), 1);
}

/// No deadline of the old connection is armed on the new one. Reported in
/// phoenixframework/phoenix#3083 and braverhealth/phoenix-socket-dart#28.
#[test]
fn deadlines_end_with_their_connection() {
    for joining in [false, true] {
        let mut hand = Hand::joined(config());
        hand.socket.probe(hand.now).unwrap();
        if joining {
            hand.join("room:b");
        }
        hand.lost();
        // Only the next dial is armed.
        let sizes = hand.socket.sizes();
        assert_eq!(sizes.deadlines, 1, "joining: {joining}");
        assert_eq!((sizes.unanswered_joins, sizes.due_joins, sizes.due_frames), (0, 0, 0));
    }
    let mut hand = Hand::joined(config().heartbeat_interval(secs(0)));
    hand.writable(false);
    hand.lost();
    assert_eq!(hand.socket.sizes().deadlines, 1, "no deadline of a write stall");
}

/// The cause is the missed heartbeat, even if the transport reports a close code afterwards. Reported
/// in davidstump/SwiftPhoenixClient#219 and dsrees/JavaPhoenixClient#32.
#[test]
fn missed_heartbeat_reconnects_despite_close_code() {
    let mut hand = Hand::joined(config());
    hand.socket.probe(hand.now).unwrap();
    hand.advance(secs(10));
    assert!(hand.has_abort());
    assert_eq!(hand.close_code(), None, "a dead peer is not asked to close");
    hand.ended(Ended::CloseFrame { code: Some(1000), reason: String::new() });
    assert_eq!(hand.reconnect_after().1, Cause::HeartbeatTimeout);
    hand.until_dial();
    hand.opened();
    hand.answer_join("room:a");
    assert_eq!(hand.socket.channel_status("room:a"), ChannelStatus::Joined);
}

/// `probe` sends a heartbeat at once, and its timeout does not depend on the interval. Reported in
/// phoenixframework/phoenix#5984 and davidstump/SwiftPhoenixClient#117.
#[test]
fn heartbeat_timeout_is_independent_of_interval() {
    let config = config().heartbeat_interval(secs(300)).heartbeat_timeout(ms(700));
    let mut hand = Hand::open(config);
    hand.advance(secs(100));
    assert_eq!(hand.sent, [], "none is due");
    hand.socket.probe(hand.now).unwrap();
    hand.drain();
    // While a heartbeat is unanswered, a further probe sends none.
    hand.socket.probe(hand.now).unwrap();
    hand.drain();
    assert_eq!(hand.count_sent("phoenix", "heartbeat"), 1);
    hand.advance(ms(699));
    assert_eq!(hand.socket.status(), Status::Open);
    hand.advance(ms(1));
    assert_eq!(hand.reconnect_after().1, Cause::HeartbeatTimeout);
}

/// A wake-up sends a heartbeat at once, and gives the peer the time to answer. Reported in
/// phoenixframework/phoenix#5984 and davidstump/SwiftPhoenixClient#117.
#[test]
fn wake_probes_open_connection() {
    let mut hand = Hand::open(config());
    hand.socket.handle_wake(hand.now);
    hand.drain();
    assert_eq!(hand.count_sent("phoenix", "heartbeat"), 1);
    // After a wake-up, an unanswered heartbeat gets its whole timeout once more.
    hand.advance(secs(9));
    hand.socket.handle_wake(hand.now);
    hand.advance(secs(9));
    assert_eq!(hand.socket.status(), Status::Open);
    hand.socket.handle_wake(hand.now);
    hand.advance(secs(1));
    assert_eq!(hand.reconnect_after().1, Cause::HeartbeatTimeout);
    assert_eq!(hand.count_sent("phoenix", "heartbeat"), 1);
}

/// With heartbeats off, a wake-up still sends a probe, and its answer counts. Reported in
/// phoenixframework/phoenix#5984 and davidstump/SwiftPhoenixClient#117.
#[test]
fn wake_probes_with_heartbeats_off() {
    let mut hand = Hand::open(config().heartbeat_interval(secs(0)));
    hand.socket.handle_wake(hand.now);
    hand.drain();
    assert_eq!(hand.count_sent("phoenix", "heartbeat"), 1);
    hand.answer_heartbeat();
    assert!(matches!(hand.signals.last(), Some(Signal::HeartbeatAcked { .. })));
    hand.advance(secs(1_000));
    assert_eq!((hand.socket.status(), hand.sent.len()), (Status::Open, 1));
}

/// A heartbeat that was due but not written is dropped with its connection. Reported in
/// eoinsha/JavaPhoenixChannels#39 and braverhealth/phoenix-socket-dart#5.
#[test]
fn owed_heartbeat_is_dropped_with_connection() {
    let mut hand = Hand::joined(config());
    hand.writable(false);
    hand.socket.probe(hand.now).unwrap();
    hand.drain();
    assert_eq!(hand.count_sent("phoenix", "heartbeat"), 0);
    hand.lost();
    hand.until_dial();
    hand.opened();
    hand.answer_join("room:a");
    hand.advance(secs(10));
    assert_eq!(hand.count_sent("phoenix", "heartbeat"), 0);
    assert_eq!(hand.socket.status(), Status::Open);
    // While there is no connection, no heartbeat is written either.
    let mut hand = Hand::joined(config());
    hand.lost();
    assert!(hand.socket.probe(hand.now).is_err());
    hand.drain();
    assert_eq!(hand.sent.len(), 1, "only the join of the lost connection");
}

#[test]
fn wake_extends_join_clock_once() {
    // The machine sleeps while the oldest join is unanswered. The server may have answered long ago.
    let mut hand = Hand::open(config());
    hand.join("room:a");
    hand.forget();
    hand.sleep(secs(3_600));
    let timed_out = Signal::JoinTimedOut { topic: "room:a".into() };
    assert!(!hand.signals.contains(&timed_out));
    hand.advance(ms(9_999));
    assert!(!hand.signals.contains(&timed_out));
    hand.advance(ms(1));
    assert!(hand.signals.contains(&timed_out));
    // Coarse ticks do not keep a stalled join alive forever.
    hand.sleep(secs(60));
    assert_eq!(hand.reconnect_after().1, Cause::JoinStalled { topic: "room:a".into() });
    // An answer that arrived during the sleep joins the channel.
    let mut hand = Hand::open(config());
    hand.join("room:a");
    hand.sleep(secs(3_600));
    hand.answer_join("room:a");
    assert_eq!(hand.socket.channel_status("room:a"), ChannelStatus::Joined);
    assert_eq!(hand.count_sent("room:a", "phx_join"), 1);
}
