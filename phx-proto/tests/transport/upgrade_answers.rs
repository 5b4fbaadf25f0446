//! The upgrade machine and the server's answer, however it is cut into reads.

use crate::cases::{cases, regressions};
use phx_proto::event::Refusal;
use phx_proto::upgrade::{
    Connect, TunnelRequest, Upgrade, UpgradeError, UpgradeRequest, UpgradeStep, Upgraded,
    accept_key,
};
use proptest::prelude::*;

const KEY: [u8; 16] = [7; 16];
const OFFERED: [&str; 2] = ["phoenix", "base64url.bearer.phx.czNjcmV0"];

fn upgrade() -> Upgrade {
    let request = UpgradeRequest {
        host: "localhost",
        target: "/socket/websocket?token=s3cret",
        headers: &[],
        subprotocols: &OFFERED.map(str::to_owned),
        key: KEY,
    };
    Upgrade::new(&request).expect("a legal request")
}

/// The outcome of these reads, followed by the end of the stream.
fn outcome<'a>(reads: impl IntoIterator<Item = &'a [u8]>) -> Result<Upgraded, UpgradeError> {
    let mut upgrade = upgrade();
    let mut reads = reads.into_iter();
    while let Some(bytes) = reads.next() {
        if let UpgradeStep::Done(mut upgraded) = upgrade.handle_read(bytes)? {
            // Bytes that the machine did not read belong to the rest, like the bytes that it returns.
            let unread = reads.flatten().copied();
            upgraded.leftover = upgraded.leftover.iter().copied().chain(unread).collect();
            return Ok(upgraded);
        }
    }
    Err(upgrade.handle_eof())
}

fn answer(text: &str) -> Result<Upgraded, UpgradeError> {
    outcome([text.as_bytes()])
}

/// The refusal. Panics if it arrives only at the end of the stream.
fn refusal_at_once(text: &str) -> Refusal {
    match upgrade().handle_read(text.as_bytes()) {
        Err(UpgradeError::Refused(refusal)) => refusal,
        other => panic!("{text:?} gave {other:?}"),
    }
}

/// A valid 101 response with these additional headers.
fn switching(more: &str) -> String {
    let accept = accept_key(KEY);
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{more}\r\n"
    )
}

/// Bytes after the head of the answer are returned as the first bytes of the WebSocket.
/// Protocol: CONN-11.
#[test]
fn frames_behind_the_head_are_kept() {
    let mut bytes = switching("").into_bytes();
    bytes.extend_from_slice(b"\x81\x02hi\x81");
    let upgraded = outcome([&bytes[..]]).expect("an upgrade");
    assert_eq!(&upgraded.leftover[..], b"\x81\x02hi\x81");
}

/// Header names and the values of `Upgrade` and `Connection` match in any case. `Connection` may have
/// several tokens.
#[test]
fn headers_match_in_any_case() {
    let accept = accept_key(KEY);
    let upgraded = answer(&format!(
        "HTTP/1.1 101\r\nUPGRADE: WebSocket\r\nconnection: keep-alive\r\nConnection: foo ,UPGRADE\r\n\
         sec-WEBSOCKET-accept:{accept}\r\n\r\n"
    ))
    .expect("an upgrade");
    assert_eq!(upgraded.headers.len(), 4);
    assert_eq!(upgraded.headers[0], ("UPGRADE".to_owned(), "WebSocket".to_owned()));
}

#[test]
fn bare_line_feeds_and_folded_lines_are_read() {
    let folded = switching("X-Note: one\r\n  two\r\n\t three\r\n");
    let upgraded = answer(&folded.replace("\r\n", "\n")).expect("an upgrade");
    assert_eq!(upgraded.headers[3].1, "one two three");
    assert_eq!(answer(&folded), Ok(upgraded));
}

#[test]
fn header_value_may_be_invalid_utf8() {
    let mut bytes = switching("X-Note: caf?\r\n").into_bytes();
    let at = bytes.iter().position(|&byte| byte == b'?').expect("the placeholder");
    bytes[at] = 0xe9;
    let upgraded = outcome([&bytes[..]]).expect("an upgrade");
    assert_eq!(upgraded.headers[3].1, "caf\u{fffd}");
}

