//! The address of a Phoenix socket: a minimal URI that prints no query values, because they may be tokens.

use core::fmt;
use core::net::{IpAddr, Ipv6Addr};
use std::borrow::Cow;

use super::http::host_problem;
use super::{ConfigError, punycode};

/// A `ws://` or `wss://` address: host, port, path and query of a socket.
#[derive(Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "String")]
pub struct Uri {
    secure: bool,
    host: String,
    port: u16,
    path: String,
    query: String,
}

impl Uri {
    /// Parses an absolute `ws://` or `wss://` URI.
    ///
    /// ```
    /// use phx_proto::config::Uri;
    ///
    /// let uri = Uri::parse("wss://example.com/socket/websocket?token=s3cret")?;
    /// assert!(uri.is_secure() && uri.host() == "example.com");
    /// assert!(!format!("{uri} {uri:?}").contains("s3cret"));
    /// # Ok::<(), phx_proto::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConfigError::Uri`] with the problem, and [`ConfigError::UnicodeHost`] for a host that is not
    /// ASCII. The errors omit the rest of the URI, which may contain a token.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let invalid = |problem| Err(ConfigError::Uri { problem });
        let Some((scheme, rest)) = text.split_once("://") else {
            return invalid("missing scheme: write ws://host/path or wss://host/path");
        };
        let secure = match scheme.to_ascii_lowercase().as_str() {
            "ws" => false,
            "wss" => true,
            "http" | "https" => {
                return invalid("the scheme must be ws or wss, not http or https");
            }
            _ => return invalid("the scheme must be ws or wss"),
        };
        let rest = rest.split_once('#').map_or(rest, |(before, _)| before);
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        if target.bytes().any(|byte| byte <= b' ' || byte == 0x7f || byte >= 0x80) {
            return invalid(
                "spaces, control characters and non-ASCII characters must be percent-encoded",
            );
        }
        let (host, port) = split_port(authority)?;
        let port = match port {
            Some(port) => port,
            None if secure => 443,
            None => 80,
        };
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let path = if path.is_empty() { "/" } else { path };
        Ok(Self {
            secure,
            host: lower_case(&host),
            port,
            path: path.to_owned(),
            query: query.to_owned(),
        })
    }

    /// Whether the scheme is `wss`.
    #[must_use]
    pub const fn is_secure(&self) -> bool {
        self.secure
    }

    /// The host: a name, an IPv4 address, or an IPv6 address without its brackets, with its zone
    /// if it has one (`fe80::1%eth0`).
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, or the default port of the scheme.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The path, at least `/`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The path and the query for the request line of the upgrade. May contain secrets.
    #[must_use]
    pub fn target(&self) -> String {
        if self.query.is_empty() {
            self.path.clone()
        } else {
            format!("{}?{}", self.path, self.query)
        }
    }

    /// The value of the `Host` header. It omits the default port of the scheme, and the zone of an IPv6
    /// address, which has no meaning on another machine (RFC 6874 section 4).
    #[must_use]
    pub fn host_header(&self) -> String {
        self.with_port(without_zone(&self.host))
    }

    /// Host and port in the form of a URI: like the `Host` header, but with the zone.
    pub(crate) fn authority(&self) -> String {
        self.with_port(&self.host)
    }

    fn with_port(&self, host: &str) -> String {
        let default = if self.secure { 443 } else { 80 };
        let host = BracketedHost(host);
        if self.port == default { host.to_string() } else { format!("{host}:{}", self.port) }
    }

    /// Whether the host is this machine: `localhost`, a name below it, `127.0.0.0/8`, `::1`, or one of these
    /// IPv4 addresses written as IPv6 (`::ffff:127.0.0.1`).
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }

    /// Whether both have the same scheme, host, port and path. Queries are ignored.
    pub(crate) fn is_same_endpoint(&self, other: &Self) -> bool {
        (self.secure, &self.host, self.port, &self.path)
            == (other.secure, &other.host, other.port, &other.path)
    }

    /// Appends a percent-encoded parameter to the query.
    pub(crate) fn push_param(&mut self, name: &str, value: &str) {
        if !self.query.is_empty() {
            self.query.push('&');
        }
        percent_encode(name, &mut self.query);
        self.query.push('=');
        percent_encode(value, &mut self.query);
    }

    /// The values of all query parameters with this name. A value that is not UTF-8 is empty.
    pub(crate) fn params<'a>(&'a self, name: &'a str) -> impl Iterator<Item = String> + 'a {
        let decoded = |text| percent_decode(text).unwrap_or_default();
        self.query.split('&').filter_map(move |pair| {
            let (found, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(found) == name).then(|| decoded(value))
        })
    }
}

impl TryFrom<String> for Uri {
    type Error = ConfigError;

