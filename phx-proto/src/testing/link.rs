//! A simulated network link between one client and the server, in order and on virtual time.
//!
//! ```text
//!   client ──Up──▶ [frame at 12ms][frame at 15ms] ──▶ server      one such pair for each
//!   client ◀─Down─ [reply at 17ms]             ◀── server         open connection
//! ```
//!
//! A [`Link`] behaves like TCP: parcels arrive in order, and the end of the stream arrives after
//! everything that was sent before it. Each [`Parcel`] is delivered after a latency that is drawn
//! from the link's own seed, and never before its predecessor. The link reads no clock: the caller
//! passes in the time, takes parcels that have arrived from [`poll`](Link::poll), and calls it
//! again at [`poll_timeout`](Link::poll_timeout).
//!
//! There are two kinds of faults. Some affect the current connection: [`stall`](Link::stall),
//! [`half_open`](Link::half_open), [`cut`](Link::cut), [`cut_after`](Link::cut_after). The others
//! are queued for the next attempts to connect, one fault for each attempt:
//! [`refuse_connects`](Link::refuse_connects), [`refuse_upgrades`](Link::refuse_upgrades),
//! [`drop_connects`](Link::drop_connects), [`ignore_connects`](Link::ignore_connects).
//! [`heal`](Link::heal) ends them all.
//!
//! With a [`bandwidth`](Link::bandwidth), a frame takes time to arrive and delays everything after
//! it. The link then also counts bytes, as a transport does ([`progress`](Link::progress)).
//!
//! With the feature `websocket`, the link can carry the bytes of frames instead of whole frames
//! ([`carry_bytes`](Link::carry_bytes)). A WebSocket machine at each end then fragments, masks, pings
//! and answers as in a real connection, and the link delivers the bytes in random pieces. A connection
//! can be cut inside a frame ([`cut_after_bytes`](Link::cut_after_bytes)), and the client's progress
//! includes what the server has acknowledged.
//!
//! A dead direction buffers what is written to it, as a kernel buffers bytes that the peer does not
//! acknowledge. So the sender only notices that the [`buffer`](Link::buffer) is full, or that no
//! answer comes.
//!
//! [`World`](super::World) drives one link for each client; a test can also drive a link itself.

use core::ops::RangeInclusive;
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

#[cfg(feature = "websocket")]
use ::bytes::Bytes;

#[cfg(feature = "websocket")]
use super::bytes::{Machines, piece};
#[cfg(feature = "deflate")]
use crate::config::Compression;
use crate::config::backoff::DelayRange;
use crate::event::action::ConnectRequest;
use crate::event::cause::{Cause, DialKind};
use crate::event::input::{Opened, Progress};
use crate::event::refusal::Refusal;
use crate::id::ConnectionId;
use crate::socket::rng::Rng;
use crate::time::Time;
#[cfg(feature = "websocket")]
use crate::websocket::Limits;
use crate::wire::Frame;

/// The default capacity of the send buffer in the client's operating system, on a link with a bandwidth.
const SEND_BUFFER: u64 = 64 << 10;

/// A full send buffer accepts bytes again when it has space for this many.
#[cfg(feature = "websocket")]
const WRITE_SPACE: u64 = 8 << 10;

/// The number of bytes that a frame has in addition to its payload.
const FRAME_HEADER: u64 = 14;

const NO_TIME: DelayRange = DelayRange::from_millis(0, 0);

/// A direction of the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

/// The way in which a connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The stream ends without a close frame, as when a process is killed or a proxy resets it.
    Lost,
    /// The client first reads a close frame with this code, as from a proxy that shuts down.
    Close(u16),
}

/// A message on the link.
#[derive(Clone, Debug, PartialEq)]
pub enum Parcel {
    /// The client requests a connection.
    Request(Box<ConnectRequest>),
    /// The server accepted the connection.
    Opened(Opened),
    /// The attempt failed.
    Failed(Cause),
    /// A frame.
    Frame(Frame),
    /// A close frame with its code.
    Close(Option<u16>),
    /// The end of the stream.
    End,
    /// Bytes that complete no frame, on a link that [carries bytes](Link::carry_bytes).
    Part,
}