#[test]
fn only_an_offered_subprotocol_may_be_selected() {
    for (headers, expected) in [
        ("", None),
        ("Sec-WebSocket-Protocol: phoenix\r\n", Some("phoenix")),
        ("Sec-WebSocket-Protocol:\r\n", None),
    ] {
        let upgraded = answer(&switching(headers)).expect("an upgrade");
        assert_eq!(upgraded.protocol.as_deref(), expected);
    }
    for headers in [
        "Sec-WebSocket-Protocol: graphql-ws\r\n",
        "Sec-WebSocket-Protocol: Phoenix\r\n",
        "Sec-WebSocket-Protocol: phoenix, phoenix\r\n",
        "Sec-WebSocket-Protocol: phoenix\r\nSec-WebSocket-Protocol: phoenix\r\n",
    ] {
        let error = answer(&switching(headers)).expect_err(headers);
        let UpgradeError::UnexpectedProtocol { offered, .. } = &error else { panic!("{error:?}") };
        assert_eq!(offered.len(), 2);
        assert!(!format!("{error} {error:?}").contains("czNjcmV0"), "{error} shows the token");
        assert!(!error.is_callers());
    }
}

/// The request offers no extension, so an answer with one is an error.
/// Protocol: CONN-12.
#[test]
fn extension_not_offered_is_an_error() {
    let error = answer(&switching("Sec-WebSocket-Extensions: permessage-deflate\r\n"));
    let answered = "permessage-deflate".to_owned();
    assert_eq!(error, Err(UpgradeError::UnexpectedExtension { answered }));
}

