//! The simulated process of one connection: it reads frames, runs joins, and passes other messages
//! to channels.
//!
//! ```text
//!            frame
//!   awake ─────────► handle ──► awake
//!     │ slow join                  ▲
//!     ▼                            │ time is up: finish the join,
//!   busy ── mailbox collects ──────┘ then drain the mailbox
//! ```
//!
//! A busy socket handles nothing, heartbeats included (`wire/join_slow_blocks_socket`). Messages of
//! its channels, and broadcasts to them, wait in the same mailbox as the frames of the client. Only
//! answers that the socket itself gives are sent at once: to heartbeats, to joins, and to frames for
//! which there is no channel.

use std::collections::{BTreeMap, VecDeque};

use serde_json::{Value, json};

use super::channels::{self, Effect, JoinVerdict, Kind};
use super::codec::{self, Inbound, Payload};
use super::config::Version;
use super::handshake::Admission;
use super::observer::Observation;
use super::server::{HeldReply, PeerId, Server, Timer};
use crate::time::Time;
use crate::wire::Frame;

/// One connection.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) admission: Admission,
    pub(super) channels: BTreeMap<String, Channel>,
    /// The time of the client's last activity.
    pub(super) last_activity: Time,
    /// Whether the socket sleeps in a join or a connect.
    pub(super) busy: bool,
    /// Whether the client's stream has ended. A sleeping socket handles that only when it wakes up.
    pub(super) is_cut_off: bool,
    pub(super) mailbox: VecDeque<Mail>,
    joining: Option<Joining>,
}

/// One joined topic.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) instance: u64,
    pub(super) kind: Kind,
    /// The join_ref of the join, as the client sent it.
    pub(super) join_ref: Value,
    /// The join_ref in replies and pushes: that of the join, or the join's ref if it had none
    /// (`wire/join_null_join_ref`).
    pub(super) shown_ref: Value,
    /// The key under which a presence channel tracks itself.
    pub(super) own_key: String,
    /// Whether the channel sleeps in a `block`; then messages are queued in the mailbox.
    pub(super) blocked: bool,
    pub(super) mailbox: VecDeque<Inbound>,
}

/// A queued event of a socket.
#[derive(Debug)]
pub(super) enum Mail {
    Frame(Frame),
    Send(Frame),
    Close(u16),
    Eof,
}

/// The way in which a channel ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// `phx_close`.
    Close,
    /// `phx_error`.
    Error,
}

/// An accepted join whose reply is not sent yet.
#[derive(Debug)]
struct Joining {
    topic: String,
    message: Inbound,
    kind: Kind,
    response: Value,
    after: Vec<Effect>,
    /// The join_ref of the channel that the new one replaces.
    replaced: Option<Value>,
}

impl Socket {
    pub(super) fn new(admission: Admission, now: Time) -> Self {
        Self {
            admission,
            channels: BTreeMap::new(),
            last_activity: now,
            busy: false,
            is_cut_off: false,
            mailbox: VecDeque::new(),
            joining: None,
        }
    }

    /// Whether a further event waits in the mailbox instead of being handled at once.
    pub(super) fn has_mail(&self) -> bool {
        self.busy || !self.mailbox.is_empty()
    }

    /// Whether the next event in the mailbox is a join of this topic.
    fn next_is_join_of(&self, topic: &Value) -> bool {
        let Some(Mail::Frame(frame)) = self.mailbox.front() else { return false };
        codec::decode(self.admission.vsn, frame)
            .is_ok_and(|next| next.event == "phx_join" && next.topic == *topic)
    }
}

impl Server {
    /// Handles the mailbox of a socket until it is empty or the socket sleeps.
    pub(super) fn drain(&mut self, now: Time, peer: PeerId) {
        while let Some(socket) = self.sockets.get_mut(&peer) {
            if socket.busy {
                return;
            }
            match socket.mailbox.pop_front() {
                Some(Mail::Frame(frame)) => self.read(now, peer, &frame),
                Some(Mail::Send(frame)) => self.send_own(peer, frame),
                Some(Mail::Close(code)) => self.close(peer, code),
                Some(Mail::Eof) => self.remove(peer),
                None => return,
            }
        }
    }

    /// Ends the sleep of a socket.
    pub(super) fn wake_socket(&mut self, now: Time, peer: PeerId) {
        self.wake_up(now, peer);
        let Some(socket) = self.sockets.get_mut(&peer) else { return };
        if let Some(joining) = socket.joining.take() {
            self.finish_join(now, peer, joining);
        }
        self.drain(now, peer);
    }

