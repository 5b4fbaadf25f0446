//! `wss://` with common certificates and keys. The error for each one that is refused states the
//! problem and a command that creates a correct one, and the test runs that command.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use phx_tests::openssl::{Folder, available, without_rsa_parameters};

use super::certificates::Authority;
use super::dial::dial;
use super::peer::serve_once;
use crate::rt::block_on;
use crate::rt::phx::config::TlsError;
use crate::rt::phx::event::{Cause, DialKind, TlsKind};
use crate::rt::phx::rustls::crypto::ring;
use crate::rt::phx::rustls::pki_types::pem::PemObject as _;
use crate::rt::phx::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use crate::rt::phx::rustls::sign::{CertifiedKey, SingleCertAndKey};
use crate::rt::phx::rustls::{ServerConfig, SupportedProtocolVersion, version};
use crate::rt::phx::testing::{self, Listener};
use crate::rt::phx::{Config, Connections, Roots, Tls};

const SELF_SIGNED: &str = "req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 30 \
                           -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1";

fn pem(der: &[u8]) -> Vec<u8> {
    let label = "CERTIFICATE";
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der)).into()
}

fn der(pem: &[u8]) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem).unwrap()
}

/// A server that presents this certificate without checking it.
async fn serve(
    certificate: &[u8],
    key: &[u8],
    versions: &[&'static SupportedProtocolVersion],
) -> Listener {
    let provider = ring::default_provider();
    let key = PrivateKeyDer::from_pem_slice(key).unwrap();
    let key = provider.key_provider.load_private_key(key).unwrap();
    let shown = SingleCertAndKey::from(CertifiedKey::new(vec![der(certificate)], key));
    let server = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(shown));
    let config = testing::ServerConfig::default();
    Listener::bind_tls(([127, 0, 0, 1], 0).into(), config, Arc::new(server)).await.unwrap()
}

/// A client that trusts this certificate.
fn trusting(listener: &Listener, pem: &[u8]) -> Config {
    Config::new(&listener.url()).unwrap().tls(Tls::new(Roots::pem(pem).unwrap()))
}

async fn failure(config: Config) -> (TlsKind, String) {
    match dial(config).await {
        Err(Cause::Tls { kind, message }) => (kind, message),
        Err(failure) => panic!("expected a failure of TLS, got {failure:?}"),
        Ok(_) => panic!("expected a failure of TLS"),
    }
}

/// The text between the backticks of a message.
fn command(message: &str) -> &str {
    message.split('`').nth(1).unwrap_or_else(|| panic!("no command: {message}"))
}

/// Common tutorials create the certificate of an authority. As the certificate of a server, it is
/// refused (rustls/webpki#205). The error contains a command that creates a server's certificate.
#[test]
fn ca_certificate_error_suggests_command() {
    if !available("ca_certificate_error_suggests_command") {
        return;
    }
    block_on(async {
        let folder = Folder::new();
        folder.run(SELF_SIGNED);
        let (cert, key) = (folder.read("cert.pem"), folder.read("key.pem"));
        let listener = serve(&cert, &key, &[&version::TLS13]).await;
        let (kind, message) = failure(trusting(&listener, &cert)).await;
        assert_eq!(kind, TlsKind::BadCertificate);
        assert!(message.contains("CA:TRUE") && message.contains("127.0.0.1"), "{message}");

        let command = command(&message[message.find("create it with").unwrap()..]);
        folder.run(command);
        let (cert, key) = (folder.read("cert.pem"), folder.read("key.pem"));
        let listener = serve(&cert, &key, &[&version::TLS13]).await;
        dial(trusting(&listener, &cert)).await.map(drop).unwrap();
    })
}

