//! The WebSocket machine against third-party servers: `ws` of npm and `websockets` of Python, over a
//! socket of the standard library.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use bytes::BytesMut;
use phx_proto::Frame;
use phx_proto::config::Compression;
use phx_proto::upgrade::{Upgrade, UpgradeError, UpgradeRequest};
use phx_proto::websocket::{Endpoint, Event, Fault, Limits, MaskKeys, State, Violation};
use phx_tests::peers::{Script, available};
use phx_tests::rng::Rng;
use phx_tests::waiting::DEADLINE;
use serde_json::{Value, json};

/// A server that reports how its connections ended.
struct Server {
    script: Script,
    port: u16,
}

impl Server {
    fn ws(test: &str) -> Option<Self> {
        if !available(test) {
            return None;
        }
        Self::node("websocket.mjs")
    }

    fn node(script: &str) -> Option<Self> {
        let mut script = Script::node(script, &[]);
        let first = script.receive(DEADLINE).expect("the script runs");
        Some(Self::new(script, &first))
    }

    fn websockets(test: &str) -> Option<Self> {
        let (script, first) = Script::python(test, "websocket.py")?;
        Some(Self::new(script, &first))
    }

    fn new(script: Script, first: &Value) -> Self {
        let port = first["port"].as_u64().and_then(|port| u16::try_from(port).ok());
        Self { script, port: port.expect("a port") }
    }

    /// The close code and reason that the server reports for the next connection.
    fn ended(&mut self) -> (Value, Value) {
        let ended = self.script.receive(DEADLINE).expect("the script runs");
        (ended["code"].clone(), ended["reason"].clone())
    }

    fn connect(&self, path: &str) -> Client {
        let mut client = self.dial(path, &Limits::default());
        assert!(matches!(client.next(), Ok(Some(Event::Opened(_)))));
        client
    }

    fn dial(&self, path: &str, limits: &Limits) -> Client {
        self.dial_with(path, limits, None)
    }

    fn dial_with(&self, path: &str, limits: &Limits, offered: Option<&Compression>) -> Client {
        let host = format!("127.0.0.1:{}", self.port);
        let request = UpgradeRequest {
            host: &host,
            target: path,
            headers: &[],
            subprotocols: &[],
            key: *b"the sample nonce",
        };
        let upgrade = match offered {
            None => Upgrade::new(&request),
            Some(offered) => Upgrade::compressed(&request, offered),
        };
        let stream = TcpStream::connect(host).expect("it listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        Client {
            stream,
            endpoint: Endpoint::connecting(upgrade.expect("a good request"), limits),
            read: BytesMut::new(),
        }
    }
}

/// A blocking driver of an endpoint.
struct Client {
    stream: TcpStream,
    endpoint: Endpoint,
    read: BytesMut,
}

impl Client {
    /// Writes all pending bytes, and reads until an event. `None` is the end of the stream after a close
    /// frame.
    fn next(&mut self) -> Result<Option<Event>, Fault> {
        loop {
            self.write();
            match self.endpoint.poll_event(&mut self.read) {
                Ok(None) => {}
                received => return received,
            }
            let mut chunk = [0; 16 * 1024];
            match self.stream.read(&mut chunk).expect("the server answers") {
                0 => return self.endpoint.handle_eof().map(|()| None),
                length => self.read.extend_from_slice(&chunk[..length]),
            }
        }
    }

    fn write(&mut self) {
        // The masking keys of a test need not be unpredictable, only different.
        let mut next = 0_u8;
        let mut keys = MaskKeys::new(|block: &mut [u8]| {
            block.iter_mut().for_each(|byte| {
                next = next.wrapping_mul(5).wrapping_add(0x9d);
                *byte = next;
            });
        });
        let mut out = BytesMut::new();
        while self.endpoint.poll_transmit(&mut out, 64 * 1024, || keys.next_key()) > 0 {
            // A server that has closed its end may refuse more bytes; the reader then sees the end.
            if self.stream.write_all(&out).is_err() {
                return;
            }
            out.clear();
        }
    }