    fn read(&mut self, now: Time, peer: PeerId, frame: &Frame) {
        let Some(socket) = self.sockets.get(&peer) else { return };
        match codec::decode(socket.admission.vsn, frame) {
            Ok(message) => self.dispatch(now, peer, message),
            Err(fault) => self.close(peer, fault.close_code()),
        }
    }

    fn dispatch(&mut self, now: Time, peer: PeerId, message: Inbound) {
        let Some(socket) = self.sockets.get_mut(&peer) else { return };
        let event = message.event.as_str().unwrap_or("");
        let topic = message.topic.as_str();
        if topic == Some("phoenix") && event == "heartbeat" {
            let (vsn, ok) = (socket.admission.vsn, Payload::Json(json!({})));
            let frame =
                codec::encode_reply(vsn, &Value::Null, &message.msg_ref, &message.topic, "ok", &ok);
            if let Ok(frame) = frame {
                self.send_own(peer, frame);
            }
            return;
        }
        if event == "phx_join" {
            self.join(now, peer, message);
            return;
        }
        let leave = event == "phx_leave";
        // The socket reads all frames that were queued in its mailbox before a channel runs, so the
        // join kills the old channel before that channel handles the leave
        // (wire/join_timeout_leave_rejoin).
        if leave && socket.next_is_join_of(&message.topic) {
            return;
        }
        match topic.and_then(|topic| Some((topic, socket.channels.get_mut(topic)?))) {
            Some((_, channel)) if channel.blocked => channel.mailbox.push_back(message),
            Some((topic, _)) => {
                let topic = topic.to_owned();
                if self.delay_channel(now, peer, &topic, Vec::new()).is_err() {
                    self.deliver(now, peer, message);
                    return;
                }
                let socket = self.sockets.get_mut(&peer);
                if let Some(channel) = socket.and_then(|s| s.channels.get_mut(&topic)) {
                    channel.mailbox.push_back(message);
                }
            }
            // wire/leave_never_joined
            None if leave => {
                let join_ref = message.join_ref.clone();
                self.answer(peer, &join_ref, &message, "ok", json!({}));
            }
            None => self.unmatched(peer, &message),
        }
    }

    fn join(&mut self, now: Time, peer: PeerId, message: Inbound) {
        let topic_of = |message: &Inbound| message.topic.as_str().unwrap_or("").to_owned();
        let topic = topic_of(&message);
        let verdict = channels::join(&topic, &message.payload);
        let Some(socket) = self.sockets.get(&peer) else { return };
        let rejoin = socket.channels.contains_key(&topic);
        let full = socket.channels.len() >= self.config.max_channels;
        let join_ref = message.join_ref.clone();
        let refuse = |server: &mut Self, reason: &str| {
            server
                .observer
                .observe(|| Observation::JoinRefused { peer, topic: topic_of(&message) });
            server.answer(peer, &join_ref, &message, "error", json!({ "reason": reason }));
        };
        match verdict {
            JoinVerdict::Unmatched => {
                self.observer.observe(|| Observation::JoinRefused { peer, topic });
                self.unmatched(peer, &message);
            }
            // A rejoin does not count as one more channel: wire/join_too_many_channels.
            _ if full && !rejoin => refuse(self, "too many channels joined"),
            JoinVerdict::Refused(reason) => {
                let replaced = self.replace_channel(peer, &topic);
                refuse(self, reason);
                self.notify_replaced(peer, &topic, replaced);
            }
            JoinVerdict::Accepted { kind, response, sleep, after } => {
                let replaced = self.replace_channel(peer, &topic);
                let joining = Joining { topic, message, kind, response, after, replaced };
                if sleep.is_zero() {
                    self.finish_join(now, peer, joining);
                } else if let Some(socket) = self.sockets.get_mut(&peer) {
                    socket.joining = Some(joining);
                    self.fall_asleep(peer);
                    self.arm(now + sleep, Timer::SocketWakes { peer });
                }
            }
        }
    }

    /// Sends in the order of `wire/presence_double_join`: the reply, the close of the replaced
    /// channel, and then the messages of the new one.
    fn finish_join(&mut self, now: Time, peer: PeerId, joining: Joining) {
        let Joining { topic, message, kind, mut response, after, replaced } = joining;
        if kind == Kind::Ring && after.is_empty() {
            response = self.rings.replay(&topic, channels::since(&message.payload));
        }
        let Some(socket) = self.sockets.get_mut(&peer) else { return };
        self.instances += 1;
        let instance = self.instances;
        let join_ref = message.join_ref.clone();
        let shown_ref = if join_ref.is_null() { message.msg_ref.clone() } else { join_ref.clone() };
        let channel = Channel {
            instance,
            kind,
            join_ref: join_ref.clone(),
            shown_ref,
            own_key: channels::own_key(&message.payload),
            blocked: false,
            mailbox: VecDeque::new(),
        };
        socket.channels.insert(topic.clone(), channel);
        self.observer.observe(|| Observation::Joined { peer, topic: topic.clone() });
        self.answer(peer, &join_ref, &message, "ok", response);
        self.notify_replaced(peer, &topic, replaced);
        if let Err(after) = self.delay_channel(now, peer, &topic, after) {
            self.run(now, peer, &topic, instance, &Value::Null, after);
        }
    }

