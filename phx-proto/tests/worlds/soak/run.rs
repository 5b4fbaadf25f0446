//! Worlds in which everything goes wrong, drawn from a seed.
//!
//! Swarm testing: each world leaves out about half of the possible events, so that in some worlds one
//! kind of event dominates. A first period has faults. In the second, without faults, every wanted
//! channel must be joined.

#![allow(unreachable_pub, reason = "a module of one test")]

use std::sync::Arc;
use std::time::Duration;

use super::checks::{Checks, Made, missing};
use super::keyed::Keyed;
#[cfg(feature = "deflate")]
use phx_proto::config::Compression;
use phx_proto::testing::{ClientId, Cut, Direction, ServerConfig, Version, World};
#[cfg(feature = "websocket")]
use phx_proto::websocket::Limits;
use phx_proto::wire::V1;
use phx_proto::{Config, Frame, PushOptions};
use serde_json::{Value, json};

/// The maximum time for everything to recover once faults stop. It covers the longest wait that the
/// defaults can have begun, 300 s after repeated refusals (jitter adds nothing), and the time after
/// which a dead connection is detected. On a slow link that time is longer by `progress_max`.
const PEACE: Duration = Duration::from_secs(600 + 600);

/// The length of a large message. It takes half a minute on the slowest link.
const LARGE: usize = 40_000;

/// Bytes per second of a link, from the server and to it. Zero means no limit. The rates are never
/// below the minimum rates, because nothing is guaranteed below them.
const BANDWIDTHS: [(u64, u64); 6] =
    [(0, 0), (0, 0), (0, 0), (1_500, 10_000), (20_000, 20_000), (200_000, 50_000)];

const TOPICS: [&str; 8] = [
    "room:a",
    "room:b",
    "room:c",
    "presence:p",
    "slowjoin:quick",
    "slowjoin:slow",
    "deny:d",
    "boom:b",
];

/// The names of the actions of applications.
const WISHES: [&str; 23] = [
    "join",
    "join",
    "join",
    "leave",
    "push",
    "push",
    "push",
    "push",
    "cast",
    "fail_fast",
    "cancel",
    "release",
    "rejoin",
    "connect_now",
    "wake",
    "probe",
    "disconnect",
    "broadcast",
    "large_broadcast",
    "large_push",
    "keyed",
    "keyed",
    "unrouted",
];

/// Faults.
const FAULTS: [&str; 14] = [
    "stall",
    "half_open",
    "cut",
    "cut_after",
    "cut_inside",
    "refuse",
    "refuse_upgrade",
    "drop",
    "ignore",
    "kill",
    "shut_down",
    "crash",
    "hold_replies",
    "garbage",
];

/// Totals of one world.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    pub steps: u64,
    pub virtual_seconds: u64,
    pub connections: u64,
    pub joins: u64,
    pub pushes: u64,
    pub replies: u64,
    /// Pushes that were pushed again with their key.
    pub repeats: u64,
    pub unrouted: u64,
    /// Worlds whose server accepts compression.
    pub compressing: u64,
}

struct Soak {
    world: World,
    checks: Vec<Checks>,
    /// The clients, and whether each sends heartbeats.
    clients: Vec<(ClientId, bool)>,
    /// Pushes that are repeated with their key.
    keyed: Keyed,
    seen: usize,
    numbers: u64,
    wishes: Vec<&'static str>,
    faults: Vec<&'static str>,
    /// The percentage of events that are faults.
    fault_rate: u64,
    /// Whether the server accepts compression.
    #[cfg(feature = "deflate")]
    compresses: bool,
}

/// Runs the world of one seed. The error names the invariant that does not hold, and ends with the
/// trace or with its last part.
pub fn run(seed: u64, whole_trace: bool) -> Result<Totals, String> {
    let mut soak = Soak::new(seed);
    let result = soak.run();
    result.map_err(|wrong| {
        let world = &soak.world;
        let trace = if whole_trace { world.trace() } else { world.trace_tail() };
        format!("{wrong}\n{trace}")
    })?;
    Ok(soak.totals())
}

