//! A parser for the response: the head and, if it is a refusal, the start of the body.
//!
//! ```text
//!              1xx: skipped
//!              +--------+
//!              v        |                 the status that opens a stream
//!           +------+    |    +---------+  (101, or 2xx to a CONNECT)
//! bytes --> | Head |----+--> | status? |------> Event::Open(head, leftover) --+
//!           +------+         +---------+                                      v
//!               |                 | any other                           +----------+
//!               |                 v                                     | Finished |
//!               |             +------+  body complete, 1 KiB, or EOF    +----------+
//!               |             | Body |------> Event::Refused ---------------^ ^
//!               |             +------+                                        |
//!               +-------------------------> error ----------------------------+
//! ```
//!
//! The outcome does not depend on how the bytes were cut into reads: every decision is a function
//! of the bytes so far. (Only the time at which a malformed head is detected depends on the reads.)
//! The status of a refusal matters more than its body and headers. So a body that is malformed,
//! truncated or too long does not hide the status, nor does an invalid header line or a head that
//! is too long.

use core::fmt;

use bytes::Bytes;

use super::UpgradeError;
use super::body::Body;
use crate::config::http::{is_token, is_value};
use crate::event::refusal::Refusal;

/// The limit for everything before the body, including the heads of interim responses, in bytes.
const MAX_HEAD: usize = 16 * 1024;
/// The maximum number of headers that are kept. A header can be sent in a few bytes and takes more
/// memory than that.
const MAX_HEADERS: usize = 1_024;
/// The maximum number of bytes that are kept as evidence of a response that is not HTTP.
const MAX_EVIDENCE: usize = 64;

#[derive(Clone)]
pub(super) struct Response {
    state: State,
    /// Whether a response with this status opens the WebSocket or the tunnel, so that the bytes
    /// after the head are no longer HTTP.
    opens: fn(u16) -> bool,
    received: usize,
}

#[derive(Clone)]
enum State {
    Head {
        buffer: Vec<u8>,
        /// The total size of interim responses, which were removed from the buffer.
        skipped: usize,
    },
    Body {
        head: Head,
        body: Body,
    },
    Finished,
}

/// The head of a response, without invalid header lines. Header values are as they arrived, except
/// that a line fold is replaced by a space and bytes that are not UTF-8 by U+FFFD.
#[derive(Clone)]
pub(super) struct Head {
    /// The minor version of HTTP/1.
    pub(super) version: u8,
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
}

pub(super) enum Event {
    More,
    Open(Head, Bytes),
    Refused(Refusal),
}

impl Response {
    pub(super) const fn new(opens: fn(u16) -> bool) -> Self {
        Self { state: State::Head { buffer: Vec::new(), skipped: 0 }, opens, received: 0 }
    }

    pub(super) fn handle_read(&mut self, bytes: &[u8]) -> Result<Event, UpgradeError> {
        self.received = self.received.saturating_add(bytes.len());
        match core::mem::replace(&mut self.state, State::Finished) {
            State::Head { mut buffer, skipped } => {
                buffer.extend_from_slice(bytes);
                // A head ends with a line break, so the buffer is parsed only when one arrives, not
                // for each byte of a slow head. Short buffers are parsed anyway, so that a response
                // that is not HTTP is detected early. Buffers at the limit are parsed too.
                let look = bytes.contains(&b'\n')
                    || buffer.len() <= MAX_EVIDENCE
                    || skipped + buffer.len() >= MAX_HEAD;
                if look {
                    return self.read_head(buffer, skipped);
                }
                self.state = State::Head { buffer, skipped };
                Ok(Event::More)
            }
            State::Body { head, body } => Ok(self.read_body(head, body, bytes)),
            State::Finished => Err(UpgradeError::Finished),
        }
    }

    /// Handles the end of the stream, which is valid only in the body of a refusal.
    pub(super) fn handle_eof(&mut self) -> Result<Refusal, UpgradeError> {
        match core::mem::replace(&mut self.state, State::Finished) {
            State::Head { buffer, skipped } => {
                // The bytes after the last line break are parsed now, because they may be invalid,
                // not only incomplete.
                parse(&buffer, MAX_HEAD - skipped)?;
                Err(UpgradeError::Eof { received: self.received })
            }
            State::Body { head, body } => Ok(refusal(head, body)),
            State::Finished => Err(UpgradeError::Finished),
        }
    }

    /// The refusal, if its head is complete and its body is not.
    pub(super) fn pending_refusal(&self) -> Option<Refusal> {
        match &self.state {
            State::Body { head, body } => {
                Some(Refusal::new(head.status, head.headers.clone(), body.kept().to_vec()))
            }
            State::Head { .. } | State::Finished => None,
        }
    }

    fn read_head(
        &mut self,
        mut buffer: Vec<u8>,
        mut skipped: usize,
    ) -> Result<Event, UpgradeError> {
        loop {
            let (head, length) = match parse(&buffer, MAX_HEAD - skipped)? {
                Found::Incomplete => {
                    self.state = State::Head { buffer, skipped };
                    return Ok(Event::More);
                }
                // Even with a success status this is a refusal, because the end of the head is
                // unknown.
                Found::TooLong(head) => {
                    return Ok(Event::Refused(Refusal::new(head.status, head.headers, "")));
                }
                Found::Complete(head, length) => (head, length),
            };
            if (self.opens)(head.status) {
                return Ok(Event::Open(head, Bytes::from(buffer).slice(length..)));
            }
            if matches!(head.status, 100 | 102..=199) {
                skipped += length;
                buffer.drain(..length);
                continue;
            }
            let body = Body::new(head.status, &head.headers);
            return Ok(self.read_body(head, body, &buffer[length..]));
        }
    }

