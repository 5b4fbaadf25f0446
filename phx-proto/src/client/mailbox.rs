//! The mailbox: what waits for a consumer that is slower than the server.
//!
//! ```text
//!   oldest                                                newest
//!   [gap│message] [gap│message] … [gap│message]  [tail gap]
//!     └ lagged, interrupted, resumed                └ and closed
//! ```
//!
//! A gap is a summary of everything that happened between two messages, so its size does not
//! depend on how often the connection came and went; there is memory for it only when something
//! happened. Dropping a message merges the gap before it
//! into the one behind it: lifecycle events are never lost, and the loss itself becomes visible.
//! The socket is never stopped from reading.
//!
//! A reader that has fallen behind takes several messages at once, so that it does not meet the
//! driver at the lock for each of them. They count as waiting until it comes back.
//!
//! The bound in bytes counts the memory that is held: events, payloads, the responses in the gaps, and
//! the read buffers behind them. When it is passed, messages are copied out of those buffers, and only
//! when that is not enough is any dropped; see [`weight`](crate::wire::weight).

use std::collections::VecDeque;

use super::messages::{ChannelEvent, Message, StreamEnd};
use crate::event::cause::Interruption;
use crate::wire::payload::Payload;
use crate::wire::weight::{Account, ENTRY, Load};

/// What a full mailbox does with the next message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum MailboxPolicy {
    /// Drops the oldest message: the consumer sees what is recent. The default.
    #[default]
    DropOldest,
    /// Drops the new message: the consumer sees what it has not seen yet, in order.
    DropNewest,
    /// Drops everything that waits and joins the channel anew, so that the consumer starts over
    /// from the server's present state: right for channels that carry state. The consumer sees
    /// `Lagged`, `Interrupted` and `Resumed`; the other subscribers of the topic see the last two.
    /// While nobody reads the mailbox of a handle it drops the oldest, and a loss is made good
    /// when somebody begins to.
    Rejoin,
    /// Ends the stream, after what it already holds.
    Close,
}

/// The bounds of a mailbox of its own, and what it does when it is full.
///
/// ```
/// use phx_proto::client::{MailboxOptions, MailboxPolicy};
///
/// // The 16 newest readings and no more.
/// let few = MailboxOptions::new().messages(16).policy(MailboxPolicy::DropOldest);
/// # let _ = few;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct MailboxOptions {
    pub(super) messages: Option<usize>,
    pub(super) bytes: Option<usize>,
    pub(super) policy: MailboxPolicy,
}

impl MailboxOptions {
    /// The bounds of [`Config::mailbox`](crate::Config::mailbox), and the default of [`MailboxPolicy`].
    pub const fn new() -> Self {
        Self { messages: None, bytes: None, policy: MailboxPolicy::DropOldest }
    }

    /// How many messages it holds. One always fits, so zero is as one.
    pub const fn messages(mut self, messages: usize) -> Self {
        self.messages = Some(messages);
        self
    }

    /// How many bytes of memory its messages keep alive. One message always fits, however large.
    pub const fn bytes(mut self, bytes: usize) -> Self {
        self.bytes = Some(bytes);
        self
    }

    /// What it does when it is full.
    pub const fn policy(mut self, policy: MailboxPolicy) -> Self {
        self.policy = policy;
        self
    }
}

impl Default for MailboxOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// The bounds of one mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) messages: usize,
    pub(super) bytes: usize,
    pub(super) policy: MailboxPolicy,
}

/// A reader may have an eighth of what a mailbox may hold in hand.
const LENT_PART: usize = 8;

/// What waits for one consumer.
#[derive(Debug)]
pub(super) struct Mailbox {
    limits: Limits,
    entries: VecDeque<Entry>,
    tail: Option<Box<Gap>>,
    /// What the entries count for, gaps excepted.
    account: Account,
    /// What the gaps count for.
    gap_bytes: usize,
    /// How many messages the reader has in hand, and the bytes that they keep alive.
    lent: (usize, usize),
    end: Option<StreamEnd>,
    /// Messages dropped since it was asked last.
    dropped: u64,
    /// Those messages, and those that were replaced by copies: they are dropped after the lock.
    discarded: Vec<Message>,
    /// Somebody reads it: a channel is not joined anew for a reader that there is not.
    read: bool,
}

