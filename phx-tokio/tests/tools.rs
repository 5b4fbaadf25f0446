//! `phx listen`, `phx push` and `phx cast` as command-line tools: payloads that pass through unchanged,
//! the usual options, progress messages, and clean ends.

#![cfg(target_os = "linux")]

mod support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::process::Output;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use phx_tokio::rustls;
use phx_tokio::testing::{Listener, ServerConfig};
use phx_tokio::wire::Frame;
use rustix::process::Signal;
use serde_json::{Value, json};
use support::process::{Process, Temporary, TestServer, phx, wait};
use support::running::{free_addr, uri};

/// JSON that would not survive parsing into values: order and repetition of keys, numbers, escapes.
const VERBATIM: &str =
    r#"{"b":1.0e0,"a":123456789012345678901234567890,"b":"\ud83d\ude00\/\u00e9","c":-0}"#;

#[track_caller]
fn stdout_of(output: &Output) -> &str {
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{log}");
    core::str::from_utf8(&output.stdout).unwrap()
}

fn run(args: &[&str]) -> Output {
    phx(args).output().unwrap()
}

/// The output of a command with this standard input.
fn fed(args: &[&str], input: &[u8]) -> Output {
    let mut child = phx(args).spawn().unwrap();
    // The command may fail before it reads.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

/// The line of a recording with the frame of its push.
fn pushed(recording: &Temporary) -> String {
    let text = recording.text();
    let line = text.lines().find(|line| line.contains("\"sent\"") && line.contains("echo"));
    line.unwrap_or_else(|| panic!("{text}")).to_owned()
}

/// supabase/supabase-js#1270: numbers must not be rounded on their way through a tool.
#[test]
fn listen_prints_payloads_byte_for_byte() {
    let server = TestServer::new();
    let mut process = Process::start(phx(&["listen", &server.url(), "--join", "room:a"]));
    let mut raw = Process::start(phx(&["listen", &server.url(), "--join", "room:a", "--raw"]));
    let (stdout, raw_stdout) = (process.capture_stdout(), raw.capture_stdout());
    server.wait_for("Joined", 2);
    server.with(|server| {
        for peer in server.peers() {
            let text = format!("[null,null,\"room:a\",\"e\",{VERBATIM}]");
            server.send_raw(peer, Frame::Text(text.into()));
            let text = "[null,null,\"room:a\",\"broken\",{\"a\":\r\n [1]}]";
            server.send_raw(peer, Frame::Text(text.into()));
        }
    });
    let all = stdout.until("broken");
    let line = format!(
        "{{\"type\":\"message\",\"topic\":\"room:a\",\"event\":\"e\",\"payload\":{VERBATIM}}}"
    );
    assert_eq!(all.lines().nth(1), Some(&*line));
    stdout.until("\"payload\":{\"a\":   [1]}}\n");
    raw_stdout.until("[1]}\n");
    assert_eq!(raw_stdout.text(), format!("{VERBATIM}\n{{\"a\":   [1]}}\n"));
    for mut process in [process, raw] {
        process.signal(Signal::TERM);
        assert_eq!(process.exit_code(), Some(0));
    }
}

/// The events of `phx run` contain JSON payloads on one line and otherwise unchanged, and invalid JSON
/// as text.
#[test]
fn run_prints_payloads_byte_for_byte() {
    let server = TestServer::new();
    let file = server.connections();
    let mut process = Process::start(phx(&["run", file.path()]));
    let stdout = process.capture_stdout();
    server.wait_for("Joined", 2);
    let numbers = "[1.0,-0,1E5,1e400,10000000000000000000001]";
    server.with(|server| {
        for peer in server.peers() {
            for payload in [VERBATIM, numbers, "{\"a\":\r\n\t[1]}", "{\n\"a\":", "[NaN]"] {
                let text = format!("[null,null,\"room:a\",\"news\",{payload}]");
                server.send_raw(peer, Frame::Text(text.into()));
            }
        }
    });
    server.wait_received();
    process.signal(Signal::TERM);
    assert_eq!(process.exit_code(), Some(0));
    let all = stdout.all();
    let news = all.lines().filter(|line| line.contains("\"phoenix.a.room_a.news\""));
    let news: Vec<&str> =
        news.map(|line| line.split_once("\"event\":\"news\",").unwrap().1).collect();
    assert_eq!(
        news,
        [
            format!("\"payload\":{VERBATIM}}}}}"),
            format!("\"payload\":{numbers}}}}}"),
            "\"payload\":{\"a\":   [1]}}}".to_owned(),
            "\"payload_text\":\"{\\n\\\"a\\\":\"}}".to_owned(),
            "\"payload_text\":\"[NaN]\"}}".to_owned(),
        ]
    );
}

/// A payload from an argument, standard input or a file is sent unchanged.
#[test]
fn push_sends_payloads_byte_for_byte() {
    let server = TestServer::new();
    let url = server.url();
    let (file, recording) = (Temporary::new("payload.json"), Temporary::new("push.jsonl"));
    // Editors add a byte order mark and a line break.
    file.write(format!("\u{feff}{VERBATIM}\n"));
    let at_file = format!("@{}", file.path());
    let record = ["--record", recording.path(), "--record-payloads"];
    for payload in [&[VERBATIM][..], &["-"], &[&at_file], &["--file", file.path()]] {
        let args = [&["push", &url, "room:a", "echo"][..], payload, &record].concat();
        let output = fed(&args, file.text().as_bytes());
        let response: Value = serde_json::from_str(stdout_of(&output)).unwrap();
        assert_eq!(response["c"], 0, "{payload:?}");
        let sent = Value::from(VERBATIM).to_string();
        let sent = sent.trim_matches('"');
        assert!(pushed(&recording).contains(sent), "{payload:?}: {}", pushed(&recording));
    }
    // Without an argument, the payload is an empty object, as Phoenix expects.
    assert_eq!(stdout_of(&run(&["push", &url, "room:a", "echo"])), "{}\n");
    let output = fed(&["push", &url, "room:a", "echo", "-"], b"{");
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(run(&["push", &url, "room:a", "echo", "@/nonexistent"]).status.code(), Some(2));
}

#[test]
fn push_sends_bytes() {
    let server = TestServer::new();
    let url = server.url();
    let bytes = [0, 255, b'{', b'\n', 0xef, 0xbb, 0xbf];
    let output = fed(&["push", &url, "room:a", "echo", "--binary", "-"], &bytes);
    let wanted = format!("{{\"payload_base64\":\"{}\"}}\n", STANDARD.encode(bytes));
    assert_eq!(stdout_of(&output), wanted);
}

#[test]
fn push_repeats() {
    let server = TestServer::new();
    let push = ["push", &server.url(), "room:a", "echo", "7", "--repeat", "3"];
    assert_eq!(stdout_of(&run(&push)), "7\n7\n7\n");
    let slowly = [&push[..], &["--interval", "20ms"]].concat();
    assert_eq!(stdout_of(&run(&slowly)), "7\n7\n7\n");
    // The command ends at the first failure.
    let nack = ["push", &server.url(), "room:a", "nack", "{}", "--repeat", "3"];
    let output = run(&nack);
    assert_eq!(output.status.code(), Some(6));
    assert!(output.stdout.is_empty());
}

/// A cast prints nothing, and has arrived when the command ends.
#[test]
fn cast_arrives() {
    let server = TestServer::new();
    let url = server.url();
    let mut process = Process::start(phx(&["listen", &url, "--join", "room:a"]));
    let stdout = process.capture_stdout();
    stdout.until("joined");
    let cast = ["cast", &url, "room:a", "shout", r#"{"n":1}"#, "--repeat", "2"];
    assert_eq!(stdout_of(&run(&cast)), "");
    // The client leaves after the casts, so the server has received them.
    server.wait_for("ChannelEnded", 1);
    server.broadcast("room:a", "last", &json!({}));
    let all = stdout.until("last");
    assert_eq!(all.matches(r#""event":"shout","payload":{"n":1}"#).count(), 2, "{all}");
}

/// Events of the protocol itself cannot be pushed.
#[test]
fn protocol_events_are_bad_usage() {
    let server = TestServer::new();
    for (command, event) in [("push", "phx_leave"), ("cast", "phx_join"), ("push", "phx_reply")] {
        let output = run(&[command, &server.url(), "room:a", event, "{}"]);
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{log}");
        assert!(log.contains("reserved"), "{log}");
    }
}

#[test]
fn listen_ends_after_a_count() {
    let server = TestServer::new();
    let args = ["listen", &server.url(), "--join", "room:a", "--join", "room:b"];
    let some = ["--count", "3", "--event", "news", "--event", "end", "--raw"];
    let mut process = Process::start(phx(&[&args[..], &some].concat()));
    let stdout = process.capture_stdout();
    server.wait_for("Joined", 2);
    let news = |n: u64| {
        server.broadcast("room:a", "other", &json!(n));
        server.broadcast("room:a", "news", &json!(n));
    };
    (0..2).for_each(news);
    stdout.until("1\n");
    (2..5).for_each(news);
    assert_eq!(process.exit_code(), Some(0));
    assert_eq!(stdout.all(), "0\n1\n2\n");
}

/// A topic that is given twice is one topic: each of its messages is printed and counted once.
#[test]
fn listen_joins_repeated_topic_once() {
    let server = TestServer::new();
    let args =
        ["listen", &server.url(), "--join", "room:a", "--join", "room:b", "--join", "room:a"];
    let mut process = Process::start(phx(&[&args[..], &["--count", "2", "--raw"]].concat()));
    let stdout = process.capture_stdout();
    server.wait_for("Joined", 2);
    (0..2).for_each(|n| server.broadcast("room:a", "news", &json!(n)));
    assert_eq!(process.exit_code(), Some(0));
    assert_eq!(stdout.all(), "0\n1\n");
}

/// `--for` that ends before the connection is open, or before the server has answered a join, is not a
/// success.
#[test]
fn listen_reports_unfinished_join() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/socket/websocket?token=s3cret", silent.local_addr().unwrap());
    let output = run(&["listen", &url, "--join", "room:a", "--for", "300ms"]);
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{log}");
    assert!(log.ends_with("/socket/websocket: not connected within 300 ms\n"), "{log}");
    let server = TestServer::new();
    let join = ["--join", "slowjoin:a", "--join-params", r#"{"ms":60000}"#];
    let url = server.url();
    // Long enough for a connection on a busy machine.
    let listen = [&["listen", &url][..], &join, &["--for", "5s"]].concat();
    let output = run(&listen);
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(5), "{log}");
    assert!(log.ends_with("phx: slowjoin:a: not joined within 5 s\n"), "{log}");
}

#[test]
fn listen_ends_after_a_time() {
    let server = TestServer::new();
    let listen = ["listen", &server.url(), "--join", "room:a", "--for"];
    // Long enough for a join on a busy machine.
    let joined = phx(&[&listen[..], &["5s"]].concat()).spawn().unwrap();
    // Fewer messages than `--count` have an exit code of their own.
    let output = run(&[&listen[..], &["300ms", "--count", "1"]].concat());
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(7), "{log}");
    assert!(log.contains("0 of 1 messages arrived in 300 ms"), "{log}");
    let output = joined.wait_with_output().unwrap();
    assert_eq!(stdout_of(&output), "{\"type\":\"joined\",\"topic\":\"room:a\"}\n");
}

/// After SIGTERM and SIGINT the socket is closed cleanly, and the exit code is 0.
#[test]
fn signals_end_listen_and_serve() {
    for signal in [Signal::TERM, Signal::INT] {
        let server = TestServer::new();
        let mut process = Process::start(phx(&["listen", &server.url(), "--join", "room:a"]));
        process.first_line();
        process.signal(signal);
        assert_eq!(process.exit_code(), Some(0));
        server.wait_for("Disconnected", 1);
        let mut serve = Process::start(phx(&["serve", "--addr", "127.0.0.1:0"]));
        let url = serve.first_line();
        let mut listen = Process::start(phx(&["listen", url.trim(), "--join", "room:a"]));
        listen.first_line();
        serve.signal(signal);
        assert_eq!(serve.exit_code(), Some(0));
        // A stopping Phoenix closes with 1012.
        listen.errors.until("code 1012");
    }
}

/// A signal ends a `phx listen` that is connecting to a silent server.
#[test]
fn signal_ends_connecting_listen() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/socket/websocket", silent.local_addr().unwrap());
    let mut process = Process::start(phx(&["listen", &url, "--join", "room:a"]));
    let _connected = silent.accept().unwrap();
    process.signal(Signal::TERM);
    assert_eq!(process.exit_code(), Some(0));
}

/// A signal ends a command that waits for input on a pipe: `phx listen` for its join parameters, and
/// `phx serve` for its token.
#[test]
fn signal_ends_command_that_reads_input() {
    let reading = ["listen", "ws://localhost/", "--join", "room:a", "--join-params", "-"];
    let mut process = Process::start(phx(&reading));
    process.wait_caught(Signal::TERM);
    process.signal(Signal::TERM);
    assert_eq!(process.exit_code(), Some(0));
    let serve = ["serve", "--addr", "127.0.0.1:0", "--token-file", "/dev/stdin"];
    let mut process = Process::start(phx(&serve));
    // The process opens its standard input once more, as the file with the token.
    let files = format!("/proc/{}/fd", process.child.id());
    let pipe = std::fs::read_link(format!("{files}/0")).unwrap();
    wait("an open file", || {
        let files = std::fs::read_dir(&files).unwrap().flatten();
        let pipes = files.filter(|file| std::fs::read_link(file.path()).is_ok_and(|to| to == pipe));
        (pipes.count() == 2).then_some(())
    });
    process.signal(Signal::TERM);
    assert_eq!(process.exit_code(), None, "the signal ends the process");
}

/// A join that crashes on the server is reported at each retry, and ends with `--timeout`.
#[test]
fn crashing_joins_are_reported() {
    let server = TestServer::new();
    let url = server.url();
    let commands =
        [&["push", &url, "boom:a", "echo", "{}"][..], &["listen", &url, "--join", "boom:a"]];
    // Long enough for an attempt on a busy machine.
    let limited =
        commands.map(|args| Process::start(phx(&[args, &["--timeout", "5s", "--quiet"]].concat())));
    for args in commands {
        let process = Process::start(phx(args));
        let log = process.errors.until("retrying");
        assert!(log.contains("phx: boom:a: the server refused the join: "), "{log}");
        assert!(log.contains("crashed in its join"), "{log}");
    }
    for mut process in limited {
        assert_eq!(process.exit_code(), Some(5));
        let log = process.errors.all();
        assert_eq!(log.lines().count(), 1, "{log}");
        let late =
            "phx: boom:a: not joined within 5 s: the server refused the join: the channel crashed";
        assert!(log.contains(late), "{log}");
    }
}

/// `--timeout` also bounds the connection and the reply.
#[test]
fn timeout_bounds_every_step() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/socket/websocket", silent.local_addr().unwrap());
    let output = run(&["push", &url, "room:a", "echo", "{}", "--timeout", "200ms"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("not connected within 200 ms"));
    let server = TestServer::new();
    // Long enough for a join on a busy machine.
    let output = run(&["push", &server.url(), "room:a", "noreply", "{}", "--timeout", "5s"]);
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(6), "{log}");
    assert!(log.contains("no reply came in time"), "{log}");
}

