//! The transitions of the channel machine; [`channel`](crate::socket::channel) draws it.

use crate::config::Unfit;
use crate::config::backoff::DelayRange;
use crate::config::join_params::JoinParams;
use crate::event::action::Action;
use crate::event::applied::Released;
use crate::event::cause::{
    Cause, ChannelEnd, Interruption, LeaveOutcome, NotSentCause, PushOutcome, Rejection,
    RejectionKind, RejoinCause, UnknownCause,
};
use crate::event::error::{JoinError, NotWanted};
use crate::event::signal::Signal;
use crate::id::{InterestId, Ref};
use crate::socket::channel::{Channel, Instance, Leaving, State, Want};
use crate::socket::push::slab::Group;
use crate::socket::timer::TimerKey;
use crate::socket::{LaneItem, Socket};
use crate::time::Time;
use crate::topic::Topic;
use crate::wire::payload::Payload;

/// # Commands about channels
impl Socket {
    /// Wants a topic: it is joined now or as soon as there is a connection, and joined again
    /// after every loss, until it is left, closed by the server, or finally refused.
    ///
    /// A topic that is wanted already is shared: no frame is sent, and each call counts one
    /// interest. While the topic is being left, the join waits for the end of the leave.
    ///
    /// What comes of it are the signals `Joined`, `JoinRejected`, `ChannelClosed`.
    ///
    /// # Errors
    ///
    /// [`JoinError`]; nothing has changed then. Conflicting parameters (not equal as JSON, nor
    /// the same function) are one.
    pub fn join(
        &mut self,
        now: Time,
        topic: impl Into<Topic>,
        params: impl Into<JoinParams>,
    ) -> Result<InterestId, JoinError> {
        self.advance(now);
        let (topic, params) = (topic.into(), params.into());
        if !self.phase.accepts_joins() {
            return Err(JoinError::Closed);
        }
        if topic.is_reserved() {
            return Err(JoinError::Reserved { topic });
        }
        self.check_params(&topic, &params)?;
        if self.wanted(&topic).is_some_and(|want| !want.params.same(&params)) {
            return Err(JoinError::ConflictingParams { topic });
        }
        if self.wanted(&topic).is_none() {
            let mut want = Want::new(topic.clone(), self.mint_order(), params);
            want.first_join_called = true;
            self.want(topic.clone(), want);
        }
        Ok(self.add_interest(topic))
    }

    /// One more interest in a topic that is wanted already.
    ///
    /// # Errors
    ///
    /// [`NotWanted`] when it is not.
    pub fn attach(&mut self, now: Time, topic: &str) -> Result<InterestId, NotWanted> {
        self.advance(now);
        if self.wanted(topic).is_none() {
            return Err(NotWanted { topic: topic.into() });
        }
        Ok(self.add_interest(topic.into()))
    }

    /// Gives an interest back. The last one of a topic that is not an auto-join leaves it.
    pub fn release(&mut self, now: Time, interest: InterestId) -> Released {
        let Some(topic) = self.interests.remove(interest) else { return Released::Gone };
        let Some(want) = self.wanted_mut(&topic) else { return Released::Gone };
        want.interests.remove(interest);
        if want.auto || want.interests.len() > 0 {
            return Released::Detached;
        }
        match self.leave(now, &topic) {
            Ok(()) => Released::Leaving,
            Err(NotWanted { .. }) => Released::Gone,
        }
    }

