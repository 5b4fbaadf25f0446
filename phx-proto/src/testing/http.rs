//! The server side of the HTTP upgrade: parses the bytes of a request, encodes the bytes of a
//! response.
//!
//! ```text
//!   bytes ──▶ Head ──▶ more │ Asked(request, key, bytes after it) │ a refusal
//!                                    │ Server::connect
//!                                    ▼
//!                         accepted() or refused(): the response
//! ```
//!
//! This module refuses only invalid HTTP. The [`Server`] answers every valid request as Phoenix does,
//! including a request that is not an upgrade.
//!
//! [`Server`]: super::Server

use super::{Accepted, HttpRefusal, HttpRequest};
use crate::config::http::{is_token, is_value};
use crate::websocket::upgrade::accept_of;

/// The longest head of a request, in bytes.
const HEAD_MAX: usize = 16 * 1024;
/// The maximum number of header fields in a request.
const HEADERS_MAX: usize = 100;

/// A head that is being received.
#[derive(Default)]
pub(super) struct Head {
    buffer: Vec<u8>,
}

/// A complete request.
pub(super) struct Asked {
    pub(super) request: HttpRequest,
    /// The value of `sec-websocket-key`; empty if there is none.
    key: String,
    /// The bytes after the head: a body, or the first frames.
    pub(super) leftover: Vec<u8>,
}

impl Head {
    /// Processes bytes from the client. The result does not depend on how they are cut.
    ///
    /// # Errors
    ///
    /// The response to a request that is not HTTP/1.1, or is too long.
    pub(super) fn handle_read(&mut self, bytes: &[u8]) -> Result<Option<Asked>, HttpRefusal> {
        self.buffer.extend_from_slice(bytes);
        // A head ends with a line break, so it is parsed only when one arrives, not for each byte
        // of a slow head.
        if !bytes.contains(&b'\n') && self.buffer.len() <= HEAD_MAX {
            return Ok(None);
        }
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut headers);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match request.parse(&self.buffer) {
            Ok(httparse::Status::Complete(length)) if length <= HEAD_MAX => {
                if request.version != Some(1) {
                    return Err(plain(400, "HTTP version HTTP/1.0 unsupported"));
                }
                let headers = request.headers.iter();
                let mut headers: Vec<(String, String)> =
                    headers.map(|field| (field.name.to_owned(), text(field.value))).collect();
                let key = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(KEY));
                let key = key.map(|(_, key)| key.clone()).unwrap_or_default();
                if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("upgrade")) {
                    // Without any field of an upgrade, the server would accept the request as an
                    // upgrade, so an empty field `upgrade` is added.
                    headers.push(("upgrade".to_owned(), String::new()));
                }
                let method = request.method.unwrap_or_default().to_owned();
                let path = origin_form(request.path.unwrap_or_default()).to_owned();
                let leftover = self.buffer.split_off(length);
                let request = HttpRequest { method, path, headers };
                Ok(Some(Asked { request, key, leftover }))
            }
            Ok(httparse::Status::Partial) if self.buffer.len() <= HEAD_MAX => Ok(None),
            Ok(_) if !self.buffer[..HEAD_MAX].contains(&b'\n') => {
                Err(plain(414, "the request line is too long"))
            }
            Ok(_) | Err(httparse::Error::TooManyHeaders) => {
                Err(plain(431, "the head of the request is too long"))
            }
            Err(error) => Err(plain(400, &format!("the request is not HTTP: {error}"))),
        }
    }
}

const KEY: &str = "sec-websocket-key";

impl Asked {
    /// The response that opens the connection, with the fields of `wire/handshake_ok`.
    pub(super) fn accepted(&self, accepted: &Accepted) -> Vec<u8> {
        let mut headers = vec![
            ("upgrade".to_owned(), "websocket".to_owned()),
            ("connection".to_owned(), "Upgrade".to_owned()),
            ("sec-websocket-accept".to_owned(), accept_of(&self.key)),
            ("cache-control".to_owned(), "max-age=0, private, must-revalidate".to_owned()),
        ];
        let protocol = accepted.protocol.clone();
        headers.extend(protocol.map(|name| ("sec-websocket-protocol".to_owned(), name)));
        #[cfg(feature = "deflate")]
        if let Some((extensions, _)) = &accepted.extensions {
            headers.push(("sec-websocket-extensions".to_owned(), extensions.clone()));
        }
        answer(101, &headers, "")
    }
}

/// The response to a head that took too long.
pub(super) fn timed_out() -> HttpRefusal {
    plain(408, "the head of the request took too long")
}

/// Encodes a refusal. The connection ends after it.
pub(super) fn refused(refusal: &HttpRefusal) -> Vec<u8> {
    let mut headers = refusal.headers.clone();
    headers.retain(|(name, _)| !name.eq_ignore_ascii_case("content-length"));
    headers.push(("content-length".to_owned(), refusal.body.len().to_string()));
    headers.push(("connection".to_owned(), "close".to_owned()));
    answer(refusal.status, &headers, &refusal.body)
}

fn answer(status: u16, headers: &[(String, String)], body: &str) -> Vec<u8> {
    let mut answer = format!("HTTP/1.1 {status} {}\r\n", phrase(status));
    // A test may set any field. A field that would make the head invalid is omitted.
    let fits = |name: &str, value: &str| is_token(name) && is_value(value.as_bytes());
    for (name, value) in headers.iter().filter(|(name, value)| fits(name, value)) {
        answer.extend([name, ": ", value, "\r\n"]);
    }
    answer.extend(["\r\n", body]);
    answer.into_bytes()
}