impl Soak {
    fn new(seed: u64) -> Self {
        // The setup is drawn from the world's own random numbers too, so the seed determines
        // everything.
        let mut dice = World::new(seed);
        let versions = [Version::V1_7_24, Version::V1_8_9, Version::V1_8_12];
        let version = pick(&mut dice, &versions);
        let server = ServerConfig::default()
            .version(version)
            .seed(seed)
            .drainer(dice.draw(2) == 0)
            .channel_delay(ms(pick(&mut dice, &[0, 0, 5, 400])))
            .presence_delay(ms(pick(&mut dice, &[0, 0, 20, 2_000])));
        #[cfg(feature = "deflate")]
        let (server, compresses) = match compression(&mut dice) {
            Some(own) if seed % 4 == 0 => (server.compress(own), true),
            _ => (server, false),
        };
        let mut world = World::with_server(seed, server);
        let latency = pick(&mut world, &[(0, 0), (1, 5), (10, 200), (0, 3_000)]);
        world.latency(ms(latency.0)..=ms(latency.1));
        if seed % 4 == 0 {
            // Fragments of all sizes, and often none. The number is drawn without the feature `websocket`
            // too, so that the feature does not change the later random numbers of a seed.
            let fragment_bytes = pick(&mut world, &[10, 500, 5_000, 32 << 10]);
            #[cfg(feature = "websocket")]
            world.carry_bytes(&Limits { fragment_bytes, ..Limits::default() });
            #[cfg(not(feature = "websocket"))]
            let _ = fragment_bytes;
        }
        let mut soak = Self {
            world,
            checks: Vec::new(),
            clients: Vec::new(),
            keyed: Keyed::default(),
            seen: 0,
            numbers: 0,
            wishes: Vec::new(),
            faults: Vec::new(),
            fault_rate: 0,
            #[cfg(feature = "deflate")]
            compresses,
        };
        soak.wishes = WISHES.into_iter().filter(|_| soak.world.draw(2) == 0).collect();
        soak.wishes.push("join");
        soak.faults = FAULTS.into_iter().filter(|_| soak.world.draw(2) == 0).collect();
        soak.faults.push("cut");
        soak.fault_rate = pick(&mut soak.world, &[5, 20, 50]);
        for _ in 0..=soak.world.draw(3) {
            soak.add_client();
        }
        soak
    }

    fn add_client(&mut self) {
        let world = &mut self.world;
        let joins = pick(world, &[1, 2, 8]);
        let heartbeat = pick(world, &[0, 5, 30, 30]);
        let mut config = Config::new("ws://localhost:4000/socket/websocket")
            .expect("a good URI")
            .param("user_id", "7")
            .heartbeat_interval(Duration::from_secs(heartbeat))
            .join_concurrency(joins)
            .expect("some joins");
        let in_flight = if joins == 1 { 1 } else { 16_384 };
        config = config.pushes_in_flight_max(in_flight).expect("some calls");
        if world.draw(3) == 0 {
            config = config.codec(Arc::new(V1)).expect("no vsn in the address");
        }
        #[cfg(feature = "deflate")]
        if self.compresses {
            config = config.compression(compression(world));
        }
        let client = world.client(config);
        let buffer = pick(world, &[1, 3, 256]);
        let (down, up) = pick(world, &BANDWIDTHS);
        let link = world.link(client).buffer(buffer);
        link.bandwidth(Direction::Down, down).bandwidth(Direction::Up, up);
        self.clients.push((client, heartbeat > 0));
        self.checks.push(Checks::new(client, joins, in_flight));
    }

    fn run(&mut self) -> Result<(), String> {
        for _ in 0..20 + self.world.draw(60) {
            let fault = self.world.draw(100) < self.fault_rate;
            let kinds = if fault { self.faults.clone() } else { self.wishes.clone() };
            let what = pick(&mut self.world, &kinds);
            let (client, _) = pick(&mut self.world, &self.clients.clone());
            self.happen(what, client)?;
            let pause = pick(&mut self.world, &[0, 1, 30, 300, 3_000, 6_000, 30_000]);
            let pause = self.world.draw(pause + 1);
            self.pass(ms(pause))?;
        }
        self.make_peace();
        let end = self.world.now() + PEACE;
        loop {
            self.look()?;
            let missing = self.checks.iter().find_map(|c| missing(&self.world, c));
            let Some(missing) = missing.or_else(|| self.keyed.missing()) else {
                return Ok(());
            };
            if !self.world.step(end) {
                return Err(format!("after {}s of peace, {missing}", PEACE.as_secs()));
            }
        }
    }

