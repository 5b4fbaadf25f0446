//! Tokens, refusals and addresses: which requests contain them, and which output never does.

use core::time::Duration;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::cases::{cases, regressions};
use crate::hand::{Hand, check, config, secs};
use phx_proto::config::Uri;
use phx_proto::event::{ChannelEnd, CredentialsError, Refusal, Warning};
use phx_proto::wire::{Codec, V1, V2};
use phx_proto::{
    Cause, ChannelStatus, Config, ConfigError, Credentials, JoinParams, Payload, Signal, Status,
};
use proptest::prelude::*;
use serde_json::json;

/// Join parameters are computed for each attempt, so a rejoin after an hour carries the token of that
/// time. Reported in supabase/realtime-js#123 and supabase/supabase-js#1732.
/// Protocol: RETRY-6.
#[test]
fn rejoin_carries_a_fresh_token() {
    let token = Arc::new(AtomicUsize::new(1));
    let source = Arc::clone(&token);
    let params = JoinParams::from_fn(move |_| {
        Payload::from(json!({"token": source.load(Ordering::Relaxed)}))
    });
    let mut hand = Hand::open(config());
    hand.socket.join(hand.now, "room:a", params).unwrap();
    hand.drain();
    hand.answer_join("room:a");
    // After a crash.
    token.store(2, Ordering::Relaxed);
    hand.end_channel("room:a", "phx_error");
    hand.advance(secs(1));
    assert_eq!(hand.last_sent("room:a", "phx_join").payload, json!({"token": 2}));
    hand.answer_join("room:a");
    // After an outage.
    token.store(3, Ordering::Relaxed);
    hand.lost();
    hand.until_dial();
    hand.opened();
    assert_eq!(hand.last_sent("room:a", "phx_join").payload, json!({"token": 3}));
    // After a refusal.
    token.store(4, Ordering::Relaxed);
    hand.answer("room:a", "phx_join", "error", json!({"reason": "expired"}));
    hand.advance(secs(2));
    assert_eq!(hand.last_sent("room:a", "phx_join").payload, json!({"token": 4}));
}

/// The application replaces the credentials while an attempt with the old ones is in progress. The 401
/// concerns the old ones, so the new ones are tried before the client gives up.
#[test]
fn refusal_of_replaced_credentials_is_not_final() {
    let unauthorized = || Cause::Refused(Refusal::new(401, Vec::new(), ""));
    let fresh = |hand: &mut Hand| {
        let credentials = Credentials::new().auth_token("fresh");
        hand.socket.set_credentials(hand.now, credentials).expect("the same address");
    };
    let mut hand = Hand::new(config().auth_token("old"));
    hand.connect();
    fresh(&mut hand);
    hand.failed(unauthorized());
    assert!(matches!(hand.socket.status(), Status::Waiting { .. }), "{:?}", hand.socket.status());
    hand.until_dial();
    hand.failed(unauthorized());
    assert!(matches!(hand.socket.status(), Status::GaveUp { .. }), "{:?}", hand.socket.status());
    // A replacement before the attempt began is a part of that attempt.
    let mut hand = Hand::new(config().auth_token("old"));
    fresh(&mut hand);
    hand.connect();
    hand.failed(unauthorized());
    assert!(matches!(hand.socket.status(), Status::GaveUp { .. }), "{:?}", hand.socket.status());
    // The credential provider has no others than those that the application has just set.
    let mut hand = Hand::new(config().auth_token("old").credentials_refreshed(true));
    hand.connect();
    hand.failed(unauthorized());
    fresh(&mut hand);
    hand.until_dial();
    hand.socket.credentials_unchanged(hand.now, hand.dialled.expect("a dial"));
    assert_eq!(hand.socket.status(), Status::Connecting { attempt: 1 });
}

