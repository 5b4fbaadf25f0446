//! One socket with fifty wanted topics loses a thousand connections to a [`Server`], over a link in
//! memory with latency, on virtual time. The test prints its seed, and `PHX_SEED` sets it.
//!
//! The application of this test wants its topics whatever happens: it joins a topic again after the
//! server closes or refuses it. At the end, exactly the wanted topics are joined, each once; every
//! push has one outcome; nothing was written twice; and every table of the socket is as it was.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::hand::{config, config_v1, ms, secs};
use phx_proto::event::{ChannelEnd, Refusal, Sizes};
use phx_proto::testing::{HttpRefusal, HttpRequest, Output, PeerId, Server, ServerConfig, Version};
use phx_proto::{
    Action, Cause, ChannelStatus, Config, ConnectionId, Ended, Frame, Opened, PushId, PushOptions,
    Signal, Socket, Status, Time, Topic,
};
use serde_json::{Value, json};

const LOSSES: u64 = 1_000;
const WANTED: usize = 50;
/// Two more than the wanted topics, because other topics are joined for a while and take slots.
const CHANNELS_MAX: usize = WANTED + 2;

/// SplitMix64, a simple random number generator.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

/// The frames in transit in one direction, in order.
#[derive(Default)]
struct Pipe<T>(VecDeque<(Time, T)>);

impl<T> Pipe<T> {
    fn put(&mut self, now: Time, latency: Duration, item: T) {
        let at = self.0.back().map_or(now, |(at, _)| *at).max(now + latency);
        self.0.push_back((at, item));
    }

    fn due(&mut self, now: Time) -> Option<T> {
        if self.0.front()?.0 > now {
            return None;
        }
        self.0.pop_front().map(|(_, item)| item)
    }
}

enum Travels {
    Frame(Frame),
    Close(u16),
    Eof,
}

/// One TCP connection.
struct Link {
    peer: PeerId,
    up: Pipe<Travels>,
    down: Pipe<Travels>,
    /// Whether the link is half-open: nothing arrives any more, and no end is reported.
    frozen: bool,
    /// Whether the client still uses it.
    open: bool,
    /// Whether the server has dropped it.
    dropped: bool,
}

enum Dialling {
    Answered,
    Fails,
    /// The dial gets no answer at all.
    Hangs,
}

struct World {
    now: Time,
    dice: Dice,
    server: Server,
    socket: Socket,
    links: BTreeMap<ConnectionId, Link>,
    dial: Option<(Time, ConnectionId, Dialling)>,
    current: Option<ConnectionId>,
    wanted: BTreeSet<String>,
    /// Topics that are joined for a while in addition to the wanted ones.
    guests: BTreeSet<String>,
    joined: BTreeSet<Topic>,
    /// Topics that the server ended, and the times at which the application joins them again.
    again: BTreeMap<String, Time>,
    pushes: BTreeMap<PushId, bool>,
    written: BTreeSet<u64>,
    next_push: u64,
    rejected: u64,
    crashed: u64,
}

impl World {
    fn new(seed: u64, config: Config, version: Version) -> Self {
        let now = Time::from_millis(1);
        let config =
            config.param("user_id", "7").max_message_bytes(20_000).join_block_max(secs(20));
        let mut world = Self {
            now,
            dice: Dice(seed),
            server: Server::new(
                ServerConfig::default().version(version).max_channels(CHANNELS_MAX).seed(seed),
            ),
            socket: Socket::new(config, seed, now),
            links: BTreeMap::new(),
            dial: None,
            current: None,
            wanted: BTreeSet::new(),
            guests: BTreeSet::new(),
            joined: BTreeSet::new(),
            again: BTreeMap::new(),
            pushes: BTreeMap::new(),
            written: BTreeSet::new(),
            next_push: 1,
            rejected: 0,
            crashed: 0,
        };
        for nr in 0..WANTED {
            let topic = match nr % 10 {
                0 => format!("slowjoin:{nr}"),
                1 => format!("presence:{nr}"),
                _ => format!("room:{nr}"),
            };
            world.join(&topic);
            world.wanted.insert(topic);
        }
        world.socket.connect(now);
        world
    }

