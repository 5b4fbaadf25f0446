//! A [`Socket`] whose inputs and actions are recorded.

use core::fmt;
use core::ops::Deref;
use std::sync::Arc;

use super::config::{ConfigRecord, as_recorded};
use super::input::InputRecord;
use super::line::{Line, Start, What};
use super::redact::FrameRecord;
use super::tape::{Recorder, Tape};
use crate::config::Config;
use crate::event::action::Action;
use crate::event::applied::{Applied, Supplied};
use crate::event::error::PushError;
use crate::event::input::{Input, PushOptions};
use crate::event::signal::Signal;
use crate::event::words::write_action;
use crate::id::{ConnectionId, PushId};
use crate::socket::{Socket, Step};
use crate::time::Time;
use crate::wire::payload::Payload;
use crate::wire::{Codec, Frame};

/// A [`Socket`] whose inputs and actions go to a [`Recorder`].
///
/// Every input is an [`Input`] that is [applied](Self::apply); [`push`](Self::push) and
/// [`handle_frame`](Self::handle_frame) are shorthands for the two that there are many of. Methods that
/// change nothing are those of the socket, by `Deref`. Without a recorder each costs one branch.
pub struct RecordedSocket {
    socket: Socket,
    log: Option<Box<Log>>,
}

/// The recording of a socket.
struct Log {
    tape: Arc<Tape>,
    client: u64,
    payloads: bool,
    /// The latest time of an input, as the socket clamps those of later ones.
    latest: Time,
}

impl RecordedSocket {
    /// [`Socket::new`], recorded if there is a recorder.
    #[must_use]
    pub fn new(mut config: Config, seed: u64, now: Time, recorder: Option<&Recorder>) -> Self {
        if recorder.is_some() {
            let options = as_recorded(&config);
            config = config.options(options);
        }
        let log = recorder.map(|recorder| {
            let log = Log {
                tape: Arc::clone(&recorder.tape),
                client: recorder.tape.number(),
                payloads: recorder.payloads,
                latest: now,
            };
            let (payloads, config) = (log.payloads, ConfigRecord::of(&config));
            log.write(What::Start(Box::new(Start { seed, payloads, config })));
            Box::new(log)
        });
        Self { socket: Socket::new(config, seed, now), log }
    }

    /// Hands the queued lines to the sink of the recorder. So does dropping the socket.
    pub fn flush(&self) {
        if let Some(log) = &self.log {
            log.tape.flush();
        }
    }

    #[cfg(feature = "driver")]
    pub(crate) fn tape(&self) -> Option<Arc<Tape>> {
        self.log.as_ref().map(|log| Arc::clone(&log.tape))
    }

    /// [`Socket::apply`].
    pub fn apply(&mut self, now: Time, input: Input) -> Applied {
        let Some(log) = &mut self.log else { return self.socket.apply(now, input) };
        log.advance(now);
        if let Some(record) = InputRecord::of(&input, &self.socket, log.payloads) {
            log.write(What::In(record));
        }
        let applied = self.socket.apply(now, input);
        if let Applied::SupplyJoin(Supplied::Join(join)) = &applied {
            log.write(log.action(&self.socket, join));
        }
        if let Some(answer) = applied_in_words(&applied) {
            log.write(What::Answer(answer));
        }
        applied
    }

    /// [`Socket::push`]: applies [`Input::Push`], whose names are not copied unless it is recorded.
    ///
    /// # Errors
    ///
    /// [`PushError`], with the payload.
    pub fn push(
        &mut self,
        now: Time,
        topic: &str,
        event: &str,
        payload: impl Into<Payload>,
        options: PushOptions,
    ) -> Result<PushId, PushError> {
        let payload = payload.into();
        if self.log.is_none() {
            return self.socket.push(now, topic, event, payload, options);
        }
        let (topic, event) = (topic.into(), event.into());
        match self.apply(now, Input::Push { topic, event, payload, options }) {
            Applied::Push(pushed) => pushed,
            other => unreachable!("{other:?} is not the result of a push"),
        }
    }