/// The application replaces the credentials after the driver has dialled. The attempt is judged by those
/// that it was dialled with.
#[test]
fn attempt_is_judged_by_dialled_token() {
    let warns = |before: &Credentials, dialled: &Credentials, after: &Credentials| {
        let mut hand = Hand::new(config().credentials(before.clone()));
        hand.connect();
        let id = hand.dialled.expect("a dial");
        hand.socket.set_credentials(hand.now, dialled.clone()).expect("the same address");
        hand.socket.handle_dialled(hand.now, id);
        for credentials in [before, after] {
            let set = hand.socket.set_credentials(hand.now, credentials.clone());
            set.expect("the same address");
        }
        hand.opened();
        hand.signals.contains(&Signal::Warning(Warning::AuthTokenNotAcknowledged))
    };
    let (none, token) = (Credentials::new(), Credentials::new().auth_token("t"));
    for other in [&none, &token] {
        assert!(warns(other, &token, &none));
        assert!(!warns(other, &none, &token));
    }
}

/// A 404 is a deploy only at the address that was dialled.
#[test]
fn attempt_is_judged_by_dialled_address() {
    let here = || Credentials::new().uri(Uri::parse("ws://localhost:4000/a/websocket").unwrap());
    let there = || Credentials::new().uri(Uri::parse("ws://localhost:4000/b/websocket").unwrap());
    let dial = |hand: &mut Hand, dialled: Credentials, after: Credentials| {
        hand.socket.set_credentials(hand.now, dialled).expect("this machine");
        hand.socket.handle_dialled(hand.now, hand.dialled.expect("a dial"));
        hand.socket.set_credentials(hand.now, after).expect("this machine");
    };
    // The address that is set after each dial does not count.
    for (opened, failed, is_deploy) in [
        ((here(), here()), (here(), there()), true),
        ((here(), here()), (there(), here()), false),
        ((here(), there()), (here(), here()), true),
        ((here(), there()), (there(), there()), false),
    ] {
        let mut hand = Hand::new(config().heartbeat_interval(Duration::ZERO));
        hand.connect();
        dial(&mut hand, opened.0, opened.1);
        hand.opened();
        hand.advance(secs(60));
        hand.lost();
        hand.until_dial();
        dial(&mut hand, failed.0, failed.1);
        hand.failed(Cause::Refused(Refusal::new(404, Vec::new(), "")));
        let (from, to) = if is_deploy { (250, 2_000) } else { (2_500, 5_000) };
        check(hand.reconnect_after().0, from, to, "the wait after a 404");
    }
}

/// The provider has no others than those that the application set after the dial, and the server has not
/// seen these.
#[test]
fn refusal_concerns_the_dialled_credentials() {
    for (status, replaced) in [(401, false), (401, true), (403, false), (403, true)] {
        let mut hand = Hand::new(config().credentials_refreshed(true));
        let set = |hand: &mut Hand, token: &str| {
            let credentials = Credentials::new().auth_token(token);
            hand.socket.set_credentials(hand.now, credentials).expect("the same address");
        };
        hand.connect();
        set(&mut hand, "of the provider");
        hand.socket.handle_dialled(hand.now, hand.dialled.expect("a dial"));
        if replaced {
            set(&mut hand, "of the application");
        }
        hand.failed(Cause::Refused(Refusal::new(status, Vec::new(), "")));
        hand.until_dial();
        hand.socket.credentials_unchanged(hand.now, hand.dialled.expect("a dial"));
        let goes_on = matches!(hand.socket.status(), Status::Connecting { .. });
        assert_eq!(goes_on, replaced, "{status}: {:?}", hand.socket.status());
    }
}

/// A credential provider takes a part of the timeout of the attempt.
#[test]
fn request_has_rest_of_connect_timeout() {
    let mut hand = Hand::new(config().connect_timeout(secs(10)));
    let timeout = |hand: &Hand| hand.socket.connect_request().expect("an address").timeout;
    assert_eq!(timeout(&hand), secs(10));
    hand.connect();
    assert_eq!(timeout(&hand), secs(10));
    let id = hand.dialled.expect("a dial");
    for (after, rest) in [(0, 10), (7, 3), (20, 0)] {
        hand.socket.handle_dialled(hand.now + secs(after), id);
        assert_eq!(timeout(&hand), secs(rest), "after {after} s");
    }
}

