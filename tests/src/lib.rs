//! Helpers shared by the workspace tests: the recordings, what each of them is good for, and a
//! client driven through them.

pub mod classes;
pub mod conversation;
pub mod foretold;
pub mod golden_client;
pub mod peers;
pub mod reading;
pub mod recording;
pub mod told;
