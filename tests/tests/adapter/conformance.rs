//! The table of scenarios and targets, and the checks that no scenario is skipped without a reason.
//!
//! A cell of the table is `yes`, or contains the reason for a skip in brackets. Every `yes`
//! produces two tests, one for each transport: `conformance::<scenario>::<target>` over
//! tungstenite, and `conformance::<scenario>::websocket::<target>` over phx's own WebSocket.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use phx_tests::resources;
use phx_tests::waiting::wait_until;

use super::scenarios;
use super::stage::{Target, play};
use crate::rt::phx::config::TransportKind;

macro_rules! cell {
    ($scenario:ident $test:ident $target:ident yes) => {
        #[test]
        fn $test() {
            play(Target::$target, TRANSPORT, scenarios::$scenario);
        }
    };
    ($scenario:ident $test:ident $target:ident ($why:literal)) => {};
}

macro_rules! reason {
    (yes) => {
        None
    };
    (($why:literal)) => {
        Some($why)
    };
}

macro_rules! conformance {
    ($($scenario:ident: $loopback:tt $tls:tt $faulty:tt $phoenix:tt;)*) => {
        $(mod $scenario {
            use super::{Target, TransportKind, play, scenarios};

            const TRANSPORT: TransportKind = TransportKind::Tungstenite;
            cell!($scenario loopback Loopback $loopback);
            cell!($scenario tls Tls $tls);
            cell!($scenario faulty Faulty $faulty);
            cell!($scenario phoenix Phoenix $phoenix);

            mod websocket {
                use super::{Target, TransportKind, play, scenarios};

                const TRANSPORT: TransportKind = TransportKind::WebSocket;
                cell!($scenario loopback Loopback $loopback);
                cell!($scenario tls Tls $tls);
                cell!($scenario faulty Faulty $faulty);
                cell!($scenario phoenix Phoenix $phoenix);
            }
        })*

        /// Each scenario, with `yes` or the reason for a skip for each target.
        const TABLE: &[(&str, [Option<&str>; 4])] = &[$((
            stringify!($scenario),
            [reason!($loopback), reason!($tls), reason!($faulty), reason!($phoenix)],
        )),*];
    };
}

const TARGETS: [&str; 4] = ["loopback", "tls", "faulty", "phoenix"];

const TRANSPORTS: [&str; 2] = ["", "websocket::"];

conformance! {
//  scenario                            loopback tls faulty phoenix
    joins:                              yes      yes yes    yes;
    auto_joins:                         yes      yes yes    yes;
    leaves:                             yes      yes yes    yes;
    replies_of_every_status:            yes      yes yes    yes;
    binary_both_ways:                   yes      yes yes    yes;
    broadcasts:                         yes      yes yes    yes;
    presence:                           yes      yes yes    yes;
    crash_and_rejoin:                   yes      yes yes    yes;
    server_closes_channel:              yes      yes yes    yes;
    transport_killed:                   yes      yes yes    yes;
    kicked_by_id:                       yes      yes yes    yes;
    kill_and_restart:                   yes      yes yes    ("the test cannot restart it");
    server_shutdown:                    yes      yes yes    ("the test cannot stop it");
    hundred_drops:                      yes      yes yes    yes;
    idle_timeout:                       yes      yes yes    ("its timeout of 60 s is too long for a test");
    large_payloads:                     yes      yes yes    yes;
    refused_upgrades:                   yes      yes yes    yes;
    refused_reconnects:                 yes      yes yes    ("its refusals cannot be scripted");
    params_and_headers:                 yes      yes yes    yes;
    auth_token:                         yes      yes yes    yes;
    wrong_authority:                    ("no TLS") yes ("no TLS") ("no TLS");
    silent_host:                        yes      yes yes    ("Phoenix is never silent");
    slow_consumer:                      yes      yes yes    yes;
    catches_up:                         yes      yes yes    yes;
    fifty_channels:                     yes      yes yes    yes;
    unicode_topics:                     yes      yes yes    yes;
    shutdown_finishes_pushes:           yes      yes yes    yes;
    shutdown_reports_unfinished_pushes: yes      yes yes    yes;
    dropped_handles:                    yes      yes yes    yes;
    want_before_server_starts:          yes      yes yes    ("the test cannot start it");
    wanted_topics:                      yes      yes yes    yes;
    typed_calls:                        yes      yes yes    yes;
    streams_of_events:                  yes      yes yes    yes;
    observers_end_with_the_client:      yes      yes yes    yes;
    repeats_are_bounded:                yes      yes yes    yes;
    lost_push_is_repeated:              yes      yes yes    ("its replies cannot be held");
    unrouted_messages:                  yes      yes yes    ("it has no Absinthe");
    half_open_and_stalled:              ("no proxy") ("no proxy") yes ("no proxy");
    slow_link:                          ("no proxy") ("no proxy") yes ("no proxy");
    cut_anywhere:                       ("no proxy") ("no proxy") yes ("no proxy");
    random_faults:                      ("no proxy") ("no proxy") yes ("no proxy");
}

