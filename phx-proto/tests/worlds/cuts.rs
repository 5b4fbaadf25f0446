//! A long conversation over bytes, cut at every byte of each direction.
//!
//! The conversation is first recorded without a cut. Then each byte position of the recording gets a
//! world of its own, in which the connection ends after that many bytes: between two frames, inside a
//! header, a mask key, a fragment, a ping between fragments, or the reply to a close frame. The
//! invariants of the random worlds hold at every step, and both sides recover.

use std::time::Duration;

use crate::soak::checks::{Checks, Made, missing};
use phx_proto::testing::{ClientId, Cut, Direction, World};
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
    fn new(cut: Option<(Direction, u64)>) -> Self {
        let mut world = World::new(7);
        world.latency(ms(1)..=ms(9));
        world.carry_bytes(&Limits { fragment_bytes: FRAGMENT, ..Limits::default() });
        let config = Config::new("ws://localhost:4000/socket/websocket").expect("a valid URI");
        let config = config.param("user_id", "7").heartbeat_interval(Duration::from_secs(2));
        let config = config.join_concurrency(2).expect("some joins");
        let client = world.idle_client(config.pushes_in_flight_max(9).expect("some calls"));
        if let Some((direction, bytes)) = cut {
            world.link(client).cut_after_bytes(direction, bytes, Cut::Lost);
        }
        let checks = Checks::new(client, 2, 9);
        let at = format!("cut at {cut:?}");
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
fn recorded() -> (u64, u64) {
    let mut talk = Conversation::new(None);
    talk.talk();
    talk.recover();
    assert_eq!(talk.world.socket(talk.client).stats().connections, 1);
    let link = talk.world.link(talk.client);
    (link.bytes_arrived(Direction::Up), link.bytes_arrived(Direction::Down))
}

fn cut_everywhere(direction: Direction, bytes: u64) {
    for at in 0..bytes {
        let mut talk = Conversation::new(Some((direction, at)));
        talk.talk();
        talk.recover();
        let connections = talk.world.socket(talk.client).stats().connections;
        assert_eq!(connections, if at == 0 { 1 } else { 2 }, "{}", talk.at);
    }
}

#[test]
fn cut_at_every_byte_up_recovers() {
    let (up, _) = recorded();
    assert!(up > 1_000, "{up} bytes");
    cut_everywhere(Direction::Up, up);
}

#[test]
fn cut_at_every_byte_down_recovers() {
    let (_, down) = recorded();
    assert!(down > 1_000, "{down} bytes");
    cut_everywhere(Direction::Down, down);
}
