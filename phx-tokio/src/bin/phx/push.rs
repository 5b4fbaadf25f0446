//! `phx push` and `phx cast`: join a topic and push an event once or repeatedly.

use core::time::Duration;
use std::ffi::OsString;

use clap::Args;
use phx_tokio::event::PushOptions;
use phx_tokio::{Channel, Payload};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::exit::{Failed, reason, with_recording};
use crate::output::{Output, json_of};
use crate::target::{Connected, Target};
use crate::writer::Gone;
use crate::{duration, source};

/// The timeout for the reply to the leave after a cast. The reply proves that the server has
/// handled the event.
const LEAVE: Duration = Duration::from_secs(2);

/// The options of `phx push` and `phx cast`.
#[derive(Debug, Args)]
pub(crate) struct Push {
    #[command(flatten)]
    target: Target,
    /// The topic to join
    topic: String,
    /// The event
    event: String,
    /// JSON payload; @FILE reads a file, - standard input
    #[arg(value_name = "PAYLOAD", default_value = "{}")]
    payload: OsString,
    /// Read the payload from a file; its name may begin with - or @
    #[arg(long, value_name = "FILE", conflicts_with = "payload")]
    file: Option<std::path::PathBuf>,
    /// Push the payload's bytes as a binary frame
    #[arg(short, long)]
    binary: bool,
    /// Push the event this many times
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    repeat: u64,
    /// Wait this long between pushes, such as 500ms
    #[arg(long, value_name = "TIME", value_parser = crate::duration::parse)]
    #[arg(requires = "repeat")]
    interval: Option<Duration>,
}

/// Pushes and prints the responses.
pub(crate) async fn push(push: Push) -> Result<(), Failed> {
    let payload = push.payload()?;
    let output = Output::start()?;
    let out = &output;
    push.run(async |connected, channel| {
        push.each(connected, async || {
            let (topic, event) = (&push.topic, &push.event);
            let options = PushOptions::call();
            let options = connected.remaining().map_or(options, |left| options.timeout(left));
            let reply = channel.push_with(event, payload.clone(), options).await;
            let reply =
                reply.map_err(|error| Failed::Push(format!("{topic}: {event}: {error}")))?;
            if &*reply.status != "ok" {
                let (status, why) = (&reply.status, reason(&reply.response));
                let answer = format!("{topic}: {event} was answered with {status}: {why}");
                return Err(Failed::Push(answer));
            }
            match out.writer().send(out.payload(&json_of(&reply.response))).await {
                // If the reader has closed the output, this is not an error.
                Ok(()) | Err(Gone::Reader) => Ok(()),
                Err(Gone::Failed(why)) => Err(Failed::Local(format!("standard output: {why}"))),
            }
        })
        .await
    })
    .await?;
    match output.writer().flushed().await {
        Ok(()) | Err(Gone::Reader) => Ok(()),
        Err(Gone::Failed(why)) => Err(Failed::Local(format!("standard output: {why}"))),
    }
}

/// Pushes without waiting for replies.
pub(crate) async fn cast(push: Push) -> Result<(), Failed> {
    let payload = push.payload()?;
    push.run(async |connected, channel| {
        push.each(connected, async || {
            let (topic, event) = (&push.topic, &push.event);
            let options = PushOptions::cast();
            let options = connected.remaining().map_or(options, |left| options.timeout(left));
            let done = channel.cast_with(event, payload.clone(), options).await;
            done.map_err(|error| Failed::Push(format!("{topic}: {event}: {error}")))
        })
        .await?;
        let _ = timeout(LEAVE, channel.clone().leave()).await;
        Ok(())
    })
    .await
}

impl Push {
    /// Reads the payload, before connecting.
    fn payload(&self) -> Result<Payload, Failed> {
        if self.event.starts_with("phx_") {
            let event = &self.event;
            return Err(Failed::Usage(format!(
                "the event {event:?} is reserved for the protocol: phx joins and leaves by itself"
            )));
        }
        let bytes = match &self.file {
            Some(file) => source::payload_file(file)?,
            None => source::bytes(&self.payload)?,
        };
        if self.binary {
            return Ok(Payload::binary(bytes));
        }
        let bad = |error| Failed::Usage(format!("the payload is not JSON: {error}"));
        source::json(&bytes).map_err(bad)
    }

    /// Connects, joins, does the work, and disconnects.
    async fn run(
        &self,
        work: impl AsyncFnOnce(&Connected, &Channel) -> Result<(), Failed>,
    ) -> Result<(), Failed> {
        let connected = self.target.connect().await?;
        let done = async {
            let channel = connected.join(&self.topic).await?;
            work(&connected, &channel).await
        };
        let done = done.await;
        connected.client.disconnect().await;
        with_recording(done, connected.recorded())
    }

    /// Repeats the work as requested, and stops at the first failure or at the deadline.
    async fn each(
        &self,
        connected: &Connected,
        work: impl AsyncFn() -> Result<(), Failed>,
    ) -> Result<(), Failed> {
        let pause = self.interval.unwrap_or_default();
        let mut ticks = interval(pause.max(Duration::from_nanos(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for done in 0..self.repeat {
            if !pause.is_zero() {
                tokio::select! {
                    biased;
                    _ = ticks.tick() => {}
                    late = connected.deadline() => return Err(self.interrupted(done, late)),
                }
            }
            work().await?;
        }
        Ok(())
    }

    /// The error if the deadline passes in the pause after this number of pushes.
    fn interrupted(&self, done: u64, within: Duration) -> Failed {
        let Self { topic, event, repeat, .. } = self;
        let within = duration::shown(within);
        Failed::Push(format!("{topic}: {event}: sent {done} of {repeat} times within {within}"))
    }
}
