//! The invariants that hold after every step, judged from the outside: by the frames on the wire, the
//! signals to the application, and the requests of the test.

use std::collections::{BTreeMap, BTreeSet};

use phx_proto::event::{ChannelEnd, LeaveOutcome, RejoinCause};
use phx_proto::testing::{ClientId, TraceEvent, What, World};
use phx_proto::{Action, ChannelStatus, Frame, Presence, PushId, PushOutcome, Signal, Status};
use serde_json::{Value, json};

const PRESENCES: &str = "presence:p";

/// The known facts about one client.
#[derive(Debug)]
pub struct Checks {
    client: ClientId,
    join_concurrency: usize,
    pushes_in_flight_max: usize,
    /// Whether the connection is closed and no other was requested.
    pub closed: bool,
    /// Whether the application wants a connection.
    pub wanted: bool,
    /// Pushes without an outcome.
    pub pushes: BTreeMap<PushId, Made>,
    topics: BTreeMap<String, Seen>,
    /// The presences of the one topic that has any.
    presence: Presence,
    ghosts: Ghosts,
    /// Whether a presence state may arrive before the ok of its join. No server does that.
    pub replies_held: bool,
    /// Topics whose channel ended on the present connection.
    ended: BTreeSet<String>,
    /// Joins on the present connection that have no answer yet.
    unanswered: Vec<(String, String)>,
}

/// A push that the application made.
#[derive(Clone, Debug)]
pub struct Made {
    pub topic: String,
    /// The number that an `echo` must return.
    pub echo: Option<u64>,
}

/// Metas that a presence list may contain although the server has removed them, as the manual states in
/// `manual::presence`: a diff for the previous instance arrived after the ok of a rejoin, and so is
/// applied to the next state. The server reports the end of that instance after its diffs, so this report
/// shows which diffs were for that instance.
#[derive(Debug, Default)]
struct Ghosts {
    /// The `phx_ref`s of the arrivals since the last ok or the last state.
    early: BTreeSet<String>,
    /// Those of `early` that were for the previous instance, until the state arrives.
    stale: BTreeSet<String>,
    /// Those of `stale` that were applied to the last state.
    possible: BTreeSet<String>,
}

impl Ghosts {
    /// Handles a frame of the topic. `live` is the join_ref of the newest instance.
    fn received(&mut self, message: &Message, live: Option<&String>, ends: bool) {
        let named = message.join_ref.as_ref().or(message.msg_ref.as_ref());
        match message.event.as_str() {
            "phx_reply" if message.msg_ref.as_ref() == live => *self = Self::default(),
            "presence_diff" => self.early.extend(refs_of(&message.payload["joins"])),
            "presence_state" => {
                self.possible = std::mem::take(&mut self.stale);
                self.early.clear();
            }
            _ if ends && named != live => self.stale.append(&mut self.early),
            _ => {}
        }
    }
}

/// The known facts about one topic.
#[derive(Debug, Default)]
struct Seen {
    joined: bool,
    ever_joined: bool,
    /// Whether a join was written since the topic became wanted.
    was_requested: bool,
    /// The join_ref of the instance that the server may hold, as far as the client can know it.
    live: Option<String>,
    /// Whether a join is allowed while the server holds an instance.
    may_replace: bool,
    /// Whether the topic was left and the end of the leave is not reported yet.
    leaving: bool,
    /// The number of the last broadcast.
    last_broadcast: u64,
}

/// A frame in the form of either codec.
struct Message {
    join_ref: Option<String>,
    msg_ref: Option<String>,
    topic: String,
    event: String,
    payload: Value,
}

impl Checks {
    pub fn new(client: ClientId, join_concurrency: usize, pushes_in_flight_max: usize) -> Self {
        Self {
            client,
            join_concurrency,
            pushes_in_flight_max,
            closed: false,
            wanted: true,
            pushes: BTreeMap::new(),
            topics: BTreeMap::new(),
            presence: Presence::new(),
            ghosts: Ghosts::default(),
            replies_held: false,
            ended: BTreeSet::new(),
            unanswered: Vec::new(),
        }
    }

    pub fn is_of(&self, client: ClientId) -> bool {
        self.client == client
    }

