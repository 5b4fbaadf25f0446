//! Secrets come from variables and files, so that the list of processes does not show them.

#![cfg(target_os = "linux")]

mod process;

use std::process::Output;

use phx_tokio::testing::ServerConfig;
use process::{Process, Stand, Temporary, phx};
use rustix::process::Signal;
use serde_json::Value;

const SECRET: &str = "s3cret-4711";

/// What the server knows of a socket that was given these options.
#[track_caller]
fn whoami(stand: &Stand, options: &[&str]) -> Value {
    let push = ["push", &stand.url(), "room:a", "whoami", "{}"];
    let mut command = phx(&[&push[..], options].concat());
    let output = command.env("PHX_TEST_SECRET", SECRET).output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{log}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Each way to hand over a secret works from a variable and from a file, whose last line break and
/// byte order mark are no part of it.
#[test]
fn secrets_from_variables_and_files_arrive() {
    let stand = Stand::with(ServerConfig::default().token(SECRET));
    let file = Temporary::new("secret");
    file.write(format!("\u{feff}{SECRET}\r\n"));
    let named = |name: &str| format!("{name}={}", file.path());
    let token = ["--token-env", "PHX_TEST_SECRET"];
    assert_eq!(whoami(&stand, &token)["params"]["token"], SECRET);
    assert_eq!(whoami(&stand, &["--token-file", file.path()])["params"]["token"], SECRET);
    let also = |options: &[&str]| whoami(&stand, &[&token[..], options].concat());
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

/// Join parameters, too; beside others they are members of one object. A recording has its length.
#[test]
fn join_parameters_from_variables_and_files_arrive() {
    let stand = Stand::new();
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
    let url = stand.url();
    args[1] = &url;
    args.extend(options.iter().flatten());
    let mut command = phx(&args);
    command.env("PHX_TEST_SECRET", SECRET);
    let mut process = Process::start(command);
    process.first_line();
    let shown = std::fs::read(format!("/proc/{}/cmdline", process.child.id())).unwrap();
    assert!(!String::from_utf8_lossy(&shown).contains(SECRET));
    process.signal(Signal::TERM);
    assert_eq!(process.code(), Some(0));
    let whole = format!(r#"{{"level":3,"other":"{SECRET}","token":"{SECRET}"}}"#);
    assert!(recording.text().contains(&format!(":{}}}", whole.len())), "{}", recording.text());
    assert!(!recording.text().contains(SECRET));
}

fn run(args: &[&str]) -> Output {
    phx(args).env("PHX_TEST_EMPTY", "").output().unwrap()
}

/// A secret that is not there is bad usage: the variable or file is named, before anything is dialled.
#[test]
fn missing_secrets_are_named() {
    let empty = Temporary::new("empty");
    empty.write("\n");
    let large = Temporary::new("large");
    large.write("x".repeat(100_000));
    for (option, value, what) in [
        ("--token-env", "PHX_TEST_NO_SUCH", "PHX_TEST_NO_SUCH is not set"),
        ("--auth-token-env", "PHX_TEST_EMPTY", "PHX_TEST_EMPTY is empty"),
        ("--param-env", "a=PHX_TEST_NO_SUCH", "PHX_TEST_NO_SUCH is not set"),
        ("--header-env", "x-a=PHX_TEST_NO_SUCH", "PHX_TEST_NO_SUCH is not set"),
        ("--join-param-env", "a=PHX_TEST_NO_SUCH", "PHX_TEST_NO_SUCH is not set"),
        ("--token-file", "/nonexistent/token", "/nonexistent/token"),
        ("--auth-token-file", empty.path(), "the file is empty"),
        ("--token-file", large.path(), "more than"),
    ] {
        let url = "ws://127.0.0.1:1/socket/websocket";
        let output = run(&["push", url, "room:a", "echo", "{}", option, value]);
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{option}: {log}");
        assert!(log.contains(what), "{option}: {log}");
    }
}

/// `phx serve` takes its token in the same ways.
#[test]
fn serve_takes_its_token_from_a_variable_or_a_file() {
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
        assert_eq!(serve.code(), Some(0));
    }
}

/// Help names the ways that keep a secret before those that do not.
#[test]
fn help_names_variables_and_files_first() {
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
