//! The join clock and the pace of joins on virtual time: which join is next, and what follows a missing
//! answer or the end of the connection.

use crate::hand::{Hand, config, ms, secs};
use phx_proto::socket::{PendingReason, TimerKind};
use phx_proto::{Cause, ChannelStatus, Signal, Status, Time};
use serde_json::json;

/// A join that timed out is not left: the client sends a probe, and an ok after it still joins.
/// Protocol: JOIN-10, JOIN-13.
#[test]
fn late_ok_of_newest_join_joins() {
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

/// The heartbeat that was sent after the join was answered, so the reply to the join is lost. The
/// join is retried after a backoff.
/// Protocol: JOIN-10.
#[test]
fn join_passed_by_heartbeat_is_retried() {
    let mut hand = Hand::open(config());
    hand.join("room:a");
    hand.advance(secs(10));
    hand.answer_heartbeat();
    let delay = hand.rejoin_after("room:a");
    assert!((ms(50)..=ms(100)).contains(&delay), "{delay:?}");
    hand.advance(delay);
    assert_eq!(hand.count_sent("room:a", "phx_join"), 2);
    // The reply to the first join is stale by now.
    let first = hand.sent[0].msg_ref.clone();
    let ok = json!({"status": "ok", "response": {}});
    hand.receive(&json!([first, first, "room:a", "phx_reply", ok]));
    assert_eq!(hand.socket.channel_status("room:a"), ChannelStatus::Joining);
}

/// Only the oldest unanswered join has a deadline. The deadline of the next join starts at the
/// answer.
/// Protocol: JOIN-9.
#[test]
fn only_oldest_unanswered_join_has_a_clock() {
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

/// A join that blocks the socket aborts the connection, and is written last on the next one.
/// Protocol: HB-6.
#[test]
fn join_that_blocks_the_socket_comes_last() {
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

/// If `join_block_max` is not longer than `join_timeout`, the connection is dropped after `join_block_max`.
/// The join is not reported first.
#[test]
fn join_block_max_rules_if_shorter() {
    for (timeout, block_max) in [(120, 60), (10, 3), (10, 10)] {
        let (timeout, block_max) = (secs(timeout), secs(block_max));
        let mut hand = Hand::open(config().join_timeout(timeout).join_block_max(block_max));
        hand.join("room:a");
        hand.advance(block_max - ms(1));
        assert_eq!(hand.socket.status(), Status::Open);
        hand.advance(ms(1));
        let cause = Cause::JoinStalled { topic: "room:a".into() };
        assert_eq!(hand.reconnect_after().1, cause, "{timeout:?}, {block_max:?}");
        let is_reported = |signal: &Signal| matches!(signal, Signal::JoinTimedOut { .. });
        assert!(!hand.signals.iter().any(is_reported), "{:?}", hand.signals);
    }
}

/// An answered heartbeat proves that the server is not blocked: the reply to the earlier join is lost.
#[test]
fn lost_join_is_not_stalled() {
    let mut hand = Hand::open(config().join_timeout(secs(120)));
    hand.join("room:a");
    hand.advance(secs(30));
    hand.answer_heartbeat();
    hand.join("room:b");
    hand.advance(secs(30));
    assert_eq!(hand.socket.status(), Status::Open);
    hand.rejoin_after("room:a");
    // The clock of the next join started when the first was given up.
    hand.answer_heartbeat();
    hand.answer_join("room:b");
    assert_eq!(hand.socket.channel_status("room:b"), ChannelStatus::Joined);
}

#[test]
fn heartbeat_timeout_starts_after_slow_join() {
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

/// An answer to a younger join does not stop the clock of the oldest one. Phoenix answers joins in
/// order, but a proxy or another server may not.
#[test]
fn younger_answer_keeps_the_oldest_clock() {
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

/// The server answers joins and a later heartbeat in order, so the answer to the heartbeat proves
/// that the replies to all earlier joins are lost. Eight lost replies cost one `join_timeout`, not
/// eight.
#[test]
fn lost_join_replies_recover_together() {
    let mut hand = Hand::open(config());
    for topic in 0..8 {
        hand.join(&format!("room:{topic}"));
    }
    hand.advance(secs(10));
    // This join was written after the probe, so the answer to the probe proves nothing about it.
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
    // The clock of the remaining join started when the others were given up.
    hand.forget();
    hand.advance(ms(9_899));
    assert!(hand.signals.is_empty(), "{:?}", hand.signals);
    hand.advance(ms(1));
    assert!(hand.signals.contains(&Signal::JoinTimedOut { topic: "room:late".into() }));
}

/// A heartbeat that was answered before the oldest join became overdue also proves that the reply to
/// that join is lost.
#[test]
fn overdue_join_is_lost_by_earlier_heartbeat() {
    let mut hand = Hand::open(config());
    hand.join("room:a");
    hand.join("room:b");
    hand.socket.probe(hand.now).unwrap();
    hand.drain();
    hand.answer_heartbeat();
    hand.advance(ms(9_999));
    assert_eq!(hand.socket.channel_status("room:b"), ChannelStatus::Joining);
    assert_eq!(hand.count_sent("room:b", "phx_join"), 1, "not before the oldest is overdue");
    hand.advance(ms(1));
    hand.rejoin_after("room:a");
    hand.rejoin_after("room:b");
}

/// A server with a limit of joins per second. It closes the connection when the limit is exceeded.
struct Limited {
    hand: Hand,
    limit: usize,
    connections: u32,
}

impl Limited {
    fn new(topics: usize, limit: usize) -> Self {
        let mut hand = Hand::new(config());
        for topic in 0..topics {
            hand.join(&format!("room:{topic}"));
        }
        hand.connect();
        hand.opened();
        Self { hand, limit, connections: 1 }
    }

    fn joined(&self) -> usize {
        let joined =
            |(_, status): &(&phx_proto::Topic, ChannelStatus)| *status == ChannelStatus::Joined;
        self.hand.socket.channels().filter(joined).count()
    }

    /// Answers each join after a millisecond, until all are joined or the limit is exceeded. Returns
    /// the time at which each was written, and whether all were joined.
    fn connection(&mut self) -> (Vec<Time>, bool) {
        let topics = self.hand.socket.channels().count();
        let mut answered = 0;
        loop {
            let joins: Vec<_> =
                self.hand.sent.iter().filter(|sent| sent.event == "phx_join").cloned().collect();
            let times: Vec<_> = joins.iter().map(|sent| sent.at).collect();
            let fast = times
                .windows(self.limit + 1)
                .any(|window| window[self.limit].since(window[0]) < secs(1));
            if fast {
                self.hand.close_frame(4000);
                return (times, false);
            }
            if self.joined() == topics {
                return (times, true);
            }
            if let Some(sent) = joins.get(answered) {
                answered += 1;
                self.hand.advance(ms(1));
                let ok = json!({"status": "ok", "response": {}});
                self.hand.receive(&json!([
                    sent.msg_ref,
                    sent.msg_ref,
                    sent.topic,
                    "phx_reply",
                    ok
                ]));
            } else {
                self.hand.advance(ms(5));
            }
        }
    }

    fn reconnect(&mut self) {
        self.hand.sent.clear();
        self.hand.until_dial();
        self.hand.opened();
        self.connections += 1;
    }
}

/// The server closes the connection when joins arrive too fast, and every reconnect repeats the burst
/// (supabase/realtime#1691). So the client paces its joins until a connection lasts.
#[test]
fn joins_are_paced_until_connection_lasts() {
    let mut server = Limited::new(100, 20);
    let (first, all) = server.connection();
    assert!(!all && first.len() > 20);
    server.reconnect();
    let (second, all) = server.connection();
    assert!(!all, "the second connection is as fast as the first one");
    assert!(second.last().unwrap().since(second[0]) < ms(50));
    let last = loop {
        server.reconnect();
        let (times, all) = server.connection();
        let gaps: Vec<_> = times.windows(2).map(|pair| pair[1].since(pair[0])).collect();
        let least = gaps.iter().min().unwrap();
        assert!(*least > ms(1), "paced: {gaps:?}");
        if all {
            break gaps[0];
        }
        assert!(server.connections < 10, "{} of 100 joined", server.joined());
    };
    // After the connection has lasted for a while, the joins on the next one are faster.
    let gap = |times: &[Time]| times[1].since(times[0]);
    server.hand.sent.clear();
    server.hand.advance(secs(3));
    server.hand.lost();
    server.reconnect();
    let (times, _) = server.connection();
    assert_eq!(gap(&times), last * 2 / 3);
}

#[test]
fn paced_join_has_reason_and_deadline() {
    let mut hand = Hand::new(config());
    for topic in 0..3 {
        hand.join(&format!("room:{topic}"));
    }
    hand.connect();
    for _ in 0..2 {
        hand.opened();
        hand.advance(ms(100));
        hand.answer_join("room:0");
        hand.answer_join("room:1");
        hand.close_frame(1000);
        hand.until_dial();
    }
    hand.sent.clear();
    hand.opened();
    assert_eq!(hand.sent.len(), 1, "the first is written at once");
    let paced = ChannelStatus::Pending(PendingReason::Paced);
    assert_eq!(hand.socket.channel_status("room:1"), paced);
    let timeout = hand.socket.poll_timeout().unwrap();
    assert_eq!((timeout.at, timeout.kind), (hand.now + ms(100), TimerKind::JoinPace));
    hand.advance(ms(99));
    assert_eq!(hand.sent.len(), 1);
    hand.advance(ms(1));
    assert_eq!(hand.sent.len(), 2);
    // A join that is requested in between is paced too.
    hand.join("room:4");
    assert_eq!(hand.socket.channel_status("room:4"), paced);
    hand.advance(ms(400));
    assert_eq!(hand.sent.len(), 4);
    // After a disconnect the pace is reset.
    hand.socket.disconnect(hand.now);
    hand.lost();
    hand.connect();
    hand.join("room:0");
    hand.join("room:1");
    hand.sent.clear();
    hand.opened();
    assert_eq!(hand.sent.len(), 2);
}

/// A server that is killed does not limit joins, so the client does not pace them. A thousand
/// channels rejoin as fast as they are answered: after one kill with a close frame, and after any
/// number of kills without a close frame, or long after the joins.
#[test]
fn killed_server_causes_no_pacing() {
    let mut hand = Hand::new(config());
    for topic in 0..1_000 {
        hand.join(&format!("room:{topic}"));
    }
    hand.connect();
    for round in 0..6 {
        hand.sent.clear();
        hand.opened();
        let start = hand.now;
        for index in 0..1_000 {
            let sent = hand.sent[index].clone();
            let ok = json!({"status": "ok", "response": {}});
            hand.receive(&json!([sent.msg_ref, sent.msg_ref, sent.topic, "phx_reply", ok]));
        }
        assert_eq!(hand.now, start);
        assert_eq!(hand.sent.len(), 1_000, "round {round}");
        match round {
            0 | 1 => {
                hand.advance(ms(100));
                hand.lost();
            }
            2 => hand.close_frame(1012),
            3 => {
                hand.advance(ms(2_001));
                hand.close_frame(1012);
            }
            _ => hand.close_frame(1012),
        }
        hand.until_dial();
    }
}
