//! The tunnel through a SOCKS5 proxy (RFC 1928), with a user and a password if the proxy requires
//! them (RFC 1929).
//!
//! ```text
//!             no credentials needed
//!         +------------------------------+
//!         |                              v
//!    +--------+  needed  +------+ ok  +-------+  granted
//! -> | Method |--------->| Auth |---->| Reply |----------> Done(Tunnel)
//!    +--------+          +------+     +-------+
//!         | none fits        | wrong      | anything else
//!         +------------------+------------+--------------> error
//! ```
//!
//! It has the interface of [`Connect`](super::Connect), except that a read may be followed by
//! another write. Every message contains its own length, so the outcome does not depend on how the
//! bytes were cut into reads. A refusal has no text: proxies send nothing after its code.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::Bytes;

use super::outbox::Outbox;
use super::request::check_host;
use super::{ProxyCredentials, Tunnel, TunnelRequest, UpgradeError, UpgradeStep};
use crate::event::refusal::SocksRefusal;

const VERSION: u8 = 5;
const NO_CREDENTIALS: u8 = 0;
const USER_AND_PASSWORD: u8 = 2;

/// One tunnel through a SOCKS5 proxy, from the greeting to its outcome.
///
/// ```
/// use phx_proto::upgrade::{TunnelRequest, UpgradeStep, Socks5};
///
/// # fn main() -> Result<(), phx_proto::upgrade::UpgradeError> {
/// let request = TunnelRequest { host: "example.org", port: 443, credentials: None };
/// let mut socks = Socks5::new(&request)?;
/// assert_eq!(socks.poll_write(), [5, 1, 0]);
/// socks.handle_written(3);
/// // The proxy requires no credentials, so the client sends the address next.
/// assert_eq!(socks.handle_read(&[5, 0])?, UpgradeStep::More);
/// assert!(socks.poll_write().ends_with(b"example.org\x01\xbb"));
/// socks.handle_written(socks.poll_write().len());
/// let progress = socks.handle_read(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0])?;
/// assert!(matches!(progress, UpgradeStep::Done(_)));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Socks5 {
    outbox: Outbox,
    state: State,
    /// The part of the expected message that has arrived; at most 262 bytes.
    buffer: Vec<u8>,
    /// The messages that the client may have to send next. `Debug` does not print them, because the
    /// first contains a password.
    auth: Option<Hidden>,
    connect: Vec<u8>,
    received: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Method,
    Auth,
    Reply,
    Finished,
}

struct Hidden(Vec<u8>);

impl core::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("[redacted]")
    }
}

impl Socks5 {
    /// Validates the request and encodes the greeting.
    ///
    /// # Errors
    ///
    /// `InvalidHost` or `InvalidCredentials` if the request is invalid.
    pub fn new(request: &TunnelRequest<'_>) -> Result<Self, UpgradeError> {
        let connect = connect(request.host, request.port)?;
        let auth = request.credentials.map(auth).transpose()?.map(Hidden);
        let greeting = match auth {
            None => vec![VERSION, 1, NO_CREDENTIALS],
            Some(_) => vec![VERSION, 2, NO_CREDENTIALS, USER_AND_PASSWORD],
        };
        let (outbox, state) = (Outbox::new(greeting), State::Method);
        Ok(Self { outbox, state, buffer: Vec::new(), auth, connect, received: 0 })
    }

    /// The bytes that are to be written before the next read.
    #[must_use]
    pub fn poll_write(&self) -> &[u8] {
        self.outbox.pending()
    }

    /// Reports that the first `n` bytes of [`poll_write`](Self::poll_write) were written. A larger
    /// `n` counts as all of them.
    pub fn handle_written(&mut self, n: usize) {
        self.outbox.advance(n);
    }

    /// Whether the proxy has accepted the client. The request for the address follows.
    #[cfg(feature = "adapter")]
    pub(crate) fn is_negotiated(&self) -> bool {
        self.state == State::Reply
    }

    /// Processes bytes from the proxy; afterwards there may be more to [write](Self::poll_write).
    /// An empty slice is not the end of the stream; report that with
    /// [`handle_eof`](Self::handle_eof).
    ///
    /// # Errors
    ///
    /// [`UpgradeError::SocksRefused`] if the credentials are missing or wrong, or the proxy's rules
    /// forbid the address; [`UpgradeError::SocksFailed`] if it could not connect to the server;
    /// [`UpgradeError::NotSocks`]; [`UpgradeError::Finished`] after an outcome was returned.
    pub fn handle_read(&mut self, bytes: &[u8]) -> Result<UpgradeStep<Tunnel>, UpgradeError> {
        if self.state == State::Finished {
            return Err(UpgradeError::Finished);
        }
        self.received = self.received.saturating_add(bytes.len());
        self.buffer.extend_from_slice(bytes);
        let step = self.advance();
        if !matches!(step, Ok(UpgradeStep::More)) {
            self.state = State::Finished;
            self.buffer = Vec::new();
        }
        step
    }

