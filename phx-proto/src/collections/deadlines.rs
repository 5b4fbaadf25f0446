//! A queue of the deadlines of pushes.
//!
//! Most pushes have the same timeout, so their deadlines are inserted in order. Replies usually arrive
//! in the order of the pushes, so nearly all deadlines are also removed in order. A ring buffer stores
//! these in constant time. A deadline that is inserted out of order goes into a tree. Equal deadlines
//! expire in the order in which the pushes were accepted, so the order of expiry is total.

use std::collections::BTreeSet;

use crate::collections::ordered::Ordered;
use crate::id::PushId;
use crate::time::Time;

/// The deadline of each push, sorted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Deadlines {
    in_order: Ordered<(Time, PushId)>,
    others: BTreeSet<(Time, PushId)>,
}

impl Deadlines {
    #[inline(always)]
    pub(crate) fn insert(&mut self, at: Time, id: PushId) {
        if self.in_order.last().is_none_or(|last| last < (at, id)) {
            self.in_order.insert((at, id), ());
        } else {
            self.others.insert((at, id));
        }
    }

    #[inline]
    pub(crate) fn remove(&mut self, at: Time, id: PushId) {
        if self.in_order.remove((at, id)).is_none() {
            self.others.remove(&(at, id));
        }
    }

    /// The earliest deadline.
    #[inline]
    pub(crate) fn first(&self) -> Option<Time> {
        let first = self.in_order.first().map(|((at, _), ())| at);
        match self.others.first() {
            Some((at, _)) => Some(first.map_or(*at, |first| first.min(*at))),
            None => first,
        }
    }

    /// The deadlines that have expired, earliest first. They stay in the queue.
    pub(crate) fn expired(&self, now: Time) -> Vec<(Time, PushId)> {
        let in_order = self.in_order.iter().map(|(key, ())| key);
        let mut expired: Vec<_> = in_order.take_while(|(at, _)| *at <= now).collect();
        if !self.others.is_empty() {
            expired.extend(self.others.iter().take_while(|(at, _)| *at <= now));
            expired.sort_unstable();
        }
        expired
    }

    pub(crate) fn len(&self) -> usize {
        self.in_order.len() + self.others.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_expire_by_time_then_acceptance() {
        let mut deadlines = Deadlines::default();
        let key = |ms, id| (Time::from_millis(ms), PushId(id));
        for (ms, id) in [(50, 1), (10, 2), (50, 3), (60, 4), (50, 5), (10, 6)] {
            deadlines.insert(Time::from_millis(ms), PushId(id));
        }
        assert_eq!((deadlines.len(), deadlines.first()), (6, Some(Time::from_millis(10))));
        deadlines.remove(Time::from_millis(10), PushId(2));
        deadlines.remove(Time::from_millis(50), PushId(3));
        // Removing an unknown deadline has no effect.
        deadlines.remove(Time::from_millis(50), PushId(2));
        let expired = [key(10, 6), key(50, 1), key(50, 5)];
        assert_eq!(deadlines.expired(Time::from_millis(59)), expired);
        assert_eq!(deadlines.len(), 4, "expired deadlines stay until they are removed");
    }
}

#[cfg(test)]
mod canonical {
    use super::*;

    impl Deadlines {
        /// Every deadline, earliest first, whether it is in the ring buffer or in the tree.
        pub(crate) fn entries(&self) -> Vec<(Time, PushId)> {
            let Self { in_order, others } = self;
            let mut all: Vec<(Time, PushId)> = in_order.entries().map(|(key, ())| key).collect();
            all.extend(others.iter().copied());
            all.sort_unstable();
            all
        }
    }
}