/// `--timeout` also bounds the pauses between repeated pushes and casts.
#[test]
fn timeout_bounds_repeated_pushes() {
    let server = TestServer::new();
    for command in ["push", "cast"] {
        let push = [command, &server.url(), "room:a", "echo", "7", "--repeat", "3"];
        let mut process =
            Process::start(phx(&[&push[..], &["--interval", "1h", "--timeout", "5s"]].concat()));
        assert_eq!(process.exit_code(), Some(6));
        let log = process.errors.all();
        assert!(log.contains("phx: room:a: echo: sent 1 of 3 times within 5 s"), "{log}");
    }
}

/// `phx listen` ends when the server closes one of its topics, also while a later one is still being
/// joined.
#[test]
fn closed_topic_ends_listen_during_join() {
    let server = TestServer::new();
    let args = ["listen", &server.url(), "--join", "room:a", "--join", "boom:a"];
    let mut process = Process::start(phx(&args));
    let stdout = process.capture_stdout();
    process.errors.until("retrying");
    server.listener.with(|server, now| server.close_channel(now, "room:a"));
    assert_eq!(process.exit_code(), Some(3));
    assert!(process.errors.all().contains("room:a: the server closed the channel"));
    assert!(stdout.all().contains(r#"{"type":"closed","topic":"room:a""#));
}

/// A line that is not UTF-8, or is too long, does not end the commands of `phx serve`.
#[test]
fn invalid_lines_do_not_end_serve_commands() {
    let mut process = Process::start(phx(&["serve", "--addr", "127.0.0.1:0"]));
    process.first_line();
    let mut stdin = process.stdin.take().unwrap();
    stdin.write_all(b"kick \xff\n").unwrap();
    process.errors.until("the line is not UTF-8");
    stdin.write_all(&vec![b'x'; 17 << 20]).unwrap();
    stdin.write_all(b"\ndance\n").unwrap();
    let log = process.errors.until("invalid command \"dance\": type help");
    assert!(log.contains("the line has more than"), "{log}");
    process.signal(Signal::TERM);
    assert_eq!(process.exit_code(), Some(0));
}

/// The log of a lost connection has the cause and the time of the next attempt, unless `-q` is given.
#[test]
fn listen_reports_time_of_next_attempt() {
    let mut server = TestServer::new();
    let args = ["listen", &server.url(), "--join", "room:a"];
    let mut process = Process::start(phx(&args));
    let mut quiet = Process::start(phx(&[&args[..], &["-q"]].concat()));
    process.first_line();
    let stdout = quiet.capture_stdout();
    stdout.until("joined");
    server.kill();
    let log = process.errors.until("next attempt at ");
    let at = log.split("next attempt at ").nth(1).unwrap();
    let shape: String =
        at.chars().take(9).map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "00:00:00Z", "{log}");
    process.errors.until("(retry 1)");
    stdout.until("interrupted");
    quiet.signal(Signal::TERM);
    assert_eq!(quiet.exit_code(), Some(0));
    assert_eq!(quiet.errors.all(), "");
}

/// `phx run` logs connections that gave up, regardless of the subscriptions.
#[test]
fn run_logs_connections_that_gave_up() {
    let server = TestServer::new();
    for fixed in [&[][..], &["--fixed"]] {
        let file = Temporary::new("gave-up.json");
        let down = json!({"uri": uri(free_addr()), "max_retries": 0});
        file.write(json!({"connections": {"up": {"uri": server.url()}, "down": down}}).to_string());
        let run = ["run", file.path(), "--subscribe", "jido.signal.nothing"];
        let mut process = Process::start(phx(&[&run[..], fixed].concat()));
        let stdout = process.capture_stdout();
        let log = process.errors.until("gave up");
        assert!(log.contains("phx: down: gave up: connecting failed"), "{log}");
        process.signal(Signal::TERM);
        assert_eq!(process.exit_code(), Some(0));
        assert_eq!(stdout.all(), "");
    }
}

/// The error for a file without connections has an example.
#[test]
fn check_error_shows_example_file() {
    let file = Temporary::new("other.json");
    for other in [r#"{"name": "phx"}"#, "{}"] {
        file.write(other);
        let output = run(&["check", file.path()]);
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{log}");
        assert!(log.contains("there is no key \"connections\""), "{log}");
        let example: String =
            log.lines().skip(1).map(|line| line.strip_prefix("phx: ").unwrap()).collect();
        file.write(&example);
        let mut check = phx(&["check", file.path()]);
        let output = check.env("TOKEN", "s3cret").output().unwrap();
        assert!(stdout_of(&output).contains("backend"));
    }
}

/// A document or a TLS file that is much too large, such as a device, is not read to its end.
#[test]
fn huge_files_are_refused() {
    let huge = Temporary::new("huge");
    std::fs::File::create(huge.path()).unwrap().set_len((64 << 20) + 1).unwrap();
    let file = Temporary::new("huge-ca.json");
    let tls = json!({"uri": "wss://localhost/", "tls": {"ca_file": huge.path()}});
    file.write(json!({"connections": {"a": tls}}).to_string());
    for path in [huge.path(), file.path()] {
        let output = run(&["check", path]);
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{log}");
        assert!(log.contains("it has more than 67108864 bytes"), "{log}");
    }
}

/// A variable that is set, but not to UTF-8, is an error. It counts as neither missing nor unset.
#[test]
fn variables_that_are_not_utf8_are_named() {
    let value = std::ffi::OsStr::from_bytes(b"p\xff");
    let url = "wss://phx.invalid/socket/websocket";
    let mut push = phx(&["push", url, "room:a", "echo", "--timeout", "5s"]);
    let push = push.env("HTTPS_PROXY", value).env_remove("https_proxy").output().unwrap();
    let file = Temporary::new("odd.json");
    let connection = json!({"uri": "wss://${PHX_ODD:-localhost}/"});
    let other = json!({"uri": "${PHX_ODD}", "colour": 1});
    file.write(json!({"connections": {"a": connection, "b": other}}).to_string());
    let check = phx(&["check", file.path()]).env("PHX_ODD", value).output().unwrap();
    for (output, what) in
        [(push, "invalid HTTPS_PROXY"), (check, "the variable PHX_ODD is not UTF-8")]
    {
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{log}");
        assert!(log.contains(what), "{log}");
        assert!(!log.contains("is not set"), "{log}");
        assert_eq!(log.contains("unknown key"), what.contains("PHX_ODD"), "{log}");
    }
}

/// Some editors start a file with a byte order mark.
#[test]
fn byte_order_marks_are_ignored() {
    let server = TestServer::new();
    let connections = server.connections();
    connections.write(format!("\u{feff}{}", connections.text()));
    assert!(stdout_of(&run(&["check", connections.path()])).contains("room:a"));
    let recording = Temporary::new("mark.jsonl");
    let push = ["push", &server.url(), "room:a", "echo", "{}", "--record", recording.path()];
    stdout_of(&run(&push));
    recording.write(format!("\u{feff}{}", recording.text()));
    assert!(stdout_of(&run(&["replay", recording.path()])).contains("Connected"));
}

/// The error of a refusal has the server's `Retry-After`.
#[test]
fn refusal_shows_retry_after() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/socket/websocket", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, mut head) = (stream.unwrap(), Vec::new());
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            let answer = "HTTP/1.1 429 No\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n";
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    let output = run(&["push", &url, "room:a", "echo", "{}"]);
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{log}");
    assert!(log.contains("HTTP 429") && log.contains("retry after 7 s"), "{log}");
}

