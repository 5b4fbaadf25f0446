//! Durations as numbers of milliseconds, the form of documents and recordings.

use core::fmt;
use core::time::Duration;

use serde::de::{self, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::time::nanos;

/// The limit in nanoseconds (13 days) below which a floating-point number of milliseconds is exact to the
/// nanosecond.
const EXACT: u64 = 1 << 50;

/// A [`Duration`] in milliseconds, for `#[serde(with = "Msec")]`.
///
/// The number has a fraction if the duration is shorter than 13 days and not a whole number of
/// milliseconds. [`Time`](crate::Time) ends after 584 years, so a longer duration never elapses.
pub(crate) struct Msec;

impl Msec {
    pub(crate) fn serialize<S: Serializer>(length: &Duration, to: S) -> Result<S::Ok, S::Error> {
        let total = nanos(*length);
        if total % 1_000_000 == 0 || total >= EXACT {
            to.serialize_u64(u64::try_from(length.as_millis()).unwrap_or(u64::MAX))
        } else {
            to.serialize_f64(total as f64 / 1e6)
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        from.deserialize_f64(Self)
    }
}

impl Visitor<'_> for Msec {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number of milliseconds that is not negative")
    }

    fn visit_u64<E: de::Error>(self, millis: u64) -> Result<Duration, E> {
        Ok(Duration::from_millis(millis))
    }

    fn visit_i64<E: de::Error>(self, millis: i64) -> Result<Duration, E> {
        let bad = |_| E::invalid_value(Unexpected::Signed(millis), &self);
        u64::try_from(millis).map(Duration::from_millis).map_err(bad)
    }

    fn visit_f64<E: de::Error>(self, millis: f64) -> Result<Duration, E> {
        if millis < 0.0 || !millis.is_finite() {
            return Err(E::invalid_value(Unexpected::Float(millis), &self));
        }
        Ok(match millis.fract() == 0.0 {
            true => Duration::from_millis(millis as u64),
            false => Duration::from_nanos((millis * 1e6).round() as u64),
        })
    }
}

/// A duration that serializes as milliseconds.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub(crate) struct Length(#[serde(with = "Msec")] pub(crate) Duration);

/// An optional [`Duration`] in milliseconds, for `#[serde(with = "OptionalMsec")]`.
pub(crate) struct OptionalMsec;

impl OptionalMsec {
    pub(crate) fn serialize<S: Serializer>(
        length: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        length.map(Length).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        let length = Option::<Length>::deserialize(deserializer)?;
        Ok(length.map(|Length(length)| length))
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Msec {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Msec".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "number", "minimum": 0})
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json, to_value};

    use super::*;

    fn read(value: Value) -> Result<Duration, String> {
        Length::deserialize(value).map(|Length(length)| length).map_err(|error| error.to_string())
    }

    #[test]
    fn msec_is_whole_or_has_fraction() {
        for (length, written) in [
            (Duration::ZERO, json!(0)),
            (Duration::from_millis(1_500), json!(1_500)),
            (Duration::from_nanos(1), json!(0.000_001)),
            (Duration::from_micros(1_500), json!(1.5)),
            (Duration::from_millis(u64::MAX), json!(u64::MAX)),
        ] {
            assert_eq!(to_value(Length(length)).unwrap(), written);
            assert_eq!(read(written).unwrap(), length);
        }
        assert_eq!(to_value(Length(Duration::MAX)).unwrap(), json!(u64::MAX));
        assert_eq!(read(json!(1e300)).unwrap(), Duration::from_millis(u64::MAX));
        for bad in [json!(-1), json!(-0.5), json!("1"), json!(null)] {
            assert!(read(bad.clone()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn msec_is_exact_for_13_days(nanos in 0..EXACT) {
            let length = Duration::from_nanos(nanos);
            let written = to_value(Length(length)).unwrap().to_string();
            let read = read(serde_json::from_str(&written).unwrap());
            prop_assert_eq!(read.unwrap(), length, "{}", written);
        }
    }
}
