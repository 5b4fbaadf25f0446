//! Included by `transport/resolve.rs`: callers that request the same name share one look-up.

use super::*;
use crate::schedules::world::{finish, run};
use crate::schedules::{search, wait};

fn pool() -> Arc<Pool> {
    Pool::new(|host| {
        shuttle::thread::yield_now();
        match host {
            "panics" => panic!("on purpose"),
            _ => Ok(vec![SocketAddr::from(([10, 0, 0, 1], 0))]),
        }
    })
}

/// Waits until no thread of the pool is left.
fn at_rest(pool: &Pool) {
    loop {
        let state = pool.lock();
        if state.threads == 0 {
            assert_eq!((state.queue.len(), state.flights.len()), (0, 0));
            return;
        }
        drop(state);
        thread::yield_now();
    }
}

/// Waiters of a look-up are added and dropped. Every waiter that is not dropped gets the answer.
#[test]
fn schedule_lookup_answers_all_who_stay() {
    search(|| {
        let pool = pool();
        let ask = |host: &str| run(pool.ask(host));
        let cancelled = [ask("host"), ask("other")];
        let kept = [ask("host"), ask("host")];
        cancelled.iter().for_each(shuttle::future::JoinHandle::abort);
        let late = {
            let pool = Arc::clone(&pool);
            run(async move { pool.ask("other").await })
        };
        for answer in kept.into_iter().chain([late]) {
            assert_eq!(finish(answer).expect("an address").len(), 1);
        }
        cancelled.into_iter().for_each(|asking| drop(wait(asking)));
        at_rest(&pool);
    });
}

/// All waiters of a look-up are dropped. The look-up ends, and the next one is answered.
#[test]
fn schedule_lookup_that_all_gave_up_ends() {
    search(|| {
        let pool = pool();
        let asking = ["host", "host", "other"].map(|host| run(pool.ask(host)));
        asking.iter().for_each(shuttle::future::JoinHandle::abort);
        asking.into_iter().for_each(|asking| drop(wait(asking)));
        finish(run(pool.ask("host"))).expect("an address");
        at_rest(&pool);
    });
}