    fn message(&mut self) -> Frame {
        loop {
            match self.next() {
                Ok(Some(Event::Message(frame))) => return frame,
                Ok(Some(Event::Ping(_) | Event::Pong(_) | Event::Acknowledged(_))) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Closes the connection and reads until the end of the stream. Returns the code of the server's
    /// close frame.
    fn close(mut self, code: u16, reason: &str) -> Option<u16> {
        self.endpoint.close(code, reason).expect("a sendable code");
        let code = loop {
            match self.next() {
                Ok(Some(Event::Close(close))) => break close.code,
                Ok(Some(_)) => {}
                other => panic!("{other:?}"),
            }
        };
        assert_eq!((self.next(), self.endpoint.state()), (Ok(None), State::Closed));
        code
    }
}

type Start = fn(&str) -> Option<Server>;

const BOTH: [(&str, Start); 2] = [("ws", Server::ws), ("websockets", Server::websockets)];

/// Messages with every encoding of the length are echoed unchanged, in one frame and in fragments with
/// pings between them.
fn echoes(server: &mut Server) {
    let mut client = server.connect("/echo");
    for length in [0, 1, 125, 126, 65_535, 65_536, 1 << 20] {
        for frame in [
            Frame::from("\u{e4}bc".repeat(length / 4)),
            Frame::Binary((0..length).map(|at| at as u8).collect::<Vec<u8>>().into()),
        ] {
            client.endpoint.send(frame.clone()).expect("the queue has capacity");
            assert!(client.message() == frame, "{frame:?}");
        }
    }
    // The pong to the last ping may still be on its way; it arrives before the answer to this message.
    client.endpoint.send(Frame::from("end")).expect("the queue has capacity");
    client.message();
    let upload = client.endpoint.upload();
    let fragment = Limits::default().fragment_bytes as u64;
    assert!(upload.acknowledged + fragment + 3 >= upload.transmitted, "{upload:?}");
    assert_eq!(client.close(3000, "bye"), Some(3000));
    assert_eq!(server.ended(), (json!(3000), json!("bye")));
}

/// The latest ping must be answered; earlier ones may be.
fn pings_are_answered(server: &mut Server) {
    let mut client = server.connect("/pings");
    while client.message() != Frame::from("pong c") {}
    client.close(1000, "");
    assert_eq!(server.ended(), (json!(1000), json!("")));
}

fn fragments_are_joined(server: &mut Server) {
    let mut client = server.connect("/fragments");
    assert_eq!(client.message(), Frame::from("fr\u{e4}gments"));
    client.close(1000, "");
    server.ended();
}

/// A frame that arrives in the same read as the answer to the upgrade is received.
fn early_message_is_received(server: &mut Server) {
    let mut client = server.connect("/early");
    assert_eq!(client.message(), Frame::from("early"));
    client.close(1000, "");
    server.ended();
}

fn close_of_the_server_is_answered(server: &mut Server) {
    let mut client = server.connect("/close");
    let Ok(Some(Event::Close(close))) = client.next() else { panic!("{:?}", client.endpoint) };
    assert_eq!((close.code, &close.reason[..]), (Some(4001), "n\u{e4}h"));
    assert_eq!(client.next(), Ok(None));
    drop(client);
    assert_eq!(server.ended().0, json!(4001));
}

/// The client sends the matching close code, and the server ends the stream.
fn violation_fails_the_connection(server: &mut Server) {
    let mut client = server.connect("/violation");
    let violation = Violation::ReservedBits { bits: 0b100 };
    assert_eq!(client.next(), Err(Fault::Violation(violation)));
    assert_eq!((client.next(), client.endpoint.state()), (Ok(None), State::Closed));
    drop(client);
    assert_eq!(server.ended(), (json!(1002), json!("reserved bits 0b100 are set")));
}

fn refused_upgrade_is_reported(server: &mut Server) {
    let mut client = server.dial("/refused", &Limits::default());
    let Err(Fault::Upgrade(error)) = client.next() else { panic!("{:?}", client.endpoint) };
    let UpgradeError::Refused(refusal) = *error else { panic!("{error}") };
    assert_eq!(refusal.status(), 403);
}

/// If the stream ends without a close frame, the endpoint reports a fault.
fn cut_connection_is_a_fault(server: &mut Server) {
    let mut client = server.connect("/echo");
    client.stream.shutdown(Shutdown::Both).expect("it is open");
    assert_eq!(client.next(), Err(Fault::Eof));
    drop(client);
    assert_eq!(server.ended().0, json!(1006));
}

#[test]
fn websocket_machine_talks_to_other_servers() {
    for (name, start) in BOTH {
        let Some(mut server) = start("websocket_machine_talks_to_other_servers") else { continue };
        println!("{name}");
        let scenarios: [fn(&mut Server); 8] = [
            echoes,
            pings_are_answered,
            fragments_are_joined,
            early_message_is_received,
            close_of_the_server_is_answered,
            violation_fails_the_connection,
            refused_upgrade_is_reported,
            cut_connection_is_a_fault,
        ];
        for scenario in scenarios {
            scenario(&mut server);
        }
    }
}

/// A message of random length: words, which compress well, or noise, which does not.
fn random_message(rng: &mut Rng) -> Frame {
    const WORDS: [&str; 6] =
        ["phx_reply", "\"ok\"", "room:lobby ", "\u{e4}\u{1f600}", "[null,", "0"];
    let length = [8, 100, 2_000, 40_000][rng.below(4)];
    let length = rng.below(length);
    match rng.below(4) {
        0 => Frame::Binary((0..length).map(|_| rng.number() as u8).collect::<Vec<u8>>().into()),
        1 => Frame::from("a".repeat(length)),
        _ => {
            let words = (0..length / 6).map(|_| WORDS[rng.below(6)]);
            Frame::from(words.collect::<String>())
        }
    }
}

/// Sends random messages, and receives them again. Returns what was agreed.
fn echoes_compressed(
    server: &Server,
    rng: &mut Rng,
    path: &str,
    offered: &Compression,
) -> Compression {
    // Short fragments, so that long messages are fragmented. `ws` ends a connection that sends 60 pings
    // before it has written its pongs.
    let limits = Limits { fragment_bytes: 4_000, ..Limits::default() };
    let mut client = server.dial_with(path, &limits, Some(offered));
    let opened = client.next();
    let Ok(Some(Event::Opened(upgraded))) = opened else {
        panic!("{path} {offered:?}: {opened:?}")
    };
    let agreed = upgraded.compression.expect("the server compresses");
    for _ in 0..12 {
        let sent: Vec<Frame> = (0..=rng.below(3)).map(|_| random_message(rng)).collect();
        for message in &sent {
            client.endpoint.send(message.clone()).expect("the queue has capacity");
        }
        for message in sent {
            assert!(client.message() == message, "{path} {offered:?}: {message:?}");
        }
    }
    client.close(1000, "");
    agreed
}

/// Every window and both takeover settings, chosen by the client or by the server, with messages in one
/// frame and in fragments, and pings between them.
#[test]
fn compressed_messages_pass_other_servers() {
    const TEST: &str = "compressed_messages_pass_other_servers";
    let ws = || available(TEST).then(|| Server::node("deflate.mjs")).flatten();
    let websockets = || {
        let (script, first) = Script::python(TEST, "deflate.py")?;
        Some(Server::new(script, &first))
    };
    let options = |ws: bool, server: u8, client: u8, fresh: [bool; 2]| {
        let [server_fresh, client_fresh] = fresh;
        if ws {
            format!(
                "serverMaxWindowBits={server}&clientMaxWindowBits={client}\
                 &serverNoContextTakeover={server_fresh}&clientNoContextTakeover={client_fresh}"
            )
        } else {
            format!(
                "server_max_window_bits={server}&client_max_window_bits={client}\
                 &server_no_context_takeover={server_fresh}&client_no_context_takeover={client_fresh}"
            )
        }
    };
    let mut rng = Rng::from_env();
    for (name, server) in [("ws", ws()), ("websockets", websockets())] {
        let Some(server) = server else { continue };
        println!("{name}");
        for bits in 9..=15 {
            for (receive, send) in [(true, true), (true, false), (false, true), (false, false)] {
                let offered = Compression::balanced().window_bits(bits, 24 - bits).expect("valid");
                let offered = offered.context_takeover(receive, send).send_bytes_min(0);
                for path in ["/echo", "/fragments"] {
                    let agreed = echoes_compressed(&server, &mut rng, path, &offered);
                    assert_eq!(agreed, offered);
                }
                // The server chooses. `ws` takes `false` for "refuse the parameter", so takeover is
                // not limited by an offer here.
                let wide = Compression::strongest().send_bytes_min(0);
                let fresh = options(name == "ws", bits, 24 - bits, [!receive, !send]);
                let path = format!("/fragments?{fresh}");
                let agreed = echoes_compressed(&server, &mut rng, &path, &wide);
                let chosen = wide.window_bits(bits, 24 - bits).expect("valid");
                assert_eq!(agreed, chosen.context_takeover(receive, send));
            }
        }
        // A window of 256 bytes: the client sends uncompressed messages.
        let wide = Compression::strongest().send_bytes_min(0);
        let path = format!("/echo?{}", options(name == "ws", 15, 8, [false, false]));
        echoes_compressed(&server, &mut rng, &path, &wide);
    }
}
