//! Checks of pushes: the order in which they are written, and their outcomes.

use crate::event::cause::{NotSentCause, PushOutcome};
use crate::id::PushId;
use crate::socket::Status;
use crate::socket::fixpoint::checks::Checks;
use crate::socket::fixpoint::checks::channels::Instance;
use crate::socket::fixpoint::world::{Kind, Op, Said, Sent, TOPICS, World};
use crate::time::Time;

#[derive(Clone, Debug)]
pub(super) struct Accepted {
    pub(super) topic: u8,
    pub(super) kind: Kind,
    pub(super) deadline: Time,
    pub(super) written: Option<u64>,
}

impl Checks {
    pub(crate) fn pushed(&mut self, id: PushId, topic: u8, kind: Kind, deadline: Time) {
        assert!(self.pushes.keys().all(|known| *known < id), "ids grow");
        self.pushes.insert(id, Accepted { topic, kind, deadline, written: None });
    }

    /// Called when the driver polled the frame of a push to this instance.
    pub(super) fn push_written(&mut self, sent: Sent, instance: Instance, world: &World) {
        let socket = &world.socket;
        assert!(instance.confirmed, "before the join's ok: {sent:?}");
        assert!(!instance.surviving, "the instance is being replaced: {sent:?}");
        let mut waiting = self.pushes.iter_mut().filter(|(_, push)| push.written.is_none());
        let first = waiting.find(|(_, push)| push.topic == sent.topic);
        let (id, push) = first.expect("a push that is not written");
        assert_eq!(id.0, sent.push, "not the first of its channel");
        push.written = Some(sent.msg_ref);
        let in_flight = self.pushes.values().filter(|it| it.written.is_some());
        let calls = in_flight.filter(|it| it.kind != Kind::Cast).count();
        assert!(calls <= socket.config.pushes_in_flight_max.get(), "{self:?}");
    }

    pub(super) fn push_ended(&mut self, id: PushId, outcome: &PushOutcome, now: Time) {
        let push = self.pushes.remove(&id).unwrap_or_else(|| panic!("{id:?} ended: {outcome:?}"));
        let cast = push.kind == Kind::Cast;
        let closed = self.now.closed.iter().any(|it| *it == TOPICS[usize::from(push.topic)]);
        assert!(!closed || *outcome == PushOutcome::Written, "{id:?} ends behind its channel");
        let late = now >= push.deadline && self.now.op == Some(Op::Tick);
        let replied = match self.now.said {
            Some(Said::Reply { to, .. }) => push.written == Some(to.msg_ref),
            _ => false,
        };
        let written = push.written.is_some();
        let fits = match outcome {
            PushOutcome::Reply(_) => replied && !cast,
            PushOutcome::Written => written && cast,
            PushOutcome::TimedOut => written && late,
            PushOutcome::Unknown(_) => written && !cast,
            PushOutcome::NotSent(NotSentCause::TimedOut) => !written && late,
            PushOutcome::NotSent(NotSentCause::Encoding) => false,
            PushOutcome::NotSent(NotSentCause::Interrupted) => {
                !written && push.kind == Kind::FailFast
            }
            PushOutcome::NotSent(_) => !written,
            PushOutcome::Cancelled => self.now.op == Some(Op::Cancel),
        };
        assert!(fits, "{outcome:?} of {push:?} at {now}");
    }

    /// Checks the pushes without an outcome.
    pub(super) fn check_pushes(&self, world: &World) {
        let socket = &world.socket;
        let is_open = socket.status() == Status::Open;
        let stats = socket.stats();
        let in_flight = self.pushes.values().filter(|push| push.written.is_some()).count();
        assert_eq!((stats.pushes_in_flight, stats.queued_pushes), (in_flight, self.queued()));
        assert!(stats.queued_pushes <= socket.config.queued_pushes_max, "{stats:?}");
        assert!(in_flight <= socket.config.pushes_in_flight_max.get(), "{stats:?}");
        let sizes = socket.sizes();
        assert_eq!(
            (sizes.pushes, sizes.pushes_of_channels),
            (self.pushes.len(), self.pushes.len())
        );
        let casts = |push: &Accepted| push.kind == Kind::Cast && push.written.is_some();
        assert!(!self.pushes.values().any(casts), "{self:?}");
        if self.now.op == Some(Op::Tick) {
            assert!(self.pushes.values().all(|push| push.deadline > world.now), "{self:?}");
        }
        if let Some(Said::Reply { to, .. }) = self.now.said {
            let waits = |push: &Accepted| push.written == Some(to.msg_ref);
            assert!(!self.pushes.values().any(waits), "a reply is the outcome: {self:?}");
        }
        if is_open && world.is_writable() && !world.is_evaluating() {
            let full = in_flight == socket.config.pushes_in_flight_max.get();
            assert_eq!(sizes.due_frames, 0, "what is in the lane can be written: {sizes:?}");
            assert!(full || sizes.held_topics == 0, "{sizes:?}");
        }
    }
}
