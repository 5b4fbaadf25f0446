//! The channel machine: keeps a wanted topic joined.
//!
//! ```text
//!          join             slot free, frame pulled          ok           leave
//!   Closed ─────▶ Pending ─────────────────────────▶ Joining ────▶ Joined ──────▶ Leaving
//!     ▲             ▲ ▲                                │  │          │  │            │
//!     │         due │ └──────── connection lost ───────┼──┼──────────┘  │            │
//!     │             Errored ◀───────── failed ─────────┘  └─▶ Closed    │            │
//!     │                ▲                                                │            │
//!     │                └─── phx_error, "unmatched topic", rejoin ───────┘            │
//!     └───────────────────── acked, timed out, offline ──────────────────────────────┘
//! ```
//!
//! All there is, held to what happens by `tests/diagrams.rs`:
//!
//! ```text
//!   Closed  → Pending  join; connect, for a topic that is joined automatically
//!   Pending → Joining  a slot is free and the frame is pulled
//!           → Leaving  leave or parameters that cannot be sent, while an earlier instance is there
//!           → Closed   leave; disconnect; gave up; parameters that cannot be sent
//!   Joining → Joined   ok
//!           → Errored  crashed, unanswered, or a rejection that is worth another try
//!           → Pending  connection lost
//!           → Leaving  leave
//!           → Closed   a final rejection, phx_close; disconnect; gave up
//!   Joined  → Errored  phx_error, "unmatched topic", rejoin
//!           → Pending  connection lost
//!           → Leaving  leave
//!           → Closed   phx_close; disconnect; gave up
//!   Errored → Pending  due, or connection lost
//!           → Leaving  leave, while the server may hold the earlier instance
//!           → Closed   leave, phx_close; disconnect; gave up
//!   Leaving → Pending  join
//!           → Closed   acked, timed out, offline
//! ```
//!
//! A [`Channel`] is what the core holds for one topic: what is *wanted* of it, and the instance
//! that is being left, if any. Both can exist at once: a join during a leave waits for its end,
//! because back to back the leave's reply is often lost (`wire/leave_rejoin_pipelined`).
//!
//! Every join makes a new instance with a new join_ref; what the server says about any other
//! instance is stale (`wire/join_double`: the close of the old one arrives after the ok of the
//! new one). A rejoin on request leaves the old instance to be replaced by the new join; until that
//! is written the server holds it, and it is what a leave leaves. `phx_close` and `phx_error` carry the join_ref in their ref member too
//! (`wire/leave_ok`), which is all that vsn 1 has.

pub(crate) mod transitions;

use core::time::Duration;

use crate::collections::ordered::Ordered;
use crate::config::join_params::JoinParams;
use crate::id::{InterestId, Ref};
use crate::socket::push::slab::Group;
use crate::time::Time;
use crate::topic::Topic;
use crate::wire::payload::Payload;

/// The state of a topic, as seen from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChannelStatus {
    /// Not wanted.
    Closed,
    /// To be joined as soon as possible.
    Pending(PendingReason),
    /// The join is written and unanswered.
    Joining,
    /// Joined.
    Joined,
    /// The leave is unanswered.
    Leaving,
    /// To be joined again at `until`.
    Errored {
        /// When.
        until: Time,
    },
}

/// Why a join has not been written yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PendingReason {
    /// There is no open connection.
    Offline,
    /// An earlier instance is still being left.
    LeaveEnding,
    /// As many joins are unanswered as may be.
    Slot,
    /// The server closed connections when joins came too fast, and the time of this one has not come.
    Paced,
    /// The transport takes no frame at the moment, or nobody polled for one.
    NotWritable,
}

/// What the core holds for one topic.
#[derive(Clone, Debug, Default)]
pub(crate) struct Channel {
    pub(crate) want: Option<Want>,
    /// Boxed, as few channels are being left.
    pub(crate) leaving: Option<Box<Leaving>>,
}

