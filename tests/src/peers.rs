//! Third-party peers run by node and Python: the installation of their packages, and a child process
//! that exchanges lines of JSON.
//!
//! ```text
//! available() ── node? npm? ── node_modules matches the lock? ──no──▶ npm ci, aside, then renamed
//!      │ Err(why): the caller skips, visibly; a failure if PHX_REQUIRE_PEERS is set
//!      ▼ Ok
//! Script::node(script, args) ◀── one JSON value per line, each way ─▶ node
//! Script::python(script) ◀────── the same; it installs its packages itself ──▶ python3
//! ```

use core::time::Duration;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;
use std::{fs, io, process, thread};

use serde_json::Value;

use crate::waiting::{DEADLINE, TICK};

/// The folder of `package.json` and the scripts.
const PEERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers");
/// How long `npm ci` may take.
const INSTALL_MAX: Duration = Duration::from_secs(120);
/// Exit code of a Python script whose packages cannot be installed.
const NO_PACKAGES: i32 = 77;
/// The oldest node that the scripts run on.
const NODE_MIN: u32 = 18;
/// The copy of the lock file from which the packages were installed, stored with the packages.
const INSTALLED: &str = "node_modules/.phx-installed-lock.json";

/// Whether the official client can be run here. If not, prints that the test is skipped and returns
/// `false`.
///
/// # Panics
///
/// If it cannot be run and `PHX_REQUIRE_PEERS` is set, or if the lock file and the packages
/// disagree.
pub fn available(test: &str) -> bool {
    static ANSWER: OnceLock<Result<(), String>> = OnceLock::new();
    match ANSWER.get_or_init(prepare) {
        Ok(()) => true,
        Err(why) => {
            skip(test, &format!("the official client cannot be run: {why}"));
            false
        }
    }
}

/// Prints on stderr that a test is skipped.
fn skip(test: &str, why: &str) {
    let required = std::env::var_os("PHX_REQUIRE_PEERS").is_some_and(|value| !value.is_empty());
    assert!(!required, "PHX_REQUIRE_PEERS is set and {why}");
    // `eprintln` is not used, because the test harness captures its output when a test passes.
    let _ = writeln!(io::stderr(), "SKIPPED {test}: {why}");
}

fn prepare() -> Result<(), String> {
    let version = output(Command::new("node").arg("--version"), DEADLINE)?.0;
    let major = version.trim().trim_start_matches('v').split('.').next().unwrap_or_default();
    match major.parse::<u32>() {
        Ok(major) if major >= NODE_MIN => {}
        _ => return Err(format!("node {NODE_MIN} or newer is needed, not {}", version.trim())),
    }
    let peers = Path::new(PEERS);
    let lock = fs::read(peers.join("package-lock.json")).map_err(|error| error.to_string())?;
    if is_installed(peers, &lock) {
        return Ok(());
    }
    // The packages are installed in a temporary folder, which is renamed when it is complete.
    // Several test programs may install at the same time, and one that is killed must not leave a
    // folder that looks complete.
    let aside = peers.join(format!(".installing-{}", process::id()));
    let installed = install(peers, &aside, &lock);
    let _ = fs::remove_dir_all(&aside);
    installed
}

/// Whether `node_modules` was installed from this lock.
fn is_installed(peers: &Path, lock: &[u8]) -> bool {
    fs::read(peers.join(INSTALLED)).is_ok_and(|installed| installed == lock)
}

fn install(peers: &Path, aside: &Path, lock: &[u8]) -> Result<(), String> {
    let at = |error: io::Error| format!("{}: {error}", aside.display());
    fs::create_dir_all(aside).map_err(at)?;
    for name in ["package.json", "package-lock.json", ".npmrc"] {
        fs::copy(peers.join(name), aside.join(name)).map_err(at)?;
    }
    let mut npm = Command::new("npm");
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"]);
    npm.args(["--fetch-retries=1", "--fetch-timeout=30000"]);
    output(npm.current_dir(aside), INSTALL_MAX).inspect_err(|error| {
        // With an invalid lock file or a modified package the test fails; it is not skipped.
        let ours = ["EUSAGE", "EINTEGRITY", "ETARGET", "EJSONPARSE"];
        assert!(!ours.iter().any(|code| error.contains(code)), "npm ci: {error}");
    })?;
    fs::write(aside.join(INSTALLED), lock).map_err(at)?;
    let (from, to) = (aside.join("node_modules"), peers.join("node_modules"));
    if fs::rename(&from, &to).is_err() {
        // The rename failed: there is an older installation, or another test program was faster.
        if is_installed(peers, lock) {
            return Ok(());
        }
        fs::rename(&to, aside.join("old")).map_err(at)?;
        if let Err(error) = fs::rename(&from, &to) {
            return is_installed(peers, lock).then_some(()).ok_or_else(|| at(error));
        }
    }
    Ok(())
}

/// Runs a command to its end. The error holds the first error lines of its stderr.
fn output(command: &mut Command, within: Duration) -> Result<(String, ExitStatus), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let failed = |error: io::Error| format!("{name}: {error}");
    let mut child = Killed(
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?,
    );
    let stdout = child.0.stdout.take().map(collect).unwrap_or_default();
    let stderr = child.0.stderr.take().map(collect).unwrap_or_default();
    let status = child.wait(within).map_err(failed)?;
    let Some(status) = status else {
        return Err(format!("{name}: not done after {within:?}"));
    };
    if !status.success() {
        // npm prints much; its first error lines name the package and the reason.
        let stderr = stderr.text();
        let errors: Vec<&str> =
            stderr.lines().filter(|line| line.contains("error")).take(4).collect();
        return Err(format!("{name}: {status}: {}", errors.join("; ")));
    }
    Ok((stdout.text(), status))
}

