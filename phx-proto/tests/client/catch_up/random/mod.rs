//! Random worlds of the consumers of one topic, the real handles and the test server: kills, slow links,
//! small mailboxes, consumers that come, stop and go, and a server that forgets, restarts and closes channels.

mod oracle;
mod server;

use core::pin::pin;
use core::time::Duration;
use std::task::Poll;

use phx_proto::catch_up::Cursor;
use phx_proto::client::{
    Channel, ChannelEvent, JoinOptions, MailboxOptions, MailboxPolicy, Message, Messages, Received,
    StreamEnd,
};
use phx_proto::event::ChannelEnd;
use phx_proto::socket::ChannelStatus;
use phx_proto::{Frame, Time};
use proptest::prelude::*;
use serde_json::{Value, json};

use self::oracle::{Arrivals, Place};
use self::server::{Arrival, Habits, Link, START, TOPIC, number_of};
use super::{catch_up, in_events, options, position_of};
use crate::bench::{Bench, poll};
use crate::cases::{cases, regressions};

#[derive(Clone, Copy, Debug)]
enum Op {
    /// The server sends messages with positions.
    Append(u8),
    /// The server sends a message without a position.
    Broadcast,
    /// Frames of the server arrive, one after another.
    Arrive(u8),
    /// Frames of the server arrive at once.
    ArriveAtOnce(u8),
    /// A consumer takes events.
    Take(u8, u8),
    Cut,
    /// The connection is lost so many times. When there is a new one, frames of the server arrive.
    Reconnect(u8, u8),
    Crash,
    /// The program has the channel joined again.
    Rejoin,
    /// The server closes the channel.
    Close,
    /// The server forgets all but the newest messages.
    Forget(u8),
    /// The server starts again. Its positions continue after a hole, or start over.
    Restart(Option<u8>),
    Open(Reader),
    DropStream(u8),
    DropHandle(u8),
    Leave(u8),
    Advance(u16),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => (1_u8..12).prop_map(Op::Append),
        4 => Just(Op::Broadcast),
        12 => (1_u8..20).prop_map(Op::Arrive),
        3 => (1_u8..20).prop_map(Op::ArriveAtOnce),
        12 => (any::<u8>(), 1_u8..20).prop_map(|(consumer, count)| Op::Take(consumer, count)),
        6 => any::<u8>().prop_map(|consumer| Op::Take(consumer, u8::MAX)),
        2 => Just(Op::Cut),
        6 => (1_u8..4, 0_u8..6).prop_map(|(times, count)| Op::Reconnect(times, count)),
        2 => Just(Op::Crash),
        1 => Just(Op::Rejoin),
        1 => Just(Op::Close),
        3 => (0_u8..8).prop_map(Op::Forget),
        1 => proptest::option::of(0_u8..5).prop_map(Op::Restart),
        2 => reader().prop_map(Op::Open),
        1 => any::<u8>().prop_map(Op::DropStream),
        1 => any::<u8>().prop_map(Op::DropHandle),
        1 => any::<u8>().prop_map(Op::Leave),
        9 => (0_u16..3_000).prop_map(Op::Advance),
    ]
}

/// How a consumer begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begin {
    /// It catches up from the server's first position, from the messages that the server chooses, or from
    /// where an earlier consumer ended.
    AtStart,
    New,
    Resumed,
    /// It does not catch up. It has a handle of its own, or it is a further stream of another one.
    Plain,
    Further(u8),
}

#[derive(Clone, Copy, Debug)]
struct Reader {
    begin: Begin,
    mailbox: usize,
    policy: MailboxPolicy,
    /// Whether the stream is made together with the handle, not when the consumer first reads.
    streams_at_once: bool,
}

