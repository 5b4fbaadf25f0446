//! The commands of channels, and the effects of their transitions.

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
use crate::socket::channel::{Crashed, Left, NowJoined, Refused, Rejoin, Want};
use crate::socket::push::lane::LaneItem;
use crate::socket::push::slab::Group;
use crate::socket::{Socket, mint};
use crate::time::Time;
use crate::topic::Topic;
use crate::wire::payload::Payload;

/// # Commands about channels
impl Socket {
    /// Adds an interest in a topic. The topic is joined now or as soon as there is a connection. It
    /// is joined again after every crash and every loss of the connection, until it is left, the
    /// server closes it, or the server's refusal is final.
    ///
    /// If the topic is already wanted, no frame is sent: all interests share one join. While the
    /// topic is being left, the join waits for the end of the leave.
    ///
    /// The outcome follows as the signals `Joined`, `JoinRejected` and `ChannelClosed`.
    ///
    /// # Errors
    ///
    /// [`JoinError`]; nothing was changed. Parameters conflict if they are neither equal as JSON
    /// nor the same function.
    pub fn join(
        &mut self,
        now: Time,
        topic: impl Into<Topic>,
        params: impl Into<JoinParams>,
    ) -> Result<InterestId, JoinError> {
        self.advance(now);
        let (topic, params) = (topic.into(), params.into());
        if !self.connection.accepts_joins() {
            return Err(JoinError::Closed);
        }
        if topic.is_reserved() {
            return Err(JoinError::Reserved { topic });
        }
        self.check_params(&topic, &params)?;
        if self.wanted(&topic).is_some_and(|want| !want.params.same(&params)) {
            return Err(JoinError::ConflictingParams { topic });
        }
        // Protocol: JOIN-12.
        if self.wanted(&topic).is_none() {
            let mut want = Want::new(topic.clone(), self.mint_order(), params);
            want.first_join_called = true;
            self.want(topic.clone(), want);
        }
        Ok(self.add_interest(topic))
    }

    /// Adds an interest in a topic that is already wanted.
    ///
    /// # Errors
    ///
    /// [`NotWanted`] when the topic is not wanted.
    pub fn attach(&mut self, now: Time, topic: &str) -> Result<InterestId, NotWanted> {
        self.advance(now);
        if self.wanted(topic).is_none() {
            return Err(NotWanted { topic: topic.into() });
        }
        Ok(self.add_interest(topic.into()))
    }

    /// Releases an interest. When the last interest in a topic is released, the topic is left,
    /// unless it is an auto-join.
    pub fn release(&mut self, now: Time, interest: InterestId) -> Released {
        let Some(topic) = self.interests.remove(interest) else { return Released::Gone };
        let released = self.channels.change(&topic, |channel| {
            let want = channel.want.as_mut()?;
            want.interests.remove(interest);
            Some(want.auto || want.interests.len() > 0)
        });
        match released.flatten() {
            None => return Released::Gone,
            Some(true) => return Released::Detached,
            Some(false) => {}
        }
        match self.leave(now, &topic) {
            Ok(()) => Released::Leaving,
            Err(NotWanted { .. }) => Released::Gone,
        }
    }

