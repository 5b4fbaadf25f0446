//! Output on a terminal, in particular of text from a hostile server.

#![cfg(target_os = "linux")]

mod support;

use std::process::{Command, Stdio};

use phx_tokio::wire::Frame;
use rustix::process::Signal;
use serde_json::json;
use support::process::{Captured, Process, Temporary, Terminal, TestServer, phx};

/// A line break, an escape sequence, DEL, C1 controls, and characters that hide or reverse text.
const HOSTILE: &str = "x\n12:00:00Z room:a forged\r\u{1b}[2J\u{7f}\u{85}\u{9b}2J\u{ad}\u{200b}\u{2028}forged\
                       \u{2029}\u{202e}\u{2066}\u{feff}\u{e0041}";

/// A process on a terminal, without colours, so that every escape sequence comes from the server.
fn on_terminal(mut command: Command) -> (Process, Captured) {
    let terminal = Terminal::new();
    command.env("NO_COLOR", "1").stdout(terminal.stdio()).stderr(terminal.stdio());
    let process = Process::start(command);
    (process, terminal.screen())
}

/// Asserts that the screen has only text and line ends, which a terminal writes as two characters.
#[track_caller]
fn assert_plain(screen: &str) {
    for line in screen.split("\r\n") {
        for letter in line.chars() {
            let hidden = "\u{ad}\u{200b}\u{2028}\u{2029}\u{202e}\u{2066}\u{feff}\u{e0041}";
            assert!(!letter.is_control() && !hidden.contains(letter), "{letter:?} in {line:?}");
        }
        assert!(!line.starts_with("12:00:00Z"), "a forged line: {screen}");
    }
}

/// The number of lines on the screen with this text.
fn count(screen: &str, text: &str) -> usize {
    screen.split("\r\n").filter(|line| line.contains(text)).count()
}

#[test]
fn listen_escapes_hostile_messages() {
    let server = TestServer::new();
    let (process, screen) = on_terminal(phx(&["listen", &server.url(), "--join", "room:a"]));
    screen.until("joined");
    server.broadcast("room:a", HOSTILE, &json!({HOSTILE: HOSTILE}));
    server.broadcast("room:a", "last", &json!(null));
    let all = screen.until("last null");
    assert_plain(&all);
    assert_eq!(count(&all, "room:a"), 3, "{all}");
    assert_eq!(all.matches("\\n12:00:00Z").count(), 3, "{all}");
    process.signal(Signal::TERM);
    assert_plain(&screen.all());
}

/// A topic may come from an untrusted caller.
#[test]
fn hostile_topics_are_escaped() {
    let server = TestServer::new();
    let topic = format!("room:{HOSTILE}");
    let (process, screen) = on_terminal(phx(&["listen", &server.url(), "--join", &topic]));
    screen.until("joined");
    assert_plain(&screen.text());
    process.signal(Signal::TERM);
    let (_process, screen) = on_terminal(phx(&["push", &server.url(), HOSTILE, "echo", "{}"]));
    let all = screen.all();
    assert!(all.contains("no channel of the server matches"), "{all}");
    assert_plain(&all);
}

#[test]
fn push_escapes_hostile_responses() {
    let server = TestServer::new();
    let payload = json!({"a": HOSTILE, HOSTILE: []}).to_string();
    let (mut process, screen) =
        on_terminal(phx(&["push", &server.url(), "room:a", "echo", &payload]));
    assert_eq!(process.exit_code(), Some(0));
    let all = screen.all();
    assert_plain(&all);
    assert_eq!(count(&all, "forged"), 1, "{all}");
    // A refusal is printed on standard error.
    let (mut process, screen) =
        on_terminal(phx(&["push", &server.url(), "room:a", "nack", &payload]));
    assert_eq!(process.exit_code(), Some(6));
    assert_plain(&screen.all());
}

