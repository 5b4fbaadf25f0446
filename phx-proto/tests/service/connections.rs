//! Documents of connections: their keys, and the message for each mistake.

use core::time::Duration;

use crate::options::other_options;
use phx_proto::config::Backoff;
use phx_proto::service::{Connections, Problem, ProblemKind, Restart, RestartPolicy};
use phx_proto::socket::PendingReason;
use phx_proto::{ChannelStatus, Options, Socket, Time};
use serde::de::{Deserializer, IntoDeserializer as _, Visitor};
use serde_json::{Value, json};

const NONE: fn(&str) -> Option<String> = |_| None;

fn environment(name: &str) -> Option<String> {
    match name {
        "PHOENIX_API_KEY" => Some("k3y".into()),
        "PHOENIX_AUTH_TOKEN" => Some("t0ken".into()),
        "EMPTY" => Some(String::new()),
        "EVIL" => Some("a\r\nX-Evil: 1".into()),
        _ => None,
    }
}

/// Every line of the error for a document with a connection `a` that has these members.
fn problems(members: &str) -> Vec<String> {
    let text = format!(r#"{{"connections": {{"a": {{{members}}}}}}}"#);
    let error = Connections::from_json(&text, environment).expect_err(&text);
    error.to_string().lines().map(str::to_owned).collect()
}

fn read(members: &str) -> Connections {
    let uri = r#""uri": "ws://localhost/socket/websocket""#;
    let text = format!(r#"{{"connections": {{"a": {{{uri}, {members}}}}}}}"#);
    Connections::from_json(&text, environment).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn example_is_read_with_three_variables() {
    let text = include_str!("../../examples/connections.example.json");
    let connections = Connections::from_json(text, environment).expect("the example");
    assert_eq!(connections.len(), 2);
    let backend = connections.get("backend_service").expect("it is named so");
    assert_eq!(backend.config().uri().host(), "backend.example.com", "the default");
    assert_eq!(backend.attributes()["sessionid"], "nightly");
    let socket = Socket::new(backend.config().clone(), 1, Time::ZERO);
    let request = socket.connect_request().expect("an address that may be dialled");
    assert!(request.uri.target().contains("token=t0ken"));
    assert_eq!(request.headers[0].0, "X-API-Key");
    assert_eq!(request.headers[0].1.expose(), "k3y");
    assert_eq!(
        socket.channel_status("room:jobs"),
        ChannelStatus::Pending(PendingReason::Offline),
        "auto-joins are applied"
    );
    let local = connections.get("local_tools").expect("it is named so");
    assert_eq!(local.restart_policy().kind(), Restart::Permanent);
}

/// The error names each missing variable, and the places that use it.
#[test]
fn example_without_variables_names_them() {
    let text = include_str!("../../examples/connections.example.json");
    let error = Connections::from_json(text, NONE).expect_err("no environment").to_string();
    assert_eq!(
        error,
        "connection \"backend_service\", key \"headers\": the variable PHOENIX_API_KEY is not \
         set: set it, or write ${PHOENIX_API_KEY:-default}\n\
         connection \"backend_service\", key \"params\": the variable PHOENIX_AUTH_TOKEN is not \
         set: set it, or write ${PHOENIX_AUTH_TOKEN:-default}"
    );
}

/// Variables are replaced in the names of topics and headers, both when the value is an object and when it
/// is a list.
#[test]
fn variables_in_names_are_replaced() {
    let name = "${PHOENIX_API_KEY}";
    for members in [
        format!(r#""auto_join_channels": {{"room:{name}": {{}}}}, "headers": {{"x-{name}": "1"}}"#),
        format!(r#""auto_join_channels": ["room:{name}"], "headers": [["x-{name}", "1"]]"#),
    ] {
        let connections = read(&members);
        let config = connections.get("a").expect("it is named so").config();
        let topics: Vec<_> = config.auto_joined().map(|topic| topic.as_str()).collect();
        assert_eq!(topics, ["room:k3y"], "{members}");
        let request = Socket::new(config.clone(), 1, Time::ZERO).connect_request();
        let headers = request.expect("an address that may be dialled").headers;
        assert_eq!(headers[0].0, "x-k3y", "{members}");
    }
    for (members, message) in [
        (
            r#""auto_join_channels": {"room:${NONE}": {}}"#,
            "the variable NONE is not set: set it, or write ${NONE:-default}",
        ),
        (
            r#""auto_join_channels": {"a": {}, "${NONE:-a}": {}}"#,
            r#"the topic "a" occurs twice in it"#,
        ),
    ] {
        let uri = r#""uri": "ws://localhost/""#;
        let found = problems(&format!("{uri}, {members}"));
        assert_eq!(found, [format!(r#"connection "a", key "auto_join_channels": {message}"#)]);
    }
}

/// A snapshot of every message: each names the connection and the key, and the correction.
#[test]
fn every_mistake_has_a_helpful_message() {
    let uri = r#""uri": "ws://localhost/socket/websocket""#;
    for (members, message) in [
        (
            r#""uri": "${EMPTY}""#,
            r#"key "uri": the variable EMPTY is empty: set it to a value, or write ${EMPTY:-default}"#,
        ),
        (
            r#""uri": "ws://${HOST""#,
            r#"key "uri": invalid variable: write ${NAME} or ${NAME:-default}, and $${ for a literal ${"#,
        ),
        ("", r#"key "uri": it is missing: add it"#),
        (r#""uri": null"#, r#"key "uri": it is missing: add it"#),
        (r#""uri": 7"#, r#"key "uri": it must be a string, not a number"#),
        (
            r#""uri": "http://x""#,
            r#"key "uri": invalid uri: the scheme must be ws or wss, not http or https"#,
        ),
        (
            r#""uri": "ws://example.com/socket/websocket""#,
            "key \"uri\": ws:// to example.com would send everything in the clear: use wss://, or set \"allow_insecure\": true",
        ),
        (
            &format!(r#"{uri}, "header": {{}}"#),
            r#"key "header": unknown key; did you mean "headers"?"#,
        ),
        (&format!(r#"{uri}, "colour": 1"#), r#"key "colour": unknown key"#),
        (&format!(r#"{uri}, {uri}"#), r#"key "uri": it occurs twice: remove one"#),
        (
            &format!(r#"{uri}, "headers": {{"X-Key": "${{EVIL}}"}}"#),
            r#"key "headers": invalid header "X-Key": the value contains a control character"#,
        ),
        (
            &format!(r#"{uri}, "headers": "X-Key: 1""#),
            r#"key "headers": it must be an object, or a list of pairs, not a string"#,
        ),
        (
            &format!(r#"{uri}, "max_retries": -1"#),
            r#"key "max_retries": it must be a non-negative integer that is not too large"#,
        ),
        (
            &format!(r#"{uri}, "reconnect": "yes""#),
            r#"key "reconnect": it must be true or false, not a string"#,
        ),
        (
            &format!(r#"{uri}, "reconnect_after_msec": []"#),
            r#"key "reconnect_after_msec": a backoff needs at least one step"#,
        ),
        (
            &format!(r#"{uri}, "first_retry_spread_msec": [2, 1]"#),
            r#"key "first_retry_spread_msec": a range of delays must not end before it starts"#,
        ),
        (
            &format!(r#"{uri}, "auto_join_channels": ["phoenix"]"#),
            r#"key "auto_join_channels": the topic "phoenix" is reserved for heartbeats and cannot be joined"#,
        ),
        (
            &format!(r#"{uri}, "auto_join_channels": ["a", ["a", {{}}]]"#),
            r#"key "auto_join_channels": the topic "a" occurs twice in it"#,
        ),
        (&format!(r#"{uri}, "vsn": "3.0.0""#), r#"key "vsn": it must be "2.0.0" or "1.0.0""#),
        (
            &format!(r#"{uri}, "attributes": {{"session_id": "1"}}"#),
            "key \"attributes\": invalid attribute name: use 1 to 20 characters of a-z and 0-9, and no reserved name of CloudEvents",
        ),
        (
            &format!(r#"{uri}, "attributes": {{"a": "1", "b": "2", "a": "1"}}"#),
            r#"key "attributes": the key "a" occurs twice in it"#,
        ),
        (
            &format!(r#"{uri}, "attributes": [["a", "1"], ["a", "2"]]"#),
            r#"key "attributes": the attribute "a" occurs twice in it"#,
        ),
        (
            &format!(r#"{uri}, "auto_join_channels": {{"a": {{"list": [{{"n": 1, "n": 2}}]}}}}"#),
            r#"key "auto_join_channels": the key "n" occurs twice in it"#,
        ),
        (
            &format!(r#"{uri}, "tls": {{"cafile": "x"}}"#),
            r#"key "tls": unknown key "cafile" in it; did you mean "ca_file"?"#,
        ),
        (
            &format!(r#"{uri}, "tls": {{"cert_file": "x"}}"#),
            r#"key "tls": "cert_file" and "key_file" must be given together"#,
        ),
        (
            &format!(r#"{uri}, "restart": "always""#),
            r#"key "restart": it must be "transient", "permanent" or "temporary""#,
        ),
        (
            &format!(r#"{uri}, "join_concurrency": 0"#),
            r#"key "join_concurrency": it must be an integer of at least 1 that is not too large"#,
        ),
    ] {
        assert_eq!(problems(members), [format!("connection \"a\", {message}")], "{members}");
    }
}

#[test]
fn all_problems_are_reported_at_once() {
    let text = r#"{"connections": {
        "a": {"uri": "nonsense", "header": 1, "params": {"token": "${NONE}"}},
        "b": [],
        "": {"uri": "ws://localhost/"},
        "c": {"uri": "ws://localhost/"},
        "c": {"uri": "ws://localhost/"}
    }, "connection": {}}"#;
    let error = Connections::from_json(text, NONE).expect_err("much is wrong");
    let about = |problem: &Problem| (problem.connection.clone(), problem.key.clone());
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(
        error.problems().iter().map(about).collect::<Vec<_>>(),
        [
            (None, some("connection")),
            (some("a"), some("uri")),
            (some("a"), some("header")),
            (some("a"), some("params")),
            (some("b"), None),
            (some(""), None),
            (some("c"), None),
        ]
    );
    assert_eq!(error.problems()[6].kind, ProblemKind::Duplicate);
}

#[test]
fn invalid_document_error_has_a_position() {
    for (text, message) in [
        ("", "the document cannot be read: EOF while parsing a value at line 1 column 0"),
        ("{} x", "the document cannot be read: trailing characters at line 1 column 4"),
        ("{}", "key \"connections\": it is missing: add it"),
        ("[]", "it must be an object with the key \"connections\", not a list"),
        (r#"{"connections": 1}"#, "key \"connections\": it must be an object, not a number"),
    ] {
        let error = Connections::from_json(text, NONE).expect_err(text);
        assert_eq!(error.to_string(), message);
    }
}

#[test]
fn every_key_is_read() {
    let connections = read(
        r#"
        "allow_insecure": true, "connect_to": "127.0.0.1:1", "vsn": "1.0.0", "headers": [["X-A", "1"], ["X-A", "2"]],
        "params": {"n": 7, "yes": true}, "auth_token": "t",
        "auto_join_channels": {"room:a": {"x": 1}, "room:b": null},
        "reconnect": true, "tls": {"ca_file": "ca.pem", "server_name": "x"},
        "restart": "permanent", "max_restarts": 1, "max_restarts_msec": 1000,
        "attributes": {"sessionid": "s"}, "max_push_bytes": 2000"#,
    );
    let spec = connections.get("a").expect("it is named so");
    let socket = Socket::new(spec.config().clone(), 1, Time::ZERO);
    let request = socket.connect_request().expect("an address that may be dialled");
    assert!(request.uri.target().contains("n=7&yes=true&vsn=1.0.0"), "{}", request.uri.target());
    let names: Vec<&str> = request.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["X-A", "X-A", "User-Agent"]);
    assert_eq!(spec.config().dial_target(&request.uri), ("127.0.0.1", 1));
    assert_eq!(request.subprotocols.len(), 2);
    assert_eq!(socket.channels().count(), 2);
    let tls = spec.tls_files().expect("a tls key");
    assert_eq!((tls.ca_file.as_deref(), tls.server_name.as_deref()), (Some("ca.pem"), Some("x")));
    let policy = RestartPolicy::new(Restart::Permanent).intensity(1, Duration::from_secs(1));
    assert_eq!(*spec.restart_policy(), policy);
    assert_eq!(spec.attributes()["sessionid"], "s");
    assert_eq!(spec.config().max_push_bytes, 2_000);

    let options = serde_json::to_string(&other_options()).expect("plain data");
    let connections = read(&options[1..options.len() - 1]);
    let config = connections.get("a").expect("it is named so").config();
    assert_eq!(Options::clone(config), other_options());
}

/// The schema describes every key, because editors show the descriptions.
#[cfg(feature = "schema")]
#[test]
fn schema_describes_every_key() {
    let schema = Connections::json_schema();
    let keys = schema["$defs"]["connection"]["properties"].as_object().expect("the keys");
    for (key, schema) in keys {
        let about = schema["description"].as_str().unwrap_or_default();
        assert!(about.len() > 10 && !about.contains('['), "{key}: {about:?}");
    }
    let files = &keys["tls"]["anyOf"][0]["properties"];
    assert!(files["ca_file"]["description"].is_string(), "{files}");
}

/// Documents also accept the form in which recordings write delays and rules.
#[test]
fn delays_and_rules_can_be_written_in_full() {
    let options = |members: &str| {
        let connections = read(members);
        Options::clone(connections.get("a").expect("it is named so").config())
    };
    let written = serde_json::to_string(&Options::default()).expect("plain data");
    let written = written.trim_matches(['{', '}']);
    assert_eq!(options(written), Options::default());
    let delays = r#""rejoin_after_msec": {"schedule": {"exponential": {"first": 1.5, "factor": 2, "max": 9}}, "jitter": 0}"#;
    let micros = |micros| Duration::from_micros(micros);
    let growing = Backoff::exponential(micros(1_500), 2.0, micros(9_000)).expect("it grows");
    let growing = growing.jitter(0.0).expect("a share");
    assert_eq!(options(delays).rejoin_after, growing);
    let uri = r#""uri": "ws://localhost/""#;
    for (members, message) in [
        (
            r#""rejoin_after_msec": {"schedule": {"steps": []}}"#,
            "a backoff needs at least one step",
        ),
        (
            r#""rejoin_after_msec": {"schedule": {"steps": [1]}, "jitter": 2}"#,
            "the jitter must be a number from 0 to 1",
        ),
        (
            r#""rejoin_after_msec": {"schedule": {"steps": [1]}, "floors": 2}"#,
            r#"unknown key "floors" in it; did you mean "floor"?"#,
        ),
        (r#""rejoin_after_msec": {"jitter": 1}"#, r#"the key "schedule" is missing in it"#),
        (
            r#""rejoin_after_msec": "1""#,
            "it must be a list of milliseconds, or an object with a schedule, not a string",
        ),
        (r#""tls": ["ca.pem"]"#, "it must be an object, not a list"),
        (
            r#""rejoin_after_msec": {"schedule": {"exponential": [1, 2, 3]}}"#,
            "it must be an object, not a list",
        ),
        (r#""push_timeout_msec": -1"#, "it must be a number of milliseconds that is not negative"),
        (r#""first_retry_spread_msec": [1]"#, "it must be a pair of milliseconds, [from, to]"),
        (
            r#""first_retry_spread_msec": [1, 2, 3]"#,
            "it must be a pair of milliseconds, [from, to]",
        ),
        (
            r#""close_rules": {"4001": "halt"}"#,
            r#"it must be "retry", "retry_within_msec" or "stop""#,
        ),
        (r#""close_rules": {"soon": "stop"}"#, r#"the key "soon" in it is not a close code"#),
        (r#""close_rules": {"+1000": "stop"}"#, r#"the key "+1000" in it is not a close code"#),
        (
            r#""close_rules": {"1000": "stop", "01000": "retry"}"#,
            "the code 1000 occurs twice in it",
        ),
        (r#""status_rules": {"404": "stop", "404": "stop"}"#, "the code 404 occurs twice in it"),
        (
            r#""close_rules": {"1000": "retry_within_msec"}"#,
            "it must be an object with this name and its value, not a string",
        ),
        (
            r#""close_rules": {"1000": {"stop": null}}"#,
            r#"it must be "retry", "retry_within_msec" or "stop", not an object"#,
        ),
        (
            r#""restart": {"permanent": null}"#,
            r#"it must be "transient", "permanent" or "temporary", not an object"#,
        ),
        (
            r#""status_rules": {"404": 1}"#,
            r#"it must be "backoff", "refused", "unauthorized" or "stop", not a number"#,
        ),
        (
            r#""auto_join_channels": [["a", {}, 1]]"#,
            "it must be a list of topics and of pairs with their parameters",
        ),
        (r#""params": [["a"]]"#, "it must be a pair of a name and a value"),
        (r#""params": {"a": []}"#, "its values must be strings, numbers or booleans"),
        (r#""strict_payloads": "${EMPTY:-true}""#, "it must be true or false, not a string"),
        (r#""max_push_bytes": "9""#, "it must be a number, not a string"),
        (r#""max_push_bytes": 1.5"#, "it must be a non-negative integer that is not too large"),
    ] {
        let problems = problems(&format!("{uri}, {members}"));
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].ends_with(message), "{members}: {}", problems[0]);
    }
}

#[test]
fn reconnect_false_means_no_retry() {
    let connections = read(r#""reconnect": false, "max_retries": 5"#);
    let config = connections.get("a").expect("it is named so").config().clone();
    let mut socket = Socket::new(config, 1, Time::ZERO);
    socket.connect(Time::ZERO);
    let id = socket.connection_id().expect("an attempt");
    let failure = phx_proto::Cause::Dial {
        kind: phx_proto::event::DialKind::Refused,
        message: "refused".into(),
    };
    socket.handle_failed(Time::ZERO, id, failure);
    assert!(matches!(socket.status(), phx_proto::Status::GaveUp { .. }));
}

#[test]
fn any_serde_format_can_be_read() {
    let document = serde_json::json!({"connections": {"a": {"uri": "wss://example.com/x"}}});
    let connections = Connections::deserialize(document.into_deserializer(), NONE).expect("read");
    assert!(connections.get("a").is_some());
}

#[test]
fn document_prints_no_secret() {
    let text = r#"{"connections": {"a": {
        "uri": "wss://example.com/x?key=s3cret", "headers": {"X-Key": "s3cret"},
        "params": {"token": "s3cret"}, "auth_token": "s3cret",
        "auto_join_channels": {"room:a": {"token": "s3cret"}}
    }}}"#;
    let connections = Connections::from_json(text, NONE).expect("read");
    assert!(!format!("{connections:?} {connections:#?}").contains("s3cret"));
    let broken =
        text.replace("wss://example.com", "ftp://s3cret").replace("\"X-Key\"", "\"X Key\"");
    let error = Connections::from_json(&broken, NONE).expect_err("no such scheme");
    assert!(!format!("{error} {error:?}").contains("s3cret"), "{error}");
}

#[test]
fn document_can_be_built_in_code() {
    let config = phx_proto::Config::new("wss://example.com/x").expect("a good URI");
    let config = config.push_timeout(Duration::from_secs(1));
    let connections = Connections::new().with("a", config);
    assert_eq!(connections.into_iter().map(|(name, _)| name).collect::<Vec<_>>(), ["a"]);
}

/// The key `allow_insecure` may precede or follow the address.
#[test]
fn allow_insecure_permits_clear_text() {
    let uri = r#""uri": "ws://example.com/socket/websocket""#;
    for members in [
        format!(r#"{uri}, "allow_insecure": true, "connect_to": "10.0.0.1:80""#),
        format!(r#""connect_to": "10.0.0.1:80", "allow_insecure": true, {uri}"#),
    ] {
        let text = format!(r#"{{"connections": {{"a": {{{members}}}}}}}"#);
        let connections = Connections::from_json(&text, NONE).expect("it was allowed");
        let config = connections.get("a").expect("it is there").config().clone();
        Socket::new(config, 1, Time::ZERO).connect_request().expect("an address");
    }
    let refused = problems(&format!("{uri}, \"allow_insecure\": false"));
    assert!(refused[0].contains("\"allow_insecure\": true"), "{refused:?}");
}

/// A `vsn` in the address has the same effect as the key. If both are given, they must be equal.
#[test]
fn document_vsn_must_match_the_uri() {
    let vsn = |members: &str| {
        let text = format!(r#"{{"connections": {{"a": {{{members}}}}}}}"#);
        let connections = Connections::from_json(&text, NONE).expect("a document");
        let config = connections.get("a").expect("it is there").config().clone();
        let request = Socket::new(config, 1, Time::ZERO).connect_request().expect("an address");
        request.uri.target().split_once("vsn=").map(|(_, vsn)| vsn.to_owned())
    };
    assert_eq!(vsn(r#""uri": "wss://h/s?vsn=1.0.0""#).as_deref(), Some("1.0.0"));
    assert_eq!(vsn(r#""uri": "wss://h/s?vsn=1.0.0", "vsn": "1.0.0""#).as_deref(), Some("1.0.0"));
    let contradiction = problems(r#""uri": "wss://h/s?vsn=1.0.0", "vsn": "2.0.0""#);
    assert_eq!(contradiction.len(), 1, "{contradiction:?}");
    assert!(contradiction[0].contains("key \"vsn\"") && contradiction[0].contains("2.0.0"));
    let unknown = problems(r#""uri": "wss://h/s?vsn=9.0.0""#);
    assert_eq!(unknown.len(), 1, "{unknown:?}");
    assert!(unknown[0].contains("key \"uri\"") && unknown[0].contains("`Config::codec`"));
}

/// Two equal keys of an object are a problem, also if they are equal only after variables are replaced. A
/// list of pairs repeats a name on purpose.
#[test]
fn repeated_keys_are_reported() {
    let uri = r#""uri": "ws://localhost/""#;
    for (key, value) in [
        ("params", r#"{"a": 1, "b": 2, "a": 3}"#),
        ("params", r#"{"a": 1, "${NONE:-a}": 2}"#),
        ("headers", r#"{"a": "1", "a": "1"}"#),
        ("headers", r#"{"${NONE:-a}": "1", "a": "2"}"#),
    ] {
        let found = problems(&format!(r#"{uri}, "{key}": {value}"#));
        let message = format!(r#"connection "a", key "{key}": the key "a" occurs twice in it"#);
        assert_eq!(found, [message], "{value}");
    }
    let target = |members: &str| {
        let config = read(members).get("a").expect("it is named so").config().clone();
        let request = Socket::new(config, 1, Time::ZERO).connect_request();
        request.expect("an address that may be dialled").uri.target().to_owned()
    };
    let list = target(r#""params": [["a", 1], ["a", 2]], "headers": [["a", "1"], ["a", "2"]]"#);
    assert!(list.ends_with("a=1&a=2&vsn=2.0.0"), "{list}");
}

/// A `vsn` in `params` must be that of the codec. Otherwise the first attempt would end the connection.
#[test]
fn vsn_param_must_equal_the_codec() {
    for members in
        [r#""params": {"vsn": "2.0.0"}"#, r#""params": {"vsn": "1.0.0"}, "vsn": "1.0.0""#]
    {
        read(members);
    }
    for members in
        [r#""params": {"vsn": "1.0.0"}"#, r#""params": [["vsn", "2.0.0"]], "vsn": "1.0.0""#]
    {
        let found = problems(&format!(r#""uri": "ws://localhost/", {members}"#));
        assert!(found[0].contains("key \"params\": the vsn"), "{found:?}");
    }
}

/// No error shows a number, with any features of serde_json.
#[test]
fn error_omits_a_huge_number() {
    let huge = "340282366920938463463374607431768211455";
    for key in ["uri", "reconnect", "restart", "vsn", "tls", "headers", "max_retries"] {
        for value in [huge.to_owned(), format!("-{huge}"), format!("{huge}.5"), format!("[{huge}]")]
        {
            let members = format!(r#""uri": "ws://localhost/", "{key}": {value}"#);
            let found = problems(&members).join(" ");
            assert!(!found.contains("3402823669"), "{members}: {found}");
        }
    }
    let found = problems(&format!(r#""uri": {huge}"#));
    assert!(found[0].contains("key \"uri\": it must be a string"), "{found:?}");
}

/// A format whose messages quote the document.
struct Quoting;

impl<'de> Deserializer<'de> for Quoting {
    type Error = serde::de::value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(serde::de::Error::custom("line 7: expected a quote: token = s3cret"))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

#[test]
fn error_omits_the_message_of_a_format() {
    let error = Connections::deserialize(Quoting, NONE).expect_err("no document");
    let message = "the document cannot be read: it is not valid in its format";
    assert_eq!(error.to_string(), message);
}

/// Join parameters are sent as they are in the document, whatever features of serde_json another
/// crate enables. `deserialize` reads their numbers in the same way.
#[test]
fn join_param_numbers_stay_numbers() {
    let document = json!({"connections": {"a": {
        "uri": "ws://localhost/socket/websocket",
        "max_retries": 3,
        "auto_join_channels": [["room:a", {"since": 12, "ratio": 0.5, "below": [-7]}]],
    }}});
    let text = document.to_string();
    let from_text = Connections::from_json(&text, NONE).expect("a document");
    let from_value = Connections::deserialize(document, NONE).expect("a document");
    let mut deserializer = serde_json::Deserializer::from_str(&text);
    let from_reader = Connections::deserialize(&mut deserializer, NONE).expect("a document");
    for connections in [from_text, from_value, from_reader] {
        let config = connections.get("a").expect("it is there").config().clone();
        let mut socket = Socket::new(config, 1, Time::ZERO);
        socket.connect(Time::ZERO);
        while socket.poll_action(Time::ZERO).is_some() {}
        let id = socket.connection_id().expect("an attempt");
        socket.handle_opened(Time::ZERO, id, phx_proto::Opened::default());
        let join = std::iter::from_fn(|| socket.poll_action(Time::ZERO))
            .find_map(phx_proto::Action::into_frame)
            .expect("the join");
        let join: Value = serde_json::from_slice(join.as_bytes()).expect("JSON");
        assert_eq!(join[4], json!({"since": 12, "ratio": 0.5, "below": [-7]}));
    }
}

/// A document that is nested deeper than serde_json accepts is an error, and does not overflow the
/// stack.
#[test]
fn deep_document_is_an_error() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let error = Connections::from_json(&deep, NONE).expect_err("too deep");
    assert!(error.to_string().contains("cannot be read"), "{error}");
}
