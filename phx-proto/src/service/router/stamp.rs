//! What makes an event this one: an id that sorts, and a time that people can read.

use core::fmt::Write as _;

use crate::socket::rng::Rng;
use crate::time::Time;

/// Makes event ids in the form of UUIDv7 (RFC 9562): the milliseconds since the Unix epoch, then
/// a counter within the millisecond, then chance.
///
/// The ids of one value only grow, also when the clock does not. The supervisor draws one for each
/// event that something is subscribed to, so what follows an id does not tell what was missed.
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

/// The counter has 12 bits.
const COUNTER_MAX: u16 = 0x0fff;

impl EventIds {
    /// `seed` makes the ids of two processes differ; draw it from entropy.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { rng: Rng::new(seed), millis: 0, counter: 0 }
    }

    /// The next id. `at` counts from the Unix epoch.
    pub fn next(&mut self, at: Time) -> String {
        let now = at.as_millis();
        if now > self.millis {
            (self.millis, self.counter) = (now, 0);
        } else if self.counter == COUNTER_MAX {
            // Borrowed from the future rather than repeated.
            (self.millis, self.counter) = (self.millis + 1, 0);
        } else {
            self.counter += 1;
        }
        let millis = self.millis & 0xffff_ffff_ffff;
        let chance = self.rng.next_u64();
        format!(
            "{:08x}-{:04x}-7{:03x}-{:04x}-{:012x}",
            millis >> 16,
            millis & 0xffff,
            self.counter,
            0x8000 | (chance >> 48 & 0x3fff),
            chance & 0xffff_ffff_ffff,
        )
    }
}

/// A time since the Unix epoch by RFC 3339, in UTC, to the millisecond.
pub(super) fn rfc3339(at: Time) -> String {
    let millis = at.as_millis();
    let (days, in_day) = (millis / 86_400_000, millis % 86_400_000);
    let (year, month, day) = civil(days);
    let (hour, minute) = (in_day / 3_600_000, in_day / 60_000 % 60);
    let (second, milli) = (in_day / 1_000 % 60, in_day % 1_000);
    let mut text = String::with_capacity(24);
    // Writing to a string cannot fail.
    let _ =
        write!(text, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z");
    text
}

/// Year, month and day of the day so many days after 1970-01-01.
///
/// Counted in eras of 400 years of 146,097 days that start on a first of March, so that a leap
/// day is the last day of its year.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = 400 * era + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_in_the_calendar() {
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
    fn ids_grow_even_when_the_clock_stands_still_or_goes_back() {
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
