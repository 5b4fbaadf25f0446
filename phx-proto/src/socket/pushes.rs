//! The transitions of the push machine; [`push`](crate::push) draws it.

use super::{LaneItem, Socket};
use crate::cause::{NotSentCause, PushOutcome};
use crate::error::{PushError, PushErrorKind};
use crate::id::PushId;
use crate::payload::Payload;
use crate::push::{Push, PushOptions};
use crate::signal::Signal;
use crate::time::Time;
use crate::timer::TimerKey;
use crate::topic::Topic;

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
        if let Err(kind) = self.check_push(topic, event, &payload, options) {
            return Err(PushError { kind, payload });
        }
        let Some((topic, joined)) =
            self.channels.get_key_value(topic).and_then(|(topic, channel)| {
                Some((topic.clone(), channel.want.as_ref()?.joined().is_some()))
            })
        else {
            return Err(PushError { kind: PushErrorKind::NotJoined, payload });
        };
        let id = PushId(self.mint_order());
        let timeout = options.timeout.unwrap_or(self.config.push_timeout);
        self.timers.arm(TimerKey::Push(id), now + timeout);
        if let Some(want) = self.wanted_mut(&topic) {
            want.queued.insert(id, ());
        }
        self.pushes.insert(id, topic, event, payload, options);
        if let (true, Some(live)) = (joined, &mut self.live) {
            live.lane.insert(id.0, LaneItem::Push(id));
        }
        Ok(id)
    }

    /// Withdraws a push. If it was written already, the server may still handle it; its reply
    /// then counts as late. Returns whether there was one to withdraw.
    pub fn cancel_push(&mut self, now: Time, id: PushId) -> bool {
        self.advance(now);
        self.end_push(id, |_| PushOutcome::Cancelled)
    }
}

impl Socket {
    fn check_push(
        &self,
        topic: &str,
        event: &str,
        payload: &Payload,
        options: PushOptions,
    ) -> Result<(), PushErrorKind> {
        let want = self.wanted(topic).ok_or(PushErrorKind::NotJoined)?;
        if options.fail_fast && want.joined().is_none() {
            return Err(PushErrorKind::NotJoined);
        }
        if matches!(event, "phx_join" | "phx_leave") {
            return Err(PushErrorKind::ReservedEvent);
        }
        let (config, serializer) = (&self.config, &self.config.serializer);
        serializer.check(topic, event, payload)?;
        let bytes = payload.len().saturating_add(serializer.max_envelope_len(topic, event));
        if bytes > config.max_push_bytes {
            return Err(PushErrorKind::TooLarge { bytes, limit: config.max_push_bytes });
        }
        let queued_bytes = self.pushes.queued_bytes().saturating_add(payload.len());
        if self.pushes.queued() >= config.queued_pushes_max
            || queued_bytes > config.queued_bytes_max
        {
            return Err(PushErrorKind::QueueFull);
        }
        Ok(())
    }

    /// Ends a push with the one outcome it has, wherever it was.
    pub(super) fn end_push(
        &mut self,
        id: PushId,
        outcome: impl FnOnce(&Push) -> PushOutcome,
    ) -> bool {
        let Some(push) = self.pushes.remove(id) else { return false };
        self.timers.disarm(&TimerKey::Push(id));
        if let (false, Some(live)) = (push.is_written(), &mut self.live) {
            live.lane.remove(id.0);
        }
        if let Some(channel) = self.channels.get_mut(&push.topic) {
            if let Some(want) = &mut channel.want {
                want.queued.remove(id);
                if let Some(instance) = want.joined_mut() {
                    instance.in_flight.remove(id);
                }
            }
            if let Some(leaving) = &mut channel.leaving {
                leaving.queued.remove(id);
                leaving.in_flight.remove(id);
            }
        }
        let outcome = outcome(&push);
        self.signal(Signal::PushEnded { id, topic: push.topic, outcome });
        true
    }

    /// Ends what was to be written at once or not at all: the channel is not joined any more.
    pub(super) fn end_fail_fast(&mut self, topic: &Topic) {
        let Some(want) = self.wanted(topic) else { return };
        let is_fast = |id: &PushId| self.pushes.get(*id).is_some_and(|push| push.fail_fast);
        let fast: Vec<PushId> = want.queued.keys().filter(is_fast).collect();
        self.end_pushes(fast, |_| PushOutcome::NotSent(NotSentCause::Interrupted));
    }

    /// Ends several pushes, in the order they were accepted.
    pub(super) fn end_pushes(
        &mut self,
        ids: impl IntoIterator<Item = PushId>,
        outcome: impl Fn(&Push) -> PushOutcome,
    ) {
        let mut ids: Vec<PushId> = ids.into_iter().collect();
        ids.sort_unstable();
        for id in ids {
            self.end_push(id, &outcome);
        }
    }
}
