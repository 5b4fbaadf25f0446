//! The transitions of the push machine; [`push`](crate::socket::push) draws it.

use crate::config::{Config, Unfit};
use crate::event::cause::{NotSentCause, PushOutcome, UnknownCause};
use crate::event::error::{PushError, PushErrorKind};
use crate::event::signal::Signal;
use crate::id::PushId;
use crate::socket::push::slab::{Group, Place, Pushes};
use crate::socket::push::{Push, PushOptions};
use crate::socket::{LaneItem, Socket};
use crate::time::Time;
use crate::topic::Topic;
use crate::wire::payload::Payload;

/// # Commands about pushes
impl Socket {
    /// Pushes an event to a wanted topic. Its one outcome follows as the signal `PushEnded`.
    ///
    /// Unless told to [fail fast](PushOptions::fail_fast), a push to a channel that is not
    /// joined at the moment waits for it, through disconnects and crashes too, until its
    /// timeout. Queued pushes are written in the order they were accepted, never before the
    /// join was answered.
    ///
    /// # Errors
    ///
    /// [`PushError`], with the payload handed back; nothing was queued.
    pub fn push(
        &mut self,
        now: Time,
        topic: &str,
        event: &str,
        payload: impl Into<Payload>,
        options: PushOptions,
    ) -> Result<PushId, PushError> {
        let now = self.advance(now);
        let payload = payload.into();
        let Some(want) = self.channels.get_mut(topic).and_then(|channel| channel.want.as_mut())
        else {
            return Err(PushError { kind: PushErrorKind::NotJoined, payload });
        };
        let instance = want.joined().map(|instance| instance.join_ref);
        let accepted = if options.fail_fast && instance.is_none() {
            Err(PushErrorKind::NotJoined)
        } else if matches!(event, "phx_join" | "phx_leave") {
            Err(PushErrorKind::ReservedEvent)
        } else {
            check_push(&self.config, &self.pushes, topic, event, &payload)
        };
        if let Err(kind) = accepted {
            return Err(PushError { kind, payload });
        }
        let group = want.pushes.get_or_insert_with(|| self.pushes.group(instance));
        let id = PushId(self.next_order);
        self.next_order += 1;
        let deadline = now + options.timeout.unwrap_or(self.config.push_timeout);
        let push = Push::queued(want.topic.clone(), payload, options);
        let place = self.pushes.insert(id, push, event, deadline, group);
        if let (Some(_), Some(live)) = (instance, &mut self.live) {
            live.lane.insert(id.0, LaneItem::Push(place));
        }
        Ok(id)
    }

    /// Withdraws a push. If it was written already, the server may still handle it; its reply
    /// then counts as late. Returns whether there was one to withdraw.
    pub fn cancel_push(&mut self, now: Time, id: PushId) -> bool {
        self.advance(now);
        match self.pushes.place(id) {
            Some(place) => self.end_push(place, |_| PushOutcome::Cancelled),
            None => false,
        }
    }
}

impl Socket {
    /// Ends a push with the one outcome it has, wherever it was.
    pub(in crate::socket) fn end_push(
        &mut self,
        place: Place,
        outcome: impl FnOnce(&Push) -> PushOutcome,
    ) -> bool {
        let Some((id, push)) = self.pushes.remove(place) else { return false };
        let outcome = outcome(&push);
        if let Some(live) = &mut self.live {
            match (push.written(), &outcome) {
                (None, _) => drop(live.lane.remove(id.0)),
                (Some(_), PushOutcome::Reply(_)) => {}
                (Some(msg_ref), _) => live.abandoned.add(msg_ref, push.topic.clone()),
            }
        }
        self.signal(Signal::PushEnded { id, topic: push.topic, outcome });
        true
    }

    /// Ends what was to be written at once or not at all: the channel is not joined any more.
    pub(in crate::socket) fn end_fail_fast(&mut self, topic: &Topic) {
        let Some(group) = self.wanted(topic).and_then(|want| want.pushes.clone()) else { return };
        let fast = |push: &Push| push.fail_fast && !push.is_written();
        self.end_members(&group, fast, |_| PushOutcome::NotSent(NotSentCause::Interrupted));
    }

    /// Ends what was written on an instance that is gone.
    pub(in crate::socket) fn end_written(&mut self, topic: &Topic, unknown: UnknownCause) {
        let Some(group) = self.wanted(topic).and_then(|want| want.pushes.clone()) else { return };
        self.end_members(&group, Push::is_written, |_| PushOutcome::Unknown(unknown));
    }

    /// Ends some of a group, in the order they were accepted.
    pub(in crate::socket) fn end_members(
        &mut self,
        group: &Group,
        which: impl Fn(&Push) -> bool,
        outcome: impl Fn(&Push) -> PushOutcome,
    ) {
        let members = self.pushes.members(group);
        let ending: Vec<Place> =
            members.filter(|(_, _, push)| which(push)).map(|(place, ..)| place).collect();
        for place in ending {
            self.end_push(place, &outcome);
        }
    }

    /// Ends a group, in the order its pushes were accepted.
    pub(in crate::socket) fn end_group(
        &mut self,
        group: Option<Group>,
        outcome: impl Fn(&Push) -> PushOutcome,
    ) {
        let Some(group) = group else { return };
        self.end_members(&group, |_| true, outcome);
        self.pushes.disband(group);
    }
}

/// Whether the push can be written, and there is room for it until it is.
#[inline]
fn check_push(
    config: &Config,
    pushes: &Pushes,
    topic: &str,
    event: &str,
    payload: &Payload,
) -> Result<(), PushErrorKind> {
    config.check_frame(topic, event, payload).map_err(|unfit| match unfit {
        Unfit::Encode(error) => PushErrorKind::Encode(error),
        Unfit::TooLarge { bytes, limit } => PushErrorKind::TooLarge { bytes, limit },
    })?;
    let queued_bytes = pushes.queued_bytes().saturating_add(payload.len());
    if pushes.queued() >= config.queued_pushes_max || queued_bytes > config.queued_bytes_max {
        return Err(PushErrorKind::QueueFull);
    }
    Ok(())
}
