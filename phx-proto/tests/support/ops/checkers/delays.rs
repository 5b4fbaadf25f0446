//! Invariants of delays: each is in the range of the policy, and the socket waits for its end.

use std::collections::BTreeMap;
use std::time::Duration;

use phx_proto::config::{Backoff, DelayRange};
use phx_proto::event::RejoinCause;
use phx_proto::{Action, Cause, Signal, Status, Time};

use super::{Checker, Moment};
use crate::ops::peer::Sent;
use crate::ops::setup::Policy;
use crate::ops::world::Called;

/// Every `ReconnectAfter` fits the history of the connection. The dial happens at the end of the
/// delay, or earlier only for a reason. Giving up has a reason too.
#[derive(Clone, Debug, Default)]
pub struct Reconnects {
    attempts: u32,
    /// The number of steps skipped since an open connection was lost.
    skipped: u32,
    refusals: u32,
    unauthorized: bool,
    /// Whether the credentials were replaced since the present attempt began, or was dialled if that was
    /// reported.
    replaced: bool,
    /// The number of connections in a row that ended because of a message that was too large.
    too_large: u32,
    /// Whether a connection was ever open.
    ever_open: bool,
    gone_since: Option<Time>,
    failing_since: Option<Time>,
    opened_at: Option<Time>,
    /// How long the connection was open when its close handshake started.
    closed_after: Option<Duration>,
    ended: bool,
    waiting: Option<Wait>,
    /// Whether there was a wake-up since the last attempt began. It ends an ordinary wait early.
    woken: bool,
    now_asked: bool,
}

#[derive(Clone, Debug)]
struct Wait {
    until: Time,
    ordinary: bool,
}

impl Reconnects {
    fn reset(&mut self) {
        (self.attempts, self.skipped, self.refusals, self.unauthorized) = (0, 0, 0, false);
        (self.failing_since, self.gone_since) = (None, None);
    }

    /// Records a failure or a loss. The counts start over after a stable connection. Returns whether
    /// a connection was open.
    fn lost(&mut self, cause: &Cause, at: &Moment<'_>) -> bool {
        let since = |opened: Time| at.now.since(opened);
        let open_for = self.closed_after.take().or(self.opened_at.take().map(since));
        if open_for.is_some_and(|open_for| open_for >= at.policy.stable_after) {
            self.reset();
        }
        let longest = at.policy.refused.longest().max();
        match cause {
            Cause::MessageTooLarge { .. } if open_for.is_some_and(|it| it > longest) => {
                self.too_large = 1;
            }
            Cause::MessageTooLarge { .. } => self.too_large += 1,
            _ if open_for.is_some() => self.too_large = 0,
            _ => {}
        }
        self.failing_since.get_or_insert(at.now);
        open_for.is_some() || matches!(cause, Cause::RemoteClose { .. })
    }

    /// The range of the next delay without `Retry-After`, and whether a wake-up can end the wait
    /// early. `None` if the cause is final.
    fn range(
        &mut self,
        cause: &Cause,
        attempt: u32,
        was_open: bool,
        at: &Moment<'_>,
    ) -> Option<(DelayRange, bool)> {
        let policy: &Policy = at.policy;
        let ordinary = policy.reconnect.range(attempt + self.skipped);
        let mut refused = || {
            self.refusals += 1;
            Some((policy.refused.range(self.refusals), false))
        };
        match cause {
            Cause::CredentialsGaveUp { .. } | Cause::CredentialsUnchanged => None,
            Cause::Refused(refusal) => match refusal.status() {
                408 | 425 | 429 | 500.. => Some((ordinary, true)),
                401 if !at.setup.credentials_refreshed && !self.replaced => None,
                401 if self.unauthorized => refused(),
                401 => {
                    self.unauthorized = true;
                    Some((ordinary, true))
                }
                404 if self.ever_open => {
                    let first = *self.gone_since.get_or_insert(at.now);
                    if at.now.since(first) < Duration::from_secs(120) {
                        Some((ordinary, true))
                    } else {
                        refused()
                    }
                }
                _ => refused(),
            },
            Cause::MessageTooLarge { .. } if self.too_large > 1 => {
                Some((policy.refused.range(self.too_large - 1), false))
            }
            _ if was_open => {
                let first = match cause {
                    Cause::RemoteClose { code: Some(1008), .. } => return None,
                    Cause::RemoteClose { code: Some(1000 | 1001 | 1012 | 1013), .. } => {
                        policy.close_soon
                    }
                    _ => policy.first_retry,
                };
                let next = first_not_shorter(&policy.reconnect, first.max());
                self.skipped = self.skipped.max(next.saturating_sub(attempt + 1));
                if attempt == 1 {
                    return Some((first, true));
                }
                let (min, max) = (first.min().max(ordinary.min()), first.max().max(ordinary.max()));
                Some((DelayRange::new(min, max).expect("a range"), true))
            }
            _ => Some((ordinary, true)),
        }
    }
}

