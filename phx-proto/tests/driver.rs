//! The driver and its handles over a transport in memory, with a clock that is set by hand.

use core::future::Future;
use core::pin::{Pin, pin};
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use phx_proto::driver::{
    ChannelEvent, Client, Driver, JoinFailed, JoinOptions, Left, MailboxPolicy, Messages,
    PushFailed, Received, Runtime, StreamEnd, Timer, Transport, WriteFailed, client,
};
use phx_proto::{
    Config, ConnectRequest, Ended, Failure, Frame, Interruption, Opened, Status, Time,
};
use serde_json::{Value, json};

#[derive(Default)]
struct World {
    now: Time,
    dials: usize,
    to_client: VecDeque<Received>,
    to_server: Vec<Value>,
    blocked: bool,
    flushes: u32,
    flushes_while_blocked: bool,
}

/// Everything but the driver: the clock and both ends of the one wire there is.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<World>>);

impl Memory {
    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().expect("no test panics with the lock held")
    }
}

struct MemoryTimer(Memory, Option<Time>);

struct Wire(Memory);

impl Runtime for Memory {
    type Transport = Wire;
    type Timer = MemoryTimer;

    fn now(&self) -> Time {
        self.world().now
    }

    fn wall(&self) -> Time {
        self.now()
    }

    fn seed(&self) -> u64 {
        7
    }

    fn timer(&self) -> MemoryTimer {
        MemoryTimer(self.clone(), None)
    }

    fn connect(
        &self,
        _: ConnectRequest,
        _: &Config,
    ) -> impl Future<Output = Result<(Wire, Opened), Failure>> + Send + 'static {
        let memory = self.clone();
        async move {
            let mut world = memory.world();
            world.dials += 1;
            world.to_client.clear();
            drop(world);
            Ok((Wire(memory), Opened::default()))
        }
    }

    fn spawn(&self, _: impl Future<Output = ()> + Send + 'static) {
        unreachable!("the tests poll the driver themselves")
    }
}

impl Timer for MemoryTimer {
    fn reset(&mut self, at: Option<Time>) {
        self.1 = at;
    }

