//! Tests a client against a server that is killed and restarted, in virtual time: `cargo run -p
//! phx-proto --features driver,testing --example simulate_own_client`

use phx_proto::Config;
use phx_proto::client::{ChannelEvent, Client};
use phx_proto::testing::Script;
use serde_json::json;

/// The program under test. It reports measurements, and counts the interruptions of its channel.
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

/// Plays the server.
pub fn main() {
    let script = Script::new();
    let config = Config::new("ws://localhost:4000/socket/websocket").expect("an address");
    let running = script.spawn(thermometer(script.client(config)));

    script.connect_and_assert_join("sensor:7");
    script.push("sensor:7", "measure", json!({}));
    let reading = script.assert_push("sensor:7", "reading");
    assert_eq!(reading.json(), json!({"celsius": 21}));

    // The server is killed. After its restart it refuses two connections.
    script.disconnect();
    script.refuse_connect(503);
    script.refuse_connect(503);
    script.connect_and_assert_join("sensor:7");

    // The thermometer has rejoined. It sends nothing until it gets a request.
    script.refute_push("sensor:7", "reading");
    script.push("sensor:7", "measure", json!({}));
    script.assert_push("sensor:7", "reading");
    script.close_channel("sensor:7");
    assert_eq!(script.finish(running), 1, "one interruption");
    println!("{}", script.log());
}
