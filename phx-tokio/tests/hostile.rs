//! Hostile servers, clients and files cause only a bounded cost.

#![cfg(target_os = "linux")]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use phx_tokio::wire::Frame;
use rustix::process::Signal;
use serde_json::Value;
use support::process::{DEADLINE, Process, Temporary, TestServer, phx, wait};

const BAD_FRAMES: u64 = 2_000;

/// Sends malformed frames of two kinds to every client.
fn send_bad_frames(server: &TestServer) {
    server.with(|server| {
        for peer in server.peers() {
            for n in 0..BAD_FRAMES / 2 {
                server.send_raw(peer, Frame::Text(format!("no protocol {n}").into()));
                server.send_raw(peer, Frame::Binary(vec![7, 0, 0].into()));
            }
        }
    });
}

/// The first bad frame of each kind is an event; later ones are counted.
#[test]
fn bad_frames_are_counted_by_kind() {
    let server = TestServer::new();
    let file = server.connections();
    let mut process = Process::start(phx(&["run", file.path()]));
    let stdout = process.capture_stdout();
    server.wait_for("Joined", 2);
    send_bad_frames(&server);
    server.wait_received();
    process.signal(Signal::TERM);
    assert_eq!(process.exit_code(), Some(0));
    let all = stdout.all();
    let events = all.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let bad: Vec<Value> =
        events.filter(|event| event["type"] == "phoenix.connection.protocol_error").collect();
    assert!((3..=6).contains(&bad.len()), "{bad:#?}");
    let count = |event: &Value| event["data"]["count"].as_u64().unwrap_or(1);
    // Events that did not fit in the bus are counted as dropped.
    let dropped: u64 = all
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|event| event["type"] == "phx.output.dropped")
        .map(|event| event["data"]["count"].as_u64().unwrap())
        .sum();
    let sum = bad.iter().map(count).sum::<u64>() + dropped;
    assert!((BAD_FRAMES..=BAD_FRAMES + 20).contains(&sum), "{sum}, {dropped} dropped");
}

/// `phx listen` logs skipped frames once for each kind.
#[test]
fn bad_frames_do_not_flood_log() {
    let server = TestServer::new();
    let join = ["listen", &server.url(), "--join", "room:z"];
    let mut process = Process::start(phx(&join));
    let _stdout = process.capture_stdout();
    server.wait_for("Joined", 1);
    send_bad_frames(&server);
    server.wait_received();
    process.errors.until("a frame was skipped");
    process.signal(Signal::TERM);
    assert_eq!(process.exit_code(), Some(0));
    let log = process.errors.all();
    assert_eq!(log.matches("a frame was skipped").count(), 2, "{log}");
    assert!(log.lines().count() < 20, "{log}");
}

/// A run that serves metrics, and the address of the metrics.
fn scraped(server: &TestServer, addr: &str) -> (Process, SocketAddr, Temporary) {
    let file = server.connections();
    let process = Process::start(phx(&["run", file.path(), "--metrics", addr]));
    let log = process.errors.until("/metrics");
    let port = log.split("http://").nth(1).unwrap().split('/').next().unwrap();
    let port = port.rsplit(':').next().unwrap().parse().unwrap();
    (process, ([127, 0, 0, 1], port).into(), file)
}

/// Reads until the peer ends the connection, with or without a reset.
#[track_caller]
fn read_to_end(mut stream: &TcpStream) {
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    if let Err(error) = stream.read_to_end(&mut Vec::new()) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
}

/// Sockets that send a request slowly or not at all do not block a scraper, whatever their number.
#[test]
fn slow_sockets_do_not_block_scraper() {
    let server = TestServer::new();
    let (process, addr, _file) = scraped(&server, "127.0.0.1:0");
    let slow: Vec<TcpStream> = (0..256)
        .map(|n| {
            let mut slow = TcpStream::connect(addr).unwrap();
            if n % 2 == 0 {
                slow.write_all(b"GET /metrics HTTP/1.1\r\nX-").unwrap();
            }
            slow
        })
        .collect();
    let mut scraper = TcpStream::connect(addr).unwrap();
    scraper.set_read_timeout(Some(DEADLINE / 2)).unwrap();
    scraper.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut page = String::new();
    scraper.read_to_string(&mut page).unwrap();
    assert!(page.starts_with("HTTP/1.1 200 OK"), "{page}");
    // The server has closed the oldest sockets, and only a few stay open.
    read_to_end(&slow[0]);
    let files = format!("/proc/{}/fd", process.child.id());
    wait("few files", || (fs::read_dir(&files).unwrap().count() < 64).then_some(()));
    slow[255].set_nonblocking(true).unwrap();
    let kept = (&slow[255]).read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(kept, Err(std::io::ErrorKind::WouldBlock));
    // The remaining sockets time out.
    slow[255].set_nonblocking(false).unwrap();
    slow.iter().for_each(read_to_end);
}

