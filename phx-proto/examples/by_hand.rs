//! Drives the core by hand: without a runtime or a socket, and with a variable as its clock.

use phx_proto::testing::{HttpRequest, Output, Server, ServerConfig};
use phx_proto::{Action, Config, Opened, Signal, Socket, Time};
use serde_json::json;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut now = Time::ZERO;
    let mut server = Server::new(ServerConfig::default());
    let mut socket = Socket::new(Config::new("ws://localhost/socket/websocket")?, 42, now);
    let (mut connection, mut peer) = (None, None);
    socket.join(now, "room:lobby", json!({"user": 7}))?;
    socket.connect(now);

    // Two minutes of simulated time, which take a few microseconds.
    while now < Time::from_millis(120_000) {
        while let Some(action) = socket.poll_action(now) {
            match action {
                Action::Connect { id, .. } => {
                    let path = socket.connect_request().expect("a valid address").uri.target();
                    let request = HttpRequest { path, ..HttpRequest::default() };
                    let accepted =
                        server.connect(now, &request).expect("the server accepts the upgrade");
                    (connection, peer) = (Some(id), Some(accepted.peer));
                    socket.handle_opened(now, id, Opened::default());
                }
                Action::Send { frame, .. } | Action::Join { frame, .. } => {
                    server.handle_frame(now, peer.expect("an open connection"), &frame);
                }
                Action::Signal(Signal::HeartbeatAcked { .. }) => {
                    println!("{now} heartbeat answered")
                }
                Action::Signal(signal) => println!("{now} {signal:?}"),
                other => println!("{now} {other:?}"),
            }
        }
        match (server.poll_output(), connection) {
            (Some(Output::Send { frame, .. }), Some(id)) => socket.handle_frame(now, id, frame),
            _ => {
                // Nothing is in transit: jump to the next deadline.
                now = socket.poll_timeout().expect("a heartbeat falls due").at;
                socket.handle_timeout(now);
            }
        }
    }
    Ok(())
}

#[test]
fn example_runs_to_completion() {
    main().unwrap();
}