/// Erlang's `public_key` leaves out the parameters of an RSA key, and OpenSSL accepts that.
#[test]
fn rsa_key_without_parameters_is_accepted() {
    if !available("rsa_key_without_parameters_is_accepted") {
        return;
    }
    block_on(async {
        let folder = Folder::new();
        folder.run(&format!("{SELF_SIGNED} -addext basicConstraints=critical,CA:FALSE"));
        let (good, key) = (folder.read("cert.pem"), folder.read("key.pem"));
        let mix = without_rsa_parameters(&folder, &der(&good));
        assert_eq!(mix.len(), der(&good).len() - 2, "only the parameters are missing");
        folder.write("mix.pem", pem(&mix));
        folder.run("verify -CAfile mix.pem mix.pem");
        for version in [&version::TLS12, &version::TLS13] {
            let listener = serve(&pem(&mix), &key, &[version]).await;
            dial(trusting(&listener, &pem(&mix))).await.map(drop).unwrap();
            // The certificate must still be trusted.
            let (kind, _) = failure(Config::new(&listener.url()).unwrap()).await;
            assert_eq!(kind, TlsKind::UnknownIssuer);
        }
        // The errors for a damaged signature and for a server that does not hold the key of its
        // certificate.
        let mut damaged = mix.clone();
        *damaged.last_mut().unwrap() ^= 1;
        let listener = serve(&pem(&damaged), &key, &[&version::TLS13]).await;
        let (kind, message) = failure(trusting(&listener, &pem(&mix))).await;
        assert_eq!(kind, TlsKind::UnknownIssuer, "{message}");

        let other = Folder::new();
        other.run(SELF_SIGNED);
        let listener = serve(&pem(&mix), &other.read("key.pem"), &[&version::TLS13]).await;
        let (kind, message) = failure(trusting(&listener, &pem(&mix))).await;
        assert_eq!(kind, TlsKind::UnknownIssuer, "{message}");
        assert!(message.contains("does not hold the certificate's key"), "{message}");
    })
}

/// The error for a certificate without `subjectAltName`, and the error for a certificate with other
/// names, which it lists.
#[test]
fn certificate_name_error_suggests_command() {
    if !available("certificate_name_error_suggests_command") {
        return;
    }
    block_on(async {
        let folder = Folder::new();
        folder.run(
            "req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 30 -subj \
             /CN=127.0.0.1 -addext basicConstraints=critical,CA:FALSE",
        );
        let (cert, key) = (folder.read("cert.pem"), folder.read("key.pem"));
        let listener = serve(&cert, &key, &[&version::TLS13]).await;
        let (kind, message) = failure(trusting(&listener, &cert)).await;
        assert_eq!(kind, TlsKind::WrongName, "{message}");
        assert!(message.contains("subjectAltName"), "{message}");
        let listener = serve(&cert, &key, &[&version::TLS13]).await;
        let tls = Tls::new(Roots::pem(&cert).unwrap()).server_name("other.example").unwrap();
        let (kind, _) = failure(Config::new(&listener.url()).unwrap().tls(tls)).await;
        assert_eq!(kind, TlsKind::WrongName);

        // The error lists the names that the certificate has.
        let authority = Authority::new();
        for name in ["backend.example", "10.0.0.1"] {
            let addr = ([127, 0, 0, 1], 0).into();
            let (config, tls) = (testing::ServerConfig::default(), authority.server(name));
            let listener = Listener::bind_tls(addr, config, tls).await.unwrap();
            let (kind, message) = failure(trusting(&listener, authority.pem.as_bytes())).await;
            assert_eq!(kind, TlsKind::WrongName);
            assert!(message.ends_with(&format!("it is for other names: {name}")), "{message}");
        }
    })
}

/// The error for an expired certificate contains the date of its expiry; the error for a certificate
/// that is not valid yet contains its first valid date. Both contain the current time.
#[test]
fn certificate_validity_error_gives_dates() {
    block_on(async {
        let authority = Authority::new();
        let trusting = |listener: &Listener| trusting(listener, authority.pem.as_bytes());
        for (from, until, kind, day) in [
            (2000, 2001, TlsKind::Expired, "expired on 2001-01-01"),
            (2090, 2100, TlsKind::NotYetValid, "not valid before 2090-01-01"),
        ] {
            let tls = authority.server_between("127.0.0.1", from, until);
            let addr = ([127, 0, 0, 1], 0).into();
            let config = testing::ServerConfig::default();
            let listener = Listener::bind_tls(addr, config, tls).await.unwrap();
            let (found, message) = failure(trusting(&listener)).await;
            assert_eq!(found, kind, "{message}");
            assert!(message.contains(day) && message.contains("clock is at 20"), "{message}");
        }
    })
}

