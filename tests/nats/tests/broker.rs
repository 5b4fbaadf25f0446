//! The example with a real broker: a `nats-server` on a loopback port, which the tests kill and restart.
//! The Phoenix-like server runs in this process.
//!
//! A gate between the example and the broker opens when the test itself has subscribed, so that the test
//! receives everything that is forwarded.

use core::net::SocketAddr;
use core::time::Duration;
use std::io::{BufRead, BufReader, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use async_nats::{Client, ConnectOptions, Subscriber};
use futures_util::StreamExt;
use phx_tokio::testing::{Listener, ServerConfig};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// How long a test waits for one condition. Only a failing test waits for all of it.
const DEADLINE: Duration = Duration::from_secs(60);

/// How often a condition without a notification is polled.
const TICK: Duration = Duration::from_millis(5);

/// Waits until the condition holds.
async fn until(what: &str, mut check: impl FnMut() -> bool) {
    let wait = async {
        while !check() {
            sleep(TICK).await;
        }
    };
    timeout(DEADLINE, wait).await.expect(what);
}

/// A loopback port reserved for as long as this value lives. Its socket is bound and does
/// not listen; with `SO_REUSEADDR`, which Go sets too, Linux lets a listener bind the same port.
struct Reserved {
    addr: SocketAddr,
    _socket: TcpSocket,
}

impl Reserved {
    fn new() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        Self { addr: socket.local_addr().unwrap(), _socket: socket }
    }

    const fn port(&self) -> u16 {
        self.addr.port()
    }
}

/// A process, which is killed at the end of the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a broker.
fn broker(port: u16) -> Process {
    // Debian installs it in a folder that is only in root's PATH.
    let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("nats-server");
    command.args(["--addr", "127.0.0.1", "--port", &port.to_string()]).env("PATH", path);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().expect("nats-server: install it with your package manager");
    Process(child)
}

/// Connects to the broker directly, as soon as it answers.
async fn direct(port: u16) -> Client {
    let connect = async {
        loop {
            match ConnectOptions::new().connect(format!("nats://127.0.0.1:{port}")).await {
                Ok(client) => return client,
                Err(_) => sleep(TICK).await,
            }
        }
    };
    timeout(DEADLINE, connect).await.expect("the broker answers")
}

/// Subscribes to everything below `jido`.
async fn subscribe(client: &Client) -> Subscriber {
    let subscriber = client.subscribe("jido.>").await.unwrap();
    // The broker has the subscription when it has answered a later message.
    let mut own = client.subscribe("own").await.unwrap();
    client.publish("own", "".into()).await.unwrap();
    timeout(DEADLINE, own.next()).await.expect("it comes back");
    subscriber
}

/// A proxy between the example and the broker that can be closed.
struct Gate {
    port: Reserved,
    open: Option<JoinHandle<()>>,
}

impl Gate {
    fn closed() -> Self {
        Self { port: Reserved::new(), open: None }
    }

    async fn open(&mut self, broker: u16) {
        // Between `fork` and `exec`, a process that another test starts holds the sockets of this one.
        let bind = async {
            loop {
                match TcpListener::bind(self.port.addr).await {
                    Err(error) if error.kind() == ErrorKind::AddrInUse => sleep(TICK).await,
                    bound => return bound.unwrap(),
                }
            }
        };
        let listener = timeout(DEADLINE, bind).await.expect("the port is free again");
        self.open = Some(tokio::spawn(async move {
            let mut streams = tokio::task::JoinSet::new();
            while let Ok((mut example, _)) = listener.accept().await {
                streams.spawn(async move {
                    let Ok(mut broker) = TcpStream::connect(("127.0.0.1", broker)).await else {
                        return;
                    };
                    let _ = tokio::io::copy_bidirectional(&mut example, &mut broker).await;
                });
            }
        }));
    }

    async fn close(&mut self) {
        if let Some(open) = self.open.take() {
            open.abort();
            let _ = open.await;
        }
    }
}

