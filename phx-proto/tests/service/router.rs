//! The router: the event and the bus topics of every signal.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use crate::cases::{cases, regressions};
use phx_proto::event::{
    ChannelEnd, Interruption, LeaveOutcome, NextStep, NotSentCause, Rejection, RejectionKind,
    UnknownCause, Warning,
};
use phx_proto::service::{
    CloudEvent, EventData, EventIds, Routed, Router, TopicPattern, TypeScheme,
};
use phx_proto::wire::{Body, Codec as _, DecodeError, DecodeProblem, V2};
use phx_proto::{Cause, ConnectionId, Frame, Payload, PushId, PushOutcome, Reply, Signal, Time};
use proptest::prelude::*;
use serde_json::{Value, json};

const AT: Time = Time::from_millis(1_700_000_000_000);

fn route(router: &Router, signal: &Signal) -> Option<Routed> {
    let attributes = BTreeMap::from([("sessionid".to_owned(), "s1".to_owned())]);
    router.route("backend_service", &attributes, signal, "id-1", AT)
}

fn message(topic: &str, event: &str, payload: Payload) -> Signal {
    Signal::Message { topic: topic.into(), event: event.into(), payload }
}

/// Every signal, with its event type in both schemes.
fn table() -> Vec<(Signal, Option<&'static str>, Option<&'static str>)> {
    let id = ConnectionId::from_u64(1);
    let topic = || "room:lobby".into();
    let lost = || Cause::TransportLost { message: "reset".into() };
    let response = || Payload::from(json!({"a": 1}));
    let rejection = |kind| Rejection::new(kind, response());
    let push = |outcome| Signal::PushEnded { id: PushId::from_u64(3), topic: topic(), outcome };
    let state = Some("jido_coder.phoenix.connection.state");
    let channel = Some("jido_coder.phoenix.channel.state");
    let next = NextStep::Retry { delay: Duration::from_millis(250), attempt: 2 };
    let reply = Reply::new("ok", response());
    let problem = DecodeProblem::Other { message: "odd".into() };
    let error = DecodeError::new(problem, 0, b"s3cret");
    let rejected =
        |kind| Signal::JoinRejected { topic: topic(), rejection: rejection(kind), last: true };
    vec![
        (Signal::Connecting { id, attempt: 2 }, Some("phoenix.connection.connecting"), state),
        (Signal::Connected { id }, Some("phoenix.connection.connected"), state),
        (
            Signal::ConnectFailed { id, cause: lost(), next },
            Some("phoenix.connection.connect_failed"),
            state,
        ),
        (
            Signal::Disconnected { id, cause: lost(), next },
            Some("phoenix.connection.disconnected"),
            state,
        ),
        (Signal::GaveUp { cause: lost() }, Some("phoenix.connection.gave_up"), state),
        (Signal::Closed, Some("phoenix.connection.closed"), state),
        (
            Signal::Joined { topic: topic(), response: response() },
            Some("phoenix.channel.joined"),
            channel,
        ),
        (
            Signal::Resumed { topic: topic(), response: response() },
            Some("phoenix.channel.resumed"),
            channel,
        ),
        (rejected(RejectionKind::Application), Some("phoenix.channel.rejected"), channel),
        (Signal::JoinTimedOut { topic: topic() }, Some("phoenix.channel.join_timed_out"), channel),
        (
            Signal::Errored { topic: topic(), payload: response() },
            Some("phoenix.channel.errored"),
            channel,
        ),
        (
            Signal::Interrupted { topic: topic(), cause: Interruption::Crashed },
            Some("phoenix.channel.interrupted"),
            channel,
        ),
        (
            Signal::Left { topic: topic(), outcome: LeaveOutcome::Acked },
            Some("phoenix.channel.left"),
            channel,
        ),
        (
            Signal::ChannelClosed { topic: topic(), cause: ChannelEnd::ClosedByServer },
            Some("phoenix.channel.closed"),
            channel,
        ),
        (
            message("room:lobby", "msg", response()),
            Some("phoenix.backend_service.room_lobby.msg"),
            Some("jido_coder.phoenix.event"),
        ),
        (
            Signal::Unrouted { topic: topic(), event: "data".into(), payload: response() },
            Some("phoenix.backend_service.room_lobby.data"),
            Some("jido_coder.phoenix.event"),
        ),
        (push(PushOutcome::Reply(reply)), Some("phoenix.push.replied"), None),
        (push(PushOutcome::Written), Some("phoenix.push.written"), None),
        (push(PushOutcome::TimedOut), Some("phoenix.push.timed_out"), None),
        (push(PushOutcome::Unknown(UnknownCause::Left)), Some("phoenix.push.unknown"), None),
        (push(PushOutcome::NotSent(NotSentCause::Left)), Some("phoenix.push.not_sent"), None),
        (push(PushOutcome::Cancelled), Some("phoenix.push.cancelled"), None),
        (Signal::HeartbeatAcked { rtt: Duration::from_millis(1) }, None, None),
        (Signal::ProtocolError { error }, Some("phoenix.connection.protocol_error"), None),
        (
            Signal::Warning(Warning::AuthTokenNotAcknowledged),
            Some("phoenix.connection.warning"),
            None,
        ),
    ]
}

