//! Your own client, its server killed and back again, in no time:
//! `cargo run -p phx-proto --features driver,testing --example simulate_own_client`

use phx_proto::Config;
use phx_proto::client::{ChannelEvent, Client};
use phx_proto::testing::Script;
use serde_json::json;

/// The program under test: reports what it measures, and counts how often it was cut off.
async fn thermometer(client: Client) -> u32 {
    let room = client.join("sensor:7", json!({"kind": "temperature"})).await.expect("a room");
    let mut events = room.messages();
    let mut gaps = 0;
    while let Some(event) = events.next().await {
        match event {
            ChannelEvent::Message(message) if message.event() == "measure" => {
                room.cast("reading", json!({"celsius": 21})).await.expect("it is sent");
            }
            ChannelEvent::Interrupted { .. } => gaps += 1,
            ChannelEvent::Closed(_) => break,
            _ => {}
        }
    }
    gaps
}

/// Plays the server of a day on which things go wrong.
pub fn main() {
    let script = Script::new();
    let config = Config::new("ws://localhost:4000/socket/websocket").expect("an address");
    let running = script.spawn(thermometer(script.client(config)));

    script.connect_and_assert_join("sensor:7");
    script.push("sensor:7", "measure", json!({}));
    let reading = script.assert_push("sensor:7", "reading");
    assert_eq!(reading.json(), json!({"celsius": 21}));

    // The server is killed, and when it is back it cannot serve at first.
    script.disconnect();
    script.refuse_connect(503);
    script.refuse_connect(503);
    script.connect_and_assert_join("sensor:7");

    // The thermometer is where it was, and does not report what nobody asked for.
    script.refute_push("sensor:7", "reading");
    script.push("sensor:7", "measure", json!({}));
    script.assert_push("sensor:7", "reading");
    script.close_channel("sensor:7");
    assert_eq!(script.finish(running), 1, "one gap");
    println!("{}", script.log());
}
