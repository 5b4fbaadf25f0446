//! How an auth token travels: as a WebSocket subprotocol.
//!
//! The name Phoenix gave the scheme says base64url, but the server decodes the STANDARD alphabet:
//! a `-` or `_` is answered with 500, while `+` and `/` work (`wire/handshake_auth_token_variants`).
//! Padding is optional there; it is left out here, as phoenix.js does.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

/// What the server looks for among the offered subprotocols.
pub(crate) const AUTH_TOKEN_PREFIX: &str = "base64url.bearer.phx.";

/// The subprotocol that carries `token`, to be offered *after* `phoenix`.
///
/// A server that reads it (Phoenix 1.8) selects `phoenix`; without `phoenix` in the offer it
/// selects nothing. Phoenix 1.7 ignores the offer altogether, and the token with it
/// (`wire/handshake_auth_token__1.7.24`). The result is as secret as the token.
///
/// ```
/// assert_eq!(phx_proto::config::auth_token_subprotocol("abcd"), "base64url.bearer.phx.YWJjZA");
/// // The surprising case: despite the name, the alphabet is the standard one.
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
    fn the_recorded_token_is_encoded_as_the_server_accepted_it() {
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
