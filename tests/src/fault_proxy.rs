//! A TCP proxy that injects faults.
//!
//! ```text
//!   client ──▶ near ── up ──▶ far ──▶ server       one thread for each arrow in the middle;
//!          ◀──      ◀─ down ──    ◀──              both have a Manner of passing bytes on
//! ```
//!
//! It uses threads and blocking sockets, so a bug of the runtime under test does not affect it. Faults
//! are set separately for live and for future connections, because a real middlebox that drops the
//! state of one connection does not affect the next.
//!
//! [`FaultProxy::close`] (or dropping it) ends every connection and joins every thread.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::ports::Reserved;
use crate::rng::Rng;
use crate::waiting::DEADLINE;

/// The direction of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

/// How bytes are forwarded in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Unchanged.
    Whole,
    /// In pieces of random length.
    Split {
        /// The maximum length of a piece, in bytes.
        most: usize,
    },
    /// Bytes are collected, and written together when none has arrived for `wait`.
    Coalesce {
        /// How long to wait for more bytes.
        wait: Duration,
    },
    /// A few bytes at a time.
    Slow {
        /// Bytes per write.
        bytes: usize,
        /// Time between writes.
        every: Duration,
    },
    /// Bytes are read and discarded: the connection is half open.
    Swallow,
    /// Bytes are not read.
    Stall,
}

impl Manner {
    /// A random manner that forwards everything, possibly late.
    pub fn harmless(rng: &mut Rng) -> Self {
        match rng.below(4) {
            0 => Self::Whole,
            1 => Self::Split { most: 1 + rng.below(8) },
            2 => Self::Split { most: 1 + rng.below(2_000) },
            _ => Self::Coalesce { wait: Duration::from_micros(100 + rng.number() % 2_000) },
        }
    }
}

/// How a connection is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// FIN to both ends.
    Cut,
    /// RST to both ends.
    Reset,
}

/// The maximum number of live connections; further ones are dropped at once.
const LIVE_MAX: usize = 256;

/// How long a write may block before the connection is checked for its end.
const WRITE_TICK: Duration = Duration::from_millis(20);

/// The number of first pieces that are followed by a pause, so that the receiver probably reads
/// each of them separately.
const SEPARATE_PIECES: u32 = 64;

/// A proxy on a loopback port of its own.
#[derive(Debug)]
pub struct FaultProxy {
    port: Arc<Reserved>,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    upstream: SocketAddr,
    state: Mutex<State>,
    /// Notifies waiters that a connection was added or has ended.
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    stopping: bool,
    rng: Rng,
    /// The manners of future connections.
    up: Manner,
    down: Manner,
    /// The number of bytes from the server after which the next connection is cut.
    cut_next: Option<usize>,
    accepted: u64,
    live: BTreeMap<u64, Arc<Pair>>,
}

/// One connection: its two sockets and its state.
#[derive(Debug)]
struct Pair {
    near: TcpStream,
    far: TcpStream,
    flow: Mutex<Flow>,
    changed: Condvar,
}

