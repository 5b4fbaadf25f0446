//! Checks of the connection: heartbeats, and the delays between attempts.

use core::time::Duration;

use crate::config::CloseRule;
use crate::event::cause::Cause;
use crate::socket::fixpoint::checks::{Checks, SOON};
use crate::socket::fixpoint::form::Form;
use crate::socket::fixpoint::world::{
    FIRST_RETRY, REFUSED_AFTER, RESTART, RESTART_AFTER, Sent, TOPICS, World, secs,
};
use crate::time::Time;

/// The history that determines the delays between attempts.
#[derive(Clone, Debug, Default)]
pub(super) struct Retries {
    pub(super) attempts: usize,
    pub(super) skipped: usize,
    pub(super) refusals: usize,
    pub(super) too_large: usize,
    pub(super) opened_at: Option<Time>,
    /// For a connection that the client closed because of the peer, the time for which it was open.
    pub(super) closed_after: Option<Duration>,
    pub(super) failing_since: Option<Time>,
    /// The time of the next attempt, and whether a wake-up may start it earlier.
    pub(super) wait: Option<(Time, bool)>,
    pub(super) woken: bool,
}

impl Checks {
    /// Called when the driver polled a heartbeat.
    pub(super) fn heartbeat_written(&mut self, sent: Sent, world: &World) {
        assert_eq!(sent.join_ref, 0, "{sent:?}");
        let timeout = world.socket.config.heartbeat_timeout;
        if self.beats.is_empty() {
            self.beat_written = world.now;
        } else {
            let over = world.now >= self.beat_written + timeout;
            assert!(over || !self.prompt, "one at a time: {sent:?}");
        }
        self.beats.push(sent.msg_ref);
    }

    /// While a join is overdue, a heartbeat is unanswered, or must be written when the link takes frames.
    /// The answer to a heartbeat that was written after the join proves that the reply to the join is lost.
    pub(super) fn check_probe(&self, world: &World) {
        let live = world.socket.connection.live();
        let is_overdue = live.is_some_and(|live| live.joins().is_overdue());
        let is_probed = self.owed || !self.beats.is_empty();
        assert!(!is_overdue || is_probed, "no probe behind the join: {:?}", self.unanswered);
    }

    pub(super) fn disconnected(&mut self, cause: &Cause, world: &World) {
        if let Some(last) = self.last_join.take() {
            let by_peer = matches!(cause, Cause::RemoteClose { .. });
            let is_cut = by_peer && world.now.since(last) <= SOON;
            self.cuts = if is_cut { self.cuts + 1 } else { 0 };
        }
        if let Cause::JoinStalled { topic } = cause {
            let at = self.order.iter().position(|it| *TOPICS[usize::from(*it)] == **topic);
            if let Some(at) = at {
                let stalled = self.order.remove(at);
                self.order.push(stalled);
            }
        }
        if matches!(cause, Cause::HeartbeatTimeout) {
            assert!(!self.beats.is_empty() || self.owed, "every heartbeat was answered");
            assert!(self.unanswered.is_empty(), "the server runs a join: {:?}", self.unanswered);
            let timeout = world.socket.config.heartbeat_timeout;
            let fair = self.blocked.is_none_or(|at| world.now >= at + timeout);
            assert!(fair, "no time to answer after the last join: {:?}", self.blocked);
        }
        self.offline();
    }

    pub(super) fn offline(&mut self) {
        self.paced = false;
        self.instances.clear();
        self.unanswered.clear();
        self.blocked = None;
        self.beats.clear();
        for seen in &mut self.topics {
            (seen.newest, seen.leave, seen.until, seen.since) = (None, None, None, None);
        }
    }

    pub(super) fn dialled(&mut self, world: &World) {
        let retries = &mut self.retries;
        let woken = core::mem::take(&mut retries.woken);
        if let Some((until, may_skip)) = retries.wait.take() {
            let excused = woken && may_skip;
            assert!(world.now >= until || excused, "dialled before {until}");
        }
    }