/// A refusal by the server and a network that is down are different causes. Reported in
/// phoenixframework/phoenix#4414 and phoenixframework/phoenix#2847.
#[test]
fn refused_token_differs_from_network_failure() {
    let causes = [
        Cause::Refused(Refusal::new(403, Vec::new(), "")),
        Cause::Dial { kind: phx_proto::event::DialKind::Refused, message: "no route".into() },
    ]
    .map(|failure| {
        let mut hand = Hand::new(config());
        hand.connect();
        hand.failed(failure);
        hand.reconnect_after().1
    });
    assert!(matches!(&causes[0], Cause::Refused(refusal) if refusal.status() == 403));
    assert!(matches!(&causes[1], Cause::Dial { .. }));
    assert_ne!(causes[0].name(), causes[1].name());
}

/// Rules decide what a status means, and the server's own code is in the body. Reported in
/// firezone/firezone#2464 and firezone/firezone#14735.
#[test]
fn refusal_body_is_readable() {
    let body = r#"{"type":"about:blank","code":"token_expired"}"#;
    let headers = vec![("content-type".to_owned(), "application/problem+json".to_owned())];
    let mut hand = Hand::new(config());
    hand.connect();
    hand.failed(Cause::Refused(Refusal::new(403, headers, body)));
    let Cause::Refused(refusal) = hand.reconnect_after().1 else { panic!("refused") };
    let problem: serde_json::Value = serde_json::from_slice(refusal.body()).expect("JSON");
    assert_eq!(problem["code"], "token_expired");
    assert_eq!(refusal.header("Content-Type"), Some("application/problem+json"));
}

/// A token is redacted wherever it was configured. Reported in phoenixframework/phoenix#5778 and
/// davidstump/SwiftPhoenixClient#292.
#[test]
fn token_is_never_printed() {
    let secret = "hunter2-hunter2";
    let uri = format!("ws://localhost:4000/socket/websocket?api_key={secret}");
    let config = Config::new(&uri)
        .expect("a good URI")
        .param("token", secret)
        .header("x-token", secret)
        .expect("a good header")
        .auth_token(secret);
    let mut hand = Hand::new(config.clone());
    hand.join("room:a");
    hand.connect();
    let request = hand.socket.connect_request().expect("an address that may be dialled");
    assert!(request.uri.target().contains(secret), "it is sent");
    let encoded = request.subprotocols[1].expose().to_owned();
    for printed in [
        format!("{config:?}"),
        format!("{request:?}"),
        format!("{}", request.uri),
        format!("{:?}", hand.socket),
        format!("{:?}", hand.actions),
        format!("{:?}", hand.signals),
    ] {
        assert!(!printed.contains(secret) && !printed.contains(&encoded), "{printed}");
    }
}

/// A token with a line break would start a header of its own. It is an error, and does not cause a
/// panic. Reported in firezone/firezone#12992.
#[test]
fn invalid_header_is_an_error() {
    for value in ["a\nb", "a\r\nx-admin: 1", "a\0b"] {
        assert!(config().header("authorization", value).is_err(), "{value:?}");
    }
    for name in ["", "a b", "a\n", "a:"] {
        assert!(config().header(name, "v").is_err(), "{name:?}");
    }
    // Parameters and subprotocols are encoded, so they may contain any characters.
    let hand = Hand::new(config().param("token", "a b\r\n&c").auth_token("a b\r\n"));
    let request = hand.socket.connect_request().expect("an address that may be dialled");
    let target = request.uri.target();
    assert!(target.contains("token=a%20b%0D%0A%26c"), "{target}");
    assert!(request.subprotocols[1].expose().chars().all(|c| c.is_ascii_graphic()));
}

/// Every refusal of the rejoin carries the server's reason, and the last one ends the channel.
/// Reported in firezone/firezone#9289.
#[test]
fn refused_rejoin_reports_reason_until_end() {
    let mut hand = Hand::joined(config().heartbeat_interval(secs(0)).join_rejections_max(1));
    hand.lost();
    hand.until_dial();
    hand.opened();
    let words = json!({"reason": "token expired"});
    for last in [false, true] {
        hand.forget();
        hand.answer("room:a", "phx_join", "error", words.clone());
        let signals = hand.take_signals();
        let Some(Signal::JoinRejected { rejection, last: reported, .. }) = signals.first() else {
            panic!("{signals:#?}")
        };
        assert_eq!((rejection.response.to_value().unwrap(), *reported), (words.clone(), last));
        if last {
            let cause = ChannelEnd::Rejected(rejection.clone());
            let closed = Signal::ChannelClosed { topic: "room:a".into(), cause };
            assert_eq!(signals.last(), Some(&closed));
        } else {
            hand.advance(secs(1));
        }
    }
}

