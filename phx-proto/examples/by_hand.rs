//! Drives the core and a WebSocket by hand, bytes in and bytes out: without a runtime or a stream, and with a
//! variable as the clock.
//!
//! A program that has a byte stream writes `upstream` to it and reads `downstream` from it. Here, a server in
//! the same process does the opposite.

use bytes::BytesMut;
use phx_proto::testing::{HttpRequest, Output, Server, ServerConfig};
use phx_proto::websocket::{Endpoint, Event, Limits, MaskKeys};
use phx_proto::{Action, Config, Ended, Opened, Signal, Socket, Time};
use serde_json::json;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut now = Time::ZERO;
    let mut server = Server::new(ServerConfig::default());
    let mut socket = Socket::new(Config::new("ws://localhost/socket/websocket")?, 42, now);
    // Both ends of a stream that is already upgraded; `Endpoint::connecting` also does the upgrade.
    let mut client_end = Endpoint::client(&Limits::default());
    let mut server_end = Endpoint::server(&Limits::default());
    let (mut upstream, mut downstream) = (BytesMut::new(), BytesMut::new());
    // A program fills the block with the operating system's entropy.
    let mut keys = MaskKeys::new(|block| block.fill(7));
    let (mut connection, mut peer) = (None, None);
    socket.join(now, "room:lobby", json!({"user": 7}))?;
    socket.connect(now);

    // Two minutes of simulated time, which take less than a millisecond.
    while now < Time::from_millis(120_000) {
        while let Some(action) = socket.poll_action(now) {
            match action {
                Action::Connect { id, .. } => {
                    socket.handle_dialled(now, id);
                    let path = socket.connect_request().expect("a valid address").uri.target();
                    let request = HttpRequest { path, ..HttpRequest::default() };
                    let accepted =
                        server.connect(now, &request).expect("the server accepts the upgrade");
                    (connection, peer) = (Some(id), Some(accepted.peer));
                    socket.handle_opened(now, id, Opened::default());
                }
                Action::Send { frame, .. } | Action::Join { frame, .. } => {
                    client_end.send(frame)?
                }
                Action::Close { code, reason, .. } => client_end.close(code, reason)?,
                Action::Signal(Signal::HeartbeatAcked { .. }) => {
                    println!("{now} heartbeat answered")
                }
                Action::Signal(signal) => println!("{now} {signal:?}"),
                other => println!("{now} {other:?}"),
            }
        }
        let (Some(id), Some(peer)) = (connection, peer) else { continue };

        // Messages become bytes.
        client_end.poll_transmit(&mut upstream, usize::MAX, || keys.next_key());

        // The server at the other end of the stream reads and writes.
        while let Some(event) = server_end.poll_event(&mut upstream)? {
            if let Event::Message(frame) = event {
                server.handle_frame(now, peer, &frame);
            }
        }
        while let Some(output) = server.poll_output() {
            if let Output::Send { frame, .. } = output {
                server_end.send(frame)?;
            }
        }
        server_end.poll_transmit(&mut downstream, usize::MAX, || [0; 4]);

        // Bytes become messages. Pings are answered by the next `poll_transmit`.
        let has_read = !downstream.is_empty();
        while let Some(event) = client_end.poll_event(&mut downstream)? {
            match event {
                Event::Message(frame) => socket.handle_frame(now, id, frame),
                Event::Close(close) => {
                    let ended = Ended::CloseFrame { code: close.code, reason: close.reason };
                    socket.handle_closed(now, id, ended);
                }
                _ => {}
            }
        }
        if !has_read {
            // Nothing is in transit: jump to the next deadline.
            now = socket.poll_timeout().expect("a heartbeat falls due").at;
            socket.handle_timeout(now);
        }
    }
    Ok(())
}

#[test]
fn example_runs_to_completion() {
    main().unwrap();
}
