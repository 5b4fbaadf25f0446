//! Carries out operations, and passes every effect to the checkers.

use std::collections::VecDeque;
use std::time::Duration;

use phx_proto::event::{Progress, PushErrorKind, QueueBound, Released};
use phx_proto::socket::TimerKind;
use phx_proto::{
    Action, Applied, ConnectionId, Credentials, Input, InterestId, JoinParams, Opened, Payload,
    PushId, PushOptions, Status, Time,
};
use serde_json::json;

use super::checkers::{Checkers, Moment};
use super::peer::{Sent, garbage, message};
use super::setup::{
    MAX_MESSAGE_BYTES, MAX_PUSH_BYTES, Policy, QUEUED_BYTES_MAX, QUEUED_PUSHES_MAX, config, ended,
    failure,
};
use super::{Answer, Conn, Op, PushKind, Setup, Span, Start, Step};

/// The socket, with or without a recorder. A clone of it is not recorded.
#[cfg(feature = "recording")]
pub type TestedSocket = phx_proto::recording::RecordedSocket;
#[cfg(not(feature = "recording"))]
pub type TestedSocket = phx_proto::Socket;

/// The state that a checker can see in addition to the events.
macro_rules! moment {
    ($world:expr) => {
        Moment {
            now: $world.latest,
            socket: &$world.socket,
            setup: &$world.setup,
            policy: &$world.policy,
            drained: $world.pending.is_empty(),
            dry: $world.dry,
            writable: $world.writable,
        }
    };
}

/// A call and its result.
#[derive(Clone, Debug, PartialEq)]
pub enum Called {
    Connect,
    Disconnect,
    ConnectNow {
        taken: bool,
    },
    Wake,
    Probe {
        taken: bool,
    },
    SetCredentials,
    Join {
        topic: String,
        interest: Option<InterestId>,
    },
    Released {
        interest: InterestId,
        released: Released,
    },
    Leave {
        topic: String,
        taken: bool,
    },
    Push {
        number: u64,
        id: Option<PushId>,
        topic: String,
        cast: bool,
        /// The bytes that the push counts in the queue.
        bytes: usize,
        timeout: Duration,
    },
    Cancel {
        id: PushId,
        taken: bool,
    },
    /// An attempt was dialled. If `stale` is set, here and below, the socket ignores the input.
    Dialled {
        id: ConnectionId,
        stale: bool,
    },
    /// An attempt succeeded.
    Opened {
        id: ConnectionId,
        stale: bool,
    },
    /// An attempt failed, or a connection ended.
    Ended {
        id: ConnectionId,
        stale: bool,
    },
    /// Any other input for a connection.
    Input {
        id: ConnectionId,
        stale: bool,
    },
    /// A reply to the frame with this ref.
    Reply {
        topic: String,
        msg_ref: u64,
        ok: bool,
    },
    /// Any other frame on the current connection.
    Frame,
    Timeout,
    Other,
}

/// One line of the trace. Times are relative to the start of the run.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    Called(Called),
    Action(Duration, Action),
    Deadline(Option<(Duration, TimerKind)>),
}

/// A socket, its driver, its application and its server.
#[derive(Clone, Debug)]
pub struct World {
    pub setup: Setup,
    pub policy: Policy,
    pub socket: TestedSocket,
    pub now: Time,
    /// The latest time that was passed to the socket.
    pub latest: Time,
    pub checkers: Checkers,
    /// Actions that were decided and not yet polled.
    pub pending: VecDeque<Action>,
    pub sent: Vec<Sent>,
    /// Bytes read and written on the present connection, as last reported.
    moved: Progress,
    pub trace: Vec<Entry>,
    pub conns: Vec<ConnectionId>,
    pub interests: Vec<InterestId>,
    pub pushes: Vec<PushId>,
    params: [JoinParams; 4],
    /// The number of pushes so far.
    pub numbers: u64,
    /// Whether the last poll returned no action, and there was no call since.
    pub dry: bool,
    /// Whether the transport of the current connection takes frames, as reported to the socket.
    pub writable: bool,
    /// The number of deadlines that were handled at one instant, with no other call in between.
    pub timeouts_here: u32,
}

