//! Masking of client frames (RFC 6455 section 5.3), and the source of mask keys.
//!
//! ```text
//!   entropy of the system ──a block at a time──▶ MaskKeys ──4 bytes a frame──▶ key
//!   payload byte i  XOR  key byte i mod 4
//! ```
//!
//! Without random keys, the author of a payload could choose the bytes on the wire, and a proxy
//! might take them for a request. So keys must be unpredictable, unlike the jitter of a retry.

use core::fmt;

/// The size of a block: keys for 64 frames. A system call for each frame would cost more than the
/// frame itself.
const BLOCK: usize = 256;

/// Mask keys from a cryptographic source, drawn in blocks of 256 bytes.
///
/// RFC 6455 section 5.3: the masking key needs to be unpredictable, derived from a strong source of
/// entropy. Pass a function that fills a slice with the operating system's entropy, such as
/// `getrandom::fill`; a test passes a function with known results.
///
/// The type is not `Clone`, so two connections never send the same keys. `Debug` does not print
/// them.
///
/// ```
/// use phx_proto::websocket::MaskKeys;
///
/// // In a program: |block| getrandom::fill(block).expect("entropy")
/// let mut keys = MaskKeys::new(|block| block.fill(7));
/// assert_eq!(keys.next_key(), [7; 4]);
/// ```
pub struct MaskKeys<F> {
    fill: F,
    block: [u8; BLOCK],
    /// The offset of the next key. At the end of the block, a new block is drawn.
    at: usize,
}

impl<F: FnMut(&mut [u8])> MaskKeys<F> {
    /// Creates a source of keys. It does not call `fill` before the first key is needed.
    ///
    /// ```
    /// use phx_proto::websocket::MaskKeys;
    ///
    /// let mut blocks = 0;
    /// let mut keys = MaskKeys::new(|block| {
    ///     blocks += 1;
    ///     block.fill(blocks); // In a program: getrandom::fill(block).expect("entropy")
    /// });
    /// let first: Vec<_> = (0..64).map(|_| keys.next_key()).collect();
    /// assert!(first.iter().all(|key| *key == [1; 4]));
    /// assert_eq!(keys.next_key(), [2; 4]);
    /// ```
    pub const fn new(fill: F) -> Self {
        Self { fill, block: [0; BLOCK], at: BLOCK }
    }

    /// Returns the next key. Each part of a block is used once.
    #[inline]
    pub fn next_key(&mut self) -> [u8; 4] {
        if self.at == BLOCK {
            (self.fill)(&mut self.block);
            self.at = 0;
        }
        let mut key = [0; 4];
        key.copy_from_slice(&self.block[self.at..self.at + 4]);
        self.at += 4;
        key
    }
}

impl<F> fmt::Debug for MaskKeys<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MaskKeys({} left)", (BLOCK - self.at) / 4)
    }
}

/// Masks or unmasks the bytes of a payload that begin at `offset` (RFC 6455 section 5.3).
#[inline]
pub(super) fn apply(bytes: &mut [u8], key: [u8; 4], offset: usize) {
    // Little-endian conversion is used because the first byte in memory is then the lowest byte of
    // the number.
    let key = u32::from_le_bytes(key).rotate_right(offset as u32 % 4 * 8).to_le_bytes();
    let [a, b, c, d] = key;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut chunks = bytes.chunks_exact_mut(8);
    for chunk in &mut chunks {
        let mut word = [0; 8];
        word.copy_from_slice(chunk);
        chunk.copy_from_slice(&(u64::from_ne_bytes(word) ^ wide).to_ne_bytes());
    }
    for (byte, key) in chunks.into_remainder().iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mask_applies_from_any_offset() {
        let key = [0x6d, 0xb6, 0x42, 0x81];
        let payload: Vec<u8> = (0..=255).collect();
        let octet = |(at, byte): (usize, &u8)| byte ^ key[at % 4];
        let expected: Vec<u8> = payload.iter().enumerate().map(octet).collect();
        for cut in 0..payload.len() {
            let mut masked = payload.clone();
            let (front, back) = masked.split_at_mut(cut);
            apply(front, key, 0);
            apply(back, key, cut);
            assert_eq!(masked, expected, "{cut}");
        }
    }

    #[test]
    fn keys_come_in_blocks_without_repeats() {
        let mut next = 0_u32;
        let mut keys = MaskKeys::new(|block: &mut [u8]| {
            for key in block.chunks_exact_mut(4) {
                next += 1;
                key.copy_from_slice(&next.to_be_bytes());
            }
        });
        for expected in 1..=200_u32 {
            assert_eq!(keys.next_key(), expected.to_be_bytes());
        }
        assert_eq!(format!("{keys:?}"), "MaskKeys(56 left)");
        assert_eq!(next, 256, "four blocks of 64 keys");
    }
}
