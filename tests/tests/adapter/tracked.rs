//! The runtime under test, with an eye on its tasks: which of them have not ended, and whether one
//! of them panicked; and with a clock that can be set ahead.

use core::future::Future;
use core::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::clock::{Clock, Timer};
use crate::rt::Runtime;
use crate::rt::phx::client;
use crate::rt::phx::event::{Cause, ConnectRequest, Opened};
use crate::rt::phx::time::Time;
use crate::rt::phx::{Client, Config, Signals};

/// Runs a task in the background.
pub(crate) type Spawn = Arc<dyn Fn(Pin<Box<dyn Future<Output = ()> + Send>>) + Send + Sync>;

#[derive(Clone)]
pub(crate) struct Tracked {
    inner: Runtime,
    tasks: Arc<Tasks>,
    spawn: Option<Spawn>,
    clock: Clock,
}

#[derive(Default)]
struct Tasks {
    live: AtomicUsize,
    panicked: AtomicBool,
}

impl Tracked {
    pub(crate) fn new() -> Self {
        Self { inner: Runtime::new(), tasks: Arc::default(), spawn: None, clock: Clock::default() }
    }

    /// Spawns elsewhere than the adapter does.
    pub(crate) fn spawning(spawn: Spawn) -> Self {
        Self { spawn: Some(spawn), ..Self::new() }
    }

    /// The clock of every client that it drives.
    pub(crate) const fn clock(&self) -> &Clock {
        &self.clock
    }

    /// A client that is connecting, and all of its signals from the first one on.
    pub(crate) fn start_watched(&self, config: Config) -> (Client, Signals) {
        let (client, driver) = client::client(config, self.clone());
        let signals = client.signals();
        client.connect();
        client::Runtime::spawn(self, driver);
        (client, signals)
    }

    /// How many tasks were neither completed nor dropped.
    pub(crate) fn live(&self) -> usize {
        self.tasks.live.load(Ordering::SeqCst)
    }

    pub(crate) fn panicked(&self) -> bool {
        self.tasks.panicked.load(Ordering::SeqCst)
    }
}

/// Lives as long as its task.
struct Alive(Arc<Tasks>);

impl Drop for Alive {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.panicked.store(true, Ordering::SeqCst);
        }
        self.0.live.fetch_sub(1, Ordering::SeqCst);
    }
}

impl client::Runtime for Tracked {
    type Transport = <Runtime as client::Runtime>::Transport;
    type Timer = Timer;

    fn now(&self) -> Time {
        self.inner.now() + self.clock.ahead()
    }

    fn wall(&self) -> Time {
        self.inner.wall() + self.clock.ahead()
    }

    fn seed(&self) -> u64 {
        self.inner.seed()
    }

    fn timer(&self) -> Self::Timer {
        self.clock.timer(self.inner.timer())
    }

    fn connect(
        &self,
        request: ConnectRequest,
        config: &Config,
    ) -> impl Future<Output = Result<(Self::Transport, Opened), Cause>> + Send + 'static {
        self.inner.connect(request, config)
    }

    fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        self.tasks.live.fetch_add(1, Ordering::SeqCst);
        let alive = Alive(Arc::clone(&self.tasks));
        // The future goes first, the guard last, when it is completed and when it is dropped.
        let task = async move {
            let _alive = alive;
            future.await;
        };
        match &self.spawn {
            None => self.inner.spawn(task),
            Some(spawn) => spawn(Box::pin(task)),
        }
    }
}
