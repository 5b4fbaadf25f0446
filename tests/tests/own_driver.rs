//! A driver that uses only public items of `phx_proto`, and not its module `client`. It consists of
//! futures over an in-memory transport, on virtual time.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{Either, select};
use futures_util::task::noop_waker_ref;
use phx_proto::event::{Interruption, Supplied};
use phx_proto::socket::Step;
use phx_proto::testing::{
    Delivery, Direction, HttpRequest, Link, Output, Parcel, PeerId, Server, ServerConfig,
};
use phx_proto::{
    Action, Cause, Config, ConnectionId, Ended, JoinParams, Opened, Payload, PushId, PushOptions,
    PushOutcome, Signal, Socket, Status, Time,
};
use serde_json::{Value, json};

/// The clock, the network and the server.
struct Net {
    now: Time,
    /// The times at which a future has asked to be polled.
    alarms: Vec<Time>,
    link: Link,
    server: Server,
    peers: BTreeMap<ConnectionId, PeerId>,
    /// The parcels that the client's transport has read.
    inbox: VecDeque<(ConnectionId, Parcel)>,
}

impl Net {
    /// Delivers all parcels that have arrived by now.
    fn carry(&mut self) {
        loop {
            let delivery = self.link.poll(self.now);
            match delivery {
                Some(Delivery { connection, direction: Direction::Down, parcel, .. }) => {
                    self.inbox.push_back((connection, parcel));
                }
                Some(Delivery { connection, parcel, .. }) => self.serve(connection, parcel),
                None => match self.server.poll_output() {
                    Some(output) => self.answer(output),
                    None => return,
                },
            }
        }
    }

    fn serve(&mut self, id: ConnectionId, parcel: Parcel) {
        let (now, peer) = (self.now, self.peers.get(&id).copied());
        match (parcel, peer) {
            (Parcel::Request(request), _) => {
                let request = HttpRequest { path: request.uri.target(), ..HttpRequest::default() };
                let accepted = self.server.connect(now, &request).expect("the server accepts it");
                self.peers.insert(id, accepted.peer);
                let opened = Parcel::Opened(Opened { protocol: accepted.protocol });
                self.link.send(now, id, Direction::Down, opened);
            }
            (Parcel::Frame(frame), Some(peer)) => self.server.handle_frame(now, peer, &frame),
            (Parcel::Close(code), Some(peer)) => self.server.handle_close(now, peer, code),
            (Parcel::End, Some(peer)) => self.server.handle_eof(now, peer),
            (_, None) => {}
            (other, Some(_)) => panic!("{other:?} does not travel up"),
        }
    }

    fn answer(&mut self, output: Output) {
        let (Output::Send { peer, .. } | Output::Close { peer, .. } | Output::Drop { peer }) =
            output;
        let id = self.peers.iter().find(|(_, of)| **of == peer).map(|(id, _)| *id);
        let id = id.expect("a connection of the client");
        match output {
            Output::Send { frame, .. } => {
                self.link.send(self.now, id, Direction::Down, Parcel::Frame(frame));
            }
            Output::Close { code, .. } => {
                self.link.send(self.now, id, Direction::Down, Parcel::Close(Some(code)));
            }
            Output::Drop { .. } => {
                self.link.hang_up(self.now, id, Direction::Down);
                self.peers.remove(&id);
            }
        }
    }

    /// Advances the time to the next deadline. Returns false if there is none.
    fn skip(&mut self) -> bool {
        let alarm = self.alarms.drain(..).min();
        let times = [alarm, self.link.poll_timeout(), self.server.poll_timeout()];
        let Some(next) = times.into_iter().flatten().min() else { return false };
        self.now = self.now.max(next);
        self.server.handle_timeout(self.now);
        true
    }
}

/// The reason why the driver wakes up.
enum Event {
    Arrived(ConnectionId, Parcel),
    Writable(ConnectionId),
    Commanded,
    Due,
}

/// A socket that its driver and the application share.
#[derive(Clone)]
struct Shared {
    net: Rc<RefCell<Net>>,
    socket: Rc<RefCell<Socket>>,
    signals: Rc<RefCell<VecDeque<Signal>>>,
    commanded: Rc<Cell<bool>>,
}

