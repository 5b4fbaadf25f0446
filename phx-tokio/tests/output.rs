//! Output that blocks, or whose reader goes away: `phx` still ends on a signal, and counts the events
//! that it could not write (apollographql/router#4625, grafana/loki#2361).

#![cfg(target_os = "linux")]

mod support;

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Command;

use rustix::event::PollFlags;
use rustix::process::Signal;
use serde_json::Value;
use support::process::{
    Captured, Process, Temporary, Terminal, TestServer, phx, phx_on_one_cpu, ready, wait, wait_full,
};

/// More messages than a pipe of 64 KiB can hold, and fewer than the queues of `phx` can.
const MESSAGES: usize = 200;

type Start = fn(&[&str]) -> Command;

/// A connected run whose output is stuck.
fn stuck_run(
    server: &TestServer,
    start: Start,
    grace: &str,
) -> (Process, support::process::Temporary) {
    let file = server.connections();
    let process = Process::start(start(&["run", file.path(), "--grace", grace]));
    server.wait_for("Joined", 2);
    server.flood("room:a", MESSAGES);
    server.wait_received();
    process.wait_stuck();
    (process, file)
}

fn stuck_listen(server: &TestServer, start: Start) -> Process {
    let join = ["--join", "room:z", "--join", "room:a"];
    let process = Process::start(start(&[&["listen", &server.url()][..], &join].concat()));
    server.wait_for("Joined", 2);
    server.flood("room:a", MESSAGES);
    server.wait_received();
    process.wait_stuck();
    process
}

/// The number before these words.
#[track_caller]
fn number_before(words: &str, text: &str) -> usize {
    let before = text.split(words).next().unwrap();
    assert_ne!(before.len(), text.len(), "{words:?} is missing in {text}");
    before.rsplit(' ').next().unwrap().parse().unwrap()
}

