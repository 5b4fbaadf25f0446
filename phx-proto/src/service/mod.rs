//! What a service needs on top of one connection: documents, supervision, the router, the bus and
//! metrics.

#[cfg(feature = "driver")]
pub(crate) mod bus;
pub(crate) mod document;
#[cfg(feature = "driver")]
mod keeper;
pub mod metrics;
pub(crate) mod router;
pub(crate) mod supervision;
#[cfg(feature = "driver")]
pub(crate) mod supervisor;