#[test]
fn unknown_authority_error_lists_trusted_ones() {
    block_on(async {
        let authority = Authority::new();
        let addr = ([127, 0, 0, 1], 0).into();
        let config = testing::ServerConfig::default();
        let tls = authority.server("127.0.0.1");
        let listener = Listener::bind_tls(addr, config, tls).await.unwrap();
        let (kind, message) = failure(Config::new(&listener.url()).unwrap()).await;
        assert_eq!(kind, TlsKind::UnknownIssuer);
        assert!(message.contains("the client trusts Mozilla's"), "{message}");
        let cause = Cause::Tls { kind, message };
        assert!(cause.to_string().contains("`Roots::pem` (the key `ca_file`)"), "{cause}");
        assert_eq!(cause.dial_kind(), Some(DialKind::Tls));
        let trusting = |authority: &Authority| {
            let files = [("ca.pem", authority.pem.as_bytes())];
            failure(from_document(&listener.url(), &files).unwrap())
        };
        let (kind, message) = trusting(&Authority::named("other")).await;
        assert_eq!(kind, TlsKind::UnknownIssuer);
        assert!(message.contains("the client trusts the certificates in ca.pem"), "{message}");
        // The client trusts an authority that was created again under its old name.
        let (kind, message) = trusting(&Authority::new()).await;
        assert_eq!(kind, TlsKind::UnknownIssuer);
        assert!(message.contains("the certificates in ca.pem include an authority"), "{message}");
    })
}

/// The configuration of a document whose `tls` names these files.
fn from_document(url: &str, files: &[(&str, &[u8])]) -> Result<Config, String> {
    let keys = files.iter().map(|(file, _)| match *file {
        "ca.pem" => format!("\"ca_file\": {file:?}"),
        "device.pem" => format!("\"cert_file\": {file:?}"),
        _ => format!("\"key_file\": {file:?}"),
    });
    let text = format!(
        r#"{{"connections": {{"a": {{"uri": {url:?}, "tls": {{{}}}}}}}}}"#,
        keys.collect::<Vec<_>>().join(", ")
    );
    let connections = Connections::from_json(&text, |_| None).unwrap();
    let read = |path: &str| {
        let found = files.iter().find(|(file, _)| *file == path);
        Ok(found.expect("a file that is named").1.to_vec())
    };
    let connections = connections.load_tls(read).map_err(|error| error.to_string())?;
    Ok(connections.get("a").unwrap().config().clone())
}

/// The error for an identity in two files.
fn refused(cert: &[u8], key: &[u8]) -> String {
    let files = [("device.pem", cert), ("device.key", key)];
    from_document("wss://backend.example/s", &files).expect_err("it is refused")
}