    /// Checks one event. The error names the invariant that does not hold.
    pub fn look(&mut self, event: &TraceEvent) -> Result<(), String> {
        match &event.what {
            What::Received(frame) => {
                if let Some(message) = parse(frame) {
                    self.received(&message);
                }
                Ok(())
            }
            What::Action(action) => {
                if self.closed {
                    return Err(format!("{action:?} after Closed"));
                }
                self.action(action)
            }
            _ => Ok(()),
        }
    }

    /// Checks the state between two steps.
    pub fn state(&self, world: &World) -> Result<(), String> {
        let socket = world.socket(self.client);
        let joining =
            socket.channels().filter(|(_, status)| *status == ChannelStatus::Joining).count();
        if joining > self.join_concurrency {
            return Err(format!("{joining} channels are joining"));
        }
        let stats = socket.stats();
        let open = stats.queued_pushes + stats.pushes_in_flight;
        // A cast that is written gets its outcome at once, and so does every push that ends.
        if open != self.pushes.len() {
            return Err(format!(
                "{open} pushes in the core, {} without an outcome",
                self.pushes.len()
            ));
        }
        if stats.pushes_in_flight > self.pushes_in_flight_max {
            return Err(format!("{} pushes are in flight", stats.pushes_in_flight));
        }
        let full = stats.pushes_in_flight == self.pushes_in_flight_max;
        // Every frame that can be written is written at once.
        let must_wait = |made: &&Made| socket.channel_status(&made.topic) != ChannelStatus::Joined;
        let waiting = self.pushes.values().filter(must_wait).count();
        if !full && world.is_writable(self.client) && stats.queued_pushes > waiting {
            let queued = stats.queued_pushes;
            return Err(format!("{queued} pushes are queued, {waiting} have to wait"));
        }
        for (topic, status) in socket.channels() {
            let seen = self.topics.get(&**topic).is_some_and(|seen| seen.joined);
            if (status == ChannelStatus::Joined) != seen {
                return Err(format!("{topic} is {status:?}, but by its signals {seen}"));
            }
        }
        Ok(())
    }

    fn action(&mut self, action: &Action) -> Result<(), String> {
        match action {
            Action::Connect { .. } => {
                self.unanswered.clear();
                self.topics.values_mut().for_each(|seen| seen.live = None);
            }
            Action::Join { topic, frame, .. } => self.join_written(topic, frame)?,
            // A push of binary data.
            Action::Send { frame: Frame::Binary(_), .. } => {}
            Action::Send { frame, .. } => {
                let message = parse(frame).ok_or("an unreadable frame was written")?;
                if message.event == "phx_leave" {
                    let seen = self.topic(&message.topic);
                    if seen.live == message.join_ref {
                        seen.live = None;
                    }
                } else if message.topic != "phoenix" {
                    let left = message.join_ref.is_some()
                        && self.topic(&message.topic).live != message.join_ref;
                    if left {
                        return Err(format!("a push to {} of no live instance", message.topic));
                    }
                }
            }
            Action::RejoinAfter { topic, cause, .. } => {
                if matches!(cause, RejoinCause::JoinUnanswered) {
                    // The server may hold the instance or not, because it has sent no answer.
                    self.unanswered.retain(|(waiting, _)| **waiting != **topic);
                }
                self.topic(topic).may_replace = true;
            }
            Action::Signal(signal) => self.signal(signal)?,
            _ => {}
        }
        Ok(())
    }

    fn join_written(&mut self, topic: &str, frame: &Frame) -> Result<(), String> {
        let message = parse(frame).ok_or("an unreadable join was written")?;
        let seen = self.topic(topic);
        let join_ref = message.join_ref.or(message.msg_ref);
        if seen.leaving {
            return Err(format!("{topic} was joined before its leave had ended"));
        }
        if seen.live.is_some() && !seen.may_replace {
            return Err(format!("{topic} was joined while the server holds it: {:?}", seen.live));
        }
        seen.live.clone_from(&join_ref);
        (seen.may_replace, seen.was_requested) = (false, true);
        self.unanswered.push((topic.to_owned(), join_ref.unwrap_or_default()));
        if self.unanswered.len() > self.join_concurrency {
            return Err(format!("{} joins are unanswered", self.unanswered.len()));
        }
        Ok(())
    }

