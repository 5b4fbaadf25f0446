//! A small world: a real [`Socket`], its driver and its application, a link, and a server that follows
//! the protocol.
//!
//! ```text
//!   application ──▶ Socket ──▶ driver ══ to_server ══▶ server: joins one after another
//!                     ▲          │   ◀══ to_client ══    │ may refuse, crash, close, restart
//!                     └── time ──┘                       │
//! ```
//!
//! The link delivers frames in order and loses frames only when it ends. It moves a frame only in
//! [`Op::Deliver`] and [`Op::Serve`], so any other operation may come first. It holds a limited number
//! of frames, and a full link is not writable. Only [`Op::Tick`] advances the time, to the next
//! deadline.

use core::fmt::Write as _;
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use serde_json::Value;

use crate::config::backoff::DelayRange;
use crate::config::join_params::{JoinParams, ParamsPanicked};
use crate::config::{Backoff, CloseRule, Config};
use crate::event::action::Action;
use crate::event::applied::{Released, Supplied};
use crate::event::cause::{Cause, DialKind};
use crate::event::error::PushErrorKind;
use crate::event::input::{Ended, Opened, Progress, PushOptions};
use crate::event::refusal::Refusal;
use crate::event::signal::Signal;
use crate::event::ticket::JoinTicket;
use crate::id::{ConnectionId, InterestId, Ref};
use crate::socket::fixpoint::checks::Checks;
use crate::socket::fixpoint::form::{Form, Habits};
use crate::socket::rng::Rng;
use crate::socket::{ChannelStatus, Socket, Status, Step};
use crate::time::Time;
use crate::wire::payload::Payload;
use crate::wire::{Frame, V1};

/// The names of the topics.
pub(crate) const TOPICS: [&str; 2] = ["a", "b"];

/// A message of more bytes than this is too large, in either direction.
const MESSAGE_MAX: usize = 300;

/// The operations and the options of a world.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) name: &'static str,
    /// The operations of the application.
    pub(crate) application: &'static [Op],
    /// The faults that the server and the network may cause.
    pub(crate) faults: &'static [Op],
    /// The maximum number of interests in a topic at a time.
    pub(crate) interests_max: usize,
    /// The maximum number of pushes without an outcome at a time.
    pub(crate) pushes_max: usize,
    /// The maximum number of frames in the link in each direction.
    pub(crate) link_max: usize,
    pub(crate) vsn_1: bool,
    /// Whether a function makes the parameters of joins.
    pub(crate) function: bool,
    /// Whether the server may close two connections in a row soon after a join.
    pub(crate) paced: bool,
    /// The maximum number of times that the server closes a connection; `None` means no limit.
    pub(crate) closes_max: Option<u32>,
    /// Interval and timeout of heartbeats; `None` disables them. These and all durations below are in
    /// seconds.
    pub(crate) heartbeat: Option<(u64, u64)>,
    pub(crate) push_timeout: u64,
    pub(crate) leave_timeout: u64,
    pub(crate) join_timeout: u64,
    pub(crate) join_block_max: u64,
    pub(crate) stable_after: u64,
    pub(crate) reconnect_after: &'static [u64],
    pub(crate) rejoin_after: &'static [u64],
    pub(crate) rejections_max: u32,
    pub(crate) progress_max: u64,
    pub(crate) max_retries: Option<u32>,
    pub(crate) max_elapsed: Option<u64>,
    pub(crate) join_concurrency: usize,
    pub(crate) queued_pushes_max: usize,
    pub(crate) in_flight_max: usize,
}

/// One operation of the application, the driver, the link or the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// The application calls `connect`. The variants up to `Cancel` are its other calls.
    Connect,
    Disconnect,
    ConnectNow,
    Wake,
    Probe,
    Join(u8),
    Leave(u8),
    /// The application releases its oldest interest in a topic.
    Release(u8),
    Rejoin(u8),
    /// The application replaces the function that makes the join parameters of a topic.
    Replace(u8),
    Push(u8, Kind),
    /// The application withdraws its oldest push.
    Cancel,

    /// The time advances to the next deadline.
    Tick,
    /// The driver reports that the attempt succeeded. The delay of the first heartbeat is the lowest or
    /// the highest of its range.
    Opened(Draw),
    Failed(Failure),
    /// The close handshake is over.
    Ended,
    /// The driver supplies the result of the function that makes join parameters.
    Supply(Made),
    /// The transport reports one more byte, which extends deadlines by one second.
    Moved(Bytes),

    /// The link delivers the next frame to the client.
    Deliver,
    /// The link is cut.
    Cut,
    /// The server sends a message that is too large.
    TooLarge,

    /// The server handles the next frame.
    Serve(Verdict),
    /// The channel of a topic crashes; with `CloseChannel` it ends.
    CrashChannel(u8),
    CloseChannel(u8),
    /// The server closes the connection with this code.
    Close(u16),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Call,
    Cast,
    FailFast,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Draw {
    Lowest,
    Highest,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    Dial,
    /// The upgrade is refused with this status.
    Refused(u16),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Made {
    Params,
    Panic,
    TooLarge,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bytes {
    Read,
    Written,
    Flushed,
}

/// The answer of the server to a join or a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Ok,
    Refuse,
    Crash,
    /// The server never answers.
    Silent,
    /// The server accepts the join, and the answer is lost.
    Lost,
}

/// A frame of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) event: Event,
    pub(crate) topic: u8,
    pub(crate) join_ref: u64,
    pub(crate) msg_ref: u64,
    /// The id of a push. It is also the payload of the push.
    pub(crate) push: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Heartbeat,
    Join,
    Leave,
    Push,
}

