//! The command `phx`: its output, and the exit codes that scripts rely on.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};
use std::thread::JoinHandle;

use serde_json::Value;
#[cfg(unix)]
use serde_json::json;
#[cfg(unix)]
use support::running::DEADLINE;
use support::running::{free_addr, uri};

fn phx(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_phx"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(args: &[&str]) -> Output {
    phx(args).output().unwrap()
}

/// Asserts the exit code, and that standard error is one line that contains `what`.
#[track_caller]
fn assert_fails(output: &Output, code: i32, what: &str) {
    let line = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{line}");
    assert_eq!(line.trim_end().lines().count(), 1, "{line}");
    assert!(line.contains(what), "{line}");
}

/// `phx serve` on a port of its own, which is killed at the end of the test.
struct Serve {
    child: Child,
    url: String,
}

impl Serve {
    fn start() -> Self {
        let mut child = phx(&["serve", "--addr", "127.0.0.1:0"]).spawn().unwrap();
        let mut url = String::new();
        let stdout = child.stdout.as_mut().unwrap();
        BufReader::new(stdout).read_line(&mut url).unwrap();
        Self { child, url: url.trim().to_owned() }
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server that answers the upgrade of one connection with these bytes.
fn answering(answer: &'static str) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/socket/websocket", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        stream.write_all(answer.as_bytes()).unwrap();
    });
    (url, server)
}

