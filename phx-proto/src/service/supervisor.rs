//! The supervisor: named connections, each run by its own task.
//!
//! ```text
//!   start_connection ─▶ Entry ◀─ status, client, stop
//!                         │
//!                       keeper (one task): Driver ─▶ signals ─▶ Router ─▶ Bus
//!                         │ ended
//!                         ▼
//!                       Supervision ─▶ connect again after a delay, or stay ended
//! ```
//!
//! Each connection has a keeper. The keeper owns the driver of the connection and polls it inside
//! `catch_unwind`, so a panic on one connection does not affect another. The keeper reads the
//! signals right after the driver emitted them, in the same task, so the queue between driver and
//! keeper stays short. If the queue overflows, an event reports the number of lost signals.

use core::fmt;
use core::future::{Future, poll_fn};
use core::pin::{Pin, pin};
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::bus::Bus;
use super::keeper::{Keeping, Outlet, keep};
use crate::client::waiters::{Parked, poll_parked};
use crate::client::{Client, Clock, Driver, Runtime, Setup, Spawn, Timer, Unfinished};
use crate::config::Config;
use crate::event::cause::Cause;
use crate::service::document::{ConnectionSpec, Connections};
use crate::service::metrics::ConnectionMetrics;
use crate::service::router::{EventIds, Router};
use crate::service::supervision::{Ending, RestartPolicy};
use crate::socket::Lifecycle;
use crate::socket::Status;
use crate::sync::{Mutex, MutexGuard};
use crate::time::Time;

/// A supervisor of named connections. Clones share it; when the last clone is dropped, its
/// connections are closed.
///
/// ```
/// # use phx_proto::service::Supervisor;
/// # async fn example(supervisor: Supervisor) -> Result<(), Box<dyn std::error::Error>> {
/// use core::time::Duration;
/// use phx_proto::service::Supervised;
/// use phx_proto::Config;
/// use phx_proto::service::{Restart, RestartPolicy};
///
/// let config = Config::new("wss://example.com/socket/websocket")?;
/// let always = RestartPolicy::new(Restart::Permanent);
/// supervisor.start_connection("backend", Supervised::new(config).restart(always))?;
///
/// let room = supervisor.client("backend")?.join("room:lobby", serde_json::json!({})).await?;
/// println!("{:?}", supervisor.connection_status("backend")?.lifecycle);
/// # let _ = room;
///
/// let unfinished = supervisor.shutdown(Duration::from_secs(5)).await;
/// assert!(unfinished.is_empty());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Supervisor {
    inner: Arc<Inner>,
}

struct Inner {
    entries: Mutex<Entries>,
    spawn: Box<dyn Fn(Supervised, Keeping) + Send + Sync>,
    sleep: Box<dyn Fn(Duration) -> Task + Send + Sync>,
    bus: Bus,
}

/// The connections of a supervisor.
#[derive(Default)]
struct Entries {
    by_name: BTreeMap<String, Arc<Entry>>,
    /// No connection may be started any more.
    shut_down: bool,
}

/// The future that a [`Supervisor`] spawns.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The extra time that the end of a connection may take, so that its task can be polled.
const SLACK: Duration = Duration::from_secs(1);

/// The setup of a supervised connection: how to connect, when to restart, and which attributes its
/// events have.
#[derive(Clone, Debug)]
pub struct Supervised {
    pub(super) setup: Setup,
    pub(super) policy: RestartPolicy,
    pub(super) attributes: BTreeMap<String, String>,
    /// The document names files for TLS that were not read.
    unread_files: bool,
}

/// The status of one connection.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ConnectionStatus {
    /// The state in short.
    pub lifecycle: Lifecycle,
    /// The state in detail.
    pub state: SupervisedState,
    /// The number of restarts.
    pub restarts: u64,
    /// The cause of the last loss or end.
    pub last_cause: Option<Cause>,
}

