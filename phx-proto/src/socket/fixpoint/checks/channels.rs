//! Checks of channels: joins, leaves, rejoins, and the instance that each frame refers to.

use core::time::Duration;
use std::collections::BTreeMap;

use crate::event::cause::{ChannelEnd, Interruption, LeaveOutcome, RejectionKind, RejoinCause};
use crate::event::signal::Signal;
use crate::id::Ref;
use crate::socket::fixpoint::checks::{Checks, SOON};
use crate::socket::fixpoint::form::Form;
use crate::socket::fixpoint::world::{
    Event, Link, REJECTED_AFTER, Reply, Said, Sent, TOPICS, World, secs,
};
use crate::socket::{ChannelStatus, PendingReason, Status};
use crate::time::Time;

/// The state of a topic, as the signals and the written frames show it.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub(super) joined: bool,
    pub(super) ever_joined: bool,
    pub(super) leaving: bool,
    /// The time at which the present leave began.
    pub(super) left_at: Option<Time>,
    /// The ref of the newest join of this connection, and the time at which it was written.
    pub(super) newest: Option<(u64, Time)>,
    /// The ref of the leave that is unanswered.
    pub(super) leave: Option<u64>,
    pub(super) rejoins: usize,
    pub(super) rejections: u32,
    pub(super) since: Option<Time>,
    /// The earliest time of the next join.
    pub(super) until: Option<Time>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Instance {
    pub(super) topic: u8,
    pub(super) confirmed: bool,
    /// Whether a rejoin will replace the instance.
    pub(super) surviving: bool,
    /// Whether the instance is being left.
    pub(super) left: bool,
}

impl Checks {
    /// Called when the driver polled the frame of a join.
    pub(super) fn join_written(&mut self, sent: Sent, world: &World) {
        let socket = &world.socket;
        let seen = &mut self.topics[usize::from(sent.topic)];
        assert_eq!(sent.join_ref, sent.msg_ref, "a join's ref is its join_ref");
        assert!(seen.until.take().is_none_or(|until| until <= world.now), "too early");
        let earlier = self.order.iter().take_while(|topic| **topic != sent.topic);
        for topic in earlier.map(|topic| TOPICS[usize::from(*topic)]) {
            use PendingReason::{NotWritable, Paced, Slot};
            let status = socket.channel_status(topic);
            let waits = matches!(status, ChannelStatus::Pending(NotWritable | Paced | Slot));
            assert!(!waits, "{topic} must be joined first: {sent:?}");
        }
        seen.newest = Some((sent.msg_ref, world.now));
        if let Some(last) = self.last_join.replace(world.now) {
            self.paced &= world.now.since(last) <= SOON;
            assert!(!self.paced || last < world.now, "the join is not paced: {sent:?}");
        }
        self.instances.retain(|_, it| it.topic != sent.topic || it.left);
        let fresh = Instance { topic: sent.topic, confirmed: false, surviving: false, left: false };
        self.instances.insert(sent.join_ref, fresh);
        self.unanswered.insert(sent.msg_ref, sent.topic);
        assert!(self.unanswered.len() <= socket.config.join_concurrency.get(), "{self:?}");
    }

