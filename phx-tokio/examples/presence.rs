//! Presence: prints who is on a topic, and every change.
//!
//! ```text
//! cargo run -p phx-tokio --example presence-tokio -- ws://127.0.0.1:4000/socket/websocket presence:lobby ann
//! ```

use std::error::Error;

use phx_tokio::presence::PresenceChange;
use phx_tokio::{Config, PresenceEvent};
use serde_json::json;

async fn watch(uri: &str, topic: &str, me: &str) -> Result<(), Box<dyn Error + Send + Sync>> {
    let client = phx_tokio::connect(Config::new(uri)?).await?;
    let room = client.join(topic, json!({ "key": me })).await?;
    let mut presence = room.presence();
    while let Some(event) = presence.next().await {
        match event {
            PresenceEvent::Change(PresenceChange::Join { key, first: true, .. }) => {
                println!("{key} came");
            }
            PresenceEvent::Change(PresenceChange::Leave { key, last: true, .. }) => {
                println!("{key} left");
            }
            PresenceEvent::Synced => {
                let keys: Vec<&str> = presence.list().map(|(key, _)| key).collect();
                println!("here: {}", keys.join(", "));
            }
            PresenceEvent::Interrupted { cause, .. } => {
                println!("(unknown until rejoined: {cause:?})")
            }
            _ => {}
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [uri, topic, me] = &arguments[..] else {
        return Err("usage: presence <ws:// or wss:// address> <topic> <key>".into());
    };
    tokio::runtime::Runtime::new()?.block_on(watch(uri, topic, me))
}
