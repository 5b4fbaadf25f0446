//! The dispatch of incoming frames.
//!
//! A frame is matched by topic, then by instance. In vsn 2 the join_ref names the instance.
//! `phx_close` and `phx_error` repeat it in their ref, which is the only ref in vsn 1. Replies are
//! matched by ref, never by join_ref, because the join_ref is null on heartbeat replies and on
//! "unmatched topic" (`wire/push_unjoined_topic`).

use core::borrow::Borrow;
use std::collections::VecDeque;

use crate::event::action::Action;
use crate::event::cause::{
    Cause, ChannelEnd, Interruption, LeaveOutcome, NotSentCause, PushOutcome, Reply, UnknownCause,
};
use crate::event::signal::Signal;
use crate::id::{ConnectionId, Ref};
use crate::socket::Socket;
use crate::socket::channel::InstanceKind;
use crate::socket::channel::commands::reason_of;
use crate::socket::push::slab::Place;
use crate::time::Time;
use crate::topic::{PHOENIX, Topic};
use crate::wire::payload::Payload;
use crate::wire::{Body, ByteStr, DecodeError, Frame, Incoming, WireRef, check_strict};

impl Socket {
    /// Handles a frame that arrived on connection `id`.
    ///
    /// An invalid frame is reported by the signal `ProtocolError` and skipped. A frame over
    /// [`Config::max_message_bytes`](crate::Config::max_message_bytes) ends the connection with
    /// close code 1009.
    ///
    /// A payload is a slice of the frame's memory. A driver that keeps its socket behind a lock
    /// passes a reference and drops the frame after it has released the lock.
    #[inline]
    pub fn handle_frame(&mut self, now: Time, id: ConnectionId, frame: impl Borrow<Frame>) {
        if let Some(signal) = self.frame_received(now, id, frame.borrow()) {
            self.signal(signal);
        }
    }

    /// Handles a frame as [`handle_frame`](Self::handle_frame) does, and polls the next action as
    /// [`poll_action`](Self::poll_action) does, but returns no frames to write.
    ///
    /// A received message or reply usually causes one action. This method returns it without queueing
    /// it, which saves a driver of many messages some time. Poll the further actions as usual.
    #[inline]
    pub fn handle_frame_and_poll(
        &mut self,
        now: Time,
        id: ConnectionId,
        frame: impl Borrow<Frame>,
    ) -> Option<Action> {
        match self.frame_received(now, id, frame.borrow()) {
            Some(signal) if self.actions.is_empty() => return Some(Action::Signal(signal)),
            Some(signal) => self.signal(signal),
            None => {}
        }
        self.actions.pop_front()
    }

    /// Handles a frame. Returns the last signal that it causes if that is a message or the end of a
    /// push; the caller queues that signal behind the other actions.
    fn frame_received(&mut self, now: Time, id: ConnectionId, frame: &Frame) -> Option<Signal> {
        let now = self.advance(now);
        // Protocol: RETRY-4.
        if self.connection.live().is_none_or(|live| live.id != id) {
            self.stats.stale_inputs += 1;
            return None;
        }
        self.stats.frames_in += 1;
        self.stats.last_frame_at = Some(now);
        self.stats.bytes_in += frame.len() as u64;
        let limit = self.config.max_message_bytes;
        if frame.len() > limit {
            self.close_connection(now, 1009, Cause::MessageTooLarge { limit });
            return None;
        }
        match self.decode(frame) {
            Ok(message) => self.receive(now, message),
            Err(error) => {
                self.stats.protocol_errors += 1;
                self.signal(Signal::ProtocolError { error });
                None
            }
        }
    }

    fn decode(&self, frame: &Frame) -> Result<Incoming, DecodeError> {
        let message = self.config.codec.decode(frame)?;
        if self.config.strict_payloads {
            check_strict(&message)?;
        }
        Ok(message)
    }