#[derive(Debug)]
struct Flow {
    up: Manner,
    down: Manner,
    /// The number of bytes from the server after which the connection is cut.
    down_left: Option<usize>,
    /// The number of bytes that were discarded.
    swallowed: usize,
    over: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FaultProxy {
    /// Starts a proxy that forwards everything unchanged.
    ///
    /// # Errors
    ///
    /// Those of binding a loopback port.
    pub fn start(upstream: SocketAddr, rng: Rng) -> io::Result<Self> {
        let port = Arc::new(Reserved::new());
        let listener = TcpListener::bind(port.addr())?;
        let state = State {
            stopping: false,
            rng,
            up: Manner::Whole,
            down: Manner::Whole,
            cut_next: None,
            accepted: 0,
            live: BTreeMap::new(),
        };
        let shared =
            Arc::new(Shared { upstream, state: Mutex::new(state), changed: Condvar::new() });
        let own = Arc::clone(&shared);
        let accepting = Some(thread::spawn(move || own.accept(&listener)));
        Ok(Self { port, shared, accepting })
    }

    /// The address for clients.
    pub fn addr(&self) -> SocketAddr {
        self.port.addr()
    }

    /// The port; it stays reserved while the returned value lives.
    pub fn port(&self) -> Arc<Reserved> {
        Arc::clone(&self.port)
    }

    /// Sets the manner of future connections.
    pub fn treat_new(&self, up: Manner, down: Manner) {
        let mut state = lock(&self.shared.state);
        (state.up, state.down) = (up, down);
    }

    /// Sets the manner of the live connections, in one direction.
    pub fn treat_live(&self, way: Way, manner: Manner) {
        for pair in lock(&self.shared.state).live.values() {
            let mut flow = lock(&pair.flow);
            match way {
                Way::Up => flow.up = manner,
                Way::Down => flow.down = manner,
            }
            pair.changed.notify_all();
        }
    }

    /// Cuts the next connection after this many bytes from the server.
    pub fn cut_next_after(&self, bytes: usize) {
        lock(&self.shared.state).cut_next = Some(bytes);
    }

    /// Ends the live connections as a stopping peer does: FIN to both ends. Waits until they are gone,
    /// and returns their number.
    pub fn cut(&self) -> usize {
        self.end_live(Ending::Cut)
    }

    /// Ends the live connections as a crash does: RST to both ends. Waits until they are gone, and
    /// returns their number.
    pub fn reset(&self) -> usize {
        self.end_live(Ending::Reset)
    }

    /// The number of connections accepted so far.
    pub fn accepted(&self) -> u64 {
        lock(&self.shared.state).accepted
    }

    /// The number of live connections.
    pub fn live(&self) -> usize {
        lock(&self.shared.state).live.len()
    }

    /// The number of bytes that the live connections have discarded.
    pub fn swallowed(&self) -> usize {
        lock(&self.shared.state).live.values().map(|pair| lock(&pair.flow).swallowed).sum()
    }

    /// Ends every connection and joins every thread.
    ///
    /// # Panics
    ///
    /// If one of its threads panicked.
    pub fn close(mut self) {
        self.stop();
    }

    fn end_live(&self, ending: Ending) -> usize {
        let mut state = lock(&self.shared.state);
        let doomed: Vec<u64> = state.live.keys().copied().collect();
        for pair in state.live.values() {
            pair.end(ending);
        }
        let end = Instant::now() + DEADLINE;
        while doomed.iter().any(|id| state.live.contains_key(id)) {
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "a connection does not end: {:?}", state.live);
            let waited = self.shared.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        doomed.len()
    }

    fn stop(&mut self) {
        let Some(accepting) = self.accepting.take() else { return };
        lock(&self.shared.state).stopping = true;
        // Wakes the listener's thread, which may be blocked in `accept`.
        let _ = TcpStream::connect(self.port.addr());
        let joined = accepting.join();
        if !thread::panicking() {
            joined.expect("a thread of the proxy panicked");
        }
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        let mut threads: Vec<JoinHandle<()>> = Vec::new();
        while !lock(&self.state).stopping {
            let Ok((near, _)) = listener.accept() else { break };
            let mut state = lock(&self.state);
            if state.stopping || state.live.len() >= LIVE_MAX {
                continue;
            }
            state.accepted += 1;
            let id = state.accepted;
            drop(state);
            let own = Arc::clone(self);
            threads.push(thread::spawn(move || own.serve(id, near)));
            let (ended, live) = threads.into_iter().partition(JoinHandle::is_finished);
            threads = live;
            join_all(ended);
        }
        for pair in lock(&self.state).live.values() {
            pair.end(Ending::Cut);
        }
        join_all(threads);
    }

    /// One connection, from its first byte to its end.
    fn serve(&self, id: u64, near: TcpStream) {
        // If the server is down, the client's connection is closed.
        let Ok(far) = TcpStream::connect(self.upstream) else { return };
        for socket in [&near, &far] {
            let _ = socket.set_nodelay(true);
            let _ = socket.set_write_timeout(Some(WRITE_TICK));
        }
        let mut state = lock(&self.state);
        if state.stopping {
            return;
        }
        let flow = Flow {
            up: state.up,
            down: state.down,
            down_left: state.cut_next.take(),
            swallowed: 0,
            over: false,
        };
        let (up_rng, down_rng) = (state.rng.fork(), state.rng.fork());
        let pair = Arc::new(Pair { near, far, flow: Mutex::new(flow), changed: Condvar::new() });
        state.live.insert(id, Arc::clone(&pair));
        drop(state);
        self.changed.notify_all();
        thread::scope(|scope| {
            scope.spawn(|| pair.pump(Way::Up, up_rng));
            pair.pump(Way::Down, down_rng);
        });
        let mut state = lock(&self.state);
        state.live.remove(&id);
        // The sockets are closed before the waiters are notified.
        drop(pair);
        drop(state);
        self.changed.notify_all();
    }
}

fn join_all(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        thread.join().expect("a connection's thread panicked");
    }
}

