//! Decisions that are tables: what a close code and what a refused upgrade mean.

use std::collections::BTreeMap;

use crate::backoff::DelayRange;

/// What to do after the server closed the connection with some code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseRule {
    /// Reconnect within [`Config::first_retry_spread`](crate::Config::first_retry_spread).
    Retry,
    /// Reconnect after a delay from this range (longer once attempts keep failing).
    RetryWithin(DelayRange),
    /// Give up: the connection ends as `GaveUp`.
    Stop,
}

/// What to do after the server refused the upgrade with some HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// Close codes to rules, with a rule for the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClosePolicy {
    pub(crate) rules: BTreeMap<u16, CloseRule>,
}

impl Default for ClosePolicy {
    /// 1000 and 1012 are what a Phoenix deploy sends (`wire/close_graceful_shutdown`), 1001 what
    /// its `disconnect` broadcast does (`wire/close_disconnect_by_id`), 1013 is "try again
    /// later". All of them hit many clients at once, hence the wider spread.
    fn default() -> Self {
        let spread = CloseRule::RetryWithin(DelayRange::from_millis(10, 2_000));
        Self { rules: [1000, 1001, 1012, 1013].into_iter().map(|code| (code, spread)).collect() }
    }
}

impl ClosePolicy {
    pub(crate) fn set(&mut self, code: u16, rule: CloseRule) {
        self.rules.insert(code, rule);
    }

    /// The rule for a close frame with this code, or without one.
    pub(crate) fn rule(&self, code: Option<u16>) -> CloseRule {
        code.and_then(|code| self.rules.get(&code).copied()).unwrap_or(CloseRule::Retry)
    }
}

/// HTTP statuses to rules, with defaults by class.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct StatusPolicy {
    pub(crate) rules: BTreeMap<u16, StatusRule>,
}

impl StatusPolicy {
    pub(crate) fn set(&mut self, status: u16, rule: StatusRule) {
        self.rules.insert(status, rule);
    }

    /// The rule for a refused upgrade. Redirects and successes that are not an upgrade are
    /// refusals too: the address is wrong, and asking again soon will not mend it.
    pub(crate) fn rule(&self, status: u16) -> StatusRule {
        if let Some(rule) = self.rules.get(&status) {
            return *rule;
        }
        match status {
            401 => StatusRule::Unauthorized,
            408 | 425 | 429 | 500..=599 => StatusRule::Backoff,
            _ => StatusRule::Refused,
        }
    }
}
