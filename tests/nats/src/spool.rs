//! What waits for the broker: bounded, the oldest goes first, and every loss is counted.

use std::collections::VecDeque;

use bytes::Bytes;

/// A message for the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parcel {
    /// Of the event: what a subscriber tells repetitions by.
    pub id: String,
    pub subject: String,
    pub body: Bytes,
}

/// Parcels that the broker has not confirmed, in order.
#[derive(Debug)]
pub struct Spool {
    parcels: VecDeque<Parcel>,
    bytes: usize,
    /// The number of the first of them.
    first: u64,
    parcels_max: usize,
    bytes_max: usize,
    dropped: u64,
}

impl Spool {
    pub const fn new(parcels_max: usize, bytes_max: usize) -> Self {
        Self { parcels: VecDeque::new(), bytes: 0, first: 0, parcels_max, bytes_max, dropped: 0 }
    }

    /// Adds a parcel, and drops the oldest for as long as there are too many. One always fits.
    pub fn push(&mut self, parcel: Parcel) {
        self.bytes += parcel.body.len();
        self.parcels.push_back(parcel);
        while self.parcels.len() > 1
            && (self.parcels.len() > self.parcels_max || self.bytes > self.bytes_max)
        {
            self.pop();
            self.dropped += 1;
        }
    }

    /// The oldest parcels, and the number that confirms them.
    pub fn batch(&self, most: usize) -> (Vec<Parcel>, u64) {
        let batch: Vec<Parcel> = self.parcels.iter().take(most).cloned().collect();
        let up_to = self.first + u64::try_from(batch.len()).unwrap_or(u64::MAX);
        (batch, up_to)
    }

    /// The broker has everything before this number; how many that were. Those that were dropped
    /// meanwhile are counted as dropped, though it may have them.
    pub fn confirm(&mut self, up_to: u64) -> u64 {
        let mut confirmed = 0;
        while self.first < up_to && self.pop() {
            confirmed += 1;
        }
        confirmed
    }

    fn pop(&mut self) -> bool {
        let Some(parcel) = self.parcels.pop_front() else { return false };
        self.bytes -= parcel.body.len();
        self.first += 1;
        true
    }

    pub fn len(&self) -> usize {
        self.parcels.len()
    }

    pub fn is_empty(&self) -> bool {
        self.parcels.is_empty()
    }

    /// How many had no room.
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parcel(id: u32, bytes: usize) -> Parcel {
        Parcel { id: id.to_string(), subject: "s".into(), body: vec![0; bytes].into() }
    }

    fn ids(spool: &Spool) -> Vec<String> {
        spool.batch(100).0.into_iter().map(|parcel| parcel.id).collect()
    }

    #[test]
    fn the_oldest_goes_when_there_is_no_room_and_is_counted() {
        let mut spool = Spool::new(3, 100);
        (0..5).for_each(|id| spool.push(parcel(id, 1)));
        assert_eq!((ids(&spool), spool.dropped()), (vec!["2".into(), "3".into(), "4".into()], 2));
        spool.push(parcel(5, 99));
        assert_eq!((ids(&spool), spool.dropped()), (vec!["4".into(), "5".into()], 4));
        spool.push(parcel(6, 1_000));
        assert_eq!((ids(&spool), spool.dropped()), (vec!["6".into()], 6), "one always fits");
    }

    #[test]
    fn what_is_confirmed_goes_also_when_some_of_it_went_before() {
        let mut spool = Spool::new(3, 100);
        (0..3).for_each(|id| spool.push(parcel(id, 1)));
        let (batch, up_to) = spool.batch(2);
        assert_eq!((batch.len(), up_to), (2, 2));
        spool.push(parcel(3, 1));
        assert_eq!(spool.confirm(up_to), 1, "the first was dropped");
        assert_eq!(ids(&spool), ["2", "3"]);
        assert_eq!(spool.confirm(up_to), 0, "again");
        assert_eq!((spool.confirm(4), spool.is_empty(), spool.len()), (2, true, 0));
    }
}