/// A frame of the server, or the end of the connection, which comes after all frames of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Reply { to: Sent, named: bool, status: Reply },
    Close { topic: u8, join_ref: u64 },
    Crash { topic: u8, join_ref: u64 },
    End(u16),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Ok,
    Refused,
    Crashed,
    Unmatched,
}

/// The transport.
#[derive(Clone, Debug)]
pub(crate) enum Link {
    None,
    Dialling(ConnectionId),
    Open(Box<Wire>),
    Closing(ConnectionId),
}

/// An open connection, with the frames in the link and the channels on the server.
#[derive(Clone, Debug)]
pub(crate) struct Wire {
    pub(crate) id: ConnectionId,
    pub(crate) to_server: VecDeque<Sent>,
    pub(crate) to_client: VecDeque<Said>,
    /// The join_ref of the instance of each topic.
    pub(crate) channels: BTreeMap<u8, u64>,
    moved: (u64, u64),
}

/// A socket, its driver, its application, a link and a server.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) settings: &'static Settings,
    pub(crate) socket: Socket,
    pub(crate) now: Time,
    pub(crate) link: Link,
    /// The ticket whose join parameters the driver is evaluating. Until it supplies them, the driver
    /// polls no frames.
    ticket: Option<JoinTicket>,
    /// Whether the ticket is stale: since it was issued, its connection or its channel has ended, or
    /// another function makes the parameters.
    is_stale: bool,
    pub(crate) interests: Vec<(u8, InterestId)>,
    pub(crate) checks: Checks,
    params: JoinParams,
    /// The actions that followed the last operation. They are kept only while a path is compared or
    /// printed.
    pub(crate) seen: Option<Vec<Action>>,
    /// The calls as lines of code. They are kept only while a path is printed.
    pub(crate) script: Option<Vec<String>>,
}

pub(crate) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn steps(steps: &[u64]) -> Backoff {
    let steps: Vec<Duration> = steps.iter().copied().map(secs).collect();
    Backoff::steps(steps).and_then(|it| it.jitter(0.0)).expect("a schedule")
}

fn point(seconds: u64) -> DelayRange {
    DelayRange::new(secs(seconds), secs(seconds)).expect("a range")
}

/// The close code that is retried after a delay of its own. After `FINAL` there is no retry.
pub(crate) const RESTART: u16 = 1012;
pub(crate) const FINAL: u16 = 1008;
pub(crate) const RESTART_AFTER: u64 = 2;
pub(crate) const FIRST_RETRY: u64 = 1;
pub(crate) const REFUSED_AFTER: [u64; 2] = [3, 4];
pub(crate) const REJECTED_AFTER: [u64; 2] = [1, 2];
/// The minimum rates, in bytes per second. So one byte extends a deadline by one second.
const RATE: u64 = 1;

impl Settings {
    pub(crate) fn config(&self) -> Config {
        let (interval, timeout) = self.heartbeat.unwrap_or((0, 1));
        let count = "a count that is not zero";
        let mut config = Config::new("ws://localhost/")
            .expect("an address")
            .connect_timeout(secs(2))
            .close_timeout(secs(1))
            .first_retry_spread(point(FIRST_RETRY))
            .reconnect_after(steps(self.reconnect_after))
            .refused_after(steps(&REFUSED_AFTER))
            .close_rule(RESTART, CloseRule::RetryWithin(point(RESTART_AFTER)))
            .close_rule(FINAL, CloseRule::Stop)
            .stable_after(secs(self.stable_after))
            .max_retries(self.max_retries)
            .max_elapsed(self.max_elapsed.map(secs))
            .heartbeat_interval(secs(interval))
            .heartbeat_timeout(secs(timeout))
            .write_stall_timeout(secs(3))
            .receive_rate_min(RATE)
            .send_rate_min(RATE)
            .progress_max(secs(self.progress_max))
            .join_timeout(secs(self.join_timeout))
            .join_block_max(secs(self.join_block_max))
            .rejoin_after(steps(self.rejoin_after))
            .rejected_after(steps(&REJECTED_AFTER))
            .join_rejections_max(self.rejections_max)
            .leave_timeout(secs(self.leave_timeout))
            .push_timeout(secs(self.push_timeout))
            .queued_pushes_max(self.queued_pushes_max)
            .max_push_bytes(MESSAGE_MAX)
            .max_message_bytes(MESSAGE_MAX)
            .join_concurrency(self.join_concurrency)
            .expect(count)
            .pushes_in_flight_max(self.in_flight_max)
            .expect(count);
        if self.vsn_1 {
            config = config.codec(std::sync::Arc::new(V1)).expect("no vsn in the address");
        }
        config
    }
}

impl World {
    pub(crate) fn new(settings: &'static Settings) -> Self {
        let params = JoinParams::from_fn(|_| Payload::empty());
        Self {
            settings,
            socket: Socket::new(settings.config(), 0, Time::ZERO),
            now: Time::ZERO,
            link: Link::None,
            ticket: None,
            is_stale: false,
            interests: Vec::new(),
            checks: Checks::default(),
            params: if settings.function { params } else { JoinParams::none() },
            seen: None,
            script: None,
        }
    }

    /// The form of the state. If the actions after the last operation are kept in `seen`, it includes
    /// them.
    pub(crate) fn form(&self) -> Vec<u8> {
        let config = &self.socket.config;
        let mut form = Form::new(self.now, config, self.settings.habits());
        if let Link::Open(wire) = &self.link {
            form.answerable.extend(wire.to_server.iter().map(|sent| sent.msg_ref));
            form.answerable.extend(wire.to_client.iter().filter_map(|said| match said {
                Said::Reply { to, .. } => Some(to.msg_ref),
                _ => None,
            }));
        }
        self.socket.canonical(&mut form);
        self.canonical(&mut form);
        if let Some(seen) = &self.seen {
            seen.iter().for_each(|action| self.canonical_action(&mut form, action));
        }
        form.finish()
    }

