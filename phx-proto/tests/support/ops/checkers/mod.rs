//! Invariants, each watched by a checker of its own after every step.

mod channels;
mod connection;
mod delays;
mod pushes;

use phx_proto::{Action, Socket, Time};

use super::Setup;
use super::peer::Sent;
use super::setup::Policy;
use super::world::Called;

/// The state that a checker can see beside the events.
#[derive(Debug)]
pub struct Moment<'a> {
    /// The latest time that was passed to the socket.
    pub now: Time,
    /// The socket after the event.
    pub socket: &'a Socket,
    pub setup: &'a Setup,
    pub policy: &'a Policy,
    /// No decided action waits to be polled.
    pub drained: bool,
    /// The last poll found nothing.
    pub dry: bool,
    /// The transport takes frames, as far as was reported to the socket.
    pub writable: bool,
}

/// Watches one invariant, and panics when it is broken.
pub trait Checker {
    /// A command or an input was carried out; what it decided follows.
    fn called(&mut self, _called: &Called, _at: &Moment<'_>) {}
    /// An action other than a frame was decided (it may be polled much later).
    fn decided(&mut self, _action: &Action, _at: &Moment<'_>) {}
    /// A frame was pulled.
    fn written(&mut self, _sent: &Sent, _at: &Moment<'_>) {}
    /// The step is over.
    fn settled(&mut self, _at: &Moment<'_>) {}
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub struct Checkers {
    pub outcomes: pushes::OneOutcome,
    pub order: pushes::Order,
    pub queues: pushes::Bounds,
    pub slots: channels::JoinSlots,
    pub clock: channels::JoinClock,
    pub prompt: channels::Prompt,
    pub story: channels::Story,
    pub pace: channels::Pace,
    pub interests: channels::Interests,
    pub transports: connection::OneTransport,
    pub quiet: connection::QuietAfterEnd,
    pub heartbeats: connection::Heartbeats,
    pub reconnects: delays::Reconnects,
    pub rejoins: delays::Rejoins,
}

impl Checkers {
    pub fn each(&mut self, mut show: impl FnMut(&mut dyn Checker)) {
        let all: [&mut dyn Checker; 14] = [
            &mut self.outcomes,
            &mut self.order,
            &mut self.queues,
            &mut self.slots,
            &mut self.clock,
            &mut self.prompt,
            &mut self.story,
            &mut self.pace,
            &mut self.interests,
            &mut self.transports,
            &mut self.quiet,
            &mut self.heartbeats,
            &mut self.reconnects,
            &mut self.rejoins,
        ];
        for checker in all {
            show(checker);
        }
    }
}
