//! Output that blocks, or whose reader goes away: `phx` ends when it is told to, and counts what it
//! could not write.

#![cfg(target_os = "linux")]

mod process;

use std::io::{Read, Write};
use std::process::Command;

use process::{Process, Stand, Terminal, phx, phx_on_one_cpu, wait};
use rustix::process::Signal;
use serde_json::Value;

/// More messages than a pipe of 64 KiB holds, and fewer than the queues of `phx` do.
const MESSAGES: usize = 200;

type Start = fn(&[&str]) -> Command;

/// A run whose output is stuck while it is connected.
fn stuck_run(stand: &Stand, start: Start, grace: &str) -> (Process, process::Temporary) {
    let file = stand.connections();
    let process = Process::start(start(&["run", file.path(), "--grace", grace]));
    stand.sees("Joined", 2);
    stand.flood("room:a", MESSAGES);
    stand.received();
    process.is_stuck();
    (process, file)
}

fn stuck_listen(stand: &Stand, start: Start) -> Process {
    let join = ["--join", "room:z", "--join", "room:a"];
    let process = Process::start(start(&[&["listen", &stand.url()][..], &join].concat()));
    stand.sees("Joined", 2);
    stand.flood("room:a", MESSAGES);
    stand.received();
    process.is_stuck();
    process
}

/// The number in front of these words.
#[track_caller]
fn number_before(words: &str, text: &str) -> usize {
    let before = text.split(words).next().unwrap();
    assert_ne!(before.len(), text.len(), "{words:?} is missing in {text}");
    before.rsplit(' ').next().unwrap().parse().unwrap()
}

