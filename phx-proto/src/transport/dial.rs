//! The dialler: opens a stream to the server of a URI and upgrades it.
//!
//! ```text
//! host ─resolve─▶ addresses ─race─▶ stream ─CONNECT─▶ ─TLS─▶ ─upgrade─▶ upgraded stream
//!          │                  │     or SOCKS5: proxy  wss only │
//!          └─────── Dial ─────┴── Dial | ProxyRefused ─┴─ Tls ─┴─ Dial | Refused
//!                                      | SocksRefused
//! ```
//!
//! Every attempt resolves the name again, so it finds a server that has moved. The dialler has no
//! timeout: the core limits the whole attempt. Shortly before the core's timeout, the dialler stops
//! waiting for the body of a refusal, so that the status is not lost. The message of every failure is
//! one line that names the step that failed.

use core::future::Future;
use core::net::SocketAddr;
use core::sync::atomic::AtomicBool;
use std::io;

use super::exchange::{Broken, Machine, Negotiation, exchange, set_late};
use super::race::Failed;
use super::{Io, Net, Resolver, entropy, race};
use crate::config::uri::without_zone;
use crate::config::{Config, ConfigError, Proxy, Uri, proxy};
use crate::event::action::ConnectRequest;
use crate::event::cause::{Cause, DialKind};
use crate::websocket::upgrade::{
    Connect, ProxyCredentials, Socks5, Tunnel, TunnelRequest, Upgrade, UpgradeError,
    UpgradeRequest, Upgraded,
};

/// Dials once.
///
/// # Errors
///
/// The [`Cause`] of the step that failed.
pub async fn dial<N: Net>(
    request: &ConnectRequest,
    config: &Config,
    resolver: &Resolver,
) -> Result<(Io<N::Stream>, Upgraded), Cause> {
    let late = AtomicBool::new(false);
    let dial = dial_until::<N>(request, config, resolver, &late);
    set_late::<N, _>(&late, request.timeout, dial).await
}

/// Dials once. When `late` is set, it does not wait for the body of a refusal.
async fn dial_until<N: Net>(
    request: &ConnectRequest,
    config: &Config,
    resolver: &Resolver,
    late: &AtomicBool,
) -> Result<(Io<N::Stream>, Upgraded), Cause> {
    let uri = &request.uri;
    if uri.is_secure() && !N::TLS {
        let message = "wss:// needs TLS, and this program was built without it: enable the \
                       feature `ring` of the phx adapter";
        return Err(Cause::Unsupported { message: message.to_owned() });
    }
    let proxy = config.proxy_to(uri).map_err(unusable)?;
    let only_here = config.check_route(uri, proxy).map_err(unusable)?;
    let (host, port) = config.dial_target(uri);
    let mut stream = match proxy {
        None => Io::new(race::connect::<N>(resolver, host, port, only_here).await?),
        Some(proxy) => tunnel::<N>(resolver, proxy, (host, port), only_here, late).await?,
    };
    #[cfg(feature = "tls")]
    if uri.is_secure() {
        stream = super::tls::secure::<N>(stream, uri, config).await?;
    }
    let upgraded = upgrade::<N>(&mut stream, request, config, late).await;
    let upgraded = upgraded.map_err(|failed| not_upgraded(failed, uri, config))?;
    Ok((stream, upgraded))
}

/// Dials once, over a stream that the caller opens.
pub(super) async fn dial_over<N: Net>(
    stream: impl Future<Output = io::Result<N::Stream>>,
    request: &ConnectRequest,
    config: &Config,
) -> Result<(Io<N::Stream>, Upgraded), Cause> {
    let late = AtomicBool::new(false);
    let dial = async {
        let stream = stream.await;
        let stream = stream.map_err(|error| Cause::Dial {
            kind: kind_of(&error),
            message: format!("could not open a stream: {error}"),
        })?;
        let mut stream = Io::new(stream);
        let upgraded = upgrade::<N>(&mut stream, request, config, &late).await;
        let upgraded = upgraded.map_err(|failed| match failed {
            Broken::Http(error) => upgrade_failed(error),
            Broken::Io(error) => lost(&error, ""),
        })?;
        Ok((stream, upgraded))
    };
    set_late::<N, _>(&late, request.timeout, dial).await
}