    /// Lets time pass in steps, with a check after each.
    fn pass(&mut self, length: Duration) -> Result<(), String> {
        let end = self.world.now() + length;
        self.look()?;
        while self.world.step(end) {
            self.look()?;
        }
        // Runs to the exact end, so that the whole pause passes.
        self.world.run_for(end.since(self.world.now()));
        self.look()
    }

    fn look(&mut self) -> Result<(), String> {
        self.observe()?;
        while self.keyed.push_again(&mut self.world, &mut self.checks)? {
            self.observe()?;
        }
        self.checks.iter().try_for_each(|checks| checks.state(&self.world))
    }

    /// Checks the events since the last call.
    fn observe(&mut self) -> Result<(), String> {
        for event in &self.world.events()[self.seen..] {
            let Some(client) = event.client else { continue };
            let index = self.clients.iter().position(|(other, _)| *other == client);
            if let Some(checks) = index.and_then(|index| self.checks.get_mut(index)) {
                checks.look(event).map_err(|wrong| format!("{client}: {wrong}"))?;
                self.keyed.look(client, event)?;
            }
        }
        self.seen = self.world.events().len();
        Ok(())
    }

    fn make_peace(&mut self) {
        self.world.note("peace");
        self.world.server().hold_replies(false);
        self.world.restart_server();
        for (client, beats) in self.clients.clone() {
            self.world.link(client).heal();
            if !beats {
                // Without heartbeats a dead direction is not detected.
                self.world.link(client).cut(Cut::Lost);
            }
        }
    }

