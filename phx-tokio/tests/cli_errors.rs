//! The error of the command `phx` when it cannot connect or is refused: one line with the remedy.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;

use base64::Engine as _;
use phx_tokio::rustls::pki_types::PrivateKeyDer;
use phx_tokio::rustls::server::WebPkiClientVerifier;
use phx_tokio::rustls::{self, RootCertStore};
use phx_tokio::testing::{Listener, ServerConfig};

fn phx(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_phx"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
        command.env_remove(name).env_remove(name.to_uppercase());
    }
    command
}

/// Asserts the exit code, and returns the only line of standard error.
#[track_caller]
fn line(output: &Output, code: i32) -> String {
    let text = String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

/// `phx serve` on a port of its own, which is killed at the end of the test.
struct Serve {
    child: Child,
    url: String,
}

impl Serve {
    fn start() -> Self {
        let mut child = phx(&["serve", "--addr", "127.0.0.1:0"]).spawn().unwrap();
        let mut url = String::new();
        let stdout = child.stdout.as_mut().unwrap();
        BufReader::new(stdout).read_line(&mut url).unwrap();
        Self { child, url: url.trim().to_owned() }
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn refused_join_prints_reason() {
    let serve = Serve::start();
    let output = phx(&["listen", &serve.url, "--join", "deny:all"]).output().unwrap();
    let line = line(&output, 5);
    assert!(line.ends_with("deny:all: the server refused the join: unauthorized"), "{line}");
}

#[test]
fn connect_to_replaces_dialled_address() {
    let serve = Serve::start();
    let addr = serve.url.strip_prefix("ws://").unwrap().split('/').next().unwrap();
    let push = |url: &str, more: &[&str]| {
        let args = [&["push", url, "room:lobby", "echo", "{}"], more].concat();
        phx(&args).output().unwrap()
    };
    let output = push("ws://localhost:1/socket/websocket", &["--connect-to", addr]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let url = "ws://backend.invalid/socket/websocket";
    let output = push(url, &["--connect-to", addr, "--allow-insecure"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let refused = line(&push(&serve.url, &["--connect-to", "10.0.0.1:80"]), 2);
    assert!(refused.contains("ws:// to 10.0.0.1") && refused.contains("--allow-insecure"));
    let refused = line(&push(&serve.url, &["--connect-to", "10.0.0.1:x"]), 2);
    assert!(refused.contains("invalid connect_to address"), "{refused}");
}

/// An unusable proxy in the environment is ignored for loopback addresses.
#[test]
fn bad_environment_proxy_spares_loopback() {
    let serve = Serve::start();
    let push = |url: &str| {
        let mut command = phx(&["push", url, "room:lobby", "echo", "{}"]);
        command.env("ALL_PROXY", "ftp://user:s3cret@proxy").output().unwrap()
    };
    let output = push(&serve.url);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let refused = line(&push("wss://backend.invalid/socket/websocket"), 2);
    assert!(refused.contains("invalid ALL_PROXY"), "{refused}");
    assert!(!refused.contains("s3cret"), "{refused}");
}

#[test]
fn unicode_host_error_has_ascii_name() {
    let refused =
        line(&phx(&["listen", "wss://bücher.example/s", "--join", "t"]).output().unwrap(), 2);
    assert!(refused.contains("xn--bcher-kva.example"), "{refused}");
}

/// A file that is removed after the test.
struct Temporary(PathBuf);

impl Temporary {
    fn new(name: &str, text: &str) -> Self {
        let name = format!("phx-errors-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}

/// A self-signed certificate for loopback, and its key.
fn own() -> (rcgen::Certificate, rcgen::KeyPair) {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    (params.self_signed(&key).unwrap(), key)
}

/// A server with TLS, which may require that certificate of its clients.
async fn listen(cert: &rcgen::Certificate, key: &rcgen::KeyPair, requires_it: bool) -> Listener {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let builder = if requires_it {
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
        builder.with_client_cert_verifier(verifier.build().unwrap())
    } else {
        builder.with_no_client_auth()
    };
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let tls = builder.with_single_cert(vec![cert.der().clone()], key).unwrap();
    let addr = ([127, 0, 0, 1], 0).into();
    Listener::bind_tls(addr, ServerConfig::default(), Arc::new(tls)).await.unwrap()
}

/// The errors name the options of the command instead of functions of the library.
#[tokio::test(flavor = "multi_thread")]
async fn tls_errors_name_options() {
    let (cert, key) = own();
    let ca = Temporary::new("ca.pem", &pem("CERTIFICATE", cert.der()));
    let push = async |url: &str, more: &[&str]| {
        let args = [&["push", url, "room:lobby", "echo", "{}"], more].concat();
        let mut command = phx(&args);
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    };
    let listener = listen(&cert, &key, false).await;
    let unknown = line(&push(&listener.url(), &[]).await, 3);
    assert!(unknown.contains("pass its authority with --ca FILE"), "{unknown}");
    assert!(!unknown.contains("Roots"), "{unknown}");
    let output = push(&listener.url(), &["--ca", ca.path()]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let listener = self::listen(&cert, &key, true).await;
    let wanted = line(&push(&listener.url(), &["--ca", ca.path()]).await, 3);
    assert!(wanted.contains("pass one with --cert FILE and --key FILE"), "{wanted}");
    assert!(!wanted.contains("with_identity"), "{wanted}");
    let key_file = Temporary::new("key.pem", &pem("PRIVATE KEY", key.serialized_der()));
    let shown = ["--ca", ca.path(), "--cert", ca.path(), "--key", key_file.path()];
    let output = push(&listener.url(), &shown).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    // The error for an unusable key names its file.
    let other = Temporary::new("other.pem", &pem("PRIVATE KEY", own().1.serialized_der()));
    let shown = ["--cert", ca.path(), "--key", other.path()];
    let refused = line(&push(&listener.url(), &shown).await, 2);
    assert!(refused.contains(other.path()) && refused.contains("is not the key"), "{refused}");
}
