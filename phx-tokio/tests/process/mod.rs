//! The real binary as a process: its pipes, its terminal, and a server in this process.

#![allow(dead_code, reason = "each test program uses what it needs")]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use phx_tokio::testing::{Listener, Observation, Server, ServerConfig};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// How long any one thing may take. A few hundredths of it are usual. Less than the 30 s that a join
/// may take by default, so that what `--timeout` bounds is seen to be bounded.
pub(crate) const SOON: Duration = Duration::from_secs(20);

pub(crate) fn phx(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_phx"));
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The same on one CPU, as in a container that has one.
pub(crate) fn phx_on_one_cpu(args: &[&str]) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", "0", env!("CARGO_BIN_EXE_phx")]).args(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Waits until something is there.
#[track_caller]
pub(crate) fn wait<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < SOON, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a file can be read or written without waiting, or has ended.
fn ready(file: impl AsFd, how: PollFlags) -> bool {
    let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(&file, how)], Some(&now)).unwrap() > 0
}

/// What a stream has said so far, read by a thread.
#[derive(Clone)]
pub(crate) struct Said(Arc<Mutex<(Vec<u8>, bool)>>);

impl Said {
    pub(crate) fn by(mut stream: impl Read + Send + 'static) -> Self {
        let said = Self(Arc::default());
        let own = said.clone();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // A terminal whose other side is closed ends with an error.
            while let Ok(read @ 1..) = stream.read(&mut bytes) {
                own.0.lock().unwrap().0.extend_from_slice(&bytes[..read]);
            }
            own.0.lock().unwrap().1 = true;
        });
        said
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap().0).into_owned()
    }

    /// Everything, once the stream has ended.
    #[track_caller]
    pub(crate) fn all(&self) -> String {
        wait("the end of the stream", || self.0.lock().unwrap().1.then_some(()));
        self.text()
    }

    /// Waits for a text; everything so far.
    #[track_caller]
    pub(crate) fn until(&self, text: &str) -> String {
        let start = Instant::now();
        loop {
            let said = self.text();
            if said.contains(text) {
                return said;
            }
            assert!(start.elapsed() < SOON, "{text:?} is missing in:\n{said}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A process that ends with the test.
pub(crate) struct Process {
    pub(crate) child: Child,
    pub(crate) stdin: Option<ChildStdin>,
    /// Not read unless the test does.
    pub(crate) stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    pub(crate) errors: Said,
}

impl Process {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let errors = match child.stderr.take() {
            Some(stderr) => Said::by(stderr),
            None => Said(Arc::default()),
        };
        Self { child, stdin, stdout, stderr: None, errors }
    }

    /// The same with standard error in a pipe that is not read.
    pub(crate) fn start_unread(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let stderr = child.stderr.take();
        Self { child, stdin, stdout, stderr, errors: Said(Arc::default()) }
    }

    /// Reads standard output from now on.
    pub(crate) fn said(&mut self) -> Said {
        Said::by(self.stdout.take().unwrap())
    }

    pub(crate) fn types(&mut self, line: &str) {
        writeln!(self.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        // It may have ended.
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }

    /// Waits for a first line on standard output; the rest is not read.
    #[track_caller]
    pub(crate) fn first_line(&mut self) -> String {
        let (stdout, mut line) = (self.stdout.as_mut().unwrap(), Vec::new());
        while !line.ends_with(b"\n") {
            // One byte at a time: nothing is taken out of the pipe that is not asked for.
            let mut byte = [0];
            wait("the first line", || ready(&*stdout, PollFlags::IN).then_some(()));
            if stdout.read(&mut byte).unwrap() == 0 {
                break;
            }
            line.extend(byte);
        }
        String::from_utf8(line).unwrap()
    }

    /// Waits until standard output is a pipe that takes nothing any more.
    #[track_caller]
    pub(crate) fn is_stuck(&self) {
        let pipe = self.stdout.as_ref().unwrap().as_raw_fd();
        // Another end to write to the same pipe.
        let end = File::options().write(true).open(format!("/proc/self/fd/{pipe}")).unwrap();
        wait("a full pipe", || (!ready(&end, PollFlags::OUT)).then_some(()));
    }

    /// Waits until every thread of it is stopped.
    #[track_caller]
    pub(crate) fn is_stopped(&self) {
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

    /// Waits for the end; its exit code.
    #[track_caller]
    pub(crate) fn code(&mut self) -> Option<i32> {
        let status: ExitStatus = wait("the end of the process", || self.child.try_wait().unwrap());
        status.code()
    }

    /// Repeats a signal until the process ends; its exit code.
    #[track_caller]
    pub(crate) fn code_by(&mut self, signal: Signal) -> Option<i32> {
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

/// A Phoenix-like server in this process, on a port of its own.
pub(crate) struct Stand {
    runtime: tokio::runtime::Runtime,
    pub(crate) listener: Listener,
    seen: Arc<Mutex<Vec<Observation>>>,
}

impl Stand {
    pub(crate) fn new() -> Self {
        Self::with(ServerConfig::default())
    }

    pub(crate) fn with(config: ServerConfig) -> Self {
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

    pub(crate) fn server<T>(&self, work: impl FnOnce(&mut Server) -> T) -> T {
        self.listener.with(|server, _| work(server))
    }

    /// Waits until something was done by a client, for as many times.
    #[track_caller]
    pub(crate) fn sees(&self, what: &str, times: usize) {
        wait(what, || (self.count(what) >= times).then_some(()));
    }

    fn count(&self, what: &str) -> usize {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|seen| format!("{seen:?}").contains(what)).count()
    }

    pub(crate) fn broadcast(&self, topic: &str, event: &str, payload: &Value) {
        self.listener.broadcast(topic, event, payload.clone());
    }

    /// Many messages of a kilobyte.
    pub(crate) fn flood(&self, topic: &str, count: usize) {
        let payload = json!({"text": "x".repeat(1_000)});
        (0..count).for_each(|_| self.broadcast(topic, "news", &payload));
    }

    pub(crate) fn kill(&mut self) {
        self.runtime.block_on(self.listener.kill());
    }

    /// Waits until a client that is on `room:z`, too, has received everything so far: it joins that
    /// one again after a crash that comes behind it.
    #[track_caller]
    pub(crate) fn received(&self) {
        let joined = "Joined { peer: peer#1, topic: \"room:z\"";
        let before = self.count(joined).max(1);
        self.sees(joined, before);
        self.listener.crash_channel("room:z");
        self.sees(joined, before + 1);
    }

    /// A file with one connection to it, `a`, that joins `room:a` and `room:z`.
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

/// A file that is removed with the test.
pub(crate) struct Temporary(PathBuf);

impl Temporary {
    pub(crate) fn new(name: &str) -> Self {
        static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("phx-{}-{count}-{name}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    pub(crate) fn path(&self) -> &str {
        self.0.to_str().unwrap()
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

/// A terminal: what a process sees, and what a person sees of it.
pub(crate) struct Terminal {
    person: File,
    process: File,
}

impl Terminal {
    pub(crate) fn new() -> Self {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        let person: OwnedFd = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&person).unwrap();
        unlockpt(&person).unwrap();
        let name = ptsname(&person, Vec::new()).unwrap();
        let process = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        Self { person: person.into(), process }
    }

    /// For a stream of a process.
    pub(crate) fn stdio(&self) -> Stdio {
        self.process.try_clone().unwrap().into()
    }

    /// What is on the screen, from now on; the process's side is closed here.
    pub(crate) fn screen(self) -> Said {
        Said::by(self.person)
    }
}
