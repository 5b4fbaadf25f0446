//! Consumers that catch up: the positions in the parameters of a join, and the reader that puts replayed
//! and live messages in order.
//!
//! ```text
//!   driver ─▶ mailbox ─▶ CatchUpReader (on the consumer's task) ─▶ consumer
//!                          │  position of each message, Sequencer
//!   join parameters ◀── Follower: cursor ◀─┘
//! ```
//!
//! A function of the application returns the position of a message. It runs on the consumer's task, and on
//! the driver's task for a message that was dropped, and never under a lock. So the mailbox stores no
//! positions. When it is full, it drops every further message until the channel is joined again, or until
//! the reader has read all queued messages and requests a join. The replay of that join contains the dropped
//! messages that have a position. A mailbox with the policy `Close` ends the stream instead.

use core::fmt;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use serde_json::value::{RawValue, to_raw_value};

use super::mailbox::{Item, JoinMark};
use super::messages::{ChannelEvent, Message, StreamEnd};
use crate::catch_up::{Contract, Cursor, Gap, Replay, ReplayError, Sequencer, SequencerStep};
use crate::sync::Mutex;
use crate::topic::Topic;
use crate::wire::payload::Payload;

type PositionFn = dyn Fn(&Message) -> Option<u64> + Send + Sync;

/// The options of a stream that catches up; see
/// [`JoinOptions::catch_up`](super::JoinOptions::catch_up).
///
/// ```
/// use phx_proto::catch_up::{Contract, Cursor};
/// use phx_proto::client::{CatchUp, Message};
///
/// #[derive(serde::Deserialize)]
/// struct Numbered {
///     pos: u64,
/// }
///
/// let saved: Cursor = serde_json::from_str("17")?; // from the last run of the program
/// let catch_up = CatchUp::new(|message: &Message| {
///     message.payload().deserialize::<Numbered>().ok().map(|numbered| numbered.pos)
/// })
/// .cursor(saved)
/// .contract(Contract::in_events("missed", "up_to_date"));
/// # let _ = catch_up;
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct CatchUp {
    position_of: Arc<PositionFn>,
    cursor: Cursor,
    contract: Contract,
}

impl CatchUp {
    /// `position_of` returns the position of a message, or `None` for a message that has no position
    /// and is never replayed.
    ///
    /// The function runs on the task that reads the stream. For messages that a full mailbox dropped it
    /// runs on the driver's task, so it should be quick. It is never called under a lock. If it panics on
    /// the task that reads the stream, the stream ends with
    /// [`StreamEnd::PositionPanicked`](super::StreamEnd::PositionPanicked). A dropped message for which it
    /// panics is counted in [`ChannelEvent::Lagged`](super::ChannelEvent::Lagged). If the function owns a
    /// handle of its own client, that client does not close when the other handles are dropped.
    pub fn new(position_of: impl Fn(&Message) -> Option<u64> + Send + Sync + 'static) -> Self {
        Self {
            position_of: Arc::new(position_of),
            cursor: Cursor::new(),
            contract: Contract::default(),
        }
    }

    /// Sets the cursor to continue from, such as the one that an earlier run of the program stored. The
    /// default is a cursor without a position.
    pub const fn cursor(mut self, cursor: Cursor) -> Self {
        self.cursor = cursor;
        self
    }

    /// Sets how the server receives positions and sends its replay. The default is
    /// [`Contract::in_response`](crate::catch_up::Contract::in_response).
    pub fn contract(mut self, contract: Contract) -> Self {
        self.contract = contract;
        self
    }
}

impl fmt::Debug for CatchUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CatchUp")
            .field("cursor", &self.cursor)
            .field("contract", &self.contract)
            .finish_non_exhaustive()
    }
}

/// The state of one consumer that catches up. The consumer's handle, its stream, its mailbox and the join
/// parameters of its topic share it.
pub(super) struct Follower {
    position_of: Arc<PositionFn>,
    pub(super) contract: Contract,
    place: Mutex<Place>,
}

/// The position of a consumer, and the one that its joins have.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    cursor: Cursor,
    /// The position before the messages that were dropped while the consumer had no position. Joins have it
    /// as long as the consumer has none, if `begun`.
    before_missed: Option<u64>,
    /// The same for messages that reached the consumer, which had to wait for a replay or a join.
    before_held: Option<u64>,
    /// Whether a replay has ended or timed out, or the consumer began without one. From then on, a consumer
    /// without a position needs every later message. Before that, its joins have no position, and the server
    /// chooses the messages.
    begun: bool,
    /// Counts how often the server has started its numbers over, so that a position of earlier numbers is
    /// recognised.
    numbering: u64,
    /// What the latest join parameters asked for.
    asked: Asked,
}

