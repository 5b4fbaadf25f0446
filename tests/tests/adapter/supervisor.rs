//! Named connections over real sockets.

use phx_tests::ports::{Reserved, start_again};
use phx_tests::waiting::DEADLINE;

use super::elsewhere::Elsewhere;
use super::stage;
use crate::rt::phx::service::{BusEvent, CloudEvent, Subscription, Supervisor};
use crate::rt::phx::socket::Lifecycle;
use crate::rt::phx::testing::{Listener, ServerConfig};
use crate::rt::phx::{Config, Connections, Router};
use crate::rt::{Runtime, block_on, in_a_runtime_that_ends, phx};

async fn listen() -> Listener {
    Listener::bind(([127, 0, 0, 1], 0).into(), ServerConfig::default()).await.unwrap()
}

fn document(first: &Listener, second: &Listener) -> Connections {
    let text = format!(
        r#"{{"connections": {{
            "a": {{"uri": "{}", "auto_join_channels": ["room:a"]}},
            "b": {{"uri": "{}", "auto_join_channels": ["room:b"]}}
        }}}}"#,
        first.url(),
        second.url(),
    );
    Connections::from_json(&text, |_| None).unwrap()
}

/// Waits for the next event of this type.
async fn until(events: &mut Subscription, kind: &str) -> CloudEvent {
    loop {
        match events.next().await.expect("the bus is open") {
            BusEvent::Event(routed) if routed.event.kind == kind => return routed.event.clone(),
            BusEvent::Event(_) => {}
            other => panic!("events were lost: {other:?}"),
        }
    }
}

fn subscribe(supervisor: &Supervisor, name: &str) -> Subscription {
    supervisor.bus().subscribe(&format!("jido.protocol.phoenix.{name}.**")).unwrap()
}

/// One of two servers is killed and restarted. Its connection resumes, the other connection is not
/// affected, and a shutdown ends both.
#[test]
fn connections_survive_kill_of_one_server() {
    block_on(async {
        let port = Reserved::new();
        let mut first = Listener::bind(port.addr(), ServerConfig::default()).await.unwrap();
        let second = listen().await;
        let supervisor = phx::supervisor(Router::new());
        let (mut of_a, mut of_b) = (subscribe(&supervisor, "a"), subscribe(&supervisor, "b"));
        supervisor.start_configured(document(&first, &second)).unwrap();
        until(&mut of_a, "phoenix.channel.joined").await;
        until(&mut of_b, "phoenix.channel.joined").await;
        assert!(supervisor.health().is_healthy());

        first.kill().await;
        until(&mut of_a, "phoenix.channel.interrupted").await;
        start_again(async || first.restart().await).await.unwrap();
        until(&mut of_a, "phoenix.channel.resumed").await;
        let status = supervisor.connection_status("a").unwrap();
        assert_eq!((status.lifecycle, status.restarts), (Lifecycle::Ready, 0));

        let unfinished = supervisor.shutdown(DEADLINE).await;
        assert!(unfinished.is_empty(), "{unfinished:?}");
        // The next event of the other connection after its join is its end at the shutdown.
        let BusEvent::Event(routed) = of_b.next().await.unwrap() else { panic!("an event") };
        assert_eq!(routed.event.data.get_str("reason").as_deref(), Some("left"));
        until(&mut of_b, "phoenix.connection.closed").await;
        assert_eq!(of_b.next().await, None);
        stage::until("it is gone", || second.with(|server, _| server.peers().is_empty())).await;
    })
}

#[test]
fn name_can_be_restarted() {
    block_on(async {
        let (first, second) = (listen().await, listen().await);
        let supervisor = phx::supervisor(Router::new());
        let mut events = subscribe(&supervisor, "a");
        supervisor.start_configured(document(&first, &second)).unwrap();
        until(&mut events, "phoenix.channel.joined").await;
        supervisor.stop_connection("a").await.unwrap();
        until(&mut events, "phoenix.connection.closed").await;
        assert_eq!(supervisor.list_connections(), ["b"]);
        let spec = document(&first, &second).get("a").unwrap().clone();
        supervisor.start_connection("a", spec).unwrap();
        until(&mut events, "phoenix.channel.joined").await;
    })
}

/// tokio's `spawn` panics outside of a runtime; smol's works everywhere. After the panic the name is
/// free, and `shutdown` does not wait for the task that never ran.
#[test]
fn start_outside_runtime_takes_no_name() {
    let supervisor = Supervisor::new(Runtime::new(), Router::new());
    let config = || Config::new("ws://127.0.0.1:9/socket/websocket").expect("an address");
    let start = || supervisor.start_connection("a", config());
    let started = std::panic::catch_unwind(std::panic::AssertUnwindSafe(start));
    assert_eq!(supervisor.list_connections().len(), usize::from(started.is_ok()));
    block_on(async {
        if started.is_err() {
            supervisor.start_connection("a", config()).expect("the name is free");
        }
        supervisor.stop_connection("a").await.expect("known");
        assert!(supervisor.shutdown(DEADLINE).await.is_empty());
    })
}

/// The supervising task is dropped with its runtime, before or after its first poll.
#[test]
fn connection_ends_with_its_runtime() {
    let supervisor = in_a_runtime_that_ends(async |spawn| {
        let supervisor = Supervisor::new(Elsewhere::new(spawn), Router::new());
        let config = Config::new("ws://127.0.0.1:9/socket/websocket").expect("an address");
        supervisor.start_connection("a", config).expect("a free name");
        supervisor
    });
    let status = supervisor.connection_status("a").expect("known");
    assert_eq!(status.lifecycle, Lifecycle::Terminated);
    block_on(async {
        supervisor.stop_connection("a").await.expect("known");
        assert!(supervisor.list_connections().is_empty());
    })
}
