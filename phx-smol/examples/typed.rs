//! Payloads of your own types, sent and received.
//!
//! ```text
//! cargo run -p phx-smol --example typed-smol -- ws://127.0.0.1:4000/socket/websocket
//! ```

use std::error::Error;

use phx_smol::{ChannelEvent, Config, Payload};
use serde::{Deserialize, Serialize};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Order {
    id: u32,
    items: Vec<String>,
}

async fn run(uri: &str) -> Result<(), Box<dyn Error + Send + Sync>> {
    let client = phx_smol::connect(Config::new(uri)?).await?;
    let room = client.join("room:orders", Payload::json(&())?).await?;
    let mut messages = room.messages();

    // The call serializes the value once, into the buffer of the frame.
    let order = Order { id: 7, items: vec!["tea".into(), "milk".into()] };
    let reply = room.push("echo", Payload::json(&order)?).await?.ok()?;
    assert_eq!(reply.deserialize::<Order>()?, order);

    // `deserialize` returns an error if the payload of the message does not match the type.
    room.cast("shout", Payload::json(&order)?).await?;
    if let Some(ChannelEvent::Message(message)) = messages.next().await {
        println!("{}: {:?}", message.event(), message.payload().deserialize::<Order>()?);
    }
    client.disconnect().await;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let uri = std::env::args().nth(1).ok_or("usage: typed <ws:// or wss:// address>")?;
    smol::block_on(run(&uri))
}
