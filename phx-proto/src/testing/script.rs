//! A scripted server, for tests of programs that use the async client.
//!
//! ```text
//!   your async fn ──▶ Client, Channel ──▶ Driver ──▶ in-memory transport ──▶ Script: what the
//!                 ◀──                 ◀──        ◀──                    ◀──  test does, asserts
//! ```
//!
//! A [`Script`] replaces the network and the server of the client under test: clock, timers,
//! connections and executor, all in memory. Its methods are the actions of a server: accept a
//! connect, expect a join, reply, push, drop the connection. Each method first runs every task that
//! can make progress. A method that expects something lets *virtual* time pass until it arrives, at
//! most for the script's [`time_limit`](Script::time_limit), so tests of reconnects and timeouts do
//! not wait. If it does not arrive, the message of the panic lists what did happen.
//!
//! An `assert_` method consumes the frame that it found; the next call looks for a later frame. The
//! script answers heartbeats. It uses only the newest connection.
//!
//! No executor is needed: [`Script::spawn`] runs futures, and the other methods poll them. In a
//! test with tokio or smol, where some of the program runs on that executor, await
//! [`Script::settled`] before a method: it lets the other tasks of a single-threaded executor run
//! until they are idle.

use core::future::{Future, poll_fn};
use core::task::{Context, Poll};
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde_json::Value;

use super::codec::{self, Vsn};
use super::handshake::decode_token;
use super::stage::{ScriptRuntime, Stage, Task, Wire};
use crate::client::{Client, Clock as _, Received, Setup};
use crate::config::auth_token::{AUTH_TOKEN_PREFIX, AUTH_TOKEN_PROTOCOL};
use crate::event::action::ConnectRequest;
use crate::event::cause::Cause;
use crate::event::input::{Ended, Opened};
use crate::event::refusal::Refusal;
use crate::sync::{Mutex, MutexGuard};
use crate::time::Time;
use crate::wire::payload::Payload;

/// The maximum number of rounds in which the script polls its tasks before it reports a busy loop.
const ROUNDS: u32 = 100_000;

/// The number of times that [`Script::settled`] yields to the other tasks of the executor.
const TURNS: u32 = 32;

/// A frame that the client sent.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Sent {
    /// When it was sent.
    pub at: Time,
    /// The topic.
    pub topic: String,
    /// The event.
    pub event: String,
    /// The payload.
    pub payload: Payload,
    pub(super) join_ref: Value,
    pub(super) msg_ref: Value,
}

impl Sent {
    /// The payload as a JSON value; null if it is binary.
    #[must_use]
    pub fn json(&self) -> Value {
        self.payload.to_value().unwrap_or_default()
    }
}

/// A scripted server; see [scripts](super#scripts).
///
/// ```
/// use phx_proto::Config;
/// use phx_proto::client::Client;
/// use phx_proto::testing::Script;
/// use serde_json::json;
///
/// async fn greet(client: Client) -> String {
///     let room = client.join("room:lobby", json!({})).await.expect("a room");
///     let reply = room.push("hello", json!({"from": "me"})).await.expect("a reply");
///     reply.status.to_string()
/// }
///
/// let script = Script::new();
/// let client = script.client(Config::new("ws://localhost:4000/socket/websocket")?);
/// let greeting = script.spawn(greet(client));
///
/// script.connect_and_assert_join("room:lobby");
/// let hello = script.assert_push("room:lobby", "hello");
/// assert_eq!(hello.json(), json!({"from": "me"}));
/// script.reply(&hello, "ok", json!({}));
/// assert_eq!(script.finish(greeting), "ok");
/// # Ok::<(), phx_proto::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct Script {
    stage: ScriptRuntime,
    tasks: Arc<Mutex<Vec<Task>>>,
    time_limit: Duration,
    quiet: Duration,
}

/// The handle of a future that [`Script::spawn`] runs.
#[derive(Debug)]
pub struct Running<T>(Arc<Mutex<Option<T>>>);