fn reader() -> impl Strategy<Value = Reader> {
    let begin = prop_oneof![
        2 => Just(Begin::AtStart),
        6 => Just(Begin::New),
        2 => Just(Begin::Resumed),
        1 => Just(Begin::Plain),
        1 => any::<u8>().prop_map(Begin::Further),
    ];
    let mailbox = prop_oneof![Just(1_usize), 2_usize..6, Just(256)];
    let policy = prop_oneof![
        3 => Just(MailboxPolicy::DropOldest),
        1 => Just(MailboxPolicy::DropNewest),
        1 => Just(MailboxPolicy::Rejoin),
        1 => Just(MailboxPolicy::Close),
    ];
    (begin, mailbox, policy, any::<bool>()).prop_map(|(begin, mailbox, policy, streams_at_once)| {
        Reader { begin, mailbox, policy, streams_at_once }
    })
}

fn habits() -> impl Strategy<Value = Habits> {
    let ring = prop_oneof![Just(0_usize), Just(2), Just(10), Just(1_000)];
    let delay = prop_oneof![Just(0_u64), Just(300), Just(5_000)];
    let names = prop_oneof![
        3 => Just((true, true)),
        2 => Just((true, false)),
        1 => Just((false, true)),
        1 => Just((false, false)),
    ];
    (any::<bool>(), ring, delay, any::<bool>(), names, proptest::bool::weighted(0.25)).prop_map(
        |(in_events, ring, channel_delay, contiguous, names, replays_all)| {
            let (names_oldest, names_newest) = names;
            Habits {
                in_events,
                ring,
                channel_delay,
                contiguous,
                names_oldest,
                names_newest,
                replays_all,
            }
        },
    )
}

/// A consumer, and what it must see.
struct Consumer {
    reader: Reader,
    /// Consumers of one handle have the same number.
    handle: usize,
    channel: Option<Channel>,
    stream: Option<Messages>,
    /// Whether the handle or the stream is at its end.
    has_ended: bool,
    /// Whether the channel was joined since the consumer began. Before that, replays are for others.
    has_joined: bool,
    /// The number of messages that arrived since the consumer last read.
    unread: usize,
    /// Whether the consumer has read everything that arrived.
    is_drained: bool,
    has_overflowed: bool,
    /// The messages with positions, if the consumer catches up.
    place: Option<Place>,
    /// The other ones.
    arrivals: Arrivals,
}

impl Consumer {
    /// Whether joins have the position of the consumer; `None` if the mailbox may have overflowed.
    fn is_following(&self) -> Option<bool> {
        if self.has_ended || self.has_overflowed || self.place.is_none() {
            return Some(false);
        }
        (self.is_drained || self.reader.policy != MailboxPolicy::Close).then_some(true)
    }

    fn can_be_resumed(&self) -> bool {
        self.has_ended && self.place.as_ref().is_some_and(|place| place.front().is_some())
    }

    /// A message arrives.
    fn fill(&mut self) {
        self.unread += 1;
        self.is_drained = false;
        let overflows = self.unread > self.reader.mailbox;
        self.has_overflowed |= overflows && self.reader.policy == MailboxPolicy::Close;
    }

    fn stream(&mut self) -> Option<&mut Messages> {
        if self.stream.is_none() && !self.has_ended {
            self.stream = self.channel.as_ref().map(Channel::messages);
        }
        self.stream.as_mut()
    }

    /// Checks an event that the consumer takes.
    fn see(&mut self, link: &Link, event: &ChannelEvent) -> Result<(), String> {
        let cursor = self.stream.as_ref().and_then(Messages::cursor);
        match event {
            ChannelEvent::Message(message) => return self.see_message(link, message, cursor),
            ChannelEvent::Lagged(count) => {
                // A stream that ends counts every message that was dropped.
                if self.place.is_none() || self.reader.policy != MailboxPolicy::Close {
                    self.arrivals.lagged(*count)?;
                }
            }
            ChannelEvent::Closed(end) => return self.see_end(end),
            ChannelEvent::Interrupted { .. } | ChannelEvent::Resumed { .. } => {}
            event => {
                let Some(place) = &mut self.place else { return Err(format!("{event:?}")) };
                match event {
                    ChannelEvent::CaughtUp => {
                        if let Some(position) = cursor.and_then(Cursor::position) {
                            place.begin(&link.history, position)?;
                        }
                    }
                    ChannelEvent::GapRemains { after, through } => {
                        place.gap(&link.history, *after, *through)?;
                    }
                    other => return Err(format!("{other:?}")),
                }
            }
        }
        self.check_cursor(cursor)
    }

