//! Tests of the client against every recording that a client of this library could have produced.
//!
//! Both directions are checked. After each command, the client must send the recorded frame: in JSON
//! the payload must have the same bytes, in a binary frame all bytes must be the same, and refs are
//! renamed in the order of their first use. After each server frame, the outputs of the client must
//! equal a prediction that independent code makes from the recording.

use phx_proto::Ref;
use phx_proto::wire::{Body, Codec, Incoming, V1, V2, WireRef};
use phx_tests::classes::{Class, TABLE};
use phx_tests::conversation::{Conversation, Vsn};
use phx_tests::golden_client::run;
use phx_tests::output::Output;
use phx_tests::prediction::{Pushes, predict};
use phx_tests::reading::{Data, Reading, read};
use phx_tests::recording::{self, Dir, What};
use serde_json::Value;

/// Counts of what was compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Compared {
    conversations: u64,
    sent: u64,
    received: u64,
    outputs: u64,
}

fn play(
    conversation: &Conversation,
    pushes: Pushes,
    compared: &mut Compared,
) -> Result<(), String> {
    let prediction = predict(conversation, pushes)?;
    let run = run(conversation, pushes, &prediction)?;
    for index in 0..prediction.outputs.len().max(run.outputs.len()) {
        let (expected, actual) = (prediction.outputs.get(index), run.outputs.get(index));
        let alike = matches!((expected, actual), (Some(e), Some(a)) if Output::allows(e, a));
        if !alike {
            return Err(format!(
                "output {index}:\n  predicted {expected:?}\n  ours      {actual:?}"
            ));
        }
    }
    let stats = &run.stats;
    let counted = [
        ("frames sent", prediction.frames_out, stats.frames_out),
        ("frames compared", prediction.frames_out, run.sent),
        ("frames received", prediction.frames_in, stats.frames_in),
        ("frames fed", prediction.frames_in, run.received),
        ("messages", prediction.messages, stats.messages),
        ("messages dropped", prediction.dropped, stats.messages_not_joined),
        ("stale frames", prediction.stale_frames, stats.stale_frames),
        ("late replies", prediction.late_replies, stats.late_replies),
        ("stale inputs", prediction.stale_inputs, stats.stale_inputs),
        ("protocol errors", 0, stats.protocol_errors),
        ("pushes without an outcome", 0, (stats.queued_pushes + stats.pushes_in_flight) as u64),
    ];
    for (what, expected, actual) in counted {
        if expected != actual {
            return Err(format!("{what}: {actual}, predicted {expected}"));
        }
    }
    compared.conversations += 1;
    compared.sent += run.sent;
    compared.received += run.received;
    compared.outputs += run.outputs.len() as u64;
    Ok(())
}

/// Plays conversations and reports all that differ.
fn play_all(what: &str, conversations: &[Conversation], pushes: Pushes) -> Compared {
    let mut compared = Compared::default();
    let mut failures = Vec::new();
    for conversation in conversations {
        if let Err(difference) = play(conversation, pushes, &mut compared) {
            failures.push(format!("{} ({pushes:?}): {difference}", conversation.name));
        }
    }
    println!("{what}, pushes as {pushes:?}: {compared:?}");
    assert!(failures.is_empty(), "{} differ:\n{}", failures.len(), failures.join("\n"));
    assert_eq!(compared.conversations, conversations.len() as u64);
    compared
}

/// Every connection of the recordings of a class. Only recordings of class Server may be unreadable,
/// and those are left out.
fn connections(class: Class) -> Vec<Conversation> {
    let of_class = TABLE.iter().filter(|(_, named)| *named == class);
    let mut conversations = Vec::new();
    for (name, _) in of_class {
        match Conversation::all(&recording::load(name)) {
            Ok(all) => conversations.extend(all),
            Err(problem) => assert_eq!(class, Class::Server, "{name}: {problem}"),
        }
    }
    conversations
}