/// The delay that the server asked for, unless the header is ignored.
fn asked(cause: &Cause, at: &Moment<'_>) -> Option<Duration> {
    match cause {
        Cause::Refused(refusal) if !at.setup.retry_after_ignored => refusal.retry_after(),
        _ => None,
    }
}

/// The first attempt at which the schedule has at least this delay, or has stopped growing.
fn first_not_shorter(schedule: &Backoff, delay: Duration) -> u32 {
    const LAST: u32 = 64;
    let same = |attempt: u32| schedule.range(attempt) == schedule.range(LAST);
    (1..=LAST)
        .find(|attempt| schedule.range(*attempt).max() >= delay || (*attempt..LAST).all(same))
        .unwrap_or(LAST)
}

impl Checker for Reconnects {
    fn called(&mut self, called: &Called, at: &Moment<'_>) {
        self.now_asked = matches!(called, Called::ConnectNow { taken: true } | Called::Connect);
        self.woken |= *called == Called::Wake && at.socket.status() != Status::Open;
        match called {
            Called::Connect if self.ended => {
                self.reset();
                self.too_large = 0;
                self.ended = false;
            }
            Called::ConnectNow { taken: true } if at.socket.status() != Status::Open => {
                self.reset();
                self.too_large = 0;
            }
            Called::Disconnect => {
                self.ended = true;
                (self.opened_at, self.closed_after, self.waiting) = (None, None, None);
            }
            Called::Opened { stale: false, .. } => {
                self.opened_at = Some(at.now);
                (self.refusals, self.unauthorized) = (0, false);
                (self.ever_open, self.gone_since) = (true, None);
            }
            Called::Dialled { stale: false, .. } => self.replaced = false,
            Called::SetCredentials => {
                self.replaced = matches!(at.socket.status(), Status::Connecting { .. });
            }
            _ => {}
        }
    }

    fn decided(&mut self, action: &Action, at: &Moment<'_>) {
        match action {
            Action::Close { .. } => {
                self.closed_after = self.opened_at.take().map(|opened| at.now.since(opened));
            }
            Action::ReconnectAfter { delay, attempt, cause } => {
                assert!(!self.ended, "after disconnect: {action:?}");
                let was_open = self.lost(cause, at);
                self.attempts += 1;
                assert_eq!(*attempt, self.attempts, "{action:?}");
                let Some((range, ordinary)) = self.range(cause, *attempt, was_open, at) else {
                    panic!("final: {action:?}");
                };
                let asked = asked(cause, at);
                let most = at.policy.retry_after_max;
                let range = asked.map_or(range, |asked| {
                    let asked = asked.min(most);
                    let (min, max) = (range.min().max(asked), range.max().max(asked));
                    DelayRange::new(min, max + max / 5).expect("a range")
                });
                assert!(range.contains(*delay), "{action:?} is not within {range:?}");
                assert!(at.setup.max_retries.is_none_or(|max| *attempt <= max), "{action:?}");
                let failing =
                    self.failing_since.map_or(Duration::ZERO, |since| at.now.since(since));
                assert!(
                    at.setup.max_elapsed.is_none_or(|max| failing + *delay <= max),
                    "{action:?}"
                );
                let until = at.now + *delay;
                self.waiting = Some(Wait { until, ordinary: ordinary && asked.is_none() });
            }
            Action::Connect { id, attempt } => {
                self.replaced = false;
                let woken = std::mem::take(&mut self.woken);
                if let Some(wait) = self.waiting.take() {
                    let early = at.now < wait.until;
                    let excused = self.now_asked || (woken && wait.ordinary);
                    assert!(!early || excused, "{id:?} is dialled before {}", wait.until);
                }
                assert_eq!(*attempt, self.attempts, "{action:?}");
            }
            Action::Signal(Signal::GaveUp { cause }) => {
                let was_open = self.lost(cause, at);
                let attempt = self.attempts + 1;
                let longest = asked(cause, at).map(|asked| asked * 2);
                let spent = at.setup.max_retries.is_some_and(|max| attempt > max);
                let range = self.range(cause, attempt, was_open, at);
                let justified = spent
                    || range.is_none_or(|(range, _)| {
                        let delay = range.max().max(longest.unwrap_or_default()) * 2;
                        let failing = at.now.since(self.failing_since.unwrap_or(at.now));
                        at.setup.max_elapsed.is_some_and(|max| failing + delay > max)
                    });
                assert!(justified, "no reason to give up: {action:?} {self:?}");
                self.ended = true;
                self.waiting = None;
            }
            _ => {}
        }
    }
}

