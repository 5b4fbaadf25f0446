//! A long conversation over bytes, cut at every byte of each direction.
//!
//! The conversation is first recorded without a cut. Then each byte position of the recording gets a
//! world of its own, in which the connection ends after that many bytes: between two frames, inside a
//! header, a mask key, a fragment, a ping between fragments, or the reply to a close frame. The
//! invariants of the random worlds hold at every step, and both sides recover.
//!
//! With the feature `deflate`, the same happens to a conversation whose messages are compressed. Each message
//! refers to the text of earlier ones, and the messages after the cut to that of the new connection only.

use std::time::Duration;

use crate::soak::checks::{Checks, Made, missing};
#[cfg(feature = "deflate")]
use phx_proto::config::Compression;
use phx_proto::testing::{ClientId, Cut, Direction, ServerConfig, World};
use phx_proto::websocket::Limits;
use phx_proto::{Config, Payload, PushOptions, Socket};
use serde_json::json;

const LOBBY: &str = "room:a";

/// Small fragments, so that many messages have several, with pings between them.
const FRAGMENT: usize = 50;

/// The time to recover: a reconnect, a rejoin and the timeout of a push.
const RECOVERY: Duration = Duration::from_secs(60);

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// The kind of a conversation.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Plain,
    #[cfg(feature = "deflate")]
    Compressed,
}

/// A client that talks to the server over bytes.
struct Conversation {
    world: World,
    client: ClientId,
    checks: Checks,
    seen: usize,
    pushes: u64,
    /// Where the conversation is cut, for the message of a failure.
    at: String,
}

impl Conversation {
    fn new(kind: Kind, cut: Option<(Direction, u64)>) -> Self {
        let server = ServerConfig::default();
        #[cfg(feature = "deflate")]
        let server = match kind {
            Kind::Plain => server,
            Kind::Compressed => server.compress(Compression::strongest().send_bytes_min(0)),
        };
        let mut world = World::with_server(7, server);
        world.latency(ms(1)..=ms(9));
        world.carry_bytes(&Limits { fragment_bytes: FRAGMENT, ..Limits::default() });
        let config = Config::new("ws://localhost:4000/socket/websocket").expect("a valid URI");
        let config = config.param("user_id", "7").heartbeat_interval(Duration::from_secs(2));
        let config = config.join_concurrency(2).expect("some joins");
        #[cfg(feature = "deflate")]
        let config = match kind {
            Kind::Plain => config,
            Kind::Compressed => config.compression(Compression::balanced().send_bytes_min(0)),
        };
        let client = world.idle_client(config.pushes_in_flight_max(9).expect("some calls"));
        if let Some((direction, bytes)) = cut {
            world.link(client).cut_after_bytes(direction, bytes, Cut::Lost);
        }
        let checks = Checks::new(client, 2, 9);
        let at = format!("{kind:?}, cut at {cut:?}");
        let mut talk = Self { world, client, checks, seen: 0, pushes: 0, at };
        talk.world.connect(client);
        talk
    }

    /// Joins, presences, calls, casts, broadcasts, a binary payload, heartbeats, a leave, and long
    /// messages in fragments.
    fn talk(&mut self) {
        let client = self.client;
        self.world.join(client, LOBBY, json!({"hello": "wörld"}));
        self.world.join(client, "presence:p", json!({"key": "u7", "meta": {"mood": "fine"}}));
        self.pass(ms(100));
        for number in 1..=3 {
            let pad = "x".repeat(40 * number);
            self.push("echo", json!({"number": number, "pad": pad}).into());
        }
        self.push("noreply", json!({}).into());
        self.push("shout", Payload::binary(vec![7; 90]));
        self.world.broadcast(LOBBY, "news", json!({"number": 1, "pad": "ä".repeat(40)}));
        self.pass(ms(100));
        self.world.join(client, "room:b", json!({}));
        self.pass(ms(50));
        let _ = self.world.command(client, |s, now| s.leave(now, "room:b"));
        self.push("echo", json!({"number": 6}).into());
        // Longer than the interval of heartbeats.
        self.pass(ms(2_500));
    }

