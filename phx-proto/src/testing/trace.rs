//! The trace of a world, as data and as text that can be compared with a diff.
//!
//! Every action of a client's core, every frame that reached it and every fault is one
//! [`TraceEvent`]. Its text is one line:
//!
//! ```text
//! t=1500ms client#2 ReconnectAfter 210ms (attempt 3, heartbeat timeout)
//! ```
//!
//! Times are in whole milliseconds, and no line contains an address or anything else that depends
//! on the machine. So two runs with the same seed have the same text, and a change of behaviour
//! changes only a few lines.

use core::fmt;

use crate::event::action::Action;
use crate::event::signal::Signal;
use crate::event::words::{Shown, write_action};
use crate::time::Time;
use crate::wire::Frame;

/// A client of a [`World`](super::World); the first is `client#1`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub(super) usize);

/// An event of a world.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct TraceEvent {
    /// When it happened.
    pub at: Time,
    /// The client that it concerns; `None` for the server and the whole world.
    pub client: Option<ClientId>,
    /// What happened.
    pub what: What,
}

/// The kinds of events.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum What {
    /// An action of the client's core.
    Action(Action),
    /// A frame that reached the client.
    Received(Frame),
    /// A note, for example of a fault that the test injected.
    Note(String),
}

impl TraceEvent {
    /// The signal, if the event is one.
    #[must_use]
    pub const fn signal(&self) -> Option<&Signal> {
        match &self.what {
            What::Action(Action::Signal(signal)) => Some(signal),
            _ => None,
        }
    }

    /// Whether the event appears in the text. The signal `Connecting` is left out, because it repeats the
    /// action `Connect`.
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

/// The line of the trace, without a line break.
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
