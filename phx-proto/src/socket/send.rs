//! Which frame is next.
//!
//! Frames are built when they are pulled, and only while the transport takes them: heartbeat
//! first, then joins in the order they were asked for, then what channels have to say in the
//! order it was accepted (a leave behind the pushes before it). So the core knows its backlog,
//! can expire a queued push, and forgets what belonged to a dead connection. Calls beyond
//! `pushes_in_flight_max` are set aside in [`held`](crate::socket::push::held), and nothing else waits
//! for them.

use super::{LaneItem, Live, Socket};
use crate::config::Config;
use crate::config::join_params::ParamsPanicked;
use crate::event::action::Action;
use crate::event::applied::Supplied;
use crate::event::cause::{NotSentCause, PushOutcome};
use crate::event::stats::Stats;
use crate::event::ticket::JoinTicket;
use crate::id::{ConnectionId, Ref};
use crate::socket::push::slab::{Due, EVENT_KEPT, Place};
use crate::socket::timer::{Timeout, TimerKey, TimerKind};
use crate::time::Time;
use crate::topic::{PHOENIX, Topic};
use crate::wire::payload::Payload;
use crate::wire::{EncodeError, Frame, Outgoing};

impl Socket {
    /// What to do next; none when there is nothing more for now.
    ///
    /// Everything but frames comes first and in order. Frames follow while the connection is
    /// open and [writable](Self::handle_writable). The number of actions that one input can
    /// cause is bounded by the number of channels and pushes there are. Poll after each input: what is not
    /// polled waits here, messages included.
    ///
    /// A function of join parameters is called in here; [`poll_step`](Self::poll_step) leaves that
    /// to the caller.
    pub fn poll_action(&mut self, now: Time) -> Option<Action> {
        let now = self.advance(now);
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

    /// Whether there is a frame to write and a transport that takes it.
    #[inline]
    pub(super) fn has_frames(&self) -> bool {
        self.live.as_ref().is_some_and(|live| {
            live.writable
                && (live.lane.len() > 0
                    || live.heartbeat.is_owed()
                    || !live.held.is_empty() && live.held.next(self.may_call()).is_some()
                    || (!live.due_joins.is_empty() && self.has_slot(live)))
        })
    }

    /// Whether one more call may be in flight.
    #[inline]
    fn may_call(&self) -> bool {
        self.pushes.in_flight() < self.config.pushes_in_flight_max.get()
    }

    /// Whether one more join may be unanswered, and may be written already.
    pub(super) fn has_slot(&self, live: &Live) -> bool {
        live.joins.len() < self.config.join_concurrency.get() && self.is_paced_in()
    }

    /// Whether the pace of joins lets one more be written now.
    pub(super) fn is_paced_in(&self) -> bool {
        self.pace.next().is_none_or(|at| at <= self.now)
    }

    /// Takes the next frame; none when what wanted to write it could not or has ended.
    pub(super) fn pull(&mut self, now: Time) -> Option<Action> {
        let live = self.live.as_ref()?;
        let id = live.id;
        if live.heartbeat.is_owed() {
            return self.pull_heartbeat(now, id);
        }
        if !live.due_joins.is_empty() && self.has_slot(live) {
            if let Some((order, topic)) = live.due_joins.first().cloned() {
                return self.pull_join(now, id, order, topic);
            }
        }
        match self.next_item()? {
            LaneItem::Push(place) => self.pull_push(id, place),
            LaneItem::Leave(topic, join_ref) => self.pull_leave(id, &topic, join_ref),
        }
    }

    /// The next frame of a channel; none when it has to be held back, or there is none.
    #[inline]
    fn next_item(&mut self) -> Option<LaneItem> {
        let may_call = self.may_call();
        let live = self.live.as_mut()?;
        if may_call && live.held.is_empty() {
            return live.lane.pop_first().map(|(_, item)| item);
        }
        self.next_beside_held(may_call)
    }

    #[cold]
    fn next_beside_held(&mut self, may_call: bool) -> Option<LaneItem> {
        let live = self.live.as_mut()?;
        if let Some((order, place)) = live.held.next(may_call) {
            if live.lane.first().is_none_or(|(first, _)| order <= first) {
                // It may not have come to the front of the lane yet.
                live.lane.remove(order);
                let (group, next) = (self.pushes.group_of(place), self.pushes.behind(place));
                live.held.follow(group, order, next);
                return Some(LaneItem::Push(place));
            }
        }
        let (order, item) = live.lane.pop_first()?;
        match item {
            LaneItem::Push(place) if self.hold_back(order, place) => None,
            item => Some(item),
        }
    }

    /// Whether [`poll_action`](Self::poll_action) returns something other than a frame next.
    ///
    /// A driver whose transport is busy takes what it can act on with `while socket.has_actions()`, and
    /// leaves the frames where they can still be cancelled or expire.
    #[inline]
    #[must_use]
    pub fn has_actions(&self) -> bool {
        !self.actions.is_empty()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next, and for what.
    ///
    /// It is "now" while actions other than frames wait, and never because of frames: a blocked
    /// transport must not make a driver spin. Every command, input and `poll_action` may change
    /// the answer.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Timeout> {
        if !self.actions.is_empty() {
            return Some(Timeout { at: self.now, kind: TimerKind::Actions });
        }
        self.next_deadline()
    }

    fn pull_heartbeat(&mut self, now: Time, id: ConnectionId) -> Option<Action> {
        let msg_ref = self.mint_ref();
        // Written or not: a codec that cannot write heartbeats has a dead connection.
        self.live.as_mut()?.heartbeat.written(msg_ref, now);
        let frame = self.encode(None, msg_ref, PHOENIX, "heartbeat", Payload::empty()).ok()?;
        Some(Action::Send { id, frame })
    }

    fn pull_join(
        &mut self,
        now: Time,
        id: ConnectionId,
        order: u64,
        topic: Topic,
    ) -> Option<Action> {
        // One whose parameters a function makes has a ticket.
        match self.wanted(&topic).and_then(|want| want.params.fixed()).cloned() {
            Some(params) => self.write_join(now, id, order, &topic, Ok(params)),
            None => {
                self.live.as_mut()?.join_settled(order, &topic);
                None
            }
        }
    }

    /// The frame of a due join with these parameters; none when they cannot be sent.
    pub(super) fn write_join(
        &mut self,
        now: Time,
        id: ConnectionId,
        order: u64,
        topic: &Topic,
        params: Result<Payload, ParamsPanicked>,
    ) -> Option<Action> {
        let checked = params.map_err(|error| error.to_string()).and_then(|params| {
            self.check_join(topic, &params).map_err(|error| error.to_string())?;
            Ok(params)
        });
        self.live.as_mut()?.join_settled(order, topic);
        let join_ref = self.mint_ref();
        let encoded = checked.and_then(|params| {
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

    /// What is in the lane is of an instance that is joined, or being left.
    #[inline]
    fn pull_push(&mut self, id: ConnectionId, place: Place) -> Option<Action> {
        let msg_ref = self.mint_ref();
        let Due { join_ref, topic, event, payload, cast } = self.pushes.write(place, msg_ref)?;
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

    /// A leave that could not be written in time is written all the same: the server still holds
    /// the channel. To a later instance it means nothing (`wire/leave_wrong_join_ref`).
    fn pull_leave(&mut self, id: ConnectionId, topic: &Topic, join_ref: Ref) -> Option<Action> {
        let msg_ref = self.mint_ref();
        let leaving = self.channels.get_mut(topic).and_then(|channel| channel.leaving.as_mut());
        if let Some(leaving) = leaving.filter(|leaving| leaving.join_ref == join_ref) {
            leaving.leave_ref = Some(msg_ref);
        }
        let frame =
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

    /// Arms the deadlines of the heartbeat machine as they are now.
    pub(super) fn rearm_heartbeat(&mut self) {
        let Some(live) = &mut self.live else { return };
        // While a join is unanswered the verdict belongs to the join clock.
        if live.joins.is_empty() {
            live.heartbeat.resume(self.now, &live.ledger);
        } else {
            live.heartbeat.suspend();
        }
        let deadlines = [
            (TimerKey::HeartbeatDue, live.heartbeat.next_due()),
            (TimerKey::HeartbeatReply, live.heartbeat.deadline(&live.ledger)),
        ];
        for (key, at) in deadlines {
            match at {
                Some(at) => self.timers.arm(key, at),
                None => self.timers.disarm(&key),
            }
        }
    }

    /// Arms the deadlines of the join clock as they are now, and with them the heartbeat's.
    pub(super) fn rearm_join_clock(&mut self) {
        self.timers.disarm(&TimerKey::JoinClock);
        self.timers.disarm(&TimerKey::JoinBlock);
        if let Some(live) = &self.live {
            let (key, limit) = match live.joins.is_overdue() {
                true => (TimerKey::JoinBlock, self.config.join_block_max),
                false => (TimerKey::JoinClock, self.config.join_timeout),
            };
            if let Some(at) = live.joins.deadline(limit, &live.ledger) {
                self.timers.arm(key, at);
            }
        }
        self.rearm_heartbeat();
        self.rearm_write_stall();
    }

    /// Arms the deadline of a transport that takes no frame. With heartbeats on there is none: a
    /// heartbeat that cannot be written has one of its own. Nor while a join is unanswered: a server
    /// that runs one does not read, and the time begins again after it.
    pub(super) fn rearm_write_stall(&mut self) {
        let running = self.timers.is_armed(&TimerKey::WriteStall);
        let off = self.config.heartbeat_interval.is_zero();
        let live = self.live.as_mut().filter(|live| off && live.joins.is_empty());
        let at = live.and_then(|live| {
            let (since, written) = live.stalled.as_mut()?;
            if !running {
                (*since, *written) = (self.now, live.ledger.written());
            }
            let bought = live.ledger.bought_by_writing(*written);
            Some(*since + self.config.write_stall_timeout + bought)
        });
        match at {
            Some(at) => self.timers.arm(TimerKey::WriteStall, at),
            None => self.timers.disarm(&TimerKey::WriteStall),
        }
    }
}

#[inline]
fn encode(config: &Config, stats: &mut Stats, message: Outgoing<'_>) -> Result<Frame, EncodeError> {
    let frame = config.codec.encode(message)?;
    stats.frames_out += 1;
    stats.bytes_out += frame.len() as u64;
    Ok(frame)
}