#[test]
fn demo_shows_every_step() {
    let output = run(&["demo"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let steps = ["connected", "joined", "reply", "news", "killed", "interrupted", "next attempt"];
    for step in steps.into_iter().chain(["resumed", "disconnected", "every step worked"]) {
        assert!(text.contains(step), "{step} is missing:\n{text}");
    }
}

#[test]
fn http_url_is_bad_usage() {
    assert_fails(&run(&["push", "http://localhost/", "t", "e", "{}"]), 2, "ws or wss");
}

#[test]
fn malformed_payload_is_bad_usage() {
    assert_fails(&run(&["push", "ws://localhost/", "t", "e", "{"]), 2, "not JSON");
}

#[test]
fn remote_ws_names_allow_insecure() {
    let output = run(&["push", "ws://phoenix.invalid/", "t", "e", "{}"]);
    assert_fails(&output, 2, "--allow-insecure");
}

#[test]
fn refused_port_is_unreachable() {
    let url = uri(free_addr());
    assert_fails(&run(&["push", &url, "t", "e", "{}"]), 3, "could not be reached");
}

#[test]
fn status_403_is_a_refusal() {
    let (url, server) = answering("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
    assert_fails(&run(&["listen", &url, "--join", "room:lobby"]), 4, "HTTP 403");
    server.join().unwrap();
}

#[test]
fn url_secret_is_not_printed() {
    let (url, server) = answering("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
    let url = format!("{url}?token=s3cret");
    let output = run(&["push", &url, "t", "e", "{}"]);
    assert_fails(&output, 4, "HTTP 403");
    assert!(!String::from_utf8_lossy(&output.stderr).contains("s3cret"));
    server.join().unwrap();
}

#[test]
fn unmatched_topic_is_rejected_join() {
    let serve = Serve::start();
    let output = run(&["push", &serve.url, "no_such:topic", "e", "{}"]);
    assert_fails(&output, 5, "no channel of the server matches the topic");
}

#[test]
fn push_prints_the_response() {
    let serve = Serve::start();
    let output = run(&["push", &serve.url, "room:lobby", "echo", r#"{"body":"hi"}"#]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "{\"body\":\"hi\"}\n");
}

#[test]
fn listen_prints_json_lines() {
    let serve = Serve::start();
    let mut listen = phx(&["listen", &serve.url, "--join", "room:lobby"]).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(listen.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    listen.kill().unwrap();
    listen.wait().unwrap();
    let event: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(event["type"], "joined");
    assert_eq!(event["topic"], "room:lobby");
}

#[test]
fn help_lists_exit_codes() {
    let output = run(&["--help"]);
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("Exit codes:"));
}

#[test]
fn environment_proxy_is_used() {
    let addr = free_addr();
    let mut command = phx(&["push", "wss://backend.invalid/socket/websocket", "t", "e", "{}"]);
    let output = command.env("HTTPS_PROXY", format!("http://{addr}")).output().unwrap();
    assert_fails(&output, 3, &format!("the proxy: {addr} could not be reached"));
    let output = command.env("HTTPS_PROXY", "socks4://h").output().unwrap();
    assert_fails(&output, 2, "HTTPS_PROXY");
}

#[test]
fn invalid_ca_file_is_bad_usage() {
    let url = "wss://localhost/socket/websocket";
    for file in ["no/such/file.pem", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")] {
        assert_fails(&run(&["push", url, "t", "e", "{}", "--ca", file]), 2, file);
    }
}

/// A file that is removed after the test.
struct Temporary(std::path::PathBuf);

impl Temporary {
    fn new(name: &str) -> Self {
        let name = format!("phx-cli-{}-{name}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.0).unwrap()
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Every command that has a help text.
const COMMANDS: [&[&str]; 11] = [
    &[],
    &["demo"],
    &["serve"],
    &["listen"],
    &["push"],
    &["cast"],
    &["run"],
    &["check"],
    &["replay"],
    &["completions"],
    &["man"],
];

fn help(command: &[&str]) -> String {
    let output = run(&[command, &["--help"]].concat());
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

/// Every help text has examples and exit codes, and fits in 80 columns.
#[test]
fn help_texts_are_complete() {
    for command in COMMANDS {
        let help = help(command);
        for line in help.lines() {
            assert!(line.chars().count() <= 80, "{command:?}: {line}");
        }
        assert!(help.contains("\n  phx "), "{command:?} has no example");
        assert!(help.contains("Exit codes:"), "{command:?} has no exit codes");
    }
}

/// The examples in the help of a command, with continued lines joined.
#[cfg(unix)]
fn examples(command: &str) -> Vec<String> {
    let help = help(&[command]).replace("\\\n", "");
    let examples = help.lines().filter(|line| line.starts_with("  phx "));
    examples.map(|line| line.trim().to_owned()).collect()
}

#[cfg(unix)]
#[test]
fn help_examples_run_against_serve() {
    let mut serve = phx(&["serve", "--addr", "127.0.0.1:0"]).spawn().unwrap();
    let mut url = String::new();
    BufReader::new(serve.stdout.as_mut().unwrap()).read_line(&mut url).unwrap();
    let serve = Serve { child: serve, url: url.trim().to_owned() };
    let folder = Temporary::new("examples");
    std::fs::create_dir(&folder.0).unwrap();
    let connections = json!({"connections": {"a": {
        "uri": serve.url,
        "auto_join_channels": ["room:lobby"],
    }}});
    std::fs::write(folder.0.join("connections.json"), connections.to_string()).unwrap();
    std::fs::write(folder.0.join("event.json"), "{\"n\": 1}").unwrap();
    let bin = std::path::Path::new(env!("CARGO_BIN_EXE_phx")).parent().unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let shell = |example: &str| {
        let example = example.replace("ws://127.0.0.1:4000/socket/websocket", &serve.url);
        let example = example.replace("--addr 127.0.0.1:4000", "--addr 127.0.0.1:0");
        let example = example.replace("--metrics 127.0.0.1:9464", "--metrics 127.0.0.1:0");
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("exec {example}")]).env("PATH", &path).current_dir(&folder.0);
        shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        shell
    };
    // Commands that end by themselves.
    for command in ["demo", "push", "cast", "check"] {
        for example in examples(command) {
            let output = shell(&example).output().unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{example}: {stderr}");
        }
    }
    // Commands that run until they are interrupted: they print a line, and exit with 0.
    for command in ["listen", "run"] {
        for example in examples(command) {
            // Only the first command of a pipeline is started, so that it can be interrupted.
            let (example, _) = example.split_once(" | ").unwrap_or((&example, ""));
            let mut child = shell(example).spawn().unwrap();
            let (line, _more) = first_line(&mut child);
            // The line is not JSON if the process has ended already; standard error has the reason.
            let json: serde_json::Result<Value> = serde_json::from_str(&line);
            if json.is_ok() {
                interrupt(&child);
            }
            let output = child.wait_with_output().unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            let status = output.status;
            assert!(json.is_ok() && status.success(), "{example}: {status}: {line}{stderr}");
        }
    }
    // Only the last example of `replay` is run: it replays a recording that one of the commands above
    // has written. The other examples are for `listen`.
    let replay = examples("replay").pop().unwrap();
    assert!(replay.starts_with("phx replay "), "{replay}");
    let output = shell(&replay).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::remove_dir_all(&folder.0).unwrap();
}

/// The first line that a process prints, and the reader of its other lines. Panics after a deadline.
#[cfg(unix)]
#[track_caller]
fn first_line(child: &mut Child) -> (String, impl Read + use<>) {
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let _ = reader.read_line(&mut line);
        let _ = sender.send((line, reader));
    });
    receiver.recv_timeout(DEADLINE).unwrap_or_else(|_| {
        child.kill().unwrap();
        panic!("it printed nothing")
    })
}

/// A script may end the server as soon as it has read the address.
#[cfg(unix)]
#[test]
fn serve_handles_signals_from_first_line() {
    let mut serve = phx(&["serve", "--addr", "127.0.0.1:0"]).spawn().unwrap();
    let (url, _more) = first_line(&mut serve);
    assert!(url.starts_with("ws://127.0.0.1:"), "{url}");
    interrupt(&serve);
    let status = serve.wait().unwrap();
    assert!(status.success(), "{status}");
}

/// Sends the signal of ctrl-c.
#[cfg(unix)]
fn interrupt(child: &Child) {
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
}

/// A session with a crashed channel and a killed connection. The recording contains no secret, and a
/// changed recording does not replay.
#[cfg(unix)]
#[test]
fn recorded_session_is_replayed() {
    const SECRET: &str = "s3cret-4711";
    let file = Temporary::new("session.jsonl");
    let mut command = phx(&["serve", "--addr", "127.0.0.1:0", "--token", SECRET]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut url = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut url).unwrap();
    let mut serve = Serve { child, url: url.trim().to_owned() };

    let url = format!("{}?key={SECRET}&{SECRET}", serve.url);
    let (param, header) = (format!("token={SECRET}"), format!("x-key={SECRET}"));
    let arguments = [
        &["listen", &url, "--join", "room:lobby", "--record", file.path()][..],
        &["--param", &param, "--header", &header],
    ];
    let mut listen = phx(&arguments.concat()).spawn().unwrap();
    let mut events = BufReader::new(listen.stdout.take().unwrap());
    let mut wait_for = |kind: &str| {
        let mut line = String::new();
        while !line.contains(&format!("\"type\":\"{kind}\"")) {
            line.clear();
            assert_ne!(events.read_line(&mut line).unwrap(), 0, "no {kind}");
        }
    };
    let mut type_line =
        |line: &str| writeln!(serve.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    wait_for("joined");
    type_line(&format!("broadcast room:lobby news {{\"token\":\"{SECRET}\"}}"));
    wait_for("message");
    type_line("crash room:lobby");
    wait_for("interrupted");
    wait_for("resumed");
    type_line("kill");
    wait_for("interrupted");
    wait_for("resumed");
    interrupt(&listen);
    assert!(listen.wait().unwrap().success());

    let recorded = file.text();
    assert!(!recorded.contains(SECRET), "{recorded}");
    let output = run(&["replay", file.path()]);
    let trace = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{trace}{}", String::from_utf8_lossy(&output.stderr));
    assert!(!trace.contains(SECRET) && !trace.contains('\x1b'), "{trace}");
    let expected = [
        "client#1 connect\n",
        "client#1 Connected\n",
        "client#1 join room:lobby\n",
        "\"phx_join\"",
        "client#1 Joined room:lobby\n",
        "client#1 Message room:lobby news\n",
        "client#1 Interrupted room:lobby (Crashed)\n",
        "client#1 RejoinAfter room:lobby",
        "client#1 Resumed room:lobby\n",
        "client#1 closed (lost: ",
        "client#1 Interrupted room:lobby (transport lost)\n",
        "client#1 ReconnectAfter ",
        "client#1 Connected\n",
        "\"phx_join\"",
        "client#1 Resumed room:lobby\n",
        "client#1 disconnect\n",
        "client#1 Closed\n",
    ];
    let mut rest = &*trace;
    for line in expected {
        rest = rest.split_once(line).unwrap_or_else(|| panic!("{line} is missing:\n{trace}")).1;
    }

    // A different outcome, and a truncated file.
    let other = Temporary::new("other.jsonl");
    std::fs::write(&other.0, recorded.replace("(attempt 1, transport lost)", "(attempt 9)"))
        .unwrap();
    let output = run(&["replay", other.path()]);
    assert_fails(&output, 1, "the replay `ReconnectAfter ");
    std::fs::write(&other.0, &recorded[..recorded.len() - 4]).unwrap();
    let last = recorded.lines().count();
    assert_fails(&run(&["replay", other.path()]), 2, &format!("line {last}: "));
}

/// `--record-payloads` adds the payloads to the recording.
#[test]
fn payloads_are_recorded_on_request() {
    let serve = Serve::start();
    let file = Temporary::new("payloads.jsonl");
    let push = ["push", &serve.url, "room:lobby", "echo", r#"{"body":"hi there"}"#];
    let record = ["--record", file.path()];
    assert!(run(&[&push[..], &record].concat()).status.success());
    assert!(!file.text().contains("hi there"));
    assert!(run(&[&push[..], &record, &["--record-payloads"]].concat()).status.success());
    assert_eq!(file.text().matches("hi there").count(), 3, "as a push, a frame and a reply");
    assert!(run(&["replay", file.path()]).status.success());
    let output = run(&[&push[..], &["--record-payloads"]].concat());
    assert_eq!(output.status.code(), Some(2), "it needs a file");
}

#[test]
fn failed_attempt_is_recorded() {
    let (url, server) = answering("HTTP/1.1 503 No\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n");
    let file = Temporary::new("failed.jsonl");
    let output = run(&["listen", &url, "--join", "t", "--record", file.path()]);
    assert_fails(&output, 4, "HTTP 503");
    server.join().unwrap();
    let trace = String::from_utf8(run(&["replay", file.path()]).stdout).unwrap();
    assert!(trace.contains("failed (refused 503)"), "{trace}");
}

#[test]
fn recording_error_names_the_file() {
    let file = "/nonexistent/folder/x.jsonl";
    let listen = ["listen", "ws://localhost:1/", "--join", "t", "--record", file];
    assert_fails(&run(&listen), 2, file);
    assert_fails(&run(&["replay", file]), 2, file);
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    assert_fails(&run(&["replay", manifest]), 2, "line 1: not the header of a recording");
}

#[cfg(target_os = "linux")]
#[test]
fn incomplete_recording_fails_the_command() {
    let serve = Serve::start();
    let push = ["push", &serve.url, "room:lobby", "echo", "{}", "--record", "/dev/full"];
    assert_fails(&run(&push), 1, "/dev/full: the recording is incomplete");
}

/// The failure of the command decides the exit code, and the failure of the recording is printed
/// all the same.
#[cfg(target_os = "linux")]
#[test]
fn connection_failure_hides_no_incomplete_recording() {
    // Nothing listens on the port of the first; the second accepts, and answers nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("ws://{}/socket/websocket", silent.local_addr().unwrap());
    for url in ["ws://127.0.0.1:1/", &silent] {
        let record = ["--record", "/dev/full", "--timeout", "1s"];
        let output = run(&[&["push", url, "room:lobby", "echo", "{}"], &record[..]].concat());
        let lines = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{lines}");
        assert!(lines.contains("/dev/full: the recording is incomplete"), "{lines}");
        assert!(lines.contains(url), "{lines}");
    }
}

#[test]
fn piped_output_has_no_colour() {
    for args in [&["demo"][..], &["push", "http://x/", "t", "e", "{}"]] {
        let output = phx(args).env("TERM", "xterm-256color").output().unwrap();
        assert!(!output.stdout.contains(&0x1b) && !output.stderr.contains(&0x1b));
    }
}

#[test]
fn completions_and_man_cover_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = run(&["completions", shell]);
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success());
        for command in COMMANDS.iter().filter_map(|command| command.first()) {
            assert!(script.contains(command), "{shell}: {command}");
        }
        assert!(script.contains("subscribe"), "{shell}: an option is missing");
    }
    for command in COMMANDS {
        let output = run(&[&["man"], command].concat());
        let page = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success());
        let title = [&["phx"], command].concat().join("-");
        assert!(page.contains(&format!(".TH {title} 1")), "{page}");
        // Escaped for roff.
        let name = title.replace('-', "\\-");
        assert!(page.contains(&format!("{name} \\- ")), "{page}");
        assert!(page.contains("Exit codes:"), "{command:?}");
    }
    assert_fails(&run(&["man", "dance"]), 2, "unknown command \"dance\"");
    assert_eq!(run(&["completions", "dance"]).status.code(), Some(2));
}

/// bash sources the script and completes a command.
#[cfg(unix)]
#[test]
fn bash_completions_work() {
    let script = run(&["completions", "bash"]).stdout;
    let file = Temporary::new("completions.bash");
    std::fs::write(&file.0, script).unwrap();
    let complete = "source \"$1\"; COMP_WORDS=(phx ru); COMP_CWORD=1; _phx phx ru phx; \
                    echo \"${COMPREPLY[*]}\"";
    let mut bash = Command::new("bash");
    let Ok(output) = bash.args(["-c", complete, "bash", file.path()]).output() else { return };
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "run");
}

#[test]
fn check_schema_prints_the_schema() {
    let output = run(&["check", "--schema"]);
    assert!(output.status.success());
    let schema: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(schema, phx_tokio::Connections::json_schema());
    assert_eq!(run(&["check"]).status.code(), Some(2));
    assert_eq!(run(&["check", "--schema", "connections.json"]).status.code(), Some(2));
}

/// Users paste URLs with their `vsn`, which selects the serializer.
#[test]
fn url_vsn_selects_serializer() {
    let serve = Serve::start();
    for vsn in ["1.0.0", "2.0.0"] {
        let url = format!("{}?vsn={vsn}", serve.url);
        let output = run(&["push", &url, "room:lobby", "echo", r#"{"a":1}"#]);
        assert_eq!(output.status.code(), Some(0), "{vsn}: {output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), r#"{"a":1}"#, "{vsn}");
    }
    let unknown = format!("{}?vsn=7.0.0", serve.url);
    assert_fails(&run(&["push", &unknown, "room:lobby", "echo", "{}"]), 2, "vsn");
}