/// The example, and a server with a channel for it.
struct Stage {
    server: Listener,
    gate: Gate,
    example: Process,
    counters: UnboundedReceiver<String>,
    /// The last printed counters.
    last: Value,
    /// The log of the example, which a failing test shows.
    log: Arc<Mutex<String>>,
    file: PathBuf,
}

impl Stage {
    async fn new(name: &str, more: &[&str]) -> Self {
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = Listener::bind(any_port, ServerConfig::default()).await.unwrap();
        let file = format!("{name}-{}.json", std::process::id());
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(file);
        let connections = json!({"connections": {
            "backend": {"uri": server.url(), "auto_join_channels": ["room:a b"]},
        }});
        std::fs::write(&file, connections.to_string()).unwrap();
        let gate = Gate::closed();
        let mut command = Command::new(env!("CARGO_BIN_EXE_phx-nats"));
        command.arg(&file).arg(format!("nats://{}", gate.port.addr)).args(more);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (sender, counters) = unbounded_channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let log = Arc::new(Mutex::new(String::new()));
        let (own, stderr) = (Arc::clone(&log), BufReader::new(child.stderr.take().unwrap()));
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                *own.lock().unwrap() += &format!("{line}\n");
            }
        });
        let example = Process(child);
        let stage = Self { server, gate, example, counters, last: Value::Null, log, file };
        let joined = || stage.server.with(|server, _| server.joined("room:a b")) > 0;
        until("the room is joined without the broker", joined).await;
        stage
    }

    /// The next printed counters; `None` when the example has ended.
    async fn next_counters(&mut self, what: &str) -> Option<Value> {
        let Ok(line) = timeout(DEADLINE, self.counters.recv()).await else {
            panic!("{what} did not come; {}, log:\n{}", self.last, self.log.lock().unwrap())
        };
        Some(serde_json::from_str(&line?).expect("JSON"))
    }

    /// Waits until `like` accepts the counters, and returns them.
    async fn counted(&mut self, what: &str, like: impl Fn(&Value) -> bool) -> Value {
        while !like(&self.last) {
            self.last = self.next_counters(what).await.expect("it has not ended");
        }
        self.last.clone()
    }

    fn broadcast(&self, numbers: core::ops::Range<u32>) {
        for n in numbers {
            self.server.broadcast("room:a b", "news", json!({"n": n}));
        }
    }

    /// Shuts the example down, and returns the last counters.
    async fn finish(&mut self) -> Value {
        let id = self.example.0.id().to_string();
        assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
        // The end of standard output is the end of the process.
        while let Some(counters) = self.next_counters("the end").await {
            self.last = counters;
        }
        let status = self.example.0.wait().unwrap();
        assert!(status.success(), "{status}");
        self.last.clone()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
    }
}

/// The subject of the channel.
const CHANNEL: &str = "jido.protocol.phoenix.backend.room:a%20b";

/// Reads the news until number `last`, and returns their numbers without repetitions.
async fn news(events: &mut Subscriber, last: u32) -> Vec<u64> {
    let mut ids = Vec::new();
    let mut numbers = Vec::new();
    while numbers.last() != Some(&u64::from(last)) {
        let message = timeout(DEADLINE, events.next()).await;
        let message = message.unwrap_or_else(|_| panic!("not all came: {numbers:?}")).unwrap();
        let event: Value = serde_json::from_slice(&message.payload).expect("a CloudEvent");
        let id = message.headers.as_ref().and_then(|headers| headers.get("Nats-Msg-Id"));
        assert_eq!(event["id"], id.expect("an id").as_str());
        if event["data"]["event"] == "news" && !ids.contains(&event["id"]) {
            assert_eq!(message.subject.as_str(), CHANNEL);
            ids.push(event["id"].clone());
            numbers.push(event["data"]["payload"]["n"].as_u64().expect("a number"));
        }
    }
    numbers
}

const PATTERN: &str = "jido.protocol.phoenix.backend.*";

