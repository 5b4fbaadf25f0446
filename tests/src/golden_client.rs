//! A client under test, driven through one recorded conversation.
//!
//! For each recorded client frame, the test issues the command that makes a client send it, and
//! compares the frame that is sent with the recorded one. Refs are renamed in the order of their
//! first use. The client receives each server frame as recorded, except that its refs are replaced
//! by those of the client.
//!
//! The clock follows the recorded milliseconds, except for jumps: for a heartbeat or a rejoin, it
//! advances to the client's deadline, which differs from that of the recorder. The recorder never
//! waited long enough for any other deadline to pass.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use phx_proto::Frame;
use phx_proto::config::{Backoff, Secret};
use phx_proto::event::{Refusal, Stats};
use phx_proto::socket::TimerKind;
use phx_proto::wire::V1;
use phx_proto::{
    Action, Cause, ChannelStatus, Config, ConnectionId, Ended, Opened, Payload, PushId,
    PushOptions, Socket, Status, Time,
};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::conversation::{Conversation, Vsn, percent_decode};
use crate::output::Output;
use crate::prediction::{Prediction, Pushes, REJOIN_NEVER};
use crate::reading::{Data, Reading, read};
use crate::recording::{Dir, Event, What};

/// A delay that is longer than any recording, including the jumps for heartbeats.
const NEVER: Duration = Duration::from_secs(3600);

/// The result of a conversation.
#[derive(Debug)]
pub struct Run {
    /// The outputs of the client, in order.
    pub outputs: Vec<Output>,
    /// The number of frames that the client sent, each equal to the recorded one.
    pub sent: u64,
    /// The number of frames that the client received.
    pub received: u64,
    /// The counters of the client at the end.
    pub stats: Stats,
}

/// Drives a client through a conversation.
///
/// # Errors
///
/// The first difference between a frame that the client sends and the recorded one.
pub fn run(
    conversation: &Conversation,
    pushes: Pushes,
    prediction: &Prediction,
) -> Result<Run, String> {
    let mut client = Client::new(conversation, pushes, prediction)?;
    client.open(conversation)?;
    for event in &conversation.events {
        client.event(event).map_err(|problem| format!("at {} ms: {problem}", event.ms))?;
    }
    client.finish();
    client.no_extra_frame()?;
    let Client { outputs, sent, received, socket, .. } = client;
    Ok(Run { outputs, sent, received, stats: socket.stats() })
}

struct Client {
    vsn: Vsn,
    pushes: Pushes,
    socket: Socket,
    now: Time,
    /// How far the clock is ahead of the recording.
    ahead: Duration,
    id: Option<ConnectionId>,
    refs: Refs,
    ids: Vec<PushId>,
    outputs: Vec<Output>,
    frames: Vec<Frame>,
    sent: u64,
    received: u64,
}

impl Client {
    fn new(
        conversation: &Conversation,
        pushes: Pushes,
        prediction: &Prediction,
    ) -> Result<Self, String> {
        let config = config(conversation, prediction)?;
        let now = Time::from_millis(conversation.opening.ms);
        Ok(Self {
            vsn: conversation.vsn()?,
            pushes,
            socket: Socket::new(config, 11, now),
            now,
            ahead: Duration::ZERO,
            id: None,
            refs: Refs::default(),
            ids: Vec::new(),
            outputs: Vec::new(),
            frames: Vec::new(),
            sent: 0,
            received: 0,
        })
    }

    fn open(&mut self, conversation: &Conversation) -> Result<(), String> {
        self.socket.connect(self.now);
        self.drain();
        check_request(conversation, &self.socket)?;
        let id = self.id.ok_or("no dial")?;
        match &conversation.opening.answer {
            None => self.socket.handle_opened(self.now, id, Opened::default()),
            Some(answer) if answer.status == 101 => {
                let mut headers = answer.headers.iter();
                let protocol = headers.find(|(name, _)| name == "sec-websocket-protocol");
                let protocol = protocol.map(|(_, value)| value.clone());
                self.socket.handle_opened(self.now, id, Opened { protocol });
            }
            Some(answer) => {
                let (headers, body) = (answer.headers.clone(), answer.body.clone());
                let refusal = Refusal::new(answer.status, headers, body);
                self.socket.handle_failed(self.now, id, Cause::Refused(refusal));
            }
        }
        self.drain();
        Ok(())
    }

