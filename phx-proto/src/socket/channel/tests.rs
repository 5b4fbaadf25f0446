//! Tests of the channel machine without a socket: each row of its diagram.

use super::*;
use crate::config::Backoff;

const NOW: Time = Time::from_millis(1_000);

/// A configuration with a delay of n seconds before the n-th rejoin, and of 10 n seconds after the
/// n-th rejection.
fn config() -> Config {
    let delays = |step: u64| {
        let steps = [step, 2 * step, 3 * step].map(|secs| secs * 1_000);
        Backoff::steps_msec(&steps).and_then(|it| it.jitter(0.0)).expect("a schedule")
    };
    let config = Config::new("ws://localhost/").unwrap();
    let config = config.rejoin_after(delays(1)).rejected_after(delays(10)).join_rejections_max(2);
    config.stable_after(Duration::from_secs(60))
}

fn rng() -> Rng {
    Rng::new(7)
}

const fn rejoin(secs: u64, attempt: u32) -> Rejoin {
    Rejoin { delay: Duration::from_secs(secs), attempt }
}

fn pending() -> Channel {
    let want = Want::new(Topic::from("room:a"), 5, JoinParams::none());
    Channel { want: Some(want), leaving: None }
}

fn joining(join_ref: u64) -> Channel {
    let mut channel = pending();
    channel.join_written(Ref(join_ref));
    channel
}

fn joined(join_ref: u64) -> Channel {
    let mut channel = joining(join_ref);
    let joined = channel.joined(NOW, Ref(join_ref), Payload::empty()).expect("it is wanted");
    assert_eq!(joined, NowJoined { first: true, pushes: None });
    channel
}

fn errored() -> Channel {
    let mut channel = joined(1);
    let crashed = channel.crashed(NOW, false, &config(), &mut rng()).expect("it is wanted");
    assert_eq!(crashed, Crashed { was_joined: true, pushes: None, rejoin: rejoin(1, 2) });
    channel
}

/// A channel that is being left, with a deadline at second 9.
fn leaving() -> Channel {
    let mut channel = joined(1);
    let left = channel.leave(Time::from_millis(9_000), || 6).expect("it is wanted");
    assert_eq!(left.leave, Some((6, Ref(1))));
    channel
}

fn want(channel: &Channel) -> &Want {
    channel.want.as_ref().expect("it is wanted")
}

fn state(channel: &Channel) -> &'static str {
    match &channel.want {
        None if channel.leaving.is_some() => "Leaving",
        None => "Closed",
        Some(want) => match want.state {
            State::Pending => "Pending",
            State::Joining { .. } => "Joining",
            State::Joined(_) => "Joined",
            State::Errored { .. } => "Errored",
        },
    }
}

#[test]
fn each_state_has_its_deadline() {
    let at = |secs: u64| Some(Time::from_millis(secs * 1_000));
    let rows = [
        (pending(), "Pending", Some(5), None, None),
        (joining(1), "Joining", None, None, None),
        (joined(1), "Joined", None, None, None),
        (errored(), "Errored", None, at(2), None),
        (leaving(), "Leaving", None, None, at(9)),
        (Channel::default(), "Closed", None, None, None),
    ];
    for (channel, name, due, rejoin_at, leave_until) in rows {
        assert_eq!(state(&channel), name);
        let of = (channel.due(), channel.rejoin_at(), channel.leave_until());
        assert_eq!(of, (due, rejoin_at, leave_until), "{name}");
        assert_eq!(channel.is_empty(), name == "Closed");
    }
    // A join during a leave waits for its end.
    let mut channel = leaving();
    channel.want = pending().want;
    assert_eq!((channel.due(), state(&channel)), (None, "Pending"));
    assert!(channel.leave_ended().is_some());
    assert_eq!(channel.due(), Some(5));
}

/// Rejoin after a crash: Joined, Errored, Pending, Joining, Joined.
#[test]
fn crashed_channel_is_joined_again() {
    let mut channel = errored();
    channel.rejoin_due();
    assert_eq!((state(&channel), channel.due()), ("Pending", Some(5)));
    channel.join_written(Ref(8));
    assert!(channel.is_joining(Ref(8)) && !channel.is_joining(Ref(1)));
    let joined = channel.joined(NOW, Ref(8), Payload::empty());
    assert_eq!(joined, Some(NowJoined { first: false, pushes: None }));
    assert_eq!(want(&channel).joined().map(|instance| instance.join_ref), Some(Ref(8)));
}

