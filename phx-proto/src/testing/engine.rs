//! The steps of a [`World`], and the exchange between clients, links and the server.
//!
//! ```text
//!   step ─▶ Restart                       the port is open again
//!        ─▶ Server    its timers          ─▶ flush_server: outputs onto the links
//!        ─▶ Client    a delivery, or else a deadline
//!                       up: at_server     ─▶ flush_server
//!                       down: at_client   ─▶ drain: the core's actions onto its link
//! ```
//!
//! Every change of a client ends with a call of `reschedule`. It updates the client's entry in the
//! agenda, which is the earlier of the core's deadline and the link's next delivery. The server and
//! the client have different ids for a connection; only this module maps them.

use super::handshake;
use super::link::{Direction, Parcel};
use super::server::Output;
use super::trace::{ClientId, TraceEvent, What};
use super::world::{Client, World};
#[cfg(feature = "deflate")]
use crate::config::Compression;
use crate::config::Secret;
use crate::event::action::{Action, ConnectRequest};
use crate::event::cause::{Cause, DialKind};
use crate::event::input::{Ended, Opened};
use crate::event::refusal::Refusal;
use crate::id::ConnectionId;
use crate::time::Time;
#[cfg(feature = "deflate")]
use crate::websocket::upgrade::{CompressionAnswer, agreed_compression, offer_compression};

/// What the next step runs. At equal times, the variant that comes first is run first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Next {
    Restart,
    Server,
    Client(usize),
}

/// # Implementation
impl World {
    pub(super) fn record(&mut self, client: Option<usize>, what: What) {
        let event = TraceEvent { at: self.now, client: client.map(ClientId), what };
        if (self.keeps)(&event) {
            self.events.push(event);
        }
    }

    /// Applies the changes that the test made since the last step.
    pub(super) fn settle(&mut self) {
        self.flush_server();
        while let Some(client) = self.touched.pop_first() {
            for note in self.clients[client].link.take_notes() {
                self.record(Some(client), What::Note(note));
            }
            self.reschedule(client);
        }
    }

    fn reschedule(&mut self, index: usize) {
        let client = &mut self.clients[index];
        let timeout = client.socket.poll_timeout().map(|timeout| timeout.at);
        let due = timeout.into_iter().chain(client.link.poll_timeout()).min();
        let before = core::mem::replace(&mut client.due, due);
        if before != due {
            if let Some(before) = before {
                self.agenda.remove(&(before, index));
            }
            self.agenda.extend(due.map(|due| (due, index)));
        }
    }

    pub(super) fn step_client(&mut self, index: usize) {
        let now = self.now;
        let client = &mut self.clients[index];
        match client.link.poll(now) {
            Some(delivery) => match delivery.direction {
                Direction::Up => self.at_server(index, delivery.connection, delivery.parcel),
                Direction::Down => self.at_client(index, delivery.connection, delivery.parcel),
            },
            None => {
                client.report(now);
                client.socket.handle_timeout(now);
            }
        }
        self.drain(index);
    }

    /// Delivers a parcel of a client to the server.
    fn at_server(&mut self, index: usize, id: ConnectionId, parcel: Parcel) {
        let now = self.now;
        let client = &mut self.clients[index];
        if let Parcel::Request(request) = parcel {
            let answer = self.answer(index, id, &request);
            self.clients[index].link.send(now, id, Direction::Down, answer);
            return;
        }
        if client.blocked && client.open == Some(id) && client.link.is_writable(id) {
            client.blocked = false;
            client.socket.handle_writable(now, id, true);
        }
        let Some(peer) = client.peers.get(&id).copied() else { return };
        match parcel {
            Parcel::Frame(frame) => self.server.handle_frame(now, peer, &frame),
            Parcel::Close(code) => self.server.handle_close(now, peer, code),
            Parcel::End => {
                client.peers.remove(&id);
                self.peers.remove(&peer);
                self.server.handle_eof(now, peer);
            }
            Parcel::Part => self.server.handle_bytes(now, peer),
            Parcel::Request(_) | Parcel::Opened(_) | Parcel::Failed(_) => {}
        }
        self.flush_server();
    }

    /// Reports partly received frames to the server, which count as activity.
    pub(super) fn report_partial_frames(&mut self) {
        for (peer, (index, id)) in &self.peers {
            if self.clients[*index].link.is_amid_frame(self.now, *id) {
                self.server.handle_bytes(self.now, *peer);
            }
        }
    }

    fn answer(&mut self, index: usize, id: ConnectionId, request: &ConnectRequest) -> Parcel {
        if !self.listening {
            return Parcel::Failed(Cause::Dial {
                kind: DialKind::Refused,
                message: "connection refused".to_owned(),
            });
        }
        #[cfg_attr(not(feature = "deflate"), expect(unused_mut))]
        let mut request = handshake::HttpRequest::from(request);
        #[cfg(feature = "deflate")]
        let offered = self.clients[index].offer_compression(&mut request);
        match self.server.connect(self.now, &request) {
            Ok(accepted) => {
                #[cfg(feature = "deflate")]
                if let (Some(offered), Some(selected)) = (offered, &accepted.extensions) {
                    self.clients[index].compress(id, &offered, selected);
                }
                self.peers.insert(accepted.peer, (index, id));
                self.clients[index].peers.insert(id, accepted.peer);
                Parcel::Opened(Opened { protocol: accepted.protocol })
            }
            Err(no) => Parcel::Failed(Cause::Refused(Refusal::new(no.status, no.headers, no.body))),
        }
    }

