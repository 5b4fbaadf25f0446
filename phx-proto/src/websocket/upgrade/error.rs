//! Why an upgrade, or a tunnel through a proxy, did not happen.

use crate::event::refusal::{Refusal, SocksRefusal};

/// Why an upgrade, or a tunnel through a proxy, did not happen.
///
/// The first group is the caller's fault and comes from [`Upgrade::new`](super::Upgrade::new) and
/// [`Connect::new`](super::Connect::new) ([`is_callers`](Self::is_callers) is true); the rest is the
/// peer's, with what it said as evidence. No variant carries anything secret that the caller passed
/// in; evidence is the peer's words, escaped to printable ASCII.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UpgradeError {
    /// The host cannot stand in a `Host` header or a `CONNECT` line.
    #[error("invalid host: {reason}")]
    InvalidHost {
        /// What is wrong with it.
        reason: &'static str,
    },

    /// The request target cannot stand in a request line. It is not shown: its query may be secret.
    #[error("invalid request target: {reason}")]
    InvalidTarget {
        /// What is wrong with it.
        reason: &'static str,
    },

    /// A request header has a name or a value that HTTP forbids, or belongs to the machine.
    #[error("invalid header {name:?}: {reason}")]
    InvalidHeader {
        /// The name, as it was passed in.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },

    /// A subprotocol cannot stand in the list of offers. It is not shown: it may be an auth token.
    #[error("invalid subprotocol at position {index}: {reason}")]
    InvalidSubprotocol {
        /// Its position among the offers, from 0.
        index: usize,
        /// What is wrong with it.
        reason: &'static str,
    },

    /// Proxy credentials that HTTP's Basic scheme, or SOCKS5, cannot carry.
    #[error("invalid proxy credentials: {reason}")]
    InvalidCredentials {
        /// What is wrong with them.
        reason: &'static str,
    },

    /// The machine was given more input after it had said how the exchange ended.
    #[error("the exchange was over already")]
    Finished,

    /// The server answered with a status other than 101.
    #[error("the server refused the upgrade: {0}")]
    Refused(Refusal),

    /// The proxy answered with a status other than 2xx; 407 says that it wants (other)
    /// credentials.
    #[error("the proxy refused the tunnel: HTTP {status}{hint}", status = .0.status(), hint = proxy_hint(.0))]
    ProxyRefused(Refusal),

    /// The SOCKS5 proxy wants (other) credentials, or its rules forbid the address.
    #[error("the proxy refused the tunnel: {0}")]
    SocksRefused(SocksRefusal),

    /// The SOCKS5 proxy did not reach the server.
    #[error("the proxy did not reach the server: {}", socks_reply(*.code))]
    SocksFailed {
        /// The code of its reply (RFC 1928 section 6).
        code: u8,
    },

    /// What came back is not SOCKS5.
    #[error("the answer is not SOCKS5: it has {byte:#04x} in it{}", http_hint(*.byte))]
    NotSocks {
        /// The first byte that does not belong there.
        byte: u8,
    },

    /// What came back is not HTTP/1.
    #[error("the answer is not HTTP: {reason}, it begins with \"{evidence}\"")]
    NotHttp {
        /// What is wrong with it.
        reason: &'static str,
        /// The beginning of its first line, up to 64 bytes and not past a `?` (an echo of the
        /// request would have the query's secrets behind it).
        evidence: String,
    },

    /// The first 16 KiB of the answer (with the heads of interim 1xx answers) hold no status. Where
    /// they do, a head that is longer is a refusal with that status.
    #[error("the head of the answer is over 16 KiB")]
    HeadTooLarge,

    /// Status 101, but not for a WebSocket.
    #[error("the server switched protocols, but {reason} (\"{evidence}\")")]
    NotUpgrade {
        /// What is wrong with it.
        reason: &'static str,
        /// What stood in its place; empty when nothing did.
        evidence: String,
    },

    /// The `Sec-WebSocket-Accept` does not answer our key: often an answer out of a cache, meant for
    /// someone else.
    #[error("Sec-WebSocket-Accept is {answered:?} instead of {expected:?}")]
    BadAccept {
        /// What answers our key.
        expected: String,
        /// What the server sent, if anything.
        answered: Option<String>,
    },

    /// The server selected a subprotocol that was not offered, or several.
    #[error("the server selected the subprotocol \"{answered}\" out of {offered:?}")]
    UnexpectedProtocol {
        /// The offers; auth tokens among them are cut off.
        offered: Vec<String>,
        /// What the server sent.
        answered: String,
    },

    /// The server selected an extension, though none was offered.
    #[error("the server selected the extension \"{answered}\", and none was offered")]
    UnexpectedExtension {
        /// What the server sent.
        answered: String,
    },

    /// The peer ended the stream before its answer was complete.
    #[error("the peer ended the stream after {received} bytes of its answer")]
    Eof {
        /// How many bytes of the answer came.
        received: usize,
    },
}

impl UpgradeError {
    /// True when the caller passed something in that can never work, so that trying again with the
    /// same request is of no use.
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

/// The replies of RFC 1928 section 6.
fn socks_reply(code: u8) -> String {
    match code {
        1 => "it has a general failure".to_owned(),
        3 => "the network is unreachable".to_owned(),
        4 => "the host is unreachable".to_owned(),
        5 => "the connection was refused".to_owned(),
        6 => "it took too long".to_owned(),
        7 => "it does not make connections".to_owned(),
        8 => "it does not know this type of address".to_owned(),
        code => format!("reply {code}, which has no meaning"),
    }
}

/// `HTTP/1.1 400 Bad Request` is what an HTTP proxy says to a greeting.
const fn http_hint(byte: u8) -> &'static str {
    if byte == b'H' { " (if it is an HTTP proxy, write http://)" } else { "" }
}

fn proxy_hint(refusal: &Refusal) -> &'static str {
    match refusal.status() {
        407 => " (it wants credentials, or others than these)",
        _ => "",
    }
}
