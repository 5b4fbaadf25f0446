//! Test servers: [`Listener`] is a Phoenix-like server on a TCP port, and [`Script`] is a scripted one
//! in memory.

use core::net::SocketAddr;
use std::io;
use std::sync::Arc;

use phx_proto::Time;
#[cfg(feature = "tls")]
use phx_proto::adapter::Io;
use phx_proto::adapter::{Hub, Serve};
use phx_proto::client::{Clock as _, Runtime as _};
#[cfg(feature = "tls")]
use phx_proto::rustls;
pub use phx_proto::testing::*;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

#[cfg(feature = "tls")]
use crate::net::Tokio;
use crate::net::{Stream, TokioNet};
use crate::runtime::TokioRuntime;

/// A Phoenix-like server that listens on a TCP port.
///
/// ```
/// use phx_tokio::{ChannelEvent, Config};
/// use phx_tokio::testing::{Listener, ServerConfig};
/// use serde_json::json;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// let mut server = Listener::bind(([127, 0, 0, 1], 0).into(), ServerConfig::default()).await?;
/// let client = phx_tokio::connect(Config::new(&server.url())?).await?;
/// let room = client.join("room:lobby", json!({})).await?;
/// let mut events = room.messages();
/// server.kill().await; // no close frame
/// server.restart().await?; // the same port, with a new state
/// while let Some(event) = events.next().await {
///     if matches!(event, ChannelEvent::Resumed { .. }) {
///         break; // an earlier push could have been lost with the killed server
///     }
/// }
/// let reply = room.push("echo", json!({"still": "here"})).await?.ok()?;
/// assert_eq!(reply.to_value()?, json!({"still": "here"}));
/// client.disconnect().await;
/// # Ok(())
/// # })
/// # }
/// ```
///
/// Dropping the listener stops it as [`kill`](Self::kill) does.
#[derive(Debug)]
pub struct Listener {
    addr: SocketAddr,
    config: ServerConfig,
    #[cfg(feature = "tls")]
    tls: Option<Arc<rustls::ServerConfig>>,
    hub: Arc<Hub>,
    task: Option<JoinHandle<()>>,
}

impl Listener {
    fn new(addr: SocketAddr, config: ServerConfig) -> Self {
        Self {
            addr,
            hub: Arc::new(Hub::new(config.clone(), Time::default)),
            config,
            #[cfg(feature = "tls")]
            tls: None,
            task: None,
        }
    }

    /// Listens on `addr`; port 0 selects a free port.
    ///
    /// Cancel safe: if the future is dropped, nothing listens.
    ///
    /// # Errors
    ///
    /// The error of binding: for example, the port is in use or not permitted.
    pub async fn bind(addr: SocketAddr, config: ServerConfig) -> io::Result<Self> {
        let mut this = Self::new(addr, config);
        this.restart().await?;
        Ok(this)
    }

    /// Listens on `addr` as [`bind`](Self::bind) does, with TLS.
    ///
    /// Cancel safe, as [`bind`](Self::bind).
    ///
    /// # Errors
    ///
    /// The error of binding.
    #[cfg(feature = "tls")]
    pub async fn bind_tls(
        addr: SocketAddr,
        config: ServerConfig,
        tls: Arc<rustls::ServerConfig>,
    ) -> io::Result<Self> {
        let mut this = Self::new(addr, config);
        this.tls = Some(tls);
        this.restart().await?;
        Ok(this)
    }

    /// The URI of the server's socket.
    #[must_use]
    pub fn url(&self) -> String {
        #[cfg(feature = "tls")]
        let scheme = if self.tls.is_some() { "wss" } else { "ws" };
        #[cfg(not(feature = "tls"))]
        let scheme = "ws";
        format!("{scheme}://{}/socket/websocket", self.addr)
    }

    /// The address that the server listens on, or listened on before it was killed.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Drops every TCP connection without a close frame and stops listening, as a crash does.
    ///
    /// Not cancel safe: if the future is dropped, the server still ends, but the port may be in use
    /// for a moment, and the server still lists its peers.
    pub async fn kill(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            // The task is awaited, so that the port is free afterwards.
            let _ = task.await;
            self.hub.forget_peers();
        }
    }

    /// Restarts the server on the same port, with a new state.
    ///
    /// Not cancel safe: if the future is dropped, the server is killed and may not listen again.
    ///
    /// # Errors
    ///
    /// The error of binding.
    pub async fn restart(&mut self) -> io::Result<()> {
        self.kill().await;
        let listener = TcpListener::bind(self.addr).await?;
        self.addr = listener.local_addr()?;
        let clock = TokioRuntime::new().clock();
        let hub = Hub::new(self.config.clone(), move || clock.now());
        #[cfg(feature = "tls")]
        let hub = hub.behind_tls(self.tls.clone());
        self.hub = Arc::new(hub);
        self.task = Some(tokio::spawn(Arc::clone(&self.hub).run::<TokioNet>(listener)));
        Ok(())
    }

    /// Calls `work` with the server and the current time, and then sends the server's outputs.
    ///
    /// ```
    /// use phx_tokio::testing::{HttpRefusal, Listener, ServerConfig};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// let server = Listener::bind(([127, 0, 0, 1], 0).into(), ServerConfig::default()).await?;
    /// server.with(|server, _now| server.refuse_next(HttpRefusal::new(503, "busy")));
    /// assert!(phx_tokio::connect(phx_tokio::Config::new(&server.url())?).await.is_err());
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    pub fn with<T>(&self, work: impl FnOnce(&mut Server, Time) -> T) -> T {
        self.hub.with(work)
    }

    /// Broadcasts to every client that has joined the topic.
    pub fn broadcast(&self, topic: &str, event: &str, payload: Value) {
        self.with(|server, now| server.broadcast(now, topic, event, payload));
    }

    /// Crashes the topic's channels: every client that has joined it receives `phx_error`.
    pub fn crash_channel(&self, topic: &str) {
        self.with(|server, now| server.crash_channel(now, topic));
    }

    /// Closes every connection as a stopping Phoenix does, waits for the connections to end, and
    /// stops listening. It waits at most a second for a client that does not answer.
    ///
    /// Not cancel safe: if the future is dropped, the connections are closing, and the server still
    /// listens.
    pub async fn shutdown(&mut self) {
        self.with(|server, now| server.shutdown(now));
        self.hub.emptied::<TokioNet>().await;
        self.kill().await;
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Serve for TokioNet {
    type Listener = TcpListener;

    async fn accept(listener: &TcpListener) -> io::Result<Stream> {
        let (stream, _) = listener.accept().await?;
        let _ = stream.set_nodelay(true);
        Ok(Stream::new(stream))
    }

    #[cfg(feature = "tls")]
    async fn accept_tls(stream: Io<Stream>, tls: Arc<rustls::ServerConfig>) -> io::Result<Stream> {
        let acceptor = tokio_rustls::TlsAcceptor::from(tls);
        Ok(Stream::new(acceptor.accept(Tokio(stream)).await?))
    }
}