/// What the parameters of a join ask for on behalf of one consumer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Asked {
    /// They have no position of the consumer, which had not begun. The server chooses where it begins.
    #[default]
    Beginning,
    /// They have no position of the consumer, which had begun and lacked no message.
    Nothing,
    /// The messages after a position, which belongs to this numbering.
    After { position: u64, numbering: u64 },
}

impl Asked {
    pub(super) const fn position(self) -> Option<u64> {
        match self {
            Self::Beginning | Self::Nothing => None,
            Self::After { position, .. } => Some(position),
        }
    }
}

impl Place {
    /// Sets the position that the consumer has reached.
    fn reach(&mut self, cursor: Cursor) {
        if cursor.position().is_some() {
            (self.before_missed, self.before_held) = (None, None);
        } else if self.cursor.position().is_some() {
            self.restart();
        }
        self.cursor = cursor;
    }

    /// The server has started its numbers over. The consumer starts over with the messages that the server
    /// chooses.
    fn restart(&mut self) {
        (self.before_missed, self.before_held, self.begun) = (None, None, false);
        self.numbering += 1;
    }

    /// The replay of the latest join has ended or timed out. It does not count if the join had a position of
    /// earlier numbers.
    fn begin(&mut self) {
        self.begun |= match self.asked {
            Asked::Beginning | Asked::Nothing => true,
            Asked::After { numbering, .. } => numbering == self.numbering,
        };
    }

    /// The position from which the consumer needs every message.
    fn needs(&self) -> Option<u64> {
        let missed = self.before_missed.into_iter().chain(self.before_held).min();
        self.cursor.position().or(missed.filter(|_| self.begun))
    }

    /// The messages after this position were dropped, or the end of a replay up to it.
    fn miss_after(&mut self, before: u64) {
        if self.cursor.position().is_none() {
            self.before_missed = self.before_missed.into_iter().chain([before]).min();
        }
    }

    /// Messages that the consumer held back, or read while it waited for a join, are dropped. The first of them
    /// comes after this position.
    fn miss_held(&mut self, before: u64) {
        if self.cursor.position().is_none() {
            self.before_held = self.before_held.into_iter().chain([before]).min();
        }
    }

    /// The position for the next join, which is remembered.
    fn ask(&mut self) -> Option<u64> {
        self.asked = match self.needs() {
            Some(position) => Asked::After { position, numbering: self.numbering },
            None if self.begun => Asked::Nothing,
            None => Asked::Beginning,
        };
        if !self.begun {
            // The server chooses again, so it does not matter what was dropped before.
            (self.before_missed, self.before_held) = (None, None);
        }
        self.asked.position()
    }

    /// The consumer reads a join, which drops the messages that it held back. Returns whether the replay of
    /// this join brings every message that the consumer lacks.
    fn read_join(&mut self, asked: Asked) -> bool {
        match asked {
            Asked::After { position, numbering } => {
                numbering == self.numbering && self.needs().is_none_or(|needs| position <= needs)
            }
            Asked::Nothing => self.cursor.position().is_none() && self.before_held.is_none(),
            Asked::Beginning => {
                // The consumer begins with this join, also if `begun` is already set by the end of its replay.
                self.before_held = None;
                self.cursor.position().is_none()
            }
        }
    }
}

/// The application's position function panicked.
struct Panicked;

impl Follower {
    pub(super) fn new(catch_up: CatchUp) -> Arc<Self> {
        let CatchUp { position_of, cursor, contract } = catch_up;
        Arc::new(Self {
            position_of,
            contract,
            place: Mutex::new(Place { cursor, ..Place::default() }),
        })
    }

    /// Called when the replay of a join has ended or timed out, or when the consumer begins without one.
    pub(super) fn begin(&self) {
        self.place.lock().begin();
    }

    pub(super) fn cursor(&self) -> Cursor {
        self.place.lock().cursor
    }

    /// What the latest join parameters asked for.
    pub(super) fn asked(&self) -> Asked {
        self.place.lock().asked
    }

    /// Calls the application's position function. No lock may be held.
    fn position_of(&self, message: &Message) -> Result<Option<u64>, Panicked> {
        catch_unwind(AssertUnwindSafe(|| (self.position_of)(message))).map_err(|_| Panicked)
    }

