//! Orders from NATS: a request to [`SUBJECT`] is a push on a channel, and its reply is the response.
//!
//! Request: `{"connection": …, "topic": …, "event": …, "payload": …}`. Reply: `{"status": …,
//! "response": …}`, or `{"error": …, "sent": …}`, where `sent` is true if the server may have received it.

use std::sync::Arc;

use async_nats::{Client, Message, SubscribeError};
use futures_util::StreamExt;
use phx_tokio::Payload;
use phx_tokio::client::PushFailed;
use phx_tokio::service::{EventData, Supervisor};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::counters::Counters;

/// The subject of requests. Each request reaches one of the processes that subscribe to it.
pub const SUBJECT: &str = "phx.push";

/// The maximum number of concurrent requests. Further ones wait in the NATS client, which counts those
/// that it drops.
const OUTSTANDING_MAX: usize = 256;

/// Performs requests until the future is dropped.
pub async fn obey(
    client: Client,
    supervisor: Supervisor,
    counters: Arc<Counters>,
) -> Result<(), SubscribeError> {
    let mut requests = client.queue_subscribe(SUBJECT, "phx".to_owned()).await?;
    let mut outstanding = JoinSet::new();
    loop {
        let has_capacity = outstanding.len() < OUTSTANDING_MAX;
        tokio::select! {
            Some(_) = outstanding.join_next(), if !outstanding.is_empty() => {}
            request = requests.next(), if has_capacity => {
                let Some(request) = request else { return Ok(()) };
                let (client, supervisor) = (client.clone(), supervisor.clone());
                let counters = Arc::clone(&counters);
                outstanding.spawn(async move {
                    let reply = carry_out(&request, &supervisor).await;
                    Counters::add(&counters.orders, 1);
                    if let Some(to) = request.reply {
                        // If the broker is gone, the requester gets a timeout.
                        let _ = client.publish(to, reply.to_string().into()).await;
                    }
                });
            }
        }
    }
}

async fn carry_out(request: &Message, supervisor: &Supervisor) -> EventData {
    let failed = |error: String, sent: bool| {
        let mut reply = EventData::new();
        reply.insert("error", error);
        reply.insert("sent", sent);
        reply
    };
    // The members stay text, so that the payload is pushed unchanged.
    let Ok(order) = serde_json::from_slice::<EventData>(&request.payload) else {
        return failed("the request is not a JSON object".to_owned(), false);
    };
    let text = |key: &str| {
        let text = order.get_str(key);
        text.ok_or_else(|| format!("the request has no string {key:?}"))
    };
    let parts = (|| Ok::<_, String>((text("connection")?, text("topic")?, text("event")?)))();
    let (connection, topic, event) = match parts {
        Ok(parts) => parts,
        Err(error) => return failed(error, false),
    };
    let client = match supervisor.client(&connection) {
        Ok(client) => client,
        Err(error) => return failed(error.to_string(), false),
    };
    let payload = match order.get("payload") {
        Some(payload) => Payload::json(&payload),
        None => Payload::json(&Value::Null),
    };
    let payload = match payload {
        Ok(payload) => payload,
        Err(error) => return failed(error.to_string(), false),
    };
    match client.push(&topic, &event, payload).await {
        Ok(answer) => {
            let mut reply = EventData::new();
            reply.insert("status", &*answer.status);
            reply.insert_payload("response", &answer.response);
            reply
        }
        Err(error) => {
            let sent = matches!(error, PushFailed::TimedOut | PushFailed::Unknown(_));
            failed(error.to_string(), sent)
        }
    }
}
