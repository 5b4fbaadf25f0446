//! The machine of a push that may be repeated: from the first attempt to one outcome.
//!
//! ```text
//!                                  Reply
//!   new ──▶ attempt ─────────────────────────────────────────────────▶ Reply
//!    │        │  ▲ │ NotSent, Cancelled, never written ───────────────▶ that outcome
//!    │        │  │ │ NotSent, Cancelled, after an earlier attempt ────▶ the earlier TimedOut, Unknown
//!    │        │  │ └ TimedOut, Unknown, and no repeat or no time left ▶ TimedOut, Unknown
//!    │        ▼  │ joined
//!    │      waiting for the join ── the channel ends, deadline ───────▶ the earlier TimedOut, Unknown
//!    │        ▲
//!    │        └ TimedOut, Unknown; NotSent(Interrupted) after an earlier attempt
//!    └ no key: not accepted
//! ```
//!
//! An attempt is a push of its own, with its own [`PushId`](crate::PushId) and its own outcome, so the
//! rule that a written push is never written again is kept. All attempts share one payload, which
//! never changes; it was checked once for its key. So no attempt lacks the key or has another one.
//!
//! A repeat fails fast: it is accepted only while the channel is joined, and it leaves the queue when
//! the channel is interrupted. It then waits outside of the queue, without a timeout of its own. Only
//! written attempts count as repeats.

use core::time::Duration;

use crate::config::Options;
use crate::event::cause::{NotSentCause, PushOutcome};
use crate::event::error::{PushError, PushErrorKind};
use crate::event::input::PushOptions;
use crate::event::repeat::{RepeatOptions, check_key};
use crate::time::Time;
use crate::wire::payload::Payload;

/// A push that is pushed again when its outcome is unknown. The async handles use it for
/// `Channel::push_repeating`; a driver of your own can use it with [`Socket::push`](crate::Socket::push).
///
/// Push [`attempt`](Self::attempt), pass its outcome to [`ended`](Self::ended), and after
/// [`AfterAttempt::Again`] push the next attempt when the channel is joined. If that push is not
/// accepted, or the channel ends before, the outcome is [`give_up`](Self::give_up).
///
/// ```
/// use phx_proto::event::{PushOutcome, RepeatOptions, UnknownCause};
/// use phx_proto::socket::{AfterAttempt, Repeat};
/// use phx_proto::{Config, Payload, Time};
/// use serde_json::json;
///
/// let config = Config::new("ws://localhost:4000/socket/websocket")?;
/// let payload = Payload::from(json!({"order_id": "A7", "item": "tea"}));
/// let options = RepeatOptions::keyed_by("order_id").repeats(1);
/// let mut push = Repeat::new(Time::ZERO, payload, &options, &config).expect("it has its key");
/// let lost = || PushOutcome::Unknown(UnknownCause::Disconnected);
/// assert_eq!(push.ended(Time::ZERO, lost()), AfterAttempt::Again);
/// assert_eq!(push.ended(Time::ZERO, lost()), AfterAttempt::Ended(lost()));
/// assert_eq!(push.repeats(), 1);
/// # Ok::<(), phx_proto::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Repeat {
    payload: Payload,
    timeout: Duration,
    repeats_max: u32,
    until: Time,
    /// The number of attempts that were written.
    written: u32,
    /// The outcome of the last attempt that was written and not answered.
    last: Option<PushOutcome>,
}

/// What follows the outcome of an attempt.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum AfterAttempt {
    /// Push again once the channel is joined.
    Again,
    /// The push has ended with this outcome. It is [`NotSent`](PushOutcome::NotSent) only if no
    /// attempt was written.
    Ended(PushOutcome),
}

impl Repeat {
    /// Makes the machine of one push at the time of its call. A [`Config`](crate::Config) derefs to its
    /// options.
    ///
    /// # Errors
    ///
    /// [`PushErrorKind::NoKey`] if the payload is not a JSON object with the idempotency key. The error
    /// returns the payload.
    pub fn new(
        now: Time,
        payload: Payload,
        options: &RepeatOptions,
        config: &Options,
    ) -> Result<Self, PushError> {
        if let Err(error) = check_key(&payload, &options.member) {
            return Err(PushError { kind: PushErrorKind::NoKey(error), payload });
        }
        Ok(Self {
            payload,
            timeout: options.timeout.unwrap_or(config.push_timeout),
            repeats_max: options.repeats,
            until: now + options.deadline,
            written: 0,
            last: None,
        })
    }

