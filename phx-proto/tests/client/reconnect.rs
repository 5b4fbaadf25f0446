//! Reconnecting through the driver: addresses, clocks and joins that wait.

use core::pin::pin;

use crate::bench::{Bench, poll, ready};
use crate::hand::secs;
use phx_proto::config::Backoff;
use phx_proto::event::NotRetrying;
use phx_proto::{Cause, Status};
use serde_json::json;

fn dial_failure() -> Cause {
    Cause::Dial { kind: phx_proto::event::DialKind::Refused, message: "refused".into() }
}

/// For every attempt, the runtime gets the host name and not an address from an earlier attempt, so
/// it resolves the name again. Reported in firezone/firezone#7289 and firezone/firezone#10853.
#[test]
fn attempt_gets_the_host_name() {
    let mut bench = Bench::new(|config| config);
    for _ in 0..3 {
        bench.memory.world().failures.push_back(dial_failure());
        bench.cut();
        (0..4).for_each(|_| bench.advance(secs(3)));
        assert_eq!(bench.client.status(), Status::Open);
    }
    let world = bench.memory.world();
    assert_eq!(world.dials, 7);
    assert!(world.requests.iter().all(|request| request.uri.host() == "localhost"));
}

#[test]
fn join_waits_through_disconnects() {
    let mut bench = Bench::new(|config| config);
    let client = bench.client.clone();
    let mut join = pin!(client.join("room:lobby", json!({})));
    assert!(poll(join.as_mut()).is_pending());
    bench.settle();
    for _ in 0..3 {
        bench.cut();
        assert!(poll(join.as_mut()).is_pending());
        bench.advance(secs(6));
        assert_eq!(bench.last_sent()[3], "phx_join");
    }
    bench.reply("ok", json!({}));
    assert!(ready(join.as_mut()).is_ok());
    assert_eq!(bench.memory.world().to_server.len(), 4);
}

#[test]
fn wall_clock_jump_is_a_wake() {
    for (jump, wakes) in [(secs(1), false), (secs(3), true)] {
        // With an open connection, the peer is probed at once.
        let mut bench = Bench::new(|config| config);
        let _room = bench.joined("room:lobby");
        bench.memory.world().slept += jump;
        bench.settle();
        assert_eq!(bench.last_sent()[3] == "heartbeat", wakes, "{jump:?}");
        // While the client waits for its next attempt, a jump of the clock ends that wait.
        let steps = Backoff::steps_msec(&[60_000]).unwrap();
        let mut bench = Bench::new(|config| config.reconnect_after(steps));
        bench.memory.world().failures.push_back(dial_failure());
        bench.cut();
        bench.advance(secs(1));
        let dials = bench.memory.world().dials;
        bench.memory.world().slept += jump;
        bench.settle();
        assert_eq!(bench.memory.world().dials > dials, wakes, "{jump:?}");
    }
}

#[test]
fn client_can_connect_now_and_probe() {
    let steps = Backoff::steps_msec(&[60_000]).unwrap();
    let mut bench = Bench::new(|config| config.reconnect_after(steps));
    assert_eq!(bench.client.connect_now(), Ok(()), "open: nothing to do");
    bench.client.probe().expect("open");
    bench.settle();
    assert_eq!(bench.last_sent()[3], "heartbeat");
    bench.memory.world().failures.push_back(dial_failure());
    bench.cut();
    bench.advance(secs(1));
    assert!(bench.client.probe().is_err(), "no connection to probe");
    assert!(matches!(bench.client.status(), Status::Waiting { .. }));
    bench.client.connect_now().expect("a connection is kept");
    bench.settle();
    bench.client.connect_now().expect("a connection is kept");
    bench.settle();
    assert_eq!(bench.client.status(), Status::Open);
    let client = bench.client.clone();
    let mut disconnect = pin!(client.disconnect());
    assert!(poll(disconnect.as_mut()).is_pending());
    bench.settle();
    ready(disconnect.as_mut());
    assert_eq!(bench.client.connect_now(), Err(NotRetrying));
}