/// Every signal has a type in both schemes, or is not routed.
#[test]
fn every_signal_has_its_types() {
    let templated = Router::new();
    let fixed = Router::new().scheme(TypeScheme::Fixed);
    for (signal, in_templated, in_fixed) in table() {
        for (router, expected) in [(&templated, in_templated), (&fixed, in_fixed)] {
            let routed = route(router, &signal);
            let kind = routed.as_ref().map(|routed| routed.event.kind.as_str());
            assert_eq!(kind, expected, "{signal:?}");
            let Some(Routed { event, topics, .. }) = routed else { continue };
            let name = event.data.get_str("connection_name");
            assert_eq!(name.as_deref(), Some("backend_service"), "the name of its connection");
            assert_eq!(event.attributes["sessionid"], "s1");
            assert_eq!((event.id.as_str(), event.specversion.as_str()), ("id-1", "1.0"));
            assert_eq!(topics[0], "jido.protocol.phoenix.backend_service");
            assert_eq!(topics.last().unwrap(), &format!("jido.signal.{}", event.kind));
            assert!(!serde_json::to_string(&event).unwrap().contains("s3cret"));
        }
    }
}

/// Every bus topic of every event can be matched, in both schemes and with any prefix.
#[test]
fn every_topic_can_match() {
    let routers = [TypeScheme::Templated, TypeScheme::Fixed]
        .map(|scheme| Router::new().scheme(scheme).prefix("acme.prod"));
    for router in &routers {
        let mut topics = BTreeSet::new();
        for (signal, ..) in table() {
            topics.extend(route(router, &signal).into_iter().flat_map(|routed| routed.topics));
        }
        assert!(topics.len() > 3);
        for topic in topics {
            let pattern = TopicPattern::parse(&topic).expect("no stars");
            assert!(router.can_match(&pattern), "{topic}");
        }
    }
}

/// Patterns with and without a bus topic that matches them.
#[test]
fn silent_patterns_are_found() {
    let router = Router::new();
    for (pattern, expected) in [
        ("**", true),
        ("jido.**", true),
        ("jido.*.phoenix.**", true),
        ("**.gave_up", true),
        ("jido.protocol.phoenix.any name.**", false),
        ("jido.protocol.phoenix.any%20name.**", true),
        ("jido.protocol.phoenix.backend.room:lobby", true),
        ("jido.protocol.phoenix.backend.room:lobby.*", false),
        ("jido.protocol.phoenix.backend.room.lobby", false),
        ("jido.signal.phoenix.channel.join", false),
        ("jido.signal.phoenix.channel.*", true),
        ("jido.signal.phoenix.backend.room_lobby.new_msg", true),
        ("jido.signal.phoenix.backend.room:lobby.new_msg", false),
        ("jido.signal.jido_coder.**", false),
        ("acme.**", false),
        ("phoenix.channel.joined", false),
        ("", false),
        ("**.**.**.**.**.**.**.**.**.**.**.**.**.**.**.**.nothing", true),
        ("**.**.**.**.**.**.**.**.**.**.**.**.**.**.**.**.no thing", false),
    ] {
        let parsed = TopicPattern::parse(pattern).expect("a pattern");
        assert_eq!(router.can_match(&parsed), expected, "{pattern}");
    }
}