/// A server that requires a client certificate receives it.
#[test]
fn client_certificate_is_presented() {
    let pem = |label: &str, der: &[u8]| {
        let text = STANDARD.encode(der);
        format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
    };
    let made = || rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (server, client) = (made(), made());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(client.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
        Arc::new(roots),
        Arc::clone(&provider),
    );
    let key =
        rustls::pki_types::PrivateKeyDer::try_from(server.signing_key.serialize_der()).unwrap();
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(vec![server.cert.der().clone()], key)
        .unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let any = ([127, 0, 0, 1], 0).into();
    let listener = Listener::bind_tls(any, ServerConfig::default(), Arc::new(tls));
    let listener = runtime.block_on(listener).unwrap();
    let url = format!("wss://localhost:{}/socket/websocket", listener.addr().port());
    let (ca, cert, key) =
        (Temporary::new("ca.pem"), Temporary::new("cert.pem"), Temporary::new("key.pem"));
    ca.write(pem("CERTIFICATE", server.cert.der()));
    cert.write(pem("CERTIFICATE", client.cert.der()));
    key.write(pem("PRIVATE KEY", &client.signing_key.serialize_der()));
    let push = ["push", &url, "room:a", "echo", "1", "--ca", ca.path()];
    let with = [&push[..], &["--cert", cert.path(), "--key", key.path()]].concat();
    assert_eq!(stdout_of(&run(&with)), "1\n");
    assert!(!run(&push).status.success());
    let half = [&push[..], &["--cert", cert.path()]].concat();
    assert_eq!(run(&half).status.code(), Some(2));

    // Names that are not UTF-8, and that would be equal if the invalid bytes were replaced.
    let [odd_ca, odd_cert, odd_key] = [0xfd, 0xfe, 0xff].map(|byte| Temporary::of_bytes(&[byte]));
    odd_ca.write(pem("CERTIFICATE", server.cert.der()));
    odd_key.write(pem("PRIVATE KEY", &client.signing_key.serialize_der()));
    let mut push = phx(&push[..5]);
    push.arg("--ca").arg(odd_ca.os_path()).arg("--cert").arg(odd_cert.os_path());
    push.arg("--key").arg(odd_key.os_path());
    let log = String::from_utf8(push.output().unwrap().stderr).unwrap();
    assert!(log.contains(r"\xFE") && log.contains("No such file"), "{log}");
    odd_cert.write(pem("CERTIFICATE", client.cert.der()));
    assert_eq!(stdout_of(&push.output().unwrap()), "1\n");
}

