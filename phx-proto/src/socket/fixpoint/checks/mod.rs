//! Checks of the invariants of `tests/support/ops/checkers`, after every operation of a search.
//!
//! The history that the checks keep is part of the form of a state. So the checks drop every part that
//! can no longer make a difference. Otherwise the number of states would be infinite.

mod channels;
mod connection;
mod pushes;

use core::time::Duration;
use std::collections::BTreeMap;

use channels::{Instance, Seen};
use connection::Retries;
use pushes::Accepted;

use crate::event::action::Action;
use crate::event::signal::Signal;
use crate::id::{PushId, Ref};
use crate::socket::connection::live::Live;
use crate::socket::fixpoint::form::Form;
use crate::socket::fixpoint::world::{Event, Link, Op, Reply, Said, Sent, TOPICS, World};
use crate::socket::{ChannelStatus, PendingReason, Socket, Status};
use crate::time::Time;

/// If a connection ends within this time after a join, the join counts as the cause.
const SOON: Duration = Duration::from_secs(2);

#[derive(Clone, Debug, Default)]
pub(crate) struct Checks {
    /// Pushes without an outcome.
    pushes: BTreeMap<PushId, Accepted>,
    topics: [Seen; 2],
    /// The wanted topics, in the order of their joins. A join that stalled is the last one.
    order: Vec<u8>,
    /// The instances of this connection that a frame may refer to, by join_ref.
    instances: BTreeMap<u64, Instance>,
    /// The topic of each unanswered join, by join_ref.
    unanswered: BTreeMap<u64, u8>,
    /// The last time at which a join and a heartbeat were unanswered. From then on, the server has the whole
    /// timeout to answer the heartbeat.
    blocked: Option<Time>,
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
    /// The number of connections in a row that the server closed soon after a join.
    cuts: u32,
    /// Whether joins of this connection must be paced, because the server closed the last two
    /// connections soon after a join.
    paced: bool,
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

impl Checks {
    pub(crate) fn canonical(&self, form: &mut Form<'_>) {
        let Self {
            pushes,
            topics,
            order,
            instances,
            unanswered,
            blocked,
            beats,
            beat_written,
            owed,
            prompt,
            retries,
            last_join,
            cuts,
            paced,
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
        form.number(order.len() as u64);
        order.iter().for_each(|topic| form.number(u64::from(*topic)));
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
        form.option(*blocked, |form, at| form.time(at, timeout));
        form.option((!beats.is_empty()).then_some(*beat_written), |form, at| {
            form.time(at, timeout)
        });
        let beats = !config.heartbeat_interval.is_zero();
        form.flag(beats && *owed);
        form.flag(beats && *prompt);
        retries.canonical(form);
        let last_join = last_join.filter(|_| form.habits.closes);
        form.option(last_join, |form, at| form.time(at, SOON + Duration::from_nanos(1)));
        form.count(*cuts, 2);
        form.flag(*paced);
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
        self.cuts > 0
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
            Op::Join(topic) if !self.order.contains(&topic) => self.order.push(topic),
            Op::Wake => {
                let is_open = matches!(socket.status(), Status::Open);
                self.retries.woken |= !is_open;
            }
            Op::Disconnect => {
                (self.cuts, self.last_join) = (0, None);
                self.retries = Retries::default();
            }
            _ => {}
        }
        self.now.was_ended = self.ended;
    }

    pub(crate) fn opened(&mut self, now: Time) {
        self.retries.opened_at = Some(now);
        (self.retries.refusals, self.prompt) = (0, true);
        self.paced = self.cuts >= 2;
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
        match sent.event {
            Event::Heartbeat => return self.heartbeat_written(sent, world),
            Event::Join => return self.join_written(sent, world),
            Event::Leave | Event::Push => {}
        }
        let waits = ChannelStatus::Pending(PendingReason::NotWritable);
        let overtaken = socket.channels().find(|(_, status)| *status == waits);
        assert!(overtaken.is_none() || world.is_evaluating(), "{overtaken:?} by {sent:?}");
        let instance = *self.instances.get(&sent.join_ref).expect("a join of this connection");
        assert_eq!(instance.topic, sent.topic);
        if sent.event == Event::Leave {
            assert!(instance.left, "{sent:?}");
            self.instances.remove(&sent.join_ref);
            let seen = &mut self.topics[usize::from(sent.topic)];
            if seen.leaving {
                seen.leave = Some(sent.msg_ref);
            }
            return;
        }
        self.push_written(sent, instance, world);
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
                (self.cuts, self.last_join) = (0, None);
            }
            Signal::Disconnected { cause, .. } => {
                self.disconnected(cause, world);
            }
            Signal::ConnectFailed { .. } => self.offline(),
            Signal::PushEnded { id, outcome, .. } => self.push_ended(*id, outcome, world.now),
            _ => self.observe(signal, world),
        }
    }

    /// Called after an operation, when every action has been polled.
    pub(crate) fn end(&mut self, writable: bool, socket: &Socket, now: Time) {
        self.owed = !writable;
        self.prompt &= writable;
        if self.beats.is_empty() {
            self.blocked = None;
        } else if !self.unanswered.is_empty() {
            self.blocked = Some(now);
        }
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

        let ended = matches!(status, Status::Closed | Status::GaveUp { .. });
        assert_eq!(self.ended, ended, "the end is reported: {status:?}");
        if ended {
            assert_eq!(socket.poll_timeout(), None, "nothing runs after the end");
            assert!(self.pushes.is_empty(), "left behind: {self:?}");
            assert_eq!(socket.channels().count(), 0, "every channel has ended");
        }

        self.check_pushes(world);
        self.check_deadlines(world);
        self.check_probe(world);
        for at in 0..2 {
            self.check_topic(at, world);
        }
        for (at, name) in TOPICS.iter().enumerate() {
            let held = world.interests.iter().filter(|(of, _)| usize::from(*of) == at).count();
            assert_eq!(socket.interests(name), held, "interests in {name}");
        }
        if is_open && world.is_settled() {
            self.check_agreement(world);
        }
    }

    /// The socket asks for a call no later than the earliest of the deadlines that the history
    /// determines. After such a call every deadline lies in the future, so time moves on.
    fn check_deadlines(&self, world: &World) {
        let (socket, config) = (&world.socket, &world.socket.config);
        let timeout = socket.poll_timeout();
        let pushes = self.pushes.values().map(|push| push.deadline);
        let leaves = self.topics.iter().filter_map(|seen| seen.left_at);
        let leaves = leaves.map(|at| at + config.leave_timeout);
        let waits = |topic| matches!(socket.channel_status(topic), ChannelStatus::Errored { .. });
        let rejoins = self.topics.iter().zip(TOPICS).filter(|(_, topic)| waits(topic));
        let rejoins = rejoins.filter_map(|(seen, _)| seen.until);
        let retry = self.retries.wait.map(|(until, _)| until);
        let earliest = pushes.chain(leaves).chain(rejoins.chain(retry)).min();
        if let Some(earliest) = earliest {
            assert!(timeout.is_some_and(|it| it.at <= earliest), "{timeout:?} after {earliest}");
        }
        if let Some(timeout) = timeout.filter(|_| self.now.op == Some(Op::Tick)) {
            assert!(timeout.at > world.now, "time stands still: {timeout:?}");
        }
    }
}
