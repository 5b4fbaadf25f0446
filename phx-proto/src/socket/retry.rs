//! The retry policy: whether to dial again after a lost connection or a failed attempt, and after
//! which delay.
//!
//! ```text
//!   lost or failed ──▶ final by table? ──▶ Stop
//!         │ no
//!         ▼
//!   which wait?  open connection lost ─▶ first_retry_spread, or the close code's range,
//!                                        at least the floor of reconnect_after
//!                refused (403, 404, …) ─▶ refused_after, own counter; a 404 where a connection
//!                                        was open before: as anything else, for 2 min
//!                a message too large, and the last connection ended by one too ─▶ refused_after,
//!                                        own counter
//!                anything else ─────────▶ reconnect_after; once an open connection was lost,
//!                                        without the steps shorter than the spread
//!         │ Retry-After: max(wait, it) + 0–20 %
//!         ▼
//!   over max_retries or past max_elapsed? ──▶ Stop
//!         │ no
//!         ▼
//!   Retry { delay, attempt, may_skip }
//! ```
//!
//! A loss resets the attempt counter only if the connection had been open for `stable_after`, so a
//! server that accepts and drops connections is not flooded with attempts. Each delay takes one
//! random draw.
//!
//! During a deploy, a router that has no server answers 404. If a connection to the address was
//! open before, the path is right, so for the first two minutes a 404 counts as a deploy.
//!
//! A message that is too large is often the reply to a join, so the server sends it again after
//! each reconnect, at a cost of up to `max_message_bytes` of traffic. So the waits grow with the
//! number of such losses in a row. Over a slow link, receiving the message can take longer than
//! `stable_after`, so that time does not reset the count. A loss for another reason resets it, and
//! so does a connection that was open for longer than the longest of these waits.
//!
//! The short steps of `reconnect_after` are for a client that starts before its server. When a
//! client loses an open connection, many other clients often lose theirs at the same time. Their
//! first retries are spread over `first_retry_spread`. If each client then made six more attempts
//! within half a second, the load peak would return (`examples/storm`). So the short steps are skipped
//! after such a loss.

use core::time::Duration;

use crate::config::backoff::DelayRange;
use crate::config::{CloseRule, Config, StatusRule};
use crate::event::cause::Cause;
use crate::event::refusal::Refusal;
use crate::socket::rng::{Rng, spread};
use crate::time::{Time, nanos};

/// The time for which a 404 counts as a deploy, at an address where a connection was open before.
const DEPLOY: Duration = Duration::from_secs(120);

/// The decision after a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    Retry { delay: Duration, attempt: u32, may_skip: bool },
    Stop,
}

/// The counters behind the decisions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Retry {
    /// The number of retries since the last stable connection.
    attempts: u32,
    /// The number of steps of `reconnect_after` to skip because an open connection was lost.
    skipped: u32,
    /// The number of refusals in a row.
    refusals: u32,
    /// Whether the present credentials were refused with 401 or 403 by the last attempt.
    credentials_refused: bool,
    /// Whether the credentials were replaced while the present attempt was in progress, after it was
    /// dialled if the driver reports that. A refusal of that attempt may concern the earlier ones.
    credentials_replaced: bool,
    /// Whether a 401 was already retried once after an ordinary delay.
    unauthorized: bool,
    /// The number of connections in a row that ended with a message that is too large.
    too_large: u32,
    /// The time of the first 404 since the last accepted attempt, at an address where a connection
    /// was open before.
    gone_since: Option<Time>,
    failing_since: Option<Time>,
}

impl Retry {
    /// Resets the counters of refusals, because the server accepted an attempt.
    pub(crate) const fn opened(&mut self) {
        self.refusals = 0;
        self.unauthorized = false;
        self.gone_since = None;
        self.credentials_refused = false;
    }

    pub(crate) const fn credentials_refused(&self) -> bool {
        self.credentials_refused
    }

    /// Called when an attempt begins, and when the driver dials it.
    pub(crate) const fn dialled(&mut self) {
        self.credentials_replaced = false;
    }

    /// Called when the application replaces the credentials. The server has not refused the new ones yet.
    pub(crate) const fn replace_credentials(&mut self, is_dialling: bool) {
        self.credentials_refused = false;
        self.credentials_replaced = is_dialling;
    }

