//! Refusals: HTTP responses and SOCKS5 replies that refuse a connection.

use core::fmt;
use core::time::Duration;
use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::config::auth_token::AUTH_TOKEN_PREFIX;
use crate::event::http_date;

/// An HTTP response that refused a connection: its status, its headers and the start of its body.
///
/// Clones share one allocation, because every channel and every caller that the refusal affects receives a
/// clone.
///
/// Phoenix refuses with 403 and an empty body if `connect/3` returns an error, unless the endpoint has its
/// own error handler. It replies with 500 if `connect/3` raises (`wire/handshake_rejected`), and with 404 on
/// a path without a socket (`wire/handshake_wrong_path`).
///
/// `Debug` redacts the values of headers that may contain a secret (cookies, authentication, tokens and
/// keys), and the query, the fragment and the user information of a `Location`.
///
/// ```
/// use core::time::Duration;
/// use phx_proto::event::Refusal;
///
/// let headers = vec![("Retry-After".to_owned(), "30".to_owned())];
/// let refusal = Refusal::new(429, headers, "Too many requests");
/// assert_eq!(refusal.status(), 429);
/// assert_eq!(refusal.header("retry-after"), Some("30"));
/// assert_eq!(refusal.retry_after(), Some(Duration::from_secs(30)));
/// assert_eq!(refusal.body_text(), "Too many requests");
/// ```
///
/// The serialized form has only the status and the headers that [`retry_after`](Self::retry_after) uses,
/// because the rest may contain secrets.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Serialized", from = "Serialized")]
pub struct Refusal(Arc<Response>);

#[derive(PartialEq, Eq)]
struct Response {
    status: u16,
    headers: Vec<(String, String)>,
    body: Bytes,
}

/// The serialized form of a [`Refusal`]: the parts that determine the next attempt.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Serialized {
    status: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry_after: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    date: Option<String>,
}

impl From<Refusal> for Serialized {
    fn from(refusal: Refusal) -> Self {
        let header = |name| refusal.header(name).map(str::to_owned);
        Self { status: refusal.status(), retry_after: header("retry-after"), date: header("date") }
    }
}

impl From<Serialized> for Refusal {
    fn from(Serialized { status, retry_after, date }: Serialized) -> Self {
        let headers = [("retry-after", retry_after), ("date", date)];
        let headers =
            headers.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        Self::new(status, headers.collect(), "")
    }
}

impl Refusal {
    /// The maximum number of bytes of the body that are kept.
    pub const MAX_BODY: usize = 1024;

    /// Creates a refusal from its parts. It keeps the first [`MAX_BODY`](Self::MAX_BODY) bytes of the body.
    #[must_use]
    pub fn new(status: u16, headers: Vec<(String, String)>, body: impl Into<Bytes>) -> Self {
        let mut body = body.into();
        if body.len() > Self::MAX_BODY {
            // Copies the bytes, because a slice would keep the whole body alive.
            body = Bytes::copy_from_slice(&body[..Self::MAX_BODY]);
        }
        Self(Arc::new(Response { status, headers, body }))
    }

    /// The HTTP status code.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.0.status
    }

    /// The headers in their original order and spelling, including duplicates.
    #[must_use]
    pub fn headers(&self) -> &[(String, String)] {
        &self.0.headers
    }

    /// The value of the first header with this name. Case is ignored.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.0.headers, name)
    }

    /// The body, or its first [`MAX_BODY`](Self::MAX_BODY) bytes.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.0.body
    }

    /// The body as text. Bytes that are not UTF-8 become U+FFFD.
    #[must_use]
    pub fn body_text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.0.body)
    }

    /// The memory of the headers and of the kept part of the body, in bytes.
    #[cfg(feature = "driver")]
    pub(crate) fn held_bytes(&self) -> usize {
        let entry = size_of::<(String, String)>();
        let headers = self.0.headers.iter();
        headers.map(|(name, value)| entry + name.len() + value.len()).sum::<usize>()
            + self.0.body.len()
    }

    /// The target of a redirect as the server wrote it. It may be relative, and its query may contain
    /// secrets.
    #[must_use]
    pub fn location(&self) -> Option<&str> {
        self.header("location")
    }

    /// Whether the body is the one that nginx, Apache or Go sends for a plain request on a TLS port.
    fn mentions_https(&self) -> bool {
        let body = self.body_text();
        ["HTTPS port", "HTTPS server", "speaking plain HTTP to an SSL"]
            .iter()
            .any(|words| body.contains(words))
    }

    /// The delay that the header `Retry-After` requests before the next attempt.
    ///
    /// The header has a number of seconds, or a date that is compared with the `Date` of the response. The
    /// result is zero if the date is in the past, and `None` if there is a date but no `Date`. A server may
    /// request a century, so limit the result before you use it.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        http_date::retry_after(self.header("retry-after")?, self.header("date"))
    }
}