    fn canonical(&self, form: &mut Form<'_>) {
        let Self {
            settings: _,
            socket: _,
            now: _,
            link,
            ticket,
            is_stale,
            interests,
            checks,
            params: _,
            seen: _,
            script: _,
        } = self;
        match link {
            Link::None => form.number(0),
            Link::Dialling(id) => {
                form.number(1);
                form.connection(*id);
            }
            Link::Open(wire) => {
                let Wire { id, to_server, to_client, channels, moved: _ } = &**wire;
                form.number(2);
                form.connection(*id);
                form.number(to_server.len() as u64);
                to_server.iter().for_each(|sent| sent.canonical(form));
                form.number(to_client.len() as u64);
                to_client.iter().for_each(|said| said.canonical(form));
                form.number(channels.len() as u64);
                for (topic, join_ref) in channels {
                    form.number(u64::from(*topic));
                    form.msg_ref(Ref(*join_ref));
                }
            }
            Link::Closing(id) => {
                form.number(3);
                form.connection(*id);
            }
        }
        form.option(ticket.as_ref(), |form, ticket| {
            let JoinTicket { connection, order, attempt, params: _ } = ticket;
            form.connection(*connection);
            form.order(*order);
            form.text(&attempt.topic);
            form.flag(*is_stale);
        });
        form.number(interests.len() as u64);
        for (topic, interest) in interests {
            form.number(u64::from(*topic));
            form.interest(*interest);
        }
        checks.canonical(form);
    }

    /// Writes the parts of an action that the application or the server can observe.
    fn canonical_action(&self, form: &mut Form<'_>, action: &Action) {
        match action {
            Action::Connect { id, attempt: _ } => {
                form.number(0);
                form.connection(*id);
            }
            Action::Send { id, frame } | Action::Join { id, frame, .. } => {
                form.number(1);
                form.connection(*id);
                self.parse(frame).canonical(form);
            }
            Action::Close { id, code, reason: _ } => {
                form.number(2);
                form.connection(*id);
                form.number(u64::from(*code));
            }
            Action::Abort { id } => {
                form.number(3);
                form.connection(*id);
            }
            Action::ReconnectAfter { delay, attempt: _, cause } => {
                form.number(4);
                form.duration(*delay, Duration::MAX);
                form.text(cause.name());
            }
            Action::RejoinAfter { topic, delay, attempt: _, cause } => {
                form.number(5);
                form.text(topic);
                form.duration(*delay, Duration::MAX);
                form.text(cause.name());
            }
            Action::Signal(signal) => {
                form.number(6);
                match signal {
                    Signal::Connecting { id, .. } | Signal::Connected { id } => {
                        form.connection(*id)
                    }
                    Signal::PushEnded { id, topic, outcome } => {
                        form.order(id.0);
                        form.text(topic);
                        form.text(&format!("{outcome:?}"));
                    }
                    // The form omits the round-trip time, which is only reported.
                    Signal::HeartbeatAcked { .. } => form.text("acked"),
                    other => form.text(&other.to_string()),
                }
            }
        }
    }

    pub(crate) const fn is_evaluating(&self) -> bool {
        self.ticket.is_some()
    }

    /// Whether the driver is evaluating the join parameters of this topic.
    fn evaluates(&self, topic: &str) -> bool {
        self.ticket.as_ref().is_some_and(|ticket| ticket.attempt().topic == *topic)
    }

    /// Whether the link takes a frame.
    pub(crate) fn is_writable(&self) -> bool {
        self.wire().is_some_and(|wire| wire.to_server.len() < self.settings.link_max)
    }

    fn wire(&self) -> Option<&Wire> {
        match &self.link {
            Link::Open(wire) => Some(wire),
            _ => None,
        }
    }

    fn wire_mut(&mut self) -> Option<&mut Wire> {
        match &mut self.link {
            Link::Open(wire) => Some(wire),
            _ => None,
        }
    }

    /// The operations that are possible now.
    pub(crate) fn enabled(&self) -> Vec<Op> {
        let mut ops: Vec<Op> = Vec::new();
        let may = |op: &&Op| self.application_may(**op);
        ops.extend(self.settings.application.iter().filter(may));
        if self.ticket.is_some() {
            ops.extend([Made::Params, Made::Panic, Made::TooLarge].map(Op::Supply));
        }
        match &self.link {
            Link::None => {}
            Link::Dialling(_) => {
                ops.push(Op::Opened(Draw::Lowest));
                if self.settings.heartbeat.is_some() {
                    ops.push(Op::Opened(Draw::Highest));
                }
            }
            Link::Open(wire) => {
                if !wire.to_client.is_empty() {
                    ops.push(Op::Deliver);
                }
                if self.can_serve(wire) {
                    ops.push(Op::Serve(Verdict::Ok));
                }
            }
            Link::Closing(_) => ops.push(Op::Ended),
        }
        let may = |op: &&Op| self.fault_may(**op);
        ops.extend(self.settings.faults.iter().filter(may));
        if self.socket.poll_timeout().is_some() {
            ops.push(Op::Tick);
        }
        ops
    }

