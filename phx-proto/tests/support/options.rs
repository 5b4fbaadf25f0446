//! A value other than the default for every option.

#![allow(unreachable_pub, reason = "each test file uses its part")]

use phx_proto::Options;
use serde_json::{Value, json};

/// Options whose values all differ from their defaults. New options are included without a change
/// here. Without the features `websocket` and `deflate`, the transport and the compression keep their
/// defaults.
pub fn other_options() -> Options {
    let defaults = serde_json::to_value(Options::default()).expect("plain data");
    let mut others = defaults.clone();
    for (key, value) in others.as_object_mut().expect("an object") {
        *value = other(key, value);
    }
    let others = serde_json::from_value::<Options>(others).expect("options");
    for (key, value) in serde_json::to_value(&others).expect("plain data").as_object().unwrap() {
        let is_fixed = key == "transport" && cfg!(not(feature = "websocket"))
            || key == "compression" && cfg!(not(feature = "deflate"));
        assert!(is_fixed || *value != defaults[key], "{key} is the default");
    }
    others
}

fn other(key: &str, default: &Value) -> Value {
    match (key, default) {
        ("close_rules", _) => json!({"1000": {"retry_within_msec": [1.5, 2]}, "4001": "stop"}),
        ("status_rules", _) => json!({"404": "backoff"}),
        ("reconnect_after_msec", _) => json!({
            "schedule": {"exponential": {"first": 1.5, "factor": 1.5, "max": 9}},
            "jitter": 0.25, "floor": 0.5,
        }),
        (_, Value::Object(_)) => {
            json!({"schedule": {"steps": [1.5, 3]}, "jitter": 0.25, "floor": 0.5})
        }
        (_, Value::Array(_)) => json!([1.5, 3]),
        ("compression", default) if cfg!(not(feature = "deflate")) => default.clone(),
        ("compression", _) => json!({
            "receive_window_bits": 9, "send_window_bits": 10, "receive_takeover": false,
            "send_takeover": false, "send_bytes_min": 7,
        }),
        (_, Value::Null) => json!(7),
        (_, Value::Bool(value)) => json!(!value),
        (_, Value::Number(number)) if key.ends_with("_msec") => {
            json!(number.as_f64().expect("a number") + 1.234_567)
        }
        (_, Value::Number(number)) => json!(number.as_u64().expect("a whole number") + 1),
        ("transport", default) if cfg!(not(feature = "websocket")) => default.clone(),
        ("transport", _) => json!("websocket"),
        (_, Value::String(_)) => panic!("add another value of `{key}`"),
    }
}
