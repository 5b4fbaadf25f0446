//! `wss://`: trusted and refused certificates, and the errors for the latter.

use core::future::{Future as _, poll_fn};
use core::pin::pin;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;
use std::sync::Arc;

use phx_tests::ports::{Reserved, start_again};
use serde_json::json;

use super::certificates::Authority;
use super::dial::dial;
use super::peer::serve_once;
use super::stage::until;
use crate::rt::phx::config::TlsError;
use crate::rt::phx::event::Cause;
use crate::rt::phx::rustls::crypto::cipher::{OutboundChunks, OutboundPlainMessage};
use crate::rt::phx::rustls::crypto::{CryptoProvider, GetRandomFailed, SecureRandom, ring};
use crate::rt::phx::rustls::{
    ClientConfig, ConnectionTrafficSecrets, ContentType, ProtocolVersion, ServerConfig,
    ServerConnection, SupportedCipherSuite,
};
use crate::rt::phx::testing::{self, Listener};
use crate::rt::phx::{ChannelEvent, Config, Connections, Roots, Tls};
use crate::rt::{Runtime, block_on, connect_tcp, phx};

async fn listen(tls: Arc<ServerConfig>) -> Listener {
    let addr = ([127, 0, 0, 1], 0).into();
    Listener::bind_tls(addr, testing::ServerConfig::default(), tls).await.unwrap()
}

fn trusting(listener: &Listener, authority: &Authority) -> Config {
    let roots = Roots::pem(authority.pem.as_bytes()).unwrap();
    Config::new(&listener.url()).unwrap().tls(Tls::new(roots))
}

/// The message of an attempt that fails because of TLS.
async fn failure(config: Config) -> String {
    match dial(config).await {
        Err(Cause::Tls { message, .. }) => message,
        Err(failure) => panic!("expected a failure of TLS, got {failure:?}"),
        Ok(_) => panic!("expected a failure of TLS"),
    }
}

/// Joins, pushes and broadcasts to a server with a certificate of a private authority.
#[test]
fn private_authority_is_trusted() {
    block_on(async {
        let authority = Authority::new();
        let listener = listen(authority.server("127.0.0.1")).await;
        assert!(listener.url().starts_with("wss://"));
        let client = phx::connect(trusting(&listener, &authority)).await.unwrap();
        let room = client.join("room:lobby", json!({})).await.unwrap();
        let mut messages = room.messages();
        // Larger than a TLS record and any buffer.
        let body = json!("x".repeat(1 << 20));
        let reply = room.push("echo", body.clone()).await.unwrap();
        assert_eq!(reply.ok().unwrap().to_value().unwrap(), body);
        listener.broadcast("room:lobby", "news", body.clone());
        let event = messages.next().await.expect("the stream is open");
        let ChannelEvent::Message(message) = event else { panic!("{event:?}") };
        assert_eq!(message.payload().to_value().unwrap(), body);
        client.disconnect().await;
        until("it is gone", || listener.with(|server, _| server.peers().is_empty())).await;
    })
}