/// A parcel that has arrived.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Delivery {
    /// The connection that it belongs to.
    pub connection: ConnectionId,
    /// The direction in which it travelled.
    pub direction: Direction,
    /// The parcel.
    pub parcel: Parcel,
}

/// The link of one client: in order like TCP, with latency, and with injected faults.
///
/// [`stall`](Self::stall), [`half_open`](Self::half_open), [`cut`](Self::cut) and
/// [`cut_after`](Self::cut_after) affect the current connection. The other faults are queued for
/// the next attempts to connect, one fault for each attempt.
///
/// ```
/// use core::time::Duration;
/// use phx_proto::testing::{Direction, Link, Parcel};
/// use phx_proto::{Config, ConnectionId, Frame, Socket, Time};
///
/// let config = Config::new("ws://localhost:4000/socket/websocket")?;
/// let request = Socket::new(config, 7, Time::ZERO).connect_request()?;
/// let id = ConnectionId::from_u64(1);
///
/// let mut link = Link::new(7);
/// link.latency(Duration::from_millis(5)..=Duration::from_millis(5));
/// link.connect(Time::ZERO, id, request);
/// link.send(Time::from_millis(1), id, Direction::Up, Parcel::Frame(Frame::from("hello")));
/// assert!(matches!(link.poll(Time::from_millis(5)).unwrap().parcel, Parcel::Request(_)));
/// assert_eq!(link.poll(Time::from_millis(5)), None);
/// assert_eq!(link.poll_timeout(), Some(Time::from_millis(6)));
/// # Ok::<(), phx_proto::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Link {
    rng: Rng,
    now: Time,
    latency: DelayRange,
    buffer: usize,
    bandwidth: [Option<u64>; 2],
    stalled_from: Time,
    stalled_until: Time,
    fates: VecDeque<Fate>,
    next_cuts: Vec<(Direction, PlannedCut)>,
    send_buffer: u64,
    /// The limits of the machines of new connections, if the link carries bytes.
    #[cfg(feature = "websocket")]
    machines: Option<Limits>,
    wires: BTreeMap<ConnectionId, Wire>,
    /// Descriptions of the calls of the test, for a trace; recorded after the first `take_notes`.
    notes: Option<Vec<String>>,
}

/// The outcome of an attempt to connect.
#[derive(Clone, Debug)]
enum Fate {
    Fail(Cause),
    Ignore,
    Drop,
}

/// One connection.
#[derive(Clone, Debug, Default)]
struct Wire {
    up: Pipe,
    down: Pipe,
    /// Whether the client has received the answer that opens the connection.
    opened: bool,
    /// Whether the client's end is closed, so that nothing more is delivered to it.
    client_gone: bool,
    /// Whether the server's end is closed or never existed.
    server_gone: bool,
    /// Whether the connection was cut, so that nothing that is sent on it arrives.
    severed: bool,
    drop_when_open: bool,
    /// Parcels that are complete and not delivered yet, on a link that carries bytes.
    ready: VecDeque<(Direction, Parcel)>,
    #[cfg(feature = "websocket")]
    machines: Option<Box<Machines>>,
}

/// One direction of a connection.
#[derive(Clone, Debug, Default)]
struct Pipe {
    queue: VecDeque<Transit>,
    last: Time,
    /// The time at which the transfer of the next frame can begin.
    free: Time,
    /// The bytes of frames that were sent, and of those that have arrived.
    sent: u64,
    arrived: u64,
    dead: Option<Time>,
    cut_after: Option<PlannedCut>,
}

/// A cut after this many more frames or bytes.
#[derive(Clone, Copy, Debug)]
struct PlannedCut {
    left: u64,
    unit: Unit,
    cut: Cut,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Frames,
    Bytes,
}

/// The content of a load on its way.
#[derive(Clone, Debug)]
enum Load {
    Parcel(Parcel),
    #[cfg(feature = "websocket")]
    Bytes(Bytes),
}