    fn event(&mut self, event: &Event) -> Result<(), String> {
        self.no_extra_frame()?;
        self.pass_time(Time::from_millis(event.ms) + self.ahead);
        self.no_extra_frame()?;
        let id = self.id.ok_or("no connection")?;
        match (event.dir, &event.what) {
            (Dir::ClientToServer, What::Frame { frame, .. }) => self.send(frame)?,
            (Dir::ServerToClient, What::Frame { frame, .. }) => {
                let frame = self.rename(frame)?;
                self.received += 1;
                self.socket.handle_frame(self.now, id, frame);
            }
            (Dir::ClientToServer, What::Close { .. }) => self.socket.disconnect(self.now),
            (Dir::ServerToClient, What::Close { code, reason }) => {
                let ended = Ended::CloseFrame { code: *code, reason: reason.clone() };
                self.socket.handle_closed(self.now, id, ended);
            }
            (_, What::Eof) => {
                let ended = Ended::Lost { message: "end of stream".to_owned() };
                self.socket.handle_closed(self.now, id, ended);
            }
            (_, other) => return Err(format!("a client does not do {other:?}")),
        }
        self.drain();
        Ok(())
    }

    /// The application disconnects, unless it has already done so.
    fn finish(&mut self) {
        if self.socket.status() == Status::Closed {
            return;
        }
        self.socket.disconnect(self.now);
        self.drain();
        if let (Some(id), Status::Closing) = (self.id, self.socket.status()) {
            let ended = Ended::CloseFrame { code: Some(1000), reason: String::new() };
            self.socket.handle_closed(self.now, id, ended);
            self.drain();
        }
    }

    /// Issues the command that makes a client send this frame, and compares the sent frame with the
    /// recorded one.
    fn send(&mut self, recorded: &Frame) -> Result<(), String> {
        let reading = read(self.vsn, Dir::ClientToServer, recorded)?;
        let topic = &*reading.topic;
        if topic == "phoenix" {
            self.jump(TimerKind::HeartbeatDue)?;
        } else {
            let payload = match &reading.payload {
                Data::Json(text) => {
                    let raw: &RawValue = serde_json::from_str(text).map_err(|e| e.to_string())?;
                    Payload::json(raw).map_err(|error| error.to_string())?
                }
                Data::Bytes(bytes) => Payload::binary(bytes.clone()),
            };
            match reading.event.as_str() {
                "phx_join" => self.join(topic, payload)?,
                "phx_leave" => {
                    self.socket.leave(self.now, topic).map_err(|error| error.to_string())?;
                }
                event => {
                    let options = match self.pushes {
                        Pushes::Calls => PushOptions::call(),
                        Pushes::Casts => PushOptions::cast(),
                    };
                    let options = options.fail_fast();
                    let id = self.socket.push(self.now, topic, event, payload, options);
                    self.ids.push(id.map_err(|error| error.to_string())?);
                }
            }
        }
        self.drain();
        let frames = std::mem::take(&mut self.frames);
        let [ours] = &frames[..] else {
            return Err(format!("{} frames for {recorded:?}, {reading:?}", frames.len()));
        };
        self.sent += 1;
        self.compare(&reading, ours)
    }

    fn join(&mut self, topic: &str, payload: Payload) -> Result<(), String> {
        if self.socket.channel_status(topic) == ChannelStatus::Joined {
            // A second join of a joined topic is a rejoin with the new join parameters.
            let set = self.socket.set_join_params(self.now, topic, payload);
            set.map_err(|error| error.to_string())?;
            self.socket.rejoin(self.now, topic).map_err(|error| error.to_string())?;
            self.drain();
            return self.jump(TimerKind::Rejoin);
        }
        let leaving = self.socket.channel_status(topic) == ChannelStatus::Leaving;
        self.socket.join(self.now, topic, payload).map_err(|error| error.to_string())?;
        self.drain();
        if leaving {
            // The join waits for the end of the leave, which the recorder did not wait for.
            self.no_extra_frame()?;
            self.jump(TimerKind::Leave)?;
        }
        Ok(())
    }