const EVENTS_PAGE: &str = include_str!("../../src/manual/events.md");

/// The rows of the events page whose first cell is a type with this prefix: their cells, without the
/// marks around code.
fn listed(prefix: &str) -> BTreeMap<&'static str, Vec<&'static str>> {
    let rows = EVENTS_PAGE.lines().filter_map(|line| line.strip_prefix("| `"));
    let rows = rows.filter(|row| row.starts_with(prefix));
    rows.map(|row| {
        let (kind, cells) = row.split_once("` | ").expect("a type ends its cell");
        let last = cells.split(" | ").last().unwrap();
        (kind, last.split('`').skip(1).step_by(2).collect())
    })
    .collect()
}

/// The table of the events page lists, by type, exactly the members that an event can have.
#[test]
#[cfg(feature = "testing")]
fn events_page_lists_every_type_and_its_data() {
    let closed = |cause| Signal::ChannelClosed { topic: "room:lobby".into(), cause };
    let unusable = ChannelEnd::InvalidParams { message: "too large".into() };
    let lost = Interruption::Disconnected(Cause::HeartbeatTimeout);
    let mut signals = Signal::examples();
    signals.extend(table().into_iter().map(|(signal, ..)| signal));
    signals.extend([
        closed(unusable),
        Signal::Interrupted { topic: "room:lobby".into(), cause: lost },
    ]);
    let router = Router::new();
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let lagged = router.route_lagged("a", &BTreeMap::new(), 1, "i", AT).unwrap().event;
    let events = signals.iter().filter_map(|signal| {
        let mut event = route(&router, signal)?.event;
        if matches!(signal.name(), "message" | "unrouted") {
            event.kind = "phoenix.<connection>.<topic>.<event>".to_owned();
        }
        Some(event)
    });
    for event in events.chain([lagged]) {
        let data: Value = serde_json::from_str(&event.data.to_string()).unwrap();
        let data = data.as_object().unwrap();
        assert_eq!(data.keys().next().unwrap(), "connection_name");
        let members = all.entry(event.kind).or_default();
        members.extend(data.keys().skip(1).map(|key| key.trim_end_matches("_text").to_owned()));
    }
    assert!(
        PushOutcome::NAMES.iter().all(|name| all.contains_key(&format!("phoenix.push.{name}")))
    );
    let listed = listed("phoenix.");
    assert!(listed.keys().copied().eq(all.keys()), "{:?}\n{:?}", listed.keys(), all.keys());
    for (kind, members) in listed {
        assert_eq!(
            members.into_iter().map(str::to_owned).collect::<BTreeSet<_>>(),
            all[kind],
            "{kind}"
        );
    }
}

#[test]
fn events_page_lists_every_fixed_type_and_topic() {
    let fixed = table().into_iter().filter_map(|(_, _, kind)| kind).collect::<BTreeSet<_>>();
    assert!(listed("jido_coder.").keys().eq(fixed.iter()), "{fixed:?}");
    let signal = message("<topic>", "msg", Payload::from(json!({})));
    let routed = Router::new().route("<connection>", &BTreeMap::new(), &signal, "id", AT).unwrap();
    let [of_connection, of_channel, of_type] = &routed.topics[..] else { panic!("{routed:?}") };
    assert_eq!(*of_type, format!("jido.signal.{}", routed.event.kind));
    let of_type = "jido.signal.<type>";
    let topics = BTreeSet::from([of_connection.as_str(), of_channel, of_type]);
    assert!(listed("jido.").keys().eq(topics.iter()), "{topics:?}");
}

