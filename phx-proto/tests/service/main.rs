//! The service layer: documents of connections, the supervisor, the router and the bus.

mod bus;
mod connection_changes;
mod connections;
mod defects;
mod router;
mod supervision;
mod supervisor;

#[path = "../support/cases.rs"]
mod cases;
#[path = "../support/fleet.rs"]
mod fleet;
#[path = "../support/options.rs"]
mod options;
