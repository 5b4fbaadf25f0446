//! Connections through a SOCKS5 proxy, which is a small server on threads.

use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use phx_tests::ports::Reserved;
use serde_json::json;

use super::certificates::Authority;
use super::dial::{dial, line};
use super::peer::serve_once;
use crate::rt::phx::event::{Cause, DialKind, SocksRefusal};
use crate::rt::phx::testing::{Listener, ServerConfig};
use crate::rt::phx::{Config, Proxy, Roots, Tls};
use crate::rt::{block_on, phx};

/// A proxy that requires the credentials `user` and `s3cret`, or none, and connects names below `.test`
/// to this machine.
struct SocksProxy {
    addr: SocketAddr,
    /// The targets of the requests.
    asked: Arc<Mutex<Vec<String>>>,
}

impl SocksProxy {
    fn start(requires_credentials: bool) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let seen = Arc::clone(&asked);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, seen) = (stream.unwrap(), Arc::clone(&seen));
                thread::spawn(move || serve(stream, requires_credentials, &seen));
            }
        });
        Self { addr, asked }
    }

    fn through(&self, scheme: &str, user_info: &str) -> Proxy {
        Proxy::parse(&format!("{scheme}://{user_info}{}", self.addr)).unwrap()
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn read<const N: usize>(stream: &mut TcpStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn read_text(stream: &mut TcpStream) -> io::Result<String> {
    let [length] = read(stream)?;
    let mut text = vec![0; length.into()];
    stream.read_exact(&mut text)?;
    Ok(String::from_utf8(text).unwrap())
}

/// Serves one connection; an error means that the client went away.
fn serve(
    mut client: TcpStream,
    requires_credentials: bool,
    seen: &Mutex<Vec<String>>,
) -> io::Result<()> {
    let [version, methods] = read(&mut client)?;
    assert_eq!(version, 5);
    let mut offered = vec![0; methods.into()];
    client.read_exact(&mut offered)?;
    if requires_credentials {
        if !offered.contains(&2) {
            return client.write_all(&[5, 0xff]);
        }
        client.write_all(&[5, 2])?;
        assert_eq!(read(&mut client)?, [1]);
        let given = (read_text(&mut client)?, read_text(&mut client)?);
        if given != ("user".to_owned(), "s3cret".to_owned()) {
            return client.write_all(&[1, 1]);
        }
        client.write_all(&[1, 0])?;
    } else {
        assert!(offered.contains(&0));
        client.write_all(&[5, 0])?;
    }
    let [5, 1, 0, kind] = read(&mut client)? else { panic!("not a request to connect") };
    let host = match kind {
        1 => Ipv4Addr::from(read::<4>(&mut client)?).to_string(),
        4 => Ipv6Addr::from(read::<16>(&mut client)?).to_string(),
        _ => read_text(&mut client)?,
    };
    let port = u16::from_be_bytes(read(&mut client)?);
    seen.lock().unwrap().push(format!("{host} {port}"));
    if host == "forbidden.test" {
        return client.write_all(&[5, 2]);
    }
    let here = host.ends_with(".test");
    let Ok(server) = TcpStream::connect((if here { "127.0.0.1" } else { &host }, port)) else {
        return client.write_all(&[5, 5, 0, 1, 0, 0, 0, 0, 0, 0]);
    };
    // In two pieces, as TCP may deliver it.
    client.write_all(&[5, 0, 0, 3, 4])?;
    client.write_all(b"here\0\0")?;
    let there = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || pass_on(there.0, there.1));
    pass_on(server, client);
    Ok(())
}

fn pass_on(mut from: TcpStream, mut to: TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}

async fn listen() -> Listener {
    Listener::bind(([127, 0, 0, 1], 0).into(), ServerConfig::default()).await.unwrap()
}

#[test]
fn channel_works_through_socks5() {
    block_on(async {
        for scheme in ["socks5", "socks5h"] {
            let (listener, proxy) = (listen().await, SocksProxy::start(false));
            let config = Config::new(&listener.url()).unwrap().proxy(proxy.through(scheme, ""));
            let client = phx::connect(config).await.unwrap();
            let room = client.join("room:lobby", json!({})).await.unwrap();
            let reply = room.push("echo", json!({"n": 1})).await.unwrap();
            assert_eq!(reply.ok().unwrap().to_value().unwrap(), json!({"n": 1}));
            assert_eq!(proxy.asked(), [format!("127.0.0.1 {}", listener.addr().port())]);
        }
    })
}

/// With `socks5h` the proxy resolves the name; with `socks5` the client does.
#[test]
fn socks5_carries_tls_to_server() {
    block_on(async {
        let (authority, proxy) = (Authority::new(), SocksProxy::start(false));
        let (addr, config) = (([127, 0, 0, 1], 0).into(), ServerConfig::default());
        let tls = authority.server("backend.test");
        let listener = Listener::bind_tls(addr, config, tls).await.unwrap();
        let port = listener.addr().port();
        let config = Config::new(&format!("wss://backend.test:{port}/socket/websocket")).unwrap();
        let config = config.tls(Tls::new(Roots::pem(authority.pem.as_bytes()).unwrap()));
        let through = |scheme: &str| config.clone().proxy(proxy.through(scheme, ""));
        let client = phx::connect(through("socks5h")).await.unwrap();
        client.join("room:lobby", json!({})).await.unwrap();
        assert_eq!(proxy.asked(), [format!("backend.test {port}")]);
        let Err(Cause::Dial { kind, message }) = dial(through("socks5")).await else {
            panic!("names below .test resolve nowhere")
        };
        assert_eq!(kind, DialKind::Dns, "{message}");
    })
}

#[test]
fn socks5_proxy_receives_credentials() {
    block_on(async {
        let (listener, proxy) = (listen().await, SocksProxy::start(true));
        let config = Config::new(&listener.url()).unwrap();
        let through = |user_info: &str| config.clone().proxy(proxy.through("socks5h", user_info));
        for user_info in ["", "user:wrong@"] {
            let refused = dial(through(user_info)).await.map(drop);
            assert_eq!(refused, Err(Cause::SocksRefused(SocksRefusal::Credentials)));
        }
        let error = phx::connect(through("")).await.expect_err("it is refused");
        assert!(matches!(error.cause, Cause::SocksRefused(_)), "{error:?}");
        assert!(
            error.to_string().contains("the proxy credentials are missing or wrong"),
            "{error}"
        );
        dial(through("user:s3cret@")).await.map(drop).unwrap();
        let given = proxy.through("socks5", "").credentials("user", "s3cret");
        dial(config.clone().proxy(given)).await.map(drop).unwrap();
    })
}

/// A refusal by the proxy, a target that it cannot reach, a proxy that is down, and an HTTP proxy.
#[test]
fn socks5_failures_name_the_proxy() {
    block_on(async {
        let proxy = SocksProxy::start(false);
        let config = |uri: &str| Config::new(uri).unwrap();
        let port = Reserved::new();
        let free = port.addr();
        let through = |uri: &str| dial(config(uri).proxy(proxy.through("socks5h", "")));
        let refused = through("wss://forbidden.test/socket/websocket").await.map(drop);
        assert_eq!(refused, Err(Cause::SocksRefused(SocksRefusal::NotAllowed)));
        let refused = through(&format!("ws://{free}/socket/websocket")).await;
        let Err(Cause::Dial { kind, message }) = refused else { panic!("the target is down") };
        assert_eq!(kind, DialKind::Refused);
        assert!(message.starts_with("the proxy could not connect to the server: "), "{message}");

        let away = Proxy::parse(&format!("socks5://{free}")).unwrap();
        let message = line(dial(config("wss://127.0.0.1/").proxy(away)).await);
        assert!(message.starts_with(&format!("the proxy: {free} could not be")), "{message}");

        // An HTTP proxy.
        let (addr, _server) = serve_once(|stream| {
            stream.read_exact(&mut [0; 3]).unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        });
        let http = Proxy::parse(&format!("socks5h://{addr}")).unwrap();
        let message = line(dial(config("wss://127.0.0.1/").proxy(http)).await);
        assert!(message.contains("use http://"), "{message}");
    })
}