#[test]
fn credentials_need_tls_off_loopback() {
    let off = |uri: &str| Credentials::new().param("t", "1").uri(Uri::parse(uri).expect("good"));
    let mut hand = Hand::new(config().param("old", "1"));
    let error = hand.socket.set_credentials(hand.now, off("ws://example.com/socket/websocket"));
    assert!(matches!(error, Err(CredentialsError::Config(_))), "{error:?}");
    let target =
        hand.socket.connect_request().expect("an address that may be dialled").uri.target();
    assert!(target.contains("old=1") && !target.contains("t=1"), "nothing is replaced: {target}");
    hand.socket.set_credentials(hand.now, off("wss://example.com/socket/websocket")).unwrap();
    assert_eq!(
        hand.socket.connect_request().expect("an address that may be dialled").uri.host(),
        "example.com"
    );
    hand.socket.set_credentials(hand.now, off("ws://127.0.0.1:9/socket/websocket")).unwrap();
    let insecure = Config::insecure("ws://example.org/socket/websocket").expect("a good URI");
    let mut hand = Hand::new(insecure);
    hand.socket.set_credentials(hand.now, off("ws://example.com/socket/websocket")).unwrap();
    assert_eq!(
        hand.socket.connect_request().expect("an address that may be dialled").uri.host(),
        "example.com"
    );
}

/// No order of calls sends credentials unencrypted to another machine.
#[test]
fn clear_text_is_never_dialled_by_default() {
    type Make = fn() -> Config;
    let elsewhere =
        || Credentials::new().auth_token("t").uri(Uri::parse("ws://example.com/s").unwrap());
    let secure = || Config::new("wss://example.com/socket/websocket").unwrap();
    let local = || Config::new("ws://localhost:4000/socket/websocket").unwrap();
    for config in [secure(), local()] {
        for config in [
            config.clone().credentials(elsewhere()),
            config.clone().credentials(elsewhere()).credentials_refreshed(true),
            config.clone().header("x-a", "b").unwrap().credentials(elsewhere()).param("a", "b"),
        ] {
            let mut hand = Hand::new(config);
            hand.connect();
            let refused = hand.socket.connect_request();
            assert!(matches!(refused, Err(ConfigError::Insecure { .. })), "{refused:?}");
            // `set_credentials` refuses such an address too.
            let error = hand.socket.set_credentials(hand.now, elsewhere()).unwrap_err();
            assert!(matches!(error, CredentialsError::Config(ConfigError::Insecure { .. })));
            hand.socket.set_credentials(hand.now, Credentials::new()).unwrap();
            hand.socket.connect_request().expect("the configured address");
        }
    }
    let asked: [Make; 2] = [
        || Config::insecure("ws://example.com/socket/websocket").unwrap(),
        || Config::insecure("wss://example.com/socket/websocket").unwrap(),
    ];
    for config in asked {
        let hand = Hand::new(config().credentials(elsewhere()));
        hand.socket.connect_request().expect("it was asked for");
    }
}