/// A load on its way: its first byte arrives at `from`, its last one at `at`.
#[derive(Clone, Debug)]
struct Transit {
    load: Load,
    bytes: u64,
    from: Time,
    at: Time,
}

/// # Settings and faults
impl Link {
    /// A link without latency and without faults.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            rng: Rng::new(seed),
            now: Time::ZERO,
            latency: NO_TIME,
            buffer: 256,
            bandwidth: [None; 2],
            stalled_from: Time::ZERO,
            stalled_until: Time::ZERO,
            fates: VecDeque::new(),
            next_cuts: Vec::new(),
            send_buffer: SEND_BUFFER,
            #[cfg(feature = "websocket")]
            machines: None,
            wires: BTreeMap::new(),
            notes: None,
        }
    }

    /// The one-way latency, drawn for each parcel. By default there is none.
    ///
    /// If the range is reversed, its start is used.
    pub fn latency(&mut self, range: RangeInclusive<Duration>) -> &mut Self {
        let (min, max) = (*range.start(), *range.end());
        self.latency = DelayRange::new(min, max.max(min)).unwrap_or(NO_TIME);
        self
    }

    /// The maximum number of the client's frames in transit. While there are that many, the
    /// client's transport accepts no more. The default is 256.
    pub fn buffer(&mut self, frames: usize) -> &mut Self {
        self.buffer = frames.max(1);
        self
    }

    /// The bandwidth of a direction in bytes per second, from the next frame on. By default, and
    /// with zero, frames take no time except the latency.
    ///
    /// With a bandwidth from the client to the server, the client's transport accepts no frame while
    /// the [send buffer](Self::send_buffer) is full.
    pub fn bandwidth(&mut self, direction: Direction, bytes_per_second: u64) -> &mut Self {
        self.note(|| format!("the link carries {bytes_per_second} bytes/s {direction:?}"));
        self.bandwidth[direction as usize] = (bytes_per_second > 0).then_some(bytes_per_second);
        self
    }

    /// The number of bytes that the client's operating system buffers, on a link with a bandwidth from
    /// the client to the server. By default 64 KiB.
    pub fn send_buffer(&mut self, bytes: u64) -> &mut Self {
        self.send_buffer = bytes.max(1);
        self
    }

    /// Carries the bytes of WebSocket frames on connections that are opened from now on. At both ends
    /// there is an [`Endpoint`](crate::websocket::Endpoint) with these limits, except that its outbox
    /// is unlimited.
    ///
    /// The upgrade is not carried as bytes. In a [`World`](super::World) whose server accepts compression
    /// (`ServerConfig::compress`), both ends compress the messages of clients that offer it
    /// ([`Config::compression`](crate::Config::compression)).
    ///
    /// # Panics
    ///
    /// [`send`](Self::send) panics at a text frame that is not UTF-8 and at a close code that must not
    /// be sent, and [`poll`](Self::poll) if an endpoint breaks the protocol, for example by a message
    /// that exceeds a limit.
    #[cfg(feature = "websocket")]
    pub fn carry_bytes(&mut self, limits: &Limits) -> &mut Self {
        self.note(|| "the link carries bytes".to_owned());
        self.machines = Some(*limits);
        self
    }

    /// Delivers nothing for this long, and then everything in order.
    pub fn stall(&mut self, length: Duration) -> &mut Self {
        self.note(|| format!("the link stalls for {}ms", length.as_millis()));
        if self.stalled_until <= self.now {
            self.stalled_from = self.now;
        }
        self.stalled_until = self.stalled_until.max(self.now + length);
        self
    }

    /// Silently kills one direction of the current connection: everything in it and everything sent
    /// on it later is lost, including the end of the stream.
    pub fn half_open(&mut self, direction: Direction) -> &mut Self {
        self.note(|| format!("the link goes dead {direction:?}"));
        for wire in self.wires.values_mut() {
            wire.pipe(direction).dead.get_or_insert(self.now);
        }
        self
    }

    /// Cuts the current connection; everything on its way is lost. Both ends are notified, even
    /// if a direction is dead.
    pub fn cut(&mut self, cut: Cut) -> &mut Self {
        self.note(|| format!("the link is cut ({cut:?})"));
        let now = self.now;
        self.wires.values_mut().for_each(|wire| wire.sever(now, cut));
        self
    }

    /// Cuts the current connection (if there is none, the next one that opens) after this many more
    /// frames have arrived in this direction. Frames after them are lost.
    pub fn cut_after(&mut self, direction: Direction, frames: u64, cut: Cut) -> &mut Self {
        self.note(|| format!("the link will be cut after {frames} frames {direction:?} ({cut:?})"));
        self.plan_cut(direction, PlannedCut { left: frames, unit: Unit::Frames, cut })
    }

    /// Cuts the current connection (if there is none, the next one that opens) after this many more
    /// bytes of frames have arrived in this direction. Without [`carry_bytes`](Self::carry_bytes), a frame
    /// that has not arrived as a whole is lost.
    pub fn cut_after_bytes(&mut self, direction: Direction, bytes: u64, cut: Cut) -> &mut Self {
        self.note(|| format!("the link will be cut after {bytes} bytes {direction:?} ({cut:?})"));
        self.plan_cut(direction, PlannedCut { left: bytes, unit: Unit::Bytes, cut })
    }

    fn plan_cut(&mut self, direction: Direction, cut: PlannedCut) -> &mut Self {
        match self.wires.values_mut().rfind(|wire| wire.is_open()) {
            Some(wire) => wire.plan_cut(self.now, direction, cut),
            None => self.next_cuts.push((direction, cut)),
        }
        self
    }

    /// Fails the next attempts to connect, like a port without a listener.
    pub fn refuse_connects(&mut self, attempts: usize) -> &mut Self {
        self.note(|| format!("the next {attempts} connects will be refused"));
        let message = "connection refused".to_owned();
        self.push_fates(attempts, &Fate::Fail(Cause::Dial { kind: DialKind::Refused, message }))
    }

    /// Answers the next attempts to connect with an HTTP status, and with `Retry-After` if given
    /// (seconds, or an HTTP date).
    pub fn refuse_upgrades(
        &mut self,
        attempts: usize,
        status: u16,
        retry_after: Option<&str>,
    ) -> &mut Self {
        self.note(|| format!("the next {attempts} upgrades will be answered with {status}"));
        let headers = retry_after.map(|after| ("retry-after".to_owned(), after.to_owned()));
        let refusal = Refusal::new(status, headers.into_iter().collect(), "");
        self.push_fates(attempts, &Fate::Fail(Cause::Refused(refusal)))
    }

    /// Accepts the next attempts to connect and drops each connection as soon as it is open.
    pub fn drop_connects(&mut self, attempts: usize) -> &mut Self {
        self.note(|| format!("the next {attempts} connections will be dropped"));
        self.push_fates(attempts, &Fate::Drop)
    }

    /// Never answers the next attempts to connect, like a firewall that drops packets.
    pub fn ignore_connects(&mut self, attempts: usize) -> &mut Self {
        self.note(|| format!("the next {attempts} connects will be ignored"));
        self.push_fates(attempts, &Fate::Ignore)
    }

    /// Ends every current and queued fault. A dead direction stays dead, because TCP cannot recover
    /// what it lost: the client has to detect and replace that connection.
    pub fn heal(&mut self) -> &mut Self {
        self.note(|| "the link is healed".to_owned());
        self.stalled_until = Time::ZERO;
        self.fates.clear();
        self.next_cuts.clear();
        for wire in self.wires.values_mut() {
            wire.up.cut_after = None;
            wire.down.cut_after = None;
            wire.drop_when_open = false;
        }
        self
    }

    fn note(&mut self, note: impl FnOnce() -> String) {
        if let Some(notes) = &mut self.notes {
            notes.push(note());
        }
    }

    /// Takes the notes since the last call, and records notes from now on.
    pub(super) fn take_notes(&mut self) -> Vec<String> {
        self.notes.replace(Vec::new()).unwrap_or_default()
    }

    fn push_fates(&mut self, attempts: usize, fate: &Fate) -> &mut Self {
        self.fates.extend(core::iter::repeat_n(fate.clone(), attempts));
        self
    }
}

