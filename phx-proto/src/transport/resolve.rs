//! Name resolution by the system's resolver, on a few dedicated threads, or by a function of the
//! caller.
//!
//! ```text
//!   attempts ──ask──▶ Flight of a host ──queue──▶ at most 4 threads ──▶ getaddrinfo
//!      ▲                                                                   │
//!      └────────────────────── one answer for all waiters ◀────────────────┘
//! ```
//!
//! The system's resolver blocks its thread, for 20 s and more when a name server is down. On a
//! runtime's blocking threads, a few hundred reconnecting clients would occupy all of them and keep
//! the runtime from shutting down. So all look-ups of a process share a few threads, across its
//! runtimes. The threads are detached: no code joins them, and each ends when the queue is empty.
//!
//! Attempts that wait for the same host share one look-up. The answer is not cached for later
//! attempts, so they find a server that has moved. A thread skips a queued look-up for which no
//! attempt waits any more.

use core::fmt;
use core::future::Future;
use core::net::{IpAddr, SocketAddr};
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::ToSocketAddrs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};

use crate::client::waiters::{Parked, poll_parked};
use crate::sync::{Mutex, MutexGuard, thread};

/// The maximum number of threads, and so of names that a process looks up at a time.
const THREADS_MAX: usize = 4;

type Addresses = io::Result<Vec<SocketAddr>>;
type Own = dyn Fn(String, u16) -> Pin<Box<dyn Future<Output = Addresses> + Send>> + Send + Sync;

/// Resolves host names: with the system's resolver, or with a function of the caller.
#[derive(Clone, Default)]
pub struct Resolver(Option<Arc<Own>>);

impl Resolver {
    /// The system's resolver, on at most four threads of the process.
    #[must_use]
    pub const fn system() -> Self {
        Self(None)
    }

    /// A resolver that calls a function with the host and the port.
    ///
    /// ```
    /// use std::net::SocketAddr;
    ///
    /// use phx_proto::adapter::Resolver;
    ///
    /// // This resolver returns the address of a local proxy for every name.
    /// let resolver = Resolver::new(|_host, port| async move {
    ///     Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))])
    /// });
    /// ```
    #[must_use]
    pub fn new<F>(resolve: impl Fn(String, u16) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Addresses> + Send + 'static,
    {
        Self(Some(Arc::new(move |host, port| Box::pin(resolve(host, port)))))
    }

    /// The addresses of `host`, which may itself be an address.
    pub(super) async fn resolve(&self, host: &str, port: u16) -> Addresses {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        if let Some(own) = &self.0 {
            return own(host.to_owned(), port).await;
        }
        let mut addresses = SYSTEM.ask(host).await?;
        addresses.iter_mut().for_each(|address| address.set_port(port));
        Ok(addresses)
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Resolver(own)" } else { "Resolver(system)" })
    }
}

/// The look-ups of this process with the system's resolver.
static SYSTEM: LazyLock<Arc<Pool>> =
    LazyLock::new(|| Pool::new(|host| Ok((host, 0).to_socket_addrs()?.collect())));

/// A pool of threads that look names up, and its queue.
struct Pool {
    look_up: Box<dyn Fn(&str) -> Addresses + Send + Sync>,
    state: Mutex<PoolState>,
}

#[derive(Default)]
struct PoolState {
    threads: usize,
    /// Hosts whose look-up has not begun, oldest first.
    queue: VecDeque<String>,
    /// Hosts whose look-up is queued or running.
    flights: BTreeMap<String, Arc<Flight>>,
}

/// One look-up and its waiters.
#[derive(Default)]
struct Flight(Mutex<FlightState>);

#[derive(Default)]
struct FlightState {
    answer: Option<Answer>,
    waiting: BTreeMap<u64, Parked>,
    next_id: u64,
}

/// An answer that can be cloned for each waiter.
type Answer = Result<Vec<SocketAddr>, (io::ErrorKind, String)>;

/// A waiter for the answer of a look-up.
struct Asking {
    flight: Arc<Flight>,
    id: u64,
}

impl Pool {
    fn new(look_up: impl Fn(&str) -> Addresses + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { look_up: Box::new(look_up), state: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock()
    }

    fn ask(self: &Arc<Self>, host: &str) -> impl Future<Output = Addresses> + Send + use<> {
        let mut state = self.lock();
        let (flight, is_new) = match state.flights.get(host) {
            Some(flight) => (Arc::clone(flight), false),
            None => {
                let flight = Arc::<Flight>::default();
                state.flights.insert(host.to_owned(), Arc::clone(&flight));
                state.queue.push_back(host.to_owned());
                (flight, true)
            }
        };
        // The waiter is registered under the pool's lock, so a thread that then takes the host from
        // the queue sees it.
        let id = flight.lock().register();
        let asking = Asking { flight, id };
        let spawns = is_new && state.threads < THREADS_MAX;
        state.threads += usize::from(spawns);
        drop(state);
        if spawns {
            let pool = Arc::clone(self);
            let name = "phx-resolve".to_owned();
            if let Err(error) = thread::Builder::new().name(name).spawn(move || pool.run()) {
                self.not_spawned(&error);
            }
        }
        asking
    }

    /// Looks names up until the queue is empty.
    fn run(&self) {
        while let Some(host) = self.next_host() {
            let answer = catch_unwind(AssertUnwindSafe(|| (self.look_up)(&host)))
                .unwrap_or_else(|_| Err(io::Error::other("the resolver panicked")));
            let flight = self.lock().flights.remove(&host);
            if let Some(flight) = flight {
                flight.finish(answer.map_err(|error| (error.kind(), error.to_string())));
            }
        }
    }

    /// The next host that has a waiter. `None` means that the calling thread must end; it is then
    /// no longer counted.
    fn next_host(&self) -> Option<String> {
        let mut state = self.lock();
        while let Some(host) = state.queue.pop_front() {
            if state.flights.get(&host).is_some_and(|flight| flight.is_awaited()) {
                return Some(host);
            }
            state.flights.remove(&host);
        }
        state.threads -= 1;
        None
    }

    /// Fails the queued look-ups if no thread is left to run them.
    fn not_spawned(&self, error: &io::Error) {
        let mut state = self.lock();
        state.threads -= 1;
        if state.threads > 0 {
            return;
        }
        let queue = core::mem::take(&mut state.queue);
        let flights: Vec<_> = queue.iter().filter_map(|host| state.flights.remove(host)).collect();
        drop(state);
        for flight in flights {
            flight.finish(Err((error.kind(), format!("no thread for the look-up: {error}"))));
        }
    }
}

impl Flight {
    fn lock(&self) -> MutexGuard<'_, FlightState> {
        self.0.lock()
    }