    fn push(&mut self, event: &str, payload: Payload) {
        self.pushes += 1;
        let options = if event == "noreply" { PushOptions::cast() } else { PushOptions::call() };
        let push = |s: &mut Socket, now| s.push(now, LOBBY, event, payload, options);
        let id = self.world.command(self.client, push).expect("the topic is wanted");
        let echo = (event == "echo").then_some(if self.pushes > 5 { 6 } else { self.pushes });
        self.checks.pushes.insert(id, Made { topic: LOBBY.to_owned(), echo });
    }

    /// Lets time pass in steps, with a check after each.
    fn pass(&mut self, length: Duration) {
        let end = self.world.now() + length;
        self.look();
        while self.world.step(end) {
            self.look();
        }
        self.world.run_for(end.since(self.world.now()));
    }

    fn look(&mut self) {
        let events = &self.world.events()[self.seen..];
        let checked = events
            .iter()
            .filter(|event| event.client == Some(self.client))
            .try_for_each(|event| self.checks.look(event));
        self.seen = self.world.events().len();
        if let Err(wrong) = checked.and_then(|()| self.checks.state(&self.world)) {
            panic!("{}: {wrong}\n{}", self.at, self.world.trace_tail());
        }
    }

    /// Runs until every wanted channel is joined on both sides, every push has its outcome, and the
    /// client's list of presences equals the server's.
    fn recover(&mut self) {
        let end = self.world.now() + RECOVERY;
        while let Some(missing) = missing(&self.world, &self.checks) {
            assert!(self.world.step(end), "{}: {missing}\n{}", self.at, self.world.trace_tail());
            self.look();
        }
    }
}

/// The bytes of the whole conversation in each direction.
fn recorded(kind: Kind) -> (u64, u64) {
    let mut talk = Conversation::new(kind, None);
    talk.talk();
    talk.recover();
    assert_eq!(talk.world.socket(talk.client).stats().connections, 1);
    let link = talk.world.link(talk.client);
    (link.bytes_arrived(Direction::Up), link.bytes_arrived(Direction::Down))
}

fn cut_everywhere(kind: Kind, direction: Direction, bytes: u64) {
    for at in 0..bytes {
        let mut talk = Conversation::new(kind, Some((direction, at)));
        talk.talk();
        talk.recover();
        assert_eq!(talk.world.socket(talk.client).stats().connections, 2, "{}", talk.at);
    }
}

#[test]
fn cut_at_every_byte_up_recovers() {
    let (up, _) = recorded(Kind::Plain);
    assert!(up > 1_000, "{up} bytes");
    cut_everywhere(Kind::Plain, Direction::Up, up);
}

#[test]
fn cut_at_every_byte_down_recovers() {
    let (_, down) = recorded(Kind::Plain);
    assert!(down > 1_000, "{down} bytes");
    cut_everywhere(Kind::Plain, Direction::Down, down);
}

#[cfg(feature = "deflate")]
#[test]
fn cut_at_every_compressed_byte_up_recovers() {
    let (up, _) = recorded(Kind::Compressed);
    let plain = recorded(Kind::Plain).0;
    assert!(up > 500 && up < plain * 3 / 4, "{up} of {plain} bytes");
    cut_everywhere(Kind::Compressed, Direction::Up, up);
}

#[cfg(feature = "deflate")]
#[test]
fn cut_at_every_compressed_byte_down_recovers() {
    let (_, down) = recorded(Kind::Compressed);
    let plain = recorded(Kind::Plain).1;
    assert!(down > 500 && down < plain * 3 / 4, "{down} of {plain} bytes");
    cut_everywhere(Kind::Compressed, Direction::Down, down);
}
