//! The workloads with this client, used as an application would use it.

use core::time::Duration;
use std::time::Instant;

use futures_util::join;

use super::Failure;
use super::floor::number_in;
use super::frames::{Body, Echo, FILLER, Flood, Numbered, topic};
use super::measure::{Round, cpu, median};
use super::workloads::Job;
use crate::phx::socket::ChannelStatus;
use crate::phx::{self, Channel, ChannelEvent, Client, Config, Messages, Payload};
use crate::rt;

pub(crate) struct Ours {
    client: Client,
    rooms: Vec<Channel>,
    /// The stream of each room, while no task uses it.
    streams: Vec<Messages>,
    /// Messages that a full mailbox dropped.
    pub(crate) lost: u64,
}

/// The configuration of every workload: the default with a longer push queue. `TRANSPORT=websocket`
/// selects that transport.
pub(crate) fn config(port: u16) -> Result<Config, Failure> {
    let uri = format!("ws://127.0.0.1:{port}/socket/websocket");
    let config = Config::new(&uri)?.queued_pushes_max(20_000);
    match std::env::var("TRANSPORT").as_deref() {
        Err(_) | Ok("tungstenite") => Ok(config),
        #[cfg(feature = "websocket")]
        Ok("websocket") => Ok(config.transport(crate::phx::config::TransportKind::WebSocket)),
        Ok(other) => Err(format!("no such transport: {other}").into()),
    }
}

/// The same configuration with phx's own WebSocket.
#[cfg(feature = "deflate")]
pub(crate) fn native(port: u16) -> Result<Config, Failure> {
    Ok(config(port)?.transport(crate::phx::config::TransportKind::WebSocket))
}

/// Whether the clients use phx's own WebSocket.
pub(crate) fn is_native() -> bool {
    std::env::var("TRANSPORT").is_ok_and(|name| name == "websocket")
}

impl Ours {
    /// Opens a connection with this many channels.
    pub(crate) async fn open(config: Config, topics: u64) -> Result<Self, Failure> {
        let client = phx::connect(config).await?;
        let mut rooms = Vec::new();
        for number in 0..topics {
            rooms.push(client.join(topic(number), Payload::empty()).await?);
        }
        let streams = rooms.iter().map(Channel::messages).collect();
        Ok(Self { client, rooms, streams, lost: 0 })
    }

    pub(crate) async fn run(&mut self, job: Job) -> Result<Round, Failure> {
        match job {
            Job::Echo { body, outstanding, messages } => {
                self.echo(body, outstanding, messages).await
            }
            Job::Receive { body, topics, messages } => self.receive(body, topics, messages).await,
        }
    }

    /// Runs `outstanding` concurrent callers, each of which waits for its reply.
    async fn echo(&mut self, body: Body, outstanding: u64, all: u64) -> Result<Round, Failure> {
        let (before, start) = (cpu(), Instant::now());
        let each = all / outstanding;
        let alone = outstanding == 1;
        let callers = (0..outstanding).map(|_| call(self.rooms[0].clone(), body, each, alone));
        let mut latencies = Vec::new();
        for done in rt::all(callers).await {
            latencies.push(done?.as_nanos() as f64);
        }
        let (wall, cpu) = (start.elapsed(), cpu() - before);
        let latency = Duration::from_nanos(median(latencies) as u64);
        Ok(Round { messages: each * outstanding, cpu, wall, latency })
    }

    async fn receive(&mut self, body: Body, topics: u64, all: u64) -> Result<Round, Failure> {
        let (before, start) = (cpu(), Instant::now());
        let flood = Payload::json(&Flood { count: all, body, topics })?;
        let room = self.rooms[0].clone();
        let streams = core::mem::take(&mut self.streams);
        let consumers = streams.into_iter().map(|stream| consume(stream, body, all / topics));
        let (consumed, answer) = join!(rt::all(consumers), room.push("flood", flood));
        answer?.ok()?;
        for done in consumed {
            let (stream, lost) = done?;
            self.streams.push(stream);
            self.lost += lost;
        }
        let (wall, cpu) = (start.elapsed(), cpu() - before);
        Ok(Round { messages: all, cpu, wall, ..Round::default() })
    }

    pub(crate) const fn client(&self) -> &Client {
        &self.client
    }

    /// The stream of the only room.
    pub(crate) fn stream(&mut self) -> &mut Messages {
        &mut self.streams[0]
    }

    /// Joins the rooms up to this number.
    pub(crate) async fn join_more(&mut self, topics: u64) -> Result<(), Failure> {
        for number in self.rooms.len() as u64..topics {
            let room = self.client.join(topic(number), Payload::empty()).await?;
            self.streams.push(room.messages());
            self.rooms.push(room);
        }
        Ok(())
    }

    pub(crate) fn is_joined(&self) -> bool {
        self.rooms.iter().all(|room| room.status() == ChannelStatus::Joined)
    }

    pub(crate) fn room(&self) -> Channel {
        self.rooms[0].clone()
    }
}

/// Pushes one after another. Returns the median time until the reply, if this is the only caller.
async fn call(room: Channel, body: Body, count: u64, alone: bool) -> Result<Duration, Failure> {
    let mut latencies = Vec::new();
    for n in 0..count {
        let asked = alone.then(Instant::now);
        if body == Body::Binary {
            let payload = Payload::binary(body.payload(n));
            let response = room.push("echo", payload).await?.ok()?;
            std::hint::black_box(number_in(response.as_bytes())?);
        } else {
            let payload = match body {
                Body::Small => Payload::json(&Echo { n, body: FILLER })?,
                body => Payload::received_json(body.payload(n)),
            };
            let response = room.push("echo", payload).await?.ok()?;
            std::hint::black_box(response.deserialize::<Numbered>()?.n);
        }
        latencies.extend(asked.map(|asked| asked.elapsed().as_nanos() as f64));
    }
    Ok(Duration::from_nanos(median(latencies) as u64))
}

/// Reads until this many messages were received or lost.
async fn consume(mut stream: Messages, body: Body, all: u64) -> Result<(Messages, u64), Failure> {
    let (mut seen, mut lost) = (0, 0);
    while seen + lost < all {
        match stream.next().await {
            Some(ChannelEvent::Message(message)) => {
                std::hint::black_box(if body == Body::Binary {
                    number_in(message.payload().as_bytes())?
                } else {
                    message.payload().deserialize::<Numbered>()?.n
                });
                seen += 1;
            }
            Some(ChannelEvent::Lagged(count)) => lost += count,
            other => return Err(format!("instead of a message: {other:?}").into()),
        }
    }
    Ok((stream, lost))
}
