//! A socket that is driven by hand on virtual time. The test plays the server.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::sync::Arc;
use std::time::Duration;

use phx_proto::wire::V1;
use phx_proto::{Action, Cause, Config, ConnectionId, Ended, Frame, Opened, Signal, Socket, Time};
use serde_json::{Value, json};

pub const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub fn config() -> Config {
    Config::new("ws://localhost:4000/socket/websocket").expect("a good URI")
}

/// The same configuration with vsn 1.0.0.
pub fn config_v1() -> Config {
    config().codec(Arc::new(V1)).expect("no vsn in the address")
}

/// Asserts that a delay is in this range of milliseconds.
pub fn check(delay: Duration, from: u64, to: u64, what: &str) {
    assert!((ms(from)..=ms(to)).contains(&delay), "{what}: {delay:?} is not in {from}..={to} ms");
}

/// A frame as written: join_ref, ref, topic, event, payload.
#[derive(Clone, Debug, PartialEq)]
pub struct Sent {
    pub at: Time,
    pub join_ref: Option<String>,
    pub msg_ref: String,
    pub topic: String,
    pub event: String,
    pub payload: Value,
}

/// A socket, its clock, its frames, and its signals and other actions since the last `forget`.
pub struct Hand {
    pub socket: Socket,
    pub now: Time,
    pub sent: Vec<Sent>,
    pub signals: Vec<Signal>,
    /// Actions that are neither frames nor signals.
    pub actions: Vec<Action>,
    pub dialled: Option<ConnectionId>,
}

impl Hand {
    pub fn new(config: Config) -> Self {
        Self::with_seed(config, 7)
    }

    pub fn with_seed(config: Config, seed: u64) -> Self {
        let now = Time::from_millis(1_000);
        let mut hand = Self {
            socket: Socket::new(config, seed, now),
            now,
            sent: Vec::new(),
            signals: Vec::new(),
            actions: Vec::new(),
            dialled: None,
        };
        hand.drain();
        hand
    }

    /// A hand whose connection is open.
    pub fn open(config: Config) -> Self {
        let mut hand = Self::new(config);
        hand.connect();
        hand.opened();
        hand
    }

    /// A hand with `room:a` joined.
    pub fn joined(config: Config) -> Self {
        let mut hand = Self::open(config);
        hand.join("room:a");
        hand.answer_join("room:a");
        hand.forget();
        hand
    }

    pub fn connect(&mut self) {
        self.socket.connect(self.now);
        self.drain();
    }

    pub fn opened(&mut self) {
        let id = self.dialled.expect("a dial");
        self.socket.handle_opened(self.now, id, Opened::default());
        self.drain();
    }

    pub fn failed(&mut self, failure: Cause) {
        let id = self.dialled.expect("a dial");
        self.socket.handle_failed(self.now, id, failure);
        self.drain();
    }

    pub fn ended(&mut self, ended: Ended) {
        let id = self.dialled.expect("a dial");
        self.socket.handle_closed(self.now, id, ended);
        self.drain();
    }

    pub fn lost(&mut self) {
        self.ended(Ended::Lost { message: "reset".into() });
    }

    /// Loses the connection without polling the actions that follow.
    pub fn lost_without_polling(&mut self) {
        let id = self.dialled.expect("a dial");
        let ended = Ended::Lost { message: "reset".into() };
        self.socket.handle_closed(self.now, id, ended);
        let _ = self.socket.poll_timeout();
        while let Some(phx_proto::socket::Step::Action(_)) = self.socket.poll_step(self.now) {}
    }

    pub fn close_frame(&mut self, code: u16) {
        self.ended(Ended::CloseFrame { code: Some(code), reason: String::new() });
    }

    pub fn join(&mut self, topic: &str) {
        self.socket.join(self.now, topic, json!({})).expect("an accepted join");
        self.drain();
    }

    pub fn leave(&mut self, topic: &str) {
        self.socket.leave(self.now, topic).expect("a wanted topic");
        self.drain();
    }

