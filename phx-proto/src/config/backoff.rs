//! Backoff schedules for retries.
//!
//! A [`Backoff`] maps an attempt number to a [`DelayRange`], from which the delay is drawn. It has no
//! counter and no clock. The state machines that use it count attempts and draw one random number for
//! each retry, so the delays of a given seed can be reproduced.
//!
//! The range of attempt *n* with nominal delay *d* is
//! `[max(floor, d·(1−jitter)), max(floor, d)]`. Jitter defaults to one half. phoenix.js has none, so
//! after a deploy all clients of a busy server reconnect at the same moments.

use core::fmt;
use core::time::Duration;
use std::borrow::Cow;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::msec::{Length, Msec};
use crate::config::ConfigError;
use crate::time::nanos;

/// The default of [`Backoff::floor`]. It keeps a client from flooding its server even with a schedule of
/// zeros.
const FLOOR: Duration = Duration::from_millis(10);

/// The default jitter, in millionths.
const JITTER_PPM: u32 = 500_000;

/// A closed range of delays. Its serialized form is a pair of milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(into = "Ends", try_from = "Ends")]
pub struct DelayRange {
    min: Duration,
    max: Duration,
}

impl DelayRange {
    /// Creates the range from `min` to `max`, both included.
    ///
    /// # Errors
    ///
    /// [`ConfigError::EmptyRange`] if `max` is less than `min`.
    pub const fn new(min: Duration, max: Duration) -> Result<Self, ConfigError> {
        if max.as_nanos() < min.as_nanos() {
            return Err(ConfigError::EmptyRange);
        }
        Ok(Self { min, max })
    }

    /// Creates a range from milliseconds. The caller ensures that `min` is not greater than `max`.
    pub(crate) const fn from_millis(min: u64, max: u64) -> Self {
        Self { min: Duration::from_millis(min), max: Duration::from_millis(max) }
    }

    /// The shortest delay of the range.
    #[must_use]
    pub const fn min(self) -> Duration {
        self.min
    }

    /// The longest delay of the range.
    #[must_use]
    pub const fn max(self) -> Duration {
        self.max
    }

    /// Whether `delay` lies in the range.
    #[must_use]
    pub fn contains(self, delay: Duration) -> bool {
        (self.min..=self.max).contains(&delay)
    }

    /// The range with both ends raised to at least `floor`.
    pub(crate) fn at_least(self, floor: Duration) -> Self {
        self.later(Self { min: floor, max: floor })
    }

    /// The range that starts at the later start of the two ranges and ends at their later end.
    pub(crate) fn later(self, other: Self) -> Self {
        Self { min: self.min.max(other.min), max: self.max.max(other.max) }
    }
}

