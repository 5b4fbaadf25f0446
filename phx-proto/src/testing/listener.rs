//! The Phoenix-like test server behind real sockets: everything but binding and spawning.
//!
//! ```text
//! accept ─▶ one future per connection ──frames──▶ ┌ Mutex ─────────┐
//!                        ▲                        │ testing::Server│◀── kill, broadcast, …
//!                        └──────── orders ────────└────────▲───────┘
//!                                                   a future for its timers
//! ```
//!
//! The server sits in a mutex because the answer to an upgrade is wanted by a synchronous
//! callback. No lock is held over an await.

use core::fmt;
use core::future::{Future, poll_fn};
use core::pin::{Pin, pin};
use core::task::{Context, Poll, Waker, ready};
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_core::Stream;
use futures_sink::Sink;
use futures_util::stream::FuturesUnordered;
use tungstenite::handshake::server::{Callback, ErrorResponse, Request, Response};
use tungstenite::http;
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::Frame as RawFrame;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::{Error, Message, Utf8Bytes};

use super::{Accepted, ConnectRequest, HttpRefusal, Output, PeerId, Server, ServerConfig};
use crate::time::Time;
use crate::transport::{Meter, Net};
use crate::wire::Frame;

/// A runtime's sockets, as far as serving needs them.
pub trait Serve: Net {
    /// A socket that listens.
    type Listener: Send + Sync + 'static;
    /// The runtime's wrapper of tungstenite, on the server's end.
    type Socket: Stream<Item = Result<Message, Error>> + Sink<Message, Error = Error> + Send + Unpin;

    /// The next connection.
    fn accept(listener: &Self::Listener) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// Speaks TLS on a stream, as a server.
    #[cfg(feature = "tls")]
    fn accept_tls(
        stream: Self::Stream,
        tls: Arc<rustls::ServerConfig>,
    ) -> impl Future<Output = io::Result<Self::Stream>> + Send {
        drop((stream, tls));
        core::future::ready(Err(io::ErrorKind::Unsupported.into()))
    }

    /// The meter of a stream that was accepted.
    fn meter(stream: &Self::Stream) -> Meter;

    /// Reads the upgrade and answers it as `admission` says.
    fn accept_websocket(
        stream: Self::Stream,
        admission: Admission,
    ) -> impl Future<Output = Result<Self::Socket, Error>> + Send;
}

/// The server and the ways to its peers.
pub struct Hub {
    clock: Box<dyn Fn() -> Time + Send + Sync>,
    state: Mutex<State>,
    #[cfg(feature = "tls")]
    tls: Option<Arc<rustls::ServerConfig>>,
}

struct State {
    server: Server,
    peers: BTreeMap<PeerId, Peer>,
    /// Woken when the server's next deadline may have changed.
    timer: Option<Waker>,
    /// Woken when a connection has ended.
    gone: Option<Waker>,
}

#[derive(Default)]
struct Peer {
    orders: VecDeque<Order>,
    waker: Option<Waker>,
}

/// What a connection is to do.
enum Order {
    Send(Frame),
    Close { code: u16 },
    Drop,
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").finish_non_exhaustive()
    }
}