    fn try_from(text: String) -> Result<Self, ConfigError> {
        Self::parse(&text)
    }
}

/// Whether a host in the form of [`Uri::host`] is this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host.ends_with(".localhost")
        || address(host).is_some_and(|address| address.is_loopback())
}

/// Parses a host as an IP address. IPv4 written as IPv6 becomes IPv4.
pub(crate) fn address(host: &str) -> Option<IpAddr> {
    written_address(host).map(|address| address.to_canonical())
}

/// Parses a host as an IP address, as it is written.
pub(super) fn written_address(host: &str) -> Option<IpAddr> {
    without_zone(host).parse().ok()
}

/// Strips the zone of an IPv6 address from a host.
pub(crate) fn without_zone(host: &str) -> &str {
    host.split_once('%').map_or(host, |(address, _)| address)
}

/// Converts a host to lower case, except the zone of an IPv6 address: interface names are case-sensitive.
pub(super) fn lower_case(host: &str) -> String {
    match host.split_once('%') {
        Some((address, zone)) => format!("{}%{zone}", address.to_ascii_lowercase()),
        None => host.to_ascii_lowercase(),
    }
}

/// Checks that a host, with or without a port, is ASCII.
fn check_ascii(authority: &str) -> Result<(), ConfigError> {
    let host = authority.split(':').next().unwrap_or_default();
    // A name that is too long or has control characters gets the error of `host_problem`.
    if host.is_ascii() || host.len() > 253 || host.chars().any(char::is_control) {
        return Ok(());
    }
    Err(ConfigError::UnicodeHost { host: host.to_owned(), ascii: punycode::to_ascii(host) })
}

/// Splits an authority into host and port. The host has the form of [`Uri::host`], but keeps its case.
pub(super) fn split_port(authority: &str) -> Result<(Cow<'_, str>, Option<u16>), ConfigError> {
    let invalid = |problem| Err(ConfigError::Uri { problem });
    if !authority.contains('@') {
        check_ascii(authority)?;
    }
    if let Some(problem) = host_problem(authority) {
        return invalid(problem);
    }
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let Some((host, after)) = rest.split_once(']') else {
            return invalid("the IPv6 address has no closing bracket");
        };
        let (address, zone) = match host.split_once('%') {
            // RFC 6874 writes the `%` as `%25` in a URI. A bare `%` is common in pasted addresses.
            Some((address, zone)) => (address, Some(zone.strip_prefix("25").unwrap_or(zone))),
            None => (host, None),
        };
        if address.parse::<Ipv6Addr>().is_err() {
            return invalid("the text in brackets is not an IPv6 address");
        }
        let host = match zone {
            None => Cow::Borrowed(host),
            Some(zone) if is_zone(zone) => Cow::Owned(format!("{address}%{zone}")),
            Some(_) => return invalid("the zone of the IPv6 address is not an interface name"),
        };
        match after.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if after.is_empty() => (host, None),
            None => return invalid("only a port may follow the IPv6 address"),
        }
    } else {
        let (host, port) = match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        };
        if host.contains('%') {
            return invalid("the host is percent-encoded: write its xn-- form");
        }
        (Cow::Borrowed(host), port)
    };
    if host.contains(['[', ']']) {
        return invalid("only IPv6 addresses have brackets");
    }
    if let Some(problem) = host_problem(&host) {
        return invalid(problem);
    }
    match port {
        None | Some("") => Ok((host, None)),
        Some(port) => match port.parse::<u16>() {
            // `parse` accepts a plus sign.
            Ok(number) if number != 0 && !port.starts_with('+') => Ok((host, Some(number))),
            _ => invalid("the port must be a number from 1 to 65535"),
        },
    }
}

/// Decodes percent-encoded bytes. Returns `None` if the encoding is invalid or the result is not UTF-8.
pub(super) fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let high = char::from(bytes.next()?).to_digit(16)?;
        let low = char::from(bytes.next()?).to_digit(16)?;
        decoded.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(decoded).ok()
}

/// Whether a text can be the name or the number of a network interface.
fn is_zone(zone: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    !zone.is_empty() && zone.bytes().all(allowed)
}

/// Percent-encodes everything but the unreserved characters of RFC 3986 section 2.3.
// Protocol: CONN-4.
fn percent_encode(text: &str, out: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
}

/// A host in the form of a URI, with brackets around an IPv6 address.
pub(super) struct BracketedHost<'a>(pub(super) &'a str);

impl fmt::Display for BracketedHost<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.contains(':') {
            write!(f, "[{}]", self.0.replace('%', "%25"))
        } else {
            f.write_str(self.0)
        }
    }
}

