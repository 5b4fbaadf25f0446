//! The tunnel through a SOCKS5 proxy: requests, and answers that are cut into reads at any place.

use crate::cases::{cases, regressions};
use phx_proto::event::SocksRefusal;
use phx_proto::upgrade::{ProxyCredentials, Socks5, TunnelRequest, UpgradeError, UpgradeStep};
use proptest::prelude::*;

const NO_ADDRESS: [u8; 8] = [0, 1, 0, 0, 0, 0, 0, 0];

fn socks(host: &str, credentials: Option<(&str, &str)>) -> Result<Socks5, UpgradeError> {
    let credentials =
        credentials.map(|(username, password)| ProxyCredentials { username, password });
    Socks5::new(&TunnelRequest { host, port: 443, credentials })
}

/// Writes all pending bytes.
fn written(socks: &mut Socks5) -> Vec<u8> {
    let bytes = socks.poll_write().to_vec();
    socks.handle_written(bytes.len());
    bytes
}

/// The reply that grants the tunnel, with the address that the proxy connects from.
fn granted(address: &[u8]) -> Vec<u8> {
    [&[5, 0, 0], address, &[0x1f, 0x90]].concat()
}

/// The bytes that were written, and either the bytes after the last answer or the reason why there is
/// no tunnel.
type Outcome = (Vec<u8>, Result<Vec<u8>, UpgradeError>);

fn outcome<'a>(
    credentials: Option<(&str, &str)>,
    reads: impl IntoIterator<Item = &'a [u8]>,
) -> Outcome {
    let mut socks = socks("example.org", credentials).expect("a legal request");
    let mut sent = written(&mut socks);
    let mut reads = reads.into_iter();
    while let Some(bytes) = reads.next() {
        let progress = socks.handle_read(bytes);
        sent.extend(written(&mut socks));
        match progress {
            Ok(UpgradeStep::More) => {}
            Ok(UpgradeStep::Done(tunnel)) => {
                let unread = reads.flatten().copied();
                return (sent, Ok(tunnel.leftover.iter().copied().chain(unread).collect()));
            }
            Err(error) => return (sent, Err(error)),
        }
    }
    (sent, Err(socks.handle_eof()))
}

#[test]
fn address_is_sent_in_its_own_form() {
    let sent = |host: &str| {
        let mut socks = socks(host, None).expect("a legal host");
        assert_eq!(written(&mut socks), [5, 1, 0]);
        assert_eq!(socks.handle_read(&[5, 0]), Ok(UpgradeStep::More));
        written(&mut socks)
    };
    assert_eq!(sent("example.org"), b"\x05\x01\x00\x03\x0bexample.org\x01\xbb");
    assert_eq!(sent("10.1.2.3"), b"\x05\x01\x00\x01\x0a\x01\x02\x03\x01\xbb");
    let address = b"\x05\x01\x00\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x01\xbb";
    assert_eq!(sent("::1"), address);
    assert_eq!(sent("[::1]"), address);
    let longest = "a".repeat(255);
    assert_eq!(sent(&longest).len(), 4 + 1 + 255 + 2);
}

#[test]
fn unsendable_values_are_refused() {
    let long = "a".repeat(256);
    for host in ["", "a b", "a:1", "[::1]:1", "[nope]", "fe80::1%eth0", "ü", "a\r\n", &long] {
        let error = socks(host, None).expect_err(host);
        assert!(matches!(error, UpgradeError::InvalidHost { .. }) && error.is_callers(), "{error}");
    }
    for credentials in [("", "p"), (long.as_str(), "p"), ("u", long.as_str())] {
        let error = socks("h", Some(credentials)).expect_err("too long or empty");
        assert!(matches!(error, UpgradeError::InvalidCredentials { .. }), "{error}");
        assert!(error.is_callers());
    }
}

#[test]
fn credentials_are_sent_only_on_request() {
    let given = Some(("user", "s3cret"));
    let (sent, tunnel) = outcome(given, [&[5, 0][..], &granted(&NO_ADDRESS[1..6])]);
    assert!(sent.starts_with(&[5, 2, 0, 2, 5, 1, 0, 3]), "{sent:?}");
    assert_eq!(tunnel, Ok(vec![]));

    let answers = [&[5, 2][..], &[1, 0], &granted(&NO_ADDRESS[1..6]), b"hi"];
    let (sent, tunnel) = outcome(given, answers);
    assert!(sent.starts_with(b"\x05\x02\x00\x02\x01\x04user\x06s3cret\x05\x01\x00\x03"));
    assert_eq!(tunnel, Ok(b"hi".to_vec()));
    // Some proxies answer with the version of the protocol instead of the version of the
    // sub-negotiation.
    assert!(outcome(given, [&[5, 2, 5, 0][..], &granted(&NO_ADDRESS[1..6])]).1.is_ok());
    let (_, empty) = outcome(Some(("user", "")), [&[5, 2, 1, 0][..], &granted(&NO_ADDRESS[1..6])]);
    assert!(empty.is_ok());
}

#[test]
fn reply_accepts_every_address_form() {
    let name = [&[3, 11][..], b"example.org"].concat();
    for address in [&[1, 10, 0, 0, 1][..], &[[4].as_slice(), &[0; 16]].concat(), &name, &[3, 0]] {
        let answers = [&[5, 0][..], &granted(address), b"\x16"].concat();
        assert_eq!(outcome(None, [&answers[..]]).1, Ok(b"\x16".to_vec()), "{address:?}");
    }
}

