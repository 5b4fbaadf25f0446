//! Tests of the server's behaviour that no recording covers: scripted events, sleeping channels,
//! hostile input.

use core::time::Duration;

use serde_json::json;

use super::*;
use crate::time::Time;
use crate::wire::Frame;

fn at(ms: u64) -> Time {
    Time::from_millis(ms)
}

fn text(message: &str) -> Frame {
    Frame::Text(message.as_bytes().to_vec().into())
}

fn open(server: &mut Server, query: &str) -> PeerId {
    let path = format!("/socket/websocket?vsn=2.0.0{query}");
    server.connect(Time::ZERO, &HttpRequest { path, ..HttpRequest::default() }).unwrap().peer
}

fn joined(server: &mut Server, topic: &str) -> PeerId {
    let peer = open(server, "&user_id=1");
    let join = json!(["1", "1", topic, "phx_join", {}]).to_string();
    server.handle_frame(Time::ZERO, peer, &text(&join));
    sent(server);
    peer
}

/// All outputs so far, with frames as their text.
fn sent(server: &mut Server) -> Vec<String> {
    let mut lines = Vec::new();
    while let Some(output) = server.poll_output() {
        lines.push(match output {
            Output::Send { frame: Frame::Text(bytes), .. } => {
                String::from_utf8(bytes.to_vec()).unwrap()
            }
            Output::Send { frame: Frame::Binary(bytes), .. } => format!("{bytes:?}"),
            Output::Close { code, .. } => format!("close {code}"),
            Output::Drop { .. } => "drop".to_owned(),
        });
    }
    lines
}

#[test]
fn scripted_refusal_is_used_once() {
    let mut server = Server::new(ServerConfig::default());
    server.refuse_next(HttpRefusal::new(503, "busy"));
    let request =
        HttpRequest { path: "/socket/websocket?vsn=2.0.0".into(), ..HttpRequest::default() };
    assert_eq!(server.connect(at(0), &request).unwrap_err().status, 503);
    assert!(server.connect(at(0), &request).is_ok());
}

/// A request with HTTP fields must be an upgrade from an allowed origin. Protocol: CONN-13,
/// CONN-14.
#[test]
fn http_request_must_be_allowed_upgrade() {
    let mut server = Server::new(ServerConfig::default());
    let mut answer = |headers: &[(&str, &str)]| {
        let headers = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let path = "/socket/websocket?vsn=2.0.0".into();
        let request = HttpRequest { method: "GET".into(), path, headers };
        match server.connect(at(0), &request) {
            Ok(_) => (101, String::new()),
            Err(refusal) => (refusal.status, refusal.body),
        }
    };
    let upgrade =
        [("Connection", "keep-alive, Upgrade"), ("Upgrade", "websocket"), ("Host", "localhost")];
    let version = ("Sec-WebSocket-Version", "13");
    let key = ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
    let whole = [&upgrade[..], &[version, key]].concat();
    assert_eq!(answer(&whole).0, 101);
    assert_eq!(answer(&[("Origin", "https://localhost:4000")]).0, 101);
    assert_eq!(answer(&[("Origin", "https://evil.example")]).0, 403);
    // A request that is not a valid upgrade is refused with 400. The body names a problem.
    for (headers, problem) in [
        (&[("Host", "localhost")][..], "'upgrade' header must contain 'websocket'"),
        (&[&upgrade[..], &[version]].concat(), "'sec-websocket-key' header is absent"),
        (&[&upgrade[..], &[version, ("sec-websocket-key", "")]].concat(), "is absent"),
        (&[&upgrade[..], &[key]].concat(), "'sec-websocket-version' header must contain"),
        (&[version, key, ("Upgrade", "websocket")], "'connection' header must contain"),
    ] {
        let (status, body) = answer(headers);
        assert_eq!(status, 400, "{headers:?}");
        assert!(body.contains(problem), "{body}");
    }
}

