//! Carries operations out, and shows the checkers everything that comes of them.

use std::collections::VecDeque;
use std::time::Duration;

use phx_proto::wire::V1;
use phx_proto::{
    Action, Backoff, CloseRule, Config, ConnectionId, Credentials, DelayRange, Ended, Failure,
    Frame, InterestId, JoinParams, Opened, Payload, PushErrorKind, PushId, PushOptions, Refusal,
    Released, Socket, Status, Time, TimerKind,
};
use serde_json::{Value, json};

use super::checkers::{Checkers, Moment};
use super::peer::{Sent, binary, garbage, message};
use super::{Answer, Conn, End, Fail, Named, Op, PushKind, Say, Setup, Span, Start, Step};

/// What a checker can see beside what happens.
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

pub const QUEUED_PUSHES_MAX: usize = 6;
pub const QUEUED_BYTES_MAX: usize = 400;
pub const MAX_MESSAGE_BYTES: usize = 2_000;
const MAX_PUSH_BYTES: usize = 1_000;

/// What was called, and what came of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Called {
    Connect,
    Disconnect,
    ConnectNow {
        taken: bool,
    },
    Wake,
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
        timeout: Duration,
    },
    Cancel {
        id: PushId,
        taken: bool,
    },
    /// An input about the connection; a stale one is ignored.
    Input {
        id: ConnectionId,
        what: Input,
        stale: bool,
    },
    /// A reply to what was written under this ref.
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    Opened,
    Failed,
    Closed,
    Writable,
    Frame,
    CredentialsUnchanged,
}

/// One line of the trace: times are since the origin of the clock.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    Called(Called),
    Action(Duration, Action),
    Deadline(Option<(Duration, TimerKind)>),
}

/// The delays that the configuration allows.
#[derive(Clone, Debug)]
pub struct Policy {
    pub first_retry: DelayRange,
    pub close_soon: DelayRange,
    pub reconnect: Backoff,
    pub refused: Backoff,
    pub rejoin: Backoff,
    pub rejected: Backoff,
    pub stable_after: Duration,
    pub retry_after_max: Duration,
    pub rejections_max: u32,
}

impl Policy {
    /// The defaults, written out.
    pub fn new() -> Self {
        let range = |min, max| {
            DelayRange::new(Duration::from_millis(min), Duration::from_millis(max))
                .expect("a range")
        };
        let steps = |steps: &[u64]| Backoff::steps_msec(steps).expect("steps");
        Self {
            first_retry: range(10, 500),
            close_soon: range(10, 2_000),
            reconnect: steps(&[10, 50, 100, 150, 200, 250, 500, 1_000, 2_000, 5_000]),
            refused: steps(&[5_000, 15_000, 60_000, 300_000]),
            rejoin: steps(&[100, 500, 1_000, 2_000, 5_000, 10_000]),
            rejected: steps(&[1_000, 5_000, 30_000]),
            stable_after: Duration::from_secs(10),
            retry_after_max: Duration::from_secs(3_600),
            rejections_max: 3,
        }
    }
}

/// A socket, its driver, its application and its server.
#[derive(Clone, Debug)]
pub struct World {
    pub setup: Setup,
    pub policy: Policy,
    pub socket: Socket,
    pub now: Time,
    /// The latest time the socket was told.
    pub latest: Time,
    pub checkers: Checkers,
    /// Actions that are decided and not yet polled.
    pub pending: VecDeque<Action>,
    pub sent: Vec<Sent>,
    pub trace: Vec<Entry>,
    pub conns: Vec<ConnectionId>,
    pub interests: Vec<InterestId>,
    pub pushes: Vec<PushId>,
    params: [JoinParams; 4],
    numbers: u64,
    /// The last poll found nothing, and nothing was called since.
    pub dry: bool,
    /// What the socket was told of the transport of the current connection.
    pub writable: bool,
    /// Deadlines handled at one instant, with nothing else happening.
    timeouts_here: u32,
}

