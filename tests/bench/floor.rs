//! The floor: a minimal Channels client on the same runtime and the same transport.
//!
//! It scans the envelope, finds the channel, matches the ref and reads one field of the payload with
//! serde. It writes in batches. It has no API, no timeouts, no heartbeat and no second connection, and it
//! trusts the server.

use core::future::poll_fn;
use core::pin::Pin;
use core::sync::atomic::{AtomicU64, Ordering};
use core::task::{Context, Poll, ready};
use core::time::Duration;
use std::collections::HashMap;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Instant;

use futures_util::future::{Either, select};
use futures_util::{SinkExt, StreamExt};

use super::Failure;
use super::frames::{Body, Echo, FILLER, Flood, Numbered, topic};
use super::measure::{Round, cpu, median, resident};
use super::workloads::Job;
use crate::rt::tungstenite::protocol::WebSocketConfig;
use crate::rt::tungstenite::{self, Message};
use crate::rt::{self, WebSocketStream, web_socket};

pub(crate) struct Floor {
    socket: WebSocketStream,
    channels: HashMap<String, Joined>,
    pending: HashMap<u64, Option<Instant>>,
    next_ref: u64,
    /// Whether frames were written that are not flushed yet.
    dirty: bool,
}

struct Joined {
    join_ref: u64,
    received: u64,
}

/// The parts of a message.
struct Scanned<'a> {
    msg_ref: Option<u64>,
    topic: &'a str,
    event: &'a str,
    payload: &'a [u8],
}

