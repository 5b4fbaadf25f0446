//! Which deadline has passed, and what lateness and wake-ups mean.
//!
//! Only `handle_timeout` expires anything. Three things look alike and are told apart:
//!
//! | what | seen by | what follows |
//! | --- | --- | --- |
//! | lateness: a stopped process, a starved runtime | a deadline passed more than [`JUMP`] ago | the peer may be alive and its answers in the buffers, so it is probed, and deadlines of answers are extended once. A wait for the next attempt stays: a starved process must keep its backoff |
//! | a wake-up: resume, another network | `handle_wake` | the same, and an ordinary wait for the next attempt is skipped |
//! | a slow link | bytes moved | deadlines of answers are extended ([`progress`](crate::socket::progress)) |

use core::time::Duration;
use std::collections::VecDeque;

use super::Socket;
use super::connection::{AfterClose, Phase};
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
    /// Report [progress](Self::handle_progress) before it. A call that comes more than 5 s after the
    /// earliest deadline is taken for a stopped process: the peer is probed, and the deadlines of a
    /// heartbeat and of a join are extended once.
    pub fn handle_timeout(&mut self, now: Time) {
        let now = self.advance(now);
        let Some(next) = self.next_deadline().filter(|next| next.at <= now) else { return };
        if now.since(next.at) > JUMP {
            self.forgive(now);
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
    /// Waiting: skips an ordinary wait, never one that the server asked for. Connecting: the same, if
    /// the attempt fails. Open: probes the peer. Has an effect at most once a second; a wait is
    /// then shortened to that second.
    pub fn handle_wake(&mut self, now: Time) {
        let now = self.advance(now);
        match &self.phase {
            Phase::Connecting { .. } | Phase::Closing { then: AfterClose::Retry { .. }, .. } => {
                self.woken = true;
            }
            Phase::Waiting { may_skip: true, .. } => self.skip_wait(now),
            Phase::Open { .. } if self.may_wake_at() <= now => {
                self.last_wake = Some(now);
                self.forgive(now);
            }
            _ => {}
        }
    }

    /// When a wake-up may have an effect again.
    fn may_wake_at(&self) -> Time {
        self.last_wake.map_or(Time::ZERO, |last| last + WAKE_INTERVAL)
    }

    /// Dials now instead of waiting, or when a second has passed since the last wake-up.
    pub(super) fn skip_wait(&mut self, now: Time) {
        let at = self.may_wake_at().max(now);
        let Phase::Waiting { until, .. } = &mut self.phase else { return };
        if *until <= at {
            return;
        }
        *until = at;
        self.last_wake = Some(at);
        if at > now {
            self.timers.arm(TimerKey::Reconnect, at);
        } else {
            self.dial_again(now);
        }
    }

    /// Probes an open connection, and restarts the time for its answers, once.
    fn forgive(&mut self, now: Time) {
        let Some(live) = &mut self.live else { return };
        live.heartbeat.forgive(now, &live.ledger);
        live.joins.forgive(now, &live.ledger);
        if let Some((since, written)) = &mut live.stalled {
            // The probe has a deadline of its own, so this is not put off for ever.
            (*since, *written) = (now, live.ledger.written());
        }
        self.rearm_write_stall();
        self.rearm_join_clock();
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
                    live.heartbeat.fall_due(now, &live.ledger);
                }
                self.give_back();
                self.rearm_heartbeat();
            }
            TimerKey::HeartbeatReply => self.abort_connection(now, Cause::HeartbeatTimeout),
            TimerKey::WriteStall => self.abort_connection(now, Cause::WriteStalled),
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
        live.heartbeat.probe_after(join.join_ref, now, &live.ledger);
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
        let lost = live.joins.take_lost(answered, now, &live.ledger);
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
