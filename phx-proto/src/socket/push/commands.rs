//! The commands of pushes, and the end of a push.

use crate::config::{Config, Unfit};
use crate::event::cause::{NotSentCause, PushOutcome, UnknownCause};
use crate::event::error::{PushError, PushErrorKind, QueueBound};
use crate::event::input::PushOptions;
use crate::event::signal::Signal;
use crate::id::PushId;
use crate::socket::Socket;
use crate::socket::channel::ToPush;
use crate::socket::push::Push;
use crate::socket::push::lane::LaneItem;
use crate::socket::push::slab::{Group, Place, Pushes};
use crate::time::Time;
use crate::wire::payload::Payload;

/// # Commands about pushes
impl Socket {
    /// Pushes an event to a wanted topic. Exactly one outcome follows, as the signal `PushEnded`.
    ///
    /// A push to a channel that is not joined waits for the join, through disconnects and crashes,
    /// until its timeout, unless it [fails fast](PushOptions::fail_fast). Queued pushes are written
    /// in the order they were accepted, and never before the join is answered. While
    /// [`Config::pushes_in_flight_max`](crate::Config::pushes_in_flight_max) calls are unanswered,
    /// further calls wait, with the pushes that follow them on their channel.
    ///
    /// # Errors
    ///
    /// [`PushError`], which returns the payload; nothing was queued.
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
        let topics = self.channels.len();
        let Some(channel) = self.channels.pushing(topic) else {
            return Err(PushError { kind: PushErrorKind::NotWanted, payload });
        };
        let instance = channel.instance;
        let bytes = payload.len() + event.len();
        let accepted = if options.fail_fast && instance.is_none() {
            Err(PushErrorKind::NotJoined)
        } else if matches!(event, "phx_join" | "phx_leave") {
            // Protocol: MSG-8.
            Err(PushErrorKind::ReservedEvent)
        } else {
            check_push(&self.config, topic, event, &payload)
                .and_then(|()| check_queue(&self.config, &self.pushes, (&channel, topics), bytes))
        };
        if let Err(kind) = accepted {
            return Err(PushError { kind, payload });
        }
        let push = Push::queued(channel.topic.clone(), payload, options);
        let group = channel.pushes.get_or_insert_with(|| self.pushes.group(instance));
        let id = PushId(self.next_order);
        self.next_order += 1;
        let deadline = now + options.timeout.unwrap_or(self.config.push_timeout);
        let place = self.pushes.insert(id, push, (event, bytes), deadline, group);
        if let (Some(_), Some(live)) = (instance, self.connection.live_mut()) {
            live.lane.insert(id.0, LaneItem::Push(place));
        }
        Ok(id)
    }

    /// Withdraws a push; returns whether it existed. If the push was already written, the server
    /// may still handle it, and its reply counts as late.
    pub fn cancel_push(&mut self, now: Time, id: PushId) -> bool {
        self.advance(now);
        match self.pushes.place(id) {
            Some(place) => self.end_push(place, |_| PushOutcome::Cancelled),
            None => false,
        }
    }
}

impl Socket {
    /// Ends a push with its outcome, in every state.
    pub(in crate::socket) fn end_push(
        &mut self,
        place: Place,
        outcome: impl FnOnce(&Push) -> PushOutcome,
    ) -> bool {
        if let Some(live) = self.connection.live_mut() {
            live.lane.ending(&self.pushes, place);
        }
        self.end_unheld(place, outcome)
    }

    /// Like [`end_push`](Self::end_push), for a push that was written and so is not held.
    #[inline]
    pub(in crate::socket) fn end_unheld(
        &mut self,
        place: Place,
        outcome: impl FnOnce(&Push) -> PushOutcome,
    ) -> bool {
        let ended = self.take_unheld(place, outcome);
        let existed = ended.is_some();
        ended.into_iter().for_each(|ended| self.signal(ended));
        existed
    }

    /// Like [`end_unheld`](Self::end_unheld), but returns the signal instead of queueing it. Returns
    /// `None` if there is no push.
    #[inline]
    pub(in crate::socket) fn take_unheld(
        &mut self,
        place: Place,
        outcome: impl FnOnce(&Push) -> PushOutcome,
    ) -> Option<Signal> {
        let (id, push) = self.pushes.remove(place)?;
        let outcome = outcome(&push);
        if let Some(live) = self.connection.live_mut() {
            match (push.written(), &outcome) {
                (None, _) => live.lane.remove(id.0),
                (Some(_), PushOutcome::Reply(_)) => {}
                (Some(msg_ref), _) => live.abandoned.add(msg_ref, push.topic.clone()),
            }
        }
        Some(Signal::PushEnded { id, topic: push.topic, outcome })
    }

