//! Random worlds whose consumers catch up: the core, a [`Sequencer`] behind a bounded mailbox, links with
//! every fault, and a server that numbers its messages and forgets them.
//!
//! `PHX_WORLDS=100 cargo test …` runs a hundred times as many worlds. `PHX_WORLD_SEED=7` runs only
//! the world of that seed, and prints its trace if it fails.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::in_order::InOrder;
use super::soak::number_from_environment;
use crate::hand::{config, ms, secs};
use phx_proto::catch_up::{Contract, Cursor, Gap, Sequencer, SequencerStep};
use phx_proto::testing::{ClientId, Cut, Direction, ServerConfig, World};
use phx_proto::{JoinParams, Payload, Signal};
use serde_json::json;

const WORLDS: u64 = 150;
const TOPICS: [&str; 2] = ["ring:a", "ring:b"];

/// What waits in a mailbox.
enum Item {
    Joined(Payload),
    Interrupted,
    Message(String, Payload),
    /// Messages up to the next join are missing.
    Missing,
}

/// One consumer of one topic.
struct Consumer {
    client: ClientId,
    topic: &'static str,
    contract: Contract,
    in_events: bool,
    mailbox: VecDeque<Item>,
    messages_max: usize,
    missing: bool,
    sequencer: Sequencer<u64>,
    cursor: Arc<Mutex<Cursor>>,
    seen: InOrder,
}

impl Consumer {
    fn signal(&mut self, signal: &Signal) {
        if signal.topic().map(|topic| &**topic) != Some(self.topic) {
            return;
        }
        match signal {
            Signal::Joined { response, .. } | Signal::Resumed { response, .. } => {
                self.missing = false;
                self.mailbox.push_back(Item::Joined(response.clone()));
            }
            Signal::Interrupted { .. } => self.mailbox.push_back(Item::Interrupted),
            Signal::Message { event, payload, .. } => {
                let waiting = |item: &&Item| matches!(item, Item::Message(..));
                let full = self.mailbox.iter().filter(waiting).count() >= self.messages_max;
                if full && !self.missing {
                    self.mailbox.push_back(Item::Missing);
                }
                self.missing |= full;
                if !self.missing {
                    self.mailbox.push_back(Item::Message(event.to_string(), payload.clone()));
                }
            }
            _ => {}
        }
    }

    /// Takes one step, or reads one item. Returns false if there is neither.
    fn take(&mut self, world: &mut World) -> Result<bool, String> {
        if let Some(step) = self.sequencer.next_step() {
            *self.cursor.lock().unwrap_or_else(PoisonError::into_inner) = self.sequencer.cursor();
            match step {
                SequencerStep::Message(position) => self.seen.message(position)?,
                SequencerStep::Gap(Gap { after, through }) => self.seen.gap(after, through)?,
                SequencerStep::CaughtUp => {}
                SequencerStep::Rejoin => {
                    let joins = |item: &Item| matches!(item, Item::Joined(_));
                    if !self.mailbox.iter().any(joins) {
                        let _ = world.command(self.client, |s, now| s.rejoin(now, self.topic));
                    }
                }
                other => return Err(format!("{other:?}")),
            }
            return Ok(true);
        }
        let Some(item) = self.mailbox.pop_front() else { return Ok(false) };
        match item {
            Item::Interrupted => self.sequencer.interrupted(),
            Item::Missing => self.sequencer.lost(),
            Item::Joined(response) => {
                self.sequencer.joined();
                if !self.in_events {
                    self.replay(&response, true)?;
                }
            }
            Item::Message(event, payload) => match event.as_str() {
                "missed" => self.replay(&payload, false)?,
                "caught_up" => self.replay(&payload, true)?,
                "entry" => self.sequencer.message(position_of(&payload), pos(&payload)?, 100),
                other => return Err(format!("the event {other}")),
            },
        }
        Ok(true)
    }

    fn replay(&mut self, payload: &Payload, end: bool) -> Result<(), String> {
        let read = if end && self.in_events {
            self.contract.read_end(payload)
        } else {
            self.contract.read(payload)
        };
        let replay = read.map_err(|error| error.to_string())?;
        let messages = replay.messages.iter();
        let messages = messages.map(|it| Ok((position_of(&it.payload), pos(&it.payload)?)));
        let messages = messages.collect::<Result<Vec<_>, String>>()?;
        self.sequencer.replay(messages, replay.oldest, replay.newest);
        if end {
            self.sequencer.replay_ended();
        }
        Ok(())
    }
}

