//! The requests that the upgrade machine and the proxy machine write, and the requests that they
//! refuse.

use crate::cases::{cases, regressions};
use phx_proto::upgrade::{
    Connect, ProxyCredentials, TunnelRequest, Upgrade, UpgradeError, UpgradeRequest, UpgradeStep,
    accept_key,
};
use proptest::prelude::*;

const REQUEST: UpgradeRequest<'_> = UpgradeRequest {
    host: "example.org",
    target: "/socket/websocket",
    headers: &[],
    subprotocols: &[],
    key: *b"the sample nonce",
};

const CONNECT: TunnelRequest<'_> =
    TunnelRequest { host: "example.org", port: 443, credentials: None };

fn pair(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

fn written(request: &UpgradeRequest<'_>) -> Result<String, UpgradeError> {
    let upgrade = Upgrade::new(request)?;
    Ok(String::from_utf8(upgrade.poll_write().to_vec()).expect("a &str went in"))
}

fn with_header(name: &str, value: &str) -> Result<String, UpgradeError> {
    written(&UpgradeRequest { headers: &[pair(name, value)], ..REQUEST })
}

/// The whole request, byte by byte, with custom headers and two subprotocols.
/// Protocol: CONN-1, CONN-5, CONN-6, CONN-13.
#[test]
fn request_has_these_exact_bytes() {
    let request = UpgradeRequest {
        host: "[::1]:4000",
        target: "/socket/websocket?vsn=2.0.0&name=a%20b",
        headers: &[pair("x-device", "4711"), pair("X-Name", "J\u{f6}rg"), pair("x-device", "")],
        subprotocols: &["phoenix".to_owned(), "base64url.bearer.phx.Pz8/+w".to_owned()],
        ..REQUEST
    };
    let expected = "GET /socket/websocket?vsn=2.0.0&name=a%20b HTTP/1.1\r\n\
                    Host: [::1]:4000\r\n\
                    Connection: Upgrade\r\n\
                    Upgrade: websocket\r\n\
                    Sec-WebSocket-Version: 13\r\n\
                    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                    Sec-WebSocket-Protocol: phoenix, base64url.bearer.phx.Pz8/+w\r\n\
                    x-device: 4711\r\n\
                    X-Name: J\u{f6}rg\r\n\
                    x-device: \r\n\
                    \r\n";
    assert_eq!(written(&request).as_deref(), Ok(expected));
}

#[test]
fn accept_matches_rfc_6455() {
    assert_eq!(accept_key(*b"the sample nonce"), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

#[test]
fn bytes_written_piecemeal_add_up() {
    let whole = written(&REQUEST).expect("a legal request");
    let mut upgrade = Upgrade::new(&REQUEST).expect("a legal request");
    let mut sent = Vec::new();
    while let [first, ..] = upgrade.poll_write() {
        sent.push(*first);
        upgrade.handle_written(1);
    }
    assert_eq!(sent, whole.as_bytes());
    upgrade.handle_written(usize::MAX);
    assert!(upgrade.poll_write().is_empty());
}

/// A header whose name or value could start another line is refused, and the error does not contain
/// the value. Reported in firezone/firezone#12992.
#[test]
fn header_injection_is_refused() {
    for value in ["a\r\nX-Admin: 1", "a\nX-Admin: 1", "a\rb", "a\0b", "a\x7fb", "a\x1bb"] {
        let error = with_header("x-name", value).expect_err(value);
        let UpgradeError::InvalidHeader { name, .. } = &error else { panic!("{error:?}") };
        assert_eq!(name, "x-name");
        assert!(error.is_callers());
        assert!(!format!("{error:?} {error}").contains("Admin"), "the value may be secret");
    }
    for name in ["", "x name", "x:", "x\r\ny", "x\0", "n\u{e4}me", "x\""] {
        let error = with_header(name, "value");
        assert!(matches!(error, Err(UpgradeError::InvalidHeader { .. })), "{name:?}: {error:?}");
    }
    with_header("x-tab", "a\tb").expect("tabs are legal");
}

#[test]
fn handshake_headers_are_refused() {
    for name in [
        "Host",
        "UPGRADE",
        "connection",
        "Sec-WebSocket-Key",
        "sec-websocket-protocol",
        "Sec-WebSocket-Extensions",
        "sec-websocket-version",
        "Sec-WebSocket-Anything",
        "Content-Length",
        "Transfer-Encoding",
    ] {
        let error = with_header(name, "1");
        assert!(matches!(error, Err(UpgradeError::InvalidHeader { .. })), "{name:?}: {error:?}");
    }
    with_header("Authorization", "Bearer x").expect("not the machine's");
    with_header("Origin", "https://example.org").expect("not the machine's");
}

/// A target or a host is refused if it would break the head of the request.
#[test]
fn invalid_targets_and_hosts_are_refused() {
    for target in ["", "socket", "*", "/a b", "/a\r\nX: y", "/a\0", "/\u{e4}", "/a#b", "http://x/"]
    {
        let error = written(&UpgradeRequest { target, ..REQUEST });
        assert!(matches!(error, Err(UpgradeError::InvalidTarget { .. })), "{target:?}: {error:?}");
    }
    for host in
        ["", "a b", "a\r\nX: y", "a\0", "b\u{fc}cher.example", "u:p@host", "a/b", "a?b", "a,b"]
    {
        let error = written(&UpgradeRequest { host, ..REQUEST });
        assert!(matches!(error, Err(UpgradeError::InvalidHost { .. })), "{host:?}: {error:?}");
    }
}

/// A subprotocol is refused if it would break the list of subprotocols.
#[test]
fn invalid_subprotocols_are_refused() {
    for (offers, wrong) in [
        (&["phoenix", ""][..], 1),
        (&["phoenix", "a,b"], 1),
        (&["pho enix"], 0),
        (&["a\r\nX: y"], 0),
        (&["\u{e4}"], 0),
        (&["a", "b", "a"], 2),
    ] {
        let offers: Vec<String> = offers.iter().map(|&offer| offer.to_owned()).collect();
        match written(&UpgradeRequest { subprotocols: &offers, ..REQUEST }) {
            Err(UpgradeError::InvalidSubprotocol { index, .. }) => assert_eq!(index, wrong),
            other => panic!("{offers:?}: {other:?}"),
        }
    }
}

#[test]
fn debug_shows_no_secret() {
    let request = UpgradeRequest {
        target: "/socket/websocket?token=s3cret",
        headers: &[pair("x-api-key", "s3cret")],
        subprotocols: &["phoenix".to_owned(), "base64url.bearer.phx.s3cret".to_owned()],
        ..REQUEST
    };
    let mut upgrade = Upgrade::new(&request).expect("a legal request");
    let mut shown = format!("{request:?} {upgrade:?}");
    upgrade
        .handle_read(b"HTTP/1.1 401 No\r\nSet-Cookie: s3cret\r\n\r\ns3cret")
        .expect("no end yet");
    shown += &format!("{upgrade:?}");
    let accept = accept_key(request.key);
    let answer = format!(
        "HTTP/1.1 101 Ok\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSet-Cookie: s3cret\r\n\
         Sec-WebSocket-Protocol: base64url.bearer.phx.s3cret\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    let mut upgrade = Upgrade::new(&request).expect("a legal request");
    shown += &format!("{:?}", upgrade.handle_read(answer.as_bytes()).expect("an upgrade"));
    let credentials = Some(ProxyCredentials { username: "s3cret", password: "s3cret" });
    let request = TunnelRequest { credentials, ..CONNECT };
    let mut connect = Connect::new(&request).expect("a legal request");
    shown += &format!("{request:?} {connect:?}");
    let answer = b"HTTP/1.1 200 Ok\r\nSet-Cookie: s3cret\r\n\r\ns3cret";
    shown += &format!("{:?}", connect.handle_read(answer).expect("a tunnel"));
    assert!(shown.contains("x-api-key") && shown.contains("/socket/websocket"), "{shown}");
    assert!(!shown.contains("s3cret"), "{shown}");
}

/// The request of a CONNECT contains the authority twice, and the credentials in Base64.
#[test]
fn connect_writes_authority_and_credentials() {
    let credentials = Some(ProxyCredentials { username: "Aladdin", password: "open sesame" });
    let connect = Connect::new(&TunnelRequest { credentials, ..CONNECT }).expect("legal");
    // The credentials are the example of RFC 7617.
    let expected = "CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\
                    Proxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n";
    assert_eq!(connect.poll_write(), expected.as_bytes());

    for host in ["::1", "[::1]"] {
        let connect = Connect::new(&TunnelRequest { host, ..CONNECT }).expect("legal");
        assert!(connect.poll_write().starts_with(b"CONNECT [::1]:443 HTTP/1.1\r\n"), "{host}");
    }
}

#[test]
fn connect_refuses_unsendable_hosts_and_credentials() {
    for host in ["", "example.org:443", "a b", "a\r\nX: y", "u@h", "::1::2"] {
        let error = Connect::new(&TunnelRequest { host, ..CONNECT }).map(drop);
        assert!(matches!(error, Err(UpgradeError::InvalidHost { .. })), "{host:?}: {error:?}");
    }
    for (username, password) in [("a:b", "c"), ("a\n", "c"), ("a", "\0")] {
        let credentials = Some(ProxyCredentials { username, password });
        let error = Connect::new(&TunnelRequest { credentials, ..CONNECT }).map(drop);
        assert!(matches!(error, Err(UpgradeError::InvalidCredentials { .. })), "{error:?}");
    }
}

/// Any status 2xx opens the tunnel. The bytes after the head are those of the server.
#[test]
fn any_2xx_opens_the_tunnel() {
    for head in [
        "HTTP/1.0 200 Connection established\r\n\r\n",
        "HTTP/1.1 204\r\n\r\n",
        // Length headers have no meaning in the answer to a CONNECT.
        "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n",
    ] {
        let mut connect = Connect::new(&CONNECT).expect("legal");
        let answer = format!("{head}server");
        match connect.handle_read(answer.as_bytes()) {
            Ok(UpgradeStep::Done(tunnel)) => assert_eq!(tunnel.leftover, "server"),
            other => panic!("{head:?}: {other:?}"),
        }
    }
}

#[test]
fn proxy_asking_for_credentials_is_reported() {
    let mut connect = Connect::new(&CONNECT).expect("legal");
    let answer = b"HTTP/1.1 407 Proxy Authentication Required\r\n\
                   Proxy-Authenticate: Basic realm=\"x\"\r\nContent-Length: 4\r\n\r\nauth";
    let error = connect.handle_read(answer).expect_err("a refusal");
    assert!(
        error.to_string().contains("407") && error.to_string().contains("credentials"),
        "{error}"
    );
    let UpgradeError::ProxyRefused(refusal) = error else { panic!("{error:?}") };
    assert_eq!((refusal.status(), &*refusal.body_text()), (407, "auth"));
    assert_eq!(refusal.header("proxy-authenticate"), Some("Basic realm=\"x\""));
}

#[test]
fn other_proxy_answers_fail() {
    let mut connect = Connect::new(&CONNECT).expect("legal");
    assert_eq!(connect.handle_read(b"HTTP/1.1 502 Bad\r\n\r\nno such host"), Ok(UpgradeStep::More));
    let pending = connect.pending_refusal().expect("the head is known");
    assert_eq!(connect.handle_eof(), UpgradeError::ProxyRefused(pending));

    // The proxy answers with an upgrade.
    let mut connect = Connect::new(&CONNECT).expect("legal");
    let error = connect.handle_read(b"HTTP/1.1 101 Switching\r\n\r\n");
    assert!(matches!(error, Err(UpgradeError::ProxyRefused(_))), "{error:?}");

    let mut connect = Connect::new(&CONNECT).expect("legal");
    let error = connect.handle_read(b"\x05\xff");
    assert!(matches!(error, Err(UpgradeError::NotHttp { .. })), "a SOCKS proxy: {error:?}");
    assert_eq!(Connect::new(&CONNECT).unwrap().handle_eof(), UpgradeError::Eof { received: 0 });
}

proptest! {
    #![proptest_config(cases(256, regressions!("upgrade_requests")))]

    /// Whatever the input is, the head has exactly the intended lines.
    #[test]
    fn no_input_adds_a_header_line(
        host in "\\PC{0,8}|[a-z\r\n:]{1,8}",
        target in "/[ -~\r\n\0]{0,12}|\\PC{0,8}",
        headers in prop::collection::vec(("[a-zA-Z\r\n: -]{1,6}", "[ -~\r\n\0\t]{0,8}|\\PC{0,8}"), 0..3),
        subprotocols in prop::collection::vec("[a-z,\r\n ]{0,5}", 0..3),
        key in any::<[u8; 16]>(),
    ) {
        let request = UpgradeRequest {
            host: &host, target: &target, headers: &headers, subprotocols: &subprotocols, key,
        };
        match written(&request) {
            Err(error) => prop_assert!(error.is_callers()),
            Ok(text) => {
                let lines = 1 + 5 + usize::from(!subprotocols.is_empty()) + headers.len() + 1;
                prop_assert_eq!(text.matches("\r\n").count(), lines, "{:?}", text);
                prop_assert_eq!(text.matches(['\r', '\n']).count(), 2 * lines, "{:?}", text);
                prop_assert_eq!(text.find("\r\n\r\n"), Some(text.len() - 4));
            }
        }
    }
}
