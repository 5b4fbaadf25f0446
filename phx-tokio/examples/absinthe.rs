//! GraphQL subscriptions of a server with Absinthe, typed with serde.
//!
//! ```text
//! cargo run -p phx-tokio --example absinthe-tokio -- ws://127.0.0.1:4000/socket/websocket
//! ```
//!
//! The control channel takes the documents. The data of a subscription arrives on a topic that is the
//! id of the subscription. Nothing joins that topic, so the client reads the data as unrouted messages.
//! The server forgets a subscription when its control channel ends, so each join subscribes again.

use std::error::Error;

use futures_util::{StreamExt as _, select};
use phx_tokio::client::UnroutedEvent;
use phx_tokio::{Channel, ChannelEvent, Config, Message, Payload};
use serde::{Deserialize, Serialize};

type Failure = Box<dyn Error + Send + Sync>;

const QUERY: &str = "subscription ($blog: ID!) { postAdded(blog: $blog) { id title } }";

#[derive(Serialize)]
struct Document {
    query: &'static str,
    variables: Variables,
}

#[derive(Serialize)]
struct Variables {
    blog: u32,
}

#[derive(Deserialize)]
struct Subscribed {
    #[serde(rename = "subscriptionId")]
    id: String,
}

#[derive(Deserialize)]
struct Published {
    result: GraphQl,
}

/// The result of a GraphQL document.
#[derive(Deserialize)]
struct GraphQl {
    data: Option<Data>,
    #[serde(default)]
    errors: Vec<GraphQlError>,
}

#[derive(Deserialize)]
struct Data {
    #[serde(rename = "postAdded")]
    post: Post,
}

#[derive(Deserialize)]
struct Post {
    id: String,
    title: String,
}

#[derive(Deserialize)]
struct GraphQlError {
    message: String,
}

/// Subscribes, and returns the id of the subscription. If no reply comes, it joins the control channel
/// again, and `Resumed` follows.
async fn subscribe(control: &Channel) -> Result<String, Failure> {
    let document = Document { query: QUERY, variables: Variables { blog: 7 } };
    match control.call::<Subscribed>("doc", &document).await {
        Ok(Subscribed { id }) => {
            println!("subscribed as {id}");
            Ok(id)
        }
        Err(refused) if refused.is_refused() => Err(refused.into()),
        Err(lost) => {
            println!("not subscribed: {lost}");
            control.rejoin()?;
            Ok(String::new())
        }
    }
}

fn show(message: &Message) -> Result<(), Failure> {
    let GraphQl { data, errors } = message.payload().deserialize::<Published>()?.result;
    if let Some(Data { post }) = data {
        println!("post {}: {}", post.id, post.title);
    }
    errors.iter().for_each(|error| println!("error: {}", error.message));
    Ok(())
}

async fn run(uri: &str) -> Result<(), Failure> {
    let client = phx_tokio::connect(Config::new(uri)?).await?;
    // The stream begins now, so it has all data of the subscriptions that follow.
    let mut unrouted = client.unrouted();
    let control = client.join("__absinthe__:control", Payload::empty()).await?;
    let mut events = control.messages();
    let mut subscription = subscribe(&control).await?;
    loop {
        select! {
            event = events.select_next_some() => match event {
                ChannelEvent::Resumed { .. } => subscription = subscribe(&control).await?,
                ChannelEvent::Closed(end) => return Err(end.into()),
                other => println!("{other:?}"), // Interrupted, Lagged(n)
            },
            event = unrouted.select_next_some() => match event {
                UnroutedEvent::Message(message) if *message.topic() == *subscription => {
                    show(&message)?;
                }
                UnroutedEvent::Message(_) => {} // of an earlier subscription
                other => println!("{other:?}"), // Lagged(n)
            },
        }
    }
}

fn main() -> Result<(), Failure> {
    let uri = std::env::args().nth(1).ok_or("usage: absinthe <ws:// or wss:// address>")?;
    tokio::runtime::Runtime::new()?.block_on(run(&uri))
}