    /// Leaves a topic, whoever shares it. Legal in every state; cancels a pending rejoin.
    ///
    /// The outcomes of the pushes that it ends and then the signal `ChannelClosed` follow at once, which
    /// ends it for its subscribers. `Left` follows with the outcome of the leave: at once when the server
    /// knows nothing of the channel, else when the server has answered, or after
    /// [`Config::leave_timeout`](crate::Config::leave_timeout).
    ///
    /// Pushes that could be written already go out before the leave, and have their outcome behind
    /// `ChannelClosed`, at the latest with `Left`. The others end
    /// [`NotSent`](crate::PushOutcome::NotSent) at once. So do calls, with what is behind them, when the calls in
    /// flight and all that is queued are more than
    /// [`Config::pushes_in_flight_max`](crate::Config::pushes_in_flight_max) together: the leave does not
    /// wait for answers.
    ///
    /// # Errors
    ///
    /// [`NotWanted`] when the topic is neither wanted nor being left.
    pub fn leave(&mut self, now: Time, topic: &str) -> Result<(), NotWanted> {
        let now = self.advance(now);
        let not_wanted = || NotWanted { topic: topic.into() };
        let (topic, channel) = self.channels.get_key_value(topic).ok_or_else(not_wanted)?;
        let topic = topic.clone();
        if channel.want.is_none() {
            // Being left already: the outcome of that leave is the outcome of this one.
            return Ok(());
        }
        let is_leaving = channel.leaving.is_some();
        let Some(mut want) = self.take_want(&topic) else { return Err(not_wanted()) };
        let could_be_written = want.joined().is_some() && self.live.is_some();
        let pushes = want.pushes.take();
        let leaving = match want.state {
            State::Joining { join_ref } | State::Joined(Instance { join_ref, .. }) => {
                Some(join_ref)
            }
            State::Pending | State::Errored { .. } => want.surviving,
        };
        let closed = Signal::ChannelClosed { topic: topic.clone(), cause: ChannelEnd::Left };
        let Some(join_ref) = leaving else {
            self.end_group(pushes, |_| PushOutcome::NotSent(NotSentCause::Left));
            self.signal(closed);
            if !is_leaving {
                self.signal(Signal::Left { topic, outcome: LeaveOutcome::Local });
            }
            return Ok(());
        };
        // What is in the lane could be written already and goes out before the leave, which waits for
        // no call to be answered. Which those are depends on what was accepted, never on how often the
        // lane was polled, or a replay would differ.
        if let Some(group) = &pushes {
            let most = self.pushes.in_flight() + self.pushes.queued().pushes as usize;
            if !could_be_written {
                self.end_queued(group, NotSentCause::Left);
            } else if most > self.config.pushes_in_flight_max.get() {
                self.end_queued_calls(group, NotSentCause::Left);
            }
        }
        self.signal(closed);
        self.start_leave(now, topic, join_ref, pushes);
        Ok(())
    }

    /// Leaves an instance that the server holds, behind these pushes of it.
    fn start_leave(&mut self, now: Time, topic: Topic, join_ref: Ref, pushes: Option<Group>) {
        let order = self.mint_order();
        if let Some(live) = &mut self.live {
            live.lane.insert(order, LaneItem::Leave(topic.clone(), join_ref));
        }
        self.timers.arm(TimerKey::Leave(topic.clone()), now + self.config.leave_timeout);
        let leaving = Leaving { join_ref, order, leave_ref: None, pushes };
        self.channels.get_or_default(topic).leaving = Some(Box::new(leaving));
    }

    /// Joins a joined topic anew, to start over from the server's present state: for a consumer
    /// that lost messages and cannot do without them.
    ///
    /// No leave is sent: the new join replaces the old instance on the server
    /// (`wire/join_double`). It waits as a rejoin after a crash does, so a consumer that keeps
    /// falling behind does not hammer the server. Subscribers see `Interrupted` and `Resumed`. In
    /// every other state a join is on its way already, and nothing changes.
    ///
    /// # Errors
    ///
    /// [`NotWanted`] when the topic is not wanted.
    pub fn rejoin(&mut self, now: Time, topic: &str) -> Result<(), NotWanted> {
        let now = self.advance(now);
        let not_wanted = || NotWanted { topic: topic.into() };
        if self.wanted(topic).ok_or_else(not_wanted)?.joined().is_some() {
            self.channel_crashed(now, &topic.into(), Interruption::Resync);
        }
        Ok(())
    }

