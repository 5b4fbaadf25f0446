//! Credentials of a connection attempt.

use super::http::header_problem;
use super::{ConfigError, Secret, Uri};

/// Parameters, headers and token of a connection attempt.
///
/// [`Socket::set_credentials`](crate::Socket::set_credentials) replaces all of them and merges nothing,
/// so that a removed token is never sent again. `Debug` shows names only.
///
/// ```
/// use phx_proto::Credentials;
///
/// let credentials = Credentials::new().auth_token("s3cret").header("x-device", "7")?;
/// assert!(!format!("{credentials:?}").contains("s3cret"));
/// // A value cannot inject another header.
/// assert!(Credentials::new().header("x-device", "7\r\nx-admin: yes").is_err());
/// # Ok::<(), phx_proto::ConfigError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    pub(crate) uri: Option<Uri>,
    pub(crate) params: Vec<(String, Secret)>,
    pub(crate) headers: Vec<(String, Secret)>,
    pub(crate) auth_token: Option<Secret>,
}

impl Credentials {
    /// Creates empty credentials.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets another address for the next attempts, instead of the configured one.
    #[must_use]
    pub fn uri(mut self, uri: Uri) -> Self {
        self.uri = Some(uri);
        self
    }

    /// Adds a connect parameter, sent in the query of the upgrade request.
    ///
    /// Proxies write queries to their logs, so a token should be sent as
    /// [`auth_token`](Self::auth_token) or in an `x-` header instead.
    #[must_use]
    pub fn param(mut self, name: impl Into<String>, value: impl Into<Secret>) -> Self {
        self.params.push((name.into(), value.into()));
        self
    }

    /// Adds a header to the upgrade request.
    ///
    /// The default `User-Agent` is `phx/` and the version of this crate, because some firewalls refuse
    /// requests without one. An empty value removes the header.
    ///
    /// Phoenix passes headers whose names start with `x-` to the application if the server's
    /// `connect_info` contains `:x_headers` (`wire/push_whoami_headers`). Most other headers, such as
    /// `Authorization`, are visible only to proxies on the way.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Header`] if the name is not a token, if the value has a control character (CR and
    /// LF would start another header) or whitespace at an end, if the upgrade itself sets the header, or
    /// if the header announces a body.
    pub fn header(
        mut self,
        name: impl Into<String>,
        value: impl Into<Secret>,
    ) -> Result<Self, ConfigError> {
        let (name, value) = (name.into(), value.into());
        if let Some(problem) = header_problem(&name, value.expose()) {
            return Err(ConfigError::Header { name, problem });
        }
        self.headers.push((name, value));
        Ok(self)
    }

    /// Sets the token for Phoenix's `auth_token` option, which is sent as a WebSocket subprotocol.
    ///
    /// A server without that option, such as any Phoenix 1.7, ignores it
    /// (`wire/handshake_auth_token__1.7.24`); the client then warns with
    /// [`Warning::AuthTokenNotAcknowledged`](crate::event::Warning::AuthTokenNotAcknowledged).
    #[must_use]
    pub fn auth_token(mut self, token: impl Into<Secret>) -> Self {
        self.auth_token = Some(token.into());
        self
    }
}

/// The default value of the header `User-Agent`.
const USER_AGENT: &str = concat!("phx/", env!("CARGO_PKG_VERSION"));

impl Credentials {
    /// The headers to send: the added ones, and the default `User-Agent` if none was added.
    pub(crate) fn sent_headers(&self) -> Vec<(String, Secret)> {
        let is_agent = |name: &str| name.eq_ignore_ascii_case("user-agent");
        let mut headers = self.headers.clone();
        if headers.iter().any(|(name, _)| is_agent(name)) {
            headers.retain(|(name, value)| !is_agent(name) || !value.expose().is_empty());
        } else {
            headers.push(("User-Agent".to_owned(), USER_AGENT.into()));
        }
        headers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_value_cannot_inject_header() {
        for value in ["a\r\nX-Evil: 1", "a\nb", "a\rb", "a\0b", " a", "a\n"] {
            let error = Credentials::new().header("x-token", value).unwrap_err();
            assert!(matches!(&error, ConfigError::Header { .. }), "{value:?}");
            assert!(!error.to_string().contains("Evil"));
        }
    }

    #[test]
    fn header_of_the_upgrade_is_refused() {
        for name in ["Host", "upgrade", "Sec-WebSocket-Key", "", "a b", "a:b"] {
            assert!(Credentials::new().header(name, "v").is_err(), "{name:?}");
        }
        assert!(Credentials::new().header("X-API-Key", "k").is_ok());
    }

    /// Cloudflare and others reply with 403 to requests without the header.
    #[test]
    fn user_agent_default_can_be_replaced() {
        let sent = |credentials: Credentials| -> Vec<(String, String)> {
            let headers = credentials.sent_headers().into_iter();
            headers.map(|(name, value)| (name, value.expose().to_owned())).collect()
        };
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let plain = || Credentials::new().header("x-a", "").unwrap();
        let version = concat!("phx/", env!("CARGO_PKG_VERSION"));
        assert_eq!(sent(plain()), [header("x-a", ""), header("User-Agent", version)]);
        let own = plain().header("user-agent", "acme/1").unwrap();
        assert_eq!(sent(own), [header("x-a", ""), header("user-agent", "acme/1")]);
        let none = plain().header("USER-AGENT", "").unwrap();
        assert_eq!(sent(none), [header("x-a", "")]);
    }

    #[test]
    fn credentials_debug_shows_no_value() {
        let credentials = Credentials::new()
            .param("token", "s3cret")
            .header("x-key", "s3cret")
            .unwrap()
            .auth_token("s3cret");
        assert!(!format!("{credentials:?}").contains("s3cret"));
    }
}
