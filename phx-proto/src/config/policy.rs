//! Rules for close codes and for the HTTP statuses of refused upgrades.

use core::fmt;
use core::marker::PhantomData;
use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::config::backoff::DelayRange;

/// The rule for a close code with which the server closed the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CloseRule {
    /// Reconnect within [`Config::first_retry_spread`](crate::Config::first_retry_spread).
    Retry,
    /// Reconnect after a delay from this range. Delays grow if attempts keep failing.
    #[serde(rename = "retry_within_msec")]
    RetryWithin(DelayRange),
    /// Give up: the connection ends as `GaveUp`.
    Stop,
}

/// The rule for an HTTP status with which the server refused the upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StatusRule {
    /// Reconnect with the delays of [`Config::reconnect_after`](crate::Config::reconnect_after), because
    /// the server is probably busy or failing for a short time.
    Backoff,
    /// Reconnect with the long delays of [`Config::refused_after`](crate::Config::refused_after).
    Refused,
    /// Give up, unless there is a credential provider or the credentials were replaced after the attempt
    /// was dialled.
    /// Then retry: the first time after an ordinary delay, later with the delays of
    /// [`Config::refused_after`](crate::Config::refused_after).
    Unauthorized,
    /// Give up.
    Stop,
}

/// A map from codes to rules. Deserializing a duplicate code is an error.
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

/// The rules for close codes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(into = "Codes<CloseRule>", from = "Codes<CloseRule>")]
pub(crate) struct ClosePolicy {
    /// Sorted by code.
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
    /// Creates a policy from static rules, sorted by code. It allocates nothing.
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

    /// The rule for a close frame with or without a code.
    pub(crate) fn rule(&self, code: Option<u16>) -> CloseRule {
        let found = self.rules.iter().find(|(other, _)| Some(*other) == code);
        // Protocol: CLOSE-1.
        found.map_or(CloseRule::Retry, |(_, rule)| *rule)
    }
}

/// The rules for HTTP statuses, with defaults for each class.
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

    /// The rule for a refused upgrade. Redirects, and successful responses without an upgrade, are refusals
    /// too: the address is wrong, so an early retry would fail again.
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
