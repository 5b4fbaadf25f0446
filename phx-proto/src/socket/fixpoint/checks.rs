//! Checks of the invariants of `tests/support/ops/checkers`, after every operation of a search.
//!
//! The history that the checks keep is part of the form of a state. So the checks drop every part that
//! can no longer make a difference. Otherwise the number of states would be infinite.

use core::time::Duration;
use std::collections::BTreeMap;

use crate::config::CloseRule;
use crate::event::action::Action;
use crate::event::cause::{
    Cause, ChannelEnd, Interruption, LeaveOutcome, NotSentCause, PushOutcome, RejectionKind,
    RejoinCause,
};
use crate::event::signal::Signal;
use crate::id::{PushId, Ref};
use crate::socket::connection::live::Live;
use crate::socket::fixpoint::form::Form;
use crate::socket::fixpoint::world::{
    Event, FIRST_RETRY, Kind, Link, Op, REFUSED_AFTER, REJECTED_AFTER, RESTART, RESTART_AFTER,
    Reply, Said, Sent, TOPICS, World, secs,
};
use crate::socket::{ChannelStatus, PendingReason, Socket, Status};
use crate::time::Time;

/// If a connection ends within this time after a join, the join counts as the cause.
const SOON: Duration = Duration::from_secs(2);

#[derive(Clone, Debug, Default)]
pub(crate) struct Checks {
    /// Pushes without an outcome.
    pushes: BTreeMap<PushId, Accepted>,
    topics: [Seen; 2],
    /// The instances of this connection that a frame may refer to, by join_ref.
    instances: BTreeMap<u64, Instance>,
    /// The topic of each unanswered join, by join_ref.
    unanswered: BTreeMap<u64, u8>,
    /// The refs of the unanswered heartbeats, oldest first. `beat_written` is the time at which the
    /// first of them was written.
    beats: Vec<u64>,
    beat_written: Time,
    /// Whether the link took no frames after the last operation, so that a heartbeat may be due and not
    /// written.
    owed: bool,
    /// Whether the link took frames after every operation on this connection.
    prompt: bool,
    retries: Retries,
    /// The time of the last join of this connection.
    last_join: Option<Time>,
    /// Whether the server closed the last connection soon after a join.
    cut: bool,
    /// The number of times that the server closed a connection.
    closes: u32,
    /// Whether the connection ended for good.
    ended: bool,

    /// The present operation and the frame that it delivered. They are not a part of the state.
    now: Present,
}

#[derive(Clone, Debug, Default)]
struct Present {
    op: Option<Op>,
    said: Option<Said>,
    next_ref: u64,
    was_ended: bool,
    closed: Vec<String>,
    joined: [bool; 2],
}

#[derive(Clone, Debug)]
struct Accepted {
    topic: u8,
    kind: Kind,
    deadline: Time,
    written: Option<u64>,
}

/// The state of a topic, as the signals and the written frames show it.
#[derive(Clone, Debug, Default)]
struct Seen {
    joined: bool,
    ever_joined: bool,
    leaving: bool,
    /// The ref of the newest join of this connection, and the time at which it was written.
    newest: Option<(u64, Time)>,
    /// The ref of the leave that is unanswered.
    leave: Option<u64>,
    rejoins: usize,
    rejections: u32,
    since: Option<Time>,
    /// The earliest time of the next join.
    until: Option<Time>,
}

#[derive(Clone, Copy, Debug)]
struct Instance {
    topic: u8,
    confirmed: bool,
    /// Whether a rejoin will replace the instance.
    surviving: bool,
    /// Whether the instance is being left.
    left: bool,
}

/// The history that determines the delays between attempts.
#[derive(Clone, Debug, Default)]
struct Retries {
    attempts: usize,
    skipped: usize,
    refusals: usize,
    too_large: usize,
    opened_at: Option<Time>,
    /// For a connection that the client closed because of the peer, the time for which it was open.
    closed_after: Option<Duration>,
    failing_since: Option<Time>,
    /// The time of the next attempt, and whether a wake-up may start it earlier.
    wait: Option<(Time, bool)>,
    woken: bool,
}

