//! A predictor of a client's outputs, which reads a recording and nothing else.
//!
//! It is a second, much smaller client, written from the fixtures' README and the documented
//! signals. From each recorded client frame it derives the command that caused it, and for each
//! server frame it derives its effect in the present state. It shares no code with the library,
//! only names.
//!
//! Every conversation ends with a `disconnect`, so that every push gets an outcome and every
//! channel ends.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use crate::conversation::{Conversation, Vsn};
use crate::output::{Delay, End, Ending, Gap, Outcome, Output};
use crate::reading::{Reading, ReplyReading, read};
use crate::recording::{Dir, Event, What};

/// How pushes are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushes {
    /// As calls, which wait for a reply.
    Calls,
    /// As casts, which do not wait for a reply.
    Casts,
}

/// The rejoin delay for recordings in which the recorder never rejoined: longer than any of them.
pub const REJOIN_NEVER: Duration = Duration::from_secs(3600);

/// The outputs and counters that are expected of a client.
#[derive(Debug, Default)]
pub struct Prediction {
    /// The client's outputs, in order.
    pub outputs: Vec<Output>,
    /// Frames of an earlier instance of a channel, which the client must drop.
    pub stale_frames: u64,
    /// Replies to pushes that already have their outcome.
    pub late_replies: u64,
    /// Delivered messages.
    pub messages: u64,
    /// Messages of a topic that was left, which the client must drop.
    pub dropped: u64,
    /// Frames from the server.
    pub frames_in: u64,
    /// Frames to the server.
    pub frames_out: u64,
    /// Inputs after the end of the connection, which change nothing.
    pub stale_inputs: u64,
    /// How long the recorder had waited for an unanswered leave when it joined the topic again, if
    /// it did.
    pub leave_timeout: Option<Duration>,
    /// Whether the recorder joined a joined topic again.
    pub rejoins: bool,
}

/// The state of a topic for the recorder and the server.
#[derive(Debug)]
struct Channel {
    join_ref: String,
    state: State,
    /// The number of joins sent since the application asked for the topic.
    joins: u32,
    ever_joined: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Joining,
    Joined,
    Lost,
}

#[derive(Debug)]
struct Leaving {
    join_ref: String,
    leave_ref: String,
    since: u64,
}

#[derive(Debug)]
struct Waiting {
    number: usize,
    topic: String,
    join_ref: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Open,
    /// The client has sent a close frame.
    Closing,
    Down,
}

/// Predicts the outputs of a client in this conversation.
///
/// # Errors
///
/// If the recorder did something in the conversation that no client of this library does, or that
/// the predictor does not support.
pub fn predict(conversation: &Conversation, pushes: Pushes) -> Result<Prediction, String> {
    let mut predictor = Predictor {
        pushes,
        out: Prediction::default(),
        channels: BTreeMap::new(),
        leaving: BTreeMap::new(),
        joins: BTreeMap::new(),
        waiting: BTreeMap::new(),
        heartbeat: None,
        in_flight: BTreeSet::new(),
        calls: 0,
        line: Line::Open,
        rejoins_late: false,
    };
    let vsn = conversation.vsn()?;
    predictor.opening(conversation)?;
    for event in &conversation.events {
        predictor.event(vsn, event).map_err(|problem| format!("at {} ms: {problem}", event.ms))?;
    }
    predictor.finish();
    if predictor.out.rejoins && predictor.rejoins_late {
        return Err("the recorder both rejoined and did not".to_owned());
    }
    Ok(predictor.out)
}

struct Predictor {
    pushes: Pushes,
    out: Prediction,
    channels: BTreeMap<String, Channel>,
    leaving: BTreeMap<String, Leaving>,
    /// Unanswered joins: their refs and topics.
    joins: BTreeMap<String, String>,
    /// Unanswered calls, by ref.
    waiting: BTreeMap<String, Waiting>,
    /// The ref of the unanswered heartbeat, and the time at which it was sent.
    heartbeat: Option<(String, u64)>,
    /// Refs of the client that no reply has carried yet.
    in_flight: BTreeSet<String>,
    calls: usize,
    line: Line,
    rejoins_late: bool,
}

