//! The in-memory runtime of a [`Script`](super::Script): clock, timers, connections and tasks.
//!
//! The stage implements the driver's [`Runtime`] and [`Transport`]. It has no thread: frames arrive
//! at once, a timer expires when the script moves the clock, and a woken task is polled when the
//! script runs the tasks. The stage also calls the wakers of other executors, so a driver may run
//! on one.

use core::fmt;
use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::task::{Context, Poll, Waker, ready};
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::task::Wake;

use serde_json::{Value, json};

use super::codec::{self, Vsn};
use super::script::Sent;
use crate::client::waiters::{Parked, poll_parked};
use crate::client::{Clock, Received, Runtime, Spawn, Timer, Transport, WriteFailed};
use crate::config::Config;
use crate::event::action::ConnectRequest;
use crate::event::cause::Cause;
use crate::event::input::{Ended, Opened};
use crate::event::words::Shown;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Mutex, MutexGuard};
use crate::time::Time;
use crate::wire::Frame;
use crate::wire::payload::Payload;

/// The state of the runtime, except the tasks.
#[derive(Default)]
pub(super) struct Stage {
    pub(super) now: Time,
    /// Attempts to connect that are not answered yet, by number.
    pub(super) dials: BTreeMap<u64, ConnectRequest>,
    verdicts: BTreeMap<u64, Result<Opened, Cause>>,
    /// The connections, by the number of their attempt; the last one is current.
    pub(super) wires: BTreeMap<u64, Wire>,
    /// Frames of the client that no assertion has consumed.
    pub(super) unclaimed: Vec<Sent>,
    pub(super) log: Vec<String>,
    spawned: Vec<Pin<Box<dyn Future<Output = ()> + Send>>>,
    timers: BTreeMap<u64, (Time, Parked)>,
    /// The wakers of attempts and connections.
    wakers: BTreeMap<u64, Parked>,
    numbers: u64,
}

/// A connection, for as long as the client holds its end.
pub(super) struct Wire {
    pub(super) vsn: Vsn,
    pub(super) to_client: VecDeque<Received>,
    /// The join_ref of every topic that was joined on this connection.
    pub(super) joins: BTreeMap<String, Value>,
    /// Whether one of the two ends has closed the connection.
    pub(super) is_over: bool,
}

/// The runtime of the clients of a [`Script`](super::Script): virtual time and in-memory
/// connections.
#[derive(Clone, Default)]
pub struct ScriptRuntime(Arc<Mutex<Stage>>);

impl ScriptRuntime {
    pub(super) fn lock(&self) -> MutexGuard<'_, Stage> {
        self.0.lock()
    }

    /// Changes the stage, and then calls the returned wakers outside the lock.
    fn change<R>(&self, change: impl FnOnce(&mut Stage) -> (R, Vec<Waker>)) -> R {
        let (result, wakers) = change(&mut self.lock());
        wakers.into_iter().for_each(Waker::wake);
        result
    }

    /// Moves the clock.
    pub(super) fn set_now(&self, now: Time) {
        self.change(|stage| {
            stage.now = stage.now.max(now);
            let due: Vec<u64> =
                stage.timers.iter().filter(|(_, (at, _))| *at <= now).map(|(id, _)| *id).collect();
            let timers = due.iter().filter_map(|number| stage.timers.remove(number));
            ((), timers.filter_map(|(_, mut parked)| parked.take()).collect())
        });
    }

    /// Sets the server's answer to an attempt.
    pub(super) fn answer(&self, number: u64, verdict: Result<Opened, Cause>) {
        self.change(|stage| {
            stage.dials.remove(&number);
            stage.verdicts.insert(number, verdict);
            ((), stage.take_waker(number))
        });
    }

    /// Delivers an event to the client on its current connection. Returns false if there is none, or if it
    /// has ended.
    pub(super) fn send(&self, received: Received) -> bool {
        self.change(|stage| {
            let Some((number, wire)) = stage.wires.last_entry().map(|e| (*e.key(), e.into_mut()))
            else {
                return (false, Vec::new());
            };
            if wire.is_over {
                return (false, Vec::new());
            }
            wire.is_over = matches!(received, Received::Ended(_));
            let line = match &received {
                Received::Frame(frame) => format!("server: {}", Shown(frame)),
                Received::Ended(Ended::CloseFrame { code: Some(code), .. }) => {
                    format!("the server closes the connection with {code}")
                }
                Received::Ended(_) => "the server drops the connection".to_owned(),
                Received::Control | Received::Part => "server: no message".to_owned(),
            };
            wire.to_client.push_back(received);
            stage.note(&line);
            (true, stage.take_waker(number))
        })
    }

    /// Waits in virtual time, for the program under test. Cancel safe.
    pub async fn sleep(&self, length: Duration) {
        let mut timer = self.timer();
        timer.reset(Some(self.now() + length));
        poll_fn(|cx| timer.poll_expired(cx)).await;
    }

    /// Tasks that were spawned since the last call.
    pub(super) fn take_spawned(&self) -> Vec<Pin<Box<dyn Future<Output = ()> + Send>>> {
        core::mem::take(&mut self.lock().spawned)
    }

    pub(super) fn add_task(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.lock().spawned.push(Box::pin(task));
    }
}