    /// Decides after a failed attempt (`open_for` is `None`) or a lost connection. With `known`, a
    /// connection to this address was open before.
    pub(crate) fn decide(
        &mut self,
        config: &Config,
        rng: &mut Rng,
        now: Time,
        cause: &Cause,
        open_for: Option<Duration>,
        known: bool,
    ) -> Decision {
        let too_large = self.count_too_large(config, cause, open_for);
        if open_for.is_some_and(|open_for| open_for >= config.stable_after) {
            *self = Self::default();
        }
        self.too_large = too_large;
        let failing_since = *self.failing_since.get_or_insert(now);
        let refusal = match cause {
            Cause::Refused(refusal) => Some(refusal),
            _ => None,
        };
        let is_deploy = known && refusal.is_some_and(|refusal| refusal.status() == 404) && {
            let first = *self.gone_since.get_or_insert(now);
            now.since(first) < DEPLOY
        };
        self.credentials_refused = !self.credentials_replaced
            && refusal.is_some_and(|refusal| matches!(refusal.status(), 401 | 403));

        let attempt = self.attempts.saturating_add(1);
        // A close frame proves that there was a connection, even if its opening was not reported.
        let was_open = open_for.is_some() || matches!(cause, Cause::RemoteClose { .. });
        let Some((range, ordinary)) = self.range(config, cause, attempt, was_open, is_deploy)
        else {
            return Decision::Stop;
        };
        let random = rng.next_u64();
        let mut delay = spread(range, random);
        let heeded = !config.retry_after_max.is_zero();
        let retry_after = refusal.filter(|_| heeded).and_then(Refusal::retry_after);
        if let Some(retry_after) = retry_after {
            // Protocol: CONN-15.
            let asked = retry_after.min(config.retry_after_max).max(delay);
            // Adds up to a fifth, so that clients with the same `Retry-After` do not retry at the
            // same time.
            let most = Duration::from_nanos(nanos(asked).saturating_add(nanos(asked) / 5));
            delay = spread(DelayRange::new(asked, most).unwrap_or(range), random);
        }

        let elapsed = now.since(failing_since).saturating_add(delay);
        if config.max_retries.is_some_and(|max| attempt > max)
            || config.max_elapsed.is_some_and(|max| elapsed > max || max.is_zero())
        {
            return Decision::Stop;
        }
        self.attempts = attempt;
        Decision::Retry { delay, attempt, may_skip: ordinary && retry_after.is_none() }
    }

    /// The range of the delay, and whether it is an ordinary wait; `None` when the cause is final.
    fn range(
        &mut self,
        config: &Config,
        cause: &Cause,
        attempt: u32,
        was_open: bool,
        is_deploy: bool,
    ) -> Option<(DelayRange, bool)> {
        let ordinary = config.reconnect_after.range(attempt.saturating_add(self.skipped));
        match cause {
            Cause::CredentialsGaveUp { .. }
            | Cause::CredentialsUnchanged
            | Cause::Unsupported { .. } => None,
            // With 5xx the proxy reports that it cannot reach the server. With any other status it
            // refuses this client, and a retry will probably not change that.
            Cause::ProxyRefused(refusal) if refusal.status() < 500 => {
                Some((self.refused(config), false))
            }
            Cause::SocksRefused(_) => Some((self.refused(config), false)),
            Cause::Refused(refusal) => match config.status_policy.rule(refusal.status()) {
                StatusRule::Backoff => Some((ordinary, true)),
                StatusRule::Refused if is_deploy => Some((ordinary, true)),
                StatusRule::Refused => Some((self.refused(config), false)),
                StatusRule::Stop => None,
                StatusRule::Unauthorized
                    if !config.credentials_refreshed && !self.credentials_replaced =>
                {
                    None
                }
                StatusRule::Unauthorized if self.unauthorized => {
                    Some((self.refused(config), false))
                }
                StatusRule::Unauthorized => {
                    self.unauthorized = true;
                    Some((ordinary, true))
                }
            },
            Cause::MessageTooLarge { .. } if self.too_large > 1 => {
                Some((config.refused_after.range(self.too_large - 1), false))
            }
            // Protocol: RETRY-5.
            _ if was_open => {
                let first = match cause {
                    Cause::RemoteClose { code, .. } => match config.close_policy.rule(*code) {
                        CloseRule::Retry => config.first_retry_spread,
                        CloseRule::RetryWithin(range) => range,
                        CloseRule::Stop => return None,
                    },
                    _ => config.first_retry_spread,
                };
                let first = first.at_least(config.reconnect_after.least());
                let reaching = config.reconnect_after.reaching(first.max());
                self.skipped = self.skipped.max(reaching.saturating_sub(attempt.saturating_add(1)));
                // When connections open and are lost repeatedly, the waits are as long as after
                // failed attempts.
                Some((if attempt > 1 { first.later(ordinary) } else { first }, true))
            }
            _ => Some((ordinary, true)),
        }
    }