/// Opens a stream through the proxy to the server.
async fn tunnel<N: Net>(
    resolver: &Resolver,
    proxy: &Proxy,
    (host, port): (&str, u16),
    only_here: bool,
    late: &AtomicBool,
) -> Result<Io<N::Stream>, Cause> {
    // The zone is left out: it names an interface of this machine, which the proxy does not have.
    let host = without_zone(host);
    let request = tunnel_request(proxy, host, port);
    let connected = || connect_proxy::<N>(resolver, proxy, only_here);
    let tunnel = match proxy.kind() {
        proxy::Kind::Http => {
            tunnel_over::<N, _>(connected().await?, Connect::new(&request), late).await
        }
        proxy::Kind::Socks5h => {
            tunnel_over::<N, _>(connected().await?, Socks5::new(&request), late).await
        }
        proxy::Kind::Socks5 => {
            return race_tunnels::<N>(resolver, proxy, (host, port), only_here, late).await;
        }
    };
    tunnel.map_err(Failed::into_cause)
}

/// Opens a stream through a SOCKS5 proxy to one of the addresses of the server, which are resolved here.
async fn race_tunnels<N: Net>(
    resolver: &Resolver,
    proxy: &Proxy,
    (host, port): (&str, u16),
    only_here: bool,
    late: &AtomicBool,
) -> Result<Io<N::Stream>, Cause> {
    let addresses = race::resolve(resolver, host, port, only_here).await?;
    let Some(first) = addresses.first() else { return Err(race::no_address(host)) };
    let socks_to =
        |address: &SocketAddr| Socks5::new(&tunnel_request(proxy, &address.ip().to_string(), port));
    // The proxy accepts or refuses the client before it learns an address. So the race begins after that,
    // with the first address: a proxy that cannot be reached is tried once, and wrong credentials are sent
    // once.
    let mut socks = socks_to(first).map_err(|error| tunnel_failed(error).into_cause())?;
    let mut stream = connect_proxy::<N>(resolver, proxy, only_here).await?;
    let negotiated = exchange::<N, _>(&mut stream, Negotiation(&mut socks), late).await;
    negotiated.map_err(|broken| tunnel_broken(broken).into_cause())?;
    let mut negotiated = Some((stream, socks));
    let attempt = |address: SocketAddr| {
        let negotiated = negotiated.take();
        async move {
            let (stream, socks) = match negotiated {
                Some((stream, socks)) => (stream, Ok(socks)),
                None => {
                    let stream = connect_proxy::<N>(resolver, proxy, only_here).await;
                    (stream.map_err(Failed::Route)?, socks_to(&address))
                }
            };
            tunnel_over::<N, _>(stream, socks, late).await
        }
    };
    race::race::<N, _, _>(addresses, attempt).await.map_err(|failed| match failed {
        None => race::no_address(host),
        Some((_, failed)) => failed.into_cause(),
    })
}

/// Opens a stream to the proxy.
async fn connect_proxy<N: Net>(
    resolver: &Resolver,
    proxy: &Proxy,
    only_here: bool,
) -> Result<Io<N::Stream>, Cause> {
    let connected = race::connect::<N>(resolver, proxy.host(), proxy.port(), only_here).await;
    connected.map(Io::new).map_err(|failure| match failure {
        Cause::Dial { kind, message } => {
            Cause::Dial { kind, message: format!("the proxy: {message}") }
        }
        failure => failure,
    })
}

/// The request to the proxy to connect a stream to one host.
fn tunnel_request<'a>(proxy: &'a Proxy, host: &'a str, port: u16) -> TunnelRequest<'a> {
    let credentials = proxy.user_and_password();
    let credentials = credentials.map(|(username, password)| {
        let password = password.expose();
        ProxyCredentials { username, password }
    });
    TunnelRequest { host, port, credentials }
}

/// Asks the proxy to connect a stream to one host.
async fn tunnel_over<N: Net, M: Machine<Done = Tunnel>>(
    mut stream: Io<N::Stream>,
    machine: Result<M, UpgradeError>,
    late: &AtomicBool,
) -> Result<Io<N::Stream>, Failed> {
    let machine = machine.map_err(tunnel_failed)?;
    let tunnel = exchange::<N, _>(&mut stream, machine, late).await.map_err(tunnel_broken)?;
    if tunnel.leftover.is_empty() {
        Ok(stream)
    } else {
        // In TLS and in HTTP the client sends first, so the server's first byte cannot come right
        // after the proxy's reply.
        Err(Failed::Route(failed("the proxy: unexpected data after its reply")))
    }
}

/// The cause for a configuration that does not allow this address to be dialled.
fn unusable(error: ConfigError) -> Cause {
    Cause::Unsupported { message: error.to_string() }
}

