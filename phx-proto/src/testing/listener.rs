//! The test server on real sockets. The adapters bind the socket and spawn the tasks.
//!
//! ```text
//! accept ─▶ one future per connection ──frames──▶ ┌ Mutex ─────────┐
//!                        ▲                        │ testing::Server│◀── kill, broadcast, …
//!                        └──────── orders ────────└────────▲───────┘
//!                                                   a future for its timers
//! ```
//!
//! This module reads and answers the HTTP upgrade itself, so that the server's refusals are sent
//! unchanged; tungstenite only receives streams that are already upgraded. The server is in a
//! mutex, because tests access it while connections are served. No lock is held across an await.

use core::fmt;
use core::future::{Future, poll_fn};
use core::pin::{Pin, pin};
use core::task::{Context, Poll, Waker, ready};
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;

use futures_core::Stream;
use futures_io::{AsyncRead as _, AsyncWrite as _};
use futures_sink::Sink;
use futures_util::stream::FuturesUnordered;
use tungstenite::protocol::frame::Frame as RawFrame;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tungstenite::{Error, Message, Utf8Bytes};

use super::http::{self, Asked, Head};
use super::{Output, PeerId, Server, ServerConfig};
use crate::config::MESSAGE_BYTES_MAX;
use crate::sync::{Mutex, MutexGuard};
use crate::time::Time;
use crate::transport::{Io, Meter, Net, Wrap};
use crate::wire::Frame;

/// The parts of a runtime that a server needs: sockets.
pub trait Serve: Wrap {
    /// A listening socket.
    type Listener: Send + Sync + 'static;

    /// Accepts the next connection.
    fn accept(listener: &Self::Listener) -> impl Future<Output = io::Result<Self::Stream>>;

    /// Performs the server's TLS handshake on a stream.
    #[cfg(feature = "tls")]
    fn accept_tls(
        stream: Io<Self::Stream>,
        tls: Arc<rustls::ServerConfig>,
    ) -> impl Future<Output = io::Result<Self::Stream>> {
        drop((stream, tls));
        core::future::ready(Err(io::ErrorKind::Unsupported.into()))
    }
}

/// A test server and the connections of its peers.
pub struct Hub {
    clock: Box<dyn Fn() -> Time + Send + Sync>,
    state: Mutex<State>,
    #[cfg(feature = "tls")]
    tls: Option<Arc<rustls::ServerConfig>>,
}

struct State {
    server: Server,
    peers: BTreeMap<PeerId, Peer>,
    /// Wakes the timer task when the server's next deadline may have changed.
    timer: Option<Waker>,
    /// Wakes the waiter of `emptied` when a connection has ended.
    gone: Option<Waker>,
}

#[derive(Default)]
struct Peer {
    orders: VecDeque<Order>,
    waker: Option<Waker>,
}