impl Stage {
    pub(super) fn note(&mut self, line: &str) {
        let line = format!("t={}ms {line}", self.now.as_millis());
        self.log.push(line);
    }

    pub(super) fn next_timer(&self) -> Option<Time> {
        self.timers.values().map(|(at, _)| *at).min()
    }

    fn take_waker(&mut self, number: u64) -> Vec<Waker> {
        self.wakers.remove(&number).and_then(|mut parked| parked.take()).into_iter().collect()
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Receives a frame of the client. The stage answers heartbeats at once, so that a script does
    /// not have to answer them.
    fn receive(&mut self, number: u64, frame: &Frame) {
        let Some(wire) = self.wires.get_mut(&number) else { return };
        let Ok(inbound) = codec::decode(wire.vsn, frame) else {
            self.note(&format!("client: unreadable {}", Shown(frame)));
            return;
        };
        if inbound.topic == "phoenix" && inbound.event == "heartbeat" {
            let ok = codec::Payload::Json(json!({}));
            let (join_ref, topic) = (&inbound.join_ref, &inbound.topic);
            let reply = codec::encode_reply(wire.vsn, join_ref, &inbound.msg_ref, topic, "ok", &ok);
            wire.to_client.extend(reply.map(Received::Frame));
            // A series of heartbeats gets only one line.
            const BEATS: &str = "client: heartbeats, answered";
            if !self.log.last().is_some_and(|line| line.ends_with(BEATS)) {
                self.note(BEATS);
            }
            return;
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let sent = Sent {
            at: self.now,
            topic: text(&inbound.topic),
            event: text(&inbound.event),
            payload: match inbound.payload {
                codec::Payload::Json(value) => Payload::from(value),
                codec::Payload::Binary(bytes) => Payload::binary(bytes),
            },
            join_ref: inbound.join_ref,
            msg_ref: inbound.msg_ref,
        };
        if sent.event == "phx_join" {
            wire.joins.insert(sent.topic.clone(), sent.join_ref.clone());
        }
        self.unclaimed.push(sent);
        self.note(&format!("client: {}", Shown(frame)));
    }
}

/// Virtual time and in-memory connections.
impl Clock for ScriptRuntime {
    fn now(&self) -> Time {
        self.lock().now
    }

    fn wall(&self) -> Time {
        self.lock().now
    }
}

impl Runtime for ScriptRuntime {
    type Clock = Self;
    type Transport = ScriptTransport;
    type Timer = ScriptTimer;
    type Dial = ScriptDial;

    fn clock(&self) -> Self {
        self.clone()
    }

    fn seed(&self) -> u64 {
        self.lock().number()
    }

    fn timer(&self) -> ScriptTimer {
        let number = self.lock().number();
        ScriptTimer { stage: self.clone(), number, at: None }
    }

    fn connect(&self, request: ConnectRequest, _: &Config) -> ScriptDial {
        let mut stage = self.lock();
        let number = stage.number();
        stage.note(&format!("client: dials {}", request.uri));
        stage.dials.insert(number, request);
        ScriptDial { stage: self.clone(), number }
    }
}

impl<F: Future<Output = ()> + Send + 'static> Spawn<F> for ScriptRuntime {
    fn spawn(&self, future: F) {
        self.add_task(future);
    }
}

/// An attempt to connect that the script has not answered.
#[derive(Debug)]
pub struct ScriptDial {
    stage: ScriptRuntime,
    number: u64,
}

impl Future for ScriptDial {
    type Output = Result<(ScriptTransport, Opened), Cause>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let number = self.number;
        let verdict = ready!(poll_parked(cx, |task| {
            let mut stage = self.stage.lock();
            match stage.verdicts.remove(&number) {
                Some(verdict) => Poll::Ready(verdict),
                None => stage.wakers.entry(number).or_default().park(task),
            }
        }));
        let stage = self.stage.clone();
        Poll::Ready(verdict.map(|opened| (ScriptTransport { stage, number }, opened)))
    }
}

