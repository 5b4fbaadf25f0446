//! Scenarios of connecting: refusals, credentials and timeouts.

use core::time::Duration;
use std::net::TcpListener;

use phx_tests::fault_proxy::Manner;
use serde_json::json;

use super::super::certificates::Authority;
use super::super::stage::{Stage, Target, signal};
use super::{HOUR, echoes, interrupted, json_of, ok, resumed};
use crate::rt::phx::client::{JoinFailed, JoinObstacle};
use crate::rt::phx::config::Backoff;
use crate::rt::phx::event::{Cause, NextStep, Warning};
use crate::rt::phx::testing::HttpRefusal;
use crate::rt::phx::{Config, JoinOptions, Roots, Signal, Tls};

const MS: fn(u64) -> Duration = Duration::from_millis;

/// `connect` fails with the status and the `Retry-After` of a refused upgrade.
pub(in super::super) async fn refused_upgrades(stage: &mut Stage) {
    let nowhere = stage.url().replace("/socket/websocket", "/nowhere/websocket");
    assert_ne!(nowhere, stage.url());
    for (config, status, retry_after) in [
        (stage.config().param("reject", "yes"), 403, None),
        (stage.config_to(&nowhere), 404, None),
        (stage.config().param("reject", "rate"), 429, Some(Duration::from_secs(1))),
        (stage.config().param("reject", "raise"), 500, None),
    ] {
        let error = stage.connect_with(config).await.expect_err("it is refused");
        match &error.cause {
            Cause::Refused(refusal) => {
                assert_eq!((refusal.status(), refusal.retry_after()), (status, retry_after));
                assert_eq!(status == 429, refusal.body_text() == "Too many requests");
            }
            other => panic!("{status}: {other:?}"),
        }
        assert!(error.to_string().contains(&status.to_string()), "{error}");
    }
}

/// A refused reconnect is retried after the delay for its status.
pub(in super::super) async fn refused_reconnects(stage: &mut Stage) {
    // 403 and 404 are left out, because their separate schedule has delays that are too long for a
    // test.
    let backoff = Backoff::steps_msec(&[30]).unwrap().jitter(0.0).unwrap();
    let (client, mut signals) = stage.start_watched(stage.config().refused_after(backoff));
    client.wait_connected().await.unwrap();
    let room = client.join(stage.topic("room", ""), json!({})).await.unwrap();
    let mut messages = room.messages();
    let busy = |header: &str| {
        let mut refusal = HttpRefusal::new(503, "busy");
        refusal.headers.push(("retry-after".to_owned(), header.to_owned()));
        refusal
    };
    for (refusal, min, max) in [
        (HttpRefusal::new(403, ""), MS(30), MS(30)),
        (HttpRefusal::new(410, "Gone"), MS(30), MS(30)),
        // The delay is `Retry-After` plus up to a fifth, so that clients do not retry all at once.
        (busy("1"), MS(1_000), MS(1_200)),
    ] {
        let status = refusal.status;
        stage.server().with(|server, _| {
            server.refuse_next(refusal);
            let peer = server.peers()[0];
            server.kill(peer);
        });
        interrupted(&mut messages).await;
        let delay = signal(&mut signals, |signal| match signal {
            Signal::ConnectFailed { cause: Cause::Refused(refusal), next, .. } => {
                assert_eq!(refusal.status(), status);
                let NextStep::Retry { delay, .. } = next else { panic!("{next:?}") };
                Some(delay)
            }
            _ => None,
        })
        .await;
        assert!((min..=max).contains(&delay), "{status}: {delay:?}");
        resumed(&mut messages).await;
        echoes(&room, json!({"after": status})).await;
    }
}