    /// Leaves a topic for all its interests. The call is allowed in every state, and cancels a
    /// pending rejoin.
    ///
    /// The outcomes of the pushes that the leave ends follow at once, and then the signal
    /// `ChannelClosed`, which ends the topic for its subscribers. `Left` follows with the outcome
    /// of the leave: at once if the server does not hold the channel, otherwise when the server has
    /// answered or after [`Config::leave_timeout`](crate::Config::leave_timeout).
    ///
    /// Pushes that can be written are written before the leave, and their outcome follows after
    /// `ChannelClosed`, at the latest together with `Left`. The other pushes end with
    /// [`NotSent`](crate::PushOutcome::NotSent) at once. The leave does not wait for answers to
    /// calls. So if the calls in flight and the queued pushes of all channels together exceed
    /// [`Config::pushes_in_flight_max`](crate::Config::pushes_in_flight_max), the queued calls of
    /// this channel and the pushes behind them also end with `NotSent`.
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
            // The topic is already being left. The outcome of that leave is also the outcome of
            // this call.
            return Ok(());
        }
        let is_leaving = channel.leaving.is_some();
        let Some(left) = self.begin_leave(now, &topic) else { return Err(not_wanted()) };
        self.no_longer_wanted(&left.want);
        let closed = Signal::ChannelClosed { topic: topic.clone(), cause: ChannelEnd::Left };
        let Some(leave) = left.leave else {
            self.end_group(left.want.pushes, |_| PushOutcome::NotSent(NotSentCause::Left));
            self.signal(closed);
            if !is_leaving {
                self.signal(Signal::Left { topic, outcome: LeaveOutcome::Local });
            }
            return Ok(());
        };
        // Pushes in the lane are written before the leave, which does not wait for answers. The
        // number of pushes in flight depends on how often the lane was polled, and a replay polls
        // it at other times. So the decision whether to end queued calls also counts the queued
        // pushes, which makes it the same in a replay.
        let leaving = self.channels.get(&topic).and_then(|channel| channel.leaving.as_ref());
        if let Some(group) = leaving.and_then(|leaving| leaving.pushes.clone()) {
            let most = self.pushes.in_flight() + self.pushes.queued().pushes as usize;
            if left.want.joined().is_none() {
                self.end_queued(&group, NotSentCause::Left);
            } else if most > self.config.pushes_in_flight_max.get() {
                self.end_queued_calls(&group, NotSentCause::Left);
            }
        }
        self.signal(closed);
        self.leave_started(topic, leave);
        Ok(())
    }

    /// Puts the leave in the lane, behind the pushes accepted before it.
    fn leave_started(&mut self, topic: Topic, (order, join_ref): (u64, Ref)) {
        if let Some(live) = self.connection.live_mut() {
            // Protocol: LEAVE-6.
            live.lane.insert(order, LaneItem::Leave(topic, join_ref));
        }
    }

    /// Joins a joined topic again, so that a consumer that lost messages starts over from the
    /// present state of the server.
    ///
    /// No leave is sent: the new join replaces the old instance on the server (`wire/join_double`).
    /// The new join waits like a rejoin after a crash, so a consumer that keeps falling behind does
    /// not flood the server with joins. Subscribers see `Interrupted` and `Resumed`. If the topic
    /// is not joined, this does nothing, because a join is unanswered or will follow.
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
    /// [`JoinError`] when the topic is not wanted, or when a join with these parameters could not
    /// be sent. The previous parameters are then kept.
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
        self.change_want(&topic, |want| want.params = params);
        Ok(())
    }
}

/// # Effects of transitions
impl Socket {
    pub(in crate::socket) fn add_auto_joins(&mut self) {
        for (topic, params) in self.config.auto_joins.clone() {
            if self.change_want(&topic, |want| want.auto = true).is_some() {
                continue;
            }
            let mut want = Want::new(topic.clone(), self.mint_order(), params);
            want.auto = true;
            self.want(topic, want);
        }
    }

    fn want(&mut self, topic: Topic, want: Want) {
        self.channels.change_or_add(&topic, |channel| channel.want = Some(want));
    }

    fn add_interest(&mut self, topic: Topic) -> InterestId {
        let interest = InterestId(self.next_interest);
        self.next_interest += 1;
        self.change_want(&topic, |want| {
            // Most channels have one interest, and most connections one channel.
            want.interests.reserve_one();
            want.interests.insert(interest, ());
        });
        self.interests.reserve_one();
        self.interests.insert(interest, topic);
        interest
    }

    /// Changes the [`Want`] of a topic, if the topic is wanted.
    pub(in crate::socket) fn change_want<R>(
        &mut self,
        topic: &str,
        change: impl FnOnce(&mut Want) -> R,
    ) -> Option<R> {
        self.channels.change(topic, |channel| channel.want.as_mut().map(change)).flatten()
    }

    /// Checks that a join with these parameters can be encoded and is not too large. Parameters
    /// that are made by a function are checked when the join is written.
    fn check_params(&self, topic: &Topic, params: &JoinParams) -> Result<(), JoinError> {
        params.fixed().map_or(Ok(()), |payload| self.check_join(topic, payload))
    }

    /// Checks that a join with this payload can be encoded and is not too large.
    pub(in crate::socket) fn check_join(
        &self,
        topic: &Topic,
        payload: &Payload,
    ) -> Result<(), JoinError> {
        self.config.check_join(topic, payload).map_err(JoinError::unfit)
    }

    /// Called when the join of `topic` was written.
    pub(in crate::socket) fn join_written(&mut self, now: Time, topic: &Topic, join_ref: Ref) {
        self.channels.change(topic, |channel| channel.join_written(join_ref));
        if let Some(live) = self.connection.live_mut() {
            self.pace.written(now, live.joins().is_empty());
            live.join_written(join_ref, topic.clone(), now);
        }
    }

    /// Called when the server accepted the newest join of `topic`.
    pub(in crate::socket) fn joined(
        &mut self,
        now: Time,
        topic: &Topic,
        join_ref: Ref,
        response: Payload,
    ) {
        // The response is kept for later callers, so it is copied; a slice would keep the whole
        // read buffer alive.
        let response = response.into_compact();
        let kept = response.clone();
        let joined = self.channels.change(topic, |channel| channel.joined(now, join_ref, kept));
        let Some(NowJoined { first, pushes }) = joined.flatten() else { return };
        if let (Some(group), Some(live)) = (pushes, self.connection.live_mut()) {
            self.pushes.written_on(&group, join_ref);
            let members = self.pushes.members(&group);
            // Protocol: JOIN-15, RETRY-3.
            live.lane.extend(members.map(|(place, id, _)| (id.0, LaneItem::Push(place))));
        }
        let topic = topic.clone();
        self.signal(if first {
            Signal::Joined { topic, response }
        } else {
            Signal::Resumed { topic, response }
        });
    }

