//! What a client must tell, worked out from a recording alone.
//!
//! This is a second, much smaller client, written from the fixtures' README and the documented
//! signals: it knows which command stands behind each recorded client frame and what each server
//! frame means at that moment. It shares nothing with the library but the names of things.
//!
//! Every conversation ends with a `disconnect`, so that each push has its outcome and each
//! channel its end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use crate::conversation::{Conversation, Vsn};
use crate::reading::{Reading, ReplyReading, read};
use crate::recording::{Dir, Event, What};
use crate::told::{Delay, End, Ending, Gap, Outcome, Told};

/// How pushes are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushes {
    /// For a reply.
    Calls,
    /// Without one.
    Casts,
}

/// The least delay before a channel is joined again by itself, where the recorder never did so.
pub const REJOIN_NEVER: Duration = Duration::from_secs(3600);

/// A prediction.
#[derive(Debug, Default)]
pub struct Foretold {
    /// What the client tells, in order.
    pub told: Vec<Told>,
    /// Frames of an earlier instance of a channel, which it must drop.
    pub stale_frames: u64,
    /// Replies that nobody waits for.
    pub late_replies: u64,
    /// Delivered messages.
    pub messages: u64,
    /// Messages of a topic that was left, which it must drop.
    pub dropped: u64,
    /// Frames from the server.
    pub frames_in: u64,
    /// Frames to the server.
    pub frames_out: u64,
    /// Inputs behind the end of the connection, which change nothing.
    pub stale_inputs: u64,
    /// How long the recorder waited for the answer to a leave that had none when it joined again.
    pub leave_patience: Option<Duration>,
    /// Whether the recorder joined a joined topic again.
    pub rejoins: bool,
}

/// A topic, as the recorder and the server see it.
#[derive(Debug)]
struct Channel {
    join_ref: String,
    state: State,
    /// Joins written since the application asked for it.
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
    /// We sent a close frame.
    Closing,
    Down,
}

