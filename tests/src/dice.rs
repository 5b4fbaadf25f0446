//! Randomness that can be thrown again.

use std::hash::{BuildHasher, RandomState};

/// A stream of numbers from one seed (SplitMix64).
#[derive(Clone, Debug)]
pub struct Dice {
    seed: u64,
    state: u64,
}

impl Dice {
    /// The numbers of this seed.
    pub const fn new(seed: u64) -> Self {
        Self { seed, state: seed }
    }

    /// The seed in the environment variable `PHX_SEED`, or a new one; printed, so that a failing
    /// test says how to be run again.
    pub fn thrown() -> Self {
        let given = std::env::var("PHX_SEED").ok();
        let given = given.map(|text| text.parse().expect("PHX_SEED is a number"));
        let dice = Self::new(given.unwrap_or_else(|| RandomState::new().hash_one(0)));
        println!("PHX_SEED={}", dice.seed);
        dice
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

    /// Other dice, from this one's next number.
    pub fn fork(&mut self) -> Self {
        Self::new(self.number())
    }
}