impl Shared {
    fn new(config: Config) -> Self {
        let net = Net {
            now: Time::ZERO,
            alarms: Vec::new(),
            link: Link::new(7),
            server: Server::new(ServerConfig::default()),
            peers: BTreeMap::new(),
            inbox: VecDeque::new(),
        };
        Self {
            net: Rc::new(RefCell::new(net)),
            socket: Rc::new(RefCell::new(Socket::new(config, 42, Time::ZERO))),
            signals: Rc::default(),
            commanded: Rc::default(),
        }
    }

    fn now(&self) -> Time {
        self.net.borrow().now
    }

    /// A command of the application, which wakes the driver.
    fn command<T>(&self, command: impl FnOnce(&mut Socket, Time) -> T) -> T {
        self.commanded.set(true);
        command(&mut self.socket.borrow_mut(), self.now())
    }

    /// Waits for the next signal for which `wanted` has a value; those before it are dropped.
    async fn expect<T>(&self, mut wanted: impl FnMut(&Signal) -> Option<T>) -> T {
        poll_fn(|_| {
            let mut signals = self.signals.borrow_mut();
            while let Some(signal) = signals.pop_front() {
                if let Some(found) = wanted(&signal) {
                    return Poll::Ready(found);
                }
            }
            Poll::Pending
        })
        .await
    }

    async fn sleep(&self, length: Duration) {
        let until = self.now() + length;
        poll_fn(|_| self.poll_alarm(Some(until))).await;
    }

    fn poll_alarm(&self, at: Option<Time>) -> Poll<()> {
        let mut net = self.net.borrow_mut();
        if at.is_some_and(|at| at <= net.now) {
            return Poll::Ready(());
        }
        net.alarms.extend(at);
        Poll::Pending
    }

    /// Waits for a command, the transport or the next deadline.
    async fn event(&self, deadline: Option<Time>, blocked: Option<ConnectionId>) -> Event {
        poll_fn(|_| {
            if self.commanded.take() {
                return Poll::Ready(Event::Commanded);
            }
            let arrived = self.net.borrow_mut().inbox.pop_front();
            if let Some((id, parcel)) = arrived {
                return Poll::Ready(Event::Arrived(id, parcel));
            }
            if let Some(id) = blocked.filter(|id| self.net.borrow().link.is_writable(*id)) {
                return Poll::Ready(Event::Writable(id));
            }
            self.poll_alarm(deadline).map(|()| Event::Due)
        })
        .await
    }

    /// Runs an application together with the driver.
    fn run<T>(&self, application: impl Future<Output = T>) -> T {
        let (application, driver) = (pin!(application), pin!(drive(self)));
        let mut both = select(application, driver);
        let mut stuck = 0;
        loop {
            match both.poll_unpin(&mut Context::from_waker(noop_waker_ref())) {
                Poll::Ready(Either::Left((result, _))) => return result,
                Poll::Ready(Either::Right(((), _))) => panic!("the driver ended by itself"),
                Poll::Pending => {}
            }
            let mut net = self.net.borrow_mut();
            net.carry();
            if net.inbox.is_empty() && !self.commanded.get() {
                // The driver may still have a signal for the application.
                stuck = if net.skip() { 0 } else { stuck + 1 };
                assert!(stuck < 2, "the application waits, and nothing is due");
                net.carry();
            }
            net.alarms.clear();
        }
    }
}