    fn received(&mut self, message: &Message) {
        let named = message.join_ref.clone().or_else(|| message.msg_ref.clone());
        let ends = matches!(message.event.as_str(), "phx_close" | "phx_error");
        let refused = message.event == "phx_reply" && message.payload["status"] != "ok";
        let about_join = |(topic, join_ref): &(String, String)| {
            *topic == message.topic
                && (message.msg_ref.as_ref() == Some(join_ref)
                    || ends && named.as_ref() == Some(join_ref))
        };
        self.unanswered.retain(|join| !about_join(join));
        if message.topic == "phoenix" {
            // The server answered a heartbeat that was written after the join, but not the join. From
            // now on the core may consider the reply to the join lost.
            let number = |text: &str| text.parse::<u64>().unwrap_or(0);
            let answered = message.msg_ref.as_deref().map_or(0, number);
            self.unanswered.retain(|(_, join_ref)| number(join_ref) > answered);
        }
        if message.topic == PRESENCES {
            let seen = self.topics.get(PRESENCES);
            self.ghosts.received(message, seen.and_then(|seen| seen.live.as_ref()), ends);
        }
        let seen = self.topic(&message.topic);
        if (ends && seen.live == named) || (refused && seen.live == message.msg_ref) {
            seen.live = None;
        }
    }

