//! `phx listen`: joins topics and prints what happens on them until it is interrupted.

use phx_tokio::{ChannelEvent, Interruption, Messages};
use serde_json::json;
use tokio::task::JoinSet;

use crate::Target;
use crate::exit::{self, Failed};
use crate::output::{Output, json_of};
use crate::push::{join, open};

/// Runs until the user stops it, nobody reads its output, or every channel has ended.
pub(crate) async fn run(target: &Target, topics: Vec<String>) -> Result<(), Failed> {
    let output = Output::new();
    let client = open(target).await?;
    let mut listeners = JoinSet::new();
    for topic in topics {
        let channel = join(&client, &topic).await?;
        let messages = channel.messages();
        if output.event("joined", &topic, json!({})).is_err() {
            return Ok(());
        }
        listeners.spawn(async move {
            let end = follow(output, &topic, messages).await;
            drop(channel);
            end
        });
    }
    let done = tokio::select! {
        _ = tokio::signal::ctrl_c() => Ok(()),
        end = all(&mut listeners) => end,
    };
    client.disconnect().await;
    done
}

/// Waits for every listener; the first that failed decides.
async fn all(listeners: &mut JoinSet<Result<(), Failed>>) -> Result<(), Failed> {
    while let Some(end) = listeners.join_next().await {
        end.map_err(|error| Failed::Local(error.to_string()))??;
    }
    Ok(())
}

/// Prints the events of one channel until it ends, or until nobody reads.
async fn follow(output: Output, topic: &str, mut messages: Messages) -> Result<(), Failed> {
    while let Some(event) = messages.next().await {
        let printed = match event {
            ChannelEvent::Message(message) => {
                let payload = json_of(&message.payload);
                output.event(
                    "message",
                    topic,
                    json!({"event": &*message.event, "payload": payload}),
                )
            }
            ChannelEvent::Interrupted { cause, .. } => {
                output.event("interrupted", topic, json!({"cause": interruption(&cause)}))
            }
            ChannelEvent::Resumed { response } => {
                output.event("resumed", topic, json!({"response": json_of(&response)}))
            }
            ChannelEvent::Lagged(missed) => {
                output.event("lagged", topic, json!({"missed": missed}))
            }
            ChannelEvent::Closed(end) => {
                let failed = exit::ended(topic, &end);
                // The line on standard error says it too, for those who do not read this one.
                let _ = output.event("closed", topic, json!({"cause": failed.to_string()}));
                return Err(failed);
            }
        };
        if printed.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

fn interruption(cause: &Interruption) -> String {
    match cause {
        Interruption::Disconnected(cause) => cause.to_string(),
        Interruption::Crashed => "the channel crashed on the server".to_owned(),
        _ => "the server does not know the channel any more".to_owned(),
    }
}