/// Reads the lines that were written to the pipe so far.
fn written(process: &mut Process) -> Vec<Value> {
    let mut text = String::new();
    process.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The number of events that these lines represent, dropped ones included.
fn events(lines: &[Value]) -> usize {
    let events = lines.iter().map(|line| match (line["type"].as_str(), &line["missed"]) {
        (Some("phx.output.dropped"), _) => line["data"]["count"].as_u64().unwrap(),
        (_, Value::Number(missed)) => missed.as_u64().unwrap(),
        _ => 1,
    });
    usize::try_from(events.sum::<u64>()).unwrap()
}

/// One signal ends the run within its grace period; written and lost events add up to all events.
#[track_caller]
fn run_ends_within_grace(start: Start, more: usize) {
    let server = TestServer::new();
    let (mut process, _file) = stuck_run(&server, start, "2");
    let messages = MESSAGES + more;
    server.flood("room:a", more);
    server.wait_received();
    process.signal(Signal::TERM);
    assert_eq!(process.exit_code(), Some(1));
    let log = process.errors.all();
    assert!(log.contains("the grace period has ended"), "{log}");
    let lost = number_before(" events could not be written", &log);
    let written = written(&mut process);
    let news = written.iter().filter(|event| event["type"] == "phoenix.a.room_a.news").count();
    assert!((1..MESSAGES).contains(&news), "{news}");
    // Two events of the connection and two joins at first; four for each crash and rejoin of the
    // channel; up to five at the end.
    let all = events(&written) + lost;
    assert!((messages + 11..=messages + 18).contains(&all), "{} + {lost}", events(&written));
}

#[test]
fn run_with_stuck_output_ends_within_grace() {
    run_ends_within_grace(phx, 3_000);
}

#[test]
fn run_with_stuck_output_ends_on_one_cpu() {
    run_ends_within_grace(phx_on_one_cpu, 0);
}

/// A second signal ends the run at once, regardless of the grace period.
#[track_caller]
fn run_second_signal(start: Start) {
    let server = TestServer::new();
    let (mut process, _file) = stuck_run(&server, start, "600");
    process.signal(Signal::INT);
    process.errors.until("another signal exits at once");
    assert_eq!(process.signal_until_exit(Signal::TERM), Some(1));
    let log = process.errors.all();
    assert!(log.contains("second signal"), "{log}");
    assert!(number_before(" events could not be written", &log) > 0);
}

#[test]
fn run_second_signal_ends_stuck_output() {
    run_second_signal(phx);
}

#[test]
fn run_second_signal_ends_on_one_cpu() {
    run_second_signal(phx_on_one_cpu);
}

/// A signal that a wrapper sends both to the process and to its group counts as one request.
#[test]
fn run_signal_delivered_twice_is_one() {
    let server = TestServer::new();
    let file = server.connections();
    let mut process = Process::start(phx(&["run", file.path(), "--grace", "600"]));
    let _stdout = process.capture_stdout();
    server.wait_for("Joined", 2);
    // The server does not answer the leaves yet.
    server.with(|server| server.hold_replies(true));
    process.signal(Signal::TERM);
    process.signal(Signal::INT);
    process.errors.until("another signal exits at once");
    server.wait_for("ChannelEnded", 2);
    server.with(|server| server.hold_replies(false));
    assert_eq!(process.exit_code(), Some(0), "{}", process.errors.text());
}

/// The grace period bounds the whole shutdown, even if the server answers no close frame.
#[test]
fn run_with_silent_server_ends_within_grace() {
    let mut serve = Process::start(phx(&["serve", "--addr", "127.0.0.1:0"]));
    let url = serve.first_line();
    let file = support::process::Temporary::new("silent.json");
    let connection = serde_json::json!({
        "uri": url.trim(), "auto_join_channels": ["room:a"], "close_timeout_msec": 600_000,
    });
    file.write(serde_json::json!({"connections": {"a": connection}}).to_string());
    let mut process = Process::start(phx(&["run", file.path(), "--grace", "1"]));
    process.capture_stdout().until("channel.joined");
    serve.signal(Signal::STOP);
    serve.wait_stopped();
    process.signal(Signal::TERM);
    assert_eq!(process.exit_code(), Some(0));
    assert!(process.errors.all().contains("the grace period has ended"));
}

#[track_caller]
fn listen_ends(start: Start, more: usize) {
    let server = TestServer::new();
    let mut process = stuck_listen(&server, start);
    let messages = MESSAGES + more;
    server.flood("room:a", more);
    server.wait_received();
    process.signal(Signal::TERM);
    assert_eq!(process.exit_code(), Some(1));
    let lost = number_before(" events could not be written", &process.errors.all());
    let written = written(&mut process);
    assert_eq!(written[0]["type"], "joined");
    // There are two joins, one of which was interrupted and resumed twice. If the second interruption
    // came before the first was read, they are one event. The last reply may be missing.
    let all = events(&written) + lost;
    assert!((messages + 3..=messages + 6).contains(&all), "{} + {lost}", events(&written));
}

#[test]
fn listen_with_stuck_output_ends() {
    listen_ends(phx, 3_000);
}

#[test]
fn listen_with_stuck_output_ends_on_one_cpu() {
    listen_ends(phx_on_one_cpu, 0);
}

/// Neither the reader nor the server responds, so a clean shutdown is impossible.
#[test]
fn listen_second_signal_ends_at_once() {
    let server = TestServer::new();
    let mut process = stuck_listen(&server, phx);
    assert_eq!(process.signal_until_exit(Signal::INT), Some(1));
    number_before(" events could not be written", &process.errors.all());
}

/// While its output is stuck, on one CPU, a run still receives messages and serves metrics.
#[test]
fn stuck_output_does_not_stop_metrics() {
    let server = TestServer::new();
    let file = server.connections();
    let args = ["run", file.path(), "--metrics", "127.0.0.1:0", "--grace", "0"];
    let mut process = Process::start(phx_on_one_cpu(&args));
    let log = process.errors.until("/metrics");
    let addr = log.split("http://").nth(1).unwrap().split('/').next().unwrap().to_owned();
    server.wait_for("Joined", 1);
    server.flood("room:a", MESSAGES);
    process.wait_stuck();
    server.flood("room:a", MESSAGES);
    wait("all messages", || {
        let mut page = String::new();
        let mut stream = std::net::TcpStream::connect(&addr).unwrap();
        stream.set_read_timeout(Some(support::process::DEADLINE)).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        stream.read_to_string(&mut page).unwrap();
        page.contains(&format!("phx_messages_total{{connection=\"a\"}} {}\n", 2 * MESSAGES))
            .then_some(())
    });
    process.signal(Signal::TERM);
    assert_eq!(process.exit_code(), Some(1));
}

/// When the output is read again, an event has the number of dropped events.
#[test]
fn dropped_events_are_counted() {
    const FLOOD: usize = 4_000;
    let server = TestServer::new();
    let (mut process, _file) = stuck_run(&server, phx, "60");
    server.flood("room:a", FLOOD);
    // Now the queues in front of the output are full.
    server.wait_received();
    let joined = r#"{"id": "1", "join": {"connection": "a", "topic": "room:b"}}"#;
    process.type_line(joined);
    server.wait_for("room:b", 1);
    let stdout = process.capture_stdout();
    stdout.until("phx.control.done");
    server.broadcast("room:a", "last", &Value::Null);
    let text = stdout.until("room_a.last");
    let events: Vec<Value> =
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let news = events.iter().filter(|event| event["type"] == "phoenix.a.room_a.news").count();
    let dropped = events.iter().filter(|event| event["type"] == "phx.output.dropped");
    let dropped: u64 = dropped.map(|event| event["data"]["count"].as_u64().unwrap()).sum();
    assert!(dropped > 0, "{news} were printed");
    let all = news + usize::try_from(dropped).unwrap();
    // The dropped events may include events about channels.
    assert!((MESSAGES + FLOOD..=MESSAGES + FLOOD + 8).contains(&all), "{news} + {dropped}");
    process.signal(Signal::TERM);
    assert_eq!(process.exit_code(), Some(0), "{}", process.errors.text());
}

/// The exit code makes a process supervisor restart a run whose reader went away, even while there are
/// no events.
#[test]
fn run_exits_1_without_reader() {
    let server = TestServer::new();
    let file = server.connections();
    let mut process = Process::start(phx(&["run", file.path()]));
    process.first_line();
    server.wait_for("Joined", 1);
    drop(process.stdout.take());
    assert_eq!(process.exit_code(), Some(1));
    assert!(process.errors.all().contains("the reader has closed it"));
    server.wait_for("Disconnected", 1);
}

/// `phx listen … | head -n 1` ends when `head` has its line, without a second event.
#[test]
fn listen_ends_with_its_reader() {
    let server = TestServer::new();
    let mut shell = Command::new("bash");
    let script = "\"$0\" listen \"$1\" --join room:a | head -n 1; echo ${PIPESTATUS[0]}";
    shell.args(["-c", script, env!("CARGO_BIN_EXE_phx"), &server.url()]);
    shell.stdout(std::process::Stdio::piped());
    let mut process = Process::start(shell);
    let stdout = process.capture_stdout();
    assert_eq!(process.exit_code(), Some(0));
    let all = stdout.all();
    assert!(all.starts_with("{\"type\":\"joined\""), "{all}");
    assert_eq!(all.lines().nth(1), Some("0"));
}

/// Standard error that is not read does not stop the server.
#[test]
fn stuck_log_does_not_stop_serve() {
    let mut process = Process::start_unread(phx(&["serve", "--addr", "127.0.0.1:0"]));
    let url = process.first_line();
    // More answers than a pipe can hold.
    let mut stdin = process.stdin.take().unwrap();
    std::thread::spawn(move || {
        let line = format!("this is not understood: {}\n", "x".repeat(100));
        (0..3_000).try_for_each(|_| stdin.write_all(line.as_bytes()))
    });
    let push = phx(&["push", url.trim(), "room:a", "echo", "{}"]).output().unwrap();
    assert!(push.status.success());
    process.signal(Signal::TERM);
    assert_eq!(process.exit_code(), Some(0));
}

/// A stopped terminal blocks like a pipe.
#[test]
fn stuck_terminal_does_not_stop_run() {
    let server = TestServer::new();
    let file = server.connections();
    let terminal = Terminal::new();
    let mut command = phx(&["run", file.path(), "--grace", "1"]);
    command.stdout(terminal.stdio());
    let mut process = Process::start(command);
    server.wait_for("Joined", 2);
    server.flood("room:a", MESSAGES);
    server.wait_received();
    process.signal(Signal::TERM);
    assert_eq!(process.exit_code(), Some(1));
    number_before(" events could not be written", &process.errors.all());
}

/// A full disk is a failure, unlike a reader that went away.
#[test]
fn full_disk_is_a_failure() {
    let server = TestServer::new();
    for (command, rest) in [("listen", vec!["--join", "room:a"]), ("push", vec!["room:a", "echo"])]
    {
        let url = server.url();
        let mut command = phx(&[&[command, &url][..], &rest].concat());
        command.stdout(std::fs::File::options().write(true).open("/dev/full").unwrap());
        let mut process = Process::start(command);
        assert_eq!(process.exit_code(), Some(1));
        let log = process.errors.all();
        assert!(log.contains("standard output: No space left on device"), "{log}");
    }
    // Commands that write without a queue.
    let (connections, recording) = (server.connections(), Temporary::new("full.jsonl"));
    let push = ["push", &server.url(), "room:a", "echo", "--record", recording.path()];
    assert!(phx(&push).output().unwrap().status.success());
    for args in [["check", connections.path()], ["replay", recording.path()]] {
        let mut command = phx(&args);
        command.stdout(std::fs::File::options().write(true).open("/dev/full").unwrap());
        let output = command.output().unwrap();
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {log}");
        assert!(log.contains("standard output: No space left on device"), "{log}");
    }
}

/// A recording into a pipe that no process opens or reads does not delay the end of `phx listen`. If the pipe
/// was opened and is not read, the recording is reported as incomplete.
#[test]
fn stuck_recording_does_not_stop_listen() {
    let server = TestServer::new();
    let pipe = Temporary::new("stuck.jsonl");
    assert!(std::process::Command::new("mkfifo").arg(pipe.path()).status().unwrap().success());
    let listen = ["listen", &server.url(), "--join", "room:a", "--join", "room:z"];
    let args = [&listen[..], &["--record", pipe.path(), "--record-payloads"]].concat();
    let mut process = Process::start(phx(&args));
    process.wait_caught(Signal::TERM);
    process.signal(Signal::TERM);
    assert_eq!(process.exit_code(), Some(0), "no process opens the pipe");

    let mut process = Process::start(phx(&args));
    let stdout = process.capture_stdout();
    let mut unread = std::fs::File::open(pipe.path()).unwrap();
    server.wait_for("Joined", 2);
    server.flood("room:a", MESSAGES);
    wait_full(pipe.path());
    process.signal(Signal::TERM);
    assert_eq!(process.exit_code(), Some(1));
    let log = process.errors.all();
    assert!(log.contains("stuck.jsonl: the recording is incomplete"), "{log}");
    assert!(stdout.all().contains("news"));
    // The part that was written begins with the header of a recording.
    let mut text = String::new();
    std::io::Read::read_to_string(&mut unread, &mut text).unwrap();
    assert!(text.starts_with("{\"phx_recording\""), "{text}");
}

/// Streams that another process has made non-blocking are as good as others: a full output is waited for,
/// and so is an empty input.
#[test]
fn non_blocking_streams_are_waited_for() {
    let server = TestServer::new();
    let (reader, output) = std::io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&output, true).unwrap();
    let mut command =
        phx(&["listen", &server.url(), "--join", "room:a", "--join", "room:z", "--quiet"]);
    command.stdout(output.try_clone().unwrap());
    let mut process = Process::start(command);
    server.wait_for("Joined", 2);
    server.flood("room:a", MESSAGES);
    wait("a full pipe", || (!ready(&output, PollFlags::OUT)).then_some(()));
    drop(output);
    server.wait_received();
    let output = Captured::from_stream(reader);
    server.broadcast("room:a", "last", &serde_json::json!({}));
    output.until("last");
    process.signal(Signal::TERM);
    assert_eq!(process.exit_code(), Some(0), "{}", process.errors.text());

    let (mut writer, input) = UnixStream::pair().unwrap();
    input.set_nonblocking(true).unwrap();
    let mut command = phx(&["serve", "--addr", "127.0.0.1:0"]);
    command.stdin(OwnedFd::from(input));
    let mut process = Process::start(command);
    process.first_line();
    writer.write_all(b"one\n").unwrap();
    process.errors.until("invalid command \"one\"");
    writer.write_all(b"two\n").unwrap();
    process.errors.until("invalid command \"two\"");
    process.signal(Signal::TERM);
    assert_eq!(process.exit_code(), Some(0));
}
