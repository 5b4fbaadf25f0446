//! Phoenix Channels as a pure, sans-IO state machine.

mod auth_token;
mod http_date;
mod id;
mod payload;
mod refusal;
mod time;
#[cfg(feature = "upgrade")]
pub mod upgrade;
pub mod wire;

pub use crate::auth_token::auth_token_subprotocol;
pub use crate::id::{ConnectionId, InterestId, PushId, Ref};
pub use crate::payload::Payload;
pub use crate::refusal::Refusal;
pub use crate::time::Time;
