//! Name resolution: the client uses none of the runtime's blocking threads, and the caller may
//! supply a resolver.

use std::process::Command;
use std::sync::{Arc, Mutex};

use crate::rt::phx::event::Cause;
use crate::rt::phx::socket::Status;
use crate::rt::phx::testing::{Listener, ServerConfig};
use crate::rt::phx::{self, Config};
use crate::rt::{Runtime, block_on, without_blocking_threads};

async fn listen() -> Listener {
    Listener::bind(([127, 0, 0, 1], 0).into(), ServerConfig::default()).await.expect("a port")
}

#[test]
fn custom_resolver_is_used() {
    block_on(async {
        let listener = listen().await;
        let (addr, asked) = (listener.addr(), Arc::new(Mutex::new(Vec::new())));
        let log = Arc::clone(&asked);
        let runtime = Runtime::new().resolve_with(move |host, port| {
            log.lock().expect("no panic").push((host, port));
            async move { Ok(vec![addr]) }
        });
        let config = Config::insecure("ws://backend.invalid:4711/socket/websocket");
        let client = phx::client::connect(config.expect("an address"), runtime).await;
        assert_eq!(client.expect("it is open").status(), Status::Open);
        let asked = asked.lock().expect("no panic");
        assert_eq!(*asked, [("backend.invalid".to_owned(), 4711)]);
    })
}

#[test]
fn custom_resolver_may_fail() {
    block_on(async {
        let runtime =
            Runtime::new().resolve_with(|_, _| async { Err(std::io::ErrorKind::NotFound.into()) });
        let config = Config::insecure("ws://backend.invalid/socket/websocket");
        let failed = phx::client::connect(config.expect("an address"), runtime).await;
        let Cause::Dial { message, .. } = failed.expect_err("no address").cause else {
            panic!("a failure to dial");
        };
        assert!(
            message.starts_with("the name \"backend.invalid\" could not be resolved"),
            "{message}"
        );
    })
}

/// When a name server was down, 600 clients used all 512 blocking threads of a tokio process, which
/// blocked the process's file I/O until the resolver timed out (tokio-rs/tokio#5338).
///
/// On smol the number of threads is a setting of the whole process, so the test starts a process of its
/// own, in which the only blocking thread is occupied.
#[test]
fn name_resolution_takes_no_blocking_thread() {
    const CHILD: &str = "PHX_TEST_WITHOUT_BLOCKING_THREADS";
    if std::env::var_os(CHILD).is_none() {
        let name = "adapter::resolve::name_resolution_takes_no_blocking_thread";
        let child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", name, "--nocapture"])
            .envs([(CHILD, "1"), ("BLOCKING_MAX_THREADS", "1")])
            .output()
            .expect("it starts");
        let output = String::from_utf8_lossy(&child.stdout);
        let errors = String::from_utf8_lossy(&child.stderr);
        assert!(child.status.success() && output.contains("1 passed"), "{output}{errors}");
        return;
    }
    without_blocking_threads(async {
        let listener = listen().await;
        let url = format!("ws://localhost:{}/socket/websocket", listener.addr().port());
        let client = phx::connect(Config::new(&url).expect("an address")).await;
        assert_eq!(client.expect("it is open").status(), Status::Open);
    })
}