/// Each error for an unusable client certificate or key names its file, the problem and a remedy.
#[test]
fn identity_error_names_file_and_remedy() {
    if !available("identity_error_names_file_and_remedy") {
        return;
    }
    let folder = Folder::new();
    let run = |line: &str| folder.run(line);
    run(&SELF_SIGNED.replace("rsa:2048", "ec -pkeyopt ec_paramgen_curve:prime256v1"));
    run(
        "req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout device.key -out \
         device.csr -subj /CN=device-4711",
    );
    run(
        "x509 -req -in device.csr -CA cert.pem -CAkey key.pem -CAcreateserial -days 30 -out v1.pem",
    );
    folder.write("v3.ext", "basicConstraints=CA:FALSE\n");
    run("x509 -req -in device.csr -CA cert.pem -CAkey key.pem -CAcreateserial -days 30 -out \
         device.pem -extfile v3.ext");
    run("pkcs8 -topk8 -in device.key -passout pass:s3cret -out device.p8");
    run("ec -in device.key -aes256 -passout pass:s3cret -out device.sec1");
    run("x509 -in device.pem -outform der -out device.der");
    run("pkcs12 -export -inkey device.key -in device.pem -passout pass:s3cret -out device.p12");
    run("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:secp256k1 -out koblitz.key");
    let read = |name: &str| folder.read(name);
    let (cert, key) = (read("device.pem"), read("device.key"));
    from_document("wss://h/", &[("device.pem", &cert), ("device.key", &key)]).unwrap();

    // tauri-apps/tauri#15922: a byte order mark is ignored.
    let marked = |text: &[u8]| [b"\xef\xbb\xbf", text].concat();
    let files = [("device.pem", &*marked(&cert)), ("device.key", &*marked(&key))];
    from_document("wss://h/", &files).unwrap();
    let roots = Roots::pem(&marked(&read("cert.pem"))).unwrap();
    assert!(format!("{roots:?}").contains('1'));

    let utf16 = |text: &[u8]| -> Vec<u8> {
        [0xff, 0xfe].into_iter().chain(text.iter().flat_map(|byte| [*byte, 0])).collect()
    };
    for (refused, named, wrong, remedy) in [
        (
            refused(&read("v1.pem"), &key),
            "device.pem",
            "(CN=device-4711) is of X.509 version 1",
            "openssl x509 -req -in device.csr",
        ),
        (
            refused(&cert, &read("device.p8")),
            "device.key",
            "it is encrypted",
            "openssl pkey -in device.key -out device.key.plain",
        ),
        (
            refused(&cert, &read("device.sec1")),
            "device.key",
            "it is encrypted",
            "openssl pkey -in device.key -out device.key.plain",
        ),
        (
            refused(&cert, &read("key.pem")),
            "device.key",
            "is not the key of the first certificate in device.pem (CN=device-4711)",
            "openssl x509 -in device.pem -noout -pubkey",
        ),
        (
            refused(&cert, &read("koblitz.key")),
            "device.key",
            "has a key type that is not supported",
            "openssl genpkey -algorithm EC",
        ),
        (
            refused(&read("device.der"), &key),
            "device.pem",
            "it is DER or PKCS#12",
            "openssl x509 -in device.pem -inform DER",
        ),
        (
            refused(&cert, &read("device.p12")),
            "device.key",
            "it is DER or PKCS#12",
            "openssl pkcs12 -in device.key -nodes",
        ),
        (refused(&utf16(&cert), &key), "device.pem", "UTF-16", "save it as UTF-8"),
        (refused(&key, &key), "device.pem", "a private key, but no certificate", ""),
        (refused(&read("device.csr"), &key), "device.pem", "a certificate request", ""),
        (refused(&cert, &cert), "device.key", "a certificate, but no private key", ""),
        (refused(b" \n", &key), "device.pem", "it is empty", ""),
        (refused(b"hello", &key), "device.pem", "it contains no certificate", ""),
    ] {
        assert!(refused.contains(named) && refused.contains(wrong), "{wrong}: {refused}");
        assert!(refused.contains(remedy), "{remedy}: {refused}");
        assert_eq!(refused.lines().count(), 1, "{refused}");
        assert!(!refused.contains("s3cret"));
    }
    // Without files the error names the part, and the command uses a placeholder for the file.
    let roots = || Roots::pem(&read("cert.pem")).unwrap();
    let error = Tls::with_identity(roots(), &cert, &read("device.p8")).unwrap_err();
    let TlsError::Pem { what, problem } = &error else { panic!("{error:?}") };
    assert_eq!(what, "the key");
    assert!(problem.contains("openssl pkey -in key.pem"), "{problem}");
    // The suggested command for an encrypted key works, given the passphrase.
    let line = format!("{} -passin pass:s3cret", command(problem));
    folder.write("key.pem", read("device.p8"));
    folder.run(&line);
    Tls::with_identity(roots_of(&folder), &cert, &folder.read("key.pem.plain")).unwrap();
}

fn roots_of(folder: &Folder) -> Roots {
    Roots::pem(&folder.read("cert.pem")).unwrap()
}

