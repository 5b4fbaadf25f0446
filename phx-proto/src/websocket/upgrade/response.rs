//! Reading the answer: its head, and the start of its body when it is a refusal.
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
//! The outcome does not depend on how the bytes were cut into reads: every decision is a function of
//! the bytes so far. (Only how early a malformed head is noticed varies.) A refusal is worth more
//! than its body, so a body that is malformed, cut short or too long never hides the status.

use core::fmt;

use bytes::Bytes;

use super::UpgradeError;
use super::body::Body;
use crate::event::refusal::Refusal;

/// Everything before the body, with the heads of interim answers, in bytes.
const MAX_HEAD: usize = 16 * 1024;
/// How many headers an answer may have.
const MAX_HEADERS: usize = 100;
/// How much of an answer that is not HTTP is kept as evidence, in bytes.
const MAX_EVIDENCE: usize = 64;

pub(super) struct Response {
    state: State,
    /// True for the status that ends HTTP on this stream.
    opens: fn(u16) -> bool,
    received: usize,
}

enum State {
    Head {
        buffer: Vec<u8>,
        /// Bytes of interim answers, which are no longer in the buffer.
        skipped: usize,
    },
    Body {
        head: Head,
        body: Body,
    },
    Finished,
}

/// The head of an answer. Header values are as they came, but for line folding, which became
/// spaces, and bytes that are not UTF-8, which became U+FFFD.
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
                // A head ends with a line; only what may not be HTTP at all is looked at sooner. That
                // keeps a head that comes byte by byte from being parsed once a byte.
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

    /// The stream ended. Only a refusal may end like that.
    pub(super) fn handle_eof(&mut self) -> Result<Refusal, UpgradeError> {
        match core::mem::replace(&mut self.state, State::Finished) {
            State::Head { buffer, skipped } => {
                // Not looked at since its last line, see above; it may be worse than incomplete.
                match parse(&buffer, MAX_HEAD - skipped) {
                    Err(error) => Err(error),
                    Ok(_) => Err(UpgradeError::Eof { received: self.received }),
                }
            }
            State::Body { head, body } => Ok(refusal(head, body)),
            State::Finished => Err(UpgradeError::Finished),
        }
    }

    /// The refusal, when its head is complete and its body is still on its way.
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
            let Some((head, length)) = parse(&buffer, MAX_HEAD - skipped)? else {
                self.state = State::Head { buffer, skipped };
                return Ok(Event::More);
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

/// The head at the start of `buffer` and its length, or `None` when it is not complete. `limit` is
/// how long it may be.
fn parse(buffer: &[u8], limit: usize) -> Result<Option<(Head, usize)>, UpgradeError> {
    // Nothing behind the limit is looked at, so that an error does not depend on what came with it.
    let window = &buffer[..buffer.len().min(limit)];
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let parsed = httparse::ParserConfig::default()
        // RFC 9112 section 5.2: a user agent reads folded lines as one.
        .allow_obsolete_multiline_headers_in_responses(true)
        .parse_response(&mut response, window);
    match parsed {
        Ok(httparse::Status::Complete(length)) => {
            let (Some(version), Some(status)) = (response.version, response.code) else {
                return Err(not_http("no status", buffer));
            };
            if status < 100 {
                return Err(not_http("invalid status code", buffer));
            }
            let headers = response.headers.iter().map(|header| {
                let value = String::from_utf8_lossy(header.value);
                let value =
                    if value.contains('\n') { unfolded(&value) } else { value.into_owned() };
                (header.name.to_owned(), value)
            });
            Ok(Some((Head { version, status, headers: headers.collect() }, length)))
        }
        Ok(httparse::Status::Partial) if window.len() == limit => Err(UpgradeError::HeadTooLarge),
        Ok(httparse::Status::Partial) => Ok(None),
        Err(httparse::Error::TooManyHeaders) => Err(UpgradeError::HeadTooLarge),
        Err(error) => Err(not_http(
            match error {
                httparse::Error::HeaderName => "invalid header name",
                httparse::Error::HeaderValue => "invalid header value",
                httparse::Error::NewLine => "invalid line break",
                httparse::Error::Status => "invalid status line",
                httparse::Error::Version => "invalid HTTP version",
                httparse::Error::Token | httparse::Error::TooManyHeaders => "invalid head",
            },
            buffer,
        )),
    }
}

fn not_http(reason: &'static str, buffer: &[u8]) -> UpgradeError {
    let line = buffer.trim_ascii_start().split(|byte| matches!(byte, b'\r' | b'\n' | b'?')).next();
    let line = line.unwrap_or_default();
    let evidence = line[..line.len().min(MAX_EVIDENCE)].escape_ascii().to_string();
    UpgradeError::NotHttp { reason, evidence }
}

/// One space for every fold: a line break with the white space around it.
fn unfolded(value: &str) -> String {
    let lines = value.lines().map(|line| line.trim_matches([' ', '\t', '\r']));
    lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
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