    fn see_message(
        &mut self,
        link: &Link,
        message: &Message,
        cursor: Option<Cursor>,
    ) -> Result<(), String> {
        let payload = message.payload().to_value().expect("JSON");
        match (&mut self.place, position_of(message)) {
            (Some(place), Some(position)) => {
                place.message(&link.history, number_of(&payload), position)?;
            }
            _ => self.arrivals.seen(&text(message.event(), &payload))?,
        }
        self.check_cursor(cursor)
    }

    /// The cursor is the position of the last message or gap.
    fn check_cursor(&self, cursor: Option<Cursor>) -> Result<(), String> {
        let expected = self.place.as_ref().map(Place::front);
        if cursor.map(Cursor::position) == expected {
            return Ok(());
        }
        Err(format!("the cursor is {cursor:?}, not {expected:?}"))
    }

    fn see_end(&mut self, end: &StreamEnd) -> Result<(), String> {
        let had_ended = core::mem::replace(&mut self.has_ended, true);
        match end {
            StreamEnd::Overflow if self.reader.policy == MailboxPolicy::Close => Ok(()),
            StreamEnd::Channel(ChannelEnd::ClosedByServer | ChannelEnd::Left) | StreamEnd::Gone
                if had_ended =>
            {
                self.arrivals.complete()
            }
            end => Err(format!("the stream ended: {end}")),
        }
    }
}

fn text(event: &str, payload: &Value) -> String {
    format!("{event} {payload}")
}

struct World {
    bench: Bench,
    link: Link,
    habits: Habits,
    dials: usize,
    /// How many messages without a position were sent.
    broadcasts: u64,
    consumers: Vec<Consumer>,
}

impl World {
    fn new(habits: Habits, readers: &[Reader]) -> Result<Self, String> {
        let bench = Bench::new(|config| config.heartbeat_interval(Duration::ZERO));
        let (link, consumers) = (Link::new(habits), Vec::new());
        let mut world = Self { bench, link, habits, dials: 0, broadcasts: 0, consumers };
        for reader in readers {
            world.open(*reader);
        }
        world.pump()?;
        Ok(world)
    }

    fn now(&self) -> Time {
        self.bench.memory.world().now
    }

    fn status(&self) -> ChannelStatus {
        let handle = self.consumers.iter().find_map(|consumer| consumer.channel.as_ref());
        handle.map_or(ChannelStatus::Closed, Channel::status)
    }

    /// Passes everything on except the frames of the server, which wait for `arrive`.
    fn pump(&mut self) -> Result<(), String> {
        for _ in 0..4 {
            self.bench.settle();
            let now = self.now();
            let dials = self.bench.memory.world().dials;
            if core::mem::replace(&mut self.dials, dials) < dials {
                self.link.connect(now);
            }
            let sent = core::mem::take(&mut self.bench.memory.world().to_server);
            for frame in sent {
                if let Some(since) = self.link.send(now, frame) {
                    self.check_join(since)?;
                }
            }
            self.link.receive(now);
        }
        Ok(())
    }