impl Checks {
    pub(crate) fn canonical(&self, form: &mut Form<'_>) {
        let Self {
            pushes,
            topics,
            instances,
            unanswered,
            beats,
            beat_written,
            owed,
            prompt,
            retries,
            last_join,
            cut,
            closes,
            ended,
            now: _,
        } = self;
        form.number(pushes.len() as u64);
        for (id, Accepted { topic, kind, deadline, written }) in pushes {
            form.order(id.0);
            form.number(u64::from(*topic));
            form.number(*kind as u64);
            form.deadline(*deadline);
            form.option(*written, |form, msg_ref| form.msg_ref(Ref(msg_ref)));
        }
        topics.iter().for_each(|seen| seen.canonical(form, unanswered, instances));
        form.number(instances.len() as u64);
        for (join_ref, Instance { topic, confirmed, surviving, left }) in instances {
            form.msg_ref(Ref(*join_ref));
            form.number(u64::from(*topic));
            form.flag(*confirmed);
            form.flag(*surviving);
            form.flag(*left);
        }
        form.number(unanswered.len() as u64);
        for (join_ref, topic) in unanswered {
            form.msg_ref(Ref(*join_ref));
            form.number(u64::from(*topic));
        }
        form.number(beats.len() as u64);
        beats.iter().for_each(|beat| form.msg_ref(Ref(*beat)));
        let config = form.config;
        let timeout = config.heartbeat_timeout;
        form.option((!beats.is_empty()).then_some(*beat_written), |form, at| {
            form.time(at, timeout)
        });
        let beats = !config.heartbeat_interval.is_zero();
        form.flag(beats && *owed);
        form.flag(beats && *prompt);
        retries.canonical(form);
        let last_join = last_join.filter(|_| form.habits.closes);
        form.option(last_join, |form, at| form.time(at, SOON + Duration::from_nanos(1)));
        form.flag(*cut);
        form.number(if form.habits.limited { u64::from(*closes) } else { 0 });
        form.flag(*ended);
    }

    pub(crate) fn open_pushes(&self) -> usize {
        self.pushes.len()
    }

    pub(crate) fn oldest_push(&self) -> PushId {
        *self.pushes.keys().next().expect("a push")
    }

    /// The number of pushes that are not written.
    pub(crate) fn queued(&self) -> usize {
        self.pushes.values().filter(|push| push.written.is_none()).count()
    }

    pub(crate) const fn closes(&self) -> u32 {
        self.closes
    }

    pub(crate) const fn was_cut(&self) -> bool {
        self.cut
    }

    /// Called before an operation.
    pub(crate) fn begin(&mut self, op: Op, socket: &Socket) {
        let joined = [0, 1].map(|at| socket.channel_status(TOPICS[at]) == ChannelStatus::Joined);
        self.now = Present {
            op: Some(op),
            said: None,
            next_ref: socket.next_ref,
            was_ended: false,
            closed: Vec::new(),
            joined,
        };
        match op {
            Op::Connect => {
                if self.ended {
                    self.retries = Retries::default();
                }
                self.ended = false;
            }
            Op::Close(_) => self.closes += 1,
            Op::ConnectNow => self.retries = Retries::default(),
            Op::Wake => {
                let is_open = matches!(socket.status(), Status::Open);
                self.retries.woken |= !is_open;
            }
            Op::Disconnect => {
                (self.cut, self.last_join) = (false, None);
                self.retries = Retries::default();
            }
            _ => {}
        }
        self.now.was_ended = self.ended;
    }

    pub(crate) fn opened(&mut self, now: Time) {
        self.retries.opened_at = Some(now);
        (self.retries.refusals, self.prompt) = (0, true);
    }

    pub(crate) fn pushed(&mut self, id: PushId, topic: u8, kind: Kind, deadline: Time) {
        assert!(self.pushes.keys().all(|known| *known < id), "ids grow");
        self.pushes.insert(id, Accepted { topic, kind, deadline, written: None });
    }

