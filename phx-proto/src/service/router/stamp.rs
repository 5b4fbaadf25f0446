//! The id and the time of an event.

use std::time::UNIX_EPOCH;

use humantime::format_rfc3339_millis;
use uuid::Builder;

use crate::socket::rng::Rng;
use crate::time::Time;

/// A generator of event ids in the form of UUIDv7 (RFC 9562): the milliseconds since the Unix
/// epoch, a counter within the millisecond, and random bits.
///
/// The ids of one generator are strictly increasing, even when the clock stands still or goes back.
/// The supervisor draws an id only for events with a subscriber, so a gap between ids does not mean
/// that an event was lost.
///
/// ```
/// use phx_proto::Time;
/// use phx_proto::service::EventIds;
///
/// let mut ids = EventIds::new(7);
/// let at = Time::from_millis(1_700_000_000_000);
/// let (first, second) = (ids.next(at), ids.next(at));
/// assert!(first < second && first.starts_with("018bcfe5-6800-7"));
/// ```
#[derive(Clone, Debug)]
pub struct EventIds {
    rng: Rng,
    millis: u64,
    counter: u16,
}

/// The maximum of the counter, which has 12 bits.
const COUNTER_MAX: u16 = 0x0fff;

impl EventIds {
    /// Makes a generator. `seed` makes the ids of two processes differ; draw it from entropy.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { rng: Rng::new(seed), millis: 0, counter: 0 }
    }

    /// The next id. `at` is the time since the Unix epoch.
    pub fn next(&mut self, at: Time) -> String {
        let now = at.as_millis();
        if now > self.millis {
            (self.millis, self.counter) = (now, 0);
        } else if self.counter == COUNTER_MAX {
            // The counter is used up. An id must not repeat, so the next millisecond is used early.
            (self.millis, self.counter) = (self.millis + 1, 0);
        } else {
            self.counter += 1;
        }
        let mut bytes = [0; 10];
        bytes[..2].copy_from_slice(&self.counter.to_be_bytes());
        bytes[2..].copy_from_slice(&self.rng.next_u64().to_be_bytes());
        Builder::from_unix_timestamp_millis(self.millis, &bytes).into_uuid().to_string()
    }
}

/// Formats a time since the Unix epoch by RFC 3339, in UTC, with milliseconds.
pub(super) fn rfc3339(at: Time) -> String {
    format_rfc3339_millis(UNIX_EPOCH + at.since(Time::ZERO)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_formatted_by_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (951_868_800, "2000-03-01T00:00:00.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000Z"),
        ] {
            assert_eq!(rfc3339(Time::from_millis(seconds * 1_000)), text);
        }
        assert_eq!(rfc3339(Time::from_millis(1_007)), "1970-01-01T00:00:01.007Z");
    }

    #[test]
    fn ids_grow_without_the_clock() {
        let mut ids = EventIds::new(7);
        let mut last = String::new();
        for round in 0..10_000_u64 {
            let at = Time::from_millis(1_700_000_000_000 - round / 5_000);
            let id = ids.next(at);
            assert!(id > last, "{id} after {last}");
            last = id;
        }
        assert_eq!((last.len(), &last[14..15]), (36, "7"));
        assert!(matches!(&last[19..20], "8" | "9" | "a" | "b"));
    }

    #[test]
    fn ids_of_two_seeds_differ() {
        let at = Time::from_millis(1);
        assert_ne!(EventIds::new(1).next(at), EventIds::new(2).next(at));
    }
}
