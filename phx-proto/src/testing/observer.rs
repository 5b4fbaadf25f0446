//! Observations of the clients of a [`Server`](super::Server).

use core::fmt;

use super::server::PeerId;

/// An event of a client; see [`Server::observe`](super::Server::observe).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Observation {
    /// A connection could not be accepted, for example because of too many open files. The listener
    /// pauses before the next attempt.
    AcceptFailed {
        /// The error of the operating system.
        message: String,
    },
    /// A socket connected.
    Connected {
        /// The connection.
        peer: PeerId,
    },
    /// An upgrade was refused.
    Refused {
        /// The HTTP status.
        status: u16,
    },
    /// A channel was joined.
    Joined {
        /// The connection.
        peer: PeerId,
        /// The topic.
        topic: String,
    },
    /// A join was refused.
    JoinRefused {
        /// The connection.
        peer: PeerId,
        /// The topic.
        topic: String,
    },
    /// A channel ended: left, crashed or closed.
    ChannelEnded {
        /// The connection.
        peer: PeerId,
        /// The topic.
        topic: String,
    },
    /// A connection ended, and its channels with it.
    Disconnected {
        /// The connection.
        peer: PeerId,
    },
}

/// The function that receives each observation, if one is set.
#[derive(Default)]
pub(super) struct Observer(Option<Observe>);

type Observe = Box<dyn FnMut(&Observation) + Send>;

impl Observer {
    pub(super) fn new(observe: impl FnMut(&Observation) + Send + 'static) -> Self {
        Self(Some(Box::new(observe)))
    }

    pub(super) fn observe(&mut self, observation: impl FnOnce() -> Observation) {
        if let Some(observe) = &mut self.0 {
            observe(&observation());
        }
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Observer").field(&self.0.is_some()).finish()
    }
}