    pub fn writable(&mut self, writable: bool) {
        let id = self.dialled.expect("a dial");
        self.socket.handle_writable(self.now, id, writable);
        self.drain();
    }

    /// Receives `[join_ref, ref, topic, event, payload]` as the server writes it in the version that
    /// is used. In vsn 1, no frame of the server has a join_ref (`wire/v1_with_join_ref`).
    pub fn receive(&mut self, message: &Value) {
        if self.speaks_v1() {
            let [_, msg_ref, topic, event, payload] =
                message.as_array().expect("an array").as_slice()
            else {
                panic!("five members: {message}")
            };
            let message =
                json!({"ref": msg_ref, "topic": topic, "event": event, "payload": payload});
            self.receive_text(&message.to_string());
        } else {
            self.receive_text(&message.to_string());
        }
    }

    pub fn receive_binary(&mut self, frame: &[u8]) {
        let id = self.dialled.expect("a dial");
        self.socket.handle_frame(self.now, id, Frame::Binary(frame.to_vec().into()));
        self.drain();
    }

    fn speaks_v1(&self) -> bool {
        self.socket
            .connect_request()
            .expect("an address that may be dialled")
            .uri
            .target()
            .contains("vsn=1.0.0")
    }

    pub fn receive_text(&mut self, text: &str) {
        let id = self.dialled.expect("a dial");
        self.socket.handle_frame(self.now, id, Frame::from(text));
        self.drain();
    }

    /// Replies to the newest frame with this topic and event.
    pub fn answer(&mut self, topic: &str, event: &str, status: &str, response: Value) {
        let sent = self.last_sent(topic, event);
        let payload = json!({"status": status, "response": response});
        self.receive(&json!([sent.join_ref, sent.msg_ref, topic, "phx_reply", payload]));
    }

    pub fn answer_join(&mut self, topic: &str) {
        self.answer(topic, "phx_join", "ok", json!({"joined": topic}));
    }

    pub fn answer_heartbeat(&mut self) {
        let sent = self.last_sent("phoenix", "heartbeat");
        let payload = json!({"status": "ok", "response": {}});
        self.receive(&json!([null, sent.msg_ref, "phoenix", "phx_reply", payload]));
    }

    /// Receives `phx_close` or `phx_error` for the newest join of `topic`.
    pub fn end_channel(&mut self, topic: &str, event: &str) {
        let join_ref = self.join_ref(topic);
        self.receive(&json!([join_ref, join_ref, topic, event, {}]));
    }

    pub fn join_ref(&self, topic: &str) -> String {
        self.last_sent(topic, "phx_join").msg_ref
    }

    pub fn last_sent(&self, topic: &str, event: &str) -> Sent {
        let found = self.sent.iter().rfind(|sent| sent.topic == topic && sent.event == event);
        found.unwrap_or_else(|| panic!("no {event} of {topic} in {:#?}", self.sent)).clone()
    }

    pub fn count_sent(&self, topic: &str, event: &str) -> usize {
        self.sent.iter().filter(|sent| sent.topic == topic && sent.event == event).count()
    }

