//! The upgrade machine against handshakes recorded from real Phoenix servers.
//!
//! The recordings do not contain the values that differ from run to run: `host`, `date`, the key and
//! its answer. The tests use the machine's own key and the accept value that belongs to it.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use phx_proto::config::auth_token_subprotocol;
use phx_proto::event::Refusal;
use phx_proto::upgrade::{
    Upgrade, UpgradeError, UpgradeRequest, UpgradeStep, Upgraded, accept_key,
};
use serde_json::Value;

const KEY: [u8; 16] = *b"0123456789abcdef";

/// One recorded request with its answer.
struct Handshake {
    what: String,
    target: String,
    request: BTreeMap<String, String>,
    status: u16,
    response: BTreeMap<String, String>,
    body: String,
}

fn handshakes(scenario: &str) -> Vec<Handshake> {
    let root = env!("CARGO_MANIFEST_DIR");
    let path = format!("{root}/../tests/fixtures/wire/{scenario}.jsonl");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("valid JSON"));
    let http: Vec<Value> = lines.filter(|line| line["kind"] == "http").collect();
    http.chunks(2)
        .map(|pair| {
            let [asked, answered] = pair else {
                panic!("{scenario}: a request without its answer")
            };
            assert_eq!((&asked["dir"], &answered["dir"]), (&"c2s".into(), &"s2c".into()));
            assert_eq!(asked["conn"], answered["conn"]);
            Handshake {
                what: format!("wire/{scenario} {}", asked["conn"]),
                target: asked["path"].as_str().expect("a path").to_owned(),
                request: serde_json::from_value(asked["headers"].clone()).expect("headers"),
                status: answered["status"].as_u64().expect("a status").try_into().unwrap(),
                response: serde_json::from_value(answered["headers"].clone()).expect("headers"),
                body: answered["body"].as_str().unwrap_or_default().to_owned(),
            }
        })
        .collect()
}

fn upgrade_for(handshake: &Handshake) -> Upgrade {
    let offers = handshake.request.get("sec-websocket-protocol");
    let subprotocols: Vec<String> =
        offers.map(|offers| offers.split(", ").map(str::to_owned).collect()).unwrap_or_default();
    Upgrade::new(&UpgradeRequest {
        host: "127.0.0.1:4000",
        target: &handshake.target,
        headers: &[],
        subprotocols: &subprotocols,
        key: KEY,
    })
    .expect("what the recorder sent is a legal request")
}

fn response_bytes(handshake: &Handshake) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {} Recorded\r\n", handshake.status);
    text.push_str("date: Sun, 06 Nov 1994 08:49:37 GMT\r\n");
    for (name, value) in &handshake.response {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if handshake.status == 101 {
        text.push_str(&format!("sec-websocket-accept: {}\r\n", accept_key(KEY)));
    }
    text.push_str("\r\n");
    text.push_str(&handshake.body);
    text.into_bytes()
}

fn run(upgrade: &mut Upgrade, reads: &[&[u8]]) -> Result<Upgraded, UpgradeError> {
    for bytes in reads {
        if let UpgradeStep::Done(upgraded) = upgrade.handle_read(bytes)? {
            return Ok(upgraded);
        }
    }
    panic!("undecided after the whole answer: {upgrade:?}");
}

/// Replays every handshake of a recording, and checks the request of this crate and the outcome.
fn replay(scenario: &str, expected: usize) -> Vec<Result<Upgraded, Refusal>> {
    let handshakes = handshakes(scenario);
    assert_eq!(handshakes.len(), expected, "handshakes in {scenario}");
    handshakes.iter().map(replay_one).collect()
}

fn replay_one(handshake: &Handshake) -> Result<Upgraded, Refusal> {
    let what = &handshake.what;
    assert_request_is_as_recorded(handshake);

    let response = response_bytes(handshake);
    let whole = run(&mut upgrade_for(handshake), &[&response]);
    let single: Vec<&[u8]> = response.chunks(1).collect();
    assert_eq!(run(&mut upgrade_for(handshake), &single), whole, "{what}, byte by byte");

    match whole {
        Ok(upgraded) => {
            assert_eq!(handshake.status, 101, "{what}");
            let selected = handshake.response.get("sec-websocket-protocol");
            assert_eq!(upgraded.protocol.as_ref(), selected, "{what}");
            assert!(upgraded.leftover.is_empty(), "{what}");
            Ok(upgraded)
        }
        Err(UpgradeError::Refused(refusal)) => {
            assert_eq!(refusal.status(), handshake.status, "{what}");
            assert_eq!(refusal.body_text(), handshake.body, "{what}");
            for (name, value) in &handshake.response {
                assert_eq!(refusal.header(name), Some(&**value), "{what}");
            }
            Err(refusal)
        }
        Err(error) => panic!("{what}: {error}"),
    }
}

