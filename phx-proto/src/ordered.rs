//! A map for keys that come in ascending and leave from the front, nearly always.
//!
//! Pushes are accepted, written and answered in order, so a sorted ring beats a search tree,
//! which allocates and frees a node whenever it goes from empty to one entry and back. What
//! comes or leaves out of order is found by bisection, at the cost of moving its neighbours.

use core::fmt;
use std::collections::VecDeque;

/// A sorted ring. A key is inserted once.
#[derive(Clone)]
pub(crate) struct Ordered<K, V = ()> {
    ring: VecDeque<(K, V)>,
}

impl<K, V> Default for Ordered<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K, V> Ordered<K, V> {
    pub(crate) const fn new() -> Self {
        Self { ring: VecDeque::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.ring.len()
    }
}

impl<K: Ord + Copy, V> Ordered<K, V> {
    pub(crate) fn insert(&mut self, key: K, value: V) {
        if self.ring.back().is_none_or(|(last, _)| *last < key) {
            self.ring.push_back((key, value));
            return;
        }
        match self.find(key) {
            Ok(at) => self.ring[at].1 = value,
            Err(at) => self.ring.insert(at, (key, value)),
        }
    }

    pub(crate) fn remove(&mut self, key: K) -> Option<V> {
        if self.ring.front().is_some_and(|(first, _)| *first == key) {
            return self.pop_first();
        }
        let at = self.find(key).ok()?;
        self.ring.remove(at).map(|(_, value)| value)
    }

    pub(crate) fn pop_first(&mut self) -> Option<V> {
        self.ring.pop_front().map(|(_, value)| value)
    }

    pub(crate) fn contains(&self, key: K) -> bool {
        self.find(key).is_ok()
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = K> {
        self.ring.iter().map(|(key, _)| *key)
    }

    pub(crate) fn into_keys(self) -> impl Iterator<Item = K> {
        self.ring.into_iter().map(|(key, _)| key)
    }

    fn find(&self, key: K) -> Result<usize, usize> {
        self.ring.binary_search_by(|(other, _)| other.cmp(&key))
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Ordered<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.ring.iter().map(|(key, value)| (key, value))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stays_sorted_whatever_the_order_of_coming_and_leaving() {
        let mut ordered = Ordered::new();
        for key in [3, 5, 9, 4, 1, 7] {
            ordered.insert(key, key * 10);
        }
        assert_eq!(ordered.keys().collect::<Vec<_>>(), [1, 3, 4, 5, 7, 9]);
        assert_eq!(
            (ordered.remove(4), ordered.remove(4), ordered.remove(1)),
            (Some(40), None, Some(10))
        );
        assert!(ordered.contains(7) && !ordered.contains(4));
        assert_eq!((ordered.pop_first(), ordered.len()), (Some(30), 3));
        ordered.insert(5, 0);
        assert_eq!(
            (ordered.remove(5), ordered.into_keys().collect::<Vec<_>>()),
            (Some(0), vec![7, 9])
        );
    }
}