    /// Called for messages that were dropped. Returns the number of those that no replay brings: they have
    /// no position, or the position function panics. Messages that belong to a replay are not counted. If
    /// the consumer has no position and a replay has ended, the next join has the position before the first of
    /// these messages. No lock may be held.
    pub(super) fn missed(&self, messages: &[Message]) -> u64 {
        let (mut lost, mut first) = (0, None);
        let mut miss_after =
            |position: u64| first = Some(first.map_or(position, |it: u64| it.min(position)));
        for message in messages {
            let replay = match self.part(message.event()) {
                None => {
                    match self.position_of(message) {
                        Ok(Some(position)) => miss_after(position.saturating_sub(1)),
                        Ok(None) | Err(Panicked) => lost += 1,
                    }
                    continue;
                }
                // A consumer that has a position continues from there.
                Some(_) if self.cursor().position().is_some() => continue,
                Some(Part::Part) => self.contract.read(message.payload()),
                Some(Part::End) => self.contract.read_end(message.payload()),
            };
            let Replay { messages, newest, .. } = replay.unwrap_or_default();
            newest.into_iter().for_each(&mut miss_after);
            for replayed in messages {
                let message = Message::new(message.topic.clone(), replayed.event, replayed.payload);
                if let Ok(Some(position)) = self.position_of(&message) {
                    miss_after(position.saturating_sub(1));
                }
            }
        }
        if let Some(first) = first {
            let mut place = self.place.lock();
            // If the present join had a position, the next one has it again. That these messages come after it is
            // not certain: the server may have started its numbers over.
            if place.asked.position().is_none() {
                place.miss_after(first);
            }
        }
        lost
    }

    /// Whether a message of this event ends the replay, continues it, or neither.
    pub(super) fn part(&self, event: &str) -> Option<Part> {
        let events = self.contract.events.as_ref()?;
        if event == events.end {
            Some(Part::End)
        } else {
            (event == events.part).then_some(Part::Part)
        }
    }
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower").field("cursor", &self.cursor()).finish_non_exhaustive()
    }
}

/// The kind of an event that belongs to a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Part,
    End,
}

/// The consumers of one topic that catch up. A join sends the smallest position of the consumers whose
/// contracts name the same parameter, so that one replay serves all of them.
#[derive(Debug, Default)]
pub(super) struct Positions(Mutex<Vec<Arc<Follower>>>);

impl Positions {
    /// Adds a consumer. Returns whether it is the first one.
    pub(super) fn add(&self, follower: Arc<Follower>) -> bool {
        let mut followers = self.0.lock();
        followers.push(follower);
        followers.len() == 1
    }

    /// Removes a consumer. Returns whether it was the last one.
    pub(super) fn remove(&self, follower: &Arc<Follower>) -> bool {
        let mut followers = self.0.lock();
        followers.retain(|other| !Arc::ptr_eq(other, follower));
        followers.is_empty()
    }

    /// Adds the positions to join parameters. Returns `None` if there is a position and the parameters are
    /// not a JSON object.
    pub(super) fn add_to(&self, params: Payload) -> Option<Payload> {
        let mut since = BTreeMap::new();
        for follower in self.0.lock().iter() {
            let Some(position) = follower.place.lock().ask() else { continue };
            let smallest = since.entry(follower.contract.param.clone()).or_insert(position);
            *smallest = position.min(*smallest);
        }
        if since.is_empty() {
            return Some(params);
        }
        let mut members: BTreeMap<String, Box<RawValue>> = params.deserialize().ok()?;
        for (name, position) in since {
            members.insert(name, to_raw_value(&position).ok()?);
        }
        Payload::json(&members).ok()
    }
}

/// Whether a position can be added to these join parameters.
pub(super) fn is_object(params: &Payload) -> bool {
    params.deserialize::<BTreeMap<String, Box<RawValue>>>().is_ok()
}

/// The reader of a mailbox whose consumer catches up.
#[derive(Debug)]
pub(super) struct CatchUpReader {
    follower: Arc<Follower>,
    topic: Topic,
    sequencer: Sequencer<Message>,
    /// The number of the last join that was read.
    joins: u64,
}

/// A result of [`CatchUpReader::next`].
pub(super) enum Read {
    Event(ChannelEvent),
    /// Messages may be missing: join the channel again.
    Rejoin,
}