    /// Replaces the parameters of a wanted topic, from its next join on.
    ///
    /// # Errors
    ///
    /// [`JoinError`] when it is not wanted, or when the join could not be sent with them; it goes on
    /// with the ones before.
    pub fn set_join_params(
        &mut self,
        now: Time,
        topic: &str,
        params: impl Into<JoinParams>,
    ) -> Result<(), JoinError> {
        self.advance(now);
        let params = params.into();
        let not_wanted = || NotWanted { topic: topic.into() };
        let topic = self.wanted(topic).ok_or_else(not_wanted)?.topic.clone();
        self.check_params(&topic, &params)?;
        if let Some(want) = self.wanted_mut(&topic) {
            want.params = params;
        }
        Ok(())
    }
}

/// # Transitions
impl Socket {
    pub(in crate::socket) fn add_auto_joins(&mut self) {
        for (topic, params) in self.config.auto_joins.clone() {
            if let Some(want) = self.wanted_mut(&topic) {
                want.auto = true;
                continue;
            }
            let mut want = Want::new(topic.clone(), self.mint_order(), params);
            want.auto = true;
            self.want(topic, want);
        }
    }

    fn want(&mut self, topic: Topic, want: Want) {
        let order = want.order;
        let channel = self.channels.get_or_default(topic.clone());
        channel.want = Some(want);
        if channel.is_due() {
            if let Some(live) = &mut self.live {
                live.due_joins.insert((order, topic));
            }
        }
    }

    fn add_interest(&mut self, topic: Topic) -> InterestId {
        let interest = InterestId(self.next_interest);
        self.next_interest += 1;
        if let Some(want) = self.wanted_mut(&topic) {
            // Most channels have one, and most connections one channel.
            want.interests.reserve_one();
            want.interests.insert(interest, ());
        }
        self.interests.reserve_one();
        self.interests.insert(interest, topic);
        interest
    }

    /// Whether a join with these parameters can be written at all, as far as that is known before it.
    fn check_params(&self, topic: &Topic, params: &JoinParams) -> Result<(), JoinError> {
        params.fixed().map_or(Ok(()), |payload| self.check_join(topic, payload))
    }

    /// Whether a join with this payload can be written at all.
    pub(in crate::socket) fn check_join(
        &self,
        topic: &Topic,
        payload: &Payload,
    ) -> Result<(), JoinError> {
        self.config.check_frame(topic, "phx_join", payload).map_err(|unfit| match unfit {
            Unfit::Encode(error) => JoinError::Encode(error),
            Unfit::TooLarge { limit, .. } => JoinError::TooLarge { limit },
        })
    }

    /// The join of `topic` was written.
    pub(in crate::socket) fn join_written(&mut self, now: Time, topic: &Topic, join_ref: Ref) {
        if let Some(want) = self.wanted_mut(topic) {
            want.state = State::Joining { join_ref };
            want.surviving = None;
            want.attempts = want.attempts.saturating_add(1);
        }
        if let Some(live) = &mut self.live {
            self.pace.written(now, live.joins.is_empty());
            live.joins.written(join_ref, topic.clone(), now, &live.ledger);
        }
        if let Some(at) = self.pace.next() {
            self.timers.arm(TimerKey::JoinPace, at);
        }
        self.rearm_join_clock();
    }