#[test]
fn wrong_missing_or_doubled_accept_is_error() {
    let good = switching("");
    let line = format!("Sec-WebSocket-Accept: {}\r\n", accept_key(KEY));
    let other = format!("Sec-WebSocket-Accept: {}\r\n", accept_key([8; 16]));
    for (replacement, expected) in [
        (other, Some(accept_key([8; 16]))),
        (String::new(), None),
        (line.repeat(2), Some(format!("{0}, {0}", accept_key(KEY)))),
        (line.to_ascii_lowercase(), Some(accept_key(KEY).to_ascii_lowercase())),
    ] {
        match answer(&good.replace(&line, &replacement)) {
            Err(UpgradeError::BadAccept { answered, .. }) => assert_eq!(answered, expected),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn status_101_needs_websocket_upgrade() {
    let good = switching("");
    for (from, to) in [
        ("Upgrade: websocket\r\n", "Upgrade: h2c\r\n"),
        ("Upgrade: websocket\r\n", "Upgrade: h2c, websocket\r\n"),
        ("Upgrade: websocket\r\n", "Upgrade: websocket, h2c\r\n"),
        ("Upgrade: websocket\r\n", ""),
        ("Connection: Upgrade\r\n", "Connection: close\r\n"),
        ("Connection: Upgrade\r\n", ""),
        ("HTTP/1.1", "HTTP/1.0"),
    ] {
        let error = answer(&good.replace(from, to));
        assert!(matches!(error, Err(UpgradeError::NotUpgrade { .. })), "{to:?}: {error:?}");
    }
}

#[test]
fn interim_answers_are_skipped() {
    let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n";
    assert_eq!(answer(&format!("{interim}{}", switching(""))), answer(&switching("")));
    let refusal =
        refusal_at_once(&format!("{interim}HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n"));
    assert_eq!((refusal.status(), refusal.headers().len()), (403, 1));
}

/// A head over the limit is reported as a refusal with its status, whatever the status is.
#[track_caller]
fn assert_too_long(text: &str, status: u16, headers: usize) {
    let whole = answer(text);
    let Err(UpgradeError::Refused(refusal)) = &whole else { panic!("{whole:?}") };
    assert_eq!((refusal.status(), refusal.headers().len()), (status, headers));
    assert_eq!(outcome(text.as_bytes().chunks(1)), whole);
}

#[test]
fn endless_interim_answers_are_refused() {
    let mut upgrade = upgrade();
    let error =
        (0..1_000).find_map(|_| upgrade.handle_read(b"HTTP/1.1 100 Continue\r\n\r\n").err());
    let expected = |error: &UpgradeError| match error {
        UpgradeError::Refused(refusal) => refusal.status() == 100,
        UpgradeError::HeadTooLarge => true,
        _ => false,
    };
    assert!(error.as_ref().is_some_and(expected), "{error:?}");
}

#[test]
fn head_over_the_limit_keeps_its_status() {
    let fill = "y".repeat(16 * 1024);
    assert_too_long(&format!("HTTP/1.1 401 No\r\nA: b\r\nX: {fill}"), 401, 1);
    assert_too_long(&format!("HTTP/1.1 503 No\r\nRetry-After: 7\r\nX: {fill}\r\n\r\n"), 503, 1);
    let room = 16 * 1024 - switching("X: \r\n").len();
    let full = switching(&format!("X: {}\r\n", "y".repeat(room)));
    answer(&full).expect("a head of the maximum length");
    assert_too_long(&switching(&format!("X: {}\r\n", "y".repeat(room + 1))), 101, 4);
    let line = format!("HTTP/1.1 200 {fill}");
    assert_eq!(answer(&line), Err(UpgradeError::HeadTooLarge), "the status line is incomplete");
    assert_eq!(outcome(line.as_bytes().chunks(1)), Err(UpgradeError::HeadTooLarge));
}

/// RFC 9112 allows a client to read the valid lines. One malformed line of a proxy must not hide a
/// 401 or a `Retry-After`, and must not close a WebSocket that was opened.
#[test]
fn bad_header_line_hides_nothing() {
    for bad in [
        "no header at all",
        "bad name: x",
        "x\u{e4}: y",
        ": nothing",
        "X-Nul: a\0b",
        "X-Cr: a\rb",
        "X-Bell: \u{7}",
        "X-Space : a",
        "X: a\r\n folded \u{1}",
        "bad line\r\n folded: on",
    ] {
        let head = format!("{bad}\r\nRetry-After: 7\r\n{bad}\r\n");
        let refusal =
            refusal_at_once(&format!("HTTP/1.1 401 No\r\n{head}Content-Length: 0\r\n\r\n"));
        assert_eq!(refusal.status(), 401, "{bad:?}");
        let retry_after = ("Retry-After".to_owned(), "7".to_owned());
        let length = ("Content-Length".to_owned(), "0".to_owned());
        assert_eq!(refusal.headers(), [retry_after, length], "{bad:?}");
        let upgraded = answer(&switching(&head)).expect("an upgrade");
        assert_eq!(upgraded.headers.len(), 4, "{bad:?}");
        assert_eq!(outcome(switching(&head).as_bytes().chunks(1)), Ok(upgraded));
    }
    // The headers that the handshake needs are still required.
    let broken = switching("").replace("Sec-WebSocket-Accept:", "Sec-WebSocket-Accept :");
    assert!(matches!(answer(&broken), Err(UpgradeError::BadAccept { answered: None, .. })));
}

#[test]
fn hundreds_of_headers_are_read() {
    let many = "X: y\r\n".repeat(400);
    assert_eq!(answer(&switching(&many)).expect("an upgrade").headers.len(), 403);
    let refusal = refusal_at_once(&format!("HTTP/1.1 403 No\r\n{many}Content-Length: 0\r\n\r\n"));
    assert_eq!(refusal.headers().len(), 401);
}

#[test]
fn endless_line_fails_at_the_limit() {
    let mut upgrade = upgrade();
    assert_eq!(upgrade.handle_read(b"HTTP/1.1 200 OK\r\nX: "), Ok(UpgradeStep::More));
    let reads =
        (1..100).find_map(|reads| upgrade.handle_read(&[b'y'; 1024]).err().map(|e| (reads, e)));
    let Some((16, UpgradeError::Refused(refusal))) = reads else { panic!("{reads:?}") };
    assert_eq!((refusal.status(), &refusal.body()[..]), (200, &b""[..]));
}

#[test]
fn non_http_fails_at_first_bytes() {
    for (text, evidence) in [
        ("SSH-2.0-OpenSSH_9.2\r\n", "SSH-2.0-OpenSSH_9.2"),
        ("\x15\x03\x01\x00\x02\x02\x46", "\\x15\\x03\\x01\\x00\\x02\\x02F"),
        ("HTTP/2 200\r\n\r\n", "HTTP/2 200"),
        ("HTTP/1.1 2x0 OK\r\n\r\n", "HTTP/1.1 2x0 OK"),
        ("HTTP/1.1 099 Early\r\n\r\n", "HTTP/1.1 099 Early"),
    ] {
        match upgrade().handle_read(text.as_bytes()) {
            Err(UpgradeError::NotHttp { evidence: found, .. }) => assert_eq!(found, evidence),
            other => panic!("{text:?} gave {other:?}"),
        }
    }
}

#[test]
fn echoed_request_leaks_no_query() {
    let mut machine = upgrade();
    let request = machine.poll_write().to_vec();
    let error = machine.handle_read(&request).expect_err("an echo is no answer");
    let shown = format!("{error} {error:?}");
    assert!(shown.contains("GET /socket/websocket") && !shown.contains("s3cret"), "{shown}");
}

/// The answer to a CONNECT keeps its status too if a header line is malformed.
#[test]
fn connect_keeps_status_of_bad_head() {
    let request = TunnelRequest { host: "h", port: 443, credentials: None };
    let answer =
        |text: &str| Connect::new(&request).expect("a request").handle_read(text.as_bytes());
    let refused = answer("HTTP/1.1 407 No\r\nbad line\r\nContent-Length: 0\r\n\r\n");
    let Err(UpgradeError::ProxyRefused(refusal)) = refused else { panic!("{refused:?}") };
    assert_eq!(refusal.status(), 407);
    let opened = answer("HTTP/1.1 200 Ok\r\nbad line\r\nA: b\r\n\r\nrest");
    let Ok(UpgradeStep::Done(tunnel)) = opened else { panic!("{opened:?}") };
    assert_eq!((tunnel.headers.len(), &tunnel.leftover[..]), (1, &b"rest"[..]));
    let long = answer(&format!("HTTP/1.1 502 No\r\nX: {}", "y".repeat(16 * 1024)));
    let Err(UpgradeError::ProxyRefused(refusal)) = long else { panic!("{long:?}") };
    assert_eq!(refusal.status(), 502);
}

#[test]
fn early_end_reports_received_bytes() {
    assert_eq!(upgrade().handle_eof(), UpgradeError::Eof { received: 0 });
    let error = answer("HTTP/1.1 101 Swit");
    assert_eq!(error, Err(UpgradeError::Eof { received: 17 }));
}

#[test]
fn body_with_length_ends_there() {
    let refusal = refusal_at_once("HTTP/1.1 403 No\r\nContent-Length: 3\r\n\r\nsorry");
    assert_eq!(refusal.body_text(), "sor");
    let refusal =
        refusal_at_once("HTTP/1.1 403 No\r\ncontent-length: 3, 3\r\nContent-Length: 3\r\n\r\nsor");
    assert_eq!(refusal.body_text(), "sor");

    let cut = answer("HTTP/1.1 403 No\r\nContent-Length: 9\r\n\r\nsorry");
    let Err(UpgradeError::Refused(refusal)) = cut else { panic!("{cut:?}") };
    assert_eq!(refusal.body_text(), "sorry");
}

#[test]
fn chunked_body_is_assembled() {
    let head =
        "HTTP/1.1 500 Oops\r\nContent-Length: 99\r\nTransfer-Encoding: gzip, Chunked\r\n\r\n";
    let refusal =
        refusal_at_once(&format!("{head}3;ext=\"a\"\r\nabc\r\n0A\r\ndefghijklm\r\n0\r\n"));
    assert_eq!(refusal.body_text(), "abcdefghijklm");

    // The body is kept up to the place where its encoding becomes invalid.
    for (body, kept) in [
        ("3\r\nabcX", "abc"),
        ("3\r\nabc\r\nzz\r\n", "abc"),
        ("fffffffffffffffff\r\n", ""),
        ("-1\r\n", ""),
        (&format!("1{}\r\n", " ".repeat(200)), ""),
        // Only one carriage return ends a chunk: an endless row of them must not be read on and on.
        ("3\r\nabc\r\r", "abc"),
    ] {
        assert_eq!(refusal_at_once(&format!("{head}{body}")).body_text(), kept, "{body:?}");
    }
}

#[test]
fn body_without_length_ends_with_stream() {
    for text in [
        "HTTP/1.1 502 Bad Gateway\r\n\r\n<html>",
        "HTTP/1.0 502 Bad Gateway\r\nTransfer-Encoding: gzip\r\n\r\n<html>",
    ] {
        let mut upgrade = upgrade();
        assert_eq!(upgrade.handle_read(text.as_bytes()), Ok(UpgradeStep::More));
        let pending = upgrade.pending_refusal().expect("the head is known");
        assert_eq!((pending.status(), &*pending.body_text()), (502, "<html>"));
        assert_eq!(upgrade.handle_eof(), UpgradeError::Refused(pending));
        assert_eq!(upgrade.pending_refusal(), None);
    }
}

#[test]
fn body_is_read_up_to_1_kib() {
    for framing in ["", "Content-Length: 5000\r\n", "Transfer-Encoding: chunked\r\n"] {
        let size = if framing.contains("chunked") { "1000\r\n" } else { "" };
        let text = format!("HTTP/1.1 503 Busy\r\n{framing}\r\n{size}{}", "x".repeat(4096));
        assert_eq!(refusal_at_once(&text).body(), &"x".repeat(Refusal::MAX_BODY), "{framing:?}");
    }
}

#[test]
fn refusal_without_body_does_not_wait() {
    for head in [
        "HTTP/1.1 204 No Content\r\n",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n",
        "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n",
        "HTTP/1.1 403 Forbidden\r\nContent-Length: 1\r\nContent-Length: 2\r\n",
        "HTTP/1.1 403 Forbidden\r\nContent-Length: +1\r\n",
        "HTTP/1.1 403 Forbidden\r\nContent-Length: 99999999999999999999999\r\n",
        "HTTP/1.1 403 Forbidden\r\nContent-Length:\r\n",
    ] {
        assert_eq!(refusal_at_once(&format!("{head}\r\nbody")).body(), "", "{head:?}");
    }
}

#[test]
fn redirect_reports_its_location() {
    let refusal =
        refusal_at_once("HTTP/1.1 301 Moved\r\nLocation: wss://x/\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(refusal.location(), Some("wss://x/"));
}

#[test]
fn input_after_outcome_is_caller_error() {
    for text in [switching(""), "HTTP/1.1 204 Odd\r\n\r\n".to_owned(), "what?".to_owned()] {
        let mut upgrade = upgrade();
        let first = upgrade.handle_read(text.as_bytes());
        assert!(!matches!(first, Ok(UpgradeStep::More)), "{text:?}");
        assert_eq!(upgrade.handle_read(b"x"), Err(UpgradeError::Finished));
        assert_eq!(upgrade.handle_eof(), UpgradeError::Finished);
        assert!(UpgradeError::Finished.is_callers());
    }
}

/// Answers of every kind.
fn any_answer() -> impl Strategy<Value = Vec<u8>> {
    let chunked = "HTTP/1.1 500 Oops\r\nTransfer-Encoding: chunked\r\n\r\n\
                   3\r\nabc\r\n10;x=y\r\n0123456789abcdef\r\n0\r\n\r\n";
    let long_chunk = format!(
        "HTTP/1.1 500 Oops\r\nTransfer-Encoding: chunked\r\n\r\n7d0\r\n{}\r\n0\r\n\r\n",
        "x".repeat(2000)
    );
    let known = prop::sample::select(vec![
        format!("{}\u{1}\u{2}frames", switching("X-Fold: a\r\n b\r\n")),
        format!(
            "HTTP/1.1 100 Continue\r\n\r\n{}rest",
            switching("Sec-WebSocket-Protocol: phoenix\r\n")
        ),
        switching("Sec-WebSocket-Protocol: nope\r\n"),
        "HTTP/1.1 429 Slow Down\r\nContent-Length: 17\r\nRetry-After: 1\r\n\r\nToo many requests"
            .to_owned(),
        "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n".to_owned(),
        format!("HTTP/1.0 502 Bad Gateway\r\n\r\n{}", "<html>".repeat(300)),
        chunked.to_owned(),
        long_chunk,
        "SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n".to_owned(),
        format!("HTTP/1.1 200 OK\r\n{}bad header here: x\r\n\r\n", "X: y\r\n".repeat(20)),
        format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(101)),
        format!("HTTP/1.1 401 No\r\nRetry-After: 1\r\nX: {}", "y".repeat(17_000)),
    ])
    .prop_map(String::into_bytes);
    // Some of the known answers are damaged in one place.
    (known, any::<prop::sample::Index>(), prop::option::of(any::<u8>())).prop_map(
        |(mut bytes, at, damage)| {
            if let Some(byte) = damage {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes
        },
    )
}

/// The reads that result from cutting at these places.
fn cut<'a>(bytes: &'a [u8], places: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = places.iter().map(|at| at.index(bytes.len() + 1)).collect();
    places.sort_unstable();
    let mut reads = Vec::new();
    let mut from = 0;
    for to in places {
        reads.push(&bytes[from..to]);
        from = to;
    }
    reads.push(&bytes[from..]);
    reads
}

/// The outcome without the part that may depend on the cuts: how much of a malformed line had
/// arrived.
fn comparable(outcome: Result<Upgraded, UpgradeError>) -> Result<Upgraded, UpgradeError> {
    outcome.map_err(|error| match error {
        UpgradeError::NotHttp { reason, .. } => {
            UpgradeError::NotHttp { reason, evidence: String::new() }
        }
        error => error,
    })
}

proptest! {
    #![proptest_config(cases(256, regressions!("upgrade_answers")))]

    #[test]
    fn outcome_is_independent_of_cuts(
        answer in any_answer(),
        places in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let whole = comparable(outcome([&answer[..]]));
        prop_assert_eq!(&comparable(outcome(cut(&answer, &places))), &whole);
        prop_assert_eq!(&comparable(outcome(answer.chunks(1))), &whole);
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        reads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..8),
    ) {
        let _ = outcome(reads.iter().map(Vec::as_slice));
    }

    #[test]
    fn arbitrary_bytes_behind_a_status_line_never_panic(
        status in 0_u16..1000,
        chunked in any::<bool>(),
        rest in prop::collection::vec(any::<u8>(), 0..256),
    ) {
        let chunked = if chunked { "Transfer-Encoding: chunked\r\n\r\n" } else { "" };
        let mut bytes = format!("HTTP/1.1 {status:03} X\r\n{chunked}").into_bytes();
        bytes.extend_from_slice(&rest);
        let whole = comparable(outcome([&bytes[..]]));
        prop_assert_eq!(comparable(outcome(bytes.chunks(1))), whole);
    }
}

/// Four kinds of answers, cut at every byte.
#[test]
fn every_single_cut_gives_same_outcome() {
    for answer in [
        format!("{}frames", switching("Sec-WebSocket-Protocol: phoenix\r\n")),
        "HTTP/1.1 429 Slow\r\nContent-Length: 5\r\nRetry-After: 1\r\n\r\nsorry".to_owned(),
        "HTTP/1.1 500 X\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"
            .to_owned(),
        "HTTP/1.1 502 X\r\n\r\n<html>".to_owned(),
    ] {
        let whole = outcome([answer.as_bytes()]);
        for at in 0..=answer.len() {
            let (left, right) = answer.as_bytes().split_at(at);
            assert_eq!(outcome([left, right]), whole, "cut at {at} of {answer:?}");
        }
    }
}

/// A head of 16 KiB can contain thousands of headers, whose entries would take many times that
/// memory.
#[test]
fn headers_beyond_1024_are_left_out() {
    let headers = "a:b\r\n".repeat(1_023);
    let text = format!(
        "HTTP/1.1 403 Forbidden\r\n{headers}x-last: 1\r\n folded\r\nx-more: 2\r\n\tfolded\r\ncontent-length: 0\r\n\r\n"
    );
    let Err(UpgradeError::Refused(refusal)) = answer(&text) else { panic!("a refusal") };
    assert_eq!((refusal.headers().len(), refusal.header("x-last")), (1_024, Some("1 folded")));
    assert_eq!((refusal.header("x-more"), refusal.header("content-length")), (None, None));
}
