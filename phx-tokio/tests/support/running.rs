//! The command `phx` as a process: its lines, its events, and its standard input.

#![allow(dead_code, reason = "each test program uses what it needs")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::net::TcpSocket;

/// How long a test waits for one condition. Only a failing test waits for all of it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) fn phx(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_phx"));
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A loopback port without a listener, which the system gives to no other process while the tests run. A
/// port that is bound and released could be given to one at once.
///
/// Its socket is bound and does not listen. With `SO_REUSEADDR`, Linux lets servers bind the same port
/// any number of times, and never chooses it for a bind to port 0.
pub(crate) fn free_addr() -> SocketAddr {
    static RESERVED: Mutex<Vec<TcpSocket>> = Mutex::new(Vec::new());
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let addr = socket.local_addr().unwrap();
    RESERVED.lock().unwrap().push(socket);
    addr
}

pub(crate) fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

/// Stops a process. On Linux, waits until every thread is stopped, which is a little after the signal.
#[track_caller]
pub(crate) fn stop(child: &Child) {
    signal(child, "-STOP");
    let end = Instant::now() + DEADLINE;
    let tasks = format!("/proc/{}/task", child.id());
    let is_stopped = |task: std::io::Result<std::fs::DirEntry>| {
        let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap();
        // The state follows the name, which is in parentheses.
        stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
    };
    while cfg!(target_os = "linux") && !std::fs::read_dir(&tasks).unwrap().all(is_stopped) {
        assert!(Instant::now() < end, "it does not stop");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The next line of a process. After the deadline it is an error, even if there are more lines.
fn next_line(lines: &Receiver<String>, end: Instant) -> Result<String, RecvTimeoutError> {
    let left = end.checked_duration_since(Instant::now()).ok_or(RecvTimeoutError::Timeout)?;
    lines.recv_timeout(left)
}

/// A process, which is killed at the end of the test.
pub(crate) struct Process {
    pub(crate) child: Child,
    /// `None` after it was closed.
    pub(crate) stdin: Option<ChildStdin>,
    pub(crate) lines: Receiver<String>,
    pub(crate) errors: Receiver<String>,
}

impl Process {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let stdin = child.stdin.take();
        let (to_lines, lines) = channel();
        let (to_errors, errors) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            stdout.lines().map_while(Result::ok).try_for_each(|line| to_lines.send(line))
        });
        std::thread::spawn(move || {
            stderr.lines().map_while(Result::ok).try_for_each(|line| to_errors.send(line))
        });
        Self { child, stdin, lines, errors }
    }

    /// Starts `phx serve`, and waits until it listens.
    pub(crate) fn serve(addr: SocketAddr, token: Option<&str>) -> Self {
        let addr = addr.to_string();
        let mut args = vec!["serve", "--addr", &addr];
        args.extend(token.iter().flat_map(|token| ["--token", token]));
        let process = Self::start(phx(&args));
        process.lines.recv_timeout(DEADLINE).expect("the address it listens on");
        process
    }

    pub(crate) fn type_line(&mut self, line: &str) {
        writeln!(self.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Reads standard error until a line contains `what`.
    #[track_caller]
    pub(crate) fn expect_log(&self, what: &str) {
        let end = Instant::now() + DEADLINE;
        loop {
            let line = next_line(&self.errors, end).unwrap_or_else(|why| panic!("{what}: {why}"));
            if line.contains(what) {
                return;
            }
        }
    }

    /// Repeats a signal until the process ends, asserts its exit code, and returns its unread log.
    #[track_caller]
    pub(crate) fn signal_until_exit(&mut self, name: &str, code: i32) -> Vec<String> {
        let start = Instant::now();
        while start.elapsed() < DEADLINE && self.child.try_wait().unwrap().is_none() {
            // The process may have ended.
            let mut kill = Command::new("kill");
            let _ = kill.args([name, &self.child.id().to_string()]).stderr(Stdio::null()).status();
            std::thread::sleep(Duration::from_millis(20));
        }
        self.expect_exit(code)
    }

    /// Waits for the end of the process, asserts its exit code, and returns its unread log.
    #[track_caller]
    pub(crate) fn expect_exit(&mut self, code: i32) -> Vec<String> {
        let end = Instant::now() + DEADLINE;
        let mut errors = Vec::new();
        loop {
            match next_line(&self.errors, end) {
                Ok(line) => errors.push(line),
                // The end of standard error is the end of the process.
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("it does not end: {errors:#?}"),
            }
        }
        assert_eq!(self.child.wait().unwrap().code(), Some(code), "{errors:#?}");
        errors
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The events that `phx run` prints.
///
/// The events of one connection are ordered; those of several connections interleave arbitrarily. So each
/// connection has its own read position.
pub(crate) struct Events {
    pub(crate) process: Process,
    pub(crate) seen: Vec<Value>,
    /// The read position in `seen`, for each connection and for `phx run` itself.
    next: HashMap<String, usize>,
}

/// The source of the events of `phx run` itself.
const RUN: &str = "/phx/run";

impl Events {
    pub(crate) fn of(process: Process) -> Self {
        Self { process, seen: Vec::new(), next: HashMap::new() }
    }

    /// Reads until an event of the connection has this type and this subject.
    #[track_caller]
    pub(crate) fn until(&mut self, connection: &str, kind: &str, subject: Option<&str>) -> Value {
        self.find(connection, |event| {
            event["type"] == kind && subject.is_none_or(|subject| event["subject"] == subject)
        })
    }

    /// Reads until an event of `phx run` itself has this type.
    #[track_caller]
    pub(crate) fn report(&mut self, kind: &str) -> Value {
        self.find_report(|event| event["type"] == kind)
    }

    /// Reads until `wanted` accepts an event of `phx run` itself.
    #[track_caller]
    pub(crate) fn find_report(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        self.find(RUN, wanted)
    }

    /// Reads until the answer to the order with this id. Orders are answered in any order.
    #[track_caller]
    pub(crate) fn answer(&mut self, id: &str) -> Value {
        self.next.remove(RUN);
        self.find_report(|event| event["data"]["id"] == id)
    }

    /// Reads until `wanted` accepts an event of the connection.
    #[track_caller]
    fn find(&mut self, connection: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + DEADLINE;
        let mut at = self.next.get(connection).copied().unwrap_or_default();
        loop {
            while let Some(event) = self.seen.get(at) {
                at += 1;
                let of_run = event["source"] == RUN;
                let matches = if connection == RUN {
                    of_run
                } else {
                    !of_run && event["data"]["connection_name"] == connection
                };
                if matches && wanted(event) {
                    self.next.insert(connection.to_owned(), at);
                    return event.clone();
                }
            }
            let Ok(line) = next_line(&self.process.lines, end) else {
                panic!("no such event of {connection} in {:#?}", self.seen)
            };
            let event: Value = serde_json::from_str(&line).expect("one JSON object per line");
            assert_eq!(event["specversion"], "1.0");
            self.seen.push(event);
        }
    }

    pub(crate) fn count(&self, connection: &str) -> usize {
        let of = |event: &&Value| event["data"]["connection_name"] == connection;
        self.seen.iter().filter(of).count()
    }
}

/// A proxy in front of a server that counts its connections.
pub(crate) struct Counter {
    pub(crate) addr: SocketAddr,
    accepted: Arc<AtomicUsize>,
}

impl Counter {
    pub(crate) fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                count.fetch_add(1, Ordering::SeqCst);
                let server = TcpStream::connect(server).unwrap();
                let copy = |mut from: TcpStream, mut to: TcpStream| {
                    std::thread::spawn(move || std::io::copy(&mut from, &mut to))
                };
                copy(client.try_clone().unwrap(), server.try_clone().unwrap());
                copy(server, client);
            }
        });
        Self { addr, accepted }
    }

    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

/// A file that is removed after the test.
pub(crate) struct File(PathBuf);

impl File {
    pub(crate) fn new(name: &str, content: &Value) -> Self {
        let path = std::env::temp_dir().join(format!("phx-{}-{name}.json", std::process::id()));
        std::fs::write(&path, content.to_string()).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    pub(crate) fn write(&self, content: &Value) {
        std::fs::write(&self.0, content.to_string()).unwrap();
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

pub(crate) fn uri(addr: SocketAddr) -> String {
    format!("ws://{addr}/socket/websocket")
}
