//! A Phoenix-like server on a TCP port, for tests: [`phx_proto::testing::Server`] over real
//! sockets.
//!
//! ```text
//! TcpListener ─▶ one task per connection ──frames──▶ ┌ Mutex ─────────┐
//!                        ▲                           │ testing::Server│◀── kill, broadcast, …
//!                        └────────── outputs ────────└────────▲───────┘
//!                                                   one task for its timers
//! ```
//!
//! The server sits in a mutex and not in a task of its own because the answer to an upgrade is
//! wanted by a synchronous callback. No lock is held over an await.

use core::net::SocketAddr;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::{SinkExt, StreamExt};
use phx_proto::driver::Runtime;
use phx_proto::testing::{ConnectRequest, Output, PeerId, Server, ServerConfig};
use phx_proto::wire::Frame;
use phx_proto::{Payload, Refusal, Time};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::{JoinHandle, JoinSet};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::Frame as RawFrame;

use crate::runtime::TokioRuntime;

/// A Phoenix-like server that listens on a TCP port.
///
/// Dropping it ends it as [`kill`](Self::kill) does.
#[derive(Debug)]
pub struct Listener {
    addr: SocketAddr,
    config: ServerConfig,
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

impl Listener {
    /// Listens on `addr`; port 0 takes any that is free.
    ///
    /// # Errors
    ///
    /// Those of binding: the port is in use, or not allowed.
    pub async fn bind(addr: SocketAddr, config: ServerConfig) -> io::Result<Self> {
        let listener = TcpListener::bind(addr).await?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared::new(config.clone()));
        let mut this = Self { addr, config, shared, tasks: Vec::new() };
        this.start(listener);
        Ok(this)
    }

    /// The address of the socket.
    #[must_use]
    pub fn url(&self) -> String {
        format!("ws://{}/socket/websocket", self.addr)
    }

    /// The address it listens on, or listened on before it was killed.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Drops every TCP connection without a close frame and stops listening, as a crash does.
    pub async fn kill(&mut self) {
        for task in self.tasks.drain(..) {
            task.abort();
            // Waiting for it means that the port is free afterwards.
            let _ = task.await;
        }
        self.shared.lock().peers.clear();
    }

    /// Listens again on the same port, with a server that has forgotten everything.
    ///
    /// # Errors
    ///
    /// Those of binding.
    pub async fn restart(&mut self) -> io::Result<()> {
        self.kill().await;
        let listener = TcpListener::bind(self.addr).await?;
        self.shared = Arc::new(Shared::new(self.config.clone()));
        self.start(listener);
        Ok(())
    }

    /// Does something with the server and sends what comes of it.
    pub fn with<T>(&self, work: impl FnOnce(&mut Server, Time) -> T) -> T {
        self.shared.with(work)
    }

    fn start(&mut self, listener: TcpListener) {
        self.tasks.push(tokio::spawn(accept_all(listener, Arc::clone(&self.shared))));
        self.tasks.push(tokio::spawn(keep_time(Arc::clone(&self.shared))));
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// The server and the ways to its peers.
#[derive(Debug)]
struct Shared {
    runtime: TokioRuntime,
    state: Mutex<State>,
    /// Notified when the server's next deadline may have changed.
    deadline: Notify,
}

#[derive(Debug)]
struct State {
    server: Server,
    peers: BTreeMap<PeerId, mpsc::UnboundedSender<ToPeer>>,
}

/// What a connection's task is to do.
#[derive(Debug)]
enum ToPeer {
    Send(Frame),
    Close { code: u16, reason: String },
    Drop,
}

impl Shared {
    fn new(config: ServerConfig) -> Self {
        let state = State { server: Server::new(config), peers: BTreeMap::new() };
        Self { runtime: TokioRuntime::new(), state: Mutex::new(state), deadline: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A test's panic in `with` leaves a server that is merely in the middle of something.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, work: impl FnOnce(&mut Server, Time) -> T) -> T {
        let mut state = self.lock();
        let done = work(&mut state.server, self.runtime.now());
        state.deliver();
        drop(state);
        self.deadline.notify_one();
        done
    }
}
