//! Connects to a server whose certificate comes from a private authority.
//!
//! ```text
//! cargo run -p phx-tokio --example custom_tls-tokio -- wss://backend.internal/socket/websocket ca.pem
//! ```

use std::error::Error;

use phx_tokio::{Config, Roots, Tls};
use serde_json::json;

async fn run(uri: &str, ca: &str) -> Result<(), Box<dyn Error + Send + Sync>> {
    // These roots replace Mozilla's. `Tls::with_identity` also presents a client certificate, and
    // `Config::tls` accepts an `Arc<rustls::ClientConfig>` as well.
    let tls = Tls::new(Roots::pem(&std::fs::read(ca)?)?);
    let client = phx_tokio::connect(Config::new(uri)?.tls(tls)).await?;
    let room = client.join("room:lobby", json!({})).await?;
    println!("joined: {}", room.join_response().ok_or("not joined any more")?.get()?);
    client.disconnect().await;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [uri, ca] = &arguments[..] else {
        return Err("usage: custom_tls <wss:// address> <file with the authority, PEM>".into());
    };
    tokio::runtime::Runtime::new()?.block_on(run(uri, ca))
}
