//! The tunnel through an HTTP proxy with `CONNECT`.
//!
//! It has the interface of [`Upgrade`](super::Upgrade) and uses the same response parser; only the
//! request and the status that counts as success differ.

use core::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::outbox::Outbox;
use super::request::{Head, check_host};
use super::response::{Event, Response};
use super::{UpgradeError, UpgradeStep};
use crate::event::refusal::{LoggedHeaders, Refusal};

/// The address to which the proxy must connect.
#[derive(Clone, Copy, Debug)]
pub struct TunnelRequest<'a> {
    /// The server's name or address; an IPv6 address with or without its brackets.
    pub host: &'a str,
    /// The server's port.
    pub port: u16,
    /// The credentials for a proxy that requires them.
    pub credentials: Option<ProxyCredentials<'a>>,
}

/// A user and a password: for HTTP's Basic scheme, sent as `Proxy-Authorization`, or for SOCKS5,
/// with at most 255 bytes each. `Debug` prints neither.
#[derive(Clone, Copy)]
pub struct ProxyCredentials<'a> {
    /// The user. For HTTP it must not contain a colon, because in the Basic scheme a colon ends the
    /// user.
    pub username: &'a str,
    /// The password.
    pub password: &'a str,
}

/// One tunnel through an HTTP proxy, from the `CONNECT` request to its outcome.
///
/// ```
/// use phx_proto::upgrade::{Connect, TunnelRequest, UpgradeStep};
///
/// # fn main() -> Result<(), phx_proto::upgrade::UpgradeError> {
/// let request = TunnelRequest { host: "example.org", port: 443, credentials: None };
/// let mut connect = Connect::new(&request)?;
/// assert_eq!(
///     connect.poll_write(),
///     b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n"
/// );
/// connect.handle_written(connect.poll_write().len());
/// let progress = connect.handle_read(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
/// assert!(matches!(progress, UpgradeStep::Done(_)));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Connect {
    outbox: Outbox,
    response: Response,
}

/// A stream that leads through the proxy to the server.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tunnel {
    /// The headers of the proxy's response, in the order and spelling in which they arrived. SOCKS5
    /// has none.
    pub headers: Vec<(String, String)>,
    /// The bytes after the head: the server's first bytes. Usually there are none, because the
    /// client sends first in TLS and in HTTP.
    pub leftover: Bytes,
}

impl Connect {
    /// Validates and encodes the request.
    ///
    /// # Errors
    ///
    /// `InvalidHost` or `InvalidCredentials` if the request is invalid.
    pub fn new(request: &TunnelRequest<'_>) -> Result<Self, UpgradeError> {
        Ok(Self {
            outbox: Outbox::new(encode(request)?),
            response: Response::new(|status| matches!(status, 200..=299)),
        })
    }

    /// The bytes that are still to be written.
    #[must_use]
    pub fn poll_write(&self) -> &[u8] {
        self.outbox.pending()
    }

    /// Reports that the first `n` bytes of [`poll_write`](Self::poll_write) were written. A larger
    /// `n` counts as all of them.
    pub fn handle_written(&mut self, n: usize) {
        self.outbox.advance(n);
    }

    /// Processes bytes from the proxy. An empty slice is not the end of the stream; report that
    /// with [`handle_eof`](Self::handle_eof).
    ///
    /// # Errors
    ///
    /// [`UpgradeError::ProxyRefused`] if the proxy answered with a status other than 2xx and the
    /// body is complete or exceeds 1 KiB; `NotHttp` or `HeadTooLarge`; [`UpgradeError::Finished`]
    /// after an outcome was returned.
    pub fn handle_read(&mut self, bytes: &[u8]) -> Result<UpgradeStep<Tunnel>, UpgradeError> {
        match self.response.handle_read(bytes)? {
            Event::More => Ok(UpgradeStep::More),
            // In a 2xx response to `CONNECT`, Content-Length and Transfer-Encoding are ignored (RFC
            // 9110 section 9.3.6).
            Event::Open(head, leftover) => {
                Ok(UpgradeStep::Done(Tunnel { headers: head.headers, leftover }))
            }
            Event::Refused(refusal) => Err(UpgradeError::ProxyRefused(refusal)),
        }
    }

    /// Reports the end of the stream. It completes the body of a refusal, even if some of it is
    /// missing. Before that, the result is [`UpgradeError::Eof`], or another variant if the bytes so
    /// far are invalid; after an outcome it is [`UpgradeError::Finished`].
    pub fn handle_eof(&mut self) -> UpgradeError {
        self.response.handle_eof().map_or_else(|error| error, UpgradeError::ProxyRefused)
    }

    /// The refusal, if its head is complete and its body is not. Call it when a deadline passes.
    #[must_use]
    pub fn pending_refusal(&self) -> Option<Refusal> {
        self.response.pending_refusal()
    }
}

fn encode(request: &TunnelRequest<'_>) -> Result<Vec<u8>, UpgradeError> {
    let (host, port) = (request.host, request.port);
    check_host(host)?;
    let authority = if host.starts_with('[') && host.ends_with(']') || !host.contains(':') {
        format!("{host}:{port}")
    } else if host.parse::<core::net::Ipv6Addr>().is_ok() {
        format!("[{host}]:{port}")
    } else {
        return Err(UpgradeError::InvalidHost { reason: "pass the port separately" });
    };

    let mut head = Head::new(&["CONNECT ", &authority, " HTTP/1.1"]);
    head.header("Host", &authority);
    if let Some(credentials) = request.credentials {
        head.header("Proxy-Authorization", &basic(credentials)?);
    }
    Ok(head.finish())
}

/// Encodes the credentials by RFC 7617, in UTF-8.
fn basic(credentials: ProxyCredentials<'_>) -> Result<String, UpgradeError> {
    let ProxyCredentials { username, password } = credentials;
    let fault = |reason| Err(UpgradeError::InvalidCredentials { reason });
    if username.contains(':') {
        return fault("the user must not contain a colon");
    }
    if username.chars().chain(password.chars()).any(char::is_control) {
        return fault("control characters are not allowed");
    }
    Ok(format!("Basic {}", STANDARD.encode(format!("{username}:{password}"))))
}

impl fmt::Debug for ProxyCredentials<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProxyCredentials([redacted])")
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel")
            .field("headers", &LoggedHeaders(&self.headers))
            .field("leftover", &self.leftover.len())
            .finish()
    }
}
