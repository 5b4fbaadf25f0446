//! From an address to an upgraded stream.
//!
//! ```text
//! host ─resolve─▶ addresses ─race─▶ stream ─CONNECT─▶ ─TLS─▶ ─upgrade─▶ upgraded stream
//!          │                  │          proxy only   wss only │
//!          └─────── Dial ─────┴── Dial | ProxyRefused ─┴─ Tls ─┴─ Dial | Refused
//! ```
//!
//! The name is looked up for every attempt: a server that moved is found again. There is no
//! timeout on the whole, which is the core's, and every failure is one line that names what
//! failed.

use core::future::Future;
use std::io;

use super::exchange::{Broken, exchange};
use super::{Net, Resolver, race, random_u64};
use crate::config::{Config, Proxy, Uri};
use crate::event::action::ConnectRequest;
use crate::event::input::Failure;
use crate::websocket::upgrade::{
    self, Connect, Credentials, Upgrade, UpgradeError, UpgradeRequest, Upgraded,
};

/// Dials once.
///
/// # Errors
///
/// What went wrong on the way.
pub async fn dial<N: Net>(
    request: &ConnectRequest,
    config: &Config,
    resolver: &Resolver,
) -> Result<(N::Stream, Upgraded), Failure> {
    let uri = &request.uri;
    if uri.is_secure() && !N::TLS {
        let message = "wss:// needs TLS, and this program was built without it: enable the \
                       feature `tls` of the phx adapter";
        return Err(Failure::Unsupported { message: message.to_owned() });
    }
    let mut stream = match config.proxy_to(uri) {
        None => race::connect::<N>(resolver, uri.host(), uri.port()).await?,
        Some(proxy) => tunnel::<N>(resolver, proxy, uri).await?,
    };
    #[cfg(feature = "tls")]
    if uri.is_secure() {
        stream = super::tls::secure::<N>(stream, uri, config).await?;
    }
    let upgraded = upgrade::<N>(&mut stream, request).await?;
    Ok((stream, upgraded))
}

/// Dials once, over a stream that the caller has opened.
///
/// # Errors
///
/// What went wrong on the way.
pub async fn dial_over<N: Net>(
    stream: impl Future<Output = io::Result<N::Stream>>,
    request: &ConnectRequest,
) -> Result<(N::Stream, Upgraded), Failure> {
    let stream = stream.await;
    let mut stream = stream.map_err(|error| failed(format!("no stream was opened: {error}")))?;
    let upgraded = upgrade::<N>(&mut stream, request).await?;
    Ok((stream, upgraded))
}

/// A stream through the proxy to the server.
async fn tunnel<N: Net>(
    resolver: &Resolver,
    proxy: &Proxy,
    uri: &Uri,
) -> Result<N::Stream, Failure> {
    let connected = race::connect::<N>(resolver, proxy.host(), proxy.port()).await;
    let mut stream = connected.map_err(|failure| match failure {
        Failure::Dial { message } => failed(format!("the proxy: {message}")),
        failure => failure,
    })?;
    let credentials = proxy.user_and_password();
    let connect = Connect::new(&upgrade::ConnectRequest {
        host: uri.host(),
        port: uri.port(),
        credentials: credentials.map(|(username, password)| {
            let password = password.expose();
            Credentials { username, password }
        }),
    });
    let connect = connect.map_err(tunnel_failed)?;
    let tunnel = exchange::<N, _>(&mut stream, connect).await.map_err(|broken| match broken {
        Broken::Http(error) => tunnel_failed(error),
        Broken::Io(error) => failed(format!("the proxy: the connection was lost: {error}")),
    })?;
    if tunnel.leftover.is_empty() {
        Ok(stream)
    } else {
        // In TLS and in HTTP the client speaks first.
        Err(failed("the proxy: more came than its answer"))
    }
}

fn tunnel_failed(error: UpgradeError) -> Failure {
    match error {
        UpgradeError::ProxyRefused(refusal) => Failure::ProxyRefused(refusal),
        error if error.is_callers() => Failure::Unsupported { message: error.to_string() },
        error => failed(format!("the proxy: {error}")),
    }
}

/// Asks for the WebSocket on a stream that leads to the server, and reads the answer.
async fn upgrade<N: Net>(
    stream: &mut N::Stream,
    request: &ConnectRequest,
) -> Result<Upgraded, Failure> {
    let headers = request.headers.iter();
    let headers: Vec<_> =
        headers.map(|(name, value)| (name.clone(), value.expose().to_owned())).collect();
    let offers = request.subprotocols.iter();
    let offers: Vec<_> = offers.map(|protocol| protocol.expose().to_owned()).collect();
    let upgrade = Upgrade::new(&UpgradeRequest {
        host: &request.uri.host_header(),
        target: &request.uri.target(),
        headers: &headers,
        subprotocols: &offers,
        key: random_key(),
    })
    .map_err(upgrade_failed)?;
    exchange::<N, _>(stream, upgrade).await.map_err(|broken| match broken {
        Broken::Http(error) => upgrade_failed(error),
        Broken::Io(error) => lost(&error),
    })
}

/// The stream broke before the answer was there. With TLS 1.3 this is also how a server says that
/// it does not accept our certificate.
fn lost(error: &io::Error) -> Failure {
    #[cfg(feature = "tls")]
    if super::tls::is_tls(error) {
        return Failure::Tls { message: error.to_string() };
    }
    failed(format!("the connection was lost in the upgrade: {error}"))
}

fn upgrade_failed(error: UpgradeError) -> Failure {
    match error {
        UpgradeError::Refused(refusal) => Failure::Refused(refusal),
        error => failed(format!("the upgrade failed: {error}")),
    }
}

/// RFC 6455 section 4.1 wants 16 random bytes, so that no cache answers in the server's place.
fn random_key() -> [u8; 16] {
    let halves = (u128::from(random_u64()) << 64) | u128::from(random_u64());
    halves.to_be_bytes()
}

fn failed(message: impl Into<String>) -> Failure {
    Failure::Dial { message: message.into() }
}
