//! The WebSocket machines at both ends of a connection, for a link that carries bytes.
//!
//! ```text
//!   Parcel ─▶ Endpoint ─▶ unsent ─ random pieces, one after the other ─▶ arrived ─▶ Endpoint ─▶ Parcel
//!             (sender)            (the link delays and cuts them)               (receiver)
//! ```

use bytes::{Bytes, BytesMut};

use super::link::{Direction, Parcel};
#[cfg(feature = "deflate")]
use crate::config::Compression;
use crate::event::input::Progress;
use crate::socket::rng::Rng;
use crate::websocket::acknowledgements::Acknowledgements;
use crate::websocket::{Endpoint, Event, Limits, SendError, codecs};

/// The number of bytes that a machine prepares for one write.
const WRITE: usize = 32 << 10;

/// The largest piece, as in an Ethernet frame.
const PIECE_MAX: u64 = 1_460;

/// Both machines of one connection.
#[derive(Clone, Debug)]
pub(super) struct Machines {
    client: Machine,
    server: Machine,
    /// The number of the client's frames that the server has not received.
    in_transit: usize,
}

/// One end of a connection.
#[derive(Clone, Debug)]
struct Machine {
    endpoint: Endpoint,
    /// Bytes that the operating system has not accepted yet.
    unsent: BytesMut,
    /// Bytes that have arrived and that the endpoint has not taken yet.
    arrived: BytesMut,
    acknowledgements: Acknowledgements,
}

impl Machines {
    pub(super) fn new(limits: &Limits) -> Self {
        // The link limits what the client sends, and the server of a world has no limit.
        let limits = Limits { outbox_bytes_max: usize::MAX, ..*limits };
        let machine = |endpoint| Machine {
            endpoint,
            unsent: BytesMut::new(),
            arrived: BytesMut::new(),
            acknowledgements: Acknowledgements::default(),
        };
        Self {
            client: machine(Endpoint::client(&limits)),
            server: machine(Endpoint::server(&limits)),
            in_transit: 0,
        }
    }

    /// Compresses what each side sends from now on, with the settings that were negotiated, each from the
    /// point of view of its side.
    #[cfg(feature = "deflate")]
    pub(super) fn compress(mut self, client: &Compression, server: &Compression) -> Self {
        self.client.endpoint = self.client.endpoint.compressed(client);
        self.server.endpoint = self.server.endpoint.compressed(server);
        self
    }

    const fn sender(&mut self, direction: Direction) -> &mut Machine {
        match direction {
            Direction::Up => &mut self.client,
            Direction::Down => &mut self.server,
        }
    }

    const fn receiver(&mut self, direction: Direction) -> &mut Machine {
        match direction {
            Direction::Up => &mut self.server,
            Direction::Down => &mut self.client,
        }
    }

    /// Queues a frame or a close frame. Returns any other parcel, which is not a part of the
    /// WebSocket protocol.
    ///
    /// # Panics
    ///
    /// If a text frame is not UTF-8, or a close code must not be sent.
    pub(super) fn send(&mut self, direction: Direction, parcel: Parcel) -> Option<Parcel> {
        let endpoint = &mut self.sender(direction).endpoint;
        match parcel {
            Parcel::Frame(frame) => match endpoint.send(frame) {
                Ok(()) => self.in_transit += usize::from(direction == Direction::Up),
                // Nothing is sent after a close frame.
                Err(SendError::Closing(_)) => {}
                Err(error) => panic!("the link cannot carry this frame: {error}"),
            },
            Parcel::Close(code) => {
                if let Err(error) = endpoint.close(code.unwrap_or(1000), "") {
                    panic!("the link cannot carry this close frame: {error}");
                }
            }
            other => return Some(other),
        }
        None
    }

    /// Takes up to `max` bytes to send in a direction. `sent` is the number of bytes that were taken
    /// before.
    pub(super) fn transmit(
        &mut self,
        direction: Direction,
        max: usize,
        sent: u64,
        rng: &mut Rng,
    ) -> Bytes {
        self.sender(direction).transmit(max, sent, rng)
    }

    /// Takes bytes that have arrived in a direction.
    pub(super) fn receive(&mut self, direction: Direction, bytes: &[u8]) {
        self.receiver(direction).arrived.extend_from_slice(bytes);
    }

    /// The next frame or close frame that has arrived in a direction.
    ///
    /// # Panics
    ///
    /// If the sender has broken the protocol.
    pub(super) fn next(&mut self, direction: Direction) -> Option<Parcel> {
        let parcel = self.receiver(direction).next();
        if direction == Direction::Up && matches!(parcel, Some(Parcel::Frame(_))) {
            self.in_transit -= 1;
        }
        parcel
    }

    /// The number of the client's frames that the server has not received.
    pub(super) const fn in_transit(&self) -> usize {
        self.in_transit
    }

    /// Completes a report of the bytes that the client's operating system has transferred.
    pub(super) fn report(&self, progress: Progress) -> Progress {
        let Machine { endpoint, unsent, acknowledgements, .. } = &self.client;
        let flushed = progress.flushed && unsent.is_empty() && endpoint.queued() == 0;
        acknowledgements.report(Progress { flushed, ..progress })
    }
}

impl Machine {
    fn transmit(&mut self, max: usize, sent: u64, rng: &mut Rng) -> Bytes {
        if self.unsent.is_empty() {
            let probed = self.endpoint.upload().probed;
            let key = || (rng.next_u64() as u32).to_be_bytes();
            codecs::poll_transmit(&mut self.endpoint, &mut self.unsent, WRITE, key);
            let count = self.endpoint.upload().probed;
            if count > probed {
                self.acknowledgements.asked(count, sent);
            }
        }
        let max = max.min(self.unsent.len());
        self.unsent.split_to(max).freeze()
    }

    fn next(&mut self) -> Option<Parcel> {
        loop {
            match codecs::poll_event(&mut self.endpoint, &mut self.arrived) {
                Ok(Some(Event::Message(frame))) => return Some(Parcel::Frame(frame)),
                Ok(Some(Event::Close(close))) => return Some(Parcel::Close(close.code)),
                Ok(Some(Event::Acknowledged(count))) => self.acknowledgements.answered(count),
                Ok(Some(Event::Ping(_) | Event::Pong(_) | Event::Opened(_))) => {}
                Ok(None) => return None,
                Err(fault) => panic!("a machine of the link broke the protocol: {fault}"),
            }
        }
    }
}

/// Cuts the front off bytes to send: small pieces and large ones, so that frames are split, and several
/// frames arrive at once.
pub(super) fn piece(bytes: &mut Bytes, rng: &mut Rng) -> Bytes {
    let draw = rng.next_u64();
    let length = match draw % 8 {
        0 => 1 + (draw >> 3) % 8,
        1 => 1 + (draw >> 3) % 100,
        2 | 3 => 1 + (draw >> 3) % PIECE_MAX,
        _ => PIECE_MAX,
    };
    bytes.split_to(bytes.len().min(usize::try_from(length).unwrap_or(usize::MAX)))
}