/// An instruction to a connection.
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
    /// A server without connections.
    ///
    /// ```
    /// use phx_proto::Time;
    /// use phx_proto::adapter::Hub;
    /// use phx_proto::testing::ServerConfig;
    ///
    /// // An adapter passes in the clock of its runtime.
    /// let hub = Hub::new(ServerConfig::default(), || Time::ZERO);
    /// assert_eq!(hub.with(|server, _now| server.joined("room:lobby")), 0);
    /// ```
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

    /// Uses TLS with this configuration for all connections. With `None`, no connection uses TLS.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn behind_tls(mut self, tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        self.tls = tls;
        self
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // If a test panics in `with`, the server stays usable.
        self.state.lock()
    }

    /// Calls `work` with the server and the time, and then sends the outputs of the server.
    ///
    /// ```
    /// use phx_proto::Time;
    /// use phx_proto::adapter::Hub;
    /// use phx_proto::testing::{HttpRefusal, ServerConfig};
    ///
    /// let hub = Hub::new(ServerConfig::default(), || Time::ZERO);
    /// hub.with(|server, _now| server.refuse_next(HttpRefusal::new(503, "busy")));
    /// ```
    pub fn with<T>(&self, work: impl FnOnce(&mut Server, Time) -> T) -> T {
        let mut state = self.lock();
        let done = work(&mut state.server, (self.clock)());
        state.deliver();
        done
    }

    /// Empties the server as [`Server::kill_all`] does, after [`run`](Self::run) was dropped and with it
    /// all connections.
    pub fn forget_peers(&self) {
        let mut state = self.lock();
        state.peers.clear();
        state.server.kill_all();
        // There are no connections for the outputs.
        state.deliver();
    }

    /// Completes when no connection is left, or after a second, because a peer may not answer the
    /// close frame. Cancel safe.
    pub async fn emptied<N: Net>(&self) {
        let mut late = pin!(N::sleep(CLOSE_TIMEOUT));
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

    /// Accepts and serves connections until it is dropped, and then drops all of them. Cancel safe.
    pub async fn run<N: Serve>(self: Arc<Self>, listener: N::Listener) {
        let mut time = pin!(self.keep_time::<N>());
        let mut accept = Box::pin(N::accept(&listener));
        let (mut pause, mut paused) = (pin!(N::sleep(Duration::ZERO)), false);
        let mut connections = FuturesUnordered::new();
        poll_fn(|cx| {
            let _: Poll<()> = time.as_mut().poll(cx);
            loop {
                if paused && pause.as_mut().poll(cx).is_pending() {
                    break;
                }
                paused = false;
                let Poll::Ready(accepted) = accept.as_mut().poll(cx) else { break };
                accept.set(N::accept(&listener));
                match accepted {
                    Ok(stream) => connections.push(Arc::clone(&self).serve::<N>(stream)),
                    Err(error) => {
                        // The usual cause is too many open files. Without a pause, each further
                        // attempt would fail at once, until a client disconnects.
                        self.lock().server.accept_failed(&error);
                        pause.set(N::sleep(ACCEPT_PAUSE));
                        paused = true;
                    }
                }
            }
            while let Poll::Ready(Some(())) = Pin::new(&mut connections).poll_next(cx) {}
            Poll::Pending
        })
        .await
    }

    /// Calls the server at its deadlines.
    async fn keep_time<N: Net>(&self) {
        let (mut sleep, mut until) = (pin!(N::sleep(Duration::ZERO)), None);
        poll_fn(|cx| {
            loop {
                let mut state = self.lock();
                state.timer = Some(cx.waker().clone());
                let next = state.server.poll_timeout();
                drop(state);
                let Some(at) = next else { return Poll::Pending };
                if until != Some(at) {
                    sleep.set(N::sleep(at.since((self.clock)())));
                    until = Some(at);
                }
                ready!(sleep.as_mut().poll(cx));
                until = None;
                self.with(|server, now| server.handle_timeout(now));
            }
        })
        .await
    }

    /// Serves one connection, from the upgrade to the end.
    async fn serve<N: Serve>(self: Arc<Self>, stream: N::Stream) {
        let timeout = self.lock().server.idle_timeout();
        let mut late = pin!(N::sleep(timeout));
        let opening = pin!(self.open::<N>(Io::new(stream), late.as_mut()));
        let Some((stream, leftover, admitted)) = opening.await else { return };
        let peer = admitted.peer;
        let mut activity = Activity { meter: stream.meter().clone(), bytes: 0 };
        // Resets the counter: only bytes after the upgrade count as activity, even if this task is
        // polled late.
        activity.is_new();
        let stream = stream.with_leftover(leftover.into());
        #[cfg(feature = "deflate")]
        if let Some(agreed) = admitted.compression {
            let socket = super::compressed::Socket::new(stream, &agreed);
            return self.converse::<N, _>(socket, peer, activity).await;
        }
        // By default tungstenite refuses a frame of more than 16 MiB.
        let limits = WebSocketConfig::default()
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        let socket = N::wrap(stream, Role::Server, Some(limits)).await;
        self.converse::<N, _>(socket, peer, activity).await;
    }

    /// Exchanges messages with a peer until one side ends the connection.
    async fn converse<N: Net, S>(&self, mut socket: S, peer: PeerId, mut activity: Activity)
    where
        S: Stream<Item = Result<Message, Error>> + Sink<Message, Error = Error> + Unpin,
    {
        poll_fn(|cx| self.poll_converse(&mut socket, peer, &mut activity, cx)).await;
        // The reply to a client's close frame may still be in the buffer.
        let mut late = pin!(N::sleep(CLOSE_TIMEOUT));
        poll_fn(|cx| match Pin::new(&mut socket).poll_flush(cx) {
            Poll::Ready(_) => Poll::Ready(()),
            Poll::Pending => late.as_mut().poll(cx),
        })
        .await;
        self.gone(peer);
    }

    /// Reports the end of a peer's connection.
    fn gone(&self, peer: PeerId) {
        self.with(|server, now| server.handle_eof(now, peer));
        let mut state = self.lock();
        state.peers.remove(&peer);
        state.gone.take().into_iter().for_each(Waker::wake);
    }

    /// Reads the request and answers it. Returns the stream, the bytes after the request and the
    /// peer, if the upgrade was accepted.
    async fn open<N: Serve>(
        &self,
        stream: Io<N::Stream>,
        mut late: Pin<&mut impl Future<Output = ()>>,
    ) -> Option<(Io<N::Stream>, Vec<u8>, Admitted)> {
        #[cfg(feature = "tls")]
        let stream = match &self.tls {
            None => stream,
            Some(tls) => {
                let meter = stream.meter().clone();
                let mut accepting = pin!(N::accept_tls(stream, Arc::clone(tls)));
                let accepted = poll_fn(|cx| match accepting.as_mut().poll(cx) {
                    Poll::Pending => late.as_mut().poll(cx).map(|()| None),
                    ready => ready.map(Result::ok),
                });
                Io::above(accepted.await?, meter)
            }
        };
        let mut stream = stream;
        let mut head = Head::default();
        let mut buffer = [0; 2_048];
        let asked = loop {
            let read = poll_fn(|cx| match Pin::new(&mut stream).poll_read(cx, &mut buffer) {
                Poll::Pending => late.as_mut().poll(cx).map(|()| None),
                ready => ready.map(Some),
            });
            match read.await {
                None => break Err(http::timed_out()),
                Some(Ok(0) | Err(_)) => return None,
                Some(Ok(n)) => match head.handle_read(&buffer[..n]) {
                    Ok(None) => {}
                    Ok(Some(asked)) => break Ok(asked),
                    Err(refusal) => break Err(refusal),
                },
            }
        };
        let (answer, accepted) = match asked {
            Err(refusal) => (http::refused(&refusal), None),
            Ok(asked) => match self.ask(&asked) {
                Err(answer) => (answer, None),
                Ok((answer, admitted)) => (answer, Some((asked.leftover, admitted))),
            },
        };
        let written = write::<N>(&mut stream, &answer, late).await;
        match accepted {
            Some((leftover, admitted)) if written => return Some((stream, leftover, admitted)),
            Some((_, admitted)) => self.gone(admitted.peer),
            None => end::<N>(&mut stream).await,
        }
        None
    }

    /// Passes an upgrade to the server; returns the response, and the peer if it was accepted.
    fn ask(&self, asked: &Asked) -> Result<(Vec<u8>, Admitted), Vec<u8>> {
        let mut state = self.lock();
        let answer = state.server.connect((self.clock)(), &asked.request);
        let answer = match answer {
            Ok(accepted) => {
                // The peer is registered before outputs are delivered, so that its first frames are
                // not lost.
                state.peers.insert(accepted.peer, Peer::default());
                let admitted = Admitted {
                    peer: accepted.peer,
                    #[cfg(feature = "deflate")]
                    compression: accepted.extensions.as_ref().map(|(_, agreed)| *agreed),
                };
                Ok((asked.accepted(&accepted), admitted))
            }
            Err(refusal) => Err(http::refused(&refusal)),
        };
        state.deliver();
        answer
    }

    /// Exchanges frames in both directions. It is ready when one side has ended the connection.
    fn poll_converse<S>(
        &self,
        socket: &mut S,
        peer: PeerId,
        activity: &mut Activity,
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
                        if activity.is_new() {
                            self.with(|server, now| server.handle_bytes(now, peer));
                        }
                    }
                }
            }
            // If a write fails, the next read reports the end.
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
            // The next reads write the reply and then return the end of the stream.
            Message::Close(frame) => {
                server.handle_close(now, peer, frame.map(|frame| u16::from(frame.code)));
            }
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {
                server.handle_ping(now, peer);
            }
        });
    }

    /// The next instruction to the connection.
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

