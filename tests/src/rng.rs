//! A seeded random number generator, so that a failing test can be repeated.

use std::hash::{BuildHasher, RandomState};

/// A stream of numbers from one seed (SplitMix64).
#[derive(Clone, Debug)]
pub struct Rng {
    seed: u64,
    state: u64,
}

impl Rng {
    /// A generator that starts from this seed.
    pub const fn new(seed: u64) -> Self {
        Self { seed, state: seed }
    }

    /// A generator whose seed is the environment variable `PHX_SEED`, or random if it is not set.
    /// It prints the seed, so that a failing test can be repeated from its output.
    pub fn from_env() -> Self {
        let given = std::env::var("PHX_SEED").ok();
        let given = given.map(|text| text.parse().expect("PHX_SEED is a number"));
        let rng = Self::new(given.unwrap_or_else(|| RandomState::new().hash_one(0)));
        println!("PHX_SEED={}", rng.seed);
        rng
    }

    /// The seed.
    pub const fn seed(&self) -> u64 {
        self.seed
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 up to, but not including, `end`.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.number() % end.max(1) as u64).expect("less than a usize")
    }

    /// A generator whose seed is the next number of this one.
    pub fn fork(&mut self) -> Self {
        Self::new(self.number())
    }
}