    /// Kills the channel that a join replaces, before the join runs.
    fn replace_channel(&mut self, peer: PeerId, topic: &str) -> Option<Value> {
        let channel = self.sockets.get_mut(&peer)?.channels.remove(topic)?;
        self.forget_channel(topic, channel.instance);
        Some(channel.join_ref)
    }

    fn notify_replaced(&mut self, peer: PeerId, topic: &str, replaced: Option<Value>) {
        if let (Some(join_ref), Some(socket)) = (replaced, self.sockets.get(&peer)) {
            let frame = self.end_frame(socket.admission.vsn, &join_ref, topic, End::Close);
            self.send(peer, frame);
        }
    }

    /// Passes a message to its channel; silently drops it if the join_ref does not match.
    pub(super) fn deliver(&mut self, now: Time, peer: PeerId, message: Inbound) {
        let Some(topic) = message.topic.as_str() else { return };
        let Some(socket) = self.sockets.get(&peer) else { return };
        let Some(channel) = socket.channels.get(topic) else { return };
        let leave = message.event == "phx_leave";
        if !accepts(self.config.version, leave, &channel.join_ref, &message.join_ref) {
            return;
        }
        if leave {
            let (shown_ref, vsn) = (channel.shown_ref.clone(), socket.admission.vsn);
            let (msg_ref, name, ok) = (&message.msg_ref, &message.topic, Payload::Json(json!({})));
            if let Ok(frame) = codec::encode_reply(vsn, &shown_ref, msg_ref, name, "ok", &ok) {
                self.send_reply(peer, None, frame);
            }
            self.end_channel(peer, topic, End::Close);
            return;
        }
        let event = message.event.as_str().unwrap_or("");
        let (kind, instance) = (channel.kind, channel.instance);
        let effects = channels::handle_in(kind, event, &message.payload, &socket.admission);
        self.run(now, peer, topic, instance, &message.msg_ref, effects);
    }

    fn unmatched(&mut self, peer: PeerId, message: &Inbound) {
        // The join_ref is null even if the request had one: wire/push_unjoined_topic.
        let response = json!({ "reason": "unmatched topic" });
        self.answer(peer, &Value::Null, message, "error", response);
    }

    /// Sends a reply of the socket itself, which does not depend on whether a channel is alive.
    fn answer(
        &mut self,
        peer: PeerId,
        join_ref: &Value,
        message: &Inbound,
        status: &str,
        response: Value,
    ) {
        let Some(socket) = self.sockets.get(&peer) else { return };
        let (vsn, response) = (socket.admission.vsn, Payload::Json(response));
        let (msg_ref, topic) = (&message.msg_ref, &message.topic);
        if let Ok(frame) = codec::encode_reply(vsn, join_ref, msg_ref, topic, status, &response) {
            match &mut self.held {
                Some(held) => held.push(HeldReply { peer, instance: None, frame }),
                None => self.send_own(peer, frame),
            }
        }
    }

    /// Sends a reply of a channel. `instance` is the channel whose end drops the reply while it is
    /// held.
    pub(super) fn send_reply(&mut self, peer: PeerId, instance: Option<u64>, frame: Frame) {
        match &mut self.held {
            Some(held) => held.push(HeldReply { peer, instance, frame }),
            None => self.send(peer, frame),
        }
    }
}

/// Whether a push or leave with this join_ref is for this channel; depends on the version.
fn accepts(version: Version, leave: bool, channel: &Value, message: &Value) -> bool {
    let same = channel == message;
    match version {
        // wire/push_stale_join_ref__1.7.24, wire/leave_wrong_join_ref__1.7.24
        Version::V1_7_24 => same || !leave,
        // wire/join_null_join_ref__1.8.9, wire/leave_null_join_ref__1.8.9
        Version::V1_8_9 => same || (!leave && channel.is_null()),
        // wire/push_null_join_ref, wire/join_null_join_ref
        Version::V1_8_12 => same || message.is_null(),
    }
}
