//! Connections that the client ends: the frames on the wire, how long the client waits for the
//! peer, and the handles of a client whose runtime has ended.

use core::pin::pin;
use core::time::Duration;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use futures_util::future::select;
use phx_tests::ports::Reserved;
use phx_tests::waiting::{DEADLINE, TEST_DEADLINE};
use serde_json::json;

use super::elsewhere::Elsewhere;
use super::peer::{accept_upgrade, read_masked};
use super::stage::{driven_until, signal, until};
use super::tracked::Tracked;
use crate::rt::phx::client::{Driver, NotConnected, Runtime, Spawn};
use crate::rt::phx::event::{Cause, NotRetrying};
use crate::rt::phx::socket::Status;
use crate::rt::phx::testing::{Listener, ServerConfig};
use crate::rt::phx::{ChannelEvent, Client, Config, Payload, Signal};
use crate::rt::{block_on, in_a_runtime_that_ends, phx};

const MS: fn(u64) -> Duration = Duration::from_millis;
const HOUR: Duration = Duration::from_secs(3_600);

/// The server's part of one connection, after the upgrade.
type Script = Box<dyn FnOnce(&mut TcpStream) + Send>;

/// A server that accepts upgrades and runs one script for each connection.
struct Peer {
    addr: SocketAddr,
    thread: JoinHandle<()>,
}

impl Peer {
    /// Starts a server that accepts one connection for each script, in order.
    fn start(scripts: Vec<Script>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let thread = thread::spawn(move || {
            for script in scripts {
                let (mut stream, _) = listener.accept().unwrap();
                stream.set_read_timeout(Some(DEADLINE)).unwrap();
                accept_upgrade(&mut stream, b"");
                script(&mut stream);
            }
        });
        Self { addr, thread }
    }

    fn config(&self) -> Config {
        Config::new(&format!("ws://{}/socket/websocket", self.addr)).unwrap()
    }

    /// Waits until every script has ended, and asserts that none failed.
    fn end(self) {
        self.thread.join().expect("no script fails");
    }
}

async fn connect<R>(tracked: &Tracked<R>, config: Config) -> Client
where
    Tracked<R>: Runtime + Spawn<Driver<Tracked<R>>>,
{
    phx::client::connect(config, tracked.clone()).await.unwrap()
}

/// Reads until a close frame and returns its code.
fn read_close(stream: &mut TcpStream) -> u16 {
    loop {
        let (opcode, payload) = read_masked(stream);
        if opcode == 8 {
            return u16::from_be_bytes([payload[0], payload[1]]);
        }
    }
}

const CLOSE_1000: &[u8] = &[0x88, 2, 0x03, 0xe8];

/// A disconnect sends a close frame with 1000, and reads on until the peer answers it.
#[test]
fn disconnect_closes_1000_and_waits() {
    block_on(async {
        let (closing, is_closing) = mpsc::channel();
        let (answer, may_answer) = mpsc::channel();
        let peer = Peer::start(vec![Box::new(move |stream| {
            assert_eq!(read_close(stream), 1000);
            closing.send(()).unwrap();
            // This message is larger than all socket buffers together, so it can be written only if
            // the client still reads.
            let news = [&[0x82, 127][..], &u64::to_be_bytes(1 << 20), &[7; 1 << 20]].concat();
            for _ in 0..32 {
                stream.write_all(&news).expect("the client waits for the answer");
            }
            may_answer.recv_timeout(DEADLINE).unwrap();
            stream.write_all(CLOSE_1000).unwrap();
            // Then the client ends TCP.
            assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        })]);
        let tracked = Tracked::new();
        let client = connect(&tracked, peer.config().close_timeout(HOUR)).await;
        let mut disconnect = Box::pin(client.disconnect());
        driven_until(&mut disconnect, "the close frame", || is_closing.try_recv().is_ok()).await;
        assert_eq!(client.status(), Status::Closing);
        answer.send(()).unwrap();
        disconnect.await;
        assert_eq!(client.status(), Status::Closed);
        peer.end();
        drop(client);
        until("the driver ends", || tracked.live() == 0).await;
    })
}