    /// A join asks for the messages after the smallest position of the consumers, and after no other.
    fn check_join(&mut self, since: Option<u64>) -> Result<(), String> {
        let followers = self.consumers.iter().filter(|it| it.is_following() != Some(false));
        let places = followers.clone().filter_map(|it| it.place.as_ref());
        // A consumer without a position may ask for what it has missed.
        let explains = |place: &Place| place.front().is_none() || place.front() == since;
        let needs = followers
            .filter(|it| it.is_following() == Some(true))
            .filter_map(|it| it.place.as_ref().and_then(Place::front));
        let smallest = needs.min();
        let is_needed = since.is_none() || places.clone().any(explains);
        if !is_needed || smallest.is_some_and(|smallest| since.is_none_or(|since| since > smallest))
        {
            let places: Vec<_> = places.collect();
            return Err(format!("a join has the position {since:?}, not {smallest:?}: {places:?}"));
        }
        for place in self.consumers.iter_mut().filter_map(|it| it.place.as_mut()) {
            place.join_sent();
        }
        Ok(())
    }

    fn arrive(&mut self, count: usize) -> Result<(), String> {
        let status = self.status();
        let mut is_joined = status == ChannelStatus::Joined;
        for _ in 0..count {
            let Some((frame, arrival)) = self.link.arrive() else { break };
            match &arrival {
                // While the channel is being left, this is the reply to an earlier join.
                Arrival::Joined(_) => is_joined |= status == ChannelStatus::Joining,
                Arrival::Ended => is_joined = false,
                _ => {}
            }
            if is_joined {
                self.note(&frame, &arrival);
            }
            let frame = Frame::Text(frame.to_string().into());
            self.bench.memory.world().to_client.push_back(Received::Frame(frame));
        }
        self.pump()?;
        if self.status() == ChannelStatus::Closed {
            self.end(|_| true);
        }
        Ok(())
    }

    /// Notes for each consumer what arrives.
    fn note(&mut self, frame: &Value, arrival: &Arrival) {
        let history = &self.link.history;
        let message = || text(frame[3].as_str().unwrap_or_default(), &frame[4]);
        for consumer in self.consumers.iter_mut().filter(|it| !it.has_ended) {
            consumer.has_joined |= matches!(arrival, Arrival::Joined(_));
            let is_filled = match arrival {
                Arrival::Joined(_) | Arrival::Other => false,
                Arrival::Part(_) | Arrival::End(_) => {
                    consumer.has_joined || consumer.place.is_none()
                }
                _ => true,
            };
            if is_filled {
                consumer.fill();
            }
            let Consumer { place, arrivals, .. } = consumer;
            match (arrival, place) {
                (Arrival::Joined(Some(replay)), Some(place)) => {
                    place.response_arrived(history, *replay);
                }
                (Arrival::Part(replay), Some(place)) => {
                    place.replay_arrived(history, *replay, false)
                }
                (Arrival::End(replay), Some(place)) => place.replay_arrived(history, *replay, true),
                (Arrival::Numbered(number), Some(place)) => place.arrived(*number),
                (Arrival::Joined(_) | Arrival::Ended | Arrival::Other, _) => {}
                (_, None) | (Arrival::Unnumbered, _) => arrivals.arrived(message()),
            }
        }
    }

    fn open(&mut self, reader: Reader) {
        let is_joined = self.status() == ChannelStatus::Joined;
        let handle = self.consumers.len();
        let further = match reader.begin {
            Begin::Further(nth) => self.nth(nth).filter(|it| it.stream.is_some() && !it.has_ended),
            _ => None,
        };
        let mut consumer = Consumer {
            reader,
            handle,
            channel: None,
            stream: None,
            has_ended: false,
            has_joined: false,
            unread: 0,
            is_drained: true,
            has_overflowed: false,
            place: None,
            arrivals: Arrivals::default(),
        };
        if let Some(other) = further {
            let channel = other.channel.clone();
            consumer.stream = channel.as_ref().map(Channel::messages);
            consumer.reader.policy = other.reader.policy;
            (consumer.channel, consumer.handle) = (channel, other.handle);
        } else {
            consumer.place = match reader.begin {
                Begin::AtStart => Some(Place::at(START)),
                Begin::New => Some(Place::begins(is_joined)),
                Begin::Resumed => Some(self.resume().unwrap_or_else(|| Place::begins(is_joined))),
                Begin::Plain | Begin::Further(_) => None,
            };
            let mailbox = MailboxOptions::new().messages(reader.mailbox).policy(reader.policy);
            let options = self.options(consumer.place.as_ref()).mailbox(mailbox);
            let replay = if self.habits.in_events { "events" } else { "response" };
            let params = json!({ "replay": replay });
            let channel = self.bench.client.want_with(TOPIC, params, options);
            consumer.channel = Some(channel.expect("it is accepted"));
            if reader.streams_at_once {
                consumer.stream();
            }
        }
        self.consumers.push(consumer);
    }