    /// Checks the delay before an attempt, which the history determines.
    pub(super) fn reconnects(&mut self, delay: Duration, cause: &Cause, world: &World) {
        let (retries, config, now) = (&mut self.retries, &world.socket.config, world.now);
        let open_for = retries.closed_after.take();
        let open_for = open_for.or(retries.opened_at.take().map(|at| now.since(at)));
        let longest = secs(REFUSED_AFTER[1]);
        let too_large = match (cause, open_for) {
            (Cause::MessageTooLarge { .. }, Some(it)) if it > longest => 1,
            (Cause::MessageTooLarge { .. }, _) => retries.too_large + 1,
            (_, Some(_)) => 0,
            (_, None) => retries.too_large,
        };
        if open_for.is_some_and(|it| it >= config.stable_after) {
            let woken = retries.woken;
            *retries = Retries { woken, ..Retries::default() };
        }
        retries.too_large = too_large;
        retries.attempts += 1;
        let steps = world.settings.reconnect_after;
        let step = |nth: usize| steps[nth.clamp(1, steps.len()) - 1];
        let refused = |nth: usize| REFUSED_AFTER[nth.clamp(1, 2) - 1];
        let ordinary = step(retries.attempts + retries.skipped);
        let (expected, may_skip) = match cause {
            Cause::Refused(refusal) if refusal.status() < 500 => {
                retries.refusals += 1;
                (refused(retries.refusals), false)
            }
            Cause::MessageTooLarge { .. } if retries.too_large > 1 => {
                (refused(retries.too_large - 1), false)
            }
            _ if open_for.is_some() => {
                let first = match cause {
                    Cause::RemoteClose { code: Some(RESTART), .. } => RESTART_AFTER,
                    _ => FIRST_RETRY,
                };
                let reaching = (1..=steps.len()).find(|nth| step(*nth) >= first);
                let reaching = reaching.unwrap_or(steps.len());
                let next = retries.attempts + 1;
                retries.skipped = retries.skipped.max(reaching.saturating_sub(next));
                (if retries.attempts > 1 { first.max(ordinary) } else { first }, true)
            }
            _ => (ordinary, true),
        };
        if let Cause::RemoteClose { code, .. } = cause {
            assert_ne!(config.close_policy.rule(*code), CloseRule::Stop, "{cause:?}");
        }
        assert_eq!(delay, secs(expected), "{cause:?}: {retries:?}");
        let since = *retries.failing_since.get_or_insert(now);
        let most = config.max_retries.unwrap_or(u32::MAX) as usize;
        assert!(retries.attempts <= most, "{cause:?}: {retries:?}");
        let elapsed = now.since(since) + delay;
        assert!(config.max_elapsed.is_none_or(|most| elapsed <= most), "{cause:?}: {retries:?}");
        retries.wait = Some((now + delay, may_skip));
    }
}

impl Retries {
    pub(super) fn canonical(&self, form: &mut Form<'_>) {
        let Self {
            attempts,
            skipped,
            refusals,
            too_large,
            opened_at,
            closed_after,
            failing_since,
            wait,
            woken,
        } = self;
        let config = form.config;
        let most = config.max_retries.unwrap_or(1);
        form.attempts(*attempts as u32, &config.reconnect_after, most);
        form.attempts(*skipped as u32, &config.reconnect_after, 0);
        form.attempts(*refusals as u32, &config.refused_after, 0);
        form.attempts(*too_large as u32, &config.refused_after, 2);
        let longest = form.longest_open();
        form.option(*opened_at, |form, at| form.time(at, longest));
        form.option(*closed_after, |form, open_for| form.duration(open_for, longest));
        let limit = config.max_elapsed;
        let failing_since = failing_since.filter(|_| limit.is_some());
        form.option(failing_since, |form, at| form.time(at, limit.unwrap_or_default()));
        form.option(*wait, |form, (until, may_skip)| {
            form.time(until, Duration::ZERO);
            form.flag(may_skip);
        });
        form.flag(*woken);
    }
}