fn tunnel_broken(broken: Broken) -> Failed {
    match broken {
        Broken::Http(error) => tunnel_failed(error),
        Broken::Io(error) => Failed::Route(Cause::Dial {
            kind: kind_of(&error),
            message: format!("the proxy: the connection was lost: {error}"),
        }),
    }
}

fn tunnel_failed(error: UpgradeError) -> Failed {
    Failed::Route(match error {
        UpgradeError::ProxyRefused(refusal) => Cause::ProxyRefused(refusal),
        UpgradeError::SocksRefused(refusal) => Cause::SocksRefused(refusal),
        UpgradeError::SocksFailed { code } => {
            let kind = match code {
                3 | 4 => DialKind::Unreachable,
                5 => DialKind::Refused,
                6 => DialKind::TimedOut,
                _ => DialKind::Other,
            };
            return Failed::Address { kind, message: error.to_string() };
        }
        error if error.is_callers() => Cause::Unsupported { message: error.to_string() },
        error => failed(format!("the proxy: {error}")),
    })
}

/// Sends the upgrade request on a stream to the server, and reads the response.
async fn upgrade<N: Net>(
    stream: &mut Io<N::Stream>,
    request: &ConnectRequest,
    config: &Config,
    late: &AtomicBool,
) -> Result<Upgraded, Broken> {
    let headers = request.headers.iter();
    let headers: Vec<_> =
        headers.map(|(name, value)| (name.clone(), value.expose().to_owned())).collect();
    let offers = request.subprotocols.iter();
    let offers: Vec<_> = offers.map(|protocol| protocol.expose().to_owned()).collect();
    let request = UpgradeRequest {
        host: &request.uri.host_header(),
        target: &request.uri.target(),
        headers: &headers,
        subprotocols: &offers,
        key: random_key(),
    };
    let upgrade = match &config.compression {
        #[cfg(feature = "deflate")]
        Some(compression) => Upgrade::compressed(&request, compression),
        _ => Upgrade::new(&request),
    };
    exchange::<N, _>(stream, upgrade.map_err(Broken::Http)?, late).await
}

/// The cause of a failed upgrade, with a hint that fits the scheme and the configuration.
fn not_upgraded(broken: Broken, uri: &Uri, config: &Config) -> Cause {
    #[cfg(feature = "tls")]
    if let Broken::Io(error) = &broken {
        if let Some(failure) = super::tls::failure(uri, config, error) {
            return failure;
        }
    }
    #[cfg(feature = "tls")]
    let shows = super::tls::shown(config).is_some();
    #[cfg(not(feature = "tls"))]
    let (shows, _) = (true, config);
    let hint = match (uri.is_secure(), shows) {
        // A TLS port answers plain HTTP with an alert, or closes the connection.
        (false, _) => "; the port may require TLS: use a wss:// address",
        (true, false) => "; the server may require a client certificate",
        (true, true) => "",
    };
    match broken {
        Broken::Http(UpgradeError::NotHttp { evidence, .. })
            if !uri.is_secure() && evidence.starts_with("\\x15\\x03") =>
        {
            failed("the server speaks TLS: use a wss:// address")
        }
        Broken::Http(error @ UpgradeError::Eof { received: 0 }) => {
            failed(format!("the upgrade failed: {error}{hint}"))
        }
        Broken::Http(error) => upgrade_failed(error),
        Broken::Io(error) => lost(&error, hint),
    }
}

/// The cause of an error of the stream before the response was complete.
fn lost(error: &io::Error, hint: &str) -> Cause {
    Cause::Dial {
        kind: kind_of(error),
        message: format!("the connection was lost in the upgrade: {error}{hint}"),
    }
}

fn upgrade_failed(error: UpgradeError) -> Cause {
    match error {
        UpgradeError::Refused(refusal) => Cause::Refused(refusal),
        error => failed(format!("the upgrade failed: {error}")),
    }
}

/// Sixteen random bytes (RFC 6455 section 4.1). They differ for every attempt, so that the response of
/// a cache to an earlier attempt is detected.
fn random_key() -> [u8; 16] {
    let mut key = [0; 16];
    entropy(&mut key);
    key
}

fn failed(message: impl Into<String>) -> Cause {
    Cause::Dial { kind: DialKind::Other, message: message.into() }
}

/// Classifies an operating system error.
pub(super) fn kind_of(error: &io::Error) -> DialKind {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => DialKind::Refused,
        io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::NetworkDown
        | io::ErrorKind::AddrNotAvailable => DialKind::Unreachable,
        io::ErrorKind::TimedOut => DialKind::TimedOut,
        _ => DialKind::Other,
    }
}
