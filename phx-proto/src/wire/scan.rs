//! A scanner for JSON envelopes, which finds the parts of a message without parsing its payload.
//!
//! A [`Scanner`] walks over bytes. It finds where a payload begins and ends; its consumer parses it. No
//! function recurses, so deep nesting cannot exhaust the stack.
//!
//! Frames as Phoenix servers write them, without whitespace and escapes, take the inlined branches; the
//! `#[cold]` functions read the rest of JSON. Each function reads one token or a fixed sequence of tokens,
//! so whitespace never changes the result. A separate reader for the usual form would save 37 of the 944
//! instructions that a message takes on the way from its frame to the consumer. For a reply it would save
//! none.

use core::ops::Range;

use bytes::Bytes;
use memchr::{memchr, memchr2};

use super::error::{DecodeError, DecodeProblem};
use super::simple::simple_len;
use super::{Body, ByteStr, WireRef};
use crate::id::Ref;
use crate::wire::payload::Payload;

/// The error of the scanner: the part of the protocol that was expected.
#[derive(Debug)]
pub(super) struct Expected(pub(super) &'static str);

pub(super) type Scan<T> = Result<T, Expected>;

/// A string of the frame.
pub(super) enum Text {
    /// A string without escapes: its range between the quotes.
    Plain(Range<usize>),
    /// Any other string.
    Unescaped(ByteStr),
}

pub(super) struct Scanner<'a> {
    frame: &'a Bytes,
    /// The frame up to the end of the part being read.
    bytes: &'a [u8],
    at: usize,
}

