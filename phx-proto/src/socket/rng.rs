//! Randomness without entropy: a private SplitMix64.
//!
//! The seed is an argument of [`Socket::new`](crate::Socket::new), so a run can be replayed from
//! config, seed and inputs alone. The generator is ours and pinned by golden values, because a
//! crate that changes its algorithm would silently invalidate every saved regression.

use core::time::Duration;

use crate::config::backoff::DelayRange;
use crate::time::nanos;

/// SplitMix64: one 64-bit state, one output per draw.
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

    /// One draw, spread over a range with both ends included.
    pub(crate) fn draw(&mut self, range: DelayRange) -> Duration {
        spread(range, self.next_u64())
    }
}

/// The point of `range` that the draw `random` selects: 0 is its start, `u64::MAX` its end.
pub(crate) fn spread(range: DelayRange, random: u64) -> Duration {
    let (min, max) = (nanos(range.min()), nanos(range.max()));
    let width = u128::from(max - min) + 1;
    // The product is below 2^64 * 2^64, and its upper half below `width`.
    let offset = (u128::from(random) * width) >> 64;
    Duration::from_nanos(min + u64::try_from(offset).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_of_a_seed_never_changes() {
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
    fn a_draw_reaches_both_ends_of_its_range_and_never_leaves_it() {
        let range = DelayRange::new(Duration::from_nanos(10), Duration::from_nanos(12)).unwrap();
        assert_eq!(spread(range, 0), Duration::from_nanos(10));
        assert_eq!(spread(range, u64::MAX), Duration::from_nanos(12));
        let mut rng = Rng::new(7);
        for _ in 0..1_000 {
            assert!((range.min()..=range.max()).contains(&rng.draw(range)));
        }
    }

    #[test]
    fn an_empty_and_a_full_range_do_not_overflow() {
        let point = DelayRange::new(Duration::MAX, Duration::MAX).unwrap();
        assert_eq!(spread(point, 99), Duration::from_nanos(u64::MAX));
        let all = DelayRange::new(Duration::ZERO, Duration::MAX).unwrap();
        assert_eq!(spread(all, u64::MAX), Duration::from_nanos(u64::MAX));
    }
}