    fn happen(&mut self, what: &str, client: ClientId) -> Result<(), String> {
        let topic = self.topic(what, client);
        let number = self.world.draw(4);
        let few = usize::try_from(number).unwrap_or(0);
        match what {
            "join" => {
                if std::mem::replace(&mut self.checks_of(client).closed, false) {
                    self.checks_of(client).wanted = true;
                    self.world.connect(client);
                }
                let params = params_of(&topic);
                // A closed client refuses the join.
                let _ = self.world.command(client, |s, now| s.join(now, &*topic, params));
            }
            "leave" => {
                let _ = self.world.command(client, |s, now| s.leave(now, &topic));
            }
            "push" => self.push(client, &topic, PushOptions::call(), 0),
            "large_push" => self.push(client, &topic, PushOptions::call(), LARGE),
            "cast" => self.push(client, &topic, PushOptions::cast(), 0),
            "fail_fast" => self.push(client, &topic, PushOptions::call().fail_fast(), 0),
            "cancel" => {
                let oldest = self.checks_of(client).pushes.keys().next().copied();
                if let Some(id) = oldest {
                    self.world.command(client, |s, now| s.cancel_push(now, id));
                }
            }
            "keyed" => {
                self.numbers += 1;
                let world = &mut self.world;
                if let Some((id, made)) = self.keyed.push(world, client, &topic, self.numbers) {
                    self.checks_of(client).pushes.insert(id, made);
                }
            }
            "unrouted" => {
                let on = number > 0;
                self.world.command(client, |s, now| s.report_unrouted(now, on));
                // No channel has the topic `doc:1`. A client may have left any other topic; the message
                // is then like a late broadcast. Each of the two forms belongs to one vsn, so a client
                // can decode only one of them.
                let topic = if number == 1 { &*topic } else { "doc:1" };
                for message in [
                    json!([null, null, topic, "data", {}]),
                    json!({"topic": topic, "event": "data", "payload": {}, "ref": null}),
                ] {
                    for peer in self.world.server().peers() {
                        let frame = Frame::from(message.to_string());
                        self.world.server().send_raw(peer, frame);
                    }
                }
            }
            "release" => {
                let params = params_of(&topic);
                self.world.command(client, |s, now| {
                    if let Ok(interest) = s.join(now, &*topic, params) {
                        let _ = s.release(now, interest);
                    }
                });
            }
            "rejoin" => {
                let _ = self.world.command(client, |s, now| s.rejoin(now, &topic));
            }
            "connect_now" => {
                let _ = self.world.command(client, |s, now| s.connect_now(now));
            }
            "wake" => self.world.command(client, |s, now| s.handle_wake(now)),
            "probe" => {
                let _ = self.world.command(client, |s, now| s.probe(now));
            }
            "disconnect" => {
                self.world.disconnect(client);
                self.checks_of(client).wanted = number < 3;
                if number < 3 {
                    // The events before `connect` are checked while the earlier rule still holds.
                    self.look()?;
                    self.checks_of(client).closed = false;
                    self.world.connect(client);
                }
            }
            "broadcast" | "large_broadcast" => {
                self.numbers += 1;
                let pad = if what == "broadcast" { 0 } else { LARGE };
                let news = json!({"number": self.numbers, "pad": "x".repeat(pad)});
                self.world.broadcast(&topic, "news", news);
            }
            "stall" => {
                let length = pick(&mut self.world, &[10, 1_000, 20_000, 90_000]);
                self.world.link(client).stall(ms(length));
            }
            "half_open" => {
                let direction = pick(&mut self.world, &[Direction::Up, Direction::Down]);
                self.world.link(client).half_open(direction);
            }
            "cut" => {
                let cut = self.cut();
                self.world.link(client).cut(cut);
            }
            "cut_after" => {
                let cut = self.cut();
                let direction = pick(&mut self.world, &[Direction::Up, Direction::Down]);
                self.world.link(client).cut_after(direction, number, cut);
            }
            "cut_inside" => {
                let cut = self.cut();
                let direction = pick(&mut self.world, &[Direction::Up, Direction::Down]);
                let bytes = self.world.draw(300);
                self.world.link(client).cut_after_bytes(direction, bytes, cut);
            }
            "refuse" => {
                self.world.link(client).refuse_connects(few);
            }
            "refuse_upgrade" => {
                let answers =
                    [(403, None), (404, None), (429, Some("7")), (503, None), (500, None)];
                let (status, after) = pick(&mut self.world, &answers);
                self.world.link(client).refuse_upgrades(few, status, after);
            }
            "drop" => {
                self.world.link(client).drop_connects(few);
            }
            "ignore" => {
                self.world.link(client).ignore_connects(few);
            }
            "kill" | "shut_down" => {
                if what == "kill" {
                    self.world.kill_server();
                } else {
                    self.world.shut_server_down();
                }
                let away = pick(&mut self.world, &[0, 100, 5_000, 40_000]);
                self.world.restart_server_after(ms(away));
            }
            "crash" if number == 0 => self.world.close_channel(&topic),
            "crash" => self.world.crash_channel(&topic),
            "hold_replies" => {
                self.checks.iter_mut().for_each(|checks| checks.replies_held = true);
                self.world.server().hold_replies(number < 2);
            }
            "garbage" => {
                let peers = self.world.server().peers();
                if let Some(peer) = peers.first() {
                    let frames = [
                        "nonsense",
                        "[]",
                        "{\"topic\":7}",
                        "[null,\"9\",\"phoenix\",\"phx_reply\",{}]",
                    ];
                    let frame = Frame::from(pick(&mut self.world, &frames));
                    self.world.server().send_raw(*peer, frame);
                }
            }
            other => unreachable!("{other}"),
        }
        Ok(())
    }

    /// A topic for this action: mostly one that the client wants, except for joins.
    fn topic(&mut self, what: &str, client: ClientId) -> String {
        let socket = self.world.socket(client);
        let wanted: Vec<String> = socket.channels().map(|(topic, _)| topic.to_string()).collect();
        if what == "join" || wanted.is_empty() || self.world.draw(5) == 0 {
            return pick(&mut self.world, &TOPICS).to_owned();
        }
        let nth = self.world.draw(wanted.len() as u64);
        wanted[usize::try_from(nth).unwrap_or(0)].clone()
    }