/// Shows `HTTP 403`, with a hint if the status has a usual cause.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HTTP {}", self.0.status)?;
        match (self.0.status, self.location()) {
            (400, _) if self.mentions_https() => {
                f.write_str(" (the port speaks TLS: use a wss:// address)")
            }
            (403, _) => f.write_str(
                " (Phoenix sends this status if connect/3 refuses, if check_origin forbids the header \
                 Origin, or if it does not support the vsn)",
            ),
            (404, _) => f.write_str(" (the path of a Phoenix socket usually ends in /websocket)"),
            (407, _) => f.write_str(" (the proxy credentials are missing or wrong)"),
            (200..=299 | 426, _) => f.write_str(
                " (the peer does not support WebSocket at this address: did a proxy reply?)",
            ),
            // Redirects are not followed, because the request contains credentials.
            (300..=399, Some(location)) => {
                write!(f, " (it redirects to {})", logged_value("location", location))
            }
            _ => Ok(()),
        }
    }
}

impl core::error::Error for Refusal {}

/// The refusal of a proxy, without the hints about Phoenix.
pub(crate) struct OfProxy<'a>(pub(crate) &'a Refusal);

impl fmt::Display for OfProxy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.status() {
            407 => self.0.fmt(f),
            status => write!(f, "HTTP {status}"),
        }
    }
}

/// Why a SOCKS5 proxy refused a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SocksRefusal {
    /// The proxy credentials are missing or wrong.
    #[error("the proxy credentials are missing or wrong")]
    Credentials,
    /// The rules of the proxy do not allow the address.
    #[error("the rules of the proxy forbid this address")]
    NotAllowed,
}

impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refusal")
            .field("status", &self.0.status)
            .field("headers", &LoggedHeaders(&self.0.headers))
            // An error page may quote the request, and with it the token.
            .field("body_bytes", &self.0.body.len())
            .finish()
    }
}

/// The value of the first header with this name. Case is ignored.
pub(crate) fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| &**value)
}

/// Response headers, redacted for a log.
pub(crate) struct LoggedHeaders<'a>(pub(crate) &'a [(String, String)]);

impl fmt::Debug for LoggedHeaders<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0.iter().map(|(name, value)| (name, logged_value(name, value)));
        f.debug_map().entries(shown).finish()
    }
}

/// Redacts the value of a response header if it may be a secret. It matches parts of names, so that it
/// covers `Set-Cookie`, `WWW-Authenticate`, `Proxy-Authenticate`, `X-Csrf-Token` and `X-Api-Key`. It may
/// redact more headers than necessary.
///
/// In a `Location` it redacts the query, the fragment and the user information, because a redirect often
/// contains the query of the request with its token. `Link`, `Refresh` and `Referer` have addresses inside
/// other text, so they are redacted completely. So is any other header whose value contains an address with
/// one of these three parts.
fn logged_value<'a>(name: &str, value: &'a str) -> Cow<'a, str> {
    const SECRET: [&str; 9] =
        ["auth", "cookie", "token", "secret", "session", "-key", "link", "refresh", "refer"];
    let name = name.to_ascii_lowercase();
    if SECRET.iter().any(|part| name.contains(part)) || value.contains(AUTH_TOKEN_PREFIX) {
        return Cow::Borrowed("[redacted]");
    }
    if name.contains("location") {
        return logged_address(value);
    }
    let has_address = value.contains("//") || value.contains('/') && value.contains('?');
    if has_address && value.contains(['?', '#', '@']) {
        return Cow::Borrowed("[redacted]");
    }
    Cow::Borrowed(value)
}