/// # Setup
impl Script {
    /// A script without clients, at time zero.
    #[must_use]
    pub fn new() -> Self {
        Self {
            stage: ScriptRuntime::default(),
            tasks: Arc::default(),
            time_limit: Duration::from_secs(60),
            quiet: Duration::from_millis(100),
        }
    }

    /// Sets the limit of virtual time for methods that expect something. The default is one minute.
    #[must_use]
    pub const fn time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = limit;
        self
    }

    /// Sets how much virtual time the `refute_` methods let pass while they check that nothing
    /// arrives. The default is 100 ms.
    #[must_use]
    pub const fn quiet(mut self, length: Duration) -> Self {
        self.quiet = length;
        self
    }

    /// A client that has started to connect. Its driver runs on this script.
    pub fn client(&self, setup: impl Into<Setup>) -> Client {
        crate::client::start(setup, self.runtime())
    }

    /// The runtime, for programs that create their clients themselves, and for
    /// [sleeping](ScriptRuntime::sleep) in virtual time.
    #[must_use]
    pub fn runtime(&self) -> ScriptRuntime {
        self.stage.clone()
    }

    /// Runs a future; the other methods poll it.
    pub fn spawn<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Running<T> {
        let slot = Arc::new(Mutex::new(None));
        let result = Arc::clone(&slot);
        self.stage.add_task(async move {
            let output = future.await;
            *result.lock() = Some(output);
        });
        Running(slot)
    }

    /// Waits for a spawned future and returns its output.
    ///
    /// # Panics
    ///
    /// If the future does not complete in time.
    #[track_caller]
    pub fn finish<T>(&self, running: Running<T>) -> T {
        let slot = running.0;
        self.expect("the end of the task", |_| slot.lock().take())
    }

    /// The current virtual time.
    #[must_use]
    pub fn now(&self) -> Time {
        self.stage.now()
    }

    /// Lets this much virtual time pass.
    pub fn advance(&self, length: Duration) {
        let end = self.now() + length;
        while self.move_on(end) {}
        self.stage.set_now(end);
        self.settle();
    }

    /// Runs every task that can make progress, without any time passing: the tasks of this script
    /// and those of the single-threaded executor that this future is awaited on.
    ///
    /// Cancel safe: dropping the future stops the waiting, and nothing is undone.
    pub async fn settled(&self) {
        for _ in 0..TURNS {
            self.settle();
            let mut gave_way = false;
            poll_fn(|cx: &mut Context<'_>| {
                if core::mem::replace(&mut gave_way, true) {
                    return Poll::Ready(());
                }
                cx.waker().wake_by_ref();
                Poll::Pending
            })
            .await;
        }
        self.settle();
    }

    /// Everything that has happened so far, one line for each event.
    #[must_use]
    pub fn log(&self) -> String {
        self.stage.lock().log.iter().map(|line| format!("{line}\n")).collect()
    }
}

/// # Connections
impl Script {
    /// Waits for the client to dial and accepts the connection. Returns the request, for checks of
    /// its [`param`](ConnectRequest::param), [`header`](ConnectRequest::header) and
    /// [`auth_token`](ConnectRequest::auth_token). The script acknowledges an auth token, as Phoenix 1.8
    /// does.
    ///
    /// # Panics
    ///
    /// If the client does not dial in time.
    #[track_caller]
    pub fn accept_connect(&self) -> ConnectRequest {
        let (number, request) = self.expect("an attempt to connect", first_dial);
        let is_v1 = request.uri.params("vsn").any(|vsn| vsn.starts_with("1."));
        let vsn = if is_v1 { Vsn::V1 } else { Vsn::V2 };
        {
            let mut stage = self.stage.lock();
            stage.note("the server accepts");
            stage.unclaimed.clear();
            let (to_client, joins) = (VecDeque::new(), BTreeMap::new());
            stage.wires.insert(number, Wire { vsn, to_client, joins, is_over: false });
        }
        let is_offered =
            request.subprotocols.iter().any(|offer| offer.expose() == AUTH_TOKEN_PROTOCOL);
        let protocol = is_offered.then(|| AUTH_TOKEN_PROTOCOL.to_owned());
        self.stage.answer(number, Ok(Opened { protocol }));
        self.settle();
        request
    }