impl World {
    pub fn new(setup: Setup) -> Self {
        let policy = Policy::new();
        let (config, now) = (config(&setup, &policy), Time::from_nanos(setup.origin));
        #[cfg(feature = "recording")]
        let socket = TestedSocket::new(config, setup.seed, now, None);
        #[cfg(not(feature = "recording"))]
        let socket = TestedSocket::new(config, setup.seed, now);
        Self::with(setup, policy, socket, now)
    }

    /// The same world, with a recorder.
    #[cfg(feature = "recording")]
    pub fn recorded(setup: Setup, recorder: &phx_proto::recording::Recorder) -> Self {
        let policy = Policy::new();
        let (config, now) = (config(&setup, &policy), Time::from_nanos(setup.origin));
        let socket = TestedSocket::new(config, setup.seed, now, Some(recorder));
        Self::with(setup, policy, socket, now)
    }

    fn with(setup: Setup, policy: Policy, socket: TestedSocket, now: Time) -> Self {
        let params = [
            JoinParams::none(),
            JoinParams::from(json!({"p": 1})),
            JoinParams::from_fn(|attempt| Payload::from(json!({"attempt": attempt.attempt}))),
            // Every second call returns parameters that cannot be sent.
            JoinParams::from_fn(|attempt| {
                let length = if attempt.attempt % 2 == 0 { MAX_PUSH_BYTES } else { 1 };
                Payload::from(json!({"x": "x".repeat(length)}))
            }),
        ];
        let mut world = Self {
            setup,
            policy,
            socket,
            now,
            latest: now,
            checkers: Checkers::default(),
            pending: VecDeque::new(),
            sent: Vec::new(),
            moved: Progress::default(),
            trace: Vec::new(),
            conns: Vec::new(),
            interests: Vec::new(),
            pushes: Vec::new(),
            params,
            numbers: 0,
            dry: false,
            writable: true,
            timeouts_here: 0,
        };
        world.look();
        world.drain();
        world.start();
        world
    }

    fn start(&mut self) {
        let all = |op| Step { op, polls: None };
        if self.setup.start != Start::Idle {
            self.step(all(Op::Connect));
            self.step(all(Op::Opened(Conn::Current)));
        }
        if self.setup.start == Start::Joined {
            for topic in 0..2 {
                self.step(all(Op::Join { topic, params: 0 }));
            }
            for _ in 0..3 {
                self.step(all(Op::Answer { nth: 0, how: Answer::Ok }));
            }
        }
    }

    /// Carries out one operation and the polls after it, and runs every checker.
    pub fn step(&mut self, step: Step) {
        if step.op == Op::AnswerAll {
            for _ in 0..self.unanswered().len() {
                self.call(Op::Answer { nth: 0, how: Answer::Ok });
            }
        } else {
            self.call(step.op);
        }
        match step.polls {
            None => self.drain(),
            Some(polls) => {
                for _ in 0..polls {
                    if !self.poll() {
                        break;
                    }
                }
            }
        }
        self.after_step();
    }

    pub fn steps(&mut self, steps: &[Step]) {
        for step in steps {
            self.step(*step);
        }
    }

    pub fn after_step(&mut self) {
        let timeout = self.socket.poll_timeout();
        let actions = timeout.is_some_and(|timeout| timeout.kind == TimerKind::Actions);
        assert_eq!(
            actions,
            !self.pending.is_empty(),
            "the deadline matches what waits: {timeout:?}"
        );
        let origin = Time::from_nanos(self.setup.origin);
        self.trace.push(Entry::Deadline(timeout.map(|it| (it.at.since(origin), it.kind))));
        let moment = moment!(self);
        self.checkers.each(|checker| checker.settled(&moment));
    }

    /// Polls every action.
    pub fn drain(&mut self) {
        for _ in 0..10_000 {
            if !self.poll() {
                assert!(self.pending.is_empty(), "an action was lost: {:?}", self.pending);
                return;
            }
        }
        panic!("the socket emits actions without end");
    }

