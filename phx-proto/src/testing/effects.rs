//! Carries out the effects of channels: replies, pushes, broadcasts, presence, and their end.

use serde_json::{Value, json};

use super::channels::{ABSINTHE, Effect};
use super::codec::{self, EncodeFault, Payload};
use super::observer::Observation;
use super::ring;
use super::server::{PeerId, Server, Timer};
use super::socket::{Channel, End};
use crate::time::Time;

impl Server {
    /// Runs effects in order, and stops if the channel instance ends.
    pub(super) fn run(
        &mut self,
        now: Time,
        peer: PeerId,
        topic: &str,
        instance: u64,
        msg_ref: &Value,
        effects: Vec<Effect>,
    ) {
        for effect in effects {
            if self.channel(peer, topic, instance).is_none() {
                return;
            }
            self.apply(now, peer, topic, instance, msg_ref, effect);
        }
    }

    fn apply(
        &mut self,
        now: Time,
        peer: PeerId,
        topic: &str,
        instance: u64,
        msg_ref: &Value,
        effect: Effect,
    ) {
        match effect {
            Effect::Reply { status, response } => {
                self.reply_or_crash(peer, topic, instance, msg_ref, status, &response);
            }
            Effect::ReplyLater { after, response } => {
                let (topic, msg_ref) = (topic.to_owned(), msg_ref.clone());
                let timer = Timer::ReplyDue { peer, topic, instance, msg_ref, response };
                self.arm(now + after, timer);
            }
            Effect::Block { sleep, response } => {
                if let Some(channel) = self.channel_mut(peer, topic, instance) {
                    channel.blocked = true;
                }
                let (topic, msg_ref) = (topic.to_owned(), msg_ref.clone());
                let timer = Timer::ChannelWakes { peer, topic, instance, msg_ref, response };
                self.arm(now + sleep, timer);
            }
            Effect::Push { event, payload } => {
                self.push_or_crash(peer, topic, instance, &event, &payload);
            }
            Effect::Broadcast { event, payload, to_self } => {
                let except = (!to_self).then_some(instance);
                if self.broadcast_from(topic, event, &payload, except).is_err() {
                    self.end_channel(peer, topic, End::Error);
                }
            }
            Effect::Stop => self.end_channel(peer, topic, End::Close),
            Effect::Crash => self.end_channel(peer, topic, End::Error),
            Effect::KillTransport => self.kill(peer),
            Effect::Disconnect { id } => self.disconnect(&id),
            Effect::Track { key, meta } => {
                let diff = self.presence.track(topic, instance, &key, meta);
                self.send_diff(topic, diff);
            }
            Effect::UpdateOwn { meta } => {
                let key = self.own_key(peer, topic, instance);
                let diff = self.presence.update(topic, instance, &key, meta);
                self.send_diff(topic, diff);
            }
            Effect::UntrackOwn => {
                let key = self.own_key(peer, topic, instance);
                let diff = self.presence.untrack(topic, instance, Some(&key));
                self.send_diff(topic, diff);
            }
            Effect::PushState => {
                let state = Payload::Json(self.presence.state(topic));
                self.push_or_crash(peer, topic, instance, "presence_state", &state);
            }
            Effect::Subscribe => {
                self.subscribed += 1;
                let id = format!("__absinthe__:doc:{instance}:{}", self.subscribed);
                self.subscriptions.push((id.clone(), peer, instance));
                let response = Payload::Json(json!({ "subscriptionId": id }));
                self.reply_or_crash(peer, topic, instance, msg_ref, "ok", &response);
            }
            Effect::Unsubscribe { subscription } => {
                self.subscriptions.retain(|(id, ..)| *id != subscription);
                let response = Payload::Json(json!({ "subscriptionId": subscription }));
                self.reply_or_crash(peer, topic, instance, msg_ref, "ok", &response);
            }
            Effect::Append { payload } => {
                let payload = self.rings.append(topic, Value::Object(payload));
                let response = Payload::Json(json!({ "pos": payload["pos"] }));
                let entry = Payload::Json(payload);
                if self.broadcast_from(topic, ring::ENTRY, &entry, None).is_err() {
                    self.end_channel(peer, topic, End::Error);
                }
                self.reply_or_crash(peer, topic, instance, msg_ref, "ok", &response);
            }
            Effect::Replay { since } => {
                for part in self.rings.parts(topic, since) {
                    self.push_or_crash(peer, topic, instance, ring::MISSED, &Payload::Json(part));
                }
                let end = Payload::Json(self.rings.end(topic));
                self.push_or_crash(peer, topic, instance, ring::CAUGHT_UP, &end);
            }
            Effect::ReplyState => {
                let state = Payload::Json(self.presence.state(topic));
                self.reply_or_crash(peer, topic, instance, msg_ref, "ok", &state);
            }
        }
    }

