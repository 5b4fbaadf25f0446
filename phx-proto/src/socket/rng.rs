//! A seeded pseudo-random generator: SplitMix64.
//!
//! The seed is an argument of [`Socket::new`](crate::Socket::new), so a run can be replayed from
//! configuration, seed and inputs. The generator is part of this crate and tested with fixed
//! values. If it came from another crate, a change of the algorithm there would silently invalidate
//! every saved regression.

use core::time::Duration;

use crate::config::backoff::DelayRange;
use crate::time::nanos;

/// A SplitMix64 generator with 64 bits of state.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) const fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Draws a duration from a range that includes both ends.
    pub(crate) fn draw(&mut self, range: DelayRange) -> Duration {
        spread(range, self.next_u64())
    }
}

/// Maps `random` to a duration in `range`: 0 to its start, `u64::MAX` to its end.
pub(crate) fn spread(range: DelayRange, random: u64) -> Duration {
    let (min, max) = (nanos(range.min()), nanos(range.max()));
    #[cfg(test)]
    canonical::note(max - min);
    let width = u128::from(max - min) + 1;
    // The product is below 2^64 * 2^64, and its upper half below `width`.
    let offset = (u128::from(random) * width) >> 64;
    Duration::from_nanos(min + u64::try_from(offset).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_of_a_seed_never_changes() {
        let mut rng = Rng::new(1_234_567);
        let drawn: Vec<u64> = (0..5).map(|_| rng.next_u64()).collect();
        assert_eq!(
            drawn,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423,
                4_593_380_528_125_082_431,
                16_408_922_859_458_223_821,
            ]
        );
    }

    #[test]
    fn draw_stays_in_range_and_reaches_ends() {
        let range = DelayRange::new(Duration::from_nanos(10), Duration::from_nanos(12)).unwrap();
        assert_eq!(spread(range, 0), Duration::from_nanos(10));
        assert_eq!(spread(range, u64::MAX), Duration::from_nanos(12));
        let mut rng = Rng::new(7);
        for _ in 0..1_000 {
            assert!((range.min()..=range.max()).contains(&rng.draw(range)));
        }
    }

    #[test]
    fn empty_and_full_ranges_do_not_overflow() {
        let point = DelayRange::new(Duration::MAX, Duration::MAX).unwrap();
        assert_eq!(spread(point, 99), Duration::from_nanos(u64::MAX));
        let all = DelayRange::new(Duration::ZERO, Duration::MAX).unwrap();
        assert_eq!(spread(all, u64::MAX), Duration::from_nanos(u64::MAX));
    }
}

#[cfg(test)]
mod canonical {
    use super::*;
    use crate::socket::fixpoint::form::Form;

    use core::cell::Cell;

    thread_local! {
        static WIDEST: Cell<u64> = const { Cell::new(0) };
    }

    impl Rng {
        /// Writes nothing, because the state of the generator makes no difference in a world: every
        /// range is a single value, except that of the first heartbeat, for which the world sets
        /// the seed.
        pub(crate) const fn canonical(&self, _: &mut Form<'_>) {
            let Self(_) = self;
        }

        /// The generator whose next output is this one.
        pub(crate) fn before(output: u64) -> Self {
            let inverse = |odd: u64| {
                (0..6).fold(odd, |it, _| it.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(it))))
            };
            let unshift = |z: u64, by: u32| (0..6).fold(z, |it, _| z ^ (it >> by));
            let z = unshift(output, 31).wrapping_mul(inverse(0x94d0_49bb_1331_11eb));
            let z = unshift(z, 27).wrapping_mul(inverse(0xbf58_476d_1ce4_e5b9));
            Self(unshift(z, 30).wrapping_sub(0x9e37_79b9_7f4a_7c15))
        }

        pub(crate) const fn seed(&self) -> u64 {
            self.0
        }

        /// The width of the widest range that this thread has drawn from since the last call.
        pub(crate) fn take_widest() -> u64 {
            WIDEST.replace(0)
        }
    }

    pub(super) fn note(width: u64) {
        WIDEST.set(WIDEST.get().max(width));
    }

    #[test]
    fn output_can_be_chosen() {
        for output in [0, 1, 7, u64::MAX / 3, u64::MAX] {
            assert_eq!(Rng::before(output).next_u64(), output);
        }
    }
}
