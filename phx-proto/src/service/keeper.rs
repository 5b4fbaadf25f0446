//! The keeper: the task that keeps one supervised connection.
//!
//! ```text
//!   run ──▶ driver and signals, until it ended ──▶ Supervision ──┬─▶ wait ──▶ run
//!                    │ every signal                              │ stop
//!                    ▼                                           ▼
//!            Router ─▶ Bus, if subscribed                       done
//! ```

use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use super::supervisor::{Entry, Supervised, SupervisedState};
use crate::client::Driver;
use crate::client::client;
use crate::client::{ClientEvent, Signals};
use crate::client::{Runtime, Timer};
use crate::event::signal::Signal;
use crate::service::bus::Bus;
use crate::service::router::{EventIds, Router};
use crate::service::supervision::{Ending, Supervision, Verdict};
use crate::time::Time;

/// Where the signals of a connection go.
pub(super) struct Outlet {
    pub(super) bus: Bus,
    pub(super) router: Router,
    pub(super) ids: Arc<Mutex<EventIds>>,
    pub(super) attributes: BTreeMap<String, String>,
}

/// Keeps a connection until it is stopped, or its policy lets it end.
pub(super) async fn keep<R: Runtime>(
    runtime: R,
    supervised: Supervised,
    keeping: Keeping,
    outlet: Outlet,
) {
    let entry = &*keeping.0;
    let stable_after = supervised.setup.config.stable_after;
    let mut supervision = Supervision::new(supervised.policy.clone(), runtime.seed());
    loop {
        let (client, driver) = client(supervised.setup.clone().name(&entry.name), runtime.clone());
        let signals = client.signals_for_routing();
        client.connect();
        entry.runs(&client);
        drop(client);
        let mut run = Run {
            runtime: &runtime,
            entry,
            outlet: &outlet,
            stable_after,
            opened: None,
            stable: false,
            end: None,
        };
        let ending = run.until_ended(driver, signals).await;
        run.lost();
        if run.stable {
            supervision.stable();
        }
        let now = runtime.now();
        let verdict = supervision.ended(now, ending);
        let restarts = supervision.restarts();
        let Verdict::Restart { delay } = verdict else {
            let exhausted = verdict == Verdict::Exhausted;
            return entry.is(SupervisedState::Ended { ending, exhausted }, restarts);
        };
        let until = now + delay;
        entry.is(SupervisedState::Restarting { until, ending }, restarts);
        let mut timer = runtime.timer();
        timer.reset(Some(until));
        let stopped = poll_fn(|cx| {
            if entry.poll_stop(cx).is_ready() {
                return Poll::Ready(true);
            }
            timer.poll_expired(cx).map(|()| false)
        })
        .await;
        if stopped || entry.is_stopped() {
            let ended = SupervisedState::Ended { ending: Ending::Closed, exhausted: false };
            return entry.is(ended, restarts);
        }
    }
}

/// A connection that is kept. When this is dropped, those who wait for the end of the connection are
/// woken: also when its keeper is dropped with its runtime, or was never polled.
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

/// One run of a connection, from its start to its end.
struct Run<'a, R> {
    runtime: &'a R,
    entry: &'a Entry,
    outlet: &'a Outlet,
    stable_after: Duration,
    /// Since when it is open.
    opened: Option<Time>,
    /// It was open for long enough once.
    stable: bool,
    end: Option<Ending>,
}

impl<R: Runtime> Run<'_, R> {
    async fn until_ended(&mut self, mut driver: Driver<R>, mut signals: Signals) -> Ending {
        let ending = poll_fn(|cx| {
            // A panic in there is the application's code, or a transport's; the driver is not
            // polled again after it.
            let polled = catch_unwind(AssertUnwindSafe(|| Pin::new(&mut driver).poll(cx)));
            self.route(&mut signals, cx);
            match (polled, self.end) {
                (Err(_), _) => Poll::Ready(Ending::Crashed),
                (Ok(_), Some(ending)) => Poll::Ready(ending),
                (Ok(Poll::Ready(())), None) => Poll::Ready(Ending::Closed),
                (Ok(Poll::Pending), None) => Poll::Pending,
            }
        })
        .await;
        if ending == Ending::Crashed {
            // What ends with the driver is told too.
            drop(driver);
            self.route(&mut signals, &Context::from_waker(Waker::noop()));
        }
        ending
    }

    /// It is not open any more.
    fn lost(&mut self) {
        let opened = self.opened.take();
        let open_for = opened.map(|opened| self.runtime.now().since(opened));
        self.stable |= open_for.is_some_and(|open_for| open_for >= self.stable_after);
    }

    /// Publishes everything that was signalled and is subscribed to, and notes what it means here.
    fn route(&mut self, signals: &mut Signals, cx: &Context<'_>) {
        while let Poll::Ready(Some(event)) = signals.poll_event(cx) {
            let Outlet { bus, router, ids, attributes } = self.outlet;
            let name = &self.entry.name;
            let route = match &event {
                ClientEvent::Signal(signal) => {
                    self.note(signal);
                    router.plan(name, signal)
                }
                ClientEvent::Lagged(count) => router.plan_lagged(name, *count),
            };
            let Some(route) = route else { continue };
            let wanted = bus.wanted_by(|pattern| route.matches(pattern));
            if wanted.is_empty() {
                continue;
            }
            let at = self.runtime.wall();
            let id = ids.lock().unwrap_or_else(PoisonError::into_inner).next(at);
            bus.deliver(route.event(attributes, &id, at), &wanted);
        }
    }

    fn note(&mut self, signal: &Signal) {
        match signal {
            Signal::Connected { .. } => {
                self.opened = Some(self.runtime.now());
            }
            Signal::ConnectFailed { cause, .. } => self.entry.lost(cause.clone()),
            Signal::Disconnected { cause, .. } => {
                self.lost();
                self.entry.lost(cause.clone());
            }
            Signal::GaveUp { cause } => {
                self.entry.lost(cause.clone());
                self.end = Some(Ending::GaveUp);
            }
            Signal::Closed => self.end = Some(Ending::Closed),
            _ => {}
        }
    }
}
