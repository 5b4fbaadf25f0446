//! Pushes that are repeated with their idempotency key, and their invariants: no frame without its
//! key, a bounded number of frames with each key, and one outcome for each push.

use std::collections::BTreeMap;
use std::time::Duration;

use super::checks::{Checks, Made};
use phx_proto::event::{PushErrorKind, RepeatOptions};
use phx_proto::socket::{AfterAttempt, Repeat};
use phx_proto::testing::{ClientId, TraceEvent, What, World};
use phx_proto::{Action, ChannelStatus, Payload, PushId, PushOutcome, Signal};
use serde_json::json;

/// The member of the payload that is the key.
const KEY: &str = "key";

/// The event of these pushes. Every channel with an `echo` replies with the payload.
const EVENT: &str = "echo";

/// All pushes of a world that may be repeated, by the number that is their key.
#[derive(Debug, Default)]
pub struct Keyed {
    pushes: BTreeMap<u64, Push>,
}

#[derive(Debug)]
struct Push {
    client: ClientId,
    topic: String,
    repeat: Repeat,
    repeats_max: u32,
    state: State,
    /// The number of frames with the key.
    frames: u32,
}

#[derive(Debug)]
enum State {
    Attempt(PushId),
    Over(PushOutcome),
    Waiting,
    Ended,
}

impl Keyed {
    /// Makes the first attempt of a push, unless it is not accepted.
    pub fn push(
        &mut self,
        world: &mut World,
        client: ClientId,
        topic: &str,
        number: u64,
    ) -> Option<(PushId, Made)> {
        let payload = Payload::from(json!({KEY: number, "number": number}));
        let repeats_max = u32::try_from(world.draw(4)).unwrap_or(0);
        let timeout = Duration::from_secs(1 + world.draw(15));
        let deadline = Duration::from_secs(1 + world.draw(300));
        let options = RepeatOptions::keyed_by(KEY).repeats(repeats_max).timeout(timeout);
        let options = options.deadline(deadline);
        let config = world.socket(client).config().clone();
        let repeat = Repeat::new(world.now(), payload, &options, &config).expect("it has a key");
        let id = attempt(world, client, topic, &repeat).ok()?;
        let state = State::Attempt(id);
        let topic = topic.to_owned();
        let made = Made { topic: topic.clone(), echo: Some(number) };
        let push = Push { client, topic, repeat, repeats_max, state, frames: 0 };
        self.pushes.insert(number, push);
        Some((id, made))
    }

    /// Observes frames and outcomes.
    pub fn look(&mut self, client: ClientId, event: &TraceEvent) -> Result<(), String> {
        match &event.what {
            What::Action(Action::Send { frame, .. }) => {
                let Some(number) = key_of(frame.as_bytes()) else { return Ok(()) };
                let Some(push) = self.pushes.get_mut(&number) else {
                    return Err(format!("a frame with the key {number}, which no push has"));
                };
                push.frames += 1;
                if push.frames > push.repeats_max + 1 || matches!(push.state, State::Ended) {
                    return Err(format!("frame {} with the key {number}: {push:?}", push.frames));
                }
            }
            What::Action(Action::Signal(Signal::PushEnded { id, outcome, .. })) => {
                let ours = |push: &&mut Push| {
                    push.client == client && matches!(push.state, State::Attempt(it) if it == *id)
                };
                if let Some(push) = self.pushes.values_mut().find(ours) {
                    push.state = State::Over(outcome.clone());
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Makes the next attempts. Returns whether there was one.
    pub fn push_again(&mut self, world: &mut World, all: &mut [Checks]) -> Result<bool, String> {
        let mut moved = false;
        for (number, push) in &mut self.pushes {
            if let State::Over(outcome) = &push.state {
                push.state = match push.repeat.ended(world.now(), outcome.clone()) {
                    AfterAttempt::Ended(outcome) => {
                        check_end(*number, push, &outcome)?;
                        State::Ended
                    }
                    _ => State::Waiting,
                };
            }
            if !matches!(push.state, State::Waiting) {
                continue;
            }
            let late = world.now() >= push.repeat.until();
            match world.socket(push.client).channel_status(&push.topic) {
                ChannelStatus::Joined if !late => {
                    match attempt(world, push.client, &push.topic, &push.repeat) {
                        Ok(id) => {
                            let made = Made { topic: push.topic.clone(), echo: Some(*number) };
                            let checks = all.iter_mut().find(|it| it.is_of(push.client));
                            checks.expect("it has checks").pushes.insert(id, made);
                            push.state = State::Attempt(id);
                            moved = true;
                        }
                        Err(PushErrorKind::NotJoined) => {}
                        Err(_) => push.give_up(*number)?,
                    }
                }
                ChannelStatus::Closed | ChannelStatus::Leaving => push.give_up(*number)?,
                _ if late => push.give_up(*number)?,
                _ => {}
            }
        }
        Ok(moved)
    }

    /// A push that has no outcome yet.
    pub fn missing(&self) -> Option<String> {
        let ended = |push: &Push| matches!(push.state, State::Ended);
        let (number, push) = self.pushes.iter().find(|(_, push)| !ended(push))?;
        Some(format!("the push with the key {number} has no outcome: {push:?}"))
    }

    /// The number of repeats that were written.
    pub fn repeats(&self) -> u64 {
        self.pushes.values().map(|push| u64::from(push.repeat.repeats())).sum()
    }
}

impl Push {
    fn give_up(&mut self, number: u64) -> Result<(), String> {
        check_end(number, self, &self.repeat.give_up())?;
        self.state = State::Ended;
        Ok(())
    }
}

/// "Not sent" means that no frame had the key. The number of repeats is one less than the number of
/// frames.
fn check_end(number: u64, push: &Push, outcome: &PushOutcome) -> Result<(), String> {
    let unsent = matches!(outcome, PushOutcome::NotSent(_));
    // The application may cancel an attempt that was written. Its frame is not counted.
    let cancelled = matches!(push.state, State::Over(PushOutcome::Cancelled));
    let counted = push.frames.saturating_sub(1) == push.repeat.repeats();
    if (unsent && push.frames > 0) || !(counted || cancelled) {
        return Err(format!("the push with the key {number} ended {outcome:?}: {push:?}"));
    }
    Ok(())
}

fn attempt(
    world: &mut World,
    client: ClientId,
    topic: &str,
    repeat: &Repeat,
) -> Result<PushId, PushErrorKind> {
    let (payload, options) = repeat.attempt(world.now());
    world
        .command(client, |s, now| s.push(now, topic, EVENT, payload, options))
        .map_err(|error| error.kind)
}

/// The key in a frame of either vsn.
fn key_of(frame: &[u8]) -> Option<u64> {
    let value: serde_json::Value = serde_json::from_slice(frame).ok()?;
    let payload = if value.is_array() { &value[4] } else { &value["payload"] };
    payload[KEY].as_u64()
}
