//! The async layer: one driver future and the handles, the same on every runtime.

mod runtime;

pub use runtime::{Received, Runtime, Timer, Transport, WriteFailed};
