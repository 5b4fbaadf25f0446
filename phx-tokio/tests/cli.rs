//! The binary itself: what it prints, and the exit codes that scripts rely on.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};
use std::thread::JoinHandle;

fn phx(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_phx"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A port that nobody listens on.
fn free_addr() -> std::net::SocketAddr {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap()
}

fn run(args: &[&str]) -> Output {
    phx(args).output().unwrap()
}

/// Asserts the exit code, and one line on standard error that holds `what`.
#[track_caller]
fn assert_fails(output: &Output, code: i32, what: &str) {
    let line = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{line}");
    assert_eq!(line.trim_end().lines().count(), 1, "{line}");
    assert!(line.contains(what), "{line}");
}

/// `phx serve` on a port of its own, ended with the test.
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

/// A server that answers every upgrade of one connection with these bytes.
fn answering(answer: &'static str) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/socket/websocket", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        stream.write_all(answer.as_bytes()).unwrap();
    });
    (url, server)
}

#[test]
fn the_demo_shows_every_step_and_succeeds() {
    let output = run(&["demo"]);
    let story = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{story}{}", String::from_utf8_lossy(&output.stderr));
    let steps = ["connected", "joined", "reply", "news", "killed", "interrupted", "next attempt"];
    for step in steps.into_iter().chain(["resumed", "disconnected", "every step worked"]) {
        assert!(story.contains(step), "{step} is missing:\n{story}");
    }
}

#[test]
fn a_wrong_url_is_bad_usage() {
    assert_fails(&run(&["push", "http://localhost/", "t", "e", "{}"]), 2, "ws or wss");
}

#[test]
fn a_payload_that_is_no_json_is_bad_usage() {
    assert_fails(&run(&["push", "ws://localhost/", "t", "e", "{"]), 2, "no JSON");
}

#[test]
fn ws_to_another_machine_names_the_option_that_allows_it() {
    let output = run(&["push", "ws://phoenix.invalid/", "t", "e", "{}"]);
    assert_fails(&output, 2, "--allow-insecure");
}

#[test]
fn a_refused_port_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/socket/websocket", listener.local_addr().unwrap());
    drop(listener);
    assert_fails(&run(&["push", &url, "t", "e", "{}"]), 3, "could not be reached");
}

#[test]
fn a_403_is_a_refusal() {
    let (url, server) = answering("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
    assert_fails(&run(&["listen", &url, "--join", "room:lobby"]), 4, "HTTP 403");
    server.join().unwrap();
}

#[test]
fn a_secret_in_the_url_is_not_repeated() {
    let (url, server) = answering("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
    let url = format!("{url}?token=s3cret");
    let output = run(&["push", &url, "t", "e", "{}"]);
    assert_fails(&output, 4, "HTTP 403");
    assert!(!String::from_utf8_lossy(&output.stderr).contains("s3cret"));
    server.join().unwrap();
}

#[test]
fn a_topic_without_a_channel_is_a_rejected_join() {
    let serve = Serve::start();
    let output = run(&["push", &serve.url, "no_such:topic", "e", "{}"]);
    assert_fails(&output, 5, "no channel of the server matches the topic");
}

#[test]
fn a_push_prints_the_response() {
    let serve = Serve::start();
    let output = run(&["push", &serve.url, "room:lobby", "echo", r#"{"body":"hi"}"#]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "{\"body\":\"hi\"}\n");
}

#[test]
fn listen_prints_one_json_object_a_line() {
    let serve = Serve::start();
    let mut listen = phx(&["listen", &serve.url, "--join", "room:lobby"]).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(listen.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    listen.kill().unwrap();
    listen.wait().unwrap();
    let event: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(event["type"], "joined");
    assert_eq!(event["topic"], "room:lobby");
}

#[test]
fn the_exit_codes_are_in_the_help() {
    let output = run(&["--help"]);
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("Exit codes:"));
}

#[test]
fn the_proxy_of_the_environment_is_used() {
    let addr = free_addr();
    let mut command = phx(&["push", "wss://backend.invalid/socket/websocket", "t", "e", "{}"]);
    let output = command.env("HTTPS_PROXY", format!("http://{addr}")).output().unwrap();
    assert_fails(&output, 3, &format!("the proxy: {addr} could not be reached"));
    let output = command.env("HTTPS_PROXY", "socks5://h").output().unwrap();
    assert_fails(&output, 2, "HTTPS_PROXY");
}

#[test]
fn a_certificate_authority_that_is_none_is_a_usage_error() {
    let url = "wss://localhost/socket/websocket";
    for file in ["no/such/file.pem", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")] {
        assert_fails(&run(&["push", url, "t", "e", "{}", "--ca", file]), 2, file);
    }
}