/// Only the path is checked before the method. Any method other than GET is refused with 400 and an
/// empty body. Phoenix 1.7.24, 1.8.9 and 1.8.12, `websocket.ex` (`call/2`). Protocol: CONN-14.
#[test]
fn method_is_checked_after_path_only() {
    let mut server =
        Server::new(ServerConfig { token: Some("t".into()), ..ServerConfig::default() });
    for (method, path, status) in [
        ("POST", "/socket/websocket?vsn=2.0.0&token=t", 400),
        ("HEAD", "/socket/websocket?vsn=2.0.0&token=t", 400),
        // A GET would be refused with 403: the origin, `vsn`, the connect callback and the token.
        ("POST", "/socket/websocket?vsn=3.0.0&reject=rate", 400),
        ("POST", "/socket/websocket?%zz", 400),
        ("POST", "/socket", 404),
    ] {
        let headers = vec![("Origin".to_owned(), "https://evil.example".to_owned())];
        let request = HttpRequest { method: method.into(), path: path.into(), headers };
        let refusal = server.connect(at(0), &request).unwrap_err();
        assert_eq!(refusal.status, status, "{method} {path}");
        if status == 400 {
            assert_eq!(refusal, HttpRefusal::new(400, ""), "{method} {path}");
        }
    }
}

