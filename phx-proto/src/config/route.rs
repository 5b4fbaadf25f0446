//! The route to a server: the address to dial, the proxy, and whether clear text is allowed.
//!
//! ```text
//! URI's host ──▶ connect_to, if given ──▶ target ──▶ proxy set in code, unless it excepts the target
//!                                            │   └─▶ proxy of the environment, unless the target is
//!                                            │       this machine or one of NO_PROXY
//!                                            └──────▶ the target itself
//! ```
//!
//! The header `Host` and the server name in TLS are always those of the URI.

use super::uri::{self, lower_case, split_port};
use super::{Config, ConfigError, Credentials, Proxy, Uri};

/// An address to dial instead of the URI's. Without a port, the port of the URI is used.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Target {
    host: String,
    port: Option<u16>,
}

impl Target {
    pub(super) fn parse(address: &str) -> Result<Self, ConfigError> {
        let invalid = |problem| ConfigError::ConnectTo { problem };
        if address.contains("://") {
            return Err(invalid("write host:port, without a scheme"));
        }
        let (host, port) = split_port(address).map_err(|error| match error {
            ConfigError::Uri { problem } => invalid(problem),
            other => other,
        })?;
        Ok(Self { host: lower_case(&host), port })
    }
}

impl TryFrom<String> for Target {
    type Error = ConfigError;

    fn try_from(address: String) -> Result<Self, ConfigError> {
        Self::parse(&address)
    }
}

/// The form that [`Config::connect_to`] parses.
impl core::fmt::Display for Target {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}", uri::BracketedHost(&self.host))?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// Checks that clear text stays on this machine: a `ws://` URI, and the host that is dialled for it, must
/// be loopback unless the configuration is insecure. Every connection is checked here.
pub(crate) fn check_clear_text(
    uri: &Uri,
    dialled: &str,
    allow_insecure: bool,
) -> Result<(), ConfigError> {
    if uri.is_secure() || allow_insecure {
        return Ok(());
    }
    match [uri.host(), dialled].into_iter().find(|host| !uri::is_loopback(host)) {
        None => Ok(()),
        Some(host) => Err(ConfigError::Insecure { host: host.to_owned() }),
    }
}

impl Config {
    /// Checks that `uri` may be dialled with this configuration: clear text only where it is allowed, and
    /// no `vsn` other than that of the codec. It does not check proxies.
    pub(crate) fn check_uri(&self, uri: &Uri) -> Result<(), ConfigError> {
        check_clear_text(uri, self.dial_target(uri).0, self.allow_insecure)?;
        let spoken = self.codec.vsn();
        if uri.params("vsn").any(|vsn| vsn != spoken) {
            return Err(ConfigError::Vsn { spoken: spoken.to_owned() });
        }
        Ok(())
    }

    /// The address for these credentials, without their parameters: their own, or the configured one.
    pub(crate) fn address_with<'a>(&'a self, credentials: &'a Credentials) -> &'a Uri {
        credentials.uri.as_ref().unwrap_or(&self.uri)
    }

    /// The address that is dialled with these credentials, with every parameter.
    pub(crate) fn request_uri(&self, credentials: &Credentials) -> Result<Uri, ConfigError> {
        let mut uri = self.address_with(credentials).clone();
        for (name, value) in &credentials.params {
            uri.push_param(name, value.expose());
        }
        // Protocol: CONN-2.
        if uri.params("vsn").next().is_none() {
            uri.push_param("vsn", self.codec.vsn());
        }
        self.check_uri(&uri)?;
        Ok(uri)
    }

