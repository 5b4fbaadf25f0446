//! The command `phx` as a process with pipes or a terminal, and a test server in this process. Linux only.

#![allow(dead_code, reason = "each test program uses what it needs")]

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use phx_tokio::testing::{Listener, Observation, Server, ServerConfig};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// How long a test waits for one condition; usually a few hundredths of that are enough. It is less than
/// the 30 s of the default join timeout, so that a test of `--timeout` fails if the option has no effect.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) fn phx(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_phx"));
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Like `phx`, but restricted to one CPU, as in a small container.
pub(crate) fn phx_on_one_cpu(args: &[&str]) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", "0", env!("CARGO_BIN_EXE_phx")]).args(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Waits until `look` returns a value.
#[track_caller]
pub(crate) fn wait<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < DEADLINE, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a file can be read or written without blocking, or has ended.
pub(crate) fn ready(file: impl AsFd, how: PollFlags) -> bool {
    let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(&file, how)], Some(&now)).unwrap() > 0
}

/// Waits until a pipe is full.
#[track_caller]
pub(crate) fn wait_full(pipe: &str) {
    // Another writer of the same pipe.
    let end = File::options().write(true).open(pipe).unwrap();
    wait("a full pipe", || (!ready(&end, PollFlags::OUT)).then_some(()));
}

/// The bytes of a stream so far, read by a thread.
#[derive(Clone)]
pub(crate) struct Captured(Arc<Mutex<(Vec<u8>, bool)>>);

impl Captured {
    pub(crate) fn from_stream(mut stream: impl Read + Send + 'static) -> Self {
        let captured = Self(Arc::default());
        let own = captured.clone();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // A terminal whose other side is closed returns an error.
            while let Ok(read @ 1..) = stream.read(&mut bytes) {
                own.0.lock().unwrap().0.extend_from_slice(&bytes[..read]);
            }
            own.0.lock().unwrap().1 = true;
        });
        captured
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap().0).into_owned()
    }

    /// Waits for the end of the stream, and returns all of it.
    #[track_caller]
    pub(crate) fn all(&self) -> String {
        wait("the end of the stream", || self.0.lock().unwrap().1.then_some(()));
        self.text()
    }

    /// Waits until the stream contains a text, and returns everything so far.
    #[track_caller]
    pub(crate) fn until(&self, text: &str) -> String {
        let start = Instant::now();
        loop {
            let so_far = self.text();
            if so_far.contains(text) {
                return so_far;
            }
            assert!(start.elapsed() < DEADLINE, "{text:?} is missing in:\n{so_far}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A process, which is killed at the end of the test.
pub(crate) struct Process {
    pub(crate) child: Child,
    pub(crate) stdin: Option<ChildStdin>,
    /// Not read, unless the test reads it.
    pub(crate) stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    pub(crate) errors: Captured,
}

impl Process {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let errors = match child.stderr.take() {
            Some(stderr) => Captured::from_stream(stderr),
            None => Captured(Arc::default()),
        };
        Self { child, stdin, stdout, stderr: None, errors }
    }

    /// Like `start`, with standard error in a pipe that is not read.
    pub(crate) fn start_unread(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let stderr = child.stderr.take();
        Self { child, stdin, stdout, stderr, errors: Captured(Arc::default()) }
    }

    /// Starts to read standard output.
    pub(crate) fn capture_stdout(&mut self) -> Captured {
        Captured::from_stream(self.stdout.take().unwrap())
    }

    pub(crate) fn type_line(&mut self, line: &str) {
        writeln!(self.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        // The process may have ended.
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }

    /// Waits for the first line on standard output, and leaves the rest unread.
    #[track_caller]
    pub(crate) fn first_line(&mut self) -> String {
        let (stdout, mut line) = (self.stdout.as_mut().unwrap(), Vec::new());
        while !line.ends_with(b"\n") {
            // One byte at a time, so that the rest stays in the pipe.
            let mut byte = [0];
            wait("the first line", || ready(&*stdout, PollFlags::IN).then_some(()));
            if stdout.read(&mut byte).unwrap() == 0 {
                break;
            }
            line.extend(byte);
        }
        String::from_utf8(line).unwrap()
    }

    /// Waits until the pipe of standard output is full.
    #[track_caller]
    pub(crate) fn wait_stuck(&self) {
        let pipe = self.stdout.as_ref().unwrap().as_raw_fd();
        wait_full(&format!("/proc/self/fd/{pipe}"));
    }

    /// Waits until every thread of the process is stopped.
    #[track_caller]
    pub(crate) fn wait_stopped(&self) {
        let tasks = format!("/proc/{}/task", self.child.id());
        let is_stopped = |task: std::fs::DirEntry| {
            let stat = std::fs::read_to_string(task.path().join("stat")).unwrap();
            stat.rsplit(')').next().unwrap().trim_start().starts_with('T')
        };
        wait("the stop", || {
            let mut tasks = std::fs::read_dir(&tasks).unwrap().map(Result::unwrap);
            tasks.all(is_stopped).then_some(())
        });
    }

    /// Waits until the process has a handler for a signal.
    #[track_caller]
    pub(crate) fn wait_caught(&self, signal: Signal) {
        wait("a signal handler", || {
            let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
            let mask = status.unwrap().lines().find_map(|line| {
                u64::from_str_radix(line.strip_prefix("SigCgt:")?.trim(), 16).ok()
            });
            (mask.unwrap() >> (signal.as_raw() - 1) & 1 == 1).then_some(())
        });
    }

    /// Waits for the end of the process, and returns its exit code.
    #[track_caller]
    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        let status: ExitStatus = wait("the end of the process", || self.child.try_wait().unwrap());
        status.code()
    }

    /// Repeats a signal until the process ends, and returns its exit code.
    #[track_caller]
    pub(crate) fn signal_until_exit(&mut self, signal: Signal) -> Option<i32> {
        let status: ExitStatus = wait("the end of the process", || {
            self.signal(signal);
            self.child.try_wait().unwrap()
        });
        status.code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A test server in this process, on a port of its own.
pub(crate) struct TestServer {
    runtime: tokio::runtime::Runtime,
    pub(crate) listener: Listener,
    seen: Arc<Mutex<Vec<Observation>>>,
}

impl TestServer {
    pub(crate) fn new() -> Self {
        Self::with_config(ServerConfig::default())
    }

    pub(crate) fn with_config(config: ServerConfig) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let bound = runtime.block_on(Listener::bind(([127, 0, 0, 1], 0).into(), config));
        let (listener, seen) = (bound.unwrap(), Arc::new(Mutex::new(Vec::new())));
        let own = Arc::clone(&seen);
        listener.with(|server, _| {
            server.observe(move |what| own.lock().unwrap().push(what.clone()));
        });
        Self { runtime, listener, seen }
    }

    pub(crate) fn url(&self) -> String {
        self.listener.url()
    }

    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut Server) -> T) -> T {
        self.listener.with(|server, _| work(server))
    }

    /// Waits until the server has made this observation this many times.
    #[track_caller]
    pub(crate) fn wait_for(&self, what: &str, times: usize) {
        wait(what, || (self.count(what) >= times).then_some(()));
    }

    fn count(&self, what: &str) -> usize {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|seen| format!("{seen:?}").contains(what)).count()
    }

    pub(crate) fn broadcast(&self, topic: &str, event: &str, payload: &Value) {
        self.listener.broadcast(topic, event, payload.clone());
    }

    /// Broadcasts messages of a kilobyte.
    pub(crate) fn flood(&self, topic: &str, count: usize) {
        let payload = json!({"text": "x".repeat(1_000)});
        (0..count).for_each(|_| self.broadcast(topic, "news", &payload));
    }

    pub(crate) fn kill(&mut self) {
        self.runtime.block_on(self.listener.kill());
    }

    /// Waits until a client that has also joined `room:z` has received everything so far: the server
    /// crashes that channel last, and waits for the rejoin.
    #[track_caller]
    pub(crate) fn wait_received(&self) {
        let joined = "Joined { peer: peer#1, topic: \"room:z\"";
        let before = self.count(joined).max(1);
        self.wait_for(joined, before);
        self.listener.crash_channel("room:z");
        self.wait_for(joined, before + 1);
    }

    /// A file with one connection to this server, `a`, which joins `room:a` and `room:z`.
    pub(crate) fn connections(&self) -> Temporary {
        let file = Temporary::new("connections.json");
        let connection = json!({
            "uri": self.url(),
            "auto_join_channels": ["room:a", "room:z"],
            "rejoin_after_msec": [10],
        });
        file.write(json!({"connections": {"a": connection}}).to_string());
        file
    }
}

