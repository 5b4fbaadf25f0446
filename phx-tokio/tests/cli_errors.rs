//! What the binary prints when it does not connect, or is refused: one line that says what to do.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};

fn phx(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_phx"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
        command.env_remove(name).env_remove(name.to_uppercase());
    }
    command
}

/// Asserts the exit code, and gives the one line on standard error.
#[track_caller]
fn line(output: &Output, code: i32) -> String {
    let text = String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    text
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

#[test]
fn refused_join_prints_the_servers_reason() {
    let serve = Serve::start();
    let output = phx(&["listen", &serve.url, "--join", "deny:all"]).output().unwrap();
    let line = line(&output, 5);
    assert!(line.ends_with("deny:all: the server refused the join: unauthorized"), "{line}");
}

#[test]
fn connect_to_is_dialled_in_place_of_the_url() {
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
    assert!(refused.contains("the address to connect to cannot be used"), "{refused}");
}

/// A proxy for another purpose, in the environment of every shell.
#[test]
fn bad_proxy_of_the_environment_spares_this_machine() {
    let serve = Serve::start();
    let push = |url: &str| {
        let mut command = phx(&["push", url, "room:lobby", "echo", "{}"]);
        command.env("ALL_PROXY", "ftp://user:s3cret@proxy").output().unwrap()
    };
    let output = push(&serve.url);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let refused = line(&push("wss://backend.invalid/socket/websocket"), 2);
    assert!(refused.contains("ALL_PROXY cannot be used"), "{refused}");
    assert!(!refused.contains("s3cret"), "{refused}");
}

#[test]
fn unicode_host_is_named_in_ascii() {
    let refused =
        line(&phx(&["listen", "wss://bücher.example/s", "--join", "t"]).output().unwrap(), 2);
    assert!(refused.contains("xn--bcher-kva.example"), "{refused}");
}