impl Hub {
    /// A server that nobody is connected to.
    pub fn new(config: ServerConfig, clock: impl Fn() -> Time + Send + Sync + 'static) -> Self {
        let state =
            State { server: Server::new(config), peers: BTreeMap::new(), timer: None, gone: None };
        Self {
            clock: Box::new(clock),
            state: Mutex::new(state),
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    /// Speaks TLS with everyone, or with nobody.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn behind_tls(mut self, tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        self.tls = tls;
        self
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A test's panic in `with` leaves a server that is merely in the middle of something.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the server and sends what comes of it.
    pub fn with<T>(&self, work: impl FnOnce(&mut Server, Time) -> T) -> T {
        let mut state = self.lock();
        let done = work(&mut state.server, (self.clock)());
        state.deliver();
        done
    }

    /// Forgets the connections, which were dropped with [`run`](Self::run).
    pub fn forget_peers(&self) {
        self.lock().peers.clear();
    }

    /// Ready when no connection is left, or after a second: who does not answer a close frame is
    /// not waited for. Cancel safe.
    pub async fn emptied<N: Net>(&self) {
        let mut late = pin!(N::sleep(LAST_WORDS));
        poll_fn(|cx| {
            let mut state = self.lock();
            if state.peers.is_empty() {
                return Poll::Ready(());
            }
            state.gone = Some(cx.waker().clone());
            drop(state);
            late.as_mut().poll(cx)
        })
        .await;
    }

    /// Takes connections and serves them, until it is dropped, and all of them with it. Cancel safe.
    pub async fn run<N: Serve>(self: Arc<Self>, listener: N::Listener) {
        let mut time = pin!(self.keep_time::<N>());
        let mut accept = Box::pin(N::accept(&listener));
        let mut pause: Option<Sleep> = None;
        let mut connections = FuturesUnordered::new();
        poll_fn(|cx| {
            let _: Poll<()> = time.as_mut().poll(cx);
            loop {
                if let Some(sleep) = &mut pause {
                    if sleep.as_mut().poll(cx).is_pending() {
                        break;
                    }
                    pause = None;
                }
                let Poll::Ready(accepted) = accept.as_mut().poll(cx) else { break };
                accept.set(N::accept(&listener));
                match accepted {
                    Ok(stream) => connections.push(Arc::clone(&self).serve::<N>(stream)),
                    Err(error) => {
                        // Out of file descriptors, usually: the same attempt fails at once, for as
                        // long as the clients keep theirs.
                        self.lock().server.accept_failed(&error);
                        pause = Some(Box::pin(N::sleep(ACCEPT_AGAIN)));
                    }
                }
            }
            while let Poll::Ready(Some(())) = Pin::new(&mut connections).poll_next(cx) {}
            Poll::Pending
        })
        .await
    }

    /// Fires the server's timers.
    async fn keep_time<N: Net>(&self) {
        let mut set: Option<(Time, Sleep)> = None;
        poll_fn(|cx| {
            loop {
                let mut state = self.lock();
                state.timer = Some(cx.waker().clone());
                let next = state.server.poll_timeout();
                drop(state);
                let Some(at) = next else { return Poll::Pending };
                let sleep = match &mut set {
                    Some((set_at, sleep)) if *set_at == at => sleep,
                    other => {
                        let sleep: Sleep = Box::pin(N::sleep(at.since((self.clock)())));
                        &mut other.insert((at, sleep)).1
                    }
                };
                ready!(sleep.as_mut().poll(cx));
                set = None;
                self.with(|server, now| server.handle_timeout(now));
            }
        })
        .await
    }

    /// One connection, from the upgrade to the end.
    async fn serve<N: Serve>(self: Arc<Self>, stream: N::Stream) {
        #[cfg(feature = "tls")]
        let stream = match &self.tls {
            None => stream,
            Some(tls) => match N::accept_tls(stream, Arc::clone(tls)).await {
                Ok(stream) => stream,
                Err(_) => return,
            },
        };
        let mut heard = Heard { meter: N::meter(&stream), bytes: 0 };
        let peer = Arc::default();
        let admission = Admission { hub: Arc::clone(&self), peer: Arc::clone(&peer) };
        let accepted = N::accept_websocket(stream, admission).await;
        let peer = *peer.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(peer) = peer else { return };
        // The bytes of the upgrade count from its acceptance on, however late this is polled again.
        heard.more();
        if let Ok(mut socket) = accepted {
            poll_fn(|cx| self.poll_converse(&mut socket, peer, &mut heard, cx)).await;
            // The answer to a client's close frame may still be in the buffer.
            let mut late = pin!(N::sleep(LAST_WORDS));
            poll_fn(|cx| match Pin::new(&mut socket).poll_flush(cx) {
                Poll::Ready(_) => Poll::Ready(()),
                Poll::Pending => late.as_mut().poll(cx),
            })
            .await;
        }
        self.with(|server, now| server.handle_eof(now, peer));
        let mut state = self.lock();
        state.peers.remove(&peer);
        state.gone.take().into_iter().for_each(Waker::wake);
    }

    /// Frames in both directions; ready when one side has ended it.
    fn poll_converse<S>(
        &self,
        socket: &mut S,
        peer: PeerId,
        heard: &mut Heard,
        cx: &mut Context<'_>,
    ) -> Poll<()>
    where
        S: Stream<Item = Result<Message, Error>> + Sink<Message, Error = Error> + Unpin,
    {
        let mut reading = true;
        loop {
            if reading {
                match Pin::new(&mut *socket).poll_next(cx) {
                    Poll::Ready(Some(Ok(message))) => self.receive(peer, message),
                    Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(()),
                    Poll::Pending => {
                        reading = false;
                        if heard.more() {
                            self.with(|server, now| server.handle_bytes(now, peer));
                        }
                    }
                }
            }
            // What goes wrong in writing is read, as the end.
            if Pin::new(&mut *socket).poll_ready(cx).is_pending() {
                if reading {
                    continue;
                }
                return Poll::Pending;
            }
            let message = match self.order(peer, cx) {
                Poll::Ready(Order::Send(Frame::Text(bytes))) => raw(bytes, Data::Text),
                Poll::Ready(Order::Send(Frame::Binary(bytes))) => raw(bytes, Data::Binary),
                Poll::Ready(Order::Close { code }) => {
                    let reason = Utf8Bytes::default();
                    Message::Close(Some(CloseFrame { code: code.into(), reason }))
                }
                Poll::Ready(Order::Drop) => return Poll::Ready(()),
                Poll::Pending if reading => continue,
                Poll::Pending => {
                    let _ = Pin::new(&mut *socket).poll_flush(cx);
                    return Poll::Pending;
                }
            };
            let _ = Pin::new(&mut *socket).start_send(message);
        }
    }

    fn receive(&self, peer: PeerId, message: Message) {
        self.with(|server, now| match message {
            Message::Text(text) => server.handle_frame(now, peer, &Frame::Text(text.into())),
            Message::Binary(bytes) => server.handle_frame(now, peer, &Frame::Binary(bytes)),
            // Reading on writes the answer and ends the stream.
            Message::Close(frame) => {
                server.handle_close(now, peer, frame.map(|frame| u16::from(frame.code)));
            }
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {
                server.handle_ping(now, peer);
            }
        });
    }

    /// What the connection is to do next.
    fn order(&self, peer: PeerId, cx: &mut Context<'_>) -> Poll<Order> {
        let mut state = self.lock();
        let Some(peer) = state.peers.get_mut(&peer) else { return Poll::Ready(Order::Drop) };
        match peer.orders.pop_front() {
            Some(order) => Poll::Ready(order),
            None => {
                peer.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// The pause after a connection could not be accepted.
const ACCEPT_AGAIN: Duration = Duration::from_millis(500);

type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The bytes of one connection: a part of a message keeps it from being closed as idle.
struct Heard {
    meter: Meter,
    bytes: usize,
}

impl Heard {
    /// Whether more bytes have arrived since the last call.
    fn more(&mut self) -> bool {
        let bytes = self.meter.bytes_read();
        core::mem::replace(&mut self.bytes, bytes) != bytes
    }
}

/// How long what was said before the end may take to be written, and to be answered.
const LAST_WORDS: Duration = Duration::from_secs(1);

impl State {
    /// Passes on what the server has decided.
    fn deliver(&mut self) {
        while let Some(output) = self.server.poll_output() {
            let (peer, order) = match output {
                Output::Send { peer, frame } => (peer, Order::Send(frame)),
                Output::Close { peer, code } => (peer, Order::Close { code }),
                Output::Drop { peer } => (peer, Order::Drop),
            };
            // A peer that is gone already misses nothing.
            if let Some(peer) = self.peers.get_mut(&peer) {
                peer.orders.push_back(order);
                peer.waker.take().into_iter().for_each(Waker::wake);
            }
        }
        self.timer.take().into_iter().for_each(Waker::wake);
    }
}

/// Asks the server about one upgrade; the callback of tungstenite's handshake.
#[derive(Debug)]
pub struct Admission {
    hub: Arc<Hub>,
    peer: Arc<Mutex<Option<PeerId>>>,
}

impl Admission {
    fn ask(&self, request: &Request) -> Result<Accepted, HttpRefusal> {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let headers = request.headers().iter().map(|(name, value)| {
            (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        });
        let asked = ConnectRequest {
            method: request.method().as_str().to_owned(),
            path: path.to_owned(),
            headers: headers.collect(),
        };
        let mut state = self.hub.lock();
        let answer = state.server.connect((self.hub.clock)(), &asked);
        if let Ok(accepted) = &answer {
            // Before anything is delivered, so that the first frames find their way.
            state.peers.insert(accepted.peer, Peer::default());
            *self.peer.lock().unwrap_or_else(PoisonError::into_inner) = Some(accepted.peer);
        }
        state.deliver();
        answer
    }
}

#[allow(clippy::result_large_err)] // The trait is tungstenite's.
impl Callback for Admission {
    fn on_request(
        self,
        request: &Request,
        mut response: Response,
    ) -> Result<Response, ErrorResponse> {
        let accepted = self.ask(request).map_err(refused)?;
        let protocol = accepted.protocol.and_then(|name| http::HeaderValue::from_str(&name).ok());
        if let Some(protocol) = protocol {
            response.headers_mut().insert(http::header::SEC_WEBSOCKET_PROTOCOL, protocol);
        }
        Ok(response)
    }
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

/// As it is, even when a test sends text that is not UTF-8.
fn raw(bytes: bytes::Bytes, kind: Data) -> Message {
    Message::Frame(RawFrame::message(bytes, OpCode::Data(kind), true))
}