    /// Called when the server refused the newest join of `topic`.
    pub(in crate::socket) fn join_refused(&mut self, now: Time, topic: &Topic, response: Payload) {
        let response = response.into_compact();
        let kind = match reason_of(&response).as_deref() {
            Some("join crashed") => RejectionKind::JoinCrashed,
            Some("unmatched topic") => RejectionKind::UnmatchedTopic,
            Some("too many channels joined") => RejectionKind::TooManyChannels,
            _ => RejectionKind::Application,
        };
        let (config, rng) = (&self.config, &mut self.rng);
        let refused = self.channels.change(topic, |it| it.refused(now, &kind, config, rng));
        let Some(refused) = refused.flatten() else { return };
        let cause = match kind {
            RejectionKind::JoinCrashed => RejoinCause::JoinCrashed,
            _ => RejoinCause::Rejected(response.clone()),
        };
        let rejection = Rejection { kind, response };
        // Protocol: JOIN-3.
        self.signal(Signal::JoinRejected {
            topic: topic.clone(),
            rejection: rejection.clone(),
            last: matches!(refused, Refused::Last(_)),
        });
        match refused {
            Refused::Retry(rejoin) => self.rejoins(topic, rejoin, cause),
            Refused::Last(want) => self.ended_want(
                want,
                ChannelEnd::Rejected(rejection),
                UnknownCause::ChannelClosed,
                NotSentCause::JoinRejected,
            ),
        }
    }

    /// Called when an instance ends while its topic is wanted: after `phx_error`, when the server
    /// had no channel for a push, or after `rejoin`.
    pub(in crate::socket) fn channel_crashed(
        &mut self,
        now: Time,
        topic: &Topic,
        cause: Interruption,
    ) {
        let replaced = cause == Interruption::Resync;
        let (config, rng) = (&self.config, &mut self.rng);
        let crashed = self.channels.change(topic, |it| it.crashed(now, replaced, config, rng));
        let Some(Crashed { was_joined, pushes, rejoin }) = crashed.flatten() else { return };
        if !was_joined {
            return self.rejoins(topic, rejoin, RejoinCause::Crashed);
        }
        let (unknown, rejoin_cause) = match cause {
            Interruption::Resync => (UnknownCause::ChannelReplaced, RejoinCause::Resync),
            _ => (UnknownCause::ChannelCrashed, RejoinCause::Crashed),
        };
        self.remove_from_lane(pushes.as_ref());
        self.signal(Signal::Interrupted { topic: topic.clone(), cause });
        // Protocol: END-6, REPLY-5.
        self.interrupt_pushes(pushes.as_ref(), unknown);
        self.rejoins(topic, rejoin, rejoin_cause);
    }

    /// Reports that `topic` is joined again after a wait.
    fn rejoins(&mut self, topic: &Topic, rejoin: Rejoin, cause: RejoinCause) {
        let (topic, Rejoin { delay, attempt }) = (topic.clone(), rejoin);
        self.actions.push_back(Action::RejoinAfter { topic, delay, attempt, cause });
    }

    /// Called when the wait before a rejoin is over.
    pub(in crate::socket) fn rejoin_due(&mut self, topic: &Topic) {
        self.channels.change(topic, |channel| channel.rejoin_due());
    }

    /// Called when the reply to a join of `topic` is lost.
    pub(in crate::socket) fn join_unanswered(&mut self, now: Time, topic: &Topic, join_ref: Ref) {
        let (config, rng) = (&self.config, &mut self.rng);
        let rejoin = self.channels.change(topic, |it| it.unanswered(join_ref, now, config, rng));
        if let Some(rejoin) = rejoin.flatten() {
            self.rejoins(topic, rejoin, RejoinCause::JoinUnanswered);
        }
    }

