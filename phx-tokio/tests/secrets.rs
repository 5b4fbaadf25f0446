//! Secrets come from variables and files, so that the list of processes does not show them.

#![cfg(target_os = "linux")]

mod support;

use std::ffi::OsStr;
use std::fs::Permissions;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use phx_tokio::testing::ServerConfig;
use rustix::process::Signal;
use serde_json::Value;
use support::process::{Process, Temporary, TestServer, phx};

const SECRET: &str = "s3cret-4711";

/// The server's view of a socket that was opened with these options.
#[track_caller]
fn whoami(server: &TestServer, options: &[&str]) -> Value {
    let push = ["push", &server.url(), "room:a", "whoami", "{}"];
    let mut command = phx(&[&push[..], options].concat());
    let output = command.env("PHX_TEST_SECRET", SECRET).output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{log}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Each kind of secret can come from a variable or a file, whose byte order mark and last line break are
/// ignored.
#[test]
fn secrets_from_variables_and_files_arrive() {
    let server = TestServer::with_config(ServerConfig::default().token(SECRET));
    let file = Temporary::new("secret");
    file.write(format!("\u{feff}{SECRET}\r\n"));
    let named = |name: &str| format!("{name}={}", file.path());
    let token = ["--token-env", "PHX_TEST_SECRET"];
    assert_eq!(whoami(&server, &token)["params"]["token"], SECRET);
    assert_eq!(whoami(&server, &["--token-file", file.path()])["params"]["token"], SECRET);
    let also = |options: &[&str]| whoami(&server, &[&token[..], options].concat());
    for options in [["--auth-token-env", "PHX_TEST_SECRET"], ["--auth-token-file", file.path()]] {
        assert_eq!(also(&options)["auth_token"], SECRET, "{options:?}");
    }
    for options in [["--param-env", "key=PHX_TEST_SECRET"], ["--param-file", &named("key")]] {
        assert_eq!(also(&options)["params"]["key"], SECRET, "{options:?}");
    }
    for options in [["--header-env", "x-key=PHX_TEST_SECRET"], ["--header-file", &named("x-key")]] {
        let headers = also(&options)["x_headers"].to_string();
        assert!(headers.contains("x-key") && headers.contains(SECRET), "{options:?}: {headers}");
    }
}

/// Secret join parameters are merged with the others. A recording contains only the length of the
/// parameters, not their text.
#[test]
fn secret_join_parameters_arrive() {
    let server = TestServer::new();
    let file = Temporary::new("secret");
    file.write(SECRET);
    let from_file = format!("other={}", file.path());
    let options = [
        ["--join-params", r#"{"level":3}"#],
        ["--join-param-env", "token=PHX_TEST_SECRET"],
        ["--join-param-file", &from_file],
    ];
    let recording = Temporary::new("join.jsonl");
    let mut args = vec!["listen", "", "--join", "room:a", "--record", recording.path()];
    let url = server.url();
    args[1] = &url;
    args.extend(options.iter().flatten());
    let mut command = phx(&args);
    command.env("PHX_TEST_SECRET", SECRET);
    let mut process = Process::start(command);
    process.first_line();
    let shown = std::fs::read(format!("/proc/{}/cmdline", process.child.id())).unwrap();
    assert!(!String::from_utf8_lossy(&shown).contains(SECRET));
    process.signal(Signal::TERM);
    assert_eq!(process.exit_code(), Some(0));
    let whole = format!(r#"{{"level":3,"other":"{SECRET}","token":"{SECRET}"}}"#);
    assert!(recording.text().contains(&format!(":{}}}", whole.len())), "{}", recording.text());
    assert!(!recording.text().contains(SECRET));
}

/// A recording may replace a file that others could read.
#[test]
fn recording_is_readable_by_owner_only() {
    let server = TestServer::new();
    let recording = Temporary::new("mode.jsonl");
    recording.write("old");
    std::fs::set_permissions(recording.path(), Permissions::from_mode(0o644)).unwrap();
    let push = ["push", &server.url(), "room:a", "echo", "--record", recording.path()];
    assert!(run(&push).status.success());
    let mode = std::fs::metadata(recording.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

fn run(args: &[&str]) -> Output {
    let odd = OsStr::from_bytes(b"p\xff");
    phx(args).env("PHX_TEST_EMPTY", "").env("PHX_TEST_ODD", odd).output().unwrap()
}

/// A missing secret is bad usage: the error names the option or the file, before anything is dialled.
#[test]
fn missing_secrets_are_named() {
    let empty = Temporary::new("empty");
    empty.write("\n");
    let large = Temporary::new("large");
    large.write("x".repeat(100_000));
    for (option, value, what) in [
        ("--token-env", "PHX_TEST_NO_SUCH", "not the name of a variable that is set"),
        ("--auth-token-env", "PHX_TEST_EMPTY", "the variable PHX_TEST_EMPTY is empty"),
        ("--token-env", "PHX_TEST_ODD", "the variable PHX_TEST_ODD is not UTF-8"),
        ("--param-env", "a=PHX_TEST_NO_SUCH", "not the name of a variable that is set"),
        ("--header-env", "x-a=PHX_TEST_NO_SUCH", "not the name of a variable that is set"),
        ("--join-param-env", "a=PHX_TEST_NO_SUCH", "not the name of a variable that is set"),
        ("--token-file", "/nonexistent/token", "/nonexistent/token"),
        ("--auth-token-file", empty.path(), "the file is empty"),
        ("--token-file", large.path(), "more than"),
    ] {
        let url = "ws://127.0.0.1:1/socket/websocket";
        let output = run(&["push", url, "room:a", "echo", "{}", option, value]);
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{option}: {log}");
        assert!(log.contains(what), "{option}: {log}");
        assert!(log.contains(option) || option.ends_with("-file"), "{option}: {log}");
    }
}

/// A secret that is given in place of a name, or in the form of another tool, is not repeated in the error.
#[test]
fn misplaced_secrets_are_not_repeated() {
    const JWT: &str = "eyJhbGciOiJub25lIn0.s3cret-4711.c2ln";
    for (option, value) in [
        ("--token-env", JWT.to_owned()),
        ("--auth-token-env", JWT.to_owned()),
        ("--param-env", format!("token={JWT}")),
        ("--header-env", format!("x-key={JWT}")),
        ("--join-param-env", format!("token={JWT}")),
        ("--param", JWT.to_owned()),
        ("--header", format!("authorization: Bearer {JWT}")),
        ("--header-env", format!("authorization: Bearer {JWT}")),
        ("--param-file", JWT.to_owned()),
        // The characters of these tokens may all be part of the name of a variable, as in base 32.
        ("--token-env", "S3CRET4711".to_owned()),
        ("--header-env", "x-key=S3CRET4711".to_owned()),
        ("--token-env", "ghp_s3cret4711".to_owned()),
        ("--param-env", "token=ghp_s3cret4711".to_owned()),
    ] {
        let url = "ws://127.0.0.1:1/socket/websocket";
        let output = run(&["push", url, "room:a", "echo", "{}", option, &value]);
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{option}: {log}");
        assert!(!log.to_lowercase().contains("s3cret"), "{option}: {log}");
        assert!(log.contains(option), "{option}: {log}");
    }
}

/// `phx serve` takes its token in the same ways.
#[test]
fn serve_reads_token_from_variable_or_file() {
    let file = Temporary::new("token");
    file.write(SECRET);
    for option in [["--token-env", "PHX_TEST_SECRET"], ["--token-file", file.path()]] {
        let mut command = phx(&[&["serve", "--addr", "127.0.0.1:0"][..], &option].concat());
        command.env("PHX_TEST_SECRET", SECRET);
        let mut serve = Process::start(command);
        let url = serve.first_line();
        let push = ["push", url.trim(), "room:a", "echo", "{}"];
        assert_eq!(phx(&push).output().unwrap().status.code(), Some(4));
        let good = [&push[..], &["--token-file", file.path()]].concat();
        assert!(phx(&good).output().unwrap().status.success());
        serve.signal(Signal::TERM);
        assert_eq!(serve.exit_code(), Some(0));
    }
}

/// An empty token is bad usage, as in a variable or a file: it would let every client in that sends an empty one.
#[test]
fn serve_refuses_an_empty_token() {
    let output = run(&["serve", "--addr", "192.0.2.1:0", "--token", ""]);
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Help lists the options that keep a secret before those that expose it.
#[test]
fn help_lists_safe_options_first() {
    for command in ["listen", "push", "cast", "serve"] {
        let output = phx(&[command, "--help"]).output().unwrap();
        let help = String::from_utf8(output.stdout).unwrap();
        let at = |option: &str| help.find(option).unwrap_or_else(|| panic!("{option}: {help}"));
        match command {
            "serve" => assert!(at("--token-file <FILE>") < at("--token <VALUE>")),
            _ => assert!(at("--header-file <NAME=FILE>") < at("--param <NAME=VALUE>")),
        }
    }
}
