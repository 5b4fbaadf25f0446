//! The error of an upgrade or of a tunnel through a proxy.

use crate::event::refusal::{Refusal, SocksRefusal};

/// The reason why an upgrade, or a tunnel through a proxy, failed.
///
/// The variants up to [`Finished`](Self::Finished) are the caller's fault:
/// [`is_callers`](Self::is_callers) is true. Except `Finished`, they come from
/// [`Upgrade::new`](super::Upgrade::new), [`Connect::new`](super::Connect::new) and
/// [`Socks5::new`](super::Socks5::new). The other variants are the peer's fault. Quotations of its
/// response are escaped, so that they fit into one line of a log. No variant contains a secret that
/// the caller passed in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UpgradeError {
    /// The host is not valid for a `Host` header or a `CONNECT` line.
    #[error("invalid host: {reason}")]
    InvalidHost {
        /// The rule that it breaks.
        reason: &'static str,
    },

    /// The request target is invalid. The error does not contain it, because its query may be
    /// secret.
    #[error("invalid request target: {reason}")]
    InvalidTarget {
        /// The rule that it breaks.
        reason: &'static str,
    },

    /// A request header has a name or a value that HTTP forbids, or its name is one that the
    /// machine sets itself.
    #[error("invalid header {name:?}: {reason}")]
    InvalidHeader {
        /// The name as it was passed in.
        name: String,
        /// The rule that it breaks.
        reason: &'static str,
    },

    /// An offered subprotocol is invalid. The error does not contain it, because it may be an auth
    /// token.
    #[error("invalid subprotocol at position {index}: {reason}")]
    InvalidSubprotocol {
        /// Its position among the offers, from zero.
        index: usize,
        /// The rule that it breaks.
        reason: &'static str,
    },

    /// The proxy credentials cannot be encoded for HTTP's Basic scheme or for SOCKS5.
    #[error("invalid proxy credentials: {reason}")]
    InvalidCredentials {
        /// The rule that they break.
        reason: &'static str,
    },

    /// The machine received more input after it had returned an outcome.
    #[error("the exchange has already ended")]
    Finished,

    /// The server answered with a status other than 101.
    #[error("the server refused the upgrade: {0}")]
    Refused(Refusal),

    /// The proxy answered with a status other than 2xx. Status 407 means that the proxy credentials
    /// are missing or wrong.
    #[error("the proxy refused the tunnel: HTTP {status}{hint}", status = .0.status(), hint = proxy_hint(.0))]
    ProxyRefused(Refusal),

    /// The SOCKS5 proxy refused the tunnel: the proxy credentials are missing or wrong, or the rules
    /// of the proxy forbid the address.
    #[error("the proxy refused the tunnel: {0}")]
    SocksRefused(SocksRefusal),

    /// The SOCKS5 proxy could not connect to the server.
    #[error("the proxy could not connect to the server: {}", socks_reply(*.code))]
    SocksFailed {
        /// The code of its reply (RFC 1928 section 6).
        code: u8,
    },

    /// The response is not SOCKS5.
    #[error("the response is not SOCKS5: unexpected byte {byte:#04x}{}", http_hint(*.byte))]
    NotSocks {
        /// The first unexpected byte.
        byte: u8,
    },

    /// The response is not HTTP/1.
    #[error("the response is not HTTP: {reason}; it begins with \"{evidence}\"")]
    NotHttp {
        /// The reason why it is not.
        reason: &'static str,
        /// The beginning of its first line: at most 64 bytes, and only up to a `?`, because the
        /// peer may echo the request, whose query contains secrets.
        evidence: String,
    },

    /// The first 16 KiB of the response, including the heads of interim 1xx responses, contain no
    /// status. A longer head with a status in its first 16 KiB is a refusal with that status.
    #[error("the head of the response is longer than 16 KiB")]
    HeadTooLarge,

    /// The status is 101, but the response is not a WebSocket upgrade.
    #[error("the server switched protocols, but {reason} (\"{evidence}\")")]
    NotUpgrade {
        /// The reason why it is not.
        reason: &'static str,
        /// The unexpected value; empty if the header was missing.
        evidence: String,
    },

    /// `Sec-WebSocket-Accept` does not match our key. The response often comes from a cache and was
    /// meant for another client.
    #[error("Sec-WebSocket-Accept is {answered:?} instead of {expected:?}")]
    BadAccept {
        /// The value that matches our key.
        expected: String,
        /// The value that the server sent; `None` if the header was missing.
        answered: Option<String>,
    },

    /// The server selected a subprotocol that was not offered, or several subprotocols.
    #[error("the server selected the subprotocol \"{answered}\" instead of one of {offered:?}")]
    UnexpectedProtocol {
        /// The offers; auth tokens in them are redacted.
        offered: Vec<String>,
        /// The value that the server sent.
        answered: String,
    },

    /// The server selected an extension that was not offered.
    #[error("the server selected the extension \"{answered}\", which was not offered")]
    UnexpectedExtension {
        /// The value that the server sent.
        answered: String,
    },

    /// The parameters of the compression that the server selected are invalid, or contradict the offer
    /// (RFC 7692 section 7.1).
    #[cfg(feature = "deflate")]
    #[error("the server answered the offer of compression with \"{answered}\", but {reason}")]
    InvalidExtension {
        /// The reason why the client cannot accept it.
        reason: &'static str,
        /// The value that the server sent.
        answered: String,
    },

    /// The peer ended the stream before its response was complete.
    #[error("the peer ended the stream after {received} bytes of its response")]
    Eof {
        /// How many bytes of the response arrived.
        received: usize,
    },
}

impl UpgradeError {
    /// Whether the error is the caller's fault, so that a retry with the same request always fails.
    #[must_use]
    pub const fn is_callers(&self) -> bool {
        matches!(
            self,
            Self::InvalidHost { .. }
                | Self::InvalidTarget { .. }
                | Self::InvalidHeader { .. }
                | Self::InvalidSubprotocol { .. }
                | Self::InvalidCredentials { .. }
                | Self::Finished
        )
    }
}

/// The replies of RFC 1928 section 6, in words.
fn socks_reply(code: u8) -> String {
    match code {
        1 => "general failure".to_owned(),
        3 => "the network is unreachable".to_owned(),
        4 => "the host is unreachable".to_owned(),
        5 => "the connection was refused".to_owned(),
        6 => "the attempt took too long".to_owned(),
        7 => "the proxy does not support CONNECT".to_owned(),
        8 => "the proxy does not support this type of address".to_owned(),
        code => format!("unknown reply {code}"),
    }
}

/// A hint for a first byte `H`: an HTTP proxy answers a SOCKS5 greeting with
/// `HTTP/1.1 400 Bad Request`.
const fn http_hint(byte: u8) -> &'static str {
    if byte == b'H' { " (for an HTTP proxy, use http://)" } else { "" }
}

fn proxy_hint(refusal: &Refusal) -> &'static str {
    match refusal.status() {
        407 => " (the proxy credentials are missing or wrong)",
        _ => "",
    }
}
