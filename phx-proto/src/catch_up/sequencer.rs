//! The machine that puts replayed and live messages in order.
//!
//! ```text
//!                joined                      replay_ended, replay_failed
//!   Waiting ─────────────▶ Replaying ──────────────────────────────────▶ Live
//!      ▲  ▲                 │     │ joined                               │  │
//!      │  │   interrupted,  │     └──▶ Replaying                         │  │ joined
//!      │  │   lost, numbers │                                            │  └──▶ Replaying
//!      │  └─────────────────┘                 interrupted, lost, a hole  │
//!      └─────────────────────────────────────────────────────────────────┘
//!
//!   any state ─begin_live─▶ LiveWithoutReplay ─joined─▶ Replaying
//!                             └─interrupted, lost, a hole─▶ Waiting
//! ```
//!
//! * Waiting: a join will follow, whose replay brings every message after the cursor. Messages with a
//!   position are dropped.
//! * Replaying: replayed messages are delivered, and live messages are held back. A live message that
//!   exceeds the bounds is dropped, and the channel is joined again after the held messages.
//! * Live: live messages are delivered. Those that the replay has brought are duplicates.
//! * LiveWithoutReplay: live messages are delivered. A replay that arrives is for other consumers, and its
//!   messages with a position are dropped.
//!
//! `front` is the position up to which every message was delivered, queued for delivery or reported as a
//! gap. The cursor follows it when the consumer takes the queued steps.

use std::collections::VecDeque;

use super::{Contract, Cursor, Gap};

/// Puts the replayed and the live messages of one topic in order, for one consumer.
///
/// The caller passes in what happens on the channel, and takes every [step](Self::next_step) before it
/// passes in the next event. The type `M` is a message of the caller. [The module](super) describes what
/// the consumer sees.
///
/// ```
/// use phx_proto::catch_up::{Contract, Cursor, Sequencer, SequencerStep};
///
/// let mut sequencer = Sequencer::new(Cursor::at(5), &Contract::in_response(), 256, 1 << 20);
/// sequencer.joined();
/// sequencer.message(Some(8), "eight", 100); // a live message, held back
/// sequencer.replay(vec![(Some(6), "six"), (Some(8), "eight")], Some(0), Some(8));
/// sequencer.replay_ended();
/// let mut seen = Vec::new();
/// while let Some(step) = sequencer.next_step() {
///     seen.push(step);
/// }
/// use SequencerStep::{CaughtUp, Message};
/// assert_eq!(seen, [Message("six"), Message("eight"), CaughtUp]);
/// assert_eq!(sequencer.cursor(), Cursor::at(8));
/// ```
#[derive(Clone, Debug)]
pub struct Sequencer<M> {
    cursor: Cursor,
    front: Option<u64>,
    /// The position in the parameters of the present join, if `front` was set to it.
    asked: Option<u64>,
    /// The position up to which the replay of the present join has brought everything.
    floor: Option<u64>,
    /// The newest position that the replay of the present join named.
    newest: Option<u64>,
    contiguous: bool,
    /// The position of a live message that followed a hole and was dropped, because the replay of the
    /// next join should bring it. If that replay does not, the server has forgotten it too.
    beyond_hole: Option<u64>,
    /// A gap without an end was reported last. A hole before the next message is a part of it.
    gap_is_open: bool,
    messages_max: usize,
    bytes_max: usize,
    state: State,
    /// In the order of their positions.
    held: VecDeque<Held<M>>,
    held_bytes: usize,
    /// Whether live messages were dropped because the held ones reached a bound.
    overflowed: bool,
    ready: VecDeque<Ready<M>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Replaying,
    Live,
    /// Like `Live`, but the channel was joined for other consumers. A replay that arrives is for them.
    LiveWithoutReplay,
}

#[derive(Clone, Debug)]
struct Held<M> {
    position: u64,
    message: M,
    weight: usize,
}