    fn compare(&mut self, recorded: &Reading, ours: &Frame) -> Result<(), String> {
        let read_back = read(self.vsn, Dir::ClientToServer, ours)?;
        let mut renamed = recorded.clone();
        renamed.msg_ref = self.refs.pair(&recorded.msg_ref, &read_back.msg_ref)?;
        renamed.join_ref = self.refs.pair(&recorded.join_ref, &read_back.join_ref)?;
        if renamed != read_back {
            return Err(format!("we send {read_back:?}\n  recorded {recorded:?}"));
        }
        if recorded.is_binary() && renamed.write(self.vsn, Dir::ClientToServer) != *ours {
            return Err(format!("other bytes: {:?}", ours.as_bytes()));
        }
        Ok(())
    }

    /// The server's frame with the refs of the client instead of the recorded ones. If the refs are
    /// the same, every byte is unchanged.
    fn rename(&self, frame: &Frame) -> Result<Frame, String> {
        let recorded = read(self.vsn, Dir::ServerToClient, frame)?;
        let mut renamed = recorded.clone();
        renamed.join_ref = self.refs.ours(&recorded.join_ref)?;
        renamed.msg_ref = self.refs.ours(&recorded.msg_ref)?;
        if renamed == recorded {
            return Ok(frame.clone());
        }
        Ok(renamed.write(self.vsn, Dir::ServerToClient))
    }

    fn drain(&mut self) {
        for _ in 0..10_000 {
            match self.socket.poll_action(self.now) {
                None => return,
                Some(Action::Send { frame, .. } | Action::Join { frame, .. }) => {
                    self.frames.push(frame);
                }
                Some(action) => {
                    if let Action::Connect { id, .. } = &action {
                        self.id = Some(*id);
                    }
                    self.outputs.push(Output::of_action(&action, &self.ids));
                }
            }
        }
        panic!("the client never stops emitting actions");
    }

    /// Expires the deadlines before `until`. A deadline at `until` expires after the event.
    fn pass_time(&mut self, until: Time) {
        for _ in 0..1_000 {
            match self.socket.poll_timeout().filter(|timeout| timeout.at < until) {
                None => {
                    self.now = self.now.max(until);
                    return;
                }
                Some(timeout) => self.fire(timeout.at),
            }
        }
        panic!("time does not pass");
    }

    /// Advances to the next deadline, which must be of this kind.
    fn jump(&mut self, kind: TimerKind) -> Result<(), String> {
        let timeout = self.socket.poll_timeout().ok_or("no deadline")?;
        if timeout.kind != kind {
            return Err(format!("the next deadline is {timeout:?}, not {kind:?}"));
        }
        self.ahead += timeout.at.since(self.now);
        self.fire(timeout.at);
        Ok(())
    }

    fn fire(&mut self, at: Time) {
        self.now = self.now.max(at);
        self.socket.handle_timeout(self.now);
        self.drain();
    }

    fn no_extra_frame(&self) -> Result<(), String> {
        match self.frames.first() {
            None => Ok(()),
            Some(frame) => {
                let frame = String::from_utf8_lossy(frame.as_bytes()).into_owned();
                Err(format!("the client sends a frame that is not recorded: {frame:.300}"))
            }
        }
    }
}

