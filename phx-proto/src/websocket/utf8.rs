//! An incremental UTF-8 validator (RFC 6455 section 8.1).
//!
//! ```text
//!                  whole characters
//!   ┌─▶ Between ──────────────────────┐
//!   │      │ the first bytes of one   │
//!   │      ▼                          ▼
//!   └── Within, up to 3 bytes kept   Between
//!   an invalid byte: refused at that byte
//! ```

use core::str;

/// Whether all bytes are ASCII, as in most JSON. Unlike `<[u8]>::is_ascii`, it does not stop at the first
/// other byte, so the compiler turns the loop into vector instructions.
#[inline]
pub(super) fn is_ascii(bytes: &[u8]) -> bool {
    const CHUNK: usize = 32;
    // The last chunk may overlap the one before it.
    let Some(last) = bytes.last_chunk::<CHUNK>() else { return bytes.is_ascii() };
    let mut any = *last;
    for chunk in bytes.chunks_exact(CHUNK) {
        any.iter_mut().zip(chunk).for_each(|(any, byte)| *any |= byte);
    }
    any.iter().fold(0, |any, byte| any | byte).is_ascii()
}

/// The state of the validation of one text.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Utf8 {
    /// The first bytes of a character that is not complete yet.
    begun: [u8; 4],
    len: usize,
    /// The number of bytes in complete, valid characters.
    valid: u64,
}

impl Utf8 {
    /// Validates the next bytes.
    ///
    /// # Errors
    ///
    /// The position in the text of the first invalid character.
    #[inline]
    pub(super) fn push(&mut self, mut bytes: &[u8]) -> Result<(), u64> {
        if self.len > 0 {
            bytes = self.complete(bytes)?;
        }
        // Fast path for ASCII, because most JSON is ASCII.
        if is_ascii(bytes) {
            self.valid += bytes.len() as u64;
            return Ok(());
        }
        match str::from_utf8(bytes) {
            Ok(_) => self.valid += bytes.len() as u64,
            Err(error) => {
                let (_, rest) = bytes.split_at(error.valid_up_to());
                self.valid += error.valid_up_to() as u64;
                if error.error_len().is_some() {
                    return Err(self.valid);
                }
                self.begun[..rest.len()].copy_from_slice(rest);
                self.len = rest.len();
            }
        }
        Ok(())
    }

    /// Ends the text. The next call of [`push`](Self::push) begins another one.
    ///
    /// # Errors
    ///
    /// The position of a character that is cut off.
    #[inline]
    pub(super) fn finish(&mut self) -> Result<(), u64> {
        let Self { len, valid, .. } = core::mem::take(self);
        if len == 0 { Ok(()) } else { Err(valid) }
    }

    /// Completes the character that has begun, and returns the bytes after it.
    fn complete<'a>(&mut self, mut bytes: &'a [u8]) -> Result<&'a [u8], u64> {
        while let Some((&next, rest)) = bytes.split_first() {
            bytes = rest;
            self.begun[self.len] = next;
            self.len += 1;
            match str::from_utf8(&self.begun[..self.len]) {
                Ok(_) => {
                    self.valid += self.len as u64;
                    self.len = 0;
                    break;
                }
                Err(error) if error.error_len().is_some() => return Err(self.valid),
                Err(_) => {}
            }
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn checked(pieces: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Result<(), u64> {
        let mut utf8 = Utf8::default();
        for piece in pieces {
            utf8.push(piece.as_ref())?;
        }
        utf8.finish()
    }

    fn whole(bytes: &[u8]) -> Result<(), u64> {
        str::from_utf8(bytes).map(|_| ()).map_err(|error| error.valid_up_to() as u64)
    }

    /// Every pair of bytes, and every triple that begins with a lead byte, gives the same result in
    /// one piece and byte by byte.
    #[test]
    fn short_sequences_validate_in_any_pieces() {
        for a in 0..=255 {
            for b in 0..=255 {
                let two = [a, b];
                assert_eq!(checked([two]), whole(&two));
                assert_eq!(checked(two.chunks(1)), whole(&two), "{two:x?}");
                for c in [0x00, 0x41, 0x7f, 0x80, 0x9f, 0xa0, 0xbf, 0xc0, 0xed, 0xf4, 0xff] {
                    let three = [a, b, c];
                    assert_eq!(checked(three.chunks(1)), whole(&three), "{three:x?}");
                    let four = [a, b, c, 0x80];
                    assert_eq!(checked(four.chunks(1)), whole(&four), "{four:x?}");
                    assert_eq!(checked(four.chunks(3)), whole(&four), "{four:x?}");
                }
            }
        }
    }

    #[test]
    fn invalid_character_refused_at_its_byte() {
        let mut utf8 = Utf8::default();
        // A surrogate: no byte after these two makes them a character.
        assert_eq!((utf8.push(b"ab\xed"), utf8.push(b"\xa0")), (Ok(()), Err(2)));
    }

    /// A byte that is not ASCII is found at each position of texts of each length.
    #[test]
    fn ascii_check_finds_each_byte() {
        for len in 0..100 {
            let mut text = vec![b'a'; len];
            assert!(is_ascii(&text));
            for at in 0..len {
                text[at] = 0x80;
                assert!(!is_ascii(&text), "{at} of {len}");
                text[at] = 0x7f;
            }
        }
    }

    proptest! {
        #[test]
        fn cuts_do_not_change_the_result(
            text in "\\PC{0,40}", noise in proptest::collection::vec(any::<(usize, u8)>(), 0..3),
            cuts in proptest::collection::vec(1_usize..9, 1..6),
        ) {
            let mut bytes = text.into_bytes();
            for (at, byte) in noise {
                if let Some(old) = bytes.len().checked_sub(1).and_then(|_| { let n = bytes.len(); bytes.get_mut(at % n) }) {
                    *old = byte;
                }
            }
            let (mut pieces, mut rest, mut sizes) = (Vec::new(), &bytes[..], cuts.iter().cycle());
            while !rest.is_empty() {
                let (piece, more) = rest.split_at((*sizes.next().unwrap()).min(rest.len()));
                pieces.push(piece);
                rest = more;
            }
            prop_assert_eq!(checked(pieces), whole(&bytes));
        }
    }
}
