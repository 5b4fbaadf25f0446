//! The clock, the timer, the dialling and the spawning of tokio, as the driver wants them.

use core::fmt;
use core::future::Future;
use core::net::SocketAddr;
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;
use std::io;
use std::sync::Arc;

use phx_proto::adapter::{self, Resolver, WebSocket, random_u64};
use phx_proto::client::{Clock, Runtime, Spawn, Timer};
use phx_proto::config::Uri;
use phx_proto::{Cause, Config, ConnectRequest, Opened, Time};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep};

use crate::net::{Stream, TokioNet};

/// Runs a driver on tokio.
///
/// The clock is tokio's own, so a test with a paused clock is on virtual time. Dialling, timers
/// and [`spawn`](Spawn::spawn) need a tokio runtime with I/O and time enabled around them;
/// making this value does not.
#[derive(Clone)]
pub struct TokioRuntime {
    origin: Instant,
    dialler: Option<Arc<Dialler>>,
    resolver: Resolver,
}

type Dialler =
    dyn Fn(Uri) -> Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>> + Send + Sync;

impl TokioRuntime {
    /// A runtime whose clock starts now.
    #[must_use]
    pub fn new() -> Self {
        Self { origin: Instant::now(), dialler: None, resolver: Resolver::system() }
    }

    /// Dials with a function of the caller's own, which yields a stream that leads to the server:
    /// TCP, proxy and TLS are then all its own business, and the upgrade is asked for on it.
    ///
    /// ```no_run
    /// use phx_tokio::TokioRuntime;
    /// use phx_tokio::{Config, client};
    ///
    /// # async fn over_a_unix_socket() -> Result<(), Box<dyn std::error::Error>> {
    /// let config = Config::new("ws://localhost/socket/websocket")?;
    /// let runtime = TokioRuntime::new()
    ///     .dial_with(|_uri| tokio::net::UnixStream::connect("/run/backend.sock"));
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
            Box::pin(async move { Ok(Stream::new(stream.await?)) })
        }));
        self
    }
}

impl TokioRuntime {
    /// Looks names up with a function of the caller's own, which takes a host and a port: another
    /// protocol, or answers of its own. Addresses are not looked up.
    ///
    /// By default the system's resolver is asked, on at most four threads of the process for all of
    /// its connections, and once for all attempts that wait for the same host.
    ///
    /// ```no_run
    /// use phx_tokio::TokioRuntime;
    /// use phx_tokio::{Config, client};
    ///
    /// # async fn to_one_of_ours() -> Result<(), Box<dyn std::error::Error>> {
    /// let config = Config::new("wss://backend.internal/socket/websocket")?;
    /// let runtime = TokioRuntime::new()
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

impl fmt::Debug for TokioRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokioRuntime").field("origin", &self.origin).finish_non_exhaustive()
    }
}

impl Default for TokioRuntime {
    fn default() -> Self {
        Self::new()
    }
}

/// The clocks of a [`TokioRuntime`]: the monotonic one is tokio's own.
#[derive(Clone, Debug)]
pub struct TokioClock {
    origin: Instant,
}

impl Clock for TokioClock {
    fn now(&self) -> Time {
        Time::default() + self.origin.elapsed()
    }

    fn wall(&self) -> Time {
        adapter::wall()
    }
}

type Dial = dyn Future<Output = Result<(WebSocket, Opened), Cause>> + Send;

impl Runtime for TokioRuntime {
    type Clock = TokioClock;
    type Transport = WebSocket;
    type Timer = TokioTimer;
    type Dial = Pin<Box<Dial>>;

    fn clock(&self) -> TokioClock {
        TokioClock { origin: self.origin }
    }

    fn seed(&self) -> u64 {
        random_u64()
    }

    fn timer(&self) -> TokioTimer {
        TokioTimer { origin: self.origin, at: None, sleep: None }
    }

    fn connect(&self, request: ConnectRequest, config: &Config) -> Pin<Box<Dial>> {
        let (config, resolver) = (config.clone(), self.resolver.clone());
        let stream = self.dialler.as_ref().map(|dialler| dialler(request.uri.clone()));
        // Outside of tokio's cooperative budget, as everything that the driver polls.
        Box::pin(tokio::task::unconstrained(async move {
            let connecting = adapter::connect::<TokioNet>(stream, &request, &config, &resolver);
            let (socket, opened) = connecting.await?;
            Ok((WebSocket::new(socket), opened))
        }))
    }
}

/// What is spawned moves between threads, so it must be `Send`.
///
/// ```no_run
/// # use phx_tokio::TokioRuntime;
/// # use phx_tokio::client::Spawn;
/// let shared = std::sync::Arc::new(7);
/// TokioRuntime::new().spawn(async move { drop(shared) });
/// ```
///
/// ```compile_fail
/// # use phx_tokio::TokioRuntime;
/// # use phx_tokio::client::Spawn;
/// let local = std::rc::Rc::new(7);
/// TokioRuntime::new().spawn(async move { drop(local) });
/// ```
impl<F: Future<Output = ()> + Send + 'static> Spawn<F> for TokioRuntime {
    fn spawn(&self, future: F) {
        // The task ends by itself when its handles are gone, so nobody waits for it.
        drop(tokio::spawn(future));
    }
}

/// A timer of tokio's. Made without a runtime; polled within one.
#[derive(Debug)]
pub struct TokioTimer {
    origin: Instant,
    at: Option<Instant>,
    /// Made on the first poll, because `Sleep::new` panics outside of a runtime, and kept, because
    /// it is reset with every frame.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timer for TokioTimer {
    fn reset(&mut self, at: Option<Time>) {
        self.at = at.map(|at| {
            let after = Duration::from_nanos(at.as_nanos());
            self.origin.checked_add(after).unwrap_or_else(|| self.origin + FAR_FUTURE)
        });
        if let (Some(at), Some(sleep)) = (self.at, &mut self.sleep) {
            sleep.as_mut().reset(at);
        }
    }

    fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else { return Poll::Pending };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        // With the budget of its task used up, a sleep is pending without having registered.
        Pin::new(&mut tokio::task::unconstrained(sleep.as_mut())).poll(cx)
    }
}

/// A time that no clock reaches, for deadlines that the platform's clock cannot express.
const FAR_FUTURE: Duration = Duration::from_secs(30 * 365 * 24 * 3_600);