/// The configuration with which a client behaves as the recorder did.
fn config(conversation: &Conversation, prediction: &Prediction) -> Result<Config, String> {
    let refused = |error: phx_proto::ConfigError| error.to_string();
    let path = conversation.opening.path.split('?').next().unwrap_or_default();
    let mut config = Config::new(&format!("ws://127.0.0.1:4000{path}"))
        .map_err(refused)?
        .push_timeout(NEVER)
        .join_timeout(NEVER)
        .join_block_max(NEVER)
        .leave_timeout(prediction.leave_timeout.unwrap_or(NEVER));
    if !prediction.rejoins {
        config = config.rejoin_after(Backoff::steps([REJOIN_NEVER]).map_err(refused)?);
    }
    for (name, value) in conversation.query().filter(|(name, _)| *name != "vsn") {
        config = config.param(percent_decode(name), percent_decode(value));
    }
    // The recorder was a bare WebSocket client, which sends no user-agent.
    if !conversation.opening.headers.iter().any(|(name, _)| name == "user-agent") {
        config = config.header("user-agent", "").map_err(refused)?;
    }
    for (name, value) in &conversation.opening.headers {
        let owned = ["connection", "upgrade"].contains(&name.as_str());
        if !owned && !name.starts_with("sec-websocket-") {
            config = config.header(name, value.as_str()).map_err(refused)?;
        }
    }
    if let Some(token) = conversation.auth_token() {
        config = config.auth_token(token);
    }
    Ok(match conversation.vsn()? {
        Vsn::V1 => config.codec(Arc::new(V1)).expect("no vsn in the address"),
        Vsn::V2 => config,
    })
}

/// Compares the client's upgrade request with the recorded one: path, query (in any order), headers
/// of the application and subprotocols.
fn check_request(conversation: &Conversation, socket: &Socket) -> Result<(), String> {
    let request = socket.connect_request().expect("an address that may be dialled");
    let target = request.uri.target();
    let sorted = |target: &str| {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut pairs: Vec<String> = query.split('&').map(str::to_owned).collect();
        pairs.sort();
        (path.to_owned(), pairs)
    };
    if sorted(&target) != sorted(&conversation.opening.path) {
        return Err(format!("we ask for {target}, recorded {}", conversation.opening.path));
    }
    let mut headers: BTreeMap<String, String> = request
        .headers
        .iter()
        .map(|(name, value)| (name.to_lowercase(), value.expose().to_owned()))
        .collect();
    if !request.subprotocols.is_empty() {
        let offered: Vec<&str> = request.subprotocols.iter().map(Secret::expose).collect();
        headers.insert("sec-websocket-protocol".to_owned(), offered.join(", "));
    }
    if conversation.opening.headers.is_empty() {
        // The request was not recorded.
        return Ok(());
    }
    let upgrade =
        [("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "13")];
    let upgrade = upgrade.map(|(name, value)| (name.to_owned(), value.to_owned()));
    headers.extend(upgrade);
    let recorded: BTreeMap<String, String> = conversation.opening.headers.iter().cloned().collect();
    if headers != recorded {
        return Err(format!("we send the headers {headers:?}, recorded {recorded:?}"));
    }
    Ok(())
}

/// A mapping between recorded refs and refs of the client, in the order of their first use.
#[derive(Default)]
struct Refs {
    to_ours: BTreeMap<String, String>,
    to_recorded: BTreeMap<String, String>,
}

impl Refs {
    /// Maps a recorded ref to the ref of the client, and returns the latter; null is mapped to
    /// null. It is an error if one of them was already mapped to another ref.
    fn pair(&mut self, recorded: &Value, ours: &Value) -> Result<Value, String> {
        match (recorded, ours) {
            (Value::Null, Value::Null) => Ok(Value::Null),
            (Value::String(recorded), Value::String(own)) => {
                let forth = self.to_ours.entry(recorded.clone()).or_insert_with(|| own.clone());
                let back = self.to_recorded.entry(own.clone()).or_insert_with(|| recorded.clone());
                if forth == own && back == recorded {
                    Ok(ours.clone())
                } else {
                    Err(format!("ref {own} where {forth} stands for the recorded {recorded}"))
                }
            }
            _ => Err(format!("ref {ours} where {recorded} is recorded")),
        }
    }

    fn ours(&self, recorded: &Value) -> Result<Value, String> {
        match recorded {
            Value::Null => Ok(Value::Null),
            Value::String(recorded) => {
                let ours = self.to_ours.get(recorded);
                ours.map(|ours| Value::from(&**ours))
                    .ok_or(format!("the client never sent ref {recorded}"))
            }
            other => Err(format!("a ref that is {other}")),
        }
    }
}
