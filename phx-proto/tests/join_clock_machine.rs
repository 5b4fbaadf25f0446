//! The join clock on virtual time: whose turn it is, and what follows when no answer comes.

mod common;

use common::{Hand, config, ms, secs};
use phx_proto::{Cause, ChannelStatus, Signal, Status};
use serde_json::json;

#[test]
fn a_late_ok_of_the_newest_join_is_simply_joined() {
    let mut hand = Hand::open(config());
    hand.join("room:a");
    hand.forget();
    hand.advance(secs(15));
    assert!(hand.signals.contains(&Signal::JoinTimedOut { topic: "room:a".into() }));
    assert_eq!(hand.count_sent("room:a", "phx_leave"), 0, "no leave is sent");
    assert_eq!(hand.count_sent("phoenix", "heartbeat"), 1, "one probe");
    hand.answer_join("room:a");
    assert_eq!(hand.socket.channel_status("room:a"), ChannelStatus::Joined);
}

#[test]
fn a_join_whose_later_heartbeat_is_answered_is_tried_again_with_backoff() {
    let mut hand = Hand::open(config());
    hand.join("room:a");
    hand.advance(secs(10));
    hand.answer_heartbeat();
    let delay = hand.rejoin_after("room:a");
    assert!((ms(50)..=ms(100)).contains(&delay), "{delay:?}");
    hand.advance(delay);
    assert_eq!(hand.count_sent("room:a", "phx_join"), 2);
    // The reply of the first one is stale by now.
    let first = hand.sent[0].msg_ref.clone();
    let ok = json!({"status": "ok", "response": {}});
    hand.receive(&json!([first, first, "room:a", "phx_reply", ok]));
    assert_eq!(hand.socket.channel_status("room:a"), ChannelStatus::Joining);
}

#[test]
fn only_the_oldest_unanswered_join_has_a_running_clock() {
    let mut hand = Hand::open(config());
    hand.join("room:a");
    hand.join("room:b");
    hand.advance(secs(9));
    hand.answer_join("room:a");
    hand.forget();
    hand.advance(secs(9));
    assert_eq!(hand.take_signals(), [], "room:b has run for 9 s only");
    hand.advance(secs(1));
    assert!(hand.signals.contains(&Signal::JoinTimedOut { topic: "room:b".into() }));
}

#[test]
fn a_join_that_silences_the_socket_aborts_it_and_comes_last_next_time() {
    let mut hand = Hand::open(config());
    hand.join("room:slow");
    hand.join("room:b");
    hand.advance(ms(59_999));
    assert_eq!(hand.socket.status(), Status::Open, "the heartbeat's verdict is suspended");
    hand.advance(ms(1));
    let cause = Cause::JoinStalled { topic: "room:slow".into() };
    assert_eq!(hand.reconnect_after().1, cause);
    assert!(hand.has_abort());
    hand.sent.clear();
    hand.until_dial();
    hand.opened();
    let topics: Vec<_> = hand.sent.iter().map(|sent| sent.topic.as_str()).collect();
    assert_eq!(topics, ["room:b", "room:slow"]);
}

#[test]
fn a_heartbeat_behind_a_slow_join_gets_its_time_after_the_join() {
    let mut hand = Hand::open(config().heartbeat_interval(secs(1)));
    hand.join("room:a");
    hand.advance(secs(30));
    assert_eq!(hand.socket.status(), Status::Open);
    hand.answer_join("room:a");
    hand.advance(secs(9));
    assert_eq!(hand.socket.status(), Status::Open);
    hand.advance(secs(1));
    assert_eq!(hand.reconnect_after().1, Cause::HeartbeatTimeout);
}

/// The server answers joins in order, but a proxy or another server may not.
#[test]
fn the_answer_of_a_younger_join_does_not_restart_the_clock_of_the_oldest() {
    let mut hand = Hand::open(config());
    hand.join("room:a");
    hand.join("room:b");
    hand.advance(secs(9));
    hand.answer_join("room:b");
    hand.forget();
    hand.advance(ms(999));
    assert_eq!(hand.take_signals(), []);
    hand.advance(ms(1));
    assert_eq!(hand.take_signals(), [Signal::JoinTimedOut { topic: "room:a".into() }]);
}

/// The server answers joins one after another and a heartbeat behind them, so the answer to a
/// heartbeat says of every join that was written before it that its reply is lost: eight lost
/// replies cost one `join_timeout`, not eight.
#[test]
fn lost_join_replies_recover_together() {
    let mut hand = Hand::open(config());
    for topic in 0..8 {
        hand.join(&format!("room:{topic}"));
    }
    hand.advance(secs(10));
    // Written behind the probe, so nothing is known of it.
    hand.answer("room:3", "phx_join", "ok", json!({}));
    hand.join("room:late");
    hand.answer_heartbeat();
    for topic in (0..8).filter(|topic| *topic != 3) {
        let delay = hand.rejoin_after(&format!("room:{topic}"));
        assert!((ms(50)..=ms(100)).contains(&delay), "{delay:?}");
    }
    assert_eq!(hand.socket.channel_status("room:3"), ChannelStatus::Joined);
    assert_eq!(hand.socket.channel_status("room:late"), ChannelStatus::Joining);
    hand.advance(ms(100));
    for topic in (0..8).filter(|topic| *topic != 3) {
        assert_eq!(hand.count_sent(&format!("room:{topic}"), "phx_join"), 2);
    }
    // The clock of the one that is left began to run when the others were given up.
    hand.forget();
    hand.advance(ms(9_899));
    assert!(hand.signals.is_empty(), "{:?}", hand.signals);
    hand.advance(ms(1));
    assert!(hand.signals.contains(&Signal::JoinTimedOut { topic: "room:late".into() }));
}

/// A heartbeat that was answered before the oldest join became overdue is as good a witness.
#[test]
fn overdue_join_is_lost_by_an_earlier_heartbeat() {
    let mut hand = Hand::open(config());
    hand.join("room:a");
    hand.join("room:b");
    hand.socket.probe(hand.now).unwrap();
    hand.drain();
    hand.answer_heartbeat();
    hand.advance(ms(9_999));
    assert_eq!(hand.socket.channel_status("room:b"), ChannelStatus::Joining);
    hand.advance(ms(1));
    hand.rejoin_after("room:a");
    hand.rejoin_after("room:b");
}