impl CatchUpReader {
    /// `live` is true if the consumer begins on a channel that is already joined, and has no position.
    pub(super) fn new(
        follower: Arc<Follower>,
        topic: Topic,
        (messages_max, bytes_max): (usize, usize),
        live: bool,
    ) -> Self {
        let cursor = follower.cursor();
        let mut sequencer = Sequencer::new(cursor, &follower.contract, messages_max, bytes_max);
        if live {
            sequencer.begin_live();
        }
        Self { follower, topic, sequencer, joins: 0 }
    }

    /// The number of the last join that was read.
    pub(super) const fn joins(&self) -> u64 {
        self.joins
    }

    /// The next event for the consumer, or a request to rejoin; `None` if [`read`](Self::read) must be called
    /// first. This method also stores the position that the consumer has then reached.
    pub(super) fn next(&mut self) -> Option<Read> {
        let step = self.sequencer.next_step()?;
        self.follower.place.lock().reach(self.sequencer.cursor());
        Some(match step {
            SequencerStep::Message(message) => Read::Event(ChannelEvent::Message(message)),
            SequencerStep::CaughtUp => Read::Event(ChannelEvent::CaughtUp),
            SequencerStep::Gap(Gap { after, through }) => {
                Read::Event(ChannelEvent::GapRemains { after, through })
            }
            SequencerStep::Rejoin => Read::Rejoin,
        })
    }

    /// Called before the sequencer drops the messages that it holds back.
    fn miss_held(&self) {
        if let Some(first) = self.sequencer.first_held() {
            self.follower.place.lock().miss_held(first.saturating_sub(1));
        }
    }

    /// Reads an item of the mailbox. If this returns an event, the consumer must get it before the results of
    /// [`next`](Self::next).
    pub(super) fn read(&mut self, item: Item) -> Option<ChannelEvent> {
        match item {
            Item::Event(ChannelEvent::Message(message)) => self.read_message(message),
            Item::Event(event) => {
                if matches!(event, ChannelEvent::Interrupted { .. }) {
                    self.miss_held();
                    self.sequencer.interrupted();
                }
                Some(event)
            }
            Item::Joined { response, mark } => self.read_join(response, mark),
            Item::ReplayTimedOut => {
                self.sequencer.replay_failed();
                None
            }
            Item::Missing => {
                self.miss_held();
                self.sequencer.lost();
                None
            }
        }
    }

    fn read_join(&mut self, response: Payload, mark: JoinMark) -> Option<ChannelEvent> {
        self.joins = mark.number;
        self.miss_held();
        let mut read = Ok(());
        let is_served = self.follower.place.lock().read_join(mark.asked);
        if !is_served {
            // The join was under way before this consumer existed or had a position, before it found out that
            // the server had started its numbers over, or before it dropped messages that it had held back.
            self.sequencer.lost();
        } else {
            self.sequencer.joined_after(mark.asked.position());
            if self.follower.contract.events.is_none() {
                read = self.read_replay(self.follower.contract.read(&response), true);
            }
        }
        match read {
            Err(Panicked) => Some(ChannelEvent::Closed(StreamEnd::PositionPanicked)),
            Ok(()) => (!mark.first).then_some(ChannelEvent::Resumed { response }),
        }
    }

    fn read_message(&mut self, message: Message) -> Option<ChannelEvent> {
        let contract = &self.follower.contract;
        let read = match self.follower.part(message.event()) {
            Some(Part::Part) => self.read_replay(contract.read(message.payload()), false),
            Some(Part::End) => self.read_replay(contract.read_end(message.payload()), true),
            None => self.follower.position_of(&message).map(|position| {
                // A message arrives before the join that was requested. That join must ask for it.
                if let Some(position) = position.filter(|_| self.sequencer.is_waiting()) {
                    self.follower.place.lock().miss_held(position.saturating_sub(1));
                }
                // A held message must not keep the read buffer alive.
                let held = position.is_some() && self.sequencer.is_replaying();
                let message = if held { message.compact() } else { message };
                let weight = message.weight();
                self.sequencer.message(position, message, weight);
            }),
        };
        read.err().map(|Panicked| ChannelEvent::Closed(StreamEnd::PositionPanicked))
    }