fn assert_request_is_as_recorded(handshake: &Handshake) {
    let what = &handshake.what;
    let upgrade = upgrade_for(handshake);
    let text = std::str::from_utf8(upgrade.poll_write()).expect("ASCII");
    let head = text.strip_suffix("\r\n\r\n").expect("one head and nothing behind it");
    let mut lines = head.split("\r\n");
    let request_line = format!("GET {} HTTP/1.1", handshake.target);
    assert_eq!(lines.next(), Some(&*request_line), "{what}");
    let mut headers = BTreeMap::new();
    for line in lines {
        let (name, value) = line.split_once(": ").expect("a header");
        let before = headers.insert(name.to_ascii_lowercase(), value.to_owned());
        assert_eq!(before, None, "{what}: {name} twice");
    }
    assert_eq!(headers.remove("host").as_deref(), Some("127.0.0.1:4000"), "{what}");
    let key = headers.remove("sec-websocket-key");
    assert_eq!(key.as_deref(), Some("MDEyMzQ1Njc4OWFiY2RlZg=="), "{what}");
    let mut recorded = handshake.request.clone();
    // The recorder sent this header. This machine never sends it.
    let extensions = recorded.remove("sec-websocket-extensions");
    assert_eq!(extensions.is_some(), what.contains("compress_off"), "{what}");
    assert_eq!(headers, recorded, "{what}");
}

/// A handshake without a subprotocol opens without one.
/// Protocol: CONN-1.
#[test]
fn plain_handshakes_open_without_a_subprotocol() {
    for scenario in ["handshake_ok", "handshake_compress_off"] {
        let [Ok(upgraded)] = &replay(scenario, 1)[..] else { panic!("{scenario} was refused") };
        assert_eq!(upgraded.protocol, None);
    }
}

/// The subprotocols of the request are those that the server accepted in the recording.
/// Protocol: CONN-6.
#[test]
fn auth_token_is_offered_as_server_accepts() {
    let [Ok(upgraded)] = &replay("handshake_auth_token", 1)[..] else { panic!("refused") };
    assert_eq!(upgraded.protocol.as_deref(), Some("phoenix"));

    let recorded = &handshakes("handshake_auth_token")[0].request["sec-websocket-protocol"];
    assert_eq!(*recorded, format!("phoenix, {}", auth_token_subprotocol("secret-token-1")));
}

/// Phoenix 1.7.24 answers an auth token without a subprotocol. The connection opens.
/// Protocol: CONN-8.
#[test]
fn answer_without_subprotocol_opens() {
    let [Ok(upgraded)] = &replay("handshake_auth_token__1.7.24", 1)[..] else { panic!("refused") };
    assert_eq!(upgraded.protocol, None);
}

/// Variants of the auth token's encoding end with the recorded statuses.
/// Protocol: CONN-7, CONN-9.
#[test]
fn auth_token_variants_end_as_recorded() {
    let statuses: Vec<u16> = replay("handshake_auth_token_variants", 10)
        .iter()
        .map(|outcome| outcome.as_ref().map_or_else(Refusal::status, |_| 101))
        .collect();
    assert_eq!(statuses, [101, 101, 101, 500, 101, 500, 101, 101, 403, 101]);
}

/// A refusal keeps the status, the body and the `Retry-After` of the response.
/// Protocol: CONN-14.
#[test]
fn refusals_keep_status_body_and_retry_after() {
    let outcomes = replay("handshake_rejected", 3);
    let [Err(forbidden), Err(busy), Err(raised)] = &outcomes[..] else { panic!("{outcomes:?}") };
    assert_eq!((forbidden.status(), forbidden.body().len()), (403, 0));
    assert_eq!(forbidden.retry_after(), None);
    assert_eq!((busy.status(), &*busy.body_text()), (429, "Too many requests"));
    assert_eq!(busy.retry_after(), Some(Duration::from_secs(1)));
    assert_eq!(raised.status(), 500);
}

/// Ten values of `vsn` are accepted or refused as recorded.
/// Protocol: CONN-3.
#[test]
fn versions_end_as_recorded() {
    for scenario in ["handshake_vsn", "handshake_vsn__1.7.24"] {
        let accepted: Vec<bool> = replay(scenario, 10).iter().map(Result::is_ok).collect();
        let expected = [true, true, true, true, false, false, false, false, false, false];
        assert_eq!(accepted, expected, "{scenario}");
    }
}

/// A wrong path is answered with 404. A trailing slash is not wrong.
/// Protocol: CONN-1.
#[test]
fn wrong_paths_are_404() {
    let outcomes = replay("handshake_wrong_path", 4);
    let [Err(a), Err(b), Ok(_), Err(d)] = &outcomes[..] else { panic!("{outcomes:?}") };
    for refusal in [a, b, d] {
        assert_eq!((refusal.status(), &*refusal.body_text()), (404, "Not Found"));
        assert!(refusal.to_string().contains("/websocket"));
    }
}
