//! `phx push`: joins a topic, pushes one event and prints the response.

use phx_tokio::{Channel, Client};
use serde_json::{Value, json};

use crate::args::Target;
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
    let response =
        with_client(target, async |client| push(client, topic, event, payload).await).await?;
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

/// Connects, does something with the client, and disconnects; says in one line what failed, and
/// whether the recording did.
pub(crate) async fn with_client<T>(
    target: &Target,
    work: impl AsyncFnOnce(&Client) -> Result<T, Failed>,
) -> Result<T, Failed> {
    let (setup, record) = target.setup()?;
    let done = match phx_tokio::connect(setup).await {
        Ok(client) => {
            let done = work(&client).await;
            client.disconnect().await;
            done
        }
        Err(error) => Err(Failed::connection(&target.url, &error.cause)),
    };
    let recorded = record.map_or(Ok(()), |record| record.finish());
    let done = done?;
    recorded.map(|()| done)
}

/// Joins, or says in one line why not.
pub(crate) async fn join(client: &Client, topic: &str) -> Result<Channel, Failed> {
    let joined = client.join(topic, json!({})).await;
    joined.map_err(|error| Failed::join(topic, &error))
}