/// The state of a supervised connection.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum SupervisedState {
    /// The connection runs, in this state.
    Running(Status),
    /// The connection ended and will be restarted.
    Restarting {
        /// The time of the restart, on the clock of the connection's runtime.
        until: Time,
        /// How the connection ended.
        ending: Ending,
    },
    /// The connection ended and is not restarted.
    Ended {
        /// How the connection ended.
        ending: Ending,
        /// Whether it was not restarted because of too many restarts within the window.
        exhausted: bool,
    },
}

/// The status of all connections.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Health {
    /// The status of each connection, by name.
    pub connections: BTreeMap<String, ConnectionStatus>,
}

impl Health {
    /// The number of open connections.
    #[must_use]
    pub fn ready(&self) -> usize {
        self.connections.values().filter(|status| status.lifecycle == Lifecycle::Ready).count()
    }

    /// Whether all connections are open.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.ready() == self.connections.len()
    }
}

/// There is no connection with this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no connection {name:?}")]
#[non_exhaustive]
pub struct UnknownConnection {
    /// The name of the connection.
    pub name: String,
}

impl UnknownConnection {
    /// Makes the error for a name.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }
}

/// A connection could not be started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A connection with this name is running. Stop it first, or choose another name.
    #[error("connection {name:?} is already running: stop it first, or choose another name")]
    Duplicate {
        /// The name of the connection.
        name: String,
    },
    /// The supervisor was shut down.
    #[error("connection {name:?} was not started: the supervisor was shut down")]
    ShutDown {
        /// The name of the connection.
        name: String,
    },
    /// The `tls` key of the connection names files that were not read: call `Connections::load_tls`
    /// first.
    #[error(
        "connection {name:?} was not started: the files of its key \"tls\" were not read: call `Connections::load_tls` first"
    )]
    UnreadFiles {
        /// The name of the connection.
        name: String,
    },
}

/// The state of one named connection, which the supervisor and the keeper share.
pub(super) struct Entry {
    pub(super) name: String,
    close_timeout: Duration,
    state: Mutex<EntryState>,
}

struct EntryState {
    client: Option<Client>,
    state: SupervisedState,
    restarts: u64,
    last_cause: Option<Cause>,
    stop: bool,
    /// The keeper has ended.
    done: bool,
    keeper: Parked,
    waiting: BTreeMap<u64, Parked>,
    next_id: u64,
}

impl Supervised {
    /// Makes a setup with the default restart policy and no attributes.
    #[must_use]
    pub fn new(setup: impl Into<Setup>) -> Self {
        let policy = RestartPolicy::default();
        Self { setup: setup.into(), policy, attributes: BTreeMap::new(), unread_files: false }
    }

    /// Sets the restart policy.
    #[must_use]
    pub fn restart(mut self, policy: RestartPolicy) -> Self {
        self.policy = policy;
        self
    }
}

impl From<Config> for Supervised {
    fn from(config: Config) -> Self {
        Self::new(config)
    }
}

impl From<Setup> for Supervised {
    fn from(setup: Setup) -> Self {
        Self::new(setup)
    }
}

impl From<ConnectionSpec> for Supervised {
    fn from(spec: ConnectionSpec) -> Self {
        let ConnectionSpec { config, restart, attributes, tls, .. } = spec;
        Self { setup: config.into(), policy: restart, attributes, unread_files: tls.is_some() }
    }
}

impl Supervisor {
    /// Makes a supervisor without connections. The router turns their signals into events on the
    /// [`bus`](Self::bus). The supervisor's methods may be called from any thread, so it needs a
    /// runtime whose drivers are `Send`.
    #[must_use]
    pub fn new<R>(runtime: R, router: Router) -> Self
    where
        R: Runtime + Spawn<Task> + Send + Sync,
        R::Timer: Send,
        Driver<R>: Send,
    {
        let bus = Bus::of(router.clone());
        let ids = Arc::new(Mutex::new(EventIds::new(runtime.seed())));
        let outlet_bus = bus.clone();
        let (timers, clock) = (runtime.clone(), runtime.clock());
        let sleep = move |length| -> Task {
            let mut timer = timers.timer();
            timer.reset(Some(clock.now() + length));
            Box::pin(poll_fn(move |cx| timer.poll_expired(cx)))
        };
        let spawn = move |supervised: Supervised, keeping: Keeping| {
            let outlet = Outlet {
                bus: outlet_bus.clone(),
                router: router.clone(),
                ids: Arc::clone(&ids),
                attributes: supervised.attributes.clone(),
            };
            runtime.spawn(Box::pin(keep(runtime.clone(), supervised, keeping, outlet)));
        };
        let (entries, spawn, sleep) = (Mutex::default(), Box::new(spawn), Box::new(sleep));
        Self { inner: Arc::new(Inner { entries, spawn, sleep, bus }) }
    }

