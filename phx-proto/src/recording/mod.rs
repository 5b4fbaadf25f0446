#![doc = include_str!("../manual/recording.md")]

mod config;
mod input;
mod line;
mod redact;
mod replay;
mod socket;
mod tape;

pub use replay::{
    Divergence, LineReplay, Recording, RecordingError, Replay, ReplayError, TraceLine,
};
pub use socket::RecordedSocket;
pub use tape::Recorder;
#[cfg(feature = "driver")]
pub(crate) use tape::Tape;