    /// The operations that are possible once the application makes no more calls and faults have
    /// stopped. Frames are delivered and answered in any order. Time advances only when no other
    /// operation is possible.
    pub(crate) fn peaceful(&self) -> Vec<Op> {
        if self.ticket.is_some() {
            return vec![Op::Supply(Made::Params)];
        }
        let tick = || self.socket.poll_timeout().map(|_| Op::Tick).into_iter().collect();
        match &self.link {
            Link::Dialling(_) if self.settings.heartbeat.is_some() => {
                vec![Op::Opened(Draw::Lowest), Op::Opened(Draw::Highest)]
            }
            Link::Dialling(_) => vec![Op::Opened(Draw::Lowest)],
            Link::Closing(_) => vec![Op::Ended],
            Link::None => tick(),
            Link::Open(wire) => {
                let mut ops = Vec::new();
                if !wire.to_client.is_empty() {
                    ops.push(Op::Deliver);
                }
                if self.can_serve(wire) {
                    ops.push(Op::Serve(Verdict::Ok));
                }
                if ops.is_empty() { tick() } else { ops }
            }
        }
    }

    fn can_serve(&self, wire: &Wire) -> bool {
        let has_room = wire.to_client.len() < self.settings.link_max;
        !wire.has_ended() && has_room && !wire.to_server.is_empty()
    }

    fn application_may(&self, op: Op) -> bool {
        let status = || self.socket.status();
        let is_wanted = |topic: u8| self.socket.wanted(TOPICS[usize::from(topic)]).is_some();
        let interests = |topic: u8| self.interests.iter().filter(|(of, _)| *of == topic).count();
        match op {
            Op::Connect => !matches!(
                status(),
                Status::Connecting { .. } | Status::Open | Status::Waiting { .. }
            ),
            Op::Disconnect => status() != Status::Closed,
            Op::ConnectNow => {
                matches!(status(), Status::Connecting { .. } | Status::Waiting { .. })
            }
            Op::Wake | Op::Probe => self.socket.connection_id().is_some() || op == Op::Wake,
            Op::Join(topic) => {
                interests(topic) < self.settings.interests_max
                    && self.socket.connection.accepts_joins()
            }
            Op::Leave(topic) | Op::Rejoin(topic) | Op::Replace(topic) => is_wanted(topic),
            Op::Release(topic) => interests(topic) > 0,
            Op::Push(topic, _) => {
                is_wanted(topic) && self.checks.open_pushes() < self.settings.pushes_max
            }
            Op::Cancel => self.checks.open_pushes() > 0,
            _ => unreachable!("{op:?} is not the application's"),
        }
    }

    fn fault_may(&self, op: Op) -> bool {
        let wire = self.wire();
        let talks =
            |wire: &&Wire| !wire.has_ended() && wire.to_client.len() < self.settings.link_max;
        match op {
            Op::Failed(_) => matches!(self.link, Link::Dialling(_)),
            Op::Cut | Op::TooLarge => wire.is_some(),
            Op::Moved(_) => wire.is_some_and(|wire| !wire.has_ended()),
            Op::Serve(verdict) => wire.is_some_and(|wire| {
                let next = wire.to_server.front().map(|sent| sent.event);
                let fits = match next {
                    Some(Event::Join) => true,
                    Some(Event::Push) => !matches!(verdict, Verdict::Refuse | Verdict::Lost),
                    _ => false,
                };
                fits && self.can_serve(wire)
            }),
            Op::CrashChannel(topic) | Op::CloseChannel(topic) => {
                wire.filter(talks).is_some_and(|wire| wire.channels.contains_key(&topic))
            }
            Op::Close(_) => {
                wire.filter(talks).is_some()
                    && (self.settings.paced || !self.checks.was_cut())
                    && self.settings.closes_max.is_none_or(|most| self.checks.closes() < most)
            }
            _ => unreachable!("{op:?} is no fault"),
        }
    }

    /// Carries out one operation and what the driver does after it, and then runs every check.
    pub(crate) fn step(&mut self, op: Op) {
        if let Some(seen) = &mut self.seen {
            seen.clear();
        }
        self.checks.begin(op, &self.socket);
        self.carry_out(op);
        self.pump();
        let (writable, socket) = (self.is_writable(), &self.socket);
        self.interests.retain(|(_, interest)| socket.is_interested(*interest));
        self.checks.end(writable, socket, self.now);
        self.check(op);
    }

    fn check(&self, op: Op) {
        let width = Rng::take_widest();
        let chosen = matches!(op, Op::Opened(_)) && self.settings.heartbeat.is_some();
        assert!(width == 0 || chosen, "a draw had a width of {width} ns in {op:?}");
        self.checks.settled(self);
    }

