//! Finding the parts of a JSON text without parsing it.
//!
//! A [`Scanner`] walks over bytes. Strings and values are found, not read: what is inside them is
//! for whoever reads the payload. Nothing recurses, so no nesting can exhaust the stack.

use core::ops::Range;

use bytes::Bytes;

use super::error::{DecodeError, DecodeProblem};
use super::simple::simple_len;
use super::{ByteStr, WireRef};

pub(super) struct Scanner<'a> {
    frame: &'a Bytes,
    /// The frame up to where scanning stops, for scanning inside a part.
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(frame: &'a Bytes, start: usize, end: usize) -> Self {
        Self { frame, bytes: &frame[..end], at: start }
    }

    pub(super) const fn at(&self) -> usize {
        self.at
    }

    #[cold]
    pub(super) fn expected<T>(&self, expected: &'static str) -> Result<T, DecodeError> {
        Err(DecodeError::new(DecodeProblem::Expected { expected }, self.at, self.frame))
    }

    #[inline]
    pub(super) fn peek(&mut self) -> Option<u8> {
        loop {
            let byte = *self.bytes.get(self.at)?;
            if !is_space(byte) {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    /// Takes one character of punctuation.
    #[inline]
    pub(super) fn take(&mut self, byte: u8, expected: &'static str) -> Result<(), DecodeError> {
        if self.peek() != Some(byte) {
            return self.expected(expected);
        }
        self.at += 1;
        Ok(())
    }

    /// Takes what stands here if it is exactly this.
    #[inline]
    pub(super) fn take_exactly(&mut self, text: &[u8]) -> bool {
        let found = self.bytes[self.at..].starts_with(text);
        if found {
            self.at += text.len();
        }
        found
    }

    /// Takes a string and unescapes it: a slice of the frame unless it has escapes.
    #[inline]
    pub(super) fn string(&mut self, expected: &'static str) -> Result<ByteStr, DecodeError> {
        if self.peek() != Some(b'"') {
            return self.expected(expected);
        }
        let start = self.at + 1;
        // Topics and events are nearly always ASCII: nothing to unescape, no UTF-8 to check.
        let end = start + simple_len(&self.bytes[start..]);
        if self.bytes.get(end) == Some(&b'"') {
            self.at = end + 1;
            return Ok(ByteStr::ascii(self.frame.slice(start..end)));
        }
        self.unusual_string(expected)
    }

    /// Takes a key and its colon; tells which of the known ones it is, if any.
    #[inline]
    pub(super) fn member<const N: usize>(
        &mut self,
        known: [&'static str; N],
        expected: &'static str,
    ) -> Result<Option<&'static str>, DecodeError> {
        self.peek();
        let start = self.at + 1;
        // As servers write it: `"key":`.
        for key in known {
            let end = start + key.len();
            if self.bytes.get(start..end) == Some(key.as_bytes())
                && self.bytes.get(self.at) == Some(&b'"')
                && self.bytes.get(end..end + 2) == Some(b"\":")
            {
                self.at = end + 2;
                return Ok(Some(key));
            }
        }
        let found = self.string(expected)?;
        self.take(b':', "a colon behind the key")?;
        Ok(known.into_iter().find(|key| found == **key))
    }

    /// Takes the status of a reply. The two usual ones need no slice of the frame.
    #[inline]
    pub(super) fn status(&mut self) -> Result<ByteStr, DecodeError> {
        self.peek();
        for (quoted, status) in [("\"ok\"", "ok"), ("\"error\"", "error")] {
            if self.take_exactly(quoted.as_bytes()) {
                return Ok(ByteStr::from_static(status));
            }
        }
        self.string("a status that is a string")
    }

    #[cold]
    fn unusual_string(&mut self, expected: &'static str) -> Result<ByteStr, DecodeError> {
        let start = self.at;
        let (end, plain) = self.find_string_end(expected)?;
        let found = if plain {
            ByteStr::new(self.frame.slice(start + 1..end - 1)).ok()
        } else {
            // Escapes are rare; the parser knows surrogate pairs and what is not allowed.
            serde_json::from_slice::<String>(&self.bytes[start..end]).map(ByteStr::from).ok()
        };
        let Some(found) = found else { return self.expected(expected) };
        self.at = end;
        Ok(found)
    }

    /// The end of the string that starts here, behind its closing quote, and whether it is free
    /// of escapes.
    #[inline]
    fn find_string_end(&self, expected: &'static str) -> Result<(usize, bool), DecodeError> {
        let mut at = self.at + 1;
        let mut plain = true;
        while let Some(byte) = self.bytes.get(at) {
            match byte {
                b'"' => return Ok((at + 1, plain)),
                b'\\' => {
                    plain = false;
                    at += 2;
                }
                0..=0x1f => break,
                _ => at += 1,
            }
        }
        self.expected(expected)
    }

    /// Takes a ref: null, a string or number that is a canonical decimal, or anything else.
    #[inline]
    pub(super) fn wire_ref(&mut self, expected: &'static str) -> Result<WireRef, DecodeError> {
        match self.peek() {
            Some(b'"') => {
                let start = self.at + 1;
                let digits =
                    self.bytes[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
                let end = start + digits;
                if self.bytes.get(end) == Some(&b'"') {
                    self.at = end + 1;
                    return Ok(WireRef::parse(&self.bytes[start..end]));
                }
                Ok(WireRef::parse(self.string(expected)?.as_bytes()))
            }
            Some(b'n') if self.take_exactly(b"null") => Ok(WireRef::Null),
            Some(_) => self.unusual_ref(expected),
            None => self.expected(expected),
        }
    }

    #[cold]
    fn unusual_ref(&mut self, expected: &'static str) -> Result<WireRef, DecodeError> {
        let value = self.value(expected)?;
        // Only refs of ours are worth a fast path; anything else is checked for being
        // JSON and nothing more.
        self.check_json(&value, expected)?;
        Ok(WireRef::parse(&value))
    }

    /// Checks a value that nobody will read: by its outline alone it could be anything.
    pub(super) fn check_json(
        &self,
        value: &[u8],
        expected: &'static str,
    ) -> Result<(), DecodeError> {
        // The parser skips over strings without looking at their bytes.
        let text = core::str::from_utf8(value).ok();
        match text.map(serde_json::from_str::<serde::de::IgnoredAny>) {
            Some(Ok(_)) => Ok(()),
            _ => self.expected(expected),
        }
    }

    /// Takes one value of any kind, by its outline.
    pub(super) fn value(&mut self, expected: &'static str) -> Result<Bytes, DecodeError> {
        Ok(self.frame.slice(self.extent(expected)?))
    }

    /// Takes one value of any kind, by its outline: brackets are counted, strings are skipped.
    fn extent(&mut self, expected: &'static str) -> Result<Range<usize>, DecodeError> {
        let Some(first) = self.peek() else { return self.expected(expected) };
        let start = self.at;
        match first {
            b'"' => self.at = self.find_string_end(expected)?.0,
            b'{' | b'[' => self.skip_nested(expected)?,
            _ => {
                while self.bytes.get(self.at).is_some_and(|byte| !is_delimiter(*byte)) {
                    self.at += 1;
                }
                if self.at == start {
                    return self.expected(expected);
                }
            }
        }
        Ok(start..self.at)
    }

    fn skip_nested(&mut self, expected: &'static str) -> Result<(), DecodeError> {
        let mut depth = 0_usize;
        loop {
            let rest = &self.bytes[self.at..];
            let Some(next) = rest.iter().position(|byte| is_structure(*byte)) else {
                self.at = self.bytes.len();
                return self.expected(expected);
            };
            self.at += next;
            match self.bytes[self.at] {
                b'"' => {
                    self.at = self.find_string_end(expected)?.0;
                    continue;
                }
                b'{' | b'[' => depth += 1,
                _ => depth -= 1,
            }
            self.at += 1;
            if depth == 0 {
                return Ok(());
            }
        }
    }
}

pub(super) const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

const fn is_delimiter(byte: u8) -> bool {
    is_space(byte) || matches!(byte, b',' | b']' | b'}' | b'[' | b'{' | b'"' | b':')
}

/// Where the value of `"response"` stands in text that begins with one and may go on with more
/// members of the same object: the last one, as for JSON.parse. All of the text when it is not that.
pub(crate) fn first_of_members(text: &Bytes) -> Range<usize> {
    let read = || {
        let mut scanner = Scanner::new(text, 0, text.len());
        let mut found = scanner.extent("a response")?;
        while scanner.peek().is_some() {
            scanner.take(b',', "a comma behind the response")?;
            let key = scanner.string("a key of the reply")?;
            scanner.take(b':', "a colon behind the key")?;
            let mut other = scanner.extent("a value in the reply")?;
            if key == *"response" {
                core::mem::swap(&mut found, &mut other);
            }
            scanner.check_json(&text[other], "a value in the reply")?;
        }
        Ok::<_, DecodeError>(found)
    };
    read().unwrap_or(0..text.len())
}

/// Whether a byte outside of strings opens or closes something.
const fn is_structure(byte: u8) -> bool {
    matches!(byte, b'"' | b'{' | b'}' | b'[' | b']')
}