impl World {
    pub fn new(setup: Setup) -> Self {
        let policy = Policy::new();
        let now = Time::from_nanos(setup.origin);
        let params = [
            JoinParams::none(),
            JoinParams::from(json!({"p": 1})),
            JoinParams::from_fn(|attempt| Payload::from(json!({"attempt": attempt.attempt}))),
            // Cannot be sent every second time.
            JoinParams::from_fn(|attempt| {
                let length = if attempt.attempt % 2 == 0 { MAX_PUSH_BYTES } else { 1 };
                Payload::from(json!({"x": "x".repeat(length)}))
            }),
        ];
        let socket = Socket::new(config(&setup, &policy), setup.seed, now);
        let mut world = Self {
            setup,
            policy,
            socket,
            now,
            latest: now,
            checkers: Checkers::default(),
            pending: VecDeque::new(),
            sent: Vec::new(),
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

    /// One operation, the polls that follow it, and every check.
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
        assert_eq!(actions, !self.pending.is_empty(), "the deadline says what waits: {timeout:?}");
        let origin = Time::from_nanos(self.setup.origin);
        self.trace.push(Entry::Deadline(timeout.map(|it| (it.at.since(origin), it.kind))));
        let moment = moment!(self);
        self.checkers.each(|checker| checker.settled(&moment));
    }

    /// Everything there is to poll.
    pub fn drain(&mut self) {
        for _ in 0..10_000 {
            if !self.poll() {
                assert!(self.pending.is_empty(), "an action was lost: {:?}", self.pending);
                return;
            }
        }
        panic!("the socket never stops talking");
    }

    /// One action. Returns whether there was one.
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
                // Decided while a frame was being built.
                None => self.decided(&action),
            },
        }
        self.look();
        true
    }

    /// Shows the checkers what has been decided and is not yet polled.
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
                assert_eq!(action, *pending, "what is decided stays");
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

    /// Carries an operation out, without polling anything.
    pub fn call(&mut self, op: Op) {
        let timeout = self.socket.poll_timeout();
        match op {
            Op::Advance { by, .. } => self.now += by.length(),
            Op::Backwards { by } => self.now = self.now - by.length(),
            Op::ToTimeout => self.now = timeout.map_or(self.now, |it| self.now.max(it.at)),
            _ => {}
        }
        self.timeouts_here = match timeout {
            // What is handled late may arm what is late too, but it ends.
            Some(it)
                if op == Op::ToTimeout && it.at <= self.latest && it.kind != TimerKind::Actions =>
            {
                self.timeouts_here + 1
            }
            _ => 0,
        };
        assert!(self.timeouts_here <= 3, "time does not pass: {timeout:?}");
        self.latest = self.latest.max(self.now);
        self.dry = false;
        let called = self.carry_out(op);
        self.trace.push(Entry::Called(called.clone()));
        let moment = moment!(self);
        self.checkers.each(|checker| checker.called(&called, &moment));
        self.look();
    }

    fn carry_out(&mut self, op: Op) -> Called {
        let now = self.now;
        let socket = &mut self.socket;
        match op {
            Op::Connect => {
                socket.connect(now);
                Called::Connect
            }
            Op::Disconnect => {
                socket.disconnect(now);
                Called::Disconnect
            }
            Op::ConnectNow => Called::ConnectNow { taken: socket.connect_now(now).is_ok() },
            Op::Wake => {
                socket.handle_wake(now);
                Called::Wake
            }
            Op::Probe => {
                let taken = socket.probe(now).is_ok();
                assert_eq!(taken, socket.status() == Status::Open);
                Called::Other
            }
            Op::SetCredentials => {
                let credentials = Credentials::new().param("token", "other");
                socket.set_credentials(credentials).expect("no address to refuse");
                Called::Other
            }
            Op::Join { topic, params } => {
                let params = self.params[usize::from(params) % 4].clone();
                let interest = socket.join(now, name(topic), params).ok();
                self.interests.extend(interest);
                Called::Join { topic: name(topic), interest }
            }
            Op::Attach { topic } => {
                let interest = socket.attach(now, &name(topic)).ok();
                self.interests.extend(interest);
                Called::Join { topic: name(topic), interest }
            }
            Op::Release { nth } => {
                let Some(interest) = pick(&self.interests, nth).copied() else {
                    return Called::Other;
                };
                let released = socket.release(now, interest);
                assert!(!socket.is_interested(interest));
                Called::Released { interest, released }
            }
            Op::Leave { topic } => {
                let taken = socket.leave(now, &name(topic)).is_ok();
                Called::Leave { topic: name(topic), taken }
            }
            Op::Rejoin { topic } => {
                let _ = socket.rejoin(now, &name(topic));
                Called::Other
            }
            Op::SetJoinParams { topic, params } => {
                let params = self.params[usize::from(params) % 4].clone();
                let _ = socket.set_join_params(&name(topic), params);
                Called::Other
            }
            Op::Push { topic, kind, timeout, size } => self.push(topic, kind, timeout, size),
            Op::Cancel { nth } => {
                let Some(id) = pick(&self.pushes, nth).copied() else { return Called::Other };
                Called::Cancel { id, taken: socket.cancel_push(now, id) }
            }
            Op::CredentialsUnchanged(conn) => {
                self.input(conn, Input::CredentialsUnchanged, |w, id| {
                    w.socket.credentials_unchanged(w.now, id);
                })
            }
            Op::Opened(conn) => {
                let called = self.input(conn, Input::Opened, |w, id| {
                    w.socket.handle_opened(w.now, id, Opened::default());
                });
                self.writable |= matches!(called, Called::Input { stale: false, .. });
                called
            }
            Op::Failed(conn, fail) => self.input(conn, Input::Failed, |w, id| {
                w.socket.handle_failed(w.now, id, failure(fail));
            }),
            Op::Closed(conn, end) => self.input(conn, Input::Closed, |w, id| {
                w.socket.handle_closed(w.now, id, ended(end));
            }),
            Op::Writable(conn, writable) => {
                let called = self.input(conn, Input::Writable, |w, id| {
                    w.socket.handle_writable(w.now, id, writable);
                });
                if matches!(called, Called::Input { stale: false, .. }) {
                    self.writable = writable;
                }
                called
            }
            Op::FrameOn(conn) => self.input(conn, Input::Frame, |w, id| {
                let frame =
                    message(w.setup.vsn_1, &json!(null), &json!(null), "room:0", "e", &json!({}));
                w.socket.handle_frame(w.now, id, frame);
            }),
            Op::Answer { nth, how } => self.answer(nth, how),
            Op::AnswerAll => unreachable!("many calls, made by `step`"),
            Op::AnswerAny { nth, how } => match self.sent.len() {
                0 => Called::Other,
                len => self.reply(usize::from(nth) % len, how),
            },
            Op::Say { topic, what, named } => self.say(topic, what, named),
            Op::Garbage { nth } => self.input(Conn::Current, Input::Frame, |w, id| {
                w.socket.handle_frame(w.now, id, garbage(nth, MAX_MESSAGE_BYTES));
            }),
            Op::Advance { handle: false, .. } | Op::Backwards { .. } => Called::Other,
            Op::Advance { handle: true, .. } | Op::ToTimeout => {
                socket.handle_timeout(now);
                Called::Timeout
            }
        }
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
        let before = self.socket.stats();
        let pushed = self.socket.push(self.now, &topic, "e", payload.clone(), options);
        if let Err(error) = &pushed {
            assert_eq!(error.payload, payload, "handed back");
            assert_eq!(before, self.socket.stats(), "nothing was queued");
        }
        let full = before.queued_pushes >= QUEUED_PUSHES_MAX
            || before.queued_bytes + payload.len() > QUEUED_BYTES_MAX;
        match &pushed {
            Ok(_) => assert!(!full, "taken though the queue is full"),
            Err(error) if error.kind == PushErrorKind::QueueFull => assert!(full, "not full"),
            Err(_) => {}
        }
        let id = pushed.ok();
        self.pushes.extend(id);
        Called::Push { number, id, topic, cast: kind.cast, timeout: length }
    }

    /// An input about a connection. A stale one must change nothing but its counter.
    fn input(
        &mut self,
        conn: Conn,
        what: Input,
        input: impl Fn(&mut Self, ConnectionId),
    ) -> Called {
        let current = self.socket.connection_id();
        let id = match conn {
            Conn::Current => current.or(self.conns.last().copied()),
            Conn::Earlier(nth) => pick(&self.conns, nth).copied(),
            Conn::Never => None,
        };
        let id = id.unwrap_or(ConnectionId::from_u64(1_000_000));
        let phase_fits = match self.socket.status() {
            Status::Connecting { .. } => {
                matches!(what, Input::Opened | Input::Failed | Input::CredentialsUnchanged)
            }
            Status::Open => matches!(what, Input::Closed | Input::Writable | Input::Frame),
            Status::Closing => what == Input::Closed,
            _ => false,
        };
        let stale = !phase_fits || current != Some(id);
        if stale {
            self.stale(|world| input(world, id));
        } else {
            let before = self.socket.stats().stale_inputs;
            input(self, id);
            assert_eq!(self.socket.stats().stale_inputs, before, "{what:?} of {id} is not stale");
        }
        Called::Input { id, what, stale }
    }

    fn stale(&mut self, input: impl Fn(&mut Self)) {
        // Tells the socket the time and nothing else.
        self.socket.cancel_push(self.now, PushId::from_u64(u64::MAX));
        let stale_inputs = self.socket.stats().stale_inputs;
        let before = format!("{:?}", self.socket);
        input(self);
        let counted = |count: u64| format!("stale_inputs: {count}");
        assert!(before.contains(&counted(stale_inputs)));
        let expected = before.replace(&counted(stale_inputs), &counted(stale_inputs + 1));
        assert_same(&format!("{:?}", self.socket), &expected, "a stale input changes nothing");
    }

    /// A frame; one that can only be about something that is over must change nothing but counters.
    fn receive(&mut self, id: ConnectionId, frame: Frame, stale: bool) {
        self.socket.cancel_push(self.now, PushId::from_u64(u64::MAX));
        let before = stale.then(|| self.shown_without_counters());
        self.socket.handle_frame(self.now, id, frame);
        if let Some(before) = before {
            assert_same(&self.shown_without_counters(), &before, "a stale frame changes nothing");
        }
    }

    fn shown_without_counters(&self) -> String {
        let shown = format!("{:?}", self.socket);
        let start = shown.find("stats: Stats {").expect("counters");
        let end = start + shown[start..].find('}').expect("their end");
        shown[..start].to_owned() + &shown[end..]
    }

    /// The frames of this connection that the server has not answered, oldest first.
    pub fn unanswered(&self) -> Vec<usize> {
        let Some(id) = self.socket.connection_id() else { return Vec::new() };
        let open = |sent: &Sent| sent.conn == id && !sent.answered;
        (0..self.sent.len()).filter(|index| open(&self.sent[*index])).collect()
    }

    fn answer(&mut self, nth: u8, how: Answer) -> Called {
        match pick(&self.unanswered(), nth) {
            Some(index) => self.reply(*index, how),
            None => Called::Other,
        }
    }

    /// Replies, on the current connection, to what was written as the frame `index` of all.
    pub fn reply(&mut self, index: usize, how: Answer) -> Called {
        const REASONS: [&str; 4] =
            ["no", "join crashed", "unmatched topic", "too many channels joined"];
        if self.socket.status() != Status::Open {
            return Called::Other;
        }
        let id = self.socket.connection_id().expect("an open connection");
        let sent = &mut self.sent[index];
        // Any "unmatched topic" without a join_ref may say that a channel is lost.
        let unmatched = matches!(how, Answer::Unmatched | Answer::Error(_));
        let stale = (sent.answered || sent.conn != id) && !unmatched;
        sent.answered |= sent.conn == id;
        let sent = sent.clone();
        let join_ref = match how {
            Answer::Unmatched => Value::Null,
            _ => json!(sent.join_ref.map(|join_ref| join_ref.to_string())),
        };
        let msg_ref = sent.msg_ref.to_string();
        let (status, response) = match how {
            Answer::Ok | Answer::OkBinary => ("ok", json!({"to": sent.event})),
            Answer::Error(reason) => ("error", json!({"reason": REASONS[usize::from(reason) % 4]})),
            Answer::Unmatched => ("error", json!({"reason": "unmatched topic"})),
            Answer::OtherStatus => ("maybe", json!([])),
        };
        let frame = if how == Answer::OkBinary && !self.setup.vsn_1 {
            let join_ref = join_ref.as_str().unwrap_or_default();
            binary(1, &[join_ref, &msg_ref, &sent.topic, status])
        } else {
            let payload = json!({"status": status, "response": response});
            message(
                self.setup.vsn_1,
                &join_ref,
                &json!(msg_ref),
                &sent.topic,
                "phx_reply",
                &payload,
            )
        };
        self.receive(id, frame, stale);
        Called::Reply { topic: sent.topic, msg_ref: sent.msg_ref, ok: status == "ok" }
    }

    fn say(&mut self, topic: u8, what: Say, named: Named) -> Called {
        if self.socket.status() != Status::Open {
            return Called::Other;
        }
        let id = self.socket.connection_id().expect("an open connection");
        let topic = name(topic);
        let joins: Vec<&Sent> =
            self.sent.iter().filter(|sent| sent.is_join() && sent.topic == topic).collect();
        let join = match named {
            Named::Current => joins.last().copied(),
            Named::Earlier(nth) => pick(&joins, nth).copied(),
            Named::Null | Named::Foreign => None,
        };
        let join_ref = match named {
            Named::Foreign => json!("x1"),
            _ => json!(join.map(|join| join.msg_ref.to_string())),
        };
        let newest = joins.last().filter(|newest| newest.conn == id);
        let stale = match named {
            Named::Null => false,
            Named::Foreign => true,
            _ => join.is_some_and(|join| newest.is_none_or(|it| it.msg_ref != join.msg_ref)),
        };
        let event = match what {
            Say::Error => "phx_error",
            Say::Close => "phx_close",
            Say::Message | Say::BinaryMessage => "said",
        };
        let frame = if what == Say::BinaryMessage && !self.setup.vsn_1 {
            match join_ref.as_str() {
                Some(join_ref) => binary(0, &[join_ref, &topic, event]),
                None => binary(2, &[&topic, event]),
            }
        } else {
            let ends = matches!(what, Say::Error | Say::Close);
            let msg_ref = if ends { join_ref.clone() } else { Value::Null };
            message(self.setup.vsn_1, &join_ref, &msg_ref, &topic, event, &json!({"k": 1}))
        };
        // Only vsn 1 cannot tell messages of one instance from those of another.
        let ends = matches!(what, Say::Error | Say::Close);
        self.receive(id, frame, stale && (ends || !self.setup.vsn_1));
        Called::Frame
    }
}

