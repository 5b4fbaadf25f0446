//! Memory accounting for queued messages, shared by every bounded queue.
//!
//! The payload of an incoming message, and every long name in it, is a slice of its frame, and the
//! frame is a slice of the transport's read buffer. Three bytes may keep megabytes alive, and [`Bytes`]
//! does not reveal how much. So a message has two sizes: the memory that a copy of it takes
//! ([`Load::own`]), and the memory that it keeps alive as received ([`Load::kept`]), which is the whole
//! read buffer as estimated by [`ReadBuffer`]. A queue adds up the second size of its messages. When
//! the sum exceeds the bound, the queue copies messages out of their buffers ([`compact`]), oldest
//! first and each at most once, until the sum fits. It drops messages only if they would not fit even
//! after all of them were copied. [`Account`] keeps these sums. A consumer that keeps up causes no
//! copy, unless one small message alone keeps more than the bound alive.

#![allow(dead_code, reason = "some functions are used only by queues of optional features")]

use std::collections::VecDeque;

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::wire::ByteStr;
use crate::wire::payload::Payload;

/// The fixed cost of one queued message in bytes: twice its entry in the queue, because queues grow by
/// doubling, and the overhead of its allocations.
pub(crate) const ENTRY: usize = 256;

/// The weight of one queued message in bytes: the length of its names, such as the event, its payload,
/// and the fixed cost of an entry. The topic does not count, because it is shared with the channel.
#[inline]
pub(crate) fn weight(names: usize, payload: &Payload) -> usize {
    ENTRY.saturating_add(names).saturating_add(payload.held_len())
}

/// The weight of a parsed JSON value in bytes. In the worst case, many small objects, it is about a
/// hundred times the length of the text.
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

/// The weight of a B-tree with this number of members, without the members themselves.
pub(crate) const fn nodes_weight(members: usize) -> usize {
    /// The size of a node. It has capacity for 11 members, and holds at least 5 unless it is the root.
    const NODE: usize = 12 * (size_of::<String>() + size_of::<Value>() + size_of::<usize>());
    if members == 0 { 0 } else { (1 + members / 5) * NODE }
}

/// Copies a message into one allocation of its own, so that it no longer keeps its read buffer alive.
pub(crate) fn compact(name: &ByteStr, payload: &Payload) -> (ByteStr, Payload) {
    let (name_len, bytes) = (name.as_bytes().len(), payload.as_bytes());
    if name.is_inline() {
        return (name.clone(), payload.with_bytes(Bytes::copy_from_slice(bytes)));
    }
    let mut copy = Vec::with_capacity(name_len + bytes.len());
    copy.extend_from_slice(name.as_bytes());
    copy.extend_from_slice(bytes);
    let mut name = Bytes::from(copy);
    let payload_bytes = name.split_off(name_len);
    (ByteStr::copied(name), payload.with_bytes(payload_bytes))
}

/// An estimate of the memory that a slice of a connection's read buffer keeps alive, from the
/// configured size of the buffer and the sizes of the frames.
///
/// Transports read into one buffer and return slices of it. The buffer grows when a frame does not fit
/// after the bytes already read, and it doubles if no slice of it is in use any more. It is then used for
/// the frames that follow, so a small message may keep alive a buffer that has grown for the largest frame
/// so far. A message that arrived in fragments may keep as much alive, because its parts are collected in a
/// buffer that doubles. Transports do not report when they release such a buffer, so the largest frame
/// counts until the end of the connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadBuffer {
    configured: usize,
    largest: usize,
}

impl ReadBuffer {
    /// Creates the estimate for a connection that has not read anything.
    pub(crate) const fn new(configured: usize) -> Self {
        Self { configured, largest: 0 }
    }

    /// Records the size of a frame that was read.
    #[inline]
    pub(crate) fn received(&mut self, frame_len: usize) {
        self.largest = self.largest.max(frame_len);
    }

    /// The maximum memory that one slice keeps alive, in bytes.
    ///
    /// This is twice the configured size, plus twice the part of the largest frame that exceeds an eighth
    /// of the configured size.
    #[inline]
    pub(crate) const fn kept(&self) -> usize {
        let beyond = self.largest.saturating_sub(self.configured / 8);
        self.configured.saturating_add(beyond).saturating_mul(2)
    }

