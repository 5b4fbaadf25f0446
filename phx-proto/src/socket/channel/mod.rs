//! The channel machine: when to join, rejoin and leave a topic.
//!
//! The diagram has all transitions, and `tests/properties/diagrams.rs` compares it with the
//! behaviour:
//!
//! ```text
//!   Closed  → Pending  join; connect, for a topic that is joined automatically
//!   Pending → Joining  a slot is free and the frame is pulled
//!           → Leaving  leave or parameters that cannot be sent, while an earlier instance is there
//!           → Closed   leave; disconnect; gave up; parameters that cannot be sent
//!   Joining → Joined   ok
//!           → Errored  crashed, unanswered, or a rejection that is worth another try
//!           → Pending  connection lost
//!           → Leaving  leave
//!           → Closed   a final rejection, phx_close; disconnect; gave up
//!   Joined  → Errored  phx_error, "unmatched topic", rejoin
//!           → Pending  connection lost
//!           → Leaving  leave
//!           → Closed   phx_close; disconnect; gave up
//!   Errored → Pending  due, or connection lost
//!           → Leaving  leave, while the server may hold the earlier instance
//!           → Closed   leave, phx_close; disconnect; gave up
//!   Leaving → Pending  join
//!           → Closed   acked, timed out, offline
//! ```
//!
//! A [`Channel`] is the machine of one topic: whether and how it is *wanted*, and the instance that
//! is being left, if any. Both can exist at once: a join during a leave waits for the end of the
//! leave, because the server often loses the leave's reply when a join follows directly
//! (`wire/leave_rejoin_pipelined`). [`Channels`](channels::Channels) holds all channels, and
//! [`commands`] connects them with the connection and the pushes.
//!
//! Every join makes a new instance with a new join_ref; a frame of any other instance is stale
//! (`wire/join_double`: the close of the old instance arrives after the ok of the new one). For a
//! rejoin on request, no leave is sent: the new join replaces the old instance. Until the new join
//! is written, the server holds the old instance, and a leave refers to the old one. `phx_close`
//! and `phx_error` contain the join_ref in their ref member too (`wire/leave_ok`); in vsn 1 only
//! the ref member contains it.

pub(crate) mod channels;
pub(in crate::socket) mod commands;
pub(in crate::socket) mod ended;
#[cfg(test)]
mod tests;

use core::time::Duration;

use crate::collections::ordered::Ordered;
use crate::config::Config;
use crate::config::backoff::DelayRange;
use crate::config::join_params::JoinParams;
use crate::event::cause::RejectionKind;
use crate::id::{InterestId, Ref};
use crate::socket::push::slab::Group;
use crate::socket::rng::Rng;
use crate::time::Time;
use crate::topic::Topic;
use crate::wire::payload::Payload;

/// The public state of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChannelStatus {
    /// The topic is not wanted.
    Closed,
    /// The topic will be joined as soon as possible.
    Pending(PendingReason),
    /// The join was written and is unanswered.
    Joining,
    /// The channel is joined.
    Joined,
    /// The channel is being left.
    Leaving,
    /// The channel will be joined again at `until`.
    Errored {
        /// The time of the next join.
        until: Time,
    },
}

/// The reason why a join has not been written yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PendingReason {
    /// There is no open connection.
    Offline,
    /// An earlier instance is still being left.
    LeaveEnding,
    /// `join_concurrency` joins are unanswered.
    Slot,
    /// The server has closed connections because joins came too fast, so joins are written at a
    /// limited rate.
    Paced,
    /// The transport takes no frames at present, or the driver has not polled for one.
    NotWritable,
}

/// The machine of one topic.
#[derive(Clone, Debug, Default)]
pub(crate) struct Channel {
    pub(crate) want: Option<Want>,
    /// The instance that is being left. It is boxed, because few channels are being left.
    pub(crate) leaving: Option<Box<Leaving>>,
}