    fn poll_expired(&mut self, _: &mut Context<'_>) -> Poll<()> {
        if self.1.is_some_and(|at| at <= self.0.now()) { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Transport for Wire {
    fn poll_receive(&mut self, _: &mut Context<'_>) -> Poll<Received> {
        self.0.world().to_client.pop_front().map_or(Poll::Pending, Poll::Ready)
    }

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), WriteFailed>> {
        if self.0.world().blocked { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    fn send(&mut self, frame: Frame) -> Result<(), WriteFailed> {
        let Frame::Text(text) = frame else { panic!("only text is sent here") };
        let message = serde_json::from_slice(&text).expect("what is sent is JSON");
        self.0.world().to_server.push(message);
        Ok(())
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), WriteFailed>> {
        let mut world = self.0.world();
        world.flushes += 1;
        if world.blocked && !world.flushes_while_blocked {
            Poll::Pending
        } else {
            Poll::Ready(Ok(()))
        }
    }

    fn close(&mut self, code: u16, reason: &str) {
        let ended = Ended::CloseFrame { code: Some(code), reason: reason.to_owned() };
        self.0.world().to_client.push_back(Received::Ended(ended));
    }
}

struct Bench {
    memory: Memory,
    client: Client,
    driver: Pin<Box<Driver<Memory>>>,
}

impl Bench {
    fn new(configure: impl FnOnce(Config) -> Config) -> Self {
        let memory = Memory::default();
        let config = Config::new("ws://localhost:4000/socket/websocket").expect("a valid URI");
        let (client, driver) = client(configure(config), memory.clone());
        client.connect();
        let mut bench = Self { memory, client, driver: Box::pin(driver) };
        bench.settle();
        bench
    }

    /// Polls the driver until it has nothing to do; true when it has completed.
    fn settle(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        (0..4).any(|_| self.driver.as_mut().poll(&mut cx).is_ready())
    }

    fn advance(&mut self, by: Duration) {
        self.memory.world().now += by;
        self.settle();
    }

    fn says(&mut self, message: &Value) {
        let frame = Frame::Text(Bytes::from(message.to_string()));
        self.memory.world().to_client.push_back(Received::Frame(frame));
        self.settle();
    }

    fn cut(&mut self) {
        let message = "cut".to_owned();
        self.memory.world().to_client.push_back(Received::Ended(Ended::Lost { message }));
        self.settle();
    }

    fn last_sent(&self) -> Value {
        self.memory.world().to_server.last().cloned().expect("something was sent")
    }

    /// Answers the last frame that was written.
    fn reply(&mut self, status: &str, response: Value) {
        let sent = self.last_sent();
        let body = json!({"status": status, "response": response});
        self.says(&json!([sent[0], sent[1], sent[2], "phx_reply", body]));
    }

    fn joined(&mut self, topic: &str) -> phx_proto::driver::Channel {
        let client = self.client.clone();
        let mut join = pin!(client.join(topic, json!({})));
        assert!(poll(join.as_mut()).is_pending());
        self.settle();
        assert_eq!(self.last_sent()[3], "phx_join");
        self.reply("ok", json!({"hello": 1}));
        ready(join.as_mut()).expect("the join was answered with ok")
    }
}

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn ready<F: Future>(future: Pin<&mut F>) -> F::Output {
    match poll(future) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("the future should be ready"),
    }
}

fn next(messages: &mut Messages) -> Option<ChannelEvent> {
    ready(pin!(messages.next()))
}

#[test]
fn a_join_and_a_push_are_answered() {
    let mut bench = Bench::new(|config| config);
    let room = bench.joined("room:lobby");
    assert!(room.join_response().is_some());

    let mut push = pin!(room.push("new_msg", json!({"body": "hi"})));
    assert!(poll(push.as_mut()).is_pending());
    bench.settle();
    assert_eq!(bench.last_sent()[3], "new_msg");
    bench.reply("error", json!({"reason": "no"}));
    let reply = ready(push.as_mut()).expect("a reply of any status is a reply");
    assert_eq!(&*reply.ok().expect_err("the status is error").status, "error");
}

#[test]
fn a_refused_join_carries_the_servers_words() {
    let mut bench = Bench::new(|config| config);
    let client = bench.client.clone();
    let mut join = pin!(client.join("room:secret", json!({})));
    assert!(poll(join.as_mut()).is_pending());
    bench.settle();
    bench.reply("error", json!({"reason": "unauthorized"}));
    assert!(matches!(ready(join.as_mut()), Err(JoinFailed::Rejected(_))));
}

#[test]
fn a_gap_is_visible_between_the_messages_around_it() {
    let mut bench = Bench::new(|config| config);
    let room = bench.joined("room:lobby");
    let mut messages = room.messages();
    bench.says(&json!([null, null, "room:lobby", "msg", {"n": 1}]));
    bench.cut();
    bench.advance(Duration::from_secs(3));
    assert_eq!(bench.memory.world().dials, 2);
    bench.reply("ok", json!({}));
    bench.says(&json!([null, null, "room:lobby", "msg", {"n": 2}]));

    assert!(matches!(next(&mut messages), Some(ChannelEvent::Message(_))));
    assert!(matches!(next(&mut messages), Some(ChannelEvent::Interrupted { count: 1, .. })));
    assert!(matches!(next(&mut messages), Some(ChannelEvent::Resumed { .. })));
    assert!(matches!(next(&mut messages), Some(ChannelEvent::Message(_))));
    assert!(poll(pin!(messages.next())).is_pending());
}

#[test]
fn dropping_a_join_releases_its_interest() {
    let mut bench = Bench::new(|config| config);
    let client = bench.client.clone();
    {
        let mut join = pin!(client.join("room:lobby", json!({})));
        assert!(poll(join.as_mut()).is_pending());
        bench.settle();
        assert_eq!(bench.last_sent()[3], "phx_join");
    }
    bench.settle();
    assert_eq!(bench.last_sent()[3], "phx_leave");
    assert!(client.channel("room:lobby").is_err());
}

#[test]
fn a_join_ends_at_its_deadline() {
    let mut bench = Bench::new(|config| config);
    let client = bench.client.clone();
    let options = JoinOptions::new().deadline(Duration::from_secs(1));
    let mut join = pin!(client.join_with("room:lobby", json!({}), options));
    assert!(poll(join.as_mut()).is_pending());
    bench.advance(Duration::from_millis(999));
    assert!(poll(join.as_mut()).is_pending());
    bench.advance(Duration::from_millis(1));
    assert!(matches!(ready(join.as_mut()), Err(JoinFailed::Deadline { .. })));
}

#[test]
fn reading_goes_on_while_writing_is_blocked() {
    let mut bench = Bench::new(|config| config);
    let room = bench.joined("room:lobby");
    let mut messages = room.messages();
    bench.memory.world().blocked = true;
    let mut cast = pin!(room.cast("typing", json!({})));
    assert!(poll(cast.as_mut()).is_pending());
    bench.says(&json!([null, null, "room:lobby", "msg", {"n": 1}]));
    assert!(matches!(next(&mut messages), Some(ChannelEvent::Message(_))));
    assert!(poll(cast.as_mut()).is_pending());
    bench.memory.world().blocked = false;
    bench.settle();
    assert_eq!(ready(cast.as_mut()), Ok(()));
    assert_eq!(bench.last_sent()[3], "typing");
}

#[test]
fn a_slow_consumer_sees_how_much_it_missed() {
    let mut bench = Bench::new(|config| config.mailbox(2, 1 << 20).expect("not zero"));
    let room = bench.joined("room:lobby");
    let mut messages = room.messages();
    for n in 0..5 {
        bench.says(&json!([null, null, "room:lobby", "msg", {"n": n}]));
    }
    assert_eq!(next(&mut messages), Some(ChannelEvent::Lagged(3)));
    assert!(matches!(next(&mut messages), Some(ChannelEvent::Message(_))));
    assert!(matches!(next(&mut messages), Some(ChannelEvent::Message(_))));
}

#[test]
fn a_transport_that_refuses_frames_after_a_flush_is_not_asked_again_and_again() {
    let mut bench = Bench::new(|config| config);
    let room = bench.joined("room:lobby");
    bench.memory.world().blocked = true;
    bench.memory.world().flushes_while_blocked = true;
    let mut cast = pin!(room.cast("typing", json!({})));
    assert!(poll(cast.as_mut()).is_pending());
    bench.memory.world().flushes = 0;
    bench.settle();
    let flushes = bench.memory.world().flushes;
    assert!(flushes <= 2, "{flushes} flushes for one refused frame");
    bench.memory.world().blocked = false;
    bench.settle();
    assert_eq!(ready(cast.as_mut()), Ok(()));
}

#[test]
fn an_overflow_can_join_the_channel_anew() {
    let mut bench = Bench::new(|config| config.mailbox(2, 1 << 20).expect("not zero"));
    let client = bench.client.clone();
    let options = JoinOptions::new().mailbox(MailboxPolicy::Rejoin);
    let mut join = pin!(client.join_with("room:lobby", json!({}), options));
    assert!(poll(join.as_mut()).is_pending());
    bench.settle();
    bench.reply("ok", json!({}));
    let room = ready(join.as_mut()).expect("joined");
    let mut messages = room.messages();
    for n in 0..3 {
        bench.says(&json!([null, null, "room:lobby", "msg", {"n": n}]));
    }
    bench.advance(Duration::from_secs(1));
    assert_eq!(bench.last_sent()[3], "phx_join");
    bench.reply("ok", json!({"state": "fresh"}));
    assert_eq!(next(&mut messages), Some(ChannelEvent::Lagged(3)));
    assert!(matches!(
        next(&mut messages),
        Some(ChannelEvent::Interrupted { cause: Interruption::Resync, .. })
    ));
    assert!(matches!(next(&mut messages), Some(ChannelEvent::Resumed { .. })));
}

#[test]
fn a_handle_that_detached_is_done_while_the_others_go_on() {
    let mut bench = Bench::new(|config| config);
    let room = bench.joined("room:lobby");
    let other = bench.client.channel("room:lobby").expect("it is wanted");
    let (clone, mut first, mut second) = (room.clone(), room.messages(), room.messages());
    let mut others = other.messages();
    assert_eq!(ready(pin!(room.leave())), Left::Detached);
    bench.says(&json!([null, null, "room:lobby", "msg", {}]));
    assert!(matches!(next(&mut first), Some(ChannelEvent::Closed(_))));
    assert!(matches!(next(&mut second), Some(ChannelEvent::Closed(_))));
    assert!(matches!(next(&mut others), Some(ChannelEvent::Message(_))));
    assert!(matches!(ready(pin!(clone.push("late", json!({})))), Err(PushFailed::NotAccepted(_))));
    assert_eq!(next(&mut clone.messages()), Some(ChannelEvent::Closed(StreamEnd::Gone)));
    assert_eq!(bench.last_sent()[3], "phx_join", "no leave was sent");
}

#[test]
fn disconnect_ends_the_streams_and_the_driver_stays_for_another_connect() {
    let mut bench = Bench::new(|config| config);
    let room = bench.joined("room:lobby");
    let mut messages = room.messages();
    let client = bench.client.clone();
    let mut disconnect = pin!(client.disconnect());
    assert!(poll(disconnect.as_mut()).is_pending());
    assert!(!bench.settle());
    ready(disconnect.as_mut());
    assert!(matches!(next(&mut messages), Some(ChannelEvent::Closed(_))));
    assert_eq!(next(&mut messages), None);
    client.connect();
    assert!(!bench.settle());
    assert!(matches!(client.status(), Status::Open));
}

#[test]
fn dropping_the_last_handle_closes_and_completes_the_driver() {
    let mut bench = Bench::new(|config| config);
    let room = bench.joined("room:lobby");
    assert!(!bench.settle());
    let Bench { client, mut driver, .. } = bench;
    drop(client);
    let mut cx = Context::from_waker(Waker::noop());
    assert!(driver.as_mut().poll(&mut cx).is_pending(), "a channel keeps its client alive");
    drop(room);
    assert!((0..4).any(|_| driver.as_mut().poll(&mut cx).is_ready()));
}

#[test]
fn dropping_the_driver_ends_everything_that_waits() {
    let mut bench = Bench::new(|config| config);
    let room = bench.joined("room:lobby");
    let Bench { client, driver, .. } = bench;
    let mut push = pin!(room.push("new_msg", json!({})));
    assert!(poll(push.as_mut()).is_pending());
    drop(driver);
    assert!(ready(push.as_mut()).is_err());
    assert!(ready(pin!(client.wait_connected())).is_err());
}
