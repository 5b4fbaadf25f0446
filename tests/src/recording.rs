//! The loader of `tests/fixtures/wire/*.jsonl`, whose format its README describes.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use phx_proto::Frame;
use serde_json::{Map, Value};

/// One recorded scenario.
#[derive(Clone, Debug)]
pub struct Recording {
    /// The file's name without its extension.
    pub name: String,
    /// The version of the recorded server, such as `1.8.12`.
    pub phoenix: String,
    /// The request path of connections without a path of their own.
    pub path: String,
    /// The settings of the recorded server, if they were not the default ones.
    pub server: Option<String>,
    /// The events, in order.
    pub events: Vec<Event>,
}

/// One line of a recording.
#[derive(Clone, Debug)]
pub struct Event {
    /// Milliseconds since the first connection was open.
    pub ms: u64,
    /// The connection; empty in a recording of one connection.
    pub conn: String,
    /// The side that caused the event.
    pub dir: Dir,
    /// The content of the event.
    pub what: What,
}

/// The side that caused an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dir {
    /// The recorder, as a client.
    ClientToServer,
    /// The server.
    ServerToClient,
    /// The test harness, which sent a signal to the server's process.
    Server,
}

/// The content of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A text or binary message.
    Frame {
        /// The message.
        frame: Frame,
        /// Whether the frame broke the WebSocket protocol (unmasked, or a reserved opcode).
        violation: bool,
    },
    /// A ping with its payload.
    Ping(Vec<u8>),
    /// A pong with its payload.
    Pong(Vec<u8>),
    /// A close frame.
    Close {
        /// The close code, if the frame had one.
        code: Option<u16>,
        /// The close reason.
        reason: String,
    },
    /// TCP ended.
    Eof,
    /// A connection was opened without its handshake being recorded.
    Open {
        /// The request path.
        path: String,
    },
    /// An HTTP request.
    Request {
        /// The method.
        method: String,
        /// The request path.
        path: String,
        /// The recorded header fields.
        headers: Vec<(String, String)>,
    },
    /// An HTTP response.
    Response {
        /// The status code.
        status: u16,
        /// The recorded header fields.
        headers: Vec<(String, String)>,
        /// The body, where one was recorded.
        body: Option<String>,
    },
    /// The server's process got a signal.
    Signal(String),
}

/// The names of all recordings, sorted.
///
/// # Panics
///
/// If the fixtures cannot be listed.
#[must_use]
pub fn names() -> Vec<String> {
    let entries = fs::read_dir(directory()).expect("the fixtures are part of the repository");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("a readable directory").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    names
}

/// Reads one recording.
///
/// # Panics
///
/// If the file is missing or contains something that the format does not allow.
#[must_use]
pub fn load(name: &str) -> Recording {
    let text = fs::read_to_string(directory().join(format!("{name}.jsonl")))
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    parse(name, &text)
}

/// Reads the text of a recording. The fragments of a message are joined into one event, at the time of
/// the last fragment.
///
/// # Panics
///
/// As [`load`].
#[must_use]
pub fn parse(name: &str, text: &str) -> Recording {
    let mut lines = text.lines().enumerate().map(|(number, line)| {
        let value: Value = serde_json::from_str(line)
            .unwrap_or_else(|error| panic!("{name}:{}: {error}", number + 1));
        Line { place: format!("{name}:{}", number + 1), value }
    });
    let header = lines.next().unwrap_or_else(|| panic!("{name}: empty"));
    Recording {
        name: name.to_owned(),
        phoenix: header.text("phoenix"),
        path: header.text("path"),
        server: header.value["server"].as_str().map(str::to_owned),
        events: whole(lines),
    }
}

/// The events of the lines, with the fragments of each message joined. A connection has at most one
/// incomplete message.
fn whole(lines: impl Iterator<Item = Line>) -> Vec<Event> {
    let mut events = Vec::new();
    let mut begun: BTreeMap<(String, bool), Event> = BTreeMap::new();
    for line in lines {
        let is_last = line.value["fin"].as_bool() != Some(false);
        let mut event = line.event();
        let place = (event.conn.clone(), event.dir == Dir::ClientToServer);
        if line.value["opcode"] == 0 {
            let first = begun.remove(&place);
            let first = first.unwrap_or_else(|| panic!("{}: continues nothing", line.place));
            event = Event { ms: event.ms, ..first.followed_by(&line.payload()) };
        }
        if is_last {
            events.push(event);
        } else {
            let before = begun.insert(place, event);
            assert!(before.is_none(), "{}: a message inside of another", line.place);
        }
    }
    assert!(begun.is_empty(), "a message without its last fragment");
    events
}

