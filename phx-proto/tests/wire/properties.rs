//! Properties of the decoders and encoders, on arbitrary bytes.

use crate::cases::{cases, regressions};
use crate::wire::near_json::{compact_reply, damaged_bytes, reply_tokens, v1_frame, v2_frame};
use crate::wire::strict::{Read, read_parts, read_v1, read_v2};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use phx_proto::wire::{
    Body, Codec, DecodeError, EncodeError, Incoming, Outgoing, V1, V2, WireRef, check_strict,
};
use phx_proto::{Frame, Payload, Ref};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::Config;
use serde_json::{Value, json};

fn config(count: u32) -> Config {
    cases(count, regressions!("wire"))
}

fn text(bytes: &[u8]) -> Frame {
    Frame::Text(Bytes::copy_from_slice(bytes))
}

/// Decodes a frame, and reads every part of the result.
fn exercise(codec: &dyn Codec, frame: &Frame) -> Result<Incoming, DecodeError> {
    let decoded = codec.decode(frame);
    match &decoded {
        Ok(message) => {
            let _ = (check_strict(message), format!("{message:?}"));
            let payload = payload_of(message);
            let _ = (payload.get(), payload.to_value(), payload.clone().into_compact());
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            assert!(error.evidence.as_bytes().len() <= 256, "evidence is bounded");
            assert!(frame.as_bytes().starts_with(error.evidence.as_bytes()));
            assert_eq!(error.evidence.frame_len(), frame.len());
            assert!(error.offset <= frame.len());
        }
    }
    decoded
}

fn payload_of(message: &Incoming) -> &Payload {
    match &message.body {
        Body::Reply { response, .. } => response,
        Body::Event { payload, .. } => payload,
    }
}

/// Checks that the decoder's result, with every part parsed strictly, equals the strict parse of the
/// whole frame, and that the strict check of a configuration agrees.
fn agrees(codec: &dyn Codec, frame: &[u8], whole: Option<Read>) -> Result<(), TestCaseError> {
    let decoded = exercise(codec, &text(frame));
    let parts = decoded.as_ref().ok().and_then(read_parts);
    let shown = || String::from_utf8_lossy(frame).into_owned();
    prop_assert_eq!(&parts, &whole, "{}: {:?}", shown(), decoded);
    let checked = decoded.is_ok_and(|message| check_strict(&message).is_ok());
    prop_assert_eq!(checked, parts.is_some(), "check_strict of {}", shown());
    Ok(())
}

fn inside(frame: &Frame, part: &[u8]) -> bool {
    let (frame, part) = (frame.as_bytes().as_ptr_range(), part.as_ptr_range());
    frame.start <= part.start && part.end <= frame.end
}

/// Whether a name is copied nowhere but into its own value, which stores up to 23 bytes.
fn is_borrowed(frame: &Frame, name: &str) -> bool {
    name.len() <= 23 || inside(frame, name.as_bytes())
}

fn any_ref() -> impl Strategy<Value = Ref> {
    prop_oneof![1..1_000_u64, 1..=u64::MAX, Just(u64::MAX)].prop_map(Ref::from_u64)
}

/// Any string for a topic or an event: unicode, control characters, quotes, or empty.
fn any_name() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z]{1,8}:[a-z]{0,8}", "\\PC{0,12}", any::<String>(), "[\0-\x1f\"\\\\]{0,8}"]
}

/// A name with exactly this many bytes.
fn name_of(bytes: usize, unicode: bool) -> String {
    let mut name = if unicode { "é".repeat(bytes / 2) } else { String::new() };
    name.push_str(&"x".repeat(bytes - name.len()));
    name
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((any::<String>(), inner), 0..4).prop_map(|members| members.into_iter().collect()),
        ]
    })
}

fn wire_ref(number: Option<Ref>) -> WireRef {
    number.map_or(WireRef::Null, WireRef::Ref)
}

