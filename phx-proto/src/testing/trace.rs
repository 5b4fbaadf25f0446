//! What happened in a world, as data and as text that diffs well.
//!
//! Everything that a client's core asked for or said, every frame that reached it and every fault
//! is one [`TraceEvent`]; its text is one line:
//!
//! ```text
//! t=1500ms client#2 ReconnectAfter 210ms (attempt 3, heartbeat timeout)
//! ```
//!
//! Lines hold whole milliseconds, no address and nothing that depends on the machine, so two runs
//! with one seed are equal byte for byte, and a change of behaviour is a few changed lines.

use core::fmt;

use crate::event::action::Action;
use crate::event::signal::Signal;
use crate::event::words::{Shown, write_action};
use crate::time::Time;
use crate::wire::Frame;

/// A client of a [`World`](super::World): the first is `client#1`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub(super) usize);

/// One thing that happened.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct TraceEvent {
    /// When.
    pub at: Time,
    /// To which client; none for what concerns the server or the whole world.
    pub client: Option<ClientId>,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum What {
    /// The client's core put this out.
    Action(Action),
    /// This frame reached the client.
    Received(Frame),
    /// The test did this: a fault, say.
    Note(String),
}

impl TraceEvent {
    /// The signal, if it is one.
    #[must_use]
    pub const fn signal(&self) -> Option<&Signal> {
        match &self.what {
            What::Action(Action::Signal(signal)) => Some(signal),
            _ => None,
        }
    }

    /// Whether it is in the text: of two that say the same, one is enough.
    pub(super) const fn is_shown(&self) -> bool {
        !matches!(self.signal(), Some(Signal::Connecting { .. }))
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "client#{}", self.0 + 1)
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The line of the trace, without its end.
impl fmt::Display for TraceEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t={}ms ", self.at.as_millis())?;
        match self.client {
            Some(client) => write!(f, "{client} ")?,
            None => f.write_str("world ")?,
        }
        match &self.what {
            What::Action(action) => write_action(f, action),
            What::Received(frame) => write!(f, "<- {}", Shown(frame)),
            What::Note(note) => f.write_str(note),
        }
    }
}