    /// The payload and the options of the next attempt. A repeat fails fast, so that it is accepted
    /// only while the channel is joined.
    #[must_use]
    pub fn attempt(&self, now: Time) -> (Payload, PushOptions) {
        let timeout = self.timeout.min(self.until.since(now));
        let options = PushOptions::call().timeout(timeout);
        let options = if self.written > 0 { options.fail_fast() } else { options };
        (self.payload.clone(), options)
    }

    /// Takes the outcome of the attempt.
    pub fn ended(&mut self, now: Time, outcome: PushOutcome) -> AfterAttempt {
        match outcome {
            PushOutcome::TimedOut | PushOutcome::Unknown(_) => {
                self.written = self.written.saturating_add(1);
                self.last = Some(outcome.clone());
                let may_repeat = self.written <= self.repeats_max && now < self.until;
                if may_repeat { AfterAttempt::Again } else { AfterAttempt::Ended(outcome) }
            }
            PushOutcome::NotSent(NotSentCause::Interrupted)
                if self.last.is_some() && now < self.until =>
            {
                AfterAttempt::Again
            }
            PushOutcome::NotSent(_) | PushOutcome::Cancelled => {
                AfterAttempt::Ended(self.last.clone().unwrap_or(outcome))
            }
            PushOutcome::Reply(_) | PushOutcome::Written => {
                self.written = self.written.saturating_add(1);
                AfterAttempt::Ended(outcome)
            }
        }
    }

    /// The outcome if there is no further attempt: that of the last attempt that was written, or
    /// [`Cancelled`](PushOutcome::Cancelled) if none was.
    #[must_use]
    pub fn give_up(&self) -> PushOutcome {
        self.last.clone().unwrap_or(PushOutcome::Cancelled)
    }

    /// The number of repeats that were written.
    #[must_use]
    pub const fn repeats(&self) -> u32 {
        self.written.saturating_sub(1)
    }

