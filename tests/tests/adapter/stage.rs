//! The environment of a conformance scenario: a server, the proxy in front of it, the runtime, and
//! the check at the end that no task and no socket is left.

use core::fmt::Debug;
use core::future::Future;
use core::pin::pin;
use core::time::Duration;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Once};
use std::time::{Instant, SystemTime};

use futures_util::future::{Either, select};
use phx_tests::fault_proxy::{FaultProxy, Manner};
use phx_tests::ports::{Reserved, start_again};
use phx_tests::resources::sockets_at;
use phx_tests::rng::Rng;
use phx_tests::waiting::{DEADLINE, TICK};

use super::certificates::Authority;
use super::clock::Clock;
use super::tracked::Tracked;
use crate::rt::phx::client::{ClientEvent, ConnectError};
use crate::rt::phx::config::{Backoff, Compression, DelayRange, TransportKind};
use crate::rt::phx::testing::{Listener, ServerConfig};
use crate::rt::phx::{Client, Config, Roots, Signal, Signals, Tls};
use crate::rt::{block_on, phx, sleep};

/// The server that a scenario runs against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// `testing::Listener` on loopback.
    Loopback,
    /// `testing::Listener` with TLS, and a certificate authority of the test.
    Tls,
    /// `testing::Listener` behind a proxy that splits and delays bytes, and injects faults on command.
    Faulty,
    /// The server that `PHX_URL` names: a real Phoenix, as in `tests/phoenix`.
    Phoenix,
}

pub(super) struct Stage {
    target: Target,
    transport: TransportKind,
    compression: Option<Compression>,
    runtime: Tracked,
    phoenix: Option<String>,
    server: Option<Listener>,
    authority: Option<Authority>,
    proxy: Option<FaultProxy>,
    /// The ports of every server and proxy, reserved so that only their sockets are counted at the end.
    ports: Vec<Arc<Reserved>>,
    rng: Rng,
    unique: String,
}

/// Runs one scenario on one target over one transport, and checks that nothing is left behind.
pub(super) fn play(
    target: Target,
    transport: TransportKind,
    scenario: impl AsyncFnOnce(&mut Stage),
) {
    play_with(target, transport, None, scenario);
}

/// Runs one scenario with compression, which selects the transport.
pub(super) fn play_compressed(
    target: Target,
    compression: Compression,
    scenario: impl AsyncFnOnce(&mut Stage),
) {
    play_with(target, TransportKind::Tungstenite, Some(compression), scenario);
}

fn play_with(
    target: Target,
    transport: TransportKind,
    compression: Option<Compression>,
    scenario: impl AsyncFnOnce(&mut Stage),
) {
    let phoenix = match target {
        Target::Phoenix => match std::env::var("PHX_URL") {
            Ok(url) => Some(url),
            Err(_) => return report_skipped_phoenix(),
        },
        _ => None,
    };
    block_on(async {
        let mut stage = Stage::new(target, transport, compression, phoenix).await;
        scenario(&mut stage).await;
        stage.end().await;
    })
}

/// Writes to stderr directly, because the test harness captures the output of a passing test.
fn report_skipped_phoenix() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _ = writeln!(
            io::stderr(),
            "PHX_URL is not set: the conformance scenarios against a real Phoenix are SKIPPED \
             (tests/phoenix is a server for them)"
        );
    });
}