    fn signal(&mut self, signal: &Signal) -> Result<(), String> {
        match signal {
            Signal::Joined { topic, .. } | Signal::Resumed { topic, .. } => {
                let first = matches!(signal, Signal::Joined { .. });
                if **topic == *PRESENCES {
                    self.presence.joined();
                }
                let seen = self.topic(topic);
                if seen.joined || seen.ever_joined == first {
                    return Err(format!("{signal:?} while {seen:?}"));
                }
                (seen.joined, seen.ever_joined) = (true, true);
            }
            Signal::Interrupted { topic, .. } => {
                let seen = self.topic(topic);
                if !std::mem::replace(&mut seen.joined, false) {
                    return Err(format!("{topic} was interrupted and was not joined"));
                }
            }
            Signal::Connected { .. } => self.ended.clear(),
            Signal::ChannelClosed { topic, cause } => {
                if std::mem::replace(&mut self.topic(topic).was_requested, false) {
                    self.ended.insert(topic.to_string());
                }
                let seen = self.topic(topic);
                seen.leaving |= *cause == ChannelEnd::Left;
                (seen.joined, seen.ever_joined) = (false, false);
            }
            Signal::Left { topic, outcome } => {
                let seen = self.topic(topic);
                seen.leaving = false;
                seen.may_replace |= *outcome == LeaveOutcome::TimedOut;
            }
            Signal::Message { topic, event, payload } => {
                let presence = match &**event {
                    "presence_state" => self.presence.sync_state(payload).map(drop),
                    "presence_diff" => self.presence.sync_diff(payload).map(drop),
                    _ => Ok(()),
                };
                presence.map_err(|error| format!("{topic}: {error}"))?;
                let seen = self.topic(topic);
                if !seen.joined {
                    return Err(format!("a message for {topic}, which is not joined"));
                }
                let number = payload.to_value().ok().and_then(|value| value["number"].as_u64());
                if let (true, Some(number)) = (*event == *"news", number) {
                    if number <= seen.last_broadcast {
                        let last = seen.last_broadcast;
                        return Err(format!("broadcast {number} of {topic} after {last}"));
                    }
                    seen.last_broadcast = number;
                }
            }
            // The server sends only `data` on topics that have no channel.
            Signal::Unrouted { topic, event, .. }
                if **event != *"data" || self.ended.contains(&**topic) =>
            {
                return Err(format!("{signal:?} of a channel that ended"));
            }
            Signal::PushEnded { id, outcome, .. } => {
                let Some(made) = self.pushes.remove(id) else {
                    return Err(format!("a second outcome of {id:?}: {outcome:?}"));
                };
                if let (Some(number), PushOutcome::Reply(reply)) = (made.echo, outcome) {
                    let value = reply.response.to_value().unwrap_or_default();
                    if reply.status == *"ok" && value["number"] != number {
                        return Err(format!("{id:?} has the reply of another: {value}"));
                    }
                }
            }
            Signal::Closed => {
                self.closed = true;
                if !self.pushes.is_empty() {
                    return Err(format!("closed with {} pushes", self.pushes.len()));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn topic(&mut self, topic: &str) -> &mut Seen {
        self.topics.entry(topic.to_owned()).or_default()
    }
}

/// What prevents the end of a run. At the end, every wanted channel is joined on both sides and the
/// server has no others, every push has ended, and no leave is unanswered.
pub fn missing(world: &World, checks: &Checks) -> Option<String> {
    let client = checks.client;
    let socket = world.socket(client);
    if !checks.pushes.is_empty() {
        return Some(format!("{client}: {} pushes have no outcome", checks.pushes.len()));
    }
    match socket.status() {
        Status::Open => {}
        Status::Closed if !checks.wanted => return None,
        other => return Some(format!("{client} is {other:?}")),
    }
    // A channel whose join always raises is retried forever.
    let steady = || socket.channels().filter(|(topic, _)| !topic.starts_with("boom:"));
    if let Some((topic, status)) = steady().find(|(_, status)| *status != ChannelStatus::Joined) {
        return Some(format!("{client}: {topic} is {status:?}"));
    }
    let wanted: BTreeSet<&str> = steady().map(|(topic, _)| &**topic).collect();
    let held: BTreeSet<&str> = world.server_topics(client).collect();
    if wanted != held {
        return Some(format!("{client}: wanted {wanted:?}, on the server {held:?}"));
    }
    if checks.replies_held || !held.contains(PRESENCES) {
        return None;
    }
    let list = checks.presence.list().map(|(key, entry)| (key.to_owned(), json!(entry)));
    let (list, server) = (Value::Object(list.collect()), world.server_presence(PRESENCES));
    let is_ghost = |meta: &Value| {
        meta["phx_ref"].as_str().is_some_and(|it| checks.ghosts.possible.contains(it))
    };
    let differs = metas_of(&list, |meta| !is_ghost(meta)) != metas_of(&server, |_| true);
    differs.then(|| format!("{client}: {list} present, on the server {server}"))
}

/// A meta, with its members in a fixed order: serde_json may keep the order of a text.
type Meta<'a> = BTreeMap<&'a str, String>;

/// The metas under each key, without those that `keep` excludes. Their order differs from the server's,
/// because clients move an updated meta to the end.
fn metas_of(presences: &Value, keep: impl Fn(&Value) -> bool) -> BTreeSet<(&str, Meta<'_>)> {
    let presences = presences.as_object().into_iter().flatten();
    let metas = presences.flat_map(|(key, entry)| {
        let metas = entry["metas"].as_array().into_iter().flatten();
        metas.map(|meta| (key.as_str(), meta))
    });
    metas.filter(|(_, meta)| keep(meta)).map(|(key, meta)| (key, members_of(meta))).collect()
}

fn members_of(meta: &Value) -> Meta<'_> {
    let members = meta.as_object().into_iter().flatten();
    members.map(|(name, value)| (name.as_str(), value.to_string())).collect()
}

/// The `phx_ref` of every meta.
fn refs_of(presences: &Value) -> impl Iterator<Item = String> + '_ {
    let metas = presences.as_object().into_iter().flatten().map(|(_, entry)| &entry["metas"]);
    let metas = metas.flat_map(|metas| metas.as_array().into_iter().flatten());
    metas.filter_map(|meta| meta["phx_ref"].as_str().map(str::to_owned))
}

fn parse(frame: &Frame) -> Option<Message> {
    let value: Value = serde_json::from_slice(frame.as_bytes()).ok()?;
    let part = |index: usize, name: &str| {
        if value.is_array() { value[index].clone() } else { value[name].clone() }
    };
    let text = |value: Value| value.as_str().map(str::to_owned);
    Some(Message {
        join_ref: text(part(0, "join_ref")),
        msg_ref: text(part(1, "ref")),
        topic: text(part(2, "topic"))?,
        event: text(part(3, "event"))?,
        payload: part(4, "payload"),
    })
}
