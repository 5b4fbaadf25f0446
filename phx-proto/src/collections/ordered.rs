//! A sorted ring buffer: O(1) push at the back and pop at the front, binary search otherwise.
//!
//! Keys usually have consecutive numbers, and nearly all entries are removed from the front. An entry
//! that is removed elsewhere leaves a tombstone. A tombstone is dropped when it reaches an end of the
//! ring, and all are dropped when they are more than half of it. So a removal takes the time of its
//! search plus amortised constant time. Only an insertion out of order moves its neighbours. Many such
//! insertions at once (the pushes that waited for a join) need only one merge.
//!
//! With a `BTreeMap` instead, a push and its reply take 34 % more instructions (3,324 instead of 2,478): the
//! map allocates and frees a node whenever it goes from empty to one entry and back.

use core::fmt;
use std::collections::VecDeque;

use crate::id::{InterestId, PushId, Ref};
use crate::time::Time;

/// A key with a number that usually is one more than that of the key before it.
pub(crate) trait Numbered: Ord + Copy {
    /// The number of the key.
    fn number(self) -> u64;
}

impl Numbered for u64 {
    fn number(self) -> u64 {
        self
    }
}

impl Numbered for Ref {
    fn number(self) -> u64 {
        self.as_u64()
    }
}

impl Numbered for PushId {
    fn number(self) -> u64 {
        self.as_u64()
    }
}

impl Numbered for InterestId {
    fn number(self) -> u64 {
        self.as_u64()
    }
}

impl Numbered for (Time, PushId) {
    fn number(self) -> u64 {
        self.1.as_u64()
    }
}

/// A sorted ring buffer.
#[derive(Clone)]
pub(crate) struct Ordered<K, V = ()> {
    /// An entry without a value is a tombstone. The first and the last entry are never tombstones.
    ring: VecDeque<(K, Option<V>)>,
    tombstones: usize,
}

/// Fewer tombstones than this are not worth a pass over the ring.
const TOMBSTONES_MIN: usize = 32;

impl<K, V> Default for Ordered<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K, V> Ordered<K, V> {
    pub(crate) const fn new() -> Self {
        Self { ring: VecDeque::new(), tombstones: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.ring.len() - self.tombstones
    }
}

impl<K: Numbered, V> Ordered<K, V> {
    #[inline(always)]
    pub(crate) fn insert(&mut self, key: K, value: V) {
        if self.last().is_none_or(|last| last < key) {
            self.ring.push_back((key, Some(value)));
        } else {
            self.insert_before(key, value);
        }
    }

    fn insert_before(&mut self, key: K, value: V) {
        match self.find(key) {
            Ok(at) => {
                if self.ring[at].1.replace(value).is_none() {
                    self.tombstones -= 1;
                }
            }
            Err(at) => self.ring.insert(at, (key, Some(value))),
        }
    }

    /// Allocates capacity for one entry in an empty ring, which would otherwise start with four.
    pub(crate) fn reserve_one(&mut self) {
        if self.ring.capacity() == 0 {
            self.ring.reserve_exact(1);
        }
    }

    /// Inserts sorted entries with new keys, in one pass over the ring.
    pub(crate) fn extend(&mut self, entries: impl IntoIterator<Item = (K, V)>) {
        let mut entries = entries.into_iter().peekable();
        let Some((first, _)) = entries.peek() else { return };
        let in_order = self.last().is_none_or(|last| last < *first);
        if !in_order {
            self.drop_tombstones();
        }
        self.ring.extend(entries.map(|(key, value)| (key, Some(value))));
        if !in_order {
            // The ring consists of two sorted runs, which a stable sort merges.
            self.ring.make_contiguous().sort_by_key(|(key, _)| *key);
        }
    }

    #[inline(always)]
    pub(crate) fn remove(&mut self, key: K) -> Option<V> {
        if self.first().is_some_and(|(first, _)| first == key) {
            return self.pop_first().map(|(_, value)| value);
        }
        self.remove_after_first(key)
    }

    fn remove_after_first(&mut self, key: K) -> Option<V> {
        let at = self.find(key).ok()?;
        let value = self.ring[at].1.take()?;
        self.tombstones += 1;
        while self.ring.back().is_some_and(|(_, value)| value.is_none()) {
            self.ring.pop_back();
            self.tombstones -= 1;
        }
        if self.tombstones >= TOMBSTONES_MIN && self.tombstones * 2 > self.ring.len() {
            self.drop_tombstones();
        }
        Some(value)
    }

    fn drop_tombstones(&mut self) {
        self.ring.retain(|(_, value)| value.is_some());
        self.tombstones = 0;
    }