    /// Reads a part of a replay. `end` is true for its last part.
    fn read_replay(
        &mut self,
        replay: Result<Replay, ReplayError>,
        end: bool,
    ) -> Result<(), Panicked> {
        let Ok(Replay { messages, truncated, oldest, newest }) = replay else {
            self.sequencer.replay_failed();
            return Ok(());
        };
        let mut numbered = Vec::with_capacity(messages.len());
        for replayed in messages {
            let message = Message::new(self.topic.clone(), replayed.event, replayed.payload);
            numbered.push((self.follower.position_of(&message)?, message));
        }
        let asked = self.sequencer.asked();
        self.sequencer.replay(numbered, oldest, newest);
        if asked.is_some() && self.sequencer.asked().is_none() {
            self.follower.place.lock().restart();
        }
        if truncated {
            self.sequencer.lost();
        } else if end {
            self.sequencer.replay_ended();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::json;

    use super::*;
    use crate::event::cause::Interruption;

    fn position_of(message: &Message) -> Option<u64> {
        message.payload().to_value().ok()?["pos"].as_u64()
    }

    /// A reader that waits for the events of a replay.
    fn replaying() -> CatchUpReader {
        let contract = Contract::in_events("missed", "caught_up");
        let catch_up = CatchUp::new(position_of).cursor(Cursor::at(5)).contract(contract);
        let (follower, topic) = (Follower::new(catch_up), Topic::from("orders"));
        let mut reader = CatchUpReader::new(follower, topic, (8, 1 << 20), false);
        let asked = Asked::After { position: 5, numbering: 0 };
        let mark = JoinMark { number: 1, first: true, asked };
        let response = Payload::from(json!({}));
        assert!(reader.read(Item::Joined { response, mark }).is_none());
        reader
    }

    fn message(event: &str, payload: Payload) -> Item {
        let message = Message::new(Topic::from("orders"), event, payload);
        Item::Event(ChannelEvent::Message(message))
    }

    fn next(reader: &mut CatchUpReader) -> Option<ChannelEvent> {
        match reader.next()? {
            Read::Event(event) => Some(event),
            Read::Rejoin => panic!("nothing is missing"),
        }
    }

    /// A held message may wait for a long time, so it is copied out of the read buffer. The others are
    /// not copied.
    #[test]
    fn held_message_is_copied() {
        let buffer = Bytes::from_static(br#"{"pos":6}{"pos":7}{"kind":1}"#);
        let mut reader = replaying();
        let part = |start| Payload::received_json(buffer.slice(start..start + 9));
        assert!(reader.read(message("order", part(0))).is_none());
        assert!(
            reader.read(message("typing", Payload::received_json(buffer.slice(18..)))).is_none()
        );
        assert!(reader.read(message("caught_up", Payload::from(json!({})))).is_none());
        assert!(reader.read(message("order", part(9))).is_none());
        let mut shares = || match next(&mut reader) {
            Some(ChannelEvent::Message(message)) => {
                Some(buffer.as_ptr_range().contains(&message.payload().as_bytes().as_ptr()))
            }
            _ => None,
        };
        // The message without a position is never held.
        assert_eq!(
            [shares(), shares(), shares(), shares()],
            [Some(true), None, Some(false), Some(true)]
        );
    }

    /// A consumer without a position has requested a join, and another thread delivers a message before that
    /// join begins. The join asks for the message.
    #[test]
    fn message_before_requested_join_is_asked_for() {
        let catch_up =
            CatchUp::new(position_of).contract(Contract::in_events("missed", "caught_up"));
        let (follower, topic) = (Follower::new(catch_up), Topic::from("orders"));
        let positions = Positions::default();
        positions.add(follower.clone());
        follower.begin();
        let mut reader = CatchUpReader::new(follower, topic, (8, 1 << 20), true);
        assert!(reader.read(Item::Missing).is_none());
        assert!(matches!(reader.next(), Some(Read::Rejoin)));
        assert!(reader.read(message("order", Payload::from(json!({"pos": 9})))).is_none());
        assert!(reader.next().is_none());
        let params = positions.add_to(Payload::from(json!({}))).expect("an object");
        assert_eq!(params.to_value().ok(), Some(json!({"since": 8})));
    }

    /// The timeout of an interrupted replay is not reported, because the server sends a new replay after the
    /// next join.
    #[test]
    fn interrupted_replay_does_not_time_out() {
        let mut reader = replaying();
        let (cause, count) = (Interruption::Resync, 1);
        let interrupted = ChannelEvent::Interrupted { cause, count };
        assert!(reader.read(Item::Event(interrupted)).is_some());
        assert!(reader.read(Item::ReplayTimedOut).is_none());
        assert!(next(&mut reader).is_none());
    }
}