/// A file that is removed after the test.
pub(crate) struct Temporary(PathBuf);

impl Temporary {
    pub(crate) fn new(name: &str) -> Self {
        static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("phx-{}-{count}-{name}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    /// A file whose name ends with these bytes.
    pub(crate) fn of_bytes(name: &[u8]) -> Self {
        let name = [format!("phx-{}-", std::process::id()).as_bytes(), name].concat();
        Self(std::env::temp_dir().join(OsString::from_vec(name)))
    }

    pub(crate) fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    pub(crate) fn os_path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn write(&self, text: impl AsRef<[u8]>) -> &Self {
        std::fs::write(&self.0, text).unwrap();
        self
    }

    pub(crate) fn text(&self) -> String {
        std::fs::read_to_string(&self.0).unwrap()
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A pseudoterminal: the side of the process, and the side of the user.
pub(crate) struct Terminal {
    user: File,
    process: File,
}

impl Terminal {
    pub(crate) fn new() -> Self {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        let user: OwnedFd = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&user).unwrap();
        unlockpt(&user).unwrap();
        let name = ptsname(&user, Vec::new()).unwrap();
        let process = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        Self { user: user.into(), process }
    }

    /// The terminal as a standard stream of a process.
    pub(crate) fn stdio(&self) -> Stdio {
        self.process.try_clone().unwrap().into()
    }

    /// Types a text at the terminal, as a user does.
    pub(crate) fn type_text(&self, text: &str) {
        (&self.user).write_all(text.as_bytes()).unwrap();
    }

    /// Starts to read the screen, and closes this handle of the process's side.
    pub(crate) fn screen(self) -> Captured {
        Captured::from_stream(self.user)
    }
}
