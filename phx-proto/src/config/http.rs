//! Checks of hosts, header names and header values for the head of an HTTP request.

/// Headers that the application cannot set. The upgrade writes some of them itself; the others announce a
/// request body, and the server would read the first frames as that body.
const OWNED: [&str; 5] = ["host", "connection", "upgrade", "content-length", "transfer-encoding"];
const OWNED_PREFIX: &str = "sec-websocket-";

/// Returns the problem with a header, if any. A line break in a value would start another header.
pub(crate) fn header_problem(name: &str, value: &str) -> Option<&'static str> {
    if !is_token(name) {
        return Some("the name is not an HTTP token");
    }
    let lower = name.to_ascii_lowercase();
    if OWNED.contains(&lower.as_str()) || lower.starts_with(OWNED_PREFIX) {
        return Some("the application cannot set this header of the WebSocket upgrade");
    }
    if !is_value(value.as_bytes()) {
        return Some("the value contains a control character");
    }
    if value.trim() != value {
        return Some("the value starts or ends with whitespace");
    }
    None
}

/// Returns the problem with a host, or with a host and its port, if any.
pub(crate) fn host_problem(host: &str) -> Option<&'static str> {
    if host.is_empty() {
        return Some("missing host");
    }
    if !host.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Some(
            "the host must be visible ASCII: write an internationalized name in its xn-- form",
        );
    }
    if host.contains('@') {
        return Some("it contains user information: pass credentials as headers or parameters");
    }
    if host.contains(['/', '?', '#', ',', '\\', '"', '<', '>', '^', '`', '{', '|', '}']) {
        return Some("the host contains an invalid character");
    }
    None
}

/// Whether a string is a valid header name (RFC 9110 section 5.6.2).
pub(crate) fn is_token(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(is_token_byte)
}

/// Whether bytes are a valid header value. A line break would start another header.
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