    /// Polls one action. Returns whether there was one.
    pub fn poll(&mut self) -> bool {
        self.latest = self.latest.max(self.now);
        let Some(action) = self.socket.poll_action(self.now) else {
            self.dry = true;
            return false;
        };
        let since = self.latest.since(Time::from_nanos(self.setup.origin));
        self.trace.push(Entry::Action(since, action.clone()));
        match &action {
            Action::Send { id, frame } | Action::Join { id, frame, .. } => {
                assert!(self.pending.is_empty(), "a frame overtook {:?}", self.pending);
                let sent = Sent::parse(*id, self.latest, frame, self.setup.vsn_1);
                if let Action::Join { topic, .. } = &action {
                    assert!(sent.is_join() && *topic == *sent.topic);
                }
                self.sent.push(sent.clone());
                let moment = moment!(self);
                self.checkers.each(|checker| checker.written(&sent, &moment));
            }
            fact => match self.pending.pop_front() {
                Some(expected) => assert_eq!(*fact, expected, "in the order they were decided"),
                // This action was decided while a frame was being built.
                None => self.decided(&action),
            },
        }
        self.look();
        true
    }

    /// Passes the actions that were decided and not yet polled to the checkers.
    fn look(&mut self) {
        let waits = self.socket.poll_timeout().is_some_and(|it| it.kind == TimerKind::Actions);
        if !waits {
            return;
        }
        let mut copy = self.socket.clone();
        let mut known = 0;
        while copy.poll_timeout().is_some_and(|it| it.kind == TimerKind::Actions) {
            let action = copy.poll_action(self.now).expect("an action waits");
            if let Some(pending) = self.pending.get(known) {
                assert_eq!(action, *pending, "a decided action does not change");
            } else {
                self.pending.push_back(action.clone());
                self.decided(&action);
            }
            known += 1;
        }
        assert!(known >= self.pending.len(), "an action was lost: {:?}", self.pending);
    }

    fn decided(&mut self, action: &Action) {
        if let Action::Connect { id, .. } = action {
            self.conns.push(*id);
        }
        let moment = moment!(self);
        self.checkers.each(|checker| checker.decided(action, &moment));
    }

    /// Carries out an operation without polling.
    pub fn call(&mut self, op: Op) {
        let timeout = self.socket.poll_timeout();
        match op {
            Op::Advance { by, .. } => self.now += by.length(),
            Op::Backwards { by } => self.now = self.now - by.length(),
            Op::ToTimeout => self.now = timeout.map_or(self.now, |it| self.now.max(it.at)),
            _ => {}
        }
        self.timeouts_here = match timeout {
            // A deadline that is handled late may arm another deadline that is late already, but this
            // must end.
            Some(it)
                if op == Op::ToTimeout && it.at <= self.latest && it.kind != TimerKind::Actions =>
            {
                self.timeouts_here + 1
            }
            _ => 0,
        };
        assert!(self.timeouts_here <= 3, "time does not pass: {timeout:?}");
        self.dry = false;
        let called = self.carry_out(op);
        if passes_the_time(op, &called) {
            self.latest = self.latest.max(self.now);
        }
        self.trace.push(Entry::Called(called.clone()));
        let moment = moment!(self);
        self.checkers.each(|checker| checker.called(&called, &moment));
        self.look();
    }

