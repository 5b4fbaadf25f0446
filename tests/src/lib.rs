//! Helpers shared by the workspace tests: the recordings, what each of them is good for, a client
//! driven through them, a proxy that breaks connections, reserved ports, and waiting with a
//! deadline.

pub mod classes;
pub mod conversation;
pub mod dice;
pub mod fault_proxy;
pub mod foretold;
pub mod golden_client;
pub mod left_behind;
pub mod openssl;
pub mod peers;
pub mod ports;
pub mod reading;
pub mod recording;
pub mod told;
pub mod waiting;

/// The programs of the README are compiled with the doctests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;
