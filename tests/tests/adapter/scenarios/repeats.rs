//! Scenarios of pushes that are repeated with their key, and of messages on topics that have no
//! channel.

use serde_json::json;

use super::super::stage::{Stage, driven_until, until};
use super::{echoes, json_of};
use crate::rt::phx::client::{PushFailed, Unrouted, UnroutedEvent};
use crate::rt::phx::event::{PushErrorKind, RepeatOptions, UnknownCause};
use crate::rt::phx::{Client, Message};

/// A push that kills its connection is repeated after each rejoin, a bounded number of times, and
/// never without its key.
pub(in super::super) async fn repeats_are_bounded(stage: &mut Stage) {
    let client = stage.connect().await;
    let room = client.join(stage.topic("room", ""), json!({})).await.unwrap();
    let options = RepeatOptions::keyed_by("id").repeats(2);
    let push = room.push_repeating("kill_transport", json!({"id": 7}), options.clone());
    let failed = push.await.unwrap_err();
    assert_eq!(failed.failed, PushFailed::Unknown(UnknownCause::Disconnected));
    assert_eq!((failed.repeats, client.stats().pushes_repeated), (2, 2));

    let refused = room.push_repeating("kill_transport", json!({"ID": 7}), options.clone()).await;
    let PushFailed::NotAccepted(refused) = refused.unwrap_err().failed else { panic!("accepted") };
    assert!(matches!(refused.kind, PushErrorKind::NoKey(_)), "{refused}");
    let done = room.push_repeating("echo", json!({"id": 8}), options).await.unwrap();
    assert_eq!((json_of(&done.reply.response), done.repeats), (json!({"id": 8}), 0));
}

/// The connection is lost before the reply, and the repeat is answered.
pub(in super::super) async fn lost_push_is_repeated(stage: &mut Stage) {
    let client = stage.connect().await;
    let room = client.join(stage.topic("room", ""), json!({})).await.unwrap();
    stage.server().with(|server, _| server.hold_replies(true));
    let options = RepeatOptions::keyed_by("id");
    let mut push = Box::pin(room.push_repeating("echo", json!({"id": 7}), options));
    driven_until(&mut push, "it is written", || client.stats().pushes_in_flight == 1).await;
    stage.server().with(|server, _| {
        server.peers().into_iter().for_each(|peer| server.kill(peer));
        server.hold_replies(false);
    });
    let done = push.await.unwrap();
    assert_eq!((json_of(&done.reply.response), done.repeats), (json!({"id": 7}), 1));
    echoes(&room, json!({"n": 1})).await;
}

async fn next_unrouted(unrouted: &mut Unrouted) -> Message {
    match unrouted.next().await {
        Some(UnroutedEvent::Message(message)) => message,
        other => panic!("expected a message, got {other:?}"),
    }
}

/// Subscribes as a client of Absinthe does, and returns the id of the subscription.
async fn subscribe(client: &Client) -> String {
    let document = json!({"query": "subscription { postAdded { id } }", "variables": {}});
    let reply = client.push("__absinthe__:control", "doc", document).await.unwrap();
    let response = json_of(&reply.ok().unwrap());
    response["subscriptionId"].as_str().expect("an id").to_owned()
}

/// The data of a GraphQL subscription arrives on a topic that no client joins, also after a
/// reconnect. Without a stream it is counted.
pub(in super::super) async fn unrouted_messages(stage: &mut Stage) {
    let client = stage.connect().await;
    let control = client.join("__absinthe__:control", json!({})).await.unwrap();
    let first = subscribe(&client).await;
    stage.server().with(|server, _| server.publish(&first, json!({"data": {"n": 1}})));
    until("it is counted", || client.stats().messages_unrouted == 1).await;

    let mut unrouted = client.unrouted();
    stage.server().with(|server, _| server.publish(&first, json!({"data": {"n": 2}})));
    let message = next_unrouted(&mut unrouted).await;
    assert_eq!((message.topic().as_str(), message.event()), (&*first, "subscription:data"));
    let data = json!({"result": {"data": {"n": 2}}, "subscriptionId": first});
    assert_eq!(json_of(message.payload()), data);

    let mut events = control.messages();
    stage.server().with(|server, _| {
        server.peers().into_iter().for_each(|peer| server.kill(peer));
    });
    super::interrupted(&mut events).await;
    super::resumed(&mut events).await;
    let second = subscribe(&client).await;
    assert_ne!(first, second);
    stage.server().with(|server, _| {
        assert_eq!(server.subscriptions(), [second.as_str()], "the first ended with its channel");
        server.publish(&first, json!({"data": {"n": 3}}));
        server.publish(&second, json!({"data": {"n": 4}}));
    });
    let message = next_unrouted(&mut unrouted).await;
    assert_eq!(message.topic().as_str(), second);
    assert_eq!(client.stats().messages_unrouted, 1);

    drop((client, control, events));
    assert_eq!(unrouted.next().await, None);
}
