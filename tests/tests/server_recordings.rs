//! The test server against every WebSocket recording of a real server.
//!
//! `testing::Server` receives the client side of each recording at the recorded times, on virtual
//! time. Its output is compared with that of the real server, for each connection and in order.
//! JSON is compared as values, and `phx_ref` values are renamed consistently in the whole
//! recording. An output may be up to `SLACK_MS` earlier than the recorded one, but not later. Pongs
//! are not compared, because the listener writes them, not `testing::Server`.

use std::collections::BTreeMap;
use std::time::Duration;

use phx_proto::Frame;
use phx_proto::Time;
use phx_proto::testing::{HttpRequest, Output, PeerId, Server, ServerConfig, Version};
use phx_tests::classes::{Class, TABLE, class_of};
use phx_tests::recording::{self, Dir, Event, Recording, What};
use serde_json::Value;

/// The maximum delay of the real server behind its own timers: it took 187 ms to echo 1 MiB
/// (`large_text_echo`).
const SLACK_MS: u64 = 200;

/// How long the server must stay silent after the last recorded event.
const TAIL_MS: u64 = 150;

/// A recording of a race that the fixtures' README describes, in which the real server took the other
/// outcome. The test server always finishes a leave before it reads the next frame, so on this
/// connection it must send `ours` instead of `recorded`.
struct Race {
    name: &'static str,
    why: &'static str,
    recorded: &'static [&'static str],
    ours: &'static [&'static str],
}

const RACES: &[Race] = &[
    Race {
        name: "leave_rejoin_pipelined",
        why: "fact 19: leave and rejoin back to back; recorded: the join kills the old channel \
              before it has read the leave",
        recorded: &[
            r#"["3","3","room:lobby","phx_reply",{"response":{"params":{},"topic":"room:lobby"},"status":"ok"}]"#,
            r#"["1","1","room:lobby","phx_close",{}]"#,
        ],
        ours: &[
            r#"["1","2","room:lobby","phx_reply",{"response":{},"status":"ok"}]"#,
            r#"["1","1","room:lobby","phx_close",{}]"#,
            r#"["3","3","room:lobby","phx_reply",{"response":{"params":{},"topic":"room:lobby"},"status":"ok"}]"#,
        ],
    },
    Race {
        name: "leave_then_push",
        why: "fact 19: push after a leave; recorded: no answer at all (the other outcome is \
              leave_then_push_alt, which needs no entry here)",
        recorded: &[
            r#"["4","5","room:lobby","phx_reply",{"response":{},"status":"ok"}]"#,
            r#"["4","4","room:lobby","phx_close",{}]"#,
        ],
        ours: &[
            r#"["4","5","room:lobby","phx_reply",{"response":{},"status":"ok"}]"#,
            r#"["4","4","room:lobby","phx_close",{}]"#,
            r#"[null,"6","room:lobby","phx_reply",{"response":{"reason":"unmatched topic"},"status":"error"}]"#,
        ],
    },
];

/// The table of classes names each recording once, and long-poll recordings as out of scope.
#[test]
fn every_recording_has_one_class() {
    let mut named: Vec<String> = TABLE.iter().map(|(name, _)| (*name).to_owned()).collect();
    named.sort();
    assert_eq!(named, recording::names(), "the table and the fixtures must name the same files");
    let count = |class| TABLE.iter().filter(|(_, c)| *c == class).count();
    println!(
        "{} recordings: {} conforming, {} server, {} out of scope",
        TABLE.len(),
        count(Class::Conforming),
        count(Class::Server),
        count(Class::OutOfScope),
    );
    for (name, class) in TABLE {
        let longpoll = recording::load(name).path.contains("/longpoll");
        assert_eq!(longpoll, *class == Class::OutOfScope, "{name}");
    }
}

