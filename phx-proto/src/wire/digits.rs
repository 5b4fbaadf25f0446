//! Refs in decimal, written without an allocation.

/// The decimal digits of a number.
pub(super) struct Digits;

impl Digits {
    /// As many as the largest number has.
    pub(super) const MAX: usize = 20;

    pub(super) fn of(mut number: u64, room: &mut [u8; Self::MAX]) -> &[u8] {
        let mut at = Self::MAX;
        loop {
            at -= 1;
            room[at] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                return &room[at..];
            }
        }
    }
}