    /// The number of connections in a row that ended with a message that is too large, including
    /// this end. Failed attempts between them are ignored.
    fn count_too_large(&self, config: &Config, cause: &Cause, open_for: Option<Duration>) -> u32 {
        match (cause, open_for) {
            (Cause::MessageTooLarge { .. }, _) => {
                let longest = config.refused_after.longest().max();
                let starts_over = open_for.is_some_and(|open_for| open_for > longest);
                if starts_over { 1 } else { self.too_large.saturating_add(1) }
            }
            (_, Some(_)) => 0,
            (_, None) => self.too_large,
        }
    }

    fn refused(&mut self, config: &Config) -> DelayRange {
        self.refusals = self.refusals.saturating_add(1);
        config.refused_after.range(self.refusals)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Backoff;
    use crate::event::cause::DialKind;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    /// A configuration with waits of 1, 2 and 4 s after ordinary failures, 4 s after a loss, and
    /// 100 and 200 s after a refusal.
    fn config() -> Config {
        let steps = |msec: &[u64]| Backoff::steps_msec(msec).and_then(|it| it.jitter(0.0)).unwrap();
        let spread = DelayRange::new(secs(4), secs(4)).unwrap();
        let config = Config::new("ws://localhost/").unwrap().first_retry_spread(spread);
        let config = config.reconnect_after(steps(&[1_000, 2_000, 4_000]));
        config.refused_after(steps(&[100_000, 200_000])).stable_after(secs(60))
    }

    struct Bench {
        config: Config,
        retry: Retry,
        rng: Rng,
        now: Time,
        known: bool,
    }

    impl Bench {
        fn new(config: Config) -> Self {
            let (retry, rng) = (Retry::default(), Rng::new(7));
            Self { config, retry, rng, now: Time::from_millis(1), known: false }
        }

        /// Returns the wait in seconds, the number of the attempt, and whether a wake-up may skip
        /// the wait.
        fn after(&mut self, cause: &Cause, open_for: Option<Duration>) -> Option<(u64, u32, bool)> {
            let Self { config, retry, rng, now, known } = self;
            match retry.decide(config, rng, *now, cause, open_for, *known) {
                Decision::Retry { delay, attempt, may_skip } => {
                    Some((delay.as_secs(), attempt, may_skip))
                }
                Decision::Stop => None,
            }
        }

        fn failed(&mut self, cause: &Cause) -> Option<(u64, u32, bool)> {
            self.after(cause, None)
        }

        fn lost(&mut self, open_for: u64) -> Option<(u64, u32, bool)> {
            let cause = Cause::TransportLost { message: "reset".into() };
            self.after(&cause, Some(secs(open_for)))
        }
    }

    fn dial() -> Cause {
        Cause::Dial { kind: DialKind::Refused, message: "no".into() }
    }

    fn refused(status: u16) -> Cause {
        Cause::Refused(Refusal::new(status, Vec::new(), ""))
    }

    #[test]
    fn failed_attempts_wait_longer_each_time() {
        let mut bench = Bench::new(config());
        let waits = [1, 2, 3, 4].map(|_| bench.failed(&dial()).expect("a retry"));
        assert_eq!(waits, [(1, 1, true), (2, 2, true), (4, 3, true), (4, 4, true)]);
    }

    /// After a loss, steps that are shorter than the spread are skipped.
    #[test]
    fn lost_connection_waits_for_the_spread() {
        let mut bench = Bench::new(config());
        assert_eq!(bench.lost(1), Some((4, 1, true)));
        assert_eq!(bench.failed(&dial()), Some((4, 2, true)));
        let close = Cause::RemoteClose { code: None, reason: String::new() };
        assert_eq!(Bench::new(config()).failed(&close), Some((4, 1, true)), "it had been open");
    }

    #[test]
    fn stable_connection_resets_count() {
        let mut bench = Bench::new(config());
        assert_eq!(
            [bench.failed(&dial()), bench.lost(59)],
            [Some((1, 1, true)), Some((4, 2, true))]
        );
        assert_eq!(bench.lost(60), Some((4, 1, true)));
    }

    #[test]
    fn refusals_have_their_own_long_waits() {
        let mut bench = Bench::new(config());
        let waits = [403, 403, 503, 403].map(|status| bench.failed(&refused(status)).unwrap());
        assert_eq!(waits, [(100, 1, false), (200, 2, false), (4, 3, true), (200, 4, false)]);
        assert!(bench.retry.credentials_refused());
        bench.retry.opened();
        assert!(!bench.retry.credentials_refused());
        assert_eq!(bench.failed(&refused(403)), Some((100, 5, false)), "accepted in between");
    }

    /// A router without a server answers 404, which counts as a deploy for two minutes.
    #[test]
    fn status_404_is_deploy_at_known_address() {
        let mut bench = Bench::new(config());
        assert_eq!(
            bench.failed(&refused(404)),
            Some((100, 1, false)),
            "no connection was open there"
        );
        bench.known = true;
        assert_eq!(bench.failed(&refused(404)), Some((2, 2, true)));
        bench.now += DEPLOY;
        assert_eq!(bench.failed(&refused(404)), Some((200, 3, false)));
    }

    #[test]
    fn status_401_is_retried_with_fresh_credentials() {
        let mut bench = Bench::new(config().credentials_refreshed(true));
        assert_eq!(bench.failed(&refused(401)), Some((1, 1, true)));
        assert_eq!(bench.failed(&refused(401)), Some((100, 2, false)));
        assert_eq!(Bench::new(config()).failed(&refused(401)), None);
    }

    #[test]
    fn retry_after_is_waited_for() {
        let mut bench = Bench::new(config());
        let headers = vec![("retry-after".to_owned(), "30".to_owned())];
        let busy = Cause::Refused(Refusal::new(503, headers, ""));
        let (wait, attempt, may_skip) = bench.failed(&busy).expect("a retry");
        assert!((30..=36).contains(&wait), "{wait} s");
        assert_eq!((attempt, may_skip), (1, false));
    }

    #[test]
    fn repeated_message_too_large_waits_long() {
        let large = Cause::MessageTooLarge { limit: 10 };
        let mut bench = Bench::new(config());
        assert_eq!(bench.after(&large, Some(secs(1))), Some((4, 1, true)));
        assert_eq!(bench.failed(&dial()), Some((4, 2, true)), "does not count");
        assert_eq!(bench.after(&large, Some(secs(100))), Some((100, 1, false)));
        assert_eq!(bench.after(&large, Some(secs(200))), Some((200, 1, false)));
        assert_eq!(bench.after(&large, Some(secs(201))), Some((4, 1, true)), "it starts over");
    }

    #[test]
    fn limits_and_final_causes_stop() {
        let mut bench = Bench::new(config().max_retries(Some(2)));
        assert!(bench.failed(&dial()).is_some() && bench.failed(&dial()).is_some());
        assert_eq!(bench.failed(&dial()), None);
        let mut bench = Bench::new(config().max_elapsed(Some(secs(10))));
        assert_eq!(bench.failed(&dial()), Some((1, 1, true)));
        bench.now += secs(8);
        assert_eq!(bench.failed(&dial()), Some((2, 2, true)), "the limit is inclusive");
        assert_eq!(bench.failed(&dial()), None);
        assert_eq!(Bench::new(config()).failed(&Cause::CredentialsUnchanged), None);
    }
}

#[cfg(test)]
mod canonical {
    use super::*;
    use crate::socket::fixpoint::form::Form;

    impl Retry {
        pub(crate) fn canonical(&self, form: &mut Form<'_>) {
            let Self {
                attempts,
                skipped,
                refusals,
                credentials_refused,
                credentials_replaced,
                unauthorized,
                too_large,
                gone_since,
                failing_since,
            } = self;
            let config = form.config;
            // Without `max_retries` the limit is 1, because the delay after a loss depends on
            // whether the next attempt is the first.
            form.attempts(*attempts, &config.reconnect_after, config.max_retries.unwrap_or(1));
            form.attempts(*skipped, &config.reconnect_after, 0);
            form.attempts(*refusals, &config.refused_after, 0);
            form.flag(*credentials_refused);
            form.flag(*credentials_replaced);
            form.flag(*unauthorized);
            form.attempts(*too_large, &config.refused_after, 2);
            form.option(*gone_since, |form, at| form.time(at, DEPLOY));
            let limit = config.max_elapsed;
            let failing_since = failing_since.filter(|_| limit.is_some());
            form.option(failing_since, |form, at| form.time(at, limit.unwrap_or_default()));
        }
    }
}