    /// Wakes a channel: it answers the push and handles the messages that arrived during its sleep.
    pub(super) fn wake_channel(
        &mut self,
        now: Time,
        peer: PeerId,
        topic: &str,
        instance: u64,
        msg_ref: &Value,
        response: &Payload,
    ) {
        let Some(channel) = self.channel_mut(peer, topic, instance) else { return };
        channel.blocked = false;
        self.reply_or_crash(peer, topic, instance, msg_ref, "ok", response);
        self.work_off(now, peer, topic, instance);
    }

    /// Runs what a channel does after its join, and then handles its messages.
    pub(super) fn run_channel(
        &mut self,
        now: Time,
        peer: PeerId,
        topic: &str,
        instance: u64,
        after: Vec<Effect>,
    ) {
        let Some(channel) = self.channel_mut(peer, topic, instance) else { return };
        channel.blocked = false;
        self.run(now, peer, topic, instance, &Value::Null, after);
        self.work_off(now, peer, topic, instance);
    }

    /// Runs effects of a channel, and then handles its messages, after a delay.
    ///
    /// # Errors
    ///
    /// The effects, if the delay is zero: the caller must run them at once.
    pub(super) fn delay_channel(
        &mut self,
        now: Time,
        peer: PeerId,
        topic: &str,
        after: Vec<Effect>,
    ) -> Result<(), Vec<Effect>> {
        let delay = self.draw_channel_delay();
        let socket = self.sockets.get_mut(&peer).filter(|_| !delay.is_zero());
        let Some(channel) = socket.and_then(|socket| socket.channels.get_mut(topic)) else {
            return Err(after);
        };
        channel.blocked = true;
        let instance = channel.instance;
        let timer = Timer::ChannelRuns { peer, topic: topic.to_owned(), instance, after };
        self.arm(now + delay, timer);
        Ok(())
    }

    fn work_off(&mut self, now: Time, peer: PeerId, topic: &str, instance: u64) {
        while let Some(channel) = self.channel_mut(peer, topic, instance) {
            if channel.blocked {
                return;
            }
            let Some(message) = channel.mailbox.pop_front() else { return };
            self.deliver(now, peer, message);
        }
    }

    /// Answers a push; a reply that cannot be encoded crashes the channel.
    pub(super) fn reply_or_crash(
        &mut self,
        peer: PeerId,
        topic: &str,
        instance: u64,
        msg_ref: &Value,
        status: &str,
        response: &Payload,
    ) {
        let Some((vsn, channel)) = self.channel(peer, topic, instance) else { return };
        let (join_ref, name) = (&channel.shown_ref, Value::from(topic));
        match codec::encode_reply(vsn, join_ref, msg_ref, &name, status, response) {
            Ok(frame) => self.send_reply(peer, Some(instance), frame),
            Err(EncodeFault) => self.end_channel(peer, topic, End::Error),
        }
    }

    fn push_or_crash(
        &mut self,
        peer: PeerId,
        topic: &str,
        instance: u64,
        event: &str,
        payload: &Payload,
    ) {
        let Some((vsn, channel)) = self.channel(peer, topic, instance) else { return };
        match codec::encode_push(vsn, &channel.shown_ref, topic, event, payload) {
            Ok(frame) => self.send(peer, frame),
            Err(EncodeFault) => self.end_channel(peer, topic, End::Error),
        }
    }

    /// Sends to every channel on the topic, in the order in which they subscribed. The first socket
    /// that cannot encode the message crashes the sender; earlier sockets have already received it
    /// (`wire/v1_v2_mixed_broadcast`).
    pub(super) fn broadcast_from(
        &mut self,
        topic: &str,
        event: &str,
        payload: &Payload,
        except: Option<u64>,
    ) -> Result<(), EncodeFault> {
        let mut subscribers: Vec<_> = self
            .sockets
            .iter()
            .filter_map(|(peer, socket)| {
                let channel = socket.channels.get(topic)?;
                Some((channel.instance, *peer, socket.admission.vsn))
            })
            .filter(|(instance, ..)| Some(*instance) != except)
            .collect();
        subscribers.sort_unstable_by_key(|(instance, ..)| *instance);
        for (_, peer, vsn) in subscribers {
            let frame = codec::encode_broadcast(vsn, topic, event, payload)?;
            self.send(peer, frame);
        }
        Ok(())
    }

