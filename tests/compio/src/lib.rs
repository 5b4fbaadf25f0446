//! Phoenix Channels client for compio: completion-based I/O on one thread, which neither streams nor tasks
//! can leave.
//!
//! It is the smallest adapter over real sockets: a clock, a timer, streams, dialling and spawning. It
//! passes the same conformance tests as the other two.

use core::future::{Future, Ready};
use core::net::SocketAddr;
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use compio::io::compat::AsyncStream;
use compio::net::TcpStream;
use futures_io::{AsyncRead, AsyncWrite};
use futures_rustls::TlsConnector;
use phx_proto::adapter::{self, Io, Net, Resolver, Socket, Wrap, random_u64};
use phx_proto::client::{Clock, Runtime, Spawn, Timer};
use phx_proto::rustls::{ClientConfig, pki_types::ServerName};
use phx_proto::{Cause, ConnectRequest, Opened, Time};
pub use phx_smol::*;

/// Runs a driver on the compio runtime of this thread.
#[derive(Clone, Debug)]
pub struct CompioRuntime {
    clock: CompioClock,
}

impl CompioRuntime {
    /// A runtime whose clock starts now.
    #[must_use]
    pub fn new() -> Self {
        Self { clock: CompioClock { origin: Instant::now() } }
    }
}

impl Default for CompioRuntime {
    fn default() -> Self {
        Self::new()
    }
}

/// The clocks of the operating system. Other threads use only this part of the adapter.
#[derive(Clone, Debug)]
pub struct CompioClock {
    origin: Instant,
}

impl Clock for CompioClock {
    fn now(&self) -> Time {
        Time::ZERO + self.origin.elapsed()
    }

    fn wall(&self) -> Time {
        adapter::wall()
    }
}

type Opening = dyn Future<Output = Result<(Socket<CompioNet>, Opened), Cause>>;

impl Runtime for CompioRuntime {
    type Clock = CompioClock;
    type Transport = Socket<CompioNet>;
    type Timer = CompioTimer;
    type Dial = Pin<Box<Opening>>;

    fn clock(&self) -> CompioClock {
        self.clock.clone()
    }

    fn seed(&self) -> u64 {
        random_u64()
    }

    fn timer(&self) -> CompioTimer {
        CompioTimer { origin: self.clock.origin, at: None, sleep: None }
    }

    fn connect(&self, request: ConnectRequest, config: &Config) -> Pin<Box<Opening>> {
        let config = config.clone();
        Box::pin(async move {
            let own: Option<Ready<io::Result<Stream>>> = None;
            adapter::connect::<CompioNet>(own, &request, &config, &Resolver::system()).await
        })
    }
}

/// Spawns futures that are not `Send`, too.
impl<F: Future<Output = ()> + 'static> Spawn<F> for CompioRuntime {
    fn spawn(&self, future: F) {
        compio::runtime::spawn(future).detach();
    }
}

/// A compio timer: a future that is created at the first poll.
pub struct CompioTimer {
    origin: Instant,
    at: Option<Instant>,
    sleep: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

impl core::fmt::Debug for CompioTimer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("CompioTimer").field("at", &self.at).finish_non_exhaustive()
    }
}

impl Timer for CompioTimer {
    fn reset(&mut self, at: Option<Time>) {
        self.at = at.and_then(|at| self.origin.checked_add(at.since(Time::ZERO)));
        self.sleep = None;
    }

    fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else { return Poll::Pending };
        if at <= Instant::now() {
            return Poll::Ready(());
        }
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(compio::time::sleep_until(at)));
        sleep.as_mut().poll(cx)
    }
}

/// A stream for a WebSocket. compio owns the buffers of an operation until it completes; `AsyncStream`
/// copies between them and the caller's.
type Stream = Pin<Box<dyn Bytes>>;

/// The wrapper of tungstenite for the traits of `futures_io`.
pub type Wrapper = WebSocketStream<Io<Stream>>;

/// Bytes in both directions.
pub trait Bytes: AsyncRead + AsyncWrite {}

impl<S: AsyncRead + AsyncWrite> Bytes for S {}

/// The sockets of compio, for dialling.
#[derive(Debug)]
pub struct CompioNet;

impl Net for CompioNet {
    type Stream = Stream;

    const TLS: bool = true;

    async fn connect(address: SocketAddr) -> io::Result<Stream> {
        let stream = TcpStream::connect(address).await?;
        let _ = stream.set_nodelay(true);
        Ok(Box::pin(AsyncStream::new(stream)))
    }

    async fn sleep(duration: Duration) {
        compio::time::sleep(duration).await;
    }

    async fn secure(
        stream: Io<Stream>,
        name: ServerName<'static>,
        client: Arc<ClientConfig>,
    ) -> io::Result<Stream> {
        Ok(Box::pin(TlsConnector::from(client).connect(name, stream).await?))
    }
}

impl Wrap for CompioNet {
    type Socket = Wrapper;

    async fn wrap(stream: Io<Stream>, role: Role, config: Option<WebSocketConfig>) -> Wrapper {
        WebSocketStream::from_raw_socket(stream, role, config).await
    }
}