#[derive(Debug)]
struct Entry {
    before: Option<Box<Gap>>,
    message: Message,
    load: Load,
}

/// What happened between two messages.
#[derive(Clone, Debug, Default)]
struct Gap {
    lagged: u64,
    interrupted: Option<(Interruption, u32)>,
    resumed: Option<Payload>,
}

impl Mailbox {
    pub(super) const fn new(limits: Limits) -> Self {
        Self {
            limits,
            entries: VecDeque::new(),
            tail: None,
            account: Account::new(limits.bytes),
            gap_bytes: 0,
            lent: (0, 0),
            end: None,
            dropped: 0,
            discarded: Vec::new(),
            read: false,
        }
    }

    /// Says that it is read from now on; false when the channel must be joined anew, because its
    /// policy says so and something is missing already.
    pub(super) fn begin(&mut self) -> bool {
        self.read = true;
        let gaps = self.entries.iter().map(|entry| &entry.before).chain([&self.tail]);
        let lagged = gaps.flatten().any(|gap| gap.lagged > 0);
        if !lagged || self.limits.policy != MailboxPolicy::Rejoin || self.end.is_some() {
            return true;
        }
        while !self.entries.is_empty() {
            self.drop_oldest();
        }
        false
    }

    /// Adds a message that counts for `load`; false when the channel must be joined again.
    /// One message always fits, however large.
    #[inline]
    pub(super) fn message(&mut self, message: Message, load: Load) -> bool {
        if self.end.is_some() {
            self.discarded.push(message);
            return true;
        }
        while self.is_full_for(load) {
            match self.limits.policy {
                MailboxPolicy::Rejoin if !self.read => self.drop_oldest(),
                MailboxPolicy::DropOldest => self.drop_oldest(),
                MailboxPolicy::DropNewest => {
                    self.drop_new(message);
                    return true;
                }
                MailboxPolicy::Rejoin => {
                    while !self.entries.is_empty() {
                        self.drop_oldest();
                    }
                    self.drop_new(message);
                    return false;
                }
                MailboxPolicy::Close => {
                    self.drop_new(message);
                    self.end = Some(StreamEnd::Overflow);
                    return true;
                }
            }
        }
        self.account.add(load);
        let before = self.tail.take();
        self.entries.push_back(Entry { before, message, load });
        self.settle();
        true
    }

    /// Copies messages out of the read buffers that they keep alive, if the bound is passed.
    #[inline]
    fn settle(&mut self) {
        let (beside, discarded) = (self.beside(), &mut self.discarded);
        let copy = |entry: &mut Entry| {
            let copy = entry.message.compact();
            entry.load = Load::own(copy.weight());
            discarded.push(core::mem::replace(&mut entry.message, copy));
            entry.load
        };
        self.account.settle(&mut self.entries, beside, |entry| entry.load, copy);
    }

    pub(super) fn interrupted(&mut self, cause: Interruption) {
        self.change_tail(|tail| {
            let count = tail.interrupted.as_ref().map_or(0, |(_, count)| *count);
            tail.interrupted = Some((cause, count.saturating_add(1)));
            tail.resumed = None;
        });
    }

    pub(super) fn resumed(&mut self, response: Payload) {
        self.change_tail(|tail| tail.resumed = Some(response));
    }

    /// Adds what waits here, of the messages those that `takes` names, to another mailbox, which is new.
    pub(super) fn copy_to(&self, other: &mut Self, takes: impl Fn(&Message) -> bool) {
        let append = |other: &mut Self, gap: &Option<Box<Gap>>| {
            let Some(gap) = gap else { return };
            other.change_tail(|tail| {
                let earlier = core::mem::replace(tail, Gap::clone(gap));
                tail.put_before(earlier);
            });
        };
        for entry in &self.entries {
            append(other, &entry.before);
            if takes(&entry.message) {
                other.message(entry.message.clone(), entry.load);
            }
        }
        append(other, &self.tail);
        // An overflow of this mailbox is none of the other.
        if let Some(end @ StreamEnd::Channel(_)) = &self.end {
            other.close(end.clone());
        }
    }

