//! From an address to an open WebSocket: resolve, connect, upgrade.
//!
//! ```text
//! host ─lookup─▶ addresses ─connect, a new one every 250 ms─▶ TcpStream ─upgrade─▶ TokioTransport
//!          │                        │                               │
//!          └──────── Dial ──────────┴───────────── Dial | Refused ──┘
//! ```
//!
//! The name is looked up for every attempt: a server that moved is found again. There is no
//! timeout on the whole, which is the core's, and every failure is one line that names what
//! failed.

use core::net::SocketAddr;
use core::time::Duration;
use std::io;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use phx_proto::upgrade::{Progress, Upgrade, UpgradeError, UpgradeRequest, Upgraded};
use phx_proto::{Config, ConnectRequest, Failure, Opened, Uri};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use crate::runtime::random_u64;
use crate::transport::TokioTransport;

/// What the transport takes from the configuration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The largest message that is accepted, in bytes.
    pub(crate) message_bytes: usize,
    /// The largest frame that is sent, in bytes.
    pub(crate) push_bytes: usize,
    /// The size of the read buffer, in bytes.
    pub(crate) read_buffer: usize,
    /// The size of the write buffer, in bytes.
    pub(crate) write_buffer: usize,
}

impl Limits {
    pub(crate) fn of(config: &Config) -> Self {
        let (read_buffer, write_buffer) = config.buffer_bytes();
        Self {
            message_bytes: config.message_bytes_limit(),
            push_bytes: config.push_bytes_limit(),
            read_buffer,
            write_buffer,
        }
    }
}

/// Dials once.
pub(crate) async fn dial(
    request: ConnectRequest,
    limits: Limits,
) -> Result<(TokioTransport, Opened), Failure> {
    if request.uri.is_secure() {
        return Err(failed("wss:// needs TLS, and TLS is not built in yet"));
    }
    let mut stream = connect(&request.uri).await?;
    let upgraded = upgrade(&mut stream, &request).await?;
    let opened = Opened { protocol: upgraded.protocol };
    let transport = TokioTransport::new(stream, upgraded.leftover, limits).await;
    Ok((transport, opened))
}

/// How long one address may be silent before the next is tried beside it (RFC 8305 section 5).
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);

/// Connects to the first address of the host that answers.
async fn connect(uri: &Uri) -> Result<TcpStream, Failure> {
    let (host, port) = (uri.host(), uri.port());
    let addresses: Vec<SocketAddr> = match lookup_host((host, port)).await {
        Ok(addresses) => addresses.collect(),
        Err(error) => {
            return Err(failed(format!("the name {host:?} could not be resolved: {error}")));
        }
    };
    let count = addresses.len();
    let mut waiting = addresses.into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut first_error = None;
    loop {
        if let Some(address) = waiting.next() {
            attempts.push(async move { (address, TcpStream::connect(address).await) });
        }
        let next = if waiting.len() == 0 {
            attempts.next().await
        } else {
            match timeout(NEXT_ADDRESS_AFTER, attempts.next()).await {
                Ok(next) => next,
                Err(_) => continue,
            }
        };
        match next {
            Some((_, Ok(stream))) => {
                // Channels send small frames that somebody waits for. Where the option cannot be
                // set they are merely later.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Some((address, Err(error))) => {
                first_error.get_or_insert((address, error));
            }
            None => return Err(unreachable_host(host, count, first_error)),
        }
    }
}

fn unreachable_host(
    host: &str,
    count: usize,
    first_error: Option<(SocketAddr, io::Error)>,
) -> Failure {
    match first_error {
        None => failed(format!("the name {host:?} has no address")),
        Some((address, error)) if count == 1 => {
            failed(format!("{address} could not be reached: {error}"))
        }
        Some((address, error)) => failed(format!(
            "none of the {count} addresses of {host:?} could be reached; {address}: {error}"
        )),
    }
}

/// How long the body of a refusal may take once its head is here: the status is what counts.
const REFUSAL_BODY_WAIT: Duration = Duration::from_secs(1);

/// Asks for the WebSocket and reads the answer.
async fn upgrade(stream: &mut TcpStream, request: &ConnectRequest) -> Result<Upgraded, Failure> {
    let mut upgrade = Upgrade::new(&UpgradeRequest {
        host: &request.uri.host_header(),
        target: &request.uri.target(),
        headers: &exposed_headers(request),
        subprotocols: &exposed_subprotocols(request),
        key: random_key(),
    })
    .map_err(refused_or_failed)?;

    while !upgrade.poll_write().is_empty() {
        // A server may answer and close before it has read everything: what it said is still
        // there to be read, and says more than the failed write.
        match stream.write(upgrade.poll_write()).await {
            Ok(0) | Err(_) => break,
            Ok(n) => upgrade.handle_written(n),
        }
    }

    let mut buffer = [0; 2_048];
    loop {
        let read = match upgrade.pending_refusal() {
            None => stream.read(&mut buffer).await,
            Some(refusal) => match timeout(REFUSAL_BODY_WAIT, stream.read(&mut buffer)).await {
                Ok(read @ Ok(_)) => read,
                Ok(Err(_)) | Err(_) => return Err(Failure::Refused(refusal)),
            },
        };
        match read {
            Ok(0) => return Err(refused_or_failed(upgrade.handle_eof())),
            Ok(n) => match upgrade.handle_read(&buffer[..n]).map_err(refused_or_failed)? {
                Progress::Done(upgraded) => return Ok(upgraded),
                Progress::More => {}
            },
            Err(error) => {
                return Err(failed(format!("the connection was lost in the upgrade: {error}")));
            }
        }
    }
}

fn exposed_headers(request: &ConnectRequest) -> Vec<(String, String)> {
    let headers = request.headers.iter();
    headers.map(|(name, value)| (name.clone(), value.expose().to_owned())).collect()
}

fn exposed_subprotocols(request: &ConnectRequest) -> Vec<String> {
    request.subprotocols.iter().map(|protocol| protocol.expose().to_owned()).collect()
}

/// RFC 6455 section 4.1 wants 16 random bytes, so that no cache answers in the server's place.
fn random_key() -> [u8; 16] {
    let halves = (u128::from(random_u64()) << 64) | u128::from(random_u64());
    halves.to_be_bytes()
}

fn refused_or_failed(error: UpgradeError) -> Failure {
    match error {
        UpgradeError::Refused(refusal) => Failure::Refused(refusal),
        error => failed(format!("the upgrade failed: {error}")),
    }
}

fn failed(message: impl Into<String>) -> Failure {
    Failure::Dial { message: message.into() }
}