/// A wanted topic.
#[derive(Clone, Debug)]
pub(crate) struct Want {
    pub(crate) topic: Topic,
    /// The order of the join: joins are written in ascending order.
    pub(crate) order: u64,
    pub(crate) params: JoinParams,
    /// The interests in the topic, in the order of registration.
    pub(crate) interests: Ordered<InterestId>,
    /// Whether the topic is an auto-join of the configuration, which is wanted even without an
    /// interest.
    pub(crate) auto: bool,
    pub(crate) state: State,
    /// An earlier instance during the wait before a rejoin. After a `rejoin` on request the server
    /// still holds it; after a lost reply the server may hold it. A leave during the wait refers to
    /// it.
    pub(crate) surviving: Option<Ref>,
    /// Whether the application called `join` and no ok has arrived since. Then a rejection ends the
    /// channel.
    pub(crate) first_join_called: bool,
    pub(crate) ever_joined: bool,
    pub(crate) attempts: u32,
    pub(crate) rejoins: u32,
    pub(crate) rejections: u32,
    /// The time of the last reply "unmatched topic" to a push, by which the server reports that it
    /// has no channel.
    pub(crate) unmatched_at: Option<Time>,
    /// The pushes without an outcome; `None` before the first push.
    pub(crate) pushes: Option<Group>,
}

#[derive(Clone, Debug)]
pub(crate) enum State {
    Pending,
    Joining { join_ref: Ref },
    Joined(Instance),
    Errored { until: Time },
}

/// A joined instance.
#[derive(Clone, Debug)]
pub(crate) struct Instance {
    pub(crate) join_ref: Ref,
    pub(crate) since: Time,
    pub(crate) response: Payload,
}

/// An instance that is being left.
#[derive(Clone, Debug)]
pub(crate) struct Leaving {
    pub(crate) join_ref: Ref,
    /// The order of the leave in the lane, behind the pushes accepted before it.
    pub(crate) order: u64,
    /// The deadline of the leave.
    pub(crate) until: Time,
    /// The ref of the leave, once it is written.
    pub(crate) leave_ref: Option<Ref>,
    /// The pushes that were accepted before the leave and have no outcome.
    pub(crate) pushes: Option<Group>,
}

/// The instance of a channel that a frame refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InstanceKind {
    Joining(Ref),
    Joined(Ref),
    /// An earlier instance that a rejoin will replace, on request or after a lost reply.
    Surviving,
    Leaving,
}

/// The wait before the next join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rejoin {
    pub(crate) delay: Duration,
    /// The number of the next join.
    pub(crate) attempt: u32,
}

/// The parts of a wanted topic that a push needs. Only `pushes`, which is not indexed, can be
/// changed.
#[derive(Debug)]
pub(crate) struct ToPush<'a> {
    pub(crate) topic: &'a Topic,
    /// The joined instance.
    pub(crate) instance: Option<Ref>,
    pub(crate) pushes: &'a mut Option<Group>,
    /// The pushes of an instance that is being left.
    pub(crate) leaving: Option<&'a Group>,
}

/// The effect of an ok to the join.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NowJoined {
    /// Whether this is the first ok since the topic became wanted.
    pub(crate) first: bool,
    /// The pushes that waited for the join.
    pub(crate) pushes: Option<Group>,
}

/// The effect of a refused join.
#[derive(Debug)]
pub(crate) enum Refused {
    Retry(Rejoin),
    /// The rejection is final: the topic is no longer wanted.
    Last(Want),
}

/// The effect of the loss of an instance whose topic is still wanted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Crashed {
    /// Whether the channel was joined. If not, it was joining.
    pub(crate) was_joined: bool,
    pub(crate) pushes: Option<Group>,
    pub(crate) rejoin: Rejoin,
}

/// The effect of a leave: the topic is no longer wanted.
#[derive(Debug)]
pub(crate) struct Left {
    pub(crate) want: Want,
    /// The order and the join_ref of the leave to write, behind the pushes of the instance. `None`
    /// if the server holds no instance.
    pub(crate) leave: Option<(u64, Ref)>,
}

impl Want {
    pub(crate) const fn new(topic: Topic, order: u64, params: JoinParams) -> Self {
        Self {
            topic,
            order,
            params,
            interests: Ordered::new(),
            auto: false,
            state: State::Pending,
            surviving: None,
            first_join_called: false,
            ever_joined: false,
            attempts: 0,
            rejoins: 0,
            rejections: 0,
            unmatched_at: None,
            pushes: None,
        }
    }

