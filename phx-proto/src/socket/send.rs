//! The choice and the encoding of the next frame to write.
//!
//! Frames are built when the driver polls them, and only while the transport accepts frames: first
//! heartbeats, then joins in the order of their requests, then the frames of channels in the
//! [lane](crate::socket::push::lane). So the core knows its backlog, a queued push can expire, and
//! no frame of a dead connection is left over.

use crate::config::Config;
use crate::config::join_params::ParamsPanicked;
use crate::event::action::Action;
use crate::event::applied::Supplied;
use crate::event::cause::{NotSentCause, PushOutcome};
use crate::event::stats::Stats;
use crate::event::ticket::JoinTicket;
use crate::id::{ConnectionId, Ref};
use crate::socket::Socket;
use crate::socket::connection::live::Live;
use crate::socket::push::lane::LaneItem;
use crate::socket::push::slab::{Due, EVENT_KEPT, Place};
use crate::socket::timer::{Timeout, TimerKind};
use crate::time::Time;
use crate::topic::{PHOENIX, Topic};
use crate::wire::payload::Payload;
use crate::wire::{EncodeError, Frame, Outgoing};

impl Socket {
    /// The next action; `None` when there is nothing to do at present.
    ///
    /// Actions other than frames come first, in order. Frames follow while the connection is open
    /// and [writable](Self::handle_writable). The number of channels and pushes bounds the number
    /// of actions that one input can cause. Poll after each input: actions that are not polled,
    /// messages included, stay in memory.
    ///
    /// If a function makes the parameters of a join, this method calls it;
    /// [`poll_step`](Self::poll_step) leaves that call to the caller.
    #[inline]
    pub fn poll_action(&mut self, now: Time) -> Option<Action> {
        let now = self.advance(now);
        match self.actions.pop_front() {
            Some(action) => Some(action),
            None => self.poll_frame(now),
        }
    }

    fn poll_frame(&mut self, now: Time) -> Option<Action> {
        loop {
            if let Some(action) = self.actions.pop_front() {
                return Some(action);
            }
            if !self.has_frames() {
                return None;
            }
            let action = match self.next_ticket() {
                Some(ticket) => self.evaluate_in_place(now, &ticket),
                None => self.pull(now),
            };
            if action.is_some() {
                return action;
            }
        }
    }

    #[cold]
    fn evaluate_in_place(&mut self, now: Time, ticket: &JoinTicket) -> Option<Action> {
        match self.supply_join(now, ticket, ticket.evaluate()) {
            Supplied::Join(join) => Some(join),
            Supplied::Ended | Supplied::Stale => None,
        }
    }

    /// Whether there is a frame to write, and the transport takes frames.
    #[inline]
    pub(super) fn has_frames(&self) -> bool {
        self.connection.live().is_some_and(|live| {
            !live.stall.is_blocked()
                && (live.lane.len() > 0
                    || live.heartbeat.is_owed()
                    || live.lane.held() > 0 && live.lane.is_ready(self.may_call())
                    || (self.channels.first_due().is_some() && self.has_slot(live)))
        })
    }

    /// Whether one more call may be in flight.
    #[inline]
    fn may_call(&self) -> bool {
        self.pushes.in_flight() < self.config.pushes_in_flight_max.get()
    }

    /// Whether `join_concurrency` and the join pace allow one more join now.
    pub(super) fn has_slot(&self, live: &Live) -> bool {
        live.joins().len() < self.config.join_concurrency.get() && self.pace_allows_join()
    }

    /// Whether the join pace allows a join now.
    pub(super) fn pace_allows_join(&self) -> bool {
        self.pace.next().is_none_or(|at| at <= self.now)
    }

    /// Takes the next frame; `None` if there is none, it cannot be encoded, or its push or channel
    /// has ended.
    #[inline]
    pub(super) fn pull(&mut self, now: Time) -> Option<Action> {
        let live = self.connection.live()?;
        let id = live.id;
        if live.heartbeat.is_owed() {
            return self.pull_heartbeat(now, id);
        }
        if let Some((_, topic)) = self.channels.first_due().filter(|_| self.has_slot(live)) {
            let topic = topic.clone();
            return self.pull_join(now, id, &topic);
        }
        let may_call = self.may_call();
        match self.connection.live_mut()?.lane.pop(&self.pushes, may_call)? {
            LaneItem::Push(place) => self.pull_push(id, place),
            LaneItem::Leave(topic, join_ref) => self.pull_leave(id, &topic, join_ref),
        }
    }

    /// Whether [`poll_action`](Self::poll_action) returns something other than a frame next.
    ///
    /// A driver whose transport is busy polls with `while socket.has_actions()`, so that frames
    /// stay in the socket, where they can still be cancelled or expire.
    #[inline]
    #[must_use]
    pub fn has_actions(&self) -> bool {
        !self.actions.is_empty()
    }

