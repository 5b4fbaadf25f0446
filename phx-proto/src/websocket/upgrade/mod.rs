//! The HTTP/1.1 upgrade of a stream to a WebSocket, and the tunnel through a proxy before it, as
//! pure state machines: bytes in, bytes out.
//!
//! ```text
//!             +-- poll_write --> bytes to the server --> handle_written --+
//! new(..) --> |                                                           |--> Done(Upgraded)
//!             +-- handle_read <-- bytes from the server ------------------+    or an UpgradeError
//!                 handle_eof  <-- the stream ended
//! ```
//!
//! Write until [`poll_write`](Upgrade::poll_write) is empty, then read until
//! [`handle_read`](Upgrade::handle_read) returns an outcome. The outcome does not depend on how the
//! bytes are cut into reads, except for the length of the excerpt in [`UpgradeError::NotHttp`]. A
//! machine may be dropped at any point. It has no clock. If the caller's deadline passes while the
//! body of a refusal is incomplete, [`Upgrade::pending_refusal`] returns the refusal. Send no frame
//! before `Done`, because such frames are usually lost (`wire/handshake_pipelined_frame`).
//!
//! tungstenite's own client handshake is not used, because it rejects a response that selects no
//! subprotocol when one was offered. Phoenix 1.7 responds like that whenever an auth token is
//! offered (`wire/handshake_auth_token__1.7.24`). This machine accepts it, and
//! [`Upgraded::protocol`] is `None`.
//!
//! ```
//! use phx_proto::upgrade::{UpgradeStep, Upgrade, UpgradeRequest, accept_key};
//!
//! # fn main() -> Result<(), phx_proto::upgrade::UpgradeError> {
//! let key = [7; 16]; // 16 random bytes, new for every attempt
//! let mut upgrade = Upgrade::new(&UpgradeRequest {
//!     host: "127.0.0.1:4000",
//!     target: "/socket/websocket?vsn=2.0.0",
//!     headers: &[("x-device".to_owned(), "4711".to_owned())],
//!     subprotocols: &[],
//!     key,
//! })?;
//! assert!(upgrade.poll_write().starts_with(b"GET /socket/websocket?vsn=2.0.0 HTTP/1.1\r\n"));
//! upgrade.handle_written(upgrade.poll_write().len());
//!
//! let accept = accept_key(key);
//! let answer = format!(
//!     "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
//!      Sec-WebSocket-Accept: {accept}\r\n\r\n\u{1}"
//! );
//! let UpgradeStep::Done(upgraded) = upgrade.handle_read(answer.as_bytes())? else { unreachable!() };
//! // The same read may contain frames after the head: pass them on to the WebSocket.
//! assert_eq!(upgraded.leftover, "\u{1}");
//! # Ok(())
//! # }
//! ```

mod body;
#[cfg(feature = "deflate")]
mod deflate;
mod error;
mod outbox;
mod proxy;
mod request;
mod response;
mod socks5;

use core::fmt;

use bytes::Bytes;

#[cfg(all(feature = "deflate", feature = "testing"))]
pub(crate) use self::deflate::{
    Answer as CompressionAnswer, accept as accept_compression, agreed as agreed_compression,
    offer as offer_compression,
};
pub use self::error::UpgradeError;
pub use self::proxy::{Connect, ProxyCredentials, Tunnel, TunnelRequest};
pub use self::request::accept_key;
#[cfg(all(feature = "adapter", feature = "testing"))]
pub(crate) use self::request::accept_of;
pub use self::socks5::Socks5;

use self::outbox::Outbox;
use self::response::{Event, Head, Response};
#[cfg(feature = "deflate")]
use crate::config::Compression;
use crate::config::auth_token::AUTH_TOKEN_PREFIX;
use crate::event::refusal::{LoggedHeaders, Refusal, header};