fn position_of(payload: &Payload) -> Option<u64> {
    payload.to_value().ok()?["pos"].as_u64()
}

fn pos(payload: &Payload) -> Result<u64, String> {
    position_of(payload).ok_or_else(|| "a message without a position".to_owned())
}

struct Catching {
    world: World,
    consumers: Vec<Consumer>,
    looked: usize,
    ring: usize,
}

impl Catching {
    fn new(seed: u64) -> Self {
        let mut dice = World::new(seed);
        let ring = pick(&mut dice, &[3, 20, 1_000]);
        let delay = pick(&mut dice, &[0, 5, 400]);
        let server = ServerConfig::default().seed(seed).ring_size(ring).channel_delay(ms(delay));
        let mut world = World::with_server(seed, server);
        let latency = pick(&mut world, &[(0, 0), (1, 5), (10, 200), (0, 3_000)]);
        world.latency(ms(latency.0)..=ms(latency.1));
        let mut consumers = Vec::new();
        for _ in 0..=world.draw(2) {
            let client = world.client(config());
            let down = pick(&mut world, &[0, 0, 1_500, 20_000]);
            world.link(client).bandwidth(Direction::Down, down);
            for topic in TOPICS {
                consumers.push(consumer(&mut world, client, topic));
            }
        }
        Self { world, consumers, looked: 0, ring }
    }

    /// Passes the signals so far to the consumers.
    fn look(&mut self) {
        for event in &self.world.events()[self.looked..] {
            let (Some(client), Some(signal)) = (event.client, event.signal()) else { continue };
            for consumer in self.consumers.iter_mut().filter(|it| it.client == client) {
                consumer.signal(signal);
            }
        }
        self.looked = self.world.events().len();
    }

    fn take(&mut self, index: usize, count: u64) -> Result<bool, String> {
        let mut taken = false;
        for _ in 0..count {
            self.look();
            let consumer = &mut self.consumers[index];
            let (client, topic) = (consumer.client, consumer.topic);
            match consumer.take(&mut self.world) {
                Ok(true) => taken = true,
                Ok(false) => break,
                Err(wrong) => return Err(format!("{client} {topic}: {wrong}")),
            }
        }
        Ok(taken)
    }

    fn append(&mut self) {
        let topic = pick(&mut self.world, &TOPICS);
        let position = self.world.append(topic, json!({"text": "hello"}));
        for consumer in self.consumers.iter_mut().filter(|it| it.topic == topic) {
            consumer.seen.sent(position);
            consumer.seen.keeps(self.ring);
        }
    }

    fn happen(&mut self) -> Result<(), String> {
        let kinds = [
            "append",
            "append",
            "append",
            "take",
            "take",
            "take",
            "cut",
            "stall",
            "half_open",
            "cut_after",
            "kill",
            "crash",
            "forget",
            "rejoin",
        ];
        let what = pick(&mut self.world, &kinds);
        let nth = self.world.draw(self.consumers.len() as u64);
        let index = usize::try_from(nth).unwrap_or(0);
        let (client, topic) = (self.consumers[index].client, self.consumers[index].topic);
        let number = self.world.draw(10);
        match what {
            "append" => (0..number).for_each(|_| self.append()),
            "take" => drop(self.take(index, number * 3)?),
            "cut" => {
                self.world.link(client).cut(Cut::Lost);
            }
            "stall" => {
                self.world.link(client).stall(ms(number * 1_000));
            }
            "half_open" => {
                let direction = pick(&mut self.world, &[Direction::Up, Direction::Down]);
                self.world.link(client).half_open(direction);
            }
            "cut_after" => {
                self.world.link(client).cut_after(Direction::Down, number, Cut::Close(1012));
            }
            "kill" => {
                self.world.kill_server();
                self.world.restart_server_after(ms(number * 500));
            }
            "crash" => self.world.crash_channel(topic),
            "rejoin" => {
                let _ = self.world.command(client, |s, now| s.rejoin(now, topic));
            }
            _ => {
                let newest = usize::try_from(number).unwrap_or(0);
                self.world.server().forget_all_but(topic, newest);
                for consumer in self.consumers.iter_mut().filter(|it| it.topic == topic) {
                    consumer.seen.keeps(newest);
                }
            }
        }
        Ok(())
    }