impl Stage {
    async fn new(
        target: Target,
        transport: TransportKind,
        compression: Option<Compression>,
        phoenix: Option<String>,
    ) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        // Every run uses different topics, because a real server runs longer than the test.
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let unique = format!("{:x}-{:x}-{count:x}", since.as_micros(), std::process::id());
        let mut stage = Self {
            target,
            transport,
            compression,
            runtime: Tracked::new(),
            phoenix,
            server: None,
            authority: (target == Target::Tls).then(Authority::new),
            proxy: None,
            ports: Vec::new(),
            rng: Rng::from_env(),
            unique,
        };
        if target != Target::Phoenix {
            stage.serve(ServerConfig::default()).await;
        }
        stage
    }

    /// Replaces the server with one that has other settings.
    pub(super) async fn serve(&mut self, config: ServerConfig) {
        let config = match self.compression {
            None => config,
            Some(_) => config.compress(Compression::strongest()),
        };
        let port = Arc::new(Reserved::new());
        let server = match &self.authority {
            None => Listener::bind(port.addr(), config).await,
            Some(own) => Listener::bind_tls(port.addr(), config, own.server("127.0.0.1")).await,
        };
        self.ports.push(port);
        let server = server.expect("a loopback port");
        if self.target == Target::Faulty {
            let proxy = FaultProxy::start(server.addr(), self.rng.fork()).expect("a port");
            let (up, down) = harmless(&mut self.rng);
            println!("up {up:?}, down {down:?}");
            proxy.treat_new(up, down);
            self.ports.push(proxy.port());
            self.proxy = Some(proxy);
        }
        self.server = Some(server);
    }

    /// Restarts a stopped or killed server.
    pub(super) async fn restart(&mut self) {
        let server = self.server();
        start_again(async || server.restart().await).await.expect("the same port");
    }

    pub(super) const fn target(&self) -> Target {
        self.target
    }

    /// The test server.
    pub(super) fn server(&mut self) -> &mut Listener {
        self.server.as_mut().expect("the table excludes this scenario for a real Phoenix")
    }

    pub(super) fn proxy(&self) -> &FaultProxy {
        self.proxy.as_ref().expect("the table runs this scenario only with the proxy")
    }

    pub(super) fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }

    /// A topic of this run with this prefix and suffix.
    pub(super) fn topic(&self, prefix: &str, suffix: &str) -> String {
        format!("{prefix}:{}{suffix}", self.unique)
    }

    pub(super) fn url(&self) -> String {
        if let Some(url) = &self.phoenix {
            return url.clone();
        }
        let server = self.server.as_ref().expect("a server");
        match &self.proxy {
            None => server.url(),
            Some(proxy) => format!("ws://{}/socket/websocket", proxy.addr()),
        }
    }

    /// A configuration for the server, with the short retry delays of a test, and timeouts that only a
    /// fault reaches.
    pub(super) fn config(&self) -> Config {
        self.config_to(&self.url())
    }

    pub(super) fn config_to(&self, url: &str) -> Config {
        let ms = Duration::from_millis;
        let config = match self.target {
            Target::Phoenix => Config::insecure(url),
            _ => Config::new(url),
        };
        let config = config
            .expect("an address")
            .first_retry_spread(DelayRange::new(ms(1), ms(5)).expect("a range"))
            .reconnect_after(Backoff::steps_msec(&[10, 20]).expect("steps"))
            .rejoin_after(Backoff::steps_msec(&[10, 20]).expect("steps"))
            .connect_timeout(DEADLINE)
            .heartbeat_timeout(DEADLINE)
            .write_stall_timeout(DEADLINE)
            .join_timeout(DEADLINE)
            .leave_timeout(DEADLINE)
            .push_timeout(DEADLINE)
            .transport(self.transport)
            .compression(self.compression);
        match &self.authority {
            None => config,
            Some(own) => config.tls(Tls::new(Roots::pem(own.pem.as_bytes()).expect("a CA"))),
        }
    }

    pub(super) async fn connect(&self) -> Client {
        self.connect_with(self.config()).await.expect("it connects")
    }

    pub(super) async fn connect_with(&self, config: Config) -> Result<Client, ConnectError> {
        phx::client::connect(config, self.runtime.clone()).await
    }

    /// Starts a client, and returns it with a stream of all of its signals.
    pub(super) fn start_watched(&self, config: Config) -> (Client, Signals) {
        self.runtime.start_watched(config)
    }

    /// The clock of all clients. The server has its own.
    pub(super) const fn clock(&self) -> &Clock {
        self.runtime.clock()
    }

    /// The number of running drivers.
    pub(super) fn drivers(&self) -> usize {
        self.runtime.live()
    }

    /// Waits until drivers and connections have ended; the scenario has dropped every handle.
    async fn end(mut self) {
        until("every driver ends", || self.runtime.live() == 0).await;
        assert!(!self.runtime.panicked(), "a driver panicked");
        if let Some(proxy) = self.proxy.take() {
            proxy.close();
        }
        if let Some(mut server) = self.server.take() {
            until("the server has no client", || server.with(|s, _| s.peers().is_empty())).await;
            server.kill().await;
        }
        for port in &self.ports {
            until("no socket is left", || sockets_at(port.addr()).expect("/proc") == 0).await;
        }
    }
}

/// Random manners, up and down, that forward everything. The server treats an upgrade request in more
/// than 64 pieces as an attack (tungstenite's `AttackCheck`), so pieces on the way up have a minimum
/// length.
pub(super) fn harmless(rng: &mut Rng) -> (Manner, Manner) {
    let up = match Manner::harmless(rng) {
        Manner::Split { most } => Manner::Split { most: most.max(16) },
        other => other,
    };
    (up, Manner::harmless(rng))
}

/// Waits until the condition holds, for up to [`DEADLINE`].
pub(super) async fn until(what: &str, mut check: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !check() {
        assert!(Instant::now() < end, "{what}: not within {DEADLINE:?}");
        sleep(TICK).await;
    }
}

/// Drives `work` until the condition holds. It is a failure if `work` ends before that.
pub(super) async fn driven_until<F>(work: &mut F, what: &str, check: impl FnMut() -> bool)
where
    F: Future<Output: Debug> + Unpin,
{
    match select(work, pin!(until(what, check))).await {
        Either::Left((early, _)) => panic!("{early:?} before {what}"),
        Either::Right(((), _)) => {}
    }
}

/// Waits for the first signal for which `pick` returns a value.
pub(super) async fn signal<T>(signals: &mut Signals, pick: impl Fn(Signal) -> Option<T>) -> T {
    loop {
        let event = signals.next().await.expect("the driver runs");
        let ClientEvent::Signal(signal) = event else { continue };
        if let Some(picked) = pick(signal) {
            return picked;
        }
    }
}
