//! Expiry of deadlines, lateness and wake-ups.
//!
//! Only `handle_timeout` expires anything. Three things look alike:
//!
//! | event | seen by | effect |
//! | --- | --- | --- |
//! | lateness: a stopped process, a starved runtime | a deadline passed more than [`JUMP`] ago | the peer may be alive and its answers in the buffers, so it is probed, and deadlines of answers are extended once. A wait for the next attempt stays: a starved process must keep its backoff |
//! | a wake-up: resume, another network | `handle_wake` | the same, and an ordinary wait for the next attempt is skipped |
//! | a slow link | bytes moved | deadlines of answers are extended ([`progress`](crate::socket::progress)) |

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
    /// Report [progress](Self::handle_progress) before it. A call that comes more than 5 s after the
    /// earliest deadline is taken for a stopped process: the peer is probed, and the deadlines of a
    /// heartbeat and of a join are extended once.
    pub fn handle_timeout(&mut self, now: Time) {
        let now = self.advance(now);
        let Some(next) = self.next_deadline().filter(|next| next.at <= now) else { return };
        if now.since(next.at) > JUMP {
            self.forgive(now);
        }
        // One pass over what has passed already: with delays of zero configured, the deadlines that
        // begin in it would otherwise be due again and again.
        for (_, key) in self.passed_deadlines(now) {
            if self.has_passed(&key, now) {
                self.expire(now, key);
            }
        }
    }

    /// The network changed, or the machine woke up: try now what was waiting.
    ///
    /// Waiting: skips an ordinary wait, never one that the server asked for. Connecting: the same, if
    /// the attempt fails. Open: probes the peer. Has an effect at most once a second; a wait is
    /// then shortened to that second.
    pub fn handle_wake(&mut self, now: Time) {
        let now = self.advance(now);
        match self.connection.wake(now, self.config.connect_timeout) {
            Woken::Nothing => {}
            Woken::Dial(attempt) => self.dialled(attempt),
            Woken::Probe => self.forgive(now),
        }
    }

    /// Probes an open connection, and restarts the time for its answers, once.
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
            (TimerKind::JoinBlock, Phase::Open(live)) => {
                if let Some(join) = live.joins().oldest() {
                    let topic = join.topic.clone();
                    self.abort_connection(now, Cause::JoinStalled { topic });
                }
            }
            // Time has passed, which is all that the next join waits for.
            (TimerKind::JoinPace, _) => self.pace.wait_over(),
            _ => debug_assert!(false, "{kind:?} is no deadline of this phase"),
        }
    }

    /// Frees the memory that only a busy time needs. Called as often as a heartbeat falls due, so
    /// that a connection that has become idle is small, and a busy one does not allocate all the time.
    fn shrink(&mut self) {
        if self.actions.is_empty() {
            self.actions = VecDeque::new();
        }
        if let Some(live) = self.connection.live_mut() {
            live.shrink();
        }
        self.channels.shrink();
        self.pushes.give_back();
    }

    /// The oldest join took too long: reports it and probes the server. Once for each join, unless a
    /// late caller has restarted its clock.
    fn join_overdue(&mut self, now: Time) {
        let live = self.connection.live_mut();
        let Some(join) = live.and_then(|live| live.join_overdue(now)) else { return };
        let channel = self.channels.get(&join.topic);
        if channel.is_some_and(|channel| channel.is_joining(join.join_ref)) {
            self.signal(Signal::JoinTimedOut { topic: join.topic });
        }
        self.check_overdue_join(now);
    }

    /// A heartbeat written after an overdue join was answered and the join was not: its reply will
    /// never come, nor that of any other join written before that heartbeat.
    pub(super) fn check_overdue_join(&mut self, now: Time) {
        let Some(live) = self.connection.live().filter(|live| live.joins().is_overdue()) else {
            return;
        };
        let Some(answered) = live.heartbeat.last_answered() else { return };
        while let Some(join) =
            self.connection.live_mut().and_then(|live| live.take_lost_join(answered, now))
        {
            self.join_unanswered(now, &join.topic, join.join_ref);
        }
    }
}