/// Reads a text frame from its start.
#[inline(always)]
pub(super) fn read<T>(
    frame: &Bytes,
    read: impl FnOnce(&mut Scanner<'_>) -> Scan<T>,
) -> Result<T, DecodeError> {
    let mut scanner = Scanner { frame, bytes: frame, at: 0 };
    read(&mut scanner).map_err(|expected| scanner.error(&expected))
}

impl Scanner<'_> {
    #[cold]
    fn error(&self, Expected(expected): &Expected) -> DecodeError {
        DecodeError::new(DecodeProblem::Expected { expected }, self.at, self.frame)
    }

    /// Skips whitespace and returns the next byte without taking it.
    #[inline(always)]
    pub(super) fn next_byte(&mut self) -> Option<u8> {
        match self.bytes.get(self.at) {
            Some(byte) if *byte > b' ' => Some(*byte),
            _ => self.skip_space(),
        }
    }

    #[cold]
    fn skip_space(&mut self) -> Option<u8> {
        while is_space(*self.bytes.get(self.at)?) {
            self.at += 1;
        }
        self.bytes.get(self.at).copied()
    }

    /// Takes one character of punctuation.
    #[inline(always)]
    pub(super) fn take(&mut self, byte: u8, expected: &'static str) -> Scan<()> {
        if !self.skip_to(byte) {
            return Err(Expected(expected));
        }
        self.at += 1;
        Ok(())
    }

    /// Skips whitespace and returns whether `byte` is next.
    #[inline(always)]
    fn skip_to(&mut self, byte: u8) -> bool {
        self.bytes.get(self.at) == Some(&byte) || self.skip_space() == Some(byte)
    }

    /// Takes `text` if it is next; returns whether it was.
    #[inline(always)]
    fn take_exactly(&mut self, text: &[u8]) -> bool {
        let found = self.bytes[self.at..].starts_with(text);
        if found {
            self.at += text.len();
        }
        found
    }

    /// Checks that only whitespace follows.
    #[inline]
    pub(super) fn end(&mut self, expected: &'static str) -> Scan<()> {
        if self.next_byte().is_some() { Err(Expected(expected)) } else { Ok(()) }
    }

    /// Takes a string and unescapes it. A long string without escapes is a slice of the frame.
    #[inline(always)]
    pub(super) fn string(&mut self, expected: &'static str) -> Scan<ByteStr> {
        let text = self.text(expected)?;
        Ok(self.byte_str(text))
    }

    #[inline(always)]
    pub(super) fn byte_str(&self, text: Text) -> ByteStr {
        match text {
            Text::Plain(range) => ByteStr::ascii(self.frame, range),
            Text::Unescaped(text) => text,
        }
    }

    #[inline(always)]
    pub(super) fn text(&mut self, expected: &'static str) -> Scan<Text> {
        if !self.skip_to(b'"') {
            return Err(Expected(expected));
        }
        let start = self.at + 1;
        // Topics and events are nearly always ASCII without escapes.
        let end = start + simple_len(&self.bytes[start..]);
        if self.bytes.get(end) == Some(&b'"') {
            self.at = end + 1;
            return Ok(Text::Plain(start..end));
        }
        // Protocol: MSG-3.
        self.unusual_string(expected).map(Text::Unescaped)
    }

    #[cold]
    fn unusual_string(&mut self, expected: &'static str) -> Scan<ByteStr> {
        let end = string_end(self.bytes, self.at).ok_or(Expected(expected))?;
        let (text, inside) = (&self.bytes[self.at..end], self.at + 1..end - 1);
        // serde_json checks UTF-8, surrogate pairs and control characters.
        let found = if memchr(b'\\', text).is_none() {
            serde_json::from_slice(text).map(|_: &str| ByteStr::part(self.frame, inside))
        } else {
            serde_json::from_slice(text).map(|text: String| ByteStr::from(text))
        };
        let found = found.map_err(|_| Expected(expected))?;
        self.at = end;
        Ok(found)
    }

    /// Takes the name of an event. Returns `None` for `phx_reply`, which needs no slice of the frame.
    #[inline(always)]
    pub(super) fn event(&mut self) -> Scan<Option<Text>> {
        self.next_byte();
        if self.take_exactly(b"\"phx_reply\"") {
            return Ok(None);
        }
        let event = self.text("an event")?;
        let is_reply = matches!(&event, Text::Unescaped(event) if *event == *"phx_reply");
        Ok(if is_reply { None } else { Some(event) })
    }

    /// Takes a key and its colon. Returns the key if it is one of `known`.
    #[inline(always)]
    pub(super) fn member<const N: usize>(
        &mut self,
        known: [&'static str; N],
        expected: &'static str,
    ) -> Scan<Option<&'static str>> {
        self.next_byte();
        let start = self.at + 1;
        // The form that servers write: `"key":`.
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
        self.take(b':', "a colon after the key")?;
        Ok(known.into_iter().find(|key| found == **key))
    }

    /// Takes a ref, which may be null, a string, a number or any other value.
    #[inline(always)]
    pub(super) fn wire_ref(&mut self, expected: &'static str) -> Scan<WireRef> {
        if self.take_exactly(b"null") {
            return Ok(WireRef::Null);
        }
        if let [b'"', first @ b'1'..=b'9', rest @ ..] = &self.bytes[self.at..] {
            let (mut number, mut rest) = (u64::from(first - b'0'), rest);
            while let [digit @ b'0'..=b'9', after @ ..] = rest {
                number = number.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
                rest = after;
            }
            let end = self.bytes.len() - rest.len();
            // Nineteen digits always fit into 64 bits; longer refs are rare.
            if end - self.at <= 1 + 19 && rest.first() == Some(&b'"') {
                self.at = end + 1;
                return Ok(WireRef::Ref(Ref(number)));
            }
        }
        self.unusual_ref(expected)
    }

    #[cold]
    fn unusual_ref(&mut self, expected: &'static str) -> Scan<WireRef> {
        match self.next_byte() {
            Some(b'"') => Ok(WireRef::parse(self.string(expected)?.as_bytes())),
            Some(b'n') if self.take_exactly(b"null") => Ok(WireRef::Null),
            _ => {
                let value = self.ignored(expected)?;
                Ok(WireRef::parse(&self.bytes[value]))
            }
        }
    }

    /// Takes one value of any kind without parsing it: counts brackets and skips strings.
    pub(super) fn value(&mut self, expected: &'static str) -> Scan<Range<usize>> {
        let Some(first) = self.next_byte() else { return Err(Expected(expected)) };
        let start = self.at;
        match first {
            b'"' => self.skip_string(expected)?,
            b'{' | b'[' => self.skip_nested(expected)?,
            _ => {
                let rest = &self.bytes[start..];
                let len = rest.iter().position(|byte| is_delimiter(*byte)).unwrap_or(rest.len());
                if len == 0 {
                    return Err(Expected(expected));
                }
                self.at += len;
            }
        }
        Ok(start..self.at)
    }

    /// Takes a value that has no consumer. Unlike [`value`](Self::value), it checks that the value is JSON.
    pub(super) fn ignored(&mut self, expected: &'static str) -> Scan<Range<usize>> {
        let value = self.value(expected)?;
        self.check(value.clone(), expected)?;
        Ok(value)
    }

    /// Checks that a value is JSON.
    pub(super) fn check(&self, value: Range<usize>, expected: &'static str) -> Scan<()> {
        // The parser skips strings without checking that they are UTF-8.
        let text = core::str::from_utf8(&self.bytes[value]).ok();
        match text.map(serde_json::from_str::<serde::de::IgnoredAny>) {
            Some(Ok(_)) => Ok(()),
            _ => Err(Expected(expected)),
        }
    }

    fn skip_string(&mut self, expected: &'static str) -> Scan<()> {
        self.at = string_end(self.bytes, self.at).ok_or(Expected(expected))?;
        Ok(())
    }

    fn skip_nested(&mut self, expected: &'static str) -> Scan<()> {
        let mut depth = 0_usize;
        loop {
            let rest = &self.bytes[self.at..];
            let Some(next) = rest.iter().position(|byte| is_structure(*byte)) else {
                self.at = self.bytes.len();
                return Err(Expected(expected));
            };
            self.at += next;
            match self.bytes[self.at] {
                b'"' => {
                    self.skip_string(expected)?;
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

    /// Restricts the scanner to a part of the frame.
    pub(super) fn narrow(&mut self, part: Range<usize>) {
        (self.at, self.bytes) = (part.start, &self.frame[..part.end]);
    }

    /// Restricts the scanner to the last element of the array that makes up the frame.
    #[inline(always)]
    pub(super) fn narrow_to_last(&mut self, expected: &'static str) -> Scan<()> {
        self.next_byte();
        match before(&self.bytes[self.at..], b"]") {
            Some(rest) if !rest.is_empty() => {
                self.bytes = &self.bytes[..self.at + rest.len()];
                Ok(())
            }
            _ => Err(Expected(expected)),
        }
    }

    /// The rest of the part being read, as a payload.
    #[inline(always)]
    pub(super) fn payload(&self) -> Payload {
        Payload::unparsed(self.frame.slice(self.at..self.bytes.len()))
    }

    /// Reads the part as a reply.
    ///
    /// Phoenix never writes two statuses or two responses. If a reply has several statuses, its first
    /// member counts if that member is a status; otherwise the last status counts. Of several responses
    /// the last one counts, as for `JSON.parse`. With this rule, reading the start and the end of the text
    /// is enough to find a usual response, so the cost does not grow with its length.
    #[inline(always)]
    pub(super) fn reply(&mut self) -> Scan<Body> {
        // The two forms that servers write. The order of the keys depends on the OTP release of the
        // server.
        let start = self.at;
        if self.take_exactly(b"{\"response\":") {
            if let Some(reply) = self.response_before_status() {
                return reply;
            }
            self.at = start;
        } else if self.take_exactly(b"{\"status\":\"ok\",\"response\":") {
            return self.response_after_status(ByteStr::from_static("ok"));
        }
        self.unusual_reply()
    }

    #[inline(never)]
    fn unusual_reply(&mut self) -> Scan<Body> {
        self.take(b'{', "a reply with status and response")?;
        if self.next_byte() == Some(b'}') {
            return Err(Expected("a status in the reply"));
        }
        let (mut first, mut last, mut response) = (None, None, None);
        let mut is_first = true;
        loop {
            // Protocol: MSG-7.
            match self.member(["status", "response"], "a key of the reply")? {
                Some("status") if is_first => first = Some(self.status()?),
                Some("status") if first.is_none() => {
                    let status = self.status();
                    if status.is_err() {
                        // Only the status that counts has to be a string.
                        self.ignored("a status")?;
                    }
                    last = Some(status);
                }
                Some("response") => {
                    if let Some(status) = first {
                        return self.response_after_status(status);
                    }
                    if let Some(reply) = self.response_before_status() {
                        return reply;
                    }
                    let value = self.value("a response")?;
                    if let Some(replaced) = response.replace(value) {
                        self.check(replaced, "a response")?;
                    }
                }
                _ => {
                    self.ignored("a value in the reply")?;
                }
            }
            is_first = false;
            if self.next_byte() != Some(b',') {
                break;
            }
            self.at += 1;
        }
        self.take(b'}', "the end of the reply")?;
        self.end("the end of the array after the reply")?;
        // If the first member is a status, there is no response here: the loop returns when it reads a
        // response after that status.
        let status = last.or(first.map(Ok)).ok_or(Expected("a status in the reply"))??;
        let response = response.ok_or(Expected("a response in the reply"))?;
        Ok(Body::Reply { status, response: Payload::unparsed(self.frame.slice(response)) })
    }

    /// Reads the response at the current position of a reply whose status has been read.
    #[inline(always)]
    fn response_after_status(&mut self, status: ByteStr) -> Scan<Body> {
        self.next_byte();
        let rest = &self.bytes[self.at..];
        let response = before(rest, b"}").ok_or(Expected("the end of the reply"))?;
        self.response(status, response.len())
    }

    /// Reads the response at the current position, if a usual status is the last member of the text. That
    /// member cannot be a part of the response: the last brace closes the reply, and a quote inside a
    /// string would follow a backslash.
    #[inline(always)]
    fn response_before_status(&mut self) -> Option<Scan<Body>> {
        self.next_byte();
        let rest = &self.bytes[self.at..];
        let (status, response) = match before(rest, b",\"status\":\"ok\"}") {
            Some(response) => ("ok", response),
            None => before_status(rest)?,
        };
        Some(self.response(ByteStr::from_static(status), response.len()))
    }

    /// Creates a reply whose response begins at the current position. Further members of the reply may
    /// follow the response within `len` bytes.
    #[inline(always)]
    fn response(&self, status: ByteStr, len: usize) -> Scan<Body> {
        if len == 0 {
            return Err(Expected("a response"));
        }
        let response = Payload::member(self.frame.slice(self.at..self.at + len));
        Ok(Body::Reply { status, response })
    }

    /// Takes the status of a reply. The two usual ones need no slice of the frame.
    #[inline(always)]
    fn status(&mut self) -> Scan<ByteStr> {
        self.next_byte();
        for (quoted, status) in STATUSES {
            if self.take_exactly(quoted.as_bytes()) {
                return Ok(ByteStr::from_static(status));
            }
        }
        self.string("a status that is a string")
    }
}

/// The usual statuses, with and without quotes.
const STATUSES: [(&str, &str); 2] = [("\"ok\"", "ok"), ("\"error\"", "error")];

/// If a usual status is the last member of `reply`, returns it and the text before that member.
#[cold]
fn before_status(reply: &[u8]) -> Option<(&'static str, &[u8])> {
    let text = before(reply, b"}")?;
    let (status, text) = STATUSES
        .into_iter()
        .find_map(|(quoted, status)| Some((status, before(text, quoted.as_bytes())?)))?;
    let response = before(before(before(text, b":")?, b"\"status\"")?, b",")?;
    Some((status, response))
}

/// Strips the suffix `end`, and whitespace on both sides of it.
#[inline(always)]
fn before<'a>(text: &'a [u8], end: &[u8]) -> Option<&'a [u8]> {
    let text = trim_end(text).strip_suffix(end)?;
    Some(trim_end(text))
}

#[inline(always)]
fn trim_end(text: &[u8]) -> &[u8] {
    match text.last() {
        Some(last) if *last > b' ' => text,
        _ => trim_space(text),
    }
}

#[cold]
fn trim_space(text: &[u8]) -> &[u8] {
    let len = text.iter().rposition(|byte| !is_space(*byte)).map_or(0, |last| last + 1);
    &text[..len]
}

/// The offset after the closing quote of the string that starts at `start`.
fn string_end(bytes: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 1;
    loop {
        at += memchr2(b'"', b'\\', bytes.get(at..)?)?;
        if bytes[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// Finds the response in text that begins with a response, after which more members of the same object
/// may follow. If there are several, the last one counts, as for `JSON.parse`. Returns the range of the
/// whole text if it has another form.
pub(crate) fn first_of_members(text: &Bytes) -> Range<usize> {
    let mut scanner = Scanner { frame: text, bytes: text, at: 0 };
    let mut read = || {
        let mut found = scanner.value("a response")?;
        while scanner.next_byte().is_some() {
            scanner.take(b',', "a comma after the response")?;
            let key = scanner.member(["response"], "a key of the reply")?;
            let mut other = scanner.value("a value in the reply")?;
            if key.is_some() {
                core::mem::swap(&mut found, &mut other);
            }
            scanner.check(other, "a value in the reply")?;
        }
        Ok::<_, Expected>(found)
    };
    read().unwrap_or(0..text.len())
}

const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

const fn is_delimiter(byte: u8) -> bool {
    is_space(byte) || matches!(byte, b',' | b':') || is_structure(byte)
}

/// Whether a byte, which is not inside a string, opens or closes a string, an object or an array.
const fn is_structure(byte: u8) -> bool {
    matches!(byte, b'"' | b'{' | b'}' | b'[' | b']')
}
