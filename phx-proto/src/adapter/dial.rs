//! From an address to an upgraded stream.
//!
//! ```text
//! host ─resolve─▶ addresses ─race─▶ stream ─upgrade─▶ upgraded stream
//!          └───────────── Dial ────────┴──── Dial | Refused ──┘
//! ```
//!
//! The name is looked up for every attempt: a server that moved is found again. There is no
//! timeout on the whole, which is the core's, and every failure is one line that names what
//! failed.

use super::exchange::{Broken, exchange};
use super::{Net, race, random_u64};
use crate::action::ConnectRequest;
use crate::config::Config;
use crate::input::Failure;
use crate::upgrade::{Upgrade, UpgradeError, UpgradeRequest, Upgraded};

/// Dials once.
///
/// # Errors
///
/// What went wrong on the way.
pub async fn dial<N: Net>(
    request: &ConnectRequest,
    _config: &Config,
) -> Result<(N::Stream, Upgraded), Failure> {
    let uri = &request.uri;
    if uri.is_secure() {
        return Err(failed("wss:// needs TLS, and TLS is not built in yet"));
    }
    let mut stream = race::connect::<N>(uri.host(), uri.port()).await?;
    let upgraded = upgrade::<N>(&mut stream, request).await?;
    Ok((stream, upgraded))
}

/// Asks for the WebSocket on a stream that leads to the server, and reads the answer.
///
/// # Errors
///
/// [`Failure::Refused`] when the server answers anything but 101; [`Failure::Dial`] when its
/// answer makes no sense or does not come.
pub async fn upgrade<N: Net>(
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
        Broken::Io(error) => failed(format!("the connection was lost in the upgrade: {error}")),
    })
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
