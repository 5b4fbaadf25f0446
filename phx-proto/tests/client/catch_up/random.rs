//! Random worlds of one consumer, the real handles and the test server: kills, slow links, small
//! mailboxes, consumers that stop, and a server that forgets.

use core::pin::pin;
use core::time::Duration;
use std::collections::VecDeque;
use std::task::Poll;

use phx_proto::catch_up::Cursor;
use phx_proto::client::{Channel, ChannelEvent, Messages};
use phx_proto::testing::{HttpRequest, Output, PeerId, Server, ServerConfig};
use phx_proto::{Frame, Time};
use proptest::prelude::*;
use serde_json::json;

use super::in_order::InOrder;
use super::{catch_up, in_events, options, position_of};
use crate::bench::{Bench, poll};
use crate::cases::{cases, regressions};

const TOPIC: &str = "ring:orders";

#[derive(Clone, Copy, Debug)]
enum Op {
    /// The server sends messages.
    Append(u8),
    /// Frames of the server arrive.
    Arrive(u8),
    /// The consumer takes events.
    Take(u8),
    Cut,
    Crash,
    /// The server forgets all but the newest messages.
    Forget(u8),
    Advance(u16),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (1_u8..12).prop_map(Op::Append),
        4 => (1_u8..20).prop_map(Op::Arrive),
        4 => (1_u8..20).prop_map(Op::Take),
        1 => Just(Op::Cut),
        1 => Just(Op::Crash),
        1 => (0_u8..8).prop_map(Op::Forget),
        3 => (0_u16..3_000).prop_map(Op::Advance),
    ]
}

#[derive(Clone, Copy, Debug)]
struct Setup {
    in_events: bool,
    mailbox: usize,
    ring: usize,
    channel_delay: u64,
    contiguous: bool,
    /// Whether the consumer begins with a position.
    positioned: bool,
}

fn setup() -> impl Strategy<Value = Setup> {
    let mailbox = prop_oneof![Just(1_usize), 2_usize..6, Just(256)];
    let ring = prop_oneof![Just(2_usize), Just(10), Just(1_000)];
    let delay = prop_oneof![Just(0_u64), Just(300)];
    (any::<bool>(), mailbox, ring, delay, any::<bool>(), any::<bool>()).prop_map(
        |(in_events, mailbox, ring, channel_delay, contiguous, positioned)| Setup {
            in_events,
            mailbox,
            ring,
            channel_delay,
            contiguous,
            positioned,
        },
    )
}

struct World {
    bench: Bench,
    server: Server,
    peer: Option<PeerId>,
    dials: usize,
    /// Frames of the server that have not arrived.
    down: VecDeque<Frame>,
    channel: Channel,
    messages: Messages,
    /// Whether the consumer has a position.
    has_begun: bool,
    /// The newest position in the first response that was seen, if the replay is in responses.
    first_newest: Option<u64>,
    in_events: bool,
    expected: InOrder,
    ring: usize,
    /// Positions of other topics make holes in those of this topic.
    contiguous: bool,
    caught_up: bool,
}

impl World {
    fn new(setup: Setup) -> Self {
        let config = ServerConfig::default()
            .ring_size(setup.ring)
            .channel_delay(Duration::from_millis(setup.channel_delay))
            .idle_timeout(Duration::from_secs(1_000_000));
        let bench = Bench::new(|config| {
            let config = config.heartbeat_interval(Duration::ZERO);
            config.mailbox(setup.mailbox, 1 << 20).expect("a bound")
        });
        let params = if setup.in_events { json!({"replay": "events"}) } else { json!({}) };
        let mut contract = if setup.in_events { in_events() } else { Default::default() };
        // On the link of this test, the end of a replay may take any time.
        contract = contract.end_timeout(Duration::MAX);
        if setup.contiguous {
            contract = contract.contiguous();
        }
        let cursor = if setup.positioned { Cursor::at(0) } else { Cursor::new() };
        let options = options(catch_up(cursor).contract(contract));
        let channel = bench.client.want_with(TOPIC, params, options).expect("it is accepted");
        Self {
            bench,
            server: Server::new(config),
            peer: None,
            dials: 0,
            down: VecDeque::new(),
            messages: channel.messages(),
            channel,
            has_begun: setup.positioned,
            first_newest: None,
            in_events: setup.in_events,
            expected: InOrder::default(),
            ring: setup.ring,
            contiguous: setup.contiguous,
            caught_up: false,
        }
    }

    fn now(&self) -> Time {
        self.bench.memory.world().now
    }

    /// Passes everything on except the frames of the server, which are kept for `arrive`.
    fn pump(&mut self) {
        for _ in 0..4 {
            self.bench.settle();
            let now = self.now();
            let dials = self.bench.memory.world().dials;
            if dials > self.dials {
                self.dials = dials;
                if let Some(peer) = self.peer.take() {
                    self.server.handle_eof(now, peer);
                }
                self.down.clear();
                let path = "/socket/websocket?vsn=2.0.0".to_owned();
                let request = HttpRequest { path, ..HttpRequest::default() };
                self.peer = Some(self.server.connect(now, &request).expect("accepted").peer);
            }
            let sent = std::mem::take(&mut self.bench.memory.world().to_server);
            for frame in sent {
                if let Some(peer) = self.peer {
                    let frame = Frame::Text(frame.to_string().into());
                    self.server.handle_frame(now, peer, &frame);
                }
            }
            self.server.handle_timeout(now);
            while let Some(output) = self.server.poll_output() {
                if let Output::Send { peer, frame } = output {
                    if Some(peer) == self.peer {
                        self.down.push_back(frame);
                    }
                }
            }
        }
        if self.first_newest.is_none() && !self.in_events {
            let response = self.channel.join_response().and_then(|it| it.to_value().ok());
            self.first_newest = response.and_then(|response| response["newest"].as_u64());
        }
    }

