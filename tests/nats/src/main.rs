//! Example of a service with more than one process: signals of named connections go to NATS, and pushes
//! come from NATS.
//!
//! ```text
//!   Phoenix ◀─▶ Supervisor ─▶ Bus ─▶ Forward (spool) ─▶ NATS ─▶ any number of processes
//!                   ▲                                     │
//!                   └──────────── orders ◀── phx.push ◀───┘
//! ```
//!
//! `phx-nats CONNECTIONS.json NATS_URL [PATTERN] [SPOOL]` keeps the connections of a file, forwards
//! the events whose bus topics match `jido.signal.**` or another pattern (`jido` is the default prefix
//! of bus topics), and keeps up to 10,000 or `SPOOL` of them while the broker is away. Counters are
//! printed as JSON when they change. For `wss://`, build phx-tokio with its feature `ring`.

mod counters;
mod forward;
mod orders;
mod spool;
mod subject;

use core::time::Duration;
use std::error::Error;
use std::sync::Arc;

use async_nats::{ConnectOptions, Event};
use phx_tokio::service::TopicPattern;
use phx_tokio::{Connections, Router};
use tokio::sync::watch;

use counters::Counters;
use forward::Forward;
use spool::Spool;

/// The capacity of the spool in bytes.
const SPOOL_BYTES_MAX: usize = 16 << 20;

/// The grace period at the end, for the connections and for the spool.
const GRACE: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: phx-nats CONNECTIONS.json NATS_URL [PATTERN] [SPOOL]";
    let (file, url) = (arguments.next().ok_or(usage)?, arguments.next().ok_or(usage)?);
    let pattern = arguments.next().unwrap_or_else(|| "jido.signal.**".to_owned());
    let spool = arguments.next().map_or(Ok(10_000), |spool| spool.parse())?;

    let text = std::fs::read_to_string(file)?;
    let connections = Connections::from_json(&text, |name| std::env::var(name).ok())?;
    let counters = Arc::new(Counters::default());
    let (sender, connected) = watch::channel(false);
    let client = connect(&url, sender, Arc::clone(&counters)).await?;

    let supervisor = phx_tokio::supervisor(Router::new());
    let events = supervisor.bus().subscribe(&pattern)?;
    let forward = Forward {
        client: client.clone(),
        connected,
        pattern: TopicPattern::parse(&pattern)?,
        spool: Spool::new(spool, SPOOL_BYTES_MAX),
        counters: Arc::clone(&counters),
    };
    let forward = tokio::spawn(forward.run(events, GRACE));
    supervisor.start_configured(connections)?;

    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        ended = orders::obey(client.clone(), supervisor.clone(), Arc::clone(&counters)) => ended?,
        () = show(&counters) => {}
    }
    supervisor.shutdown(GRACE).await;
    // The bus is closed: waiting parcels are forwarded, or given up and counted.
    forward.await??;
    if client.connection_state() == async_nats::connection::State::Connected {
        // Replies to orders may still be in the client's buffer.
        let _ = tokio::time::timeout(GRACE, client.flush()).await;
    }
    println!("{}", counters.json());
    Ok(())
}

/// Connects in the background, so that the example starts without a broker.
async fn connect(
    url: &str,
    connected: watch::Sender<bool>,
    counters: Arc<Counters>,
) -> Result<async_nats::Client, async_nats::ConnectError> {
    let connected = Arc::new(connected);
    let options = ConnectOptions::new()
        .name("phx-nats")
        .retry_on_initial_connect()
        .max_reconnects(None)
        .connection_timeout(Duration::from_secs(5))
        .ping_interval(Duration::from_secs(10))
        // Parcels wait in the spool, where they are counted.
        .client_capacity(128)
        .subscription_capacity(1_024)
        .reconnect_delay_callback(|attempts| {
            let doublings = u32::try_from(attempts.min(6)).unwrap_or(6);
            Duration::from_millis(50 << doublings)
        })
        .event_callback(move |event| {
            let (connected, counters) = (Arc::clone(&connected), Arc::clone(&counters));
            async move {
                match event {
                    Event::Connected => drop(connected.send_replace(true)),
                    Event::Disconnected | Event::Closed => drop(connected.send_replace(false)),
                    Event::SlowConsumer(_) => Counters::add(&counters.orders_lost, 1),
                    other => eprintln!("phx-nats: {other}"),
                }
                eprintln!("phx-nats: {}", if *connected.borrow() { "connected" } else { "away" });
            }
        });
    options.connect(url).await
}

/// Prints the counters whenever they have changed.
async fn show(counters: &Counters) {
    let mut last = counters.json();
    let mut look = tokio::time::interval(Duration::from_millis(100));
    loop {
        look.tick().await;
        let now = counters.json();
        if now != last {
            println!("{now}");
            last = now;
        }
    }
}