    /// Converts the operation to an input and applies it.
    fn carry_out(&mut self, op: Op) -> Called {
        let (now, on) = (self.now, |conn| self.connection(conn));
        let input = match op {
            Op::Connect => Input::Connect,
            Op::Disconnect => Input::Disconnect,
            Op::ConnectNow => Input::ConnectNow,
            Op::Wake => Input::Wake,
            Op::Probe => Input::Probe,
            Op::SetCredentials => Input::SetCredentials(Credentials::new().param("token", "other")),
            Op::CredentialsUnchanged(conn) => Input::CredentialsUnchanged { id: on(conn) },
            Op::Dialled(conn) => Input::Dialled { id: on(conn) },
            Op::Join { topic, params } => {
                Input::Join { topic: name(topic).into(), params: self.params(params) }
            }
            Op::Attach { topic } => Input::Attach { topic: name(topic).into() },
            Op::Release { nth } => match pick(&self.interests, nth) {
                Some(interest) => Input::Release { interest: *interest },
                None => return Called::Other,
            },
            Op::Leave { topic } => Input::Leave { topic: name(topic).into() },
            Op::Rejoin { topic } => Input::Rejoin { topic: name(topic).into() },
            Op::SetJoinParams { topic, params } => {
                Input::SetJoinParams { topic: name(topic).into(), params: self.params(params) }
            }
            Op::Push { topic, kind, timeout, size } => {
                return self.push(topic, kind, timeout, size);
            }
            Op::Cancel { nth } => match pick(&self.pushes, nth) {
                Some(id) => Input::CancelPush { id: *id },
                None => return Called::Other,
            },
            Op::Opened(conn) => Input::Opened { id: on(conn), opened: Opened::default() },
            Op::Failed(conn, fail) => Input::Failed { id: on(conn), cause: failure(fail) },
            Op::Closed(conn, end) => Input::Closed { id: on(conn), ended: ended(end) },
            Op::Writable(conn, writable) => Input::Writable { id: on(conn), writable },
            Op::Progress { conn, read, written, flushed, acknowledged } => {
                let (id, kib) = (on(conn), |count| u64::from(count) << 10);
                let moved = &mut self.moved;
                moved.read += kib(read);
                moved.written += kib(written);
                moved.flushed = flushed;
                moved.acknowledged = moved.written.min(moved.acknowledged + kib(acknowledged));
                moved.acknowledged_next = moved.acknowledged + kib(acknowledged);
                Input::Progress { id, progress: *moved }
            }
            Op::FrameOn(conn) => {
                let (null, none) = (json!(null), json!({}));
                let frame = message(self.setup.vsn_1, &null, &null, "room:0", "e", &none);
                Input::Frame { id: on(conn), frame }
            }
            Op::Garbage { nth } => {
                Input::Frame { id: on(Conn::Current), frame: garbage(nth, MAX_MESSAGE_BYTES) }
            }
            Op::Answer { nth, how } => return self.answer(nth, how),
            Op::AnswerAll => unreachable!("many calls, made by `step`"),
            Op::AnswerAny { nth, how } => match self.sent.len() {
                0 => return Called::Other,
                len => return self.reply(usize::from(nth) % len, how),
            },
            Op::ServerMessage { topic, what, named } => {
                return self.send_message(topic, what, named);
            }
            Op::Advance { handle: false, .. } | Op::Backwards { .. } => return Called::Other,
            Op::Advance { handle: true, .. } | Op::ToTimeout => Input::Timeout,
        };
        match input.connection() {
            Some(id) => self.apply_about(id, input),
            None => self.apply(now, input),
        }
    }

    /// The connection that an input concerns.
    fn connection(&self, conn: Conn) -> ConnectionId {
        let id = match conn {
            Conn::Current => self.socket.connection_id().or(self.conns.last().copied()),
            Conn::Earlier(nth) => pick(&self.conns, nth).copied(),
            Conn::Never => None,
        };
        id.unwrap_or(ConnectionId::from_u64(1_000_000))
    }

    fn params(&self, params: u8) -> JoinParams {
        self.params[usize::from(params) % 4].clone()
    }

