//! Features for a service with several connections: documents, supervision, the router, the bus and
//! metrics.
//!
//! | to | use |
//! | --- | --- |
//! | read named connections from a document | [`Connections`] |
//! | keep named connections open and restart them | `Supervisor` |
//! | subscribe to the events of all connections | `Bus`, `Subscription`, [`TopicPattern`] |
//! | turn signals into CloudEvents without a supervisor | [`Router`], [`CloudEvent`] |
//! | decide restarts without a supervisor | [`Supervision`] |
//! | export counters | [`metrics`] |

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

#[cfg(feature = "driver")]
pub use bus::{Bus, BusEvent, Subscription};
pub use document::{
    ConnectionChanges, ConnectionSpec, Connections, ConnectionsError, Problem, ProblemKind,
};
pub use router::{
    CloudEvent, EventData, EventIds, EventValue, PatternError, Routed, Router, TopicPattern,
    TypeScheme, is_attribute_name,
};
pub use supervision::{Ending, Restart, RestartPolicy, Supervision, Verdict};
#[cfg(feature = "driver")]
pub use supervisor::{
    ConnectionStatus, Health, StartError, Supervised, SupervisedState, Supervisor, Task,
    UnknownConnection,
};
