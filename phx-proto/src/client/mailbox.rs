//! The mailbox: a bounded queue of messages and lifecycle events for one consumer.
//!
//! ```text
//!   oldest                                                newest
//!   [gap│message] [gap│message] … [gap│message]  [tail gap]
//!     └ lagged, interrupted, resumed                └ and closed
//! ```
//!
//! A gap is a summary of everything that happened between two messages, so its size does not depend
//! on how often the connection was lost. It is allocated only when something happened. Dropping a
//! message merges the gap before it into the gap behind it: lifecycle events are never lost, and
//! the consumer sees the number of dropped messages. A full mailbox never stops the socket from
//! reading.
//!
//! A reader that has fallen behind prefetches several messages at once, so that it does not contend
//! with the driver for the lock at each message. Prefetched messages count against the bounds until
//! the reader comes back for more.
//!
//! The bound in bytes counts the memory that is held: events, payloads, the responses in the gaps,
//! and the read buffers behind them. When it is exceeded, messages are first copied out of those
//! buffers; messages are dropped only when that is not enough. See [`weight`](crate::wire::weight).
//!
//! If a mailbox of a consumer that [catches up](super::catch_up) is full, it keeps the messages that
//! wait. It drops every later message until the next join, or until the consumer has read the waiting
//! messages and requests that join. The replay of the join brings the dropped messages again. The gap in
//! front of the next message records the joins, and the number of dropped messages that no replay
//! brings. With [`MailboxPolicy::Close`], the stream ends instead.

use std::collections::VecDeque;

use super::catch_up::Asked;
use super::messages::{ChannelEvent, Message, StreamEnd};
use crate::event::cause::Interruption;
use crate::wire::payload::Payload;
use crate::wire::weight::{Account, ENTRY, Load};

/// The policy of a full mailbox for the next message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum MailboxPolicy {
    /// Drops the oldest message, so that the consumer sees the recent ones. The default.
    #[default]
    DropOldest,
    /// Drops the new message, so that the consumer sees the messages before the loss without a gap.
    DropNewest,
    /// Drops every queued message and all later ones. When the consumer takes `Lagged`, the channel
    /// is joined again, so that the consumer starts over from the server's present state. Suitable
    /// for channels that carry state. The consumer then sees `Interrupted` and `Resumed`, and so do
    /// the other subscribers of the topic. A stream that is not read causes no join. If the channel
    /// is joined again for another reason before the consumer takes `Lagged`, that join is enough.
    /// Before the handle's first stream is made, its mailbox drops the oldest messages instead;
    /// if any were dropped, the stream starts over.
    Rejoin,
    /// Ends the stream after the messages that are already queued.
    Close,
}

/// What a mailbox holds next.
#[derive(Debug, PartialEq)]
pub(super) enum Item {
    Event(ChannelEvent),
    /// The channel was joined. Only in a mailbox of a consumer that catches up.
    Joined {
        response: Payload,
        mark: JoinMark,
    },
    /// The replay of the latest join did not end in time. Only in a mailbox of a consumer that catches up.
    ReplayTimedOut,
    /// Messages were dropped here, and the replay of the next join brings them. Only in a mailbox of a
    /// consumer that catches up.
    Missing,
}

/// A join, as a consumer that catches up needs to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct JoinMark {
    /// Counts the joins, from 1.
    pub(super) number: u64,
    /// Whether the consumer gets no `Resumed` for it: it is the first join of the channel, or was kept as
    /// `Gap::begun`.
    pub(super) first: bool,
    /// What the parameters of the join asked for on behalf of the consumer.
    pub(super) asked: Asked,
}

/// The bounds and the policy of a mailbox.
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
    /// The bounds of [`Config::mailbox`](crate::Config::mailbox) and the default [`MailboxPolicy`].
    pub const fn new() -> Self {
        Self { messages: None, bytes: None, policy: MailboxPolicy::DropOldest }
    }

    /// The maximum number of messages. One message always fits, so zero means one.
    pub const fn messages(mut self, messages: usize) -> Self {
        self.messages = Some(messages);
        self
    }

    /// The maximum bytes of memory that the messages keep alive. One message always fits, however
    /// large.
    pub const fn bytes(mut self, bytes: usize) -> Self {
        self.bytes = Some(bytes);
        self
    }

    /// The policy when the mailbox is full.
    pub const fn policy(mut self, policy: MailboxPolicy) -> Self {
        self.policy = policy;
        self
    }
}

