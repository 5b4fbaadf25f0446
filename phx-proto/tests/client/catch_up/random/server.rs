//! The server of the random worlds, and the link to it.
//!
//! The test server numbers its messages from one. The link shifts these positions, so that a server that
//! starts again can continue the numbers of the one before it, or start over with smaller ones.

use std::collections::VecDeque;

use phx_proto::Frame;
use phx_proto::Time;
use phx_proto::testing::{HttpRequest, Output, PeerId, Server, ServerConfig};
use serde_json::{Value, json};

use super::oracle::{History, Replay};

pub(super) const TOPIC: &str = "ring:orders";

/// The position at which the first server begins, and the distance to that of a server that starts over.
pub(super) const START: u64 = 8_000_000;
const DISTANCE: u64 = 10_000;

#[derive(Clone, Copy, Debug)]
pub(super) struct Habits {
    pub(super) in_events: bool,
    /// The number of messages that the server keeps.
    pub(super) ring: usize,
    pub(super) channel_delay: u64,
    /// Otherwise positions of other topics make holes in those of this topic.
    pub(super) contiguous: bool,
    pub(super) names_oldest: bool,
    pub(super) names_newest: bool,
    /// Whether a join without a position is answered with every message. Otherwise it is with none.
    pub(super) replays_all: bool,
}

/// What a frame from the server means for the oracle.
#[derive(Debug)]
pub(super) enum Arrival {
    /// The channel is joined. The response may have the replay.
    Joined(Option<Replay>),
    Part(Replay),
    End(Replay),
    /// A message with a position.
    Numbered(usize),
    /// A message without a position.
    Unnumbered,
    /// The channel crashed or was closed.
    Ended,
    Other,
}

pub(super) struct Link {
    habits: Habits,
    config: ServerConfig,
    server: Server,
    peer: Option<PeerId>,
    /// What was sent to the client and has not arrived.
    down: VecDeque<Value>,
    /// The difference between the positions of the link and those of the server.
    shift: u64,
    /// The server's newest position in the topic.
    newest: u64,
    /// The join_ref of the last join that the client sent.
    join_ref: Value,
    pub(super) history: History,
}

impl Link {
    pub(super) fn new(habits: Habits) -> Self {
        let config = ServerConfig::default()
            .ring_size(habits.ring)
            .channel_delay(core::time::Duration::from_millis(habits.channel_delay))
            .idle_timeout(core::time::Duration::from_secs(1_000_000));
        Self {
            habits,
            server: Server::new(config.clone()),
            config,
            peer: None,
            down: VecDeque::new(),
            shift: START,
            newest: 0,
            join_ref: Value::Null,
            history: History::new(START, habits.names_oldest || habits.contiguous),
        }
    }

    /// The client has a new connection.
    pub(super) fn connect(&mut self, now: Time) {
        self.down.clear();
        if let Some(peer) = self.peer.take() {
            self.server.handle_eof(now, peer);
        }
        let path = "/socket/websocket?vsn=2.0.0".to_owned();
        let request = HttpRequest { path, ..HttpRequest::default() };
        self.peer = Some(self.server.connect(now, &request).expect("accepted").peer);
    }

    /// The connection is lost, with everything that has not arrived.
    pub(super) fn cut(&mut self) {
        self.down.clear();
        if let Some(peer) = self.peer.take() {
            self.server.kill(peer);
        }
    }

    /// The server is killed, and starts with no messages. Its numbers start over, or continue after a hole.
    pub(super) fn restart(&mut self, hole: Option<u64>) {
        self.cut();
        self.server = Server::new(self.config.clone());
        let last = self.shift + std::mem::take(&mut self.newest);
        self.shift = match hole {
            Some(hole) => last + hole,
            None => self.shift - DISTANCE,
        };
        self.history.restarted(self.shift, hole.is_none());
    }

    /// Returns the position in the parameters if the frame is a join.
    pub(super) fn send(&mut self, now: Time, mut frame: Value) -> Option<Option<u64>> {
        let is_join = frame[3] == "phx_join";
        let since = frame[4]["since"].as_u64();
        if is_join {
            self.join_ref = frame[0].clone();
            let shifted = since.map(|since| since.saturating_sub(self.shift));
            if let Some(since) = shifted.or(self.habits.replays_all.then_some(0)) {
                frame[4]["since"] = since.into();
            }
        }
        if let Some(peer) = self.peer {
            self.server.handle_frame(now, peer, &Frame::Text(frame.to_string().into()));
        }
        is_join.then_some(since)
    }