/// A metrics address other than loopback causes a warning.
#[test]
fn public_metrics_address_causes_warning() {
    let server = TestServer::new();
    let (process, _, _file) = scraped(&server, "0.0.0.0:0");
    process.errors.until("is not a loopback address");
    let (process, _, _file) = scraped(&server, "127.0.0.1:0");
    process.errors.until("keeping 1 connection");
    assert!(!process.errors.text().contains("loopback"), "{}", process.errors.text());
}

/// A recording that declares huge payloads is refused before memory is allocated for them.
#[test]
fn recording_with_huge_payload_is_refused() {
    let server = TestServer::new();
    let file = Temporary::new("claims.jsonl");
    let payload = format!("\"{}\"", "x".repeat(4_321));
    let push = ["push", &server.url(), "room:a", "echo", &payload, "--record", file.path()];
    assert!(phx(&push).output().unwrap().status.success());
    let good = file.text();
    assert!(good.len() < 6_000 && good.contains(":4323}"), "{good}");
    let one = good.replace(":4323}", ":1073741824}");
    // Many messages, each of an allowed size, and no line takes the signals about them.
    let reply = good.lines().rfind(|line| line.contains("\"status\"")).unwrap();
    let message = reply.replace("\"ref\":2", "\"ref\":null");
    let message = message.replace("\"status\":\"ok\"", "\"event\":\"news\"");
    let message = message.replace(":4323}", ":60000000}");
    let many = good.replace(reply, &[vec![&*message; 30], vec![reply]].concat().join("\n"));
    for text in [one, many] {
        file.write(text);
        // The memory limit suffices for the good recording, but not for the declared payloads.
        let mut shell = Command::new("sh");
        let script = "ulimit -v 1000000; exec \"$0\" replay \"$1\"";
        let output = shell.args(["-c", script, env!("CARGO_BIN_EXE_phx"), file.path()]).output();
        let output = output.unwrap();
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{log}");
        assert!(log.contains("line ") && log.contains("bytes"), "{log}");
    }
    file.write(good);
    assert!(phx(&["replay", file.path()]).output().unwrap().status.success());
}

/// A recording is replayed while it is read, so its size does not matter: here, its last line comes after the
/// trace of the first lines.
#[test]
fn recording_is_replayed_while_it_is_read() {
    let server = TestServer::new();
    let file = Temporary::new("pipe.jsonl");
    let push = ["push", &server.url(), "room:a", "echo", "1", "--record", file.path()];
    assert!(phx(&push).output().unwrap().status.success());
    let whole = phx(&["replay", file.path()]).output().unwrap().stdout;
    let recorded = file.text();
    let (last, rest) = (recorded.lines().last().unwrap(), recorded.lines().count() - 1);
    let mut process = Process::start(phx(&["replay", "/dev/stdin"]));
    recorded.lines().take(rest).for_each(|line| process.type_line(line));
    let first = process.first_line();
    assert!(first.starts_with("t=0ms client#1 start "), "{first}");
    process.type_line(last);
    drop(process.stdin.take());
    let stdout = process.capture_stdout();
    assert_eq!(process.exit_code(), Some(0));
    assert_eq!(first + &stdout.all(), String::from_utf8(whole).unwrap());
}

/// A line of a recording is read up to a limit, and not to its end.
#[test]
fn endless_line_of_recording_is_refused() {
    let mut shell = Command::new("sh");
    let script = "ulimit -v 1000000; exec \"$0\" replay /dev/zero";
    let output = shell.args(["-c", script, env!("CARGO_BIN_EXE_phx")]).output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{log}");
    assert_eq!(log, "phx: /dev/zero: line 1: it has more than 268435456 bytes\n");
}

/// The CPU time of a process, in clock ticks.
fn ticks(process: &Process) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.child.id())).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// When no file descriptors are free, `phx serve` logs this once, waits, and continues when some are
/// free again.
#[test]
fn serve_without_descriptors_backs_off() {
    let mut shell = phx(&[]);
    shell = {
        let mut limited = Command::new("sh");
        let script = "ulimit -n 40; exec \"$0\" serve --addr 127.0.0.1:0";
        limited.args(["-c", script]).arg(shell.get_program());
        limited.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        limited.stderr(std::process::Stdio::piped());
        limited
    };
    let mut process = Process::start(shell);
    let url = process.first_line();
    let addr = url.trim().trim_start_matches("ws://").split('/').next().unwrap().to_owned();
    let greedy: Vec<TcpStream> = (0..64).map(|_| TcpStream::connect(&addr).unwrap()).collect();
    process.errors.until("connections cannot be accepted at the moment");
    let before = ticks(&process);
    // A busy loop would use all CPU time of this interval.
    std::thread::sleep(Duration::from_millis(600));
    let used = ticks(&process) - before;
    assert!(used < 10, "{used} ticks");
    assert_eq!(process.errors.text().matches("connections cannot be accepted").count(), 1);
    drop(greedy);
    wait("a connection again", || {
        phx(&["push", url.trim(), "room:a", "echo"])
            .output()
            .unwrap()
            .status
            .success()
            .then_some(())
    });
}
