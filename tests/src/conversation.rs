//! One connection of a recording.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use crate::recording::{Dir, Event, Recording, What};

/// The wire version of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vsn {
    /// vsn 1.0.0: JSON objects.
    V1,
    /// vsn 2.0.0: JSON arrays, and binary frames.
    V2,
}

/// How a connection began.
#[derive(Clone, Debug)]
pub struct Opening {
    /// The request path, with its query.
    pub path: String,
    /// The recorded header fields of the request; empty if the handshake was not recorded.
    pub headers: Vec<(String, String)>,
    /// The server's answer. `None` means that the handshake was not recorded; then it succeeded.
    pub answer: Option<Answer>,
    /// Time of the request.
    pub ms: u64,
}

/// The answer to an upgrade request.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The recorded header fields.
    pub headers: Vec<(String, String)>,
    /// The body, where one was recorded.
    pub body: String,
}

/// One connection of a recording.
#[derive(Clone, Debug)]
pub struct Conversation {
    /// Name of the recording and the connection, for failure messages.
    pub name: String,
    /// How the connection began.
    pub opening: Opening,
    /// The events on the connection, in the order of the wire.
    pub events: Vec<Event>,
}

impl Conversation {
    /// Every connection of a recording, in the order they were opened.
    ///
    /// # Errors
    ///
    /// As [`of`](Self::of).
    pub fn all(recording: &Recording) -> Result<Vec<Self>, String> {
        let mut conns: Vec<&str> = Vec::new();
        for event in recording.events.iter().filter(|event| event.dir != Dir::Server) {
            if !conns.contains(&event.conn.as_str()) {
                conns.push(&event.conn);
            }
        }
        conns.into_iter().map(|conn| Self::of(recording, conn)).collect()
    }

    /// One connection of a recording.
    ///
    /// # Errors
    ///
    /// If the client sent something before its handshake was answered.
    ///
    /// # Panics
    ///
    /// If there is no such connection, or its handshake has no answer.
    pub fn of(recording: &Recording, conn: &str) -> Result<Self, String> {
        let on_it = |event: &&Event| event.conn == conn && event.dir != Dir::Server;
        let mut events: Vec<Event> = recording.events.iter().filter(on_it).cloned().collect();
        let name = format!("{} {conn}", recording.name).trim_end().to_owned();
        let first = events.first().unwrap_or_else(|| panic!("{name}: nothing happens")).clone();
        let opening = |path: &str, headers, answer| {
            let path = path.to_owned();
            Opening { path, headers, answer, ms: first.ms }
        };
        let opening = match &first.what {
            What::Open { path } => {
                events.remove(0);
                opening(path, Vec::new(), None)
            }
            What::Request { method, .. } if method != "GET" => {
                return Err(format!("an upgrade by {method}"));
            }
            What::Request { path, headers, .. } => {
                events.remove(0);
                assert!(!events.is_empty(), "{name}: a request without an answer");
                let What::Response { status, headers: answered, body } = events.remove(0).what
                else {
                    return Err("a frame is sent before the upgrade was answered".to_owned());
                };
                let body = body.unwrap_or_default();
                let answer = Answer { status, headers: answered, body };
                opening(path, headers.clone(), Some(answer))
            }
            // The recording has no line for the opening of the first connection.
            _ => opening(&recording.path, Vec::new(), None),
        };
        Ok(Self { name, opening, events })
    }

    /// The pairs of the request's query, still percent-encoded.
    pub fn query(&self) -> impl Iterator<Item = (&str, &str)> {
        let query = self.opening.path.split_once('?').map_or("", |(_, query)| query);
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")))
    }

    /// The wire version that the request names.
    ///
    /// # Errors
    ///
    /// If it is neither 1.0.0 nor 2.0.0.
    pub fn vsn(&self) -> Result<Vsn, String> {
        let vsn = self.query().find(|(name, _)| *name == "vsn").map(|(_, value)| value);
        match vsn {
            Some("2.0.0") => Ok(Vsn::V2),
            Some("1.0.0") => Ok(Vsn::V1),
            other => Err(format!("vsn {other:?}")),
        }
    }

    /// The recorded value of a header of the request.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.opening.headers.iter().find(|(named, _)| named == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The `auth_token`, if it was offered in the way of this library: after `phoenix`, in standard
    /// base64 without padding (`handshake_auth_token`).
    #[must_use]
    pub fn auth_token(&self) -> Option<String> {
        let offered = self.header("sec-websocket-protocol")?;
        let token = offered.strip_prefix("phoenix, base64url.bearer.phx.")?;
        String::from_utf8(STANDARD_NO_PAD.decode(token).ok()?).ok()
    }
}

/// Undoes percent-encoding.
///
/// # Panics
///
/// If it is not percent-encoded UTF-8.
#[must_use]
pub fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first == b'%' {
            let hex = std::str::from_utf8(&tail[..2]).expect("two hexadecimal digits");
            bytes.push(u8::from_str_radix(hex, 16).expect("two hexadecimal digits"));
            rest = &tail[2..];
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).expect("UTF-8")
}
