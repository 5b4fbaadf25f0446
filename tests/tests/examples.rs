//! Every example of both adapters is started, as a reader would start it, against the test server on a
//! loopback port, and its output is checked.
//!
//! Cargo builds examples only together with the tests of their own package, so this test builds them.

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

/// The folder of the built examples, which are compiled first. If all tests of the workspace were
/// built, nothing is left to compile.
static EXAMPLES: LazyLock<PathBuf> = LazyLock::new(|| {
    let this = std::env::current_exe().expect("a test has a path");
    let profile = this.ancestors().nth(2).expect("target/<profile>/deps");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--workspace", "--examples", "--all-features", "--locked", "--quiet"]);
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    // With these variables of the outer cargo, the inner one would run the build scripts again.
    for (name, _) in std::env::vars_os() {
        let is_of_cargo = name.to_str().is_some_and(|name| {
            name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
        });
        if is_of_cargo {
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

/// A running example, which is killed at the end of the test.
struct Example {
    child: Child,
    lines: Receiver<String>,
    output: Vec<String>,
}

impl Example {
    fn start(name: &str, runtime: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(built(&EXAMPLES, &format!("{name}-{runtime}")));
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the example starts");
        let (sender, lines) = channel();
        read(child.stdout.take().expect("piped"), sender.clone());
        read(child.stderr.take().expect("piped"), sender);
        Self { child, lines, output: Vec::new() }
    }

    /// The next line. After the deadline it is an error, even if there are more lines.
    fn next_line(&self, end: Instant) -> Result<String, RecvTimeoutError> {
        let left = end.checked_duration_since(Instant::now()).ok_or(RecvTimeoutError::Timeout)?;
        self.lines.recv_timeout(left)
    }

    /// Waits for a line that contains `what`, on standard output or error.
    #[track_caller]
    fn expect_line(&mut self, what: &str) {
        let end = Instant::now() + DEADLINE;
        loop {
            match self.next_line(end) {
                Ok(line) => self.output.push(line),
                Err(why) => panic!("no line has {what} ({why}): {:#?}", self.output),
            }
            if self.output.last().is_some_and(|line| line.contains(what)) {
                return;
            }
        }
    }

    fn type_line(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().expect("piped");
        writeln!(stdin, "{line}").expect("it reads");
    }

    /// Closes the standard input of the example, waits for its end and asserts that it succeeded.
    #[track_caller]
    fn expect_success(mut self) {
        drop(self.child.stdin.take());
        let end = Instant::now() + DEADLINE;
        loop {
            match self.next_line(end) {
                Ok(line) => self.output.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("it does not end: {:#?}", self.output),
            }
        }
        let status = self.child.wait().expect("it has ended");
        assert!(status.success(), "{status}: {:#?}", self.output);
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

/// A server, and the runtime that it runs in.
struct Stage {
    runtime: Runtime,
    server: Listener,
    /// The server's port, reserved so that the server can be restarted on it.
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

    /// Restarts the server, which drops every connection.
    fn bounce(&mut self) {
        let restarted = start_again(async || self.server.restart().await);
        self.runtime.block_on(restarted).expect("the same port");
    }
}

/// A file that is removed after the test.
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

/// The chat client sends the lines of its standard input, prints messages, and continues after a
/// restart of the server.
#[test]
fn chat_survives_a_restart() {
    for runtime in RUNTIMES {
        let mut stage = Stage::new();
        let mut chat = Example::start("chat", runtime, &[&stage.server.url(), "room:lobby"]);
        chat.type_line("hello");
        chat.expect_line("(ok)");
        stage.bounce();
        chat.expect_line("(back)");
        stage.server.broadcast("room:lobby", "shout", json!({"body": "still there?"}));
        chat.expect_line("still there?");
        assert!(chat.output.iter().any(|line| line == "hello"), "{:#?}", chat.output);
        assert!(chat.output.iter().any(|line| line == "(gone)"), "{:#?}", chat.output);
        chat.expect_success();
    }
}

#[test]
fn typed_echoes_a_value() {
    for runtime in RUNTIMES {
        let stage = Stage::new();
        let mut typed = Example::start("typed", runtime, &[&stage.server.url()]);
        typed.expect_line(r#"shout: Order { id: 7, items: ["tea", "milk"] }"#);
        typed.expect_success();
    }
}

#[test]
fn binary_echoes_a_file() {
    for runtime in RUNTIMES {
        let stage = Stage::new();
        let file = File::new(&format!("upload-{runtime}"), &"0123456789".repeat(300_000));
        let mut binary = Example::start("binary", runtime, &[&stage.server.url(), file.path()]);
        binary.expect_line("sent 3000000 bytes, 3000000 came back, binary: true");
        binary.expect_success();
    }
}

#[test]
fn presence_reports_joins_and_leaves() {
    for runtime in RUNTIMES {
        let stage = Stage::new();
        let watch = |who| {
            Example::start("presence", runtime, &[&stage.server.url(), "presence:lobby", who])
        };
        let mut ann = watch("ann");
        ann.expect_line("here: ann");
        let mut bob = watch("bob");
        bob.expect_line("here: ann, bob");
        ann.expect_line("bob came");
        drop(bob);
        ann.expect_line("bob left");
    }
}

#[test]
fn token_refresh_fetches_token_per_attempt() {
    for runtime in RUNTIMES {
        let mut stage = Stage::new();
        let mut refresh = Example::start("token_refresh", runtime, &[&stage.server.url()]);
        refresh.expect_line("attempt 0 with token-1");
        refresh.expect_line("connected");
        stage.bounce();
        refresh.expect_line("attempt 1 with token-2");
        refresh.expect_line("Connected");
    }
}

/// A restart of the server ends the subscription, and the client subscribes again.
#[test]
fn absinthe_subscribes_after_each_join() {
    for runtime in RUNTIMES {
        let mut stage = Stage::new();
        let mut absinthe = Example::start("absinthe", runtime, &[&stage.server.url()]);
        for (id, title) in [("1", "Hello"), ("2", "Again")] {
            absinthe.expect_line("subscribed as __absinthe__:doc:");
            let line = absinthe.output.last().expect("a line");
            let subscription = line.trim_start_matches("subscribed as ").to_owned();
            let data = json!({"data": {"postAdded": {"id": id, "title": title}}});
            stage.server.with(|server, _| server.publish(&subscription, data));
            absinthe.expect_line(&format!("post {id}: {title}"));
            let errors = json!({"errors": [{"message": "too late"}]});
            stage.server.with(|server, _| server.publish(&subscription, errors));
            absinthe.expect_line("error: too late");
            stage.bounce();
        }
    }
}

/// The consumer gets what was sent while its connection was lost, and while the program did not run.
#[test]
fn catch_up_prints_each_message_once() {
    for runtime in RUNTIMES {
        let stage = Stage::new();
        let file = File::new(&format!("cursor-{runtime}.json"), "0");
        let append = |stage: &Stage, number: u32| {
            let payload = json!({ "number": number });
            stage.server.with(|server, now| server.append(now, "ring:orders", payload));
        };
        let arguments = [stage.server.url(), "ring:orders".to_owned(), file.path().to_owned()];
        let arguments = arguments.each_ref().map(String::as_str);
        append(&stage, 1);
        let mut first = Example::start("catch_up", runtime, &arguments);
        first.expect_line(r#"{"number":1,"pos":1}"#);
        first.expect_line("caught up");
        append(&stage, 2);
        first.expect_line(r#"{"number":2,"pos":2}"#);
        // Every connection ends, and the server keeps its messages. A restart would lose them.
        stage.server.with(|server, _| server.kill_all());
        append(&stage, 3);
        first.expect_line("interrupted");
        first.expect_line(r#"{"number":3,"pos":3}"#);
        first.expect_line("caught up");
        drop(first);

        append(&stage, 4);
        let mut second = Example::start("catch_up", runtime, &arguments);
        second.expect_line(r#"{"number":4,"pos":4}"#);
        second.expect_line("caught up");
        assert_eq!(second.output.len(), 2, "{:#?}", second.output);
    }
}

/// The status and the body of a GET request to the health check of the service.
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

/// The service starts before its backend, survives a restart of the backend, and shuts down cleanly
/// on SIGTERM.
#[test]
#[cfg(unix)]
fn service_outlives_its_backend() {
    for runtime in RUNTIMES {
        let mut stage = Stage::new();
        let url = stage.server.url();
        stage.runtime.block_on(stage.server.kill());
        let mut service = Example::start("service", runtime, &[&url, "127.0.0.1:0"]);
        service.expect_line("listening on ");
        let listening = service.output.last().expect("a line");
        let address = listening.trim_start_matches("listening on ").to_owned();
        assert_eq!(get(&address, "/health"), (200, "healthy".to_owned()));
        service.expect_line("connect failed");
        let (status, text) = get(&address, "/ready");
        assert!(status == 503 && !text.is_empty(), "{status} {text}");
        stage.bounce();
        for _ in 0..3 {
            service.expect_line("joined topic=room:");
        }
        assert_eq!(get(&address, "/ready"), (200, "ready".to_owned()));
        assert_eq!(get(&address, "/other").0, 404);
        stage.server.broadcast("room:orders", "order", json!({"id": 7, "item": "tea"}));
        service.expect_line("confirmed tea of order 7");
        stage.server.broadcast("room:prices", "price", json!({"eur": 3}));
        service.expect_line(r#"price {"eur":3}"#);
        stage.bounce();
        service.expect_line("Resumed");
        assert!(service.output.iter().any(|line| line.contains(r#"connection="backend""#)));
        assert!(service.output.iter().all(|line| !line.contains("ERROR")), "{:#?}", service.output);
        let pid = service.child.id().to_string();
        let killed = Command::new("kill").args(["-TERM", &pid]).status().expect("kill exists");
        assert!(killed.success());
        service.expect_line("finished everything: true");
        service.expect_success();
    }
}

#[test]
fn supervised_keeps_all_connections() {
    for runtime in RUNTIMES {
        let (one, two) = (Stage::new(), Stage::new());
        let document = json!({"connections": {
            "one": {"uri": one.server.url(), "auto_join_channels": ["room:a"]},
            "two": {"uri": two.server.url()},
        }});
        let file = File::new(&format!("connections-{runtime}.json"), &document.to_string());
        let mut supervised = Example::start("supervised", runtime, &[file.path()]);
        supervised.expect_line("phoenix.channel.joined");
        if !supervised.output.iter().any(|line| line.contains("2 of 2 ready")) {
            supervised.expect_line("2 of 2 ready");
        }
    }
}

#[test]
fn custom_tls_trusts_given_authority() {
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
        tls.expect_line("joined: {");
        tls.expect_success();
    }
}
