//! The HTTP proxy on the way to the server, and the hosts that are reached without it.

use core::fmt;
use core::net::IpAddr;

use super::uri::{self, lower_case, split_port};
use super::{ConfigError, Secret, Uri};

/// An HTTP proxy that is asked for a tunnel with `CONNECT`, for `ws://` and `wss://` alike.
///
/// TLS, where there is any, is spoken through the tunnel with the server itself.
///
/// ```
/// use phx_proto::{Config, Proxy};
///
/// let proxy = Proxy::parse("http://user:s3cret@proxy.internal:3128")?.except("*.internal");
/// assert!(!format!("{proxy:?}").contains("s3cret"));
/// let config = Config::new("wss://example.com/socket/websocket")?.proxy(proxy);
/// # Ok::<(), phx_proto::ConfigError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    host: String,
    port: u16,
    credentials: Option<(String, Secret)>,
    except: Vec<Except>,
}

/// Hosts that are reached without the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Except {
    All,
    /// A domain and everything below it.
    Domain(String, Option<u16>),
    Network(IpAddr, u32),
    Address(IpAddr, Option<u16>),
}

impl Proxy {
    /// `http://host:port`, with `user:password@` before the host if the proxy wants them,
    /// percent-encoded. The scheme may be left out; the port is 80 unless it is given.
    ///
    /// ```
    /// use phx_proto::{Config, Proxy};
    ///
    /// let proxy = Proxy::parse("http://user:s3cret@proxy.internal:3128")?;
    /// assert!(!format!("{proxy:?}").contains("s3cret"));
    /// let config = Config::new("wss://example.com/socket/websocket")?.proxy(proxy);
    /// # Ok::<(), phx_proto::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConfigError::Proxy`], which does not repeat the text, as it may hold a password.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        parse(text).map_err(|problem| ConfigError::Proxy { origin: "the proxy", problem })
    }

    /// A user and a password for the proxy (HTTP's Basic scheme).
    #[must_use]
    pub fn credentials(mut self, user: impl Into<String>, password: impl Into<Secret>) -> Self {
        self.credentials = Some((user.into(), password.into()));
        self
    }

    /// Hosts that are reached without the proxy, in place of those given so far, separated by
    /// commas as in `NO_PROXY`: a domain, which means every host below it too; an address; a
    /// network such as `10.0.0.0/8`; each but the last with `:port` if only that port is meant;
    /// or `*` for all. What is none of these matches nothing.
    #[must_use]
    pub fn except(mut self, hosts: &str) -> Self {
        self.except = hosts.split(',').filter_map(|entry| parse_except(entry.trim())).collect();
        self
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

    /// The user and the password, if it is told any.
    #[must_use]
    pub fn user_and_password(&self) -> Option<(&str, &Secret)> {
        self.credentials.as_ref().map(|(user, password)| (user.as_str(), password))
    }

    /// Whether this host is reached through the proxy.
    #[must_use]
    pub fn applies_to(&self, uri: &Uri) -> bool {
        let (host, port) = (uri.host(), uri.port());
        let address = uri::address(host);
        let is_port = |wanted: &Option<u16>| wanted.is_none_or(|wanted| wanted == port);
        !self.except.iter().any(|except| match except {
            Except::All => true,
            Except::Domain(domain, at) => {
                let below = host.strip_suffix(domain.as_str());
                is_port(at) && below.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }
            Except::Network(network, bits) => {
                address.is_some_and(|address| is_within(address, *network, *bits))
            }
            Except::Address(known, at) => is_port(at) && address == Some(*known),
        })
    }

    /// The proxy that the environment names for this address, by way of a function that looks a
    /// variable up; see [`Config::proxy_from_env`](super::Config::proxy_from_env).
    pub(super) fn from_env(
        uri: &Uri,
        lookup: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, ConfigError> {
        // `HTTP_PROXY` is left out because a CGI server sets it to what a client sent as the
        // header `Proxy`.
        let names: &[&'static str] = if uri.is_secure() {
            &["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]
        } else {
            &["http_proxy", "all_proxy", "ALL_PROXY"]
        };
        let set = |name: &str| lookup(name).filter(|value| !value.trim().is_empty());
        let found = names.iter().find_map(|&name| Some((name, set(name)?)));
        let Some((origin, text)) = found else { return Ok(None) };
        let proxy = parse(text.trim()).map_err(|problem| ConfigError::Proxy { origin, problem })?;
        let except = set("no_proxy").or_else(|| set("NO_PROXY")).unwrap_or_default();
        let proxy = proxy.except(&except);
        // What is meant by such a variable is never this machine itself.
        Ok((!uri.is_loopback() && proxy.applies_to(uri)).then_some(proxy))
    }
}

fn parse(text: &str) -> Result<Proxy, &'static str> {
    let rest = match text.split_once("://") {
        None => text,
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
        Some(_) => return Err("only http:// proxies are spoken to"),
    };
    if rest.bytes().any(|byte| !byte.is_ascii_graphic()) {
        return Err("it holds a space, a control or a character that must be percent-encoded");
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (credentials, address) = match authority.rsplit_once('@') {
        None => (None, authority),
        Some((user_info, address)) => {
            let (user, password) = user_info.split_once(':').unwrap_or((user_info, ""));
            let decode = |text| percent_decode(text).ok_or("its user or password is no UTF-8");
            (Some((decode(user)?, Secret::from(decode(password)?))), address)
        }
    };
    let (host, port) = split_port(address).map_err(|error| match error {
        ConfigError::Uri { problem } => problem,
        _ => "its host or port makes no sense",
    })?;
    let host = lower_case(&host);
    Ok(Proxy { host, port: port.unwrap_or(80), credentials, except: Vec::new() })
}

fn parse_except(entry: &str) -> Option<Except> {
    if entry == "*" {
        return Some(Except::All);
    }
    if let Some(address) = uri::address(entry) {
        return Some(Except::Address(address, None));
    }
    if let Some((network, bits)) = entry.split_once('/') {
        let network: IpAddr = network.parse().ok()?;
        let bits = bits.parse().ok()?;
        return Some(Except::Network(network, bits));
    }
    let (host, port) = split_port(entry).ok()?;
    if let Some(address) = uri::address(&host) {
        return Some(Except::Address(address, port));
    }
    let domain = host.trim_start_matches('*').trim_start_matches('.').to_ascii_lowercase();
    (!domain.is_empty()).then_some(Except::Domain(domain, port))
}

fn is_within(address: IpAddr, network: IpAddr, bits: u32) -> bool {
    // With `bits` at or over the width everything must be equal; shifting by the width would
    // overflow, so a network of 0 bits is told apart.
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

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let high = char::from(bytes.next()?).to_digit(16)?;
        let low = char::from(bytes.next()?).to_digit(16)?;
        decoded.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(decoded).ok()
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
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

    fn from_env(uri: &str, variables: &[(&str, &str)]) -> Result<Option<Proxy>, ConfigError> {
        Proxy::from_env(&Uri::parse(uri).unwrap(), |name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, v)| (*v).to_owned())
        })
    }

    fn host_from_env(uri: &str, variables: &[(&str, &str)]) -> Option<String> {
        from_env(uri, variables).unwrap().map(|proxy| proxy.host)
    }

    #[test]
    fn the_parts_of_a_proxy_are_found() {
        let proxy = Proxy::parse("http://u%40s:p%3Aw@Proxy.Example:3128/").unwrap();
        assert_eq!((proxy.host(), proxy.port()), ("proxy.example", 3128));
        assert_eq!(proxy.credentials, Some(("u@s".to_owned(), Secret::from("p:w"))));
        let proxy = Proxy::parse("[::1]").unwrap();
        assert_eq!((proxy.host(), proxy.port(), &proxy.credentials), ("::1", 80, &None));
    }

    #[test]
    fn every_kind_of_bad_proxy_is_refused_and_its_password_not_repeated() {
        for text in [
            "",
            "http://",
            "https://proxy:3128",
            "socks5://proxy:1080",
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
    fn exceptions_are_domains_addresses_networks_and_everything() {
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
        ] {
            assert!(!applies(except, without), "{except} excepts {without}");
            assert!(applies(except, through), "{except} does not except {through}");
        }
        assert!(!applies("a,*", "wss://anything/"));
        assert!(applies("", "wss://anything/") && applies(",/,10.0.0.0/x", "wss://10.0.0.1/"));
    }

    #[test]
    fn the_environment_names_a_proxy_by_scheme() {
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
    fn the_environment_excepts_hosts_and_this_machine() {
        let proxy = ("ALL_PROXY", "http://p:1");
        let except = [proxy, ("NO_PROXY", "internal")];
        assert_eq!(host_from_env("wss://a.internal/", &except), None);
        assert_eq!(host_from_env("wss://a.external/", &except).as_deref(), Some("p"));
        assert_eq!(host_from_env("wss://localhost/", &[proxy]), None);
        let error = from_env("wss://h/", &[("HTTPS_PROXY", "socks5://p")]).unwrap_err();
        assert!(error.to_string().contains("HTTPS_PROXY"), "{error}");
    }
}
