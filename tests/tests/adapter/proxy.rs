//! Connections through an HTTP proxy: a small `CONNECT` proxy on threads.

use core::net::SocketAddr;
use std::io::{self, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use phx_tests::ports::Reserved;
use serde_json::json;

use super::certificates::Authority;
use super::dial::{dial, line};
use super::peer::{header, read_head, serve_once};
use crate::rt::phx::event::Cause;
use crate::rt::phx::testing::{Listener, ServerConfig};
use crate::rt::phx::{Config, Proxy, Roots, Tls};
use crate::rt::{block_on, phx};

/// A proxy that requires the credentials `user:s3cret`, or none.
struct ConnectProxy {
    addr: SocketAddr,
    /// The targets of the requests.
    asked: Arc<Mutex<Vec<String>>>,
}

impl ConnectProxy {
    fn start(requires_credentials: bool) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let seen = Arc::clone(&asked);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, seen) = (stream.unwrap(), Arc::clone(&seen));
                thread::spawn(move || tunnel(stream, requires_credentials, &seen));
            }
        });
        Self { addr, asked }
    }

    fn url(&self, user_info: &str) -> String {
        format!("http://{user_info}{}", self.addr)
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn tunnel(mut client: TcpStream, requires_credentials: bool, seen: &Mutex<Vec<String>>) {
    let head = read_head(&mut client);
    let target = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()).unwrap();
    assert_eq!(header(&head, "host"), Some(target), "{head}");
    seen.lock().unwrap().push(target.to_owned());
    // user:s3cret
    let known = header(&head, "proxy-authorization") == Some("Basic dXNlcjpzM2NyZXQ=");
    if requires_credentials && !known {
        let answer = "HTTP/1.1 407 Proxy Authentication Required\r\n\
                      Proxy-Authenticate: Basic realm=\"test\"\r\nContent-Length: 3\r\n\r\nwho";
        client.write_all(answer.as_bytes()).unwrap();
        return;
    }
    let Ok(server) = TcpStream::connect(target) else {
        client.write_all(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n").unwrap();
        return;
    };
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").unwrap();
    let there = (client.try_clone().unwrap(), server.try_clone().unwrap());
    thread::spawn(move || pass_on(there.0, there.1));
    pass_on(server, client);
}

fn pass_on(mut from: TcpStream, mut to: TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}

async fn listen() -> Listener {
    Listener::bind(([127, 0, 0, 1], 0).into(), ServerConfig::default()).await.unwrap()
}

#[test]
fn channel_works_through_proxy() {
    block_on(async {
        let (listener, proxy) = (listen().await, ConnectProxy::start(false));
        let config = Config::new(&listener.url()).unwrap();
        let config = config.proxy(Proxy::parse(&proxy.url("")).unwrap());
        let client = phx::connect(config).await.unwrap();
        let room = client.join("room:lobby", json!({})).await.unwrap();
        let reply = room.push("echo", json!({"n": 1})).await.unwrap();
        assert_eq!(reply.ok().unwrap().to_value().unwrap(), json!({"n": 1}));
        assert_eq!(proxy.asked(), [listener.addr().to_string()]);
    })
}

#[test]
fn proxy_carries_tls_to_server() {
    block_on(async {
        let (authority, proxy) = (Authority::new(), ConnectProxy::start(false));
        let (addr, config) = (([127, 0, 0, 1], 0).into(), ServerConfig::default());
        let tls = authority.server("127.0.0.1");
        let listener = Listener::bind_tls(addr, config, tls).await.unwrap();
        let config = Config::new(&listener.url()).unwrap();
        let config = config.proxy(Proxy::parse(&proxy.url("")).unwrap());
        let Err(Cause::Tls { .. }) = dial(config.clone()).await else {
            panic!("the server's certificate is checked");
        };
        let roots = Roots::pem(authority.pem.as_bytes()).unwrap();
        let client = phx::connect(config.tls(Tls::new(roots))).await.unwrap();
        client.join("room:lobby", json!({})).await.unwrap();
        assert_eq!(proxy.asked().len(), 2);
    })
}

#[test]
fn proxy_receives_credentials() {
    block_on(async {
        let (listener, proxy) = (listen().await, ConnectProxy::start(true));
        let config = Config::new(&listener.url()).unwrap();
        let through = |url: &str| config.clone().proxy(Proxy::parse(url).unwrap());
        for user_info in ["", "user:wrong@"] {
            let refused = dial(through(&proxy.url(user_info))).await;
            let Err(Cause::ProxyRefused(refusal)) = refused else {
                panic!("{user_info:?} is refused: {:?}", refused.err());
            };
            assert_eq!((refusal.status(), &*refusal.body_text()), (407, "who"));
        }
        let error = phx::connect(through(&proxy.url(""))).await.expect_err("it is refused");
        assert!(matches!(error.cause, Cause::ProxyRefused(_)), "{error:?}");
        assert!(
            error.to_string().contains("the proxy credentials are missing or wrong"),
            "{error}"
        );

        dial(through(&proxy.url("user:s3cret@"))).await.map(drop).unwrap();
        let given = Proxy::parse(&proxy.url("")).unwrap().credentials("user", "s3cret");
        dial(config.clone().proxy(given)).await.map(drop).unwrap();
    })
}

/// A refusal by the proxy, a proxy that is down, and a port that is not a proxy.
#[test]
fn proxy_failures_name_the_proxy() {
    block_on(async {
        let config = Config::new("wss://backend.invalid/socket/websocket").unwrap();
        let through =
            |addr: SocketAddr| config.clone().proxy(Proxy::parse(&addr.to_string()).unwrap());
        // The proxy resolves the name.
        let proxy = ConnectProxy::start(false);
        let refused = dial(through(proxy.addr)).await;
        let Err(Cause::ProxyRefused(refusal)) = refused else { panic!("{:?}", refused.err()) };
        assert_eq!(refusal.status(), 502);
        assert_eq!(proxy.asked(), ["backend.invalid:443"]);

        let unused = Reserved::new();
        let free = unused.addr();
        let message = line(dial(through(free)).await);
        assert!(message.starts_with(&format!("the proxy: {free} could not be")), "{message}");

        let (addr, _server) = serve_once(|stream| {
            read_head(stream);
            stream.write_all(b"220 smtp.example ESMTP\r\n").unwrap();
        });
        let message = line(dial(through(addr)).await);
        assert!(message.starts_with("the proxy: the response is not HTTP"), "{message}");
    })
}

#[test]
fn excepted_host_bypasses_proxy() {
    block_on(async {
        let (listener, proxy) = (listen().await, ConnectProxy::start(false));
        let except = Proxy::parse(&proxy.url("")).unwrap().except("127.0.0.0/8");
        let config = Config::new(&listener.url()).unwrap().proxy(except);
        dial(config).await.map(drop).unwrap();
        assert!(proxy.asked().is_empty());
    })
}

#[test]
fn proxy_comes_from_environment() {
    block_on(async {
        let proxy = ConnectProxy::start(false);
        let url = proxy.url("");
        let config = Config::new("wss://backend.invalid/socket/websocket").unwrap();
        let lookup = |name: &str| (name == "HTTPS_PROXY").then(|| url.clone());
        let refused = dial(config.proxy_from_env(lookup).unwrap()).await;
        assert!(matches!(refused, Err(Cause::ProxyRefused(_))), "{:?}", refused.err());
        assert_eq!(proxy.asked(), ["backend.invalid:443"]);
    })
}