/// A wanted topic.
#[derive(Clone, Debug)]
pub(crate) struct Want {
    pub(crate) topic: Topic,
    /// Joins are written in this order.
    pub(crate) order: u64,
    pub(crate) params: JoinParams,
    /// Whoever wants it, in the order of asking.
    pub(crate) interests: Ordered<InterestId>,
    /// From the configuration: wanted without any interest.
    pub(crate) auto: bool,
    pub(crate) state: State,
    /// The instance that the server still holds while a rejoin on request waits, or may hold
    /// while the rejoin after a lost reply waits.
    pub(crate) surviving: Option<Ref>,
    /// Somebody called `join` and has seen no ok since: a rejection is theirs to handle.
    pub(crate) first_join_called: bool,
    pub(crate) ever_joined: bool,
    pub(crate) attempts: u32,
    pub(crate) rejoins: u32,
    pub(crate) rejections: u32,
    /// When the server last answered a push as if the channel did not exist.
    pub(crate) unmatched_at: Option<Time>,
    /// Accepted and without an outcome; none before the first.
    pub(crate) pushes: Option<Group>,
}

#[derive(Clone, Debug)]
pub(crate) enum State {
    Pending,
    Joining { join_ref: Ref },
    Joined(Instance),
    Errored { until: Time },
}

/// A joined instance.
#[derive(Clone, Debug)]
pub(crate) struct Instance {
    pub(crate) join_ref: Ref,
    pub(crate) since: Time,
    pub(crate) response: Payload,
}

/// An instance that is being left.
#[derive(Clone, Debug)]
pub(crate) struct Leaving {
    pub(crate) join_ref: Ref,
    /// Its place in the lane, behind the pushes accepted before it.
    pub(crate) order: u64,
    /// The ref of the leave, once written.
    pub(crate) leave_ref: Option<Ref>,
    /// Accepted before the leave, and written or about to be.
    pub(crate) pushes: Option<Group>,
}

impl Want {
    pub(crate) const fn new(topic: Topic, order: u64, params: JoinParams) -> Self {
        Self {
            topic,
            order,
            params,
            interests: Ordered::new(),
            auto: false,
            state: State::Pending,
            surviving: None,
            first_join_called: false,
            ever_joined: false,
            attempts: 0,
            rejoins: 0,
            rejections: 0,
            unmatched_at: None,
            pushes: None,
        }
    }

    pub(crate) const fn joined(&self) -> Option<&Instance> {
        match &self.state {
            State::Joined(instance) => Some(instance),
            _ => None,
        }
    }

    /// Leaves Joined, Joining or Errored for Pending; returns the instance if it was joined.
    /// The rejoin counter starts over only if the instance had been stable.
    pub(crate) fn lose(&mut self, now: Time, stable_after: Duration) -> Option<Instance> {
        self.surviving = None;
        match core::mem::replace(&mut self.state, State::Pending) {
            State::Joined(instance) => {
                if now.since(instance.since) >= stable_after {
                    self.rejoins = 0;
                }
                Some(instance)
            }
            _ => None,
        }
    }
}

impl Channel {
    pub(crate) const fn is_empty(&self) -> bool {
        self.want.is_none() && self.leaving.is_none()
    }

    /// Those of its pushes that have no outcome.
    pub(crate) fn groups(&self) -> impl Iterator<Item = &Group> {
        let wanted = self.want.as_ref().and_then(|want| want.pushes.as_ref());
        let leaving = self.leaving.as_ref().and_then(|leaving| leaving.pushes.as_ref());
        wanted.into_iter().chain(leaving)
    }

    /// Whether a join could be written now.
    pub(crate) const fn is_due(&self) -> bool {
        match &self.want {
            Some(want) => matches!(want.state, State::Pending) && self.leaving.is_none(),
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_for_a_topic_does_not_grow() {
        let size = size_of::<(Topic, Channel)>();
        assert!(size <= 352, "{size} bytes");
    }
}
