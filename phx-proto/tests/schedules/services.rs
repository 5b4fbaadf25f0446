//! The bus and the supervisor.

use core::time::Duration;
use std::collections::BTreeMap;

use serde_json::json;

use super::world::{World, calling, config, finish, polled_once, run, with_two_wakers};
use super::{search, search_few, wait};
use crate::client::Client;
use crate::event::signal::Signal;
use crate::service::{
    Bus, BusEvent, Restart, RestartPolicy, Router, StartError, Subscription, Supervised,
    SupervisedState, Supervisor,
};
use crate::{Status, Time};

async fn count(mut subscription: Subscription) -> u64 {
    let mut events = 0;
    while let Some(event) = subscription.next().await {
        events += match event {
            BusEvent::Event(_) => 1,
            BusEvent::Lagged(count) => count,
        };
    }
    events
}

fn publish(bus: &Bus) -> usize {
    let routed = Router::new().route("a", &BTreeMap::new(), &Signal::Closed, "1", Time::ZERO);
    bus.publish(routed.expect("it has topics"))
}

/// Subscriptions are created, read and dropped while events are published. Each gets every event
/// since its creation.
#[test]
fn schedule_bus_subscribe_publish_unsubscribe() {
    search(|| {
        let bus = Bus::new();
        let first = run(count(bus.subscribe("**").expect("a pattern")));
        let given_up = run(count(bus.subscribe("**").expect("a pattern")));
        let (one, mut dropped) = (bus.clone(), bus.subscribe("**").expect("a pattern"));
        let asks = run(async move {
            let asking = || {
                let bus = one.clone();
                calling(move || drop(format!("{bus:?}")))
            };
            drop(with_two_wakers(asking(), dropped.next()).await);
            polled_once(asking(), dropped.next());
            drop(dropped);
        });
        let one = bus.clone();
        let late = run(async move {
            let subscription = one.subscribe("**").expect("a pattern");
            let own = publish(&one);
            drop(one);
            (own, count(subscription).await)
        });
        let one = bus.clone();
        let publishes = run(async move {
            drop(format!("{one:?}"));
            publish(&one) + publish(&one)
        });
        given_up.abort();
        assert!(finish(publishes) >= 2);
        finish(asks);
        drop((wait(given_up), bus));
        assert_eq!(finish(first), 3);
        let (own, seen) = finish(late);
        assert!(own >= 2 && (1..=3).contains(&seen), "{own}, {seen}");
    });
}

/// A bus is closed while tasks read and publish. Every subscription ends.
#[test]
fn schedule_bus_closed_beside_its_users() {
    search(|| {
        let bus = Bus::new();
        let readers = [0, 1].map(|_| run(count(bus.subscribe("**").expect("a pattern"))));
        let one = bus.clone();
        let closes = run(async move { one.close() });
        let one = bus.clone();
        let late = run(async move { count(one.subscribe("*").expect("a pattern")).await });
        publish(&bus);
        finish(closes);
        readers.into_iter().for_each(|reader| assert!(finish(reader) <= 1));
        assert_eq!(finish(late), 0);
    });
}

fn start(supervisor: &Supervisor, name: &str) -> Result<(), StartError> {
    supervisor.start_connection(name, config())
}

/// Two tasks start and stop connections with one name. Each start is refused or creates a connection
/// that can be stopped, and the name is free in the end.
#[test]
fn schedule_one_name_started_and_stopped_by_two() {
    search(|| {
        let world = World::new();
        let supervisor = Supervisor::new(world.clone(), Router::new());
        let tasks = [0, 1].map(|_| {
            let supervisor = supervisor.clone();
            run(async move {
                match start(&supervisor, "a") {
                    Ok(()) => supervisor.stop_connection("a").await.expect("known"),
                    Err(StartError::Duplicate { .. }) => {}
                    Err(other) => panic!("{other:?}"),
                }
            })
        });
        drop((supervisor.health(), supervisor.metrics()));
        tasks.into_iter().for_each(finish);
        assert_eq!(supervisor.list_connections(), [""; 0]);
        start(&supervisor, "a").expect("a free name");
        drop(supervisor);
        world.ended();
    });
}

