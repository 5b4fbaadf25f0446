//! The expiry of deadlines, also when the caller is late and after a wake-up.
//!
//! Only `handle_timeout` expires deadlines. Three situations look similar:
//!
//! | situation | detected by | effect |
//! | --- | --- | --- |
//! | lateness: a stopped process, a starved runtime | a deadline that passed more than [`JUMP`] ago | The peer may be alive and its answers in the buffers, so it is probed, and deadlines of answers are extended once. The wait for the next attempt is kept, because a starved process must keep its backoff. |
//! | a wake-up: resume, another network | `handle_wake` | The peer is probed and deadlines of answers are extended once, as for lateness. An ordinary wait for the next attempt is skipped. |
//! | a slow link | transferred bytes | Deadlines of answers are extended ([`progress`](crate::socket::progress)). |

use std::collections::VecDeque;

use crate::event::action::Action;
use crate::event::cause::{Cause, LeaveOutcome};
use crate::event::signal::Signal;
use crate::socket::Socket;
use crate::socket::connection::{Phase, Woken};
use crate::socket::push::Push;
use crate::socket::timer::{JUMP, TimerKey, TimerKind};
use crate::time::Time;

impl Socket {
    /// Expires every deadline that has passed by `now`.
    ///
    /// Report [progress](Self::handle_progress) first. If a call comes more than 5 s after the
    /// earliest deadline, the process was probably stopped. Then the peer is probed, and the
    /// deadlines of a heartbeat and of a join are extended once.
    pub fn handle_timeout(&mut self, now: Time) {
        let now = self.advance(now);
        let Some(next) = self.next_deadline().filter(|next| next.at <= now) else { return };
        if now.since(next.at) > JUMP {
            self.forgive(now);
        }
        // The loop covers only the deadlines that have already passed. If it included deadlines
        // that begin during the loop, it would never end with configured delays of zero.
        for (_, key) in self.passed_deadlines(now) {
            if self.has_passed(&key, now) {
                self.expire(now, key);
            }
        }
    }

    /// Reports that the network changed or the machine resumed.
    ///
    /// While the connection waits for the next attempt, the call ends the wait. It does not end the
    /// longer waits after a refusal, after a `Retry-After` of the server, or after repeated messages
    /// that are too large. While the connection is being opened, the call has the same effect on the
    /// next wait, if the attempt fails. While it is open, the call probes the peer. Calls end a wait or
    /// probe at most once a second. A call that comes sooner only shortens the wait, so that it ends one
    /// second after the last call that had an effect.
    pub fn handle_wake(&mut self, now: Time) {
        let now = self.advance(now);
        match self.connection.wake(now, self.config.connect_timeout) {
            Woken::Nothing => {}
            Woken::Dial(attempt) => self.dialled(attempt),
            Woken::Probe => self.forgive(now),
        }
    }

    /// Probes the peer of an open connection and restarts the deadlines of its answers, each at
    /// most once.
    fn forgive(&mut self, now: Time) {
        if let Some(live) = self.connection.live_mut() {
            live.forgive(now);
        }
    }

    fn expire(&mut self, now: Time, key: TimerKey) {
        match key {
            TimerKey::Connection(kind) => self.expire_connection(now, kind),
            TimerKey::Rejoin(topic) => self.rejoin_due(&topic),
            // Protocol: LEAVE-3.
            TimerKey::Leave(topic) => self.leave_ended(&topic, LeaveOutcome::TimedOut),
            // Protocol: REPLY-3.
            TimerKey::Push(id) => {
                if let Some(place) = self.pushes.place(id) {
                    self.end_push(place, Push::outcome_at_timeout);
                }
            }
        }
    }

    fn expire_connection(&mut self, now: Time, kind: TimerKind) {
        match (kind, self.connection.phase()) {
            (TimerKind::Connect, Phase::Connecting { id, .. }) => {
                let id = *id;
                self.actions.push_back(Action::Abort { id });
                self.attempt_failed(now, id, Cause::ConnectTimeout);
            }
            (TimerKind::Reconnect, _) => self.dial_again(now),
            (TimerKind::Close, Phase::Closing { id, .. }) => {
                self.actions.push_back(Action::Abort { id: *id });
                self.close_finished(now);
            }
            (TimerKind::HeartbeatDue, _) => {
                if let Some(live) = self.connection.live_mut() {
                    live.heartbeat.fall_due(now, &live.ledger);
                }
                self.shrink();
            }
            // Protocol: HB-4.
            (TimerKind::HeartbeatReply, _) => self.abort_connection(now, Cause::HeartbeatTimeout),
            (TimerKind::WriteStall, _) => self.abort_connection(now, Cause::WriteStalled),
            (TimerKind::JoinClock, _) => self.join_overdue(now),
            (TimerKind::JoinBlock, _) => self.join_stalled(now),
            // The next join waited only for this time, so no other state changes.
            (TimerKind::JoinPace, _) => self.pace.clear_wait(),
            _ => debug_assert!(false, "{kind:?} is not a deadline of this phase"),
        }
    }

    /// Frees the memory that only a busy connection needs. It is called when a heartbeat falls due,
    /// so that a connection that has become idle is small, and a busy one does not allocate all the
    /// time.
    fn shrink(&mut self) {
        if self.actions.is_empty() {
            self.actions = VecDeque::new();
        }
        if let Some(live) = self.connection.live_mut() {
            live.shrink();
        }
        self.channels.shrink();
        self.pushes.shrink();
    }

    /// Reports the oldest join, which is overdue, and probes the server. This happens once for each
    /// join, or again after a late caller has restarted the clock of the join.
    fn join_overdue(&mut self, now: Time) {
        let live = self.connection.live_mut();
        let Some(join) = live.and_then(|live| live.join_overdue(now)) else { return };
        let channel = self.channels.get(&join.topic);
        if channel.is_some_and(|channel| channel.is_joining(join.join_ref)) {
            self.signal(Signal::JoinTimedOut { topic: join.topic });
        }
        self.check_overdue_join(now);
    }

    /// Aborts the connection because of its oldest join, unless the server has answered a heartbeat since
    /// that join. Then the server is not blocked, and the reply to the join is lost.
    fn join_stalled(&mut self, now: Time) {
        self.end_lost_joins(now);
        let stalled = TimerKey::Connection(TimerKind::JoinBlock);
        let oldest = self.connection.live().and_then(|live| live.joins().oldest());
        if let Some(join) = oldest.filter(|_| self.has_passed(&stalled, now)) {
            let topic = join.topic.clone();
            self.abort_connection(now, Cause::JoinStalled { topic });
        }
    }

    /// Ends joins whose replies are lost, if the oldest join is overdue.
    pub(super) fn check_overdue_join(&mut self, now: Time) {
        if self.connection.live().is_some_and(|live| live.joins().is_overdue()) {
            self.end_lost_joins(now);
        }
    }

    /// Ends joins whose replies are lost. The server answers in order, so when it answers a
    /// heartbeat, the replies to unanswered joins that were written before the heartbeat will never
    /// arrive.
    fn end_lost_joins(&mut self, now: Time) {
        let Some(live) = self.connection.live() else { return };
        let Some(answered) = live.heartbeat.last_answered() else { return };
        while let Some(join) =
            self.connection.live_mut().and_then(|live| live.take_lost_join(answered, now))
        {
            self.join_unanswered(now, &join.topic, join.join_ref);
        }
    }
}
