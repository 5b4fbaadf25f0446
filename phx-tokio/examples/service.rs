//! A service: three channels, a token for every attempt, health and readiness, graceful shutdown.
//!
//! `cargo run -p phx-tokio --features tracing --example service-tokio -- ws://127.0.0.1:4000/socket/websocket 127.0.0.1:8080`
//!
//! `GET /health` returns 200 while the process is healthy. `GET /ready` returns 200 while the connection is open,
//! and otherwise 503 with the time of the next attempt. SIGTERM finishes pending work and exits.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _, select};
use phx_tokio::client::{CredentialsFailed, MailboxOptions, Provided, Setup, WeakClient};
use phx_tokio::{Channel, ChannelEvent, Config, Credentials, JoinParams, Message, Payload};
use serde::{Deserialize, Serialize};
use serde_json::json;

#[path = "service/outside.rs"]
mod outside;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug, Serialize, Deserialize)]
struct Order {
    id: u64,
    item: String,
}

/// Returns a made-up token; a real service asks its identity provider.
async fn fetch_token(attempt: u32) -> Result<String, std::io::Error> {
    Ok(format!("token-{attempt}"))
}

/// The status and the text of the response to an HTTP request.
fn answer(path: &str, client: &WeakClient) -> (u16, String) {
    let client = client.upgrade();
    match (path, client.as_ref().map(|client| (client.status(), client.retry_in()))) {
        ("/health", _) => (200, "healthy".to_owned()),
        ("/ready", Some((phx_tokio::socket::Status::Open, _))) => (200, "ready".to_owned()),
        ("/ready", Some((_, Some(wait)))) => (503, format!("next attempt in {wait:.1?}")),
        ("/ready", other) => (503, format!("not connected: {other:?}")),
        _ => (404, "the paths are /health and /ready".to_owned()),
    }
}

/// Confirms an order with a typed call. A refusal by the server does not end the service.
async fn confirm(orders: &Channel, order: &Message) -> Result<u64, Failure> {
    let order: Order = order.payload().deserialize()?;
    match orders.call::<Order>("echo", &order).await {
        Ok(confirmed) => println!("confirmed {} of order {}", confirmed.item, confirmed.id),
        Err(failed) if failed.is_refused() => println!("order {}: {failed}", order.id),
        Err(failed) if failed.is_safe_to_repeat() => println!("order {} later: {failed}", order.id),
        Err(failed) => println!("check order {}: {failed}", order.id),
    }
    Ok(order.id)
}

async fn run(uri: &str, address: &str) -> Result<(), Failure> {
    let setup = Setup::new(Config::new(uri)?).name("backend").credentials(|attempt| async move {
        let token = fetch_token(attempt.attempt).await.map_err(CredentialsFailed::new)?;
        Ok(Provided::Use(Credentials::new().auth_token(token)))
    });
    let client = phx_tokio::start(setup); // does not wait: the backend may be down
    outside::serve(address, client.downgrade()).await?;
    let last = Arc::new(AtomicU64::new(0));
    let since = Arc::clone(&last); // a rejoin requests the orders after the last one
    let since = move || json!({ "since": since.load(Ordering::Relaxed) });
    let orders = client.want("room:orders", JoinParams::from_fn(move |_| since().into()))?;
    let prices = client.want("room:prices", Payload::empty())?;
    let control = client.want("room:control", Payload::empty())?;

    let (mut ordered, mut commands) = (orders.on("order"), control.messages());
    // Only the latest price matters, so the mailbox keeps one message.
    let mut priced = prices.on_any_with(["price"], MailboxOptions::new().messages(1));
    let mut terminated = pin!(outside::terminated().fuse());
    loop {
        let event = select! {
            event = ordered.select_next_some() => event,
            event = priced.select_next_some() => event,
            event = commands.select_next_some() => event,
            end = terminated => break end?,
        };
        match event {
            ChannelEvent::Message(message) => match message.event() {
                "order" => last.store(confirm(&orders, &message).await?, Ordering::Relaxed),
                "price" => println!("price {}", message.payload().get()?),
                command => println!("command {command}"),
            },
            ChannelEvent::Closed(end) => return Err(end.into()),
            other => println!("{other:?}"), // Interrupted, Resumed, Lagged(n)
        }
    }
    println!("finished everything: {}", client.shutdown(Duration::from_secs(10)).await.is_empty());
    Ok(())
}

fn main() -> Result<(), Failure> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [uri, address] = &arguments[..] else {
        return Err("usage: service <ws:// or wss:// address> <IP:PORT for health>".into());
    };
    tokio::runtime::Runtime::new()?.block_on(run(uri, address))
}