    fn arrive(&mut self, count: usize) {
        for _ in 0..count {
            let Some(frame) = self.down.pop_front() else { break };
            let mut world = self.bench.memory.world();
            world.to_client.push_back(phx_proto::client::Received::Frame(frame));
        }
        self.pump();
    }

    fn take(&mut self, count: usize) -> Result<usize, String> {
        for taken in 0..count {
            let Poll::Ready(event) = poll(pin!(self.messages.next())) else { return Ok(taken) };
            match event.expect("the stream is open") {
                ChannelEvent::Message(message) => {
                    self.caught_up = false;
                    let position = position_of(&message).expect("every message has one");
                    self.begin(position - 1)?;
                    self.expected.message(position)?;
                    let cursor = self.messages.cursor();
                    if cursor != Some(Cursor::at(position)) {
                        return Err(format!("the cursor is {cursor:?} at {position}"));
                    }
                }
                ChannelEvent::GapRemains { after, through } => {
                    // Messages that were dropped before the first position may be forgotten.
                    after.map_or(Ok(()), |after| self.begin(after))?;
                    self.expected.gap(after, through)?;
                }
                ChannelEvent::CaughtUp => {
                    self.caught_up = true;
                    // Without a position, it begins with the first live message, which was held back.
                    if let Some(position) = self.messages.cursor().and_then(Cursor::position) {
                        self.begin(position)?;
                    }
                }
                ChannelEvent::Interrupted { .. } | ChannelEvent::Resumed { .. } => {}
                other => return Err(format!("{other:?}")),
            }
            self.pump();
        }
        Ok(count)
    }

    /// The consumer has everything up to this position or begins behind it.
    fn begin(&mut self, position: u64) -> Result<(), String> {
        if core::mem::replace(&mut self.has_begun, true) {
            return Ok(());
        }
        self.expected.begin(position);
        match self.first_newest {
            Some(newest) if position > newest => {
                Err(format!("it begins at {position}, not {newest}"))
            }
            _ => Ok(()),
        }
    }

    fn append(&mut self) {
        let now = self.now();
        if !self.contiguous {
            self.server.append(now, "ring:other", json!({}));
        }
        self.expected.sent(self.server.append(now, TOPIC, json!({"text": "hello"})));
        self.expected.keeps(self.ring);
        self.pump();
    }

    fn happen(&mut self, op: Op) -> Result<(), String> {
        match op {
            Op::Append(count) => (0..count).for_each(|_| self.append()),
            Op::Arrive(count) => self.arrive(usize::from(count)),
            Op::Take(count) => drop(self.take(usize::from(count))?),
            Op::Cut => {
                self.down.clear();
                if let Some(peer) = self.peer.take() {
                    self.server.kill(peer);
                }
                self.bench.cut();
                self.pump();
            }
            Op::Crash => {
                let now = self.now();
                self.server.crash_channel(now, TOPIC);
                self.pump();
            }
            Op::Forget(newest) => {
                self.server.forget_all_but(TOPIC, usize::from(newest));
                self.expected.keeps(usize::from(newest));
            }
            Op::Advance(ms) => {
                self.bench.advance(Duration::from_millis(u64::from(ms)));
                self.pump();
            }
        }
        Ok(())
    }

    /// Lets everything arrive and the consumer read, until nothing moves.
    fn peace(&mut self) -> Result<(), String> {
        let mut quiet = 0;
        for _ in 0..100_000 {
            self.pump();
            let waiting = self.down.len();
            self.arrive(waiting.min(1));
            let taken = self.take(1)?;
            quiet = if waiting + taken == 0 { quiet + 1 } else { 0 };
            self.bench.advance(Duration::from_millis(1_000));
            if quiet > 30 {
                return self.expected.complete();
            }
        }
        Err("it never becomes quiet".to_owned())
    }
}

fn run(setup: Setup, ops: &[Op]) -> Result<InOrder, String> {
    let mut world = World::new(setup);
    world.pump();
    for op in ops {
        world.happen(*op)?;
    }
    world.peace()?;
    if !world.caught_up && world.expected.seen == 0 {
        return Err("the consumer did not catch up".to_owned());
    }
    Ok(world.expected)
}

proptest! {
    #![proptest_config(cases(100, regressions!("catch_up")))]

    /// Each message is seen once and in order, and gaps are seen exactly where the server has forgotten
    /// messages that the consumer had not seen.
    #[test]
    fn random_worlds_keep_order(
        setup in setup(),
        ops in proptest::collection::vec(op(), 1..60),
    ) {
        let result = run(setup, &ops);
        prop_assert!(result.is_ok(), "{}", result.unwrap_err());
    }
}
