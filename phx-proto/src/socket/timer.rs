//! Deadlines, each derived from the state that owns it.
//!
//! | deadline | owner |
//! | --- | --- |
//! | `Connect`, `Reconnect`, `Close` | the phase of the [connection](crate::socket::connection) |
//! | `HeartbeatDue`, `HeartbeatReply` | the [heartbeat](crate::socket::heartbeat) |
//! | `WriteStall` | the [write stall](crate::socket::write_stall) |
//! | `JoinClock`, `JoinBlock` | the [join clock](crate::socket::join_clock) |
//! | `JoinPace` | the [join pace](crate::socket::join_pace) |
//! | `Rejoin`, `Leave` | a [channel](crate::socket::channel), indexed by its `Channels` |
//! | `Push` | a [push](crate::socket::push), indexed by its `Pushes` |
//!
//! No code arms or disarms a deadline: it exists as long as the state that it belongs to.
//! [`Socket::poll_timeout`] returns the earliest, and only
//! [`handle_timeout`](Socket::handle_timeout) expires deadlines. Equal times expire in the order of
//! the table, channels by topic and pushes in the order of acceptance, so the order is total.
//! [`Time::MAX`] means no deadline.

use core::time::Duration;

use crate::id::PushId;
use crate::socket::Socket;
use crate::time::Time;
use crate::topic::Topic;

/// If a call is later than this, the machine or the process counts as suspended.
pub(crate) const JUMP: Duration = Duration::from_secs(5);

/// The earliest deadline, from [`Socket::poll_timeout`](crate::Socket::poll_timeout).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timeout {
    /// The time to call `handle_timeout`.
    pub at: Time,
    /// The kind of the deadline.
    pub kind: TimerKind,
}

/// The kind of a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum TimerKind {
    /// Actions are queued: call `poll_action` now.
    Actions,
    /// The timeout of an attempt to connect.
    Connect,
    /// The time to dial again.
    Reconnect,
    /// The timeout of a close handshake.
    Close,
    /// The time of the next heartbeat.
    HeartbeatDue,
    /// The timeout of an unanswered heartbeat, after which the connection counts as dead.
    HeartbeatReply,
    /// The timeout of a transport that takes no frames, if heartbeats are disabled.
    WriteStall,
    /// The timeout of the oldest unanswered join, after which it is reported and the server is
    /// probed.
    JoinClock,
    /// The time at which an unanswered join counts as stalled, and the connection is aborted.
    JoinBlock,
    /// The time at which the next join may be written to a server that limits joins.
    JoinPace,
    /// The time to join a channel again.
    Rejoin,
    /// The timeout of an unanswered leave.
    Leave,
    /// The timeout of a push.
    Push,
}

/// The owner of a deadline. Equal times expire in the order of this type.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TimerKey {
    /// The connection, which has at most one deadline of each kind.
    Connection(TimerKind),
    Rejoin(Topic),
    Leave(Topic),
    Push(PushId),
}

impl TimerKey {
    pub(crate) const fn kind(&self) -> TimerKind {
        match self {
            Self::Connection(kind) => *kind,
            Self::Rejoin(_) => TimerKind::Rejoin,
            Self::Leave(_) => TimerKind::Leave,
            Self::Push(_) => TimerKind::Push,
        }
    }
}

impl Socket {
    /// Lists the deadlines of the connection, in the order in which equal ones expire.
    #[inline]
    fn connection_deadlines(&self, mut list: impl FnMut(TimerKind, Time)) {
        let mut list = |kind, at: Option<Time>| {
            if let Some(at) = at.filter(|at| *at < Time::MAX) {
                list(kind, at);
            }
        };
        if let Some((kind, at)) = self.connection.deadline() {
            list(kind, Some(at));
        }
        if let Some(live) = self.connection.live() {
            live.deadlines(&self.config, &mut list);
        }
        list(TimerKind::JoinPace, self.pace.deadline());
    }

    /// The earliest deadline, in O(1).
    pub(super) fn next_deadline(&self) -> Option<Timeout> {
        let mut next: Option<Timeout> = None;
        let mut offer = |kind, at| {
            if next.is_none_or(|next| at < next.at) {
                next = Some(Timeout { at, kind });
            }
        };
        self.connection_deadlines(&mut offer);
        if let Some((at, key)) = self.channels.next_deadline() {
            offer(key.kind(), *at);
        }
        if let Some(at) = self.pushes.next_deadline() {
            offer(TimerKind::Push, at);
        }
        next
    }