    /// The entry with the lowest key.
    #[inline(always)]
    pub(crate) fn first(&self) -> Option<(K, &V)> {
        self.ring.front().and_then(|(key, value)| Some((*key, value.as_ref()?)))
    }

    /// The highest key.
    #[inline(always)]
    pub(crate) fn last(&self) -> Option<K> {
        self.ring.back().map(|(key, _)| *key)
    }

    #[inline(always)]
    pub(crate) fn pop_first(&mut self) -> Option<(K, V)> {
        let (key, value) = self.ring.pop_front()?;
        if self.tombstones > 0 {
            self.drop_leading_tombstones();
        }
        value.map(|value| (key, value))
    }

    fn drop_leading_tombstones(&mut self) {
        while self.ring.front().is_some_and(|(_, value)| value.is_none()) {
            self.ring.pop_front();
            self.tombstones -= 1;
        }
    }

    /// Frees the memory if the ring is empty.
    pub(crate) fn shrink_if_empty(&mut self) {
        if self.ring.is_empty() {
            self.ring = VecDeque::new();
        }
    }

    /// Frees unused capacity if at most a quarter is in use.
    #[cfg(feature = "driver")]
    pub(crate) fn shrink(&mut self) {
        if self.ring.is_empty() {
            self.ring = VecDeque::new();
        } else if self.ring.capacity() >= 16 && self.len() * 4 <= self.ring.capacity() {
            self.drop_tombstones();
            self.ring.shrink_to(self.len() * 2);
        }
    }

    #[inline]
    pub(crate) fn get(&self, key: K) -> Option<&V> {
        match self.first() {
            Some((first, value)) if first == key => Some(value),
            _ => self.ring[self.find(key).ok()?].1.as_ref(),
        }
    }

    #[inline]
    #[cfg(feature = "driver")]
    pub(crate) fn get_mut(&mut self, key: K) -> Option<&mut V> {
        let at = match self.first() {
            Some((first, _)) if first == key => 0,
            _ => self.find(key).ok()?,
        };
        self.ring.get_mut(at)?.1.as_mut()
    }

    /// The entries, sorted by key.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, &V)> {
        self.ring.iter().filter_map(|(key, value)| Some((*key, value.as_ref()?)))
    }

    /// The entries, sorted by key.
    pub(crate) fn iter_mut(&mut self) -> impl DoubleEndedIterator<Item = (K, &mut V)> {
        self.ring.iter_mut().filter_map(|(key, value)| Some((*key, value.as_mut()?)))
    }

    /// Finds the index of a key. If no number is missing between this key and the last one, the index
    /// follows from the difference of their numbers, so that index is tried first. A binary search
    /// follows only if the key is not there. Among a thousand entries it costs ten branches that a
    /// processor cannot predict.
    fn find(&self, key: K) -> Result<usize, usize> {
        if let Some((last, _)) = self.ring.back() {
            let distance = last.number().wrapping_sub(key.number());
            let at =
                usize::try_from(distance).ok().and_then(|it| (self.ring.len() - 1).checked_sub(it));
            if let Some(at) = at.filter(|at| self.ring[*at].0 == key) {
                return Ok(at);
            }
        }
        self.ring.binary_search_by(|(other, _)| other.cmp(&key))
    }
}