    /// Called when the client reads a frame.
    pub(crate) fn delivered(&mut self, said: Said, _now: Time) {
        self.now.said = Some(said);
        let Said::Reply { to, status, .. } = said else { return };
        match to.event {
            Event::Heartbeat => {
                if self.beats.contains(&to.msg_ref) {
                    self.beats.retain(|beat| *beat > to.msg_ref);
                }
                // Answers to joins that were written before this heartbeat are lost.
                self.unanswered.retain(|join_ref, _| *join_ref > to.msg_ref);
            }
            Event::Join => {
                self.unanswered.remove(&to.msg_ref);
                if let Some(instance) = self.instances.get_mut(&to.msg_ref) {
                    instance.confirmed = status == Reply::Ok;
                }
            }
            Event::Leave | Event::Push => {}
        }
    }

    /// Called when the driver polled a frame.
    pub(crate) fn written(&mut self, sent: Sent, world: &World) {
        let socket = &world.socket;
        assert!(sent.msg_ref >= self.now.next_ref, "refs grow: {sent:?}");
        self.now.next_ref = sent.msg_ref + 1;
        assert_eq!(socket.status(), Status::Open, "{sent:?}");
        assert!(!self.now.was_ended, "after the end: {sent:?}");
        if sent.event == Event::Heartbeat {
            assert_eq!(sent.join_ref, 0, "{sent:?}");
            let timeout = socket.config.heartbeat_timeout;
            if self.beats.is_empty() {
                self.beat_written = world.now;
            } else {
                let over = world.now >= self.beat_written + timeout;
                assert!(over || !self.prompt, "one at a time: {sent:?}");
            }
            self.beats.push(sent.msg_ref);
            return;
        }
        let seen = &mut self.topics[usize::from(sent.topic)];
        if sent.event == Event::Join {
            assert_eq!(sent.join_ref, sent.msg_ref, "a join's ref is its join_ref");
            assert!(seen.until.take().is_none_or(|until| until <= world.now), "too early");
            seen.newest = Some((sent.msg_ref, world.now));
            self.last_join = Some(world.now);
            self.instances.retain(|_, it| it.topic != sent.topic || it.left);
            let fresh =
                Instance { topic: sent.topic, confirmed: false, surviving: false, left: false };
            self.instances.insert(sent.join_ref, fresh);
            self.unanswered.insert(sent.msg_ref, sent.topic);
            assert!(self.unanswered.len() <= socket.config.join_concurrency.get(), "{self:?}");
            return;
        }
        let waits = ChannelStatus::Pending(PendingReason::NotWritable);
        let overtaken = socket.channels().find(|(_, status)| *status == waits);
        assert!(overtaken.is_none() || world.is_evaluating(), "{overtaken:?} by {sent:?}");
        let instance = *self.instances.get(&sent.join_ref).expect("a join of this connection");
        assert_eq!(instance.topic, sent.topic);
        if sent.event == Event::Leave {
            assert!(instance.left, "{sent:?}");
            self.instances.remove(&sent.join_ref);
            if seen.leaving {
                seen.leave = Some(sent.msg_ref);
            }
            return;
        }
        assert!(instance.confirmed, "before the join's ok: {sent:?}");
        assert!(!instance.surviving, "the instance is being replaced: {sent:?}");
        let mut waiting = self.pushes.iter_mut().filter(|(_, push)| push.written.is_none());
        let first = waiting.find(|(_, push)| push.topic == sent.topic);
        let (id, push) = first.expect("a push that is not written");
        assert_eq!(id.0, sent.push, "not the first of its channel");
        push.written = Some(sent.msg_ref);
        let in_flight = self.pushes.values().filter(|it| it.written.is_some());
        let calls = in_flight.filter(|it| it.kind != Kind::Cast).count();
        assert!(calls <= socket.config.pushes_in_flight_max.get(), "{self:?}");
    }