    /// Delivers a parcel of the server to the client.
    fn at_client(&mut self, index: usize, id: ConnectionId, parcel: Parcel) {
        let now = self.now;
        if let Parcel::Frame(frame) = &parcel {
            self.record(Some(index), What::Received(frame.clone()));
        }
        let client = &mut self.clients[index];
        let lost = || "the connection was lost".to_owned();
        match parcel {
            Parcel::Opened(opened) => {
                client.open = Some(id);
                client.blocked = false;
                client.socket.handle_opened(now, id, opened);
            }
            Parcel::Failed(failure) => client.socket.handle_failed(now, id, failure),
            Parcel::Frame(frame) => client.socket.handle_frame(now, id, frame),
            Parcel::Close(code) => {
                client.hang_up(now, id);
                let ended = Ended::CloseFrame { code, reason: String::new() };
                client.socket.handle_closed(now, id, ended);
            }
            Parcel::End if client.open == Some(id) => {
                client.hang_up(now, id);
                client.socket.handle_closed(now, id, Ended::Lost { message: lost() });
            }
            Parcel::End => client.socket.handle_failed(
                now,
                id,
                Cause::Dial { kind: DialKind::Other, message: lost() },
            ),
            Parcel::Request(_) | Parcel::Part => {}
        }
    }

    /// Puts the server's outputs on the links.
    pub(super) fn flush_server(&mut self) {
        while let Some(output) = self.server.poll_output() {
            let (Output::Send { peer, .. } | Output::Close { peer, .. } | Output::Drop { peer }) =
                output;
            let Some((index, id)) = self.peers.get(&peer).copied() else { continue };
            let client = &mut self.clients[index];
            match output {
                Output::Send { frame, .. } => {
                    client.link.send(self.now, id, Direction::Down, Parcel::Frame(frame));
                }
                Output::Close { code, .. } => {
                    client.link.send(self.now, id, Direction::Down, Parcel::Close(Some(code)));
                }
                Output::Drop { .. } => {
                    client.link.hang_up(self.now, id, Direction::Down);
                    client.peers.remove(&id);
                    self.peers.remove(&peer);
                }
            }
            self.reschedule(index);
        }
    }

    /// Carries out the actions of a client's core.
    pub(super) fn drain(&mut self, index: usize) {
        let now = self.now;
        self.clients[index].report(now);
        while let Some(action) = self.clients[index].socket.poll_action(now) {
            self.record(Some(index), What::Action(action.clone()));
            let client = &mut self.clients[index];
            match action {
                Action::Connect { id, .. } => {
                    client.socket.handle_dialled(now, id);
                    match client.socket.connect_request() {
                        Ok(request) => client.link.connect(now, id, request),
                        Err(error) => {
                            let failure = Cause::Unsupported { message: error.to_string() };
                            client.socket.handle_failed(now, id, failure);
                        }
                    }
                }
                Action::Send { id, frame } | Action::Join { id, frame, .. } => {
                    client.link.send(now, id, Direction::Up, Parcel::Frame(frame));
                    if !client.link.is_writable(id) {
                        client.blocked = true;
                        client.socket.handle_writable(now, id, false);
                    }
                }
                Action::Close { id, code, .. } => {
                    client.link.send(now, id, Direction::Up, Parcel::Close(Some(code)));
                }
                Action::Abort { id } => client.hang_up(now, id),
                Action::ReconnectAfter { .. } | Action::RejoinAfter { .. } | Action::Signal(_) => {}
            }
        }
        self.reschedule(index);
    }
}

impl Client {
    /// Reports to the core how many bytes a link with a bandwidth has transferred.
    fn report(&mut self, now: Time) {
        let Some(id) = self.open else { return };
        if let Some(progress) = self.link.progress(now, id) {
            self.socket.handle_progress(now, id, progress);
        }
    }

    fn hang_up(&mut self, now: Time, id: ConnectionId) {
        self.link.hang_up(now, id, Direction::Up);
        if self.open == Some(id) {
            self.open = None;
            self.blocked = false;
        }
    }
}

#[cfg(feature = "deflate")]
impl Client {
    /// Adds the offer of the client's configuration to a request, if the link carries bytes.
    fn offer_compression(&self, request: &mut handshake::HttpRequest) -> Option<Compression> {
        let offered = self.socket.config().compression.filter(|_| self.link.carries_bytes())?;
        request.headers.push(("sec-websocket-extensions".to_owned(), offer_compression(&offered)));
        Some(offered)
    }

    /// Compresses the messages of a connection whose server selected this extension.
    ///
    /// # Panics
    ///
    /// If the server's answer does not fit the offer.
    fn compress(
        &mut self,
        id: ConnectionId,
        offered: &Compression,
        selected: &(String, Compression),
    ) {
        let (answer, server) = selected;
        match agreed_compression(offered, [&**answer]) {
            CompressionAnswer::Agreed(client) => self.link.compress(id, &client, server),
            other => panic!("the server answered the offer with {answer:?}: {other:?}"),
        }
    }
}

/// Converts a request of the core to a request of the server.
impl From<&ConnectRequest> for handshake::HttpRequest {
    fn from(request: &ConnectRequest) -> Self {
        let plain = |(name, value): &(String, Secret)| (name.clone(), value.expose().to_owned());
        let mut headers: Vec<(String, String)> = request.headers.iter().map(plain).collect();
        if !request.subprotocols.is_empty() {
            let offers: Vec<&str> = request.subprotocols.iter().map(|s| s.expose()).collect();
            headers.push(("sec-websocket-protocol".to_owned(), offers.join(", ")));
        }
        Self { path: request.uri.target(), headers, ..Self::default() }
    }
}