    /// [`Socket::handle_frame`]: applies [`Input::Frame`].
    #[inline]
    pub fn handle_frame(&mut self, now: Time, id: ConnectionId, frame: Frame) {
        if self.log.is_none() {
            return self.socket.handle_frame(now, id, frame);
        }
        let _ = self.apply(now, Input::Frame { id, frame });
    }

    /// [`Socket::poll_action`].
    #[inline]
    pub fn poll_action(&mut self, now: Time) -> Option<Action> {
        let action = self.socket.poll_action(now);
        self.note_action(now, action.as_ref());
        action
    }

    /// [`Socket::poll_step`].
    #[inline]
    pub fn poll_step(&mut self, now: Time) -> Option<Step> {
        let step = self.socket.poll_step(now);
        match &step {
            Some(Step::Action(action)) => self.note_action(now, Some(action)),
            Some(Step::Evaluate(_)) | None => self.note_action(now, None),
        }
        step
    }

    #[inline]
    fn note_action(&mut self, now: Time, action: Option<&Action>) {
        if let Some(log) = &mut self.log {
            // A poll without an action counts, too: time does not go back behind it.
            log.advance(now);
            if let Some(action) = action {
                log.write(log.action(&self.socket, action));
            }
        }
    }
}

/// A clone is not recorded.
impl Clone for RecordedSocket {
    fn clone(&self) -> Self {
        Self { socket: self.socket.clone(), log: None }
    }
}

impl Deref for RecordedSocket {
    type Target = Socket;

    fn deref(&self) -> &Socket {
        &self.socket
    }
}

impl Drop for RecordedSocket {
    fn drop(&mut self) {
        self.flush();
    }
}

impl fmt::Debug for RecordedSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.socket.fmt(f)
    }
}

impl Log {
    fn advance(&mut self, now: Time) {
        self.latest = self.latest.max(now);
    }

    fn write(&self, what: What) {
        self.tape.push(&Line { client: self.client, at: self.latest, what });
    }

    fn action(&self, socket: &Socket, action: &Action) -> What {
        recorded(action, &*socket.config().codec, self.payloads)
    }
}

/// An action as the recording has it.
pub(super) fn recorded(action: &Action, codec: &dyn Codec, payloads: bool) -> What {
    struct InWords<'a>(&'a Action);
    impl fmt::Display for InWords<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write_action(f, self.0)
        }
    }
    match action {
        Action::Send { frame, .. } => What::Sent(FrameRecord::sent(frame, codec, payloads)),
        Action::Join { frame, .. } => What::Sent(FrameRecord::join(frame, codec)),
        // Without its evidence, which is the frame.
        Action::Signal(Signal::ProtocolError { error }) => {
            What::Out(format!("ProtocolError {} at byte {}", error.problem, error.offset))
        }
        other => What::Out(InWords(other).to_string()),
    }
}

/// The result of a command as the recording has it; `None` for what has no line.
pub(super) fn applied_in_words(applied: &Applied) -> Option<String> {
    fn words<T, E: fmt::Display>(
        result: &Result<T, E>,
        accepted: impl FnOnce(&T) -> String,
    ) -> Option<String> {
        Some(match result {
            Ok(value) => accepted(value),
            Err(error) => format!("refused: {error}"),
        })
    }
    let accepted = |_: &()| "accepted".to_owned();
    match applied {
        Applied::Done | Applied::Release(_) | Applied::SupplyJoin(_) | Applied::CancelPush(_) => {
            None
        }
        Applied::ConnectNow(result) => words(result, accepted),
        Applied::Probe(result) => words(result, accepted),
        Applied::Join(result) => words(result, |interest| format!("{interest:?}")),
        Applied::Attach(result) => words(result, |interest| format!("{interest:?}")),
        Applied::Leave(result) | Applied::Rejoin(result) => words(result, accepted),
        Applied::SetJoinParams(result) => words(result, accepted),
        Applied::Push(result) => words(result, |push| format!("{push:?}")),
        Applied::SetCredentials(result) => words(result, accepted),
    }
}
