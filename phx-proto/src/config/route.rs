//! Where an address is dialled, through which proxy, and whether it may be reached in the clear.
//!
//! ```text
//! URI's host ──▶ connect_to, if given ──▶ target ──▶ proxy set in code, unless it excepts the target
//!                                            │   └─▶ proxy of the environment, unless the target is
//!                                            │       this machine or one of NO_PROXY
//!                                            └──────▶ the target itself
//! ```
//!
//! Header `Host` and the name in TLS are always those of the URI.

use super::uri::{self, lower_case, split_port};
use super::{Config, ConfigError, Proxy, Uri};

/// An address to dial in place of the URI's; without a port, the URI's.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Target {
    host: String,
    port: Option<u16>,
}

impl Target {
    pub(super) fn parse(address: &str) -> Result<Self, ConfigError> {
        let bad = |problem| ConfigError::ConnectTo { problem };
        if address.contains("://") {
            return Err(bad("write host:port, without a scheme"));
        }
        let (host, port) = split_port(address).map_err(|error| match error {
            ConfigError::Uri { problem } => bad(problem),
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

/// As [`Config::connect_to`] takes it.
impl core::fmt::Display for Target {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}", uri::BracketedHost(&self.host))?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// Whether `uri` may be asked for by way of the host that is dialled: `ws://` is for this machine
/// alone, unless the configuration lets it leave. Every path to a connection passes here.
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
    /// Whether `uri` may be dialled under this configuration, proxies aside: in the clear only where
    /// that was allowed, and for the version that the codec speaks.
    pub(crate) fn check_uri(&self, uri: &Uri) -> Result<(), ConfigError> {
        check_clear_text(uri, self.dial_target(uri).0, self.allow_insecure)?;
        let spoken = self.codec.vsn();
        if uri.params("vsn").any(|vsn| vsn != spoken) {
            return Err(ConfigError::Vsn { spoken: spoken.to_owned() });
        }
        Ok(())
    }

    /// The host and the port that lead to this address: those of
    /// [`connect_to`](Self::connect_to), or its own.
    #[must_use]
    pub fn dial_target<'a>(&'a self, uri: &'a Uri) -> (&'a str, u16) {
        match &self.connect_to {
            Some(target) => (&target.host, target.port.unwrap_or(uri.port())),
            None => (uri.host(), uri.port()),
        }
    }

    /// The proxy on the way to this address, if it is reached through one.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Proxy`] for one that the environment names and that cannot be used.
    pub fn proxy_to(&self, uri: &Uri) -> Result<Option<&Proxy>, ConfigError> {
        let (host, port) = self.dial_target(uri);
        match (&self.proxy, &self.environment) {
            (Some(proxy), _) => Ok(Some(&**proxy).filter(|proxy| proxy.leads_to(host, port))),
            (None, Some(environment)) => environment.proxy_to(uri.is_secure(), host, port),
            (None, None) => Ok(None),
        }
    }

    /// Whether the URI may be asked for through this proxy, if there is one; and whether every
    /// address of the host that is dialled must be one of this machine.
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
    fn target_is_a_host_with_or_without_a_port() {
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
        /// Clear text leaves this machine only when it may: whatever is dialled, and from
        /// wherever the URI comes.
        #[test]
        fn clear_text_needs_loopback_on_both_sides(
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