    fn receive(&mut self, now: Time, message: Incoming) -> Option<Signal> {
        let Incoming { join_ref, msg_ref, topic, body } = message;
        match body {
            Body::Reply { status, response } => {
                let reply = Reply { status, response };
                let WireRef::Ref(msg_ref) = msg_ref else {
                    self.stats.stale_frames += 1;
                    return None;
                };
                // Fast path: nearly every reply answers a push. A ref is used for only one frame,
                // so the reply cannot belong to a join or a leave too.
                let next_ref = self.next_ref;
                if let Some(live) = self.connection.live_mut().filter(|_| msg_ref.0 < next_ref) {
                    live.ledger.answered(msg_ref);
                }
                // Protocol: REPLY-1.
                match self.answered(&topic, msg_ref) {
                    Some(place) => self.push_answered(now, &topic, join_ref, msg_ref, place, reply),
                    None => {
                        self.receive_reply(now, &topic, join_ref, msg_ref, reply);
                        None
                    }
                }
            }
            Body::Event { event, payload } => {
                let named = match (join_ref, msg_ref) {
                    (WireRef::Ref(join_ref), _) => Some(Some(join_ref)),
                    // In vsn 1 only close and error have a ref, which is the join_ref.
                    // Protocol: V1-4.
                    (WireRef::Null, WireRef::Ref(msg_ref)) => Some(Some(msg_ref)),
                    // Protocol: END-7.
                    (WireRef::Null, WireRef::Null) => Some(None),
                    (WireRef::Foreign, _) | (WireRef::Null, WireRef::Foreign) => None,
                };
                match (named, event.as_bytes()) {
                    (Some(named), b"phx_close") => self.receive_close(now, &topic, named),
                    (Some(named), b"phx_error") => {
                        self.receive_error(now, &topic, named, payload);
                    }
                    // Protocol: END-4.
                    // If this client cannot have minted the ref, the frame belongs to none of its
                    // instances.
                    (None, b"phx_close" | b"phx_error") => self.stats.stale_frames += 1,
                    _ => return self.receive_message(&topic, join_ref, event, payload),
                }
                None
            }
        }
    }

    fn receive_reply(
        &mut self,
        now: Time,
        topic: &str,
        join_ref: WireRef,
        msg_ref: Ref,
        reply: Reply,
    ) {
        let Some(live) = self.connection.live_mut() else { return };
        if topic == PHOENIX {
            // Protocol: HB-5.
            match live.heartbeat.answered(msg_ref, now, &live.ledger) {
                Some(rtt) => {
                    self.stats.last_rtt = Some(rtt);
                    live.abandoned.drop_before(msg_ref);
                    self.signal(Signal::HeartbeatAcked { rtt });
                    self.check_overdue_join(now);
                }
                None => self.stats.late_replies += 1,
            }
            return;
        }
        // Protocol: JOIN-4.
        if live.joins().is_unanswered(msg_ref, topic) {
            self.pace.answered();
            if let Some(join) = live.join_ended(msg_ref, now) {
                if reply.status == *"ok" {
                    self.stats.last_join = Some(now.since(join.written));
                }
            }
            // The queue is usually longest when a connection opens, so its capacity is freed after that.
            if self.actions.is_empty() {
                self.actions = VecDeque::new();
            }
            self.receive_join_reply(now, topic, msg_ref, reply);
            return;
        }
        let leave_ref = self
            .channels
            .get(topic)
            .and_then(|channel| channel.leaving.as_ref())
            .and_then(|leaving| leaving.leave_ref);
        // Protocol: LEAVE-2.
        if leave_ref == Some(msg_ref) {
            self.leave_ended(&Topic::from(topic), LeaveOutcome::Acked);
            return;
        }
        // Protocol: REPLY-4.
        self.stats.late_replies += 1;
        let was_push = live.abandoned.take(msg_ref, topic);
        if was_push && join_ref == WireRef::Null && self.finds_no_channel(topic, msg_ref, &reply) {
            self.channel_unmatched(now, topic);
        }
    }

