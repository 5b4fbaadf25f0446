//! Simulates 100,000 clients that lose their server: how many of them dial at the same time?
//!
//! The clients of this crate are real cores with the default configuration, in a simulated world. The
//! example compares them with the same number of clients that use the schedule of phoenix.js, which
//! has no jitter.
//!
//! `cargo run --release -p phx-proto --features testing --example storm [CLIENTS [FILE.svg]]`
//! prints numbers, or writes a picture of them.

#[path = "storm/draw.rs"]
mod draw;

use std::fmt;
use std::time::Duration;

use phx_proto::testing::{TraceEvent, What, World};
use phx_proto::{Action, Config, Time};
use serde_json::json;

pub use draw::draw;

/// The delays of phoenix.js before each attempt, in milliseconds, without jitter; the last one
/// repeats.
const PHOENIX_JS: [u64; 10] = [10, 50, 100, 150, 200, 250, 500, 1_000, 2_000, 5_000];

/// The one-way latency of every link, in milliseconds.
const LATENCY: (u64, u64) = (5, 50);

/// An outage of the server.
#[derive(Clone, Copy, Debug)]
pub struct Disaster {
    /// A description.
    pub name: &'static str,
    /// Whether the server sends close frames first, as in a deploy.
    pub graceful: bool,
    /// How long the port is closed.
    pub away: Duration,
}

/// The outages of this example.
pub const DISASTERS: [Disaster; 3] = [
    Disaster { name: "a deploy: another node takes over", graceful: true, away: Duration::ZERO },
    Disaster { name: "killed: another node takes over", graceful: false, away: Duration::ZERO },
    Disaster { name: "killed, away for 20 s", graceful: false, away: Duration::from_secs(20) },
];

/// Attempts to connect per 100 ms, from the start of the outage.
#[derive(Clone, Debug, Default)]
pub struct Attempts(pub Vec<usize>);

impl Attempts {
    fn count(&mut self, after: Duration) {
        let bucket = usize::try_from(after.as_millis() / 100).unwrap_or(usize::MAX);
        if self.0.len() <= bucket {
            self.0.resize(bucket + 1, 0);
        }
        self.0[bucket] += 1;
    }

    /// The largest number of attempts in 100 ms, from this time after the start of the outage.
    pub fn peak(&self, from: Duration) -> usize {
        let first = usize::try_from(from.as_millis() / 100).unwrap_or(usize::MAX);
        self.0.iter().skip(first).copied().max().unwrap_or(0)
    }
}

/// The attempts of both kinds of clients after one outage.
#[derive(Debug)]
pub struct Storm {
    /// The outage.
    pub disaster: Disaster,
    /// The clients of this crate.
    pub ours: Attempts,
    /// Clients with the schedule of phoenix.js.
    pub theirs: Attempts,
}

/// Simulates the outage with this many clients of each kind.
pub fn storm(clients: usize, disaster: Disaster) -> Storm {
    Storm { disaster, ours: ours(clients, disaster), theirs: theirs(clients, disaster) }
}

fn ours(clients: usize, disaster: Disaster) -> Attempts {
    let mut world = World::new(7);
    world.latency(Duration::from_millis(LATENCY.0)..=Duration::from_millis(LATENCY.1));
    world.keep_only(|_| false);
    let config = Config::new("ws://localhost:4000/socket/websocket").expect("an address");
    for _ in 0..clients {
        let client = world.client(config.clone());
        world.join(client, "room:lobby", json!({}));
    }
    world.run_for(Duration::from_secs(15));
    world.keep_only(|event: &TraceEvent| {
        matches!(&event.what, What::Action(Action::Connect { .. }))
    });
    if disaster.graceful {
        world.shut_server_down();
    } else {
        world.kill_server();
    }
    world.restart_server_after(disaster.away);
    let mut attempts = Attempts::default();
    for _ in 0..(disaster.away + Duration::from_secs(10)).as_millis() / 100 {
        world.run_for(Duration::from_millis(100));
        attempts.0.push(world.take_events().len());
    }
    assert_eq!(world.server().joined("room:lobby"), clients, "all are back");
    attempts
}

fn theirs(clients: usize, disaster: Disaster) -> Attempts {
    let mut dice = World::new(7);
    let mut way = || {
        let spread = (LATENCY.1 - LATENCY.0) * 1_000;
        Duration::from_micros(LATENCY.0 * 1_000 + dice.draw(spread))
    };
    let back = Time::ZERO + disaster.away;
    let mut attempts = Attempts::default();
    for _ in 0..clients {
        let mut now = Time::ZERO + way();
        for tries in 0.. {
            now += Duration::from_millis(PHOENIX_JS[tries.min(PHOENIX_JS.len() - 1)]);
            attempts.count(now.since(Time::ZERO));
            now += way();
            if now >= back {
                break;
            }
            now += way();
        }
    }
    attempts
}

impl fmt::Display for Storm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const ROWS: usize = 8;
        let Self { disaster, ours, theirs } = self;
        writeln!(f, "{}\n   after ms     ours   phoenix.js", disaster.name)?;
        let back = usize::try_from(disaster.away.as_millis() / 100).unwrap_or(0);
        let rows = |from: usize| from..from + ROWS;
        for row in rows(0).chain(rows(back).filter(|row| *row >= ROWS)) {
            if row == back && back > 0 {
                writeln!(f, "  (the server is back)")?;
            }
            let at = |attempts: &Attempts| attempts.0.get(row).copied().unwrap_or(0);
            writeln!(f, "{:>11} {:>8} {:>12}", row * 100, at(ours), at(theirs))?;
        }
        let mut peak = |name: &str, from| {
            let (ours, theirs) = (ours.peak(from), theirs.peak(from));
            let part = theirs as f64 / ours.max(1) as f64;
            writeln!(f, "{name:>11} {ours:>8} {theirs:>12}   1/{part:.1}")
        };
        peak("peak", Duration::ZERO)?;
        if back > 0 {
            peak("from return", disaster.away)?;
        }
        Ok(())
    }
}

#[allow(dead_code, reason = "the test calls the rest")]
fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let clients = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(100_000);
    let storms = DISASTERS.map(|disaster| storm(clients, disaster));
    if let Some(file) = arguments.next() {
        return std::fs::write(file, draw(clients, &storms));
    }
    println!("{clients} clients; attempts to connect per 100 ms\n");
    for storm in storms {
        println!("{storm}");
    }
    Ok(())
}
