//! The Phoenix-like test server behind real sockets: everything but binding and spawning.
//!
//! ```text
//! accept ─▶ one future per connection ──frames──▶ ┌ Mutex ─────────┐
//!                        ▲                        │ testing::Server│◀── kill, broadcast, …
//!                        └──────── orders ────────└────────▲───────┘
//!                                                   a future for its timers
//! ```
//!
//! The HTTP of an upgrade is read and answered here, so that the server's refusals go out as they
//! are; tungstenite gets the stream as already upgraded. The server sits in a mutex, as tests reach
//! it from outside. No lock is held over an await.

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
use tungstenite::protocol::{CloseFrame, Role};
use tungstenite::{Error, Message, Utf8Bytes};

use super::http::{self, Asked, Head};
use super::{Output, PeerId, Server, ServerConfig};
use crate::sync::{Mutex, MutexGuard};
use crate::time::Time;
use crate::transport::{Io, Meter, Net, Wrap};
use crate::wire::Frame;

/// A runtime's sockets, as far as serving needs them.
pub trait Serve: Wrap {
    /// A socket that listens.
    type Listener: Send + Sync + 'static;

    /// The next connection.
    fn accept(listener: &Self::Listener) -> impl Future<Output = io::Result<Self::Stream>>;

    /// Speaks TLS on a stream, as a server.
    #[cfg(feature = "tls")]
    fn accept_tls(
        stream: Io<Self::Stream>,
        tls: Arc<rustls::ServerConfig>,
    ) -> impl Future<Output = io::Result<Self::Stream>> {
        drop((stream, tls));
        core::future::ready(Err(io::ErrorKind::Unsupported.into()))
    }
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
        self.state.lock()
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
                        // Out of file descriptors, usually: the same attempt fails at once, for as
                        // long as the clients keep theirs.
                        self.lock().server.accept_failed(&error);
                        pause.set(N::sleep(ACCEPT_AGAIN));
                        paused = true;
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

    /// One connection, from the upgrade to the end.
    async fn serve<N: Serve>(self: Arc<Self>, stream: N::Stream) {
        let patience = self.lock().server.idle_timeout();
        let mut late = pin!(N::sleep(patience));
        let opening = pin!(self.open::<N>(Io::new(stream), late.as_mut()));
        let Some((stream, leftover, peer)) = opening.await else { return };
        let mut heard = Heard { meter: stream.meter().clone(), bytes: 0 };
        // The bytes of the upgrade count from its acceptance on, however late this is polled again.
        heard.more();
        let stream = stream.with_leftover(leftover.into());
        let mut socket = N::wrap(stream, Role::Server, None).await;
        poll_fn(|cx| self.poll_converse(&mut socket, peer, &mut heard, cx)).await;
        // The answer to a client's close frame may still be in the buffer.
        let mut late = pin!(N::sleep(LAST_WORDS));
        poll_fn(|cx| match Pin::new(&mut socket).poll_flush(cx) {
            Poll::Ready(_) => Poll::Ready(()),
            Poll::Pending => late.as_mut().poll(cx),
        })
        .await;
        self.gone(peer);
    }

    /// The connection of a peer has ended.
    fn gone(&self, peer: PeerId) {
        self.with(|server, now| server.handle_eof(now, peer));
        let mut state = self.lock();
        state.peers.remove(&peer);
        state.gone.take().into_iter().for_each(Waker::wake);
    }

    /// Reads the request and answers it; the peer and what was read too far, if it is one now.
    async fn open<N: Serve>(
        &self,
        stream: Io<N::Stream>,
        mut late: Pin<&mut impl Future<Output = ()>>,
    ) -> Option<(Io<N::Stream>, Vec<u8>, PeerId)> {
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
                Ok((answer, peer)) => (answer, Some((asked.leftover, peer))),
            },
        };
        let written = write::<N>(&mut stream, &answer, late).await;
        match accepted {
            Some((leftover, peer)) if written => return Some((stream, leftover, peer)),
            Some((_, peer)) => self.gone(peer),
            None => end::<N>(&mut stream).await,
        }
        None
    }

    /// Asks the server about one upgrade: the answer, and the peer if it is one now.
    fn ask(&self, asked: &Asked) -> Result<(Vec<u8>, PeerId), Vec<u8>> {
        let mut state = self.lock();
        let answer = state.server.connect((self.clock)(), &asked.request);
        let answer = match answer {
            Ok(accepted) => {
                // Before anything is delivered, so that the first frames find their way.
                state.peers.insert(accepted.peer, Peer::default());
                Ok((asked.accepted(&accepted), accepted.peer))
            }
            Err(refusal) => Err(http::refused(&refusal)),
        };
        state.deliver();
        answer
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

/// Writes bytes, as long as there is time; whether it did.
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

/// The most that is read of a request after its answer, in bytes.
const REST_MAX: usize = 1 << 20;

/// Ends a connection whose request was refused. The rest of the request is read, as a stream that is
/// dropped with something unread can take the answer with it.
async fn end<N: Serve>(stream: &mut Io<N::Stream>) {
    let mut late = pin!(N::sleep(LAST_WORDS));
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

/// As it is, even when a test sends text that is not UTF-8.
fn raw(bytes: bytes::Bytes, kind: Data) -> Message {
    Message::Frame(RawFrame::message(bytes, OpCode::Data(kind), true))
}