/// The test server sends what the recorded server sent.
/// Protocol: CLOSE-2, CLOSE-3, CLOSE-4, CLOSE-5, CLOSE-6, CONN-3, CONN-9, HB-3, HB-7, JOIN-8,
/// LEAVE-4, MSG-5, MSG-6, PRES-10, PUSH-2, PUSH-3, REF-6, REPLY-6, V1-6.
#[test]
fn test_server_matches_recordings() {
    let mut failures = Vec::new();
    let mut compared = 0;
    for name in recording::names() {
        if class_of(&name) == Some(Class::OutOfScope) {
            continue;
        }
        let recording = recording::load(&name);
        let actual = Replay::run(&recording);
        compared += 1;
        if let Err(difference) = compare(&recording, &actual) {
            failures.push(format!("{name}: {difference}"));
        }
    }
    println!("{compared} recordings compared, {} of them with a race", RACES.len());
    assert!(failures.is_empty(), "{} differ:\n{}", failures.len(), failures.join("\n"));
    let websocket = TABLE.iter().filter(|(_, class)| *class != Class::OutOfScope).count();
    assert_eq!(compared, websocket);
}

/// Every entry of `RACES` is needed: without it, the output differs from the recording.
#[test]
fn race_entries_are_needed() {
    for race in RACES {
        let recording = recording::load(race.name);
        let actual = Replay::run(&recording);
        let recorded = by_connection(&recording);
        let plain = compare_all(&recorded, &actual);
        assert!(plain.is_err(), "{}: no race any more ({})", race.name, race.why);
    }
}

/// The output of one side on each connection, with its time.
type Sides = BTreeMap<String, Vec<(u64, What)>>;

/// Feeds the client side of a recording to a server.
struct Replay {
    server: Server,
    default_path: String,
    peers: BTreeMap<String, PeerId>,
    out: Sides,
}

impl Replay {
    fn run(recording: &Recording) -> Sides {
        let mut replay = Self {
            server: Server::new(config(recording)),
            default_path: recording.path.clone(),
            peers: BTreeMap::new(),
            out: Sides::new(),
        };
        for (index, event) in recording.events.iter().enumerate() {
            replay.pass_time(event.ms);
            match event.dir {
                Dir::ClientToServer => {
                    replay.client(event, upgrade_unanswered(&recording.events[..index], event));
                }
                Dir::Server => {
                    let (server, now) = (&mut replay.server, Time::from_millis(event.ms));
                    match &event.what {
                        What::Signal(signal) if signal == "SIGTERM" => server.shutdown(now),
                        // A killed server sends nothing more.
                        What::Signal(signal) if signal == "SIGKILL" => {
                            server.peers().into_iter().for_each(|peer| server.kill(peer));
                        }
                        other => panic!("no recording does {other:?} to a server"),
                    }
                }
                Dir::ServerToClient => {}
            }
            replay.collect(event.ms);
        }
        let end = recording.events.last().map_or(0, |event| event.ms) + TAIL_MS;
        replay.pass_time(end);
        replay.out
    }

    /// Fires every timer due until `until_ms`, each at its own time.
    fn pass_time(&mut self, until_ms: u64) {
        while let Some(due) = self.server.poll_timeout().filter(|due| due.as_millis() <= until_ms) {
            self.server.handle_timeout(due);
            self.collect(due.as_millis());
        }
    }

    fn client(&mut self, event: &Event, unanswered: bool) {
        let now = Time::from_millis(event.ms);
        let path = match &event.what {
            What::Request { method, path, headers } => {
                return self.connect(event, method, path, headers);
            }
            What::Open { path } => path.clone(),
            _ => self.default_path.clone(),
        };
        if !self.peers.contains_key(&event.conn) {
            // The recording has no line for the opening of the first connection.
            let request = HttpRequest { path, ..HttpRequest::default() };
            let accepted = self.server.connect(now, &request);
            let accepted = accepted.expect("the recorded server accepted it");
            self.peers.insert(event.conn.clone(), accepted.peer);
        }
        let peer = self.peers[&event.conn];
        match &event.what {
            // Fact 40: a frame sent before the 101 is lost between HTTP and the socket, which a
            // server without a TCP stream cannot reproduce.
            What::Frame { .. } if unanswered => {}
            What::Frame { violation: true, .. } => self.server.handle_violation(now, peer),
            What::Frame { frame, .. } => self.server.handle_frame(now, peer, frame),
            What::Ping(payload) if payload.len() > 125 => self.server.handle_violation(now, peer),
            What::Ping(_) => self.server.handle_ping(now, peer),
            What::Close { code, .. } => self.server.handle_close(now, peer, *code),
            What::Eof => self.server.handle_eof(now, peer),
            What::Open { .. } | What::Pong(_) => {}
            other => panic!("a client does not do {other:?}"),
        }
    }

