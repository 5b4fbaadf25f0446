//! Plain data that goes into the machine and comes out of it: inputs, actions, signals, causes,
//! errors and counters.

pub(crate) mod action;
pub(crate) mod applied;
pub(crate) mod cause;
pub(crate) mod error;
pub(crate) mod excerpt;
mod http_date;
pub(crate) mod input;
pub(crate) mod refusal;
pub(crate) mod signal;
pub(crate) mod sizes;
pub(crate) mod stats;
pub(crate) mod ticket;
#[cfg(feature = "driver")]
pub(crate) mod weight;
#[cfg(any(feature = "driver", feature = "testing"))]
pub(crate) mod words;