    /// The load of a message that still shares its read buffer.
    #[inline]
    pub(crate) const fn load(&self, weight: usize) -> Load {
        let kept = self.kept();
        Load { own: weight, kept: if kept > weight { kept } else { weight } }
    }
}

/// The two sizes of one queued message, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Load {
    /// The memory that the message takes when it is copied into memory of its own.
    pub(crate) own: usize,
    /// The memory that the message keeps alive now; equal to `own` once it is copied.
    pub(crate) kept: usize,
}

impl Load {
    /// The load of a message in memory of its own.
    pub(crate) const fn own(weight: usize) -> Self {
        Self { own: weight, kept: weight }
    }

    /// Whether the message keeps more than three times its own size alive. Such a message is copied even
    /// if it is alone in the queue. A message that is the largest so far, and much
    /// larger than the read buffer, is never small, because its frame is hardly larger than its weight.
    pub(crate) const fn is_small(self) -> bool {
        self.own < self.kept / 3
    }
}

/// The memory account of a queue: the sums of its entries' loads, and how many entries are compact.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    max: usize,
    own: usize,
    kept: usize,
    /// The number of entries at the front that are known to be in memory of their own.
    compact: usize,
}

impl Account {
    /// Creates the account of an empty queue with a bound of `max` bytes.
    pub(crate) const fn new(max: usize) -> Self {
        Self { max, own: 0, kept: 0, compact: 0 }
    }

    /// Whether another entry fits if all entries are copied. `lent` is a number of further bytes that
    /// copying cannot reduce. If the entry does not fit, one has to be dropped.
    #[inline]
    pub(crate) const fn fits(&self, load: Load, lent: usize) -> bool {
        self.own.saturating_add(lent).saturating_add(load.own) <= self.max
    }

    /// Adds the load of an entry that is pushed to the back.
    #[inline]
    pub(crate) fn add(&mut self, load: Load) {
        self.own = self.own.saturating_add(load.own);
        self.kept = self.kept.saturating_add(load.kept);
    }

    /// Subtracts the load of an entry that is removed at `index`.
    #[inline]
    pub(crate) fn remove(&mut self, index: usize, load: Load) {
        self.own = self.own.saturating_sub(load.own);
        self.kept = self.kept.saturating_sub(load.kept);
        if index < self.compact {
            self.compact -= 1;
        }
    }

    /// The memory that the entries keep alive, in bytes.
    #[inline]
    pub(crate) const fn kept(&self) -> usize {
        self.kept
    }

    /// Copies entries out of their read buffers, oldest first, until the sum and `lent` bytes fit the
    /// bound. `copy` moves an entry into memory of its own and returns its new load.
    ///
    /// Each entry is visited once, so the total work is bounded by the entries added. A large message
    /// that is alone in the queue is never copied.
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
    fn oldest_entries_are_copied_first() {
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
    fn removal_keeps_number_of_compact_entries() {
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
    fn lone_entry_is_copied_if_small() {
        for (own, kept, copied) in [(1, 101, 1), (33, 102, 1), (34, 102, 0), (200, 400, 0)] {
            let (mut account, mut entries) = (Account::new(100), VecDeque::new());
            add(&mut account, &mut entries, own, kept);
            assert_eq!(copies(&entries), [copied], "{own} of {kept}");
        }
    }

    #[test]
    fn lent_bytes_count_toward_bound() {
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
    fn read_buffer_grows_with_largest_frame() {
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

    /// A short name is stored in its value, and a long one shares the new allocation with the payload.
    #[test]
    fn compact_message_equals_its_source() {
        for event in ["presence", "an event name of 25 bytes"] {
            let frame = Bytes::from(format!("{event}[1] , \"status\":\"ok\""));
            let (name, rest) = (frame.slice(..event.len()), frame.slice(event.len()..));
            let name = ByteStr::new(name).expect("ASCII");
            for payload in [
                Payload::unparsed(rest.slice(..3)),
                Payload::member(rest.clone()),
                Payload::binary_shared(rest),
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
    }

    #[test]
    fn tree_weight_includes_nodes() {
        let small: Value = serde_json::from_str(r#"{"":0}"#).expect("JSON");
        let words = tree_weight(&small) / size_of::<usize>();
        assert!((80..190).contains(&words), "{words}");
        let flat = Value::from(vec![0; 100]);
        assert_eq!(tree_weight(&flat), 201 * size_of::<Value>());
    }
}
