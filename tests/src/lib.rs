//! Helpers shared by the workspace tests: the recordings and what each of them is good for.

pub mod classes;
pub mod recording;