/// The default bounds with this policy.
impl From<MailboxPolicy> for MailboxOptions {
    fn from(policy: MailboxPolicy) -> Self {
        Self::new().policy(policy)
    }
}

impl Default for MailboxOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// The bounds and the policy of one mailbox, with defaults filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) messages: usize,
    pub(super) bytes: usize,
    pub(super) policy: MailboxPolicy,
}

/// A reader may prefetch an eighth of a mailbox's bounds.
const PREFETCH_DIVISOR: usize = 8;

/// A bounded queue of messages and lifecycle events for one consumer.
#[derive(Debug)]
pub(super) struct Mailbox {
    limits: Limits,
    entries: VecDeque<Entry>,
    tail: Option<Box<Gap>>,
    /// The bytes of the entries, without their gaps.
    account: Account,
    /// The bytes of all gaps.
    gap_bytes: usize,
    /// The number of prefetched messages, and the bytes that they keep alive.
    prefetched: (usize, usize),
    end: Option<StreamEnd>,
    /// The mailbox was full and its policy is [`MailboxPolicy::Close`], so the consumer sees
    /// [`StreamEnd::Overflow`], whatever ends the channel afterwards.
    overflowed: bool,
    /// The number of messages dropped since the last `take_dropped`.
    dropped: u64,
    /// Dropped messages and originals that were replaced by copies, to be dropped after the lock is
    /// released.
    discarded: Vec<Message>,
    /// The mailbox has a reader. Without one, [`MailboxPolicy::Rejoin`] drops the oldest messages.
    read: bool,
    /// Messages were dropped under [`MailboxPolicy::Rejoin`], and the channel was not joined again
    /// since. Until then, the mailbox drops every message.
    needs_join: bool,
    /// The consumer catches up: what is dropped here is replayed after the next join.
    catches_up: bool,
    /// The number of joins so far.
    joins: u64,
    /// Messages that were dropped since the last `take_missed`, if the consumer catches up.
    missed: Vec<Message>,
    /// How many calls of `report_missed` are still to come.
    unreported: usize,
}

/// A queued message, with the gap before it.
#[derive(Debug)]
pub(super) struct Entry {
    before: Option<Box<Gap>>,
    message: Message,
    load: Load,
}

impl Entry {
    /// The message. A prefetched entry has no gap.
    #[inline]
    pub(super) fn into_message(self) -> Message {
        debug_assert!(self.before.is_none(), "entries with a gap are not prefetched");
        self.message
    }
}

/// What happened between two messages.
#[derive(Clone, Debug, Default)]
struct Gap {
    lagged: u64,
    /// A join whose parameters had no position, with its response: the first one that was followed by an
    /// interruption or another join before the consumer read it. The consumer may get its position from the
    /// response, and later joins bring what follows it.
    begun: Option<Box<(Payload, JoinMark)>>,
    interrupted: Option<(Interruption, u32)>,
    /// The response of the latest join.
    resumed: Option<Payload>,
    /// The join of that response, if the consumer catches up.
    joined: Option<JoinMark>,
    replay_timed_out: bool,
    /// The number of messages that were dropped after the latest join, if the consumer catches up.
    missing: u64,
}

impl Mailbox {
    pub(super) const fn new(limits: Limits) -> Self {
        Self {
            limits,
            entries: VecDeque::new(),
            tail: None,
            account: Account::new(limits.bytes),
            gap_bytes: 0,
            prefetched: (0, 0),
            end: None,
            overflowed: false,
            dropped: 0,
            discarded: Vec::new(),
            read: false,
            needs_join: false,
            catches_up: false,
            joins: 0,
            missed: Vec::new(),
            unreported: 0,
        }
    }

    /// A mailbox of a consumer that catches up.
    pub(super) const fn catching_up(limits: Limits) -> Self {
        let mut mailbox = Self::new(limits);
        mailbox.catches_up = true;
        mailbox
    }