fn plain(status: u16, body: &str) -> HttpRefusal {
    let mut refusal = HttpRefusal::new(status, body);
    refusal.headers.push(("content-type".to_owned(), "text/plain; charset=utf-8".to_owned()));
    refusal
}

/// The path and the query of a target, which may be a whole URI, as for a proxy.
fn origin_form(target: &str) -> &str {
    match target.split_once("://") {
        Some((scheme, rest)) if !scheme.contains('/') => {
            rest.find(['/', '?']).map_or("/", |at| &rest[at..])
        }
        _ => target,
    }
}

/// The reason phrase of a status; empty for an unknown one.
const fn phrase(status: u16) -> &'static str {
    match status {
        101 => "Switching Protocols",
        200 => "OK",
        301 => "Moved Permanently",
        302 => "Found",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        414 => "URI Too Long",
        425 => "Too Early",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Server, ServerConfig};
    use super::*;
    use crate::time::Time;

    const UPGRADE: &str = "GET /socket/websocket?vsn=2.0.0 HTTP/1.1\r\nHost: localhost\r\n\
        Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

    /// The status, or `None` while the head is incomplete.
    fn read(head: &mut Head, bytes: &[u8]) -> Option<u16> {
        match head.handle_read(bytes) {
            Ok(asked) => asked.map(|_| 101),
            Err(refusal) => Some(refusal.status),
        }
    }

    #[test]
    fn head_parses_in_any_pieces() {
        let bytes = [UPGRADE.as_bytes(), b"\x81\x85frame"].concat();
        for cut in 0..bytes.len() {
            let mut head = Head::default();
            let mut asked = head.handle_read(&bytes[..cut]).expect("a good head");
            let late = &bytes[cut..];
            let mut leftover = asked.as_mut().map(|asked| core::mem::take(&mut asked.leftover));
            if let Some(leftover) = &mut leftover {
                leftover.extend_from_slice(late);
            } else {
                asked = head.handle_read(late).expect("a good head");
            }
            let asked = asked.expect("a whole head");
            assert_eq!(leftover.unwrap_or_else(|| asked.leftover.clone()), b"\x81\x85frame");
            assert_eq!(asked.request.path, "/socket/websocket?vsn=2.0.0");
            let mut server = Server::new(ServerConfig::default());
            let accepted = server.connect(Time::ZERO, &asked.request).expect("an upgrade");
            let answer = String::from_utf8(asked.accepted(&accepted)).expect("text");
            assert!(answer.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{answer}");
            // The example of RFC 6455 section 1.3.
            assert!(answer.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
        }
    }

    #[test]
    fn long_head_is_refused() {
        let field = format!("x-a: {}\r\n", "y".repeat(1_000));
        for (start, item, status) in [
            ("GET /", "a", 414),
            ("GET / HTTP/1.1\r\n", &*field, 431),
            ("GET / HTTP/1.1\r\n", "a: b\r\n", 431),
            ("GET / HTTP/1.1\r\nx: ", "y", 431),
        ] {
            let mut head = Head::default();
            let mut seen = read(&mut head, start.as_bytes());
            let mut sent = start.len();
            while seen.is_none() {
                assert!(sent <= HEAD_MAX, "{start}: not refused after {sent} bytes");
                seen = read(&mut head, item.as_bytes());
                sent += item.len();
            }
            assert_eq!(seen, Some(status), "{start}");
        }
        // A complete request in one read.
        let long = UPGRADE.replacen("\r\n\r\n", &format!("\r\n{}\r\n", field.repeat(17)), 1);
        assert_eq!(read(&mut Head::default(), long.as_bytes()), Some(431));
        let fits = UPGRADE.replacen("\r\n\r\n", &format!("\r\n{}\r\n", field.repeat(15)), 1);
        assert_eq!(read(&mut Head::default(), fits.as_bytes()), Some(101));
    }

    #[test]
    fn other_protocols_are_refused() {
        for bytes in [
            &b"\x16\x03\x01\x02\x00\x01\x00\n"[..],
            b"GET /\r\n\r\n",
            b"GET / HTTP/2.0\r\n\r\n",
            b"GET / HTTP/1.1\r\nno field\r\n\r\n",
            b"GET / HTTP/1.0\r\n\r\n",
        ] {
            assert_eq!(read(&mut Head::default(), bytes), Some(400), "{bytes:?}");
        }
    }

    #[test]
    fn target_may_be_full_uri() {
        for (target, path) in [
            ("/a?b=http://c/d", "/a?b=http://c/d"),
            ("http://localhost:4000/socket/websocket?vsn=2.0.0", "/socket/websocket?vsn=2.0.0"),
            ("http://localhost?a", "?a"),
            ("http://localhost", "/"),
            ("*", "*"),
        ] {
            assert_eq!(origin_form(target), path);
        }
    }

    /// A scripted field cannot break the head, and `content-length` is correct.
    #[test]
    fn refusal_is_valid_http() {
        let mut refusal = HttpRefusal::new(429, "später");
        refusal.headers[0].1 = "99".to_owned();
        refusal.headers.push(("retry-after".to_owned(), "1".to_owned()));
        refusal.headers.push(("x".to_owned(), "a\r\nb: c".to_owned()));
        refusal.headers.push(("x y".to_owned(), "a".to_owned()));
        let answer = String::from_utf8(refused(&refusal)).expect("text");
        assert_eq!(
            answer,
            "HTTP/1.1 429 Too Many Requests\r\ncache-control: max-age=0, private, must-revalidate\
             \r\nretry-after: 1\r\ncontent-length: 7\r\nconnection: close\r\n\r\nspäter"
        );
    }
}