    fn join(&mut self, topic: &str) {
        self.socket.join(self.now, topic, json!({"ms": 30, "key": "k"})).expect("accepted");
    }

    /// Advances the time, stopping at every event on the way.
    fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..1_000_000 {
            self.pump();
            let next = [
                self.socket.poll_timeout().map(|timeout| timeout.at),
                self.server.poll_timeout(),
                self.dial.as_ref().map(|(at, ..)| *at),
            ]
            .into_iter()
            .chain(self.again.values().map(|at| Some(*at)))
            .chain(self.links.values().flat_map(|link| {
                let up = link.up.0.front().map(|(at, _)| *at);
                let down = link.down.0.front().map(|(at, _)| *at);
                [up, down].map(|at| at.filter(|_| !link.frozen))
            }))
            .flatten()
            .min();
            match next {
                Some(at) if at <= end => self.now = self.now.max(at),
                _ => {
                    self.now = end;
                    return;
                }
            }
            self.socket.handle_timeout(self.now);
            self.server.handle_timeout(self.now);
        }
        panic!("time does not pass");
    }

    /// Carries out everything that is due now.
    fn pump(&mut self) {
        for _ in 0..1_000_000 {
            self.links.retain(|_, link| link.open || !link.dropped);
            if !(self.act()
                | self.want_again()
                | self.answer_dial()
                | self.deliver()
                | self.take_output())
            {
                return;
            }
        }
        panic!("it never ends");
    }

    fn latency(&mut self) -> Duration {
        ms(1 + self.dice.roll(20))
    }

    fn act(&mut self) -> bool {
        let Some(action) = self.socket.poll_action(self.now) else { return false };
        let (now, latency) = (self.now, self.latency());
        match action {
            Action::Connect { id, .. } => {
                let how = match self.dice.roll(20) {
                    0 => Dialling::Fails,
                    1 => Dialling::Hangs,
                    _ => Dialling::Answered,
                };
                self.current = Some(id);
                self.dial = Some((now + latency, id, how));
            }
            Action::Send { id, ref frame } | Action::Join { id, ref frame, .. } => {
                self.check_written(frame);
                let link = self.links.get_mut(&id).expect("an open connection");
                assert!(link.open, "a frame for a connection that is over");
                link.up.put(now, latency, Travels::Frame(frame.clone()));
            }
            Action::Close { id, code, .. } => {
                // The server may have ended the link since the action was decided.
                if let Some(link) = self.links.get_mut(&id) {
                    link.up.put(now, latency, Travels::Close(code));
                }
            }
            Action::Abort { id } => {
                if self.dial.as_ref().is_some_and(|(_, dialled, _)| *dialled == id) {
                    self.dial = None;
                }
                if let Some(link) = self.links.get_mut(&id) {
                    link.open = false;
                    link.up.put(now, latency, Travels::Eof);
                }
            }
            Action::ReconnectAfter { .. } | Action::RejoinAfter { .. } => {}
            Action::Signal(signal) => self.on_signal(signal),
        }
        true
    }

    /// A push is written at most once, whatever happens to its connection.
    fn check_written(&mut self, frame: &Frame) {
        let message: Value = serde_json::from_slice(frame.as_bytes()).expect("JSON");
        let payload = message.get(4).or_else(|| message.get("payload")).expect("a payload");
        if let Some(nr) = payload["nr"].as_u64() {
            assert!(self.written.insert(nr), "{nr} is written twice");
        }
    }

    fn on_signal(&mut self, signal: Signal) {
        match signal {
            Signal::Joined { topic, .. } | Signal::Resumed { topic, .. } => {
                assert!(self.joined.insert(topic.clone()), "{topic} is joined twice");
            }
            Signal::Interrupted { topic, .. } => {
                assert!(self.joined.remove(&topic), "{topic} was not joined");
            }
            Signal::Errored { .. } => self.crashed += 1,
            Signal::JoinRejected { .. } => self.rejected += 1,
            Signal::Message { topic, .. } => {
                assert!(self.joined.contains(&topic), "a message for {topic}, which is not joined");
            }
            Signal::ChannelClosed { topic, cause } => {
                self.joined.remove(&topic);
                self.guests.remove(&*topic);
                if self.wanted.contains(&*topic) && cause != ChannelEnd::Left {
                    let wait = ms(500 + self.dice.roll(3_000));
                    self.again.insert(topic.to_string(), self.now + wait);
                }
            }
            Signal::PushEnded { id, .. } => {
                let ended = self.pushes.get_mut(&id).expect("an accepted push");
                assert!(!core::mem::replace(ended, true), "{id} has a second outcome");
            }
            Signal::GaveUp { .. } | Signal::Closed | Signal::ProtocolError { .. } => {
                panic!("{signal:?}")
            }
            _ => {}
        }
    }

    fn want_again(&mut self) -> bool {
        let due = self.again.iter().find(|(_, at)| **at <= self.now);
        let Some(topic) = due.map(|(topic, _)| topic.clone()) else { return false };
        self.again.remove(&topic);
        self.join(&topic);
        true
    }

    fn answer_dial(&mut self) -> bool {
        if self.dial.as_ref().is_none_or(|(at, ..)| *at > self.now) {
            return false;
        }
        let Some((_, id, how)) = self.dial.take() else { return false };
        match how {
            Dialling::Hangs => {}
            Dialling::Fails => {
                let failure = Cause::Dial {
                    kind: phx_proto::event::DialKind::Refused,
                    message: "refused".into(),
                };
                self.socket.handle_failed(self.now, id, failure);
            }
            Dialling::Answered => {
                let path = self
                    .socket
                    .connect_request()
                    .expect("an address that may be dialled")
                    .uri
                    .target();
                let request = HttpRequest { path, ..HttpRequest::default() };
                match self.server.connect(self.now, &request) {
                    Ok(accepted) => {
                        let (up, down) = (Pipe(VecDeque::new()), Pipe(VecDeque::new()));
                        let link = Link {
                            peer: accepted.peer,
                            up,
                            down,
                            frozen: false,
                            open: true,
                            dropped: false,
                        };
                        self.links.insert(id, link);
                        let opened = Opened { protocol: accepted.protocol };
                        self.socket.handle_opened(self.now, id, opened);
                    }
                    Err(refusal) => {
                        let refusal = Refusal::new(refusal.status, refusal.headers, refusal.body);
                        self.socket.handle_failed(self.now, id, Cause::Refused(refusal));
                    }
                }
            }
        }
        true
    }

    fn deliver(&mut self) -> bool {
        let mut moved = false;
        for (id, link) in &mut self.links {
            if link.frozen {
                continue;
            }
            if let Some(item) = link.up.due(self.now) {
                moved = true;
                match item {
                    Travels::Frame(frame) => self.server.handle_frame(self.now, link.peer, &frame),
                    Travels::Close(code) => {
                        self.server.handle_close(self.now, link.peer, Some(code));
                    }
                    Travels::Eof => {
                        self.server.handle_eof(self.now, link.peer);
                        link.dropped = true;
                    }
                }
            }
            let Some(item) = link.down.due(self.now) else { continue };
            moved = true;
            if !link.open {
                // The frame is not read any more, or is read slightly too late.
                if let (Travels::Frame(frame), 0) = (item, self.dice.roll(4)) {
                    self.socket.handle_frame(self.now, *id, frame);
                }
                continue;
            }
            match item {
                Travels::Frame(frame) => self.socket.handle_frame(self.now, *id, frame),
                Travels::Close(code) => {
                    link.open = false;
                    let ended = Ended::CloseFrame { code: Some(code), reason: String::new() };
                    self.socket.handle_closed(self.now, *id, ended);
                }
                Travels::Eof => {
                    link.open = false;
                    let ended = Ended::Lost { message: "end of stream".into() };
                    self.socket.handle_closed(self.now, *id, ended);
                }
            }
        }
        moved
    }

    fn take_output(&mut self) -> bool {
        let Some(output) = self.server.poll_output() else { return false };
        let (peer, item) = match output {
            Output::Send { peer, frame } => (peer, Travels::Frame(frame)),
            Output::Close { peer, code } => (peer, Travels::Close(code)),
            Output::Drop { peer } => (peer, Travels::Eof),
        };
        let latency = self.latency();
        let Some(link) = self.links.values_mut().rfind(|link| link.peer == peer) else {
            // The server wrote this before it detected the end of the stream.
            return true;
        };
        link.dropped |= matches!(item, Travels::Eof);
        link.down.put(self.now, latency, item);
        true
    }

    fn some_wanted(&mut self) -> String {
        let sides = u64::try_from(self.wanted.len()).expect("fifty");
        let nr = usize::try_from(self.dice.roll(sides)).expect("below fifty");
        self.wanted.iter().nth(nr).expect("in range").clone()
    }

    /// Loses the connection in one of several ways.
    fn lose(&mut self) {
        let Some(id) = self.current else { return };
        let Some(link) = self.links.get_mut(&id).filter(|link| link.open) else { return };
        let (now, peer) = (self.now, link.peer);
        match self.dice.roll(8) {
            0 => self.server.kill(peer),
            1 => self.server.kill_all(),
            2 => self.server.shutdown(now),
            3 => self.server.disconnect_id(now, "user:7"),
            4 => {
                link.open = false;
                link.up.put(now, ms(1), Travels::Eof);
                let ended = Ended::Lost { message: "reset".into() };
                self.socket.handle_closed(now, id, ended);
            }
            5 => {
                link.frozen = true;
                // The application may detect it and probe.
                if self.dice.roll(2) == 0 {
                    let _ = self.socket.probe(now);
                }
            }
            6 => self.server.broadcast(now, "room:2", "big", json!("x".repeat(30_000))),
            _ => {
                self.server.refuse_next(HttpRefusal::new(503, "busy"));
                self.server.kill(peer);
            }
        }
    }

    fn something(&mut self) {
        let (now, topic) = (self.now, self.some_wanted());
        if self.again.contains_key(&topic) {
            // The server ended the channel, and the application waits.
            return;
        }
        match self.dice.roll(12) {
            0..=4 => self.push(&topic),
            5 => self.server.crash_channel(now, &topic),
            6 => self.server.close_channel(now, &topic),
            7 => {
                // The topic is left, and wanted again at once or later.
                self.socket.leave(now, &topic).expect("it is wanted");
                if self.dice.roll(2) == 0 {
                    self.run_for(ms(15));
                }
                self.join(&topic);
            }
            8 => self.socket.rejoin(now, &topic).expect("it is wanted"),
            9 => {
                let kind =
                    ["deny", "boom", "room", "nosuch"][usize::try_from(self.dice.roll(4)).unwrap()];
                let topic = format!("{kind}:guest{}", self.dice.roll(4));
                if self.guests.insert(topic.clone()) {
                    self.join(&topic);
                } else {
                    self.leave_guest(&topic);
                }
            }
            10 => {
                if let Some(id) = self.socket.connection_id() {
                    let writable = self.dice.roll(2) == 0;
                    self.socket.handle_writable(now, id, writable);
                }
            }
            _ => match self.dice.roll(3) {
                0 => self.socket.handle_wake(now),
                1 => {
                    let _ = self.socket.connect_now(now);
                }
                _ => self.server.broadcast(now, &topic, "tick", json!({})),
            },
        }
    }

    fn leave_guest(&mut self, topic: &str) {
        self.guests.remove(topic);
        // The topic may have been refused, or is being left.
        let _ = self.socket.leave(self.now, topic);
    }

    fn push(&mut self, topic: &str) {
        let event = ["echo", "ack", "noreply", "slow", "crash", "fail"];
        let event = event[usize::try_from(self.dice.roll(6)).expect("below six")];
        let options = match self.dice.roll(4) {
            0 => PushOptions::cast(),
            1 => PushOptions::call().fail_fast(),
            2 => PushOptions::call().timeout(ms(self.dice.roll(5_000))),
            _ => PushOptions::call(),
        };
        let payload = json!({"nr": self.next_push, "ms": 50});
        self.next_push += 1;
        if let Ok(id) = self.socket.push(self.now, topic, event, payload, options) {
            self.pushes.insert(id, false);
            if self.dice.roll(10) == 0 {
                assert!(self.socket.cancel_push(self.now, id));
            }
        }
    }

    fn is_quiet(&self) -> bool {
        let sizes = self.socket.sizes();
        let held = |topic: &String| self.server.joined(topic) == 1;
        self.socket.status() == Status::Open
            && self.joined.len() == WANTED
            && self.wanted.iter().all(held)
            && sizes.channels == WANTED
            && sizes.pushes == 0
            && sizes.deadlines == 1
            && self.server.peers().len() == 1
    }

    /// Stops the faults. The socket must become quiet.
    fn come_to_rest(&mut self) -> Sizes {
        for guest in core::mem::take(&mut self.guests) {
            self.leave_guest(&guest);
        }
        // No link stays half-open forever, because TCP gives up in the end.
        for _ in 0..3_000 {
            if let Some(id) = self.socket.connection_id() {
                self.socket.handle_writable(self.now, id, true);
            }
            for link in self.links.values_mut().filter(|link| !link.open) {
                link.frozen = false;
            }
            self.run_for(secs(1));
            if self.is_quiet() {
                return self.socket.sizes();
            }
        }
        let channels: Vec<_> = self.socket.channels().collect();
        panic!("no rest: {:?} {:?} {channels:?}", self.socket.status(), self.socket.sizes());
    }
}