    /// Marks the mailbox as having a reader. If the policy is [`MailboxPolicy::Rejoin`] and messages
    /// are already missing, the reader starts over.
    pub(super) fn begin(&mut self) {
        self.read = true;
        if self.catches_up {
            return;
        }
        let gaps = self.entries.iter().map(|entry| &entry.before).chain([&self.tail]);
        let lagged = gaps.flatten().any(|gap| gap.lagged > 0);
        if lagged && self.limits.policy == MailboxPolicy::Rejoin && self.end.is_none() {
            self.start_over();
        }
    }

    /// Whether the channel must be joined again once the reader has seen the loss.
    pub(super) const fn needs_join(&self) -> bool {
        self.needs_join && self.end.is_none()
    }

    /// Drops every message, those until the next join included.
    fn start_over(&mut self) {
        while !self.entries.is_empty() {
            self.drop_oldest();
        }
        self.needs_join = true;
    }

    /// Adds a message whose memory is `load`. One message always fits, however large.
    #[inline]
    pub(super) fn message(&mut self, message: Message, load: Load) {
        if self.end.is_some() {
            self.discarded.push(message);
            return;
        }
        if self.needs_join {
            self.drop_new(message);
            return;
        }
        if self.tail.as_ref().is_some_and(|tail| tail.missing > 0) {
            self.miss(message);
            return;
        }
        while self.is_full_for(load) {
            match self.limits.policy {
                _ if self.catches_up && self.limits.policy != MailboxPolicy::Close => {
                    self.miss(message);
                    return;
                }
                MailboxPolicy::Rejoin if !self.read => self.drop_oldest(),
                MailboxPolicy::DropOldest => self.drop_oldest(),
                MailboxPolicy::DropNewest => {
                    self.drop_new(message);
                    return;
                }
                MailboxPolicy::Rejoin => {
                    self.start_over();
                    self.drop_new(message);
                    return;
                }
                MailboxPolicy::Close => {
                    self.drop_new(message);
                    self.end = Some(StreamEnd::Overflow);
                    self.overflowed = true;
                    return;
                }
            }
        }
        self.account.add(load);
        let before = self.tail.take();
        self.entries.push_back(Entry { before, message, load });
        self.settle();
    }

    /// Copies messages out of the read buffers that they keep alive, if the bound in bytes is
    /// exceeded.
    #[inline]
    fn settle(&mut self) {
        let (fixed, discarded) = (self.fixed_bytes(), &mut self.discarded);
        let copy = |entry: &mut Entry| {
            let copy = entry.message.compact();
            entry.load = Load::own(entry.load.own);
            discarded.push(core::mem::replace(&mut entry.message, copy));
            entry.load
        };
        self.account.settle(&mut self.entries, fixed, |entry| entry.load, copy);
    }

    pub(super) fn interrupted(&mut self, cause: Interruption) {
        self.change_tail(|tail| {
            let count = tail.interrupted.as_ref().map_or(0, |(_, count)| *count);
            tail.interrupted = Some((cause, count.saturating_add(1)));
            tail.forget_join();
        });
    }

    pub(super) fn resumed(&mut self, response: Payload) {
        self.needs_join = false;
        self.change_tail(|tail| tail.resumed = Some(response));
    }

    /// Records a join for a consumer that catches up. `asked` is what the parameters asked for.
    pub(super) fn joined(&mut self, response: Payload, first: bool, asked: Asked) {
        self.joins += 1;
        let mark = JoinMark { number: self.joins, first, asked };
        self.change_tail(|tail| {
            tail.forget_join();
            tail.resumed = Some(response);
            tail.joined = Some(mark);
        });
    }

    /// Records that the replay of the latest join did not end in time. If messages were dropped since that
    /// join, the next join brings another replay, so the timeout of this one does not matter.
    pub(super) fn replay_timed_out(&mut self) {
        self.change_tail(|tail| tail.replay_timed_out |= tail.missing == 0);
    }

    /// Called once for each [`take_missed`](Self::take_missed) that returned messages. Reports how many of
    /// them no replay brings. The mailbox may have ended meanwhile.
    pub(super) fn report_missed(&mut self, lost: u64) {
        self.unreported = self.unreported.saturating_sub(1);
        if lost > 0 {
            self.change_any_tail(|tail| tail.lagged += lost);
        }
    }

