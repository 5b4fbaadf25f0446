//! What users of other clients report about heartbeats (user pains 33 to 41). Most of it is proven
//! row by row in `heartbeat.rs`.

use crate::hand::{Hand, config, ms, secs};
use phx_proto::{Cause, ChannelStatus, Ended, Signal, Status};
use serde_json::json;

/// User pain 36: a heartbeat that the old connection did not answer says nothing about the new
/// one.
#[test]
fn an_outstanding_heartbeat_goes_with_its_connection() {
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
    // Its deadline passes; its reply would prove nothing either.
    hand.advance(secs(5));
    assert_eq!(hand.socket.status(), Status::Open);
    let ok = json!({"status": "ok", "response": {}});
    hand.receive(&json!([null, old, "phoenix", "phx_reply", ok]));
    assert_eq!(hand.take_signals(), []);
    assert_eq!(hand.socket.stats().late_replies, 1);
    assert_eq!(hand.count_sent("phoenix", "heartbeat"), 1);
}

/// User pain 36: nor does what is left of the old connection's deadlines.
#[test]
fn no_deadline_of_a_connection_outlives_it() {
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
    assert_eq!(hand.socket.sizes().deadlines, 1, "nor that of a write stall");
}

/// User pain 39: the cause of a close is ours, and is not read from a code that comes after it.
#[test]
fn a_missed_heartbeat_reconnects_whatever_close_code_the_transport_reports_then() {
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

/// User pain 40: the time to answer is not the time between two heartbeats.
#[test]
fn a_heartbeat_has_a_timeout_of_its_own_and_can_be_asked_for() {
    let config = config().heartbeat_interval(secs(300)).heartbeat_timeout(ms(700));
    let mut hand = Hand::open(config);
    hand.advance(secs(100));
    assert_eq!(hand.sent, [], "none is due");
    hand.socket.probe(hand.now).unwrap();
    hand.drain();
    // One on its way will do.
    hand.socket.probe(hand.now).unwrap();
    hand.drain();
    assert_eq!(hand.count_sent("phoenix", "heartbeat"), 1);
    hand.advance(ms(699));
    assert_eq!(hand.socket.status(), Status::Open);
    hand.advance(ms(1));
    assert_eq!(hand.reconnect_after().1, Cause::HeartbeatTimeout);
}

/// User pain 40: a wake-up asks the peer at once, and gives it the time to answer.
#[test]
fn a_wake_probes_an_open_connection_and_declares_nothing_dead() {
    let mut hand = Hand::open(config());
    hand.socket.handle_wake(hand.now);
    hand.drain();
    assert_eq!(hand.count_sent("phoenix", "heartbeat"), 1);
    // A heartbeat that is out already gets its time anew, once.
    hand.advance(secs(9));
    hand.socket.handle_wake(hand.now);
    hand.advance(secs(9));
    assert_eq!(hand.socket.status(), Status::Open);
    hand.socket.handle_wake(hand.now);
    hand.advance(secs(1));
    assert_eq!(hand.reconnect_after().1, Cause::HeartbeatTimeout);
    assert_eq!(hand.count_sent("phoenix", "heartbeat"), 1);
}

/// User pain 40: the same with heartbeats off; the answer still counts.
#[test]
fn a_wake_probes_even_with_heartbeats_off() {
    let mut hand = Hand::open(config().heartbeat_interval(secs(0)));
    hand.socket.handle_wake(hand.now);
    hand.drain();
    assert_eq!(hand.count_sent("phoenix", "heartbeat"), 1);
    hand.answer_heartbeat();
    assert!(matches!(hand.signals.last(), Some(Signal::HeartbeatAcked { .. })));
    hand.advance(secs(1_000));
    assert_eq!((hand.socket.status(), hand.sent.len()), (Status::Open, 1));
}

/// User pain 41: an owed heartbeat that was not written is not written to the next connection.
#[test]
fn an_owed_heartbeat_is_dropped_with_its_connection() {
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
    // Nor is anything written while there is no connection.
    let mut hand = Hand::joined(config());
    hand.lost();
    assert!(hand.socket.probe(hand.now).is_err());
    hand.drain();
    assert_eq!(hand.sent.len(), 1, "the join of before");
}

#[test]
fn a_wake_forgives_the_join_clock_once() {
    // The machine sleeps while the oldest join runs: the server may have answered long ago.
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
    // Coarse ticks do not keep a stalled join for ever.
    hand.sleep(secs(60));
    assert_eq!(hand.reconnect_after().1, Cause::JoinStalled { topic: "room:a".into() });
    // And an answer that came meanwhile is simply the join.
    let mut hand = Hand::open(config());
    hand.join("room:a");
    hand.sleep(secs(3_600));
    hand.answer_join("room:a");
    assert_eq!(hand.socket.channel_status("room:a"), ChannelStatus::Joined);
    assert_eq!(hand.count_sent("room:a", "phx_join"), 1);
}