/// A step for the consumer, and its effect on the cursor.
#[derive(Clone, Debug)]
struct Ready<M> {
    step: SequencerStep<M>,
    cursor: Option<Cursor>,
}

/// What the consumer sees next.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SequencerStep<M> {
    /// The next message.
    Message(M),
    /// The replay is over: the consumer has taken every message up to the server's present.
    CaughtUp,
    /// Messages are missing here, and the server no longer has them.
    Gap(Gap),
    /// Messages are missing, and the server may still have them: join the channel again with
    /// [`Socket::rejoin`](crate::Socket::rejoin).
    Rejoin,
}

impl<M> Sequencer<M> {
    /// Makes a sequencer that continues after `cursor`. The bounds are for live messages that are held
    /// back during a replay: their number, and their bytes. One message always fits.
    #[must_use]
    pub const fn new(
        cursor: Cursor,
        contract: &Contract,
        messages_max: usize,
        bytes_max: usize,
    ) -> Self {
        Self {
            cursor,
            front: cursor.position(),
            asked: None,
            floor: None,
            newest: None,
            contiguous: contract.contiguous,
            beyond_hole: None,
            gap_is_open: false,
            messages_max,
            bytes_max,
            state: State::Waiting,
            held: VecDeque::new(),
            held_bytes: 0,
            overflowed: false,
            ready: VecDeque::new(),
        }
    }

    /// The position of the last message that the consumer took. Pass it with the next join.
    #[must_use]
    pub const fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// Takes the next step; `None` until the next event. Taking a message advances the cursor.
    #[must_use = "the consumer must see each step"]
    pub fn next_step(&mut self) -> Option<SequencerStep<M>> {
        let Ready { step, cursor } = self.ready.pop_front()?;
        self.cursor = cursor.unwrap_or(self.cursor);
        Some(step)
    }
}

/// # Events of the channel
impl<M> Sequencer<M> {
    /// The channel is joined, with the [cursor](Self::cursor) in the parameters. A replay follows.
    pub fn joined(&mut self) {
        self.joined_after(None);
    }

    /// Like [`joined`](Self::joined). A consumer without a position may ask for the messages after `asked`.
    pub(crate) fn joined_after(&mut self, asked: Option<u64>) {
        self.wait();
        self.state = State::Replaying;
        // If this is false, `front` is the cursor, or the position of a queued step that the consumer takes
        // before the replay. `front` must then stay.
        let is_free = self.cursor.position().is_none() && self.front == self.asked;
        self.asked = asked.filter(|_| is_free);
        if is_free {
            self.front = asked;
        }
    }

    /// The channel was joined for another consumer, and this one begins now. No replay follows.
    pub fn begin_live(&mut self) {
        self.wait();
        self.state = State::LiveWithoutReplay;
    }

    /// The channel lost its join, and will be joined again.
    pub fn interrupted(&mut self) {
        self.wait();
    }

    /// Messages were lost on the way here, for example because a queue was full.
    pub fn lost(&mut self) {
        self.wait();
        self.push(SequencerStep::Rejoin, None);
    }

    /// A replay, or a part of it, arrived: messages with their positions, in order, and the
    /// [positions](Contract#the-replay) that the server named.
    pub fn replay(
        &mut self,
        messages: Vec<(Option<u64>, M)>,
        oldest: Option<u64>,
        newest: Option<u64>,
    ) {
        if self.state == State::Replaying {
            self.newest = newest.or(self.newest);
            if newest.is_some_and(|newest| self.front > Some(newest)) {
                return self.numbers_restarted();
            }
            self.forgot(oldest.filter(|oldest| newest.is_none_or(|newest| *oldest <= newest)));
        }
        // A server that sends the messages of a part out of order has broken the contract. They are sorted, so
        // that none of them is dropped because a greater position of the same part came first.
        let mut messages: Vec<_> = messages
            .into_iter()
            .scan(None, |last, (position, message)| {
                *last = position.or(*last);
                Some((*last, position, message))
            })
            .collect();
        messages.sort_by_key(|(place, ..)| *place);
        for (_, position, message) in messages {
            match (self.state, position) {
                (State::Replaying, Some(position)) => self.replayed(position, message),
                // A part that comes after the end of its replay.
                (State::Live, Some(position)) => self.live(position, message),
                (State::Waiting | State::LiveWithoutReplay, Some(_)) => {}
                (_, None) => self.push(SequencerStep::Message(message), None),
            }
        }
    }