    #[inline]
    pub(crate) const fn joined(&self) -> Option<&Instance> {
        match &self.state {
            State::Joined(instance) => Some(instance),
            _ => None,
        }
    }

    fn is_joining(&self, join_ref: Ref) -> bool {
        matches!(self.state, State::Joining { join_ref: current } if current == join_ref)
    }

    /// Goes from Joined, Joining or Errored to Pending. Returns the instance if it was joined.
    /// Resets the rejoin counter only if the instance was stable.
    fn lose(&mut self, now: Time, stable_after: Duration) -> Option<Instance> {
        self.surviving = None;
        match core::mem::replace(&mut self.state, State::Pending) {
            State::Joined(instance) => {
                if now.since(instance.since) >= stable_after {
                    self.rejoins = 0;
                }
                Some(instance)
            }
            _ => None,
        }
    }

    /// Begins the wait before the next join, with a delay that grows with the number of rejoins.
    fn back_off(&mut self, now: Time, config: &Config, rng: &mut Rng) -> Rejoin {
        self.rejoins = self.rejoins.saturating_add(1);
        self.wait(now, config.rejoin_after.range(self.rejoins), rng)
    }

    fn wait(&mut self, now: Time, range: DelayRange, rng: &mut Rng) -> Rejoin {
        let delay = rng.draw(range);
        self.state = State::Errored { until: now + delay };
        Rejoin { delay, attempt: self.attempts.saturating_add(1) }
    }
}

/// # Inspection
impl Channel {
    pub(crate) const fn is_empty(&self) -> bool {
        self.want.is_none() && self.leaving.is_none()
    }

    /// The groups of pushes without an outcome.
    pub(crate) fn groups(&self) -> impl Iterator<Item = &Group> {
        let wanted = self.want.as_ref().and_then(|want| want.pushes.as_ref());
        let leaving = self.leaving.as_ref().and_then(|leaving| leaving.pushes.as_ref());
        wanted.into_iter().chain(leaving)
    }

    /// The order of the join, if the join can be written now.
    pub(crate) const fn due(&self) -> Option<u64> {
        match &self.want {
            // Protocol: LEAVE-5.
            Some(Want { state: State::Pending, order, .. }) if self.leaving.is_none() => {
                Some(*order)
            }
            _ => None,
        }
    }

    /// The end of the wait before a rejoin.
    pub(crate) const fn rejoin_at(&self) -> Option<Time> {
        match &self.want {
            Some(Want { state: State::Errored { until }, .. }) => Some(*until),
            _ => None,
        }
    }

    /// The deadline of the leave.
    pub(crate) fn leave_until(&self) -> Option<Time> {
        self.leaving.as_ref().map(|leaving| leaving.until)
    }

    /// Whether the join with this ref is unanswered.
    pub(crate) fn is_joining(&self, join_ref: Ref) -> bool {
        self.want.as_ref().is_some_and(|want| want.is_joining(join_ref))
    }