/// A child process that is killed when this is dropped.
#[derive(Debug)]
struct Killed(Child);

impl Killed {
    /// Waits until the process ends; `None` if it still runs after `within`.
    fn wait(&mut self, within: Duration) -> io::Result<Option<ExitStatus>> {
        let until = Instant::now() + within;
        loop {
            if let Some(status) = self.0.try_wait()? {
                return Ok(Some(status));
            }
            if Instant::now() >= until {
                return Ok(None);
            }
            // The standard library has no wait with a deadline.
            thread::sleep(TICK);
        }
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The bytes of a stream so far. A separate thread reads them.
#[derive(Clone, Debug, Default)]
struct Collected(Arc<Mutex<Vec<u8>>>, Arc<Mutex<Option<Receiver<()>>>>);

impl Collected {
    /// All of the stream if it ends before the deadline, else the bytes so far.
    fn text(&self) -> String {
        if let Some(ended) = self.1.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // The sender never sends; it is dropped at the end of the stream.
            let _ = ended.recv_timeout(DEADLINE);
        }
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

fn collect(mut stream: impl Read + Send + 'static) -> Collected {
    let (end, ended) = mpsc::channel();
    let collected = Collected(Arc::default(), Arc::new(Mutex::new(Some(ended))));
    let bytes = Arc::clone(&collected.0);
    thread::spawn(move || {
        let _end: mpsc::Sender<()> = end;
        let mut chunk = [0; 4096];
        while let Ok(n @ 1..) = stream.read(&mut chunk) {
            bytes.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&chunk[..n]);
        }
    });
    collected
}

/// A running script, which is killed when this is dropped.
#[derive(Debug)]
pub struct Script {
    child: Killed,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    stderr: Collected,
}

impl Script {
    /// Runs a script of `tests/peers` with node. Call [`available`] first.
    ///
    /// # Panics
    ///
    /// If node cannot be started.
    #[must_use]
    pub fn node(script: &str, args: &[&str]) -> Self {
        Self::start("node", script, args).expect("node starts")
    }

    /// Runs a script of `tests/peers` with Python, and reads its first line. If Python or the packages
    /// are not available, prints that the test is skipped and returns `None`.
    ///
    /// # Panics
    ///
    /// If Python or the packages are not available and `PHX_REQUIRE_PEERS` is set, or if the script
    /// ends for another reason.
    #[must_use]
    pub fn python(test: &str, script: &str) -> Option<(Self, Value)> {
        let why = match Self::start("python3", script, &[]) {
            Err(error) => format!("python3: {error}"),
            Ok(mut started) => {
                if let Some(first) = started.receive(INSTALL_MAX + DEADLINE) {
                    return Some((started, first));
                }
                let (status, stderr) = started.end(DEADLINE);
                assert_eq!(status.code(), Some(NO_PACKAGES), "{script}: {status}\n{stderr}");
                stderr
            }
        };
        skip(test, &format!("the packages of {script} are not available: {why}"));
        None
    }

    fn start(program: &str, script: &str, args: &[&str]) -> io::Result<Self> {
        let mut command = Command::new(program);
        command.arg(PathBuf::from(PEERS).join(script)).args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = Killed(command.spawn()?);
        let stdin = child.0.stdin.take();
        let stdout = child.0.stdout.take().expect("piped");
        let stderr = collect(child.0.stderr.take().expect("piped"));
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, stdin, lines, stderr })
    }

    /// Writes one line to the stdin of the script.
    ///
    /// # Panics
    ///
    /// If the script has ended.
    pub fn send(&mut self, value: &Value) {
        let stdin = self.stdin.as_mut().expect("stdin is open");
        if let Err(error) = writeln!(stdin, "{value}").and_then(|()| stdin.flush()) {
            panic!("the script has ended ({error}): {}", self.stderr.text());
        }
    }

    /// Reads one line of the script's stdout; `None` at the end of the stream.
    ///
    /// # Panics
    ///
    /// If no line arrives in time, or a line is not JSON.
    pub fn receive(&mut self, within: Duration) -> Option<Value> {
        match self.lines.recv_timeout(within) {
            Ok(line) => match serde_json::from_str(&line) {
                Ok(value) => Some(value),
                Err(error) => panic!("the script wrote {line:?}: {error}"),
            },
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => {
                panic!("the script wrote nothing for {within:?}: {}", self.stderr.text())
            }
        }
    }

    /// Closes the stdin of the script and waits for its end. Returns the exit status and the stderr of
    /// the script.
    ///
    /// # Panics
    ///
    /// If it does not end in time.
    pub fn end(mut self, within: Duration) -> (ExitStatus, String) {
        drop(self.stdin.take());
        let status = self.child.wait(within).expect("its status is known");
        let stderr = self.stderr.text();
        (status.unwrap_or_else(|| panic!("the script did not end in {within:?}: {stderr}")), stderr)
    }
}
