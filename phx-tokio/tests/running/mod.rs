//! The real binary as a process: what it prints, what it is told.

#![allow(dead_code, reason = "each test program uses what it needs")]

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long any one thing may take. A few hundredths of it are usual.
pub(crate) const SOON: Duration = Duration::from_secs(30);

pub(crate) fn phx(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_phx"));
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub(crate) fn free_addr() -> SocketAddr {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap()
}

pub(crate) fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

/// Stops a process, and waits until every thread of it is stopped.
#[cfg(target_os = "linux")]
pub(crate) fn stop(child: &Child) {
    signal(child, "-STOP");
    let tasks = format!("/proc/{}/task", child.id());
    let is_stopped = |task: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap();
        stat.rsplit(')').next().unwrap().trim_start().starts_with('T')
    };
    let start = Instant::now();
    while !std::fs::read_dir(&tasks).unwrap().map(Result::unwrap).all(is_stopped) {
        assert!(start.elapsed() < SOON, "it is not stopped");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A process that ends with the test.
pub(crate) struct Process {
    pub(crate) child: Child,
    /// None once it is closed.
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

    /// `phx serve`, once it listens.
    pub(crate) fn serve(addr: SocketAddr, token: Option<&str>) -> Self {
        let addr = addr.to_string();
        let mut args = vec!["serve", "--addr", &addr];
        args.extend(token.iter().flat_map(|token| ["--token", token]));
        let process = Self::start(phx(&args));
        process.lines.recv_timeout(SOON).expect("the address it listens on");
        process
    }

    pub(crate) fn types(&mut self, line: &str) {
        writeln!(self.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Ends with this code when it gets the signal again and again; what its log says.
    #[track_caller]
    pub(crate) fn ends_by(&mut self, name: &str, code: i32) -> Vec<String> {
        let start = Instant::now();
        while start.elapsed() < SOON && self.child.try_wait().unwrap().is_none() {
            // It may end in between.
            let mut kill = Command::new("kill");
            let _ = kill.args([name, &self.child.id().to_string()]).stderr(Stdio::null()).status();
            std::thread::sleep(Duration::from_millis(20));
        }
        self.ends_with(code)
    }

    /// Ends by itself, with this code; what its log says.
    #[track_caller]
    pub(crate) fn ends_with(&mut self, code: i32) -> Vec<String> {
        let start = Instant::now();
        while start.elapsed() < SOON {
            if let Some(status) = self.child.try_wait().unwrap() {
                let errors: Vec<String> = self.errors.iter().collect();
                assert_eq!(status.code(), Some(code), "{errors:#?}");
                return errors;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("it does not end");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The events that a `phx run` prints.
pub(crate) struct Events {
    pub(crate) process: Process,
    pub(crate) seen: Vec<Value>,
}

impl Events {
    pub(crate) fn of(process: Process) -> Self {
        Self { process, seen: Vec::new() }
    }

    /// Reads until an event of the connection has this type and is about this topic.
    #[track_caller]
    pub(crate) fn until(&mut self, connection: &str, kind: &str, subject: Option<&str>) -> Value {
        self.find(|event| {
            event["type"] == kind
                && event["data"]["connection_name"] == connection
                && subject.is_none_or(|subject| event["subject"] == subject)
        })
    }

    /// Reads until an event of `phx run` itself has this type.
    #[track_caller]
    pub(crate) fn report(&mut self, kind: &str) -> Value {
        let event = self.find(|event| event["type"] == kind);
        assert_eq!(event["source"], "/phx/run");
        event
    }

    #[track_caller]
    pub(crate) fn find(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let Ok(line) = self.process.lines.recv_timeout(SOON) else {
                panic!("no such event in {:#?}", self.seen)
            };
            let event: Value = serde_json::from_str(&line).expect("one JSON object a line");
            assert_eq!(event["specversion"], "1.0");
            self.seen.push(event.clone());
            if wanted(&event) {
                return event;
            }
        }
    }

    pub(crate) fn count(&self, connection: &str) -> usize {
        let of = |event: &&Value| event["data"]["connection_name"] == connection;
        self.seen.iter().filter(of).count()
    }
}

/// Stands in front of a server and counts who connects to it.
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

/// A file that is removed with the test.
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
