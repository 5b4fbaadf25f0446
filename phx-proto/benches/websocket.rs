//! The cost of a frame compared with tungstenite, in one run: nanoseconds per message, the median of
//! the rounds.
//!
//! `cargo bench -p phx-proto --bench websocket --features websocket`

#![expect(clippy::disallowed_types, reason = "a benchmark reads the clock")]

use std::hint::black_box;
use std::io::{self, Read, Write};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use phx_proto::Frame;
use phx_proto::websocket::{Endpoint, Limits, MaskKeys};
use tungstenite::Message;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::protocol::{Role, WebSocketContext, frame};

/// An odd number, so that there is a median round.
const ROUNDS: usize = 31;
/// The number of bytes that are read or written at once.
const BATCH: usize = 128 * 1024;

fn main() {
    println!("{:28} {:>8} {:>12} {:>6}", "ns a message", "ours", "tungstenite", "ratio");
    for (name, opcode, length) in [
        ("64 B, text", 1, 64),
        ("64 B, binary", 2, 64),
        ("1 KiB, text", 1, 1_024),
        ("16 KiB, text", 1, 16 * 1_024),
    ] {
        let payload = vec![b'x'; length];
        let batch = (BATCH / length).max(1);
        let stream = stream(opcode, &payload).repeat(batch);
        print(&format!("receive {name}"), batch, ours_receives(&stream), theirs_receive(&stream));
        let frame = Bytes::from(payload);
        print(
            &format!("send {name}"),
            batch,
            ours_sends(opcode, &frame, batch),
            theirs_send(opcode, &frame, batch),
        );
    }
}

fn print(name: &str, batch: usize, mut ours: impl FnMut(), mut theirs: impl FnMut()) {
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (side, times) in
            [&mut ours as &mut dyn FnMut(), &mut theirs].into_iter().zip(&mut times)
        {
            let start = Instant::now();
            (0..8).for_each(|_| side());
            times.push(start.elapsed().as_nanos() as f64 / 8.0 / batch as f64);
        }
    }
    let [ours, theirs] = times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[ROUNDS / 2]
    });
    println!("{name:28} {ours:>8.1} {theirs:>12.1} {:>6.2}", ours / theirs);
}

/// Frames of a server, as bytes.
fn stream(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x80 | opcode];
    match payload.len() {
        length @ 0..=125 => bytes.push(length as u8),
        length => {
            bytes.push(126);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
    }
    bytes.extend_from_slice(payload);
    bytes
}

/// Reads a buffer once, and then receives every message in it.
fn ours_receives(stream: &[u8]) -> impl FnMut() {
    let mut endpoint = Endpoint::client(&Limits::default());
    let mut buffer = BytesMut::new();
    move || {
        buffer.reserve(stream.len());
        buffer.extend_from_slice(stream);
        while let Some(event) = endpoint.poll_event(&mut buffer).expect("no fault") {
            black_box(event);
        }
    }
}

fn theirs_receive(stream: &[u8]) -> impl FnMut() {
    let mut context = WebSocketContext::new(Role::Client, None);
    move || {
        let mut stage = Stage(stream);
        while let Ok(message) = context.read(&mut stage) {
            black_box(message);
        }
    }
}

fn ours_sends(opcode: u8, payload: &Bytes, batch: usize) -> impl FnMut() {
    let limits = Limits { outbox_bytes_max: usize::MAX, ..Limits::default() };
    let mut endpoint = Endpoint::client(&limits);
    let mut keys = MaskKeys::new(|block: &mut [u8]| block.fill(7));
    let (mut out, payload) = (BytesMut::new(), payload.clone());
    move || {
        for _ in 0..batch {
            let payload = payload.clone();
            let frame = if opcode == 1 { Frame::Text(payload) } else { Frame::Binary(payload) };
            endpoint.send(frame).expect("there is room");
        }
        endpoint.poll_transmit(&mut out, usize::MAX, || keys.next_key());
        black_box(&out);
        out.clear();
    }
}

/// Sends like the transport: the text is not checked a second time.
fn theirs_send(opcode: u8, payload: &Bytes, batch: usize) -> impl FnMut() {
    let mut context = WebSocketContext::new(Role::Client, None);
    let payload = payload.clone();
    let data = if opcode == 1 { Data::Text } else { Data::Binary };
    move || {
        let mut stage = Stage(&[]);
        for _ in 0..batch {
            let frame = frame::Frame::message(payload.clone(), OpCode::Data(data), true);
            context.write(&mut stage, Message::Frame(frame)).expect("it takes everything");
        }
        context.flush(&mut stage).expect("it takes everything");
    }
}

/// A stream that accepts every write. Its reads end with `WouldBlock`.
struct Stage<'a>(&'a [u8]);

impl Read for Stage<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.0.read(into)
    }
}

impl Write for Stage<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        black_box(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
