//! The WebSocket machine against third-party servers: `ws` of npm and `websockets` of Python, over a
//! socket of the standard library.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use bytes::BytesMut;
use phx_proto::Frame;
use phx_proto::upgrade::{Upgrade, UpgradeError, UpgradeRequest};
use phx_proto::websocket::{Endpoint, Event, Fault, Limits, MaskKeys, State, Violation};
use phx_tests::peers::{Script, available};
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
        let mut script = Script::node("websocket.mjs", &[]);
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
        let host = format!("127.0.0.1:{}", self.port);
        let upgrade = Upgrade::new(&UpgradeRequest {
            host: &host,
            target: path,
            headers: &[],
            subprotocols: &[],
            key: *b"the sample nonce",
        });
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