    fn run(&mut self) -> Result<(), String> {
        for _ in 0..20 + self.world.draw(80) {
            self.happen()?;
            let pause = pick(&mut self.world, &[0, 1, 30, 300, 3_000, 30_000]);
            let pause = self.world.draw(pause + 1);
            self.world.run_for(ms(pause));
        }
        self.world.note("peace");
        self.world.restart_server();
        for client in self.world.clients() {
            self.world.link(client).heal();
        }
        // Recovery takes the time in which a dead connection is detected, and a rejoin for each mailbox
        // that is full.
        let end = self.world.now() + secs(1_200);
        while self.world.now() < end {
            self.world.run_for(secs(10));
            for index in 0..self.consumers.len() {
                self.take(index, u64::MAX)?;
            }
        }
        self.consumers.iter().try_for_each(|consumer| {
            let wrong = |wrong| format!("{} {}: {wrong}", consumer.client, consumer.topic);
            consumer.seen.complete().map_err(wrong)
        })
    }
}

fn consumer(world: &mut World, client: ClientId, topic: &'static str) -> Consumer {
    let in_events = world.draw(2) == 0;
    let contract = match in_events {
        true => Contract::in_events("missed", "caught_up"),
        false => Contract::in_response(),
    };
    let messages_max = pick(world, &[1, 3, 256]);
    let cursor = Arc::new(Mutex::new(Cursor::at(0)));
    let shared = Arc::clone(&cursor);
    let params = JoinParams::from_fn(move |_| {
        let since = shared.lock().unwrap_or_else(PoisonError::into_inner).position();
        let replay = if in_events { "events" } else { "response" };
        Payload::from(json!({"since": since, "replay": replay}))
    });
    world.join(client, topic, params);
    let sequencer = Sequencer::new(Cursor::at(0), &contract, messages_max, 10_000);
    let (mailbox, seen) = (VecDeque::new(), InOrder::default());
    Consumer {
        client,
        topic,
        contract,
        in_events,
        mailbox,
        messages_max,
        missing: false,
        sequencer,
        cursor,
        seen,
    }
}

fn pick<T: Copy>(world: &mut World, from: &[T]) -> T {
    let nth = world.draw(from.len() as u64);
    from[usize::try_from(nth).unwrap_or(0)]
}

/// Runs the world of one seed. Returns how many messages were seen, and how many were missing.
fn run(seed: u64, whole_trace: bool) -> (u64, u64) {
    let mut catching = Catching::new(seed);
    if let Err(wrong) = catching.run() {
        let world = &catching.world;
        let trace = if whole_trace { world.trace() } else { world.trace_tail() };
        panic!(
            "world {seed}: {wrong}\n{trace}\nto see it again: PHX_WORLD_SEED={seed} \
             cargo test -p phx-proto --all-features --test worlds catching_up -- --nocapture"
        );
    }
    let seen = catching.consumers.iter().map(|consumer| consumer.seen.seen).sum();
    let missing = catching.consumers.iter().map(|consumer| consumer.seen.missing).sum();
    (seen, missing)
}

/// Each consumer sees each message once and in order, for both forms of the replay, and a gap where the
/// server has forgotten messages that the consumer had not taken.
#[test]
fn catching_up_keeps_order_in_random_worlds() {
    if let Some(seed) = number_from_environment("PHX_WORLD_SEED") {
        println!("{:?}", run(seed, true));
        return;
    }
    let worlds = WORLDS * number_from_environment("PHX_WORLDS").unwrap_or(1);
    let (mut seen, mut missing) = (0, 0);
    for seed in 0..worlds {
        let totals = run(seed, false);
        seen += totals.0;
        missing += totals.1;
    }
    println!("{worlds} worlds: {seen} messages seen, {missing} missing");
    // Without these events the worlds would prove nothing.
    assert!(seen > 50 * worlds && missing > worlds, "{seen} {missing}");
}
