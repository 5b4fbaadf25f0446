//! Every example of both adapters is started, as a reader would start it, against the test server
//! on a loopback port, and says what it is to say.
//!
//! Cargo builds the examples together with all tests of their package, and not with one of another
//! package, so this test asks for them.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use phx_tests::ports::{Reserved, start_again};
use phx_tests::waiting::DEADLINE;
use phx_tokio::rustls::ServerConfig as TlsConfig;
use phx_tokio::rustls::crypto::ring;
use phx_tokio::rustls::pki_types::PrivateKeyDer;
use phx_tokio::testing::{Listener, ServerConfig};
use serde_json::json;
use tokio::runtime::Runtime;

const RUNTIMES: [&str; 2] = ["tokio", "smol"];

/// Where the examples are, as they are now: nothing is compiled when all tests were.
static EXAMPLES: LazyLock<PathBuf> = LazyLock::new(|| {
    let this = std::env::current_exe().expect("a test has a path");
    let profile = this.ancestors().nth(2).expect("target/<profile>/deps");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--workspace", "--examples", "--all-features", "--locked", "--quiet"]);
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    // What cargo says to its tests is nothing to another cargo: build scripts would run again.
    for (name, _) in std::env::vars_os() {
        let told = name.to_str().is_some_and(|name| {
            name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
        });
        if told {
            cargo.env_remove(name);
        }
    }
    let status = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo runs");
    assert!(status.success(), "the examples are built");
    profile.join("examples")
});

fn built(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}{}", std::env::consts::EXE_SUFFIX))
}

/// A running example; it is ended with the test.
struct Example {
    child: Child,
    lines: Receiver<String>,
    said: Vec<String>,
}

impl Example {
    fn start(name: &str, runtime: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(built(&EXAMPLES, &format!("{name}-{runtime}")));
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the example starts");
        let (sender, lines) = channel();
        read(child.stdout.take().expect("piped"), sender.clone());
        read(child.stderr.take().expect("piped"), sender);
        Self { child, lines, said: Vec::new() }
    }

    /// The next line, until a deadline that passes though there are always more lines.
    fn next_line(&self, end: Instant) -> Result<String, RecvTimeoutError> {
        let left = end.checked_duration_since(Instant::now()).ok_or(RecvTimeoutError::Timeout)?;
        self.lines.recv_timeout(left)
    }

    /// Waits for a line with this in it, on standard output or error.
    #[track_caller]
    fn says(&mut self, what: &str) {
        let end = Instant::now() + DEADLINE;
        loop {
            match self.next_line(end) {
                Ok(line) => self.said.push(line),
                Err(why) => panic!("it does not say {what} ({why}), but {:#?}", self.said),
            }
            if self.said.last().is_some_and(|line| line.contains(what)) {
                return;
            }
        }
    }

    fn types(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().expect("piped");
        writeln!(stdin, "{line}").expect("it reads");
    }

    /// Waits for its end, after the end of its standard input, and asserts that all went well.
    #[track_caller]
    fn ends(mut self) {
        drop(self.child.stdin.take());
        let end = Instant::now() + DEADLINE;
        loop {
            match self.next_line(end) {
                Ok(line) => self.said.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("it does not end: {:#?}", self.said),
            }
        }
        let status = self.child.wait().expect("it has ended");
        assert!(status.success(), "{status}: {:#?}", self.said);
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(stream: impl Read + Send + 'static, lines: Sender<String>) {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if lines.send(line).is_err() {
                return;
            }
        }
    });
}

/// A server, and the runtime that it lives in.
struct Stage {
    runtime: Runtime,
    server: Listener,
    /// That of the server, which may be stopped and started on it again.
    _port: Reserved,
}

impl Stage {
    fn new() -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let port = Reserved::new();
        let server = runtime.block_on(Listener::bind(port.addr(), ServerConfig::default()));
        Self { runtime, server: server.expect("a port"), _port: port }
    }

    fn behind_tls(tls: TlsConfig) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let port = Reserved::new();
        let server = runtime.block_on(Listener::bind_tls(
            port.addr(),
            ServerConfig::default(),
            Arc::new(tls),
        ));
        Self { runtime, server: server.expect("a port"), _port: port }
    }

    /// Drops every connection, and is back at once.
    fn bounce(&mut self) {
        let restarted = start_again(async || self.server.restart().await);
        self.runtime.block_on(restarted).expect("the same port");
    }
}

/// A file that is removed with the test.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("phx-{}-{name}", std::process::id()));
        std::fs::write(&path, text).expect("a temporary file");
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("its name is UTF-8")
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn pem(certificate: &[u8]) -> String {
    let text = STANDARD.encode(certificate);
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}

#[test]
fn chat_says_what_is_typed_and_prints_what_is_said_and_goes_on_after_a_restart() {
    for runtime in RUNTIMES {
        let mut stage = Stage::new();
        let mut chat = Example::start("chat", runtime, &[&stage.server.url(), "room:lobby"]);
        chat.types("hello");
        chat.says("(ok)");
        stage.bounce();
        chat.says("(back)");
        stage.server.broadcast("room:lobby", "shout", json!({"body": "still there?"}));
        chat.says("still there?");
        assert!(chat.said.iter().any(|line| line == "hello"), "{:#?}", chat.said);
        assert!(chat.said.iter().any(|line| line == "(gone)"), "{:#?}", chat.said);
        chat.ends();
    }
}