    /// Receives what the server sends.
    pub(super) fn receive(&mut self, now: Time) {
        self.server.handle_timeout(now);
        while let Some(output) = self.server.poll_output() {
            match output {
                Output::Send { peer, frame: Frame::Text(text) } if Some(peer) == self.peer => {
                    let frame = serde_json::from_slice(&text).expect("the server sends JSON");
                    self.down.push_back(self.shifted(frame));
                }
                _ => {}
            }
        }
    }

    /// Shifts the positions of a frame, and removes what this server does not name.
    fn shifted(&self, mut frame: Value) -> Value {
        let shift = |position: &mut Value| {
            if let Some(of_server) = position.as_u64() {
                *position = (of_server + self.shift).into();
            }
        };
        let is_reply = frame[3] == "phx_reply";
        let payload = if is_reply { &mut frame[4]["response"] } else { &mut frame[4] };
        let Some(payload) = payload.as_object_mut() else { return frame };
        for (name, is_named) in
            [("oldest", self.habits.names_oldest), ("newest", self.habits.names_newest)]
        {
            if !is_named {
                payload.remove(name);
            }
            payload.get_mut(name).map(shift);
        }
        payload.get_mut("pos").map(shift);
        let messages = payload.get_mut("messages").and_then(Value::as_array_mut);
        for message in messages.into_iter().flatten() {
            shift(&mut message["payload"]["pos"]);
        }
        frame
    }

    pub(super) fn waiting(&self) -> usize {
        self.down.len()
    }

    /// The next frame that arrives, and what it means.
    pub(super) fn arrive(&mut self) -> Option<(Value, Arrival)> {
        let frame = self.down.pop_front()?;
        let arrival = self.meaning(&frame);
        Some((frame, arrival))
    }

    fn meaning(&self, frame: &Value) -> Arrival {
        let (join_ref, payload) = (&frame[0], &frame[4]);
        if frame[2] != TOPIC || (!join_ref.is_null() && *join_ref != self.join_ref) {
            return Arrival::Other;
        }
        let replay = |payload: &Value| Replay {
            first: payload["messages"][0]["payload"]["number"].as_u64().map(to_usize),
            newest: payload["newest"].as_u64(),
        };
        match frame[3].as_str().unwrap_or_default() {
            "phx_reply" if frame[1] == self.join_ref && payload["status"] == "ok" => {
                let in_response = !self.habits.in_events;
                Arrival::Joined(in_response.then(|| replay(&payload["response"])))
            }
            "phx_error" | "phx_close" => Arrival::Ended,
            "missed" => Arrival::Part(replay(payload)),
            "caught_up" => Arrival::End(replay(payload)),
            "entry" => Arrival::Numbered(number_of(payload)),
            "typing" => Arrival::Unnumbered,
            _ => Arrival::Other,
        }
    }

    pub(super) fn append(&mut self, now: Time) {
        if !self.habits.contiguous {
            self.server.append(now, "ring:other", json!({}));
        }
        let payload = json!({"number": self.history.count()});
        self.newest = self.server.append(now, TOPIC, payload);
        self.history.sent(self.shift + self.newest);
        self.history.keeps(self.habits.ring);
    }

    pub(super) fn broadcast(&mut self, now: Time, nth: u64) {
        self.server.broadcast(now, TOPIC, "typing", json!({ "nth": nth }));
    }

    pub(super) fn crash(&mut self, now: Time) {
        self.server.crash_channel(now, TOPIC);
    }

    pub(super) fn close(&mut self, now: Time) {
        self.server.close_channel(now, TOPIC);
    }

    pub(super) fn forget(&mut self, newest: usize) {
        self.server.forget_all_but(TOPIC, newest);
        self.history.keeps(newest);
    }
}

/// The number of a message in the history.
pub(super) fn number_of(payload: &Value) -> usize {
    to_usize(payload["number"].as_u64().expect("every message has a number"))
}

fn to_usize(number: u64) -> usize {
    usize::try_from(number).expect("a small number")
}