    /// The server said ok to the newest join of `topic`.
    pub(in crate::socket) fn joined(
        &mut self,
        now: Time,
        topic: &Topic,
        join_ref: Ref,
        response: Payload,
    ) {
        // Kept for later callers, so it must not pin the read buffer.
        let response = response.into_compact();
        let Some(want) = self.channels.get_mut(&**topic).and_then(|channel| channel.want.as_mut())
        else {
            return;
        };
        want.state = State::Joined(Instance { join_ref, since: now, response: response.clone() });
        want.rejections = 0;
        want.first_join_called = false;
        let first = !core::mem::replace(&mut want.ever_joined, true);
        if let (Some(group), Some(live)) = (&want.pushes, &mut self.live) {
            self.pushes.written_on(group, join_ref);
            let members = self.pushes.members(group);
            live.lane.extend(members.map(|(place, id, _)| (id.0, LaneItem::Push(place))));
        }
        let topic = topic.clone();
        self.signal(if first {
            Signal::Joined { topic, response }
        } else {
            Signal::Resumed { topic, response }
        });
    }

    /// The server refused the newest join of `topic`.
    pub(in crate::socket) fn join_refused(&mut self, now: Time, topic: &Topic, response: Payload) {
        let response = response.into_compact();
        let kind = match reason_of(&response).as_deref() {
            // The server's join raised: it may well work the next time.
            Some("join crashed") => {
                let rejection = Rejection { kind: RejectionKind::JoinCrashed, response };
                let topic = topic.clone();
                self.signal(Signal::JoinRejected { topic: topic.clone(), rejection, last: false });
                return self.rejoin_later(now, &topic, RejoinCause::JoinCrashed);
            }
            Some("unmatched topic") => RejectionKind::UnmatchedTopic,
            Some("too many channels joined") => RejectionKind::TooManyChannels,
            _ => RejectionKind::Application,
        };
        let rejections_max = self.config.join_rejections_max;
        let Some(want) = self.wanted_mut(topic) else { return };
        want.rejections = want.rejections.saturating_add(1);
        let last = want.first_join_called || want.rejections > rejections_max;
        let rejection = Rejection { kind, response: response.clone() };
        self.signal(Signal::JoinRejected {
            topic: topic.clone(),
            rejection: rejection.clone(),
            last,
        });
        if last {
            self.end_want(
                topic,
                ChannelEnd::Rejected(rejection),
                UnknownCause::ChannelClosed,
                NotSentCause::JoinRejected,
            );
        } else if kind == RejectionKind::TooManyChannels {
            let range = self.config.rejected_after.longest();
            self.rejoin_within(now, topic, range, RejoinCause::Rejected(response));
        } else {
            self.rejoin_later(now, topic, RejoinCause::Rejected(response));
        }
    }

    /// The instance is gone though we want the topic: `phx_error`, a push found no channel, or a
    /// consumer wants to start over.
    pub(in crate::socket) fn channel_crashed(
        &mut self,
        now: Time,
        topic: &Topic,
        cause: Interruption,
    ) {
        let stable_after = self.config.stable_after;
        let Some(want) = self.wanted_mut(topic) else { return };
        let Some(instance) = want.lose(now, stable_after) else {
            // Crashed while joining.
            return self.rejoin_later(now, topic, RejoinCause::Crashed);
        };
        if cause == Interruption::Resync {
            want.surviving = Some(instance.join_ref);
        }
        self.unlane(topic);
        let (unknown, rejoin) = match cause {
            Interruption::Resync => (UnknownCause::ChannelReplaced, RejoinCause::Resync),
            _ => (UnknownCause::ChannelCrashed, RejoinCause::Crashed),
        };
        self.signal(Signal::Interrupted { topic: topic.clone(), cause });
        self.end_written(topic, unknown);
        self.end_fail_fast(topic);
        self.rejoin_later(now, topic, rejoin);
    }

    /// Joins `topic` again after the delay that its history asks for.
    pub(in crate::socket) fn rejoin_later(&mut self, now: Time, topic: &Topic, cause: RejoinCause) {
        let Some(want) = self.wanted_mut(topic) else { return };
        let rejections = want.rejections;
        let range = if matches!(cause, RejoinCause::Rejected(_)) {
            self.config.rejected_after.range(rejections)
        } else {
            want.rejoins = want.rejoins.saturating_add(1);
            let rejoins = want.rejoins;
            self.config.rejoin_after.range(rejoins)
        };
        self.rejoin_within(now, topic, range, cause);
    }