impl Event {
    /// Appends the next fragment to the message.
    fn followed_by(mut self, more: &[u8]) -> Self {
        let What::Frame { frame, .. } = &mut self.what else { panic!("no message: {self:?}") };
        let bytes = Bytes::from([frame.as_bytes(), more].concat());
        *frame = if frame.is_text() { Frame::Text(bytes) } else { Frame::Binary(bytes) };
        self
    }
}

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/wire")
}

struct Line {
    place: String,
    value: Value,
}

impl Line {
    fn event(&self) -> Event {
        let dir = match self.text("dir").as_str() {
            "c2s" => Dir::ClientToServer,
            "s2c" => Dir::ServerToClient,
            "srv" => Dir::Server,
            other => panic!("{}: dir {other}", self.place),
        };
        let ms = self.value["ms"].as_u64().unwrap_or_else(|| panic!("{}: no ms", self.place));
        let conn = self.value["conn"].as_str().unwrap_or("").to_owned();
        Event { ms, conn, dir, what: self.what() }
    }

    fn what(&self) -> What {
        let opcode = self.value.get("opcode").filter(|opcode| **opcode != 0);
        let violation = self.value.get("unmasked").is_some() || opcode.is_some();
        match self.text("kind").as_str() {
            "text" => What::Frame { frame: Frame::Text(Bytes::from(self.payload())), violation },
            "binary" => {
                What::Frame { frame: Frame::Binary(Bytes::from(self.payload())), violation }
            }
            "ping" => What::Ping(self.payload()),
            "pong" => What::Pong(self.payload()),
            "close" => What::Close {
                code: self.value["code"].as_u64().and_then(|code| u16::try_from(code).ok()),
                reason: self.value["reason"].as_str().unwrap_or_default().to_owned(),
            },
            "eof" => What::Eof,
            "open" => What::Open { path: self.text("path") },
            "signal" => What::Signal(self.text("signal")),
            "http" => match self.value["status"].as_u64() {
                Some(status) => What::Response {
                    status: u16::try_from(status).expect("a status has three digits"),
                    headers: self.headers(),
                    body: self.value["body"].as_str().map(str::to_owned),
                },
                None => What::Request {
                    method: self.text("method"),
                    path: self.text("path"),
                    headers: self.headers(),
                },
            },
            other => panic!("{}: kind {other}", self.place),
        }
    }

    fn payload(&self) -> Vec<u8> {
        if let Some(text) = self.value["text"].as_str() {
            return text.as_bytes().to_vec();
        }
        if let Some(data) = self.value["base64"].as_str() {
            return self.decode(data);
        }
        let (parts, unit) = match (&self.value["text_parts"], &self.value["base64_parts"]) {
            (Value::Object(parts), _) => (parts, parts["char"].as_str().map(str::to_owned)),
            (_, Value::Object(parts)) => (parts, None),
            _ => panic!("{}: no payload", self.place),
        };
        let count = parts["count"].as_u64().and_then(|count| usize::try_from(count).ok());
        let count = count.unwrap_or_else(|| panic!("{}: no count", self.place));
        let edge = |parts: &Map<String, Value>, name: &str| {
            let edge = parts[name].as_str().unwrap_or_else(|| panic!("{}: {name}", self.place));
            if unit.is_some() { edge.as_bytes().to_vec() } else { self.decode(edge) }
        };
        let mut bytes = edge(parts, "prefix");
        match &unit {
            Some(unit) => bytes.extend(unit.repeat(count).into_bytes()),
            None => {
                let byte = parts["byte"].as_u64().and_then(|byte| u8::try_from(byte).ok());
                let byte = byte.unwrap_or_else(|| panic!("{}: no byte", self.place));
                bytes.extend(vec![byte; count]);
            }
        }
        bytes.extend(edge(parts, "suffix"));
        assert_eq!(self.value["bytes"].as_u64(), Some(bytes.len() as u64), "{}", self.place);
        bytes
    }

    fn decode(&self, data: &str) -> Vec<u8> {
        STANDARD.decode(data).unwrap_or_else(|error| panic!("{}: {error}", self.place))
    }

    fn headers(&self) -> Vec<(String, String)> {
        let Some(headers) = self.value["headers"].as_object() else { return Vec::new() };
        let pair = |(name, value): (&String, &Value)| {
            let value = value.as_str().unwrap_or_else(|| panic!("{}: {name}", self.place));
            (name.clone(), value.to_owned())
        };
        headers.iter().map(pair).collect()
    }

    fn text(&self, name: &str) -> String {
        let text = self.value[name].as_str();
        text.unwrap_or_else(|| panic!("{}: no {name}", self.place)).to_owned()
    }
}
