//! Helpers shared by the workspace tests: the recordings and their classes, a client driven through
//! them, a fault-injecting proxy, reserved ports, and waiting with a deadline.

pub mod classes;
pub mod conversation;
pub mod fault_proxy;
pub mod golden_client;
pub mod openssl;
pub mod output;
pub mod peers;
pub mod ports;
pub mod prediction;
pub mod reading;
pub mod recording;
pub mod resources;
pub mod rng;
pub mod waiting;

/// The README's programs are compiled as doctests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;