/// The name of a file may have any bytes, in each option that names a file within an argument.
#[test]
fn file_names_need_not_be_utf8() {
    let server = TestServer::new();
    let (payload, secret) = (Temporary::of_bytes(b"\xf0"), Temporary::of_bytes(b"=\xf1"));
    let named = |front: &str, file: &Temporary| {
        let mut argument = std::ffi::OsString::from(front);
        argument.push(file.os_path());
        argument
    };
    let push = || {
        let mut push = phx(&["push", &server.url(), "room:a", "echo"]);
        push.arg(named("@", &payload)).arg("--join-params").arg(named("@", &payload));
        for option in ["--param-file", "--header-file", "--join-param-file"] {
            push.arg(option).arg(named("x-key=", &secret));
        }
        push.output().unwrap()
    };
    let log = String::from_utf8(push().stderr).unwrap();
    assert!(log.contains(r"\xF0") && log.contains("No such file"), "{log}");
    payload.write(r#"{"n":1}"#);
    let log = String::from_utf8(push().stderr).unwrap();
    assert!(log.contains(r"\xF1") && log.contains("No such file"), "{log}");
    secret.write("s3cret");
    assert_eq!(stdout_of(&push()), "{\"n\":1}\n");
    // An argument that is not UTF-8 can be a binary payload.
    let mut push = phx(&["push", &server.url(), "room:a", "echo"]);
    push.arg(std::ffi::OsStr::from_bytes(b"\xff"));
    let output = push.output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{log}");
    assert!(log.contains("the payload is not JSON: invalid utf-8"), "{log}");
    let output = push.arg("--binary").output().unwrap();
    assert_eq!(stdout_of(&output), "{\"payload_base64\":\"/w==\"}\n");
}

/// This version accepts the commands on the manual's page for operators.
#[test]
fn operators_page_commands_are_valid() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../phx-proto/src/manual/operating.md");
    let page = std::fs::read_to_string(page).unwrap();
    let mut seen = 0;
    for line in page.lines() {
        let Some((_, args)) = line.split_once("phx run ") else { continue };
        let command =
            !line.contains('`') && !line.contains("fifo") && line.contains("connections.json");
        if !command || line.starts_with("phx: ") {
            continue;
        }
        let args: Vec<&str> = args.split(['>', '<', '|', '&']).next().unwrap().split(' ').collect();
        let args = args.into_iter().filter(|arg| !arg.is_empty() && *arg != "2");
        let args = args.map(|arg| if arg.ends_with(".json") { "/nonexistent.json" } else { arg });
        let args: Vec<&str> = core::iter::once("run").chain(args).collect();
        let output = run(&args);
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {log}");
        assert!(log.contains("/nonexistent.json: No such file"), "{args:?}: {log}");
        seen += 1;
    }
    assert!(seen >= 5, "{seen}");
}