/// Protocol: CLOSE-9.
#[test]
fn unanswered_close_ends_after_timeout() {
    block_on(async {
        let (closing, is_closing) = mpsc::channel();
        let peer = Peer::start(vec![Box::new(move |stream| {
            assert_eq!(read_close(stream), 1000);
            closing.send(()).unwrap();
            assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        })]);
        let tracked = Tracked::new();
        let client = connect(&tracked, peer.config().close_timeout(HOUR)).await;
        let mut disconnect = Box::pin(client.disconnect());
        driven_until(&mut disconnect, "the close frame", || is_closing.try_recv().is_ok()).await;
        tracked.clock().leap(HOUR);
        disconnect.await;
        assert_eq!(client.status(), Status::Closed);
        peer.end();
    })
}

/// The client answers the peer's close frame (firezone/firezone#12251: a client did not).
/// Protocol: CLOSE-8.
#[test]
fn peer_close_is_answered_with_its_code() {
    block_on(async {
        let (seen, codes) = mpsc::channel();
        let close_with = |code: u16| {
            let seen = seen.clone();
            let [high, low] = code.to_be_bytes();
            Box::new(move |stream: &mut TcpStream| {
                stream.write_all(&[0x88, 2, high, low]).unwrap();
                seen.send(read_close(stream)).unwrap();
                assert_eq!(stream.read(&mut [0]).unwrap(), 0);
            }) as Script
        };
        let sent = [1000, 1001, 1002, 1011, 1012, 4000];
        let peer = Peer::start(sent.map(close_with).into());
        let tracked = Tracked::new();
        // The client does not retry, because a retry would use the script of the next client.
        let config = peer.config().max_retries(Some(0));
        for code in sent {
            let (_client, mut signals) = tracked.start_watched(config.clone());
            let cause = signal(&mut signals, |signal| match signal {
                Signal::Disconnected { cause, .. } => Some(cause),
                _ => None,
            });
            let expected = Cause::RemoteClose { code: Some(code), reason: String::new() };
            assert_eq!(cause.await, expected);
        }
        peer.end();
        assert_eq!(codes.try_iter().collect::<Vec<_>>(), sent);
        until("the drivers end", || tracked.live() == 0).await;
    })
}

#[test]
fn dropped_client_of_silent_peer_ends() {
    block_on(async {
        let (done, is_done) = mpsc::channel::<()>();
        let peer = Peer::start(vec![Box::new(move |_| {
            let _ = is_done.recv_timeout(TEST_DEADLINE);
        })]);
        let tracked = Tracked::new();
        drop(connect(&tracked, peer.config().close_timeout(MS(50))).await);
        until("the driver ends", || tracked.live() == 0).await;
        drop(done);
        peer.end();
    })
}

#[test]
fn dropped_client_of_unreading_peer_ends() {
    block_on(async {
        let (done, is_done) = mpsc::channel::<()>();
        let peer = Peer::start(vec![Box::new(move |stream| {
            read_masked(stream);
            let ok = br#"["1","1","room:lobby","phx_reply",{"status":"ok","response":{}}]"#;
            stream.write_all(&[0x81, ok.len() as u8]).unwrap();
            stream.write_all(ok).unwrap();
            let _ = is_done.recv_timeout(TEST_DEADLINE);
        })]);
        let tracked = Tracked::new();
        let config = peer.config().close_timeout(MS(50)).push_timeout(HOUR);
        let config = config.max_push_bytes(64 << 20).queued_bytes_max(128 << 20);
        let client = connect(&tracked, config).await;
        let room = client.join("room:lobby", json!({})).await.unwrap();
        // The first push is larger than all socket buffers together, so the second push and the
        // close frame cannot be written.
        let much = Payload::binary(vec![7; 32 << 20]);
        let mut pushes = Box::pin(async {
            select(pin!(room.push("a", much.clone())), pin!(room.push("b", much.clone()))).await;
        });
        driven_until(&mut pushes, "the first is being written", || {
            let stats = client.stats();
            (stats.pushes_in_flight, stats.queued_pushes) == (1, 1)
        })
        .await;
        drop(pushes);
        drop((client, room));
        until("the driver ends", || tracked.live() == 0).await;
        drop(done);
        peer.end();
    })
}

