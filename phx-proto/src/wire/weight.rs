//! The weight of kept messages: the one estimate that every bounded queue counts with.
//!
//! An incoming message is made of slices of its frame, and its frame is a slice of the transport's
//! read buffer: three bytes may keep megabytes alive, and [`Bytes`] does not tell. So a message
//! counts twice: for what it takes in memory of its own ([`Load::own`]), and for what it keeps alive
//! as it came ([`Load::kept`]), which is the whole read buffer, as [`ReadBuffer`] estimates it. A
//! queue adds up the latter. When the sum passes the bound, the queue first copies messages out of
//! their buffers ([`compact`]), oldest first and each at most once, until the sum fits; only when it
//! would not fit with everything copied does it drop any. [`Account`] is that account. A consumer
//! that keeps up causes no copy, unless one small message alone keeps more than the bound alive.

#![allow(dead_code, reason = "most queues are the driver's, and each uses its part of this")]

use std::collections::VecDeque;

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::wire::ByteStr;
use crate::wire::payload::Payload;

/// What one kept message costs beside its bytes: its entry in a queue, twice because queues grow by
/// doubling, and the bookkeeping of its allocations.
pub(crate) const ENTRY: usize = 256;

/// The weight of one kept message, in bytes of memory of its own: the lengths of its names, such as
/// the event, its payload, and the fixed cost of an entry. The topic is shared with the channel, so
/// it is no part of it.
#[inline]
pub(crate) fn weight(names: usize, payload: &Payload) -> usize {
    ENTRY.saturating_add(names).saturating_add(payload.held_len())
}

/// The weight of a parsed JSON value: about a hundred times its text in the worst case, which is
/// small objects.
pub(crate) fn tree_weight(value: &Value) -> usize {
    size_of::<Value>().saturating_add(match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.len(),
        // A vector grows by doubling.
        Value::Array(items) => items
            .iter()
            .map(tree_weight)
            .fold(items.len() * size_of::<Value>(), usize::saturating_add),
        Value::Object(members) => members_weight(members),
    })
}

/// The weight of the members of a parsed JSON object.
pub(crate) fn members_weight(members: &Map<String, Value>) -> usize {
    members
        .iter()
        .map(|(key, value)| key.len().saturating_add(tree_weight(value)))
        .fold(nodes_weight(members.len()), usize::saturating_add)
}

/// The weight of the tree that holds so many members, without the members.
pub(crate) const fn nodes_weight(members: usize) -> usize {
    /// A node of the tree has room for 11 members, and at least 5 but in its root.
    const NODE: usize = 12 * (size_of::<String>() + size_of::<Value>() + size_of::<usize>());
    if members == 0 { 0 } else { (1 + members / 5) * NODE }
}

/// A message in one allocation of its own, without what its slices kept alive.
pub(crate) fn compact(name: &ByteStr, payload: &Payload) -> (ByteStr, Payload) {
    let (name_len, bytes) = (name.as_bytes().len(), payload.as_bytes());
    let mut copy = Vec::with_capacity(name_len + bytes.len());
    copy.extend_from_slice(name.as_bytes());
    copy.extend_from_slice(bytes);
    let mut name = Bytes::from(copy);
    let payload_bytes = name.split_off(name_len);
    (ByteStr::copied(name), payload.with_bytes(payload_bytes))
}

/// What a kept slice of a connection's read buffer keeps alive, estimated from the sizes that are
/// known: of the buffer as it was configured, and of the frames.
///
/// Transports read into one buffer and hand out slices of it. It grows when a frame does not fit
/// behind what was read already, by doubling if no slice of it is left, and then serves for the frames
/// that follow: a small message keeps the memory of the largest one before it. So does a message that
/// came in fragments, whose parts were collected in a buffer that doubled. Nothing reports when such a
/// buffer was given up, so the largest frame counts as long as the connection lives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadBuffer {
    configured: usize,
    largest: usize,
}

impl ReadBuffer {
    /// The buffer of a connection that has not read anything.
    pub(crate) const fn new(configured: usize) -> Self {
        Self { configured, largest: 0 }
    }

    /// A frame of that many bytes was read.
    #[inline]
    pub(crate) fn received(&mut self, frame_len: usize) {
        self.largest = self.largest.max(frame_len);
    }

    /// The most that one slice keeps alive, in bytes.
    ///
    /// It is twice the buffer while frames are small against it; of larger ones, twice what they
    /// have beyond an eighth of the buffer is added.
    #[inline]
    pub(crate) const fn kept(&self) -> usize {
        let beyond = self.largest.saturating_sub(self.configured / 8);
        self.configured.saturating_add(beyond).saturating_mul(2)
    }