    /// Ends the unwritten pushes of a group.
    pub(in crate::socket) fn end_queued(&mut self, group: &Group, cause: NotSentCause) {
        self.end_members(group, |push| !push.is_written(), |_| PushOutcome::NotSent(cause));
    }

    /// Ends the unwritten pushes of a group from the first unwritten call on.
    pub(in crate::socket) fn end_queued_calls(&mut self, group: &Group, cause: NotSentCause) {
        let queued = self.pushes.members(group).filter(|(_, _, push)| !push.is_written());
        let calls = queued.skip_while(|(_, _, push)| push.cast).map(|(place, ..)| place);
        for place in calls.collect::<Vec<_>>() {
            self.end_push(place, |_| PushOutcome::NotSent(cause));
        }
    }

    /// Ends the written and the fail-fast pushes of a channel that is no longer joined.
    pub(in crate::socket) fn interrupt_pushes(
        &mut self,
        group: Option<&Group>,
        unknown: UnknownCause,
    ) {
        let Some(group) = group else { return };
        self.end_members(group, Push::is_written, |_| PushOutcome::Unknown(unknown));
        let fast = |push: &Push| push.fail_fast && !push.is_written();
        self.end_members(group, fast, |_| PushOutcome::NotSent(NotSentCause::Interrupted));
    }

    /// Ends some pushes of a group, in the order they were accepted.
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

    /// Ends all pushes of a group, in the order they were accepted, and the group itself.
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

/// Checks that the push can be written.
#[inline]
fn check_push(
    config: &Config,
    topic: &str,
    event: &str,
    payload: &Payload,
) -> Result<(), PushErrorKind> {
    config.check_frame(topic, event, payload).map_err(|unfit| match unfit {
        Unfit::Encode(error) => PushErrorKind::Encode(error),
        Unfit::TooLarge { bytes, limit } => PushErrorKind::TooLarge { bytes, limit },
    })
}

/// Checks that the queue has space for a push of `bytes` bytes. `of` is the channel and the number
/// of topics. The sums cannot overflow, because all queued data is in memory.
#[inline]
fn check_queue(
    config: &Config,
    pushes: &Pushes,
    of: (&ToPush<'_>, usize),
    bytes: usize,
) -> Result<(), PushErrorKind> {
    let all = pushes.queued();
    let half = (config.queued_pushes_max / 2, config.queued_bytes_max / 2);
    if (all.pushes as usize) < half.0 && all.bytes + bytes <= half.1 {
        // Less than half of the queue is used, so no topic can exceed its limit, which is half of
        // the queue.
        return Ok(());
    }
    check_full_queue(config, pushes, of, bytes)
}

/// The full check, for a queue that is at least half full.
#[inline(never)]
fn check_full_queue(
    config: &Config,
    pushes: &Pushes,
    (channel, topics): (&ToPush<'_>, usize),
    bytes: usize,
) -> Result<(), PushErrorKind> {
    let (pushes_max, bytes_max) = (config.queued_pushes_max, config.queued_bytes_max);
    let all = pushes.queued();
    let full = |bound, limit| Err(PushErrorKind::QueueFull { bound, limit });
    if all.pushes as usize >= pushes_max {
        return full(QueueBound::Pushes, pushes_max);
    }
    if all.bytes + bytes > bytes_max {
        return full(QueueBound::Bytes, bytes_max);
    }
    if topics <= 1 {
        return Ok(());
    }
    let (pushes_max, bytes_max) = (pushes_max.div_ceil(2), bytes_max.div_ceil(2));
    // The pushes of the present instance and of an instance that is being left.
    let groups = channel.pushes.iter().chain(channel.leaving);
    let queued = groups.map(|group| pushes.queued_of(group));
    let of_topic =
        queued.fold((0, bytes), |sum, it| (sum.0 + it.pushes as usize, sum.1 + it.bytes));
    if of_topic.0 >= pushes_max {
        return full(QueueBound::PushesOfTopic, pushes_max);
    }
    if of_topic.1 > bytes_max {
        return full(QueueBound::BytesOfTopic, bytes_max);
    }
    Ok(())
}