/// A missing or refused client certificate. With TLS 1.3 the client has finished its handshake when the
/// server's alert arrives.
#[test]
fn client_certificate_errors_follow_handshake() {
    block_on(async {
        let authority = Authority::new();
        let addr = ([127, 0, 0, 1], 0).into();
        let config = testing::ServerConfig::default();
        let tls = authority.server_for_known_clients("127.0.0.1");
        let listener = Listener::bind_tls(addr, config, tls).await.unwrap();
        let (kind, message) = failure(trusting(&listener, authority.pem.as_bytes())).await;
        assert_eq!(kind, TlsKind::CertificateRequired);
        assert!(message.contains("requires a client certificate"), "{message}");
        let cause = Cause::Tls { kind, message };
        assert!(cause.to_string().contains("`Tls::with_identity`"), "{cause}");

        // The certificates are from another authority, and from one that was created again with the
        // same name.
        for other in [Authority::named("other"), Authority::new()] {
            let stranger = other.client("stranger");
            let files = [
                ("ca.pem", authority.pem.as_bytes()),
                ("device.pem", stranger.chain.as_bytes()),
                ("device.key", stranger.key.as_bytes()),
            ];
            let config = from_document(&listener.url(), &files).unwrap();
            let (kind, message) = failure(config).await;
            assert_eq!(kind, TlsKind::CertificateRefused, "{message}");
            assert!(message.contains("refuses device.pem"), "{message}");
        }
    })
}

/// `wss://` to a plain port: Bandit closes the connection in the handshake, with or without a reset,
/// and other servers answer with HTTP.
#[test]
fn wss_to_plain_port_suggests_ws() {
    block_on(async {
        for unread in [false, true] {
            let (addr, _server) = serve_once(move |stream| {
                // Closing a stream with unread bytes sends a reset.
                let mut hello = [0; 5];
                let _ = if unread { Ok(()) } else { stream.read_exact(&mut hello) };
                let _ = stream.shutdown(Shutdown::Both);
            });
            let url = format!("wss://{addr}/socket/websocket");
            let (kind, message) = failure(Config::new(&url).unwrap()).await;
            assert_eq!(kind, TlsKind::Lost, "{message}");
            assert!(message.contains("a ws:// address"), "{message}");
        }
        let (addr, _server) = serve_once(|stream| {
            stream.read_exact(&mut [0; 100]).unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        });
        let url = format!("wss://{addr}/socket/websocket");
        let (kind, message) = failure(Config::new(&url).unwrap()).await;
        assert_eq!(kind, TlsKind::NotTls, "{message}");
        assert!(message.contains("a ws:// address"), "{message}");
    })
}

/// `ws://` to a port that expects TLS: the answer is a TLS alert, a page of nginx, or nothing.
#[test]
fn ws_to_tls_port_suggests_wss() {
    block_on(async {
        let authority = Authority::new();
        let addr = ([127, 0, 0, 1], 0).into();
        let config = testing::ServerConfig::default();
        let tls = authority.server("127.0.0.1");
        let listener = Listener::bind_tls(addr, config, tls).await.unwrap();
        let url = listener.url().replace("wss://", "ws://");
        let Err(Cause::Dial { message, .. }) = dial(Config::new(&url).unwrap()).await else {
            panic!("the answer is not HTTP")
        };
        assert!(message.contains("a wss:// address"), "{message}");

        // OpenSSL's alert, and nginx's page.
        for answer in [
            &b"\x15\x03\x01\x00\x02\x02\x46"[..],
            b"HTTP/1.1 400 Bad Request\r\nContent-Length: 58\r\n\r\n\
              The plain HTTP request was sent to HTTPS port<br/>ngin",
            b"",
        ] {
            let (addr, _server) = serve_once(move |stream| {
                super::peer::read_head(stream);
                stream.write_all(answer).unwrap();
                stream.shutdown(Shutdown::Both).unwrap();
            });
            let url = format!("ws://{addr}/socket/websocket");
            let message = match dial(Config::new(&url).unwrap()).await {
                Err(Cause::Dial { message, .. }) => message,
                Err(Cause::Refused(refusal)) => refusal.to_string(),
                other => panic!("{:?}", other.err()),
            };
            assert!(message.contains("a wss:// address"), "{message}");
        }
    })
}