    fn options(&self, place: Option<&Place>) -> JoinOptions {
        let Some(place) = place else { return JoinOptions::new() };
        let mut contract = if self.habits.in_events { in_events() } else { Default::default() };
        // On the link of this test, the end of a replay may take any time.
        contract = contract.end_timeout(Duration::MAX);
        if self.habits.contiguous {
            contract = contract.contiguous();
        }
        let cursor = place.front().map_or(Cursor::new(), Cursor::at);
        options(catch_up(cursor).contract(contract))
    }

    /// Takes the place of a consumer that has ended.
    fn resume(&mut self) -> Option<Place> {
        let ended = self.consumers.iter_mut().find(|it| it.can_be_resumed())?;
        (ended.stream, ended.channel) = (None, None);
        ended.place.take()
    }

    fn nth(&mut self, nth: u8) -> Option<&mut Consumer> {
        let count = self.consumers.len();
        self.consumers.get_mut(usize::from(nth).checked_rem(count)?)
    }

    /// Notes that consumers have ended.
    fn end(&mut self, which: impl Fn(&Consumer) -> bool) {
        for consumer in self.consumers.iter_mut().filter(|consumer| which(consumer)) {
            consumer.has_ended = true;
        }
    }

    fn take(&mut self, index: usize, count: usize) -> Result<usize, String> {
        for taken in 0..count {
            let consumer = &mut self.consumers[index];
            let Some(stream) = consumer.stream() else { return Ok(taken) };
            let event = poll(pin!(stream.next()));
            consumer.unread = 0;
            let Poll::Ready(Some(event)) = event else {
                consumer.is_drained = true;
                return Ok(taken);
            };
            consumer
                .see(&self.link, &event)
                .map_err(|wrong| format!("consumer {index}: {wrong}"))?;
            self.pump()?;
        }
        Ok(count)
    }

