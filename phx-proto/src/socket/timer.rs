//! Deadlines as values, each with a name.
//!
//! Nothing here waits. A machine arms a deadline, [`Socket::poll_timeout`](crate::Socket::poll_timeout)
//! tells the driver the earliest, and only `handle_timeout` expires any. A connection has one deadline of
//! each kind, which needs no search; those of channels are in an ordered set beside an index,
//! because nearly every one of them is cancelled: a lazy heap would hold mostly garbage. Equal
//! times fall back on the order of the keys, so the order of expiry is total. The last instant,
//! [`Time::MAX`], is no deadline: what would fall due there never does.

use core::fmt;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use crate::id::PushId;
use crate::time::Time;
use crate::topic::Topic;

/// How far past its deadline a call is taken for a wake-up from sleep.
pub(crate) const JUMP: Duration = Duration::from_secs(5);

/// The earliest deadline, from [`Socket::poll_timeout`](crate::Socket::poll_timeout).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
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
    /// When the next join may be written to a server that closes when they come too fast.
    JoinPace,
    /// When to join a channel again.
    Rejoin,
    /// When a leave has gone unanswered for too long.
    Leave,
    /// When a push has waited long enough.
    Push,
}

/// A deadline and what it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TimerKey {
    Connect,
    Reconnect,
    Close,
    HeartbeatDue,
    HeartbeatReply,
    WriteStall,
    JoinClock,
    JoinBlock,
    JoinPace,
    Rejoin(Topic),
    Leave(Topic),
    /// Never armed here: the deadlines of pushes are many and kept apart, in
    /// [`deadlines`](crate::collections::deadlines). They pass in one order with the others.
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
            Self::JoinPace => TimerKind::JoinPace,
            Self::Rejoin(_) => TimerKind::Rejoin,
            Self::Leave(_) => TimerKind::Leave,
            Self::Push(_) => TimerKind::Push,
        }
    }

    /// Its place among those of the connection.
    const fn of_connection(&self) -> Option<usize> {
        match self {
            Self::Connect => Some(0),
            Self::Reconnect => Some(1),
            Self::Close => Some(2),
            Self::HeartbeatDue => Some(3),
            Self::HeartbeatReply => Some(4),
            Self::WriteStall => Some(5),
            Self::JoinClock => Some(6),
            Self::JoinBlock => Some(7),
            Self::JoinPace => Some(8),
            Self::Rejoin(_) | Self::Leave(_) | Self::Push(_) => None,
        }
    }
}

/// All armed deadlines but those of pushes.
#[derive(Clone, Default)]
pub(crate) struct Timers {
    /// Of the connection, by their place in [`CONNECTION`].
    connection: [Option<Time>; CONNECTION.len()],
    /// Of channels. An idle connection has none, so nothing is kept for them then.
    at: BTreeMap<TimerKey, Time>,
    order: BTreeSet<(Time, TimerKey)>,
}

/// The deadlines of which a connection has one each.
const CONNECTION: [TimerKey; 9] = [
    TimerKey::Connect,
    TimerKey::Reconnect,
    TimerKey::Close,
    TimerKey::HeartbeatDue,
    TimerKey::HeartbeatReply,
    TimerKey::WriteStall,
    TimerKey::JoinClock,
    TimerKey::JoinBlock,
    TimerKey::JoinPace,
];

impl Timers {
    /// Arms a deadline, in place of an earlier one with the same key. [`Time::MAX`] is never: there
    /// is no later time to arm it for again.
    pub(crate) fn arm(&mut self, key: TimerKey, at: Time) {
        if at == Time::MAX {
            return self.disarm(&key);
        }
        match key.of_connection() {
            Some(place) => self.connection[place] = Some(at),
            None => {
                self.disarm(&key);
                self.order.insert((at, key.clone()));
                self.at.insert(key, at);
            }
        }
    }

    pub(crate) fn disarm(&mut self, key: &TimerKey) {
        match key.of_connection() {
            Some(place) => self.connection[place] = None,
            None => self.disarm_channel(key),
        }
    }

    fn disarm_channel(&mut self, key: &TimerKey) {
        if let Some((key, at)) = self.at.remove_entry(key) {
            self.order.remove(&(at, key));
        }
        if self.at.is_empty() {
            // An empty tree keeps a node.
            (self.at, self.order) = (BTreeMap::new(), BTreeSet::new());
        }
    }

