//! A hash map that is the same from run to run.
//!
//! Among 1,000 topics a search tree compares ten strings to find one; this compares one. The
//! core is a pure function of its inputs, so the hash is seeded by the caller, never by the
//! system, and nothing ever sees the map's own order: what is iterated is sorted first.

#![allow(clippy::disallowed_types, reason = "its own order is never seen, see above")]

use core::borrow::Borrow;
use core::fmt;
use core::hash::{BuildHasher, Hash, Hasher};
use std::collections::HashMap;

/// A map for finding one entry among many; iterating is for what happens rarely.
#[derive(Clone)]
pub(crate) struct Table<K, V> {
    map: HashMap<K, V, Seeded>,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self::seeded(0)
    }
}

impl<K, V> Table<K, V> {
    /// With a seed of its own, for keys that somebody else may choose.
    pub(crate) fn seeded(seed: u64) -> Self {
        Self { map: HashMap::with_hasher(Seeded(seed)) }
    }

    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }
}

impl<K: Hash + Ord, V> Table<K, V> {
    pub(crate) fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.map.get(key)
    }

    pub(crate) fn get_mut<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.map.get_mut(key)
    }

    pub(crate) fn get_key_value<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<(&K, &V)>
    where
        K: Borrow<Q>,
    {
        self.map.get_key_value(key)
    }

    #[inline]
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.map.insert(key, value)
    }

    pub(crate) fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        self.map.remove(key)
    }

    pub(crate) fn get_or_default(&mut self, key: K) -> &mut V
    where
        V: Default,
    {
        self.map.entry(key).or_default()
    }

    /// Every entry, in the order of the keys.
    pub(crate) fn sorted(&self) -> impl Iterator<Item = (&K, &V)> {
        let mut entries: Vec<(&K, &V)> = self.map.iter().collect();
        entries.sort_unstable_by(|one, other| one.0.cmp(other.0));
        entries.into_iter()
    }
}

impl<K: Hash + Ord + fmt::Debug, V: fmt::Debug> fmt::Debug for Table<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.sorted()).finish()
    }
}

/// Makes hashers that start from a seed.
#[derive(Clone, Debug)]
struct Seeded(u64);

impl BuildHasher for Seeded {
    type Hasher = Folded;

    fn build_hasher(&self) -> Folded {
        Folded(self.0)
    }
}

/// Multiplies eight bytes at a time into the state and folds the product's halves together.
#[derive(Debug)]
struct Folded(u64);

impl Folded {
    #[inline]
    const fn fold(&mut self, word: u64) {
        const ODD: u128 = 0x9e37_79b9_7f4a_7c15;
        let product = (self.0 ^ word) as u128 * ODD;
        // The complement, so that zero in does not mean zero out.
        self.0 = !((product >> 64) as u64 ^ product as u64);
    }
}

impl Hasher for Folded {
    #[inline]
    fn write(&mut self, mut bytes: &[u8]) {
        while let Some((word, rest)) = bytes.split_first_chunk() {
            self.fold(u64::from_le_bytes(*word));
            bytes = rest;
        }
        let last = bytes.iter().fold(0, |word, byte| (word << 8) | u64::from(*byte));
        self.fold(last ^ ((bytes.len() as u64) << 56));
    }

    #[inline]
    fn write_u8(&mut self, byte: u8) {
        self.0 ^= u64::from(byte);
    }

    #[inline]
    fn write_u64(&mut self, word: u64) {
        self.fold(word);
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::Topic;

    #[test]
    fn entries_are_found_replaced_removed_and_listed_in_order() {
        let mut table: Table<Topic, u32> = Table::seeded(7);
        for (at, topic) in ["room:b", "room:a", "", "a much longer topic:42"].iter().enumerate() {
            assert_eq!(table.insert(Topic::from(*topic), at as u32), None);
        }
        assert_eq!(table.insert("room:a".into(), 9), Some(1));
        assert_eq!((table.get("room:a"), table.get("room:c"), table.len()), (Some(&9), None, 4));
        let keys: Vec<&str> = table.sorted().map(|(topic, _)| topic.as_str()).collect();
        assert_eq!(keys, ["", "a much longer topic:42", "room:a", "room:b"]);
        assert_eq!((table.remove("room:a"), table.remove("room:a")), (Some(9), None));
    }

    #[test]
    fn topics_that_differ_in_one_byte_spread_over_all_buckets() {
        let hasher = Seeded(1);
        let mut buckets = [0_u32; 256];
        for at in 0..25_600 {
            let hash = hasher.hash_one(Topic::from(format!("room:{at}")));
            buckets[(hash & 255) as usize] += 1;
        }
        let (least, most) = (buckets.iter().min(), buckets.iter().max());
        assert!(least > Some(&50) && most < Some(&150), "{least:?} to {most:?} of 100");
    }
}