/// The delays grow until an instance is stable.
#[test]
fn rejoin_delay_grows_until_stable() {
    let (config, mut channel) = (config(), joined(1));
    let crash = |channel: &mut Channel, secs: u64| {
        let now = NOW + Duration::from_secs(secs);
        channel.crashed(now, false, &config, &mut rng()).map(|it| (it.was_joined, it.rejoin))
    };
    assert_eq!(crash(&mut channel, 59), Some((true, rejoin(1, 2))));
    channel.rejoin_due();
    channel.join_written(Ref(2));
    assert_eq!(crash(&mut channel, 59), Some((false, rejoin(2, 3))), "crashed while joining");
    channel.rejoin_due();
    channel.join_written(Ref(3));
    assert!(channel.joined(NOW, Ref(3), Payload::empty()).is_some());
    assert_eq!(crash(&mut channel, 60), Some((true, rejoin(1, 4))), "it was stable");
    assert_eq!(crash(&mut Channel::default(), 0), None);
}

/// After a rejoin on request and after a lost reply, the server may hold an earlier instance.
#[test]
fn surviving_instance_lasts_until_next_join() {
    let (config, mut rng) = (config(), rng());
    let survives = |channel: &Channel| channel.instance(Some(Ref(1)));
    let mut replaced = joined(1);
    assert!(replaced.crashed(NOW, true, &config, &mut rng).is_some());
    let mut unanswered = joining(1);
    assert_eq!(unanswered.unanswered(Ref(2), NOW, &config, &mut rng), None, "another join");
    assert_eq!(unanswered.unanswered(Ref(1), NOW, &config, &mut rng), Some(rejoin(1, 2)));
    assert_eq!(survives(&errored()), None, "no instance survives a crash");
    for channel in [replaced, unanswered] {
        assert_eq!(
            (state(&channel), survives(&channel)),
            ("Errored", Some(InstanceKind::Surviving))
        );
        let ends: [fn(&mut Channel); 3] = [
            |channel| channel.join_written(Ref(9)),
            |channel| channel.survivor_ended(),
            |channel| assert_eq!(channel.disconnected(NOW, Duration::ZERO), None),
        ];
        for end in ends {
            let mut channel = channel.clone();
            end(&mut channel);
            assert_eq!(survives(&channel), None);
        }
        let mut refused = channel.clone();
        refused.join_written(Ref(9));
        assert!(refused.refused(NOW, &RejectionKind::JoinCrashed, &config, &mut rng).is_some());
        assert_eq!(survives(&refused), None, "the join replaced it, accepted or not");
        let mut channel = channel.clone();
        let left = channel.leave(Time::MAX, || 6).expect("it is wanted");
        assert_eq!(left.leave, Some((6, Ref(1))), "the leave refers to it");
    }
}

#[test]
fn lost_connection_makes_every_state_pending() {
    for (mut channel, was_joined) in
        [(pending(), false), (joining(1), false), (joined(1), true), (errored(), false)]
    {
        let lost = channel.disconnected(NOW, Duration::from_secs(60));
        assert_eq!((lost, state(&channel)), (was_joined.then_some(None), "Pending"));
    }
    assert_eq!(Channel::default().disconnected(NOW, Duration::ZERO), None);
}