    /// The time to call [`handle_timeout`](Self::handle_timeout) next, and the kind of the
    /// deadline.
    ///
    /// While actions other than frames are queued, the time is now. Queued frames do not affect it,
    /// because otherwise a driver would spin while its transport is blocked. Every command, input
    /// and `poll_action` may change the result.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Timeout> {
        if !self.actions.is_empty() {
            return Some(Timeout { at: self.now, kind: TimerKind::Actions });
        }
        self.next_deadline()
    }

    fn pull_heartbeat(&mut self, now: Time, id: ConnectionId) -> Option<Action> {
        let msg_ref = self.mint_ref();
        // The heartbeat is marked as written even if the codec cannot encode it. Then no reply
        // comes, and the connection times out.
        self.connection.live_mut()?.heartbeat.written(msg_ref, now);
        // Protocol: HB-1.
        let frame = self.encode(None, msg_ref, PHOENIX, "heartbeat", Payload::empty()).ok()?;
        Some(Action::Send { id, frame })
    }

    fn pull_join(&mut self, now: Time, id: ConnectionId, topic: &Topic) -> Option<Action> {
        // Parameters that are made by a function do not reach this code: the caller handles them
        // with a ticket.
        let params = self.wanted(topic)?.params.fixed()?.clone();
        self.write_join(now, id, topic, Ok(params))
    }

    /// Writes the frame of a due join with these parameters; `None` when they cannot be sent.
    pub(super) fn write_join(
        &mut self,
        now: Time,
        id: ConnectionId,
        topic: &Topic,
        params: Result<Payload, ParamsPanicked>,
    ) -> Option<Action> {
        let checked = params.map_err(|error| error.to_string()).and_then(|params| {
            self.check_join(topic, &params).map_err(|error| error.to_string())?;
            Ok(params)
        });
        // Protocol: REF-2.
        let join_ref = self.mint_ref();
        let encoded = checked.and_then(|params| {
            // Protocol: JOIN-1, JOIN-14, REF-3.
            self.encode(Some(join_ref), join_ref, topic, "phx_join", params)
                .map_err(|error| error.to_string())
        });
        match encoded {
            Ok(frame) => {
                self.join_written(now, topic, join_ref);
                Some(Action::Join { id, topic: topic.clone(), frame })
            }
            Err(message) => {
                self.end_unsendable(now, topic, message);
                None
            }
        }
    }

    /// Writes a push of the lane. Its instance is joined or being left.
    #[inline]
    fn pull_push(&mut self, id: ConnectionId, place: Place) -> Option<Action> {
        let msg_ref = self.mint_ref();
        let Due { join_ref, topic, event, payload, cast } = self.pushes.write(place, msg_ref)?;
        // Protocol: PUSH-1, REF-5.
        let message = Outgoing { join_ref, msg_ref, topic, event, payload };
        let is_long = event.len() > EVENT_KEPT;
        let frame = encode(&self.config, &mut self.stats, message);
        if cast && frame.is_ok() {
            self.end_unheld(place, |_| PushOutcome::Written);
        } else if frame.is_err() {
            self.end_push(place, |_| PushOutcome::NotSent(NotSentCause::Encoding));
        } else if is_long {
            self.pushes.framed(place);
        }
        Some(Action::Send { id, frame: frame.ok()? })
    }

    /// Writes a leave, even if it has timed out, because the server still holds the channel. After a
    /// later join of the topic, the server would ignore the leave (`wire/leave_wrong_join_ref`), so that
    /// join removes it from the lane.
    fn pull_leave(&mut self, id: ConnectionId, topic: &Topic, join_ref: Ref) -> Option<Action> {
        let msg_ref = self.mint_ref();
        if let Some(live) = self.connection.live_mut() {
            live.lane.settle_late_leave(topic);
        }
        self.channels.change(topic, |channel| channel.leave_written(join_ref, msg_ref));
        let frame =
            // Protocol: LEAVE-1, REF-5.
            self.encode(Some(join_ref), msg_ref, topic, "phx_leave", Payload::empty()).ok()?;
        Some(Action::Send { id, frame })
    }

    fn encode(
        &mut self,
        join_ref: Option<Ref>,
        msg_ref: Ref,
        topic: &str,
        event: &str,
        payload: Payload,
    ) -> Result<Frame, EncodeError> {
        let message = Outgoing { join_ref, msg_ref, topic, event, payload };
        encode(&self.config, &mut self.stats, message)
    }
}

#[inline]
fn encode(config: &Config, stats: &mut Stats, message: Outgoing<'_>) -> Result<Frame, EncodeError> {
    let frame = config.codec.encode(message)?;
    stats.frames_out += 1;
    stats.bytes_out += frame.len() as u64;
    Ok(frame)
}