impl Predictor {
    fn emit(&mut self, output: Output) {
        self.out.outputs.push(output);
    }

    fn opening(&mut self, conversation: &Conversation) -> Result<(), String> {
        let offered = conversation.header("sec-websocket-protocol");
        if conversation.header("sec-websocket-extensions").is_some() {
            return Err("an extension is offered".to_owned());
        }
        if offered.is_some() && conversation.auth_token().is_none() {
            return Err(format!("the subprotocols {offered:?} are offered"));
        }
        self.emit(Output::Connecting);
        self.emit(Output::Dial);
        let Some(answer) = &conversation.opening.answer else {
            self.emit(Output::Connected);
            return Ok(());
        };
        if answer.status == 101 {
            self.emit(Output::Connected);
            let chosen = answer.headers.iter().any(|(name, _)| name == "sec-websocket-protocol");
            if offered.is_some() && !chosen {
                self.emit(Output::AuthTokenNotAcknowledged);
            }
            return Ok(());
        }
        let retry_after = answer.headers.iter().find(|(name, _)| name == "retry-after");
        let delay = match (answer.status, retry_after) {
            (429, Some((_, seconds))) => {
                let msec = 1000 * seconds.parse::<u64>().expect("seconds");
                Delay::msec(msec, msec + msec / 5)
            }
            (403 | 404, None) => Delay::msec(2_500, 5_000),
            (500, None) => Delay::msec(10, 10),
            other => return Err(format!("the predictor does not cover {other:?}")),
        };
        let (headers, body) = (answer.headers.clone(), answer.body.clone());
        let ending = Ending::Refused(answer.status, headers, body);
        self.line = Line::Down;
        self.emit(Output::Failed(ending.clone(), delay));
        self.emit(Output::ReconnectAfter(ending, delay));
        Ok(())
    }

    fn event(&mut self, vsn: Vsn, event: &Event) -> Result<(), String> {
        match (event.dir, &event.what) {
            (Dir::ClientToServer, What::Frame { frame, violation: false }) => {
                if self.line != Line::Open {
                    return Err("a client sends nothing after the end".to_owned());
                }
                self.out.frames_out += 1;
                self.client_frame(&read(vsn, event.dir, frame)?, event.ms)
            }
            (Dir::ServerToClient, What::Frame { frame, .. }) => {
                self.out.frames_in += 1;
                self.server_frame(&read(vsn, event.dir, frame)?, event.ms)
            }
            // The core closes with 1000 and without a reason.
            (Dir::ClientToServer, What::Close { code: Some(1000), reason })
                if reason.is_empty() && self.line == Line::Open =>
            {
                self.disconnect();
                Ok(())
            }
            (Dir::ServerToClient, What::Close { code, .. }) => {
                self.ended(Ending::CloseFrame(*code));
                Ok(())
            }
            // Even if the recorder ended TCP, the client takes it for a fault of the network.
            (_, What::Eof) => {
                self.ended(Ending::Lost);
                Ok(())
            }
            (_, other) => Err(format!("a client of this library does not do {other:?}")),
        }
    }

    /// Processes a frame of the recorder, which a client sends because of a command of its
    /// application.
    fn client_frame(&mut self, reading: &Reading, ms: u64) -> Result<(), String> {
        let topic = &reading.topic;
        let msg_ref = string(&reading.msg_ref)?;
        if !self.in_flight.insert(msg_ref.clone()) {
            return Err("a ref that is in flight already".to_owned());
        }
        if topic == "phoenix" && reading.event == "heartbeat" {
            if !reading.join_ref.is_null() || self.heartbeat.is_some() {
                return Err("a heartbeat with a join_ref, or a second one".to_owned());
            }
            self.heartbeat = Some((msg_ref, ms));
            return Ok(());
        }
        let join_ref = string(&reading.join_ref)?;
        match reading.event.as_str() {
            "phx_join" if join_ref != msg_ref => Err("a join_ref that is not the ref".to_owned()),
            "phx_join" => self.join(topic, join_ref, ms),
            "phx_leave" => self.leave(topic, &join_ref, msg_ref, ms),
            _ => {
                let channel =
                    self.channels.get(topic).ok_or("a push to a topic that is not wanted")?;
                if channel.state != State::Joined || channel.join_ref != join_ref {
                    return Err("a push that is not on a joined channel".to_owned());
                }
                let number = self.calls;
                self.calls += 1;
                let topic = topic.clone();
                match self.pushes {
                    Pushes::Calls => {
                        self.waiting.insert(msg_ref, Waiting { number, topic, join_ref });
                    }
                    Pushes::Casts => self.emit(Output::PushEnded(number, topic, Outcome::Written)),
                }
                Ok(())
            }
        }
    }