/// The driver.
async fn drive(shared: &Shared) {
    let mut blocked = None;
    let mut close_frame = None;
    loop {
        let now = shared.now();
        carry_out(shared, now, &mut blocked);
        let deadline = shared.socket.borrow().poll_timeout().map(|next| next.at);
        let event = shared.event(deadline, blocked).await;
        let (now, mut socket) = (shared.now(), shared.socket.borrow_mut());
        match event {
            Event::Commanded => {}
            Event::Writable(id) => {
                blocked = None;
                socket.handle_writable(now, id, true);
            }
            Event::Due => {
                let id = socket.connection_id();
                let progress = id.and_then(|id| shared.net.borrow().link.progress(now, id));
                if let (Some(id), Some(progress)) = (id, progress) {
                    socket.handle_progress(now, id, progress);
                }
                socket.handle_timeout(now);
            }
            Event::Arrived(id, parcel) => match parcel {
                Parcel::Opened(opened) => socket.handle_opened(now, id, opened),
                Parcel::Failed(cause) => socket.handle_failed(now, id, cause),
                Parcel::Frame(frame) => socket.handle_frame(now, id, frame),
                Parcel::Close(code) => close_frame = Some(code),
                Parcel::End => {
                    let ended = match close_frame.take() {
                        Some(code) => Ended::CloseFrame { code, reason: String::new() },
                        None => Ended::Lost { message: "the stream ended".into() },
                    };
                    blocked = None;
                    socket.handle_closed(now, id, ended);
                }
                other @ (Parcel::Request(_) | Parcel::Part) => {
                    panic!("{other:?} does not travel down on a link of frames")
                }
            },
        }
    }
}

/// Performs the socket's actions; while the transport is blocked, only those that are not frames.
fn carry_out(shared: &Shared, now: Time, blocked: &mut Option<ConnectionId>) {
    loop {
        if blocked.is_some() && !shared.socket.borrow().has_actions() {
            return;
        }
        let Some(step) = shared.socket.borrow_mut().poll_step(now) else { return };
        let action = match step {
            Step::Action(action) => action,
            Step::Evaluate(ticket) => {
                // The function belongs to the application, so the socket is not borrowed while it
                // runs.
                let params = ticket.evaluate();
                match shared.socket.borrow_mut().supply_join(now, &ticket, params) {
                    Supplied::Join(action) => action,
                    Supplied::Ended | Supplied::Stale => continue,
                }
            }
        };
        let mut net = shared.net.borrow_mut();
        match action {
            Action::Connect { id, .. } => {
                let mut socket = shared.socket.borrow_mut();
                socket.handle_dialled(now, id);
                let request = socket.connect_request().expect("a good address");
                net.link.connect(now, id, request);
            }
            Action::Send { id, frame } | Action::Join { id, frame, .. } => {
                net.link.send(now, id, Direction::Up, Parcel::Frame(frame));
                if !net.link.is_writable(id) {
                    *blocked = Some(id);
                    shared.socket.borrow_mut().handle_writable(now, id, false);
                }
            }
            Action::Close { id, code, .. } => {
                net.link.send(now, id, Direction::Up, Parcel::Close(Some(code)));
            }
            Action::Abort { id } => net.link.hang_up(now, id, Direction::Up),
            Action::Signal(signal) => shared.signals.borrow_mut().push_back(signal),
            Action::ReconnectAfter { .. } | Action::RejoinAfter { .. } => {}
        }
    }
}

/// The parameters that the server received with the join that this signal completes.
fn joined(signal: &Signal, of: &str) -> Option<Value> {
    let (Signal::Joined { topic, response } | Signal::Resumed { topic, response }) = signal else {
        return None;
    };
    (topic == of).then(|| response.to_value().expect("JSON")["params"].clone())
}

fn ended(signal: &Signal, push: PushId) -> Option<PushOutcome> {
    match signal {
        Signal::PushEnded { id, outcome, .. } if *id == push => Some(outcome.clone()),
        _ => None,
    }
}

fn config() -> Config {
    Config::new("ws://localhost/socket/websocket").expect("a good address")
}

fn call(shared: &Shared, topic: &str, event: &str, n: u32) -> PushId {
    let options = PushOptions::call();
    let pushed = shared.command(|it, now| it.push(now, topic, event, json!({"n": n}), options));
    pushed.expect("an accepted push")
}