/// # Operation
impl Link {
    /// Sets the current time, for faults that start now. It never goes back.
    pub fn set_now(&mut self, now: Time) -> &mut Self {
        self.now = self.now.max(now);
        self
    }

    /// Starts an attempt to connect: the request travels up, unless a fault is queued for it.
    pub fn connect(&mut self, now: Time, id: ConnectionId, request: ConnectRequest) {
        self.set_now(now);
        let mut wire = Wire::default();
        #[cfg(feature = "websocket")]
        {
            wire.machines = self.machines.as_ref().map(|limits| Box::new(Machines::new(limits)));
        }
        match self.fates.pop_front() {
            Some(Fate::Fail(failure)) => {
                wire.server_gone = true;
                // The refusal arrives after the latency of both directions.
                let back = now + self.rng.draw(self.latency) + self.rng.draw(self.latency);
                wire.down.push(back, Parcel::Failed(failure), 0);
                self.wires.insert(id, wire);
                return;
            }
            Some(Fate::Ignore) => {
                wire.up.dead = Some(now);
                wire.server_gone = true;
            }
            Some(Fate::Drop) => wire.drop_when_open = true,
            None => {}
        }
        self.wires.insert(id, wire);
        self.send(now, id, Direction::Up, Parcel::Request(Box::new(request)));
    }