    fn change_tail(&mut self, change: impl FnOnce(&mut Gap)) {
        if self.end.is_none() {
            let before = self.tail.as_ref().map_or(0, |gap| gap.weight());
            let tail = self.tail.get_or_insert_default();
            change(tail);
            self.gap_bytes = self.gap_bytes.saturating_sub(before).saturating_add(tail.weight());
        }
    }

    /// Drops everything but the end; how many messages were lost with it.
    pub(super) fn clear(&mut self) -> u64 {
        let lost = self.entries.len() as u64;
        let (end, discarded) = (self.end.take(), core::mem::take(&mut self.discarded));
        let entries = core::mem::take(&mut self.entries);
        *self = Self { end, dropped: lost, discarded, read: self.read, ..Self::new(self.limits) };
        self.discarded.extend(entries.into_iter().map(|entry| entry.message));
        lost
    }

    /// How many messages were dropped since the last call. Zero until the mailbox is read: nothing is
    /// lost to a consumer that does not exist.
    pub(super) const fn take_dropped(&mut self) -> u64 {
        if self.read { core::mem::replace(&mut self.dropped, 0) } else { 0 }
    }

    /// The messages that were dropped, for the caller to drop after the lock.
    pub(super) fn take_discarded(&mut self) -> Vec<Message> {
        core::mem::take(&mut self.discarded)
    }

    /// Why the stream ends, once it is known.
    pub(super) const fn end(&self) -> Option<&StreamEnd> {
        self.end.as_ref()
    }

    /// The first end counts; nothing is taken in after it.
    pub(super) fn close(&mut self, end: StreamEnd) {
        if self.end.is_none() {
            self.end = Some(end);
        }
    }

    /// The next event; `None` when there is nothing yet. The last one is `Closed`, again and
    /// again.
    #[inline]
    pub(super) fn next(&mut self) -> Option<ChannelEvent> {
        let gap = self.entries.front_mut().map_or(&mut self.tail, |entry| &mut entry.before);
        if let Some(some) = gap {
            let before = some.weight();
            let event = some.next();
            if event.is_none() {
                *gap = None;
            }
            let after = gap.as_ref().map_or(0, |gap| gap.weight());
            self.gap_bytes = self.gap_bytes.saturating_sub(before).saturating_add(after);
            if event.is_some() {
                return event;
            }
        }
        if let Some(entry) = self.entries.pop_front() {
            self.account.remove(0, entry.load);
            return Some(ChannelEvent::Message(entry.message));
        }
        self.end.clone().map(ChannelEvent::Closed)
    }

    /// Moves what waits to the reader's hand, which is empty: messages with nothing between them,
    /// up to a part of either bound. What is in hand cannot be dropped any more, so a reader that
    /// starts over after a loss takes nothing in advance.
    #[inline]
    pub(super) fn lend(&mut self, hand: &mut VecDeque<Message>) {
        self.lent = (0, 0);
        let max = match self.limits.policy {
            MailboxPolicy::Rejoin => 0,
            _ => self.limits.messages / LENT_PART,
        };
        let (mut bytes, bytes_max) = (0_usize, self.limits.bytes / LENT_PART);
        let lendable = |entry: &&Entry| {
            bytes = bytes.saturating_add(entry.load.kept);
            entry.before.is_none() && bytes <= bytes_max
        };
        let count = self.entries.iter().take(max).take_while(lendable).count();
        if count < 2 {
            return;
        }
        let mut bytes = 0;
        hand.reserve(count);
        for entry in (0..count).map_while(|_| self.entries.pop_front()) {
            bytes += entry.load.kept;
            self.account.remove(0, entry.load);
            hand.push_back(entry.message);
        }
        self.lent = (count, bytes);
    }