/// The bus topics of the connection, of the channel and of the type.
#[test]
fn channel_event_has_three_bus_topics() {
    let signal = message("room:lobby", "msg", Payload::from(json!({"body": "hi"})));
    let Routed { event, topics, .. } = route(&Router::new(), &signal).unwrap();
    assert_eq!(
        topics,
        [
            "jido.protocol.phoenix.backend_service",
            "jido.protocol.phoenix.backend_service.room:lobby",
            "jido.signal.phoenix.backend_service.room_lobby.msg",
        ]
    );
    assert_eq!(
        serde_json::to_value(&event).unwrap(),
        json!({
            "specversion": "1.0",
            "id": "id-1",
            "source": "/phoenix/backend_service",
            "type": "phoenix.backend_service.room_lobby.msg",
            "subject": "room:lobby",
            "time": "2023-11-14T22:13:20.000Z",
            "datacontenttype": "application/json",
            "sessionid": "s1",
            "data": {
                "connection_name": "backend_service",
                "topic": "room:lobby",
                "event": "msg",
                "payload": {"body": "hi"},
            },
        })
    );
}

#[test]
fn prefix_and_source_can_be_chosen() {
    let router = Router::new().prefix("acme").source("/acme/phx").scheme(TypeScheme::Fixed);
    let Routed { event, topics, .. } = route(&router, &Signal::Closed).unwrap();
    assert_eq!(event.source, "/acme/phx");
    assert_eq!(
        topics,
        [
            "acme.protocol.phoenix.backend_service",
            "acme.signal.jido_coder.phoenix.connection.state",
        ]
    );
    let fixed = Router::new().scheme(TypeScheme::Fixed);
    assert_eq!(route(&fixed, &Signal::Closed).unwrap().event.source, "/jido_coder/phoenix");
}

/// Payloads of any kind, and responses, become JSON.
#[test]
fn payloads_become_valid_json() {
    for (payload, key, value) in [
        (Payload::from(json!([1])), "payload", json!([1])),
        (Payload::from(json!("text")), "payload", json!("text")),
        (Payload::from(json!(null)), "payload", json!(null)),
        (Payload::binary(vec![0, 255, 7]), "payload_base64", json!("AP8H")),
        (Payload::binary(vec![0, 255]), "payload_base64", json!("AP8=")),
        (Payload::binary(""), "payload_base64", json!("")),
    ] {
        let routed = route(&Router::new(), &message("t", "e", payload)).unwrap();
        assert_eq!(data_of(&routed.event.data)[key], value, "{key}");
    }
}

