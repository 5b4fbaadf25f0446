//! Phoenix Channels as a pure, sans-IO state machine.

mod id;
mod payload;
mod time;
pub mod wire;

pub use crate::id::{ConnectionId, InterestId, PushId, Ref};
pub use crate::payload::Payload;
pub use crate::time::Time;