    /// The most messages, and the most bytes.
    pub(super) const fn bounds(&self) -> (usize, usize) {
        (self.limits.messages, self.limits.bytes)
    }

    /// The number of joins so far.
    pub(super) const fn joins(&self) -> u64 {
        self.joins
    }

    /// Copies the queued gaps, and the messages that pass `filter`, to another, empty mailbox.
    pub(super) fn copy_to(&self, other: &mut Self, filter: impl Fn(&Message) -> bool) {
        let append = |other: &mut Self, gap: &Option<Box<Gap>>| {
            let Some(gap) = gap else { return };
            other.change_tail(|tail| {
                let earlier = core::mem::replace(tail, gap.for_others());
                tail.put_before(earlier);
            });
        };
        for entry in &self.entries {
            append(other, &entry.before);
            if filter(&entry.message) {
                other.message(entry.message.clone(), entry.load);
            }
        }
        append(other, &self.tail);
        // An overflow ends only this mailbox, not the other one.
        if let Some(end @ StreamEnd::Channel(_)) = &self.end {
            other.close(end.clone());
        }
    }

    fn change_tail(&mut self, change: impl FnOnce(&mut Gap)) {
        if self.end.is_none() {
            self.change_any_tail(change);
        }
    }

    /// Like [`change_tail`](Self::change_tail), also after the end.
    fn change_any_tail(&mut self, change: impl FnOnce(&mut Gap)) {
        let before = self.tail.as_ref().map_or(0, |gap| gap.weight());
        let tail = self.tail.get_or_insert_default();
        change(tail);
        self.gap_bytes = self.gap_bytes.saturating_sub(before).saturating_add(tail.weight());
    }

    /// Drops every message. The lifecycle events and the end stay. Returns the number of messages
    /// whose loss the consumer has not seen yet.
    pub(super) fn clear(&mut self) -> u64 {
        while !self.entries.is_empty() {
            self.drop_oldest();
        }
        self.prefetched = (0, 0);
        let Some(tail) = &mut self.tail else { return 0 };
        let lost = core::mem::take(&mut tail.lagged);
        if tail.is_empty() {
            self.tail = None;
            self.gap_bytes = 0;
        }
        lost
    }

    /// Takes everything that is queued, because the stream has ended or was dropped. The end stays. The caller
    /// drops the result after the lock is released.
    #[must_use = "drop messages after the lock is released"]
    pub(super) fn take_queue(&mut self) -> Self {
        let mut empty = Self::new(self.limits);
        (empty.end, empty.overflowed) = (self.end.clone(), self.overflowed);
        core::mem::replace(self, empty)
    }

    /// The number of messages that were dropped since the last call. Zero until the mailbox has a
    /// reader, because until then no consumer has lost a message.
    pub(super) const fn take_dropped(&mut self) -> u64 {
        if self.read { core::mem::replace(&mut self.dropped, 0) } else { 0 }
    }

    /// Whether messages were dropped or replaced since [`take_dropped`](Self::take_dropped),
    /// [`take_discarded`](Self::take_discarded) and [`take_missed`](Self::take_missed).
    #[inline]
    pub(super) fn has_losses(&self) -> bool {
        (self.read && self.dropped > 0) || !self.discarded.is_empty() || !self.missed.is_empty()
    }

    /// Takes the discarded messages, which the caller drops after the lock is released.
    pub(super) fn take_discarded(&mut self) -> Vec<Message> {
        core::mem::take(&mut self.discarded)
    }

    /// Whether no message is queued.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Takes the messages that a consumer that catches up has missed. The caller reports those that no
    /// replay brings, after the lock is released.
    pub(super) fn take_missed(&mut self) -> Vec<Message> {
        self.unreported += usize::from(!self.missed.is_empty());
        core::mem::take(&mut self.missed)
    }

    /// The end of the mailbox: that of its channel, also if it had overflowed before.
    pub(super) const fn end(&self) -> Option<&StreamEnd> {
        self.end.as_ref()
    }