    fn rejoin_within(&mut self, now: Time, topic: &Topic, range: DelayRange, cause: RejoinCause) {
        let delay = self.rng.draw(range);
        let until = now + delay;
        let Some(want) = self.wanted_mut(topic) else { return };
        want.state = State::Errored { until };
        let attempt = want.attempts.saturating_add(1);
        self.timers.arm(TimerKey::Rejoin(topic.clone()), until);
        let topic = topic.clone();
        self.actions.push_back(Action::RejoinAfter { topic, delay, attempt, cause });
    }

    /// The wait before a rejoin is over.
    pub(in crate::socket) fn rejoin_due(&mut self, topic: &Topic) {
        let Some(want) = self.wanted_mut(topic) else { return };
        want.state = State::Pending;
        self.enqueue_join(topic);
    }

    fn enqueue_join(&mut self, topic: &Topic) {
        let Some(channel) = self.channels.get(topic) else { return };
        if let (true, Some(want), Some(live)) = (channel.is_due(), &channel.want, &mut self.live) {
            live.due_joins.insert((want.order, topic.clone()));
        }
    }

    /// The topic is joined last from now on: its join stalled the whole socket.
    pub(in crate::socket) fn join_last(&mut self, topic: &Topic) {
        let order = self.mint_order();
        if let Some(want) = self.wanted_mut(topic) {
            want.order = order;
        }
    }

    /// The leave of `topic` is over.
    pub(in crate::socket) fn leave_ended(&mut self, topic: &Topic, outcome: LeaveOutcome) {
        let Some(channel) = self.channels.get_mut(topic) else { return };
        let Some(leaving) = channel.leaving.take() else { return };
        if channel.is_empty() {
            self.channels.remove(topic);
        }
        self.timers.disarm(&TimerKey::Leave(topic.clone()));
        if let Some(live) = self.live.as_mut().filter(|_| outcome != LeaveOutcome::TimedOut) {
            live.lane.remove(leaving.order);
        }
        let unknown = match outcome {
            LeaveOutcome::Offline => UnknownCause::Disconnected,
            _ => UnknownCause::Left,
        };
        self.end_group(leaving.pushes, |push| push.outcome_at_end(unknown, NotSentCause::Left));
        self.signal(Signal::Left { topic: topic.clone(), outcome });
        self.enqueue_join(topic);
    }

    /// The connection is lost: every instance ends, every wanted topic waits for the next one.
    pub(in crate::socket) fn interrupt_channels(&mut self, now: Time, cause: &Cause) {
        let stable_after = self.config.stable_after;
        for topic in self.topics() {
            self.timers.disarm(&TimerKey::Rejoin(topic.clone()));
            self.leave_ended(&topic, LeaveOutcome::Offline);
            let Some(want) = self.wanted_mut(&topic) else { continue };
            if want.lose(now, stable_after).is_some() {
                let cause = Interruption::Disconnected(cause.clone());
                self.signal(Signal::Interrupted { topic: topic.clone(), cause });
                self.end_written(&topic, UnknownCause::Disconnected);
                self.end_fail_fast(&topic);
            }
        }
        if let Cause::JoinStalled { topic } = cause {
            self.join_last(topic);
        }
    }

    /// Every topic that is wanted or being left, in order.
    fn topics(&self) -> Vec<Topic> {
        self.channels.sorted().map(|(topic, _)| topic.clone()).collect()
    }

    /// Ends every channel: the connection will not come back by itself.
    pub(in crate::socket) fn end_channels(
        &mut self,
        cause: &ChannelEnd,
        unknown: UnknownCause,
        not_sent: NotSentCause,
    ) {
        for topic in self.topics() {
            self.leave_ended(&topic, LeaveOutcome::Offline);
            self.end_want(&topic, cause.clone(), unknown, not_sent);
        }
    }

