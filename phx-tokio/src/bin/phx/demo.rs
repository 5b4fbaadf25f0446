//! `phx demo`: a server and a client in one process, on real sockets; the server is killed and
//! restarted.

use core::future::Future;
use core::time::Duration;
use std::io::{self, Write};

use phx_tokio::client::{ClientEvent, Left};
use phx_tokio::config::DelayRange;
use phx_tokio::event::{Cause, LeaveOutcome, NextStep};
use phx_tokio::{Channel, ChannelEvent, Client, Config, Messages, Payload, Signal, Signals};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::exit::Failed;
use crate::serve::listen;
use crate::style::{Style, Tone};

const TOPIC: &str = "room:lobby";

/// The timeout of each step, long enough for a busy machine.
const STEP: Duration = Duration::from_secs(30);

/// Runs the steps in order, and returns the error of the first that fails.
pub(crate) async fn run() -> Result<(), Failed> {
    let any_port = ([127, 0, 0, 1], 0).into();
    let mut listener = step("start the server", listen(any_port)).await??;
    let url = listener.url();
    print("server", &format!("listening at {url}"));

    // A single client need not spread its retries. With a short delay, the recovery takes less time
    // than the timeout of a step.
    let soon = DelayRange::new(Duration::from_millis(10), Duration::from_millis(200));
    let soon = soon.map_err(|error| failed("configure", &error))?;
    let config = Config::new(&url).map_err(|error| failed("configure", &error))?;
    let config = config.first_retry_spread(soon);
    let client = step("connect", phx_tokio::connect(config)).await?;
    let client = client.map_err(|error| failed("connect", &error))?;
    print("client", "connected");

    let joined = step("join", client.join(TOPIC, json!({}))).await?;
    let room = joined.map_err(|error| failed("join", &error))?;
    let mut messages = room.messages();
    let mut signals = client.signals();
    print("client", &format!("joined {TOPIC}"));

    push(&room, json!({"body": "hello"})).await?;

    listener.broadcast(TOPIC, "news", json!({"headline": "phx speaks"}));
    let news = step("receive a broadcast", message(&mut messages)).await??;
    print("client", &format!("received news {news}"));

    step("kill the server", listener.kill()).await?;
    print_toned("server", Tone::Bad, "killed: every TCP connection dropped without a close frame");
    step("notice the kill", interrupted(&mut messages)).await??;
    print_toned("client", Tone::Gap, "interrupted: the channel waits for the connection");

    // The demo prints three delays, after the loss and after two failed attempts, to show that each
    // is random.
    for _ in 0..3 {
        let (cause, delay) = step("choose a delay", retry(&mut signals)).await??;
        let cause = match cause {
            Cause::TransportLost { .. } => "the connection was lost".to_owned(),
            Cause::Dial { .. } => "the port is closed".to_owned(),
            other => other.to_string(),
        };
        print("client", &format!("{cause}; next attempt in {} ms", delay.as_millis()));
    }

    let restarted = step("restart the server", listener.restart()).await?;
    restarted.map_err(|error| failed("restart the server", &error))?;
    print("server", &format!("listening again at {url}"));
    step("recover", resumed(&mut messages)).await??;
    print_toned("client", Tone::Good, &format!("resumed: {TOPIC} is joined again"));

    push(&room, json!({"body": "still here"})).await?;
    drop(messages);
    goodbye(&client, room).await?;
    step("stop the server", listener.shutdown()).await?;
    print_toned("demo", Tone::Good, "every step worked");
    Ok(())
}

async fn push(room: &Channel, payload: Value) -> Result<(), Failed> {
    let reply = step("push", room.push("echo", payload.clone())).await?;
    let reply = reply.map_err(|error| failed("push", &error))?;
    let response = reply.ok().map_err(|error| failed("push", &error))?;
    print("client", &format!("pushed {payload}, reply {}", value(&response)));
    Ok(())
}

async fn goodbye(client: &Client, room: Channel) -> Result<(), Failed> {
    match step("leave", room.leave()).await? {
        Left::Left(LeaveOutcome::Acked) => {}
        other => return Err(Failed::Local(format!("demo: leave: {other:?}"))),
    }
    step("disconnect", client.disconnect()).await?;
    print("client", "left and disconnected");
    Ok(())
}

/// The next message of the channel; any other event is a failure.
async fn message(messages: &mut Messages) -> Result<Value, Failed> {
    match messages.next().await {
        Some(ChannelEvent::Message(message)) => Ok(value(message.payload())),
        other => Err(Failed::Local(format!("expected a message, got {other:?}"))),
    }
}

fn value(payload: &Payload) -> Value {
    payload.to_value().unwrap_or_default()
}

async fn interrupted(messages: &mut Messages) -> Result<(), Failed> {
    while let Some(event) = messages.next().await {
        if matches!(event, ChannelEvent::Interrupted { .. }) {
            return Ok(());
        }
    }
    Err(Failed::Local("the channel ended instead of being interrupted".to_owned()))
}

async fn resumed(messages: &mut Messages) -> Result<Payload, Failed> {
    while let Some(event) = messages.next().await {
        if let ChannelEvent::Resumed { response } = event {
            return Ok(response);
        }
    }
    Err(Failed::Local("the channel ended instead of being resumed".to_owned()))
}

/// The cause and the delay of the next reconnect.
async fn retry(signals: &mut Signals) -> Result<(Cause, Duration), Failed> {
    while let Some(event) = signals.next().await {
        let ClientEvent::Signal(signal) = event else { continue };
        if let Signal::ConnectFailed { cause, next: NextStep::Retry { delay, .. }, .. }
        | Signal::Disconnected { cause, next: NextStep::Retry { delay, .. }, .. } = signal
        {
            return Ok((cause, delay));
        }
    }
    Err(Failed::Local("the client ended instead of retrying".to_owned()))
}

/// Runs one step within the timeout.
async fn step<T>(name: &str, work: impl Future<Output = T>) -> Result<T, Failed> {
    let done = timeout(STEP, work).await;
    done.map_err(|_| Failed::Local(format!("demo: {name}: no result after {} s", STEP.as_secs())))
}

fn failed(name: &str, error: &dyn core::fmt::Display) -> Failed {
    Failed::Local(format!("demo: {name}: {error}"))
}

/// Prints one line.
fn print(who: &str, what: &str) {
    print_toned(who, Tone::Plain, what);
}

/// Prints one line in a colour. The demo continues if the reader closes the output.
fn print_toned(who: &str, tone: Tone, what: &str) {
    let style = Style::stdout();
    let who = style.paint(Tone::Name, format!("{who:>7}"));
    let _ = writeln!(io::stdout(), "{who}  {}", style.paint(tone, what));
}
