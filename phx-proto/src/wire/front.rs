//! The part of a text frame in front of its payload: measured first, then written into room of
//! just that length.

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

/// The length of a string as JSON, with its escapes and without its quotes.
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

/// Room that is filled from its start. To put more than there is room for is a bug here.
pub(super) struct Front<'a>(pub(super) &'a mut [u8]);

impl Front<'_> {
    #[inline]
    pub(super) fn put(&mut self, bytes: &[u8]) {
        let (here, rest) = mem::take(&mut self.0).split_at_mut(bytes.len());
        here.copy_from_slice(bytes);
        self.0 = rest;
    }

    /// Puts a ref whose [`digits_len`] is known, without quotes.
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

    /// Puts a string whose [`string_len`] is known, without quotes.
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
    fn what_is_written_has_the_length_that_was_measured_and_is_json() {
        for text in ["", "room:lobby", "a \"quoted\" \\ one", "é", "\u{0}\u{1f}\n", "x\u{7f}😀"]
        {
            let mut room = vec![0; string_len(text) + 2];
            let mut front = Front(&mut room);
            front.put(b"\"");
            front.put_string(text, string_len(text));
            front.put(b"\"");
            assert!(front.0.is_empty());
            assert_eq!(serde_json::from_slice::<String>(&room).unwrap(), text);
        }
    }

    #[test]
    fn a_ref_is_written_in_all_its_digits() {
        for number in [1, 9, 10, 99, 100, 1_234_567, 10_u64.pow(19) - 1, 10_u64.pow(19), u64::MAX] {
            let mut room = [0; 20];
            let len = digits_len(Ref(number));
            Front(&mut room[..len]).put_digits(Ref(number), len);
            assert_eq!(&room[..len], number.to_string().as_bytes());
        }
    }
}