/// A peer whose upgrade was accepted.
struct Admitted {
    peer: PeerId,
    #[cfg(feature = "deflate")]
    compression: Option<crate::config::Compression>,
}

/// The pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// Detects activity on a connection. Even a part of a message is activity, so the connection is not
/// idle.
struct Activity {
    meter: Meter,
    bytes: usize,
}

impl Activity {
    /// Whether more bytes have arrived since the last call.
    fn is_new(&mut self) -> bool {
        let bytes = self.meter.bytes_read();
        core::mem::replace(&mut self.bytes, bytes) != bytes
    }
}

/// The timeout for writing the last bytes of a connection, and for the peer's reply to a close
/// frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

impl State {
    /// Passes the server's outputs to the connections.
    fn deliver(&mut self) {
        while let Some(output) = self.server.poll_output() {
            let (peer, order) = match output {
                Output::Send { peer, frame } => (peer, Order::Send(frame)),
                Output::Close { peer, code } => (peer, Order::Close { code }),
                Output::Drop { peer } => (peer, Order::Drop),
            };
            // A peer that has gone needs no outputs.
            if let Some(peer) = self.peers.get_mut(&peer) {
                peer.orders.push_back(order);
                peer.waker.take().into_iter().for_each(Waker::wake);
            }
        }
        self.timer.take().into_iter().for_each(Waker::wake);
    }
}