#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(expecting = "a pair of milliseconds, [from, to]")]
struct Ends(#[serde(with = "Msec")] Duration, #[serde(with = "Msec")] Duration);

impl From<DelayRange> for Ends {
    fn from(DelayRange { min, max }: DelayRange) -> Self {
        Self(min, max)
    }
}

impl TryFrom<Ends> for DelayRange {
    type Error = ConfigError;

    fn try_from(Ends(min, max): Ends) -> Result<Self, ConfigError> {
        Self::new(min, max)
    }
}

/// A schedule of delays with jitter and a floor.
///
/// In a document a backoff is a list of milliseconds, or an object such as
/// `{"schedule": {"steps": [100, 1000]}, "jitter": 0.5, "floor": 10}`. An exponential schedule is
/// `{"exponential": {"first": 100, "factor": 2, "max": 30000}}`.
///
/// ```
/// use core::time::Duration;
/// use phx_proto::config::Backoff;
///
/// let backoff = Backoff::steps_msec(&[100, 1_000])?;
/// assert_eq!(backoff.range(1).max(), Duration::from_millis(100));
/// assert_eq!(backoff.range(2).min(), Duration::from_millis(500));
/// // The last step repeats.
/// assert_eq!(backoff.range(99), backoff.range(2));
/// # Ok::<(), phx_proto::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backoff {
    pub(crate) schedule: Schedule,
    pub(crate) jitter_ppm: u32,
    pub(crate) floor: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Schedule {
    Steps(
        #[serde(with = "Steps")]
        #[cfg_attr(feature = "schema", schemars(with = "Vec<Length>", length(min = 1)))]
        Cow<'static, [Duration]>,
    ),
    Exponential {
        #[serde(with = "Msec")]
        first: Duration,
        #[serde(rename = "factor", with = "Factor")]
        #[cfg_attr(feature = "schema", schemars(with = "f64", range(min = 1.01, max = 1_000)))]
        factor_ppm: u64,
        #[serde(with = "Msec")]
        max: Duration,
    },
}

impl Backoff {
    /// Creates a schedule with one delay for each attempt. The last delay repeats.
    ///
    /// # Errors
    ///
    /// [`ConfigError::EmptyBackoff`] if `steps` is empty.
    pub fn steps(steps: impl Into<Vec<Duration>>) -> Result<Self, ConfigError> {
        let steps = steps.into();
        if steps.is_empty() {
            return Err(ConfigError::EmptyBackoff);
        }
        Ok(Self::from_schedule(Schedule::Steps(Cow::Owned(steps))))
    }

    /// Creates a schedule from static steps, of which there must be at least one. It allocates nothing.
    pub(super) const fn fixed(steps: &'static [Duration]) -> Self {
        Self::from_schedule(Schedule::Steps(Cow::Borrowed(steps)))
    }

    /// Creates [`steps`](Self::steps) from milliseconds, the unit that Phoenix's own clients use.
    ///
    /// # Errors
    ///
    /// [`ConfigError::EmptyBackoff`] if `steps` is empty.
    pub fn steps_msec(steps: &[u64]) -> Result<Self, ConfigError> {
        Self::steps(steps.iter().copied().map(Duration::from_millis).collect::<Vec<_>>())
    }

    /// Creates a schedule that starts with `first` and multiplies each delay by `factor`, up to `max`. If
    /// `first` is zero, delays grow from the [floor](Self::floor), or from a millisecond if that is zero
    /// too.
    ///
    /// # Errors
    ///
    /// [`ConfigError::BackoffFactor`] if `factor` is not a number from 1.01 to 1000.
    pub fn exponential(first: Duration, factor: f64, max: Duration) -> Result<Self, ConfigError> {
        let factor_ppm = factor_ppm(factor)?;
        Ok(Self::from_schedule(Schedule::Exponential { first, factor_ppm, max }))
    }

    const fn from_schedule(schedule: Schedule) -> Self {
        Self { schedule, jitter_ppm: JITTER_PPM, floor: FLOOR }
    }

    /// Sets the random share of each delay, from 0 (none) to 1 (the whole delay). The default is 0.5.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Jitter`] if `jitter` is not a number from 0 to 1.
    pub fn jitter(mut self, jitter: f64) -> Result<Self, ConfigError> {
        self.jitter_ppm = jitter_ppm(jitter)?;
        Ok(self)
    }

    /// Sets the shortest delay, which applies to every step of the schedule. The default is 10 ms.
    #[must_use]
    pub const fn floor(mut self, floor: Duration) -> Self {
        self.floor = floor;
        self
    }

    /// The range from which the delay before attempt `attempt` (from 1) is drawn.
    #[must_use]
    pub fn range(&self, attempt: u32) -> DelayRange {
        let nominal = self.nominal(attempt);
        let chance = u128::from(nanos(nominal)) * u128::from(self.jitter_ppm) / 1_000_000;
        let chance = Duration::from_nanos(u64::try_from(chance).unwrap_or(u64::MAX));
        DelayRange {
            min: nominal.saturating_sub(chance).max(self.floor),
            max: nominal.max(self.floor),
        }
    }

    /// The floor of the schedule.
    pub(crate) const fn least(&self) -> Duration {
        self.floor
    }

    /// The range of the delay at the end of the schedule: that of the last step, or the longest one of an
    /// exponential schedule.
    #[must_use]
    pub fn longest(&self) -> DelayRange {
        self.range(u32::MAX)
    }

    /// The first attempt whose delay before jitter is at least `delay`. If there is none, the first attempt
    /// with the delay at the end of the schedule.
    pub(crate) fn reaching(&self, delay: Duration) -> u32 {
        // Every delay is at least the floor.
        let delay = if delay > self.floor { delay } else { Duration::ZERO };
        match &self.schedule {
            Schedule::Steps(steps) => {
                let found = steps.iter().position(|step| *step >= delay);
                u32::try_from(found.map_or(steps.len(), |index| index + 1)).unwrap_or(u32::MAX)
            }
            Schedule::Exponential { first, factor_ppm, max } => {
                let aim = nanos(delay.min(*max));
                let shorter = growing(self.start(*first), *factor_ppm).take_while(|it| *it < aim);
                u32::try_from(shorter.count() + 1).unwrap_or(u32::MAX)
            }
        }
    }

    /// The delay from which an exponential schedule grows, in nanoseconds. It is never zero.
    fn start(&self, first: Duration) -> u64 {
        let start = if first.is_zero() { self.floor } else { first };
        nanos(if start.is_zero() { Duration::from_millis(1) } else { start })
    }

    fn nominal(&self, attempt: u32) -> Duration {
        let index = usize::try_from(attempt.saturating_sub(1)).unwrap_or(usize::MAX);
        match &self.schedule {
            // `steps` is never empty: the constructors refuse that.
            Schedule::Steps(steps) => steps[index.min(steps.len() - 1)],
            Schedule::Exponential { first, factor_ppm, max } => {
                let max = nanos(*max);
                let mut found = self.start(*first);
                for delay in growing(found, *factor_ppm).take(index.saturating_add(1)) {
                    found = delay.min(max);
                    if found == max {
                        break;
                    }
                }
                Duration::from_nanos(found)
            }
        }
    }
}

/// The delays of an exponential schedule. Each is the one before multiplied by the factor, and at least a
/// nanosecond longer. The iterator ends at `u64::MAX`, which the smallest factor, 1.01, reaches within
/// about 4,500 steps.
fn growing(first: u64, factor_ppm: u64) -> impl Iterator<Item = u64> {
    core::iter::successors(Some(first), move |delay| {
        let next = u128::from(*delay) * u128::from(factor_ppm) / 1_000_000;
        let next = u64::try_from(next).unwrap_or(u64::MAX).max(delay.saturating_add(1));
        (next != *delay).then_some(next)
    })
}

fn factor_ppm(factor: f64) -> Result<u64, ConfigError> {
    let allowed = (1.01..=1_000.0).contains(&factor);
    allowed.then(|| (factor * 1e6).round() as u64).ok_or(ConfigError::BackoffFactor)
}

fn jitter_ppm(jitter: f64) -> Result<u32, ConfigError> {
    let allowed = (0.0..=1.0).contains(&jitter);
    allowed.then(|| (jitter * 1e6).round() as u32).ok_or(ConfigError::Jitter)
}

/// The serialized form of a [`Backoff`], with all of its parts.
#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(remote = "Backoff", deny_unknown_fields)]
struct Parts {
    schedule: Schedule,
    #[serde(rename = "jitter", with = "Jitter", default = "Jitter::default_ppm")]
    #[cfg_attr(feature = "schema", schemars(with = "f64", range(min = 0, max = 1)))]
    jitter_ppm: u32,
    #[serde(with = "Msec", default = "Parts::default_floor")]
    floor: Duration,
}

impl Parts {
    const fn default_floor() -> Duration {
        FLOOR
    }
}

impl Serialize for Backoff {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Parts::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for Backoff {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Backoff;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of milliseconds, or an object with a schedule")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Backoff, A::Error> {
                let steps = Steps::deserialize(SeqAccessDeserializer::new(list))?;
                Ok(Backoff::from_schedule(Schedule::Steps(steps)))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Backoff, A::Error> {
                Parts::deserialize(MapAccessDeserializer::new(map))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

/// The serialized form of steps: at least one delay in milliseconds.
struct Steps;

impl Steps {
    fn serialize<S: Serializer>(steps: &[Duration], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(steps.iter().copied().map(Length))
    }

    fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Cow<'static, [Duration]>, D::Error> {
        let steps = Vec::<Length>::deserialize(deserializer)?;
        let steps: Vec<Duration> = steps.into_iter().map(|Length(step)| step).collect();
        if steps.is_empty() {
            return Err(D::Error::custom(ConfigError::EmptyBackoff));
        }
        Ok(Cow::Owned(steps))
    }
}

/// The serialized form of a jitter: a number from 0 to 1.
struct Jitter;

impl Jitter {
    const fn default_ppm() -> u32 {
        JITTER_PPM
    }

    fn serialize<S: Serializer>(ppm: &u32, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(f64::from(*ppm) / 1e6)
    }

    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
        jitter_ppm(f64::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// The serialized form of a factor: a number from 1.01 to 1000.
struct Factor;

impl Factor {
    fn serialize<S: Serializer>(ppm: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(*ppm as f64 / 1e6)
    }

    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        factor_ppm(f64::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Backoff {
    fn schema_name() -> Cow<'static, str> {
        "Backoff".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        #[derive(schemars::JsonSchema)]
        #[serde(untagged)]
        #[allow(dead_code, reason = "only its schema is used")]
        enum Either {
            Steps(#[schemars(length(min = 1))] Vec<Length>),
            Parts(Parts),
        }
        Either::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn floor_applies_to_schedule_of_zeros() {
        let backoff = Backoff::steps_msec(&[0]).unwrap();
        assert_eq!(backoff.range(1), DelayRange { min: ms(10), max: ms(10) });
    }

    #[test]
    fn delay_without_jitter_is_nominal() {
        let backoff = Backoff::steps_msec(&[100, 200]).unwrap().jitter(0.0).unwrap();
        assert_eq!(backoff.range(2), DelayRange { min: ms(200), max: ms(200) });
    }

    #[test]
    fn exponential_schedule_stays_at_its_maximum() {
        let backoff = Backoff::exponential(ms(100), 2.0, ms(1_000)).unwrap().jitter(0.0).unwrap();
        let delays: Vec<_> = (1..=6).map(|n| backoff.range(n).max()).collect();
        assert_eq!(delays, [ms(100), ms(200), ms(400), ms(800), ms(1_000), ms(1_000)]);
        assert_eq!(backoff.range(u32::MAX).max(), ms(1_000));
    }

    #[test]
    fn reaching_returns_first_or_longest_attempt() {
        let steps = Backoff::steps_msec(&[10, 100, 1_000]).unwrap();
        let doubling = Backoff::exponential(ms(10), 2.0, ms(100)).unwrap();
        for (delay, of_steps, of_doubling) in
            [(0, 1, 1), (10, 1, 1), (11, 2, 2), (100, 2, 5), (101, 3, 5), (9_999, 3, 5)]
        {
            assert_eq!(steps.reaching(ms(delay)), of_steps, "{delay} ms by steps");
            assert_eq!(doubling.reaching(ms(delay)), of_doubling, "{delay} ms by doubling");
        }
        let zeros = Backoff::steps_msec(&[0, 0, 1_000]).unwrap();
        assert_eq!((zeros.reaching(ms(10)), zeros.reaching(ms(11))), (1, 3), "the floor counts");
        let from_zero = Backoff::exponential(ms(0), 2.0, ms(100)).unwrap();
        assert_eq!((from_zero.reaching(ms(10)), from_zero.reaching(ms(50))), (1, 4));
    }

    #[test]
    fn exponential_schedule_grows_from_zero() {
        let no_jitter = |first, factor| {
            Backoff::exponential(first, factor, ms(1_000)).unwrap().jitter(0.0).unwrap()
        };
        let from_zero = no_jitter(ms(0), 2.0);
        let delays: Vec<_> = (1..=4).map(|n| from_zero.range(n).max()).collect();
        assert_eq!(delays, [ms(10), ms(20), ms(40), ms(80)], "zero grows from the floor");
        let delays: Vec<_> =
            (1..=3).map(|n| from_zero.clone().floor(ms(0)).range(n).max()).collect();
        assert_eq!(delays, [ms(1), ms(2), ms(4)], "or from a millisecond without one");
        let tiny = no_jitter(Duration::from_nanos(1), 1.01);
        assert_eq!(tiny.range(u32::MAX).max(), ms(1_000), "grows by at least a nanosecond");
        assert_eq!(no_jitter(ms(0), 2.0).longest().max(), ms(1_000));
        let nothing = Backoff::exponential(ms(0), 2.0, ms(0)).unwrap();
        assert_eq!((nothing.range(9).max(), nothing.reaching(ms(50))), (ms(10), 1));
    }

    #[test]
    fn huge_schedule_saturates() {
        let backoff = Backoff::exponential(Duration::MAX, 1_000.0, Duration::MAX).unwrap();
        assert!(backoff.range(u32::MAX).min() <= backoff.range(u32::MAX).max());
    }

    #[test]
    fn invalid_backoff_is_refused() {
        assert_eq!(Backoff::steps([]), Err(ConfigError::EmptyBackoff));
        assert_eq!(Backoff::exponential(ms(1), 0.5, ms(2)), Err(ConfigError::BackoffFactor));
        assert_eq!(Backoff::exponential(ms(1), f64::NAN, ms(2)), Err(ConfigError::BackoffFactor));
        assert_eq!(Backoff::steps_msec(&[1]).unwrap().jitter(1.5), Err(ConfigError::Jitter));
        assert_eq!(DelayRange::new(ms(2), ms(1)), Err(ConfigError::EmptyRange));
    }
}
