//! Changes between two documents of connections, as a reload applies them.

use crate::options::other_options;
use phx_proto::service::Connections;
use phx_proto::{Config, Options};
use serde_json::{Value, json};

fn read(connections: &Value) -> Connections {
    let text = json!({ "connections": connections }).to_string();
    let lookup = |name: &str| (name == "TOKEN").then(|| "s3cret".to_owned());
    Connections::from_json(&text, lookup).unwrap_or_else(|error| panic!("{error}"))
}

/// A connection with an address and this key.
fn with(key: &str, value: &Value) -> Connections {
    let mut spec = json!({"uri": "ws://localhost/socket/websocket"});
    spec[key] = value.clone();
    read(&json!({ "a": spec }))
}

#[test]
fn names_are_added_removed_changed_or_unchanged() {
    let uri = |n: u8| json!({"uri": format!("wss://{n}.example.com/socket/websocket")});
    let before = read(&json!({"gone": uri(1), "other": uri(2), "same": uri(3)}));
    let after = read(&json!({"new": uri(1), "other": uri(4), "same": uri(3)}));
    let changes = before.changes(&after);
    assert_eq!(changes.added, ["new"]);
    assert_eq!(changes.removed, ["gone"]);
    assert_eq!(changes.changed, ["other"]);
    assert_eq!(changes.unchanged, ["same"]);
    assert!(!changes.is_empty());
    assert!(before.changes(&before.clone()).is_empty());
    assert_eq!(Connections::new().changes(&before).added, ["gone", "other", "same"]);
    assert_eq!(before.changes(&Connections::new()).removed, ["gone", "other", "same"]);
}

