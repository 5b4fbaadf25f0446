//! Deadlines as values, each with a name.
//!
//! Nothing here waits. A machine arms a deadline, [`Socket::poll_timeout`](crate::Socket::poll_timeout)
//! tells the driver the earliest, and only `handle_timeout` expires any. Deadlines are kept in an
//! ordered set beside an index, because nearly every one of them is cancelled (replies arrive):
//! a lazy heap would hold mostly garbage. Equal times fall back on the order of the keys, so the
//! order of expiry is total.

use core::time::Duration;
use std::collections::BTreeSet;

use crate::id::PushId;
use crate::table::Table;
use crate::time::Time;
use crate::topic::Topic;

/// How far past its deadline a call is taken for a wake-up from sleep.
pub(crate) const JUMP: Duration = Duration::from_secs(5);

/// The earliest deadline, from [`Socket::poll_timeout`](crate::Socket::poll_timeout).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeout {
    /// When to call `handle_timeout`.
    pub at: Time,
    /// What it is for.
    pub kind: TimerKind,
}

/// What a deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum TimerKind {
    /// Actions wait to be polled: call `poll_action` now.
    Actions,
    /// When to give up on an attempt to connect.
    Connect,
    /// When to dial again.
    Reconnect,
    /// When to drop a transport whose close handshake is not over.
    Close,
    /// When the next heartbeat falls due.
    HeartbeatDue,
    /// When an unanswered heartbeat means a dead connection.
    HeartbeatReply,
    /// When a transport that takes no frame is dead (heartbeats off).
    WriteStall,
    /// When to report and probe the oldest unanswered join.
    JoinClock,
    /// When a join has kept the socket silent for too long.
    JoinBlock,
    /// When to join a channel again.
    Rejoin,
    /// When a leave has gone unanswered for too long.
    Leave,
    /// When a push has waited long enough.
    Push,
}

/// A deadline and what it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum TimerKey {
    Connect,
    Reconnect,
    Close,
    HeartbeatDue,
    HeartbeatReply,
    WriteStall,
    JoinClock,
    JoinBlock,
    Rejoin(Topic),
    Leave(Topic),
    /// Never armed here: the deadlines of pushes are many and kept apart, in
    /// [`deadlines`](crate::deadlines). They pass in one order with the others.
    Push(PushId),
}

impl TimerKey {
    const fn kind(&self) -> TimerKind {
        match self {
            Self::Connect => TimerKind::Connect,
            Self::Reconnect => TimerKind::Reconnect,
            Self::Close => TimerKind::Close,
            Self::HeartbeatDue => TimerKind::HeartbeatDue,
            Self::HeartbeatReply => TimerKind::HeartbeatReply,
            Self::WriteStall => TimerKind::WriteStall,
            Self::JoinClock => TimerKind::JoinClock,
            Self::JoinBlock => TimerKind::JoinBlock,
            Self::Rejoin(_) => TimerKind::Rejoin,
            Self::Leave(_) => TimerKind::Leave,
            Self::Push(_) => TimerKind::Push,
        }
    }
}

/// All armed deadlines.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timers {
    at: Table<TimerKey, Time>,
    order: BTreeSet<(Time, TimerKey)>,
}

impl Timers {
    /// Arms a deadline, in place of an earlier one with the same key.
    pub(crate) fn arm(&mut self, key: TimerKey, at: Time) {
        self.disarm(&key);
        self.order.insert((at, key.clone()));
        self.at.insert(key, at);
    }

    pub(crate) fn disarm(&mut self, key: &TimerKey) {
        if let Some((key, at)) = self.at.remove_entry(key) {
            self.order.remove(&(at, key));
        }
    }

    pub(crate) fn next(&self) -> Option<Timeout> {
        self.order.first().map(|(at, key)| Timeout { at: *at, kind: key.kind() })
    }

    /// The deadlines that have passed, earliest first. They stay armed.
    pub(crate) fn expired(&self, now: Time) -> impl Iterator<Item = (Time, TimerKey)> {
        self.order.iter().take_while(move |(at, _)| *at <= now).cloned()
    }

    /// Takes a deadline if it is still armed and has passed.
    pub(crate) fn take_expired(&mut self, key: &TimerKey, now: Time) -> bool {
        let expired = self.at.get(key).is_some_and(|at| *at <= now);
        if expired {
            self.disarm(key);
        }
        expired
    }

    pub(crate) fn len(&self) -> usize {
        debug_assert_eq!(self.at.len(), self.order.len());
        self.at.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arming_again_replaces_and_disarming_removes() {
        let mut timers = Timers::default();
        timers.arm(TimerKey::Connect, Time::from_millis(5));
        timers.arm(TimerKey::Connect, Time::from_millis(9));
        assert_eq!(timers.len(), 1);
        assert_eq!(timers.next().map(|timeout| timeout.at), Some(Time::from_millis(9)));
        timers.disarm(&TimerKey::Connect);
        assert_eq!((timers.len(), timers.next()), (0, None));
    }

    #[test]
    fn deadlines_expire_in_order_of_time_then_name() {
        let mut timers = Timers::default();
        timers.arm(TimerKey::Leave("b".into()), Time::from_millis(1));
        timers.arm(TimerKey::Leave("a".into()), Time::from_millis(1));
        timers.arm(TimerKey::Close, Time::from_millis(1));
        timers.arm(TimerKey::Connect, Time::from_millis(2));
        let expired: Vec<_> = timers.expired(Time::from_millis(1)).map(|(_, key)| key).collect();
        let leaves = ["a", "b"].map(|topic| TimerKey::Leave(topic.into()));
        assert_eq!(expired, [TimerKey::Close, leaves[0].clone(), leaves[1].clone()]);
        assert!(!timers.take_expired(&TimerKey::Connect, Time::from_millis(1)));
        assert!(timers.take_expired(&TimerKey::Connect, Time::from_millis(2)));
    }
}