/// Works out what a client must tell.
///
/// # Errors
///
/// What in the conversation no client of this library does, or what this reading does not know.
pub fn foretell(conversation: &Conversation, pushes: Pushes) -> Result<Foretold, String> {
    let mut seer = Seer {
        pushes,
        out: Foretold::default(),
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
    seer.opening(conversation)?;
    for event in &conversation.events {
        seer.event(vsn, event).map_err(|problem| format!("at {} ms: {problem}", event.ms))?;
    }
    seer.goodbye();
    if seer.out.rejoins && seer.rejoins_late {
        return Err("the recorder both rejoined and did not".to_owned());
    }
    Ok(seer.out)
}

struct Seer {
    pushes: Pushes,
    out: Foretold,
    channels: BTreeMap<String, Channel>,
    leaving: BTreeMap<String, Leaving>,
    /// Unanswered joins: their refs and topics.
    joins: BTreeMap<String, String>,
    /// Unanswered calls, by ref.
    waiting: BTreeMap<String, Waiting>,
    /// The ref of the unanswered heartbeat, and when it was written.
    heartbeat: Option<(String, u64)>,
    /// Refs of the client that no reply has named yet.
    in_flight: BTreeSet<String>,
    calls: usize,
    line: Line,
    rejoins_late: bool,
}

impl Seer {
    fn tell(&mut self, told: Told) {
        self.out.told.push(told);
    }

    fn opening(&mut self, conversation: &Conversation) -> Result<(), String> {
        let offered = conversation.header("sec-websocket-protocol");
        if conversation.header("sec-websocket-extensions").is_some() {
            return Err("an extension is offered".to_owned());
        }
        if offered.is_some() && conversation.auth_token().is_none() {
            return Err(format!("the subprotocols {offered:?} are offered"));
        }
        self.tell(Told::Connecting);
        self.tell(Told::Dial);
        let Some(answer) = &conversation.opening.answer else {
            self.tell(Told::Connected);
            return Ok(());
        };
        if answer.status == 101 {
            self.tell(Told::Connected);
            let chosen = answer.headers.iter().any(|(name, _)| name == "sec-websocket-protocol");
            if offered.is_some() && !chosen {
                self.tell(Told::AuthTokenNotAcknowledged);
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
            other => return Err(format!("what follows {other:?} is not known here")),
        };
        let (headers, body) = (answer.headers.clone(), answer.body.clone());
        let ending = Ending::Refused(answer.status, headers, body);
        self.line = Line::Down;
        self.tell(Told::Failed(ending.clone(), delay));
        self.tell(Told::ReconnectAfter(ending, delay));
        Ok(())
    }

    fn event(&mut self, vsn: Vsn, event: &Event) -> Result<(), String> {
        match (event.dir, &event.what) {
            (Dir::ClientToServer, What::Frame { frame, violation: false }) => {
                if self.line != Line::Open {
                    return Err("a client sends nothing behind the end".to_owned());
                }
                self.out.frames_out += 1;
                self.said(&read(vsn, event.dir, frame)?, event.ms)
            }
            (Dir::ServerToClient, What::Frame { frame, .. }) => {
                self.out.frames_in += 1;
                self.heard(&read(vsn, event.dir, frame)?, event.ms)
            }
            // The core closes with 1000 and no reason.
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
            // Also when it was the recorder that dropped TCP: to a client that is its network.
            (_, What::Eof) => {
                self.ended(Ending::Lost);
                Ok(())
            }
            (_, other) => Err(format!("a client of this library does not do {other:?}")),
        }
    }

    /// The recorder sent this, so a client must have been told to.
    fn said(&mut self, reading: &Reading, ms: u64) -> Result<(), String> {
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
                let channel = self.channels.get(topic).ok_or("a push to a topic not wanted")?;
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
                    Pushes::Casts => self.tell(Told::PushEnded(number, topic, Outcome::Written)),
                }
                Ok(())
            }
        }
    }

    fn join(&mut self, topic: &str, join_ref: String, ms: u64) -> Result<(), String> {
        self.joins.insert(join_ref.clone(), topic.to_owned());
        if let Some(leaving) = self.leaving.get(topic) {
            self.out.leave_patience = Some(Duration::from_millis(ms - leaving.since));
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
        self.tell(Told::Interrupted(topic.to_owned(), Gap::Resync));
        self.unknown(topic, &replaced, "replaced");
        // The first step of the default schedule.
        let delay = Delay::msec(50, 100);
        self.tell(Told::RejoinAfter(topic.to_owned(), "resync", attempt, delay));
        Ok(())
    }

    fn leave(
        &mut self,
        topic: &str,
        join_ref: &str,
        leave_ref: String,
        ms: u64,
    ) -> Result<(), String> {
        let channel = self.channels.remove(topic).ok_or("a leave of a topic not wanted")?;
        if channel.join_ref != join_ref || channel.state == State::Lost {
            return Err("a leave of another instance".to_owned());
        }
        self.tell(Told::ChannelClosed(topic.to_owned(), End::Left));
        let leaving = Leaving { join_ref: channel.join_ref, leave_ref, since: ms };
        self.leaving.insert(topic.to_owned(), leaving);
        Ok(())
    }

    fn heard(&mut self, reading: &Reading, ms: u64) -> Result<(), String> {
        let topic = reading.topic.clone();
        if let Some(reply) = &reading.reply {
            return self.heard_reply(reading, reply, ms);
        }
        // Fact 3, and fact 48 for vsn 1: the ref of these two repeats the join_ref.
        let named = match (reading.event.as_str(), &reading.join_ref, &reading.msg_ref) {
            ("phx_close" | "phx_error", Value::Null, msg_ref) => msg_ref.as_str(),
            (_, join_ref, _) => join_ref.as_str(),
        };
        let leaving = self.leaving.get(&topic).map(|leaving| leaving.join_ref.clone());
        let current = self.channels.get(&topic).map(|c| (c.join_ref.clone(), c.state));
        match (reading.event.as_str(), named) {
            ("phx_close" | "phx_error", None) => return Err("an end that names nobody".to_owned()),
            ("phx_close" | "phx_error", Some(named)) if leaving.as_deref() == Some(named) => {
                self.left(&topic, "acked", "left");
            }
            ("phx_close", Some(named)) => match current {
                Some((join_ref, State::Joined)) if join_ref == named => {
                    self.channels.remove(&topic);
                    self.unknown(&topic, named, "closed");
                    self.tell(Told::ChannelClosed(topic, End::ByServer));
                }
                _ => self.out.stale_frames += 1,
            },
            ("phx_error", Some(named)) => match current {
                Some((join_ref, State::Joined)) if join_ref == named => {
                    self.tell(Told::Errored(topic.clone(), reading.payload.clone()));
                    self.tell(Told::Interrupted(topic.clone(), Gap::Crashed));
                    self.unknown(&topic, named, "crashed");
                    self.rejoin_later(&topic, "crashed");
                }
                _ => self.out.stale_frames += 1,
            },
            (event, named) => match current {
                Some((join_ref, State::Joined)) if named.is_none_or(|named| named == join_ref) => {
                    self.out.messages += 1;
                    self.tell(Told::Message(topic, event.to_owned(), reading.payload.clone()));
                }
                // The server sends on until it has seen the leave.
                None => self.out.dropped += 1,
                _ => return Err("a message outside of a joined channel".to_owned()),
            },
        }
        Ok(())
    }

    fn heard_reply(
        &mut self,
        reading: &Reading,
        reply: &ReplyReading,
        ms: u64,
    ) -> Result<(), String> {
        let (topic, msg_ref) = (reading.topic.clone(), string(&reading.msg_ref)?);
        self.in_flight.remove(&msg_ref);
        if topic == "phoenix" {
            let (beat, written) = self.heartbeat.take().ok_or("an answer to no heartbeat")?;
            if beat != msg_ref {
                return Err("an answer to another heartbeat".to_owned());
            }
            self.tell(Told::HeartbeatAcked(ms - written));
            return Ok(());
        }
        if self.joins.remove(&msg_ref).is_some() {
            return self.heard_join_reply(reading, reply, &msg_ref);
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
                self.tell(Told::PushEnded(waiting.number, topic, outcome));
            }
            None => self.out.late_replies += 1,
        }
        Ok(())
    }

    fn heard_join_reply(
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
            self.tell(if again {
                Told::Resumed(topic, response)
            } else {
                Told::Joined(topic, response)
            });
            return Ok(());
        }
        let kind = match reading.reason().as_deref() {
            Some("join crashed") => {
                self.tell(Told::TriedAgain(topic.clone(), "join crashed", response));
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
        self.tell(Told::Rejected(topic.clone(), kind, response.clone()));
        self.tell(Told::ChannelClosed(topic, End::Rejected(response)));
        Ok(())
    }

    fn rejoin_later(&mut self, topic: &str, cause: &'static str) {
        let Some(channel) = self.channels.get_mut(topic) else { return };
        channel.state = State::Lost;
        let attempt = channel.joins + 1;
        self.rejoins_late = true;
        let delay = Delay(REJOIN_NEVER / 2, REJOIN_NEVER);
        self.tell(Told::RejoinAfter(topic.to_owned(), cause, attempt, delay));
    }

    /// The leave of `topic` is over.
    fn left(&mut self, topic: &str, outcome: &'static str, pushes: &'static str) {
        let Some(leaving) = self.leaving.remove(topic) else { return };
        self.unknown(topic, &leaving.join_ref, pushes);
        self.tell(Told::Left(topic.to_owned(), outcome));
    }

    /// No answer can come any more to what was pushed on this instance.
    fn unknown(&mut self, topic: &str, join_ref: &str, why: &'static str) {
        let on_it = |push: &Waiting| push.topic == topic && push.join_ref == join_ref;
        let mut lost: Vec<usize> =
            self.waiting.values().filter(|push| on_it(push)).map(|push| push.number).collect();
        lost.sort_unstable();
        self.waiting.retain(|_, push| !on_it(push));
        for number in lost {
            self.tell(Told::PushEnded(number, topic.to_owned(), Outcome::Unknown(why)));
        }
    }

    fn topics(&self) -> Vec<String> {
        let mut topics: Vec<String> =
            self.channels.keys().chain(self.leaving.keys()).cloned().collect();
        topics.sort();
        topics.dedup();
        topics
    }

    /// The connection ended by the server's doing, or the network's.
    fn ended(&mut self, ending: Ending) {
        match std::mem::replace(&mut self.line, Line::Down) {
            Line::Open => {}
            Line::Closing => {
                self.tell(Told::Disconnected);
                return self.tell(Told::Closed);
            }
            // The first cause counts: what ends behind a close frame is no news.
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
                self.tell(Told::Interrupted(topic.clone(), gap));
                self.unknown(&topic, &join_ref, "disconnected");
            }
        }
        // A restart closes with 1000, 1001, 1012 or 1013 and must not become a stampede.
        let delay = match ending {
            Ending::CloseFrame(Some(1000 | 1001 | 1012 | 1013)) => Delay::msec(10, 2_000),
            _ => Delay::msec(10, 500),
        };
        self.tell(Told::Lost(ending.clone(), delay));
        self.tell(Told::ReconnectAfter(ending, delay));
    }

    fn disconnect(&mut self) {
        for topic in self.topics() {
            self.left(&topic, "offline", "disconnected");
            if let Some(channel) = self.channels.remove(&topic) {
                self.unknown(&topic, &channel.join_ref, "disconnected");
                self.tell(Told::ChannelClosed(topic, End::Disconnected));
            }
        }
        self.line = Line::Closing;
        self.tell(Told::Close(1000));
    }

    /// What follows the recording: the application disconnects.
    fn goodbye(&mut self) {
        match self.line {
            Line::Open => {
                self.disconnect();
                self.ended(Ending::CloseFrame(Some(1000)));
            }
            Line::Closing => self.ended(Ending::Lost),
            Line::Down if self.out.told.last() == Some(&Told::Closed) => {}
            Line::Down => {
                for topic in self.topics() {
                    self.channels.remove(&topic);
                    self.tell(Told::ChannelClosed(topic, End::Disconnected));
                }
                self.tell(Told::Closed);
            }
        }
    }
}

fn string(value: &Value) -> Result<String, String> {
    value.as_str().map(str::to_owned).ok_or_else(|| format!("a ref that is {value}"))
}