    pub(super) fn observe(&mut self, signal: &Signal, world: &World) {
        let topic = match signal {
            Signal::Joined { topic, .. }
            | Signal::Resumed { topic, .. }
            | Signal::JoinRejected { topic, .. }
            | Signal::JoinTimedOut { topic }
            | Signal::Interrupted { topic, .. }
            | Signal::Errored { topic, .. }
            | Signal::Left { topic, .. }
            | Signal::ChannelClosed { topic, .. }
            | Signal::Message { topic, .. } => topic,
            _ => return,
        };
        let at = TOPICS.iter().position(|it| **it == **topic).expect("a topic of the world");
        let seen = &mut self.topics[at];
        let newest = seen.newest.map(|(newest, _)| newest);
        let end = |instances: &mut BTreeMap<u64, Instance>, keep_left: bool| {
            instances.retain(|_, it| usize::from(it.topic) != at || keep_left && it.left);
        };
        match signal {
            Signal::Joined { .. } | Signal::Resumed { .. } => {
                let first = matches!(signal, Signal::Joined { .. });
                assert_eq!((seen.joined, seen.ever_joined), (false, !first), "{signal:?}");
                let newest = newest.expect("a join was written");
                assert!(self.instances[&newest].confirmed, "joined without the server's ok");
                (seen.joined, seen.ever_joined, seen.rejections) = (true, true, 0);
                seen.since = Some(world.now);
            }
            Signal::JoinRejected { rejection, last, .. } => {
                assert!(!seen.joined, "{signal:?}");
                end(&mut self.instances, true);
                let crashed = rejection.kind == RejectionKind::JoinCrashed;
                seen.rejections += u32::from(!crashed);
                let most = world.socket.config.join_rejections_max;
                let expected = !crashed && (!seen.ever_joined || seen.rejections > most);
                assert_eq!(*last, expected, "{signal:?}");
            }
            Signal::JoinTimedOut { .. } => {
                let (_, written) = seen.newest.expect("a join was written");
                let timeout = world.socket.config.join_timeout;
                assert!(world.now >= written + timeout && !seen.joined, "{signal:?}");
            }
            Signal::Errored { .. } => {
                self.unanswered.retain(|join_ref, _| Some(*join_ref) != newest);
            }
            Signal::Interrupted { cause, .. } => {
                assert!(seen.joined, "{signal:?}");
                seen.joined = false;
                if *cause == Interruption::Resync {
                    let newest = newest.and_then(|newest| self.instances.get_mut(&newest));
                    newest.expect("the joined instance").surviving = true;
                } else {
                    end(&mut self.instances, true);
                }
            }
            Signal::Left { outcome, .. } => {
                assert!(core::mem::take(&mut seen.leaving), "{signal:?}");
                let until = seen.left_at.take().map(|at| at + world.socket.config.leave_timeout);
                let late = until.is_some_and(|until| until <= world.now);
                assert!(*outcome != LeaveOutcome::TimedOut || late, "{signal:?}: {until:?}");
                seen.leave = None;
                // A leave may be written after it has timed out, because the server still holds the
                // instance. So only an answered leave removes its instance.
                if *outcome == LeaveOutcome::Acked {
                    self.instances.retain(|join_ref, _| Some(*join_ref) != newest);
                }
            }
            Signal::ChannelClosed { cause, .. } => {
                let held = world.socket.channels.get(topic).is_some_and(|it| it.leaving.is_some());
                let leaves = match cause {
                    ChannelEnd::Left => true,
                    ChannelEnd::InvalidParams { .. } => held && !seen.leaving,
                    _ => false,
                };
                if leaves {
                    for instance in self.instances.values_mut() {
                        instance.left |= usize::from(instance.topic) == at;
                    }
                } else {
                    end(&mut self.instances, true);
                }
                if *cause == ChannelEnd::ClosedByServer {
                    self.unanswered.retain(|join_ref, _| Some(*join_ref) != newest);
                }
                self.order.retain(|topic| usize::from(*topic) != at);
                let leaving = seen.leaving || leaves;
                let left_at = leaving.then(|| seen.left_at.unwrap_or(world.now));
                let (leave, newest) = (seen.leave, seen.newest);
                *seen = Seen { leaving, left_at, leave, newest, ..Seen::default() };
                self.now.closed.push(topic.to_string());
            }
            _ => {}
        }
    }

    pub(super) fn rejoins(
        &mut self,
        topic: &str,
        delay: Duration,
        cause: &RejoinCause,
        world: &World,
    ) {
        let at = TOPICS.iter().position(|it| **it == *topic).expect("a topic of the world");
        let (seen, config) = (&mut self.topics[at], &world.socket.config);
        let expected = if matches!(cause, RejoinCause::Rejected(_)) {
            assert!(seen.rejections <= config.join_rejections_max, "{cause:?}");
            secs(REJECTED_AFTER[(seen.rejections as usize).clamp(1, 2) - 1])
        } else {
            let stable =
                seen.since.take().is_some_and(|it| world.now.since(it) >= config.stable_after);
            seen.rejoins = if stable { 1 } else { seen.rejoins + 1 };
            let steps = world.settings.rejoin_after;
            secs(steps[seen.rejoins.min(steps.len()) - 1])
        };
        assert_eq!(delay, expected, "{topic}: {cause:?}, {seen:?}");
        seen.until = Some(world.now + delay);
    }

