//! `phx push`: joins a topic, pushes one event and prints the response.

use phx_tokio::{Channel, Client};
use serde_json::{Value, json};

use crate::Target;
use crate::exit::Failed;
use crate::output::{Output, json_of};

/// Pushes once.
pub(crate) async fn run(
    target: &Target,
    topic: &str,
    event: &str,
    payload: &str,
) -> Result<(), Failed> {
    let payload: Value = serde_json::from_str(payload)
        .map_err(|error| Failed::Usage(format!("the payload is no JSON: {error}")))?;
    let client = open(target).await?;
    let done = push(&client, topic, event, payload).await;
    client.disconnect().await;
    let response = done?;
    // Nobody reads it: then it need not be printed.
    let _ = Output::new().value(&response);
    Ok(())
}

async fn push(client: &Client, topic: &str, event: &str, payload: Value) -> Result<Value, Failed> {
    let channel = join(client, topic).await?;
    let reply = channel.push(event, payload).await;
    let reply = reply.map_err(|error| Failed::Push(format!("{topic}: {event}: {error}")))?;
    let response = json_of(&reply.response);
    match &*reply.status {
        "ok" => Ok(response),
        status => Err(Failed::Push(format!("{topic}: {event} was answered {status}: {response}"))),
    }
}

/// Connects, or says in one line why not.
pub(crate) async fn open(target: &Target) -> Result<Client, Failed> {
    let connected = phx_tokio::connect(target.config()?).await;
    connected.map_err(|error| Failed::connection(&target.url, &error.cause))
}

/// Joins, or says in one line why not.
pub(crate) async fn join(client: &Client, topic: &str) -> Result<Channel, Failed> {
    let joined = client.join(topic, json!({})).await;
    joined.map_err(|error| Failed::join(topic, &error))
}
