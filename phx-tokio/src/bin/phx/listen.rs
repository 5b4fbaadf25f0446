//! `phx listen`: joins topics and prints what happens on them until it is interrupted.

use phx_tokio::{ChannelEvent, Interruption, Messages};
use serde_json::json;
use tokio::task::JoinSet;

use crate::args::Target;
use crate::exit::{self, Failed};
use crate::output::{Output, json_of};
use crate::push::{join, with_client};
use crate::style::Tone;

/// Runs until the user stops it, nobody reads its output, or every channel has ended.
pub(crate) async fn run(target: &Target, topics: Vec<String>) -> Result<(), Failed> {
    with_client(target, async |client| {
        tokio::select! {
            // Its first poll installs the handler, so it comes before anything is printed.
            biased;
            _ = tokio::signal::ctrl_c() => Ok(()),
            end = listen(client, topics) => end,
        }
    })
    .await
}

async fn listen(client: &phx_tokio::Client, topics: Vec<String>) -> Result<(), Failed> {
    let output = Output::new();
    let mut listeners = JoinSet::new();
    for topic in topics {
        let channel = join(client, &topic).await?;
        let messages = channel.messages();
        if output.event("joined", &topic, (Tone::Good, "joined", ""), json!({})).is_err() {
            return Ok(());
        }
        listeners.spawn(async move {
            let end = follow(output, &topic, messages).await;
            drop(channel);
            end
        });
    }
    // Waits for every listener; the first that failed decides.
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
                let (event, payload) = (&*message.event, json_of(&message.payload));
                let words = (Tone::Plain, event, &*payload.to_string());
                output.event("message", topic, words, json!({"event": event, "payload": payload}))
            }
            ChannelEvent::Interrupted { cause, .. } => {
                let cause = interruption(&cause);
                let words = (Tone::Gap, "interrupted:", &*cause);
                output.event("interrupted", topic, words, json!({"cause": cause}))
            }
            ChannelEvent::Resumed { response } => {
                let response = json_of(&response);
                let words = (Tone::Good, "joined again", &*response.to_string());
                output.event("resumed", topic, words, json!({"response": response}))
            }
            ChannelEvent::Lagged(missed) => {
                let words = (Tone::Gap, "too slow:", &*format!("{missed} messages were dropped"));
                output.event("lagged", topic, words, json!({"missed": missed}))
            }
            ChannelEvent::Closed(end) => {
                let failed = exit::ended(topic, &end);
                let cause = failed.to_string();
                // The line on standard error says it too, for those who do not read this one; a
                // terminal shows both, and need not say it twice.
                let words = (Tone::Bad, "closed", "");
                let _ = output.event("closed", topic, words, json!({"cause": cause}));
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
