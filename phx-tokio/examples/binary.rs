//! Sends a file as one binary push and prints the size of the server's reply.
//!
//! ```text
//! cargo run -p phx-tokio --example binary-tokio -- ws://127.0.0.1:4000/socket/websocket Cargo.toml
//! ```

use std::error::Error;
use std::time::Duration;

use phx_tokio::event::PushOptions;
use phx_tokio::{Config, Payload};
use serde_json::json;

async fn upload(uri: &str, file: &str) -> Result<(), Box<dyn Error + Send + Sync>> {
    let bytes = std::fs::read(file)?;
    // The default limit for a push is 7 MiB. The server has its own limit.
    let config = Config::new(uri)?.max_push_bytes(64 << 20).queued_bytes_max(64 << 20);
    let client = phx_tokio::connect(config).await?;
    let room = client.join("room:uploads", json!({})).await?;
    let patient = PushOptions::call().timeout(Duration::from_secs(60));
    let sent = bytes.len();
    let reply = room.push_with("echo", Payload::binary(bytes), patient).await?.ok()?;
    println!("sent {sent} bytes, {} came back, binary: {}", reply.len(), reply.is_binary());
    client.disconnect().await;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [uri, file] = &arguments[..] else {
        return Err("usage: binary <ws:// or wss:// address> <file>".into());
    };
    tokio::runtime::Runtime::new()?.block_on(upload(uri, file))
}