    /// What a message of that weight counts for while it is as it came.
    #[inline]
    pub(crate) const fn load(&self, weight: usize) -> Load {
        let kept = self.kept();
        Load { own: weight, kept: if kept > weight { kept } else { weight } }
    }
}

/// What one message counts for in a queue, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Load {
    /// In memory of its own.
    pub(crate) own: usize,
    /// As it is: `own` for one that is in memory of its own.
    pub(crate) kept: usize,
}

impl Load {
    /// Of what is in memory of its own.
    pub(crate) const fn own(weight: usize) -> Self {
        Self { own: weight, kept: weight }
    }

    /// Whether so little of what it keeps alive is its own that it is copied even when it is alone.
    /// The frame of a large message is never more than three times its weight.
    pub(crate) const fn is_small(self) -> bool {
        self.own < self.kept / 3
    }
}

/// The account of a queue: what its entries count for, and up to where they are compact already.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    max: usize,
    own: usize,
    kept: usize,
    /// Entries at the front that are known to be in memory of their own.
    compact: usize,
}

impl Account {
    /// Of an empty queue that holds `max` bytes.
    pub(crate) const fn new(max: usize) -> Self {
        Self { max, own: 0, kept: 0, compact: 0 }
    }

    /// Whether another entry fits beside `lent` bytes that cannot be copied, if need be with
    /// everything copied. When not, something has to be dropped.
    #[inline]
    pub(crate) const fn fits(&self, load: Load, lent: usize) -> bool {
        self.own.saturating_add(lent).saturating_add(load.own) <= self.max
    }

    /// Accounts for an entry that is added at the back.
    #[inline]
    pub(crate) fn add(&mut self, load: Load) {
        self.own = self.own.saturating_add(load.own);
        self.kept = self.kept.saturating_add(load.kept);
    }

    /// Accounts for an entry that is removed from this place.
    #[inline]
    pub(crate) fn remove(&mut self, index: usize, load: Load) {
        self.own = self.own.saturating_sub(load.own);
        self.kept = self.kept.saturating_sub(load.kept);
        if index < self.compact {
            self.compact -= 1;
        }
    }

    /// The bytes that the entries count for.
    #[cfg(test)]
    pub(crate) const fn kept(&self) -> usize {
        self.kept
    }

    /// Copies entries out of what they keep alive, oldest first, until the sum fits beside `lent`
    /// bytes. `copy` puts an entry into memory of its own and returns its load.
    ///
    /// An entry is visited once, so the work is bounded by what is added. A single large one stays
    /// as it is, however large.
    #[inline]
    pub(crate) fn settle<T>(
        &mut self,
        entries: &mut VecDeque<T>,
        lent: usize,
        load: impl Fn(&T) -> Load,
        copy: impl FnMut(&mut T) -> Load,
    ) {
        if self.kept.saturating_add(lent) > self.max {
            self.copy_out(entries, lent, load, copy);
        }
    }

