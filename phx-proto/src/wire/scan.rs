//! Finding the parts of a JSON text without parsing it.
//!
//! A [`Scanner`] walks over bytes. Strings and values are found, not read: what is inside them is
//! for whoever reads the payload. Nothing recurses, so no nesting can exhaust the stack.

use bytes::Bytes;

use super::error::{DecodeError, DecodeProblem};
use super::{ByteStr, WireRef};

pub(super) struct Scanner<'a> {
    frame: &'a Bytes,
    /// Where scanning stops, for scanning inside a part.
    end: usize,
    at: usize,
}

impl<'a> Scanner<'a> {
    pub(super) const fn new(frame: &'a Bytes, start: usize, end: usize) -> Self {
        Self { frame, end, at: start }
    }

    pub(super) const fn at(&self) -> usize {
        self.at
    }

    pub(super) fn expected<T>(&self, expected: &'static str) -> Result<T, DecodeError> {
        Err(self.error(DecodeProblem::Expected { expected }))
    }

    pub(super) fn error(&self, problem: DecodeProblem) -> DecodeError {
        DecodeError::new(problem, self.at, self.frame)
    }

    pub(super) fn peek(&mut self) -> Option<u8> {
        while self.at < self.end && is_space(self.frame[self.at]) {
            self.at += 1;
        }
        (self.at < self.end).then(|| self.frame[self.at])
    }

    /// Takes one character of punctuation.
    pub(super) fn take(&mut self, byte: u8, expected: &'static str) -> Result<(), DecodeError> {
        if self.peek() != Some(byte) {
            return self.expected(expected);
        }
        self.at += 1;
        Ok(())
    }

    /// Takes a string and unescapes it: a slice of the frame unless it has escapes.
    pub(super) fn string(&mut self, expected: &'static str) -> Result<ByteStr, DecodeError> {
        if self.peek() != Some(b'"') {
            return self.expected(expected);
        }
        let start = self.at;
        let (end, plain) = self.find_string_end(expected)?;
        let problem = |this: &Self| this.error(DecodeProblem::Expected { expected });
        self.at = start;
        let found = if plain {
            ByteStr::new(self.frame.slice(start + 1..end - 1)).map_err(|_| problem(self))?
        } else {
            // Escapes are rare; the parser knows surrogate pairs and what is not allowed.
            let text: String =
                serde_json::from_slice(&self.frame[start..end]).map_err(|_| problem(self))?;
            ByteStr::from(text)
        };
        self.at = end;
        Ok(found)
    }

    /// The end of the string that starts here, behind its closing quote, and whether it is free
    /// of escapes.
    fn find_string_end(&self, expected: &'static str) -> Result<(usize, bool), DecodeError> {
        let mut at = self.at + 1;
        let mut plain = true;
        while at < self.end {
            match self.frame[at] {
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
    pub(super) fn wire_ref(&mut self, expected: &'static str) -> Result<WireRef, DecodeError> {
        match self.peek() {
            Some(b'"') => Ok(WireRef::parse(self.string(expected)?.as_bytes())),
            Some(b'n') if self.frame[self.at..self.end].starts_with(b"null") => {
                self.at += 4;
                Ok(WireRef::Null)
            }
            Some(_) => {
                let value = self.value(expected)?;
                // Only refs of ours are worth a fast path; anything else is checked for being
                // JSON and nothing more.
                self.check_json(&value, expected)?;
                Ok(WireRef::parse(&value))
            }
            None => self.expected(expected),
        }
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

    /// Takes one value of any kind, by its outline: brackets are counted, strings are skipped.
    pub(super) fn value(&mut self, expected: &'static str) -> Result<Bytes, DecodeError> {
        let Some(first) = self.peek() else { return self.expected(expected) };
        let start = self.at;
        match first {
            b'"' => self.at = self.find_string_end(expected)?.0,
            b'{' | b'[' => self.skip_nested(expected)?,
            _ => {
                while self.at < self.end && !is_delimiter(self.frame[self.at]) {
                    self.at += 1;
                }
                if self.at == start {
                    return self.expected(expected);
                }
            }
        }
        Ok(self.frame.slice(start..self.at))
    }

    fn skip_nested(&mut self, expected: &'static str) -> Result<(), DecodeError> {
        let mut depth = 0_usize;
        while self.at < self.end {
            match self.frame[self.at] {
                b'"' => {
                    self.at = self.find_string_end(expected)?.0;
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                _ => {}
            }
            self.at += 1;
            if depth == 0 {
                return Ok(());
            }
        }
        self.expected(expected)
    }
}

pub(super) const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

const fn is_delimiter(byte: u8) -> bool {
    is_space(byte) || matches!(byte, b',' | b']' | b'}' | b'[' | b'{' | b'"' | b':')
}