    /// The instance that a frame with this join_ref refers to.
    pub(crate) fn instance(&self, join_ref: Option<Ref>) -> Option<InstanceKind> {
        if let Some(leaving) = &self.leaving {
            // A null join_ref names no instance. If the channel is being left, the frame is matched
            // to the instance that is being left.
            if join_ref.is_none_or(|join_ref| join_ref == leaving.join_ref) {
                return Some(InstanceKind::Leaving);
            }
        }
        let want = self.want.as_ref()?;
        match (&want.state, join_ref) {
            (State::Joined(instance), None) => Some(InstanceKind::Joined(instance.join_ref)),
            // Protocol: END-4, JOIN-11.
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

/// # Transitions
impl Channel {
    /// The parts that are needed to accept a push.
    #[inline]
    pub(crate) fn pushing(&mut self) -> Option<ToPush<'_>> {
        let want = self.want.as_mut()?;
        let instance = want.joined().map(|instance| instance.join_ref);
        let leaving = self.leaving.as_ref().and_then(|leaving| leaving.pushes.as_ref());
        Some(ToPush { topic: &want.topic, instance, pushes: &mut want.pushes, leaving })
    }

    /// Enters Joining, because the join was written.
    pub(crate) fn join_written(&mut self, join_ref: Ref) {
        if let Some(want) = &mut self.want {
            want.state = State::Joining { join_ref };
            want.surviving = None;
            want.attempts = want.attempts.saturating_add(1);
        }
    }

    /// Enters Joined, because the server accepted the newest join.
    pub(crate) fn joined(
        &mut self,
        now: Time,
        join_ref: Ref,
        response: Payload,
    ) -> Option<NowJoined> {
        let want = self.want.as_mut()?;
        want.state = State::Joined(Instance { join_ref, since: now, response });
        want.rejections = 0;
        want.first_join_called = false;
        let first = !core::mem::replace(&mut want.ever_joined, true);
        Some(NowJoined { first, pushes: want.pushes.clone() })
    }

    /// Waits or ends, because the server refused the newest join.
    pub(crate) fn refused(
        &mut self,
        now: Time,
        kind: &RejectionKind,
        config: &Config,
        rng: &mut Rng,
    ) -> Option<Refused> {
        let want = self.want.as_mut()?;
        // Protocol: JOIN-5.
        if *kind == RejectionKind::JoinCrashed {
            // The server's join callback raised an error. The next join may succeed, so this counts
            // as a crash.
            return Some(Refused::Retry(want.back_off(now, config, rng)));
        }
        want.rejections = want.rejections.saturating_add(1);
        // Protocol: JOIN-7.
        if want.first_join_called || want.rejections > config.join_rejections_max {
            return self.end().map(Refused::Last);
        }
        let range = match kind {
            // Protocol: JOIN-6.
            RejectionKind::TooManyChannels => config.rejected_after.longest(),
            _ => config.rejected_after.range(want.rejections),
        };
        Some(Refused::Retry(want.wait(now, range, rng)))
    }

    /// Enters Errored, because the instance ended while the topic is wanted. With `replaced`, the
    /// server holds the instance until the next join.
    pub(crate) fn crashed(
        &mut self,
        now: Time,
        replaced: bool,
        config: &Config,
        rng: &mut Rng,
    ) -> Option<Crashed> {
        let want = self.want.as_mut()?;
        let instance = want.lose(now, config.stable_after);
        if let Some(instance) = instance.as_ref().filter(|_| replaced) {
            want.surviving = Some(instance.join_ref);
        }
        let rejoin = want.back_off(now, config, rng);
        Some(Crashed { was_joined: instance.is_some(), pushes: want.pushes.clone(), rejoin })
    }

    /// Enters Errored, because the reply to this join was lost. The server may hold the instance,
    /// so it is kept as surviving.
    pub(crate) fn unanswered(
        &mut self,
        join_ref: Ref,
        now: Time,
        config: &Config,
        rng: &mut Rng,
    ) -> Option<Rejoin> {
        let want = self.want.as_mut().filter(|want| want.is_joining(join_ref))?;
        want.surviving = Some(join_ref);
        Some(want.back_off(now, config, rng))
    }

    /// Called when the wait before a rejoin is over.
    pub(crate) fn rejoin_due(&mut self) {
        if let Some(want) = &mut self.want {
            want.state = State::Pending;
        }
    }

    /// Removes the surviving instance, which the server has ended.
    pub(crate) fn survivor_ended(&mut self) {
        if let Some(want) = &mut self.want {
            want.surviving = None;
        }
    }

    /// Ends every instance, because the connection was lost. Returns `Some` if the channel was
    /// joined, with its pushes if there are any.
    pub(crate) fn disconnected(
        &mut self,
        now: Time,
        stable_after: Duration,
    ) -> Option<Option<Group>> {
        let want = self.want.as_mut()?;
        want.lose(now, stable_after)?;
        Some(want.pushes.clone())
    }

    /// Ends the want of the topic. An instance that the server may hold is left, with the pushes
    /// that were accepted for it; `order` returns the order of that leave.
    pub(crate) fn leave(&mut self, until: Time, order: impl FnOnce() -> u64) -> Option<Left> {
        let mut want = self.want.take()?;
        let instance = match want.state {
            State::Joining { join_ref } | State::Joined(Instance { join_ref, .. }) => {
                Some(join_ref)
            }
            State::Pending | State::Errored { .. } => want.surviving,
        };
        let leave = instance.map(|join_ref| {
            let (order, pushes) = (order(), want.pushes.take());
            let leaving = Leaving { join_ref, order, until, leave_ref: None, pushes };
            self.leaving = Some(Box::new(leaving));
            (order, join_ref)
        });
        Some(Left { want, leave })
    }

    /// Stores the ref of the leave of this instance, which was written.
    pub(crate) fn leave_written(&mut self, join_ref: Ref, leave_ref: Ref) {
        if let Some(leaving) = self.leaving.as_mut().filter(|it| it.join_ref == join_ref) {
            leaving.leave_ref = Some(leave_ref);
        }
    }

    /// Ends the leave.
    pub(crate) fn leave_ended(&mut self) -> Option<Leaving> {
        self.leaving.take().map(|leaving| *leaving)
    }

    /// Ends the want of the topic without a leave.
    pub(crate) fn end(&mut self) -> Option<Want> {
        self.want.take()
    }
}

#[cfg(test)]
mod canonical {
    use super::*;
    use crate::socket::fixpoint::form::Form;
    use crate::socket::push::slab::Pushes;

    impl Channel {
        pub(crate) fn canonical(&self, form: &mut Form<'_>, pushes: &Pushes) {
            let Self { want, leaving } = self;
            form.option(want.as_ref(), |form, want| want.canonical(form, pushes));
            form.option(leaving.as_deref(), |form, leaving| {
                let Leaving { join_ref, order, until, leave_ref, pushes: group } = leaving;
                form.msg_ref(*join_ref);
                form.order(*order);
                form.deadline(*until);
                form.option(*leave_ref, Form::msg_ref);
                let current = Some(*join_ref);
                form.option(group.as_ref(), |form, group| {
                    pushes.canonical_group(form, group, current);
                });
            });
        }
    }

    impl Want {
        fn canonical(&self, form: &mut Form<'_>, pushes: &Pushes) {
            let Self {
                topic: _,
                order,
                params,
                interests,
                auto,
                state,
                surviving,
                first_join_called,
                ever_joined,
                // Omitted: it is reported to the function that makes join parameters and to observers,
                // and it decides whether the topic is remembered when it ends (see `Ended`).
                attempts: _,
                rejoins,
                rejections,
                unmatched_at,
                pushes: group,
            } = self;
            form.order(*order);
            form.flag(params.fixed().is_some());
            form.number(interests.len() as u64);
            interests.entries().for_each(|(interest, ())| form.interest(interest));
            form.flag(*auto);
            state.canonical(form);
            form.option(*surviving, Form::msg_ref);
            form.flag(*first_join_called);
            form.flag(*ever_joined);
            let config = form.config;
            form.attempts(*rejoins, &config.rejoin_after, 0);
            form.attempts(*rejections, &config.rejected_after, config.join_rejections_max);
            let stable_after = config.stable_after;
            form.option(*unmatched_at, |form, at| form.time(at, stable_after));
            let current = self.joined().map(|instance| instance.join_ref);
            form.option(group.as_ref(), |form, group| {
                pushes.canonical_group(form, group, current);
            });
        }
    }

    impl State {
        fn canonical(&self, form: &mut Form<'_>) {
            match self {
                Self::Pending => form.number(0),
                Self::Joining { join_ref } => {
                    form.number(1);
                    form.msg_ref(*join_ref);
                }
                // The response is the same in all worlds.
                Self::Joined(Instance { join_ref, since, response: _ }) => {
                    form.number(2);
                    form.msg_ref(*join_ref);
                    form.time(*since, form.config.stable_after);
                }
                Self::Errored { until } => {
                    form.number(3);
                    form.deadline(*until);
                }
            }
        }
    }
}