    /// Called when the driver polled an action other than a frame.
    pub(crate) fn decided(&mut self, action: &Action, world: &World) {
        let signal = match action {
            Action::Signal(signal) => signal,
            Action::Connect { .. } => return self.dialled(world),
            Action::ReconnectAfter { delay, cause, .. } => {
                return self.reconnects(*delay, cause, world);
            }
            Action::RejoinAfter { topic, delay, cause, .. } => {
                return self.rejoins(topic, *delay, cause, world);
            }
            Action::Close { .. } => {
                let opened = self.retries.opened_at.take();
                self.retries.closed_after = opened.map(|at| world.now.since(at));
                return;
            }
            Action::Abort { .. } | Action::Send { .. } | Action::Join { .. } => return,
        };
        let by_disconnect = self.now.op == Some(Op::Disconnect) && *signal == Signal::Closed;
        assert!(!self.now.was_ended || by_disconnect, "after the end: {signal:?}");
        match signal {
            Signal::GaveUp { .. } | Signal::Closed => {
                self.ended = true;
                self.retries = Retries::default();
                (self.cut, self.last_join) = (false, None);
            }
            Signal::Disconnected { cause, .. } => {
                self.disconnected(cause, world.now);
            }
            Signal::ConnectFailed { .. } => self.offline(),
            Signal::PushEnded { id, outcome, .. } => self.push_ended(*id, outcome, world.now),
            _ => self.observe(signal, world),
        }
    }

    fn disconnected(&mut self, cause: &Cause, now: Time) {
        if let Some(last) = self.last_join.take() {
            let by_peer = matches!(cause, Cause::RemoteClose { .. });
            self.cut = by_peer && now.since(last) <= SOON;
        }
        if matches!(cause, Cause::HeartbeatTimeout) {
            assert!(!self.beats.is_empty() || self.owed, "every heartbeat was answered");
        }
        self.offline();
    }

    fn offline(&mut self) {
        self.instances.clear();
        self.unanswered.clear();
        self.beats.clear();
        for seen in &mut self.topics {
            (seen.newest, seen.leave, seen.until, seen.since) = (None, None, None, None);
        }
    }