    fn push(&mut self, client: ClientId, topic: &str, options: PushOptions, pad: usize) {
        self.numbers += 1;
        let number = self.numbers;
        // An event that a channel does not know crashes the channel, so such events are rare.
        let events: &[&str] = match topic.split(':').next() {
            Some("presence") => &["list", "update", "push_state", "untrack", "list", "echo"],
            Some("slowjoin") => &["echo", "echo", "echo", "echo", "crash"],
            _ => &[
                "echo",
                "echo",
                "echo",
                "echo",
                "echo",
                "echo",
                "shout",
                "shout",
                "noreply",
                "slow",
                "reply_twice",
                "slow",
                "block",
                "push_me",
                "nack",
                "crash",
                "stop",
                "stop_reply",
                "kill_transport",
                "kick",
            ],
        };
        let event = pick(&mut self.world, events);
        let wait = pick(&mut self.world, &[1, 500, 12_000]);
        let mut payload = json!({"number": number, "ms": wait, "n": 3, "user_id": "7", "meta": {}});
        if pad > 0 {
            payload["pad"] = "x".repeat(pad).into();
        }
        let made = self.world.command(client, |s, now| s.push(now, topic, event, payload, options));
        if let Ok(id) = made {
            let made = Made { topic: topic.to_owned(), echo: (event == "echo").then_some(number) };
            self.checks_of(client).pushes.insert(id, made);
        }
    }

    fn cut(&mut self) -> Cut {
        let cuts =
            [Cut::Lost, Cut::Close(1000), Cut::Close(1001), Cut::Close(1012), Cut::Close(4000)];
        pick(&mut self.world, &cuts)
    }

    fn checks_of(&mut self, client: ClientId) -> &mut Checks {
        let index = self.clients.iter().position(|(other, _)| *other == client);
        &mut self.checks[index.expect("one of ours")]
    }

    fn totals(&self) -> Totals {
        let mut totals = Totals {
            repeats: self.keyed.repeats(),
            steps: self.world.steps(),
            virtual_seconds: self.world.now().as_millis() / 1_000,
            #[cfg(feature = "deflate")]
            compressing: u64::from(self.compresses),
            ..Totals::default()
        };
        for event in self.world.events() {
            match event.signal() {
                Some(phx_proto::Signal::Connected { .. }) => totals.connections += 1,
                Some(phx_proto::Signal::Joined { .. } | phx_proto::Signal::Resumed { .. }) => {
                    totals.joins += 1
                }
                Some(phx_proto::Signal::PushEnded { outcome, .. }) => {
                    totals.pushes += 1;
                    let replied = matches!(outcome, phx_proto::PushOutcome::Reply(_));
                    totals.replies += u64::from(replied);
                }
                Some(phx_proto::Signal::Unrouted { .. }) => totals.unrouted += 1,
                _ => {}
            }
        }
        totals
    }
}

/// The parameters of every join of this topic.
fn params_of(topic: &str) -> Value {
    match topic {
        "slowjoin:quick" => json!({"ms": 200}),
        "slowjoin:slow" => json!({"ms": 14_000}),
        "presence:p" => json!({"key": "u7", "meta": {"mood": "fine"}}),
        _ => json!({"topic": topic}),
    }
}

fn pick<T: Copy>(world: &mut World, from: &[T]) -> T {
    let nth = world.draw(from.len() as u64);
    from[usize::try_from(nth).unwrap_or(0)]
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Random settings of one side; sometimes no compression.
#[cfg(feature = "deflate")]
fn compression(world: &mut World) -> Option<Compression> {
    let presets = [Compression::smallest(), Compression::balanced(), Compression::strongest()];
    let preset = pick(world, &presets);
    let mut bits = || u8::try_from(9 + world.draw(7)).unwrap_or(9);
    let (receive, send) = (bits(), bits());
    let windows = preset.window_bits(receive, send).expect("from 9 to 15");
    let windows = pick(world, &[preset, windows]);
    let takeover =
        pick(world, &[(true, true), (true, true), (true, false), (false, true), (false, false)]);
    let bytes_min = pick(world, &[0, 64, 200]);
    let settings = windows.context_takeover(takeover.0, takeover.1).send_bytes_min(bytes_min);
    (world.draw(5) > 0).then_some(settings)
}