    /// The place of the push that was written under this ref to this topic.
    fn answered(&self, topic: &ByteStr, msg_ref: Ref) -> Option<Place> {
        let place = self.pushes.by_ref(msg_ref)?;
        let (_, push) = self.pushes.get(place)?;
        (push.topic.as_bytes() == topic.as_bytes()).then_some(place)
    }

    fn push_answered(
        &mut self,
        now: Time,
        topic: &ByteStr,
        join_ref: WireRef,
        msg_ref: Ref,
        place: Place,
        reply: Reply,
    ) -> Option<Signal> {
        let lost = join_ref == WireRef::Null && self.finds_no_channel(topic, msg_ref, &reply);
        // Protocol: MSG-9, REPLY-2.
        let ended = self.take_unheld(place, |_| PushOutcome::Reply(reply))?;
        if lost {
            self.signal(ended);
            self.channel_unmatched(now, topic.as_str());
            return None;
        }
        Some(ended)
    }

    /// Called when the server replies that it has no channel for a push that was written on the
    /// joined instance. In vsn 1 the reply has no join_ref, so it may also come from the
    /// application's channel, with the same reason. So in vsn 1 this has an effect at most once in
    /// `stable_after`.
    fn channel_unmatched(&mut self, now: Time, topic: &str) {
        let (certain, stable_after) = (self.config.codec.names_joins(), self.config.stable_after);
        let counts = self.change_want(topic, |want| {
            let repeated = want.unmatched_at.is_some_and(|at| now.since(at) < stable_after);
            // Protocol: V1-7.
            let counts = certain || !repeated;
            if counts {
                want.unmatched_at = Some(now);
            }
            counts
        });
        if counts != Some(true) {
            return;
        }
        self.channel_crashed(now, &Topic::from(topic), Interruption::Unmatched);
    }

    fn receive_join_reply(&mut self, now: Time, topic: &str, join_ref: Ref, reply: Reply) {
        let ok = reply.status == *"ok";
        match self.instance(topic, Some(join_ref)) {
            // Protocol: JOIN-2, JOIN-10.
            Some(InstanceKind::Joining(_)) if ok => {
                self.joined(now, &Topic::from(topic), join_ref, reply.response);
            }
            Some(InstanceKind::Joining(_)) => {
                self.join_refused(now, &Topic::from(topic), reply.response);
            }
            // The channel was left before the join was answered. An error means that there is no
            // instance to leave; after an ok, the server will answer the leave.
            Some(InstanceKind::Leaving) if !ok => {
                self.leave_ended(&Topic::from(topic), LeaveOutcome::Acked);
            }
            // Protocol: LEAVE-8.
            Some(InstanceKind::Leaving) => {}
            Some(InstanceKind::Joined(_) | InstanceKind::Surviving) | None => {
                self.stats.stale_frames += 1;
            }
        }
    }

    /// Whether a reply with a null join_ref to a push means that the server has no channel for
    /// `topic`, although this client regards it as joined. Refs increase, so a push with a ref
    /// above that of the join was sent with the current join_ref.
    fn finds_no_channel(&self, topic: &str, msg_ref: Ref, reply: &Reply) -> bool {
        // Protocol: REPLY-7.
        reply.status == *"error"
            && matches!(
                self.instance(topic, None),
                Some(InstanceKind::Joined(current)) if msg_ref > current
            )
            && reason_of(&reply.response).as_deref() == Some("unmatched topic")
    }