/// A server may send any number of session tickets, which are records without data. One poll reads a part
/// of them.
#[test]
fn flood_of_tickets_does_not_starve_executor() {
    let authority = Authority::new();
    let mut tls = (*authority.server("127.0.0.1")).clone();
    (tls.send_tls13_tickets, tls.enable_secret_extraction) = (0, true);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("wss://{}/", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut tls = ServerConnection::new(Arc::new(tls)).unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            while tls.wants_write() {
                tls.write_tls(&mut stream).unwrap();
            }
            tls.read_tls(&mut stream).unwrap();
            tls.process_new_packets().unwrap();
            let error = tls.reader().read_to_end(&mut request).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
        }
        let SupportedCipherSuite::Tls13(suite) = tls.negotiated_cipher_suite().unwrap() else {
            panic!("TLS 1.3");
        };
        let (mut number, secrets) = tls.dangerous_extract_secrets().unwrap().tx;
        let (ConnectionTrafficSecrets::Aes128Gcm { key, iv }
        | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
        | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv }) = secrets
        else {
            panic!("a cipher suite of TLS 1.3");
        };
        let mut encrypter = suite.aead_alg.encrypter(key, iv);
        let mut record = |typ, bytes: &[u8]| {
            let payload = OutboundChunks::Single(bytes);
            let plain = OutboundPlainMessage { typ, version: ProtocolVersion::TLSv1_3, payload };
            number += 1;
            encrypter.encrypt(plain, number - 1).unwrap().encode()
        };
        // A lifetime of an hour, then the addend for its age, a nonce, a ticket, and no extensions.
        let ticket = b"\x04\0\0\x10\0\0\x0e\x10\0\0\0\0\x01n\0\x02id\0\0";
        let mut bytes = Vec::new();
        for _ in 0..40_000 {
            bytes.extend(record(ContentType::Handshake, ticket));
        }
        let answer = b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n";
        bytes.extend(record(ContentType::ApplicationData, answer));
        stream.write_all(&bytes).unwrap();
        bytes.len()
    });
    block_on(async {
        let roots = Roots::pem(authority.pem.as_bytes()).unwrap();
        let mut dialling = pin!(dial(Config::new(&url).unwrap().tls(Tls::new(roots))));
        let mut polls = 0;
        let dialled = poll_fn(|cx| {
            polls += 1;
            dialling.as_mut().poll(cx)
        });
        let refused = dialled.await.map(|_| "an open connection");
        let written = server.join().unwrap();
        assert!(matches!(refused, Err(Cause::Refused(_))), "{refused:?}");
        assert!(polls >= written / (128 << 10), "{written} bytes in {polls} polls");
    })
}

/// The caller's crypto provider performs the handshake: its random numbers are used, and its cipher suites
/// are the only ones that are offered.
#[test]
fn own_provider_is_used() {
    #[derive(Debug)]
    struct Counted(AtomicUsize);
    impl SecureRandom for Counted {
        fn fill(&self, bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
            self.0.fetch_add(1, Ordering::Relaxed);
            ring::default_provider().secure_random.fill(bytes)
        }
    }
    static RANDOM: Counted = Counted(AtomicUsize::new(0));
    let provider_with = |suites: Vec<SupportedCipherSuite>| {
        let provider = ring::default_provider();
        CryptoProvider { cipher_suites: suites, secure_random: &RANDOM, ..provider }
    };
    let tls_with = |roots: &str, suite: SupportedCipherSuite| {
        let roots = Roots::pem(roots.as_bytes()).unwrap();
        Tls::builder().provider(Arc::new(provider_with(vec![suite]))).roots(roots).build().unwrap()
    };
    block_on(async {
        let authority = Authority::new();
        let listener = listen(authority.server("127.0.0.1")).await;
        let chacha = ring::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256;
        let config = Config::new(&listener.url()).unwrap();
        let client = config.clone().tls(tls_with(&authority.pem, chacha));
        let client = phx::connect(client).await.unwrap();
        client.join("room:lobby", json!({})).await.unwrap();
        assert!(RANDOM.0.load(Ordering::Relaxed) > 0);

        let aes = vec![ring::cipher_suite::TLS13_AES_128_GCM_SHA256];
        let other = listen(authority.server_using("127.0.0.1", provider_with(aes))).await;
        let config = Config::new(&other.url()).unwrap().tls(tls_with(&authority.pem, chacha));
        let message = failure(config).await;
        assert!(message.contains("handshake"), "{message}");
    });

    let error = Tls::builder().provider(Arc::new(provider_with(Vec::new()))).build().unwrap_err();
    assert!(matches!(error, TlsError::Provider { .. }), "{error}");
}

/// A document's connections use the caller's crypto provider, with and without the key `tls`.
#[test]
fn own_provider_applies_to_documents() {
    let text = r#"{"connections": {
        "a": {"uri": "wss://example.com/"},
        "b": {"uri": "wss://example.com/", "tls": {"server_name": "example.org"}}}}"#;
    let suites = vec![ring::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256];
    let provider = CryptoProvider { cipher_suites: suites, ..ring::default_provider() };
    let read = |path: &str| std::fs::read(path);
    let connections = Connections::from_json(text, |_| None).unwrap();
    let loaded = connections.clone().load_tls_with(Arc::new(provider.clone()), read).unwrap();
    for name in ["a", "b"] {
        let client = loaded.get(name).unwrap().config().tls_in_use().unwrap().client();
        assert_eq!(client.crypto_provider().cipher_suites.len(), 1, "{name}");
    }
    let unusable = Arc::new(CryptoProvider { cipher_suites: Vec::new(), ..provider });
    let error = connections.load_tls_with(unusable, read).unwrap_err();
    assert_eq!(error.problems().len(), 2, "{error}");
}