/// Shows where two long texts begin to differ.
#[track_caller]
fn assert_same(found: &str, expected: &str, why: &str) {
    if found != expected {
        let pairs = found.chars().zip(expected.chars());
        let same = pairs.take_while(|(one, other)| one == other).count();
        let part =
            |text: &str| text.chars().skip(same.saturating_sub(40)).take(120).collect::<String>();
        panic!("{why}: …{}… is not …{}…", part(found), part(expected));
    }
}

pub fn name(topic: u8) -> String {
    format!("room:{topic}")
}

/// The n-th of these, counted round and round.
pub fn pick<T>(all: &[T], nth: u8) -> Option<&T> {
    all.get(usize::from(nth).checked_rem(all.len())?)
}

fn config(setup: &Setup, policy: &Policy) -> Config {
    let mut config = Config::new("ws://localhost:4000/socket/websocket").expect("a good URI");
    config = config
        .first_retry_spread(policy.first_retry)
        .reconnect_after(policy.reconnect.clone())
        .refused_after(policy.refused.clone())
        .rejoin_after(policy.rejoin.clone())
        .rejected_after(policy.rejected.clone())
        .stable_after(policy.stable_after)
        .retry_after_max(policy.retry_after_max)
        .join_rejections_max(policy.rejections_max)
        .close_rule(1008, CloseRule::Stop)
        .join_concurrency(setup.join_concurrency)
        .expect("more than none")
        .max_retries(setup.max_retries)
        .max_elapsed(setup.max_elapsed)
        .credentials_refreshed(setup.credentials_refreshed)
        .strict_payloads(setup.strict)
        .queued_pushes_max(QUEUED_PUSHES_MAX)
        .queued_bytes_max(QUEUED_BYTES_MAX)
        .max_message_bytes(MAX_MESSAGE_BYTES)
        .max_push_bytes(MAX_PUSH_BYTES);
    if !setup.heartbeats {
        config = config.heartbeat_interval(Duration::ZERO);
    }
    if setup.vsn_1 {
        config = config.serializer(std::sync::Arc::new(V1));
    }
    if setup.auto_join {
        config = config.auto_join(name(1), JoinParams::none());
    }
    config
}

fn failure(fail: Fail) -> Failure {
    match fail {
        Fail::Dial => Failure::Dial { message: "refused".into() },
        Fail::Refused(status, retry_after) => {
            let headers = retry_after
                .map(|seconds| ("Retry-After".to_owned(), seconds.to_string()))
                .into_iter()
                .collect();
            Failure::Refused(Refusal::new(status, headers, ""))
        }
        Fail::Credentials => Failure::Credentials { message: "vault sealed".into() },
        Fail::CredentialsGaveUp => Failure::CredentialsGaveUp { reason: "expired".into() },
    }
}

fn ended(end: End) -> Ended {
    match end {
        End::Frame(code) => Ended::CloseFrame { code, reason: String::new() },
        End::Lost => Ended::Lost { message: "reset".into() },
        End::TooLarge => Ended::MessageTooLarge,
    }
}