impl Floor {
    /// Opens a connection with this many channels and buffers of this size.
    pub(crate) async fn open(port: u16, topics: u64, buffers: usize) -> Result<Self, Failure> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        let url = format!("ws://127.0.0.1:{port}/socket/websocket?vsn=2.0.0");
        let (socket, _) = tungstenite::client(url, stream).map_err(|error| error.to_string())?;
        let config = WebSocketConfig::default();
        let config = config.read_buffer_size(buffers).write_buffer_size(buffers);
        let socket = web_socket(socket.into_inner(), config).await;
        let (channels, pending) = (HashMap::new(), HashMap::new());
        let mut floor = Self { socket, channels, pending, next_ref: 1, dirty: false };
        for number in 0..topics {
            floor.join(topic(number)).await?;
        }
        Ok(floor)
    }

    async fn join(&mut self, topic: String) -> Result<(), Failure> {
        let join_ref = self.mint();
        let join = format!(r#"["{join_ref}","{join_ref}","{topic}","phx_join",{{}}]"#);
        self.channels.insert(topic, Joined { join_ref, received: 0 });
        self.socket.send(Message::text(join)).await?;
        self.socket.next().await.ok_or("a reply")??;
        Ok(())
    }

    const fn mint(&mut self) -> u64 {
        self.next_ref += 1;
        self.next_ref
    }

    pub(crate) async fn run(&mut self, job: Job) -> Result<Round, Failure> {
        match job {
            Job::Echo { body, outstanding, messages } => {
                self.echo(body, outstanding, messages).await
            }
            Job::Receive { body, topics, messages } => self.receive(body, topics, messages).await,
        }
    }

    async fn echo(&mut self, body: Body, outstanding: u64, all: u64) -> Result<Round, Failure> {
        let mut latencies = Vec::new();
        let (before, start) = (cpu(), Instant::now());
        let (mut sent, mut answered) = (0, 0);
        poll_fn(|cx| {
            loop {
                while sent < all && self.pending.len() < outstanding as usize {
                    ready!(self.socket.poll_ready_unpin(cx))?;
                    self.push(body, sent, outstanding == 1)?;
                    sent += 1;
                }
                let message = ready!(self.poll_message(cx))?;
                let asked = self.read_reply(&message)?;
                latencies.extend(asked.map(|asked| asked.elapsed().as_nanos() as f64));
                answered += 1;
                if answered == all {
                    return Poll::Ready(Ok::<_, Failure>(()));
                }
            }
        })
        .await?;
        let (wall, cpu) = (start.elapsed(), cpu() - before);
        let latency = Duration::from_nanos(median(latencies) as u64);
        Ok(Round { messages: all, cpu, wall, latency })
    }

    /// Polls for the next message, and flushes pending writes before it waits.
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, Failure>> {
        match Pin::new(&mut self.socket).poll_next_unpin(cx) {
            Poll::Ready(message) => Poll::Ready(Ok(message.ok_or("the connection ended")??)),
            Poll::Pending => {
                if self.dirty {
                    ready!(self.socket.poll_flush_unpin(cx))?;
                    self.dirty = false;
                }
                Poll::Pending
            }
        }
    }

    fn push(&mut self, body: Body, number: u64, timed: bool) -> Result<(), Failure> {
        const TOPIC: &str = "room:0";
        let msg_ref = self.mint();
        let join_ref = self.channels[TOPIC].join_ref;
        let mut frame = Vec::with_capacity(128);
        let message = if body == Body::Binary {
            frame.extend_from_slice(&[0, digits(join_ref), digits(msg_ref), 6, 4]);
            put_number(&mut frame, join_ref);
            put_number(&mut frame, msg_ref);
            frame.extend_from_slice(TOPIC.as_bytes());
            frame.extend_from_slice(b"echo");
            frame.extend_from_slice(&body.payload(number));
            Message::binary(frame)
        } else {
            frame.extend_from_slice(b"[\"");
            put_number(&mut frame, join_ref);
            frame.extend_from_slice(b"\",\"");
            put_number(&mut frame, msg_ref);
            frame.extend_from_slice(b"\",\"");
            frame.extend_from_slice(TOPIC.as_bytes());
            frame.extend_from_slice(b"\",\"echo\",");
            serde_json::to_writer(&mut frame, &Echo { n: number, body: FILLER })?;
            frame.push(b']');
            Message::text(String::from_utf8(frame)?)
        };
        self.pending.insert(msg_ref, timed.then(Instant::now));
        self.socket.start_send_unpin(message)?;
        self.dirty = true;
        Ok(())
    }

    /// Matches a reply and reads its payload. Returns the time of its push, if that was recorded.
    fn read_reply(&mut self, message: &Message) -> Result<Option<Instant>, Failure> {
        let scanned = scan(message)?;
        self.channels.get(scanned.topic).ok_or("a channel")?;
        let asked = self.pending.remove(&scanned.msg_ref.ok_or("a ref")?).ok_or("a push")?;
        std::hint::black_box(if scanned.event == "ok" {
            number_in(scanned.payload)?
        } else {
            let open = br#"{"status":"ok","response":"#;
            let response = scanned.payload.strip_prefix(open).ok_or("a response")?;
            let response = &response[..response.len() - 1];
            serde_json::from_slice::<Numbered>(response)?.n
        });
        Ok(asked)
    }

    async fn receive(&mut self, body: Body, topics: u64, all: u64) -> Result<Round, Failure> {
        let (before, start) = (cpu(), Instant::now());
        let join_ref = self.channels["room:0"].join_ref;
        let msg_ref = self.mint();
        let flood = serde_json::to_string(&Flood { count: all, body, topics })?;
        let flood = format!(r#"["{join_ref}","{msg_ref}","room:0","flood",{flood}]"#);
        self.socket.send(Message::text(flood)).await?;
        self.socket.next().await.ok_or("a reply")??;
        let mut received = 0;
        poll_fn(|cx| {
            while received < all {
                let message = ready!(self.poll_message(cx))?;
                let scanned = scan(&message)?;
                let channel = self.channels.get_mut(scanned.topic).ok_or("a channel")?;
                channel.received += 1;
                std::hint::black_box(match message {
                    Message::Binary(_) => number_in(scanned.payload)?,
                    _ => serde_json::from_slice::<Numbered>(scanned.payload)?.n,
                });
                received += 1;
            }
            Poll::Ready(Ok::<_, Failure>(()))
        })
        .await?;
        let (wall, cpu) = (start.elapsed(), cpu() - before);
        Ok(Round { messages: all, cpu, wall, ..Round::default() })
    }

    /// Stays idle for this long, and returns the memory of the process after it.
    pub(crate) async fn idle_for(mut self, time: Duration) -> u64 {
        let reading = async { while let Some(Ok(_)) = self.socket.next().await {} };
        let waiting = async {
            rt::sleep(time).await;
            resident()
        };
        futures_util::pin_mut!(reading, waiting);
        match select(waiting, reading).await {
            Either::Left((resident, _)) => resident,
            Either::Right(_) => 0,
        }
    }
}

impl Floor {
    /// Sends heartbeats at this interval, the first one after `first`, and counts their replies.
    /// Returns after `time`.
    pub(crate) async fn beat(
        mut self,
        first: Duration,
        interval: Duration,
        time: Duration,
        beats: Arc<AtomicU64>,
    ) -> Result<(), Failure> {
        let start = Instant::now();
        let mut next = first;
        while next < time {
            let due = rt::sleep(next.saturating_sub(start.elapsed()));
            futures_util::pin_mut!(due);
            // The reply to the last heartbeat arrives in the meantime.
            while let Either::Right((message, _)) = select(due.as_mut(), self.socket.next()).await {
                let message = message.ok_or("the connection ended")??;
                std::hint::black_box(scan(&message)?.msg_ref);
                beats.fetch_add(1, Ordering::Relaxed);
            }
            let mut frame = b"[null,\"".to_vec();
            put_number(&mut frame, self.mint());
            frame.extend_from_slice(b"\",\"phoenix\",\"heartbeat\",{}]");
            self.socket.send(Message::text(String::from_utf8(frame)?)).await?;
            next += interval;
        }
        Ok(())
    }
}

fn scan(message: &Message) -> Result<Scanned<'_>, Failure> {
    match message {
        Message::Text(text) => Ok(scan_text(text).ok_or("an envelope")?),
        Message::Binary(bytes) => Ok(scan_binary(bytes).ok_or("a binary envelope")?),
        _ => Err("neither text nor binary".into()),
    }
}

