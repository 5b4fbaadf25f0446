//! The clock, the timer, the dialling and the spawning of smol, as the driver wants them.

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

/// Runs a driver on smol.
///
/// The clock is the operating system's. [`spawn`](Spawn::spawn) uses smol's global executor;
/// dialling and timers work on any executor, because smol's reactor runs on a thread of its own.
#[derive(Clone)]
pub struct SmolRuntime {
    origin: Instant,
    dialler: Option<Arc<Dialler>>,
    resolver: Resolver,
}

type Dialler = dyn Fn(Uri) -> Pin<Box<dyn Future<Output = io::Result<Wire>> + Send>> + Send + Sync;

impl SmolRuntime {
    /// A runtime whose clock starts now.
    #[must_use]
    pub fn new() -> Self {
        Self { origin: Instant::now(), dialler: None, resolver: Resolver::system() }
    }

    /// Dials with a function of the caller's own, which yields a stream that leads to the server:
    /// TCP, proxy and TLS are then all its own business, and the upgrade is asked for on it.
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
    /// Looks names up with a function of the caller's own, which takes a host and a port: another
    /// protocol, or answers of its own. Addresses are not looked up.
    ///
    /// By default the system's resolver is asked, on at most four threads of the process for all of
    /// its connections, and once for all attempts that wait for the same host.
    ///
    /// ```no_run
    /// use phx_smol::SmolRuntime;
    /// use phx_smol::{Config, client};
    ///
    /// # async fn to_one_of_ours() -> Result<(), Box<dyn std::error::Error>> {
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

/// The clocks of a [`SmolRuntime`]: the monotonic one is the operating system's.
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

/// What is spawned moves between threads, so it must be `Send`.
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
        // The task ends by itself when its handles are gone, so nobody waits for it.
        smol::spawn(future).detach();
    }
}

/// A timer of smol's.
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
        // A timer of smol's fires once, and is asked again after that.
        if self.at.is_some_and(|at| at <= Instant::now()) {
            return Poll::Ready(());
        }
        Pin::new(&mut self.timer).poll(cx).map(drop)
    }
}

/// A time that no clock reaches, for deadlines that the platform's clock cannot express.
const FAR_FUTURE: Duration = Duration::from_secs(30 * 365 * 24 * 3_600);
