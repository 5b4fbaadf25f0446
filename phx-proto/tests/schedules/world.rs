//! A runtime on shuttle: a wire and a clock in memory, tasks that are owned by their wakers, and a
//! server.

use core::future::{Future, poll_fn};
use core::pin::{Pin, pin};
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, PoisonError, Weak};
use std::task::Wake;

use bytes::Bytes;
use serde_json::{Value, json};
use shuttle::future::{JoinHandle, spawn};

use super::wait;
use crate::client::waiters::{Parked, poll_parked};
use crate::client::{
    Client, Clock, Received, Runtime, Setup, Spawn, Timer, Transport, WriteFailed, client,
};
use crate::event::input::Ended;
use crate::sync::Mutex;
use crate::{Cause, Config, ConnectRequest, Frame, Opened, Time};

/// The clock, the wire, and the tasks that were spawned.
#[derive(Clone, Default)]
pub(super) struct World {
    stage: Arc<Mutex<Stage>>,
    /// Its lock is not a point where tasks are switched, because the clock is read too often for that
    /// to be useful.
    now: Arc<std::sync::Mutex<Time>>,
    tasks: Arc<std::sync::Mutex<Vec<JoinHandle<Option<()>>>>>,
}

#[derive(Default)]
struct Stage {
    numbers: u64,
    wires: BTreeMap<u64, ToClient>,
    to_server: VecDeque<(u64, Value)>,
    server: Parked,
    /// Everything that the client sent.
    sent: Vec<Value>,
    /// Whether tasks that are spawned are dropped at once.
    drops_tasks: bool,
    timers: BTreeMap<u64, (Time, Parked)>,
}

/// What a client reads from one wire.
#[derive(Default)]
struct ToClient {
    received: VecDeque<Received>,
    reader: Parked,
}

impl World {
    /// A world whose server answers joins, leaves, heartbeats and every push with the event `ask`.
    pub(super) fn new() -> Self {
        let world = Self::default();
        drop(spawn(world.clone().serve()));
        world
    }

    /// A client that connects; its driver is a task.
    pub(super) fn client<S: Into<Setup>>(&self, configure: impl FnOnce(Config) -> S) -> Client {
        crate::client::start(configure(config()), self.clone())
    }

    /// A client that connects, and the task of its driver.
    pub(super) fn client_and_driver(&self) -> (Client, JoinHandle<Option<()>>) {
        let (client, driver) = client(config(), self.clone());
        client.connect();
        (client, run(driver))
    }

    /// Waits until every spawned task has ended. Panics if one was forgotten.
    pub(super) fn ended(&self) {
        loop {
            let task = lock(&self.tasks).pop();
            let Some(task) = task else { return };
            finish(task);
        }
    }

    /// Cancels every spawned task, like a runtime that ends.
    pub(super) fn abort(&self) {
        lock(&self.tasks).iter().for_each(JoinHandle::abort);
        lock(&self.tasks).clear();
    }

    /// Tasks that are spawned from now on are dropped unpolled.
    pub(super) fn drop_tasks(&self) {
        self.stage.lock().drops_tasks = true;
    }

    pub(super) fn sent(&self, event: &str) -> Vec<Value> {
        let stage = self.stage.lock();
        stage.sent.iter().filter(|message| message[3] == event).cloned().collect()
    }

    /// Broadcasts a message on the newest connection.
    pub(super) fn say(&self, topic: &str, event: &str, payload: Value) {
        self.send(self.newest(), &json!([null, null, topic, event, payload]));
    }

    /// Loses the newest connection.
    pub(super) fn cut(&self) {
        let message = "cut".to_owned();
        self.receive(self.newest(), Received::Ended(Ended::Lost { message }));
    }

    fn newest(&self) -> u64 {
        self.stage.lock().wires.keys().next_back().copied().unwrap_or_default()
    }

    /// Moves the clock.
    pub(super) fn advance(&self, by: Duration) {
        let now = {
            let mut now = lock(&self.now);
            *now += by;
            *now
        };
        let mut stage = self.stage.lock();
        let due = stage.timers.values_mut().filter(|(at, _)| *at <= now);
        let wakers: Vec<Waker> = due.filter_map(|(_, parked)| parked.take()).collect();
        drop(stage);
        wakers.into_iter().for_each(Waker::wake);
    }

    fn send(&self, wire: u64, message: &Value) {
        let frame = Frame::Text(Bytes::from(message.to_string()));
        self.receive(wire, Received::Frame(frame));
    }