async fn listen() -> Listener {
    Listener::bind(([127, 0, 0, 1], 0).into(), ServerConfig::default()).await.unwrap()
}

/// The runtime ends while one client is open with an unanswered push, one is dialling, one waits for a
/// retry and one is closing. Pending calls fail, and new ones return at once.
#[test]
fn handles_answer_after_runtime_ends() {
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let silent = format!("ws://{}/socket/websocket", silent.local_addr().unwrap());
    let unused = Reserved::new();
    let (done, is_done) = mpsc::channel::<()>();
    let mute = Peer::start(vec![Box::new(move |_| {
        let _ = is_done.recv_timeout(TEST_DEADLINE);
    })]);
    let (tracked, clients, room, mut messages, push) = in_a_runtime_that_ends(async |spawn| {
        let tracked = Tracked::over(Elsewhere::new(spawn));
        let listener = listen().await;
        let open = connect(&tracked, Config::new(&listener.url()).unwrap()).await;
        let room = open.join("room:lobby", json!({})).await.unwrap();
        let messages = room.messages();
        let own = room.clone();
        let mut push = Box::pin(async move { own.push("noreply", json!({})).await });
        driven_until(&mut push, "it is sent", || open.stats().pushes_in_flight == 1).await;

        let dialling = phx::client::start(Config::new(&silent).unwrap(), tracked.clone());
        until("it dials", || matches!(dialling.status(), Status::Connecting { .. })).await;
        let gone = Config::new(&format!("ws://{}/socket/websocket", unused.addr())).unwrap();
        let waiting = phx::client::start(gone, tracked.clone());
        until("an attempt has failed", || waiting.stats().failed_attempts > 0).await;
        let closing = connect(&tracked, mute.config().close_timeout(HOUR)).await;
        driven_until(&mut pin!(closing.disconnect()), "it closes", || {
            closing.status() == Status::Closing
        })
        .await;
        assert_eq!(tracked.live(), 4);
        (tracked, [open, dialling, waiting, closing], room, messages, push)
    });
    assert_eq!(tracked.live(), 0, "every task is gone");
    assert!(!tracked.panicked(), "a task panicked");
    drop(done);
    mute.end();
    block_on(async {
        push.await.expect_err("its outcome is unknown");
        let mut last = None;
        while let Some(event) = messages.next().await {
            last = Some(event);
        }
        assert!(matches!(last, Some(ChannelEvent::Closed(_))), "{last:?}");
        for client in &clients {
            let closed = client.wait_connected().await;
            assert_eq!(closed, Err(NotConnected::DriverGone));
            client.connect();
            assert_eq!(client.connect_now(), Err(NotRetrying));
            client.join("room:other", json!({})).await.expect_err("no driver runs");
            assert_eq!(client.shutdown(Duration::from_secs(60)).await.pushes, 0);
            client.disconnect().await;
        }
        room.push("echo", json!({})).await.expect_err("no driver runs");
        room.leave().await;
    });
    // The handles are dropped outside of any runtime.
    drop((clients, messages));
}

/// The runtime ends at many different moments of dialling, upgrading, joining and receiving.
#[test]
fn runtime_end_leaves_no_task() {
    for round in 0..20 {
        let (tracked, _clients) = in_a_runtime_that_ends(async |spawn| {
            let tracked = Tracked::over(Elsewhere::new(spawn));
            let listener = listen().await;
            let config = Config::new(&listener.url()).unwrap();
            let config = config.auto_join("room:lobby", json!({"push_after": 100})).unwrap();
            let start = |_| phx::client::start(config.clone(), tracked.clone());
            let clients: Vec<Client> = (0..5).map(start).collect();
            // Each round ends at a later moment: dialling, upgrading, joining, receiving.
            for _ in 0..round {
                crate::rt::sleep(Duration::from_micros(100)).await;
            }
            (tracked, clients)
        });
        assert_eq!(tracked.live(), 0, "every task is gone");
        assert!(!tracked.panicked(), "a task panicked");
    }
}
