//! The keeper: the task that runs and restarts one supervised connection.
//!
//! ```text
//!   run ───▶ driver and signals, until the end ───▶ Supervision ──┬─▶ wait ──▶ next run
//!                    │ every signal                               │ stop
//!                    ▼                                            ▼
//!            Router ─▶ Bus, if subscribed                        done
//! ```
//!
//! A restart reuses the client with a new seed for its jitter, so handles and signal streams stay
//! valid. A client whose driver panicked is replaced, because its state after the panic is unknown.

use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::supervisor::{Entry, Supervised, SupervisedState};
use crate::client::{Client, ClientEvent, Clock, Driver, Runtime, Setup, Signals, Timer, client};
use crate::event::cause::NextStep;
use crate::event::signal::Signal;
use crate::service::bus::Bus;
use crate::service::router::{EventIds, Router};
use crate::service::supervision::{Ending, Supervision, Verdict};
use crate::socket::{Lifecycle, Status};
use crate::sync::Mutex;
use crate::time::Time;

/// The destination of a connection's signals: the bus, by way of the router.
pub(super) struct Outlet {
    pub(super) bus: Bus,
    pub(super) router: Router,
    pub(super) ids: Arc<Mutex<EventIds>>,
    pub(super) attributes: BTreeMap<String, String>,
}

/// A guard of a supervised connection. Dropping it wakes all waiters for the end of the connection,
/// even if the keeper was dropped with its runtime or never polled.
pub(super) struct Keeping(Arc<Entry>);

impl Keeping {
    pub(super) const fn new(entry: Arc<Entry>) -> Self {
        Self(entry)
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        self.0.done();
    }
}

/// Starts connecting. The future runs until the connection is stopped or its policy does not
/// restart it.
pub(super) fn keep<R: Runtime>(
    runtime: R,
    supervised: Supervised,
    keeping: Keeping,
    outlet: Outlet,
) -> impl Future<Output = ()> + use<R> {
    let Supervised { setup, policy, .. } = supervised;
    let setup = setup.name(&keeping.0.name);
    let supervision = Supervision::new(policy, runtime.seed());
    let (client, driver) = client(setup.clone(), runtime.clone());
    let (signals, driver, timer) = (client.signals_for_routing(), Some(driver), runtime.timer());
    let (waits, opened, stable) = (false, None, false);
    let mut keeper = Keeper {
        client,
        driver,
        signals,
        timer,
        waits,
        opened,
        stable,
        supervision,
        outlet,
        setup,
        clock: runtime.clock(),
        runtime,
        keeping,
    };
    keeper.connect();
    keeper.run()
}

struct Keeper<R: Runtime> {
    client: Client,
    /// `None` after the driver panicked, until the restart.
    driver: Option<Driver<R>>,
    signals: Signals,
    /// Set while the connection waits to be restarted.
    timer: R::Timer,
    waits: bool,
    /// The time at which the connection opened.
    opened: Option<Time>,
    /// The connection was open for `stable_after` since its last start.
    stable: bool,
    supervision: Supervision,
    outlet: Outlet,
    setup: Setup,
    clock: R::Clock,
    runtime: R,
    /// This field is dropped last, so that the waiters find everything else ended.
    keeping: Keeping,
}

/// An event that the keeper acts on.
enum Event {
    Ended(Ending),
    RestartDue,
}

impl<R: Runtime> Keeper<R> {
    async fn run(mut self) {
        loop {
            let state = match poll_fn(|cx| self.poll_event(cx)).await {
                Event::Ended(ending) => self.ended(ending),
                Event::RestartDue => self.connect(),
            };
            let is_over = matches!(state, SupervisedState::Ended { .. });
            self.keeping.0.set(state, self.supervision.restarts());
            if is_over {
                self.finish();
                return;
            }
        }
    }

    /// Called when the connection has ended for good. The application may have called `connect` after the
    /// end; the drop of the driver then ends the client again, and the events report that too.
    fn finish(&mut self) {
        if self.client.status().lifecycle() != Lifecycle::Terminated {
            self.driver = None;
            self.route(&Context::from_waker(Waker::noop()));
        }
    }

    fn ended(&mut self, ending: Ending) -> SupervisedState {
        self.lost();
        if core::mem::take(&mut self.stable) {
            self.supervision.stable();
        }
        let now = self.clock.now();
        let verdict = self.supervision.ended(now, ending);
        let Verdict::Restart { delay } = verdict else {
            return SupervisedState::Ended { ending, exhausted: verdict == Verdict::Exhausted };
        };
        if self.driver.is_some() {
            self.client.reseed(self.runtime.seed());
        } else {
            let (client, driver) = client(self.setup.clone(), self.runtime.clone());
            self.signals = client.signals_for_routing();
            (self.client, self.driver) = (client, Some(driver));
            self.keeping.0.serve(&self.client);
        }
        let until = now + delay;
        self.waits = true;
        self.timer.reset(Some(until));
        SupervisedState::Restarting { until, ending }
    }