    /// The deadlines that have passed, in the order in which they expire.
    pub(super) fn passed_deadlines(&self, now: Time) -> Vec<(Time, TimerKey)> {
        let mut passed = Vec::new();
        self.connection_deadlines(|kind, at| {
            if at <= now {
                passed.push((at, TimerKey::Connection(kind)));
            }
        });
        passed.extend(self.channels.passed_deadlines(now).cloned());
        let pushes = self.pushes.overdue(now).into_iter();
        passed.extend(pushes.map(|(at, id)| (at, TimerKey::Push(id))));
        passed.sort_unstable();
        passed
    }

    /// Whether a deadline still exists and has passed. The expiry of earlier deadlines may have
    /// removed or moved it.
    pub(super) fn has_passed(&self, key: &TimerKey, now: Time) -> bool {
        let at = match key {
            TimerKey::Connection(kind) => {
                let mut found = None;
                self.connection_deadlines(|other, at| {
                    if other == *kind {
                        found = Some(at);
                    }
                });
                found
            }
            TimerKey::Rejoin(topic) => self.channels.get(topic).and_then(|it| it.rejoin_at()),
            TimerKey::Leave(topic) => self.channels.get(topic).and_then(|it| it.leave_until()),
            TimerKey::Push(id) => self.pushes.place(*id).map(|_| now),
        };
        at.is_some_and(|at| at <= now)
    }

    /// The number of deadlines.
    pub(super) fn deadlines(&self) -> usize {
        let mut deadlines = self.channels.deadlines() + self.pushes.deadlines();
        self.connection_deadlines(|_, _| deadlines += 1);
        deadlines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::config::join_params::JoinParams;
    use crate::event::input::{Opened, PushOptions};
    use crate::wire::payload::Payload;

    fn connecting(config: Config) -> Socket {
        let mut socket = Socket::new(config, 7, Time::ZERO);
        socket.connect(Time::ZERO);
        while socket.poll_action(Time::ZERO).is_some() {}
        socket
    }

    fn config() -> Config {
        Config::new("ws://localhost/").unwrap()
    }

    /// A push with the same deadline as a heartbeat expires after it.
    #[test]
    fn first_of_equal_times_is_next() {
        let mut socket = connecting(config());
        let id = socket.connection_id().expect("an attempt");
        socket.handle_opened(Time::ZERO, id, Opened::default());
        socket.join(Time::ZERO, "room:a", JoinParams::none()).expect("a join");
        socket.handle_writable(Time::ZERO, id, false);
        while socket.poll_action(Time::ZERO).is_some() {}
        let next = socket.next_deadline().expect("a heartbeat");
        assert_eq!(next.kind, TimerKind::HeartbeatDue);
        let options = PushOptions::call().timeout(next.at.since(Time::ZERO));
        socket.push(Time::ZERO, "room:a", "ask", Payload::empty(), options).expect("a push");
        assert_eq!(socket.next_deadline(), Some(next));
        let passed = socket.passed_deadlines(next.at);
        let kinds: Vec<TimerKind> = passed.iter().map(|(_, key)| key.kind()).collect();
        assert_eq!(kinds, [TimerKind::HeartbeatDue, TimerKind::Push]);
        assert!(passed.iter().all(|(_, key)| socket.has_passed(key, next.at)));
        assert!(!socket.has_passed(&TimerKey::Connection(TimerKind::HeartbeatDue), Time::ZERO));
        assert!(!socket.has_passed(&TimerKey::Connection(TimerKind::Close), next.at));
        assert_eq!(socket.deadlines(), 2);
    }

    #[test]
    fn last_instant_is_no_deadline() {
        let socket = connecting(config().connect_timeout(Duration::MAX));
        assert_eq!((socket.next_deadline(), socket.deadlines()), (None, 0));
        assert!(socket.passed_deadlines(Time::MAX).is_empty());
    }

    /// Equal times expire in the order of the keys. Recordings depend on this order.
    #[test]
    fn keys_have_a_total_order() {
        use TimerKind::{
            Close, Connect, HeartbeatDue, HeartbeatReply, JoinBlock, JoinClock, JoinPace,
            Reconnect, WriteStall,
        };
        let topic = Topic::from;
        let of_connection = [
            Connect,
            Reconnect,
            Close,
            HeartbeatDue,
            HeartbeatReply,
            WriteStall,
            JoinClock,
            JoinBlock,
            JoinPace,
        ];
        let mut keys: Vec<TimerKey> = of_connection.map(TimerKey::Connection).to_vec();
        keys.extend(["a", "b"].map(|name| TimerKey::Rejoin(topic(name))));
        keys.extend(["a", "b"].map(|name| TimerKey::Leave(topic(name))));
        keys.extend([1, 2].map(|id| TimerKey::Push(PushId(id))));
        assert!(keys.is_sorted_by(|one, next| one < next));
        assert!(keys.is_sorted_by_key(TimerKey::kind));
    }
}
