//! What may stand in the head of an HTTP request: one rule each for hosts, header names and header
//! values, wherever they are given.

/// The headers that the upgrade writes itself, or that would give the request a body: then the
/// server would take the first frames for it.
const OWNED: [&str; 5] = ["host", "connection", "upgrade", "content-length", "transfer-encoding"];
const OWNED_PREFIX: &str = "sec-websocket-";

/// What is wrong with a header, if anything: a line break in it would start another header.
pub(crate) fn header_problem(name: &str, value: &str) -> Option<&'static str> {
    if !is_token(name) {
        return Some("its name is not an HTTP token");
    }
    let lower = name.to_ascii_lowercase();
    if OWNED.contains(&lower.as_str()) || lower.starts_with(OWNED_PREFIX) {
        return Some("it belongs to the WebSocket upgrade itself");
    }
    if !is_value(value.as_bytes()) {
        return Some("its value holds a control character");
    }
    if value.trim() != value {
        return Some("its value starts or ends with white space");
    }
    None
}

/// What is wrong with a host, or with a host and its port, if anything.
pub(crate) fn host_problem(host: &str) -> Option<&'static str> {
    if host.is_empty() {
        return Some("it has no host");
    }
    if !host.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Some("only visible ASCII may stand in a host (IDNs in their xn-- form)");
    }
    if host.contains('@') {
        return Some("it holds user information: pass credentials as headers or parameters");
    }
    if host.contains(['/', '?', '#', ',', '\\', '"', '<', '>', '^', '`', '{', '|', '}']) {
        return Some("the host has a character in it that no host has");
    }
    None
}

/// Whether it is a name of a header (RFC 9110 section 5.6.2).
pub(crate) fn is_token(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(is_token_byte)
}

/// Whether it may be the value of a header: a line break in it would start another one.
pub(crate) fn is_value(value: &[u8]) -> bool {
    !value.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t')
}

const fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}
