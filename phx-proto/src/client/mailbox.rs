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

use std::collections::VecDeque;

use super::messages::{ChannelEvent, Message, StreamEnd};
use crate::event::cause::Interruption;
use crate::wire::payload::Payload;

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
    bytes: usize,
    /// How many messages the reader has in hand, and their bytes.
    lent: (usize, usize),
    end: Option<StreamEnd>,
    /// Messages dropped since it was asked last.
    dropped: u64,
    /// Those messages, which are dropped after the lock.
    discarded: Vec<Message>,
    /// Somebody reads it: a channel is not joined anew for a reader that there is not.
    read: bool,
}

#[derive(Debug)]
struct Entry {
    before: Option<Box<Gap>>,
    message: Message,
    bytes: usize,
}

/// What happened between two messages.
#[derive(Debug, Default)]
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
            bytes: 0,
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

    /// Adds a message that counts as so many bytes; false when the channel must be joined anew.
    /// One message always fits, however large.
    #[inline]
    pub(super) fn message(&mut self, message: Message, bytes: usize) -> bool {
        if self.end.is_some() {
            self.discarded.push(message);
            return true;
        }
        while self.is_full_for(bytes) {
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
        self.bytes = self.bytes.saturating_add(bytes);
        let before = self.tail.take();
        self.entries.push_back(Entry { before, message, bytes });
        true
    }

    pub(super) fn interrupted(&mut self, cause: Interruption) {
        if self.end.is_some() {
            return;
        }
        let tail = self.tail.get_or_insert_default();
        let count = tail.interrupted.as_ref().map_or(0, |(_, count)| *count);
        tail.interrupted = Some((cause, count.saturating_add(1)));
        tail.resumed = None;
    }

    pub(super) fn resumed(&mut self, response: Payload) {
        if self.end.is_none() {
            self.tail.get_or_insert_default().resumed = Some(response);
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

    /// How many messages were dropped since this was asked last.
    pub(super) const fn take_dropped(&mut self) -> u64 {
        core::mem::replace(&mut self.dropped, 0)
    }

    /// The messages that were dropped, for the caller to drop after the lock.
    pub(super) fn take_discarded(&mut self) -> Vec<Message> {
        core::mem::take(&mut self.discarded)
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
        if let Some(event) = gap.as_mut().and_then(|gap| gap.next()) {
            return Some(event);
        }
        *gap = None;
        if let Some(entry) = self.entries.pop_front() {
            self.bytes = self.bytes.saturating_sub(entry.bytes);
            return Some(ChannelEvent::Message(entry.message));
        }
        self.end.clone().map(ChannelEvent::Closed)
    }

    /// Moves what waits to the reader's hand, which is empty: messages with nothing between them,
    /// up to a part of the bound. What is in hand cannot be dropped any more, so a reader that
    /// starts over after a loss takes nothing in advance.
    #[inline]
    pub(super) fn lend(&mut self, hand: &mut VecDeque<Message>) {
        self.lent = (0, 0);
        let max = match self.limits.policy {
            MailboxPolicy::Rejoin => 0,
            _ => self.limits.messages / LENT_PART,
        };
        let plain = |entry: &&Entry| entry.before.is_none();
        let count = self.entries.iter().take(max).take_while(plain).count();
        if count < 2 {
            return;
        }
        let mut bytes = 0;
        hand.reserve(count);
        for entry in (0..count).map_while(|_| self.entries.pop_front()) {
            bytes += entry.bytes;
            hand.push_back(entry.message);
        }
        self.bytes = self.bytes.saturating_sub(bytes);
        self.lent = (count, bytes);
    }

    fn is_full_for(&self, bytes: usize) -> bool {
        let (lent, lent_bytes) = self.lent;
        let held = self.bytes.saturating_add(lent_bytes);
        !self.entries.is_empty()
            && (self.entries.len() + lent >= self.limits.messages
                || held.saturating_add(bytes) > self.limits.bytes)
    }

    fn drop_oldest(&mut self) {
        let Some(entry) = self.entries.pop_front() else { return };
        self.bytes = self.bytes.saturating_sub(entry.bytes);
        self.discarded.push(entry.message);
        let next = self.entries.front_mut().map_or(&mut self.tail, |entry| &mut entry.before);
        let next = match (entry.before, next) {
            (Some(before), Some(next)) => {
                next.put_before(*before);
                next
            }
            (Some(before), next) => next.insert(before),
            (None, next) => next.get_or_insert_default(),
        };
        next.lagged += 1;
        self.dropped += 1;
    }

    /// The new message is the one that is dropped.
    fn drop_new(&mut self, message: Message) {
        self.discarded.push(message);
        self.tail.get_or_insert_default().lagged += 1;
        self.dropped += 1;
    }
}

impl Gap {
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
    use super::*;
    use crate::event::cause::ChannelEnd;

    fn mailbox(messages: usize, bytes: usize, policy: MailboxPolicy) -> Mailbox {
        let mut mailbox = Mailbox::new(Limits { messages, bytes, policy });
        assert!(mailbox.begin());
        mailbox
    }

    fn message(number: u64) -> Message {
        Message {
            event: crate::wire::ByteStr::from("msg"),
            payload: Payload::from(serde_json::json!(number)),
        }
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
        let mut mailbox = mailbox(2, 1_000, MailboxPolicy::DropOldest);
        for number in 0..5 {
            mailbox.message(message(number), 1);
        }
        assert_eq!(drain(&mut mailbox), ["lagged 3", "3", "4"]);
    }

    #[test]
    fn the_newest_messages_are_dropped_and_the_loss_is_visible_last() {
        let mut mailbox = mailbox(2, 1_000, MailboxPolicy::DropNewest);
        for number in 0..5 {
            mailbox.message(message(number), 1);
        }
        assert_eq!(drain(&mut mailbox), ["0", "1", "lagged 3"]);
    }

    #[test]
    fn an_overflow_can_ask_for_the_channel_to_be_joined_anew() {
        let mut mailbox = mailbox(2, 1_000, MailboxPolicy::Rejoin);
        assert!(mailbox.message(message(0), 1) && mailbox.message(message(1), 1));
        assert!(!mailbox.message(message(2), 1));
        mailbox.interrupted(Interruption::Resync);
        mailbox.resumed(Payload::from(serde_json::json!({})));
        mailbox.message(message(3), 1);
        assert_eq!(drain(&mut mailbox), ["lagged 3", "interrupted x1", "resumed", "3"]);
    }

    #[test]
    fn an_overflow_can_end_the_stream() {
        let mut mailbox = mailbox(1, 1_000, MailboxPolicy::Close);
        mailbox.message(message(0), 1);
        mailbox.message(message(1), 1);
        mailbox.message(message(2), 1);
        assert_eq!(drain(&mut mailbox), ["0", "lagged 1", "closed"]);
        assert_eq!(mailbox.next(), Some(ChannelEvent::Closed(StreamEnd::Overflow)));
    }

    #[test]
    fn bytes_are_bounded_too_but_one_message_always_fits() {
        let mut mailbox = mailbox(100, 10, MailboxPolicy::DropOldest);
        mailbox.message(message(0), 6);
        mailbox.message(message(1), 6);
        mailbox.message(message(2), 600);
        assert_eq!(drain(&mut mailbox), ["lagged 2", "2"]);
        mailbox.message(message(3), 6);
        assert_eq!(drain(&mut mailbox), ["3"]);
    }

    #[test]
    fn what_the_reader_has_in_hand_counts_as_waiting_and_comes_before_what_was_lost() {
        let mut mailbox = mailbox(16, 1_000, MailboxPolicy::DropOldest);
        for number in 0..5 {
            mailbox.message(message(number), 1);
        }
        let mut hand = VecDeque::new();
        mailbox.lend(&mut hand);
        assert_eq!(hand, [message(0), message(1)]);
        for number in 5..30 {
            mailbox.message(message(number), 1);
        }
        let waiting = drain(&mut mailbox);
        assert_eq!((waiting[0].as_str(), waiting[1].as_str()), ("lagged 14", "16"));
        assert_eq!(waiting.len(), 1 + 14, "16 messages with the two in hand");
    }

    #[test]
    fn nothing_is_taken_in_advance_across_a_gap_or_by_a_reader_that_would_start_over() {
        let mut hand = VecDeque::new();
        let mut mailbox = mailbox(64, 1_000, MailboxPolicy::DropOldest);
        for number in 0..4 {
            mailbox.message(message(number), 1);
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
            mailbox.message(message(number), 1);
        }
        hand.clear();
        mailbox.lend(&mut hand);
        assert_eq!((hand.len(), drain(&mut mailbox).len()), (0, 4));
    }

    #[test]
    fn a_gap_stays_between_the_messages_around_it() {
        let mut mailbox = mailbox(8, 1_000, MailboxPolicy::DropOldest);
        mailbox.message(message(0), 1);
        mailbox.interrupted(Interruption::Crashed);
        mailbox.resumed(Payload::from(serde_json::json!({})));
        mailbox.message(message(1), 1);
        assert_eq!(drain(&mut mailbox), ["0", "interrupted x1", "resumed", "1"]);
    }

    #[test]
    fn lifecycle_events_are_coalesced_and_never_dropped_with_the_messages() {
        let mut mailbox = mailbox(1, 1_000, MailboxPolicy::DropOldest);
        for number in 0..100 {
            mailbox.interrupted(Interruption::Crashed);
            mailbox.resumed(Payload::from(serde_json::json!({})));
            mailbox.message(message(number), 1);
        }
        mailbox.interrupted(Interruption::Crashed);
        assert_eq!(
            drain(&mut mailbox),
            ["lagged 99", "interrupted x100", "resumed", "99", "interrupted x1"]
        );
    }

    #[test]
    fn nothing_is_taken_in_after_the_end_and_what_waits_comes_before_it() {
        let mut mailbox = mailbox(4, 1_000, MailboxPolicy::DropOldest);
        mailbox.message(message(0), 1);
        mailbox.close(StreamEnd::Channel(ChannelEnd::Left));
        mailbox.close(StreamEnd::Overflow);
        mailbox.message(message(1), 1);
        mailbox.interrupted(Interruption::Crashed);
        assert_eq!(drain(&mut mailbox), ["0", "closed"]);
        assert_eq!(
            mailbox.next(),
            Some(ChannelEvent::Closed(StreamEnd::Channel(ChannelEnd::Left)))
        );
    }
}