/// Two values of every key that is not an option. Neither is the default.
fn own_keys() -> [(&'static str, Value, Value); 14] {
    [
        ("allow_insecure", json!(true), json!(false)),
        ("attributes", json!({"sessionid": "x"}), json!({"sessionid": "y"})),
        ("auth_token", json!("s3cret"), json!("another")),
        ("auto_join_channels", json!({"room:a": {"x": 1}}), json!({"room:a": {"x": 2}})),
        ("connect_to", json!("127.0.0.1:1"), json!("127.0.0.1:2")),
        ("headers", json!({"x-key": "s3cret"}), json!({"x-key": "another"})),
        ("max_restarts", json!(7_100), json!(7_200)),
        ("max_restarts_msec", json!(71_000), json!(72_000)),
        ("params", json!({"token": "s3cret"}), json!({"token": "another"})),
        ("reconnect", json!(false), json!(true)),
        ("restart", json!("permanent"), json!("temporary")),
        ("tls", json!({"ca_file": "a.pem"}), json!({"ca_file": "b.pem"})),
        ("uri", json!("ws://localhost/a?key=s3cret"), json!("ws://localhost/a?key=another")),
        ("vsn", json!("1.0.0"), json!("2.0.0")),
    ]
}

#[test]
fn each_key_makes_a_difference() {
    let options = |options: Options| match serde_json::to_value(options) {
        Ok(Value::Object(options)) => options,
        other => panic!("{other:?}"),
    };
    let (defaults, others) = (options(Options::default()), options(other_options()));
    let options = others.iter().map(|(key, value)| (&**key, value.clone(), defaults[key].clone()));
    let keys: Vec<_> = own_keys().into_iter().chain(options).collect();
    for (key, one, two) in &keys {
        let (one, two) = (with(key, one), with(key, two));
        assert_eq!(one.changes(&two).changed, ["a"], "{key}");
        assert_eq!(one.changes(&one.clone()).unchanged, ["a"], "{key}");
        assert!(!format!("{:?}", one.changes(&two)).contains("s3cret"));
    }
    #[cfg(feature = "schema")]
    {
        let schema = Connections::json_schema();
        let known = schema["$defs"]["connection"]["properties"].as_object().expect("the keys");
        let mut covered: Vec<&str> = keys.iter().map(|(key, ..)| *key).collect();
        covered.sort_unstable();
        let mut known: Vec<&str> = known.keys().map(String::as_str).collect();
        known.sort_unstable();
        assert_eq!(covered, known);
    }
}

#[test]
fn notation_makes_no_difference() {
    let plain = with("heartbeat_interval_msec", &json!(30_000));
    assert!(plain.changes(&with("vsn", &json!("2.0.0"))).is_empty(), "both are defaults");
    assert!(plain.changes(&with("max_retries", &Value::Null)).is_empty());
    let pairs = with("params", &json!([["n", "7"]]));
    assert!(pairs.changes(&with("params", &json!({"n": 7}))).is_empty());
    let filled = with("auth_token", &json!("${TOKEN}"));
    assert!(filled.changes(&with("auth_token", &json!("s3cret"))).is_empty());
    let topics = with("auto_join_channels", &json!(["room:a"]));
    assert!(topics.changes(&with("auto_join_channels", &json!({"room:a": null}))).is_empty());
}

/// The documents are equal, but the values of a variable differ.
#[test]
fn rotated_secret_is_a_change() {
    let text = json!({"connections": {"a": {
        "uri": "ws://localhost/socket/websocket", "auth_token": "${TOKEN}",
    }}})
    .to_string();
    let read = |token: &str| {
        let lookup = |name: &str| (name == "TOKEN").then(|| token.to_owned());
        Connections::from_json(&text, lookup).expect("a document")
    };
    assert_eq!(read("one").changes(&read("one")).unchanged, ["a"]);
    assert_eq!(read("one").changes(&read("two")).changed, ["a"]);
}

/// Functions cannot be compared, so a specification with functions equals only its clones.
#[test]
fn specification_in_code_equals_only_its_clones() {
    let made = || {
        let config = Config::new("ws://localhost/socket/websocket").expect("a good URI");
        Connections::new().with("a", config)
    };
    let one = made();
    assert_eq!(one.changes(&one.clone()).unchanged, ["a"]);
    assert_eq!(one.changes(&made()).changed, ["a"]);
    let read = with("strict_payloads", &json!(false));
    let spec = read.get("a").expect("it is there").clone();
    let restart = spec.restart_policy().clone().intensity(9, std::time::Duration::from_secs(1));
    let other = Connections::new().with("a", spec.clone().restart(restart));
    assert_eq!(read.changes(&other).changed, ["a"]);
    assert_eq!(read.changes(&Connections::new().with("a", spec)).unchanged, ["a"]);
}

#[cfg(feature = "ring")]
#[test]
fn tls_files_count_by_content() {
    let pem = |label: &str, der: &[u8]| {
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n").into_bytes()
    };
    let own = |name: &str| {
        let key = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
        pem("CERTIFICATE", key.cert.der())
    };
    let (first, second) = (own("localhost"), own("localhost"));
    let loaded = |file: &str, pem: &[u8]| {
        let connections = with("tls", &json!({ "ca_file": file }));
        connections.load_tls(|_| Ok(pem.to_vec())).unwrap_or_else(|error| panic!("{error}"))
    };
    let before = loaded("a.pem", &first);
    assert!(before.changes(&loaded("moved.pem", &first)).is_empty(), "the same content");
    assert_eq!(before.changes(&loaded("a.pem", &second)).changed, ["a"], "a new certificate");
    let named = with("tls", &json!({"server_name": "localhost"}));
    let named = named.load_tls(|_| unreachable!("no file")).expect("a name");
    assert_eq!(before.changes(&named).changed, ["a"]);
    let identity = || {
        let made =
            rcgen::generate_simple_self_signed(["device".to_owned()]).expect("a certificate");
        let key = pem("PRIVATE KEY", &made.signing_key.serialize_der());
        let certificate = pem("CERTIFICATE", made.cert.der());
        (certificate, key)
    };
    let showing = |(certificate, key): &(Vec<u8>, Vec<u8>)| {
        let files = json!({ "cert_file": "cert.pem", "key_file": "key.pem" });
        let read = |path: &str| Ok(if path == "key.pem" { key } else { certificate }.clone());
        with("tls", &files).load_tls(read).expect("an identity")
    };
    let (one, two) = (identity(), identity());
    assert!(showing(&one).changes(&showing(&one)).is_empty());
    assert_eq!(showing(&one).changes(&showing(&two)).changed, ["a"], "a rotated identity");
    assert!(!format!("{before:?}").contains("BEGIN"));
}
