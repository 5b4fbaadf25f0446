//! Which deadline has passed, and what a clock jump means.
//!
//! Only `handle_timeout` expires anything, so a driver that is late is late and nothing else. A
//! deadline overshot by more than [`JUMP`] means that the machine slept: the peer may well be
//! alive and its answers in the buffers, so it is probed before it is declared dead.

use core::time::Duration;
use std::collections::VecDeque;

use super::Socket;
use super::connection::Phase;
use crate::event::action::Action;
use crate::event::cause::{Cause, LeaveOutcome, RejoinCause};
use crate::event::signal::Signal;
use crate::socket::channel::State;
use crate::socket::push::Push;
use crate::socket::timer::{JUMP, Timeout, TimerKey, TimerKind};
use crate::time::Time;

/// How often a wake-up may have an effect.
const WAKE_INTERVAL: Duration = Duration::from_secs(1);

impl Socket {
    /// Expires every deadline that has passed by `now`.
    ///
    /// A call that comes more than 5 s after the earliest deadline counts as a
    /// [wake-up](Self::handle_wake) too.
    pub fn handle_timeout(&mut self, now: Time) {
        let now = self.advance(now);
        let Some(next) = self.next_deadline().filter(|next| next.at <= now) else { return };
        if now.since(next.at) > JUMP {
            self.wake(now);
        }
        // One pass over what has passed already: with delays of zero configured, what this
        // arms would otherwise be due again and again.
        let overdue = self.pushes.overdue(now).into_iter();
        let pushes = overdue.map(|(at, id)| (at, TimerKey::Push(id)));
        let mut passed: Vec<(Time, TimerKey)> = self.timers.expired(now).chain(pushes).collect();
        passed.sort_unstable();
        for (_, key) in passed {
            if matches!(key, TimerKey::Push(_)) || self.timers.take_expired(&key, now) {
                self.expire(now, key);
            }
        }
    }

    /// The earliest deadline of all.
    pub(super) fn next_deadline(&self) -> Option<Timeout> {
        let push = self.pushes.next_deadline();
        match (self.timers.next(), push) {
            (Some(timer), Some(at)) if at < timer.at => Some(Timeout { at, kind: TimerKind::Push }),
            (None, Some(at)) => Some(Timeout { at, kind: TimerKind::Push }),
            (timer, _) => timer,
        }
    }

    /// The network changed, or the machine woke up: try now what was waiting.
    ///
    /// Waiting: skips an ordinary wait, never one that the server asked for. Open: probes the
    /// peer. Has an effect at most once a second.
    pub fn handle_wake(&mut self, now: Time) {
        let now = self.advance(now);
        self.wake(now);
    }

    fn wake(&mut self, now: Time) {
        if self.last_wake.is_some_and(|last| now.since(last) < WAKE_INTERVAL) {
            return;
        }
        self.last_wake = Some(now);
        match &self.phase {
            Phase::Waiting { may_skip: true, .. } => self.dial_again(now),
            Phase::Open { .. } => {
                if let Some(live) = &mut self.live {
                    live.heartbeat.wake(now);
                    live.joins.wake(now);
                    if !live.writable && self.config.heartbeat_interval.is_zero() {
                        // The probe has a deadline of its own, so this is not put off for ever.
                        let at = now + self.config.write_stall_timeout;
                        self.timers.arm(TimerKey::WriteStall, at);
                    }
                }
                self.rearm_join_clock();
            }
            _ => {}
        }
    }

    fn expire(&mut self, now: Time, key: TimerKey) {
        match key {
            TimerKey::Connect => {
                if let Phase::Connecting { id, .. } = self.phase {
                    self.actions.push_back(Action::Abort { id });
                    self.attempt_failed(now, id, Cause::ConnectTimeout);
                }
            }
            TimerKey::Reconnect => self.dial_again(now),
            TimerKey::Close => {
                if let Phase::Closing { id, .. } = self.phase {
                    self.actions.push_back(Action::Abort { id });
                    self.close_finished(now);
                }
            }
            TimerKey::HeartbeatDue => {
                if let Some(live) = &mut self.live {
                    live.heartbeat.fall_due(now);
                }
                self.give_back();
                self.rearm_heartbeat();
            }
            TimerKey::HeartbeatReply => self.abort_connection(now, Cause::HeartbeatTimeout),
            TimerKey::WriteStall => {
                // A server that runs a join does not read; the join clock decides, and the time
                // begins again when no join is unanswered.
                if self.live.as_ref().is_some_and(|live| live.joins.is_empty()) {
                    self.abort_connection(now, Cause::WriteStalled);
                }
            }
            TimerKey::JoinClock => self.join_overdue(now),
            TimerKey::JoinBlock => {
                let stalled = self.live.as_ref().and_then(|live| live.joins.oldest()).cloned();
                if let Some(join) = stalled {
                    self.abort_connection(now, Cause::JoinStalled { topic: join.topic });
                }
            }
            // Time has passed, which is all that the next join waits for.
            TimerKey::JoinPace => {}
            TimerKey::Rejoin(topic) => self.rejoin_due(&topic),
            TimerKey::Leave(topic) => self.leave_ended(&topic, LeaveOutcome::TimedOut),
            TimerKey::Push(id) => {
                if let Some(place) = self.pushes.place(id) {
                    self.end_push(place, Push::outcome_at_timeout);
                }
            }
        }
    }

    /// A connection that has become idle keeps no room for what a busy one had.
    fn give_back(&mut self) {
        if self.actions.is_empty() {
            self.actions = VecDeque::new();
        }
        if let Some(live) = &mut self.live {
            live.lane.give_back();
        }
        self.pushes.give_back();
    }

    /// The oldest join took too long: report it and probe the server, once.
    fn join_overdue(&mut self, now: Time) {
        let Some(live) = &mut self.live else { return };
        let Some(join) = live.joins.oldest().cloned() else { return };
        live.joins.expire();
        live.heartbeat.probe_after(join.join_ref, now);
        let joining = self.wanted(&join.topic).is_some_and(
            |want| matches!(want.state, State::Joining { join_ref } if join_ref == join.join_ref),
        );
        if joining {
            self.signal(Signal::JoinTimedOut { topic: join.topic });
        }
        self.rearm_join_clock();
        self.check_overdue_join(now);
    }

    /// A heartbeat written after an overdue join was answered and the join was not: its reply will
    /// never come, nor that of any other join written before that heartbeat.
    pub(super) fn check_overdue_join(&mut self, now: Time) {
        let Some(live) = self.live.as_mut().filter(|live| live.joins.is_overdue()) else { return };
        let Some(answered) = live.heartbeat.last_answered() else { return };
        let lost = live.joins.take_lost(answered, now);
        if lost.is_empty() {
            return;
        }
        self.rearm_join_clock();
        for join in lost {
            let joining = self.wanted(&join.topic).is_some_and(
                |want| matches!(want.state, State::Joining { join_ref } if join_ref == join.join_ref),
            );
            if joining {
                if let Some(want) = self.wanted_mut(&join.topic) {
                    // The reply was lost; the channel may well be there.
                    want.surviving = Some(join.join_ref);
                }
                self.rejoin_later(now, &join.topic, RejoinCause::JoinUnanswered);
            }
        }
    }
}
