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
use phx_proto::Time;
use phx_proto::driver::Runtime;
pub use phx_proto::testing::*;
use phx_proto::wire::Frame;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::{JoinHandle, JoinSet};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::Frame as RawFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

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

    /// Broadcasts to everyone who has joined the topic.
    pub fn broadcast(&self, topic: &str, event: &str, payload: Value) {
        self.with(|server, now| server.broadcast(now, topic, event, payload));
    }

    /// Crashes the topic's channels: `phx_error` to everyone who has joined it.
    pub fn crash_channel(&self, topic: &str) {
        self.with(|server, now| server.crash_channel(now, topic));
    }

    /// Closes every connection as a stopping Phoenix does, waits for the connections to end, and
    /// stops listening.
    pub async fn shutdown(&mut self) {
        self.with(|server, now| server.shutdown(now));
        let ended = async {
            while !self.shared.lock().peers.is_empty() {
                self.shared.gone.notified().await;
            }
        };
        // A client that does not answer the close frame is not waited for.
        let _ = tokio::time::timeout(SHUTDOWN_WAIT, ended).await;
        self.kill().await;
    }

    fn start(&mut self, listener: TcpListener) {
        self.tasks.push(tokio::spawn(accept_all(listener, Arc::clone(&self.shared))));
        self.tasks.push(tokio::spawn(keep_time(Arc::clone(&self.shared))));
    }
}

/// How long `shutdown` waits for clients to answer.
const SHUTDOWN_WAIT: core::time::Duration = core::time::Duration::from_secs(1);

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
    /// Notified when a connection has ended.
    gone: Notify,
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
    Close { code: u16 },
    Drop,
}

impl Shared {
    fn new(config: ServerConfig) -> Self {
        let state = State { server: Server::new(config), peers: BTreeMap::new() };
        Self {
            runtime: TokioRuntime::new(),
            state: Mutex::new(state),
            deadline: Notify::new(),
            gone: Notify::new(),
        }
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

impl State {
    /// Passes on what the server has decided.
    fn deliver(&mut self) {
        while let Some(output) = self.server.poll_output() {
            let (peer, order, last) = match output {
                Output::Send { peer, frame } => (peer, ToPeer::Send(frame), false),
                Output::Close { peer, code } => (peer, ToPeer::Close { code }, false),
                Output::Drop { peer } => (peer, ToPeer::Drop, true),
            };
            // A peer that is gone already misses nothing.
            if let Some(way) = self.peers.get(&peer) {
                let _ = way.send(order);
            }
            if last {
                self.peers.remove(&peer);
            }
        }
    }
}

/// Fires the server's timers.
async fn keep_time(shared: Arc<Shared>) {
    loop {
        let changed = shared.deadline.notified();
        let next = shared.lock().server.poll_timeout();
        match next {
            None => changed.await,
            Some(at) => {
                let wait = at.since(shared.runtime.now());
                if tokio::time::timeout(wait, changed).await.is_err() {
                    shared.with(|server, now| server.handle_timeout(now));
                }
            }
        }
    }
}

/// Takes connections until it is dropped, and all of them with it.
async fn accept_all(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve(stream, Arc::clone(&shared)));
                }
                // Out of file descriptors, usually: others may close theirs.
                Err(_) => tokio::task::yield_now().await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// One connection, from the upgrade to the end.
#[allow(clippy::result_large_err)] // The callback's type is tungstenite's.
async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    let (way, mut orders) = mpsc::unbounded_channel();
    let mut known = None;
    let upgrade = |request: &Request, mut response: Response| {
        let accepted = admit(&shared, request, way).map_err(refused)?;
        known = Some(accepted.peer);
        let protocol = accepted.protocol.and_then(|name| http::HeaderValue::from_str(&name).ok());
        if let Some(protocol) = protocol {
            response.headers_mut().insert(http::header::SEC_WEBSOCKET_PROTOCOL, protocol);
        }
        Ok(response)
    };
    let accepted = tokio_tungstenite::accept_hdr_async(stream, upgrade).await;
    let Some(peer) = known else { return };
    if let Ok(mut socket) = accepted {
        converse(&mut socket, peer, &mut orders, &shared).await;
    }
    shared.with(|server, now| server.handle_eof(now, peer));
    shared.lock().peers.remove(&peer);
    shared.gone.notify_one();
}

/// Asks the server about an upgrade.
fn admit(
    shared: &Shared,
    request: &Request,
    way: mpsc::UnboundedSender<ToPeer>,
) -> Result<Accepted, HttpRefusal> {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let headers = request.headers().iter().map(|(name, value)| {
        (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    });
    let asked = ConnectRequest { path: path.to_owned(), headers: headers.collect() };
    let mut state = shared.lock();
    let answer = state.server.connect(shared.runtime.now(), &asked);
    if let Ok(accepted) = &answer {
        // Before anything is delivered, so that the first frames find their way.
        state.peers.insert(accepted.peer, way);
    }
    state.deliver();
    drop(state);
    shared.deadline.notify_one();
    answer
}

/// A refusal as HTTP.
fn refused(refusal: HttpRefusal) -> ErrorResponse {
    let mut response = ErrorResponse::new(Some(refusal.body));
    *response.status_mut() = http::StatusCode::from_u16(refusal.status)
        .unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in &refusal.headers {
        let name = http::HeaderName::from_bytes(name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, http::HeaderValue::from_str(value)) {
            response.headers_mut().append(name, value);
        }
    }
    response
}

/// How long what was said before the end may take to be written.
const LAST_WORDS: core::time::Duration = core::time::Duration::from_secs(1);

/// Frames in both directions until one side ends it.
async fn converse(
    socket: &mut WebSocketStream<TcpStream>,
    peer: PeerId,
    orders: &mut mpsc::UnboundedReceiver<ToPeer>,
    shared: &Shared,
) {
    loop {
        tokio::select! {
            message = socket.next() => {
                let frame = match message {
                    Some(Ok(Message::Text(text))) => Frame::Text(text.into()),
                    Some(Ok(Message::Binary(bytes))) => Frame::Binary(bytes),
                    Some(Ok(Message::Close(frame))) => {
                        let code = frame.map(|frame| u16::from(frame.code));
                        shared.with(|server, now| server.handle_close(now, peer, code));
                        // Reading on writes the answer and ends the stream.
                        continue;
                    }
                    Some(Ok(_)) => {
                        shared.with(|server, now| server.handle_ping(now, peer));
                        continue;
                    }
                    Some(Err(_)) | None => return,
                };
                shared.with(|server, now| server.handle_frame(now, peer, &frame));
            }
            order = orders.recv() => {
                let message = match order {
                    Some(ToPeer::Send(Frame::Text(bytes))) => raw(bytes, Data::Text),
                    Some(ToPeer::Send(Frame::Binary(bytes))) => raw(bytes, Data::Binary),
                    Some(ToPeer::Close { code }) => {
                        let reason = Utf8Bytes::default();
                        Message::Close(Some(CloseFrame { code: code.into(), reason }))
                    }
                    Some(ToPeer::Drop) | None => {
                        // The answer to a client's close frame may still be in the buffer.
                        let _ = tokio::time::timeout(LAST_WORDS, socket.flush()).await;
                        return;
                    }
                };
                // What went wrong is read, as the end, in the other arm.
                let _ = socket.send(message).await;
            }
        }
    }
}

/// As it is, even when a test sends text that is not UTF-8.
fn raw(bytes: bytes::Bytes, kind: Data) -> Message {
    Message::Frame(RawFrame::message(bytes, OpCode::Data(kind), true))
}
