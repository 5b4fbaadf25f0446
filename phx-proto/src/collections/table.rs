//! What is held for each topic, found by its name.
//!
//! Among 1,000 topics a search tree compares ten strings to find one; this compares one. And it
//! compares bytes, so a name that is a slice of a frame need not be checked for being UTF-8 first.
//!
//! ```text
//!   index    one of each hash: its other half, and the place ──▶ places   topic, value
//!            open addressing, linear probing, at most 3/4 full
//! ```
//!
//! The core is a pure function of its inputs, so the hash is seeded by the caller, never by the
//! system, and nothing ever sees the table's own order: what is iterated is sorted first.

use core::fmt;

use crate::topic::Topic;
use crate::wire::ByteStr;

/// A map for finding one topic among many; iterating is for what happens rarely.
#[derive(Clone)]
pub(crate) struct Table<V> {
    seed: u64,
    index: Vec<Cell>,
    places: Vec<Option<(Topic, V)>>,
    /// Places without a topic.
    free: Vec<u32>,
}

/// A cell of the index.
#[derive(Clone, Copy)]
struct Cell {
    hash: u32,
    /// One more than the place; zero for none.
    place: u32,
}

const EMPTY: Cell = Cell { hash: 0, place: 0 };

/// A name of a topic, whoever holds it.
pub(crate) trait Name {
    fn bytes(&self) -> &[u8];
}

