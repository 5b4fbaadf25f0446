//! The WebSocket subprotocol that carries an auth token.
//!
//! Phoenix named the scheme base64url, but its server decodes the STANDARD alphabet: it replies to `-` or
//! `_` with 500, while `+` and `/` work (`wire/handshake_auth_token_variants`). The server accepts tokens
//! with and without padding; this client omits the padding, like phoenix.js.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

/// The prefix of the offered subprotocol by which the server recognises the token.
pub(crate) const AUTH_TOKEN_PREFIX: &str = "base64url.bearer.phx.";

/// The subprotocol that is offered together with an auth token. Phoenix 1.8 selects it.
pub(crate) const AUTH_TOKEN_PROTOCOL: &str = "phoenix";

/// Returns the subprotocol that carries `token`. Offer it *after* `phoenix`.
///
/// A server that reads the token (Phoenix 1.8) selects `phoenix`; if `phoenix` is not offered, it selects
/// nothing. Phoenix 1.7 ignores the offer and with it the token (`wire/handshake_auth_token__1.7.24`).
/// The result is as secret as the token.
///
/// ```
/// assert_eq!(phx_proto::config::auth_token_subprotocol("abcd"), "base64url.bearer.phx.YWJjZA");
/// // Despite the name base64url, the alphabet is the standard one.
/// assert_eq!(phx_proto::config::auth_token_subprotocol("?>~"), "base64url.bearer.phx.Pz5+");
/// ```
#[must_use]
pub fn auth_token_subprotocol(token: &str) -> String {
    let mut encoded = AUTH_TOKEN_PREFIX.to_owned();
    // Protocol: CONN-7.
    STANDARD_NO_PAD.encode_string(token, &mut encoded);
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protocol: CONN-7.
    #[test]
    fn auth_token_is_encoded_as_recorded() {
        // wire/handshake_auth_token
        assert_eq!(
            auth_token_subprotocol("secret-token-1"),
            "base64url.bearer.phx.c2VjcmV0LXRva2VuLTE"
        );
        // wire/handshake_auth_token_variants, connections e and j
        assert_eq!(auth_token_subprotocol("??>~~~??>"), "base64url.bearer.phx.Pz8+fn5+Pz8+");
        assert_eq!(auth_token_subprotocol(""), "base64url.bearer.phx.");
    }
}