proptest! {
    #![proptest_config(cases(300, regressions!("credentials")))]

    /// In any order of calls, a request for `ws://` to another machine is made only if the
    /// configuration allows it.
    #[test]
    fn no_request_is_unencrypted_by_default(
        insecure in any::<bool>(),
        start in 0_usize..4,
        calls in proptest::collection::vec((any::<bool>(), 0_usize..4), 0..4),
    ) {
        const URIS: [&str; 4] = [
            "ws://example.com/s", "wss://example.com/s", "ws://127.0.0.1/s", "ws://[::2]/s?vsn=2.0.0",
        ];
        let made = if insecure { Config::insecure(URIS[start]) } else { Config::new(URIS[start]) };
        let Ok(mut config) = made else { return Ok(()) };
        let credentials = |nth: usize| Credentials::new().uri(Uri::parse(URIS[nth]).unwrap());
        for (at_construction, nth) in &calls {
            if *at_construction {
                config = config.credentials(credentials(*nth));
            }
        }
        let mut hand = Hand::new(config);
        for (at_construction, nth) in &calls {
            if !at_construction {
                let _ = hand.socket.set_credentials(hand.now, credentials(*nth));
            }
        }
        if let Ok(request) = hand.socket.connect_request() {
            prop_assert!(insecure || request.uri.is_secure() || request.uri.is_loopback());
        } else {
            prop_assert!(!insecure);
        }
    }
}

/// An address that is copied from another client may contain a `vsn`. It selects the codec.
/// Protocol: CONN-2.
#[test]
fn vsn_in_uri_chooses_the_codec() {
    let vsn = |config: Config| {
        let request = Hand::new(config).socket.connect_request().expect("an address");
        request.uri.target().split_once('?').map(|(_, query)| query.to_owned()).unwrap()
    };
    let of = |query: &str| Config::new(&format!("wss://h/socket/websocket{query}"));
    assert_eq!(vsn(of("").unwrap()), "vsn=2.0.0");
    assert_eq!(vsn(of("?apikey=k&vsn=1.0.0").unwrap()), "apikey=k&vsn=1.0.0");
    let mut hand = Hand::new(of("?vsn=1.0.0").unwrap());
    hand.join("room:a");
    hand.connect();
    hand.opened();
    hand.answer_join("room:a");
    assert_eq!(hand.socket.channel_status("room:a"), ChannelStatus::Joined, "an object was read");
    assert_eq!(vsn(of("?vsn=2%2E0.0").unwrap()), "vsn=2%2E0.0");
    // Two equal values are no contradiction. Any other pair is an error at the call that creates it.
    of("?vsn=1.0.0").unwrap().codec(Arc::new(V1)).expect("the same");
    for (query, codec) in
        [("?vsn=1.0.0", Arc::new(V2) as Arc<dyn Codec>), ("?vsn=2.0.0", Arc::new(V1))]
    {
        let error = of(query).unwrap().codec(codec).unwrap_err();
        assert!(matches!(error, ConfigError::Vsn { .. }), "{error:?}");
    }
    assert!(matches!(of("?vsn=1.0.0&vsn=2.0.0"), Err(ConfigError::Vsn { .. })));
    for query in ["?vsn=3.0.0", "?vsn", "?vsn=", "?vsn=%ff"] {
        let error = of(query).unwrap_err();
        assert_eq!(error, ConfigError::UnknownVsn, "{query}");
        assert!(error.to_string().contains("`Config::codec`"), "{error}");
    }
    // Parameters and the address of the credentials must match the codec too.
    let hand = Hand::new(of("").unwrap().param("vsn", "1.0.0"));
    assert!(matches!(hand.socket.connect_request(), Err(ConfigError::Vsn { .. })));
    let old = || Credentials::new().uri(Uri::parse("wss://h/s?vsn=1.0.0").unwrap());
    let mut hand = Hand::new(of("").unwrap());
    for other in [old(), Credentials::new().param("vsn", "1.0.0")] {
        let refused = hand.socket.set_credentials(hand.now, other);
        assert!(matches!(refused, Err(CredentialsError::Config(ConfigError::Vsn { .. }))));
    }
    let hand = Hand::new(of("").unwrap().credentials(old()));
    assert!(matches!(hand.socket.connect_request(), Err(ConfigError::Vsn { .. })));
}