    /// Called when the leave of `topic` is over.
    pub(in crate::socket) fn leave_ended(&mut self, topic: &Topic, outcome: LeaveOutcome) {
        let ended = self.channels.change(topic, |channel| channel.leave_ended());
        let Some(leaving) = ended.flatten() else { return };
        if let Some(live) = self.connection.live_mut() {
            match outcome {
                LeaveOutcome::TimedOut if leaving.leave_ref.is_some() => {}
                // The leave timed out before it was written. It stays in the lane and is written
                // late, unless the topic is joined again first.
                LeaveOutcome::TimedOut => live.lane.leave_is_late(topic.clone(), leaving.order),
                _ => live.lane.remove(leaving.order),
            }
        }
        let unknown = match outcome {
            LeaveOutcome::Offline => UnknownCause::Disconnected,
            _ => UnknownCause::Left,
        };
        self.end_group(leaving.pushes, |push| push.outcome_at_end(unknown, NotSentCause::Left));
        self.signal(Signal::Left { topic: topic.clone(), outcome });
    }

    /// Called when the connection is lost: every instance ends, and every wanted topic waits for
    /// the next connection.
    pub(in crate::socket) fn interrupt_channels(&mut self, now: Time, cause: &Cause) {
        let stable_after = self.config.stable_after;
        for topic in self.topics() {
            self.leave_ended(&topic, LeaveOutcome::Offline);
            let lost = self.channels.change(&topic, |it| it.disconnected(now, stable_after));
            if let Some(pushes) = lost.flatten() {
                let cause = Interruption::Disconnected(cause.clone());
                // Protocol: RETRY-8.
                self.signal(Signal::Interrupted { topic, cause });
                self.interrupt_pushes(pushes.as_ref(), UnknownCause::Disconnected);
            }
        }
        if let Cause::JoinStalled { topic } = cause {
            // The join stalled the whole socket, so the topic is joined last from now on.
            let order = self.mint_order();
            self.change_want(topic, |want| want.order = order);
        }
    }

    /// Every topic that is wanted or being left, sorted.
    fn topics(&self) -> Vec<Topic> {
        self.channels.sorted().map(|(topic, _)| topic.clone()).collect()
    }

    /// Ends every channel, because the connection does not reconnect by itself.
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

    /// Makes a topic no longer wanted, and ends its pushes.
    pub(in crate::socket) fn end_want(
        &mut self,
        topic: &Topic,
        cause: ChannelEnd,
        unknown: UnknownCause,
        not_sent: NotSentCause,
    ) {
        if let Some(want) = self.channels.change(topic, |channel| channel.end()).flatten() {
            self.ended_want(want, cause, unknown, not_sent);
        }
    }

    /// Called when a topic is no longer wanted: ends its interests and pushes.
    fn ended_want(
        &mut self,
        want: Want,
        cause: ChannelEnd,
        unknown: UnknownCause,
        not_sent: NotSentCause,
    ) {
        self.no_longer_wanted(&want);
        self.end_group(want.pushes, |push| push.outcome_at_end(unknown, not_sent));
        self.signal(Signal::ChannelClosed { topic: want.topic, cause });
    }

    /// Ends the channel of `topic`, because its parameters cannot be sent. If the server may hold
    /// an earlier instance, that instance is left, because its messages have no consumer.
    pub(in crate::socket) fn end_unsendable(&mut self, now: Time, topic: &Topic, message: String) {
        let pushes = self.change_want(topic, |want| want.pushes.take()).flatten();
        let Some(Left { mut want, leave }) = self.begin_leave(now, topic) else { return };
        want.pushes = pushes;
        self.ended_want(
            want,
            ChannelEnd::InvalidParams { message },
            UnknownCause::ChannelClosed,
            NotSentCause::JoinRejected,
        );
        if let Some(leave) = leave {
            self.leave_started(topic.clone(), leave);
        }
    }

    /// Makes a topic no longer wanted, and begins to leave the instance that the server may hold.
    fn begin_leave(&mut self, now: Time, topic: &Topic) -> Option<Left> {
        // Protocol: LEAVE-7.
        let until = now + self.config.leave_timeout;
        let next_order = &mut self.next_order;
        let left = self.channels.change(topic, |channel| channel.leave(until, || mint(next_order)));
        left.flatten()
    }

    /// Drops the interests of a topic that is no longer wanted, and keeps its name, so that a late
    /// broadcast is not taken for an unrouted message.
    fn no_longer_wanted(&mut self, want: &Want) {
        for (interest, ()) in want.interests.iter() {
            self.interests.remove(interest);
        }
        // Without a join, the server never had a channel.
        if let Some(live) = self.connection.live_mut().filter(|_| want.attempts > 0) {
            live.ended.add(&want.topic);
        }
    }

    /// Removes the queued pushes of a channel that is no longer joined from the lane.
    fn remove_from_lane(&mut self, group: Option<&Group>) {
        if let (Some(group), Some(live)) = (group, self.connection.live_mut()) {
            live.lane.remove_group(group, &self.pushes);
        }
    }
}

/// The `reason` member of an error response, if it is a string.
pub(in crate::socket) fn reason_of(response: &Payload) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Reason {
        reason: String,
    }
    response.deserialize::<Reason>().ok().map(|response| response.reason)
}