#[test]
fn scripted_channel_end_frees_topic() {
    let mut server = Server::new(ServerConfig::default());
    joined(&mut server, "room:a");
    server.crash_channel(at(1), "room:a");
    assert_eq!(sent(&mut server), [r#"["1","1","room:a","phx_error",{"reason":"channel_crash"}]"#]);
    assert_eq!(server.joined("room:a"), 0);
    server.close_channel(at(2), "room:a");
    assert!(sent(&mut server).is_empty());
    joined(&mut server, "room:a");
    server.close_channel(at(3), "room:a");
    assert_eq!(sent(&mut server), [r#"["1","1","room:a","phx_close",{}]"#]);
}

#[test]
fn killed_server_sends_no_close_frame() {
    let mut server = Server::new(ServerConfig::default());
    joined(&mut server, "presence:p");
    joined(&mut server, "presence:p");
    server.kill_all();
    assert_eq!(sent(&mut server), ["drop", "drop"]);
    assert!(server.peers().is_empty());
    assert_eq!(server.poll_timeout(), None);
}

/// Protocol: CLOSE-3.
#[test]
fn disconnect_by_id_spares_other_sockets() {
    let mut server = Server::new(ServerConfig::default().version(Version::V1_7_24));
    joined(&mut server, "room:a");
    let other = open(&mut server, "&user_id=2");
    server.disconnect_id(at(1), "user:1");
    assert_eq!(sent(&mut server), ["close 1000", "drop"]);
    assert_eq!(server.peers(), [other]);
}

#[test]
fn held_replies_skip_dead_channels() {
    let mut server = Server::new(ServerConfig::default());
    let peer = joined(&mut server, "room:a");
    let other = joined(&mut server, "room:b");
    server.hold_replies(true);
    server.handle_frame(at(1), peer, &text(r#"["1","2","room:a","ack",{}]"#));
    server.handle_frame(at(1), other, &text(r#"["1","2","room:b","ack",{}]"#));
    server.handle_frame(at(1), other, &text(r#"["1","3","room:b","nack",{}]"#));
    server.handle_frame(at(1), peer, &text(r#"[null,"9","phoenix","heartbeat",{}]"#));
    server.crash_channel(at(2), "room:a");
    assert_eq!(
        sent(&mut server),
        [
            r#"[null,"9","phoenix","phx_reply",{"response":{},"status":"ok"}]"#,
            r#"["1","1","room:a","phx_error",{"reason":"channel_crash"}]"#,
        ]
    );
    server.hold_replies(false);
    assert_eq!(
        sent(&mut server),
        [
            r#"["1","2","room:b","phx_reply",{"response":{},"status":"ok"}]"#,
            r#"["1","3","room:b","phx_reply",{"response":{},"status":"error"}]"#,
        ]
    );
}

#[test]
fn blocked_channel_replies_late_in_order() {
    let mut server = Server::new(ServerConfig::default());
    let peer = joined(&mut server, "room:a");
    server.handle_frame(at(0), peer, &text(r#"["1","2","room:a","block",{"ms":100}]"#));
    server.handle_frame(at(10), peer, &text(r#"["1","3","room:a","ack",{}]"#));
    server.handle_frame(at(10), peer, &text(r#"[null,"4","phoenix","heartbeat",{}]"#));
    assert_eq!(
        sent(&mut server),
        [r#"[null,"4","phoenix","phx_reply",{"response":{},"status":"ok"}]"#]
    );
    assert_eq!(server.poll_timeout(), Some(at(100)));
    server.handle_timeout(at(100));
    assert_eq!(
        sent(&mut server),
        [
            r#"["1","2","room:a","phx_reply",{"response":{"blocked":100},"status":"ok"}]"#,
            r#"["1","3","room:a","phx_reply",{"response":{},"status":"ok"}]"#,
        ]
    );
}

/// Protocol: JOIN-8.
#[test]
fn slow_join_delays_broadcasts_on_its_socket() {
    let mut server = Server::new(ServerConfig::default());
    let peer = joined(&mut server, "room:a");
    let join = r#"["2","2","slowjoin:1","phx_join",{"ms":50}]"#;
    server.handle_frame(at(0), peer, &text(join));
    server.broadcast(at(10), "room:a", "news", json!({ "n": 1 }));
    assert!(sent(&mut server).is_empty());
    server.handle_timeout(at(50));
    assert_eq!(
        sent(&mut server),
        [
            r#"["2","2","slowjoin:1","phx_reply",{"response":{"slept":50,"topic":"slowjoin:1"},"status":"ok"}]"#
                .to_owned(),
            r#"[null,null,"room:a","news",{"n":1}]"#.to_owned(),
        ]
    );
}

/// After the end of a client's stream, its socket still wakes up and finishes its join, but nothing is
/// sent to it.
#[test]
fn eof_stops_outputs_of_sleeping_socket() {
    let ends: [fn(&mut Server, PeerId); 4] = [
        |server, _| server.handle_timeout(at(50)),
        |server, peer| server.kill(peer),
        |server, _| server.kill_all(),
        |server, _| server.shutdown(at(20)),
    ];
    for eof_at in [10, 60] {
        for end in ends {
            let mut server = Server::new(ServerConfig::default());
            let peer = joined(&mut server, "room:a");
            let join = r#"["2","2","slowjoin:1","phx_join",{"ms":50}]"#;
            server.handle_frame(at(0), peer, &text(join));
            server.handle_eof(at(eof_at), peer);
            server.broadcast(at(eof_at), "room:a", "news", json!({ "n": 1 }));
            server.send_raw(peer, text("[]"));
            end(&mut server, peer);
            assert_eq!(sent(&mut server), [""; 0], "the stream ends at {eof_at}");
            assert_eq!(server.peers(), []);
        }
    }
}

#[test]
fn overdue_timeout_precedes_late_frame() {
    let config = ServerConfig::default().idle_timeout(Duration::from_millis(100));
    let mut server = Server::new(config);
    let peer = joined(&mut server, "room:a");
    server.handle_frame(at(150), peer, &text(r#"["1","2","room:a","ack",{}]"#));
    assert_eq!(sent(&mut server), ["close 1002", "drop"]);
}

#[test]
fn graphql_subscription_ends_with_its_connection() {
    let mut server = Server::new(ServerConfig::default());
    let ends: [fn(&mut Server, PeerId); 3] = [
        |server, peer| server.handle_eof(at(1), peer),
        |server, peer| server.handle_close(at(1), peer, Some(1000)),
        |server, _| server.kill_all(),
    ];
    for end in ends {
        let peer = joined(&mut server, "__absinthe__:control");
        let query = json!({"query": "subscription { postAdded { id } }"});
        let frame = json!(["1", "2", "__absinthe__:control", "doc", query]).to_string();
        server.handle_frame(at(0), peer, &text(&frame));
        assert_eq!(server.subscriptions().len(), 1);
        end(&mut server, peer);
        assert_eq!(server.subscriptions(), [""; 0]);
    }
}

#[test]
fn truncated_binary_frame_closes_socket() {
    let whole = b"\x00\x01\x01\x06\x0412room:aecho\xff";
    for len in 0..whole.len() {
        let mut server = Server::new(ServerConfig::default());
        let peer = joined(&mut server, "room:a");
        server.handle_frame(at(1), peer, &Frame::Binary(whole[..len].to_vec().into()));
        let expected: &[&str] = if len < whole.len() - 1 {
            &["close 1011", "drop"]
        } else {
            &["b\"\\x01\\x01\\x01\\x06\\x0212room:aok\""]
        };
        assert_eq!(sent(&mut server), expected, "{len} bytes");
    }
}

/// Protocol: CLOSE-5.
#[test]
fn invalid_utf8_text_closes_1007() {
    let mut server = Server::new(ServerConfig::default());
    let peer = joined(&mut server, "room:a");
    server.handle_frame(at(1), peer, &Frame::Text(b"[\"\xff\"]".to_vec().into()));
    assert_eq!(sent(&mut server), ["close 1007", "drop"]);
}

/// The echo equals the push, whichever features of serde_json another crate enables.
#[test]
fn numbers_are_echoed_as_numbers() {
    use super::codec::{Payload, Vsn, decode};
    let read = |payload: &str| {
        let frame = Frame::from(format!(r#"["1","2","t","e",{payload}]"#));
        let inbound = decode(Vsn::V2, &frame).ok()?;
        let Payload::Json(value) = inbound.payload else { return None };
        Some(value.to_string())
    };
    for (payload, echoed) in [
        ("12", "12"),
        ("-12", "-12"),
        ("-0", "0"),
        ("-0.0", "0"),
        ("0.5", "0.5"),
        ("18446744073709551615", "18446744073709551615"),
        ("[1,{\"a\":2,\"a\":3}]", "[1,{\"a\":2}]"),
        ("1.50", "1.5"),
    ] {
        assert_eq!(read(payload).as_deref(), Some(echoed), "{payload}");
    }
    assert_eq!(read("1e999"), None, "it exceeds a 64-bit float");
    assert_eq!(read(&"[".repeat(200)), None);
}

/// `wire/close_graceful_shutdown`, and the same server with `drainer: false`.
/// Protocol: CLOSE-2.
#[test]
fn shutdown_without_drainer_closes_1000() {
    for (drains, code) in [(true, 1012), (false, 1000)] {
        let mut server = Server::new(ServerConfig::default().drainer(drains));
        joined(&mut server, "room:a");
        open(&mut server, "");
        server.shutdown(at(1));
        let closes = [format!("close {code}"), "drop".into(), "close 1000".into(), "drop".into()];
        assert_eq!(sent(&mut server), closes);
    }
}

/// Runs the server's timers until `until` and returns all outputs.
fn settled(server: &mut Server, until: Time) -> Vec<String> {
    let mut lines = sent(server);
    while let Some(due) = server.poll_timeout().filter(|due| *due <= until) {
        server.handle_timeout(due);
        lines.extend(sent(server));
    }
    lines
}

/// A channel is a process of its own: the socket answers a heartbeat while the channel is busy. The
/// messages of one channel stay in order, and the socket itself handles joins.
/// Protocol: HB-7.
#[test]
fn heartbeat_reply_overtakes_channel_reply() {
    let mut overtaken = 0;
    for seed in 0..20 {
        let config = ServerConfig::default().seed(seed).channel_delay(Duration::from_millis(20));
        let mut server = Server::new(config);
        let peer = joined(&mut server, "room:a");
        for (ms, message) in [
            (0, json!(["1", "2", "room:a", "echo", {"n": 1}])),
            (1, json!(["1", "3", "room:a", "echo", {"n": 2}])),
            (2, json!([null, "4", "phoenix", "heartbeat", {}])),
            (3, json!(["1", "5", "room:a", "phx_leave", {}])),
        ] {
            server.handle_frame(at(ms), peer, &text(&message.to_string()));
        }
        let refs: Vec<String> = settled(&mut server, at(100))
            .iter()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
            .map(|line| format!("{} {}", line[3].as_str().unwrap(), line[1]))
            .collect();
        let channel: Vec<&str> =
            refs.iter().map(String::as_str).filter(|line| !line.contains("\"4\"")).collect();
        let replies = ["phx_reply \"2\"", "phx_reply \"3\"", "phx_reply \"5\"", "phx_close \"1\""];
        assert_eq!(channel, replies);
        overtaken += usize::from(refs[0] == "phx_reply \"4\"");
        // The reply to a join is never overtaken.
        let join = json!(["6", "6", "room:a", "phx_join", {"push_after": 1}]);
        server.handle_frame(at(100), peer, &text(&join.to_string()));
        assert!(sent(&mut server)[0].starts_with(r#"["6","6","room:a","phx_reply""#));
        let pushed = settled(&mut server, at(200));
        assert_eq!(pushed, [r#"["6",null,"room:a","joined_push",{"i":1}]"#]);
    }
    assert!((5..20).contains(&overtaken), "{overtaken} of 20");
}

/// Two clients join at the same time. The `presence_state` of each contains both clients, and the
/// diffs of the joins come after it.
#[test]
fn simultaneous_presence_joins_share_state() {
    let config = ServerConfig::default().seed(3).presence_delay(Duration::from_millis(50));
    let mut server = Server::new(config);
    let peers = [open(&mut server, ""), open(&mut server, "")];
    for (peer, key) in peers.into_iter().zip(["ann", "bob"]) {
        let join = json!(["1", "1", "presence:p", "phx_join", {"key": key}]).to_string();
        server.handle_frame(at(0), peer, &text(&join));
    }
    let first = sent(&mut server);
    assert_eq!(first.len(), 4, "{first:?}");
    assert!(first[3].contains("presence_state") && first[3].contains("ann"), "{first:?}");
    let later = settled(&mut server, at(50));
    let diffs: Vec<_> = later.iter().filter(|line| line.contains("presence_diff")).collect();
    assert_eq!(diffs.len(), 4, "{later:?}");
    assert!(diffs[..2].iter().all(|diff| diff.contains("ann")), "in order: {diffs:?}");
    assert_eq!(server.presence("presence:p").as_object().map(serde_json::Map::len), Some(2));
    // A killed server drops the pending diffs.
    server.handle_eof(at(51), peers[0]);
    server.kill_all();
    sent(&mut server);
    assert_eq!(settled(&mut server, at(200)), [""; 0]);
    let peer = open(&mut server, "");
    let join = json!(["1", "1", "presence:p", "phx_join", {"key": "cy"}]).to_string();
    server.handle_frame(at(200), peer, &text(&join));
    let lines = [sent(&mut server), settled(&mut server, at(300))].concat();
    let diff = lines.iter().find(|line| line.contains("presence_diff")).expect("a diff");
    assert!(diff.contains("cy"), "{diff}");
}

/// Without delays, everything happens at once and in the recorded order.
#[test]
fn default_has_no_delays() {
    let mut server = Server::new(ServerConfig::default());
    let peer = joined(&mut server, "room:a");
    for message in [r#"["1","2","room:a","echo",{}]"#, r#"[null,"3","phoenix","heartbeat",{}]"#] {
        server.handle_frame(at(1), peer, &text(message));
    }
    let lines = sent(&mut server);
    assert!(lines[0].contains(r#""2""#) && lines[1].contains(r#""3""#), "{lines:?}");
}