    fn connect(&mut self) -> SupervisedState {
        self.waits = false;
        self.client.connect();
        // This closes the client again if the connection was stopped in the meantime.
        self.keeping.0.serve(&self.client);
        SupervisedState::Running(Status::Idle)
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if self.waits && self.keeping.0.poll_stop(cx).is_ready() {
            return Poll::Ready(Event::Ended(Ending::Closed));
        }
        if let Poll::Ready(ending) = self.poll_ended(cx) {
            return Poll::Ready(Event::Ended(ending));
        }
        // The restart is also due when the application has called `connect` itself.
        let is_due = self.waits
            && (!matches!(self.client.status(), Status::Idle | Status::GaveUp { .. })
                || self.timer.poll_expired(cx).is_ready());
        if is_due { Poll::Ready(Event::RestartDue) } else { Poll::Pending }
    }

    /// Polls the driver and routes its signals. Ready when the connection has ended.
    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<Ending> {
        // A panic comes from application code or a transport; the driver is not polled again after
        // it.
        let driver = &mut self.driver;
        let poll = || driver.as_mut().map_or(Poll::Pending, |driver| Pin::new(driver).poll(cx));
        let polled = catch_unwind(AssertUnwindSafe(poll));
        let ending = self.route(cx);
        match (polled, ending) {
            (Err(_), _) => {
                self.driver = None;
                // Signals from the end of the driver are routed too.
                self.route(&Context::from_waker(Waker::noop()));
                Poll::Ready(Ending::Crashed)
            }
            (Ok(_), Some(ending)) => Poll::Ready(ending),
            (Ok(polled), None) => polled.map(|()| Ending::Closed),
        }
    }

    /// Publishes every signal that has a subscriber. Returns how the connection ended, if it did.
    fn route(&mut self, cx: &Context<'_>) -> Option<Ending> {
        let mut ending = None;
        while let Poll::Ready(Some(event)) = self.signals.poll_event(cx) {
            let Outlet { bus, router, ids, attributes } = &self.outlet;
            let name = &self.keeping.0.name;
            let route = match &event {
                ClientEvent::Signal(signal) => router.plan(name, signal),
                ClientEvent::Lagged(count) => router.plan_lagged(name, *count),
            };
            if let Some(route) = route {
                let matched = bus.matched_by(|pattern| route.matches(pattern));
                if !matched.is_empty() {
                    let at = self.clock.wall();
                    let id = ids.lock().next(at);
                    bus.deliver(route.event(attributes, &id, at), &matched);
                }
            }
            if let ClientEvent::Signal(signal) = event {
                ending = self.update(signal).or(ending);
            }
        }
        ending
    }

    /// Updates the keeper's state from a signal. Returns how the connection ended, if it did.
    fn update(&mut self, signal: Signal) -> Option<Ending> {
        let entry = &self.keeping.0;
        match signal {
            Signal::Connected { .. } => self.opened = Some(self.clock.now()),
            Signal::ConnectFailed { cause, .. } => entry.lost(cause),
            Signal::Disconnected { cause, next, .. } => {
                // The application called `connect` while the connection was closing. A connection that was
                // stopped must not connect again, because its name is removed.
                if next == NextStep::Reconnect && entry.is_stopped() {
                    self.client.close();
                }
                entry.lost(cause);
                self.lost();
            }
            Signal::GaveUp { cause } => {
                entry.lost(cause);
                return Some(Ending::GaveUp);
            }
            Signal::Closed => return Some(Ending::Closed),
            Signal::Connecting { .. }
            | Signal::Joined { .. }
            | Signal::JoinRejected { .. }
            | Signal::JoinTimedOut { .. }
            | Signal::Errored { .. }
            | Signal::Interrupted { .. }
            | Signal::Resumed { .. }
            | Signal::Left { .. }
            | Signal::ChannelClosed { .. }
            | Signal::Message { .. }
            | Signal::Unrouted { .. }
            | Signal::PushEnded { .. }
            | Signal::HeartbeatAcked { .. }
            | Signal::ProtocolError { .. }
            | Signal::Warning(_) => {}
        }
        None
    }

    /// Called when the connection is no longer open.
    fn lost(&mut self) {
        let opened = self.opened.take();
        let open_for = opened.map(|opened| self.clock.now().since(opened));
        let stable_after = self.setup.config.stable_after;
        self.stable |= open_for.is_some_and(|open_for| open_for >= stable_after);
    }
}