#[allow(clippy::disallowed_methods, reason = "a test may read its environment")]
fn stress(seed: u64, config: Config, version: Version) {
    let seed = std::env::var("PHX_SEED").map_or(seed, |text| text.parse().expect("a number"));
    println!("PHX_SEED={seed}");
    let mut world = World::new(seed, config, version);
    let before = world.come_to_rest();
    assert_eq!((before.channels, before.interests), (WANTED, WANTED));

    for round in 0..200_000 {
        if world.socket.stats().lost_connections >= LOSSES {
            break;
        }
        assert!(round < 199_999, "{} losses only", world.socket.stats().lost_connections);
        for _ in 0..world.dice.roll(8) {
            world.something();
        }
        let pause = match world.dice.roll(20) {
            0 => secs(world.dice.roll(60)),
            1..=9 => ms(world.dice.roll(3_000)),
            _ => ms(world.dice.roll(150)),
        };
        world.run_for(pause);
        world.lose();
    }

    let after = world.come_to_rest();
    assert_eq!(after, before, "every table is as it was");
    assert!(world.pushes.values().all(|ended| *ended), "every push has its outcome");
    let topics: BTreeSet<String> =
        world.socket.channels().map(|(topic, _)| topic.to_string()).collect();
    assert_eq!(topics, world.wanted);
    for topic in &world.wanted {
        assert_eq!(world.server.joined(topic), 1, "{topic}");
        assert_eq!(world.socket.channel_status(topic), ChannelStatus::Joined);
        assert_eq!(world.socket.interests(topic), 1, "{topic}");
    }
    let stats = world.socket.stats();
    println!(
        "{} lost, {} failed attempts, {} pushes, {} crashes, {} rejections, {:?} of virtual time",
        stats.lost_connections,
        stats.failed_attempts,
        world.pushes.len(),
        world.crashed,
        world.rejected,
        world.now.since(Time::ZERO),
    );
    println!("reconnects by cause: {:?}", stats.reconnects);
    assert_eq!(stats.protocol_errors, 0);
    // Every kind of fault occurred in the test.
    assert!(world.crashed > 100 && world.rejected > 100 && world.pushes.len() > 1_000);
    assert!(stats.reconnects.len() >= 5, "{:?}", stats.reconnects);
    // The state does not change any more.
    world.run_for(secs(300));
    assert!(world.wanted.iter().all(|topic| world.server.joined(topic) == 1));
    assert_eq!((world.joined.len(), world.server.peers().len()), (WANTED, 1));
    assert_eq!(world.socket.stats().lost_connections, stats.lost_connections);
}

/// At the end the wanted topics are joined once and nothing else is left. Reported in
/// supabase/supabase-js#1902 and supabase/supabase-js#1907.
#[test]
fn thousand_losses_leave_topics_joined_once() {
    stress(1, config(), Version::V1_8_12);
}

/// The same in vsn 1, where no frame of the server has a join_ref, and with Phoenix 1.7.24. Reported
/// in supabase/supabase-js#1902 and supabase/supabase-js#1907.
#[test]
fn thousand_losses_recover_in_vsn_1() {
    stress(2, config_v1(), Version::V1_7_24);
}
