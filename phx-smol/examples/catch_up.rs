//! Catching up: prints every message of a topic once and in order, even messages that were sent
//! while the connection was lost or the program did not run.
//!
//! The server must keep the messages. The topics `ring:*` of phx's test server (`phx serve`) do:
//!
//! ```text
//! cargo run -p phx-smol --example catch_up-smol -- ws://127.0.0.1:4000/socket/websocket ring:orders cursor.json
//! ```

use std::error::Error;
use std::io::ErrorKind;

use phx_smol::catch_up::Cursor;
use phx_smol::client::CatchUp;
use phx_smol::{ChannelEvent, Config, JoinOptions, Message};
use serde_json::json;

/// The number that the server gave to a message.
fn position_of(message: &Message) -> Option<u64> {
    message.payload().to_value().ok()?["pos"].as_u64()
}

/// The cursor that the last run of the program stored.
fn stored_cursor(file: &str) -> Result<Cursor, Box<dyn Error + Send + Sync>> {
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(serde_json::from_str(&text)?),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Cursor::new()),
        Err(error) => Err(error.into()),
    }
}

/// Replaces the file as a whole, so that it is complete even if the program is killed.
fn store(cursor: Option<Cursor>, file: &str) -> Result<(), Box<dyn Error + Send + Sync>> {
    let new = format!("{file}.new");
    std::fs::write(&new, serde_json::to_string(&cursor)?)?;
    Ok(std::fs::rename(&new, file)?)
}

async fn run(uri: &str, topic: &str, file: &str) -> Result<(), Box<dyn Error + Send + Sync>> {
    let client = phx_smol::start(Config::new(uri)?);
    let catch_up = CatchUp::new(position_of).cursor(stored_cursor(file)?);
    let options = JoinOptions::new().catch_up(catch_up);
    let mut messages = client.want_with(topic, json!({}), options)?.messages();
    while let Some(event) = messages.next().await {
        match event {
            ChannelEvent::Message(message) => println!("message {}", message.payload().get()?),
            ChannelEvent::CaughtUp => println!("caught up"),
            ChannelEvent::GapRemains { after, through } => {
                println!("the server has forgotten messages: after {after:?}, through {through:?}");
            }
            ChannelEvent::Interrupted { cause, .. } => println!("interrupted: {cause}"),
            ChannelEvent::Closed(end) => return Err(end.into()),
            _ => {}
        }
        // The message is handled by now. A program that stores the cursor together with the result
        // of its work, in one transaction, handles each message exactly once.
        store(messages.cursor(), file)?;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(uri), Some(topic), Some(file)) =
        (arguments.next(), arguments.next(), arguments.next())
    else {
        return Err(
            "usage: catch_up <ws:// or wss:// address> <topic> <file for the cursor>".into()
        );
    };
    smol::block_on(run(&uri, &topic, &file))
}