impl<K: Numbered + fmt::Debug, V: fmt::Debug> fmt::Debug for Ordered<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    use crate::socket::rng::Rng;

    #[test]
    fn ordered_behaves_like_sorted_map() {
        let mut rng = Rng::new(7);
        let mut draw = |most: u64| rng.next_u64() % most;
        for round in 0..200 {
            let (mut ordered, mut model) = (Ordered::new(), BTreeMap::new());
            let mut next = 0;
            for step in 0..300 {
                match draw(7) {
                    0..3 => {
                        next += 1 + draw(2);
                        ordered.insert(next, step);
                        model.insert(next, step);
                    }
                    3 => {
                        let key = draw(next + 1);
                        ordered.insert(key, step);
                        model.insert(key, step);
                    }
                    4 => assert_eq!(ordered.pop_first(), model.pop_first()),
                    5 => {
                        let keys: BTreeSet<u64> = (0..draw(20)).map(|_| draw(next + 5)).collect();
                        let new = |key: &u64| !model.contains_key(key);
                        let new: Vec<_> =
                            keys.into_iter().filter(new).map(|key| (key, step)).collect();
                        next = new.last().map_or(next, |(key, _)| next.max(*key));
                        ordered.extend(new.iter().copied());
                        model.extend(new);
                    }
                    _ => {
                        let key = draw(next + 1);
                        assert_eq!(ordered.remove(key), model.remove(&key));
                    }
                }
                if round % 3 == 0 {
                    // Removes many entries from the middle.
                    let key = draw(next + 1);
                    assert_eq!(ordered.remove(key), model.remove(&key));
                }
                assert_eq!(ordered.len(), model.len());
                assert_eq!(ordered.last(), model.keys().next_back().copied());
                let key = draw(next + 1);
                assert_eq!(ordered.get(key), model.get(&key));
            }
            assert!(ordered.iter().eq(model.iter().map(|(key, value)| (*key, value))));
        }
    }

    /// Looks up and removes entries in ascending, descending and mixed order, because replies may arrive in
    /// any order: those to ten thousand joins may arrive in reverse.
    #[test]
    fn removal_takes_few_comparisons() {
        use core::cell::Cell;
        use core::cmp::Ordering;

        std::thread_local!(static COMPARED: Cell<u64> = const { Cell::new(0) });

        #[derive(Clone, Copy)]
        struct Key(u64);
        impl PartialEq for Key {
            fn eq(&self, other: &Self) -> bool {
                self.cmp(other).is_eq()
            }
        }
        impl Eq for Key {}
        impl PartialOrd for Key {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }
        impl Ord for Key {
            fn cmp(&self, other: &Self) -> Ordering {
                COMPARED.with(|compared| compared.set(compared.get() + 1));
                self.0.cmp(&other.0)
            }
        }

        impl Numbered for Key {
            fn number(self) -> u64 {
                self.0
            }
        }

        const LEN: u64 = 1 << 14;
        let orders: [fn(u64) -> u64; 3] = [|at| at, |at| LEN - 1 - at, |at| at * 7_919 % LEN];
        for (stride, order) in [1, 3].into_iter().flat_map(|it| orders.map(|order| (it, order))) {
            let mut ordered = Ordered::new();
            (0..LEN).for_each(|at| ordered.insert(Key(at * stride), ()));
            COMPARED.with(|compared| compared.set(0));
            assert!((0..LEN).all(|at| ordered.get(Key(order(at) * stride)).is_some()));
            let compared = COMPARED.with(Cell::get) / LEN;
            // With a stride of one no number is missing, so the first index tried is right.
            let most = if stride == 1 { 2 } else { 14 + 3 };
            assert!(compared <= most, "{compared} comparisons for each, stride {stride}");
            COMPARED.with(|compared| compared.set(0));
            assert!((0..LEN).all(|at| ordered.remove(Key(order(at) * stride)).is_some()));
            let compared = COMPARED.with(Cell::get) / LEN;
            assert!(compared <= 14 + 4, "{compared} comparisons for each, stride {stride}");
        }
    }

    #[test]
    fn empty_ring_frees_its_memory() {
        for in_order in [true, false] {
            let mut ordered = Ordered::new();
            (0..1_000).for_each(|key| ordered.insert(key, ()));
            for key in 0..1_000 {
                ordered.shrink_if_empty();
                assert!(ordered.remove(if in_order { key } else { 999 - key }).is_some());
            }
            assert!(ordered.ring.capacity() >= 1_000);
            ordered.shrink_if_empty();
            assert_eq!((ordered.len(), ordered.ring.capacity()), (0, 0));
        }
    }

    #[cfg(feature = "driver")]
    #[test]
    fn sparse_ring_shrinks() {
        let mut ordered = Ordered::new();
        (0..1_000).for_each(|key| ordered.insert(key, key));
        ordered.shrink();
        assert!(ordered.ring.capacity() >= 1_000, "the whole capacity is in use");
        (1..999).for_each(|key| assert_eq!(ordered.remove(key), Some(key)));
        ordered.shrink();
        assert!(ordered.ring.capacity() <= 16, "{}", ordered.ring.capacity());
        assert_eq!(ordered.iter_mut().map(|(key, _)| key).collect::<Vec<_>>(), [0, 999]);
    }

    #[test]
    fn tombstones_after_first_entry_are_dropped() {
        let mut ordered = Ordered::new();
        ordered.insert(0, ());
        for key in 1..100_000_u64 {
            ordered.insert(key, ());
            ordered.remove(key.saturating_sub(10).max(1));
        }
        assert!(ordered.ring.len() < 100, "{} places for {}", ordered.ring.len(), ordered.len());
    }
}

#[cfg(test)]
mod canonical {
    use super::*;

    impl<K: Numbered, V> Ordered<K, V> {
        /// Every entry, without the tombstones.
        pub(crate) fn entries(&self) -> impl Iterator<Item = (K, &V)> {
            let Self { ring, tombstones } = self;
            assert_eq!(ring.iter().filter(|(_, value)| value.is_none()).count(), *tombstones);
            ring.iter().filter_map(|(key, value)| Some((*key, value.as_ref()?)))
        }
    }
}