    /// The time after which there is no further attempt.
    #[must_use]
    pub const fn until(&self) -> Time {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::config::Config;
    use crate::event::cause::{Reply, UnknownCause};

    const fn secs(secs: u64) -> Time {
        Time::from_millis(secs * 1_000)
    }

    fn config() -> Config {
        let config = Config::new("ws://localhost/").expect("a good URI");
        config.push_timeout(Duration::from_secs(10))
    }

    fn repeat(repeats: u32) -> Repeat {
        let options = RepeatOptions::keyed_by("id").repeats(repeats);
        Repeat::new(secs(0), json!({"id": 7}).into(), &options, &config()).expect("a key")
    }

    fn lost() -> PushOutcome {
        PushOutcome::Unknown(UnknownCause::Disconnected)
    }

    fn reply() -> PushOutcome {
        PushOutcome::Reply(Reply::new("ok", json!({})))
    }

    #[test]
    fn payload_without_key_is_returned() {
        let options = RepeatOptions::keyed_by("id");
        let payload = Payload::from(json!({"n": 1}));
        let error = Repeat::new(secs(0), payload.clone(), &options, &config()).expect_err("no key");
        assert!(matches!(error.kind, PushErrorKind::NoKey(_)), "{error:?}");
        assert_eq!(error.payload, payload);
        assert_eq!(
            error.to_string(),
            "the push cannot be repeated: the payload has no member \"id\""
        );
    }

    /// A push that was never written ends like any other push: it is safe to push again.
    #[test]
    fn unwritten_push_is_not_repeated() {
        for outcome in [
            PushOutcome::NotSent(NotSentCause::TimedOut),
            PushOutcome::NotSent(NotSentCause::Interrupted),
            PushOutcome::Cancelled,
        ] {
            let mut push = repeat(3);
            assert_eq!(push.ended(secs(1), outcome.clone()), AfterAttempt::Ended(outcome));
            assert_eq!(push.repeats(), 0);
        }
    }

    /// The first attempt may have been handled, so a repeat that was not written is not reported as
    /// not sent.
    #[test]
    fn unwritten_repeat_keeps_earlier_outcome() {
        for outcome in [
            PushOutcome::NotSent(NotSentCause::TimedOut),
            PushOutcome::NotSent(NotSentCause::Left),
            PushOutcome::Cancelled,
        ] {
            let mut push = repeat(3);
            assert_eq!(push.ended(secs(1), lost()), AfterAttempt::Again);
            assert_eq!(push.ended(secs(2), outcome), AfterAttempt::Ended(lost()));
            assert_eq!((push.repeats(), push.give_up()), (0, lost()));
        }
    }

    /// A repeat that leaves the queue because the channel was interrupted is pushed again, and does
    /// not count.
    #[test]
    fn interrupted_repeat_does_not_count() {
        let mut push = repeat(1);
        assert_eq!(push.ended(secs(1), PushOutcome::TimedOut), AfterAttempt::Again);
        for second in 2..10 {
            let interrupted = PushOutcome::NotSent(NotSentCause::Interrupted);
            assert_eq!(push.ended(secs(second), interrupted), AfterAttempt::Again);
        }
        assert_eq!(push.ended(secs(10), reply()), AfterAttempt::Ended(reply()));
        assert_eq!(push.repeats(), 1);
    }

    #[test]
    fn deadline_limits_attempts_and_timeouts() {
        let mut push = repeat(100);
        let timeout = |push: &Repeat, second| push.attempt(secs(second)).1.timeout;
        assert_eq!(timeout(&push, 0), Some(Duration::from_secs(10)));
        assert!(!push.attempt(secs(0)).1.fail_fast, "the first attempt waits for the join");
        assert_eq!(push.ended(secs(59), lost()), AfterAttempt::Again);
        assert_eq!(timeout(&push, 59), Some(Duration::from_secs(1)));
        assert!(push.attempt(secs(59)).1.fail_fast);
        assert_eq!(push.ended(secs(60), lost()), AfterAttempt::Ended(lost()));
        let mut push = repeat(100);
        assert_eq!(push.ended(secs(60), lost()), AfterAttempt::Ended(lost()));
        assert_eq!(push.until(), secs(60));
    }

    /// A repeat that is interrupted exactly at the deadline is not pushed again.
    #[test]
    fn interruption_at_deadline_ends_push() {
        let mut push = repeat(100);
        let interrupted = || PushOutcome::NotSent(NotSentCause::Interrupted);
        assert_eq!(push.ended(secs(1), lost()), AfterAttempt::Again);
        assert_eq!(push.ended(secs(59), interrupted()), AfterAttempt::Again);
        assert_eq!(push.ended(secs(60), interrupted()), AfterAttempt::Ended(lost()));
    }

    #[test]
    fn maximum_deadline_means_none() {
        let options = RepeatOptions::keyed_by("id").deadline(Duration::MAX);
        let payload = Payload::from(json!({"id": 7}));
        let mut push = Repeat::new(secs(5), payload, &options, &config()).expect("a key");
        let year = secs(365 * 86_400);
        assert_eq!(push.ended(year, lost()), AfterAttempt::Again);
        assert_eq!(push.attempt(year).1.timeout, Some(Duration::from_secs(10)));
    }

    #[test]
    fn zero_repeats_disable_them() {
        let mut push = repeat(0);
        assert_eq!(push.ended(secs(1), lost()), AfterAttempt::Ended(lost()));
    }

    fn outcome() -> impl Strategy<Value = PushOutcome> {
        prop_oneof![
            4 => Just(PushOutcome::TimedOut),
            4 => Just(lost()),
            2 => Just(PushOutcome::NotSent(NotSentCause::Interrupted)),
            1 => Just(PushOutcome::NotSent(NotSentCause::TimedOut)),
            1 => Just(PushOutcome::Cancelled),
            1 => Just(reply()),
        ]
    }

    proptest! {
        /// Whatever happens: every attempt has the payload of the first, the number of written attempts
        /// is bounded, and "not sent" means that no attempt was written.
        #[test]
        fn repeats_are_bounded(
            repeats in 0_u32..5,
            ends in proptest::collection::vec((outcome(), 0_u64..20), 1..60),
        ) {
            let mut push = repeat(repeats);
            let (mut now, mut written, mut ended) = (0, 0, false);
            for (outcome, pause) in ends {
                let (payload, options) = push.attempt(secs(now));
                prop_assert_eq!(payload, Payload::from(json!({"id": 7})));
                prop_assert!(options.timeout <= Some(push.until().since(secs(now))));
                now += pause;
                let sent = !matches!(outcome, PushOutcome::NotSent(_) | PushOutcome::Cancelled);
                written += u32::from(sent);
                match push.ended(secs(now), outcome) {
                    AfterAttempt::Again => prop_assert!(now < 60 && written > 0),
                    AfterAttempt::Ended(last) => {
                        let unsent = matches!(last, PushOutcome::NotSent(_) | PushOutcome::Cancelled);
                        prop_assert_eq!(unsent, written == 0);
                        ended = true;
                        break;
                    }
                }
            }
            prop_assert!(written <= repeats + 1);
            prop_assert!(ended || written <= repeats);
            prop_assert_eq!(push.repeats(), written.saturating_sub(1));
        }
    }
}
