//! Slow links over real sockets: a proxy shapes both directions, or swallows one.
//!
//! Public reports of what happens otherwise: a transfer that is longer than a heartbeat may take is
//! cut, and begins again, for ever (`phoenixframework/phoenix#6770`).

use core::time::Duration;
use std::time::Instant;

use phx_tests::fault_proxy::{FaultProxy, Manner, Way};
use phx_tests::rng::Rng;
use serde_json::json;

use super::certificates::Authority;
use super::stage::{signal, until};
use super::tracked::Tracked;
use crate::rt::block_on;
use crate::rt::phx::event::{Cause, PushOptions};
use crate::rt::phx::testing::{Listener, ServerConfig};
use crate::rt::phx::{ChannelEvent, Client, Config, Roots, Signal, Signals, Tls};

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// A server, a proxy that carries so many bytes per second each way, and a client of the two.
struct Link {
    proxy: FaultProxy,
    client: Client,
    signals: Signals,
    server: Listener,
    runtime: Tracked,
}

/// Twenty portions a second.
const fn carries(bytes_per_second: usize) -> Manner {
    Manner::Slow { bytes: bytes_per_second / 20, every: Duration::from_millis(50) }
}

impl Link {
    async fn new(tls: bool, rate: usize, configure: impl FnOnce(Config) -> Config) -> Self {
        Self::serving(ServerConfig::default(), tls, rate, configure).await
    }

    async fn serving(
        server: ServerConfig,
        tls: bool,
        rate: usize,
        configure: impl FnOnce(Config) -> Config,
    ) -> Self {
        let addr = ([127, 0, 0, 1], 0).into();
        let authority = tls.then(Authority::new);
        let server = match &authority {
            None => Listener::bind(addr, server).await,
            Some(own) => Listener::bind_tls(addr, server, own.server("127.0.0.1")).await,
        };
        let server = server.expect("a loopback port");
        let proxy = FaultProxy::start(server.addr(), Rng::from_env()).expect("a port");
        proxy.treat_new(carries(rate), carries(rate));
        let scheme = if tls { "wss" } else { "ws" };
        let mut config =
            Config::new(&format!("{scheme}://{}/socket/websocket", proxy.addr())).unwrap();
        if let Some(own) = authority {
            config = config.tls(Tls::new(Roots::pem(own.pem.as_bytes()).expect("a CA")));
        }
        let runtime = Tracked::new();
        let (client, signals) = runtime.start_watched(configure(config));
        Self { proxy, client, signals, server, runtime }
    }

    /// A message of so many bytes from the server, or a push to it with its reply, without a
    /// reconnect; how long it took.
    async fn transfer(self, way: Way, bytes: usize) -> Duration {
        let room = self.client.join("room:slow", json!({})).await.unwrap();
        let mut events = room.messages();
        let start = Instant::now();
        match way {
            Way::Down => {
                room.cast("big", json!({"bytes": bytes})).await.unwrap();
                match events.next().await {
                    Some(ChannelEvent::Message(message)) => {
                        assert!(message.payload().get().unwrap().len() >= bytes);
                    }
                    other => panic!("{other:?} before the message"),
                }
            }
            Way::Up => {
                let options = PushOptions::call().timeout(secs(600));
                let payload = json!({"pad": "x".repeat(bytes)});
                room.push_with("ack", payload, options).await.unwrap().ok().unwrap();
            }
        }
        let took = start.elapsed();
        assert_eq!(self.client.stats().connections, 1, "{way:?} {bytes}");
        drop((room, events));
        self.end().await;
        took
    }

    async fn end(self) {
        let Self { proxy, client, signals, mut server, runtime } = self;
        client.disconnect().await;
        drop((client, signals));
        until("the driver ends", || runtime.live() == 0).await;
        proxy.close();
        server.kill().await;
    }
}