/// Writes bytes before the timeout; returns whether it succeeded.
async fn write<N: Serve>(
    stream: &mut Io<N::Stream>,
    mut bytes: &[u8],
    mut late: Pin<&mut impl Future<Output = ()>>,
) -> bool {
    while !bytes.is_empty() {
        let wrote = poll_fn(|cx| match Pin::new(&mut *stream).poll_write(cx, bytes) {
            Poll::Pending => late.as_mut().poll(cx).map(|()| Ok(0)),
            ready => ready,
        });
        match wrote.await {
            Ok(0) | Err(_) => return false,
            Ok(n) => bytes = &bytes[n..],
        }
    }
    let flushed = poll_fn(|cx| match Pin::new(&mut *stream).poll_flush(cx) {
        Poll::Pending => late.as_mut().poll(cx).map(|()| false),
        Poll::Ready(flushed) => Poll::Ready(flushed.is_ok()),
    });
    flushed.await
}

/// The maximum number of bytes of a request that are read after its response.
const REST_MAX: usize = 1 << 20;

/// Ends a connection whose request was refused. It reads the rest of the request first: dropping a
/// stream with unread bytes can discard the response.
async fn end<N: Serve>(stream: &mut Io<N::Stream>) {
    let mut late = pin!(N::sleep(CLOSE_TIMEOUT));
    let (mut closing, mut read, mut buffer) = (true, 0, [0; 2_048]);
    poll_fn(|cx| {
        closing = closing && Pin::new(&mut *stream).poll_close(cx).is_pending();
        while read < REST_MAX {
            match Pin::new(&mut *stream).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(n)) if n > 0 => read += n,
                Poll::Ready(_) => break,
                Poll::Pending => return late.as_mut().poll(cx),
            }
        }
        Poll::Ready(())
    })
    .await;
}

/// A raw frame, unchanged even if a test sends text that is not UTF-8.
fn raw(bytes: bytes::Bytes, kind: Data) -> Message {
    Message::Frame(RawFrame::message(bytes, OpCode::Data(kind), true))
}