/// One rule checks hosts, header names and header values in every place where they are given, so no
/// configuration is accepted that makes every request fail.
#[test]
#[cfg(all(feature = "service", feature = "upgrade"))]
fn hosts_and_headers_have_one_rule() {
    for host in ["a,b", "a\\b", "a\"b", "a<b", "a[b", "a]b", "u@h", "a^b", "a{b}"] {
        assert!(Uri::parse(&format!("ws://{host}/s")).is_err(), "{host}");
        assert!(
            phx_proto::config::Proxy::parse(&format!("http://{host}:1")).is_err() || host == "u@h",
            "{host}"
        );
    }
    let headers = [
        ("x-a", "b", true),
        ("x-a", " b", false),
        ("x-a", "b ", false),
        ("x-a", "b\tc", true),
        ("x-a", "b\r\nc", false),
        ("x a", "b", false),
        ("", "b", false),
        ("host", "b", false),
        ("Sec-WebSocket-Key", "b", false),
        ("content-length", "0", false),
        ("x-ä", "b", false),
    ];
    for (name, value, good) in headers {
        assert_eq!(config().header(name, value).is_ok(), good, "{name:?}: {value:?}");
        assert_eq!(Credentials::new().header(name, value).is_ok(), good, "{name:?}: {value:?}");
        let headers = [(name.to_owned(), value.to_owned())];
        let request = phx_proto::upgrade::UpgradeRequest {
            target: "/s",
            host: "h",
            headers: &headers,
            subprotocols: &[],
            key: [0; 16],
        };
        assert_eq!(phx_proto::upgrade::Upgrade::new(&request).is_ok(), good, "{name:?}: {value:?}");
        let document =
            json!({"connections": {"a": {"uri": "wss://h/s", "headers": {name: value}}}});
        let read = phx_proto::service::Connections::from_json(&document.to_string(), |_| None);
        assert_eq!(read.is_ok(), good, "{name:?}: {value:?}");
    }
}

/// The test plants a token in frames that cannot be read, in payloads of another type and in
/// refusals, and searches for it in the text of the errors. Each error has a method that returns the
/// full text.
#[test]
fn errors_print_no_server_text() {
    const TOKEN: &str = "s3cret-t0ken";
    #[derive(Debug, serde::Deserialize)]
    struct Numbers {
        #[allow(dead_code, reason = "only its type matters")]
        id: u64,
    }
    let mut shown = Vec::new();
    let mut show = |error: &dyn std::error::Error| {
        shown.push(format!("{error} {error:?} {error:#?}"));
    };
    for text in [
        TOKEN.to_owned(),
        format!(r#"[1,2,"{TOKEN}",{TOKEN}]"#),
        format!(r#"[null,null,"room:a","e",{{"{TOKEN}"}}"#),
    ] {
        for codec in [&V2 as &dyn Codec, &V1] {
            let error = codec.decode(&text.as_str().into()).unwrap_err();
            show(&error);
            assert!(error.evidence.escaped().contains(TOKEN), "{}", error.evidence.escaped());
        }
    }
    for value in [json!({"id": TOKEN}), json!(TOKEN), json!([TOKEN])] {
        let error = Payload::from(value).deserialize::<Numbers>().unwrap_err();
        show(&error);
        let phx_proto::wire::PayloadError::Unreadable { message, detail } = error else { panic!() };
        assert!(message.contains("line 1 column "), "{message}");
        assert!(!detail.expose().is_empty());
    }
    struct Failing;
    impl serde::Serialize for Failing {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom(TOKEN))
        }
    }
    let error = Payload::json(&Failing).unwrap_err();
    show(&error);
    let mut presence = phx_proto::Presence::<u64>::new();
    presence.joined();
    let state = Payload::from(json!({"ann": {"metas": [{"phx_ref": "F1", "is": TOKEN}]}}));
    show(&presence.sync_state(&state).unwrap_err());
    let mut hand = Hand::joined(config());
    hand.receive_text(&format!(r#"["{TOKEN}", {TOKEN}"#));
    assert!(matches!(hand.signals.last(), Some(Signal::ProtocolError { .. })));
    shown.push(format!("{:?}", hand.signals));
    let headers =
        [("Location", format!("https://u:{TOKEN}@h/#{TOKEN}")), ("Link", TOKEN.to_owned())];
    let headers = headers.map(|(name, value)| (name.to_owned(), value)).to_vec();
    let refusal = Refusal::new(302, headers, TOKEN);
    let cause = Cause::Refused(refusal);
    shown.push(format!("{cause} {cause:?}"));
    for shown in shown {
        assert!(!shown.contains(TOKEN), "{shown}");
    }
}