    /// The replay is over.
    pub fn replay_ended(&mut self) {
        if self.state != State::Replaying {
            return;
        }
        self.forgot_hole();
        self.floor = self.front;
        if self.front.is_none() && self.held.is_empty() {
            self.front = self.newest;
        }
        let cursor = self.front.map(Cursor::at);
        self.push(SequencerStep::CaughtUp, cursor);
        self.release();
    }

    /// The replay is invalid, or its end did not come in time.
    pub fn replay_failed(&mut self) {
        if self.state != State::Replaying {
            return;
        }
        self.floor = self.front;
        self.push(SequencerStep::Gap(Gap { after: self.front, through: None }), None);
        self.beyond_hole = None;
        self.gap_is_open = true;
        self.release();
    }

    /// A message arrived that is not a part of a replay. `weight` is its memory in bytes.
    pub fn message(&mut self, position: Option<u64>, message: M, weight: usize) {
        match (self.state, position) {
            (_, None) => self.push(SequencerStep::Message(message), None),
            (State::Waiting, Some(_)) => {}
            (State::Replaying, Some(position)) => self.hold(position, message, weight),
            (State::Live | State::LiveWithoutReplay, Some(position)) => {
                self.live(position, message);
            }
        }
    }

    /// The position in the parameters of the present join, if the consumer had none of its own. A replay
    /// clears it if the server has started its numbers over.
    #[cfg(feature = "driver")]
    pub(crate) const fn asked(&self) -> Option<u64> {
        self.asked
    }

    /// The position of the first message that is held back.
    #[cfg(feature = "driver")]
    pub(crate) fn first_held(&self) -> Option<u64> {
        self.held.front().map(|held| held.position)
    }

    /// Whether the channel will be joined again, whose replay brings the messages that arrive until then.
    #[cfg(feature = "driver")]
    pub(crate) const fn is_waiting(&self) -> bool {
        matches!(self.state, State::Waiting)
    }

    /// Whether live messages are held back until the replay ends.
    #[must_use]
    pub const fn is_replaying(&self) -> bool {
        matches!(self.state, State::Replaying)
    }
}

impl<M> Sequencer<M> {
    fn push(&mut self, step: SequencerStep<M>, cursor: Option<Cursor>) {
        self.ready.push_back(Ready { step, cursor });
    }

    /// Forgets what belongs to the present join, whose messages the next replay brings again.
    fn wait(&mut self) {
        self.state = State::Waiting;
        self.floor = None;
        self.newest = None;
        self.gap_is_open = false;
        self.held = VecDeque::new();
        self.held_bytes = 0;
        self.overflowed = false;
    }

    /// The server's newest position is smaller than one that it sent before, so it cannot replay after
    /// the present position. The next join has no position.
    fn numbers_restarted(&mut self) {
        let gap = Gap { after: self.front, through: None };
        self.push(SequencerStep::Gap(gap), Some(Cursor::new()));
        (self.front, self.asked) = (None, None);
        self.beyond_hole = None;
        self.lost();
    }

    /// The server no longer has the messages up to `oldest`.
    fn forgot(&mut self, oldest: Option<u64>) {
        let last_held = self.held.back().map(|held| held.position);
        if self.front.is_none() && self.overflowed && last_held <= oldest {
            // The consumer begins with the held messages, and what was dropped after them is forgotten.
            for Held { position, message, .. } in self.take_held() {
                self.deliver_next(position, message);
            }
        }
        let (Some(front), Some(oldest)) = (self.front, oldest) else { return };
        // Live messages are complete from the first one on, unless some were dropped.
        let held = self.held.iter().filter(|_| !self.overflowed);
        let first = held.map(|held| held.position).find(|held| *held > front);
        let through = first.map_or(oldest, |first| oldest.min(first - 1));
        if front < through {
            self.report_gap(front, through);
        }
    }