    /// Advances the time, and handles every deadline on the way.
    pub fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        for _ in 0..10_000 {
            match self.socket.poll_timeout() {
                Some(timeout) if timeout.at <= end => {
                    self.now = self.now.max(timeout.at);
                    self.socket.handle_timeout(self.now);
                    self.drain();
                }
                _ => {
                    self.now = end;
                    return;
                }
            }
        }
        panic!("time does not pass: {:?}", self.socket.poll_timeout());
    }

    /// Advances the time in one step, as after a sleep of the machine.
    pub fn sleep(&mut self, by: Duration) {
        self.now += by;
        self.socket.handle_timeout(self.now);
        self.drain();
    }

    /// Advances the time to the next dial, however long the wait is.
    pub fn until_dial(&mut self) -> Duration {
        let start = self.now;
        let before = self.dialled;
        for _ in 0..100 {
            let timeout = self.socket.poll_timeout().expect("a deadline");
            self.now = self.now.max(timeout.at);
            self.socket.handle_timeout(self.now);
            self.drain();
            if self.dialled != before {
                return self.now.since(start);
            }
        }
        panic!("never dialled");
    }

    pub fn drain(&mut self) {
        for _ in 0..100_000 {
            match self.socket.poll_action(self.now) {
                None => return,
                Some(Action::Signal(signal)) => self.signals.push(signal),
                Some(action @ (Action::Send { .. } | Action::Join { .. })) => {
                    let frame = action.into_frame().expect("a frame");
                    self.sent.push(parse(self.now, &frame));
                }
                Some(action) => {
                    if let Action::Connect { id, .. } = &action {
                        self.dialled = Some(*id);
                    }
                    self.actions.push(action);
                }
            }
        }
        panic!("the socket emits actions without end");
    }

    pub fn forget(&mut self) {
        self.signals.clear();
        self.actions.clear();
    }

    pub fn take_signals(&mut self) -> Vec<Signal> {
        std::mem::take(&mut self.signals)
    }

    /// The delay of the last `ReconnectAfter`, and its cause.
    pub fn reconnect_after(&self) -> (Duration, Cause) {
        let found = self.actions.iter().rev().find_map(|action| match action {
            Action::ReconnectAfter { delay, cause, .. } => Some((*delay, cause.clone())),
            _ => None,
        });
        found.unwrap_or_else(|| panic!("no reconnect in {:#?}", self.actions))
    }

    /// The delay of the last `RejoinAfter` of `topic`.
    pub fn rejoin_after(&self, wanted: &str) -> Duration {
        let found = self.actions.iter().rev().find_map(|action| match action {
            Action::RejoinAfter { topic, delay, .. } if *topic == *wanted => Some(*delay),
            _ => None,
        });
        found.unwrap_or_else(|| panic!("no rejoin of {wanted} in {:#?}", self.actions))
    }

    pub fn has_abort(&self) -> bool {
        self.actions.iter().any(|action| matches!(action, Action::Abort { .. }))
    }

    pub fn close_code(&self) -> Option<u16> {
        self.actions.iter().rev().find_map(|action| match action {
            Action::Close { code, .. } => Some(*code),
            _ => None,
        })
    }
}

fn parse(at: Time, frame: &Frame) -> Sent {
    if !frame.is_text() {
        return parse_binary(at, frame);
    }
    let text = std::str::from_utf8(frame.as_bytes()).expect("UTF-8");
    if text.starts_with('{') {
        let message: Value = serde_json::from_str(text).expect("an object");
        let string = |key: &str| message[key].as_str().map(str::to_owned);
        return Sent {
            at,
            join_ref: string("join_ref"),
            msg_ref: string("ref").expect("a ref"),
            topic: string("topic").expect("a topic"),
            event: string("event").expect("an event"),
            payload: message["payload"].clone(),
        };
    }
    let (join_ref, msg_ref, topic, event, payload) =
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    Sent { at, join_ref, msg_ref, topic, event, payload }
}

/// A client's binary push has kind 0 and a ref (`wire/binary_echo`). Its payload is returned as a JSON
/// array of the bytes.
fn parse_binary(at: Time, frame: &Frame) -> Sent {
    let [0, join_ref, msg_ref, topic, event, rest @ ..] = frame.as_bytes() else {
        panic!("a push: {frame:?}")
    };
    let mut rest = rest;
    let mut field = |len: &u8| {
        let (field, after) = rest.split_at(usize::from(*len));
        rest = after;
        String::from_utf8(field.to_vec()).expect("UTF-8")
    };
    let fields = [join_ref, msg_ref, topic, event].map(&mut field);
    let [join_ref, msg_ref, topic, event] = fields;
    Sent { at, join_ref: Some(join_ref), msg_ref, topic, event, payload: json!(rest) }
}
