//! HTTP and SOCKS5 proxies, and the hosts that are reached without them.

use core::fmt;
use core::net::IpAddr;

use super::uri::{self, lower_case, percent_decode, split_port};
use super::{ConfigError, Secret, Uri};

/// A proxy through which the client opens a tunnel: an HTTP proxy with `CONNECT`, or a SOCKS5 proxy. It
/// serves both `ws://` and `wss://`.
///
/// For `wss://`, TLS is established with the server through the tunnel.
///
/// ```
/// use phx_proto::Config;
/// use phx_proto::config::Proxy;
///
/// let proxy = Proxy::parse("http://user:s3cret@proxy.internal:3128")?.except("*.internal");
/// assert!(!format!("{proxy:?}").contains("s3cret"));
/// let config = Config::new("wss://example.com/socket/websocket")?.proxy(proxy);
/// # Ok::<(), phx_proto::ConfigError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    kind: Kind,
    host: String,
    port: u16,
    credentials: Option<(String, Secret)>,
    except: Vec<Except>,
}

/// The protocol of a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// HTTP `CONNECT`.
    Http,
    /// SOCKS5. The client resolves the name of the server.
    Socks5,
    /// SOCKS5. The proxy resolves the name of the server.
    Socks5h,
}

/// An entry of the hosts that are reached without the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Except {
    All,
    /// A domain and its subdomains.
    Domain(String, Option<u16>),
    Network(IpAddr, u32),
    Address(IpAddr, Option<u16>),
}

impl Proxy {
    /// Parses `http://host:port`, `socks5://host:port` or `socks5h://host:port`, with a percent-encoded
    /// `user:password@` before the host if the proxy requires it. The default scheme is `http`; the
    /// default port is 80, or 1080 for SOCKS5.
    ///
    /// With `socks5` the client resolves the name of the server. With `socks5h` the proxy does, like an
    /// HTTP proxy.
    ///
    /// ```
    /// use phx_proto::Config;
    /// use phx_proto::config::Proxy;
    ///
    /// let proxy = Proxy::parse("http://user:s3cret@proxy.internal:3128")?;
    /// assert!(!format!("{proxy:?}").contains("s3cret"));
    /// let config = Config::new("wss://example.com/socket/websocket")?.proxy(proxy);
    /// # Ok::<(), phx_proto::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConfigError::Proxy`]. The error omits the text, which may contain a password.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        parse(text).map_err(|problem| ConfigError::Proxy { origin: "proxy", problem })
    }

    /// Sets a user and a password for the proxy, for HTTP's Basic scheme or for SOCKS5, which allows 255
    /// bytes each.
    #[must_use]
    pub fn credentials(mut self, user: impl Into<String>, password: impl Into<Secret>) -> Self {
        self.credentials = Some((user.into(), password.into()));
        self
    }

    /// Sets the hosts that are reached without the proxy, and replaces those set before. The format is that
    /// of `NO_PROXY`: entries separated by commas. An entry is
    ///
    /// * a domain, which includes its subdomains, or an address, each with an optional `:port`;
    /// * a network such as `10.0.0.0/8`; an IPv6 network does not contain an address that is written as
    ///   IPv4, unless it is a network of IPv4-mapped addresses, such as `::ffff:10.0.0.0/104`;
    /// * `*` for all hosts.
    ///
    /// Any other entry is ignored.
    #[must_use]
    pub fn except(mut self, hosts: &str) -> Self {
        self.except = exceptions(hosts);
        self
    }

    /// The protocol of the proxy: `http`, `socks5` or `socks5h`.
    #[must_use]
    pub const fn scheme(&self) -> &'static str {
        match self.kind {
            Kind::Http => "http",
            Kind::Socks5 => "socks5",
            Kind::Socks5h => "socks5h",
        }
    }

    #[cfg(feature = "adapter")]
    pub(crate) const fn kind(&self) -> Kind {
        self.kind
    }

    /// The proxy's host: a name, an IPv4 address, or an IPv6 address without its brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The proxy's port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The user and the password for the proxy, if any.
    #[must_use]
    pub fn user_and_password(&self) -> Option<(&str, &Secret)> {
        self.credentials.as_ref().map(|(user, password)| (user.as_str(), password))
    }

    /// Whether this address is reached through the proxy.
    #[must_use]
    pub fn applies_to(&self, uri: &Uri) -> bool {
        self.is_for(uri.host(), uri.port())
    }

    pub(super) fn is_for(&self, host: &str, port: u16) -> bool {
        !is_excepted(&self.except, host, port)
    }
}

