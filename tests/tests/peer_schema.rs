//! The JSON Schema of the connections document, tested with Ajv: it accepts every document that the
//! reader accepts, and rejects those that the reader rejects because of their shape.

use core::time::Duration;
use std::cell::RefCell;

use phx_proto::service::Connections;
use phx_tests::peers::{Script, available};
use serde_json::{Value, json};

/// How long one document may take.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// Ajv with our schema.
struct Schema(RefCell<Script>);

impl Schema {
    fn start(test: &str) -> Option<Self> {
        if !available(test) {
            return None;
        }
        let mut node = Script::node("schema.mjs", &[]);
        node.send(&Connections::json_schema());
        assert_eq!(node.receive(ANSWER_MAX).expect("the script runs"), json!({"compiled": true}));
        Some(Self(RefCell::new(node)))
    }

    /// Whether the schema accepts the document, and its errors.
    fn validate(&self, document: &Value) -> (bool, Value) {
        let mut node = self.0.borrow_mut();
        node.send(document);
        let answer = node.receive(ANSWER_MAX).expect("the script runs");
        (answer["valid"] == true, answer["errors"].clone())
    }
}

/// Reads a document with a value for every variable that has no default.
fn read(document: &Value) -> Result<Connections, String> {
    let set = |name: &str| (name != "PHOENIX_BACKEND_URL").then(|| "1.0.0".to_owned());
    let read = Connections::from_json(&document.to_string(), set);
    read.map_err(|error| error.to_string())
}

/// The schema accepts the example, and its errors for broken documents name the violated keyword.
#[test]
fn schema_accepts_example_and_names_errors() {
    let Some(schema) = Schema::start("schema") else { return };
    let example = include_str!("../../phx-proto/examples/connections.example.json");
    let example: Value = serde_json::from_str(example).expect("the example");
    let (valid, errors) = schema.validate(&example);
    assert!(valid, "{errors:#}");

    let mut named = example.clone();
    named["$schema"] = "connections.schema.json".into();
    assert!(schema.validate(&named).0 && read(&named).is_ok(), "for editors");

    for (pointer, value, wrong) in [
        ("/connections/backend_service/header", json!({}), "additionalProperties"),
        ("/connections/backend_service/max_retries", json!("10"), "type"),
        ("/connections/backend_service/heartbeat_interval_msec", json!(-1), "minimum"),
        ("/connections/local_tools/restart", json!("always"), "enum"),
        ("/connections/local_tools/uri", json!(null), "type"),
        ("/connection", json!({}), "additionalProperties"),
    ] {
        let mut bad = example.clone();
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
        bad.pointer_mut(parent).expect("it is there")[key] = value;
        let (valid, errors) = schema.validate(&bad);
        assert!(!valid, "{pointer}");
        assert!(errors.to_string().contains(&format!("\"keyword\":\"{wrong}\"")), "{errors:#}");
        assert!(read(&bad).is_err(), "{pointer}");
    }
    assert!(!schema.validate(&json!({"connections": {"": {"uri": "ws://localhost/"}}})).0);
    assert!(!schema.validate(&json!({})).0);
}

/// Values to try with every key: each is valid for some keys and invalid for others.
fn values() -> Vec<Value> {
    let texts = [
        "balanced",
        "x",
        "",
        "1.0.0",
        "2.0.0",
        "3.0.0",
        "transient",
        "${V}",
        "sessionid",
        "phoenix",
    ];
    let mut values: Vec<Value> = texts.map(Value::from).into();
    values.extend([0, 1, 7, u32::MAX.into(), u64::from(u32::MAX) + 1, u64::MAX].map(Value::from));
    values.extend([
        json!(null),
        json!(true),
        json!(false),
        json!(-1),
        json!(1.5),
        json!([]),
        json!([1]),
        json!([1, 2]),
        json!([1, 2, 3]),
        json!([1, "2"]),
        json!([-1, 2]),
        json!(["x"]),
        json!(["phoenix"]),
        json!(["x", "y"]),
        json!([["x", "y"]]),
        json!([["x", 7]]),
        json!([["x", null]]),
        json!([["x", {"y": 1}]]),
        json!([["x"]]),
        json!([["x", "y", "z"]]),
        json!([["Session", "y"]]),
        json!([[7, "y"]]),
        json!([null]),
        json!({}),
        json!({"x": "y"}),
        json!({"x": 7}),
        json!({"x": true}),
        json!({"x": null}),
        json!({"x": {}}),
        json!({"x": []}),
        json!({"session_id": "x"}),
        json!({"time": "x"}),
        json!({"phoenix": {}}),
        json!({"ca_file": "x"}),
        json!({"ca_file": 7}),
        json!({"ca_file": null}),
        json!({"cert_file": "x"}),
        json!({"key_file": "x"}),
        json!({"cert_file": "x", "key_file": "x"}),
        json!({"server_name": "x", "colour": "x"}),
        json!({"4001": "stop", "1000": "retry"}),
        json!({"1012": {"retry_within_msec": [1, 2.5]}}),
        json!({"1012": {"retry_within_msec": [1]}}),
        json!({"1012": {"retry_within_msec": [1, 2], "stop": null}}),
        json!({"404": "backoff"}),
        json!({"receive_window_bits": 9, "send_takeover": false, "send_bytes_min": 0}),
        json!({"send_window_bits": 8}),
        json!({"receive_window_bits": 16}),
        json!({"send_bytes_min": -1}),
        json!({"schedule": {"steps": [1, 2.5]}, "jitter": 0.25, "floor": 0}),
        json!({"schedule": {"steps": []}}),
        json!({"schedule": {"exponential": {"first": 1, "factor": 2, "max": 9}}}),
        json!({"schedule": {"exponential": {"first": 1, "factor": 1, "max": 9}}}),
        json!({"schedule": {"exponential": {"first": 1, "factor": 2}}}),
        json!({"schedule": {"exponential": [1, 2, 9]}}),
        json!({"schedule": {"steps": [1]}, "jitter": 1.5}),
        json!({"jitter": 0.25}),
    ]);
    values
}

/// The schema and the reader agree for every key and every kind of value, except where a schema
/// cannot express the rule.
#[test]
fn schema_agrees_with_reader() {
    let Some(schema) = Schema::start("schema") else { return };
    let keys = Connections::json_schema()["$defs"]["connection"]["properties"].clone();
    let mut accepted = 0;
    for key in keys.as_object().expect("the keys").keys().map(String::as_str) {
        for value in values() {
            let mut spec = json!({"uri": "ws://localhost/socket/websocket"});
            spec[key] = value.clone();
            let document = json!({"connections": {"a": spec}});
            let (valid, errors) = schema.validate(&document);
            let read = read(&document).map(|_| ());
            let beyond_a_schema = match key {
                // A schema cannot check whether a text is a valid address.
                "uri" | "connect_to" => value.is_string(),
                // A schema does not know the value of a variable.
                "restart" => value == "${V}",
                // JavaScript's numbers cannot represent every 64-bit integer.
                _ => value == json!(u64::MAX),
            };
            if !beyond_a_schema {
                assert_eq!(valid, read.is_ok(), "{key}: {value}: {read:?} {errors}");
            }
            accepted += usize::from(valid);
        }
    }
    assert!(accepted > 200, "{accepted} were accepted");
}
