//! Compression: connections of the server that agreed to it, and the CPU time of a message with each
//! preset, compared with the same client without compression.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::{LazyLock, Mutex, PoisonError};

use bytes::BytesMut;
use phx_proto::Frame;
use phx_proto::config::Compression;
use phx_proto::testing::{HttpRequest, Server as Phoenix, ServerConfig};
use phx_proto::websocket::{Endpoint, Event, Limits, Scratch};

use super::Failure;
use super::frames::{Body, Flood, broadcast, topic};
use super::measure::{Round, median};
use super::ours::{self, Ours};
use super::server::{Server, answer_text};
use super::workloads::Job;
use crate::rt;
use crate::rt::tungstenite::handshake::server::{Request, Response};
use crate::rt::tungstenite::{self, http::HeaderValue};

/// The presets by name, none, and one without context takeover.
pub(crate) const PRESETS: [(&str, Option<Compression>); 5] = [
    ("none", None),
    ("smallest", Some(Compression::smallest())),
    ("balanced", Some(Compression::balanced())),
    ("strongest", Some(Compression::strongest())),
    ("no-takeover", Some(Compression::balanced().context_takeover(false, false))),
];

/// The preset with a name.
pub(crate) fn preset(name: &str) -> Result<Option<Compression>, Failure> {
    let preset = PRESETS.into_iter().find(|(other, _)| *other == name);
    Ok(preset.ok_or("no such preset")?.1)
}

/// The codecs of the server. Each connection has a thread of its own, and all threads share these codecs.
static CODECS: LazyLock<Mutex<Scratch>> = LazyLock::new(Mutex::default);

const EXTENSIONS: &str = "sec-websocket-extensions";

/// Answers the upgrade of a client, and accepts compression if it is offered.
pub(crate) fn accept(stream: TcpStream) -> Result<(TcpStream, Option<Compression>), Failure> {
    let mut agreed = None;
    #[expect(clippy::result_large_err, reason = "the signature of tungstenite")]
    let callback = |request: &Request, mut response: Response| {
        let text = |value: &HeaderValue| value.to_str().unwrap_or_default().to_owned();
        let headers = request.headers().iter();
        let headers = headers.map(|(name, value)| (name.as_str().to_owned(), text(value)));
        let path = "/socket/websocket?vsn=2.0.0".to_owned();
        let request = HttpRequest { path, headers: headers.collect(), ..HttpRequest::default() };
        // The negotiation of the test server, which sends with the largest window that a client allows.
        let config = ServerConfig::default().compress(Compression::strongest().send_bytes_min(0));
        let accepted = Phoenix::new(config).connect(phx_proto::Time::ZERO, &request);
        let extensions = accepted.ok().and_then(|accepted| accepted.extensions);
        if let Some((answer, compression)) = extensions {
            let answer = answer.try_into().expect("a header value");
            response.headers_mut().insert(EXTENSIONS, answer);
            agreed = Some(compression);
        }
        Ok(response)
    };
    let accepted = tungstenite::accept_hdr(stream, callback).map_err(|error| error.to_string())?;
    let stream = accepted.into_inner();
    Ok((stream, agreed))
}

/// Serves a client with compression, until the connection ends.
pub(crate) fn serve(mut stream: TcpStream, agreed: &Compression) -> Result<(), Failure> {
    let limits = Limits { outbox_bytes_max: usize::MAX, ..Limits::default() };
    let mut endpoint = Endpoint::server(&limits).compressed(agreed);
    let (mut incoming, mut out) = (BytesMut::new(), BytesMut::new());
    let mut chunk = [0; 4_096];
    loop {
        let count = stream.read(&mut chunk)?;
        if count == 0 {
            return Ok(());
        }
        incoming.extend_from_slice(&chunk[..count]);
        let mut codecs = CODECS.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(event) = endpoint.poll_event_with(&mut incoming, &mut codecs)? {
            let Event::Message(message) = event else { continue };
            let mut answer = Vec::new();
            let flood = answer_text(message.as_bytes(), |_, parts| answer = parts.concat())?;
            endpoint.send(Frame::Text(answer.into()))?;
            // Messages of a flood refer to earlier ones, so they are compressed for each flood. Nothing is
            // written before all of them are ready, so that clients do not wait for the server.
            for number in 0..flood.as_ref().map_or(0, |flood| flood.count) {
                send(&mut endpoint, flood.as_ref(), number)?;
                endpoint.poll_transmit_with(&mut out, usize::MAX, || [0; 4], &mut codecs);
            }
        }
        while endpoint.poll_transmit_with(&mut out, usize::MAX, || [0; 4], &mut codecs) > 0 {}
        drop(codecs);
        stream.write_all(&out)?;
        out.clear();
    }
}

fn send(endpoint: &mut Endpoint, flood: Option<&Flood>, number: u64) -> Result<(), Failure> {
    let Some(flood) = flood else { return Ok(()) };
    let message = broadcast(flood.body, &topic(number % flood.topics), number);
    Ok(endpoint.send(Frame::Text(message.into()))?)
}

/// The workloads of the table.
const WORKLOADS: [(&str, Job); 2] = [
    ("receive-1k", Job::Receive { body: Body::Readings, topics: 1, messages: 10_000 }),
    ("echo-64", Job::Echo { body: Body::Small, outstanding: 64, messages: 12_800 }),
];

/// Prints the CPU time of a message with each preset. The clients use phx's own WebSocket and take turns,
/// so other load affects all of them.
pub(crate) fn table(rounds: usize) -> Result<(), Failure> {
    println!(
        "\n{:12} {:12} {:>12} {:>14}",
        "workload", "compression", "ns a message", "ratio to none"
    );
    for (name, job) in WORKLOADS {
        let server = Server::start()?;
        let port = server.port;
        let measured = rt::block_on(async move {
            let mut clients = Vec::new();
            for (_, compression) in PRESETS {
                let config = ours::native(port)?.compression(compression);
                let mut client = Ours::open(config, 1).await?;
                // A warm-up round, which is not counted.
                client.run(job).await?;
                clients.push(client);
            }
            let mut measured = Vec::new();
            for _ in 0..rounds {
                let mut round = Vec::new();
                for client in &mut clients {
                    round.push(client.run(job).await?);
                }
                measured.push(round);
            }
            Ok::<_, Failure>(measured)
        })?;
        for (at, (compression, _)) in PRESETS.iter().enumerate() {
            let of = |what: &dyn Fn(&Vec<Round>) -> f64| median(measured.iter().map(what));
            let each = of(&|round| round[at].cpu_each());
            let ratio = of(&|round| round[at].cpu_each() / round[0].cpu_each());
            println!("{name:12} {compression:12} {each:>12.0} {ratio:>14.2}");
        }
    }
    Ok(())
}