    /// The bus with the events of every connection.
    ///
    /// An event is made only when a subscription matches it. Without one, no event is built and no
    /// id is drawn. Ids sort by time; a gap between two ids does not mean that an event was lost.
    #[must_use]
    pub fn bus(&self) -> &Bus {
        &self.inner.bus
    }

    /// Starts a connection under a name and supervises it. Several connections may use the same
    /// server.
    ///
    /// The name of a connection that has ended can be used again.
    ///
    /// # Errors
    ///
    /// [`StartError`]; the connection was not started.
    pub fn start_connection(
        &self,
        name: impl Into<String>,
        supervised: impl Into<Supervised>,
    ) -> Result<(), StartError> {
        self.start_all(vec![(name.into(), supervised.into())])
    }

    /// Starts every connection of a document.
    ///
    /// # Errors
    ///
    /// [`StartError`] when the supervisor was shut down, a name is in use, or files for TLS were
    /// not read. No connection was started.
    pub fn start_configured(&self, connections: Connections) -> Result<(), StartError> {
        self.start_all(connections.into_iter().map(|(name, spec)| (name, spec.into())).collect())
    }

    /// Starts all of these connections, whose names differ, or none.
    fn start_all(&self, connections: Vec<(String, Supervised)>) -> Result<(), StartError> {
        if let Some((name, _)) = connections.iter().find(|(_, it)| it.unread_files) {
            return Err(StartError::UnreadFiles { name: name.clone() });
        }
        let entry = |(name, it): &(String, Supervised)| {
            Arc::new(Entry::new(name.clone(), it.setup.config.close_timeout))
        };
        let new: Vec<Arc<Entry>> = connections.iter().map(entry).collect();
        let mut entries = self.inner.lock();
        if let (true, Some(entry)) = (entries.shut_down, new.first()) {
            return Err(StartError::ShutDown { name: entry.name.clone() });
        }
        let taken = |new: &&Arc<Entry>| {
            entries.by_name.get(&new.name).is_some_and(|entry| !entry.is_done())
        };
        if let Some(entry) = new.iter().find(taken) {
            return Err(StartError::Duplicate { name: entry.name.clone() });
        }
        let insert = |new: &Arc<Entry>| entries.by_name.insert(new.name.clone(), Arc::clone(new));
        let ended: Vec<_> = new.iter().filter_map(insert).collect();
        drop(entries);
        drop(ended);
        let starting =
            new.into_iter().map(|entry| Starting { supervisor: self, entry: Some(entry) });
        // Each name is inserted, so if a spawn panics, the drop of the others removes them.
        let starting: Vec<_> = starting.collect();
        for (mut starting, (_, supervised)) in starting.into_iter().zip(connections) {
            let Some(entry) = &starting.entry else { continue };
            (self.inner.spawn)(supervised, Keeping::new(Arc::clone(entry)));
            starting.entry = None;
        }
        Ok(())
    }

    /// Closes a connection, waits until it is closed, and removes its name. The call waits at most
    /// [`Config::close_timeout`](crate::Config::close_timeout) plus one second.
    ///
    /// Cancel safe: the connection still closes when the future is dropped, and its name can then
    /// be used again.
    ///
    /// # Errors
    ///
    /// [`UnknownConnection`] when there is no connection with this name.
    pub async fn stop_connection(&self, name: &str) -> Result<(), UnknownConnection> {
        let entry = self.entry(name)?;
        entry.stop();
        self.within(entry.close_timeout, entry.ended()).await;
        self.forget(name, &entry);
        Ok(())
    }