#[test]
fn typed_gets_back_the_value_that_it_sent() {
    for runtime in RUNTIMES {
        let stage = Stage::new();
        let mut typed = Example::start("typed", runtime, &[&stage.server.url()]);
        typed.says(r#"shout: Order { id: 7, items: ["tea", "milk"] }"#);
        typed.ends();
    }
}

#[test]
fn binary_sends_a_file_and_gets_its_bytes_back() {
    for runtime in RUNTIMES {
        let stage = Stage::new();
        let file = File::new(&format!("upload-{runtime}"), &"0123456789".repeat(300_000));
        let mut binary = Example::start("binary", runtime, &[&stage.server.url(), file.path()]);
        binary.says("sent 3000000 bytes, 3000000 came back, binary: true");
        binary.ends();
    }
}

#[test]
fn presence_lists_who_is_there_and_tells_who_comes_and_goes() {
    for runtime in RUNTIMES {
        let stage = Stage::new();
        let watch = |who| {
            Example::start("presence", runtime, &[&stage.server.url(), "presence:lobby", who])
        };
        let mut ann = watch("ann");
        ann.says("here: ann");
        let mut bob = watch("bob");
        bob.says("here: ann, bob");
        ann.says("bob came");
        drop(bob);
        ann.says("bob left");
    }
}

#[test]
fn token_refresh_asks_for_a_token_before_every_attempt() {
    for runtime in RUNTIMES {
        let mut stage = Stage::new();
        let mut refresh = Example::start("token_refresh", runtime, &[&stage.server.url()]);
        refresh.says("attempt 0 with token-1");
        refresh.says("connected");
        stage.bounce();
        refresh.says("attempt 1 with token-2");
        refresh.says("Connected");
    }
}

/// An HTTP request to the health check of the service: status and text.
fn get(address: &str, path: &str) -> (u16, String) {
    let mut stream = std::net::TcpStream::connect(address).expect("it listens");
    write!(stream, "GET {path} HTTP/1.1\r\nhost: health\r\nconnection: close\r\n\r\n")
        .expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, text) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.expect("a status"), text.to_owned())
}

/// It starts before its backend does, serves what comes, and ends in order on SIGTERM.
#[test]
#[cfg(unix)]
fn service_outlives_its_backend_and_ends_in_order() {
    for runtime in RUNTIMES {
        let mut stage = Stage::new();
        let url = stage.server.url();
        stage.runtime.block_on(stage.server.kill());
        let mut service = Example::start("service", runtime, &[&url, "127.0.0.1:0"]);
        service.says("listening on ");
        let listening = service.said.last().expect("a line");
        let address = listening.trim_start_matches("listening on ").to_owned();
        assert_eq!(get(&address, "/health"), (200, "well".to_owned()));
        service.says("connect failed");
        let (status, text) = get(&address, "/ready");
        assert!(status == 503 && !text.is_empty(), "{status} {text}");
        stage.bounce();
        for _ in 0..3 {
            service.says("joined topic=room:");
        }
        assert_eq!(get(&address, "/ready"), (200, "ready".to_owned()));
        assert_eq!(get(&address, "/other").0, 404);
        stage.server.broadcast("room:orders", "order", json!({"id": 7, "item": "tea"}));
        service.says("confirmed tea of order 7");
        stage.server.broadcast("room:prices", "price", json!({"eur": 3}));
        service.says(r#"price {"eur":3}"#);
        stage.bounce();
        service.says("Resumed");
        assert!(service.said.iter().any(|line| line.contains(r#"connection="backend""#)));
        assert!(service.said.iter().all(|line| !line.contains("ERROR")), "{:#?}", service.said);
        let pid = service.child.id().to_string();
        let killed = Command::new("kill").args(["-TERM", &pid]).status().expect("kill is there");
        assert!(killed.success());
        service.says("ended in order: true");
        service.ends();
    }
}

#[test]
fn supervised_keeps_every_connection_of_a_file() {
    for runtime in RUNTIMES {
        let (one, two) = (Stage::new(), Stage::new());
        let document = json!({"connections": {
            "one": {"uri": one.server.url(), "auto_join_channels": ["room:a"]},
            "two": {"uri": two.server.url()},
        }});
        let file = File::new(&format!("connections-{runtime}.json"), &document.to_string());
        let mut supervised = Example::start("supervised", runtime, &[file.path()]);
        supervised.says("phoenix.channel.joined");
        if !supervised.said.iter().any(|line| line.contains("2 of 2 ready")) {
            supervised.says("2 of 2 ready");
        }
    }
}

#[test]
fn custom_tls_trusts_the_authority_that_it_is_given() {
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let file = File::new("ca.pem", &pem(own.cert.der()));
    for runtime in RUNTIMES {
        let provider = Arc::new(ring::default_provider());
        let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).expect("a key");
        let tls = TlsConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("they fit")
            .with_no_client_auth()
            .with_single_cert(vec![own.cert.der().clone()], key);
        let stage = Stage::behind_tls(tls.expect("a certificate and its key"));
        let url = stage.server.url().replace("127.0.0.1", "localhost");
        let mut tls = Example::start("custom_tls", runtime, &[&url, file.path()]);
        tls.says("joined: {");
        tls.ends();
    }
}