    /// Whether connections that are opened now carry bytes.
    #[cfg(feature = "deflate")]
    pub(super) const fn carries_bytes(&self) -> bool {
        self.machines.is_some()
    }

    /// Compresses the messages of a connection on which no frame was sent yet.
    #[cfg(feature = "deflate")]
    pub(super) fn compress(
        &mut self,
        id: ConnectionId,
        client: &Compression,
        server: &Compression,
    ) {
        let Some(wire) = self.wires.get_mut(&id) else { return };
        wire.machines = wire.machines.take().map(|it| Box::new(it.compress(client, server)));
    }

    /// Sends a parcel on a connection. After the end of the connection, the parcel is ignored.
    pub fn send(&mut self, now: Time, id: ConnectionId, direction: Direction, parcel: Parcel) {
        self.set_now(now);
        let Some(wire) = self.wires.get_mut(&id).filter(|wire| wire.takes(direction)) else {
            return;
        };
        #[cfg(feature = "websocket")]
        let parcel = match &mut wire.machines {
            Some(machines) => match machines.send(direction, parcel) {
                Some(parcel) => parcel,
                None => return self.transmit(id, direction),
            },
            None => parcel,
        };
        wire.server_gone |= matches!(parcel, Parcel::Failed(_));
        let drop = wire.drop_when_open && matches!(parcel, Parcel::Opened(_));
        let latency = self.rng.draw(self.latency);
        let rate = self.bandwidth[direction as usize];
        wire.pipe(direction).send(now, latency, rate, parcel);
        if drop {
            wire.severed = true;
            wire.down.push(now + latency, Parcel::End, 0);
            wire.up.push(now, Parcel::End, 0);
        }
    }

    /// Closes the sender's end of a connection: the sender reads nothing more, and the end of the
    /// stream travels after what it has sent.
    pub fn hang_up(&mut self, now: Time, id: ConnectionId, sender: Direction) {
        self.send(now, id, sender, Parcel::End);
        if let Some(wire) = self.wires.get_mut(&id) {
            match sender {
                Direction::Up => {
                    wire.client_gone = true;
                    wire.down.queue.clear();
                }
                Direction::Down => {
                    wire.server_gone = true;
                    wire.up.queue.clear();
                }
            }
            wire.ready.retain(|(direction, _)| *direction == sender);
        }
        self.remove_if_done(id);
    }

    /// Whether the client's transport accepts another frame.
    #[must_use]
    pub fn is_writable(&self, id: ConnectionId) -> bool {
        self.wires.get(&id).is_none_or(|wire| {
            let slow = self.bandwidth[Direction::Up as usize].is_some();
            let full = slow && wire.up.sent - wire.up.arrived >= self.send_buffer;
            wire.in_transit() < self.buffer && !full
        })
    }