/// A binary frame of the server: kind, lengths, fields, data.
fn binary_frame(kind: u8, fields: &[&str], data: &[u8]) -> Frame {
    let mut bytes = vec![kind];
    bytes.extend(fields.iter().map(|field| u8::try_from(field.len()).expect("a short field")));
    fields.iter().for_each(|field| bytes.extend_from_slice(field.as_bytes()));
    bytes.extend_from_slice(data);
    Frame::Binary(Bytes::from(bytes))
}

proptest! {
    #![proptest_config(config(2_000))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..300)) {
        for codec in [&V2 as &dyn Codec, &V1] {
            let _ = exercise(codec, &text(&bytes));
            let _ = exercise(codec, &Frame::Binary(Bytes::copy_from_slice(&bytes)));
        }
    }

    #[test]
    fn damaged_binary_frames_never_panic(
        bytes in damaged_bytes((0_u8..4, vec(0_u8..12, 0..6), vec(any::<u8>(), 0..60))
            .prop_map(|(kind, lengths, rest)| [vec![kind], lengths, rest].concat())),
    ) {
        let _ = exercise(&V2, &Frame::Binary(Bytes::from(bytes)));
    }
}

proptest! {
    #![proptest_config(config(5_000))]

    /// Scanning the frame, and then parsing its parts, accepts what a strict parse of the whole
    /// frame accepts.
    #[test]
    fn scanner_accepts_what_strict_parser_accepts(
        frame in v2_frame(),
    ) {
        agrees(&V2, &frame, read_v2(&frame))?;
    }

    #[test]
    fn scanner_agrees_on_replies_of_phoenix(frame in compact_reply()) {
        agrees(&V2, &frame, read_v2(&frame))?;
    }

    #[test]
    fn scanner_agrees_on_vsn_1(frame in v1_frame()) {
        agrees(&V1, &frame, read_v1(&frame))?;
    }
}

/// The properties above would also hold for generators that never make a valid frame.
#[test]
fn generators_make_good_and_bad_frames() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    type Reader = fn(&[u8]) -> Option<Read>;
    let kinds: [(BoxedStrategy<Vec<u8>>, Reader, _); 3] = [
        (v2_frame().boxed(), read_v2, 100),
        (v1_frame().boxed(), read_v1, 100),
        (compact_reply().boxed(), read_v2, 0),
    ];
    for (strategy, read, events_wanted) in kinds {
        let (mut replies, mut events, mut bad) = (0, 0, 0);
        for _ in 0..1_000 {
            let frame = strategy.new_tree(&mut runner).expect("a frame").current();
            match read(&frame) {
                Some(read) if read.what.starts_with("phx_reply/") => replies += 1,
                Some(_) => events += 1,
                None => bad += 1,
            }
        }
        assert!(replies > 50 && events >= events_wanted && bad > 200, "{replies} {events} {bad}");
    }
}