    fn connect(&mut self, event: &Event, method: &str, path: &str, headers: &[(String, String)]) {
        let mut headers = headers.to_vec();
        if headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-version")) {
            // The recordings omit the key of the upgrade request.
            headers.push(("sec-websocket-key".to_owned(), "dGhlIHNhbXBsZSBub25jZQ==".to_owned()));
        }
        let (method, path) = (method.to_owned(), path.to_owned());
        let request = HttpRequest { method, path, headers };
        let response = match self.server.connect(Time::from_millis(event.ms), &request) {
            Ok(accepted) => {
                self.peers.insert(event.conn.clone(), accepted.peer);
                let protocol = accepted.protocol.map(|p| ("sec-websocket-protocol".to_owned(), p));
                What::Response { status: 101, headers: protocol.into_iter().collect(), body: None }
            }
            Err(refusal) => What::Response {
                status: refusal.status,
                headers: refusal.headers,
                body: Some(refusal.body),
            },
        };
        self.out.entry(event.conn.clone()).or_default().push((event.ms, response));
    }

    fn collect(&mut self, ms: u64) {
        while let Some(output) = self.server.poll_output() {
            let (peer, what) = match output {
                Output::Send { peer, frame } => (peer, What::Frame { frame, violation: false }),
                Output::Close { peer, code } => {
                    // Phoenix gives no reason (fact 34).
                    (peer, What::Close { code: Some(code), reason: String::new() })
                }
                Output::Drop { peer } => (peer, What::Eof),
            };
            let conn = self.peers.iter().find(|(_, p)| **p == peer).map(|(conn, _)| conn.clone());
            let conn = conn.expect("the server names only connections that it accepted");
            self.out.entry(conn).or_default().push((ms, what));
        }
    }
}

/// The server settings that the header of a recording names.
fn config(recording: &Recording) -> ServerConfig {
    let config = ServerConfig::default().version(match recording.phoenix.as_str() {
        "1.7.24" => Version::V1_7_24,
        "1.8.9" => Version::V1_8_9,
        "1.8.12" => Version::V1_8_12,
        other => panic!("{}: Phoenix {other}", recording.name),
    });
    match recording.server.as_deref() {
        None => config,
        Some("max_channels_per_transport 3") => config.max_channels(3),
        Some("websocket timeout 1500 ms, longpoll window 2000 ms, max_frame_size 65536") => {
            config.idle_timeout(Duration::from_millis(1500)).max_frame_bytes(Some(65536))
        }
        Some(other) => panic!("{}: settings {other}", recording.name),
    }
}

/// Whether an upgrade request on this connection is unanswered so far.
fn upgrade_unanswered(before: &[Event], event: &Event) -> bool {
    let mut on_connection = before.iter().rev().filter(|earlier| earlier.conn == event.conn);
    let http = on_connection
        .find(|earlier| matches!(earlier.what, What::Request { .. } | What::Response { .. }));
    http.is_some_and(|earlier| matches!(earlier.what, What::Request { .. }))
}

fn by_connection(recording: &Recording) -> Sides {
    let mut sides = Sides::new();
    let sent = recording.events.iter().filter(|event| event.dir == Dir::ServerToClient);
    for event in sent.filter(|event| !matches!(event.what, What::Pong(_))) {
        sides.entry(event.conn.clone()).or_default().push((event.ms, event.what.clone()));
    }
    sides
}

fn compare(recording: &Recording, actual: &Sides) -> Result<(), String> {
    let mut recorded = by_connection(recording);
    for race in RACES.iter().filter(|race| race.name == recording.name) {
        let events = recorded.values_mut().next().ok_or("a race without a connection")?;
        substitute(events, race);
    }
    compare_all(&recorded, actual)
}