    /// Shuts down one connection gracefully: waits for its pushes, leaves its channels, closes its
    /// socket, and removes its name. Returns what could not be finished within `grace`. The other
    /// connections and the bus are not affected. The call takes at most `grace` plus
    /// [`Config::close_timeout`](crate::Config::close_timeout) plus one second, even if the
    /// executor no longer polls the connection. [`shutdown`](Self::shutdown) does this for all
    /// connections.
    ///
    /// Cancel safe: when the future is dropped, the remaining steps are skipped, and the connection
    /// is not restarted. To finish, call this function again, or
    /// [`stop_connection`](Self::stop_connection).
    ///
    /// # Errors
    ///
    /// [`UnknownConnection`] when there is no connection with this name.
    pub async fn shutdown_connection(
        &self,
        name: &str,
        grace: Duration,
    ) -> Result<Unfinished, UnknownConnection> {
        let entry = self.entry(name)?;
        let unfinished = self.end(&entry, grace).await;
        self.forget(name, &entry);
        Ok(unfinished)
    }

    /// The names of all connections in order, including those that have ended.
    #[must_use]
    pub fn list_connections(&self) -> Vec<String> {
        self.inner.lock().by_name.keys().cloned().collect()
    }

    /// The status of a connection, in every state.
    ///
    /// # Errors
    ///
    /// [`UnknownConnection`] when there is no connection with this name.
    pub fn connection_status(&self, name: &str) -> Result<ConnectionStatus, UnknownConnection> {
        Ok(self.entry(name)?.status())
    }

    /// The status of all connections.
    ///
    /// ```
    /// # fn example(supervisor: phx_proto::service::Supervisor) {
    /// let health = supervisor.health();
    /// println!("{} of {} ready", health.ready(), health.connections.len());
    /// # }
    /// ```
    #[must_use]
    pub fn health(&self) -> Health {
        let status = |entry: Arc<Entry>| (entry.name.clone(), entry.status());
        Health { connections: self.inner.entries().into_iter().map(status).collect() }
    }

    /// The counters of every connection, for
    /// [`metrics::openmetrics`](crate::service::metrics::openmetrics). A connection that has ended
    /// is included without counters.
    ///
    /// ```
    /// # fn example(supervisor: phx_proto::service::Supervisor) {
    /// let page = phx_proto::service::metrics::openmetrics(&supervisor.metrics());
    /// # let _ = page;
    /// # }
    /// ```
    #[must_use]
    pub fn metrics(&self) -> Vec<ConnectionMetrics> {
        self.inner.entries().iter().map(|entry| entry.metrics()).collect()
    }

    /// The client of a connection. It stays the same through restarts: after giving up, the client
    /// starts over with a new seed for its jitter and only the auto-joins. Only a panic of the
    /// driver replaces the client; the old one reports [`Cause::DriverPanicked`].
    ///
    /// [`Client::disconnect`] ends the connection; [`start_connection`](Self::start_connection) can
    /// then start another one with this name.
    ///
    /// # Errors
    ///
    /// [`UnknownConnection`] when there is no connection with this name, or it has ended.
    pub fn client(&self, name: &str) -> Result<Client, UnknownConnection> {
        let client = self.entry(name)?.lock().client.clone();
        client.ok_or_else(|| UnknownConnection { name: name.to_owned() })
    }

    /// Shuts down every connection gracefully, all at the same time: waits for their pushes, leaves
    /// their channels, closes their sockets ([`Client::shutdown`]), and then closes the bus.
    /// Returns what could not be finished within `grace`, by connection. After the call no
    /// connection can be started. The call takes no longer than
    /// [`shutdown_connection`](Self::shutdown_connection).
    ///
    /// Cancel safe: when the future is dropped, the remaining steps are skipped. To finish, call
    /// this function again.
    pub async fn shutdown(&self, grace: Duration) -> BTreeMap<String, Unfinished> {
        self.inner.lock().shut_down = true;
        let ends = self.inner.entries().into_iter().map(|entry| {
            Box::pin(async move {
                let unfinished = self.end(&entry, grace).await;
                (entry.name.clone(), unfinished)
            })
        });
        let unfinished = all(ends.collect()).await;
        let ended = core::mem::take(&mut self.inner.lock().by_name);
        drop(ended);
        self.inner.bus.close();
        unfinished.into_iter().filter(|(_, unfinished)| !unfinished.is_empty()).collect()
    }

