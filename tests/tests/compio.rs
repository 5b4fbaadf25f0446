//! The conformance list for a single-threaded adapter, whose streams, timers, dialling and tasks are not
//! `Send`.
#![allow(clippy::arc_with_non_send_sync, reason = "the tests' clock serves every adapter")]

#[allow(dead_code, reason = "the conformance list uses only a part of it")]
mod adapter {
    mod certificates;
    mod clock;
    mod conformance;
    mod scenarios;
    mod stage;
    mod tracked;

    use crate::rt::Runtime;
    use crate::rt::phx::client;

    /// `start` only requires a runtime that can spawn its driver, and the driver need not be `Send`.
    #[test]
    fn local_driver_can_be_spawned() {
        fn can_spawn<R: client::Runtime + client::Spawn<client::Driver<R>>>(_: &R) {}
        can_spawn(&Runtime::new());
    }
}

/// The adapter under test and its runtime.
mod rt {
    use core::future::Future;
    use core::time::Duration;

    pub(crate) use phx_compio as phx;
    pub(crate) use phx_compio::CompioRuntime as Runtime;
    use phx_tests::waiting::TEST_DEADLINE;

    pub(crate) async fn sleep(duration: Duration) {
        compio::time::sleep(duration).await;
    }

    /// Runs a test, and fails if it hangs.
    pub(crate) fn block_on<T>(test: impl Future<Output = T>) -> T {
        let runtime = compio::runtime::Runtime::new().unwrap();
        runtime
            .block_on(async { compio::time::timeout(TEST_DEADLINE, test).await.expect("it hangs") })
    }
}