/// Every `RejoinAfter` fits the history of its channel. While the connection lasts, the join is not
/// written before the end of the delay.
#[derive(Clone, Debug, Default)]
pub struct Rejoins {
    topics: BTreeMap<String, History>,
}

#[derive(Clone, Debug, Default)]
struct History {
    joins: u32,
    rejoins: u32,
    rejections: u32,
    joined_at: Option<Time>,
    until: Option<Time>,
    too_many: bool,
}

impl Checker for Rejoins {
    fn decided(&mut self, action: &Action, at: &Moment<'_>) {
        match action {
            Action::RejoinAfter { topic, delay, attempt, cause } => {
                let history = self.topics.entry(topic.to_string()).or_default();
                let range = if matches!(cause, RejoinCause::Rejected(_)) {
                    assert!(history.rejections <= at.policy.rejections_max, "{action:?}");
                    let longest = at.policy.rejected.range(u32::MAX);
                    if history.too_many {
                        longest
                    } else {
                        at.policy.rejected.range(history.rejections)
                    }
                } else {
                    history.rejoins += 1;
                    at.policy.rejoin.range(history.rejoins)
                };
                assert!(range.contains(*delay), "{action:?} is not within {range:?}");
                assert_eq!(*attempt, history.joins + 1, "{action:?}");
                history.until = Some(at.now + *delay);
            }
            Action::Signal(Signal::Joined { topic, .. } | Signal::Resumed { topic, .. }) => {
                let history = self.topics.entry(topic.to_string()).or_default();
                (history.joined_at, history.rejections) = (Some(at.now), 0);
            }
            Action::Signal(Signal::Interrupted { topic, .. }) => {
                let history = self.topics.entry(topic.to_string()).or_default();
                let since = history.joined_at.take().expect("joined");
                if at.now.since(since) >= at.policy.stable_after {
                    history.rejoins = 0;
                }
            }
            Action::Signal(Signal::JoinRejected { topic, rejection, .. }) => {
                if rejection.kind == phx_proto::event::RejectionKind::JoinCrashed {
                    return;
                }
                let history = self.topics.entry(topic.to_string()).or_default();
                history.rejections += 1;
                history.too_many =
                    rejection.kind == phx_proto::event::RejectionKind::TooManyChannels;
            }
            Action::Signal(Signal::ChannelClosed { topic, .. }) => {
                self.topics.remove(topic.as_str());
            }
            // On a new connection, every wanted topic is joined without a delay.
            Action::Signal(Signal::ConnectFailed { .. } | Signal::Disconnected { .. }) => {
                self.topics.values_mut().for_each(|history| history.until = None);
            }
            _ => {}
        }
    }

    fn written(&mut self, sent: &Sent, at: &Moment<'_>) {
        if sent.is_join() {
            let history = self.topics.entry(sent.topic.clone()).or_default();
            let until = history.until.take();
            assert!(until.is_none_or(|until| until <= at.now), "too early: {sent:?} {until:?}");
            history.joins += 1;
        }
    }
}