#[tokio::test(flavor = "multi_thread")]
async fn events_survive_broker_restart() {
    let reserved = Reserved::new();
    let port = reserved.port();
    let mut stage = Stage::new("killed", &[PATTERN]).await;
    let first = broker(port);
    let mut events = subscribe(&direct(port).await).await;
    stage.gate.open(port).await;
    stage.broadcast(0..10);
    assert_eq!(news(&mut events, 9).await, (0..10).collect::<Vec<_>>());

    // The broker is killed while messages are on their way, and more messages come while it is down.
    stage.broadcast(10..100);
    drop(first);
    stage.gate.close().await;
    stage.broadcast(100..200);
    stage.counted("100 waiting", |counters| counters["waiting"].as_u64() >= Some(100)).await;

    let _second = broker(port);
    let mut events = subscribe(&direct(port).await).await;
    stage.gate.open(port).await;
    let after = news(&mut events, 199).await;
    // The first broker received the confirmed messages. No later message is missing.
    let expected: Vec<u64> = (after[0]..200).collect();
    assert_eq!(after, expected);
    assert!(after[0] <= 100, "{after:?}");
    let counters = stage.counted("none waiting", |counters| counters["waiting"] == 0).await;
    assert_eq!((&counters["dropped"], &counters["lagged"]), (&json!(0), &json!(0)));
    let last = stage.finish().await;
    assert_eq!(last["waiting"], 0, "the last events were forwarded too");
}

/// A full spool drops the oldest events and counts them; the rest is forwarded later.
#[tokio::test(flavor = "multi_thread")]
async fn absent_broker_costs_oldest_events() {
    let mut stage = Stage::new("away", &[PATTERN, "20"]).await;
    // The join and 100 messages, for a capacity of 20.
    stage.broadcast(0..100);
    let counters = stage.counted("81 dropped", |counters| counters["dropped"] == 81).await;
    assert_eq!((&counters["waiting"], &counters["forwarded"]), (&json!(20), &json!(0)));

    let reserved = Reserved::new();
    let port = reserved.port();
    let _broker = broker(port);
    let mut events = subscribe(&direct(port).await).await;
    stage.gate.open(port).await;
    assert_eq!(news(&mut events, 99).await, (80..100).collect::<Vec<_>>(), "the newest ones");
    let counters = stage.counted("20 forwarded", |counters| counters["forwarded"] == 20).await;
    assert_eq!(counters["dropped"], 81);
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn absent_broker_does_not_delay_exit() {
    let mut stage = Stage::new("never", &[PATTERN]).await;
    stage.broadcast(0..3);
    stage.counted("4 waiting", |counters| counters["waiting"] == 4).await;
    let last = stage.finish().await;
    assert_eq!(last["forwarded"], 0);
    assert!(last["waiting"].as_u64() >= Some(4), "given up, and counted: {last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn request_is_pushed_and_answered() {
    let reserved = Reserved::new();
    let port = reserved.port();
    let mut stage = Stage::new("orders", &[]).await;
    let _broker = broker(port);
    let client = direct(port).await;
    stage.gate.open(port).await;
    let ask = async |order: &Value| -> Value {
        // There is no answer until the example has subscribed.
        let answer = async {
            loop {
                match client.request("phx.push", order.to_string().into()).await {
                    Ok(answer) => return serde_json::from_slice(&answer.payload).expect("JSON"),
                    Err(_) => sleep(TICK).await,
                }
            }
        };
        timeout(DEADLINE, answer).await.expect("an answer")
    };
    let order = json!({
        "connection": "backend", "topic": "room:a b", "event": "echo", "payload": {"n": 7},
    });
    assert_eq!(ask(&order).await, json!({"status": "ok", "response": {"n": 7}}));
    for (key, value, error) in [
        ("connection", json!("other"), "there is no connection \"other\""),
        ("topic", json!("room:b"), "the topic was not joined, or it was left: call `join` first"),
        ("event", json!(7), "the request has no string \"event\""),
    ] {
        let mut bad = order.clone();
        bad[key] = value;
        let answer = ask(&bad).await;
        assert_eq!((&answer["error"], &answer["sent"]), (&json!(error), &json!(false)));
    }
    let last = stage.finish().await;
    assert_eq!(last["orders"], 4);
}