/// Connections are started while the supervisor is shut down. None keeps running.
#[test]
fn schedule_start_beside_shutdown() {
    search_few(|| {
        let world = World::new();
        let supervisor = Supervisor::new(world.clone(), Router::new());
        let mut events = supervisor.bus().subscribe("**").expect("a pattern");
        let reader = run(async move { while events.next().await.is_some() {} });
        start(&supervisor, "a").expect("a free name");
        let tasks = ["b", "c"].map(|name| {
            let supervisor = supervisor.clone();
            run(async move { start(&supervisor, name) })
        });
        let one = supervisor.clone();
        let cancelled = run(async move { one.shutdown(Duration::ZERO).await });
        let one = supervisor.clone();
        let shuts_down = run(async move { one.shutdown(Duration::ZERO).await });
        cancelled.abort();
        drop(wait(cancelled));
        assert!(finish(shuts_down).is_empty());
        for task in tasks {
            let started = finish(task);
            assert!(matches!(started, Ok(()) | Err(StartError::ShutDown { .. })), "{started:?}");
        }
        world.ended();
        finish(reader);
        assert!(matches!(start(&supervisor, "d"), Err(StartError::ShutDown { .. })));
        assert_eq!(supervisor.list_connections(), [""; 0]);
    });
}

/// A runtime drops the tasks that it should spawn. Their connections end, and their names are free.
#[test]
fn schedule_keeper_dropped_before_its_first_poll() {
    search(|| {
        let world = World::new();
        world.drop_tasks();
        let supervisor = Supervisor::new(world, Router::new());
        let one = supervisor.clone();
        let stops = run(async move {
            while one.stop_connection("a").await.is_err() {
                shuttle::thread::yield_now();
            }
        });
        start(&supervisor, "a").expect("a free name");
        finish(stops);
        start(&supervisor, "a").expect("a free name");
        start(&supervisor, "a").expect("its connection has ended");
        assert!(wait(supervisor.shutdown(Duration::from_secs(1))).is_empty());
    });
}

/// A runtime ends and drops the supervising tasks. Every call that waits for them returns.
#[test]
fn schedule_keeper_dropped_while_it_is_waited_for() {
    search(|| {
        let world = World::new();
        let supervisor = Supervisor::new(world.clone(), Router::new());
        start(&supervisor, "a").expect("a free name");
        let client = supervisor.client("a").expect("it was started");
        let joins = run(async move { drop(client.join("room:a", json!({})).await) });
        let waits = [0, 1].map(|number| {
            let supervisor = supervisor.clone();
            run(async move {
                if number == 0 {
                    drop(supervisor.stop_connection("a").await);
                } else {
                    drop(supervisor.shutdown_connection("a", Duration::from_secs(1)).await);
                }
            })
        });
        world.abort();
        waits.into_iter().for_each(finish);
        finish(joins);
        start(&supervisor, "a").expect("a free name");
        drop(supervisor);
        world.ended();
    });
}

/// A connection that gives up when it is lost, and is then restarted.
fn restarted(world: &World) -> (Supervisor, Client) {
    let supervisor = Supervisor::new(world.clone(), Router::new());
    let always = RestartPolicy::new(Restart::Permanent);
    let supervised = Supervised::new(config().max_retries(Some(0))).restart(always);
    supervisor.start_connection("a", supervised).expect("a free name");
    let client = supervisor.client("a").expect("it was started");
    wait(client.wait_connected()).expect("connected");
    (supervisor, client)
}

/// A connection is stopped at the time at which it is to be restarted.
#[test]
fn schedule_restart_beside_stop() {
    search(|| {
        let world = World::new();
        let (supervisor, client) = restarted(&world);
        let one = supervisor.clone();
        let stops = run(async move { one.stop_connection("a").await.expect("known") });
        world.cut();
        drop(supervisor.connection_status("a").map(|status| status.restarts));
        world.advance(Duration::from_secs(60));
        finish(stops);
        assert_eq!(supervisor.list_connections(), [""; 0]);
        world.ended();
        assert!(matches!(client.status(), Status::Closed | Status::GaveUp { .. }));
    });
}

/// A connection is restarted when its delay is over, or earlier if the application connects it.
#[test]
fn schedule_restart_is_not_missed() {
    search(|| {
        let world = World::new();
        let (supervisor, client) = restarted(&world);
        let one = supervisor.clone();
        let looks = run(async move { drop((one.health(), one.metrics())) });
        world.cut();
        let until = loop {
            let status = supervisor.connection_status("a").expect("known");
            if let SupervisedState::Restarting { until, .. } = status.state {
                break until;
            }
            shuttle::thread::yield_now();
        };
        world.advance(until.since(Time::ZERO));
        let mut changes = client.status_changes();
        let open = run(async move { while changes.next().await != Some(Status::Open) {} });
        finish(open);
        finish(looks);
        drop((client, supervisor));
        world.ended();
    });
}