    #[cold]
    fn copy_out<T>(
        &mut self,
        entries: &mut VecDeque<T>,
        lent: usize,
        load: impl Fn(&T) -> Load,
        mut copy: impl FnMut(&mut T) -> Load,
    ) {
        let alone = entries.len() == 1;
        while self.kept.saturating_add(lent) > self.max {
            let Some(entry) = entries.get_mut(self.compact) else { return };
            let before = load(entry);
            if alone && !before.is_small() {
                return;
            }
            self.compact += 1;
            if before.kept > before.own {
                let after = copy(entry);
                self.own = self.own.saturating_sub(before.own).saturating_add(after.own);
                self.kept = self.kept.saturating_sub(before.kept).saturating_add(after.kept);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy)]
    struct Entry(Load, u32);

    fn settle(account: &mut Account, entries: &mut VecDeque<Entry>, lent: usize) {
        account.settle(
            entries,
            lent,
            |entry| entry.0,
            |entry| {
                *entry = Entry(Load::own(entry.0.own), entry.1 + 1);
                entry.0
            },
        );
    }

    fn add(account: &mut Account, entries: &mut VecDeque<Entry>, own: usize, kept: usize) {
        let load = Load { own, kept };
        account.add(load);
        entries.push_back(Entry(load, 0));
        settle(account, entries, 0);
    }

    fn copies(entries: &VecDeque<Entry>) -> Vec<u32> {
        entries.iter().map(|entry| entry.1).collect()
    }

    #[test]
    fn oldest_are_copied_until_the_sum_fits() {
        let (mut account, mut entries) = (Account::new(100), VecDeque::new());
        for _ in 0..2 {
            add(&mut account, &mut entries, 1, 50);
        }
        assert_eq!(copies(&entries), [0, 0], "exactly the bound");
        add(&mut account, &mut entries, 1, 50);
        assert_eq!((copies(&entries), account.kept()), (vec![1, 1, 0], 52));
        add(&mut account, &mut entries, 1, 40);
        assert_eq!((copies(&entries), account.kept()), (vec![1, 1, 0, 0], 92));
        add(&mut account, &mut entries, 1, 9);
        assert_eq!((copies(&entries), account.kept()), (vec![1, 1, 1, 0, 0], 52));
    }

    #[test]
    fn entries_are_copied_once() {
        let (mut account, mut entries) = (Account::new(100), VecDeque::new());
        for _ in 0..40 {
            add(&mut account, &mut entries, 1, 1_000);
            if entries.len() > 20 {
                let Some(Entry(load, _)) = entries.pop_front() else { unreachable!() };
                account.remove(0, load);
            }
        }
        assert!(entries.iter().all(|entry| entry.1 == 1), "{:?}", copies(&entries));
        assert_eq!((account.own, account.kept, account.compact), (20, 20, 20));
    }

    #[test]
    fn removal_behind_the_copied_entries_leaves_their_number() {
        let (mut account, mut entries) = (Account::new(100), VecDeque::new());
        for _ in 0..3 {
            add(&mut account, &mut entries, 1, 60);
        }
        assert_eq!((copies(&entries), account.compact), (vec![1, 1, 0], 2));
        account.remove(2, entries[2].0);
        assert_eq!(account.compact, 2);
        account.remove(1, entries[1].0);
        assert_eq!((account.compact, account.kept(), account.own), (1, 1, 1));
    }

    #[test]
    fn single_entry_is_copied_only_when_little_of_it_is_its_own() {
        for (own, kept, copied) in [(1, 101, 1), (33, 102, 1), (34, 102, 0), (200, 400, 0)] {
            let (mut account, mut entries) = (Account::new(100), VecDeque::new());
            add(&mut account, &mut entries, own, kept);
            assert_eq!(copies(&entries), [copied], "{own} of {kept}");
        }
    }

    #[test]
    fn lent_bytes_count() {
        let (mut account, mut entries) = (Account::new(100), VecDeque::new());
        for _ in 0..2 {
            add(&mut account, &mut entries, 10, 40);
        }
        assert!(account.fits(Load { own: 10, kept: 40 }, 70));
        assert!(!account.fits(Load { own: 10, kept: 40 }, 71));
        settle(&mut account, &mut entries, 20);
        assert_eq!(copies(&entries), [0, 0]);
        settle(&mut account, &mut entries, 21);
        assert_eq!(copies(&entries), [1, 0]);
    }

    #[test]
    fn read_buffer_counts_its_growth_for_the_largest_frame() {
        let mut buffer = ReadBuffer::new(16 << 10);
        assert_eq!(buffer.kept(), 32 << 10);
        buffer.received(2 << 10);
        assert_eq!(buffer.kept(), 32 << 10, "small against the buffer");
        buffer.received(1 << 20);
        buffer.received(1);
        assert_eq!(buffer.kept(), 2 * ((14 << 10) + (1 << 20)));
        assert_eq!(buffer.load(7), Load { own: 7, kept: buffer.kept() });
        assert_eq!(buffer.load(9 << 20), Load::own(9 << 20));
    }

    #[test]
    fn compact_message_equals_the_one_it_was_copied_from() {
        let frame = Bytes::from_static(b"presence[1] , \"status\":\"ok\"");
        let name = ByteStr::new(frame.slice(..8)).expect("ASCII");
        for payload in [
            Payload::unparsed(frame.slice(8..11)),
            Payload::member(frame.slice(8..)),
            Payload::binary_shared(frame.slice(8..)),
            Payload::binary(b"own"),
            Payload::from(serde_json::json!({"a": 1})),
        ] {
            let (copied_name, copied) = compact(&name, &payload);
            assert_eq!((&copied_name, &copied), (&name, &payload));
            assert!(copied.held_len() <= payload.held_len());
            for slice in [copied_name.as_bytes(), copied.as_bytes()] {
                assert!(!frame.as_ptr_range().contains(&slice.as_ptr()), "{payload:?}");
            }
        }
    }

    #[test]
    fn tree_weighs_at_least_its_nodes() {
        let small: Value = serde_json::from_str(r#"{"":0}"#).expect("JSON");
        assert!((650..1_500).contains(&tree_weight(&small)), "{}", tree_weight(&small));
        let flat = Value::from(vec![0; 100]);
        assert_eq!(tree_weight(&flat), 201 * size_of::<Value>());
    }
}