/// What was written to a pipe that was not read, in whole lines.
fn written(process: &mut Process) -> Vec<Value> {
    let mut text = String::new();
    process.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// How many events these lines stand for: one says how many were dropped.
fn events(lines: &[Value]) -> usize {
    let events = lines.iter().map(|line| match (line["type"].as_str(), &line["missed"]) {
        (Some("phx.output.dropped"), _) => line["data"]["count"].as_u64().unwrap(),
        (_, Value::Number(missed)) => missed.as_u64().unwrap(),
        _ => 1,
    });
    usize::try_from(events.sum::<u64>()).unwrap()
}

/// One signal ends the run within its grace period; written and unwritten events are all there are.
#[track_caller]
fn run_ends_within_grace(start: Start, more: usize) {
    let stand = Stand::new();
    let (mut process, _file) = stuck_run(&stand, start, "2");
    let messages = MESSAGES + more;
    stand.flood("room:a", more);
    stand.received();
    process.signal(Signal::TERM);
    assert_eq!(process.code(), Some(1));
    let log = process.errors.all();
    assert!(log.contains("the grace period is over"), "{log}");
    let lost = number_before(" events could not be written", &log);
    let written = written(&mut process);
    let news = written.iter().filter(|event| event["type"] == "phoenix.a.room_a.news").count();
    assert!((1..MESSAGES).contains(&news), "{news}");
    // Two of the connection and two joins in front; four each time about the channel that crashed
    // and was joined again; up to five about the end.
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

/// A second signal ends the run at once, whatever the grace period.
#[track_caller]
fn run_second_signal(start: Start) {
    let stand = Stand::new();
    let (mut process, _file) = stuck_run(&stand, start, "600");
    process.signal(Signal::INT);
    process.errors.until("another signal ends it at once");
    assert_eq!(process.code_by(Signal::TERM), Some(1));
    let log = process.errors.all();
    assert!(log.contains("told twice to end"), "{log}");
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

/// A wrapper delivers one request twice, to the process and to its group: it is one request.
#[test]
fn run_signal_delivered_twice_is_one() {
    let stand = Stand::new();
    let file = stand.connections();
    let mut process = Process::start(phx(&["run", file.path(), "--grace", "600"]));
    let _said = process.said();
    stand.sees("Joined", 2);
    // The leaves are not answered for now.
    stand.server(|server| server.hold_replies(true));
    process.signal(Signal::TERM);
    process.signal(Signal::INT);
    process.errors.until("another signal ends it at once");
    stand.sees("ChannelEnded", 2);
    stand.server(|server| server.hold_replies(false));
    assert_eq!(process.code(), Some(0), "{}", process.errors.text());
}

/// The grace period bounds the whole end, a server that answers no close frame included.
#[test]
fn run_with_silent_server_ends_within_grace() {
    let mut serve = Process::start(phx(&["serve", "--addr", "127.0.0.1:0"]));
    let url = serve.first_line();
    let file = process::Temporary::new("silent.json");
    let connection = serde_json::json!({
        "uri": url.trim(), "auto_join_channels": ["room:a"], "close_timeout_msec": 600_000,
    });
    file.write(serde_json::json!({"connections": {"a": connection}}).to_string());
    let mut process = Process::start(phx(&["run", file.path(), "--grace", "1"]));
    process.said().until("channel.joined");
    serve.signal(Signal::STOP);
    serve.is_stopped();
    process.signal(Signal::TERM);
    assert_eq!(process.code(), Some(0));
    assert!(process.errors.all().contains("the grace period is over"));
}

#[track_caller]
fn listen_ends(start: Start, more: usize) {
    let stand = Stand::new();
    let mut process = stuck_listen(&stand, start);
    let messages = MESSAGES + more;
    stand.flood("room:a", more);
    stand.received();
    process.signal(Signal::TERM);
    assert_eq!(process.code(), Some(1));
    let lost = number_before(" events could not be written", &process.errors.all());
    let written = written(&mut process);
    assert_eq!(written[0]["type"], "joined");
    // Two joins, one of which was interrupted and resumed twice. Both interruptions are one event if
    // the first was not read before the second, and the last answer may not have come.
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

/// The reader stopped, and so did the server: nothing is orderly any more.
#[test]
fn listen_second_signal_ends_at_once() {
    let stand = Stand::new();
    let mut process = stuck_listen(&stand, phx);
    assert_eq!(process.code_by(Signal::INT), Some(1));
    number_before(" events could not be written", &process.errors.all());
}

/// While its output is stuck on one CPU, a run goes on to receive and to serve metrics.
#[test]
fn stuck_output_leaves_connections_and_metrics_alone() {
    let stand = Stand::new();
    let file = stand.connections();
    let args = ["run", file.path(), "--metrics", "127.0.0.1:0", "--grace", "0"];
    let mut process = Process::start(phx_on_one_cpu(&args));
    let log = process.errors.until("/metrics");
    let addr = log.split("http://").nth(1).unwrap().split('/').next().unwrap().to_owned();
    stand.sees("Joined", 1);
    stand.flood("room:a", MESSAGES);
    process.is_stuck();
    stand.flood("room:a", MESSAGES);
    wait("all messages", || {
        let mut page = String::new();
        let mut stream = std::net::TcpStream::connect(&addr).unwrap();
        stream.set_read_timeout(Some(process::SOON)).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        stream.read_to_string(&mut page).unwrap();
        page.contains(&format!("phx_messages_total{{connection=\"a\"}} {}\n", 2 * MESSAGES))
            .then_some(())
    });
    process.signal(Signal::TERM);
    assert_eq!(process.code(), Some(1));
}

/// What was dropped while the output was stuck is an event once there is space, and adds up.
#[test]
fn dropped_events_are_counted_in_an_event() {
    const FLOOD: usize = 4_000;
    let stand = Stand::new();
    let (mut process, _file) = stuck_run(&stand, phx, "60");
    stand.flood("room:a", FLOOD);
    // The queues in front of the output are full by then.
    stand.received();
    let joined = r#"{"id": "1", "join": {"connection": "a", "topic": "room:b"}}"#;
    process.types(joined);
    stand.sees("room:b", 1);
    let said = process.said();
    said.until("phx.control.done");
    stand.broadcast("room:a", "last", &Value::Null);
    let text = said.until("room_a.last");
    let events: Vec<Value> =
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let news = events.iter().filter(|event| event["type"] == "phoenix.a.room_a.news").count();
    let dropped = events.iter().filter(|event| event["type"] == "phx.output.dropped");
    let dropped: u64 = dropped.map(|event| event["data"]["count"].as_u64().unwrap()).sum();
    assert!(dropped > 0, "{news} were printed");
    let all = news + usize::try_from(dropped).unwrap();
    // Beside messages, events about channels may be among those dropped.
    assert!((MESSAGES + FLOOD..=MESSAGES + FLOOD + 8).contains(&all), "{news} + {dropped}");
    process.signal(Signal::TERM);
    assert_eq!(process.code(), Some(0), "{}", process.errors.text());
}

/// A supervisor of processes starts a run again whose reader went away, even if nothing happens.
#[test]
fn run_ends_with_1_when_its_reader_goes_away() {
    let stand = Stand::new();
    let file = stand.connections();
    let mut process = Process::start(phx(&["run", file.path()]));
    process.first_line();
    stand.sees("Joined", 1);
    drop(process.stdout.take());
    assert_eq!(process.code(), Some(1));
    assert!(process.errors.all().contains("its reader is gone"));
    stand.sees("Disconnected", 1);
}

/// `phx listen … | head -n 1` ends when head has its line, without a second one.
#[test]
fn listen_ends_when_head_has_its_line() {
    let stand = Stand::new();
    let mut shell = Command::new("bash");
    let script = "\"$0\" listen \"$1\" --join room:a | head -n 1; echo ${PIPESTATUS[0]}";
    shell.args(["-c", script, env!("CARGO_BIN_EXE_phx"), &stand.url()]);
    shell.stdout(std::process::Stdio::piped());
    let mut process = Process::start(shell);
    let said = process.said();
    assert_eq!(process.code(), Some(0));
    let all = said.all();
    assert!(all.starts_with("{\"type\":\"joined\""), "{all}");
    assert_eq!(all.lines().nth(1), Some("0"));
}

/// A log that is not read stops nothing.
#[test]
fn stuck_log_does_not_stop_serve() {
    let mut process = Process::start_unread(phx(&["serve", "--addr", "127.0.0.1:0"]));
    let url = process.first_line();
    // More answers than a pipe holds.
    let mut stdin = process.stdin.take().unwrap();
    std::thread::spawn(move || {
        let line = format!("this is not understood: {}\n", "x".repeat(100));
        (0..3_000).try_for_each(|_| stdin.write_all(line.as_bytes()))
    });
    let push = phx(&["push", url.trim(), "room:a", "echo", "{}"]).output().unwrap();
    assert!(push.status.success());
    process.signal(Signal::TERM);
    assert_eq!(process.code(), Some(0));
}

/// A terminal that was stopped blocks like a pipe.
#[test]
fn stuck_terminal_does_not_stop_run() {
    let stand = Stand::new();
    let file = stand.connections();
    let terminal = Terminal::new();
    let mut command = phx(&["run", file.path(), "--grace", "1"]);
    command.stdout(terminal.stdio());
    let mut process = Process::start(command);
    stand.sees("Joined", 2);
    stand.flood("room:a", MESSAGES);
    stand.received();
    process.signal(Signal::TERM);
    assert_eq!(process.code(), Some(1));
    number_before(" events could not be written", &process.errors.all());
}

/// A full disk is no reader that went away.
#[test]
fn full_disk_is_a_failure() {
    let stand = Stand::new();
    for (command, rest) in [("listen", vec!["--join", "room:a"]), ("push", vec!["room:a", "echo"])]
    {
        let url = stand.url();
        let mut command = phx(&[&[command, &url][..], &rest].concat());
        command.stdout(std::fs::File::options().write(true).open("/dev/full").unwrap());
        let mut process = Process::start(command);
        assert_eq!(process.code(), Some(1));
        let log = process.errors.all();
        assert!(log.contains("standard output: No space left on device"), "{log}");
    }
}