    /// Waits for the client to dial and answers with an HTTP status. Returns the request.
    ///
    /// # Panics
    ///
    /// If the client does not dial in time.
    #[track_caller]
    pub fn refuse_connect(&self, status: u16) -> ConnectRequest {
        let (number, request) = self.expect("an attempt to connect", first_dial);
        self.stage.lock().note(&format!("the server refuses with {status}"));
        self.stage.answer(number, Err(Cause::Refused(Refusal::new(status, Vec::new(), ""))));
        self.settle();
        request
    }

    /// Asserts that the client does not dial.
    ///
    /// # Panics
    ///
    /// If it does.
    #[track_caller]
    pub fn refute_connect(&self) {
        self.refute("an attempt to connect", |stage| !stage.dials.is_empty());
    }

    /// Accepts the connection and the join of a topic, with an empty response.
    ///
    /// # Panics
    ///
    /// If one of them does not arrive in time.
    #[track_caller]
    pub fn connect_and_assert_join(&self, topic: &str) -> Sent {
        self.accept_connect();
        let join = self.assert_join(topic);
        self.reply(&join, "ok", Value::Object(serde_json::Map::new()));
        join
    }

    /// Drops the connection without a close frame, as a killed server does.
    ///
    /// # Panics
    ///
    /// If there is no connection.
    #[track_caller]
    pub fn disconnect(&self) {
        self.send(Received::Ended(Ended::Lost { message: "dropped by the script".to_owned() }));
    }

    /// Closes the connection with a close frame.
    ///
    /// # Panics
    ///
    /// If there is no connection.
    #[track_caller]
    pub fn close(&self, code: u16) {
        let reason = String::new();
        self.send(Received::Ended(Ended::CloseFrame { code: Some(code), reason }));
    }

    /// Asserts that the client closes or drops its connection.
    ///
    /// # Panics
    ///
    /// If it does not do so in time.
    #[track_caller]
    pub fn assert_disconnect(&self) {
        self.expect("the end of the connection", |stage| {
            stage.wires.values().all(|wire| wire.is_over).then_some(())
        });
    }
}

/// # Channels
impl Script {
    /// Expects a join of the topic.
    ///
    /// # Panics
    ///
    /// If none arrives in time.
    #[track_caller]
    pub fn assert_join(&self, topic: &str) -> Sent {
        self.assert_push(topic, "phx_join")
    }

    /// Asserts that the topic is not joined.
    ///
    /// # Panics
    ///
    /// If it is.
    #[track_caller]
    pub fn refute_join(&self, topic: &str) {
        self.refute_push(topic, "phx_join");
    }

    /// Expects a leave of the topic. Answer it with [`reply`](Self::reply).
    ///
    /// # Panics
    ///
    /// If none arrives in time.
    #[track_caller]
    pub fn assert_leave(&self, topic: &str) -> Sent {
        self.assert_push(topic, "phx_leave")
    }

    /// Asserts that the topic is not left.
    ///
    /// # Panics
    ///
    /// If it is.
    #[track_caller]
    pub fn refute_leave(&self, topic: &str) {
        self.refute_push(topic, "phx_leave");
    }

    /// Expects a push of this event on the topic.
    ///
    /// # Panics
    ///
    /// If none arrives in time.
    #[track_caller]
    pub fn assert_push(&self, topic: &str, event: &str) -> Sent {
        self.expect(&format!("a {event} of {topic:?}"), |stage| {
            let nth = stage.unclaimed.iter().position(|sent| sent.is(topic, event))?;
            Some(stage.unclaimed.remove(nth))
        })
    }