    fn join(&mut self, topic: &str, join_ref: String, ms: u64) -> Result<(), String> {
        self.joins.insert(join_ref.clone(), topic.to_owned());
        if let Some(leaving) = self.leaving.get(topic) {
            self.out.leave_timeout = Some(Duration::from_millis(ms - leaving.since));
            self.left(topic, "timed out", "left");
        }
        let Some(channel) = self.channels.get_mut(topic) else {
            let state = State::Joining;
            let channel = Channel { join_ref, state, joins: 1, ever_joined: false };
            self.channels.insert(topic.to_owned(), channel);
            return Ok(());
        };
        if channel.state != State::Joined {
            return Err("a join while there is one, or instead of the client's own".to_owned());
        }
        let replaced = std::mem::replace(&mut channel.join_ref, join_ref);
        channel.state = State::Joining;
        channel.joins += 1;
        let attempt = channel.joins;
        self.out.rejoins = true;
        self.emit(Output::Interrupted(topic.to_owned(), Gap::Resync));
        self.unknown(topic, &replaced, "replaced");
        // The first step of the default schedule.
        let delay = Delay::msec(50, 100);
        self.emit(Output::RejoinAfter(topic.to_owned(), "resync", attempt, delay));
        Ok(())
    }

    fn leave(
        &mut self,
        topic: &str,
        join_ref: &str,
        leave_ref: String,
        ms: u64,
    ) -> Result<(), String> {
        let channel = self.channels.remove(topic).ok_or("a leave of a topic that is not wanted")?;
        if channel.join_ref != join_ref || channel.state == State::Lost {
            return Err("a leave of another instance".to_owned());
        }
        self.emit(Output::ChannelClosed(topic.to_owned(), End::Left));
        let leaving = Leaving { join_ref: channel.join_ref, leave_ref, since: ms };
        self.leaving.insert(topic.to_owned(), leaving);
        Ok(())
    }

    fn server_frame(&mut self, reading: &Reading, ms: u64) -> Result<(), String> {
        let topic = reading.topic.clone();
        if let Some(reply) = &reading.reply {
            return self.reply(reading, reply, ms);
        }
        // `phx_close` and `phx_error` repeat the join_ref in their ref (fact 3, and fact 48 for vsn
        // 1).
        let named = match (reading.event.as_str(), &reading.join_ref, &reading.msg_ref) {
            ("phx_close" | "phx_error", Value::Null, msg_ref) => msg_ref.as_str(),
            (_, join_ref, _) => join_ref.as_str(),
        };
        let leaving = self.leaving.get(&topic).map(|leaving| leaving.join_ref.clone());
        let current = self.channels.get(&topic).map(|c| (c.join_ref.clone(), c.state));
        match (reading.event.as_str(), named) {
            ("phx_close" | "phx_error", None) => return Err("an end without a join_ref".to_owned()),
            ("phx_close" | "phx_error", Some(named)) if leaving.as_deref() == Some(named) => {
                self.left(&topic, "acked", "left");
            }
            ("phx_close", Some(named)) => match current {
                Some((join_ref, State::Joined)) if join_ref == named => {
                    self.channels.remove(&topic);
                    self.unknown(&topic, named, "closed");
                    self.emit(Output::ChannelClosed(topic, End::ByServer));
                }
                _ => self.out.stale_frames += 1,
            },
            ("phx_error", Some(named)) => match current {
                Some((join_ref, State::Joined)) if join_ref == named => {
                    self.emit(Output::Errored(topic.clone(), reading.payload.clone()));
                    self.emit(Output::Interrupted(topic.clone(), Gap::Crashed));
                    self.unknown(&topic, named, "crashed");
                    self.rejoin_later(&topic, "crashed");
                }
                _ => self.out.stale_frames += 1,
            },
            (event, named) => match current {
                Some((join_ref, State::Joined)) if named.is_none_or(|named| named == join_ref) => {
                    self.out.messages += 1;
                    self.emit(Output::Message(topic, event.to_owned(), reading.payload.clone()));
                }
                // The server keeps sending until it has read the leave.
                None => self.out.dropped += 1,
                _ => return Err("a message outside of a joined channel".to_owned()),
            },
        }
        Ok(())
    }