    fn carry_out(&mut self, op: Op) {
        let now = self.now;
        match op {
            Op::Connect => {
                self.write(|| "socket.connect(now);".into());
                self.socket.connect(now);
            }
            Op::Disconnect => {
                self.write(|| "socket.disconnect(now);".into());
                self.socket.disconnect(now);
            }
            Op::ConnectNow => {
                self.write(|| "socket.connect_now(now).unwrap();".into());
                self.socket.connect_now(now).expect("it is being kept");
            }
            Op::Wake => {
                self.write(|| "socket.handle_wake(now);".into());
                self.socket.handle_wake(now);
            }
            Op::Probe => {
                self.write(|| "let _ = socket.probe(now);".into());
                let _ = self.socket.probe(now);
            }
            Op::Join(topic) => {
                let name = TOPICS[usize::from(topic)];
                self.write(|| format!("socket.join(now, {name:?}, params.clone()).unwrap();"));
                let params = self.params.clone();
                let interest = self.socket.join(now, name, params).expect("it is accepted");
                self.interests.push((topic, interest));
            }
            Op::Leave(topic) => {
                let name = TOPICS[usize::from(topic)];
                self.write(|| format!("socket.leave(now, {name:?}).unwrap();"));
                self.socket.leave(now, name).expect("it is wanted");
            }
            Op::Release(topic) => {
                let at = self.interests.iter().position(|(of, _)| *of == topic);
                let (_, interest) = self.interests[at.expect("an interest")];
                self.write(|| {
                    format!("let _ = socket.release(now, InterestId::from_u64({interest}));")
                });
                let released = self.socket.release(now, interest);
                let shared = self.interests.iter().filter(|(of, _)| *of == topic).count() > 1;
                let expected = if shared { Released::Detached } else { Released::Leaving };
                assert_eq!(released, expected);
            }
            Op::Rejoin(topic) => {
                let name = TOPICS[usize::from(topic)];
                self.write(|| format!("socket.rejoin(now, {name:?}).unwrap();"));
                self.socket.rejoin(now, name).expect("it is wanted");
            }
            Op::Replace(topic) => {
                let name = TOPICS[usize::from(topic)];
                self.write(|| "let params = JoinParams::from_fn(|_| Payload::empty());".to_owned());
                self.write(|| {
                    format!("socket.set_join_params(now, {name:?}, params.clone()).unwrap();")
                });
                self.params = JoinParams::from_fn(|_| Payload::empty());
                let params = self.params.clone();
                self.socket.set_join_params(now, name, params).expect("it is wanted");
                self.is_stale |= self.evaluates(name);
            }
            Op::Push(topic, kind) => self.push(topic, kind),
            Op::Cancel => {
                let id = self.checks.oldest_push();
                self.write(|| format!("socket.cancel_push(now, PushId::from_u64({id}));"));
                assert!(self.socket.cancel_push(now, id), "{id:?} has no outcome");
            }
            Op::Tick => {
                let timeout = self.socket.poll_timeout().expect("a deadline");
                self.now = self.now.max(timeout.at);
                let (now, kind) = (self.now, timeout.kind);
                self.write(|| format!("now = at({}); // {kind:?}", now.as_nanos()));
                self.write(|| "socket.handle_timeout(now);".into());
                self.socket.handle_timeout(now);
            }
            Op::Opened(draw) => {
                let Link::Dialling(id) = self.link else { unreachable!("it dials") };
                let output = if draw == Draw::Lowest { 0 } else { u64::MAX };
                let seed = Rng::before(output).seed();
                self.write(|| format!("socket.reseed(now, {seed});"));
                self.socket.reseed(now, seed);
                self.write(|| format!("socket.handle_opened(now, id({id}), Opened::default());"));
                let wire = Wire {
                    id,
                    to_server: VecDeque::new(),
                    to_client: VecDeque::new(),
                    channels: BTreeMap::new(),
                    moved: (0, 0),
                };
                self.link = Link::Open(Box::new(wire));
                self.socket.handle_opened(now, id, Opened::default());
                self.checks.opened(now);
            }
            Op::Failed(failure) => {
                let Link::Dialling(id) = self.link else { unreachable!("it dials") };
                let cause = match failure {
                    Failure::Dial => {
                        Cause::Dial { kind: DialKind::Refused, message: String::new() }
                    }
                    Failure::Refused(status) => {
                        Cause::Refused(Refusal::new(status, Vec::new(), ""))
                    }
                };
                self.write(|| match failure {
                    Failure::Dial => format!(
                        "socket.handle_failed(now, id({id}), Cause::Dial {{ kind: \
                         DialKind::Refused, message: String::new() }});"
                    ),
                    Failure::Refused(status) => format!(
                        "socket.handle_failed(now, id({id}), \
                         Cause::Refused(Refusal::new({status}, vec![], \"\")));"
                    ),
                });
                self.link = Link::None;
                self.socket.handle_failed(now, id, cause);
            }
            Op::Ended => {
                let Link::Closing(id) = self.link else { unreachable!("it closes") };
                self.ended(id, Some(1000));
            }
            Op::Supply(made) => self.supply(made),
            Op::Moved(bytes) => {
                let Some(wire) = self.wire_mut() else { unreachable!("it is open") };
                let flushed = bytes == Bytes::Flushed;
                match bytes {
                    Bytes::Read => wire.moved.0 += RATE,
                    Bytes::Written | Bytes::Flushed => wire.moved.1 += RATE,
                }
                let (id, (read, written)) = (wire.id, wire.moved);
                let progress = Progress { read, written, flushed, ..Progress::default() };
                self.write(|| format!("socket.handle_progress(now, id({id}), {progress:?});"));
                self.socket.handle_progress(now, id, progress);
            }
            Op::Deliver => self.deliver(),
            Op::Cut => {
                let id = self.wire().expect("it is open").id;
                self.lost(id);
            }
            Op::TooLarge => {
                let id = self.wire().expect("it is open").id;
                self.write(|| {
                    let size = MESSAGE_MAX + 1;
                    format!(
                        "socket.handle_frame(now, id({id}), Frame::from(\" \".repeat({size})));"
                    )
                });
                let frame = Frame::from(" ".repeat(MESSAGE_MAX + 1));
                self.socket.handle_frame(now, id, frame);
            }
            Op::Serve(verdict) => self.serve(verdict),
            Op::CrashChannel(topic) | Op::CloseChannel(topic) => {
                let wire = self.wire_mut().expect("it is open");
                let join_ref = wire.channels.remove(&topic).expect("an instance");
                wire.to_client.push_back(if matches!(op, Op::CrashChannel(_)) {
                    Said::Crash { topic, join_ref }
                } else {
                    Said::Close { topic, join_ref }
                });
            }
            Op::Close(code) => {
                let was_full = !self.is_writable();
                let wire = self.wire_mut().expect("it is open");
                wire.to_client.push_back(Said::End(code));
                wire.to_server.clear();
                wire.channels.clear();
                let id = wire.id;
                if was_full {
                    self.unblock(id);
                }
            }
        }
    }