/// On a terminal, `phx run` prints readable, escaped lines instead of JSON.
#[test]
fn run_prints_lines_on_terminal() {
    let mut server = TestServer::new();
    let file = server.connections();
    let (mut process, screen) = on_terminal(phx(&["run", file.path()]));
    server.wait_for("Joined", 2);
    server.broadcast("room:a", HOSTILE, &json!({HOSTILE: HOSTILE}));
    server.broadcast("room:a", "news", &json!({"n": 1}));
    let all = screen.until(r#"Z a room:a news {"n":1}"#);
    assert_plain(&all);
    assert_eq!(count(&all, "forged"), 1, "{all}");
    // The payload is printed as the server wrote it, except for characters that a terminal would
    // interpret.
    server.with(|server| {
        for peer in server.peers() {
            let payload = format!("{{\r\n\t\"n\":1.0,\n\"{}\":\"\u{202e}\u{7f}\"}}", "\u{9b}");
            let text = format!("[null,null,\"room:a\",\"raw\",{payload}]");
            server.send_raw(peer, Frame::Text(text.into()));
            let text = format!("[null,null,\"room:a\",\"bad\",{payload}\u{1b}[2J]");
            server.send_raw(peer, Frame::Text(text.into()));
        }
    });
    screen.until(r#"raw {   "n":1.0, "\u{9b}":"\u{202e}\u{7f}"}"#);
    let all = screen.until(r#"bad {\r\n\t"n":1.0,\n"\u{9b}":"\u{202e}\u{7f}"}\u{1b}[2J"#);
    assert_plain(&all);
    assert!(all.contains("Z a room:a joined"), "{all}");
    assert!(!all.contains("specversion"), "{all}");
    server.kill();
    let all = screen.until("next attempt at ");
    let at = all.split("next attempt at ").nth(1).unwrap();
    let shape: String =
        at.chars().take(9).map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "00:00:00Z", "{all}");
    process.signal(Signal::TERM);
    assert_eq!(process.exit_code(), Some(0));
    assert_plain(&screen.all());
}

#[test]
fn replay_escapes_recorded_text() {
    let server = TestServer::new();
    let file = Temporary::new("hostile.jsonl");
    let topic = format!("room:{HOSTILE}");
    let args =
        ["push", &server.url(), &topic, "echo", "{}", "--record", file.path(), "--record-payloads"];
    assert!(phx(&args).output().unwrap().status.success());
    let (mut process, screen) = on_terminal(phx(&["replay", file.path()]));
    assert_eq!(process.exit_code(), Some(0));
    let all = screen.all();
    assert!(all.contains("forged"), "{all}");
    assert_plain(&all);
}

#[test]
fn serve_logs_clients_and_prints_help() {
    let terminal = Terminal::new();
    let mut command = phx(&["serve", "--addr", "127.0.0.1:0"]);
    command.env("NO_COLOR", "1").stderr(terminal.stdio());
    let mut process = Process::start(command);
    let screen = terminal.screen();
    let url = process.first_line();
    let topic = format!("room:{HOSTILE}");
    assert!(phx(&["push", url.trim(), &topic, "echo", "{}"]).output().unwrap().status.success());
    let all = screen.until("disconnected");
    for what in ["peer#1 connected", "peer#1 joined room:x\\n12:00"] {
        assert!(all.contains(what), "{what} is missing in {all}");
    }
    assert!(
        !phx(&["push", url.trim(), "other:a", "echo", "{}"]).output().unwrap().status.success()
    );
    screen.until("peer#2 was refused other:a");
    let before = screen.text().matches("broadcast TOPIC EVENT JSON").count();
    process.type_line("help");
    process.type_line("dance\u{9b}2J");
    let all = screen.until("type help");
    assert_eq!(all.matches("broadcast TOPIC EVENT JSON").count(), before + 1, "{all}");
    assert_plain(&all);
    process.signal(Signal::TERM);
    assert_eq!(process.exit_code(), Some(0));
}

/// `phx serve &` in an interactive shell goes on: reading the terminal would stop it (SIGTTIN).
#[test]
fn serve_runs_in_background_of_terminal() {
    let terminal = Terminal::new();
    // The shell, with job control, starts the server in the background and then reads the terminal.
    let script = r#""$0" serve --addr 127.0.0.1:0 & read -r line; kill %1; wait; echo "$line""#;
    let mut command = Command::new("setsid");
    command.args(["--ctty", "sh", "-m", "-c", script, env!("CARGO_BIN_EXE_phx")]);
    command.stdin(terminal.stdio()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = Process::start(command);
    let url = process.first_line();
    process.errors.until("this list");
    let push = ["push", url.trim(), "room:a", "echo", "1", "--timeout", "10s"];
    let output = phx(&push).output().unwrap();
    let stdout = process.capture_stdout();
    terminal.type_text("kill\n");
    assert_eq!(process.exit_code(), Some(0), "{}", process.errors.text());
    assert_eq!(stdout.all(), "kill\n");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
