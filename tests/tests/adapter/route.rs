//! Dialling an address other than that of the URI: port-forwards, tunnels and addresses with a
//! zone.

use core::net::SocketAddr;

use serde_json::json;

use super::certificates::Authority;
use super::dial::{dial, line};
use super::peer::{accept_upgrade, header, serve_once};
use crate::rt::phx::event::Cause;
use crate::rt::phx::testing::{Listener, ServerConfig};
use crate::rt::phx::{Config, Roots, Tls};
use crate::rt::{block_on, phx};

/// The head of the request that arrives at the dialled address.
async fn request_through(config: impl FnOnce(SocketAddr) -> Config) -> String {
    let (sender, head) = std::sync::mpsc::channel();
    let (addr, _server) = serve_once(move |stream| {
        sender.send(accept_upgrade(stream, b"")).unwrap();
    });
    dial(config(addr)).await.map(drop).unwrap();
    head.recv().unwrap()
}

/// The dialled address is not that of the URI, as behind a port-forward
/// (snapview/tungstenite-rs#255, vi/websocat#82); the header `Host` is still that of the URI.
#[test]
fn connect_to_keeps_host_header() {
    block_on(async {
        let head = request_through(|addr| {
            let config = Config::insecure("ws://backend.invalid:4000/socket/websocket").unwrap();
            config.connect_to(&addr.to_string()).unwrap()
        });
        assert_eq!(header(&head.await, "host"), Some("backend.invalid:4000"));
    })
}

#[test]
fn connect_to_keeps_certificate_name() {
    block_on(async {
        let authority = Authority::new();
        let tls = authority.server("backend.example");
        let addr = ([127, 0, 0, 1], 0).into();
        let listener = Listener::bind_tls(addr, ServerConfig::default(), tls).await.unwrap();
        let roots = || Tls::new(Roots::pem(authority.pem.as_bytes()).unwrap());
        let config = |uri: &str| {
            let config = Config::new(uri).unwrap().tls(roots());
            config.connect_to(&listener.addr().to_string()).unwrap()
        };
        let client = phx::connect(config("wss://backend.example/socket/websocket")).await.unwrap();
        client.join("room:lobby", json!({})).await.unwrap();
        // The certificate must match the host of the URI, whatever address is dialled.
        let refused = dial(config("wss://other.example/socket/websocket")).await;
        let Err(Cause::Tls { message, .. }) = refused else { panic!("{:?}", refused.err()) };
        assert!(message.contains("other.example"), "{message}");
    })
}

/// Interface 1 is the loopback interface on Linux.
#[cfg(target_os = "linux")]
#[test]
fn address_zone_is_dialled_not_sent() {
    block_on(async {
        let Ok(listener) = std::net::TcpListener::bind("[::1]:0") else { return };
        let port = listener.local_addr().unwrap().port();
        let server =
            std::thread::spawn(move || accept_upgrade(&mut listener.accept().unwrap().0, b""));
        let url = format!("ws://[::1%251]:{port}/socket/websocket");
        dial(Config::new(&url).unwrap()).await.map(drop).unwrap();
        assert_eq!(header(&server.join().unwrap(), "host"), Some(&*format!("[::1]:{port}")));

        let nowhere = "ws://[::1%25nosuchinterface]:1/socket/websocket";
        let message = line(dial(Config::new(nowhere).unwrap()).await);
        assert!(message.contains("could not be resolved"), "{message}");
    })
}
