//! `phx run --metrics` and `--metrics-every`: the page for scrapers, read by a third-party parser, and
//! the printed events.

#![cfg(unix)]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};
use support::running::{DEADLINE, Events, File, Process, free_addr, phx, signal, uri};

/// A run with two connections, one of them without a server, that serves metrics.
struct Stage {
    events: Events,
    metrics: SocketAddr,
    _server: Process,
    _file: File,
}

impl Stage {
    fn new(name: &str, connection: &str, more: &[&str]) -> Self {
        let addr = free_addr();
        let server = Process::serve(addr, None);
        let file = File::new(
            name,
            &json!({"connections": {
                connection: {"uri": uri(addr), "auto_join_channels": ["room:a"]},
                "down": {"uri": uri(free_addr()), "max_retries": 0},
            }}),
        );
        let args = ["run", file.path(), "--metrics", "127.0.0.1:0"];
        let mut events = Events::of(Process::start(phx(&[&args, more].concat())));
        let log = events.process.errors.recv_timeout(DEADLINE).expect("the address of the metrics");
        let url = log.strip_prefix("phx: metrics: http://").expect("an address");
        let metrics = url.strip_suffix("/metrics").expect("a path").parse().expect("a port");
        events.until("down", "phoenix.connection.gave_up", None);
        events.until(connection, "phoenix.channel.joined", Some("room:a"));
        Self { events, metrics, _server: server, _file: file }
    }

    /// Sends these bytes, and returns the head and the body of the answer.
    fn ask(&self, request: &[u8]) -> (String, String) {
        let mut stream = TcpStream::connect(self.metrics).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        // The server may answer before it has read everything.
        let _ = stream.write_all(request);
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer}"));
        (head.to_owned(), body.to_owned())
    }

    fn page(&self) -> (String, String) {
        self.ask(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n")
    }

    /// The page once it shows that the failed connection has ended, which is a little later than the
    /// event.
    fn settled_page(&self) -> (String, String) {
        let end = Instant::now() + DEADLINE;
        loop {
            let (head, page) = self.page();
            let mut lines = page.lines().filter(|line| line.contains("\"down\""));
            if lines.any(|line| line.contains("\"terminated\"") && line.ends_with(" 1")) {
                return (head, page);
            }
            assert!(Instant::now() < end, "{page}");
        }
    }

    fn finish(mut self) {
        signal(&self.events.process.child, "-TERM");
        self.events.process.expect_exit(0);
    }
}

/// The families of a page as prometheus_client reads them; `None` if it cannot be installed.
fn parsed(page: &str) -> Option<Vec<Value>> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/peers/openmetrics.py");
    let mut python = Command::new("python3");
    python.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let why = match python.spawn() {
        Err(error) => format!("python3: {error}"),
        Ok(mut child) => {
            child.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
            let output = child.wait_with_output().unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            if output.status.code() != Some(77) {
                assert!(output.status.success(), "{stderr}\n{page}");
                return Some(serde_json::from_slice(&output.stdout).unwrap());
            }
            stderr
        }
    };
    let required = std::env::var_os("PHX_REQUIRE_PEERS").is_some_and(|value| !value.is_empty());
    assert!(!required, "PHX_REQUIRE_PEERS is set and the parser is not available: {why}");
    // Not `eprintln`, which the test harness captures when a test passes.
    let _ = writeln!(std::io::stderr(), "SKIPPED the parser of OpenMetrics: {why}");
    None
}

#[test]
fn metrics_page_covers_every_connection() {
    // A name that must be escaped.
    let name = "a\"b\\c\n1";
    let stage = Stage::new("metrics", name, &[]);
    let (head, page) = stage.settled_page();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    let kind = "Content-Type: application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert!(head.contains(kind) && head.contains("\r\nConnection: close"), "{head}");
    assert!(head.contains(&format!("Content-Length: {}", page.len())), "{head}");
    let (head_only, nothing) = stage.ask(b"HEAD /metrics HTTP/1.1\r\n\r\n");
    assert!(head_only.starts_with("HTTP/1.1 200 OK\r\n") && nothing.is_empty());
    stage.finish();

    let Some(families) = parsed(&page) else { return };
    let family = |wanted: &str| {
        let found = families.iter().find(|family| family["name"] == wanted);
        found.unwrap_or_else(|| panic!("{wanted} is not in {page}"))
    };
    let of = |wanted: &str, connection: &str| {
        let samples = family(wanted)["samples"].as_array().unwrap();
        let mine = samples.iter().filter(|sample| sample[1]["connection"] == connection);
        mine.cloned().collect::<Vec<_>>()
    };
    assert_eq!(of("phx_connections_opened", name)[0][2], 1.0);
    assert_eq!(of("phx_connections_opened", "down"), [Value::Null; 0], "it has ended");
    assert!(of("phx_frames_sent", name)[0][2].as_f64() >= Some(1.0), "the join");
    assert_eq!(of("phx_frames_sent", name)[0][0], "phx_frames_sent_total");
    assert_eq!(family("phx_sent_bytes")["unit"], "bytes");
    assert_eq!(family("phx_join_duration_seconds")["type"], "gauge");
    let states = of("phx_connection_lifecycle", "down");
    let is: Vec<&Value> = states.iter().filter(|state| state[2] == 1.0).collect();
    assert_eq!(is[0][1]["phx_connection_lifecycle"], "terminated", "{states:?}");
    for family in &families {
        assert!(family["help"].as_str().is_some_and(|help| help.ends_with('.')), "{family}");
        assert_ne!(family["type"], "unknown");
    }
}

/// Requests for another page or with another method, malformed and oversized requests, and silent
/// connections.
#[test]
fn bad_metrics_requests_get_http_errors() {
    let stage = Stage::new("requests", "a", &[]);
    let long = format!("GET /metrics HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(9_000));
    for (request, status) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "404 Not Found"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", "405 Method Not Allowed"),
        (b"\x16\x03\x01\x02\x00", "400 Bad Request"),
        (long.as_bytes(), "431 Request Header Fields Too Large"),
    ] {
        let (head, _) = stage.ask(request);
        assert!(head.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{head}");
    }
    // Connections that send nothing do not block others.
    let silent: Vec<_> = (0..8).map(|_| TcpStream::connect(stage.metrics).unwrap()).collect();
    assert!(stage.page().0.starts_with("HTTP/1.1 200 OK"));
    drop(silent);
    stage.finish();
}

#[test]
fn metrics_every_prints_events() {
    let mut stage = Stage::new("every", "a", &["--metrics-every", "1"]);
    // The first metrics events may not yet include state changes that other events have already
    // reported.
    let settled = stage.events.find_report(|event| {
        let connections = &event["data"]["connections"];
        let state = |name: &str| &connections[name]["phx_connection_lifecycle"];
        event["type"] == "phx.metrics"
            && (state("a"), state("down")) == (&json!("ready"), &json!("terminated"))
    });
    assert_eq!(settled["data"]["connections"]["a"]["phx_connections_opened_total"], 1);
    stage.events.report("phx.metrics");
    stage.finish();
}

#[test]
fn busy_metrics_port_is_an_error() {
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let file = File::new("busy", &json!({"connections": {"a": {"uri": uri(free_addr())}}}));
    let output = phx(&["run", file.path(), "--metrics", &addr]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.contains(&format!("metrics: {addr}: Address already in use")), "{stderr}");
    assert!(output.stdout.is_empty(), "no connection was started");
}