/// A recording is of class Conforming exactly if a client of this library could have sent all of it.
#[test]
fn recording_classes_match_the_prediction() {
    let mut wrong = Vec::new();
    for (name, class) in TABLE.iter().filter(|(_, class)| *class != Class::OutOfScope) {
        let verdict = Conversation::all(&recording::load(name)).and_then(|all| {
            all.iter().try_for_each(|conversation| {
                predict(conversation, Pushes::Calls)
                    .map(drop)
                    .map_err(|problem| format!("{}: {problem}", conversation.name))
            })
        });
        let judged = if verdict.is_ok() { Class::Conforming } else { Class::Server };
        match &verdict {
            Err(reason) => println!("not conforming: {reason:.150}"),
            Ok(()) => println!("conforming: {name}"),
        }
        if judged != *class {
            wrong.push(format!("{name} is {judged:?}, not {class:?}: {verdict:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The client sends every recorded frame, and its outputs are those predicted.
/// Protocol: BIN-8, END-5, EVENT-4, HB-1, JOIN-1, JOIN-2, LEAVE-1, LIMIT-2, MSG-1.
#[test]
fn client_matches_conforming_recordings() {
    let compared = play_all("conforming", &connections(Class::Conforming), Pushes::Calls);
    // The counts are fixed, so that a loader that loses connections or lines is detected.
    assert_eq!((compared.conversations, compared.sent, compared.received), (61, 130, 176));
}

/// Casts send the same frames as calls, and their replies are dropped.
#[test]
fn casts_match_conforming_recordings() {
    play_all("conforming", &connections(Class::Conforming), Pushes::Casts);
}

/// Conforming connections of recordings that do not conform as a whole.
/// Protocol: EVENT-3.
#[test]
fn client_matches_single_conforming_connections() {
    let mut conversations = connections(Class::Server);
    conversations.retain(|conversation| predict(conversation, Pushes::Calls).is_ok());
    let names: Vec<&str> = conversations.iter().map(|c| c.name.as_str()).collect();
    println!("{}", names.join(", "));
    for needed in ["broadcast_binary a", "broadcast_text a", "presence_two_clients a"] {
        assert!(names.contains(&needed), "{needed}");
    }
    for pushes in [Pushes::Calls, Pushes::Casts] {
        play_all("connections", &conversations, pushes);
    }
}

/// A recording that conforms except for a few frames, which do not affect the rest.
struct Cut {
    name: &'static str,
    /// Indices of the events to leave out.
    without: &'static [usize],
    why: &'static str,
}

const CUTS: &[Cut] = &[
    Cut {
        name: "channel_crash",
        without: &[5, 6],
        why: "a push after the phx_error, and its answer",
    },
    Cut { name: "channel_crash__1.7.24", without: &[5, 6], why: "the same" },
    Cut {
        name: "join_denied",
        without: &[4, 5],
        why: "a push to the denied topic, and its answer",
    },
    Cut {
        name: "join_double",
        without: &[7],
        why: "a push with the old join_ref, dropped in silence",
    },
    Cut { name: "join_double__1.7.24", without: &[7, 8], why: "the same, and its answer" },
    Cut { name: "join_unmatched_topic", without: &[2, 3], why: "a join_ref that is not the ref" },
    Cut {
        name: "v1_heartbeat",
        without: &[2, 3],
        why: "a heartbeat with ref null, and its answer",
    },
    Cut {
        name: "v1_with_join_ref",
        without: &[4],
        why: "a push with a stale join_ref, dropped in silence",
    },
    Cut { name: "v1_with_join_ref__1.7.24", without: &[4, 5], why: "the same, and its answer" },
];

/// Recordings that conform except for a few frames are played without those frames.
#[test]
fn client_matches_recordings_with_cuts() {
    let mut cut = Vec::new();
    for Cut { name, without, why } in CUTS {
        let mut conversation = Conversation::of(&recording::load(name), "").expect("readable");
        assert!(predict(&conversation, Pushes::Calls).is_err(), "{name}: no need for {why}");
        for index in without.iter().rev() {
            conversation.events.remove(*index);
        }
        cut.push(conversation);
    }
    for pushes in [Pushes::Calls, Pushes::Casts] {
        play_all("cut", &cut, pushes);
    }
}

/// The core closes without a reason. The recorder sent a reason, which the server ignores (fact
/// 34).
#[test]
fn client_close_ends_as_recorded() {
    let mut conversation =
        Conversation::of(&recording::load("close_by_client"), "").expect("readable");
    let reason = conversation.events.iter_mut().find_map(|event| match &mut event.what {
        What::Close { reason, .. } => Some(reason),
        _ => None,
    });
    assert_eq!(std::mem::take(reason.expect("a close")), "bye");
    play_all("close_by_client", &[conversation], Pushes::Calls);
}

/// The codec decodes each recorded server frame as the independent reader does.
#[test]
fn recorded_server_frames_are_decoded() {
    let (mut good, mut bad) = (0, Vec::new());
    for class in [Class::Conforming, Class::Server] {
        for conversation in connections(class) {
            // Fact 36: a missing vsn means 1.0.0. Any other vsn that the server accepts is 2.0.0.
            let named = conversation.query().any(|(name, _)| name == "vsn");
            let vsn = conversation.vsn().unwrap_or(if named { Vsn::V2 } else { Vsn::V1 });
            for event in &conversation.events {
                let (Dir::ServerToClient, What::Frame { frame, .. }) = (event.dir, &event.what)
                else {
                    continue;
                };
                let decoded = match vsn {
                    Vsn::V2 => V2.decode(frame),
                    Vsn::V1 => V1.decode(frame),
                };
                let place = format!("{} at {} ms", conversation.name, event.ms);
                match (read(vsn, Dir::ServerToClient, frame), decoded) {
                    (Ok(reading), Ok(message)) => {
                        assert_reads(&place, &reading, &message);
                        good += 1;
                    }
                    (Err(_), Err(_)) => bad.push(conversation.name.clone()),
                    (reading, decoded) => panic!("{place}: {reading:?}, but {decoded:?}"),
                }
            }
        }
    }
    println!("{good} frames of servers decoded alike; not messages to either: {bad:?}");
    // The topic of these frames is not a string.
    assert_eq!(bad, ["malformed_topic_null_join", "malformed_topic_number_join"]);
    assert_eq!(good, 380);
}

fn assert_reads(place: &str, reading: &Reading, message: &Incoming) {
    let reference = |value: &Value| {
        let text = match value {
            Value::Null => return WireRef::Null,
            // A binary frame has no null.
            Value::String(text) if text.is_empty() && reading.is_binary() => return WireRef::Null,
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        match text.parse::<u64>() {
            Ok(number) if number.to_string() == text && number > 0 => {
                WireRef::Ref(Ref::from_u64(number))
            }
            _ => WireRef::Foreign,
        }
    };
    assert_eq!(message.join_ref, reference(&reading.join_ref), "{place}");
    assert_eq!(message.msg_ref, reference(&reading.msg_ref), "{place}");
    assert_eq!(&*message.topic, &*reading.topic, "{place}");
    let (payload, expected) = match (&message.body, &reading.reply) {
        (Body::Reply { status, response }, Some(reply)) => {
            assert_eq!(&**status, &*reply.status, "{place}");
            (response, &reply.response)
        }
        (Body::Event { event, payload }, None) => {
            assert_eq!(&**event, &*reading.event, "{place}");
            (payload, &reading.payload)
        }
        (body, reply) => panic!("{place}: {body:?}, read as {reply:?}"),
    };
    match expected {
        Data::Json(text) => assert_eq!(payload.get().as_ref(), Ok(&&**text), "{place}"),
        Data::Bytes(bytes) => {
            assert!(payload.is_binary(), "{place}");
            assert_eq!(payload.as_bytes(), bytes, "{place}");
        }
    }
}

/// A made-up recording of one connection with these lines.
fn made_up(lines: &[&str]) -> recording::Recording {
    let header = r#"{"phoenix": "1.8.12", "path": "/socket/websocket?vsn=2.0.0"}"#;
    recording::parse("made up", &[&[header], lines].concat().join("\n"))
}

fn line(ms: u64, dir: &str, text: &str) -> String {
    let text = Value::from(text);
    format!(r#"{{"ms": {ms}, "dir": "{dir}", "kind": "text", "text": {text}}}"#)
}

#[test]
fn recorded_fragments_are_one_message() {
    let recording = made_up(&[
        r#"{"ms": 1, "dir": "c2s", "kind": "text", "base64": "WzEs", "fin": false}"#,
        r#"{"ms": 2, "dir": "c2s", "kind": "ping", "base64": ""}"#,
        r#"{"ms": 3, "dir": "c2s", "kind": "binary", "base64": "MiwzLA==", "opcode": 0, "fin": false}"#,
        r#"{"ms": 4, "dir": "c2s", "kind": "binary", "base64": "NF0=", "opcode": 0}"#,
    ]);
    let whole = What::Frame { frame: "[1,2,3,4]".into(), violation: false };
    let found: Vec<_> = recording.events.iter().map(|event| (event.ms, &event.what)).collect();
    assert_eq!(found, [(2, &What::Ping(Vec::new())), (4, &whole)]);
}

const JOIN: &str = r#"["1","1","room:a","phx_join",{}]"#;
const JOINED: &str = r#"["1","1","room:a","phx_reply",{"status":"ok","response":{}}]"#;

#[test]
fn ref_in_flight_is_not_reused() {
    let verdict = |lines: &[(&str, &str)]| {
        let lines: Vec<String> = lines.iter().map(|(dir, text)| line(1, dir, text)).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let all = Conversation::all(&made_up(&lines)).expect("a conversation");
        predict(&all[0], Pushes::Calls).map(drop)
    };
    let push = r#"["1","2","room:a","e",{}]"#;
    let reply = r#"["1","2","room:a","phx_reply",{"status":"ok","response":{}}]"#;
    let joined = [("c2s", JOIN), ("s2c", JOINED)];
    verdict(&[&joined[..], &[("c2s", push), ("s2c", reply)]].concat()).expect("conforming");
    let twice = verdict(&[&joined[..], &[("c2s", push), ("c2s", push)]].concat());
    assert!(twice.is_err_and(|problem| problem.contains("in flight")));
}

/// The server keeps sending until it has read the leave; the client drops those messages.
/// Protocol: EVENT-5.
#[test]
fn messages_after_leave_are_dropped() {
    let leave = r#"["1","2","room:a","phx_leave",{}]"#;
    let news = r#"[null,null,"room:a","news",{}]"#;
    let left = r#"["1","2","room:a","phx_reply",{"status":"ok","response":{}}]"#;
    let lines = [("c2s", JOIN), ("s2c", JOINED), ("c2s", leave), ("s2c", news), ("s2c", left)];
    let lines: Vec<String> = lines.iter().map(|(dir, text)| line(1, dir, text)).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let all = Conversation::all(&made_up(&lines)).expect("a conversation");
    assert_eq!(predict(&all[0], Pushes::Calls).expect("conforming").dropped, 1);
    let mut compared = Compared::default();
    play(&all[0], Pushes::Calls, &mut compared).expect("as predicted");
}

#[test]
fn post_is_not_a_conversation() {
    let recording = made_up(&[
        r#"{"ms": 0, "dir": "c2s", "kind": "http", "method": "POST", "path": "/socket/websocket"}"#,
        r#"{"ms": 1, "dir": "s2c", "kind": "http", "status": 400}"#,
    ]);
    assert!(Conversation::all(&recording).is_err_and(|problem| problem.contains("POST")));
}
