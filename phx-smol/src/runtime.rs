//! The driver's runtime on smol: clock, timer, dialling and spawning.

use core::fmt;
use core::future::Future;
use core::net::SocketAddr;
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use phx_proto::adapter::{self, Resolver, WebSocket, random_u64};
use phx_proto::client::{Clock, Runtime, Spawn, Timer};
use phx_proto::config::Uri;
use phx_proto::{Cause, Config, ConnectRequest, Opened, Time};
use smol::io::{AsyncRead, AsyncWrite};

use crate::net::{SmolNet, Wire};

/// The smol runtime for a driver.
///
/// Its clock is the operating system's. [`spawn`](Spawn::spawn) uses smol's global executor; dialling
/// and timers work on any executor, because smol's reactor runs on a thread of its own.
#[derive(Clone)]
pub struct SmolRuntime {
    origin: Instant,
    dialler: Option<Arc<Dialler>>,
    resolver: Resolver,
}

type Dialler = dyn Fn(Uri) -> Pin<Box<dyn Future<Output = io::Result<Wire>> + Send>> + Send + Sync;

impl SmolRuntime {
    /// Creates a runtime whose clock starts at zero now.
    #[must_use]
    pub fn new() -> Self {
        Self { origin: Instant::now(), dialler: None, resolver: Resolver::system() }
    }

    /// Dials with `dial`, which opens a stream to the server. TCP, proxy and TLS are then up to that
    /// function; the client only upgrades the stream to a WebSocket.
    ///
    /// ```no_run
    /// use phx_smol::SmolRuntime;
    /// use phx_smol::{Config, client};
    ///
    /// # async fn over_a_unix_socket() -> Result<(), Box<dyn std::error::Error>> {
    /// let config = Config::new("ws://localhost/socket/websocket")?;
    /// let runtime = SmolRuntime::new()
    ///     .dial_with(|_uri| smol::net::unix::UnixStream::connect("/run/backend.sock"));
    /// let client = client::connect(config, runtime).await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn dial_with<F, S>(mut self, dial: impl Fn(Uri) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = io::Result<S>> + Send + 'static,
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        self.dialler = Some(Arc::new(move |uri| {
            let stream = dial(uri);
            Box::pin(async move { Ok(Box::new(stream.await?) as Wire) })
        }));
        self
    }
}

impl SmolRuntime {
    /// Looks names up with `resolve`, which takes a host and a port. It is not called for IP
    /// addresses.
    ///
    /// By default the system's resolver is used, on at most four threads of the process for all its
    /// connections; attempts that wait for the same host share one look-up.
    ///
    /// ```no_run
    /// use phx_smol::SmolRuntime;
    /// use phx_smol::{Config, client};
    ///
    /// # async fn to_a_fixed_address() -> Result<(), Box<dyn std::error::Error>> {
    /// let config = Config::new("wss://backend.internal/socket/websocket")?;
    /// let runtime = SmolRuntime::new()
    ///     .resolve_with(|_host, port| async move { Ok(vec![([10, 0, 0, 7], port).into()]) });
    /// let client = client::connect(config, runtime).await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn resolve_with<F>(
        mut self,
        resolve: impl Fn(String, u16) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'static,
    {
        self.resolver = Resolver::new(resolve);
        self
    }
}

impl fmt::Debug for SmolRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SmolRuntime").field("origin", &self.origin).finish_non_exhaustive()
    }
}

impl Default for SmolRuntime {
    fn default() -> Self {
        Self::new()
    }
}

/// The clocks of a [`SmolRuntime`]. The monotonic clock is the operating system's.
#[derive(Clone, Debug)]
pub struct SmolClock {
    origin: Instant,
}

impl Clock for SmolClock {
    fn now(&self) -> Time {
        Time::default() + self.origin.elapsed()
    }

    fn wall(&self) -> Time {
        adapter::wall()
    }
}

type Dial = dyn Future<Output = Result<(WebSocket, Opened), Cause>> + Send;

impl Runtime for SmolRuntime {
    type Clock = SmolClock;
    type Transport = WebSocket;
    type Timer = SmolTimer;
    type Dial = Pin<Box<Dial>>;

    fn clock(&self) -> SmolClock {
        SmolClock { origin: self.origin }
    }

    fn seed(&self) -> u64 {
        random_u64()
    }

    fn timer(&self) -> SmolTimer {
        SmolTimer { origin: self.origin, at: None, timer: smol::Timer::never() }
    }

    fn connect(&self, request: ConnectRequest, config: &Config) -> Pin<Box<Dial>> {
        let (config, resolver) = (config.clone(), self.resolver.clone());
        let stream = self.dialler.as_ref().map(|dialler| dialler(request.uri.clone()));
        Box::pin(async move {
            let connecting = adapter::connect::<SmolNet>(stream, &request, &config, &resolver);
            let (socket, opened) = connecting.await?;
            Ok((WebSocket::new(socket), opened))
        })
    }
}

/// Spawned futures move between threads, so they must be `Send`.
///
/// ```no_run
/// # use phx_smol::SmolRuntime;
/// # use phx_smol::client::Spawn;
/// let shared = std::sync::Arc::new(7);
/// SmolRuntime::new().spawn(async move { drop(shared) });
/// ```
///
/// ```compile_fail
/// # use phx_smol::SmolRuntime;
/// # use phx_smol::client::Spawn;
/// let local = std::rc::Rc::new(7);
/// SmolRuntime::new().spawn(async move { drop(local) });
/// ```
impl<F: Future<Output = ()> + Send + 'static> Spawn<F> for SmolRuntime {
    fn spawn(&self, future: F) {
        // The task is not awaited: the driver ends when its handles are dropped.
        smol::spawn(future).detach();
    }
}

/// A smol timer.
#[derive(Debug)]
pub struct SmolTimer {
    origin: Instant,
    at: Option<Instant>,
    timer: smol::Timer,
}

impl Timer for SmolTimer {
    fn reset(&mut self, at: Option<Time>) {
        self.at = at.map(|at| {
            let after = Duration::from_nanos(at.as_nanos());
            self.origin.checked_add(after).unwrap_or_else(|| self.origin + FAR_FUTURE)
        });
        match self.at {
            Some(at) => self.timer.set_at(at),
            None => self.timer = smol::Timer::never(),
        }
    }

    fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // A smol timer fires once, but the driver polls an expired timer again.
        if self.at.is_some_and(|at| at <= Instant::now()) {
            return Poll::Ready(());
        }
        Pin::new(&mut self.timer).poll(cx).map(drop)
    }
}

/// The delay for deadlines that the platform's clock cannot represent.
const FAR_FUTURE: Duration = Duration::from_secs(30 * 365 * 24 * 3_600);