/// The driver performs joins with fixed parameters and with parameters from a function, a push, a
/// message, heartbeats, the resumption after a lost connection, and a close.
#[test]
fn own_driver_keeps_a_connection() {
    let shared = Shared::new(config());
    shared.net.borrow_mut().link.latency(Duration::from_millis(5)..=Duration::from_millis(20));
    shared.run(async {
        let made = JoinParams::from_fn(|attempt| {
            Payload::from(json!({"attempt": attempt.attempt, "rejoin": attempt.rejoin}))
        });
        shared.command(|it, now| it.join(now, "room:made", made)).expect("accepted");
        shared.command(|it, now| it.join(now, "room:fixed", json!({"n": 7}))).expect("accepted");
        shared.command(Socket::connect);
        let params = shared.expect(|signal| joined(signal, "room:made")).await;
        assert_eq!(params, json!({"attempt": 1, "rejoin": false}));
        let params = shared.expect(|signal| joined(signal, "room:fixed")).await;
        assert_eq!(params, json!({"n": 7}));

        let push = call(&shared, "room:fixed", "echo", 1);
        let outcome = shared.expect(|signal| ended(signal, push)).await;
        let PushOutcome::Reply(reply) = outcome else { panic!("{outcome:?}") };
        assert_eq!((reply.status.as_str(), reply.response.get()), ("ok", Ok(r#"{"n":1}"#)));
        let now = shared.now();
        shared.net.borrow_mut().server.broadcast(now, "room:fixed", "news", json!({"n": 2}));
        let news = shared.expect(|signal| match signal {
            Signal::Message { event, payload, .. } => Some((event.clone(), payload.clone())),
            _ => None,
        });
        let (event, payload) = news.await;
        assert_eq!((event.as_str(), payload.get()), ("news", Ok(r#"{"n":2}"#)));

        shared.sleep(Duration::from_secs(100)).await;
        let is_beat = |signal: &Signal| matches!(signal, Signal::HeartbeatAcked { .. });
        let beats = shared.signals.borrow().iter().filter(|signal| is_beat(signal)).count();
        assert!(beats >= 3, "{beats} heartbeats in 100 s");

        shared.net.borrow_mut().server.kill_all();
        let cause = shared.expect(|signal| match signal {
            Signal::Interrupted { topic, cause } if *topic == *"room:made" => Some(cause.clone()),
            _ => None,
        });
        let cause = cause.await;
        assert!(
            matches!(cause, Interruption::Disconnected(Cause::TransportLost { .. })),
            "{cause:?}"
        );
        let params = shared.expect(|signal| joined(signal, "room:made")).await;
        assert_eq!(params, json!({"attempt": 2, "rejoin": true}));

        shared.command(Socket::disconnect);
        shared.expect(|signal| matches!(signal, Signal::Closed).then_some(())).await;
        assert_eq!(shared.socket.borrow().status(), Status::Closed);
        assert!(shared.net.borrow().server.peers().is_empty());
    });
}

/// The transport takes two frames at a time. A push that waits for it can be cancelled, and then never
/// reaches the server.
#[test]
fn own_driver_leaves_frames_in_socket() {
    let shared = Shared::new(config());
    shared.run(async {
        shared.command(|it, now| it.join(now, "room:a", json!({}))).expect("accepted");
        shared.command(Socket::connect);
        shared.expect(|signal| joined(signal, "room:a")).await;
        let latency = Duration::from_millis(10);
        shared.net.borrow_mut().link.buffer(2).latency(latency..=latency);
        let pushes: Vec<PushId> = (0..5).map(|n| call(&shared, "room:a", "shout", n)).collect();
        shared.sleep(Duration::from_millis(1)).await;
        assert_eq!(shared.socket.borrow().stats().queued_pushes, 3);
        assert!(shared.command(|it, now| it.cancel_push(now, pushes[3])));
        let (mut ended, mut messages) = (Vec::new(), Vec::new());
        while ended.len() < pushes.len() {
            match shared.expect(|signal| Some(signal.clone())).await {
                Signal::PushEnded { id, outcome, .. } => ended.push((id, outcome)),
                Signal::Message { payload, .. } => messages.push(payload.to_value().expect("JSON")),
                _ => {}
            }
        }
        assert_eq!(messages, [0, 1, 2, 4].map(|n| json!({"n": n})));
        assert_eq!(ended.remove(0), (pushes[3], PushOutcome::Cancelled));
        assert!(ended.iter().all(|(_, outcome)| matches!(outcome, PushOutcome::Reply(_))));
    });
}