    /// The bytes that cannot be copied out of anything: those in the reader's hand and in the gaps.
    const fn beside(&self) -> usize {
        self.lent.1.saturating_add(self.gap_bytes)
    }

    fn is_full_for(&self, load: Load) -> bool {
        !self.entries.is_empty()
            && (self.entries.len() + self.lent.0 >= self.limits.messages
                || !self.account.fits(load, self.beside()))
    }

    fn drop_oldest(&mut self) {
        let Some(entry) = self.entries.pop_front() else { return };
        self.account.remove(0, entry.load);
        self.discarded.push(entry.message);
        let next = self.entries.front_mut().map_or(&mut self.tail, |entry| &mut entry.before);
        let gaps = [&entry.before, &*next];
        let before: usize = gaps.into_iter().flatten().map(|gap| gap.weight()).sum();
        let next = match (entry.before, next) {
            (Some(before), Some(next)) => {
                next.put_before(*before);
                next
            }
            (Some(before), next) => next.insert(before),
            (None, next) => next.get_or_insert_default(),
        };
        next.lagged += 1;
        self.gap_bytes = self.gap_bytes.saturating_sub(before).saturating_add(next.weight());
        self.dropped += 1;
    }

    /// The new message is the one that is dropped.
    fn drop_new(&mut self, message: Message) {
        self.discarded.push(message);
        self.change_tail(|tail| tail.lagged += 1);
        self.dropped += 1;
    }
}

impl Gap {
    /// What it counts for, in bytes.
    fn weight(&self) -> usize {
        let cause = self.interrupted.as_ref().map_or(0, |(cause, _)| cause.held_bytes());
        let response = self.resumed.as_ref().map_or(0, Payload::held_len);
        ENTRY.saturating_add(cause).saturating_add(response)
    }

    fn next(&mut self) -> Option<ChannelEvent> {
        if self.lagged > 0 {
            return Some(ChannelEvent::Lagged(core::mem::take(&mut self.lagged)));
        }
        if let Some((cause, count)) = self.interrupted.take() {
            return Some(ChannelEvent::Interrupted { cause, count });
        }
        self.resumed.take().map(|response| ChannelEvent::Resumed { response })
    }

