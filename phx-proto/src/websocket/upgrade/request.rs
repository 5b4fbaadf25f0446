//! Validation and encoding of the request.
//!
//! Every byte of the head is validated before it is encoded, because a line break in a value would
//! begin another header.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};

use super::{UpgradeError, UpgradeRequest};
use crate::config::http::{header_problem, host_problem};

/// The GUID that a server appends to the key (RFC 6455 section 1.3).
const ACCEPT_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The `Sec-WebSocket-Accept` that answers a key (RFC 6455 section 4.2.2): base64 of the SHA-1 of
/// the base64 of the key and a fixed GUID.
///
/// ```
/// // This is the example of the RFC.
/// let key = *b"the sample nonce";
/// assert_eq!(phx_proto::upgrade::accept_key(key), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
/// ```
#[must_use]
pub fn accept_key(key: [u8; 16]) -> String {
    accept_of(&STANDARD.encode(key))
}

/// The `Sec-WebSocket-Accept` for the value of a `Sec-WebSocket-Key`.
pub(crate) fn accept_of(key: &str) -> String {
    let mut hash = Sha1::new();
    hash.update(key);
    hash.update(ACCEPT_GUID);
    STANDARD.encode(hash.finalize())
}

/// The bytes of the upgrade request, with an offer of extensions if there is one.
pub(super) fn encode(
    request: &UpgradeRequest<'_>,
    extensions: Option<&str>,
) -> Result<Vec<u8>, UpgradeError> {
    check_host(request.host)?;
    check_target(request.target)?;
    check_subprotocols(request.subprotocols)?;
    for (name, value) in request.headers {
        check_header(name, value)?;
    }

    // Protocol: CONN-1.
    let mut head = Head::new(&["GET ", request.target, " HTTP/1.1"]);
    head.header("Host", request.host);
    head.header("Connection", "Upgrade");
    head.header("Upgrade", "websocket");
    head.header("Sec-WebSocket-Version", "13");
    head.header("Sec-WebSocket-Key", &STANDARD.encode(request.key));
    if !request.subprotocols.is_empty() {
        // All offers are in one header, because Phoenix reads only the first header of that name.
        // Protocol: CONN-6.
        head.header("Sec-WebSocket-Protocol", &request.subprotocols.join(", "));
    }
    if let Some(extensions) = extensions {
        head.header("Sec-WebSocket-Extensions", extensions);
    }
    // Protocol: CONN-5, CONN-13.
    for (name, value) in request.headers {
        head.header(name, value);
    }
    Ok(head.finish())
}

/// A request head under construction, from validated parts.
pub(super) struct Head(String);

impl Head {
    pub(super) fn new(request_line: &[&str]) -> Self {
        let mut head = Self(request_line.concat());
        head.0.push_str("\r\n");
        head
    }

    pub(super) fn header(&mut self, name: &str, value: &str) {
        for part in [name, ": ", value, "\r\n"] {
            self.0.push_str(part);
        }
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.0.push_str("\r\n");
        self.0.into_bytes()
    }
}

/// Checks a host, with or without a port, for a `Host` header.
pub(super) fn check_host(host: &str) -> Result<(), UpgradeError> {
    host_problem(host).map_or(Ok(()), |reason| Err(UpgradeError::InvalidHost { reason }))
}

fn check_target(target: &str) -> Result<(), UpgradeError> {
    let fault = |reason| Err(UpgradeError::InvalidTarget { reason });
    if !target.starts_with('/') {
        return fault("it must begin with /");
    }
    if !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return fault("everything but visible ASCII must be percent-encoded");
    }
    if target.contains('#') {
        return fault("it must not contain a fragment (#)");
    }
    Ok(())
}

/// Checks the offered subprotocols. RFC 6455 section 4.1 allows only the characters of an HTTP token.
/// This check allows other characters too, because Phoenix expects an auth token as a subprotocol, and
/// an auth token may contain a `/`.
fn check_subprotocols(subprotocols: &[String]) -> Result<(), UpgradeError> {
    for (index, subprotocol) in subprotocols.iter().enumerate() {
        let fault = |reason| Err(UpgradeError::InvalidSubprotocol { index, reason });
        if subprotocol.is_empty() {
            return fault("it is empty");
        }
        if !subprotocol.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',') {
            return fault("only visible ASCII without commas is allowed");
        }
        if subprotocols[..index].contains(subprotocol) {
            return fault("it is offered twice");
        }
    }
    Ok(())
}

fn check_header(name: &str, value: &str) -> Result<(), UpgradeError> {
    let fault = |reason| Err(UpgradeError::InvalidHeader { name: name.to_owned(), reason });
    header_problem(name, value).map_or(Ok(()), fault)
}