/// Heartbeats every second, which may take 12 s, and transfers that take longer, so that each one
/// would be declared dead. On a busy machine, no transfer is without the CPU for that long.
#[test]
fn transfers_outlast_heartbeat_timeout() {
    let hasty = |config: Config| {
        config.heartbeat_interval(secs(1)).heartbeat_timeout(secs(12)).buffers(4_096, 0).unwrap()
    };
    block_on(async {
        let mut transfers = Vec::new();
        for tls in [false, true] {
            for way in [Way::Up, Way::Down] {
                // The sockets between them take the small ones at once.
                for (bytes, rate) in [(320_000, 20_000), (400_000, 20_000), (2_400_000, 100_000)] {
                    transfers.push(async move {
                        Link::new(tls, rate, hasty).await.transfer(way, bytes).await
                    });
                }
            }
        }
        for took in futures_util::future::join_all(transfers).await {
            assert!(took >= secs(14), "{took:?} proves nothing");
        }
    })
}

/// With every default, as it was reported; some minutes.
#[test]
#[ignore = "takes two minutes; `cargo test -p phx-tests -- --ignored --nocapture defaults`"]
fn transfers_succeed_with_defaults() {
    block_on(async {
        let mut transfers = Vec::new();
        for tls in [false, true] {
            for (way, bytes, rate) in [
                (Way::Down, 1_500_000, 30_000),
                (Way::Down, 6_000_000, 125_000),
                (Way::Up, 1_200_000, 20_000),
            ] {
                transfers.push(async move {
                    let link = Link::new(tls, rate, |config| config).await;
                    let took = link.transfer(way, bytes).await;
                    println!("tls {tls}, {way:?}, {bytes} bytes at {rate} bytes/s: {took:?}");
                });
            }
        }
        futures_util::future::join_all(transfers).await;
    })
}

/// A direction that swallows everything is found, though the other one goes on.
#[test]
fn swallowed_direction_is_found() {
    for way in [Way::Up, Way::Down] {
        block_on(async {
            let hasty = |config: Config| {
                let config = config.heartbeat_interval(secs(1)).heartbeat_timeout(secs(2));
                config.progress_max(secs(5))
            };
            let mut link = Link::new(false, 400_000, hasty).await;
            let room = link.client.join("room:slow", json!({})).await.unwrap();
            link.proxy.treat_live(way, Manner::Swallow);
            // Something goes on in both directions.
            for _ in 0..20 {
                link.server.broadcast("room:slow", "tick", json!({"pad": "x".repeat(1_000)}));
                room.cast("noreply", json!({"pad": "x".repeat(1_000)})).await.unwrap();
            }
            let cause = signal(&mut link.signals, |signal| match signal {
                Signal::Disconnected { cause, .. } => Some(cause),
                _ => None,
            });
            assert_eq!(cause.await, Cause::HeartbeatTimeout);
            drop(room);
            link.end().await;
        })
    }
}

/// The server hears the parts of a message, as Cowboy and Bandit do, and closes none as idle.
/// Protocol: HB-3.
#[test]
fn server_hears_parts_of_message() {
    block_on(async {
        let idle = ServerConfig::default().idle_timeout(secs(6));
        let mut link = Link::serving(idle, false, 100_000, |config| config).await;
        let room = link.client.join("room:slow", json!({})).await.unwrap();
        let options = PushOptions::call().timeout(secs(600));
        // It takes ten seconds.
        let payload = json!({"pad": "x".repeat(1_000_000)});
        room.push_with("ack", payload, options).await.unwrap().ok().unwrap();
        drop(room);
        // Nothing is heard now, until it closes.
        let cause = signal(&mut link.signals, |signal| match signal {
            Signal::Disconnected { cause, .. } => Some(cause),
            _ => None,
        });
        let closed = Cause::RemoteClose { code: Some(1002), reason: String::new() };
        assert_eq!(cause.await, closed);
        link.end().await;
    })
}