impl Drop for ScriptDial {
    fn drop(&mut self) {
        let mut stage = self.stage.lock();
        stage.verdicts.remove(&self.number);
        let parked = stage.wakers.remove(&self.number);
        if stage.dials.remove(&self.number).is_some() {
            stage.note("client: gives the attempt up");
        }
        drop(stage);
        drop(parked);
    }
}

/// The client's end of a connection.
#[derive(Debug)]
pub struct ScriptTransport {
    stage: ScriptRuntime,
    number: u64,
}

impl Transport for ScriptTransport {
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Received> {
        poll_parked(cx, |task| {
            let mut stage = self.stage.lock();
            let wire = stage.wires.get_mut(&self.number);
            match wire.and_then(|wire| wire.to_client.pop_front()) {
                Some(received) => Poll::Ready(received),
                None => stage.wakers.entry(self.number).or_default().park(task),
            }
        })
    }

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), WriteFailed>> {
        Poll::Ready(Ok(()))
    }

    fn send(&mut self, frame: Frame) -> Result<(), WriteFailed> {
        self.stage.change(|stage| {
            let over = stage.wires.get(&self.number).is_none_or(|wire| wire.is_over);
            if over {
                return (Err(WriteFailed), Vec::new());
            }
            stage.receive(self.number, &frame);
            (Ok(()), stage.take_waker(self.number))
        })
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), WriteFailed>> {
        Poll::Ready(Ok(()))
    }

    fn close(&mut self, code: u16, _: &str) {
        self.stage.change(|stage| {
            stage.note(&format!("client: closes with {code}"));
            if let Some(wire) = stage.wires.get_mut(&self.number) {
                wire.is_over = true;
                let ended = Ended::CloseFrame { code: Some(1000), reason: String::new() };
                wire.to_client.push_back(Received::Ended(ended));
            }
            ((), stage.take_waker(self.number))
        });
    }
}

impl Drop for ScriptTransport {
    fn drop(&mut self) {
        let mut stage = self.stage.lock();
        let (parked, wire) = (stage.wakers.remove(&self.number), stage.wires.remove(&self.number));
        if wire.as_ref().is_some_and(|wire| !wire.is_over) {
            stage.note("client: drops the connection");
        }
        drop(stage);
        drop((parked, wire));
    }
}

/// A timer in virtual time.
#[derive(Debug)]
pub struct ScriptTimer {
    stage: ScriptRuntime,
    number: u64,
    at: Option<Time>,
}

impl Timer for ScriptTimer {
    fn reset(&mut self, at: Option<Time>) {
        self.at = at;
        let parked = self.stage.lock().timers.remove(&self.number);
        drop(parked);
    }

    fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else { return Poll::Pending };
        poll_parked(cx, |task| {
            let mut stage = self.stage.lock();
            if at <= stage.now {
                return Poll::Ready(());
            }
            let (_, parked) = stage.timers.entry(self.number).or_insert((at, Parked::new()));
            parked.park(task)
        })
    }
}

impl Drop for ScriptTimer {
    fn drop(&mut self) {
        self.reset(None);
    }
}

impl fmt::Debug for ScriptRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptRuntime").field("now", &self.now()).finish_non_exhaustive()
    }
}

/// A future and whether it was woken.
pub(super) struct Task {
    future: Pin<Box<dyn Future<Output = ()> + Send>>,
    woken: Arc<Woken>,
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

impl Task {
    pub(super) fn new(future: Pin<Box<dyn Future<Output = ()> + Send>>) -> Self {
        Self { future, woken: Arc::new(Woken(AtomicBool::new(true))) }
    }

    pub(super) fn is_woken(&self) -> bool {
        self.woken.0.load(Ordering::Acquire)
    }

    /// Polls the future if it was woken; returns true when it has completed.
    pub(super) fn poll(&mut self) -> bool {
        if !self.woken.0.swap(false, Ordering::AcqRel) {
            return false;
        }
        let waker = Waker::from(Arc::clone(&self.woken));
        self.future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready()
    }
}