fn is_excepted(except: &[Except], host: &str, port: u16) -> bool {
    let (address, written) = (uri::address(host), uri::written_address(host));
    let is_port = |wanted: &Option<u16>| wanted.is_none_or(|wanted| wanted == port);
    except.iter().any(|except| match except {
        Except::All => true,
        Except::Domain(domain, at) => {
            let below = host.strip_suffix(domain.as_str());
            is_port(at) && below.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        }
        Except::Network(network, bits) => {
            let mut forms = [address, written].into_iter().flatten();
            forms.any(|address| is_within(address, *network, *bits))
        }
        Except::Address(known, at) => is_port(at) && address == Some(*known),
    })
}

/// The proxies in the environment variables. An invalid proxy is an error only for an address that would
/// be reached through it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Environment {
    secure: Option<Result<Proxy, ConfigError>>,
    clear: Option<Result<Proxy, ConfigError>>,
    except: Vec<Except>,
}

impl Environment {
    /// Reads the proxies through a function that looks up a variable. Returns `None` if no proxy is set.
    pub(super) fn read(lookup: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let set = |name: &str| lookup(name).filter(|value| !value.trim().is_empty());
        let named = |names: &[&'static str]| {
            let (origin, text) = names.iter().find_map(|&name| Some((name, set(name)?)))?;
            Some(parse(text.trim()).map_err(|problem| ConfigError::Proxy { origin, problem }))
        };
        let environment = Self {
            secure: named(&["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]),
            // `HTTP_PROXY` is not read, because a CGI server sets it from a client's header `Proxy`.
            clear: named(&["http_proxy", "all_proxy", "ALL_PROXY"]),
            except: exceptions(&set("no_proxy").or_else(|| set("NO_PROXY")).unwrap_or_default()),
        };
        (environment.secure.is_some() || environment.clear.is_some()).then_some(environment)
    }

    /// The proxy for this host, if any.
    pub(super) fn proxy_to(
        &self,
        secure: bool,
        host: &str,
        port: u16,
    ) -> Result<Option<&Proxy>, ConfigError> {
        // The proxies of the environment are never used for this machine itself.
        if uri::is_loopback(host) || is_excepted(&self.except, host, port) {
            return Ok(None);
        }
        let named = if secure { &self.secure } else { &self.clear };
        named.as_ref().map(Result::as_ref).transpose().map_err(Clone::clone)
    }
}

fn exceptions(hosts: &str) -> Vec<Except> {
    hosts.split(',').filter_map(|entry| parse_except(entry.trim())).collect()
}

fn parse(text: &str) -> Result<Proxy, &'static str> {
    let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
    let kind = match scheme.to_ascii_lowercase().as_str() {
        "http" => Kind::Http,
        "socks5" => Kind::Socks5,
        "socks5h" => Kind::Socks5h,
        _ => return Err("the scheme must be http, socks5 or socks5h"),
    };
    if rest.bytes().any(|byte| !byte.is_ascii_graphic()) {
        return Err("spaces, control characters and non-ASCII characters must be percent-encoded");
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (credentials, address) = match authority.rsplit_once('@') {
        None => (None, authority),
        Some((user_info, address)) => {
            let (user, password) = user_info.split_once(':').unwrap_or((user_info, ""));
            let decode = |text| percent_decode(text).ok_or("the user or password is not UTF-8");
            (Some((decode(user)?, Secret::from(decode(password)?))), address)
        }
    };
    let (host, port) = split_port(address).map_err(|error| match error {
        ConfigError::Uri { problem } => problem,
        _ => "the host or port is invalid",
    })?;
    let host = lower_case(&host);
    let port = port.unwrap_or(if kind == Kind::Http { 80 } else { 1080 });
    Ok(Proxy { kind, host, port, credentials, except: Vec::new() })
}

fn parse_except(entry: &str) -> Option<Except> {
    if entry == "*" {
        return Some(Except::All);
    }
    if let Some(address) = uri::address(entry) {
        return Some(Except::Address(address, None));
    }
    if let Some((network, bits)) = entry.split_once('/') {
        let (network, bits) = (network.parse().ok()?, bits.parse().ok()?);
        return Some(network_of(network, bits));
    }
    let (host, port) = split_port(entry).ok()?;
    if let Some(address) = uri::address(&host) {
        return Some(Except::Address(address, port));
    }
    let domain = host.trim_start_matches('*').trim_start_matches('.').to_ascii_lowercase();
    (!domain.is_empty()).then_some(Except::Domain(domain, port))
}

/// Makes the exception for a network. A network of IPv4-mapped IPv6 addresses becomes the IPv4 network, as
/// `uri::address` makes an IPv4 address of a mapped one. A larger IPv6 network contains an IPv4 address
/// only if the host is written as a mapped address, as in curl; `::/0` is not every IPv4 address.
fn network_of(network: IpAddr, bits: u32) -> Except {
    /// The bits that all mapped addresses have in common.
    const MAPPED: u32 = 96;
    match network {
        IpAddr::V6(network) if bits >= MAPPED => match network.to_ipv4_mapped() {
            Some(mapped) => Except::Network(IpAddr::V4(mapped), bits - MAPPED),
            None => Except::Network(IpAddr::V6(network), bits),
        },
        network => Except::Network(network, bits),
    }
}

fn is_within(address: IpAddr, network: IpAddr, bits: u32) -> bool {
    // If `bits` is at least the width, all bits must be equal. Zero bits are a separate case, because
    // shifting by the width would overflow.
    match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            let differing = address.to_bits() ^ network.to_bits();
            bits == 0 || differing >> 32_u32.saturating_sub(bits) == 0
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => {
            let differing = address.to_bits() ^ network.to_bits();
            bits == 0 || differing >> 128_u32.saturating_sub(bits) == 0
        }
        _ => false,
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("scheme", &self.scheme())
            .field("host", &self.host)
            .field("port", &self.port)
            .field("credentials", &self.credentials.as_ref().map(|_| "[redacted]"))
            .field("except", &self.except)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn from_env(uri: &str, variables: &[(&str, &str)]) -> Result<Option<Proxy>, ConfigError> {
        let config = Config::insecure(uri).unwrap().proxy_from_env(|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, v)| (*v).to_owned())
        })?;
        Ok(config.proxy_to(config.uri())?.cloned())
    }

    fn host_from_env(uri: &str, variables: &[(&str, &str)]) -> Option<String> {
        from_env(uri, variables).unwrap().map(|proxy| proxy.host)
    }

    #[test]
    fn proxy_is_parsed() {
        let proxy = Proxy::parse("http://u%40s:p%3Aw@Proxy.Example:3128/").unwrap();
        assert_eq!((proxy.host(), proxy.port()), ("proxy.example", 3128));
        assert_eq!(proxy.credentials, Some(("u@s".to_owned(), Secret::from("p:w"))));
        let proxy = Proxy::parse("[::1]").unwrap();
        assert_eq!((proxy.host(), proxy.port(), &proxy.credentials), ("::1", 80, &None));
        let proxy = Proxy::parse("SOCKS5h://u:p@proxy").unwrap();
        assert_eq!((proxy.scheme(), proxy.host(), proxy.port()), ("socks5h", "proxy", 1080));
        assert_eq!(Proxy::parse("socks5://[::1]:9050").unwrap().scheme(), "socks5");
    }

    #[test]
    fn invalid_proxy_is_refused_without_its_password() {
        for text in [
            "",
            "http://",
            "https://proxy:3128",
            "socks4://proxy:1080",
            "socks5://",
            "http://proxy:x",
            "http://proxy:0",
            "http://a b",
            "http://s3cret:s3cret@",
            "http://s3cret:%s3cret@proxy",
            "http://s3cret:%ff@proxy",
        ] {
            let error = Proxy::parse(text).expect_err(text);
            assert!(matches!(error, ConfigError::Proxy { .. }), "{text:?}");
            assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
        }
    }

    #[test]
    fn exceptions_match_domains_addresses_and_networks() {
        let applies = |except: &str, uri: &str| {
            let proxy = Proxy::parse("proxy").unwrap().except(except);
            proxy.applies_to(&Uri::parse(uri).unwrap())
        };
        for (except, without, through) in [
            ("example.com", "wss://example.com/", "wss://notexample.com/"),
            (".example.com", "wss://a.b.example.com/", "wss://example.org/"),
            ("*.Example.com", "wss://a.example.com/", "wss://example.com.org/"),
            ("example.com:8443", "wss://example.com:8443/", "wss://example.com/"),
            ("a, 10.1.2.3", "wss://10.1.2.3/", "wss://10.1.2.4/"),
            ("10.0.0.0/8", "wss://10.200.0.1/", "wss://11.0.0.1/"),
            ("10.1.2.3/32", "wss://10.1.2.3/", "wss://10.1.2.2/"),
            ("fd00::/8", "wss://[fd12::1]/", "wss://[fe80::1]/"),
            ("[::1]:444", "wss://[::1]:444/", "wss://[::1]/"),
            ("10.1.2.3", "wss://[::ffff:10.1.2.3]/", "wss://[::ffff:10.1.2.4]/"),
            ("0.0.0.0/0", "wss://1.2.3.4/", "wss://[::1]/"),
            ("::ffff:10.0.0.0/104", "wss://10.200.0.1/", "wss://11.0.0.1/"),
            ("::ffff:10.0.0.0/104", "wss://[::ffff:10.200.0.1]/", "wss://[::ffff:11.0.0.1]/"),
            ("::ffff:10.1.2.3/128", "wss://10.1.2.3/", "wss://10.1.2.2/"),
            ("::ffff:0:0/96", "wss://1.2.3.4/", "wss://[::1]/"),
            ("::/0", "wss://[::ffff:1.2.3.4]/", "wss://1.2.3.4/"),
            ("::/80", "wss://[::ffff:1.2.3.4]/", "wss://[fd00::1]/"),
            ("::fffe:0:0/95", "wss://[::ffff:1.2.3.4]/", "wss://1.2.3.4/"),
            ("1.0.0.0/8", "wss://[::ffff:1.2.3.4]/", "wss://[::ffff:2.2.3.4]/"),
        ] {
            assert!(!applies(except, without), "{except} excepts {without}");
            assert!(applies(except, through), "{except} does not except {through}");
        }
        assert!(!applies("a,*", "wss://anything/"));
        assert!(applies("", "wss://anything/") && applies(",/,10.0.0.0/x", "wss://10.0.0.1/"));
    }

    #[test]
    fn environment_has_proxy_for_each_scheme() {
        let all = [("https_proxy", "a"), ("HTTPS_PROXY", "b"), ("ALL_PROXY", "c")];
        assert_eq!(host_from_env("wss://h/", &all).as_deref(), Some("a"));
        assert_eq!(host_from_env("wss://h/", &all[1..]).as_deref(), Some("b"));
        assert_eq!(host_from_env("ws://h/", &all).as_deref(), Some("c"));
        assert_eq!(host_from_env("ws://h/", &[("http_proxy", "d")]).as_deref(), Some("d"));
        assert_eq!(host_from_env("ws://h/", &[("HTTP_PROXY", "d")]), None);
        assert_eq!(host_from_env("wss://h/", &[("https_proxy", ""), all[2]]).as_deref(), Some("c"));
        assert_eq!(host_from_env("wss://h/", &[]), None);
    }

    #[test]
    fn environment_excepts_hosts_and_this_machine() {
        let proxy = ("ALL_PROXY", "http://p:1");
        let except = [proxy, ("NO_PROXY", "internal")];
        assert_eq!(host_from_env("wss://a.internal/", &except), None);
        assert_eq!(host_from_env("wss://a.external/", &except).as_deref(), Some("p"));
        assert_eq!(host_from_env("wss://localhost/", &[proxy]), None);
        let error = from_env("wss://h/", &[("HTTPS_PROXY", "ftp://p")]).unwrap_err();
        assert!(error.to_string().contains("HTTPS_PROXY"), "{error}");
    }

    /// An invalid ALL_PROXY, set for another tool, must not affect hosts that are reached without it.
    #[test]
    fn invalid_environment_proxy_fails_only_when_used() {
        let bad = ("ALL_PROXY", "socks4://p");
        for uri in ["ws://localhost/", "ws://127.0.0.1/", "wss://[::ffff:127.0.0.1]/"] {
            assert_eq!(from_env(uri, &[bad]), Ok(None), "{uri}");
        }
        assert_eq!(from_env("wss://a.internal/", &[bad, ("no_proxy", "internal")]), Ok(None));
        assert_eq!(host_from_env("wss://h/", &[("https_proxy", "p"), bad]).as_deref(), Some("p"));
        assert!(from_env("ws://h/", &[("https_proxy", "p"), bad]).is_err());

        // An address from credentials is checked when it is dialled.
        let config = Config::new("wss://localhost/").unwrap();
        let config = config.proxy_from_env(|name| (name == "all_proxy").then(|| "ftp://p".into()));
        let config = config.unwrap();
        assert!(config.proxy_to(&Uri::parse("wss://elsewhere/").unwrap()).is_err());
        // The dialled address decides, not the one in the URI.
        let elsewhere = Config::new("wss://elsewhere/").unwrap().connect_to("localhost").unwrap();
        let lookup = |name: &str| (name == "all_proxy").then(|| "ftp://p".to_owned());
        assert!(elsewhere.clone().proxy_from_env(lookup).is_ok());
        let nearby = config.clone().connect_to("elsewhere").unwrap();
        assert!(nearby.proxy_from_env(lookup).is_err());
    }

    #[test]
    fn proxy_set_in_code_is_always_used() {
        let lookup = |name: &str| (name == "ALL_PROXY").then(|| "environment".to_owned());
        let proxy = || Proxy::parse("code").unwrap();
        for uri in ["wss://h/", "wss://localhost/"] {
            let config = Config::new(uri).unwrap();
            let before = config.clone().proxy(proxy()).proxy_from_env(lookup).unwrap();
            let after = config.proxy_from_env(lookup).unwrap().proxy(proxy());
            for config in [before, after] {
                let used = config.proxy_to(config.uri()).unwrap().map(Proxy::host);
                assert_eq!(used, Some("code"), "{uri}");
            }
        }
    }
}
