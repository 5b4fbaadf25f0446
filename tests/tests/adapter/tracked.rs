//! The runtime under test, with a count of its live tasks, a flag for panics, and a clock that can be
//! advanced.

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use super::clock::{Clock, RuntimeTimer, Timer};
use crate::rt::Runtime;
use crate::rt::phx::client::{self, Driver};
use crate::rt::phx::event::ConnectRequest;
use crate::rt::phx::time::Time;
use crate::rt::phx::{Client, Config, Signals};

type RuntimeClock = <Runtime as client::Runtime>::Clock;

#[derive(Clone)]
pub(crate) struct Tracked<R = Runtime> {
    inner: R,
    tasks: Arc<Tasks>,
    clock: Clock,
}

#[derive(Default)]
struct Tasks {
    live: AtomicUsize,
    panicked: AtomicBool,
}

impl Tracked {
    pub(crate) fn new() -> Self {
        Self::over(Runtime::new())
    }
}

impl<R> Tracked<R> {
    pub(crate) fn over(inner: R) -> Self {
        Self { inner, tasks: Arc::default(), clock: Clock::default() }
    }

    /// The clock of every client on this runtime.
    pub(crate) const fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Starts a client, and returns it with a stream of all of its signals.
    pub(crate) fn start_watched(&self, config: Config) -> (Client, Signals)
    where
        Self: client::Runtime + client::Spawn<Driver<Self>>,
    {
        let (client, driver) = client::client(config, self.clone());
        let signals = client.signals();
        client.connect();
        client::Spawn::spawn(self, driver);
        (client, signals)
    }

    /// The number of tasks that were neither completed nor dropped.
    pub(crate) fn live(&self) -> usize {
        self.tasks.live.load(Ordering::SeqCst)
    }

    pub(crate) fn panicked(&self) -> bool {
        self.tasks.panicked.load(Ordering::SeqCst)
    }

    fn watched<F>(&self, future: F) -> Watched<F> {
        self.tasks.live.fetch_add(1, Ordering::SeqCst);
        let _alive = Alive(Arc::clone(&self.tasks));
        Watched { future: Some(Box::pin(future)), _alive }
    }
}

/// A guard that lives as long as its task.
struct Alive(Arc<Tasks>);

impl Drop for Alive {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.panicked.store(true, Ordering::SeqCst);
        }
        self.0.live.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The clock of the adapter plus the offset.
#[derive(Clone)]
pub(crate) struct TrackedClock {
    inner: RuntimeClock,
    ahead: Arc<AtomicU64>,
}

impl TrackedClock {
    fn ahead(&self) -> Duration {
        Duration::from_nanos(self.ahead.load(Ordering::SeqCst))
    }
}

impl client::Clock for TrackedClock {
    fn now(&self) -> Time {
        client::Clock::now(&self.inner) + self.ahead()
    }

    fn wall(&self) -> Time {
        client::Clock::wall(&self.inner) + self.ahead()
    }
}

impl<R> client::Runtime for Tracked<R>
where
    R: client::Runtime<Clock = RuntimeClock, Timer = RuntimeTimer>,
{
    type Clock = TrackedClock;
    type Transport = R::Transport;
    type Timer = Timer;
    type Dial = R::Dial;

    fn clock(&self) -> TrackedClock {
        TrackedClock { inner: self.inner.clock(), ahead: self.clock.ahead() }
    }

    fn seed(&self) -> u64 {
        self.inner.seed()
    }

    fn timer(&self) -> Self::Timer {
        self.clock.timer(self.inner.timer())
    }

    fn connect(&self, request: ConnectRequest, config: &Config) -> Self::Dial {
        self.inner.connect(request, config)
    }
}

/// A task with its guard.
pub(crate) struct Watched<F> {
    // The field comes before the guard, so the future is dropped first.
    future: Option<Pin<Box<F>>>,
    _alive: Alive,
}

impl<F: Future<Output = ()>> Future for Watched<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(future) = &mut self.future else { return Poll::Ready(()) };
        let polled = future.as_mut().poll(cx);
        if polled.is_ready() {
            self.future = None;
        }
        polled
    }
}

impl<R: client::Spawn<Watched<F>>, F> client::Spawn<F> for Tracked<R> {
    fn spawn(&self, future: F) {
        self.inner.spawn(self.watched(future));
    }
}
