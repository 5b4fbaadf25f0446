//! The server of the benchmark: a process of its own with one thread per connection, which implements
//! only what the workloads need. The frames of a flood are rendered in advance, so that clients never
//! wait for the server.

use core::ops::Range;
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;

#[cfg(not(feature = "deflate"))]
use crate::rt::tungstenite;

use super::Failure;
#[cfg(feature = "deflate")]
use super::compressed;
use super::frames::{Body, Flood, broadcast, length_byte, put_frame, topic};

/// The environment variable with the number of the core that the server runs on. The script `run` sets
/// it, and runs the client on another core.
const SERVER_CORE: &str = "SERVER_CORE";

/// The stack size of a thread; small, because there are ten thousand of them.
const STACK: usize = 128 << 10;

/// A running server, which ends when this value is dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
}

impl Server {
    /// Starts this program again as the server, on the processor core [`SERVER_CORE`] if that is set.
    pub(crate) fn start() -> Result<Self, Failure> {
        Self::start_on(std::env::var(SERVER_CORE).ok())
    }

    /// Starts the server on the core of the client.
    pub(crate) fn start_beside() -> Result<Self, Failure> {
        Self::start_on(None)
    }

    fn start_on(core: Option<String>) -> Result<Self, Failure> {
        let program = std::env::current_exe()?;
        let mut command = match core {
            Some(core) => {
                let mut pinned = Command::new("taskset");
                pinned.args(["-c", &core]).arg(program);
                pinned
            }
            None => Command::new(program),
        };
        let mut child =
            command.arg("serve").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut port = String::new();
        let mut stdout = io::BufReader::new(child.stdout.take().expect("it is piped"));
        io::BufRead::read_line(&mut stdout, &mut port)?;
        Ok(Self { child, port: port.trim().parse()? })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Serves on a loopback port until standard input ends.
pub(crate) fn serve() -> Result<(), Failure> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    println!("{}", listener.local_addr()?.port());
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let started = thread::Builder::new().stack_size(STACK).spawn(move || {
                // The client reports how a connection ended.
                let _ = connection(stream);
            });
            started.expect("another thread");
        }
    });
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}

fn connection(stream: TcpStream) -> Result<(), Failure> {
    stream.set_nodelay(true)?;
    #[cfg(feature = "deflate")]
    let mut stream = match compressed::accept(stream)? {
        (stream, None) => stream,
        (stream, Some(agreed)) => return compressed::serve(stream, &agreed),
    };
    #[cfg(not(feature = "deflate"))]
    let mut stream = tungstenite::accept(stream).map_err(|error| error.to_string())?.into_inner();
    let mut floods = HashMap::new();
    let mut incoming = Vec::new();
    let mut out = Vec::new();
    let mut chunk = vec![0; 4_096];
    loop {
        let count = stream.read(&mut chunk)?;
        if count == 0 {
            return Ok(());
        }
        if count == chunk.len() && count < 256 << 10 {
            chunk.resize(count * 4, 0);
        }
        incoming.extend_from_slice(&chunk[..count]);
        let mut used = 0;
        while let Some((opcode, length)) = next_frame(&mut incoming[used..]) {
            let payload = &incoming[used + length.start..used + length.end];
            let mut answer = |binary, parts: &[&[u8]]| put_frame(&mut out, binary, parts);
            let flood = match opcode {
                1 => answer_text(payload, &mut answer)?,
                2 => answer_binary(payload, &mut answer),
                8 => return Ok(()),
                _ => None,
            };
            used += length.end;
            if let Some(flood) = flood {
                stream.write_all(&out)?;
                out.clear();
                let rendered = floods
                    .entry((flood.body, flood.topics))
                    .or_insert_with(|| Rendered::new(flood.body, flood.topics));
                rendered.write(&mut stream, flood.count)?;
            }
        }
        incoming.drain(..used);
        stream.write_all(&out)?;
        out.clear();
    }
}

/// Unmasks a complete client frame in place. Returns its opcode and the range of its payload.
fn next_frame(bytes: &mut [u8]) -> Option<(u8, Range<usize>)> {
    let opcode = bytes.first()? & 0x0f;
    let (length, head) = match bytes.get(1)? & 0x7f {
        126 => (usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)), 4),
        127 => (u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?) as usize, 10),
        length => (usize::from(length), 2),
    };
    let mask: [u8; 4] = bytes.get(head..head + 4)?.try_into().ok()?;
    let start = head + 4;
    for (byte, mask) in bytes.get_mut(start..start + length)?.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
    Some((opcode, start..start + length))
}

/// Answers with `ok`; the answer to an echo has its payload. Returns the flood, if one was requested.
/// `answer` is called with the parts of the message.
pub(crate) fn answer_text(
    text: &[u8],
    answer: impl FnOnce(bool, &[&[u8]]),
) -> Result<Option<Flood>, Failure> {
    // Neither refs nor the topics of a benchmark have a comma.
    let mut parts = text[1..text.len() - 1].splitn(5, |byte| *byte == b',');
    let mut part = || parts.next().ok_or("five parts");
    let (join_ref, msg_ref, topic, event, payload) = (part()?, part()?, part()?, part()?, part()?);
    let response = if event == b"\"echo\"" { payload } else { b"{}" };
    let middle = b",\"phx_reply\",{\"status\":\"ok\",\"response\":";
    let parts = [b"[", join_ref, b",", msg_ref, b",", topic, middle, response, b"}]"];
    answer(false, &parts);
    Ok(if event == b"\"flood\"" { Some(serde_json::from_slice(payload)?) } else { None })
}

fn answer_binary(push: &[u8], answer: impl FnOnce(bool, &[&[u8]])) -> Option<Flood> {
    let [0, join_ref, msg_ref, topic, event, ..] = *push else { return None };
    let [join_ref, msg_ref, topic, event] = [join_ref, msg_ref, topic, event].map(usize::from);
    let named = &push[5..5 + join_ref + msg_ref + topic];
    let payload = &push[5 + named.len() + event..];
    let head = [1, push[1], push[2], push[3], length_byte(b"ok")];
    answer(true, &[&head, named, b"ok", payload]);
    None
}

/// A sequence of frames that can be written repeatedly.
struct Rendered {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Rendered {
    fn new(body: Body, topics: u64) -> Self {
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        while bytes.len() < 256 << 10 {
            for number in 0..topics {
                let message = broadcast(body, &topic(number), ends.len() as u64);
                put_frame(&mut bytes, body == Body::Binary, &[&message]);
                ends.push(bytes.len());
            }
        }
        Self { bytes, ends }
    }

    fn write(&self, stream: &mut TcpStream, mut count: u64) -> io::Result<()> {
        while count > 0 {
            let now = (self.ends.len() as u64).min(count);
            stream.write_all(&self.bytes[..self.ends[now as usize - 1]])?;
            count -= now;
        }
        Ok(())
    }
}