    /// Ends what is wanted of a topic, with its pushes.
    pub(in crate::socket) fn end_want(
        &mut self,
        topic: &Topic,
        cause: ChannelEnd,
        unknown: UnknownCause,
        not_sent: NotSentCause,
    ) {
        let Some(want) = self.take_want(topic) else { return };
        self.end_group(want.pushes, |push| push.outcome_at_end(unknown, not_sent));
        self.signal(Signal::ChannelClosed { topic: topic.clone(), cause });
    }

    /// The parameters of `topic` cannot be sent, so its channel ends. An earlier instance that the
    /// server may hold is left: nothing here would take its messages.
    pub(in crate::socket) fn end_unsendable(&mut self, now: Time, topic: &Topic, message: String) {
        let surviving = self.wanted(topic).and_then(|want| want.surviving);
        self.end_want(
            topic,
            ChannelEnd::InvalidParams { message },
            UnknownCause::ChannelClosed,
            NotSentCause::JoinRejected,
        );
        if let Some(join_ref) = surviving {
            self.start_leave(now, topic.clone(), join_ref, None);
        }
    }

    /// Takes what is wanted of a topic, its deadlines, its interests and its due join.
    fn take_want(&mut self, topic: &Topic) -> Option<Want> {
        let channel = self.channels.get_mut(topic)?;
        let want = channel.want.take()?;
        if channel.is_empty() {
            self.channels.remove(topic);
        }
        self.timers.disarm(&TimerKey::Rejoin(topic.clone()));
        for (interest, ()) in want.interests.iter() {
            self.interests.remove(interest);
        }
        if let Some(live) = &mut self.live {
            live.join_settled(want.order, topic);
        }
        Some(want)
    }

    /// Queued pushes of a channel that is not joined any more cannot be written.
    fn unlane(&mut self, topic: &Topic) {
        let group =
            self.channels.get(&**topic).and_then(|channel| channel.want.as_ref()?.pushes.as_ref());
        if let (Some(group), Some(live)) = (group, &mut self.live) {
            for (_, id, _) in self.pushes.members(group) {
                live.lane.remove(id.0);
            }
            live.held.release(group);
        }
    }

    /// The instance of `topic` with this join_ref, wanted or being left.
    pub(in crate::socket) fn instance(
        &self,
        topic: &str,
        join_ref: Option<Ref>,
    ) -> Option<InstanceKind> {
        let channel: &Channel = self.channels.get(topic)?;
        if let Some(leaving) = &channel.leaving {
            // A null ref names no instance: it is the current one if there can be just one.
            if join_ref.is_none_or(|join_ref| join_ref == leaving.join_ref) {
                return Some(InstanceKind::Leaving);
            }
        }
        let want = channel.want.as_ref()?;
        match (&want.state, join_ref) {
            (State::Joined(instance), None) => Some(InstanceKind::Joined(instance.join_ref)),
            (State::Joined(instance), Some(join_ref)) if instance.join_ref == join_ref => {
                Some(InstanceKind::Joined(join_ref))
            }
            (State::Joining { join_ref: current }, Some(join_ref)) if *current == join_ref => {
                Some(InstanceKind::Joining(join_ref))
            }
            (State::Pending | State::Errored { .. }, Some(join_ref))
                if want.surviving == Some(join_ref) =>
            {
                Some(InstanceKind::Surviving)
            }
            _ => None,
        }
    }
}

/// Which instance of a channel a frame is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::socket) enum InstanceKind {
    Joining(Ref),
    Joined(Ref),
    /// It waits to be replaced by a rejoin on request.
    Surviving,
    Leaving,
}

/// The `reason` member of an error response, if it is a string.
pub(in crate::socket) fn reason_of(response: &Payload) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Reason {
        reason: String,
    }
    response.deserialize::<Reason>().ok().map(|response| response.reason)
}
