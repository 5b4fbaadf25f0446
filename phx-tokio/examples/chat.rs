//! A chat client: pushes each line that is typed to a room, and prints the messages of others.
//!
//! ```text
//! cargo run -p phx-tokio --example chat-tokio -- ws://127.0.0.1:4000/socket/websocket room:lobby
//! ```
//!
//! It works with any Phoenix server whose room broadcasts the event `shout`. Stop the server and start
//! it again: the client rejoins the room.

use std::error::Error;
use std::io::stdin;
use std::thread;

use futures_executor::block_on;
use phx_tokio::{ChannelEvent, Config};
use serde_json::json;

async fn chat(uri: &str, topic: &str) -> Result<(), Box<dyn Error + Send + Sync>> {
    let client = phx_tokio::connect(Config::new(uri)?).await?;
    let room = client.join(topic, json!({})).await?;
    let mut messages = room.messages();

    // Reading a terminal blocks, so a thread does it. Handles work on any thread.
    thread::spawn(move || {
        for line in stdin().lines().map_while(Result::ok) {
            match block_on(room.push("shout", json!({ "body": line }))) {
                Ok(reply) => eprintln!("({})", reply.status),
                Err(error) => eprintln!("(not sent: {error})"),
            }
        }
        block_on(client.disconnect());
    });

    while let Some(event) = messages.next().await {
        match event {
            ChannelEvent::Message(message) if message.event() == "shout" => {
                let said = message.payload().to_value()?;
                println!("{}", said["body"].as_str().unwrap_or("(something)"));
            }
            ChannelEvent::Interrupted { .. } => eprintln!("(gone)"),
            ChannelEvent::Resumed { .. } => eprintln!("(back)"),
            _ => {}
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(uri), Some(topic)) = (arguments.next(), arguments.next()) else {
        return Err("usage: chat <ws:// or wss:// address> <topic>".into());
    };
    tokio::runtime::Runtime::new()?.block_on(chat(&uri, &topic))
}