    fn happen(&mut self, op: Op) -> Result<(), String> {
        let now = self.now();
        match op {
            Op::Append(count) => (0..count).for_each(|_| self.link.append(now)),
            Op::Broadcast => {
                self.broadcasts += 1;
                self.link.broadcast(now, self.broadcasts);
            }
            Op::Arrive(count) => return (0..count).try_for_each(|_| self.arrive(1)),
            Op::ArriveAtOnce(count) => return self.arrive(usize::from(count)),
            Op::Take(nth, count) => {
                let nth = usize::from(nth).checked_rem(self.consumers.len());
                return nth.map_or(Ok(()), |nth| self.take(nth, usize::from(count)).map(drop));
            }
            Op::Cut => {
                self.link.cut();
                self.bench.cut();
            }
            Op::Reconnect(times, count) => {
                for _ in 0..times {
                    self.happen(Op::Cut)?;
                    self.happen(Op::Advance(2_000))?;
                    self.happen(Op::Arrive(count))?;
                }
            }
            Op::Crash => self.link.crash(now),
            Op::Rejoin => {
                let handles = self.consumers.iter().filter(|it| !it.has_ended);
                if let Some(channel) = handles.filter_map(|it| it.channel.as_ref()).next() {
                    drop(channel.rejoin());
                }
            }
            Op::Close => self.link.close(now),
            Op::Forget(newest) => self.link.forget(usize::from(newest)),
            // Without the newest position, a client cannot know that positions have started over.
            Op::Restart(None) if !self.habits.names_newest => {}
            Op::Restart(hole) => {
                self.link.restart(hole.map(u64::from));
                self.bench.cut();
            }
            Op::Open(reader) => self.open(reader),
            Op::DropStream(nth) => {
                if let Some(consumer) = self.nth(nth).filter(|it| it.stream.is_some()) {
                    consumer.stream = None;
                    consumer.has_ended = true;
                }
            }
            Op::DropHandle(nth) => {
                if let Some(consumer) = self.nth(nth) {
                    (consumer.stream, consumer.channel) = (None, None);
                    consumer.has_ended = true;
                }
            }
            Op::Leave(nth) => {
                let left = self.nth(nth).and_then(|it| Some((it.channel.take()?, it.handle)));
                if let Some((channel, handle)) = left {
                    let _ = poll(pin!(channel.leave()));
                    self.end(|consumer| consumer.handle == handle);
                }
            }
            Op::Advance(ms) => self.bench.advance(Duration::from_millis(u64::from(ms))),
        }
        self.pump()
    }

    /// Lets everything arrive and the consumers read, until nothing moves. Then a last message shows whether a
    /// consumer has stopped.
    fn peace(&mut self) -> Result<(), String> {
        let (begin, mailbox, policy) = (Begin::Resumed, 256, MailboxPolicy::DropOldest);
        while self.consumers.iter().any(Consumer::can_be_resumed) {
            self.open(Reader { begin, mailbox, policy, streams_at_once: true });
        }
        let (mut quiet, mut is_last) = (0, false);
        for _ in 0..100_000 {
            self.pump()?;
            let mut moved = self.link.waiting();
            self.arrive(1)?;
            for index in 0..self.consumers.len() {
                let consumer = &self.consumers[index];
                // A mailbox that may not be full is read to its end.
                let is_slow =
                    consumer.place.is_some() && consumer.reader.policy != MailboxPolicy::Close;
                moved += self.take(index, if is_slow { 1 } else { usize::MAX })?;
            }
            quiet = if moved == 0 { quiet + 1 } else { 0 };
            self.bench.advance(Duration::from_millis(1_000));
            if quiet <= 30 {
                continue;
            }
            if core::mem::replace(&mut is_last, true) {
                return self.complete();
            }
            self.link.append(self.now());
            quiet = 0;
        }
        Err("it never becomes quiet".to_owned())
    }

    fn complete(&self) -> Result<(), String> {
        for (index, consumer) in self.consumers.iter().enumerate().filter(|(_, it)| !it.has_ended) {
            let place = consumer.place.as_ref();
            let complete = place.map_or(Ok(()), |place| place.complete(&self.link.history));
            let complete = complete.and_then(|()| consumer.arrivals.complete());
            complete.map_err(|wrong| format!("consumer {index}: {wrong}"))?;
        }
        Ok(())
    }
}

fn run(habits: Habits, readers: &[Reader], ops: &[Op]) -> Result<(), String> {
    let mut world = World::new(habits, readers)?;
    for op in ops {
        world.happen(*op)?;
    }
    world.peace()
}

proptest! {
    #![proptest_config(cases(100, regressions!("catch_up")))]

    /// Each consumer sees each message once and in order, and gaps exactly where the server has forgotten
    /// messages that the consumer had not seen.
    #[test]
    fn random_worlds_keep_order(
        habits in habits(),
        readers in proptest::collection::vec(reader(), 1..3),
        ops in proptest::collection::vec(op(), 1..60),
    ) {
        let result = run(habits, &readers, &ops);
        prop_assert!(result.is_ok(), "{}", result.unwrap_err());
    }
}