    /// Ends the mailbox: it takes no more messages. Later calls do nothing, except that the end of the
    /// channel is recorded after an overflow.
    pub(super) fn close(&mut self, end: StreamEnd) {
        if matches!(self.end, None | Some(StreamEnd::Overflow)) {
            self.end = Some(end);
        }
    }

    /// The next event; `None` when there is none yet. After the last event it returns `Closed` on
    /// every call.
    #[inline]
    pub(super) fn next(&mut self) -> Option<ChannelEvent> {
        loop {
            match self.next_item()? {
                Item::Event(event) => return Some(event),
                // Only a consumer that catches up has these items, and it calls `next_item`.
                Item::Joined { .. } | Item::ReplayTimedOut | Item::Missing => {}
            }
        }
    }

    /// Like [`next`](Self::next), with the items for a consumer that catches up.
    #[inline]
    pub(super) fn next_item(&mut self) -> Option<Item> {
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
            return Some(Item::Event(ChannelEvent::Message(entry.message)));
        }
        // The driver reports missed messages after it has released the lock. The end comes after that.
        let end = self.end.clone().filter(|_| self.unreported == 0)?;
        let end = if self.overflowed { StreamEnd::Overflow } else { end };
        Some(Item::Event(ChannelEvent::Closed(end)))
    }

    /// Takes the next event if it is a message and the mailbox has no gaps. It usually has none.
    #[inline]
    pub(super) fn next_message(&mut self) -> Option<Message> {
        if self.gap_bytes > 0 {
            return None;
        }
        let entry = self.entries.pop_front()?;
        self.account.remove(0, entry.load);
        Some(entry.into_message())
    }

    /// Moves messages without gaps between them to the reader's prefetch queue, which is empty, up
    /// to a fraction of each bound. Prefetched messages cannot be dropped, so a reader with
    /// [`MailboxPolicy::Rejoin`], which starts over after a loss, prefetches none.
    #[inline]
    pub(super) fn prefetch(&mut self, batch: &mut VecDeque<Entry>) {
        self.prefetched = (0, 0);
        if self.entries.len() < 2 {
            return;
        }
        let max = match self.limits.policy {
            MailboxPolicy::Rejoin => 0,
            _ => self.limits.messages / PREFETCH_DIVISOR,
        };
        let bytes_max = self.limits.bytes / PREFETCH_DIVISOR;
        let has_no_gap = self.gap_bytes == 0;
        if has_no_gap && self.entries.len() <= max && self.account.kept() <= bytes_max {
            // The usual case: the reader takes the whole queue, and the mailbox the empty one.
            self.prefetched = (self.entries.len(), self.account.kept());
            self.account = Account::new(self.limits.bytes);
            core::mem::swap(&mut self.entries, batch);
            return;
        }
        let mut bytes = 0_usize;
        let eligible = |entry: &&Entry| {
            bytes = bytes.saturating_add(entry.load.kept);
            entry.before.is_none() && bytes <= bytes_max
        };
        let count = self.entries.iter().take(max).take_while(eligible).count();
        if count < 2 {
            return;
        }
        let mut bytes = 0;
        batch.reserve(count);
        for entry in (0..count).map_while(|_| self.entries.pop_front()) {
            bytes += entry.load.kept;
            self.account.remove(0, entry.load);
            batch.push_back(entry);
        }
        self.prefetched = (count, bytes);
    }

    /// The bytes of prefetched messages and of gaps, which copying cannot reduce.
    const fn fixed_bytes(&self) -> usize {
        self.prefetched.1.saturating_add(self.gap_bytes)
    }

    fn is_full_for(&self, load: Load) -> bool {
        !self.entries.is_empty()
            && (self.entries.len() + self.prefetched.0 >= self.limits.messages
                || !self.account.fits(load, self.fixed_bytes()))
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

    /// Drops the new message, which the replay of the next join brings again.
    fn miss(&mut self, message: Message) {
        self.missed.push(message);
        self.change_tail(|tail| tail.missing += 1);
        self.dropped += 1;
    }

    /// Drops the new message.
    fn drop_new(&mut self, message: Message) {
        self.discarded.push(message);
        self.change_tail(|tail| tail.lagged += 1);
        self.dropped += 1;
    }
}