    fn read_body(&mut self, head: Head, mut body: Body, bytes: &[u8]) -> Event {
        body.handle_read(bytes);
        if body.is_complete() {
            return Event::Refused(refusal(head, body));
        }
        self.state = State::Body { head, body };
        Event::More
    }
}

fn refusal(head: Head, body: Body) -> Refusal {
    Refusal::new(head.status, head.headers, body.into_kept())
}

/// The result of parsing the buffer of the head.
enum Found {
    Incomplete,
    /// A complete head, and its size in bytes.
    Complete(Head, usize),
    /// A head that is longer than the limit: its status, and the headers of its complete lines.
    TooLong(Head),
}

/// Parses the head at the start of `buffer`, of at most `limit` bytes.
///
/// A valid status line determines the outcome. Header lines that are invalid or contain a control
/// character in the value are left out, because one bad line of a proxy must not hide a 401 or a
/// `Retry-After`.
fn parse(buffer: &[u8], limit: usize) -> Result<Found, UpgradeError> {
    // Bytes after the limit are ignored, so the outcome does not depend on what arrived with them.
    let window = &buffer[..buffer.len().min(limit)];
    let blank = window.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    let first_line = window[blank..].iter().position(|byte| *byte == b'\n');
    let first_line_end = first_line.map(|at| blank + at + 1);
    let mut response = httparse::Response::new(&mut []);
    response
        .parse(&window[blank..first_line_end.unwrap_or(window.len())])
        .map_err(|error| not_http(in_words(error), buffer))?;
    let (Some(end), Some(version), Some(status)) =
        (first_line_end, response.version, response.code)
    else {
        let full = window.len() == limit;
        return if full { Err(UpgradeError::HeadTooLarge) } else { Ok(Found::Incomplete) };
    };
    if status < 100 {
        return Err(not_http("invalid status code", buffer));
    }
    let mut headers = Headers::default();
    let mut at = end;
    for line in window[end..].split_inclusive(|byte| *byte == b'\n') {
        let Some(text) = line.strip_suffix(b"\n") else { break };
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        at += line.len();
        if text.is_empty() {
            return Ok(Found::Complete(Head { version, status, headers: headers.read }, at));
        }
        headers.line(text);
    }
    if window.len() < limit {
        return Ok(Found::Incomplete);
    }
    Ok(Found::TooLong(Head { version, status, headers: headers.read }))
}

/// The headers, parsed line by line.
#[derive(Default)]
struct Headers {
    read: Vec<(String, String)>,
    /// Whether the last line was left out; then its folded continuations are left out too.
    left_out: bool,
}

impl Headers {
    fn line(&mut self, line: &[u8]) {
        // RFC 9112 section 5.2: a user agent reads folded lines as one.
        if matches!(line.first(), Some(b' ' | b'\t')) {
            match (self.read.last_mut(), value(line)) {
                (Some((_, whole)), Some(more)) if !self.left_out => {
                    if !whole.is_empty() && !more.is_empty() {
                        whole.push(' ');
                    }
                    whole.push_str(&more);
                }
                // The complete value of the header is unknown, so the header is removed.
                (Some(_), None) if !self.left_out => {
                    self.read.pop();
                    self.left_out = true;
                }
                _ => {}
            }
            return;
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let read = colon.and_then(|at| {
            let name = core::str::from_utf8(&line[..at]).ok()?;
            Some((is_token(name).then(|| name.to_owned())?, value(&line[at + 1..])?))
        });
        let read = read.filter(|_| self.read.len() < MAX_HEADERS);
        self.left_out = read.is_none();
        self.read.extend(read);
    }
}

/// The value of a header; `None` if it contains a control character.
fn value(bytes: &[u8]) -> Option<String> {
    if !is_value(bytes) {
        return None;
    }
    Some(String::from_utf8_lossy(bytes).trim_matches([' ', '\t']).to_owned())
}

const fn in_words(error: httparse::Error) -> &'static str {
    match error {
        httparse::Error::NewLine => "invalid line break",
        httparse::Error::Status => "invalid status line",
        httparse::Error::Version => "invalid HTTP version",
        _ => "invalid head",
    }
}

fn not_http(reason: &'static str, buffer: &[u8]) -> UpgradeError {
    let line = buffer.trim_ascii_start().split(|byte| matches!(byte, b'\r' | b'\n' | b'?')).next();
    let line = line.unwrap_or_default();
    let evidence = line[..line.len().min(MAX_EVIDENCE)].escape_ascii().to_string();
    UpgradeError::NotHttp { reason, evidence }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Head { .. } => "reading the head",
            State::Body { .. } => "reading a refusal's body",
            State::Finished => "finished",
        };
        write!(f, "{state}, {} bytes received", self.received)
    }
}