    /// The earliest. Of equal ones the first in the order of the keys.
    pub(crate) fn next(&self) -> Option<Timeout> {
        let mut next: Option<(Time, &TimerKey)> = None;
        for (at, key) in self.connection.iter().zip(&CONNECTION) {
            if let Some(at) = *at {
                if next.is_none_or(|(earliest, _)| at < earliest) {
                    next = Some((at, key));
                }
            }
        }
        if let Some((at, key)) = self.order.first() {
            if next.is_none_or(|(earliest, _)| *at < earliest) {
                next = Some((*at, key));
            }
        }
        next.map(|(at, key)| Timeout { at, kind: key.kind() })
    }

    /// The deadlines that have passed. They stay armed.
    pub(crate) fn expired(&self, now: Time) -> impl Iterator<Item = (Time, TimerKey)> {
        let connection = self.connection.iter().zip(&CONNECTION);
        let connection = connection.filter_map(|(at, key)| Some(((*at)?, key.clone())));
        let channels = self.order.iter().take_while(move |(at, _)| *at <= now).cloned();
        connection.filter(move |(at, _)| *at <= now).chain(channels)
    }

    fn at(&self, key: &TimerKey) -> Option<Time> {
        match key.of_connection() {
            Some(place) => self.connection[place],
            None => self.at.get(key).copied(),
        }
    }

    pub(crate) fn is_armed(&self, key: &TimerKey) -> bool {
        self.at(key).is_some()
    }

    /// Takes a deadline if it is still armed and has passed.
    pub(crate) fn take_expired(&mut self, key: &TimerKey, now: Time) -> bool {
        let expired = self.at(key).is_some_and(|at| at <= now);
        if expired {
            self.disarm(key);
        }
        expired
    }

    pub(crate) fn len(&self) -> usize {
        debug_assert_eq!(self.at.len(), self.order.len());
        self.connection.iter().flatten().count() + self.at.len()
    }
}

/// What is armed, earliest first.
impl fmt::Debug for Timers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let connection = self.connection.iter().zip(&CONNECTION);
        let connection = connection.filter_map(|(at, key)| Some(((*at)?, key)));
        let all: BTreeSet<(Time, &TimerKey)> =
            connection.chain(self.order.iter().map(|(at, key)| (*at, key))).collect();
        f.debug_set().entries(all).finish()
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
    fn every_deadline_of_the_connection_has_the_place_that_it_is_looked_for_at() {
        for (place, key) in CONNECTION.iter().enumerate() {
            assert_eq!(key.of_connection(), Some(place), "{key:?}");
        }
        assert!(CONNECTION.is_sorted());
    }

    #[test]
    fn the_next_is_the_earliest_whoever_it_belongs_to() {
        let mut timers = Timers::default();
        let at = Time::from_millis;
        let next = |timers: &Timers| timers.next().map(|next| (next.at, next.kind));
        timers.arm(TimerKey::Rejoin("a".into()), at(7));
        assert_eq!(next(&timers), Some((at(7), TimerKind::Rejoin)));
        timers.arm(TimerKey::HeartbeatDue, at(7));
        timers.arm(TimerKey::Close, at(9));
        assert_eq!(next(&timers), Some((at(7), TimerKind::HeartbeatDue)), "equal: in their order");
        timers.arm(TimerKey::Leave("a".into()), at(6));
        assert_eq!(next(&timers), Some((at(6), TimerKind::Leave)));
        assert_eq!(timers.len(), 4);
    }

    #[test]
    fn deadlines_expire_in_order_of_time_then_name() {
        let mut timers = Timers::default();
        timers.arm(TimerKey::Leave("b".into()), Time::from_millis(1));
        timers.arm(TimerKey::Leave("a".into()), Time::from_millis(1));
        timers.arm(TimerKey::Close, Time::from_millis(1));
        timers.arm(TimerKey::Connect, Time::from_millis(2));
        let mut expired: Vec<_> = timers.expired(Time::from_millis(1)).collect();
        expired.sort();
        let expired: Vec<_> = expired.into_iter().map(|(_, key)| key).collect();
        let leaves = ["a", "b"].map(|topic| TimerKey::Leave(topic.into()));
        assert_eq!(expired, [TimerKey::Close, leaves[0].clone(), leaves[1].clone()]);
        assert!(!timers.take_expired(&TimerKey::Connect, Time::from_millis(1)));
        assert!(timers.take_expired(&TimerKey::Connect, Time::from_millis(2)));
    }
}