    /// The bytes that the client's transport has read and written so far. `None` for an unknown
    /// connection, and on a link without a bandwidth, where frames do not delay each other.
    ///
    /// The written bytes are those that the operating system has accepted: those that have arrived,
    /// and what its [buffer](Self::send_buffer) holds.
    #[must_use]
    pub fn progress(&self, now: Time, id: ConnectionId) -> Option<Progress> {
        if self.bandwidth == [None; 2] {
            return None;
        }
        let wire = self.wires.get(&id)?;
        let at = if now < self.stalled_until { now.min(self.stalled_from) } else { now };
        let written = wire.up.sent.min(wire.up.arrived_by(at) + self.send_buffer);
        let flushed = written == wire.up.sent;
        let read = wire.down.arrived_by(at);
        let progress = Progress { read, written, flushed, ..Progress::default() };
        #[cfg(feature = "websocket")]
        if let Some(machines) = &wire.machines {
            return Some(machines.report(progress));
        }
        Some(progress)
    }

    /// The bytes of frames that have arrived in a direction of the current connection.
    #[must_use]
    pub fn bytes_arrived(&self, direction: Direction) -> u64 {
        let wire = self.wires.values().next_back();
        wire.map_or(0, |wire| match direction {
            Direction::Up => wire.up.arrived,
            Direction::Down => wire.down.arrived,
        })
    }

    /// Whether the server has received a part of a frame, but not all of it.
    pub(super) fn is_amid_frame(&self, now: Time, id: ConnectionId) -> bool {
        self.wires.get(&id).is_some_and(|wire| {
            let begun = wire.up.queue.front().is_some_and(|transit| transit.from <= now);
            begun && wire.up.dead.is_none() && now >= self.stalled_until
        })
    }