    /// The host and the port to dial for this address: those of [`connect_to`](Self::connect_to), or those
    /// of the address.
    #[must_use]
    pub fn dial_target<'a>(&'a self, uri: &'a Uri) -> (&'a str, u16) {
        match &self.connect_to {
            Some(target) => (&target.host, target.port.unwrap_or(uri.port())),
            None => (uri.host(), uri.port()),
        }
    }

    /// The proxy through which this address is reached, if any.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Proxy`] if the environment names an invalid proxy for this address.
    pub fn proxy_to(&self, uri: &Uri) -> Result<Option<&Proxy>, ConfigError> {
        let (host, port) = self.dial_target(uri);
        match (&self.proxy, &self.environment) {
            (Some(proxy), _) => Ok(Some(&**proxy).filter(|proxy| proxy.is_for(host, port))),
            (None, Some(environment)) => environment.proxy_to(uri.is_secure(), host, port),
            (None, None) => Ok(None),
        }
    }

    /// Checks that `uri` may be reached through `proxy`, if there is one. Returns whether every resolved
    /// address of the dialled host must be an address of this machine.
    #[cfg(feature = "adapter")]
    pub(crate) fn check_route(
        &self,
        uri: &Uri,
        proxy: Option<&Proxy>,
    ) -> Result<bool, ConfigError> {
        self.check_uri(uri)?;
        let dialled = proxy.map_or(self.dial_target(uri).0, Proxy::host);
        check_clear_text(uri, dialled, self.allow_insecure)?;
        Ok(!uri.is_secure() && !self.allow_insecure)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn target_port_is_optional() {
        let target = |address: &str| {
            let config = Config::new("wss://example.com:4443/s").unwrap().connect_to(address)?;
            let (host, port) = config.dial_target(config.uri());
            Ok::<_, ConfigError>((host.to_owned(), port))
        };
        for (address, host, port) in [
            ("127.0.0.1:8443", "127.0.0.1", 8443),
            ("[::1]:8443", "::1", 8443),
            ("[fe80::1%25Eth0]:1", "fe80::1%Eth0", 1),
            ("Backend.Internal", "backend.internal", 4443),
        ] {
            assert_eq!(target(address).unwrap(), (host.to_owned(), port), "{address}");
            let config = Config::new("wss://example.com/s").unwrap().connect_to(address).unwrap();
            let again = config.connect_to.as_ref().unwrap().to_string();
            let copied = config.clone().connect_to(&again).unwrap();
            assert_eq!(config.connect_to, copied.connect_to, "{again}");
        }
        for address in ["", ":80", "a:0", "a:x", "wss://a:80", "a/b", "u@a:1", "a b:1", "::1"] {
            let error = target(address).unwrap_err();
            assert!(matches!(error, ConfigError::ConnectTo { .. }), "{address}: {error}");
        }
        assert!(matches!(target("bücher:1"), Err(ConfigError::UnicodeHost { .. })));
    }

    fn host() -> impl Strategy<Value = (&'static str, bool)> {
        prop::sample::select(vec![
            ("localhost", true),
            ("127.0.0.2", true),
            ("[::1]", true),
            ("[::ffff:127.0.0.1]", true),
            ("example.com", false),
            ("10.0.0.1", false),
            ("[fe80::1%25lo]", false),
            ("localhost.example.com", false),
        ])
    }

    proptest! {
        /// Clear text leaves this machine only if the configuration is insecure, for any dialled host and
        /// for URIs from the configuration and from credentials.
        #[test]
        fn clear_text_requires_loopback(
            (configured, near) in host(),
            target in prop::option::of(host()),
            (refreshed, refreshed_near) in host(),
            secure in any::<bool>(),
            insecure in any::<bool>(),
        ) {
            let scheme = if secure { "wss" } else { "ws" };
            let new = if insecure { Config::insecure } else { Config::new };
            let may = |uri_near: bool| {
                secure || insecure || uri_near && target.is_none_or(|(_, near)| near)
            };
            let config = new(&format!("{scheme}://{configured}/s")).and_then(|config| match target {
                Some((target, _)) => config.connect_to(target),
                None => Ok(config),
            });
            prop_assert_eq!(config.is_ok(), may(near), "{:?}", config);
            let Ok(config) = config else { return Ok(()) };
            let mut socket = crate::Socket::new(config, 1, crate::Time::ZERO);
            let uri = Uri::parse(&format!("{scheme}://{refreshed}/s")).unwrap();
            let set = socket.set_credentials(crate::Time::ZERO, crate::Credentials::new().uri(uri));
            prop_assert_eq!(set.is_ok(), may(refreshed_near), "{:?}", set);
        }
    }
}