    /// Applies an input that concerns no connection.
    fn apply(&mut self, now: Time, input: Input) -> Called {
        match (input.clone(), self.socket.apply(now, input)) {
            (Input::Connect, Applied::Done) => Called::Connect,
            (Input::Disconnect, Applied::Done) => Called::Disconnect,
            (Input::ConnectNow, Applied::ConnectNow(answer)) => {
                Called::ConnectNow { taken: answer.is_ok() }
            }
            (Input::Wake, Applied::Done) => Called::Wake,
            (Input::Probe, Applied::Probe(answer)) => {
                assert_eq!(answer.is_ok(), self.socket.status() == Status::Open);
                Called::Probe { taken: answer.is_ok() }
            }
            (Input::SetCredentials(_), Applied::SetCredentials(answer)) => {
                answer.expect("no address to refuse");
                Called::SetCredentials
            }
            (Input::Join { topic, .. }, Applied::Join(answer)) => self.joined(&topic, answer.ok()),
            (Input::Attach { topic }, Applied::Attach(answer)) => self.joined(&topic, answer.ok()),
            (Input::Release { interest }, Applied::Release(released)) => {
                assert!(!self.socket.is_interested(interest));
                Called::Released { interest, released }
            }
            (Input::Leave { topic }, Applied::Leave(answer)) => {
                Called::Leave { topic: topic.to_string(), taken: answer.is_ok() }
            }
            (Input::Rejoin { .. }, Applied::Rejoin(_))
            | (Input::SetJoinParams { .. }, Applied::SetJoinParams(_)) => Called::Other,
            (Input::CancelPush { id }, Applied::CancelPush(taken)) => Called::Cancel { id, taken },
            (Input::Timeout, Applied::Done) => Called::Timeout,
            (input, applied) => panic!("{input:?} returned {applied:?}"),
        }
    }

    fn joined(&mut self, topic: &str, interest: Option<InterestId>) -> Called {
        self.interests.extend(interest);
        Called::Join { topic: topic.to_owned(), interest }
    }

    fn push(&mut self, topic: u8, kind: PushKind, timeout: Option<Span>, size: u8) -> Called {
        self.numbers += 1;
        let number = self.numbers;
        let topic = name(topic);
        let pad = ".".repeat(usize::from(size));
        let payload = if kind.binary {
            Payload::binary(format!("{number} {pad}"))
        } else {
            Payload::from(json!({"n": number, "pad": pad}))
        };
        let mut options = if kind.cast { PushOptions::cast() } else { PushOptions::call() };
        if kind.fail_fast {
            options = options.fail_fast();
        }
        let length = timeout.map_or(Duration::from_secs(10), Span::length);
        if timeout.is_some() {
            options = options.timeout(length);
        }
        let event = event(size);
        let bytes = payload.len() + event.len();
        let before = self.socket.stats();
        let full = self.full(&topic, bytes);
        let input = Input::Push {
            topic: topic.as_str().into(),
            event: event.into(),
            payload: payload.clone(),
            options,
        };
        let applied = self.socket.apply(self.now, input);
        let Applied::Push(pushed) = applied else { panic!("a push returned {applied:?}") };
        if let Err(error) = &pushed {
            assert_eq!(error.payload, payload, "handed back");
            assert_eq!(before, self.socket.stats(), "nothing was queued");
        }
        match pushed.as_ref().map_err(|error| &error.kind) {
            Ok(_) => assert_eq!(full, None, "taken though the queue is full"),
            Err(PushErrorKind::QueueFull { bound, limit }) => {
                assert_eq!(full, Some((*bound, *limit)), "not full");
            }
            Err(_) => {}
        }
        let id = pushed.ok();
        self.pushes.extend(id);
        Called::Push { number, id, topic, cast: kind.cast, bytes, timeout: length }
    }

    /// The first bound of the queue that a push with this many bytes would exceed.
    fn full(&self, topic: &str, bytes: usize) -> Option<(QueueBound, usize)> {
        let shared = self.socket.channels().count() > 1;
        let (all, own) =
            (self.checkers.outcomes.queued(None), self.checkers.outcomes.queued(Some(topic)));
        let bounds = [
            (QueueBound::Pushes, all.0 + 1, QUEUED_PUSHES_MAX),
            (QueueBound::Bytes, all.1 + bytes, QUEUED_BYTES_MAX),
            (QueueBound::PushesOfTopic, own.0 + 1, QUEUED_PUSHES_MAX / 2),
            (QueueBound::BytesOfTopic, own.1 + bytes, QUEUED_BYTES_MAX / 2),
        ];
        let passed = bounds.iter().take(if shared { 4 } else { 2 }).find(|(_, is, max)| is > max);
        passed.map(|(bound, _, max)| (*bound, *max))
    }

