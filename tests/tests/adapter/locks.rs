//! Some code of the application runs inside the library: wakers that own their task, the destructor
//! of a payload's memory, functions for join parameters. Such code may call the client. If the
//! library held a lock during the call, it would deadlock.

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::Wake;

use bytes::Bytes;
use serde_json::json;

use super::stage::until;
use crate::rt::block_on;
use crate::rt::phx::socket::ChannelStatus;
use crate::rt::phx::testing::{Listener, ServerConfig};
use crate::rt::phx::{self, Client, Config, JoinParams, Payload};

/// Runs a scenario in a separate thread and runtime, so that a deadlock makes the test fail.
fn must_end(scenario: impl AsyncFnOnce(Listener, Client) + Send + 'static) {
    let (done, wait) = mpsc::channel();
    std::thread::spawn(move || {
        block_on(async {
            let listener = Listener::bind(([127, 0, 0, 1], 0).into(), ServerConfig::default());
            let listener = listener.await.expect("a port");
            let config = Config::new(&listener.url()).expect("an address");
            let client = phx::connect(config).await.expect("it is open");
            scenario(listener, client).await;
        });
        let _ = done.send(());
    });
    wait.recv_timeout(Duration::from_secs(50)).expect("neither a deadlock nor a panic");
}

/// Calls the client when it is dropped, on any thread.
struct Owner {
    client: Client,
    dropped: Arc<AtomicUsize>,
}

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        b"owned"
    }
}

impl Wake for Owner {
    fn wake(self: Arc<Self>) {
        let _ = self.client.status();
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let _ = (self.client.status(), self.client.stats());
        self.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

/// Wakers that own their task, and with it handles of the client.
#[test]
fn wakers_are_dropped_without_a_lock() {
    must_end(async |_listener, client| {
        let dropped = Arc::new(AtomicUsize::new(0));
        let owning = || {
            let (client, dropped) = (client.clone(), Arc::clone(&dropped));
            Waker::from(Arc::new(Owner { client, dropped }))
        };
        let poll = |future: &mut Pin<Box<dyn Future<Output = ()> + '_>>| {
            future.as_mut().poll(&mut Context::from_waker(&owning()))
        };
        let room = client.join("room:lobby", json!({})).await.expect("joined");
        let (mut messages, mut signals) = (room.messages(), client.signals());
        let mut waiting: Vec<Pin<Box<dyn Future<Output = ()> + '_>>> = vec![
            Box::pin(async { drop(room.push("noreply", json!({})).await) }),
            Box::pin(async { drop(client.join("room:other", json!({})).await) }),
            Box::pin(async { while messages.next().await.is_some() {} }),
            Box::pin(async { while signals.next().await.is_some() {} }),
            Box::pin(async { drop(client.leave_topic("room:lobby").await) }),
            Box::pin(async { drop(client.shutdown(Duration::from_secs(5)).await) }),
        ];
        // Meanwhile the driver answers on other threads.
        for _ in 0..200 {
            waiting.retain_mut(|future| poll(future) == Poll::Pending);
        }
        drop(waiting);
        assert!(dropped.load(Ordering::SeqCst) > 0);
        client.disconnect().await;
    });
}

#[test]
fn payload_owners_are_dropped_without_lock() {
    must_end(async |_listener, client| {
        let dropped = Arc::new(AtomicUsize::new(0));
        let owned = || {
            let (client, dropped) = (client.clone(), Arc::clone(&dropped));
            Payload::binary_shared(Bytes::from_owner(Owner { client, dropped }))
        };
        let room = client.join("room:lobby", json!({})).await.expect("joined");
        room.cast("bytes", owned()).await.expect("written");
        client.cast("room:lobby", "bytes", owned()).await.expect("written");
        let mut cancelled = Box::pin(room.push("bytes", owned()));
        let first = cancelled.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(first.is_pending());
        drop(cancelled);
        until("the owners are dropped", || dropped.load(Ordering::SeqCst) == 3).await;
        client.disconnect().await;
    });
}

/// The consumer holds a mutex that the function locks, and calls `status` while it holds it.
#[test]
fn join_function_may_lock_consumers_mutex() {
    must_end(async |_listener, client| {
        let room = client.join("room:lobby", json!({})).await.expect("joined");
        let shared = Arc::new(Mutex::new(7));
        let (called, is_called) = mpsc::channel();
        let (of_function, callee) = (Arc::clone(&shared), client.clone());
        let params = JoinParams::from_fn(move |_| {
            let _ = called.send(());
            let seen = *of_function.lock().expect("no panic");
            assert!(callee.channel("room:other").is_ok(), "it may call its client");
            Payload::from(json!({ "seen": seen }))
        });
        let consumer = {
            let (guarded, room) = (Arc::clone(&shared), room.clone());
            let (holds, is_held) = mpsc::channel();
            let thread = std::thread::spawn(move || {
                let guard = guarded.lock().expect("no panic");
                holds.send(()).expect("the test waits");
                is_called.recv_timeout(Duration::from_secs(30)).expect("the function is called");
                assert_eq!(room.status(), ChannelStatus::Joined);
                drop(guard);
            });
            is_held.recv().expect("the mutex is held");
            thread
        };
        let other = client.join("room:other", params).await.expect("joined");
        assert_eq!(other.status(), ChannelStatus::Joined);
        consumer.join().expect("no panic");
        client.disconnect().await;
    });
}