    fn push(&mut self, topic: u8, kind: Kind) {
        let name = TOPICS[usize::from(topic)];
        let (code, options) = match kind {
            Kind::Call => ("call()", PushOptions::call()),
            Kind::Cast => ("cast()", PushOptions::cast()),
            Kind::FailFast => ("call().fail_fast()", PushOptions::call().fail_fast()),
        };
        let number = self.socket.next_order;
        self.write(|| {
            format!(
                "let _ = socket.push(now, {name:?}, \"e\", json!({number}), PushOptions::{code});"
            )
        });
        let joined = self.socket.channel_status(name) == ChannelStatus::Joined;
        match self.socket.push(self.now, name, "e", Value::from(number), options) {
            Ok(id) => {
                assert_eq!(id.0, number);
                assert!(joined || kind != Kind::FailFast, "it fails fast");
                let deadline = self.now + secs(self.settings.push_timeout);
                self.checks.pushed(id, topic, kind, deadline);
            }
            Err(error) => match error.kind {
                PushErrorKind::NotJoined => assert!(kind == Kind::FailFast && !joined),
                PushErrorKind::QueueFull { .. } => {
                    let half = self.settings.queued_pushes_max.div_ceil(2);
                    assert!(self.checks.queued() >= half, "the queue is not full");
                }
                other => panic!("{other:?}"),
            },
        }
    }

    fn supply(&mut self, made: Made) {
        let ticket = self.ticket.take().expect("a ticket");
        let is_stale = core::mem::take(&mut self.is_stale);
        let params = match made {
            Made::Params => Ok(Payload::empty()),
            Made::Panic => Err(ParamsPanicked),
            Made::TooLarge => Ok(Payload::from(Value::from("x".repeat(MESSAGE_MAX)))),
        };
        self.write(|| {
            let params = match made {
                Made::Params => "Ok(Payload::empty())".to_owned(),
                Made::Panic => "Err(ParamsPanicked)".to_owned(),
                Made::TooLarge => format!("Ok(Payload::from(json!(\"x\".repeat({MESSAGE_MAX}))))"),
            };
            format!("let _ = socket.supply_join(now, &ticket, {params});")
        });
        match self.socket.supply_join(self.now, &ticket, params) {
            Supplied::Join(action) => {
                assert!(!is_stale && made == Made::Params, "{ticket:?}: {made:?}");
                self.absorb(action);
            }
            Supplied::Ended => assert!(!is_stale && made != Made::Params, "{ticket:?}: {made:?}"),
            Supplied::Stale => {}
        }
    }

    /// The server handles the next frame.
    fn serve(&mut self, verdict: Verdict) {
        let link_max = self.settings.link_max;
        let wire = self.wire_mut().expect("it is open");
        let was_full = wire.to_server.len() >= link_max;
        let sent = wire.to_server.pop_front().expect("a frame");
        wire.serve(sent, verdict);
        let id = wire.id;
        if was_full {
            self.unblock(id);
        }
    }

    /// Reports that the transport takes frames again.
    fn unblock(&mut self, id: ConnectionId) {
        self.write(|| format!("socket.handle_writable(now, id({id}), true);"));
        self.socket.handle_writable(self.now, id, true);
    }