#[test]
fn unknown_authority_is_refused() {
    block_on(async {
        let authority = Authority::new();
        let listener = listen(authority.server("127.0.0.1")).await;
        let config = Config::new(&listener.url()).unwrap();
        let message = failure(config.clone()).await;
        assert!(message.contains("an authority that is not trusted"), "{message}");
        let error = phx::connect(config).await.expect_err("it is refused");
        assert!(matches!(error.cause, Cause::Tls { .. }), "{error:?}");

        let message = failure(trusting(&listener, &Authority::new())).await;
        assert!(message.contains("127.0.0.1"), "{message}");
    })
}

/// The name of the certificate must be the host, or the `server_name` of the configuration.
#[test]
fn certificate_name_must_match() {
    block_on(async {
        let authority = Authority::new();
        let listener = listen(authority.server("backend.internal")).await;
        let config = trusting(&listener, &authority);
        let message = failure(config.clone()).await;
        assert!(message.contains("not accepted") && message.contains("name"), "{message}");

        let tls = Tls::new(Roots::pem(authority.pem.as_bytes()).unwrap());
        let tls = tls.server_name("backend.internal").unwrap();
        dial(config.tls(tls)).await.map(drop).unwrap();
    })
}

#[test]
fn expired_certificate_is_refused() {
    block_on(async {
        let authority = Authority::new();
        let listener = listen(authority.server_until("127.0.0.1", 2001, false)).await;
        let message = failure(trusting(&listener, &authority)).await;
        assert!(message.contains("expired"), "{message}");
    })
}

#[test]
fn client_certificate_is_presented() {
    block_on(async {
        let authority = Authority::new();
        let listener = listen(authority.server_for_known_clients("127.0.0.1")).await;
        let config = trusting(&listener, &authority);
        let message = failure(config.clone()).await;
        assert!(message.contains("CertificateRequired"), "{message}");

        let roots = Roots::pem(authority.pem.as_bytes()).unwrap();
        let device = authority.client("device-4711");
        let tls = Tls::with_identity(roots, device.chain.as_bytes(), device.key.as_bytes());
        dial(config.tls(tls.unwrap())).await.map(drop).unwrap();
    })
}

#[test]
fn tls_key_of_document_applies() {
    block_on(async {
        let authority = Authority::new();
        let listener = listen(authority.server_for_known_clients("backend.internal")).await;
        let device = authority.client("device-4711");
        let document = json!({"connections": {"backend": {
            "uri": listener.url(),
            "tls": {
                "ca_file": "ca.pem",
                "cert_file": "device.pem",
                "key_file": "device.key",
                "server_name": "backend.internal",
            },
        }}});
        let connections = Connections::from_json(&document.to_string(), |_| None).unwrap();
        let (_, spec) = connections.iter().next().unwrap();
        let read = |path: &str| match path {
            "ca.pem" => Ok(authority.pem.clone().into_bytes()),
            "device.pem" => Ok(device.chain.clone().into_bytes()),
            "device.key" => Ok(device.key.clone().into_bytes()),
            other => panic!("the document does not name {other}"),
        };
        let files = spec.tls_files().expect("a tls key");
        let config = spec.config().clone().tls(Tls::from_files(files, read).unwrap());
        dial(config).await.map(drop).unwrap();

        let missing = Tls::from_files(files, |_| Err(ErrorKind::NotFound.into())).unwrap_err();
        let TlsError::File { path, .. } = &missing else { panic!("{missing:?}") };
        assert_eq!(path, "ca.pem");
    })
}

