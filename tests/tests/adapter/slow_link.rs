//! Slow links over real sockets: a proxy limits both directions, or swallows one.
//!
//! In `phoenixframework/phoenix#6770`, a transfer that takes longer than the heartbeat timeout is
//! cut, and each reconnect starts it again.

use core::time::Duration;
use std::time::Instant;

use phx_tests::fault_proxy::{FaultProxy, Manner, Way};
use phx_tests::rng::Rng;
use serde_json::json;

use super::certificates::Authority;
use super::stage::{signal, until};
use super::tracked::Tracked;
use crate::rt::block_on;
use crate::rt::phx::config::TransportKind;
use crate::rt::phx::event::{Cause, PushOptions};
use crate::rt::phx::testing::{Listener, ServerConfig};
use crate::rt::phx::{ChannelEvent, Client, Config, Roots, Signal, Signals, Tls};

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// A server, a proxy that limits the bytes per second in each direction, and a client.
struct Link {
    proxy: FaultProxy,
    client: Client,
    signals: Signals,
    server: Listener,
    runtime: Tracked,
}

/// A rate limit, in twenty portions per second.
const fn limited(bytes_per_second: usize) -> Manner {
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
        proxy.treat_new(limited(rate), limited(rate));
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

    /// Transfers this many bytes, as a message from the server or as a push with a reply, and asserts
    /// that no reconnect was needed. Returns the duration.
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

/// The client sends heartbeats every second with a timeout of 12 s, and the transfers take longer.
/// If transferred bytes did not extend the timeout, each connection would be declared dead. Even a
/// busy machine does not stop a transfer for 12 s.
#[test]
fn transfers_outlast_heartbeat_timeout() {
    let hasty = |config: Config| {
        config.heartbeat_interval(secs(1)).heartbeat_timeout(secs(12)).buffers(4_096, 0).unwrap()
    };
    block_on(async {
        let mut transfers = Vec::new();
        for tls in [false, true] {
            for way in [Way::Up, Way::Down] {
                // Small frames fit into the socket buffers at once.
                for (bytes, rate) in [(320_000, 20_000), (400_000, 20_000), (2_400_000, 100_000)] {
                    transfers.push(async move {
                        Link::new(tls, rate, hasty).await.transfer(way, bytes).await
                    });
                }
            }
        }
        for took in futures_util::future::join_all(transfers).await {
            assert!(took >= secs(14), "{took:?} is shorter than the heartbeat timeout");
        }
    })
}

/// The same transfers with the default options, as in the report. The test takes two minutes.
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

/// The client detects a connection that discards everything in one direction, although the other
/// direction works (firezone/firezone#2916).
#[test]
fn swallowed_direction_is_detected() {
    for way in [Way::Up, Way::Down] {
        block_on(async {
            let hasty = |config: Config| {
                let config = config.heartbeat_interval(secs(1)).heartbeat_timeout(secs(2));
                config.progress_max(secs(5))
            };
            let mut link = Link::new(false, 400_000, hasty).await;
            let room = link.client.join("room:slow", json!({})).await.unwrap();
            link.proxy.treat_live(way, Manner::Swallow);
            // There is traffic in both directions.
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

/// The pongs of the server prove that an upload makes progress, although it takes much longer than
/// `heartbeat_timeout` and `progress_max` together. Without pongs, written bytes would extend the deadline by
/// `progress_max` only.
#[test]
fn acknowledged_upload_outlasts_progress_max() {
    let hasty = |config: Config| {
        let config = config.transport(TransportKind::WebSocket).progress_max(secs(1));
        config.heartbeat_interval(secs(1)).heartbeat_timeout(secs(8)).buffers(4_096, 0).unwrap()
    };
    block_on(async {
        let uploads = [false, true].map(|tls| async move {
            Link::new(tls, 120_000, hasty).await.transfer(Way::Up, 2_400_000).await
        });
        for took in futures_util::future::join_all(uploads).await {
            assert!(took >= secs(14), "{took:?} is too short for the test");
        }
    })
}

/// The operating system and a proxy accept megabytes for a server that no longer reads. Once the server
/// has acknowledged a part of an upload, these bytes do not extend the deadline, which would otherwise be
/// minutes away.
#[test]
fn swallowed_upload_is_detected() {
    block_on(async {
        let hasty = |config: Config| {
            let config = config.transport(TransportKind::WebSocket);
            config.heartbeat_interval(secs(1)).heartbeat_timeout(secs(2))
        };
        let mut link = Link::new(false, 1_000_000, hasty).await;
        let room = link.client.join("room:slow", json!({})).await.unwrap();
        // The reply proves that the server has read the push, and its pongs have arrived before the reply.
        let payload = json!({"pad": "x".repeat(200_000)});
        room.push("ack", payload).await.unwrap().ok().unwrap();
        // The cast is complete when the transport has its frame, which takes six seconds to transfer.
        room.cast("noreply", json!({"pad": "x".repeat(6_000_000)})).await.unwrap();
        link.proxy.treat_live(Way::Up, Manner::Swallow);
        let cause = signal(&mut link.signals, |signal| match signal {
            Signal::Disconnected { cause, .. } => Some(cause),
            _ => None,
        });
        assert_eq!(cause.await, Cause::HeartbeatTimeout);
        drop(room);
        link.end().await;
    })
}

/// The server counts the parts of a message as traffic, as Cowboy and Bandit do: it does not close a
/// connection as idle during a long message.
/// Protocol: HB-3.
#[test]
fn message_parts_keep_socket_alive() {
    block_on(async {
        let idle = ServerConfig::default().idle_timeout(secs(6));
        let mut link = Link::serving(idle, false, 100_000, |config| config).await;
        let room = link.client.join("room:slow", json!({})).await.unwrap();
        let options = PushOptions::call().timeout(secs(600));
        // The push takes ten seconds.
        let payload = json!({"pad": "x".repeat(1_000_000)});
        room.push_with("ack", payload, options).await.unwrap().ok().unwrap();
        drop(room);
        // From now on the client is silent, until the server closes.
        let cause = signal(&mut link.signals, |signal| match signal {
            Signal::Disconnected { cause, .. } => Some(cause),
            _ => None,
        });
        let closed = Cause::RemoteClose { code: Some(1002), reason: String::new() };
        assert_eq!(cause.await, closed);
        link.end().await;
    })
}