/// Redacts user information, query and fragment of an address.
fn logged_address(address: &str) -> Cow<'_, str> {
    let end = address.find(['?', '#']).unwrap_or(address.len());
    let (path, rest) = address.split_at(end);
    let authority = path.find("//").map_or(path.len(), |at| at + 2);
    let authority_end = path[authority..].find(['/', '\\']).map_or(path.len(), |at| authority + at);
    let user = path[authority..authority_end].rfind('@').map(|at| authority + at);
    if user.is_none() && rest.is_empty() {
        return Cow::Borrowed(address);
    }
    let mut shown = path[..authority.min(path.len())].to_owned();
    match user {
        Some(at) => {
            shown.push_str("[redacted]");
            shown.push_str(&path[at..]);
        }
        None => shown.push_str(&path[authority..]),
    }
    if let Some(separator) = rest.get(..1) {
        shown.push_str(separator);
        shown.push_str("[redacted]");
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(headers: &[(&str, &str)]) -> Refusal {
        let owned = headers.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
        Refusal::new(403, owned.collect(), Bytes::new())
    }

    #[test]
    fn refusal_keeps_first_kib_of_body() {
        let refusal = Refusal::new(500, Vec::new(), vec![b'x'; Refusal::MAX_BODY + 1]);
        assert_eq!(refusal.body().len(), Refusal::MAX_BODY);
        assert_eq!(Refusal::new(500, Vec::new(), "short").body(), "short");
    }

    #[test]
    fn header_lookup_ignores_case() {
        let refusal = refusal(&[("X-Reason", "full"), ("x-reason", "late"), ("LOCATION", "/")]);
        assert_eq!(refusal.header("x-REASON"), Some("full"));
        assert_eq!(refusal.location(), Some("/"));
        assert_eq!(refusal.header("x-reasons"), None);
        assert_eq!(refusal.headers().len(), 3);
    }

    #[test]
    fn retry_after_uses_response_date() {
        let at = ("retry-after", "Sun, 06 Nov 1994 08:50:37 GMT");
        let date = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(refusal(&[at, date]).retry_after(), Some(Duration::from_secs(60)));
        assert_eq!(refusal(&[at]).retry_after(), None);
        assert_eq!(refusal(&[date]).retry_after(), None);
    }

    #[test]
    fn refusal_debug_shows_no_secret() {
        let secrets = refusal(&[
            ("Set-Cookie", "id=s3cret"),
            ("authorization", "Bearer s3cret"),
            ("WWW-Authenticate", "Basic realm=s3cret"),
            ("Proxy-Authenticate", "Basic realm=s3cret"),
            ("x-csrf-token", "s3cret"),
            ("X-Api-Key", "s3cret"),
            ("Location", "https://example.org/login?token=s3cret"),
            ("Content-Location", "https://example.org/#s3cret"),
            ("X-Location", "https://u:s3cret@example.org/"),
            ("Location", "//u:s3cret@example.org/a?b#c"),
            ("Link", "<https://example.org/s3cret>; rel=next"),
            ("Refresh", "0; url=/login/s3cret"),
            ("Referer", "https://example.org/s3cret"),
            ("Report-To", "https://example.org/r?t=s3cret"),
            ("X-Original", "/socket/websocket?token=s3cret"),
            ("X-Via", "http://u:s3cret@proxy"),
            ("sec-websocket-protocol", "base64url.bearer.phx.s3cret"),
        ]);
        let shown = format!("{secrets:?}");
        assert!(!shown.contains("s3cret"), "{shown}");
        assert!(shown.contains("https://example.org/login?[redacted]"), "{shown}");
        let shown =
            format!("{:?}", refusal(&[("x-request-id", "F1"), ("keep-alive", "timeout=5")]));
        assert!(shown.contains("F1") && shown.contains("timeout=5"), "{shown}");
    }

    #[test]
    fn redirect_location_is_redacted() {
        let headers = vec![("Location".to_owned(), "https://h/login?token=s3cret".to_owned())];
        let shown = Refusal::new(302, headers, "").to_string();
        assert_eq!(shown, "HTTP 302 (it redirects to https://h/login?[redacted])");
        assert_eq!(Refusal::new(302, Vec::new(), "").to_string(), "HTTP 302");
        for (location, shown) in [
            ("/login#s3cret", "/login#[redacted]"),
            ("https://u:s3cret@h/login", "https://[redacted]@h/login"),
            ("https://u:p@s3cret@h", "https://[redacted]@h"),
            ("//u:s3cret@h/?a#b", "//[redacted]@h/?[redacted]"),
            ("https://h/@team", "https://h/@team"),
        ] {
            let headers = vec![("Location".to_owned(), location.to_owned())];
            let refusal = Refusal::new(302, headers, "").to_string();
            assert_eq!(refusal, format!("HTTP 302 (it redirects to {shown})"));
        }
    }

    #[test]
    fn status_with_usual_cause_has_hint() {
        assert_eq!(Refusal::new(410, Vec::new(), "").to_string(), "HTTP 410");
        assert!(refusal(&[]).to_string().contains("check_origin"));
        let plain = |body: &str| Refusal::new(400, Vec::new(), body.to_owned()).to_string();
        assert_eq!(plain("no"), "HTTP 400");
        assert!(Refusal::new(200, Vec::new(), "").to_string().contains("did a proxy reply"));
        assert!(plain("The plain HTTP request was sent to HTTPS port").contains("wss://"));
        assert!(Refusal::new(404, Vec::new(), "").to_string().contains("/websocket"));
    }
}
