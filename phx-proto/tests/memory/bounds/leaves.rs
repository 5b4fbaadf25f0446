//! Leaves that the server does not confirm.

use core::time::Duration;

use super::{KIB, held, row};
use crate::hand::{Hand, config};
use phx_proto::Signal;
use phx_proto::event::LeaveOutcome;

/// The server never answers a leave. After a leave has timed out, the client keeps at most the name of its
/// topic, within the bound of the names of topics that ended.
#[test]
fn unanswered_leaves() {
    let mut hand = Hand::open(config().heartbeat_interval(Duration::ZERO));
    let mut timed_out = 0;
    let bytes = held(|| {
        for number in 0..5_000 {
            let topic = format!("{number}{}", "t".repeat(100));
            hand.join(&topic);
            hand.answer_join(&topic);
            hand.leave(&topic);
            hand.advance(Duration::from_secs(10));
            let is_timeout = |signal: &&Signal| {
                matches!(signal, Signal::Left { outcome: LeaveOutcome::TimedOut, .. })
            };
            timed_out += hand.signals.iter().filter(is_timeout).count();
            hand.sent.clear();
            hand.forget();
        }
    });
    assert_eq!(timed_out, 5_000);
    row("unanswered leaves: names of topics that ended", 16 * KIB, bytes);
}