impl Gap {
    /// The bytes of memory of the gap.
    fn weight(&self) -> usize {
        let cause = self.interrupted.as_ref().map_or(0, |(cause, _)| cause.held_bytes());
        let response = self.resumed.as_ref().map_or(0, Payload::held_len);
        let begun = self.begun.as_ref().map_or(0, |begun| ENTRY.saturating_add(begun.0.held_len()));
        ENTRY.saturating_add(cause).saturating_add(response).saturating_add(begun)
    }

    /// Whether nothing happened.
    const fn is_empty(&self) -> bool {
        self.lagged == 0
            && self.begun.is_none()
            && self.interrupted.is_none()
            && self.resumed.is_none()
            && !self.replay_timed_out
            && self.missing == 0
    }

    fn next(&mut self) -> Option<Item> {
        if self.lagged > 0 {
            return Some(Item::Event(ChannelEvent::Lagged(core::mem::take(&mut self.lagged))));
        }
        if let Some((response, mark)) = self.begun.take().map(|begun| *begun) {
            return Some(Item::Joined { response, mark });
        }
        if let Some((cause, count)) = self.interrupted.take() {
            return Some(Item::Event(ChannelEvent::Interrupted { cause, count }));
        }
        if let Some(response) = self.resumed.take() {
            return Some(match self.joined.take() {
                Some(mark) => Item::Joined { response, mark },
                None => Item::Event(ChannelEvent::Resumed { response }),
            });
        }
        if core::mem::take(&mut self.replay_timed_out) {
            return Some(Item::ReplayTimedOut);
        }
        (core::mem::take(&mut self.missing) > 0).then_some(Item::Missing)
    }

    /// Forgets the latest join, because another one follows. Its replay brings the missing messages.
    fn forget_join(&mut self) {
        let (response, joined) = (self.resumed.take(), self.joined.take());
        if let (Some(response), Some(mark), None) = (response, joined, &self.begun) {
            // The interruptions before and after this join are reported as one.
            let mark = JoinMark { first: true, ..mark };
            self.begun =
                Some(Box::new((response, mark))).filter(|_| mark.asked.position().is_none());
        }
        self.replay_timed_out = false;
        self.missing = 0;
    }

    /// The gap as a consumer that does not catch up sees it.
    fn for_others(&self) -> Self {
        let mut gap = self.clone();
        gap.begun = None;
        if gap.joined.take().is_some_and(|joined| joined.first) {
            gap.resumed = None;
        }
        gap.lagged += core::mem::take(&mut gap.missing);
        gap.replay_timed_out = false;
        gap
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
        mailbox.begin();
        mailbox
    }

    fn message(number: u64) -> Message {
        Message::new("room:a", "msg", serde_json::json!(number))
    }