    fn receive_close(&mut self, now: Time, topic: &str, named: Option<Ref>) {
        let topic = Topic::from(topic);
        match self.instance(&topic, named) {
            // Protocol: LEAVE-2.
            Some(InstanceKind::Leaving) => self.leave_ended(&topic, LeaveOutcome::Acked),
            Some(
                kind @ (InstanceKind::Joined(_)
                | InstanceKind::Joining(_)
                | InstanceKind::Surviving),
            ) => {
                self.join_is_over(now, kind);
                // Protocol: END-1.
                self.end_want(
                    &topic,
                    ChannelEnd::ClosedByServer,
                    UnknownCause::ChannelClosed,
                    NotSentCause::ChannelClosed,
                );
            }
            None => self.stats.stale_frames += 1,
        }
    }

    /// Stops the clock of a join whose channel ended before the join was answered.
    fn join_is_over(&mut self, now: Time, kind: InstanceKind) {
        if let (InstanceKind::Joining(join_ref), Some(live)) = (kind, self.connection.live_mut()) {
            live.join_ended(join_ref, now);
        }
    }

    fn receive_error(&mut self, now: Time, topic: &str, named: Option<Ref>, payload: Payload) {
        let topic = Topic::from(topic);
        match self.instance(&topic, named) {
            Some(InstanceKind::Leaving) => self.leave_ended(&topic, LeaveOutcome::Acked),
            Some(kind @ (InstanceKind::Joined(_) | InstanceKind::Joining(_))) => {
                self.join_is_over(now, kind);
                self.signal(Signal::Errored { topic: topic.clone(), payload });
                // Protocol: END-2, END-3, END-5.
                self.channel_crashed(now, &topic, Interruption::Crashed);
            }
            Some(InstanceKind::Surviving) => {
                // The server has ended the instance, so there is none to leave. The rejoin is
                // already scheduled.
                self.channels.change(&topic, |channel| channel.survivor_ended());
            }
            None => self.stats.stale_frames += 1,
        }
    }

    /// The instance of `topic` with this join_ref, whether it is wanted or being left.
    fn instance(&self, topic: &str, join_ref: Option<Ref>) -> Option<InstanceKind> {
        self.channels.get(topic)?.instance(join_ref)
    }

    fn receive_message(
        &mut self,
        topic: &ByteStr,
        join_ref: WireRef,
        event: ByteStr,
        payload: Payload,
    ) -> Option<Signal> {
        let Some((topic, channel)) = self.channels.get_key_value(topic) else {
            self.receive_unrouted(topic, join_ref, event, payload);
            return None;
        };
        let joined = channel.want.as_ref().and_then(|want| want.joined());
        let current = match (joined, join_ref) {
            (None, _) => {
                // Protocol: EVENT-5.
                self.stats.messages_not_joined += 1;
                return None;
            }
            // Protocol: EVENT-2, REF-8.
            // A broadcast has no join_ref (`wire/broadcast_text`).
            (Some(_), WireRef::Null) => true,
            // Protocol: EVENT-1, REF-7.
            (Some(instance), WireRef::Ref(join_ref)) => instance.join_ref == join_ref,
            (Some(_), WireRef::Foreign) => false,
        };
        if !current {
            self.stats.stale_frames += 1;
            return None;
        }
        let topic = topic.clone();
        self.stats.messages += 1;
        // Protocol: EVENT-3, EVENT-4.
        Some(Signal::Message { topic, event, payload })
    }

    /// Handles a message on a topic without a channel.
    #[inline(never)]
    fn receive_unrouted(
        &mut self,
        topic: &str,
        join_ref: WireRef,
        event: ByteStr,
        payload: Payload,
    ) {
        let has_ended = self.connection.live().is_some_and(|live| live.ended.contains(topic));
        // Protocol: EVENT-6.
        let unrouted = !has_ended && join_ref == WireRef::Null && !event.starts_with("phx_");
        if unrouted && self.reports_unrouted {
            self.stats.messages += 1;
            self.signal(Signal::Unrouted { topic: topic.into(), event, payload });
            return;
        }
        self.stats.messages_not_joined += 1;
        self.stats.messages_unrouted += u64::from(unrouted);
    }
}
