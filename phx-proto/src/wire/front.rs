//! A writer for the part of a frame in front of the payload. The length of that part is computed first; the
//! part is then written into a buffer of that length.

use core::mem;

use super::simple::simple_len;
use crate::id::Ref;

/// The number of decimal digits of a ref.
#[inline]
pub(super) fn digits_len(msg_ref: Ref) -> usize {
    let (mut len, mut limit) = (1, 10);
    while msg_ref.as_u64() >= limit {
        len += 1;
        // The largest number has twenty digits.
        let Some(next) = limit.checked_mul(10) else { break };
        limit = next;
    }
    len
}

/// The length of a string as JSON, including escapes, without the quotes.
#[inline(always)]
pub(super) fn string_len(text: &str) -> usize {
    let plain = simple_len(text.as_bytes());
    let rest = &text.as_bytes()[plain..];
    plain + if rest.is_empty() { 0 } else { escaped_len(rest) }
}

#[cold]
fn escaped_len(bytes: &[u8]) -> usize {
    let len = |byte: &u8| match byte {
        b'"' | b'\\' => 2,
        0..=0x1f => 6,
        _ => 1,
    };
    bytes.iter().map(len).sum()
}

/// A cursor that fills a buffer from its start. It panics if a caller writes past the end, which would
/// be a bug of the codec.
pub(super) struct Front<'a>(pub(super) &'a mut [u8]);

impl Front<'_> {
    #[inline]
    pub(super) fn put(&mut self, bytes: &[u8]) {
        let (here, rest) = mem::take(&mut self.0).split_at_mut(bytes.len());
        here.copy_from_slice(bytes);
        self.0 = rest;
    }

    /// Writes a ref without quotes. `len` is its [`digits_len`].
    #[inline]
    pub(super) fn put_digits(&mut self, msg_ref: Ref, len: usize) {
        let (here, rest) = mem::take(&mut self.0).split_at_mut(len);
        let mut number = msg_ref.as_u64();
        for digit in here.iter_mut().rev() {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
        }
        self.0 = rest;
    }

    /// Writes a string with its escapes, without quotes. `len` is its [`string_len`].
    #[inline]
    pub(super) fn put_string(&mut self, text: &str, len: usize) {
        // Protocol: MSG-2.
        if len == text.len() {
            self.put(text.as_bytes());
        } else {
            self.put_escaped(text);
        }
    }

    #[cold]
    fn put_escaped(&mut self, text: &str) {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        for byte in text.bytes() {
            match byte {
                b'"' | b'\\' => self.put(&[b'\\', byte]),
                0..=0x1f => {
                    let (high, low) = (usize::from(byte >> 4), usize::from(byte & 15));
                    self.put(&[b'\\', b'u', b'0', b'0', HEX[high], HEX[low]]);
                }
                _ => self.put(&[byte]),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_string_has_computed_length() {
        for text in ["", "room:lobby", "a \"quoted\" \\ one", "é", "\u{0}\u{1f}\n", "x\u{7f}😀"]
        {
            let mut buffer = vec![0; string_len(text) + 2];
            let mut front = Front(&mut buffer);
            front.put(b"\"");
            front.put_string(text, string_len(text));
            front.put(b"\"");
            assert!(front.0.is_empty());
            assert_eq!(serde_json::from_slice::<String>(&buffer).unwrap(), text);
        }
    }

    #[test]
    fn ref_is_written_with_all_digits() {
        for number in [1, 9, 10, 99, 100, 1_234_567, 10_u64.pow(19) - 1, 10_u64.pow(19), u64::MAX] {
            let mut buffer = [0; 20];
            let len = digits_len(Ref(number));
            Front(&mut buffer[..len]).put_digits(Ref(number), len);
            assert_eq!(&buffer[..len], number.to_string().as_bytes());
        }
    }
}