impl Name for str {
    #[inline]
    fn bytes(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl Name for Topic {
    #[inline]
    fn bytes(&self) -> &[u8] {
        self.as_str().as_bytes()
    }
}

impl Name for ByteStr {
    #[inline]
    fn bytes(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl<V> Table<V> {
    /// With a seed of its own, as somebody else may choose the topics.
    pub(crate) const fn seeded(seed: u64) -> Self {
        Self { seed, index: Vec::new(), places: Vec::new(), free: Vec::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    #[inline]
    pub(crate) fn get<N: Name + ?Sized>(&self, name: &N) -> Option<&V> {
        self.get_key_value(name).map(|(_, value)| value)
    }

    #[inline]
    pub(crate) fn get_key_value<N: Name + ?Sized>(&self, name: &N) -> Option<(&Topic, &V)> {
        let place = self.index[self.find(name.bytes())?].place - 1;
        self.places[place as usize].as_ref().map(|(topic, value)| (topic, value))
    }

    #[inline]
    pub(crate) fn get_mut<N: Name + ?Sized>(&mut self, name: &N) -> Option<&mut V> {
        let place = self.index[self.find(name.bytes())?].place - 1;
        self.places[place as usize].as_mut().map(|(_, value)| value)
    }

    #[cfg(any(test, feature = "driver"))]
    pub(crate) fn insert(&mut self, topic: Topic, value: V) -> Option<V> {
        if let Some(present) = self.get_mut(&topic) {
            return Some(core::mem::replace(present, value));
        }
        self.add(topic, value);
        None
    }

    pub(crate) fn get_or_default(&mut self, topic: Topic) -> &mut V
    where
        V: Default,
    {
        let place = match self.find(topic.bytes()) {
            Some(at) => self.index[at].place - 1,
            None => self.add(topic, V::default()),
        };
        &mut self.places[place as usize].as_mut().expect("a place in the index is taken").1
    }

    pub(crate) fn remove<N: Name + ?Sized>(&mut self, name: &N) -> Option<V> {
        let at = self.find(name.bytes())?;
        let place = self.index[at].place - 1;
        self.close_gap(at);
        self.free.push(place);
        let (_, value) = self.places[place as usize].take()?;
        if self.len() == 0 {
            // What many topics needed is given back when there is none.
            *self = Self::seeded(self.seed);
        }
        Some(value)
    }

    /// Every entry, in the order of the topics.
    pub(crate) fn sorted(&self) -> impl Iterator<Item = (&Topic, &V)> {
        let mut entries: Vec<(&Topic, &V)> =
            self.places.iter().flatten().map(|(topic, value)| (topic, value)).collect();
        entries.sort_unstable_by(|one, other| one.0.cmp(other.0));
        entries.into_iter()
    }

    /// Changes every entry, in no order: what is done to one must not depend on another.
    #[cfg(feature = "driver")]
    pub(crate) fn for_each_mut(&mut self, mut change: impl FnMut(&Topic, &mut V)) {
        for (topic, value) in self.places.iter_mut().flatten() {
            change(topic, value);
        }
    }

    /// Where the topic is in the index.
    #[inline]
    fn find(&self, name: &[u8]) -> Option<usize> {
        let mask = self.index.len().checked_sub(1)?;
        let hash = hash(self.seed, name);
        let mut at = hash as usize & mask;
        loop {
            let cell = self.index[at];
            if cell.place == 0 {
                return None;
            }
            if cell.hash == high(hash) {
                let place = &self.places[cell.place as usize - 1];
                if place.as_ref().is_some_and(|(topic, _)| topic.bytes() == name) {
                    return Some(at);
                }
            }
            at = (at + 1) & mask;
        }
    }

    /// Adds a topic that is not there; tells its place.
    fn add(&mut self, topic: Topic, value: V) -> u32 {
        if (self.len() + 1) * 4 > self.index.len() * 3 {
            self.grow();
        }
        let hash = hash(self.seed, topic.bytes());
        let place = self.free.pop().unwrap_or_else(|| {
            if self.places.len() == self.places.capacity() {
                // A vector would begin with four, and most connections have one channel.
                self.places.reserve_exact(self.places.len().max(1));
            }
            self.places.push(None);
            u32::try_from(self.places.len() - 1).expect("fewer topics than memory could hold")
        });
        self.places[place as usize] = Some((topic, value));
        self.point(hash, place);
        place
    }

    /// Points the first free cell for the hash to the place.
    fn point(&mut self, hash: u64, place: u32) {
        let mask = self.index.len() - 1;
        let mut at = hash as usize & mask;
        while self.index[at].place != 0 {
            at = (at + 1) & mask;
        }
        self.index[at] = Cell { hash: high(hash), place: place + 1 };
    }

    fn grow(&mut self) {
        let len = (self.index.len() * 2).max(2);
        self.index = vec![EMPTY; len];
        for place in 0..self.places.len() {
            if let Some((topic, _)) = &self.places[place] {
                let hash = hash(self.seed, topic.bytes());
                self.point(hash, place as u32);
            }
        }
    }

    /// Empties a cell, and moves back what was put behind it for want of room.
    fn close_gap(&mut self, mut gap: usize) {
        let mask = self.index.len() - 1;
        let mut at = gap;
        loop {
            at = (at + 1) & mask;
            let cell = self.index[at];
            if cell.place == 0 {
                break;
            }
            let Some((topic, _)) = &self.places[cell.place as usize - 1] else { break };
            let home = hash(self.seed, topic.bytes()) as usize & mask;
            // It may move if the gap is not in front of where it belongs.
            if at.wrapping_sub(home) & mask >= at.wrapping_sub(gap) & mask {
                self.index[gap] = cell;
                gap = at;
            }
        }
        self.index[gap] = EMPTY;
    }
}

impl<V: fmt::Debug> fmt::Debug for Table<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.sorted()).finish()
    }
}

/// The half of a hash that does not say where its cell is.
#[inline]
const fn high(hash: u64) -> u32 {
    (hash >> 32) as u32
}

/// Multiplies eight bytes at a time into the state and folds the product's halves together; the
/// last eight overlap those before them.
#[inline]
fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let mut hash = seed ^ bytes.len() as u64;
    let mut rest = bytes;
    while let Some((word, behind)) = rest.split_first_chunk() {
        hash = fold(hash, u64::from_le_bytes(*word));
        rest = behind;
    }
    let last = match (bytes.last_chunk(), bytes.first_chunk(), bytes.last_chunk()) {
        (Some(word), ..) => u64::from_le_bytes(*word),
        (None, Some(low), Some(high)) => {
            u64::from(u32::from_le_bytes(*low)) | u64::from(u32::from_le_bytes(*high)) << 32
        }
        _ => bytes.iter().fold(0, |word, byte| (word << 8) | u64::from(*byte)),
    };
    fold(hash, last)
}

#[inline]
const fn fold(hash: u64, word: u64) -> u64 {
    const ODD: u128 = 0x9e37_79b9_7f4a_7c15;
    let product = (hash ^ word) as u128 * ODD;
    // The complement, so that zero in does not mean zero out.
    !((product >> 64) as u64 ^ product as u64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::socket::rng::Rng;

    #[test]
    fn entries_are_found_replaced_removed_and_listed_in_order() {
        let mut table: Table<u32> = Table::seeded(7);
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
    fn it_is_a_map_whatever_comes_and_leaves() {
        let mut rng = Rng::new(7);
        let mut draw = |most: u64| rng.next_u64() % most;
        for seed in 0..100 {
            let (mut table, mut model) = (Table::seeded(seed), BTreeMap::new());
            for step in 0..400 {
                // Few topics, so that cells are shared and freed all the time.
                let topic = Topic::from(format!("t{}", draw(if seed % 2 == 0 { 12 } else { 100 })));
                match draw(4) {
                    0 => assert_eq!(table.insert(topic.clone(), step), model.insert(topic, step)),
                    1 => {
                        *table.get_or_default(topic.clone()) += 1;
                        *model.entry(topic).or_default() += 1;
                    }
                    2 => assert_eq!(table.remove(&topic), model.remove(&topic)),
                    _ => assert_eq!(table.get_mut(&topic), model.get_mut(&topic)),
                }
                assert_eq!(table.len(), model.len());
            }
            assert!(table.sorted().eq(model.iter()));
            model.keys().for_each(|topic| assert_eq!(table.get(topic), model.get(topic)));
        }
    }

    #[test]
    fn topics_that_differ_in_one_byte_spread_over_all_buckets() {
        let mut buckets = [0_u32; 256];
        for at in 0..25_600 {
            buckets[(hash(1, format!("room:{at}").as_bytes()) & 255) as usize] += 1;
        }
        let (least, most) = (buckets.iter().min(), buckets.iter().max());
        assert!(least > Some(&50) && most < Some(&150), "{least:?} to {most:?} of 100");
    }
}