/// Replaces the recorded outcome of a race with the other one.
fn substitute(events: &mut Vec<(u64, What)>, race: &Race) {
    let frames = |texts: &[&'static str]| -> Vec<What> {
        let frame = |text: &&'static str| Frame::Text(text.as_bytes().into());
        texts.iter().map(|text| What::Frame { frame: frame(text), violation: false }).collect()
    };
    let recorded = frames(race.recorded);
    let place = events
        .windows(recorded.len())
        .position(|window| window.iter().map(|(_, what)| what).eq(&recorded))
        .unwrap_or_else(|| panic!("{}: the raced frames are not recorded", race.name));
    let ms = events[place].0;
    let ours = frames(race.ours).into_iter().map(|what| (ms, what));
    events.splice(place..place + recorded.len(), ours);
}

fn compare_all(recorded: &Sides, actual: &Sides) -> Result<(), String> {
    let mut refs = Refs::default();
    let names: Vec<&String> = recorded.keys().chain(actual.keys()).collect();
    for conn in names {
        let none = Vec::new();
        let (recorded, actual) =
            (recorded.get(conn).unwrap_or(&none), actual.get(conn).unwrap_or(&none));
        for index in 0..recorded.len().max(actual.len()) {
            let (recorded, actual) = (recorded.get(index), actual.get(index));
            let alike = match (recorded, actual) {
                (Some((due, recorded)), Some((ms, actual))) => {
                    ms <= due && due - ms <= SLACK_MS && refs.alike(recorded, actual)
                }
                _ => false,
            };
            if !alike {
                let place = format!("conn {conn:?}, output {index}");
                return Err(format!(
                    "{place}\n  recorded {recorded:.400?}\n  ours     {actual:.400?}"
                ));
            }
        }
    }
    Ok(())
}

/// A mapping between recorded and actual `phx_ref` values, the same on all connections.
#[derive(Default)]
struct Refs {
    ours: BTreeMap<String, String>,
    recorded: BTreeMap<String, String>,
}

impl Refs {
    fn alike(&mut self, recorded: &What, actual: &What) -> bool {
        match (recorded, actual) {
            (
                What::Frame { frame: Frame::Text(recorded), .. },
                What::Frame { frame: Frame::Text(actual), .. },
            ) => match (serde_json::from_slice(recorded), serde_json::from_slice(actual)) {
                (Ok(recorded), Ok(actual)) => self.same(&recorded, &actual),
                _ => false,
            },
            (
                What::Response { status: 101, headers: recorded, .. },
                What::Response { status: 101, headers: actual, .. },
            ) => {
                // Only the subprotocol is compared, because the listener writes the other headers of
                // a 101.
                let protocol = |headers: &[(String, String)]| {
                    let mut named = headers.iter().filter(|(n, _)| n == "sec-websocket-protocol");
                    named.next().cloned()
                };
                protocol(recorded) == protocol(actual)
            }
            (
                What::Response { status: s1, headers: h1, body: b1 },
                What::Response { status: s2, headers: h2, body: b2 },
            ) => {
                let map = |headers: &[(String, String)]| -> BTreeMap<String, String> {
                    headers.iter().cloned().collect()
                };
                s1 == s2 && b1 == b2 && map(h1) == map(h2)
            }
            (recorded, actual) => recorded == actual,
        }
    }

    fn same(&mut self, recorded: &Value, actual: &Value) -> bool {
        match (recorded, actual) {
            (Value::Array(r), Value::Array(a)) => {
                r.len() == a.len() && r.iter().zip(a).all(|(r, a)| self.same(r, a))
            }
            (Value::Object(r), Value::Object(a)) => {
                r.len() == a.len()
                    && r.iter().zip(a).all(|((name, r), (other, a))| {
                        let is_ref = matches!(name.as_str(), "phx_ref" | "phx_ref_prev");
                        name == other
                            && match (r, a) {
                                (Value::String(r), Value::String(a)) if is_ref => self.pair(r, a),
                                _ => self.same(r, a),
                            }
                    })
            }
            (recorded, actual) => recorded == actual,
        }
    }

    fn pair(&mut self, recorded: &str, ours: &str) -> bool {
        let forth = self.ours.entry(recorded.to_owned()).or_insert_with(|| ours.to_owned());
        let back = self.recorded.entry(ours.to_owned()).or_insert_with(|| recorded.to_owned());
        forth == ours && back == recorded
    }
}