#[test]
fn custom_tls_configuration_is_used() {
    block_on(async {
        let authority = Authority::new();
        let listener = listen(authority.server("127.0.0.1")).await;
        let own = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(authority.roots())
            .with_no_client_auth();
        let config = Config::new(&listener.url()).unwrap().tls(Arc::new(own));
        dial(config).await.map(drop).unwrap();
    })
}

#[test]
fn server_without_tls_is_recognised() {
    block_on(async {
        let (addr, _server) = serve_once(|stream| {
            stream.read_exact(&mut [0; 100]).unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        });
        let url = format!("wss://{addr}/socket/websocket");
        let message = failure(Config::new(&url).unwrap()).await;
        assert!(message.contains("ws://"), "{message}");
    })
}

/// A server that accepts the TCP connection and sends nothing (firezone/firezone#12137).
#[test]
fn silent_server_is_connect_timeout() {
    block_on(async {
        for scheme in ["ws", "wss"] {
            let (addr, _server) = serve_once(|_| ());
            let config = Config::new(&format!("{scheme}://{addr}/socket/websocket")).unwrap();
            let config = config.connect_timeout(Duration::from_millis(50));
            let error = phx::connect(config).await.expect_err("the server is silent");
            assert_eq!(error.cause, Cause::ConnectTimeout);
        }
    })
}

#[test]
fn restarted_tls_server_is_rejoined() {
    block_on(async {
        let authority = Authority::new();
        let port = Reserved::new();
        let (config, tls) = (testing::ServerConfig::default(), authority.server("127.0.0.1"));
        let mut listener = Listener::bind_tls(port.addr(), config, tls).await.unwrap();
        let client = phx::connect(trusting(&listener, &authority)).await.unwrap();
        let room = client.join("room:lobby", json!({})).await.unwrap();
        let mut messages = room.messages();
        start_again(async || listener.restart().await).await.unwrap();
        let event = messages.next().await.expect("the stream is open");
        assert!(matches!(event, ChannelEvent::Interrupted { .. }), "{event:?}");
        let event = messages.next().await.expect("the stream is open");
        assert!(matches!(event, ChannelEvent::Resumed { .. }), "{event:?}");
    })
}

#[test]
fn custom_stream_is_upgraded() {
    block_on(async {
        let config = testing::ServerConfig::default();
        let listener = Listener::bind(([127, 0, 0, 1], 0).into(), config).await.unwrap();
        let addr = listener.addr();
        // The URI has another host than the dialled address, and that host is not resolved.
        let config = Config::new("wss://elsewhere.invalid/socket/websocket").unwrap();
        let runtime = Runtime::new().dial_with(move |uri| {
            assert_eq!(uri.host(), "elsewhere.invalid");
            connect_tcp(addr)
        });
        let client = phx::client::connect(config, runtime).await.unwrap();
        client.join("room:lobby", json!({})).await.unwrap();

        let config = Config::new("wss://elsewhere.invalid/socket/websocket").unwrap();
        let unused = Reserved::new();
        let nowhere = unused.addr();
        let runtime = Runtime::new().dial_with(move |_| connect_tcp(nowhere));
        let error = phx::client::connect(config, runtime).await.expect_err("no stream");
        assert!(matches!(error.cause, Cause::Dial { .. }), "{error:?}");
    })
}

/// Bad certificates, keys and names are refused when the configuration is built.
#[test]
fn invalid_certificates_are_refused_early() {
    let authority = Authority::new();
    let roots = || Roots::pem(authority.pem.as_bytes()).unwrap();
    let device = authority.client("device");
    let other = authority.client("other");
    assert!(matches!(Roots::pem(b""), Err(TlsError::Pem { .. })));
    assert!(matches!(Roots::pem(device.key.as_bytes()), Err(TlsError::Pem { .. })));
    let identity = |chain: &str, key: &str| {
        Tls::with_identity(roots(), chain.as_bytes(), key.as_bytes()).map(drop).unwrap_err()
    };
    assert!(matches!(identity(&device.chain, ""), TlsError::Pem { .. }));
    assert!(matches!(identity("", &device.key), TlsError::Pem { .. }));
    assert!(matches!(identity(&device.chain, &other.key), TlsError::Identity { .. }));
    assert!(matches!(Tls::new(roots()).server_name("a b"), Err(TlsError::Name { .. })));
}