    /// Applies an input that concerns a connection. A stale input must change only its counter.
    fn apply_about(&mut self, id: ConnectionId, input: Input) -> Called {
        let stale = self.is_stale(id, &input);
        let called = match input {
            Input::Dialled { .. } => Called::Dialled { id, stale },
            Input::Opened { .. } => Called::Opened { id, stale },
            Input::Failed { .. } | Input::Closed { .. } => Called::Ended { id, stale },
            _ => Called::Input { id, stale },
        };
        if stale {
            self.apply_stale(input);
            return called;
        }
        let before = self.socket.stats().stale_inputs;
        match input {
            Input::Opened { .. } => (self.writable, self.moved) = (true, Progress::default()),
            Input::Writable { writable, .. } => self.writable = writable,
            _ => {}
        }
        assert_eq!(self.socket.apply(self.now, input), Applied::Done);
        assert_eq!(self.socket.stats().stale_inputs, before, "{called:?}");
        called
    }

    fn is_stale(&self, id: ConnectionId, input: &Input) -> bool {
        let phase_fits = match self.socket.status() {
            _ if matches!(input, Input::Progress { .. }) => true,
            Status::Connecting { .. } => matches!(
                input,
                Input::Opened { .. }
                    | Input::Failed { .. }
                    | Input::Closed { .. }
                    | Input::CredentialsUnchanged { .. }
                    | Input::Dialled { .. }
            ),
            Status::Open => !matches!(
                input,
                Input::Opened { .. } | Input::CredentialsUnchanged { .. } | Input::Dialled { .. }
            ),
            Status::Closing => matches!(input, Input::Failed { .. } | Input::Closed { .. }),
            _ => false,
        };
        !phase_fits || self.socket.connection_id() != Some(id)
    }

    /// Applies an input that changes only the time.
    pub(super) fn pass_time(&mut self) {
        let none = Input::CancelPush { id: PushId::from_u64(u64::MAX) };
        assert_eq!(self.socket.apply(self.now, none), Applied::CancelPush(false));
    }

    fn apply_stale(&mut self, input: Input) {
        self.pass_time();
        let stale_inputs = self.socket.stats().stale_inputs;
        let before = format!("{:?}", self.socket);
        assert_eq!(self.socket.apply(self.now, input), Applied::Done);
        let counted = |count: u64| format!("stale_inputs: {count}");
        assert!(before.contains(&counted(stale_inputs)));
        let expected = before.replace(&counted(stale_inputs), &counted(stale_inputs + 1));
        assert_same(&format!("{:?}", self.socket), &expected, "a stale input changes nothing");
    }
}

/// Whether the call passes the time to the socket. The socket does not know of time that passes
/// without such a call.
fn passes_the_time(op: Op, called: &Called) -> bool {
    match op {
        Op::Backwards { .. } => false,
        Op::Advance { handle, .. } => handle,
        Op::Release { .. } => {
            matches!(called, Called::Released { released: Released::Leaving, .. })
        }
        Op::Cancel { .. } | Op::Answer { .. } | Op::AnswerAny { .. } | Op::ServerMessage { .. } => {
            *called != Called::Other
        }
        _ => true,
    }
}

/// Panics if two long texts differ, and shows where they begin to differ.
#[track_caller]
pub fn assert_same(found: &str, expected: &str, why: &str) {
    if found != expected {
        let pairs = found.chars().zip(expected.chars());
        let same = pairs.take_while(|(one, other)| one == other).count();
        let part =
            |text: &str| text.chars().skip(same.saturating_sub(40)).take(120).collect::<String>();
        panic!("{why}: …{}… is not …{}…", part(found), part(expected));
    }
}

/// The event name of a push. Some sizes have longer names.
fn event(size: u8) -> String {
    "e".repeat(1 + usize::from(size) / 4)
}

pub fn name(topic: u8) -> String {
    format!("room:{topic}")
}

/// The item at this index, modulo the length.
pub fn pick<T>(all: &[T], nth: u8) -> Option<&T> {
    all.get(usize::from(nth).checked_rem(all.len())?)
}
