//! Invariants. Each has its own checker, which runs after every step.

mod channels;
mod connection;
mod delays;
mod pushes;

use phx_proto::{Action, Socket, Time};

use super::Setup;
use super::peer::Sent;
use super::setup::Policy;
use super::world::Called;

/// The state that a checker can see in addition to the events.
#[derive(Debug)]
pub struct Moment<'a> {
    /// The latest time that was passed to the socket.
    pub now: Time,
    /// The socket after the event.
    pub socket: &'a Socket,
    pub setup: &'a Setup,
    pub policy: &'a Policy,
    /// Whether every action that was decided has been polled.
    pub drained: bool,
    /// Whether the last poll returned no action.
    pub dry: bool,
    /// Whether the transport accepts frames, according to the last report to the socket.
    pub writable: bool,
}

/// Checks one invariant, and panics if it does not hold.
pub trait Checker {
    /// A command or an input was applied. The actions that it caused follow.
    fn called(&mut self, _called: &Called, _at: &Moment<'_>) {}
    /// An action other than a frame was decided. It may be polled much later.
    fn decided(&mut self, _action: &Action, _at: &Moment<'_>) {}
    /// A frame was polled.
    fn written(&mut self, _sent: &Sent, _at: &Moment<'_>) {}
    /// The step has ended.
    fn settled(&mut self, _at: &Moment<'_>) {}
}

/// All checkers.
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
