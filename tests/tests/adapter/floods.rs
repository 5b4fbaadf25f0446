//! Floods of every kind: one poll of the driver is bounded, and other tasks do not starve.

use core::future::{Future, poll_fn};
use core::pin::{Pin, pin};
use core::task::Poll;
use core::time::Duration;

use super::scripted::Flood;
use super::stage::until;
use crate::rt::phx::socket::Status;
use crate::rt::phx::{Config, JoinParams};
use crate::rt::{block_on, spawn};

/// Endless input: the name, bytes that are sent once, and bytes that are repeated.
const FLOODS: &[(&str, &[u8], &[u8])] = &[
    ("pings", b"", b"\x89\x00"),
    ("pings with a payload", b"", b"\x89\x04ping"),
    ("pongs", b"", b"\x8a\x00"),
    ("empty continuations", b"\x01\x00", b"\x00\x00"),
    ("text", b"", b"\x81\x23[null,null,\"room:a\",\"msg\",{\"n\":10}]"),
    ("pings in a fragmented message", b"\x01\x02[n", b"\x89\x00\x00\x00"),
];

/// An upper bound for the bytes that one poll reads: the frames of a batch and a few buffers.
const POLL_BYTES_MAX: usize = 160 << 10;

fn config() -> Config {
    let config = Config::new("ws://localhost:4000/socket/websocket").expect("an address");
    // The timeouts are off, because the server answers nothing: on a busy machine the client would
    // retry the join or send a heartbeat.
    let config = config.heartbeat_interval(Duration::ZERO).join_timeout(Duration::MAX);
    config.auto_join("room:a", JoinParams::none()).expect("no reserved topic")
}

/// Calls `work` this many times, between the polls of the other futures.
async fn ticks(count: usize, mut work: impl FnMut()) {
    for _ in 0..count {
        work();
        let mut yielded = false;
        poll_fn(|cx| {
            if core::mem::replace(&mut yielded, true) {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
}

/// tungstenite reads control frames and continuations in an internal loop that does not end while
/// more of them arrive. On smol, no other task was polled during that loop.
#[test]
fn floods_do_not_starve_the_executor() {
    for (name, once, repeated) in FLOODS {
        block_on(async {
            let flood = Flood::new(once, repeated);
            let (client, driver) = flood.client(config());
            let (mut driver, ticked) = (pin!(driver), core::cell::Cell::new(0));
            let ticks = ticks(110, || {
                ticked.set(ticked.get() + 1);
                let read = core::mem::take(&mut flood.lock().read);
                assert!(read <= POLL_BYTES_MAX, "{name}: {read} bytes in one poll");
            });
            let mut ticks = pin!(ticks);
            poll_fn(|cx| {
                // The driver and the other task are polled in turn, as by an executor.
                assert!(driver.as_mut().poll(cx).is_pending(), "{name}");
                Pin::as_mut(&mut ticks).poll(cx)
            })
            .await;
            assert_eq!(ticked.get(), 110, "{name}");
            assert_eq!(client.status(), Status::Open, "{name}");
            // The driver was busy reading all the time, but it also wrote.
            let joins = flood.frames().into_iter().filter(|(opcode, _)| *opcode == 1).count();
            assert_eq!(joins, 1, "{name}");
        });
    }
}

/// RFC 6455 section 5.5.3: a client may answer the most recent ping only. If the client answered
/// each ping, a server could make it write as much as it reads.
/// Protocol: HB-8.
#[test]
fn pongs_answer_the_latest_ping() {
    block_on(async {
        let pings = |numbers: core::ops::Range<u8>| -> Vec<u8> {
            numbers.flat_map(|n| [0x89, 3, b'n', b'o', n]).collect()
        };
        let flood = Flood::new(&pings(0..100), b"");
        let (client, driver) = flood.client(config());
        let mut driver = pin!(driver);
        let mut poll_some = async || {
            for _ in 0..8 {
                poll_fn(|cx| Poll::Ready(driver.as_mut().poll(cx).is_pending())).await;
            }
        };
        poll_some().await;
        let pongs = || -> Vec<Vec<u8>> {
            let frames = flood.frames().into_iter();
            frames.filter(|(opcode, _)| *opcode == 0xa).map(|(_, payload)| payload).collect()
        };
        assert_eq!(pongs(), [b"noc".to_vec()]);
        flood.lock().once = pings(100..102);
        poll_some().await;
        assert_eq!(pongs(), [b"noc".to_vec(), b"noe".to_vec()]);
        assert_eq!(client.status(), Status::Open);
    })
}

/// A message that takes many reads arrives whole, although the driver yields between them.
#[test]
fn message_of_many_reads_arrives() {
    block_on(async {
        let payload = "x".repeat(100 << 10);
        let text = format!("[null,null,\"room:a\",\"msg\",{{\"x\":\"{payload}\"}}]");
        let head = [&[0x81, 127], &(text.len() as u64).to_be_bytes()[..]].concat();
        let flood = Flood::new(&[&head, text.as_bytes()].concat(), b"");
        let (client, driver) = flood.client(config().buffers(4 << 10, 4 << 10).expect("not zero"));
        // The consumer is spawned, so that it is polled only after a wake-up.
        spawn(driver);
        until("it has arrived", || client.stats().frames_in == 1).await;
    })
}