    /// Asserts that this event is not pushed on the topic.
    ///
    /// # Panics
    ///
    /// If it is.
    #[track_caller]
    pub fn refute_push(&self, topic: &str, event: &str) {
        self.refute(&format!("a {event} of {topic:?}"), |stage| {
            stage.unclaimed.iter().any(|sent| sent.is(topic, event))
        });
    }

    /// Replies to a join, a leave or a push.
    ///
    /// # Panics
    ///
    /// If there is no connection.
    #[track_caller]
    pub fn reply(&self, to: &Sent, status: &str, response: impl Into<Payload>) {
        let response = payload(response.into());
        let topic = Value::from(to.topic.as_str());
        self.send_frame(|vsn| {
            codec::encode_reply(vsn, &to.join_ref, &to.msg_ref, &topic, status, &response)
        });
    }

    /// Pushes a message to the client.
    ///
    /// # Panics
    ///
    /// If the client has not joined the topic on the current connection.
    #[track_caller]
    pub fn push(&self, topic: &str, event: &str, message: impl Into<Payload>) {
        let message = payload(message.into());
        let join_ref = self.join_ref(topic);
        self.send_frame(|vsn| codec::encode_push(vsn, &join_ref, topic, event, &message));
    }

    /// Crashes the channel: the client receives `phx_error`.
    ///
    /// # Panics
    ///
    /// If the client has not joined the topic on the current connection.
    #[track_caller]
    pub fn crash_channel(&self, topic: &str) {
        self.end_channel(topic, "phx_error");
    }

    /// Closes the channel: the client receives `phx_close`.
    ///
    /// # Panics
    ///
    /// If the client has not joined the topic on the current connection.
    #[track_caller]
    pub fn close_channel(&self, topic: &str) {
        self.end_channel(topic, "phx_close");
    }

    #[track_caller]
    fn end_channel(&self, topic: &str, event: &str) {
        let (join_ref, empty) = (self.join_ref(topic), Value::Object(serde_json::Map::new()));
        self.send_frame(|vsn| Ok(codec::encode_end(vsn, &join_ref, topic, event, &empty)));
    }
}

/// # Implementation
impl Script {
    /// Polls woken tasks until none is woken.
    fn settle(&self) {
        for _ in 0..ROUNDS {
            let mut tasks = self.lock_tasks();
            tasks.extend(self.stage.take_spawned().into_iter().map(Task::new));
            // The tasks are polled without the lock, because a task may use the script.
            let mut all = core::mem::take(&mut *tasks);
            drop(tasks);
            let moved = all.iter().any(Task::is_woken);
            all.retain_mut(|task| !task.poll());
            self.lock_tasks().splice(0..0, all);
            if !moved {
                return;
            }
        }
        panic!("the tasks never become idle; log:\n{}", self.log());
    }