/// A rejected rejoin is retried up to a limit; a rejection of the first join is final at once.
#[test]
fn rejection_is_retried_until_the_last() {
    let (config, mut rng) = (config(), rng());
    let mut refuse = |channel: &mut Channel, kind| channel.refused(NOW, &kind, &config, &mut rng);
    let mut channel = joining(1);
    let retry = |refused| match refused {
        Some(Refused::Retry(rejoin)) => rejoin.delay.as_secs(),
        refused => panic!("{refused:?}"),
    };
    assert_eq!(retry(refuse(&mut channel, RejectionKind::Application)), 10);
    assert_eq!(state(&channel), "Errored");
    assert_eq!(retry(refuse(&mut channel, RejectionKind::JoinCrashed)), 1, "counts as a crash");
    assert_eq!(retry(refuse(&mut channel, RejectionKind::TooManyChannels)), 30, "the longest");
    let last = refuse(&mut channel, RejectionKind::Application);
    assert!(matches!(&last, Some(Refused::Last(want)) if want.topic == *"room:a"), "{last:?}");
    assert_eq!(state(&channel), "Closed");
    let mut first = joining(1);
    first.want.as_mut().unwrap().first_join_called = true;
    assert_eq!(retry(refuse(&mut first, RejectionKind::JoinCrashed)), 1);
    assert!(matches!(refuse(&mut first, RejectionKind::Application), Some(Refused::Last(_))));
    // An ok resets the count, and later rejections are retried.
    let mut again = joining(1);
    again.want.as_mut().unwrap().first_join_called = true;
    again.want.as_mut().unwrap().rejections = 2;
    assert!(again.joined(NOW, Ref(1), Payload::empty()).is_some());
    assert_eq!(retry(refuse(&mut again, RejectionKind::Application)), 10);
}

#[test]
fn leave_is_sent_if_server_holds_instance() {
    for (mut channel, leave) in [
        (pending(), None),
        (joining(3), Some((6, Ref(3)))),
        (joined(4), Some((6, Ref(4)))),
        (errored(), None),
    ] {
        let before = state(&channel);
        let left = channel.leave(Time::MAX, || 6).expect("it is wanted");
        assert_eq!(left.leave, leave, "{before}");
        assert_eq!(state(&channel), if leave.is_some() { "Leaving" } else { "Closed" }, "{before}");
    }
    let mut channel = leaving();
    assert!(channel.leave(Time::MAX, || 7).is_none(), "already left");
    channel.leave_written(Ref(2), Ref(10));
    assert_eq!(channel.leaving.as_ref().and_then(|it| it.leave_ref), None, "another instance");
    channel.leave_written(Ref(1), Ref(10));
    let ended = channel.leave_ended().expect("it is being left");
    assert_eq!((ended.leave_ref, ended.order, state(&channel)), (Some(Ref(10)), 6, "Closed"));
    let mut channel = joined(1);
    assert!(channel.end().is_some() && channel.end().is_none() && channel.is_empty());
}

/// The pushes of an instance stay with its leave.
#[test]
fn leave_takes_pushes_of_its_instance() {
    let mut pushes = crate::socket::push::slab::Pushes::default();
    let mut channel = joined(1);
    channel.want.as_mut().unwrap().pushes = Some(pushes.group(None));
    assert_eq!(channel.groups().count(), 1);
    let left = channel.leave(Time::MAX, || 6).expect("it is wanted");
    assert_eq!((left.want.pushes, channel.groups().count()), (None, 1));
    let mut channel = pending();
    channel.want.as_mut().unwrap().pushes = Some(pushes.group(None));
    let left = channel.leave(Time::MAX, || 6).expect("it is wanted");
    assert!(left.want.pushes.is_some(), "without a leave they end with the topic");
}

/// A frame is matched to an instance by its join_ref, or without one.
#[test]
fn frame_finds_its_instance() {
    use InstanceKind::{Joined, Joining, Leaving};
    let rows = [
        (pending(), None, None),
        (joining(1), Some(Joining(Ref(1))), None),
        (joined(1), Some(Joined(Ref(1))), Some(Joined(Ref(1)))),
        (errored(), None, None),
        (leaving(), Some(Leaving), Some(Leaving)),
    ];
    for (channel, named, unnamed) in rows {
        assert_eq!(channel.instance(Some(Ref(1))), named, "{}", state(&channel));
        assert_eq!(channel.instance(None), unnamed, "{}", state(&channel));
        assert_eq!(channel.instance(Some(Ref(99))), None, "{}", state(&channel));
    }
}

#[test]
fn channel_does_not_grow() {
    let size = size_of::<(Topic, Channel)>();
    assert!(size <= 352, "{size} bytes");
}