/// The upgrade request. `Debug` prints the host, the path and the names of the headers.
#[derive(Clone, Copy)]
pub struct UpgradeRequest<'a> {
    /// The value of the `Host` header: `host` or `host:port`, with an IPv6 address in brackets.
    pub host: &'a str,
    /// The path and the query, percent-encoded: `/socket/websocket?vsn=2.0.0`.
    pub target: &'a str,
    /// Additional headers, sent in this order after the machine's own. Phoenix passes those that
    /// begin with `x-` on to the socket, and few others. `Host`, `Connection`, `Upgrade`,
    /// `Sec-WebSocket-*` and headers that announce a body are refused.
    pub headers: &'a [(String, String)],
    /// The subprotocols to offer, in order of preference; empty for none. An auth token is offered
    /// as `phoenix` and [`auth_token_subprotocol`](crate::config::auth_token_subprotocol).
    pub subprotocols: &'a [String],
    /// 16 random bytes, new for every attempt. They serve to detect a cached response, and are not
    /// secret.
    pub key: [u8; 16],
}

/// One upgrade, from the request to its outcome. See the [module](self).
#[derive(Clone)]
pub struct Upgrade {
    outbox: Outbox,
    response: Response,
    expected_accept: String,
    offered: Vec<String>,
    #[cfg(feature = "deflate")]
    compression: Option<Compression>,
}

/// The state of an upgrade, or of a tunnel through a proxy, after a read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpgradeStep<T> {
    /// The outcome is not known yet: read more.
    More,
    /// The stream is open, and the machine has finished.
    Done(T),
}

/// The result of an upgrade: the stream is a WebSocket now.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Upgraded {
    /// The subprotocol that the server selected. `None` is valid even if one was offered: Phoenix
    /// 1.7 never selects one.
    pub protocol: Option<String>,
    /// The headers of the response, in the order and spelling in which they arrived.
    pub headers: Vec<(String, String)>,
    /// The bytes after the head: the beginning of the first frames.
    pub leftover: Bytes,
    /// The agreed compression; `None` if none was offered, or the server declined it.
    #[cfg(feature = "deflate")]
    pub compression: Option<Compression>,
}

impl Upgrade {
    /// Validates and encodes the request.
    ///
    /// # Errors
    ///
    /// `InvalidHost`, `InvalidTarget`, `InvalidHeader` or `InvalidSubprotocol` if the request is
    /// invalid, for example because of a line break.
    pub fn new(request: &UpgradeRequest<'_>) -> Result<Self, UpgradeError> {
        Self::with_extensions(request, None)
    }

    /// Like [`new`](Self::new), and offers compression (permessage-deflate, RFC 7692). A server may
    /// accept or decline it: see [`Upgraded::compression`].
    ///
    /// ```
    /// use phx_proto::config::Compression;
    /// use phx_proto::upgrade::{Upgrade, UpgradeRequest};
    ///
    /// let upgrade = Upgrade::compressed(
    ///     &UpgradeRequest {
    ///         host: "localhost:4000",
    ///         target: "/socket/websocket?vsn=2.0.0",
    ///         headers: &[],
    ///         subprotocols: &[],
    ///         key: [7; 16],
    ///     },
    ///     &Compression::balanced(),
    /// )?;
    /// let request = std::str::from_utf8(upgrade.poll_write()).unwrap();
    /// assert!(request.contains("Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=13"));
    /// # Ok::<(), phx_proto::upgrade::UpgradeError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The errors of [`new`](Self::new).
    #[cfg(feature = "deflate")]
    pub fn compressed(
        request: &UpgradeRequest<'_>,
        compression: &Compression,
    ) -> Result<Self, UpgradeError> {
        let offer = deflate::offer(compression);
        let compression = Some(*compression);
        Ok(Self { compression, ..Self::with_extensions(request, Some(&offer))? })
    }