    fn reply(&mut self, reading: &Reading, reply: &ReplyReading, ms: u64) -> Result<(), String> {
        let (topic, msg_ref) = (reading.topic.clone(), string(&reading.msg_ref)?);
        self.in_flight.remove(&msg_ref);
        if topic == "phoenix" {
            let (beat, written) = self.heartbeat.take().ok_or("an answer to no heartbeat")?;
            if beat != msg_ref {
                return Err("an answer to another heartbeat".to_owned());
            }
            self.emit(Output::HeartbeatAcked(ms - written));
            return Ok(());
        }
        if self.joins.remove(&msg_ref).is_some() {
            return self.join_reply(reading, reply, &msg_ref);
        }
        if self.leaving.get(&topic).is_some_and(|leaving| leaving.leave_ref == msg_ref) {
            self.left(&topic, "acked", "left");
            return Ok(());
        }
        if reading.reason().as_deref() == Some("unmatched topic") {
            return Err("an unmatched topic, which no conforming client pushes to".to_owned());
        }
        match self.waiting.remove(&msg_ref) {
            Some(waiting) => {
                let outcome = Outcome::Reply(reply.status.clone(), reply.response.clone());
                self.emit(Output::PushEnded(waiting.number, topic, outcome));
            }
            None => self.out.late_replies += 1,
        }
        Ok(())
    }

    fn join_reply(
        &mut self,
        reading: &Reading,
        reply: &ReplyReading,
        join_ref: &str,
    ) -> Result<(), String> {
        let topic = reading.topic.clone();
        let channel = self.channels.get_mut(&topic).filter(|channel| channel.join_ref == join_ref);
        let Some(channel) = channel else {
            if self.leaving.get(&topic).is_some_and(|leaving| leaving.join_ref == join_ref) {
                return Err("an answer to a join that is being left".to_owned());
            }
            self.out.stale_frames += 1;
            return Ok(());
        };
        let response = reply.response.clone();
        if reply.status == "ok" {
            channel.state = State::Joined;
            let again = std::mem::replace(&mut channel.ever_joined, true);
            self.emit(if again {
                Output::Resumed(topic, response)
            } else {
                Output::Joined(topic, response)
            });
            return Ok(());
        }
        let kind = match reading.reason().as_deref() {
            Some("join crashed") => {
                self.emit(Output::Retried(topic.clone(), "join crashed", response));
                self.rejoin_later(&topic, "join crashed");
                return Ok(());
            }
            Some("unmatched topic") => "unmatched topic",
            Some("too many channels joined") => "too many channels",
            _ => "application",
        };
        if channel.ever_joined {
            return Err("a refused rejoin".to_owned());
        }
        self.channels.remove(&topic);
        self.emit(Output::Rejected(topic.clone(), kind, response.clone()));
        self.emit(Output::ChannelClosed(topic, End::Rejected(response)));
        Ok(())
    }