    /// Returns the next parcel that has arrived by `now`, earliest first.
    pub fn poll(&mut self, now: Time) -> Option<Delivery> {
        self.set_now(now);
        loop {
            if let Some(delivery) = self.take_ready() {
                return Some(delivery);
            }
            let (at, id, direction) = self.next()?;
            if at > now {
                return None;
            }
            let wire = self.wires.get_mut(&id)?;
            let Transit { load, bytes, .. } = wire.pipe(direction).queue.pop_front()?;
            wire.pipe(direction).arrived += bytes;
            #[cfg_attr(
                not(feature = "websocket"),
                allow(clippy::infallible_destructuring_match, reason = "there are no bytes")
            )]
            let parcel = match load {
                Load::Parcel(parcel) => parcel,
                #[cfg(feature = "websocket")]
                Load::Bytes(bytes) => {
                    wire.arrive(now, direction, &bytes);
                    self.transmit(id, Direction::Up);
                    self.transmit(id, Direction::Down);
                    continue;
                }
            };
            match (&parcel, direction) {
                (Parcel::Frame(_), _) => {
                    let pipe = wire.pipe(direction);
                    let (taken, inside) = pipe.count(Unit::Bytes, bytes);
                    let (_, behind) = pipe.count(Unit::Frames, 1);
                    if let Some(cut) = inside.or(behind) {
                        wire.sever(now, cut);
                    }
                    if taken < bytes {
                        continue;
                    }
                }
                (Parcel::Opened(_), _) => {
                    wire.opened = true;
                    if wire.is_open() {
                        for (direction, cut) in core::mem::take(&mut self.next_cuts) {
                            wire.plan_cut(now, direction, cut);
                        }
                    }
                }
                (Parcel::End, Direction::Up) => wire.server_gone = true,
                (Parcel::End | Parcel::Failed(_), Direction::Down) => wire.client_gone = true,
                _ => {}
            }
            self.remove_if_done(id);
            return Some(Delivery { connection: id, direction, parcel });
        }
    }

    /// When the next parcel arrives, if one is on its way.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        if self.wires.values().any(|wire| !wire.ready.is_empty()) {
            return Some(self.now);
        }
        self.next().map(|(at, ..)| at)
    }

    /// Takes a parcel that has arrived as bytes.
    fn take_ready(&mut self) -> Option<Delivery> {
        let (id, wire) = self.wires.iter_mut().find(|(_, wire)| !wire.ready.is_empty())?;
        let (id, (direction, parcel)) = (*id, wire.ready.pop_front()?);
        self.remove_if_done(id);
        Some(Delivery { connection: id, direction, parcel })
    }

    /// Puts the bytes that a machine has to send on their way, as far as the operating system accepts
    /// them.
    #[cfg(feature = "websocket")]
    fn transmit(&mut self, id: ConnectionId, direction: Direction) {
        let rate = self.bandwidth[direction as usize];
        let is_limited = direction == Direction::Up && rate.is_some();
        while let Some(wire) = self.wires.get_mut(&id).filter(|wire| wire.takes(direction)) {
            let pipe = wire.pipe(direction);
            let (sent, buffered) = (pipe.sent, pipe.sent - pipe.arrived);
            let space =
                if is_limited { self.send_buffer.saturating_sub(buffered) } else { u64::MAX };
            if space < WRITE_SPACE.min(self.send_buffer) {
                return;
            }
            let space = usize::try_from(space).unwrap_or(usize::MAX);
            let Some(machines) = &mut wire.machines else { return };
            let mut bytes = machines.transmit(direction, space, sent, &mut self.rng);
            if bytes.is_empty() {
                return;
            }
            while !bytes.is_empty() {
                let piece = piece(&mut bytes, &mut self.rng);
                let latency = self.rng.draw(self.latency);
                let length = piece.len() as u64;
                wire.pipe(direction).carry(self.now, latency, rate, Load::Bytes(piece), length);
            }
        }
    }

    /// The earliest parcel; at equal times that of the oldest connection, and up before down.
    fn next(&self) -> Option<(Time, ConnectionId, Direction)> {
        let heads = self.wires.iter().flat_map(|(id, wire)| {
            let head = |pipe: &Pipe, direction| {
                let transit = pipe.queue.front().filter(|_| pipe.dead.is_none())?;
                Some((self.stalled_until.max(transit.at), *id, direction))
            };
            [head(&wire.up, Direction::Up), head(&wire.down, Direction::Down)]
        });
        heads.flatten().min()
    }

    /// Removes a connection once nothing of it can be delivered any more.
    fn remove_if_done(&mut self, id: ConnectionId) {
        let over = |wire: &Wire| {
            let server_gone = wire.server_gone || wire.up.dead.is_some();
            wire.client_gone && server_gone && wire.ready.is_empty()
        };
        if self.wires.get(&id).is_some_and(over) {
            self.wires.remove(&id);
        }
    }
}

impl Wire {
    const fn pipe(&mut self, direction: Direction) -> &mut Pipe {
        match direction {
            Direction::Up => &mut self.up,
            Direction::Down => &mut self.down,
        }
    }

    /// Whether the connection is open, so that a cut can end it.
    const fn is_open(&self) -> bool {
        self.opened && !self.client_gone && !self.server_gone && !self.severed
    }

    /// Whether what is sent in a direction can still arrive.
    fn takes(&self, direction: Direction) -> bool {
        let receiver_gone = match direction {
            Direction::Up => self.server_gone && self.up.dead.is_none(),
            Direction::Down => self.client_gone,
        };
        !self.severed && !receiver_gone
    }

    /// The number of the client's frames that have not arrived.
    fn in_transit(&self) -> usize {
        #[cfg(feature = "websocket")]
        if let Some(machines) = &self.machines {
            return machines.in_transit();
        }
        self.up.queue.len()
    }

    fn plan_cut(&mut self, now: Time, direction: Direction, cut: PlannedCut) {
        if cut.left == 0 {
            self.sever(now, cut.cut);
        } else {
            self.pipe(direction).cut_after = Some(cut);
        }
    }