    /// At the end of a replay: if it lacks the message that followed a hole, the server no longer has the
    /// messages up to that one. Without this gap, each live message would follow a hole.
    fn forgot_hole(&mut self) {
        let (Some(front), Some(beyond)) = (self.front, self.beyond_hole.take()) else { return };
        let through = self.held.front().map_or(beyond, |held| held.position - 1);
        if front < beyond.min(through) {
            self.report_gap(front, through);
        }
    }

    fn report_gap(&mut self, after: u64, through: u64) {
        let gap = Gap { after: Some(after), through: Some(through) };
        self.push(SequencerStep::Gap(gap), Some(Cursor::at(through)));
        self.front = Some(through);
    }

    fn replayed(&mut self, position: u64, message: M) {
        // If the replay lacks a live message, that message arrived before the server read its stored
        // messages, and the server had already forgotten it by then.
        while self.held.front().is_some_and(|held| held.position <= position) {
            let Some(held) = self.held.pop_front() else { break };
            self.held_bytes = self.held_bytes.saturating_sub(held.weight);
            if held.position < position {
                self.deliver_next(held.position, held.message);
            }
        }
        self.deliver_next(position, message);
    }

    /// Delivers a message of the replay, unless it is a duplicate.
    fn deliver_next(&mut self, position: u64, message: M) {
        if self.front >= Some(position) {
            return;
        }
        if let Some(front) = self.hole_before(position) {
            self.report_gap(front, position - 1);
        }
        self.deliver(position, message);
    }

    /// The front, if positions are contiguous and there is a hole between the front and this position.
    fn hole_before(&self, position: u64) -> Option<u64> {
        let may_be = self.contiguous && !self.gap_is_open;
        self.front.filter(|front| may_be && position.saturating_sub(1) > *front)
    }

    fn deliver(&mut self, position: u64, message: M) {
        self.front = Some(position);
        self.gap_is_open = false;
        self.push(SequencerStep::Message(message), Some(Cursor::at(position)));
    }

    fn hold(&mut self, position: u64, message: M, weight: usize) {
        if self.front >= Some(position) {
            return;
        }
        let bytes = self.held_bytes.saturating_add(weight);
        let full = self.held.len() >= self.messages_max || bytes > self.bytes_max;
        // A message after a dropped one would come too early.
        if self.overflowed || (full && !self.held.is_empty()) {
            self.overflowed = true;
            return;
        }
        self.held_bytes = bytes;
        // A server that sends live messages out of order has broken the contract.
        let place = self.held.partition_point(|held| held.position <= position);
        self.held.insert(place, Held { position, message, weight });
    }

    fn take_held(&mut self) -> VecDeque<Held<M>> {
        self.held_bytes = 0;
        core::mem::take(&mut self.held)
    }

    /// Ends the replay and delivers the held messages.
    fn release(&mut self) {
        self.state = State::Live;
        let overflowed = self.overflowed;
        for Held { position, message, .. } in self.take_held() {
            if self.state == State::Live {
                self.live(position, message);
            }
        }
        if overflowed && self.state == State::Live {
            self.lost();
        }
    }

    fn live(&mut self, position: u64, message: M) {
        if self.floor >= Some(position) {
            // A duplicate: the replay has already brought this message.
        } else if self.hole_before(position).is_some() {
            self.beyond_hole = Some(position);
            self.lost();
        } else if self.front >= Some(position) {
            // The server sends live messages out of order. The cursor is already beyond this one.
            self.push(SequencerStep::Message(message), None);
        } else {
            self.deliver(position, message);
        }
    }
}

#[cfg(test)]
mod tests;