/// The payload of a message with this text from a server.
fn received(text: &str) -> Payload {
    let frame = Frame::from(format!(r#"[null,null,"t","e",{text}]"#));
    let Body::Event { payload, .. } = V2.decode(&frame).unwrap().body else { panic!("an event") };
    payload
}

fn event_of(payload: Payload) -> CloudEvent {
    route(&Router::new(), &message("t", "e", payload)).unwrap().event
}

fn data_of(data: &EventData) -> Value {
    data.to_value().unwrap()
}

/// Text that a parser would change is passed on unchanged (supabase/supabase-js#1270).
#[test]
fn payload_text_is_kept() {
    for text in [
        r#"{"n":10000000000000000000001,"x":[1.0,-0,1E5,1e400,0.1000000000000000055511151231]}"#,
        r#"{"b":1,"a":2,"b":3}"#,
        r#"["\ud83d","\u0041\/\n","\u001b"]"#,
        "{ \"a\" : [ ] }",
        "-0.0",
        "123456789012345678901234567890e-7",
    ] {
        let event = event_of(received(text));
        assert_eq!(event.data.get("payload").unwrap().get(), text);
        let line = serde_json::to_string(&event).unwrap();
        assert!(line.contains(&format!(r#""payload":{text}"#)), "{line}");
        assert_eq!(serde_json::from_str::<CloudEvent>(&line).unwrap(), event);
    }
}

/// A server may write its JSON over several lines. An event is always one line.
#[test]
fn event_is_one_line() {
    let text = "{\r\n\t\"a\" : \"x\\n\\ty\\\\\",\n\t\"b\"\r:\r[\n1.0\n]\n}";
    let event = event_of(received(text));
    let payload = event.data.get("payload").unwrap().get();
    assert_eq!(payload, "{   \"a\" : \"x\\n\\ty\\\\\",  \"b\" : [ 1.0 ] }");
    let line = serde_json::to_string(&event).unwrap();
    assert!(!line.contains(char::is_control), "{line:?}");
    // An event that is read from several lines is written as one line.
    let pretty = serde_json::to_string_pretty(&json!({
        "specversion": "1.0", "id": "1", "source": "s", "type": "t", "time": "",
        "datacontenttype": "application/json", "data": {"a": [1, {"b": "x\ny"}]},
    }));
    let event: CloudEvent = serde_json::from_str(&pretty.unwrap()).unwrap();
    assert!(!serde_json::to_string(&event).unwrap().contains('\n'));
    assert_eq!(data_of(&event.data), json!({"a": [1, {"b": "x\ny"}]}));
}

/// A payload that is not JSON becomes a string with its text, and the event is JSON.
#[test]
fn invalid_payload_becomes_text() {
    let controls = "\u{1}\u{1f}\u{7f}";
    for text in [
        r#"{"a":nope}"#,
        "NaN",
        "-Infinity",
        "[01]",
        "[1.]",
        "[+1]",
        "[1,]",
        "{}{}",
        r#"{"a":1 "b":2}"#,
        r#"["\x"]"#,
        r#"["\ud8"]"#,
        "[\"\u{1}\"]",
        "{\"a\":1}\u{a0}]",
        "{'a':1}",
        controls,
    ] {
        let payload = received(text);
        let event = event_of(payload.clone());
        assert_eq!(event.data.get_str("payload_text").as_deref(), Some(text));
        assert!(event.data.get("payload").is_none(), "{text}");
        let line = serde_json::to_string(&event).unwrap();
        let read: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["data"]["payload_text"], *text);
        assert!(!line.contains('\n'));
    }
}

/// JSON readers have a limit of depth. Whatever a server sends, events stay well below it.
#[test]
fn deep_payload_becomes_text() {
    let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let objects = |levels: usize| format!("{}1{}", r#"{"a":"#.repeat(levels), "}".repeat(levels));
    for deep in [nested, objects] {
        for (levels, key) in [(125, "payload"), (126, "payload_text"), (100_000, "payload_text")] {
            let event = event_of(received(&deep(levels)));
            let line = serde_json::to_string(&event).unwrap();
            let read: Value = serde_json::from_str(&line).expect("it is not nested too deep");
            assert!(!read["data"][key].is_null(), "{levels}");
        }
    }
    // Brackets in strings do not count as levels.
    let text = format!(r#"["{}\"{}"]"#, "[".repeat(200), "{".repeat(200));
    assert_eq!(event_of(received(&text)).data.get("payload").unwrap().get(), text);
}

/// Members of the reply after the response are not part of the response.
#[test]
fn further_reply_members_are_left_out() {
    let reply = |body: &str| {
        let frame = Frame::from(format!(r#"["1","2","t","phx_reply",{body}]"#));
        let Body::Reply { status, response } = V2.decode(&frame).unwrap().body else { panic!() };
        let outcome = PushOutcome::Reply(Reply::new(status, response));
        let signal = Signal::PushEnded { id: PushId::from_u64(3), topic: "t".into(), outcome };
        route(&Router::new(), &signal).unwrap().event.data
    };
    let data = reply(r#"{"status":"ok","response":{"a":"}"},"x":[1.0]}"#);
    assert_eq!(data.get("response").unwrap().get(), r#"{"a":"}"}"#);
    let data = reply(r#"{"status":"ok","response":1,"response":2.0}"#);
    assert_eq!(data.get("response").unwrap().get(), "2.0");
    let data = reply(r#"{"status":"ok","response":1}{}"#);
    assert_eq!(data.get_str("response_text").as_deref(), Some("1}{"));
}

/// The README promises that `{:?}` shows nothing of a payload.
#[test]
fn debug_shows_no_payload() {
    for payload in [
        received(r#"{"token":"s3cret"}"#),
        received(r#"s3cret"#),
        Payload::from(json!("s3cret")),
        Payload::binary("s3cret"),
    ] {
        let routed = route(&Router::new(), &message("room:a", "msg", payload)).unwrap();
        let shown = format!("{routed:?}");
        assert!(!shown.contains("s3cret") && !shown.contains("czNjcmV0"), "{shown}");
        assert!(shown.contains(r#""topic": "room:a""#), "{shown}");
        let line = serde_json::to_string(&routed.event).unwrap();
        let read: CloudEvent = serde_json::from_str(&line).unwrap();
        assert_eq!(read, routed.event);
        assert!(!format!("{read:?}").contains("s3cret"));
    }
}

/// The data is readable as a whole and member by member, for events that were routed and for events
/// that were parsed.
#[test]
fn data_is_readable_by_member() {
    #[derive(Debug, PartialEq, serde::Deserialize)]
    struct Data {
        topic: String,
        payload: Vec<f64>,
    }
    let routed = event_of(received("[1.0, 2]"));
    let read: CloudEvent = serde_json::from_str(&serde_json::to_string(&routed).unwrap()).unwrap();
    for data in [routed.data, read.data] {
        assert_eq!(data.len(), 4);
        let keys: Vec<&str> = data.iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["connection_name", "topic", "event", "payload"]);
        assert_eq!(data.get("payload").unwrap().deserialize::<[f64; 2]>(), Ok([1.0, 2.0]));
        assert!(data.get("payload").unwrap().deserialize::<String>().is_err());
        assert!(data.get("nothing").is_none() && data.get_str("payload").is_none());
        assert_eq!(data.deserialize(), Ok(Data { topic: "t".into(), payload: vec![1.0, 2.0] }));
        assert_eq!(data.to_string(), serde_json::to_string(&data).unwrap());
        assert_eq!(data.get("topic").unwrap().to_string(), "\"t\"");
    }
    // The event is converted to a JSON tree.
    let value = serde_json::to_value(event_of(received("[1, 2]"))).unwrap();
    let read: CloudEvent = serde_json::from_value(value.clone()).unwrap();
    assert_eq!(serde_json::to_value(read).unwrap(), value);
}

#[test]
fn data_is_changed_by_member() {
    let mut data: EventData = [("a", json!(1)), ("b", json!("x"))].into_iter().collect();
    data.insert("a", json!([null]));
    data.insert("c", true);
    data.insert_payload("p", &Payload::empty());
    assert_eq!(data.to_string(), r#"{"a":[null],"b":"x","c":true,"p":{}}"#);
    assert!(data.remove("b") && !data.remove("b") && !data.is_empty());
    assert_eq!(data, serde_json::from_str(r#"{"a": [null], "c": true, "p": {}}"#).unwrap());
    assert_ne!(data, serde_json::from_str(r#"{"a": [null], "p": {}, "c": true}"#).unwrap());
    // Of equal keys, the last one counts. All of them are written.
    let twice = r#"{"a":1,"b":2,"a":3}"#;
    let mut data: EventData = serde_json::from_str(twice).unwrap();
    assert_eq!(data.get("a").unwrap().get(), "3");
    assert_eq!(data.to_string(), twice);
    data.insert("a", 4);
    assert_eq!(data.to_string(), r#"{"a":1,"b":2,"a":4}"#);
    assert!(data.remove("a"));
    assert_eq!(data.to_string(), r#"{"b":2}"#);
    for bad in ["[]", "1", "null", "\"{}\"", "{", r#"{"a":tru}"#] {
        assert!(serde_json::from_str::<EventData>(bad).is_err(), "{bad}");
    }
    assert_eq!(serde_json::from_str::<EventData>("{}").unwrap(), EventData::new());
}

/// The type stays short and readable, whatever the length of the event's name.
#[test]
fn type_of_long_event_is_short() {
    let long = "x".repeat(1_000_000);
    let routed = route(&Router::new(), &message("t", &long, Payload::empty())).unwrap();
    assert!(routed.event.kind.len() < 400);
    assert!(routed.topics.iter().all(|topic| topic.len() < 400));
    assert_eq!(routed.event.data.get_str("event").as_deref(), Some(&*long));
}

#[test]
fn disconnect_event_has_cause_and_next_step() {
    let cause = Cause::HeartbeatTimeout;
    let next = NextStep::Retry { delay: Duration::from_millis(250), attempt: 3 };
    let signal = Signal::Disconnected { id: ConnectionId::from_u64(1), cause, next };
    let data = data_of(&route(&Router::new(), &signal).unwrap().event.data);
    assert_eq!(data["state"], "disconnected");
    assert_eq!(data["reason"], "heartbeat_timeout");
    assert_eq!((&data["reconnect_attempts"], &data["retry_after_msec"]), (&json!(3), &json!(250)));
}

#[test]
fn lost_signals_are_an_event() {
    let routed = Router::new().route_lagged("a", &BTreeMap::new(), 7, "i", AT).unwrap();
    assert_eq!(routed.event.kind, "phoenix.connection.lagged");
    assert_eq!(data_of(&routed.event.data)["count"], 7);
}

#[test]
fn event_survives_a_round_trip() {
    for (signal, ..) in table() {
        let Some(Routed { event, .. }) = route(&Router::new(), &signal) else { continue };
        let text = serde_json::to_string(&event).unwrap();
        assert_eq!(serde_json::from_str::<CloudEvent>(&text).unwrap(), event);
    }
    let signal = message("room:lobby", "msg", Payload::from(json!({"a": [1, "ü"]})));
    let event = route(&Router::new(), &signal).unwrap().event;
    let text = serde_json::to_string(&event).unwrap();
    assert_eq!(serde_json::from_str::<CloudEvent>(&text).unwrap(), event);
    let other = text.replace(r#""specversion":"1.0""#, r#""specversion":"1.0.2""#);
    assert_eq!(serde_json::from_str::<CloudEvent>(&other).unwrap(), event);
    let wrong = text.replace(r#""specversion":"1.0""#, r#""specversion":"0.3""#);
    assert!(serde_json::from_str::<CloudEvent>(&wrong).is_err());
}

#[test]
fn ids_are_unique_across_events() {
    let mut ids = EventIds::new(1);
    let all: BTreeSet<String> = (0..10_000).map(|_| ids.next(AT)).collect();
    assert_eq!(all.len(), 10_000);
}

/// Text that is nearly JSON, with whitespace of every kind between its tokens.
fn nearly_json() -> impl Strategy<Value = String> {
    let token = prop_oneof![
        Just("{".to_owned()),
        Just("}".to_owned()),
        Just("[".to_owned()),
        Just("]".to_owned()),
        Just(":".to_owned()),
        Just(",".to_owned()),
        "[ \n\r\t]{1,3}",
        "-?[0-9]{1,25}",
        "-?[0-9]\\.[0-9]{1,3}([eE][+-]?[0-9]{1,3})?",
        Just("true".to_owned()),
        Just("null".to_owned()),
        "\"([a\n\\\\\"/ü]|\\\\[\\\\\"ntu]|\\\\ud8[0-9]{2}){0,4}\"",
    ];
    let value = any::<u64>().prop_map(|n| n.to_string()).boxed();
    let valid = value.prop_recursive(4, 16, 4, |inner| {
        let list = prop::collection::vec((inner, "[ \n\r\t]{0,2}"), 0..4);
        list.prop_map(|items| {
            let items = items.iter().enumerate();
            let items: Vec<String> = items
                .map(|(n, (item, space))| format!("{space}\"k{}\"{space}:{item}", n % 2))
                .collect();
            format!("{{{}}}", items.join(","))
        })
    });
    prop_oneof![prop::collection::vec(token, 1..12).prop_map(|tokens| tokens.concat()), valid]
}

proptest! {
    #![proptest_config(cases(256, regressions!("router")))]

    /// The data is one line of JSON, whatever a server wrote. JSON payloads change in whitespace
    /// only.
    #[test]
    fn data_is_valid_json(text in nearly_json()) {
        let frame = Frame::from(format!(r#"[null,null,"t","e",{text}]"#));
        let Ok(message) = V2.decode(&frame) else { return Ok(()) };
        let Body::Event { payload, .. } = message.body else { return Ok(()) };
        let found = payload.get().unwrap().to_owned();
        let event = event_of(payload);
        let line = serde_json::to_string(&event).unwrap();
        prop_assert!(!line.contains(['\n', '\r', '\t']), "{:?}", line);
        prop_assert!(serde_json::from_str::<serde::de::IgnoredAny>(&line).is_ok(), "{:?}", line);
        let is_json = serde_json::from_str::<serde::de::IgnoredAny>(&found).is_ok();
        match event.data.get("payload") {
            Some(json) => {
                prop_assert!(is_json);
                prop_assert_eq!(json.get(), found.replace(['\n', '\r', '\t'], " "));
                prop_assert_eq!(json.to_value().ok(), serde_json::from_str(&found).ok());
            }
            None => {
                prop_assert!(!is_json, "{:?}", found);
                let kept = event.data.get_str("payload_text");
                prop_assert_eq!(kept.as_deref(), Some(&*found));
            }
        }
        prop_assert_eq!(&serde_json::from_str::<CloudEvent>(&line).unwrap(), &event);
    }

    /// Two different (connection, topic) pairs never share a bus topic.
    #[test]
    fn bus_topic_separates_connection_and_topic(
        one in ("[a-z.*% :_\\PC]{0,6}", "[a-z.*% :_\\PC]{0,6}"),
        other in ("[a-z.*% :_\\PC]{0,6}", "[a-z.*% :_\\PC]{0,6}"),
    ) {
        let topics = |(name, topic): &(String, String)| {
            let signal = message(topic, "e", Payload::empty());
            let routed = Router::new().route(name, &BTreeMap::new(), &signal, "i", AT).unwrap();
            let closed = Router::new().route(name, &BTreeMap::new(), &Signal::Closed, "i", AT);
            (routed.topics[1].clone(), closed.unwrap().topics[0].clone())
        };
        let (a, b) = (topics(&one), topics(&other));
        prop_assert_eq!(a.0 == b.0, one == other);
        prop_assert_eq!(a.1 == b.1, one.0 == other.0);
        // The bus topic of a channel never equals that of a connection.
        prop_assert_ne!(&a.0, &b.1);
        // Each name is one segment, whatever characters it contains.
        prop_assert_eq!(a.0.split('.').count(), 5);
        prop_assert!(!a.0.contains('*') && !a.0.contains(char::is_whitespace));
    }
}

/// Both in the text and as JSON, a binary value has the padding that strict readers require.
#[test]
fn binary_value_is_padded_base64() {
    let mut data = EventData::new();
    data.insert_payload("response", &Payload::binary([0, 255]));
    let value = data.get("response_base64").expect("bytes");
    assert_eq!(value.as_str().as_deref(), Some("AP8="));
    assert_eq!(value.get(), r#""AP8=""#);
    let written = serde_json::to_string(&data).expect("JSON");
    assert_eq!(written, r#"{"response_base64":"AP8="}"#);
}
