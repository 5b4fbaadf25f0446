//! Decisions that are tables: what a close code and what a refused upgrade mean.

use core::fmt;
use core::marker::PhantomData;
use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::config::backoff::DelayRange;

/// What to do after the server closed the connection with some code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CloseRule {
    /// Reconnect within [`Config::first_retry_spread`](crate::Config::first_retry_spread).
    Retry,
    /// Reconnect after a delay from this range (longer once attempts keep failing).
    #[serde(rename = "retry_within_msec")]
    RetryWithin(DelayRange),
    /// Give up: the connection ends as `GaveUp`.
    Stop,
}

/// What to do after the server refused the upgrade with some HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StatusRule {
    /// Ordinary backoff: the server is busy or broken, not unwilling.
    Backoff,
    /// The long waits of [`Config::refused_after`](crate::Config::refused_after).
    Refused,
    /// Give up; with a credential provider, one ordinary retry with fresh credentials first.
    Unauthorized,
    /// Give up.
    Stop,
}

/// Codes to rules, each code once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
struct Codes<R>(BTreeMap<u16, R>);

impl<R> Default for Codes<R> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<'de, R: Deserialize<'de>> Deserialize<'de> for Codes<R> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each<R>(PhantomData<R>);

        impl<'de, R: Deserialize<'de>> Visitor<'de> for Each<R> {
            type Value = Codes<R>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Codes<R>, A::Error> {
                let mut rules = BTreeMap::new();
                while let Some((code, rule)) = map.next_entry()? {
                    if rules.insert(code, rule).is_some() {
                        return Err(A::Error::custom(format!(
                            "the code {code} occurs twice in it"
                        )));
                    }
                }
                Ok(Codes(rules))
            }
        }

        deserializer.deserialize_map(Each(PhantomData))
    }
}

/// Close codes to rules, with a rule for the rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(into = "Codes<CloseRule>", from = "Codes<CloseRule>")]
pub(crate) struct ClosePolicy {
    /// In order of code.
    rules: Cow<'static, [(u16, CloseRule)]>,
}

impl From<ClosePolicy> for Codes<CloseRule> {
    fn from(policy: ClosePolicy) -> Self {
        Self(policy.rules.iter().copied().collect())
    }
}

impl From<Codes<CloseRule>> for ClosePolicy {
    fn from(rules: Codes<CloseRule>) -> Self {
        Self { rules: rules.0.into_iter().collect() }
    }
}

impl ClosePolicy {
    /// Rules that take no memory, in order of code.
    pub(super) const fn fixed(rules: &'static [(u16, CloseRule)]) -> Self {
        Self { rules: Cow::Borrowed(rules) }
    }

    pub(crate) fn set(&mut self, code: u16, rule: CloseRule) {
        let rules = self.rules.to_mut();
        match rules.binary_search_by_key(&code, |(code, _)| *code) {
            Ok(at) => rules[at].1 = rule,
            Err(at) => rules.insert(at, (code, rule)),
        }
    }

    /// The rule for a close frame with this code, or without one.
    pub(crate) fn rule(&self, code: Option<u16>) -> CloseRule {
        let found = self.rules.iter().find(|(other, _)| Some(*other) == code);
        // Protocol: CLOSE-1.
        found.map_or(CloseRule::Retry, |(_, rule)| *rule)
    }
}

/// HTTP statuses to rules, with defaults by class.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub(crate) struct StatusPolicy {
    rules: Codes<StatusRule>,
}

impl StatusPolicy {
    pub(crate) fn set(&mut self, status: u16, rule: StatusRule) {
        self.rules.0.insert(status, rule);
    }

    /// The rule for a refused upgrade. Redirects and successes that are not an upgrade are
    /// refusals too: the address is wrong, and asking again soon will not mend it.
    pub(crate) fn rule(&self, status: u16) -> StatusRule {
        if let Some(rule) = self.rules.0.get(&status) {
            return *rule;
        }
        match status {
            401 => StatusRule::Unauthorized,
            // Protocol: RETRY-7.
            408 | 425 | 429 | 500..=599 => StatusRule::Backoff,
            _ => StatusRule::Refused,
        }
    }
}