impl Pair {
    fn end(&self, ending: Ending) {
        lock(&self.flow).over = true;
        self.changed.notify_all();
        for socket in [&self.near, &self.far] {
            if ending == Ending::Reset {
                // From now on, closing the socket sends a reset. The shutdown wakes the reader
                // without a FIN.
                let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
                let _ = socket.shutdown(Shutdown::Read);
            } else {
                let _ = socket.shutdown(Shutdown::Both);
            }
        }
    }

    /// Forwards bytes in one direction until it ends.
    fn pump(&self, way: Way, mut rng: Rng) {
        let (mut from, to) = match way {
            Way::Up => (&self.near, &self.far),
            Way::Down => (&self.far, &self.near),
        };
        let mut buffer = vec![0; 16 * 1024];
        let mut pieces = 0;
        loop {
            if self.manner(way).is_none() {
                return;
            }
            let mut bytes = match from.read(&mut buffer) {
                Ok(0) => {
                    // The other direction may continue, unless a reset woke this reader.
                    if self.manner(way).is_some() {
                        let _ = to.shutdown(Shutdown::Write);
                    }
                    return;
                }
                Ok(count) => buffer[..count].to_vec(),
                Err(_) => return self.end(Ending::Reset),
            };
            // The manner may have changed while this thread waited for the bytes.
            let Some(manner) = self.manner(way) else { return };
            let passed = match manner {
                Manner::Swallow => {
                    lock(&self.flow).swallowed += bytes.len();
                    Ok(())
                }
                Manner::Coalesce { wait } => {
                    gather(from, &mut bytes, wait);
                    self.pass(way, to, &bytes)
                }
                Manner::Split { most } => self.pass_split(way, to, &bytes, || {
                    pieces += 1;
                    let pause = Duration::from_micros(u64::from(pieces < SEPARATE_PIECES) * 50);
                    (1 + rng.below(most), pause)
                }),
                Manner::Slow { bytes: few, every } => {
                    self.pass_split(way, to, &bytes, || (few.max(1), every))
                }
                Manner::Whole | Manner::Stall => self.pass(way, to, &bytes),
            };
            if passed.is_err() {
                return self.end(Ending::Cut);
            }
        }
    }

    /// The manner, as soon as it is not `Stall`; `None` when the connection is over.
    fn manner(&self, way: Way) -> Option<Manner> {
        let mut flow = lock(&self.flow);
        loop {
            let manner = if way == Way::Up { flow.up } else { flow.down };
            if flow.over {
                return None;
            }
            if manner != Manner::Stall {
                return Some(manner);
            }
            flow = self.changed.wait(flow).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn pass_split(
        &self,
        way: Way,
        to: &TcpStream,
        mut bytes: &[u8],
        mut next: impl FnMut() -> (usize, Duration),
    ) -> io::Result<()> {
        while !bytes.is_empty() {
            let (count, pause) = next();
            let (piece, rest) = bytes.split_at(count.min(bytes.len()));
            self.pass(way, to, piece)?;
            bytes = rest;
            if !pause.is_zero() {
                thread::sleep(pause);
            }
        }
        Ok(())
    }

    /// Writes the bytes until the connection ends. It returns an error if the connection must be
    /// cut.
    fn pass(&self, way: Way, mut to: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
        let mut is_last = false;
        if let (Way::Down, Some(left)) = (way, &mut lock(&self.flow).down_left) {
            is_last = bytes.len() >= *left;
            bytes = &bytes[..bytes.len().min(*left)];
            *left -= bytes.len();
        }
        while !bytes.is_empty() {
            if lock(&self.flow).over {
                return Err(ErrorKind::NotConnected.into());
            }
            match to.write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                // The receiver does not read, so the write timed out.
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Err(error),
            }
        }
        if is_last { Err(ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }
}

/// Appends bytes until none has arrived for `wait`, or 256 KiB have been collected.
fn gather(mut from: &TcpStream, bytes: &mut Vec<u8>, wait: Duration) {
    let mut buffer = vec![0; 16 * 1024];
    let _ = from.set_read_timeout(Some(wait.max(Duration::from_micros(1))));
    while bytes.len() < 256 * 1024 {
        match from.read(&mut buffer) {
            // The next read of the caller returns the end again.
            Ok(0) | Err(_) => break,
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
        }
    }
    let _ = from.set_read_timeout(None);
}