/// Parameters and `x-` headers of the configuration reach the socket.
pub(in super::super) async fn params_and_headers(stage: &mut Stage) {
    let config = stage.config().param("user_id", "4 2&ü=").param("a[b]", "c d");
    let config = config.header("x-my-token", "abc").unwrap();
    let config = config.header("authorization", "Bearer s3cret").unwrap();
    let client = stage.connect_with(config).await.unwrap();
    let room = client.join(stage.topic("room", ""), json!({})).await.unwrap();
    let me = json_of(&ok(&room, "whoami", json!({})).await);
    assert_eq!(me["params"], json!({"user_id": "4 2&ü=", "a": {"b": "c d"}, "vsn": "2.0.0"}));
    // Only x- headers reach the socket: wire/push_whoami_headers.
    assert_eq!(me["x_headers"], json!({"x-my-token": "abc"}));
    assert_eq!(me["transport"], "websocket");
    assert_eq!(me["auth_token"], json!(null));
}

/// The token reaches the socket; a server that ignores it causes a warning.
pub(in super::super) async fn auth_token(stage: &mut Stage) {
    // The base64 of this token has characters in which the standard alphabet and the URL alphabet
    // differ.
    let token = "??>~~~??>s3cret";
    let (client, mut signals) = stage.start_watched(stage.config().auth_token(token));
    let room = client.join(stage.topic("room", ""), json!({})).await.unwrap();
    let me = json_of(&ok(&room, "whoami", json!({})).await);
    if stage.target() == Target::Phoenix && me["auth_token"].is_null() {
        // Phoenix 1.7 ignores the token (wire/handshake_auth_token__1.7.24), which the client
        // reports.
        let warned = |signal| matches!(signal, Signal::Warning(Warning::AuthTokenNotAcknowledged));
        signal(&mut signals, |signal| warned(signal).then_some(())).await;
    } else {
        assert_eq!(me["auth_token"], token);
    }
}

/// The client refuses a server whose certificate authority is not trusted.
pub(in super::super) async fn wrong_authority(stage: &mut Stage) {
    let other = Authority::new();
    let other_roots = Tls::new(Roots::pem(other.pem.as_bytes()).unwrap());
    let default_roots = Config::new(&stage.url()).unwrap();
    for config in [stage.config().tls(other_roots), default_roots] {
        let error = stage.connect_with(config).await.expect_err("it is not trusted");
        assert!(matches!(error.cause, Cause::Tls { .. }), "{error:?}");
    }
    let client = stage.connect().await;
    let room = client.join(stage.topic("room", ""), json!({})).await.unwrap();
    echoes(&room, json!({"trusted": true})).await;
}

/// With a host that accepts TCP and sends nothing, the attempt ends with a connect timeout
/// (firezone/firezone#12137).
pub(in super::super) async fn silent_host(stage: &mut Stage) {
    // The kernel accepts the connection, but no process does.
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let scheme = if stage.target() == Target::Tls { "wss" } else { "ws" };
    let addr = silent.local_addr().unwrap();
    let mut url = format!("{scheme}://{addr}/socket/websocket");
    if stage.target() == Target::Faulty {
        url = stage.url();
        stage.proxy().treat_new(Manner::Stall, Manner::Stall);
    }
    let config = stage.config_to(&url).connect_timeout(MS(100));
    let error = stage.connect_with(config.clone()).await.expect_err("the host is silent");
    assert_eq!(error.cause, Cause::ConnectTimeout);

    // A join fails at its deadline, and the error contains the last cause that prevented it.
    let (client, mut signals) = stage.start_watched(config);
    let options = JoinOptions::new().deadline(HOUR);
    let join = client.join_with(stage.topic("room", ""), json!({}), options);
    let deadline = async {
        let failed = |signal| matches!(signal, Signal::ConnectFailed { .. }).then_some(());
        signal(&mut signals, failed).await;
        stage.clock().leap(HOUR);
    };
    match futures_util::join!(join, deadline).0 {
        Err(JoinFailed::Deadline { last }) => {
            assert_eq!(last, Some(JoinObstacle::Disconnected(Cause::ConnectTimeout)));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(client.stats().connections, 0);
}