#[test]
fn scenarios_are_in_the_table() {
    let lines = scenarios::SOURCES.iter().flat_map(|source| source.lines());
    let names = lines.filter_map(|line| line.strip_prefix("pub(in super::super) async fn "));
    let written: BTreeSet<&str> = names.filter_map(|rest| rest.split('(').next()).collect();
    let listed: BTreeSet<&str> = TABLE.iter().map(|(name, _)| *name).collect();
    assert_eq!(written, listed);
    assert_eq!(listed.len(), TABLE.len(), "each once");
}

/// Each scenario runs on each target, or the table has a reason. The test binary lists its tests,
/// so a test that a macro omits is detected.
#[test]
fn scenarios_run_or_name_a_reason() {
    let this = std::env::current_exe().unwrap();
    let output = Command::new(this).args(["--list", "--format", "terse"]).output().unwrap();
    let output = String::from_utf8(output.stdout).unwrap();
    let tests: BTreeSet<&str> =
        output.lines().filter_map(|line| line.strip_suffix(": test")).collect();
    let mut runs = 0;
    for (scenario, cells) in TABLE {
        let each = TARGETS.iter().zip(cells);
        let each = each.flat_map(|cell| TRANSPORTS.map(|transport| (cell, transport)));
        for ((target, why), transport) in each {
            let test = format!("{}::{scenario}::{transport}{target}", module_path());
            match why {
                None => assert!(tests.contains(&*test), "{test} is not among the tests"),
                Some(why) => {
                    assert!(!why.is_empty(), "{test} is skipped without a reason");
                    assert!(!tests.contains(&*test), "{test}");
                }
            }
            runs += usize::from(why.is_none());
        }
        assert!(cells.iter().any(Option::is_none), "{scenario} runs nowhere");
    }
    let cells = tests.iter().filter(|test| test.starts_with(&format!("{}::", module_path())));
    // The only other tests in this module are its three checks.
    assert_eq!(cells.count(), runs + 3);
}

/// Threads and files are counted for the whole process, so this test starts a separate process.
#[test]
fn clients_leave_no_threads_or_files() {
    const ALONE: &str = "PHX_TEST_ALONE";
    if std::env::var_os(ALONE).is_none() {
        let name = format!("{}::clients_leave_no_threads_or_files", module_path());
        let mut this = Command::new(std::env::current_exe().unwrap());
        this.args(["--exact", &name, "--nocapture"]).env(ALONE, "yes");
        let output = this.output().unwrap();
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success() && out.contains("1 passed"), "{out}\n{err}");
        return;
    }
    let targets = [Target::Loopback, Target::Tls, Target::Faulty];
    let transports = [TransportKind::Tungstenite, TransportKind::WebSocket];
    let over_each = |play: &dyn Fn(TransportKind)| transports.into_iter().for_each(play);
    // The first run creates what a runtime creates once and keeps, such as a reactor and its
    // thread, so that it is not counted.
    targets.iter().for_each(|target| over_each(&|kind| play(*target, kind, scenarios::joins)));
    let before = settled();
    over_each(&|transport| {
        for target in targets {
            play(target, transport, scenarios::transport_killed);
            play(target, transport, scenarios::shutdown_reports_unfinished_pushes);
            play(target, transport, scenarios::dropped_handles);
        }
        play(Target::Tls, transport, scenarios::wrong_authority);
        play(Target::Faulty, transport, scenarios::kill_and_restart);
        play(Target::Faulty, transport, scenarios::random_faults);
    });
    // A pool keeps an idle thread for a while, and a thread that ends is counted until it has
    // ended.
    let is_gone = wait_until(|| {
        let now = count();
        now.0 <= before.0 && now.1 <= before.1
    });
    assert!(is_gone, "{before:?} became {:?}", count());
}

/// Threads and open files.
fn count() -> (usize, usize) {
    (resources::threads().unwrap(), resources::open_files().unwrap())
}

/// Threads and open files, as soon as they have not changed for longer than a pool keeps an idle
/// thread. Counting a thread that is about to end would only make the comparison less strict.
fn settled() -> (usize, usize) {
    let mut last = (count(), Instant::now());
    let is_settled = wait_until(|| {
        let now = count();
        if now != last.0 {
            last = (now, Instant::now());
        }
        last.1.elapsed() > Duration::from_millis(700)
    });
    assert!(is_settled, "the number of threads or files keeps changing");
    last.0
}

/// The module path as the test harness prints it: without the name of the binary.
fn module_path() -> &'static str {
    module_path!().split_once("::").expect("a module of the binary").1
}