proptest! {
    #![proptest_config(config(500))]

    /// A text frame is decoded to the values that were encoded. Unescaped parts are slices of the frame;
    /// only short names are not.
    /// Protocol: MSG-1, MSG-4, V1-1.
    #[test]
    fn text_round_trip_is_lossless(
        join_ref in proptest::option::of(any_ref()),
        msg_ref in any_ref(),
        topic in any_name(),
        event in any_name(),
        value in any_json(),
    ) {
        prop_assume!(event != "phx_reply");
        for codec in [&V2 as &dyn Codec, &V1] {
            let payload = Payload::from(value.clone());
            prop_assert_eq!(codec.check(&topic, &event, &payload), Ok(()));
            let envelope = codec.max_envelope_len(&topic, &event);
            let most = payload.len() + envelope;
            let (topic, event) = (topic.as_str(), event.as_str());
            let message = Outgoing { join_ref, msg_ref, topic, event, payload };
            let frame = codec.encode(message).expect("encodable");
            prop_assert!(frame.is_text() && frame.len() <= most, "{} > {}", frame.len(), most);
            let decoded = exercise(codec, &frame).expect("our own frame");
            prop_assert_eq!(decoded.join_ref, wire_ref(join_ref));
            prop_assert_eq!(decoded.msg_ref, WireRef::Ref(msg_ref));
            prop_assert_eq!(decoded.topic.as_str(), topic);
            let Body::Event { event: decoded_event, payload } = &decoded.body else {
                panic!("a reply: {decoded:?}");
            };
            prop_assert_eq!(decoded_event.as_str(), event);
            prop_assert_eq!(payload.to_value().expect("JSON"), value.clone());
            // Zero copy: unescaped parts are slices of the frame, but for short names.
            prop_assert!(inside(&frame, payload.as_bytes()));
            if !topic.contains(['"', '\\']) && !topic.contains(|c: char| c < ' ') {
                prop_assert!(is_borrowed(&frame, decoded.topic.as_str()));
            }
        }
    }

    /// The members of a reply may have any order.
    /// Protocol: MSG-7.
    #[test]
    fn reply_keys_come_in_any_order(
        join_ref in proptest::option::of(any_ref()),
        msg_ref in any_ref(),
        topic in any_name(),
        status in any_name(),
        response in any_json(),
        swapped in any::<bool>(),
        space in "[ \t\r\n]{0,2}",
    ) {
        let members = [format!(r#""status":{}"#, json!(status)), format!(r#""response":{response}"#)];
        let [one, two] = if swapped { [&members[1], &members[0]] } else { [&members[0], &members[1]] };
        let body = format!("{{{space}{one}{space},{space}{two}{space}}}");
        let join = json!(join_ref.map(|join_ref| join_ref.to_string()));
        let (msg, topic_text) = (json!(msg_ref.to_string()), json!(topic));
        let frames = [
            (format!(r#"[{join},{msg},{topic_text},"phx_reply",{body}]"#), &V2 as &dyn Codec),
            (
                format!(
                    r#"{{"topic":{topic_text},"ref":{msg},"payload":{body},"event":"phx_reply","join_ref":{join}}}"#
                ),
                &V1,
            ),
        ];
        for (frame, codec) in frames {
            let frame = Frame::from(frame);
            let decoded = exercise(codec, &frame).expect("a good reply");
            prop_assert_eq!(decoded.join_ref, wire_ref(join_ref));
            prop_assert_eq!(decoded.msg_ref, WireRef::Ref(msg_ref));
            prop_assert_eq!(decoded.topic.as_str(), &topic);
            let Body::Reply { status: decoded_status, response: payload } = &decoded.body else {
                panic!("no reply: {decoded:?}");
            };
            prop_assert_eq!(decoded_status.as_str(), &status);
            prop_assert_eq!(payload.to_value().expect("JSON"), response.clone());
            prop_assert!(inside(&frame, payload.as_bytes()), "zero copy");
        }
    }

    /// The binary push has the documented layout, and fields that are too long are refused.
    /// Protocol: BIN-1, BIN-5, BIN-6, BIN-7.
    #[test]
    fn binary_push_has_documented_layout(
        join_ref in proptest::option::of(any_ref()),
        msg_ref in any_ref(),
        lengths in (0_usize..=300, 0_usize..=300),
        unicode in any::<bool>(),
        data in vec(any::<u8>(), 0..40),
    ) {
        let (topic, event) = (name_of(lengths.0, unicode), name_of(lengths.1, unicode));
        let payload = Payload::binary(data.clone());
        prop_assert_eq!(V1.check(&topic, &event, &payload), Err(EncodeError::NoBinary));
        let checked = V2.check(&topic, &event, &payload);
        let most = payload.len() + V2.max_envelope_len(&topic, &event);
        let message = Outgoing { join_ref, msg_ref, topic: &topic, event: &event, payload };
        let encoded = V2.encode(message);
        if lengths.0 > 255 || lengths.1 > 255 {
            let too_long = |error| matches!(error, EncodeError::FieldTooLong { .. });
            prop_assert!(checked.is_err_and(too_long) && encoded.is_err_and(too_long));
            return Ok(());
        }
        prop_assert_eq!(checked, Ok(()));
        let frame = encoded.expect("fields that fit");
        let join_ref = join_ref.map(|join_ref| join_ref.to_string()).unwrap_or_default();
        let fields = [join_ref.as_str(), &msg_ref.to_string(), &topic, &event];
        prop_assert_eq!(&frame, &binary_frame(0, &fields, &data));
        prop_assert!(!frame.is_text() && frame.len() <= most);
    }

    /// The fields of the server's binary frames may have any length, and a truncated header is an
    /// error.
    /// Protocol: BIN-2, BIN-3, BIN-4, BIN-5, BIN-9.
    #[test]
    fn server_binary_fields_have_any_length(
        refs in (proptest::option::of(any_ref()), proptest::option::of(any_ref())),
        lengths in (0_usize..=255, 0_usize..=255),
        unicode in any::<bool>(),
        data in vec(any::<u8>(), 0..40),
        cut in any::<proptest::sample::Index>(),
    ) {
        let text_of = |msg_ref: Option<Ref>| msg_ref.map(|it| it.to_string()).unwrap_or_default();
        let (join_ref, msg_ref) = (text_of(refs.0), text_of(refs.1));
        let (topic, name) = (name_of(lengths.0, unicode), name_of(lengths.1, unicode));
        let frames = [
            (binary_frame(0, &[&join_ref, &topic, &name], &data), refs.0, None),
            (binary_frame(1, &[&join_ref, &msg_ref, &topic, &name], &data), refs.0, refs.1),
            (binary_frame(2, &[&topic, &name], &data), None, None),
        ];
        for (frame, join_ref, msg_ref) in frames {
            let decoded = exercise(&V2, &frame).expect("a good frame");
            prop_assert_eq!(decoded.join_ref, wire_ref(join_ref));
            prop_assert_eq!(decoded.msg_ref, wire_ref(msg_ref));
            prop_assert_eq!(decoded.topic.as_str(), &topic);
            prop_assert!(is_borrowed(&frame, decoded.topic.as_str()));
            let (found, payload) = match &decoded.body {
                Body::Reply { status, response } => (status, response),
                Body::Event { event, payload } => (event, payload),
            };
            prop_assert_eq!(matches!(decoded.body, Body::Reply { .. }), frame.as_bytes()[0] == 1);
            prop_assert_eq!(found.as_str(), &name);
            prop_assert!(payload.is_binary() && payload.as_bytes() == data);
            prop_assert!(inside(&frame, payload.as_bytes()), "zero copy");
            // A frame that is cut anywhere before its data is an error.
            let header = frame.len() - data.len();
            let short = Bytes::copy_from_slice(&frame.as_bytes()[..cut.index(header)]);
            prop_assert!(exercise(&V2, &Frame::Binary(short)).is_err());
        }
    }

    #[test]
    fn vsn_1_reads_no_binary_frame(bytes in vec(any::<u8>(), 0..40)) {
        prop_assert!(exercise(&V1, &Frame::Binary(Bytes::from(bytes))).is_err());
    }
}

proptest! {
    #![proptest_config(config(5_000))]

    /// Whitespace between two tokens has no meaning in JSON. A frame has the same result with and
    /// without it, whether it is valid or not.
    #[test]
    fn space_between_tokens_changes_nothing(
        tokens in reply_tokens(),
        spaces in vec(select(vec!["", " ", "\t", "\r\n"]), 20),
    ) {
        let compact = tokens.concat();
        let spaced: String = tokens
            .iter()
            .zip(spaces.iter().cycle())
            .flat_map(|(token, space)| [space, token.as_str()])
            .collect();
        let read = |frame: &str| {
            let message = exercise(&V2, &Frame::from(frame)).ok()?;
            let (what, payload) = match &message.body {
                Body::Reply { status, response } => (format!("reply {status}"), response),
                Body::Event { event, payload } => (format!("event {event}"), payload),
            };
            // In a payload that is not JSON, the whitespace is kept.
            let payload: Vec<u8> =
                payload.as_bytes().iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
            Some((message.join_ref, message.msg_ref, message.topic.to_string(), what, payload))
        };
        prop_assert_eq!(read(&compact), read(&spaced), "{} and {}", compact, spaced);
    }
}

/// The strict check refuses text with invalid UTF-8, also in a member that no consumer reads. The
/// properties once found that a string in a payload could contain any bytes.
#[test]
fn invalid_utf8_is_not_json() {
    let read = |frame: &[u8]| V2.decode(&text(frame));
    let message = read(b"[null,null,\"t\",\"e\",\"\xff\"]").expect("an envelope");
    assert!(payload_of(&message).to_value().is_err());
    assert!(check_strict(&message).is_err());
    let ignored =
        b"[null,null,\"t\",\"phx_reply\",{\"status\":\"ok\",\"response\":1,\"x\":\"\xff\"}]";
    let message = read(ignored).expect("an envelope");
    assert!(payload_of(&message).to_value().is_err());
    assert!(check_strict(&message).is_err());
}

#[test]
fn binary_frame_may_end_behind_fields() {
    for (kind, fields) in [(0, &["1", "t", "e"][..]), (1, &["1", "2", "t", "ok"]), (2, &["t", "e"])]
    {
        let message = V2.decode(&binary_frame(kind, fields, b"")).expect("a frame without data");
        let payload = payload_of(&message);
        assert!(payload.is_binary() && payload.is_empty(), "kind {kind}");
    }
}

/// The decoder cuts the last byte off after the response, so that byte must be a brace.
#[test]
fn reply_must_end_with_its_brace() {
    for end in ["{}x", "{}]", "[1]]", "1\"", "12", "true", "}", " }"] {
        let frame = format!(r#"[null,"1","t","phx_reply",{{"status":"ok","response":{end}]"#);
        assert!(V2.decode(&Frame::from(&*frame)).is_err(), "{frame}");
        assert_eq!(read_v2(frame.as_bytes()), None);
    }
}

/// Parts without a consumer must still be JSON. No part may be missing, and nothing may follow.
#[test]
fn bad_envelope_parts_are_refused() {
    let v1 = |members: &str| format!(r#"{{"topic":"t","event":"e",{members}"#);
    let good: [(&dyn Codec, String); 2] =
        [(&V2, r#"[null,null,"t","e",{}]"#.into()), (&V1, v1(r#""payload":{}}"#))];
    for (codec, frame) in good {
        assert!(codec.decode(&Frame::from(frame)).is_ok());
    }
    let bad: [(&dyn Codec, String); 5] = [
        (&V2, r#"[null,null,"t","e",]"#.into()),
        (&V2, r#"[null,"1","t","phx_reply", ]"#.into()),
        (&V1, v1(r#""payload":{}}x"#)),
        (&V1, v1(r#""payload":nul,"payload":{}}"#)),
        (&V1, v1(r#""payload":{},"x":nul}"#)),
    ];
    for (codec, frame) in bad {
        assert!(codec.decode(&Frame::from(frame.as_str())).is_err(), "{frame}");
    }
}

/// Phoenix never writes a key twice. If a frame has several statuses, both versions still agree on
/// the one that counts, whatever the whitespace: the status that is the first member, else the last
/// one.
#[test]
fn repeated_status_has_one_reading() {
    let read = |frame: String, codec: &dyn Codec| {
        let message = codec.decode(&Frame::from(frame)).ok()?;
        let Body::Reply { status, response } = message.body else { panic!("no reply") };
        assert_eq!(response.get(), Ok("{}"));
        Some(status.to_string())
    };
    for (members, expected) in [
        (r#""status":"ok","response":{},"status":"error""#, Some("ok")),
        (r#""status":"ok","response":{},"status":"error","x":1"#, Some("ok")),
        (r#""status":"ok","response":{},"status":null,"x":1"#, Some("ok")),
        (r#""status":"ok","response":{},"status":null"#, Some("ok")),
        (r#""status":"ok","status":"error","response":{}"#, Some("ok")),
        (r#""status":null,"response":{},"status":"ok""#, None),
        (r#""response":{},"status":"error","status":"ok""#, Some("ok")),
        (r#""response":{},"status":null,"status":"ok""#, Some("ok")),
        (r#""response":{},"status":"ok","status":null"#, None),
        (r#""response":{},"status":"ok","x":1,"status":"error""#, Some("error")),
        (r#""x":1,"status":"ok","response":{},"status":"error""#, Some("error")),
        (r#""x":1,"status":nul,"status":"ok","response":{},"y":1"#, None),
    ] {
        for space in ["", " "] {
            let v2 = format!("[null,\"1\",\"t\",\"phx_reply\",{{{space}{members}}}]");
            assert_eq!(read(v2, &V2).as_deref(), expected, "{space}{members}");
            let v1 = format!(
                r#"{{"topic":"t","event":"phx_reply","ref":"1","payload":{{{space}{members}}}}}"#
            );
            assert_eq!(read(v1, &V1).as_deref(), expected, "vsn 1: {space}{members}");
        }
    }
}

/// Every recorded frame, in both directions, valid or malformed, has the result of a plain parser.
#[test]
fn recorded_frames_match_a_plain_parser() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/wire");
    let (mut texts, mut good, mut binaries) = (0, 0, 0);
    for entry in std::fs::read_dir(directory).expect("the fixtures are part of the repository") {
        let path = entry.expect("a readable directory").path();
        if path.extension().is_none_or(|extension| extension != "jsonl") {
            continue;
        }
        let lines = std::fs::read_to_string(&path).expect("a readable recording");
        for line in lines.lines().skip(1) {
            let line: Value = serde_json::from_str(line).expect("a line of JSON");
            let Some(bytes) = recorded_bytes(&line) else { continue };
            if line["kind"] == "text" {
                let (v1, v2) = (read_v1(&bytes), read_v2(&bytes));
                texts += 1;
                good += usize::from(v1.is_some()) + usize::from(v2.is_some());
                agrees(&V2, &bytes, v2).expect("one reading");
                agrees(&V1, &bytes, v1).expect("one reading");
            } else if line["kind"] == "binary" && line["dir"] == "s2c" {
                let frame = Frame::Binary(Bytes::from(bytes));
                let message = exercise(&V2, &frame).expect("a frame of a real server");
                assert_eq!(written_back(&message).as_bytes(), frame.as_bytes(), "{path:?}");
                binaries += 1;
            }
        }
    }
    println!("{texts} text frames, {good} of them good, and {binaries} binary ones of servers");
    assert!(texts > 500 && good > 500 && binaries > 10, "{texts} {good} {binaries}");
}

/// The binary frame that a server would have written for this message.
fn written_back(message: &Incoming) -> Frame {
    let text_of = |msg_ref| match msg_ref {
        WireRef::Ref(msg_ref) => msg_ref.to_string(),
        WireRef::Null => String::new(),
        WireRef::Foreign => panic!("a ref that no client of the recordings sent"),
    };
    let (join_ref, topic) = (text_of(message.join_ref), message.topic.as_str());
    match &message.body {
        Body::Reply { status, response } => {
            let fields = [join_ref.as_str(), &text_of(message.msg_ref), topic, status.as_str()];
            binary_frame(1, &fields, response.as_bytes())
        }
        Body::Event { event, payload } if join_ref.is_empty() => {
            binary_frame(2, &[topic, event.as_str()], payload.as_bytes())
        }
        Body::Event { event, payload } => {
            binary_frame(0, &[&join_ref, topic, event.as_str()], payload.as_bytes())
        }
    }
}

/// The bytes of a recorded message; `None` for other lines.
fn recorded_bytes(line: &Value) -> Option<Vec<u8>> {
    if let Some(text) = line["text"].as_str() {
        return Some(text.as_bytes().to_vec());
    }
    if let Some(data) = line["base64"].as_str() {
        return Some(STANDARD.decode(data).expect("base64"));
    }
    let parts = line["text_parts"].as_object()?;
    let part = |name: &str| parts[name].as_str().expect("a part").to_owned();
    let count = usize::try_from(parts["count"].as_u64()?).expect("a count");
    Some((part("prefix") + &part("char").repeat(count) + &part("suffix")).into_bytes())
}