fn scan_text(text: &str) -> Option<Scanned<'_>> {
    let mut rest = text.strip_prefix('[')?.strip_suffix(']')?;
    let (_, msg_ref) = (token(&mut rest)?, token(&mut rest)?);
    let (topic, event) = (token(&mut rest)??, token(&mut rest)??);
    let msg_ref = msg_ref.and_then(|number| number.parse().ok());
    Some(Scanned { msg_ref, topic, event, payload: rest.as_bytes() })
}

/// Takes `null` or a string without escapes, and the comma after it. A loop over the bytes is faster
/// here than `str::find`, because the strings are short.
#[inline(always)]
fn token<'a>(rest: &mut &'a str) -> Option<Option<&'a str>> {
    let bytes = rest.as_bytes();
    if bytes.starts_with(b"null,") {
        *rest = &rest[5..];
        return Some(None);
    }
    if bytes.first() != Some(&b'"') {
        return None;
    }
    let mut end = 1;
    while *bytes.get(end)? != b'"' {
        if bytes[end] == b'\\' {
            return None;
        }
        end += 1;
    }
    let found = &rest[1..end];
    if bytes.get(end + 1) != Some(&b',') {
        return None;
    }
    *rest = &rest[end + 2..];
    Some(Some(found))
}

fn scan_binary(bytes: &[u8]) -> Option<Scanned<'_>> {
    let (kind, rest) = bytes.split_first()?;
    let (refs, topic, event, rest) = match kind {
        1 => {
            let [join_ref, msg_ref, topic, status, rest @ ..] = rest else { return None };
            let (refs, rest) = rest.split_at_checked(usize::from(join_ref + msg_ref))?;
            (&refs[usize::from(*join_ref)..], *topic, *status, rest)
        }
        2 => {
            let [topic, event, rest @ ..] = rest else { return None };
            (&[][..], *topic, *event, rest)
        }
        _ => return None,
    };
    let (topic, rest) = rest.split_at_checked(usize::from(topic))?;
    let (event, payload) = rest.split_at_checked(usize::from(event))?;
    Some(Scanned {
        msg_ref: core::str::from_utf8(refs).ok().and_then(|number| number.parse().ok()),
        topic: core::str::from_utf8(topic).ok()?,
        event: core::str::from_utf8(event).ok()?,
        payload,
    })
}

/// The number of decimal digits.
const fn digits(number: u64) -> u8 {
    match number.checked_ilog10() {
        Some(log) => log as u8 + 1,
        None => 1,
    }
}

/// Appends a number in decimal. `write!` takes several times as long.
fn put_number(out: &mut Vec<u8>, mut number: u64) {
    let start = out.len();
    out.resize(start + usize::from(digits(number)), 0);
    for digit in out[start..].iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// The number at the start of a binary payload.
pub(crate) fn number_in(payload: &[u8]) -> Result<u64, Failure> {
    let (number, _) = payload.split_first_chunk().ok_or("eight bytes")?;
    Ok(u64::from_be_bytes(*number))
}
