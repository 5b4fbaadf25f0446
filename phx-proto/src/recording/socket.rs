//! A [`Socket`] whose inputs and actions are recorded.

use core::borrow::Borrow;
use core::fmt;
use core::ops::Deref;
use std::sync::Arc;

use super::config::{ConfigRecord, rounded};
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

/// A [`Socket`] whose inputs and actions are written to a [`Recorder`].
///
/// Pass inputs to [`apply`](Self::apply); [`push`](Self::push), [`handle_frame`](Self::handle_frame) and
/// [`handle_frame_and_poll`](Self::handle_frame_and_poll) are faster forms of the two most frequent ones.
/// Methods of the socket that change nothing are available through `Deref`. Without a recorder each call
/// costs one branch.
pub struct RecordedSocket {
    socket: Socket,
    log: Option<Box<Log>>,
}

/// The recording of a socket.
struct Log {
    tape: Arc<Tape>,
    client: u64,
    payloads: bool,
    /// The latest time of an input. The socket uses it in place of earlier times.
    latest: Time,
}

impl RecordedSocket {
    /// Like [`Socket::new`]. The socket is recorded if there is a recorder.
    #[must_use]
    pub fn new(mut config: Config, seed: u64, now: Time, recorder: Option<&Recorder>) -> Self {
        if recorder.is_some() {
            let options = rounded(&config);
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

    /// Passes the queued lines to the sink of the recorder. Dropping the socket passes them too.
    pub fn flush(&self) {
        if let Some(log) = &self.log {
            log.tape.flush();
        }
    }

    #[cfg(feature = "driver")]
    pub(crate) fn tape(&self) -> Option<Arc<Tape>> {
        self.log.as_ref().map(|log| Arc::clone(&log.tape))
    }

    /// Like [`Socket::apply`].
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
        if let Some(answer) = applied_text(&applied) {
            log.write(What::Answer(answer));
        }
        applied
    }

    /// Like [`Socket::push`]. It copies topic and event only if the socket is recorded.
    ///
    /// # Errors
    ///
    /// [`PushError`] with the payload.
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

    /// Like [`Socket::handle_frame`].
    #[inline]
    pub fn handle_frame(&mut self, now: Time, id: ConnectionId, frame: impl Borrow<Frame>) {
        if self.log.is_none() {
            return self.socket.handle_frame(now, id, frame);
        }
        let _ = self.apply(now, Input::Frame { id, frame: frame.borrow().clone() });
    }

    /// Like [`Socket::handle_frame_and_poll`].
    #[inline]
    pub fn handle_frame_and_poll(
        &mut self,
        now: Time,
        id: ConnectionId,
        frame: impl Borrow<Frame>,
    ) -> Option<Action> {
        if self.log.is_none() {
            return self.socket.handle_frame_and_poll(now, id, frame);
        }
        self.handle_frame(now, id, frame);
        if self.socket.has_actions() { self.poll_action(now) } else { None }
    }

    /// Like [`Socket::poll_action`].
    #[inline]
    pub fn poll_action(&mut self, now: Time) -> Option<Action> {
        let action = self.socket.poll_action(now);
        self.note_action(now, action.as_ref());
        action
    }

    /// Like [`Socket::poll_step`].
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
            // A poll without an action advances the time too.
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

/// Records an action.
pub(super) fn recorded(action: &Action, codec: &dyn Codec, payloads: bool) -> What {
    struct Text<'a>(&'a Action);
    impl fmt::Display for Text<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write_action(f, self.0)
        }
    }
    match action {
        Action::Send { frame, .. } => What::Sent(FrameRecord::sent(frame, codec, payloads)),
        Action::Join { frame, .. } => What::Sent(FrameRecord::join(frame, codec)),
        // Omits the evidence, which is the frame.
        Action::Signal(Signal::ProtocolError { error }) => {
            What::Out(format!("ProtocolError {} at byte {}", error.problem, error.offset))
        }
        other => What::Out(Text(other).to_string()),
    }
}

/// The recorded text of the result of an input; `None` if the result is not recorded.
pub(super) fn applied_text(applied: &Applied) -> Option<String> {
    fn text<T, E: fmt::Display>(
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
        Applied::ConnectNow(result) => text(result, accepted),
        Applied::Probe(result) => text(result, accepted),
        Applied::Join(result) => text(result, |interest| format!("{interest:?}")),
        Applied::Attach(result) => text(result, |interest| format!("{interest:?}")),
        Applied::Leave(result) | Applied::Rejoin(result) => text(result, accepted),
        Applied::SetJoinParams(result) => text(result, accepted),
        Applied::Push(result) => text(result, |push| format!("{push:?}")),
        Applied::SetCredentials(result) => text(result, accepted),
    }
}
