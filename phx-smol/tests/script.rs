//! `testing::Script` for a program that runs on smol.

use phx_smol::testing::Script;
use phx_smol::{ChannelEvent, Client, Config};
use serde_json::json;
use smol::channel::{Sender, bounded};

/// Sends every alarm to another task.
async fn alarms(client: Client, to: Sender<u64>) {
    let room = client.join("alarms", json!({})).await.expect("a room");
    let mut events = room.messages();
    while let Some(event) = events.next().await {
        if let ChannelEvent::Message(message) = event {
            let level = message.payload().to_value().expect("JSON")["level"].as_u64();
            to.send(level.expect("a level")).await.expect("a listener");
        }
    }
}

/// A program of several tasks is scripted in virtual time.
#[test]
fn smol_program_is_scripted() {
    let executor = smol::LocalExecutor::new();
    smol::block_on(executor.run(async {
        let script = Script::new();
        let client = script.client(Config::new("ws://localhost/socket/websocket").expect("a URI"));
        let (to, levels) = bounded(1);
        let program = executor.spawn(alarms(client.clone(), to));
        let echo = executor.spawn(async move {
            let room = client.channel("alarms").expect("it is joined");
            while let Ok(level) = levels.recv().await {
                room.cast("heard", json!({"level": level})).await.expect("it is sent");
            }
        });

        // The other tasks run only while this one waits.
        script.settled().await;
        script.connect_and_assert_join("alarms");
        for level in [3, 4, 5] {
            script.push("alarms", "alarm", json!({"level": level}));
            script.settled().await;
            assert_eq!(script.assert_push("alarms", "heard").json(), json!({"level": level}));
        }
        script.disconnect();
        script.connect_and_assert_join("alarms");
        script.close_channel("alarms");
        script.settled().await;
        program.await;
        echo.await;
    }));
}