    fn rejoin_later(&mut self, topic: &str, cause: &'static str) {
        let Some(channel) = self.channels.get_mut(topic) else { return };
        channel.state = State::Lost;
        let attempt = channel.joins + 1;
        self.rejoins_late = true;
        let delay = Delay(REJOIN_NEVER / 2, REJOIN_NEVER);
        self.emit(Output::RejoinAfter(topic.to_owned(), cause, attempt, delay));
    }

    /// Ends the leave of `topic`.
    fn left(&mut self, topic: &str, outcome: &'static str, pushes: &'static str) {
        let Some(leaving) = self.leaving.remove(topic) else { return };
        self.unknown(topic, &leaving.join_ref, pushes);
        self.emit(Output::Left(topic.to_owned(), outcome));
    }

    /// Ends the pushes of this instance, whose replies can no longer arrive.
    fn unknown(&mut self, topic: &str, join_ref: &str, why: &'static str) {
        let on_it = |push: &Waiting| push.topic == topic && push.join_ref == join_ref;
        let mut lost: Vec<usize> =
            self.waiting.values().filter(|push| on_it(push)).map(|push| push.number).collect();
        lost.sort_unstable();
        self.waiting.retain(|_, push| !on_it(push));
        for number in lost {
            self.emit(Output::PushEnded(number, topic.to_owned(), Outcome::Unknown(why)));
        }
    }

    fn topics(&self) -> Vec<String> {
        let mut topics: Vec<String> =
            self.channels.keys().chain(self.leaving.keys()).cloned().collect();
        topics.sort();
        topics.dedup();
        topics
    }

    /// Handles the end of the connection by the server or the network.
    fn ended(&mut self, ending: Ending) {
        match std::mem::replace(&mut self.line, Line::Down) {
            Line::Open => {}
            Line::Closing => {
                self.emit(Output::Disconnected);
                return self.emit(Output::Closed);
            }
            // The first cause counts: an end after a close frame changes nothing.
            Line::Down => {
                self.out.stale_inputs += 1;
                return;
            }
        }
        self.heartbeat = None;
        self.joins.clear();
        for topic in self.topics() {
            self.left(&topic, "offline", "disconnected");
            let Some(channel) = self.channels.get_mut(&topic) else { continue };
            let state = std::mem::replace(&mut channel.state, State::Lost);
            let join_ref = channel.join_ref.clone();
            if state == State::Joined {
                let gap = Gap::Disconnected(ending.clone());
                self.emit(Output::Interrupted(topic.clone(), gap));
                self.unknown(&topic, &join_ref, "disconnected");
            }
        }
        // A server that restarts closes all connections with 1000, 1001, 1012 or 1013. The longer
        // range of delays spreads their reconnects.
        let delay = match ending {
            Ending::CloseFrame(Some(1000 | 1001 | 1012 | 1013)) => Delay::msec(10, 2_000),
            _ => Delay::msec(10, 500),
        };
        self.emit(Output::Lost(ending.clone(), delay));
        self.emit(Output::ReconnectAfter(ending, delay));
    }

    fn disconnect(&mut self) {
        for topic in self.topics() {
            self.left(&topic, "offline", "disconnected");
            if let Some(channel) = self.channels.remove(&topic) {
                self.unknown(&topic, &channel.join_ref, "disconnected");
                self.emit(Output::ChannelClosed(topic, End::Disconnected));
            }
        }
        self.line = Line::Closing;
        self.emit(Output::Close(1000));
    }

    /// After the recording, the application disconnects.
    fn finish(&mut self) {
        match self.line {
            Line::Open => {
                self.disconnect();
                self.ended(Ending::CloseFrame(Some(1000)));
            }
            Line::Closing => self.ended(Ending::Lost),
            Line::Down if self.out.outputs.last() == Some(&Output::Closed) => {}
            Line::Down => {
                for topic in self.topics() {
                    self.channels.remove(&topic);
                    self.emit(Output::ChannelClosed(topic, End::Disconnected));
                }
                self.emit(Output::Closed);
            }
        }
    }
}

fn string(value: &Value) -> Result<String, String> {
    value.as_str().map(str::to_owned).ok_or_else(|| format!("a ref that is {value}"))
}