    /// Removes a name, unless another connection has it by now.
    fn forget(&self, name: &str, entry: &Arc<Entry>) {
        let mut entries = self.inner.lock();
        let by_name = &mut entries.by_name;
        let is_current = by_name.get(name).is_some_and(|current| Arc::ptr_eq(current, entry));
        // The caller still has a reference, `entry`, so no entry is freed under the lock.
        is_current.then(|| by_name.remove(name));
    }

    /// Shuts down one connection gracefully, and returns what was not finished.
    async fn end(&self, entry: &Entry, grace: Duration) -> Unfinished {
        let client = entry.begin_stop();
        let limit = grace.saturating_add(entry.close_timeout);
        let mut unfinished = Unfinished::default();
        let in_order = async {
            if let Some(client) = &client {
                client.shut_down(grace, &mut unfinished).await;
            }
            entry.ended().await;
        };
        if self.within(limit, in_order).await.is_none() {
            // The executor does not poll the task, so the connection is closed without it.
            entry.stop();
            unfinished.running = true;
        }
        unfinished
    }

    /// The output of a future; `None` if it takes longer than `limit` and some slack.
    async fn within<F: Future>(&self, limit: Duration, future: F) -> Option<F::Output> {
        let mut late = (self.inner.sleep)(limit.saturating_add(SLACK));
        let mut future = pin!(future);
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => late.as_mut().poll(cx).map(|()| None),
        })
        .await
    }

    fn entry(&self, name: &str) -> Result<Arc<Entry>, UnknownConnection> {
        let found = self.inner.lock().by_name.get(name).cloned();
        found.ok_or_else(|| UnknownConnection { name: name.to_owned() })
    }
}

impl fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supervisor").field("connections", &self.list_connections()).finish()
    }
}

/// A connection whose keeper is to be spawned. If spawning panics, the drop of this value removes
/// the name.
struct Starting<'a> {
    supervisor: &'a Supervisor,
    /// `None` once the keeper was spawned.
    entry: Option<Arc<Entry>>,
}

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        if let Some(entry) = &self.entry {
            self.supervisor.forget(&entry.name, entry);
        }
    }
}

impl Inner {
    /// Takes the lock. No application code runs under it, and no lock of a client is taken under it.
    /// The lock of an [`Entry`] may be.
    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock()
    }

    fn entries(&self) -> Vec<Arc<Entry>> {
        self.lock().by_name.values().cloned().collect()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.entries().iter().for_each(|entry| entry.stop());
    }
}