    pub(super) fn check_topic(&self, at: usize, world: &World) {
        let (seen, socket, topic) = (&self.topics[at], &world.socket, TOPICS[at]);
        let status = socket.channel_status(topic);
        assert_eq!(seen.joined, status == ChannelStatus::Joined, "{topic}: {seen:?} {status:?}");
        assert_eq!(seen.joined, socket.join_response(topic).is_some());
        let is_open = socket.status() == Status::Open;
        if !is_open {
            use ChannelStatus::{Errored, Joined, Joining, Leaving};
            let live = matches!(status, Joining | Joined | Leaving | Errored { .. });
            assert!(!live, "{topic} is {status:?} without a connection");
        }
        match status {
            ChannelStatus::Pending(PendingReason::NotWritable) => {
                assert!(!world.is_writable() || world.is_evaluating(), "{topic} could be joined");
            }
            ChannelStatus::Pending(PendingReason::Paced) => assert!(world.settings.paced),
            ChannelStatus::Pending(PendingReason::LeaveEnding) | ChannelStatus::Leaving => {
                assert!(seen.leaving, "{topic}: {seen:?}");
            }
            ChannelStatus::Errored { until } => assert_eq!(seen.until, Some(until)),
            _ => {}
        }
        let Some(Said::Reply { to, status: reply, .. }) = self.now.said else { return };
        if usize::from(to.topic) != at {
            return;
        }
        if to.event == Event::Join && seen.newest.is_some_and(|(it, _)| it == to.msg_ref) {
            assert_ne!(status, ChannelStatus::Joining, "{topic}: the join was answered");
            assert!(!seen.joined || self.now.joined[at] || reply == Reply::Ok, "{topic}");
        }
        if to.event == Event::Leave {
            assert_ne!(seen.leave, Some(to.msg_ref), "{topic}: the leave was answered");
        }
    }

    /// When every frame is delivered, the server holds exactly the channels that the client has joined.
    pub(super) fn check_agreement(&self, world: &World) {
        let Link::Open(wire) = &world.link else { return };
        for (at, seen) in self.topics.iter().enumerate() {
            let held = wire.channels.get(&(at as u8)).copied();
            let joined = seen.newest.map(|(newest, _)| newest).filter(|_| seen.joined);
            assert_eq!(held, joined, "{}: {seen:?}", TOPICS[at]);
        }
    }
}

impl Seen {
    pub(super) fn canonical(
        &self,
        form: &mut Form<'_>,
        unanswered: &BTreeMap<u64, u8>,
        instances: &BTreeMap<u64, Instance>,
    ) {
        let Self {
            joined,
            ever_joined,
            leaving,
            left_at,
            newest,
            leave,
            rejoins,
            rejections,
            since,
            until,
        } = self;
        form.flag(*joined);
        form.flag(*ever_joined);
        form.flag(*leaving);
        let leave_timeout = form.config.leave_timeout;
        form.option(*left_at, |form, at| form.time(at, leave_timeout));
        // A join whose instance has ended makes no difference, so the form omits it.
        let newest =
            newest.filter(|(it, _)| unanswered.contains_key(it) || instances.contains_key(it));
        form.option(newest, |form, (msg_ref, at)| {
            form.msg_ref(Ref(msg_ref));
            if unanswered.contains_key(&msg_ref) {
                let timeout = form.config.join_timeout;
                form.time(at, timeout);
            }
        });
        form.option(*leave, |form, leave| form.msg_ref(Ref(leave)));
        let config = form.config;
        form.attempts(*rejoins as u32, &config.rejoin_after, 0);
        form.attempts(*rejections, &config.rejected_after, config.join_rejections_max);
        let stable_after = config.stable_after;
        form.option(*since, |form, at| form.time(at, stable_after));
        let until = until.filter(|until| *until > form.now);
        form.option(until, Form::deadline);
    }
}
