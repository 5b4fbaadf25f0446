//! Attempts that fail on the way to the server: causes, counters and delays.

use std::time::Duration;

use crate::hand::{Hand, config};
use phx_proto::event::{DialKind, NextStep, Refusal, SocksRefusal, TlsKind};
use phx_proto::{Cause, Signal, Status};

/// The cause and the next step in the signal of the failure.
fn reported(hand: &mut Hand) -> (Cause, NextStep) {
    let signals = core::mem::take(&mut hand.signals);
    let found = signals.into_iter().find_map(|signal| match signal {
        Signal::ConnectFailed { cause, next, .. } => Some((cause, next)),
        _ => None,
    });
    found.expect("the failure is reported")
}

fn delay_after(failure: Cause) -> Duration {
    let mut hand = Hand::new(config());
    hand.connect();
    hand.failed(failure);
    match reported(&mut hand) {
        (_, NextStep::Retry { delay, .. }) => delay,
        (cause, next) => panic!("expected a retry after {cause}, got {next:?}"),
    }
}

#[test]
fn unsupported_dial_is_not_retried() {
    let mut hand = Hand::new(config());
    hand.connect();
    hand.failed(Cause::Unsupported { message: "no TLS".to_owned() });
    let (cause, next) = reported(&mut hand);
    assert_eq!(cause, Cause::Unsupported { message: "no TLS".to_owned() });
    assert_eq!(next, NextStep::Stop);
    assert!(matches!(hand.socket.status(), Status::GaveUp { .. }));
}

/// A TLS failure is retried soon, because certificates are renewed.
#[test]
fn tls_failure_is_retried_soon() {
    let delay = delay_after(Cause::Tls { kind: TlsKind::Expired, message: "expired".to_owned() });
    assert!(delay < Duration::from_secs(1), "{delay:?}");
}

/// After a refusal by the proxy, the retry waits longer than after a failure of the proxy to reach
/// the server.
#[test]
fn proxy_refusal_waits_longer_than_unreachable_server() {
    let refused = |status| delay_after(Cause::ProxyRefused(Refusal::new(status, vec![], "")));
    assert!(refused(407) >= Duration::from_secs(2), "{:?}", refused(407));
    assert!(refused(403) >= Duration::from_secs(2), "{:?}", refused(403));
    assert!(refused(502) < Duration::from_secs(1), "{:?}", refused(502));
}

/// A refusal by the proxy does not affect the credentials for the server.
#[test]
fn proxy_refusal_keeps_server_credentials() {
    let mut hand = Hand::new(config().credentials_refreshed(true));
    hand.connect();
    hand.failed(Cause::ProxyRefused(Refusal::new(401, vec![], "")));
    let (cause, next) = reported(&mut hand);
    assert_eq!(cause.name(), "proxy_refused");
    assert!(matches!(next, NextStep::Retry { .. }), "{next:?}");
    assert_eq!(cause.to_string(), "the proxy refused the tunnel: HTTP 401");
    // The proxy's 403 does not have the meaning that Phoenix gives to the status.
    let forbidden = Cause::ProxyRefused(Refusal::new(403, vec![], ""));
    assert_eq!(forbidden.to_string(), "the proxy refused the tunnel: HTTP 403");
}

/// Every kind of dial failure is in the cause, in the counters and in the logged text.
#[test]
fn dial_failure_kinds_are_counted() {
    for (kind, name) in [
        (DialKind::Dns, "dial_dns"),
        (DialKind::Refused, "dial_refused"),
        (DialKind::Unreachable, "dial_unreachable"),
        (DialKind::TimedOut, "dial_timed_out"),
        (DialKind::Tls, "dial_tls"),
        (DialKind::Other, "dial_other"),
    ] {
        let mut hand = Hand::new(config());
        hand.connect();
        hand.failed(Cause::Dial { kind, message: "it failed".to_owned() });
        let (cause, _) = reported(&mut hand);
        assert_eq!(cause.dial_kind(), Some(kind));
        assert_eq!(cause.name(), name);
        assert_eq!(hand.socket.stats().reconnects[name], 1);
    }
    let tls = Cause::Tls { kind: TlsKind::Other, message: String::new() };
    assert_eq!(tls.dial_kind(), Some(DialKind::Tls));
    assert_eq!(Cause::ConnectTimeout.dial_kind(), Some(DialKind::TimedOut));
    assert_eq!(Cause::HeartbeatTimeout.dial_kind(), None);
}

/// After a refusal, a SOCKS proxy is not tried again every five seconds, because proxies lock
/// accounts after wrong passwords.
#[test]
fn socks_refusal_waits_like_407() {
    for refusal in [SocksRefusal::Credentials, SocksRefusal::NotAllowed] {
        let delay = delay_after(Cause::SocksRefused(refusal));
        assert!(delay >= Duration::from_secs(2), "{refusal}: {delay:?}");
    }
    assert_eq!(Cause::SocksRefused(SocksRefusal::NotAllowed).name(), "socks_refused");
}