    fn with_extensions(
        request: &UpgradeRequest<'_>,
        extensions: Option<&str>,
    ) -> Result<Self, UpgradeError> {
        Ok(Self {
            outbox: Outbox::new(request::encode(request, extensions)?),
            response: Response::new(|status| status == 101),
            expected_accept: accept_key(request.key),
            offered: request.subprotocols.to_vec(),
            #[cfg(feature = "deflate")]
            compression: None,
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

    /// Processes bytes from the server. An empty slice is not the end of the stream; report that
    /// with [`handle_eof`](Self::handle_eof).
    ///
    /// # Errors
    ///
    /// [`UpgradeError::Refused`] if the server answered with a status other than 101 and the body
    /// is complete or exceeds 1 KiB; another variant that blames the peer if the response is
    /// invalid; [`UpgradeError::Finished`] after an outcome was returned.
    pub fn handle_read(&mut self, bytes: &[u8]) -> Result<UpgradeStep<Upgraded>, UpgradeError> {
        match self.response.handle_read(bytes)? {
            Event::More => Ok(UpgradeStep::More),
            Event::Open(head, leftover) => {
                let protocol = self.judge(&head)?;
                #[cfg(feature = "deflate")]
                let compression = self.agreed(&head)?;
                #[cfg(not(feature = "deflate"))]
                no_extension(&head)?;
                // Protocol: CONN-11.
                Ok(UpgradeStep::Done(Upgraded {
                    protocol,
                    headers: head.headers,
                    leftover,
                    #[cfg(feature = "deflate")]
                    compression,
                }))
            }
            // Protocol: CONN-14.
            Event::Refused(refusal) => Err(UpgradeError::Refused(refusal)),
        }
    }

    /// Reports the end of the stream. It completes the body of a refusal, even if some of it is
    /// missing. Before that, the result is [`UpgradeError::Eof`], or another variant if the bytes so
    /// far are invalid; after an outcome it is [`UpgradeError::Finished`].
    pub fn handle_eof(&mut self) -> UpgradeError {
        self.response.handle_eof().map_or_else(|error| error, UpgradeError::Refused)
    }

    /// The refusal, if its head is complete and its body is not. Call it when a deadline passes.
    #[must_use]
    pub fn pending_refusal(&self) -> Option<Refusal> {
        self.response.pending_refusal()
    }

    /// Checks a 101 response against the request (RFC 6455 section 4.1), and returns the
    /// subprotocol that it selects.
    fn judge(&self, head: &Head) -> Result<Option<String>, UpgradeError> {
        let not_upgrade = |reason, name| {
            let evidence = joined(&head.headers, name);
            Err(UpgradeError::NotUpgrade { reason, evidence: printable(&evidence) })
        };
        if head.version == 0 {
            let evidence = "HTTP/1.0".to_owned();
            let reason = "in a version of HTTP without upgrades";
            return Err(UpgradeError::NotUpgrade { reason, evidence });
        }
        let mut upgrades = tokens(&head.headers, "upgrade");
        if !(upgrades.next().is_some_and(|token| token.eq_ignore_ascii_case("websocket"))
            && upgrades.next().is_none())
        {
            return not_upgrade("not to websocket", "upgrade");
        }
        let mut connection = tokens(&head.headers, "connection");
        if !connection.any(|token| token.eq_ignore_ascii_case("upgrade")) {
            return not_upgrade("without \"upgrade\" in Connection", "connection");
        }

        let answered = joined(&head.headers, "sec-websocket-accept");
        if answered != self.expected_accept {
            return Err(UpgradeError::BadAccept {
                expected: self.expected_accept.clone(),
                answered: header(&head.headers, "sec-websocket-accept")
                    .is_some()
                    .then(|| printable(&answered)),
            });
        }

        let mut selected = tokens(&head.headers, "sec-websocket-protocol");
        // Protocol: CONN-8.
        let protocol = selected.next().map(str::to_owned);
        let known = protocol.as_ref().is_none_or(|protocol| self.offered.contains(protocol));
        if !known || selected.next().is_some() {
            let answered = joined(&head.headers, "sec-websocket-protocol");
            return Err(UpgradeError::UnexpectedProtocol {
                offered: self.offered.iter().map(|offer| logged_protocol(offer)).collect(),
                answered: printable(&logged_protocol(&answered)),
            });
        }
        Ok(protocol)
    }

    /// The compression that a 101 response selects.
    #[cfg(feature = "deflate")]
    fn agreed(&self, head: &Head) -> Result<Option<Compression>, UpgradeError> {
        let Some(offered) = &self.compression else {
            return no_extension(head).map(|()| None);
        };
        let values = head.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(EXTENSIONS));
        // RFC 7692 section 7.1: a client must fail the connection if the response is invalid.
        match deflate::agreed(offered, values.map(|(_, value)| &**value)) {
            deflate::Answer::Declined => Ok(None),
            deflate::Answer::Agreed(compression) => Ok(Some(compression)),
            deflate::Answer::NotOffered => no_extension(head).map(|()| None),
            deflate::Answer::Invalid(reason) => {
                let answered = printable(&joined(&head.headers, EXTENSIONS));
                Err(UpgradeError::InvalidExtension { reason, answered })
            }
        }
    }
}

/// The name of the header with the selected extensions.
const EXTENSIONS: &str = "sec-websocket-extensions";

/// Checks that the response selects no extension. An empty header selects none.
fn no_extension(head: &Head) -> Result<(), UpgradeError> {
    // Protocol: CONN-12.
    if tokens(&head.headers, EXTENSIONS).next().is_none() {
        return Ok(());
    }
    let answered = printable(&joined(&head.headers, EXTENSIONS));
    Err(UpgradeError::UnexpectedExtension { answered })
}

/// The members of all headers with that name. Each header is a comma-separated list; its empty members
/// are left out.
fn tokens<'a>(
    headers: &'a [(String, String)],
    name: &'static str,
) -> impl Iterator<Item = &'a str> + use<'a> {
    let values = headers.iter().filter(move |(other, _)| other.eq_ignore_ascii_case(name));
    let members = values.flat_map(|(_, value)| value.split(',')).map(str::trim_ascii);
    members.filter(|member| !member.is_empty())
}

/// All headers with that name as one list; empty if there is none (RFC 9110 section 5.3).
fn joined(headers: &[(String, String)], name: &'static str) -> String {
    tokens(headers, name).collect::<Vec<_>>().join(", ")
}

/// Text of the peer, escaped so that it fits into one line of a log.
fn printable(text: &str) -> String {
    text.escape_debug().to_string()
}

/// A subprotocol for the log, with an auth token in it redacted.
fn logged_protocol(protocol: &str) -> String {
    match protocol.find(AUTH_TOKEN_PREFIX) {
        Some(at) => format!("{}[redacted]", &protocol[..at + AUTH_TOKEN_PREFIX.len()]),
        None => protocol.to_owned(),
    }
}

impl fmt::Debug for UpgradeRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.target.split('?').next().unwrap_or_default();
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        let offers: Vec<_> = self.subprotocols.iter().map(|offer| logged_protocol(offer)).collect();
        f.debug_struct("UpgradeRequest")
            .field("host", &self.host)
            .field("path", &path)
            .field("headers", &names)
            .field("subprotocols", &offers)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Upgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upgrade")
            .field("outbox", &self.outbox)
            .field("response", &self.response)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Upgraded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut upgraded = f.debug_struct("Upgraded");
        upgraded
            .field("protocol", &self.protocol.as_deref().map(logged_protocol))
            .field("headers", &LoggedHeaders(&self.headers))
            .field("leftover", &self.leftover.len());
        #[cfg(feature = "deflate")]
        upgraded.field("compression", &self.compression);
        upgraded.finish()
    }
}