#[test]
fn refusal_names_its_reason() {
    let answered = |bytes: &[u8]| {
        let error = outcome(Some(("user", "s3cret")), [bytes]).1.expect_err("no tunnel");
        assert!(!format!("{error} {error:?}").contains("s3cret"));
        error
    };
    let credentials = UpgradeError::SocksRefused(SocksRefusal::Credentials);
    assert_eq!(answered(&[5, 0xff]), credentials);
    assert_eq!(answered(&[5, 2, 1, 1]), credentials);
    assert!(
        credentials.to_string().contains("the proxy credentials are missing or wrong"),
        "{credentials}"
    );
    // The answer may end with the code.
    let forbidden = answered(&[5, 0, 5, 2]);
    assert_eq!(forbidden, UpgradeError::SocksRefused(SocksRefusal::NotAllowed));
    for (code, text) in [
        (1, "general failure"),
        (3, "network is unreachable"),
        (4, "host is unreachable"),
        (5, "connection was refused"),
        (6, "too long"),
        (7, "does not support CONNECT"),
        (8, "type of address"),
        (99, "reply 99"),
    ] {
        let error = answered(&[5, 0, 5, code]);
        assert_eq!(error, UpgradeError::SocksFailed { code });
        assert!(error.to_string().contains(text), "{error}");
    }
    let http = answered(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    assert!(http.to_string().ends_with("(for an HTTP proxy, use http://)"), "{http}");
    for (bytes, byte) in
        [(&[4, 0][..], 4), (&[5, 1], 1), (&[5, 0, 4, 0], 4), (&[5, 0, 5, 0, 0, 2], 2)]
    {
        assert_eq!(answered(bytes), UpgradeError::NotSocks { byte }, "{bytes:?}");
    }
    // The proxy selects an authentication method that was not offered.
    let error = outcome(None, [&[5, 2][..]]).1;
    assert_eq!(error, Err(UpgradeError::NotSocks { byte: 2 }));
}

#[test]
fn end_of_stream_is_always_an_error() {
    let answers = [&[5, 2, 1, 0][..], &granted(&[3, 2, b'a', b'b'])].concat();
    for end in 0..answers.len() {
        let (_, error) = outcome(Some(("u", "p")), [&answers[..end]]);
        assert_eq!(error, Err(UpgradeError::Eof { received: end }));
    }
    let mut socks = socks("h", None).expect("a legal request");
    assert!(socks.handle_read(&[4]).is_err());
    assert_eq!(socks.handle_read(&[5]), Err(UpgradeError::Finished));
    assert_eq!(socks.handle_eof(), UpgradeError::Finished);
}

#[test]
fn debug_shows_no_password() {
    let mut socks = socks("h", Some(("user", "s3cret"))).expect("a legal request");
    assert!(!format!("{socks:?}").contains(&format!("{:?}", b"s3cret")));
    assert_eq!(socks.handle_read(&[5, 2]), Ok(UpgradeStep::More));
    let shown = format!("{socks:?}");
    assert!(!shown.contains("115, 51") && !shown.contains("s3cret"), "{shown}");
}

/// Answers with a valid beginning and arbitrary bytes after it.
fn any_answers() -> impl Strategy<Value = Vec<u8>> {
    let method = prop::sample::select(vec![vec![5, 0], vec![5, 2, 1, 0], vec![5, 2, 5, 1]]);
    let reply = (0_u8..10, any::<u8>(), 0_u8..6, prop::collection::vec(any::<u8>(), 0..24));
    let codes = prop_oneof![3 => Just(true), 1 => Just(false)];
    (method, reply, codes).prop_map(|(method, (code, reserved, kind, rest), granted)| {
        let code = if granted { 0 } else { code };
        [&method[..], &[5, code, reserved, kind], &rest].concat()
    })
}

proptest! {
    #![proptest_config(cases(256, regressions!("upgrade_socks5")))]

    #[test]
    fn outcome_is_independent_of_cuts(
        answers in any_answers(),
        at in any::<prop::sample::Index>(),
        wanted in any::<bool>(),
    ) {
        let credentials = wanted.then_some(("user", "password"));
        let whole = outcome(credentials, [&answers[..]]);
        let (one, two) = answers.split_at(at.index(answers.len()));
        prop_assert_eq!(&outcome(credentials, [one, two]), &whole);
        prop_assert_eq!(&outcome(credentials, answers.chunks(1)), &whole);
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        reads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..8),
    ) {
        let _ = outcome(Some(("u", "p")), reads.iter().map(Vec::as_slice));
    }

    /// Names of any length and content arrive unchanged.
    #[test]
    fn any_credentials_can_be_read_back(
        user in "[^\\r]{1,60}",
        password in "[^\\r]{0,60}",
    ) {
        let answers: [&[u8]; 1] = [&[5, 2]];
        let (sent, _) = outcome(Some((&user, &password)), answers);
        let expected = [
            &[5, 2, 0, 2, 1, user.len() as u8],
            user.as_bytes(),
            &[password.len() as u8],
            password.as_bytes(),
        ]
        .concat();
        prop_assert_eq!(sent, expected);
    }
}