    /// Passes bytes that have arrived to the machine of the receiver, up to a planned cut.
    #[cfg(feature = "websocket")]
    fn arrive(&mut self, now: Time, direction: Direction, bytes: &[u8]) {
        let (taken, mut cut) = self.pipe(direction).count(Unit::Bytes, bytes.len() as u64);
        let taken = usize::try_from(taken).unwrap_or(bytes.len());
        let Some(machines) = &mut self.machines else { return };
        machines.receive(direction, &bytes[..taken]);
        let mut parcels = 0;
        while let Some(parcel) = self.machines.as_mut().and_then(|it| it.next(direction)) {
            let is_frame = matches!(parcel, Parcel::Frame(_));
            self.ready.push_back((direction, parcel));
            parcels += 1;
            if is_frame {
                if let (_, Some(behind)) = self.pipe(direction).count(Unit::Frames, 1) {
                    cut = Some(behind);
                    break;
                }
            }
        }
        if parcels == 0 {
            self.ready.push_back((direction, Parcel::Part));
        }
        if let Some(cut) = cut {
            self.sever(now, cut);
        }
    }

    fn sever(&mut self, now: Time, cut: Cut) {
        self.up.dead = None;
        self.down.dead = None;
        // The connection is already cut, so a second cut has no effect.
        if core::mem::replace(&mut self.severed, true) {
            return;
        }
        self.up.queue.clear();
        self.down.queue.clear();
        if !self.server_gone {
            self.up.push(now, Parcel::End, 0);
        }
        if !self.client_gone {
            if let Cut::Close(code) = cut {
                self.down.push(now, Parcel::Close(Some(code)), 0);
            }
            self.down.push(now, Parcel::End, 0);
        }
    }
}

impl Pipe {
    /// Puts a parcel on its way: after its predecessors, and at the rate of the link.
    fn send(&mut self, now: Time, latency: Duration, rate: Option<u64>, parcel: Parcel) {
        let Parcel::Frame(frame) = &parcel else {
            return self.push(now.max(self.free) + latency, parcel, 0);
        };
        let bytes = frame.len() as u64 + FRAME_HEADER;
        self.carry(now, latency, rate, Load::Parcel(parcel), bytes);
    }

    /// Puts a load of this many bytes on its way, at the rate of the link.
    fn carry(&mut self, now: Time, latency: Duration, rate: Option<u64>, load: Load, bytes: u64) {
        let nanos = rate.map_or(0, |rate| bytes.saturating_mul(1_000_000_000) / rate);
        let start = now.max(self.free);
        self.free = start + Duration::from_nanos(nanos);
        self.last = self.last.max(self.free + latency);
        self.sent += bytes;
        self.queue.push_back(Transit { load, bytes, from: start + latency, at: self.last });
    }

    fn push(&mut self, at: Time, parcel: Parcel, bytes: u64) {
        self.last = self.last.max(at);
        self.sent += bytes;
        let load = Load::Parcel(parcel);
        self.queue.push_back(Transit { load, bytes, from: self.last, at: self.last });
    }

    /// How many bytes have arrived, including those of a partly received frame.
    fn arrived_by(&self, now: Time) -> u64 {
        let now = self.dead.map_or(now, |dead| now.min(dead));
        let part = |transit: &Transit| {
            let (so_far, all) = (now.since(transit.from), transit.at.since(transit.from));
            if so_far >= all {
                return transit.bytes;
            }
            let part = u128::from(transit.bytes) * so_far.as_nanos() / all.as_nanos().max(1);
            u64::try_from(part).unwrap_or(transit.bytes)
        };
        let begun = self.queue.iter().take_while(|transit| transit.from < now);
        self.arrived + begun.map(part).sum::<u64>()
    }

    /// Counts arrivals against a planned cut. Returns how many of them arrive before it, and the cut
    /// if it is reached.
    const fn count(&mut self, unit: Unit, arrivals: u64) -> (u64, Option<Cut>) {
        match &mut self.cut_after {
            Some(plan) if plan.unit as u8 == unit as u8 => {
                let taken = if plan.left < arrivals { plan.left } else { arrivals };
                plan.left -= taken;
                let cut = plan.cut;
                if plan.left > 0 {
                    return (taken, None);
                }
                self.cut_after = None;
                (taken, Some(cut))
            }
            _ => (arrivals, None),
        }
    }
}