    /// Puts something on a wire, unless the client has dropped it.
    fn receive(&self, wire: u64, received: Received) {
        let mut stage = self.stage.lock();
        let reader = stage.wires.get_mut(&wire).and_then(|wire| {
            wire.received.push_back(received);
            wire.reader.take()
        });
        drop(stage);
        reader.into_iter().for_each(Waker::wake);
    }

    async fn serve(self) {
        loop {
            let (wire, sent) = poll_fn(|cx| {
                poll_parked(cx, |task| {
                    let mut stage = self.stage.lock();
                    match stage.to_server.pop_front() {
                        Some(sent) => Poll::Ready(sent),
                        None => stage.server.park(task),
                    }
                })
            })
            .await;
            let event = sent[3].as_str().unwrap_or_default();
            if matches!(event, "phx_join" | "phx_leave" | "heartbeat" | "ask") {
                let body = json!({"status": "ok", "response": {}});
                self.send(wire, &json!([sent[0], sent[1], sent[2], "phx_reply", body]));
            }
            if event == "phx_leave" {
                self.send(wire, &json!([sent[0], sent[0], sent[2], "phx_close", {}]));
            }
        }
    }

    fn number(&self) -> u64 {
        let mut stage = self.stage.lock();
        stage.numbers += 1;
        stage.numbers
    }
}

/// Runs a future as an [`owned`] task.
pub(crate) fn run<T: Send + 'static>(
    future: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<Option<T>> {
    spawn(owned(future))
}

/// The output of a task. Panics if the task was cancelled or forgotten.
pub(crate) fn finish<T>(task: JoinHandle<Option<T>>) -> T {
    wait(task).expect("not aborted").expect("a task was not woken any more")
}

/// A waker that calls a function when it is woken and when the last clone of it is dropped.
pub(super) fn calling(call: impl Fn() + Send + Sync + 'static) -> Waker {
    struct Calling<F: Fn()>(F);
    impl<F: Fn() + Send + Sync + 'static> Wake for Calling<F> {
        fn wake(self: Arc<Self>) {
            (self.0)();
        }
    }
    impl<F: Fn()> Drop for Calling<F> {
        fn drop(&mut self) {
            (self.0)();
        }
    }
    Waker::from(Arc::new(Calling(call)))
}

/// Polls a future with another waker first, and from the next poll on with the waker of its task.
pub(super) async fn with_two_wakers<F: Future>(other: Waker, future: F) -> F::Output {
    let mut future = pin!(future);
    let mut other = Some(other);
    poll_fn(move |cx| match other.take() {
        Some(other) => {
            cx.waker().wake_by_ref();
            future.as_mut().poll(&mut Context::from_waker(&other))
        }
        None => future.as_mut().poll(cx),
    })
    .await
}

/// Polls a future once, and drops it together with the last clone of its waker.
pub(super) fn polled_once(waker: Waker, future: impl Future) {
    let mut future = pin!(future);
    let _ = future.as_mut().poll(&mut Context::from_waker(&waker));
    drop(waker);
    shuttle::thread::yield_now();
}

pub(super) fn config() -> Config {
    Config::new("ws://localhost:4000/socket/websocket").expect("a valid URI")
}

impl Clock for World {
    fn now(&self) -> Time {
        *lock(&self.now)
    }

    fn wall(&self) -> Time {
        self.now()
    }
}

impl Runtime for World {
    type Clock = Self;
    type Transport = Wire;
    type Timer = WorldTimer;
    type Dial = Dial;

    fn clock(&self) -> Self {
        self.clone()
    }

    fn seed(&self) -> u64 {
        self.number()
    }

    fn timer(&self) -> WorldTimer {
        WorldTimer { world: self.clone(), number: self.number(), at: None }
    }

    fn connect(&self, _: ConnectRequest, _: &Config) -> Dial {
        Dial(self.clone())
    }
}

impl<F: Future<Output = ()> + Send + 'static> Spawn<F> for World {
    fn spawn(&self, future: F) {
        if !self.stage.lock().drops_tasks {
            let task = run(future);
            lock(&self.tasks).push(task);
        }
    }
}

pub(super) struct Dial(World);

impl Future for Dial {
    type Output = Result<(Wire, Opened), Cause>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        let number = self.0.number();
        self.0.stage.lock().wires.insert(number, ToClient::default());
        Poll::Ready(Ok((Wire { world: self.0.clone(), number }, Opened::default())))
    }
}

/// The client's end of the wire.
pub(super) struct Wire {
    world: World,
    number: u64,
}

