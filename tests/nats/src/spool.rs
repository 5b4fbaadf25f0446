//! A bounded queue of parcels for the broker, which drops the oldest and counts every loss.

use std::collections::VecDeque;

use bytes::Bytes;

/// A message for the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parcel {
    /// Id of the event, by which a subscriber recognises repetitions.
    pub id: String,
    pub subject: String,
    pub body: Bytes,
}

/// Parcels that the broker has not confirmed, in order.
#[derive(Debug)]
pub struct Spool {
    parcels: VecDeque<Parcel>,
    bytes: usize,
    /// The number of the first parcel.
    first: u64,
    parcels_max: usize,
    bytes_max: usize,
    dropped: u64,
}

impl Spool {
    pub const fn new(parcels_max: usize, bytes_max: usize) -> Self {
        Self { parcels: VecDeque::new(), bytes: 0, first: 0, parcels_max, bytes_max, dropped: 0 }
    }

    /// Adds a parcel, and drops the oldest ones until the bounds hold. One parcel always fits.
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
    pub fn batch(&self, max: usize) -> (Vec<Parcel>, u64) {
        let batch: Vec<Parcel> = self.parcels.iter().take(max).cloned().collect();
        let up_to = self.first + u64::try_from(batch.len()).unwrap_or(u64::MAX);
        (batch, up_to)
    }

    /// Removes all parcels before this number, which the broker has, and returns their count. Parcels that
    /// were dropped in the meantime stay counted as dropped, although the broker may have them.
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

    /// The number of dropped parcels.
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
    fn full_spool_drops_oldest() {
        let mut spool = Spool::new(3, 100);
        (0..5).for_each(|id| spool.push(parcel(id, 1)));
        assert_eq!((ids(&spool), spool.dropped()), (vec!["2".into(), "3".into(), "4".into()], 2));
        spool.push(parcel(5, 99));
        assert_eq!((ids(&spool), spool.dropped()), (vec!["4".into(), "5".into()], 4));
        spool.push(parcel(6, 1_000));
        assert_eq!((ids(&spool), spool.dropped()), (vec!["6".into()], 6), "one always fits");
    }

    /// The first parcel of the confirmed batch was dropped in the meantime.
    #[test]
    fn confirm_skips_dropped_parcels() {
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
