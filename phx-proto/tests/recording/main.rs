//! Recordings: their content, redaction, and replay.

#[path = "../support/bench.rs"]
mod bench;
#[path = "../support/cases.rs"]
mod cases;
#[path = "../support/ops/mod.rs"]
mod ops;
#[path = "../support/options.rs"]
mod options;

use std::fmt::Write as _;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bench::{Bench, next, poll, ready};
use cases::{cases, regressions};
use ops::strategy;
use ops::world::World;
use options::other_options;
use phx_proto::client::Setup;
use phx_proto::config::Backoff;
use phx_proto::event::{JoinError, Refusal};
use phx_proto::recording::{
    LineReplay, RecordedSocket, Recorder, Recording, RecordingError, ReplayError,
};
use phx_proto::wire::{Codec, DecodeError, EncodeError, Incoming, Outgoing, V1, V2};
use phx_proto::{
    Action, Applied, Cause, Config, ConnectionId, Credentials, Ended, Frame, Input, InterestId,
    JoinParams, Opened, Options, Payload, PushOptions, Time,
};
use proptest::prelude::*;
use serde_json::{Value, json};

const SECRET: &str = "s3cret-token-4711";

/// A recording in memory.
#[derive(Clone, Default)]
struct Tape(Arc<Mutex<String>>);

impl Tape {
    fn recorder(&self) -> Recorder {
        let tape = Arc::clone(&self.0);
        Recorder::new(move |line| {
            let mut tape = tape.lock().unwrap();
            tape.push_str(line);
            tape.push('\n');
        })
    }

    fn text(&self) -> String {
        self.0.lock().unwrap().clone()
    }

    /// Replays the recording, which must not diverge, and returns its trace.
    #[track_caller]
    fn trace(&self) -> String {
        let text = self.text();
        let recording = Recording::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let line = |line| match line {
            Ok(line) => format!("{line}\n"),
            Err(divergence) => panic!("{divergence}\n{text}"),
        };
        let trace: String = recording.replay().map(line).collect();
        assert_eq!(by_line(&text), (trace.clone(), None));
        trace
    }
}

/// The trace of a recording that is read line by line, and the error that ended it.
fn by_line(text: &str) -> (String, Option<ReplayError>) {
    let (mut replay, mut trace) = (LineReplay::new(), String::new());
    for line in text.lines() {
        match replay.next_line(line) {
            Ok(Some(line)) => writeln!(trace, "{line}").unwrap(),
            Ok(None) => {}
            Err(error) => return (trace, Some(error)),
        }
    }
    (trace, None)
}

/// Whether a replay by line ended with the error of the parsed recording. A line before the invalid one may
/// diverge.
fn ends_at(ended: &ReplayError, error: &RecordingError) -> bool {
    match ended {
        ReplayError::Diverged(divergence) => divergence.line < error.line(),
        ended => *ended == error.clone().into(),
    }
}

fn ms(millis: u64) -> Time {
    Time::from_millis(millis)
}

/// The inputs that these tests use, as methods.
trait Inputs {
    fn input(&mut self, now: Time, input: Input) -> Applied;

    fn connect(&mut self, now: Time) {
        assert_eq!(self.input(now, Input::Connect), Applied::Done);
    }

    fn disconnect(&mut self, now: Time) {
        assert_eq!(self.input(now, Input::Disconnect), Applied::Done);
    }

    fn join(
        &mut self,
        now: Time,
        topic: &str,
        params: impl Into<JoinParams>,
    ) -> Result<InterestId, JoinError> {
        let (topic, params) = (topic.into(), params.into());
        match self.input(now, Input::Join { topic, params }) {
            Applied::Join(joined) => joined,
            other => panic!("{other:?}"),
        }
    }

    fn handle_opened(&mut self, now: Time, id: ConnectionId, opened: Opened) {
        assert_eq!(self.input(now, Input::Opened { id, opened }), Applied::Done);
    }

    fn handle_failed(&mut self, now: Time, id: ConnectionId, cause: Cause) {
        assert_eq!(self.input(now, Input::Failed { id, cause }), Applied::Done);
    }

    fn handle_closed(&mut self, now: Time, id: ConnectionId, ended: Ended) {
        assert_eq!(self.input(now, Input::Closed { id, ended }), Applied::Done);
    }

    fn handle_timeout(&mut self, now: Time) {
        assert_eq!(self.input(now, Input::Timeout), Applied::Done);
    }
}

impl Inputs for RecordedSocket {
    fn input(&mut self, now: Time, input: Input) -> Applied {
        self.apply(now, input)
    }
}