    fn is_awaited(&self) -> bool {
        !self.lock().waiting.is_empty()
    }

    fn finish(&self, answer: Answer) {
        let mut state = self.lock();
        state.answer = Some(answer);
        let wakers: Vec<Waker> = state.waiting.values_mut().filter_map(Parked::take).collect();
        drop(state);
        for waker in wakers {
            // A waker belongs to an executor. Its panic must not end this thread, which other hosts
            // and other waiters need.
            let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
        }
    }
}

impl FlightState {
    fn register(&mut self) -> u64 {
        self.next_id += 1;
        self.waiting.insert(self.next_id, Parked::new());
        self.next_id
    }
}

impl Future for Asking {
    type Output = Addresses;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Addresses> {
        poll_parked(cx, |task| {
            let mut state = self.flight.lock();
            if let Some(answer) = state.answer.clone() {
                let answer = answer.map_err(|(kind, message)| io::Error::new(kind, message));
                return Poll::Ready(answer);
            }
            let parked = state.waiting.entry(self.id).or_default();
            parked.park(task)
        })
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let parked = self.flight.lock().waiting.remove(&self.id);
        drop(parked);
    }
}

#[cfg(all(test, shuttle))]
#[path = "../../tests/schedules/resolve.rs"]
mod schedules;

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "the look-ups have threads")]
mod tests {
    use core::pin::pin;
    use core::time::Duration;
    use std::io::Read as _;
    use std::process::{Command, Stdio};
    use std::sync::mpsc::{self, Receiver, Sender};
    use std::sync::{Condvar, Mutex};
    use std::thread;

    use super::*;

    /// A pool whose look-ups block until the test opens the gate.
    struct Gate {
        pool: Arc<Pool>,
        /// The hosts whose look-up has begun.
        begun: Receiver<String>,
        open: Arc<(Mutex<bool>, Condvar)>,
    }

    impl Gate {
        fn new() -> Self {
            let (begins, begun): (Sender<String>, _) = mpsc::channel();
            let open = Arc::new((Mutex::new(false), Condvar::new()));
            let gate = Arc::clone(&open);
            let begins = Mutex::new(begins);
            let pool = Pool::new(move |host| {
                begins.lock().unwrap().send(host.to_owned()).unwrap();
                let (open, changed) = &*gate;
                drop(changed.wait_while(open.lock().unwrap(), |open| !*open).unwrap());
                match host {
                    "panics" => panic!("on purpose"),
                    "unknown" => Err(io::Error::new(io::ErrorKind::NotFound, "no such name")),
                    _ => Ok(vec![SocketAddr::from(([10, 0, 0, 1], 0))]),
                }
            });
            Self { pool, begun, open }
        }

        fn open(&self) {
            *self.open.0.lock().unwrap() = true;
            self.open.1.notify_all();
        }
    }