/// The URI with its query values redacted: `wss://example.com/socket/websocket?token=…`.
impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "wss" } else { "ws" };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)?;
        let names = self.query.split('&').filter(|pair| !pair.is_empty());
        for (index, pair) in names.enumerate() {
            let separator = if index == 0 { '?' } else { '&' };
            match pair.split_once('=') {
                Some((name, _)) => write!(f, "{separator}{name}=…")?,
                // A parameter without a value may be the token itself.
                None => write!(f, "{separator}…")?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Uri({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uri_is_parsed() {
        let uri = Uri::parse("ws://Example.COM:4000/socket/websocket?a=1&b=2#frag").unwrap();
        assert_eq!((uri.host(), uri.port(), uri.is_secure()), ("example.com", 4000, false));
        assert_eq!(uri.target(), "/socket/websocket?a=1&b=2");
        assert_eq!(uri.host_header(), "example.com:4000");
        let uri = Uri::parse("wss://[::1]").unwrap();
        assert_eq!((uri.host(), uri.port()), ("::1", 443));
        assert_eq!((uri.target().as_str(), uri.host_header().as_str()), ("/", "[::1]"));
    }

    #[test]
    fn uri_prints_without_query_values() {
        let uri = Uri::parse("wss://h/socket/websocket?token=s3cret&s3cret&vsn=2.0.0").unwrap();
        assert_eq!(uri.to_string(), "wss://h/socket/websocket?token=…&…&vsn=…");
        assert!(!format!("{uri:?}").contains("s3cret"));
    }

    #[test]
    fn loopback_is_recognised_by_address_and_name() {
        for host in [
            "localhost",
            "127.0.0.1",
            "127.9.9.9",
            "[::1]",
            "LOCALHOST",
            "[::ffff:127.0.0.1]",
            "[::FFFF:7f00:2]",
            "[::1%25lo]",
        ] {
            assert!(Uri::parse(&format!("ws://{host}/")).unwrap().is_loopback(), "{host}");
        }
        for host in
            ["example.com", "10.0.0.1", "localhost.example.com", "[::2]", "[::ffff:10.0.0.1]"]
        {
            assert!(!Uri::parse(&format!("ws://{host}/")).unwrap().is_loopback(), "{host}");
        }
    }

    /// RFC 6874: the zone is dialled and never sent.
    #[test]
    fn zone_of_ipv6_address_is_kept() {
        for text in ["ws://[fe80::1%25eth0]:4000/s", "ws://[fe80::1%eth0]:4000/s"] {
            let uri = Uri::parse(text).unwrap();
            assert_eq!((uri.host(), uri.port()), ("fe80::1%eth0", 4000));
            assert_eq!(uri.host_header(), "[fe80::1]:4000");
            assert_eq!(uri.to_string(), "ws://[fe80::1%25eth0]:4000/s");
            assert_eq!(Uri::parse(&uri.to_string()).unwrap(), uri);
        }
    }

    #[test]
    fn unicode_host_error_has_ascii_form() {
        let error = Uri::parse("wss://Bücher.example:4000/s?token=s3cret").unwrap_err();
        let expected = "the host \"Bücher.example\" is not ASCII: write \"xn--bcher-kva.example\"";
        assert_eq!(error.to_string(), expected);
        let error = Uri::parse("wss://bu\u{308}cher.example/").unwrap_err();
        assert!(error.to_string().contains("the xn-- form"), "{error}");
        let error = Uri::parse("wss://s3cret:pässword@bücher.example/").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("pässword"), "{error}");
    }

    /// Protocol: CONN-4.
    #[test]
    fn parameters_are_percent_encoded() {
        let mut uri = Uri::parse("ws://localhost/s?x=1").unwrap();
        uri.push_param("a b", "ü&=+");
        assert_eq!(uri.target(), "/s?x=1&a%20b=%C3%BC%26%3D%2B");
        assert_eq!(uri.params("x").collect::<Vec<_>>(), ["1"]);
        assert_eq!(uri.params("a b").collect::<Vec<_>>(), ["ü&=+"]);
        assert_eq!(uri.params("a").count(), 0);
    }

    #[test]
    fn invalid_uri_is_refused() {
        for text in [
            "",
            "localhost:4000",
            "http://h/",
            "ftp://h/",
            "ws://",
            "ws:///path",
            "ws://h:0/",
            "ws://h:99999/",
            "ws://h:x/",
            "ws://h:+80/",
            "ws://[::1/",
            "ws://[nope]/",
            "ws://[::1]x/",
            "ws://user:pw@h/",
            "ws://h/a b",
            "ws://h/\r\nX: y",
            "ws://h/ü",
            "ws://h%c3%bc/",
            "ws://[fe80::1%25]/",
            "ws://[fe80::1%25e/0]/",
            "ws://\u{9b}ü/",
        ] {
            assert!(matches!(Uri::parse(text), Err(ConfigError::Uri { .. })), "{text:?}");
        }
    }
}