/// A run that contains every kind of secret.
fn eventful(recorder: &Recorder, config: Config) {
    let mut socket = RecordedSocket::new(config, 7, Time::ZERO, Some(recorder));
    let drain = |socket: &mut RecordedSocket, now| {
        let mut dialled = None;
        while let Some(action) = socket.poll_action(now) {
            if let Action::Connect { id, .. } = action {
                dialled = Some(id);
            }
        }
        dialled
    };
    socket.connect(ms(0));
    socket.join(ms(0), "room:lobby", json!({"token": SECRET})).unwrap();
    socket.join(ms(0), "room:lobby", json!({"token": SECRET})).unwrap();
    // These parameters are as long as the others.
    socket.join(ms(0), "room:lobby", json!({"nekot": SECRET})).unwrap_err();
    let fresh = JoinParams::from_fn(|attempt| {
        Payload::from(json!({"token": SECRET.repeat(attempt.attempt as usize)}))
    });
    socket.join(ms(0), "room:fresh", fresh.clone()).unwrap();
    socket.join(ms(0), "room:fresh", fresh).unwrap();
    let broken = JoinParams::from_fn(|_| panic!("the parameters are the bug here"));
    socket.join(ms(0), "room:broken", broken).unwrap();

    let id = drain(&mut socket, ms(1)).unwrap();
    let headers = vec![
        ("Retry-After".to_owned(), "2".to_owned()),
        ("Set-Cookie".to_owned(), SECRET.to_owned()),
    ];
    let refusal = Refusal::new(503, headers, SECRET);
    socket.handle_failed(ms(5), id, Cause::Refused(refusal));
    drain(&mut socket, ms(5));
    let due = socket.poll_timeout().unwrap().at;
    socket.handle_timeout(due);
    let id = drain(&mut socket, due).unwrap();
    // The error of an HTTP client contains the URL, with the query.
    let message = format!("GET https://auth.example.com/?key={SECRET}: timed out");
    socket.handle_failed(due, id, Cause::CredentialsFailed { message });
    drain(&mut socket, due);
    let credentials = Credentials::new().param("token", SECRET).auth_token(SECRET);
    let applied = socket.apply(due, Input::SetCredentials(credentials));
    assert_eq!(applied, Applied::SetCredentials(Ok(())));
    let due = socket.poll_timeout().unwrap().at;
    socket.handle_timeout(due);
    let id = drain(&mut socket, due).unwrap();

    let opened = Opened { protocol: Some(format!("base64url.bearer.phx.{SECRET}")) };
    socket.handle_opened(due, id, opened);
    let mut now = due;
    let mut receive = |socket: &mut RecordedSocket, frame: Frame| {
        now += Duration::from_millis(1);
        socket.handle_frame(now, id, frame);
        while socket.poll_action(now).is_some() {}
        now
    };
    drain(&mut socket, due);
    let text = |value: Value| Frame::from(value.to_string());
    let ok = |n: u32, topic: &str| {
        let reply = json!({"status": "ok", "response": {"session": SECRET}});
        text(json!([n.to_string(), n.to_string(), topic, "phx_reply", reply]))
    };
    receive(&mut socket, ok(2, "room:lobby"));
    let now = receive(&mut socket, ok(3, "room:fresh"));
    let call = PushOptions::call();
    socket.push(now, "room:lobby", "secret", json!({"s": SECRET}), call).unwrap();
    let bytes = Payload::binary(SECRET.as_bytes());
    socket.push(now, "room:lobby", "bytes", bytes, call.timeout(Duration::from_secs(3))).unwrap();
    socket.push(now, "room:nowhere", "secret", json!({"s": SECRET}), call).unwrap_err();
    receive(&mut socket, text(json!([null, null, "room:lobby", "news", {"s": SECRET}])));
    let mut broadcast = vec![2, 10, 4];
    broadcast.extend_from_slice(b"room:lobbynews");
    broadcast.extend_from_slice(SECRET.as_bytes());
    receive(&mut socket, Frame::Binary(broadcast.into()));
    // Members that occur twice, and frames outside the protocol, are not recorded either.
    receive(
        &mut socket,
        Frame::from(format!(
            r#"["2","5","room:lobby","phx_reply",{{"response":"{SECRET}","extra":"{SECRET}","status":"ok","response":{{}}}}]"#
        )),
    );
    receive(&mut socket, Frame::from(format!("{{{SECRET}").as_str()));
    receive(
        &mut socket,
        Frame::from(format!(r#"[null,null,"room:lobby","bad",{SECRET}]"#).as_str()),
    );
    let crash = json!(["2", "2", "room:lobby", "phx_error", {"why": SECRET}]);
    let now = receive(&mut socket, text(crash));
    let end = Ended::CloseFrame { code: Some(1012), reason: String::new() };
    socket.handle_closed(now, id, end);
    drain(&mut socket, now);
    socket.handle_frame(now, ConnectionId::from_u64(1), Frame::from("late"));
    socket.disconnect(now);
    drain(&mut socket, now);
}

fn config() -> Config {
    Config::new(&format!("ws://localhost:4000/socket/websocket?api_key={SECRET}&{SECRET}"))
        .unwrap()
        .param("token", SECRET)
        .header("x-token", SECRET)
        .unwrap()
        .auth_token(SECRET)
        .auto_join("room:auto", json!({"token": SECRET}))
        .unwrap()
}

#[test]
fn replay_repeats_the_recording() {
    let tape = Tape::default();
    eventful(&tape.recorder(), config());
    let trace = tape.trace();
    for line in [
        "t=0ms client#1 join room:lobby",
        "client#1 = refused: \"room:lobby\" is already in use with other parameters",
        "client#1 failed (refused 503)",
        "client#1 Joined room:lobby",
        "client#1 push room:lobby secret <25 bytes>",
        "client#1 Message room:lobby news",
        "client#1 ProtocolError",
        "client#1 Interrupted room:lobby",
        "client#1 closed (close frame 1012)",
        "client#1 Closed",
    ] {
        assert!(trace.contains(line), "{line} is missing in\n{trace}");
    }
}

/// An attempt fails for every cause. The replay fails for the same causes, and the provider's text is
/// redacted.
#[test]
#[cfg(feature = "testing")]
fn every_cause_is_replayed() {
    for cause in Cause::examples() {
        let tape = Tape::default();
        let mut socket = RecordedSocket::new(config(), 7, Time::ZERO, Some(&tape.recorder()));
        socket.connect(ms(0));
        let dialled = std::iter::from_fn(|| socket.poll_action(ms(0))).find_map(|it| match it {
            Action::Connect { id, .. } => Some(id),
            _ => None,
        });
        let name = cause.name().replace('_', " ");
        socket.handle_failed(ms(1), dialled.unwrap(), cause);
        while socket.poll_action(ms(1)).is_some() {}
        drop(socket);
        let trace = tape.trace();
        let [failed] = &*trace.lines().filter(|it| it.contains(" failed (")).collect::<Vec<_>>()
        else {
            panic!("{trace}")
        };
        assert!(failed.contains(&format!("failed ({name}")), "{name}: {failed}");
        assert!(trace.contains(&format!("ConnectFailed ({name}")), "{name}: {trace}");
        let text = tape.text();
        assert!(!text.contains("the vault is sealed") && !text.contains("signed out"), "{text}");
    }
}

/// Milliseconds cannot represent the nanoseconds of long delays, so the recorded socket rounds them
/// from the start.
#[test]
fn delays_over_13_days_are_replayed() {
    let days = |days: u64| Duration::from_secs(days * 86_400);
    let odd = [days(14) + Duration::from_micros(500), days(400) + Duration::from_nanos(1)];
    for delay in odd {
        let tape = Tape::default();
        let config = config().reconnect_after(Backoff::steps([delay]).unwrap());
        let mut socket = RecordedSocket::new(config, 7, Time::ZERO, Some(&tape.recorder()));
        socket.connect(ms(0));
        let mut now = ms(0);
        for _ in 0..20 {
            while let Some(action) = socket.poll_action(now) {
                if let Action::Connect { id, .. } = action {
                    let cause = Cause::CredentialsFailed { message: "no".into() };
                    socket.handle_failed(now, id, cause);
                }
            }
            now = socket.poll_timeout().expect("the next attempt").at;
            socket.handle_timeout(now);
        }
        drop(socket);
        assert!(tape.trace().contains("ReconnectAfter"));
    }
}

#[test]
fn recording_contains_no_secret() {
    let tape = Tape::default();
    eventful(&tape.recorder(), config());
    let text = tape.text();
    assert!(!text.contains(SECRET), "{text}");
    let hex: String = SECRET.bytes().map(|byte| format!("{byte:02x}")).collect();
    assert!(!text.contains(&hex), "{text}");
    for name in ["api_key=", "\"token\"", "x-token", "\"room:lobby\""] {
        assert!(text.contains(name), "{name} is missing in\n{text}");
    }
}

#[test]
fn recorded_payloads_exclude_join_params() {
    let tape = Tape::default();
    eventful(&tape.recorder().with_payloads(), config());
    tape.trace();
    let text = tape.text();
    for line in text.lines().filter(|line| line.contains(SECRET)) {
        assert!(!line.contains("phx_join") && !line.contains("\"config\""), "{line}");
        assert!(!line.contains("\"join\"") && !line.contains("set_credentials"), "{line}");
        assert!(!line.contains("failed") && !line.contains("opened"), "{line}");
    }
    assert!(text.contains(SECRET));
}

/// Frames that look like frames of another kind: this codec puts the header of vsn 2.0.0's binary
/// pushes in front of its text.
#[derive(Debug)]
struct InDisguise;

const DISGUISE: [u8; 5] = [0, 0, 0, 1, 50];

impl Codec for InDisguise {
    fn vsn(&self) -> &str {
        "disguise"
    }

    fn decode(&self, frame: &Frame) -> Result<Incoming, DecodeError> {
        let text = frame.as_bytes().strip_prefix(&DISGUISE).unwrap_or_default();
        V2.decode(&Frame::Text(text.to_vec().into()))
    }

    fn encode(&self, message: Outgoing<'_>) -> Result<Frame, EncodeError> {
        let frame = V2.encode(message)?;
        Ok(Frame::Binary([&DISGUISE, frame.as_bytes()].concat().into()))
    }

    fn max_envelope_len(&self, topic: &str, event: &str) -> usize {
        DISGUISE.len() + V2.max_envelope_len(topic, event)
    }
}

#[test]
fn custom_codec_join_params_are_redacted() {
    for payloads in [false, true] {
        let tape = Tape::default();
        let recorder = tape.recorder();
        let recorder = if payloads { recorder.with_payloads() } else { recorder };
        let config = Config::new("ws://localhost:4000/socket/websocket").unwrap();
        let config = config.codec(Arc::new(InDisguise)).expect("no vsn in the address");
        let mut socket = RecordedSocket::new(config, 7, ms(0), Some(&recorder));
        socket.connect(ms(0));
        socket.join(ms(0), "a", json!({"token": SECRET})).unwrap();
        while socket.poll_action(ms(0)).is_some() {}
        let id = socket.connection_id().unwrap();
        socket.handle_opened(ms(1), id, Opened::default());
        while socket.poll_action(ms(1)).is_some() {}
        drop(socket);
        let text = tape.text();
        assert!(text.contains("\"sent\""), "{text}");
        let hex: String = SECRET.bytes().map(|byte| format!("{byte:02x}")).collect();
        assert!(!text.contains(SECRET) && !text.contains(&hex), "{text}");
    }
}

/// A conflict of parameters depends on their content, which is redacted. The conflicts occur in the
/// replay too.
#[test]
fn conflicting_params_conflict_in_replay() {
    let tape = Tape::default();
    let auto = JoinParams::from_fn(|_| Payload::from(json!({"auto": 1})));
    let config = Config::new("ws://localhost:4000/socket/websocket").unwrap();
    let config = config.auto_join("auto", auto.clone()).unwrap();
    let mut socket = RecordedSocket::new(config, 7, ms(0), Some(&tape.recorder()));
    // The redacted forms of these parameters are too short to differ.
    socket.join(ms(0), "short", json!(1)).unwrap();
    socket.join(ms(0), "short", json!(2)).unwrap_err();
    socket.join(ms(0), "short", json!(1)).unwrap();
    socket.join(ms(0), "none", json!({})).unwrap();
    socket.join(ms(0), "none", json!([])).unwrap_err();
    // These parameters have the same text as redacted parameters would have without their mark.
    socket.join(ms(0), "long", json!({"a": 1})).unwrap();
    socket.join(ms(0), "long", json!({})).unwrap_err();
    // A topic of the configuration gets other parameters until the next `connect`.
    socket.join(ms(0), "auto", auto.clone()).unwrap();
    let left = socket.apply(ms(0), Input::Leave { topic: "auto".into() });
    assert_eq!(left, Applied::Leave(Ok(())));
    socket.join(ms(0), "auto", json!({"mine": 1})).unwrap();
    socket.disconnect(ms(1));
    socket.connect(ms(2));
    socket.join(ms(2), "auto", json!({"mine": 1})).unwrap_err();
    socket.join(ms(2), "auto", auto).unwrap();
    drop(socket);
    tape.trace();
}

/// A socket with an open connection that wants `room:a`. Its join is not answered.
fn opened(config: Config, recorder: &Recorder) -> (RecordedSocket, ConnectionId) {
    let mut socket = RecordedSocket::new(config, 7, ms(0), Some(recorder));
    socket.connect(ms(0));
    socket.join(ms(0), "room:a", json!({"fixed": 1})).unwrap();
    while socket.poll_action(ms(0)).is_some() {}
    let id = socket.connection_id().unwrap();
    socket.handle_opened(ms(1), id, Opened::default());
    while socket.poll_action(ms(1)).is_some() {}
    (socket, id)
}

#[test]
fn strict_refusals_are_replayed() {
    let tape = Tape::default();
    let config = Config::new("ws://localhost:4000/socket/websocket").unwrap();
    let (mut socket, id) = opened(config.strict_payloads(true), &tape.recorder());
    let ok = r#"["1","1","room:a","phx_reply",{"status":"ok","response":{}}]"#;
    let no_utf8 = b"[null,null,\"room:a\",\"e\",\"\xff\"]".to_vec();
    let no_json = r#"[null,null,"room:a","e",tru]"#;
    for frame in [Frame::from(ok), Frame::Text(no_utf8.into()), Frame::from(no_json)] {
        socket.handle_frame(ms(2), id, frame);
        while socket.poll_action(ms(2)).is_some() {}
    }
    assert_eq!(socket.stats().protocol_errors, 2);
    drop(socket);
    assert_eq!(tape.trace().matches("ProtocolError").count(), 2);
}

#[test]
fn too_large_frame_is_recorded_as_length() {
    let tape = Tape::default();
    let config = Config::new("ws://localhost:4000/socket/websocket").unwrap();
    let config = config.max_message_bytes(100);
    let (mut socket, id) = opened(config, &tape.recorder().with_payloads());
    let large = json!([null, null, "room:a", "large", "x".repeat(100)]).to_string();
    socket.handle_frame(ms(2), id, Frame::from(large));
    while socket.poll_action(ms(2)).is_some() {}
    drop(socket);
    assert!(!tape.text().contains("xxx"), "{}", tape.text());
    assert!(tape.trace().contains("Close 1009"));
}

/// A function of join parameters replaces fixed ones.
#[test]
fn replacing_params_function_is_replayed() {
    let tape = Tape::default();
    let config = Config::new("ws://localhost:4000/socket/websocket").unwrap();
    let (mut socket, id) = opened(config, &tape.recorder());
    let made = JoinParams::from_fn(|attempt| Payload::from(json!({"attempt": attempt.attempt})));
    let set = socket.apply(ms(1), Input::SetJoinParams { topic: "room:a".into(), params: made });
    assert_eq!(set, Applied::SetJoinParams(Ok(())));
    let crash = r#"["1","1","room:a","phx_error",{}]"#;
    socket.handle_frame(ms(2), id, Frame::from(crash));
    while socket.poll_action(ms(2)).is_some() {}
    let due = socket.poll_timeout().unwrap().at;
    socket.handle_timeout(due);
    while socket.poll_action(due).is_some() {}
    drop(socket);
    assert_eq!(tape.trace().matches("phx_join").count(), 2, "{}", tape.trace());
}

#[test]
fn recording_of_vsn_1_is_replayed() {
    for query in ["", "?apikey=s3cret&vsn=1.0.0"] {
        vsn_1_is_replayed(query);
    }
}

fn vsn_1_is_replayed(query: &str) {
    let tape = Tape::default();
    let uri = format!("ws://localhost:4000/socket/websocket{query}");
    let config = Config::new(&uri).unwrap();
    let reply = json!({"topic": "room:lobby", "event": "phx_reply", "ref": "1",
        "payload": {"status": "ok", "response": {"a": 1}}});
    let reply = Frame::from(reply.to_string());
    // The reply is exactly as large as allowed, and must not be larger in the replay.
    let config =
        config.codec(Arc::new(V1)).expect("no vsn in the address").max_message_bytes(reply.len());
    let mut socket = RecordedSocket::new(config, 7, ms(0), Some(&tape.recorder()));
    socket.connect(ms(0));
    socket.join(ms(0), "room:lobby", json!({})).unwrap();
    while socket.poll_action(ms(0)).is_some() {}
    let id = socket.connection_id().unwrap();
    socket.handle_opened(ms(1), id, Opened::default());
    while socket.poll_action(ms(1)).is_some() {}
    socket.handle_frame(ms(2), id, reply);
    while socket.poll_action(ms(2)).is_some() {}
    drop(socket);
    let trace = tape.trace();
    assert!(trace.contains("t=2ms client#1 Joined room:lobby"), "{trace}");
}

#[test]
fn recorder_covers_every_step_of_client() {
    let tape = Tape::default();
    let setup = |config| Setup::new(config).record(tape.recorder());
    let mut bench = Bench::new(setup);
    let room = bench.joined("room:lobby");
    let mut messages = room.messages();
    {
        let mut push = pin!(room.push("new_msg", json!({"body": "hi"})));
        assert!(poll(push.as_mut()).is_pending());
        bench.settle();
        bench.reply("ok", json!({}));
        ready(push.as_mut()).unwrap();
    }
    bench.cut();
    bench.advance(Duration::from_secs(3));
    bench.reply("ok", json!({}));
    assert!(next(&mut messages).is_some());
    // When a call returns, the sink has received every line of that call.
    let trace = tape.trace();
    let order = ["connect\n", "join room:lobby", "Joined", "push room:lobby", "PushEnded"];
    let after = ["closed (lost: cut)", "Interrupted", "ReconnectAfter", "phx_join", "Resumed"];
    let mut rest = &*trace;
    for what in order.into_iter().chain(after) {
        rest = rest.split_once(what).unwrap_or_else(|| panic!("{what} is missing in\n{trace}")).1;
    }
    drop((messages, room));
    let Bench { client, driver, .. } = bench;
    drop((client, driver));
    assert!(tape.trace().ends_with("client#1 Closed\n"), "{}", tape.trace());
}

#[test]
fn recorder_separates_two_clients() {
    let tape = Tape::default();
    let recorder = tape.recorder();
    let config = || Config::new("ws://localhost:4000/socket/websocket").unwrap();
    let mut one = RecordedSocket::new(config(), 1, ms(0), Some(&recorder));
    let mut two = RecordedSocket::new(config(), 2, ms(0), Some(&recorder));
    one.connect(ms(1));
    two.connect(ms(2));
    while one.poll_action(ms(3)).is_some() {}
    drop((one, two));
    let trace = tape.trace();
    assert!(trace.contains("t=2ms client#2 connect"), "{trace}");
    assert!(trace.contains("t=3ms client#1 Connect (attempt 0)"), "{trace}");
}

#[test]
fn replay_reports_where_it_diverges() {
    let tape = Tape::default();
    eventful(&tape.recorder(), config());
    let text = tape.text();
    let line = text.lines().position(|line| line.contains("Joined room:lobby")).unwrap() + 1;
    let other = text.replace("\"Joined room:lobby\"", "\"Joined room:other\"");
    let recording = Recording::parse(&other).unwrap();
    let divergence = recording.replay().find_map(Result::err).unwrap();
    assert_eq!(divergence.line, line);
    assert_eq!(divergence.recorded, "Joined room:other");
    assert_eq!(divergence.replayed.as_deref(), Some("Joined room:lobby"));
    // The recording is changed so that a frame has another topic.
    let frame = |topic: &str| format!(r#""topic":"{topic}","event":"phx_join""#);
    let other = text.replace(&frame("room:lobby"), &frame("room:other"));
    assert_ne!(other, text);
    let divergence = Recording::parse(&other).unwrap().replay().find_map(Result::err).unwrap();
    assert!(divergence.recorded.contains("room:other"), "{divergence}");
    // The replay ends at the divergence.
    assert!(recording.replay().last().unwrap().is_err());
    // Without this input, the replay has no action to compare.
    let less: Vec<&str> =
        text.lines().filter(|line| !line.contains("\"in\":\"connect\"")).collect();
    let recording = Recording::parse(&less.join("\n")).unwrap();
    let divergence = recording.replay().find_map(Result::err).unwrap();
    assert_eq!((divergence.replayed, &*divergence.recorded), (None, "Connecting (attempt 0)"));
}

#[test]
fn invalid_recording_error_names_the_line() {
    let tape = Tape::default();
    eventful(&tape.recorder(), config());
    let text = tape.text();
    let lines = text.lines().count();
    assert_eq!(Recording::parse("").unwrap_err(), RecordingError::Empty);
    let line = |text: &str| {
        let error = Recording::parse(&format!("{text}\n")).unwrap_err();
        let ended = by_line(text).1;
        assert!(ended.as_ref().is_some_and(|ended| ends_at(ended, &error)), "{ended:?}");
        error
    };
    assert_eq!(line("hello"), RecordingError::NotARecording);
    assert_eq!(line("{}"), RecordingError::NotARecording);
    let newer = r#"{"phx_recording":99,"version":"9.0.0"}"#;
    assert_eq!(line(newer), RecordingError::Format { found: 99 });
    // The last line is cut short.
    let cut = line(&text[..text.len() - 5]);
    assert_eq!(cut.line(), lines);
    assert!(cut.to_string().contains("column"), "{cut}");
    // A line of another kind, and an event of a client that has not started.
    let (first, rest) = text.split_once('\n').unwrap();
    let start = rest.split_once('\n').unwrap().0;
    let with = |lines: &[&str]| line(&[&[first], lines].concat().join("\n")).to_string();
    assert!(with(&["{\"a\":1}"]).starts_with("line 2: "));
    let connect = r#"{"client":1,"at":0,"in":"connect"}"#;
    assert!(with(&[connect]).starts_with("line 2: client 1 has not started"));
    assert!(with(&[start, connect, start]).starts_with("line 4: client 1 starts a second time"));
    let huge =
        r#"{"client":1,"at":0,"in":{"frame":{"conn":1,"frame":{"unreadable_text":99999999999}}}}"#;
    let refused = "line 3: the redacted payloads up to this line have ";
    assert!(with(&[start, huge]).starts_with(refused));
    // Each of these payloads would be allowed alone. A frame that was sent counts like one that was
    // received.
    let many =
        r#"{"client":1,"at":0,"in":{"frame":{"conn":1,"frame":{"unreadable_text":99999999}}}}"#;
    let sent = r#"{"client":1,"at":0,"sent":{"unreadable_binary":99999999}}"#;
    assert!(Recording::parse(&[first, start, many].join("\n")).is_ok());
    for lines in [[first, start, many, sent], [first, start, sent, many]] {
        let error = Recording::parse(&lines.join("\n")).unwrap_err().to_string();
        assert!(error.starts_with("line 4: the redacted payloads up to this line"), "{error}");
    }
    let hex = r#"{"client":1,"at":0,"in":{"frame":{"conn":1,"frame":{"binary":"0g"}}}}"#;
    assert!(with(&[start, hex]).contains("hexadecimal"));
    let foreign = start.replace("2.0.0", "3.0.0");
    assert!(with(&[&foreign]).contains("vsn 3.0.0 cannot be replayed"));
    let uri = start.replace("ws://", "http://");
    assert!(with(&[&uri]).contains("invalid configuration: "));
    let reserved = start.replace("\"room:auto\"", "\"phoenix\"");
    assert!(with(&[&reserved]).contains("reserved for heartbeats"), "{}", with(&[&reserved]));
}

/// Fillers that a client no longer holds do not count, so the length of a recording does not matter. Each of
/// these frames is ignored, because the client has no connection.
#[test]
fn line_replay_counts_held_fillers_only() {
    let large = config().max_push_bytes(64 << 20).queued_bytes_max(1 << 30);
    let (header, start) = start(large);
    let start = start.to_string();
    let ended = |lines: &[&str]| by_line(&[&[&*header, &*start], lines].concat().join("\n")).1;
    let line = |input: Value| json!({"client": 1, "at": 0, "in": input}).to_string();
    let frame = line(json!({"frame": {"conn": 1, "frame": {"unreadable_text": 60 << 20}}}));
    assert_eq!(ended(&[&*frame; 5]), None);
    // A queued action may contain a frame, and a queued push has its payload.
    let connect = line(json!("connect"));
    let push = line(json!({"push": {
        "topic": "room:auto", "event": "e", "payload": {"hidden": 60 << 20},
        "cast": false, "fail_fast": false, "timeout": null,
    }}));
    for lines in [[&*connect, &frame, &frame, &frame], [&*push; 4]] {
        let error = ended(&lines).expect("an error").to_string();
        assert!(error.contains("the redacted payloads"), "{error}");
    }
    // A push that waits for its join holds no frame.
    let small = push.replace(&(60 << 20).to_string(), "10");
    assert_eq!(ended(&[&*small, &frame, &frame, &frame, &frame]), None);
}

/// A joined channel keeps the response of its join. The limit applies to those of all topics together, until
/// the channels end. A response does not count a second time as part of its frame.
#[test]
fn line_replay_counts_held_join_responses() {
    let ended = |closes: bool| {
        let tape = Tape::default();
        let config = Config::new("ws://localhost:4000/socket/websocket").unwrap();
        let config = config.max_message_bytes(128 << 20);
        let mut socket = RecordedSocket::new(config, 7, ms(0), Some(&tape.recorder()));
        socket.connect(ms(0));
        let mut id = None;
        while let Some(action) = socket.poll_action(ms(0)) {
            if let Action::Connect { id: dialled, .. } = action {
                id = Some(dialled);
            }
        }
        let id = id.expect("an attempt");
        socket.handle_opened(ms(0), id, Opened::default());
        for (topic, n) in ["a", "b", "c"].into_iter().zip(1..) {
            socket.join(ms(n), topic, json!({})).unwrap();
            let mut join = Value::Null;
            while let Some(action) = socket.poll_action(ms(n)) {
                if let Action::Join { frame: Frame::Text(text), .. } = action {
                    join = serde_json::from_slice(&text).expect("JSON");
                }
            }
            let reply = json!({"status": "ok", "response": {"s": "s".repeat(1_000)}});
            let reply = json!([join[0], join[1], topic, "phx_reply", reply]);
            let close = json!([join[0], join[0], topic, "phx_close", {}]);
            for frame in [Some(reply), closes.then_some(close)].into_iter().flatten() {
                socket.handle_frame(ms(n), id, Frame::from(frame.to_string()));
                while socket.poll_action(ms(n)).is_some() {}
            }
        }
        drop(socket);
        let large = tape.text().replace("\"hidden\":1008", &format!("\"hidden\":{}", 70 << 20));
        assert_ne!(large, tape.text());
        by_line(&large).1
    };
    assert_eq!(ended(true), None);
    let error = ended(false).expect("an error").to_string();
    assert!(error.contains("the redacted payloads"), "{error}");
}

/// The start of a recording, as JSON.
fn start(config: Config) -> (String, Value) {
    let tape = Tape::default();
    drop(RecordedSocket::new(config, 7, ms(0), Some(&tape.recorder())));
    let text = tape.text();
    let (header, start) = text.split_once('\n').expect("two lines");
    (header.to_owned(), serde_json::from_str(start).expect("JSON"))
}

#[test]
fn recording_has_every_option_exactly() {
    let config = Config::new("wss://example.com/socket/websocket").expect("a good URI");
    let (header, start) = start(config.options(other_options()));
    let options = start["start"]["config"]["options"].clone();
    let read: Options = serde_json::from_value(options).expect("options");
    assert_eq!(read, other_options());
    assert!(Recording::parse(&format!("{header}\n{start}")).is_ok());
}

/// A missing option is an error, whatever the default is in the version that reads the recording.
#[test]
fn recording_without_an_option_is_refused() {
    let (header, start) = start(config());
    let options = start["start"]["config"]["options"].as_object().expect("an object");
    for key in options.keys() {
        let mut less = start.clone();
        less["start"]["config"]["options"].as_object_mut().expect("an object").remove(key);
        let error = Recording::parse(&format!("{header}\n{less}")).unwrap_err().to_string();
        assert!(error.contains(&format!("the option `{key}` is missing")), "{error}");
    }
    for (key, short) in [("reconnect_after_msec", json!([10, 50])), ("unknown", json!(1))] {
        let mut other = start.clone();
        other["start"]["config"]["options"][key] = short;
        let error = Recording::parse(&format!("{header}\n{other}")).unwrap_err().to_string();
        assert!(error.contains(key), "{error}");
    }
}

proptest! {
    #![proptest_config(cases(200, regressions!("recording")))]

    /// With any application and any server, a run can be replayed, because every input of the core
    /// is recorded.
    #[test]
    fn any_run_can_be_replayed((setup, steps) in strategy::run(60), payloads in any::<bool>()) {
        let tape = Tape::default();
        let recorder = tape.recorder();
        let recorder = if payloads { recorder.with_payloads() } else { recorder };
        let mut world = World::recorded(setup, &recorder);
        world.steps(&steps);
        drop(world);
        tape.trace();
    }

    /// A damaged file is reported as an error or replays as another run; it never causes a panic.
    #[test]
    fn damaged_recording_never_panics(
        (setup, steps) in strategy::run(10),
        cut in any::<prop::sample::Index>(),
        line in any::<prop::sample::Index>(),
    ) {
        let tape = Tape::default();
        let mut world = World::recorded(setup, &tape.recorder());
        world.steps(&steps);
        drop(world);
        let text = tape.text();
        let _ = Recording::parse(&text[..cut.index(text.len())]);
        let mut lines: Vec<&str> = text.lines().collect();
        lines.remove(line.index(lines.len()));
        let text = lines.join("\n");
        let (_, ended) = by_line(&text);
        match Recording::parse(&text).map(|recording| recording.replay().find_map(Result::err)) {
            Ok(diverged) => prop_assert_eq!(ended, diverged.map(ReplayError::from)),
            Err(error) => prop_assert!(ended.is_some_and(|ended| ends_at(&ended, &error))),
        }
    }
}