impl Transport for Wire {
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Received> {
        poll_parked(cx, |task| {
            let mut stage = self.world.stage.lock();
            let wire = stage.wires.entry(self.number).or_default();
            match wire.received.pop_front() {
                Some(received) => Poll::Ready(received),
                None => wire.reader.park(task),
            }
        })
    }

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), WriteFailed>> {
        Poll::Ready(Ok(()))
    }

    fn send(&mut self, frame: Frame) -> Result<(), WriteFailed> {
        let message = match frame {
            Frame::Text(text) => serde_json::from_slice(&text).expect("JSON"),
            Frame::Binary(_) => Value::Null,
        };
        let mut stage = self.world.stage.lock();
        stage.sent.push(message.clone());
        stage.to_server.push_back((self.number, message));
        let server = stage.server.take();
        drop(stage);
        server.into_iter().for_each(Waker::wake);
        Ok(())
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), WriteFailed>> {
        Poll::Ready(Ok(()))
    }

    fn close(&mut self, code: u16, reason: &str) {
        let ended = Ended::CloseFrame { code: Some(code), reason: reason.to_owned() };
        self.world.receive(self.number, Received::Ended(ended));
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let wire = self.world.stage.lock().wires.remove(&self.number);
        drop(wire);
    }
}

pub(super) struct WorldTimer {
    world: World,
    number: u64,
    at: Option<Time>,
}

impl Timer for WorldTimer {
    fn reset(&mut self, at: Option<Time>) {
        self.at = at;
        let parked = self.world.stage.lock().timers.remove(&self.number);
        drop(parked);
    }

    fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else { return Poll::Pending };
        poll_parked(cx, |task| {
            let mut stage = self.world.stage.lock();
            if at <= self.world.now() {
                return Poll::Ready(());
            }
            let number = self.number;
            let (_, parked) = stage.timers.entry(number).or_insert((at, Parked::new()));
            parked.park(task)
        })
    }
}

impl Drop for WorldTimer {
    fn drop(&mut self) {
        self.reset(None);
    }
}

/// A future as the task of an executor whose wakers own their tasks, like the executor of the async
/// book. The future is dropped with the last of its wakers, wherever that happens. Then the result is
/// `None`, because no waker is left that could wake the task.
pub(super) fn owned<T: Send + 'static>(
    future: impl Future<Output = T> + Send + 'static,
) -> Owned<T> {
    let future: Boxed<T> = Box::pin(future);
    let place = Arc::new(Place { queued: std::sync::Mutex::default(), outer: Default::default() });
    let task =
        Arc::new(Task { future: std::sync::Mutex::new(Some(future)), place: Arc::clone(&place) });
    let weak = Arc::downgrade(&task);
    *lock(&place.queued) = Some(task);
    Owned { task: weak, place }
}

/// The executor's side of an [`owned`] task. Dropping it cancels the task.
pub(super) struct Owned<T> {
    task: Weak<Task<T>>,
    place: Arc<Place<T>>,
}

/// The place where a task is queued when it is woken. Its locks are not points where tasks are
/// switched: no other operation happens while one is held.
struct Place<T> {
    queued: std::sync::Mutex<Option<Arc<Task<T>>>>,
    /// The waker of shuttle's task.
    outer: std::sync::Mutex<Option<Waker>>,
}

struct Task<T> {
    /// Only the executor locks this.
    future: std::sync::Mutex<Option<Boxed<T>>>,
    place: Arc<Place<T>>,
}

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl<T: Send + 'static> Future for Owned<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        *lock(&self.place.outer) = Some(cx.waker().clone());
        let queued = lock(&self.place.queued).take();
        let Some(task) = queued else {
            // If the task was dropped, by this poll or before it, no reference is left.
            let is_forgotten = self.task.strong_count() == 0;
            return if is_forgotten { Poll::Ready(None) } else { Poll::Pending };
        };
        let waker = Waker::from(Arc::clone(&task));
        let mut future = lock(&task.future);
        let running = future.as_mut().expect("it has not ended");
        let polled = running.as_mut().poll(&mut Context::from_waker(&waker));
        let done = if polled.is_ready() { future.take() } else { None };
        drop(future);
        drop((done, waker, task));
        polled.map(Some)
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        let queued = lock(&self.place.queued).take();
        let task = queued.or_else(|| self.task.upgrade());
        let cancelled = task.and_then(|task| lock(&task.future).take());
        drop(cancelled);
    }
}

impl<T: Send + 'static> Wake for Task<T> {
    fn wake(self: Arc<Self>) {
        let place = Arc::clone(&self.place);
        let before = lock(&place.queued).replace(self);
        drop(before);
        place.wake();
    }
}

impl<T> Place<T> {
    fn wake(&self) {
        let waker = lock(&self.outer).clone();
        waker.into_iter().for_each(Waker::wake);
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.place.wake();
    }
}

fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