    fn put_before(&mut self, earlier: Self) {
        self.lagged += earlier.lagged;
        match (&mut self.interrupted, earlier.interrupted) {
            (Some((_, count)), Some((_, more))) => *count = count.saturating_add(more),
            (Some(_), None) => {}
            (none, interrupted) => {
                *none = interrupted;
                if self.resumed.is_none() {
                    self.resumed = earlier.resumed;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::event::cause::ChannelEnd;

    fn mailbox(messages: usize, bytes: usize, policy: MailboxPolicy) -> Mailbox {
        let mut mailbox = Mailbox::new(Limits { messages, bytes, policy });
        assert!(mailbox.begin());
        mailbox
    }

    fn message(number: u64) -> Message {
        Message::new("room:a", "msg", serde_json::json!(number))
    }

    fn drain(mailbox: &mut Mailbox) -> Vec<String> {
        let mut seen = Vec::new();
        while let Some(event) = mailbox.next() {
            let end = matches!(event, ChannelEvent::Closed(_));
            seen.push(match event {
                ChannelEvent::Message(message) => {
                    message.payload.to_value().map_or("bad".into(), |value| value.to_string())
                }
                ChannelEvent::Interrupted { count, .. } => format!("interrupted x{count}"),
                ChannelEvent::Resumed { .. } => "resumed".into(),
                ChannelEvent::Lagged(n) => format!("lagged {n}"),
                ChannelEvent::Closed(_) => "closed".into(),
            });
            if end {
                break;
            }
        }
        seen
    }

    #[test]
    fn the_oldest_messages_are_dropped_and_the_loss_is_visible_first() {
        let mut mailbox = mailbox(2, 100_000, MailboxPolicy::DropOldest);
        for number in 0..5 {
            mailbox.message(message(number), Load::own(1));
        }
        assert_eq!(drain(&mut mailbox), ["lagged 3", "3", "4"]);
    }

    #[test]
    fn the_newest_messages_are_dropped_and_the_loss_is_visible_last() {
        let mut mailbox = mailbox(2, 100_000, MailboxPolicy::DropNewest);
        for number in 0..5 {
            mailbox.message(message(number), Load::own(1));
        }
        assert_eq!(drain(&mut mailbox), ["0", "1", "lagged 3"]);
    }

    #[test]
    fn an_overflow_can_ask_for_the_channel_to_be_joined_anew() {
        let mut mailbox = mailbox(2, 100_000, MailboxPolicy::Rejoin);
        assert!(
            mailbox.message(message(0), Load::own(1)) && mailbox.message(message(1), Load::own(1))
        );
        assert!(!mailbox.message(message(2), Load::own(1)));
        mailbox.interrupted(Interruption::Resync);
        mailbox.resumed(Payload::from(serde_json::json!({})));
        mailbox.message(message(3), Load::own(1));
        assert_eq!(drain(&mut mailbox), ["lagged 3", "interrupted x1", "resumed", "3"]);
    }

    #[test]
    fn an_overflow_can_end_the_stream() {
        let mut mailbox = mailbox(1, 100_000, MailboxPolicy::Close);
        mailbox.message(message(0), Load::own(1));
        mailbox.message(message(1), Load::own(1));
        mailbox.message(message(2), Load::own(1));
        assert_eq!(drain(&mut mailbox), ["0", "lagged 1", "closed"]);
        assert_eq!(mailbox.next(), Some(ChannelEvent::Closed(StreamEnd::Overflow)));
    }

    #[test]
    fn bytes_are_bounded_too_but_one_message_always_fits() {
        let mut mailbox = mailbox(100, 10, MailboxPolicy::DropOldest);
        mailbox.message(message(0), Load::own(6));
        mailbox.message(message(1), Load::own(6));
        mailbox.message(message(2), Load::own(600));
        assert_eq!(drain(&mut mailbox), ["lagged 2", "2"]);
        mailbox.message(message(3), Load::own(6));
        assert_eq!(drain(&mut mailbox), ["3"]);
    }

    #[test]
    fn what_the_reader_has_in_hand_counts_as_waiting_and_comes_before_what_was_lost() {
        let mut mailbox = mailbox(16, 100_000, MailboxPolicy::DropOldest);
        for number in 0..5 {
            mailbox.message(message(number), Load::own(1));
        }
        let mut hand = VecDeque::new();
        mailbox.lend(&mut hand);
        assert_eq!(hand, [message(0), message(1)]);
        for number in 5..30 {
            mailbox.message(message(number), Load::own(1));
        }
        let waiting = drain(&mut mailbox);
        assert_eq!((waiting[0].as_str(), waiting[1].as_str()), ("lagged 14", "16"));
        assert_eq!(waiting.len(), 1 + 14, "16 messages with the two in hand");
    }

    #[test]
    fn nothing_is_taken_in_advance_across_a_gap_or_by_a_reader_that_would_start_over() {
        let mut hand = VecDeque::new();
        let mut mailbox = mailbox(64, 100_000, MailboxPolicy::DropOldest);
        for number in 0..4 {
            mailbox.message(message(number), Load::own(1));
            if number == 1 {
                mailbox.interrupted(Interruption::Crashed);
            }
        }
        mailbox.lend(&mut hand);
        assert_eq!(hand, [message(0), message(1)]);
        assert_eq!(drain(&mut mailbox), ["interrupted x1", "2", "3"]);

        let limits = Limits { messages: 64, bytes: 1_000, policy: MailboxPolicy::Rejoin };
        let mut mailbox = Mailbox::new(limits);
        for number in 0..4 {
            mailbox.message(message(number), Load::own(1));
        }
        hand.clear();
        mailbox.lend(&mut hand);
        assert_eq!((hand.len(), drain(&mut mailbox).len()), (0, 4));
    }

    #[test]
    fn a_gap_stays_between_the_messages_around_it() {
        let mut mailbox = mailbox(8, 100_000, MailboxPolicy::DropOldest);
        mailbox.message(message(0), Load::own(1));
        mailbox.interrupted(Interruption::Crashed);
        mailbox.resumed(Payload::from(serde_json::json!({})));
        mailbox.message(message(1), Load::own(1));
        assert_eq!(drain(&mut mailbox), ["0", "interrupted x1", "resumed", "1"]);
    }

    #[test]
    fn lifecycle_events_are_coalesced_and_never_dropped_with_the_messages() {
        let mut mailbox = mailbox(1, 100_000, MailboxPolicy::DropOldest);
        for number in 0..100 {
            mailbox.interrupted(Interruption::Crashed);
            mailbox.resumed(Payload::from(serde_json::json!({})));
            mailbox.message(message(number), Load::own(1));
        }
        mailbox.interrupted(Interruption::Crashed);
        assert_eq!(
            drain(&mut mailbox),
            ["lagged 99", "interrupted x100", "resumed", "99", "interrupted x1"]
        );
    }

    #[test]
    fn nothing_is_taken_in_after_the_end_and_what_waits_comes_before_it() {
        let mut mailbox = mailbox(4, 100_000, MailboxPolicy::DropOldest);
        mailbox.message(message(0), Load::own(1));
        mailbox.close(StreamEnd::Channel(ChannelEnd::Left));
        mailbox.close(StreamEnd::Overflow);
        mailbox.message(message(1), Load::own(1));
        mailbox.interrupted(Interruption::Crashed);
        assert_eq!(drain(&mut mailbox), ["0", "closed"]);
        assert_eq!(
            mailbox.next(),
            Some(ChannelEvent::Closed(StreamEnd::Channel(ChannelEnd::Left)))
        );
    }

    /// A message that is a slice of a buffer, and what it counts for.
    fn slice(text: &str, kept: usize) -> (Message, Load) {
        let payload =
            Payload::unparsed(Bytes::from([text, " and more"].concat()).slice(..text.len()));
        let message = Message::new("room:a", "msg", payload);
        let own = message.weight();
        (message, Load { own, kept: kept.max(own) })
    }

    /// Messages are copied out of what they keep alive before one of them is dropped; the originals,
    /// which the application may own, are dropped after the lock.
    #[test]
    fn slices_are_copied_before_any_is_dropped() {
        let mut mailbox = mailbox(100, 10_000, MailboxPolicy::DropOldest);
        let (first, load) = slice("0", 5_000);
        let original = first.payload.as_bytes().as_ptr();
        mailbox.message(first, load);
        mailbox.message(slice("1", 5_000).0, load);
        assert_eq!(mailbox.discarded.len(), 0, "exactly the bound");
        mailbox.message(slice("2", 5_000).0, load);
        assert_eq!(mailbox.discarded.len(), 2);
        assert_eq!(mailbox.discarded[0].payload.as_bytes().as_ptr(), original);
        assert_eq!(
            (mailbox.take_dropped(), drain(&mut mailbox)),
            (0, vec!["0".into(), "1".into(), "2".into()])
        );
        assert_eq!((mailbox.account.kept(), mailbox.gap_bytes), (0, 0));
    }

    /// A consumer that keeps up never causes a copy, however large the buffers.
    #[test]
    fn read_messages_are_not_copied() {
        let mut mailbox = mailbox(100, 10_000, MailboxPolicy::DropOldest);
        for _ in 0..100 {
            let (message, load) = slice("\"a message that is not small\"", 800);
            let load = Load { kept: 9_000, ..load };
            let load = Load { own: load.own.max(3_000), ..load };
            mailbox.message(message, load);
            assert!(mailbox.next().is_some() && mailbox.discarded.is_empty());
        }
    }

    #[test]
    fn reader_takes_no_more_than_its_part_of_the_bytes() {
        for (kept, taken) in [(1_250, 8), (5_000, 2), (5_001, 0), (40_000, 0)] {
            let mut mailbox = mailbox(64, 80_000, MailboxPolicy::DropOldest);
            for _ in 0..10 {
                let (message, load) = slice("1", kept);
                mailbox.account.add(load);
                mailbox.entries.push_back(Entry { before: None, message, load });
            }
            let mut hand = VecDeque::new();
            mailbox.lend(&mut hand);
            assert_eq!((hand.len(), mailbox.lent), (taken, (taken, taken * kept)), "{kept}");
        }
    }

    #[test]
    fn responses_in_gaps_count() {
        let mut mailbox = mailbox(100, 10_000, MailboxPolicy::DropOldest);
        for number in 0..10 {
            mailbox.interrupted(Interruption::Crashed);
            mailbox.resumed(Payload::from(serde_json::json!("x".repeat(2_000))));
            mailbox.message(message(number), Load::own(10));
        }
        let seen = drain(&mut mailbox);
        assert_eq!(seen[..3], ["lagged 6", "interrupted x7", "resumed"], "{seen:?}");
        assert_eq!(seen.iter().filter(|seen| *seen == "resumed").count(), 4);
        assert_eq!((mailbox.account.kept(), mailbox.gap_bytes), (0, 0));
    }

    #[derive(Clone, Copy, Debug)]
    enum Op {
        Message(usize),
        Interrupted,
        Resumed(usize),
        Next,
        Lend,
        Clear,
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            6 => prop_oneof![Just(0_usize), 0_usize..40_000].prop_map(Op::Message),
            1 => Just(Op::Interrupted),
            1 => (0_usize..8_000).prop_map(Op::Resumed),
            3 => Just(Op::Next),
            1 => Just(Op::Lend),
            1 => prop_oneof![9 => Just(Op::Next), 1 => Just(Op::Clear)],
        ]
    }

    fn policy() -> impl Strategy<Value = MailboxPolicy> {
        use MailboxPolicy::{Close, DropNewest, DropOldest, Rejoin};
        prop_oneof![Just(DropOldest), Just(DropNewest), Just(Rejoin), Just(Close)]
    }

    proptest! {
        /// The account equals a recount after every operation. What is held before the last
        /// gap is within the bound; a single message may be as large as it likes.
        #[test]
        fn account_equals_recount(policy in policy(), ops in proptest::collection::vec(op(), 1..80)) {
            let mut mailbox = mailbox(16, 20_000, policy);
            let (mut hand, mut number) = (VecDeque::new(), 0_u64);
            for op in ops {
                match op {
                    Op::Message(kept) => {
                        number += 1;
                        let (message, load) = slice(&number.to_string(), kept);
                        mailbox.message(message, load);
                    }
                    Op::Interrupted => mailbox.interrupted(Interruption::Crashed),
                    Op::Resumed(length) => {
                        mailbox.resumed(Payload::from(serde_json::json!("x".repeat(length))));
                    }
                    Op::Next => drop(mailbox.next()),
                    Op::Lend => {
                        hand.clear();
                        mailbox.lend(&mut hand);
                    }
                    Op::Clear => drop(mailbox.clear()),
                }
                let kept: usize = mailbox.entries.iter().map(|entry| entry.load.kept).sum();
                let gaps = mailbox.entries.iter().map(|entry| &entry.before).chain([&mailbox.tail]);
                let gaps: usize = gaps.flatten().map(|gap| gap.weight()).sum();
                prop_assert_eq!((mailbox.account.kept(), mailbox.gap_bytes), (kept, gaps));
                if let Op::Message(_) = op {
                    let few = mailbox.entries.len() <= 1;
                    let tail = mailbox.tail.as_ref().map_or(0, |gap| gap.weight());
                    let held = kept + mailbox.beside() - tail;
                    prop_assert!(few || held <= 20_000, "{}", held);
                }
            }
        }
    }
}
