//! The driver's runtime on tokio: clock, timer, dialling and spawning.

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

/// The tokio runtime for a driver.
///
/// Its clock is tokio's, so a test with a paused clock runs in virtual time. Dialling, timers and
/// [`spawn`](Spawn::spawn) must be used within a tokio runtime with I/O and time enabled; this value
/// can be created anywhere.
#[derive(Clone)]
pub struct TokioRuntime {
    origin: Instant,
    dialler: Option<Arc<Dialler>>,
    resolver: Resolver,
}

type Dialler =
    dyn Fn(Uri) -> Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>> + Send + Sync;

impl TokioRuntime {
    /// Creates a runtime whose clock starts at zero now.
    #[must_use]
    pub fn new() -> Self {
        Self { origin: Instant::now(), dialler: None, resolver: Resolver::system() }
    }

    /// Dials with `dial`, which opens a stream to the server. TCP, proxy and TLS are then up to that
    /// function; the client only upgrades the stream to a WebSocket.
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
    /// Looks names up with `resolve`, which takes a host and a port. It is not called for IP
    /// addresses.
    ///
    /// By default the system's resolver is used, on at most four threads of the process for all its
    /// connections; attempts that wait for the same host share one look-up.
    ///
    /// ```no_run
    /// use phx_tokio::TokioRuntime;
    /// use phx_tokio::{Config, client};
    ///
    /// # async fn to_a_fixed_address() -> Result<(), Box<dyn std::error::Error>> {
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

/// The clocks of a [`TokioRuntime`]. The monotonic clock is tokio's.
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
        // The dial runs outside tokio's cooperative budget, like everything that the driver polls.
        Box::pin(tokio::task::unconstrained(async move {
            let connecting = adapter::connect::<TokioNet>(stream, &request, &config, &resolver);
            let (socket, opened) = connecting.await?;
            Ok((WebSocket::new(socket), opened))
        }))
    }
}

/// Spawned futures move between threads, so they must be `Send`.
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
        // The task is not awaited: the driver ends when its handles are dropped.
        drop(tokio::spawn(future));
    }
}

/// A tokio timer. It can be created outside a runtime, but must be polled within one.
#[derive(Debug)]
pub struct TokioTimer {
    origin: Instant,
    at: Option<Instant>,
    /// The `Sleep` is created on the first poll, because creating one outside a runtime panics. It
    /// is kept after that, because it is reset often.
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
        // Within the budget, a `Sleep` would be pending once the task has used the budget up, and
        // would not register its deadline.
        Pin::new(&mut tokio::task::unconstrained(sleep.as_mut())).poll(cx)
    }
}

/// The delay for deadlines that the platform's clock cannot represent.
const FAR_FUTURE: Duration = Duration::from_secs(30 * 365 * 24 * 3_600);