    fn observe(&mut self, signal: &Signal, world: &World) {
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
                seen.leave = None;
                // A leave that timed out is still written, and so is the leave of an earlier instance.
                // So only an answered leave removes its instance.
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
                let leaving = seen.leaving || leaves;
                *seen = Seen { leaving, leave: seen.leave, newest: seen.newest, ..Seen::default() };
                self.now.closed.push(topic.to_string());
            }
            _ => {}
        }
    }

    fn push_ended(&mut self, id: PushId, outcome: &PushOutcome, now: Time) {
        let push = self.pushes.remove(&id).unwrap_or_else(|| panic!("{id:?} ended: {outcome:?}"));
        let cast = push.kind == Kind::Cast;
        let closed = self.now.closed.iter().any(|it| *it == TOPICS[usize::from(push.topic)]);
        assert!(!closed || *outcome == PushOutcome::Written, "{id:?} ends behind its channel");
        let late = now >= push.deadline && self.now.op == Some(Op::Tick);
        let replied = match self.now.said {
            Some(Said::Reply { to, .. }) => push.written == Some(to.msg_ref),
            _ => false,
        };
        let written = push.written.is_some();
        let fits = match outcome {
            PushOutcome::Reply(_) => replied && !cast,
            PushOutcome::Written => written && cast,
            PushOutcome::TimedOut => written && late,
            PushOutcome::Unknown(_) => written && !cast,
            PushOutcome::NotSent(NotSentCause::TimedOut) => !written && late,
            PushOutcome::NotSent(NotSentCause::Encoding) => false,
            PushOutcome::NotSent(NotSentCause::Interrupted) => {
                !written && push.kind == Kind::FailFast
            }
            PushOutcome::NotSent(_) => !written,
            PushOutcome::Cancelled => self.now.op == Some(Op::Cancel),
        };
        assert!(fits, "{outcome:?} of {push:?} at {now}");
    }

    fn rejoins(&mut self, topic: &str, delay: Duration, cause: &RejoinCause, world: &World) {
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

    fn dialled(&mut self, world: &World) {
        let retries = &mut self.retries;
        let woken = core::mem::take(&mut retries.woken);
        if let Some((until, may_skip)) = retries.wait.take() {
            let excused = woken && may_skip;
            assert!(world.now >= until || excused, "dialled before {until}");
        }
    }

    /// Checks the delay before an attempt, which the history determines.
    fn reconnects(&mut self, delay: Duration, cause: &Cause, world: &World) {
        let (retries, config, now) = (&mut self.retries, &world.socket.config, world.now);
        let open_for = retries.closed_after.take();
        let open_for = open_for.or(retries.opened_at.take().map(|at| now.since(at)));
        let longest = secs(REFUSED_AFTER[1]);
        let too_large = match (cause, open_for) {
            (Cause::MessageTooLarge { .. }, Some(it)) if it > longest => 1,
            (Cause::MessageTooLarge { .. }, _) => retries.too_large + 1,
            (_, Some(_)) => 0,
            (_, None) => retries.too_large,
        };
        if open_for.is_some_and(|it| it >= config.stable_after) {
            let woken = retries.woken;
            *retries = Retries { woken, ..Retries::default() };
        }
        retries.too_large = too_large;
        retries.attempts += 1;
        let steps = world.settings.reconnect_after;
        let step = |nth: usize| steps[nth.clamp(1, steps.len()) - 1];
        let refused = |nth: usize| REFUSED_AFTER[nth.clamp(1, 2) - 1];
        let ordinary = step(retries.attempts + retries.skipped);
        let (expected, may_skip) = match cause {
            Cause::Refused(refusal) if refusal.status() < 500 => {
                retries.refusals += 1;
                (refused(retries.refusals), false)
            }
            Cause::MessageTooLarge { .. } if retries.too_large > 1 => {
                (refused(retries.too_large - 1), false)
            }
            _ if open_for.is_some() => {
                let first = match cause {
                    Cause::RemoteClose { code: Some(RESTART), .. } => RESTART_AFTER,
                    _ => FIRST_RETRY,
                };
                let reaching = (1..=steps.len()).find(|nth| step(*nth) >= first);
                let reaching = reaching.unwrap_or(steps.len());
                let next = retries.attempts + 1;
                retries.skipped = retries.skipped.max(reaching.saturating_sub(next));
                (if retries.attempts > 1 { first.max(ordinary) } else { first }, true)
            }
            _ => (ordinary, true),
        };
        if let Cause::RemoteClose { code, .. } = cause {
            assert_ne!(config.close_policy.rule(*code), CloseRule::Stop, "{cause:?}");
        }
        assert_eq!(delay, secs(expected), "{cause:?}: {retries:?}");
        let since = *retries.failing_since.get_or_insert(now);
        let most = config.max_retries.unwrap_or(u32::MAX) as usize;
        assert!(retries.attempts <= most, "{cause:?}: {retries:?}");
        let elapsed = now.since(since) + delay;
        assert!(config.max_elapsed.is_none_or(|most| elapsed <= most), "{cause:?}: {retries:?}");
        retries.wait = Some((now + delay, may_skip));
    }

    /// Called after an operation, when every action has been polled.
    pub(crate) fn end(&mut self, writable: bool, socket: &Socket) {
        self.owed = !writable;
        self.prompt &= writable;
        // Drops the instances that the socket no longer knows. If a later frame refers to one of them,
        // the check of that frame fails.
        let known = |(join_ref, instance): (&u64, &mut Instance)| {
            let join_ref = Ref(*join_ref);
            let channel = socket.channels.get(TOPICS[usize::from(instance.topic)]);
            let waits = |live: &Live| live.lane.leaves().any(|it| it == join_ref);
            channel.is_some_and(|it| it.instance(Some(join_ref)).is_some())
                || socket.connection.live().is_some_and(waits)
        };
        self.instances.retain(|join_ref, instance| known((join_ref, instance)));
    }

    /// Checks the state after an operation.
    pub(crate) fn settled(&self, world: &World) {
        let socket = &world.socket;
        let status = socket.status();
        let is_open = status == Status::Open;
        let wire = match &world.link {
            Link::Open(wire) => Some(&**wire),
            _ => None,
        };
        let held = match &world.link {
            Link::None => None,
            Link::Dialling(id) | Link::Closing(id) => Some(*id),
            Link::Open(wire) => Some(wire.id),
        };
        assert_eq!(socket.connection_id(), held, "{status:?}");
        assert_eq!(is_open, wire.is_some(), "{status:?}");
        let writable = world.is_writable();

        let ended = matches!(status, Status::Closed | Status::GaveUp { .. });
        assert_eq!(self.ended, ended, "the end is reported: {status:?}");
        if ended {
            assert_eq!(socket.poll_timeout(), None, "nothing runs after the end");
            assert!(self.pushes.is_empty(), "left behind: {self:?}");
            assert_eq!(socket.channels().count(), 0, "every channel has ended");
        }

        let stats = socket.stats();
        let in_flight = self.pushes.values().filter(|push| push.written.is_some()).count();
        assert_eq!((stats.pushes_in_flight, stats.queued_pushes), (in_flight, self.queued()));
        assert!(stats.queued_pushes <= socket.config.queued_pushes_max, "{stats:?}");
        assert!(in_flight <= socket.config.pushes_in_flight_max.get(), "{stats:?}");
        let sizes = socket.sizes();
        assert_eq!(
            (sizes.pushes, sizes.pushes_of_channels),
            (self.pushes.len(), self.pushes.len())
        );
        let casts = |push: &Accepted| push.kind == Kind::Cast && push.written.is_some();
        assert!(!self.pushes.values().any(casts), "{self:?}");
        if self.now.op == Some(Op::Tick) {
            assert!(self.pushes.values().all(|push| push.deadline > world.now), "{self:?}");
        }
        if let Some(Said::Reply { to, .. }) = self.now.said {
            let waits = |push: &Accepted| push.written == Some(to.msg_ref);
            assert!(!self.pushes.values().any(waits), "a reply is the outcome: {self:?}");
        }
        if is_open && writable && !world.is_evaluating() {
            let full = in_flight == socket.config.pushes_in_flight_max.get();
            assert_eq!(sizes.due_frames, 0, "what is in the lane can be written: {sizes:?}");
            assert!(full || sizes.held_topics == 0, "{sizes:?}");
        }
        for at in 0..2 {
            self.check_topic(at, world, writable);
        }
        for (at, name) in TOPICS.iter().enumerate() {
            let held = world.interests.iter().filter(|(of, _)| usize::from(*of) == at).count();
            assert_eq!(socket.interests(name), held, "interests in {name}");
        }
        if is_open && world.is_settled() {
            self.check_agreement(world);
        }
    }

    fn check_topic(&self, at: usize, world: &World, writable: bool) {
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
                assert!(!writable || world.is_evaluating(), "{topic} could be joined");
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
    fn check_agreement(&self, world: &World) {
        let Link::Open(wire) = &world.link else { return };
        for (at, seen) in self.topics.iter().enumerate() {
            let held = wire.channels.get(&(at as u8)).copied();
            let joined = seen.newest.map(|(newest, _)| newest).filter(|_| seen.joined);
            assert_eq!(held, joined, "{}: {seen:?}", TOPICS[at]);
        }
    }
}

impl Seen {
    fn canonical(
        &self,
        form: &mut Form<'_>,
        unanswered: &BTreeMap<u64, u8>,
        instances: &BTreeMap<u64, Instance>,
    ) {
        let Self { joined, ever_joined, leaving, newest, leave, rejoins, rejections, since, until } =
            self;
        form.flag(*joined);
        form.flag(*ever_joined);
        form.flag(*leaving);
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

impl Retries {
    fn canonical(&self, form: &mut Form<'_>) {
        let Self {
            attempts,
            skipped,
            refusals,
            too_large,
            opened_at,
            closed_after,
            failing_since,
            wait,
            woken,
        } = self;
        let config = form.config;
        let most = config.max_retries.unwrap_or(1);
        form.attempts(*attempts as u32, &config.reconnect_after, most);
        form.attempts(*skipped as u32, &config.reconnect_after, 0);
        form.attempts(*refusals as u32, &config.refused_after, 0);
        form.attempts(*too_large as u32, &config.refused_after, 2);
        let longest = form.longest_open();
        form.option(*opened_at, |form, at| form.time(at, longest));
        form.option(*closed_after, |form, open_for| form.duration(open_for, longest));
        let limit = config.max_elapsed;
        let failing_since = failing_since.filter(|_| limit.is_some());
        form.option(failing_since, |form, at| form.time(at, limit.unwrap_or_default()));
        form.option(*wait, |form, (until, may_skip)| {
            form.time(until, Duration::ZERO);
            form.flag(may_skip);
        });
        form.flag(*woken);
    }
}