    /// Reports the end of the stream, which is an error in every state.
    pub fn handle_eof(&mut self) -> UpgradeError {
        match core::mem::replace(&mut self.state, State::Finished) {
            State::Finished => UpgradeError::Finished,
            _ => UpgradeError::Eof { received: self.received },
        }
    }

    /// Processes all complete messages.
    fn advance(&mut self) -> Result<UpgradeStep<Tunnel>, UpgradeError> {
        loop {
            let version = self.buffer.first().copied();
            // The version of the sub-negotiation is 1, but some proxies send 5 there too.
            if let (Some(byte), State::Method | State::Reply) = (version, self.state) {
                if byte != VERSION {
                    return Err(UpgradeError::NotSocks { byte });
                }
            }
            let Some(&[_, code]) = self.buffer.first_chunk() else { return Ok(UpgradeStep::More) };
            match self.state {
                State::Method => {
                    match (code, self.auth.take()) {
                        (NO_CREDENTIALS, _) => self.ask(),
                        (USER_AND_PASSWORD, Some(Hidden(auth))) => {
                            self.outbox.extend(&auth);
                            self.state = State::Auth;
                        }
                        (0xff, _) => return Err(refused(SocksRefusal::Credentials)),
                        (byte, _) => return Err(UpgradeError::NotSocks { byte }),
                    }
                    self.buffer.drain(..2);
                }
                State::Auth => {
                    if code != 0 {
                        return Err(refused(SocksRefusal::Credentials));
                    }
                    self.ask();
                    self.buffer.drain(..2);
                }
                State::Reply => return self.reply(code),
                State::Finished => return Err(UpgradeError::Finished),
            }
        }
    }

    fn ask(&mut self) {
        self.outbox.extend(&self.connect);
        self.state = State::Reply;
    }

    /// Reads the reply to the request. The address in it, from which the proxy connects, is
    /// ignored.
    fn reply(&mut self, code: u8) -> Result<UpgradeStep<Tunnel>, UpgradeError> {
        match code {
            0 => {}
            2 => return Err(refused(SocksRefusal::NotAllowed)),
            code => return Err(UpgradeError::SocksFailed { code }),
        }
        let length = match self.buffer.get(3) {
            None => return Ok(UpgradeStep::More),
            Some(1) => 4 + 4 + 2,
            Some(4) => 4 + 16 + 2,
            Some(3) => match self.buffer.get(4) {
                None => return Ok(UpgradeStep::More),
                Some(length) => 4 + 1 + usize::from(*length) + 2,
            },
            Some(&byte) => return Err(UpgradeError::NotSocks { byte }),
        };
        if self.buffer.len() < length {
            return Ok(UpgradeStep::More);
        }
        let leftover = Bytes::from(core::mem::take(&mut self.buffer)).slice(length..);
        Ok(UpgradeStep::Done(Tunnel { headers: Vec::new(), leftover }))
    }
}

const fn refused(refusal: SocksRefusal) -> UpgradeError {
    UpgradeError::SocksRefused(refusal)
}

/// Encodes `CONNECT` to an address, or to a name that the proxy resolves.
fn connect(host: &str, port: u16) -> Result<Vec<u8>, UpgradeError> {
    check_host(host)?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let mut message = vec![VERSION, 1, 0];
    if let Ok(address) = bare.parse::<IpAddr>() {
        match address {
            IpAddr::V4(address) => push(&mut message, 1, &Ipv4Addr::octets(&address)),
            IpAddr::V6(address) => push(&mut message, 4, &Ipv6Addr::octets(&address)),
        }
    } else if host.contains([':', '[', ']', '%']) {
        return Err(UpgradeError::InvalidHost { reason: "pass the port separately" });
    } else {
        let Ok(length) = u8::try_from(host.len()) else {
            return Err(UpgradeError::InvalidHost { reason: "it must not exceed 255 bytes" });
        };
        push(&mut message, 3, &[length]);
        message.extend_from_slice(host.as_bytes());
    }
    message.extend_from_slice(&port.to_be_bytes());
    Ok(message)
}

fn push(message: &mut Vec<u8>, kind: u8, address: &[u8]) {
    message.push(kind);
    message.extend_from_slice(address);
}

/// Encodes the credentials by RFC 1929, in UTF-8.
fn auth(credentials: ProxyCredentials<'_>) -> Result<Vec<u8>, UpgradeError> {
    let ProxyCredentials { username, password } = credentials;
    let fault = |reason| UpgradeError::InvalidCredentials { reason };
    if username.is_empty() {
        return Err(fault("the user must not be empty"));
    }
    let mut message = vec![1];
    for text in [username, password] {
        let length = u8::try_from(text.len());
        message.push(length.map_err(|_| fault("SOCKS5 allows at most 255 bytes each"))?);
        message.extend_from_slice(text.as_bytes());
    }
    Ok(message)
}