impl Entry {
    fn new(name: String, close_timeout: Duration) -> Self {
        let state = EntryState {
            client: None,
            state: SupervisedState::Running(Status::Idle),
            restarts: 0,
            last_cause: None,
            stop: false,
            done: false,
            keeper: Parked::new(),
            waiting: BTreeMap::new(),
            next_id: 0,
        };
        Self { name, close_timeout, state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, EntryState> {
        self.state.lock()
    }

    fn is_done(&self) -> bool {
        self.lock().done
    }

    fn status(&self) -> ConnectionStatus {
        let (client, mut status) = {
            let state = self.lock();
            let status = ConnectionStatus {
                lifecycle: Lifecycle::Initializing,
                state: state.state.clone(),
                restarts: state.restarts,
                last_cause: state.last_cause.clone(),
            };
            (state.client.clone(), status)
        };
        // The lock of the entry is not held here, because the client has its own lock.
        if let (SupervisedState::Running(running), Some(client)) = (&mut status.state, &client) {
            *running = client.status();
        }
        status.lifecycle = match &status.state {
            SupervisedState::Restarting { .. } => Lifecycle::Initializing,
            SupervisedState::Ended { .. } => Lifecycle::Terminated,
            SupervisedState::Running(status) => status.lifecycle(),
        };
        status
    }

    fn metrics(&self) -> ConnectionMetrics {
        let ConnectionStatus { lifecycle, restarts, .. } = self.status();
        let client = {
            let state = self.lock();
            state.client.clone().filter(|_| matches!(state.state, SupervisedState::Running(_)))
        };
        // A client can have given up before its keeper has noticed. Both parts then show the end.
        let client = client.filter(|_| lifecycle != Lifecycle::Terminated);
        // The lock of the entry is not held here, because the client has its own lock.
        let stats = client.map(|client| client.stats());
        ConnectionMetrics::new(self.name.as_str(), lifecycle, restarts, stats)
    }

    /// Prevents a restart, and returns the client if the connection runs.
    fn begin_stop(&self) -> Option<Client> {
        let mut state = self.lock();
        state.stop = true;
        let (client, keeper) = (state.client.clone(), state.keeper.take());
        drop(state);
        keeper.into_iter().for_each(Waker::wake);
        client
    }

    /// Ends the connection: closes the client, or ends the wait for a restart.
    fn stop(&self) {
        if let Some(client) = self.begin_stop() {
            client.close();
        }
    }

    /// Waits until the keeper has ended.
    async fn ended(&self) {
        let id = {
            let mut state = self.lock();
            state.next_id += 1;
            state.next_id
        };
        let _waiting = Waiting { entry: self, id };
        poll_fn(|cx| {
            poll_parked(cx, |task| {
                let mut state = self.lock();
                if state.done {
                    return Poll::Ready(());
                }
                let parked = state.waiting.entry(id).or_default();
                parked.park(task)
            })
        })
        .await;
    }
}

/// A waiter for the end of a keeper.
struct Waiting<'a> {
    entry: &'a Entry,
    id: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let parked = self.entry.lock().waiting.remove(&self.id);
        drop(parked);
    }
}

/// # For the keeper
impl Entry {
    /// Sets the client of the connection. If the connection was stopped in the meantime, closes the
    /// client at once.
    pub(super) fn serve(&self, client: &Client) {
        let mut state = self.lock();
        let replaced = state.client.replace(client.clone());
        let stop = state.stop;
        drop(state);
        drop(replaced);
        if stop {
            client.close();
        }
    }

    pub(super) fn lost(&self, cause: Cause) {
        self.lock().last_cause = Some(cause);
    }

    pub(super) fn set(&self, state: SupervisedState, restarts: u64) {
        let mut current = self.lock();
        current.state = state;
        current.restarts = restarts;
    }

    /// Whether the connection must end and must not be restarted.
    pub(super) fn is_stopped(&self) -> bool {
        self.lock().stop
    }

    /// Ready when the connection must stop; otherwise registers the keeper's waker.
    pub(super) fn poll_stop(&self, cx: &Context<'_>) -> Poll<()> {
        poll_parked(cx, |task| {
            let mut state = self.lock();
            if state.stop {
                return Poll::Ready(());
            }
            state.keeper.park(task)
        })
    }

    /// Called when the keeper has ended.
    pub(super) fn done(&self) {
        let mut state = self.lock();
        state.done = true;
        if !matches!(state.state, SupervisedState::Ended { .. }) {
            // The keeper was dropped with its runtime, or never polled.
            state.state = SupervisedState::Ended { ending: Ending::Closed, exhausted: false };
        }
        let (client, keeper) = (state.client.take(), state.keeper.take());
        let waiting: Vec<Waker> = state.waiting.values_mut().filter_map(Parked::take).collect();
        drop(state);
        drop((client, keeper));
        waiting.into_iter().for_each(Waker::wake);
    }
}

type Boxed<F> = Pin<Box<F>>;

/// Waits for all futures concurrently.
async fn all<F: Future>(mut futures: Vec<Boxed<F>>) -> Vec<F::Output> {
    let mut outputs = Vec::with_capacity(futures.len());
    poll_fn(|cx| {
        futures.retain_mut(|future| match future.as_mut().poll(cx) {
            Poll::Ready(output) => {
                outputs.push(output);
                false
            }
            Poll::Pending => true,
        });
        if futures.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    outputs
}