    /// The client reads the next frame.
    fn deliver(&mut self) {
        let wire = self.wire_mut().expect("it is open");
        let said = wire.to_client.pop_front().expect("a frame");
        let id = wire.id;
        let text = match said {
            Said::End(code) => return self.ended(id, Some(code)),
            Said::Reply { to, named, status } => {
                let name = if to.event == Event::Heartbeat {
                    "phoenix"
                } else {
                    TOPICS[usize::from(to.topic)]
                };
                let payload = match status {
                    Reply::Ok => r#"{"status":"ok","response":{}}"#.to_owned(),
                    other => {
                        let reason = match other {
                            Reply::Crashed => "join crashed",
                            Reply::Unmatched => "unmatched topic",
                            _ => "no",
                        };
                        format!(r#"{{"status":"error","response":{{"reason":"{reason}"}}}}"#)
                    }
                };
                let join_ref = named.then_some(to.join_ref);
                self.frame(join_ref, Some(to.msg_ref), name, "phx_reply", &payload)
            }
            Said::Close { topic, join_ref } | Said::Crash { topic, join_ref } => {
                let crash = matches!(said, Said::Crash { .. });
                let event = if crash { "phx_error" } else { "phx_close" };
                let named = Some(join_ref);
                self.frame(named, named, TOPICS[usize::from(topic)], event, "{}")
            }
        };
        self.checks.delivered(said, self.now);
        self.write(|| format!("socket.handle_frame(now, id({id}), Frame::from(r#\"{text}\"#));"));
        self.socket.handle_frame(self.now, id, Frame::from(text));
    }

    fn frame(
        &self,
        join_ref: Option<u64>,
        msg_ref: Option<u64>,
        topic: &str,
        event: &str,
        payload: &str,
    ) -> String {
        let text = |it: Option<u64>| it.map_or("null".to_owned(), |it| format!("\"{it}\""));
        let (join_ref, msg_ref) = (text(join_ref), text(msg_ref));
        if self.settings.vsn_1 {
            format!(
                r#"{{"topic":"{topic}","event":"{event}","payload":{payload},"ref":{msg_ref}}}"#
            )
        } else {
            format!(r#"[{join_ref},{msg_ref},"{topic}","{event}",{payload}]"#)
        }
    }

    /// The transport ended with a close frame.
    fn ended(&mut self, id: ConnectionId, code: Option<u16>) {
        self.write(|| {
            format!(
                "socket.handle_closed(now, id({id}), Ended::CloseFrame {{ code: {code:?}, reason: \
                 String::new() }});"
            )
        });
        self.link = Link::None;
        let ended = Ended::CloseFrame { code, reason: String::new() };
        self.socket.handle_closed(self.now, id, ended);
    }

    fn lost(&mut self, id: ConnectionId) {
        self.write(|| {
            format!(
                "socket.handle_closed(now, id({id}), Ended::Lost {{ message: String::new() }});"
            )
        });
        self.link = Link::None;
        self.socket.handle_closed(self.now, id, Ended::Lost { message: String::new() });
    }

    /// The driver polls and carries out every action.
    fn pump(&mut self) {
        for _ in 0..1_000 {
            let step = if self.ticket.is_some() {
                if !self.socket.has_actions() {
                    return;
                }
                self.socket.poll_action(self.now).map(Step::Action)
            } else {
                self.socket.poll_step(self.now)
            };
            match step {
                None => return,
                Some(Step::Action(action)) => {
                    self.write(|| format!("next(&mut socket, now); // {action:?}"));
                    self.absorb(action);
                }
                Some(Step::Evaluate(ticket)) => {
                    self.write(|| {
                        "let Some(Step::Evaluate(ticket)) = socket.poll_step(now) else { panic!() };"
                            .into()
                    });
                    self.ticket = Some(ticket);
                }
            }
        }
        panic!("the socket never stops: {:?}", self.socket);
    }

    /// The driver carries out an action.
    fn absorb(&mut self, action: Action) {
        match &action {
            Action::Connect { id, .. } => {
                assert!(matches!(self.link, Link::None), "a second transport: {:?}", self.link);
                self.link = Link::Dialling(*id);
            }
            Action::Send { id, frame } | Action::Join { id, frame, .. } => {
                let sent = self.parse(frame);
                assert_eq!(sent.event == Event::Join, matches!(action, Action::Join { .. }));
                let link_max = self.settings.link_max;
                let wire = self.wire_mut().expect("an open connection");
                assert_eq!(wire.id, *id);
                assert!(wire.to_server.len() < link_max, "it takes no frame");
                if !wire.has_ended() {
                    wire.to_server.push_back(sent);
                }
                let is_full = wire.to_server.len() >= link_max;
                let mut checks = core::mem::take(&mut self.checks);
                checks.written(sent, self);
                self.checks = checks;
                if is_full {
                    self.write(|| format!("socket.handle_writable(now, id({id}), false);"));
                    self.socket.handle_writable(self.now, *id, false);
                }
            }
            Action::Close { id, .. } => {
                assert_eq!(self.wire().map(|wire| wire.id), Some(*id), "there is one to close");
                self.link = Link::Closing(*id);
            }
            Action::Abort { id } => {
                let held = match &self.link {
                    Link::None => None,
                    Link::Dialling(id) | Link::Closing(id) => Some(*id),
                    Link::Open(wire) => Some(wire.id),
                };
                assert_eq!(held, Some(*id), "there is one to drop");
                self.link = Link::None;
            }
            Action::ReconnectAfter { .. } | Action::RejoinAfter { .. } | Action::Signal(_) => {}
        }
        self.is_stale |= match &action {
            Action::Signal(Signal::ChannelClosed { topic, .. }) => self.evaluates(topic),
            Action::Signal(Signal::Disconnected { .. }) | Action::Close { .. } => {
                self.is_evaluating()
            }
            _ => false,
        };
        if !matches!(action, Action::Send { .. } | Action::Join { .. }) {
            let mut checks = core::mem::take(&mut self.checks);
            checks.decided(&action, self);
            self.checks = checks;
        }
        if let Some(seen) = &mut self.seen {
            seen.push(action);
        }
    }

    /// Parses a frame of the client, as a server does.
    fn parse(&self, frame: &Frame) -> Sent {
        let Frame::Text(bytes) = frame else { panic!("a text frame") };
        let value: Value = serde_json::from_slice(bytes).expect("JSON");
        let part = |at: usize, name: &str| {
            if self.settings.vsn_1 { value[name].clone() } else { value[at].clone() }
        };
        let number = |value: Value| value.as_str().map(|it| it.parse().expect("a number"));
        let topic = part(2, "topic");
        let event = match part(3, "event").as_str() {
            Some("heartbeat") => Event::Heartbeat,
            Some("phx_join") => Event::Join,
            Some("phx_leave") => Event::Leave,
            _ => Event::Push,
        };
        let at = TOPICS.iter().position(|it| topic == **it);
        assert_eq!(at.is_none(), event == Event::Heartbeat, "{value}");
        Sent {
            event,
            topic: at.unwrap_or_default() as u8,
            join_ref: number(part(0, "join_ref")).unwrap_or_default(),
            msg_ref: number(part(1, "ref")).expect("a ref"),
            push: part(4, "payload").as_u64().unwrap_or_default(),
        }
    }

    fn write(&mut self, line: impl FnOnce() -> String) {
        if let Some(script) = &mut self.script {
            script.push(line());
        }
    }

    /// Whether the goal is reached: every push has its outcome, and either every wanted topic is joined
    /// and no frame is in the link, or the connection is not started or has ended for good.
    pub(crate) fn is_settled(&self) -> bool {
        let joined = |(_, status): (_, ChannelStatus)| status == ChannelStatus::Joined;
        let connection = match self.socket.status() {
            Status::Open => {
                self.socket.channels().all(joined)
                    && self
                        .wire()
                        .is_some_and(|wire| wire.to_server.is_empty() && wire.to_client.is_empty())
            }
            Status::Idle | Status::Closed | Status::GaveUp { .. } => true,
            _ => false,
        };
        connection && self.ticket.is_none() && self.checks.open_pushes() == 0
    }

    /// Checks that inputs about an earlier connection change nothing.
    pub(crate) fn check_stale_inputs(&self, form: &[u8]) {
        let mut world = self.clone();
        let (now, id) = (self.now, ConnectionId(0));
        world.socket.handle_opened(now, id, Opened::default());
        world.socket.handle_failed(now, id, Cause::ConnectTimeout);
        world.socket.handle_closed(now, id, Ended::Lost { message: String::new() });
        world.socket.handle_frame(now, id, Frame::from(r#"[null,null,"a","e",{}]"#));
        world.socket.handle_writable(now, id, false);
        world.socket.handle_progress(now, id, Progress::default());
        assert_eq!(world.form(), form, "an input about an earlier connection");
    }

    /// The state in one line of text.
    pub(crate) fn show(&self) -> String {
        let mut text = String::new();
        let _ = write!(text, "{:?}", self.socket.status());
        for (topic, status) in self.socket.channels() {
            let _ = write!(text, ", {topic} {status:?}");
        }
        if let Link::Open(wire) = &self.link {
            let _ = write!(
                text,
                ", {} to the server, {} to the client",
                wire.to_server.len(),
                wire.to_client.len()
            );
        }
        let _ = write!(text, ", {} pushes", self.checks.open_pushes());
        text
    }
}

impl Settings {
    fn habits(&self) -> Habits {
        let does = |which: fn(&Op) -> bool| self.faults.iter().any(which);
        Habits {
            sends_too_large: does(|op| *op == Op::TooLarge),
            closes: does(|op| matches!(op, Op::Close(_))),
            paces: self.paced,
            limited: self.closes_max.is_some(),
        }
    }
}

impl Wire {
    fn has_ended(&self) -> bool {
        matches!(self.to_client.back(), Some(Said::End(_)))
    }

    fn reply(&mut self, to: Sent, named: bool, status: Reply) {
        self.to_client.push_back(Said::Reply { to, named, status });
    }

    fn serve(&mut self, sent: Sent, verdict: Verdict) {
        let current = self.channels.get(&sent.topic).copied();
        match sent.event {
            Event::Heartbeat => self.reply(sent, false, Reply::Ok),
            Event::Join => {
                let replaced = self.channels.remove(&sent.topic);
                match verdict {
                    Verdict::Ok => {
                        self.channels.insert(sent.topic, sent.msg_ref);
                        self.reply(sent, true, Reply::Ok);
                    }
                    Verdict::Refuse => self.reply(sent, true, Reply::Refused),
                    Verdict::Crash => self.reply(sent, true, Reply::Crashed),
                    Verdict::Lost => {
                        self.channels.insert(sent.topic, sent.msg_ref);
                    }
                    Verdict::Silent => {}
                }
                // `wire/presence_double_join`
                if let Some(join_ref) = replaced {
                    self.to_client.push_back(Said::Close { topic: sent.topic, join_ref });
                }
            }
            Event::Leave => {
                // `wire/join_timeout_leave_rejoin`
                let next = self.to_server.front();
                let is_rejoined =
                    next.is_some_and(|next| next.event == Event::Join && next.topic == sent.topic);
                match current {
                    _ if is_rejoined => {}
                    Some(join_ref) if join_ref == sent.join_ref => {
                        self.channels.remove(&sent.topic);
                        self.reply(sent, true, Reply::Ok);
                        self.to_client.push_back(Said::Close { topic: sent.topic, join_ref });
                    }
                    // `wire/leave_wrong_join_ref`
                    Some(_) => {}
                    // `wire/leave_never_joined`
                    None => self.reply(sent, true, Reply::Ok),
                }
            }
            Event::Push => match current {
                Some(join_ref) if join_ref == sent.join_ref => match verdict {
                    Verdict::Crash => {
                        self.channels.remove(&sent.topic);
                        self.to_client.push_back(Said::Crash { topic: sent.topic, join_ref });
                    }
                    Verdict::Silent | Verdict::Lost => {}
                    Verdict::Ok | Verdict::Refuse => self.reply(sent, true, Reply::Ok),
                },
                // `wire/push_stale_join_ref`
                Some(_) => {}
                // `wire/push_unjoined_topic`
                None => self.reply(sent, false, Reply::Unmatched),
            },
        }
    }
}

impl Sent {
    fn canonical(&self, form: &mut Form<'_>) {
        // The form omits the payload of a push, because the server does not read it.
        let Self { event, topic, join_ref, msg_ref, push: _ } = self;
        form.number(*event as u64);
        form.number(u64::from(*topic));
        form.msg_ref(Ref(*join_ref));
        form.msg_ref(Ref(*msg_ref));
    }
}

impl Said {
    fn canonical(&self, form: &mut Form<'_>) {
        match self {
            Self::Reply { to, named, status } => {
                form.number(0);
                to.canonical(form);
                form.flag(*named);
                form.number(*status as u64);
            }
            Self::Close { topic, join_ref } => {
                form.number(1);
                form.number(u64::from(*topic));
                form.msg_ref(Ref(*join_ref));
            }
            Self::Crash { topic, join_ref } => {
                form.number(2);
                form.number(u64::from(*topic));
                form.msg_ref(Ref(*join_ref));
            }
            Self::End(code) => {
                form.number(3);
                form.number(u64::from(*code));
            }
        }
    }
}