    /// Blocks on a future.
    fn wait<T>(future: impl Future<Output = T>) -> T {
        struct Unpark(thread::Thread);
        impl std::task::Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut future = pin!(future);
        loop {
            match future.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(done) => return done,
                Poll::Pending => thread::park(),
            }
        }
    }

    #[test]
    fn six_hundred_clients_take_four_threads() {
        let gate = Gate::new();
        let mut asking: Vec<_> = (0..600).map(|n| gate.pool.ask(&format!("host{n}"))).collect();
        assert_eq!(gate.pool.lock().threads, 4);
        let begun: Vec<String> = gate.begun.iter().take(4).collect();
        // Cancels all attempts but four.
        asking.truncate(4);
        gate.open();
        for asking in asking {
            assert_eq!(wait(asking).unwrap().len(), 1);
        }
        wait(gate.pool.ask("last")).unwrap();
        let later: Vec<String> = gate.begun.try_iter().collect();
        assert!(begun.iter().all(|host| host.starts_with("host")), "{begun:?}");
        assert_eq!(later, ["last"], "a host without waiters is not looked up");
        let state = gate.pool.lock();
        assert_eq!((state.queue.len(), state.flights.len()), (0, 0));
    }

    /// A process can end while a look-up is stuck. The test starts itself in a child process.
    #[test]
    fn stuck_lookup_does_not_delay_exit() {
        const CHILD: &str = "PHX_TEST_STUCK_LOOKUP";
        if std::env::var_os(CHILD).is_some() {
            let gate = Gate::new();
            let _asking = gate.pool.ask("host");
            assert_eq!(gate.begun.recv().unwrap(), "host");
            return;
        }
        let this = "transport::resolve::tests::stuck_lookup_does_not_delay_exit";
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", this])
            .env(CHILD, "1")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let (ends, ended) = mpsc::channel();
        thread::Builder::new()
            .spawn(move || {
                let mut printed = String::new();
                let read = stdout.read_to_string(&mut printed);
                ends.send(read.map(|_| printed)).unwrap();
            })
            .unwrap();
        let printed = ended.recv_timeout(Duration::from_secs(60));
        child.kill().unwrap();
        let status = child.wait().unwrap();
        let printed = printed.expect("the process has ended").unwrap();
        assert!(printed.contains("1 passed"), "{status}: {printed}");
    }

    #[test]
    fn one_lookup_answers_all_waiters() {
        let gate = Gate::new();
        let mut asking: Vec<_> = (0..50).map(|_| gate.pool.ask("host")).collect();
        assert_eq!(gate.pool.lock().threads, 1);
        assert_eq!(gate.begun.recv().unwrap(), "host");
        drop(asking.pop());
        asking.push(gate.pool.ask("host"));
        gate.open();
        for asking in asking {
            assert_eq!(wait(asking).unwrap(), [SocketAddr::from(([10, 0, 0, 1], 0))]);
        }
        assert_eq!(gate.begun.try_iter().count(), 0);
        wait(gate.pool.ask("host")).unwrap();
        assert_eq!(gate.begun.try_iter().count(), 1, "the answer is not cached");
    }

    #[test]
    fn failed_lookup_fails_its_host_alone() {
        let gate = Gate::new();
        gate.open();
        let unknown = wait(gate.pool.ask("unknown")).unwrap_err();
        assert_eq!(
            (unknown.kind(), unknown.to_string()),
            (io::ErrorKind::NotFound, "no such name".into())
        );
        assert!(wait(gate.pool.ask("panics")).is_err());
        wait(gate.pool.ask("host")).unwrap();
    }

    /// A waker belongs to an executor, which may panic. The threads go on to the next host.
    #[test]
    fn panic_of_a_waker_ends_no_thread() {
        struct Panics;
        impl std::task::Wake for Panics {
            fn wake(self: Arc<Self>) {
                panic!("on purpose");
            }
        }
        let gate = Gate::new();
        let waker = Waker::from(Arc::new(Panics));
        let mut asking: Vec<_> = (0..THREADS_MAX).map(|n| gate.pool.ask(&format!("{n}"))).collect();
        for asking in &mut asking {
            assert!(Pin::new(asking).poll(&mut Context::from_waker(&waker)).is_pending());
        }
        gate.open();
        wait(gate.pool.ask("host")).unwrap();
    }

    #[test]
    fn addresses_are_not_looked_up() {
        let own = Resolver::new(|host, _| async move { panic!("{host} is an address") });
        for (host, address) in
            [("127.0.0.1", "127.0.0.1:80"), ("[::1]", "[::1]:80"), ("::1", "[::1]:80")]
        {
            assert_eq!(wait(own.resolve(host, 80)).unwrap(), [address.parse().unwrap()]);
        }
        let addresses = wait(Resolver::system().resolve("localhost", 80)).unwrap();
        assert!(addresses.iter().all(|address| address.port() == 80 && address.ip().is_loopback()));
    }
}
