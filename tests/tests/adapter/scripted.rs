//! A byte stream scripted by the test, below the WebSocket of the adapter.

use core::task::{Context, Poll};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::peer::header;
use crate::rt::phx::client::Driver;
use crate::rt::phx::{self, Client, Config};
use crate::rt::{Runtime, Scripted};

/// The behaviour of a test's stream. `crate::rt::Scripted` turns it into a stream of the runtime.
pub(crate) trait Script: Send + 'static {
    fn read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>>;

    fn write(&mut self, bytes: &[u8]) -> Poll<io::Result<usize>>;
}

/// A server that accepts the upgrade, and then sends the same bytes in an endless loop, so that every
/// read has data.
#[derive(Clone, Default)]
pub(crate) struct Flood(Arc<Mutex<Wire>>);

#[derive(Default)]
pub(crate) struct Wire {
    /// Written by the client.
    pub(crate) written: Vec<u8>,
    /// Sent in one read with the answer to the upgrade.
    pub(crate) behind: Vec<u8>,
    /// Sent once, before `repeated`.
    pub(crate) once: Vec<u8>,
    /// Sent in a loop; nothing is sent if it is empty.
    pub(crate) repeated: Vec<u8>,
    /// The position in `repeated`.
    at: usize,
    is_open: bool,
    /// The number of bytes that were read since the test last reset this count.
    pub(crate) read: usize,
    /// The number of reads so far.
    pub(crate) reads: usize,
}

/// More bytes than any poll may read.
const NO_BUDGET: usize = 16 << 20;

impl Flood {
    pub(crate) fn new(once: &[u8], repeated: &[u8]) -> Self {
        let flood = Self::default();
        // Repeated, so that it is copied in few pieces.
        (flood.lock().once, flood.lock().repeated) = (once.to_vec(), repeated.repeat(1 << 10));
        flood
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Wire> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client that connects to this server.
    pub(crate) fn client(&self, config: Config) -> (Client, Driver<Runtime>) {
        let script = self.clone();
        let runtime = Runtime::new().dial_with(move |_| {
            let script = script.clone();
            async move { Ok(Scripted::new(script)) }
        });
        let (client, driver) = phx::client::client(config, runtime);
        client.connect();
        (client, driver)
    }

    /// The whole frames that the client wrote after its request: opcodes and payloads. The client may
    /// be about to write the rest of a further frame.
    pub(crate) fn frames(&self) -> Vec<(u8, Vec<u8>)> {
        let written = self.lock().written.clone();
        let head = written.windows(4).position(|end| end == b"\r\n\r\n").expect("a request");
        let (mut rest, mut frames) = (&written[head + 4..], Vec::new());
        while let Some(frame) = whole_frame(&mut rest) {
            frames.push(frame);
        }
        frames
    }
}

/// Takes the masked frame that `bytes` begin with, as its opcode and its payload. Returns `None` if the
/// frame is not whole.
fn whole_frame(bytes: &mut &[u8]) -> Option<(u8, Vec<u8>)> {
    let (&[first, length], rest) = bytes.split_first_chunk()?;
    assert_eq!(length & 0x80, 0x80, "the client masks its frames");
    let (length, rest) = match length & 0x7f {
        126 => {
            let (length, rest) = rest.split_first_chunk()?;
            (usize::from(u16::from_be_bytes(*length)), rest)
        }
        length => (usize::from(length), rest),
    };
    let (mask, rest) = rest.split_at_checked(4)?;
    let (payload, rest) = rest.split_at_checked(length)?;
    *bytes = rest;
    let mask = mask.iter().cycle();
    Some((first & 0x0f, payload.iter().zip(mask).map(|(byte, mask)| byte ^ mask).collect()))
}

impl Script for Flood {
    fn read(&mut self, _: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut wire = self.lock();
        wire.reads += 1;
        if !wire.is_open {
            let head = String::from_utf8_lossy(&wire.written).into_owned();
            let key = header(&head, "sec-websocket-key").expect("a whole request").to_owned();
            let engine = &base64::engine::general_purpose::STANDARD;
            let key = base64::Engine::decode(engine, key).expect("base64");
            let accept = phx_proto::upgrade::accept_key(key.try_into().expect("16 bytes"));
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: {accept}\r\n\r\n"
            );
            let answer = [answer.as_bytes(), &wire.behind].concat();
            buffer[..answer.len()].copy_from_slice(&answer);
            wire.is_open = true;
            return Poll::Ready(Ok(answer.len()));
        }
        let mut length = wire.once.len().min(buffer.len());
        buffer[..length].copy_from_slice(&wire.once[..length]);
        wire.once.drain(..length);
        while !wire.repeated.is_empty() && length < buffer.len() {
            let part = (wire.repeated.len() - wire.at).min(buffer.len() - length);
            buffer[length..length + part].copy_from_slice(&wire.repeated[wire.at..wire.at + part]);
            wire.at = (wire.at + part) % wire.repeated.len();
            length += part;
        }
        if length == 0 {
            return Poll::Pending;
        }
        wire.read += length;
        assert!(wire.read < NO_BUDGET, "one poll reads without an end");
        Poll::Ready(Ok(length))
    }

    fn write(&mut self, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.lock().written.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }
}

/// A stream that returns `Pending` at every other read, and wakes its task at once.
pub(crate) struct Hesitant<S> {
    script: S,
    hesitates: bool,
}

impl<S> Hesitant<S> {
    pub(crate) const fn new(script: S) -> Self {
        Self { script, hesitates: false }
    }
}

impl<S: Script> Script for Hesitant<S> {
    fn read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        self.hesitates = !self.hesitates;
        if self.hesitates {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.script.read(cx, buffer)
    }

    fn write(&mut self, bytes: &[u8]) -> Poll<io::Result<usize>> {
        // Writes one byte at a time.
        self.script.write(&bytes[..bytes.len().min(1)])
    }
}