    fn messages(batch: &VecDeque<Entry>) -> Vec<Message> {
        batch.iter().map(|entry| entry.message.clone()).collect()
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
                other => format!("{other:?}"),
            });
            if end {
                break;
            }
        }
        seen
    }

    #[test]
    fn drop_oldest_reports_loss_first() {
        let mut mailbox = mailbox(2, 100_000, MailboxPolicy::DropOldest);
        for number in 0..5 {
            mailbox.message(message(number), Load::own(1));
        }
        assert_eq!(drain(&mut mailbox), ["lagged 3", "3", "4"]);
    }

    #[test]
    fn drop_newest_reports_loss_last() {
        let mut mailbox = mailbox(2, 100_000, MailboxPolicy::DropNewest);
        for number in 0..5 {
            mailbox.message(message(number), Load::own(1));
        }
        assert_eq!(drain(&mut mailbox), ["0", "1", "lagged 3"]);
    }

    #[test]
    fn rejoin_policy_drops_until_next_join() {
        let mut mailbox = mailbox(2, 100_000, MailboxPolicy::Rejoin);
        for number in 0..2 {
            mailbox.message(message(number), Load::own(1));
        }
        assert!(!mailbox.needs_join());
        for number in 2..5 {
            mailbox.message(message(number), Load::own(1));
            assert!(mailbox.needs_join());
        }
        mailbox.interrupted(Interruption::Resync);
        assert!(mailbox.needs_join());
        mailbox.resumed(Payload::from(serde_json::json!({})));
        assert!(!mailbox.needs_join());
        mailbox.message(message(5), Load::own(1));
        assert_eq!(drain(&mut mailbox), ["lagged 5", "interrupted x1", "resumed", "5"]);
    }

    #[test]
    fn close_policy_ends_stream_on_overflow() {
        let mut mailbox = mailbox(1, 100_000, MailboxPolicy::Close);
        mailbox.message(message(0), Load::own(1));
        mailbox.message(message(1), Load::own(1));
        mailbox.message(message(2), Load::own(1));
        assert_eq!(drain(&mut mailbox), ["0", "lagged 1", "closed"]);
        assert_eq!(mailbox.next(), Some(ChannelEvent::Closed(StreamEnd::Overflow)));
    }

    /// The driver reports missed messages after it has released the lock, and the mailbox has ended by then.
    #[test]
    fn end_waits_for_reports_of_missed_messages() {
        let limits = Limits { messages: 1, bytes: 100_000, policy: MailboxPolicy::DropOldest };
        let mut mailbox = Mailbox::catching_up(limits);
        mailbox.message(message(0), Load::own(1));
        for number in 1..3 {
            mailbox.message(message(number), Load::own(1));
            assert_eq!(mailbox.take_missed(), [message(number)]);
        }
        mailbox.close(StreamEnd::Channel(ChannelEnd::Left));
        assert_eq!(drain(&mut mailbox), ["0"]);
        mailbox.report_missed(1);
        assert_eq!(drain(&mut mailbox), ["lagged 1"]);
        mailbox.report_missed(0);
        assert_eq!(drain(&mut mailbox), ["closed"]);
        assert_eq!(mailbox.gap_bytes, 0);
    }

    #[test]
    fn mailbox_bytes_are_bounded_except_one_message() {
        let mut mailbox = mailbox(100, 10, MailboxPolicy::DropOldest);
        mailbox.message(message(0), Load::own(6));
        mailbox.message(message(1), Load::own(6));
        mailbox.message(message(2), Load::own(600));
        assert_eq!(drain(&mut mailbox), ["lagged 2", "2"]);
        mailbox.message(message(3), Load::own(6));
        assert_eq!(drain(&mut mailbox), ["3"]);
    }

    #[test]
    fn prefetched_messages_count_against_bounds() {
        let mut mailbox = mailbox(16, 100_000, MailboxPolicy::DropOldest);
        for number in 0..5 {
            mailbox.message(message(number), Load::own(1));
        }
        let mut batch = VecDeque::new();
        mailbox.prefetch(&mut batch);
        assert_eq!(messages(&batch), [message(0), message(1)]);
        for number in 5..30 {
            mailbox.message(message(number), Load::own(1));
        }
        let waiting = drain(&mut mailbox);
        assert_eq!((waiting[0].as_str(), waiting[1].as_str()), ("lagged 14", "16"));
        assert_eq!(waiting.len(), 1 + 14, "16 messages with the two that were prefetched");
    }

    #[test]
    fn prefetch_stops_at_gap_and_with_rejoin() {
        let mut batch = VecDeque::new();
        let mut mailbox = mailbox(64, 100_000, MailboxPolicy::DropOldest);
        for number in 0..4 {
            mailbox.message(message(number), Load::own(1));
            if number == 1 {
                mailbox.interrupted(Interruption::Crashed);
            }
        }
        mailbox.prefetch(&mut batch);
        assert_eq!(messages(&batch), [message(0), message(1)]);
        assert_eq!(drain(&mut mailbox), ["interrupted x1", "2", "3"]);

        let limits = Limits { messages: 64, bytes: 1_000, policy: MailboxPolicy::Rejoin };
        let mut mailbox = Mailbox::new(limits);
        for number in 0..4 {
            mailbox.message(message(number), Load::own(1));
        }
        batch.clear();
        mailbox.prefetch(&mut batch);
        assert_eq!((batch.len(), drain(&mut mailbox).len()), (0, 4));
    }

    #[test]
    fn gap_stays_between_its_messages() {
        let mut mailbox = mailbox(8, 100_000, MailboxPolicy::DropOldest);
        mailbox.message(message(0), Load::own(1));
        mailbox.interrupted(Interruption::Crashed);
        mailbox.resumed(Payload::from(serde_json::json!({})));
        mailbox.message(message(1), Load::own(1));
        assert_eq!(drain(&mut mailbox), ["0", "interrupted x1", "resumed", "1"]);
    }

    #[test]
    fn lifecycle_events_survive_dropped_messages() {
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
    fn closed_mailbox_delivers_queue_and_takes_nothing() {
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

    /// A message that is a slice of a buffer, and its load.
    fn slice(text: &str, kept: usize) -> (Message, Load) {
        let payload =
            Payload::unparsed(Bytes::from([text, " and more"].concat()).slice(..text.len()));
        let message = Message::new("room:a", "msg", payload);
        let own = message.weight();
        (message, Load { own, kept: kept.max(own) })
    }

    /// Messages are copied out of their read buffers before any is dropped. The originals, which
    /// the application may own, are dropped after the lock is released.
    #[test]
    fn slices_are_copied_before_drops() {
        let mut mailbox = mailbox(100, 10_000, MailboxPolicy::DropOldest);
        let (first, load) = slice("0", 5_000);
        let original = first.payload.as_bytes().as_ptr();
        mailbox.message(first, load);
        mailbox.message(slice("1", 5_000).0, load);
        assert_eq!(mailbox.discarded.len(), 0, "exactly at the bound");
        mailbox.message(slice("2", 5_000).0, load);
        assert_eq!(mailbox.discarded.len(), 2);
        assert_eq!(mailbox.discarded[0].payload.as_bytes().as_ptr(), original);
        assert_eq!(
            (mailbox.take_dropped(), drain(&mut mailbox)),
            (0, vec!["0".into(), "1".into(), "2".into()])
        );
        assert_eq!((mailbox.account.kept(), mailbox.gap_bytes), (0, 0));
    }

    /// A consumer that keeps up causes no copies if no message alone keeps more memory alive than the bound.
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
    fn prefetch_is_bounded_in_bytes() {
        for (kept, taken) in [(1_250, 8), (5_000, 2), (5_001, 0), (40_000, 0)] {
            let mut mailbox = mailbox(64, 80_000, MailboxPolicy::DropOldest);
            for _ in 0..10 {
                let (message, load) = slice("1", kept);
                mailbox.account.add(load);
                mailbox.entries.push_back(Entry { before: None, message, load });
            }
            let mut batch = VecDeque::new();
            mailbox.prefetch(&mut batch);
            assert_eq!((batch.len(), mailbox.prefetched), (taken, (taken, taken * kept)), "{kept}");
        }
    }

    #[test]
    fn gap_responses_count_in_bytes() {
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
        Prefetch,
        Clear,
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            6 => prop_oneof![Just(0_usize), 0_usize..40_000].prop_map(Op::Message),
            1 => Just(Op::Interrupted),
            1 => (0_usize..8_000).prop_map(Op::Resumed),
            3 => Just(Op::Next),
            1 => Just(Op::Prefetch),
            1 => prop_oneof![9 => Just(Op::Next), 1 => Just(Op::Clear)],
        ]
    }

    fn policy() -> impl Strategy<Value = MailboxPolicy> {
        use MailboxPolicy::{Close, DropNewest, DropOldest, Rejoin};
        prop_oneof![Just(DropOldest), Just(DropNewest), Just(Rejoin), Just(Close)]
    }

    proptest! {
        /// The account equals a recount after every operation. The bytes held, without the last
        /// gap, are within the bound; a single message may be larger.
        #[test]
        fn account_equals_recount(policy in policy(), ops in proptest::collection::vec(op(), 1..80)) {
            let mut mailbox = mailbox(16, 20_000, policy);
            let (mut batch, mut number) = (VecDeque::new(), 0_u64);
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
                    Op::Prefetch => {
                        batch.clear();
                        mailbox.prefetch(&mut batch);
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
                    let held = kept + mailbox.fixed_bytes() - tail;
                    prop_assert!(few || held <= 20_000, "{}", held);
                }
            }
        }
    }
}