    fn lock_tasks(&self) -> MutexGuard<'_, Vec<Task>> {
        self.tasks.lock()
    }

    /// Moves the clock to the next timer. Returns false if no timer expires by `end`.
    fn move_on(&self, end: Time) -> bool {
        self.settle();
        let next = self.stage.lock().next_timer().filter(|at| *at <= end);
        if let Some(at) = next {
            self.stage.set_now(at);
            self.settle();
        }
        next.is_some()
    }

    #[track_caller]
    fn expect<T>(&self, what: &str, mut look: impl FnMut(&mut Stage) -> Option<T>) -> T {
        let end = self.now() + self.time_limit;
        loop {
            self.settle();
            let found = look(&mut self.stage.lock());
            if let Some(found) = found {
                return found;
            }
            if !self.move_on(end) {
                let seconds = self.time_limit.as_secs_f64();
                panic!(
                    "expected {what} within {seconds}s. Tasks on another executor run only during \
                     `script.settled().await`: add it before this call. Log:\n{}",
                    self.log()
                );
            }
        }
    }

    #[track_caller]
    fn refute(&self, what: &str, is_there: impl Fn(&Stage) -> bool) {
        self.advance(self.quiet);
        let found = is_there(&self.stage.lock());
        assert!(!found, "unexpected: {what}; log:\n{}", self.log());
    }

    #[track_caller]
    fn send(&self, received: Received) {
        self.settle();
        let sent = self.stage.send(received);
        assert!(sent, "there is no connection; log:\n{}", self.log());
        self.settle();
    }

    #[track_caller]
    fn send_frame(
        &self,
        frame: impl FnOnce(Vsn) -> Result<crate::wire::Frame, codec::EncodeFault>,
    ) {
        let vsn = self.stage.lock().wires.values().next_back().map_or(Vsn::V2, |wire| wire.vsn);
        match frame(vsn) {
            Ok(frame) => self.send(Received::Frame(frame)),
            Err(codec::EncodeFault) => {
                panic!("this message cannot be encoded; log:\n{}", self.log())
            }
        }
    }

    #[track_caller]
    fn join_ref(&self, topic: &str) -> Value {
        self.settle();
        let stage = self.stage.lock();
        let wire = stage.wires.values().next_back();
        let found = wire.and_then(|wire| wire.joins.get(topic).cloned());
        drop(stage);
        found.unwrap_or_else(|| panic!("{topic:?} is not joined; log:\n{}", self.log()))
    }
}

/// # Accessors for tests
///
/// These need the feature `testing`. Their results are not redacted.
impl ConnectRequest {
    /// The first query parameter with this name, decoded.
    ///
    /// ```
    /// use phx_proto::Config;
    /// use phx_proto::testing::Script;
    ///
    /// let script = Script::new();
    /// let config = Config::new("ws://localhost:4000/socket/websocket")?
    ///     .param("device", "7 & 8")
    ///     .header("x-api-key", "k3y")?
    ///     .auth_token("t0ken");
    /// let _client = script.client(config);
    /// let request = script.accept_connect();
    /// assert_eq!(request.param("device").as_deref(), Some("7 & 8"));
    /// assert_eq!(request.header("X-Api-Key"), Some("k3y"));
    /// assert_eq!(request.auth_token().as_deref(), Some("t0ken"));
    /// # Ok::<(), phx_proto::ConfigError>(())
    /// ```
    #[must_use]
    pub fn param(&self, name: &str) -> Option<String> {
        self.uri.params(name).next()
    }

    /// The value of the first header with this name, in any case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let (_, value) = headers.find(|(other, _)| other.eq_ignore_ascii_case(name))?;
        Some(value.expose())
    }

    /// The [`auth_token`](crate::Credentials::auth_token), extracted from its subprotocol.
    #[must_use]
    pub fn auth_token(&self) -> Option<String> {
        let mut offers = self.subprotocols.iter().map(|offer| offer.expose());
        decode_token(offers.find_map(|offer| offer.strip_prefix(AUTH_TOKEN_PREFIX))?)
    }
}

impl Sent {
    fn is(&self, topic: &str, event: &str) -> bool {
        self.topic == topic && self.event == event
    }
}

impl Default for Script {
    fn default() -> Self {
        Self::new()
    }
}

impl core::fmt::Debug for Script {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Script").field("now", &self.now()).finish_non_exhaustive()
    }
}

impl<T> Running<T> {
    /// Whether the future has completed.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.0.lock().is_some()
    }
}

fn first_dial(stage: &mut Stage) -> Option<(u64, ConnectRequest)> {
    stage.dials.first_key_value().map(|(number, request)| (*number, request.clone()))
}

fn payload(payload: Payload) -> codec::Payload {
    match payload.to_value() {
        Ok(value) if !payload.is_binary() => codec::Payload::Json(value),
        _ => codec::Payload::Binary(payload.as_bytes().to_vec()),
    }
}