    /// Publishes the result of a GraphQL subscription as Absinthe does: the event `subscription:data`
    /// on a topic that is the id of the subscription and that no client joins. Does nothing for a
    /// subscription that has ended.
    ///
    /// ```
    /// use phx_proto::testing::{HttpRequest, Output, Server, ServerConfig};
    /// use phx_proto::{Frame, Time};
    /// use serde_json::json;
    ///
    /// let mut server = Server::new(ServerConfig::default());
    /// let request = HttpRequest { path: "/socket/websocket?vsn=2.0.0".into(), ..Default::default() };
    /// let peer = server.connect(Time::ZERO, &request).unwrap().peer;
    /// let control = "__absinthe__:control";
    /// for frame in [
    ///     json!(["1", "1", control, "phx_join", {}]),
    ///     json!(["1", "2", control, "doc", {"query": "subscription { postAdded { id } }"}]),
    /// ] {
    ///     server.handle_frame(Time::ZERO, peer, &Frame::from(frame.to_string()));
    /// }
    /// let subscription = server.subscriptions()[0].to_owned();
    /// server.publish(&subscription, json!({"data": {"postAdded": {"id": "7"}}}));
    /// let last = std::iter::from_fn(|| server.poll_output()).last();
    /// let Some(Output::Send { frame: Frame::Text(text), .. }) = last else { panic!("{last:?}") };
    /// assert!(std::str::from_utf8(&text).unwrap().contains("subscription:data"));
    /// ```
    pub fn publish(&mut self, subscription: &str, result: Value) {
        let found = self.subscriptions.iter().find(|(id, ..)| id == subscription);
        let Some((id, peer, instance)) = found.cloned() else { return };
        let Some((vsn, _)) = self.channel(peer, ABSINTHE, instance) else { return };
        let payload = Payload::Json(json!({ "result": result, "subscriptionId": id }));
        // Every serializer can encode JSON, so this does not fail.
        if let Ok(frame) = codec::encode_broadcast(vsn, &id, "subscription:data", &payload) {
            self.send(peer, frame);
        }
    }

    /// The ids of the GraphQL subscriptions of all clients, oldest first.
    #[must_use]
    pub fn subscriptions(&self) -> Vec<&str> {
        self.subscriptions.iter().map(|(id, ..)| id.as_str()).collect()
    }

    /// Ends a channel and notifies its client. Its outstanding replies are never sent
    /// (`wire/channel_crash`), and its presences leave.
    pub(super) fn end_channel(&mut self, peer: PeerId, topic: &str, end: End) {
        let Some(socket) = self.sockets.get_mut(&peer) else { return };
        let vsn = socket.admission.vsn;
        let Some(channel) = socket.channels.remove(topic) else { return };
        self.observer.observe(|| Observation::ChannelEnded { peer, topic: topic.to_owned() });
        let frame = self.end_frame(vsn, &channel.join_ref, topic, end);
        self.send(peer, frame);
        self.forget_channel(topic, channel.instance);
    }

    /// Drops the held replies and the GraphQL subscriptions of a channel instance that has ended, and
    /// removes its presences.
    pub(super) fn forget_channel(&mut self, topic: &str, instance: u64) {
        if let Some(held) = &mut self.held {
            held.retain(|reply| reply.instance != Some(instance));
        }
        self.subscriptions.retain(|(_, _, of)| *of != instance);
        self.leave_presence(topic, instance);
    }

    pub(super) fn leave_presence(&mut self, topic: &str, instance: u64) {
        let diff = self.presence.untrack(topic, instance, None);
        self.send_diff(topic, diff);
    }

    fn own_key(&self, peer: PeerId, topic: &str, instance: u64) -> String {
        self.channel(peer, topic, instance).map(|(_, c)| c.own_key.clone()).unwrap_or_default()
    }

    fn channel(&self, peer: PeerId, topic: &str, instance: u64) -> Option<(codec::Vsn, &Channel)> {
        let socket = self.sockets.get(&peer)?;
        let channel = socket.channels.get(topic).filter(|c| c.instance == instance)?;
        Some((socket.admission.vsn, channel))
    }

    fn channel_mut(&mut self, peer: PeerId, topic: &str, instance: u64) -> Option<&mut Channel> {
        let socket = self.sockets.get_mut(&peer)?;
        socket.channels.get_mut(topic).filter(|c| c.instance == instance)
    }
}
