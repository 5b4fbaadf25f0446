//! A [`Socket`] whose every input is taken down.

use core::fmt;
use core::ops::Deref;
use std::sync::Arc;

use super::config::{ConfigRecord, CredentialsRecord, HIDDEN, ParamsRecord, as_recorded};
use super::line::{EndedRecord, InputRecord, Line, Start, What};
use super::redact::{FrameRecord, PayloadRecord};
use super::tape::{Recorder, Tape};
use crate::config::join_params::{JoinParams, ParamsPanicked};
use crate::config::{Config, Credentials};
use crate::event::action::Action;
use crate::event::applied::{Applied, Released, Supplied};
use crate::event::cause::Cause;
use crate::event::error::{
    CredentialsError, JoinError, NotOpen, NotRetrying, NotWanted, PushError,
};
use crate::event::input::{Ended, Input, Opened, Progress, PushOptions};
use crate::event::signal::Signal;
use crate::event::ticket::JoinTicket;
use crate::event::words::write_action;
use crate::id::{ConnectionId, InterestId, PushId};
use crate::socket::apply::apply_input;
use crate::socket::{Socket, Step};
use crate::time::Time;
use crate::topic::Topic;
use crate::wire::payload::Payload;
use crate::wire::{Codec, Frame};

/// A [`Socket`] that hands a [`Recorder`] everything it is told and does.
///
/// Its commands, inputs and `poll_action` are those of the socket, which is documented there; what
/// only looks is the socket's own, by `Deref`. Without a recorder each costs one branch.
pub struct RecordedSocket {
    socket: Socket,
    log: Option<Box<Log>>,
}

/// What a recorded socket remembers of its recording.
struct Log {
    tape: Arc<Tape>,
    client: u64,
    payloads: bool,
    codec: Arc<dyn Codec>,
    message_bytes_max: usize,
    /// The latest time the socket was told, as it clamps what comes after.
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
                codec: Arc::clone(&config.codec),
                message_bytes_max: config.max_message_bytes,
                latest: now,
            };
            let (payloads, config) = (log.payloads, ConfigRecord::of(&config));
            log.write(What::Start(Box::new(Start { seed, payloads, config })));
            Box::new(log)
        });
        Self { socket: Socket::new(config, seed, now), log }
    }

    /// Hands the lines that wait to the sink of the recorder. Dropping the socket does too.
    pub fn flush(&self) {
        if let Some(log) = &self.log {
            log.tape.flush();
        }
    }

    pub(crate) fn tape(&self) -> Option<Arc<Tape>> {
        self.log.as_ref().map(|log| Arc::clone(&log.tape))
    }

    #[inline]
    fn note(&mut self, now: Time, input: impl FnOnce(&Log) -> InputRecord) {
        if let Some(log) = &mut self.log {
            log.advance(now);
            log.write(What::In(input(log)));
        }
    }

    fn answer<T, E: fmt::Display>(
        &self,
        answer: Result<T, E>,
        in_words: impl FnOnce(&T) -> String,
    ) -> Result<T, E> {
        if let Some(log) = &self.log {
            log.write(What::Answer(answer_in_words(&answer, in_words)));
        }
        answer
    }
}

/// # Commands
impl RecordedSocket {
    /// [`Socket::connect`].
    pub fn connect(&mut self, now: Time) {
        self.note(now, |_| InputRecord::Connect);
        self.socket.connect(now);
    }

    /// [`Socket::disconnect`].
    pub fn disconnect(&mut self, now: Time) {
        self.note(now, |_| InputRecord::Disconnect);
        self.socket.disconnect(now);
    }

    /// [`Socket::connect_now`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn connect_now(&mut self, now: Time) -> Result<(), NotRetrying> {
        self.note(now, |_| InputRecord::ConnectNow);
        let answer = self.socket.connect_now(now);
        self.answer(answer, accepted)
    }

    /// [`Socket::probe`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn probe(&mut self, now: Time) -> Result<(), NotOpen> {
        self.note(now, |_| InputRecord::Probe);
        let answer = self.socket.probe(now);
        self.answer(answer, accepted)
    }

    /// [`Socket::join`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn join(
        &mut self,
        now: Time,
        topic: impl Into<Topic>,
        params: impl Into<JoinParams>,
    ) -> Result<InterestId, JoinError> {
        let (topic, params) = (topic.into(), params.into());
        if self.log.is_some() {
            let conflicting = self.socket.conflicts(&topic, &params);
            self.note(now, |_| InputRecord::Join {
                topic: topic.to_string(),
                params: ParamsRecord::of(&params),
                conflicting,
            });
        }
        let answer = self.socket.join(now, topic, params);
        self.answer(answer, |interest| format!("{interest:?}"))
    }

    /// [`Socket::attach`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn attach(&mut self, now: Time, topic: &str) -> Result<InterestId, NotWanted> {
        self.note(now, |_| InputRecord::Attach { topic: topic.to_owned() });
        let answer = self.socket.attach(now, topic);
        self.answer(answer, |interest| format!("{interest:?}"))
    }

    /// [`Socket::release`].
    pub fn release(&mut self, now: Time, interest: InterestId) -> Released {
        self.note(now, |_| InputRecord::Release { interest: interest.as_u64() });
        self.socket.release(now, interest)
    }

    /// [`Socket::leave`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn leave(&mut self, now: Time, topic: &str) -> Result<(), NotWanted> {
        self.note(now, |_| InputRecord::Leave { topic: topic.to_owned() });
        let answer = self.socket.leave(now, topic);
        self.answer(answer, accepted)
    }

    /// [`Socket::rejoin`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn rejoin(&mut self, now: Time, topic: &str) -> Result<(), NotWanted> {
        self.note(now, |_| InputRecord::Rejoin { topic: topic.to_owned() });
        let answer = self.socket.rejoin(now, topic);
        self.answer(answer, accepted)
    }

    /// [`Socket::set_join_params`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn set_join_params(
        &mut self,
        now: Time,
        topic: &str,
        params: impl Into<JoinParams>,
    ) -> Result<(), JoinError> {
        let params = params.into();
        self.note(now, |_| InputRecord::SetJoinParams {
            topic: topic.to_owned(),
            params: ParamsRecord::of(&params),
        });
        let answer = self.socket.set_join_params(now, topic, params);
        self.answer(answer, accepted)
    }

    /// [`Socket::push`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn push(
        &mut self,
        now: Time,
        topic: &str,
        event: &str,
        payload: impl Into<Payload>,
        options: PushOptions,
    ) -> Result<PushId, PushError> {
        let payload = payload.into();
        self.note(now, |log| InputRecord::Push {
            topic: topic.to_owned(),
            event: event.to_owned(),
            payload: match log.payloads {
                true => PayloadRecord::whole(&payload),
                false => PayloadRecord::hidden(&payload),
            },
            cast: options.cast,
            fail_fast: options.fail_fast,
            timeout: options.timeout.map(Into::into),
        });
        let answer = self.socket.push(now, topic, event, payload, options);
        self.answer(answer, |push| format!("{push:?}"))
    }

    /// [`Socket::cancel_push`].
    pub fn cancel_push(&mut self, now: Time, id: PushId) -> bool {
        self.note(now, |_| InputRecord::CancelPush { push: id.as_u64() });
        self.socket.cancel_push(now, id)
    }

    /// [`Socket::reseed`].
    pub fn reseed(&mut self, now: Time, seed: u64) {
        self.note(now, |_| InputRecord::Reseed { seed });
        self.socket.reseed(now, seed);
    }

    /// [`Socket::set_credentials`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn set_credentials(
        &mut self,
        now: Time,
        credentials: Credentials,
    ) -> Result<(), CredentialsError> {
        self.note(now, |_| InputRecord::SetCredentials(CredentialsRecord::of(&credentials)));
        let answer = self.socket.set_credentials(now, credentials);
        self.answer(answer, accepted)
    }

    /// [`Socket::credentials_unchanged`].
    pub fn credentials_unchanged(&mut self, now: Time, id: ConnectionId) {
        self.note(now, |_| InputRecord::CredentialsUnchanged { conn: id.as_u64() });
        self.socket.credentials_unchanged(now, id);
    }
}

/// # Inputs
impl RecordedSocket {
    /// [`Socket::handle_opened`].
    pub fn handle_opened(&mut self, now: Time, id: ConnectionId, opened: Opened) {
        self.note(now, |_| InputRecord::Opened {
            conn: id.as_u64(),
            // A server that repeats the offer repeats the token with it.
            protocol: opened.protocol.as_deref().map(|protocol| match protocol {
                "phoenix" => "phoenix".to_owned(),
                _ => "other".to_owned(),
            }),
        });
        self.socket.handle_opened(now, id, opened);
    }

    /// [`Socket::handle_failed`].
    pub fn handle_failed(&mut self, now: Time, id: ConnectionId, cause: Cause) {
        let conn = id.as_u64();
        self.note(now, |_| InputRecord::Failed { conn, cause: cause.clone().redacted(HIDDEN) });
        self.socket.handle_failed(now, id, cause);
    }

    /// [`Socket::handle_closed`].
    pub fn handle_closed(&mut self, now: Time, id: ConnectionId, ended: Ended) {
        let conn = id.as_u64();
        self.note(now, |_| InputRecord::Closed { conn, ended: EndedRecord::of(&ended) });
        self.socket.handle_closed(now, id, ended);
    }

    /// [`Socket::handle_frame`].
    #[inline]
    pub fn handle_frame(&mut self, now: Time, id: ConnectionId, frame: Frame) {
        self.note(now, |log| InputRecord::Frame { conn: id.as_u64(), frame: log.received(&frame) });
        self.socket.handle_frame(now, id, frame);
    }

    /// [`Socket::handle_writable`].
    pub fn handle_writable(&mut self, now: Time, id: ConnectionId, writable: bool) {
        self.note(now, |_| InputRecord::Writable { conn: id.as_u64(), writable });
        self.socket.handle_writable(now, id, writable);
    }

    /// [`Socket::handle_progress`].
    pub fn handle_progress(&mut self, now: Time, id: ConnectionId, progress: Progress) {
        let (conn, Progress { read, written, flushed }) = (id.as_u64(), progress);
        self.note(now, |_| InputRecord::Progress { conn, read, written, flushed });
        self.socket.handle_progress(now, id, progress);
    }

    /// [`Socket::handle_timeout`].
    pub fn handle_timeout(&mut self, now: Time) {
        self.note(now, |_| InputRecord::Timeout);
        self.socket.handle_timeout(now);
    }

    /// [`Socket::handle_panicked`].
    pub fn handle_panicked(&mut self, now: Time) {
        self.note(now, |_| InputRecord::Panicked);
        self.socket.handle_panicked(now);
    }

    /// [`Socket::handle_wake`].
    pub fn handle_wake(&mut self, now: Time) {
        self.note(now, |_| InputRecord::Wake);
        self.socket.handle_wake(now);
    }

    /// [`Socket::poll_action`].
    #[inline]
    pub fn poll_action(&mut self, now: Time) -> Option<Action> {
        let action = self.socket.poll_action(now);
        self.note_action(now, action.as_ref());
        action
    }

    #[inline]
    fn note_action(&mut self, now: Time, action: Option<&Action>) {
        if let Some(log) = &mut self.log {
            // What there was nothing to do at counts too: time does not go back behind it.
            log.advance(now);
            if let Some(action) = action {
                log.write(told(action, &*log.codec, log.payloads));
            }
        }
    }
}

/// # Inputs as data
impl RecordedSocket {
    /// [`Socket::apply`].
    pub fn apply(&mut self, now: Time, input: Input) -> Applied {
        apply_input!(self, now, input)
    }
}

/// # Join parameters that a function makes
impl RecordedSocket {
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

    /// [`Socket::supply_join`].
    pub fn supply_join(
        &mut self,
        now: Time,
        ticket: &JoinTicket,
        params: Result<Payload, ParamsPanicked>,
    ) -> Supplied {
        let supplied = self.socket.supply_join(now, ticket, params);
        match &supplied {
            Supplied::Join(join) => self.note_action(now, Some(join)),
            Supplied::Ended | Supplied::Stale => self.note_action(now, None),
        }
        supplied
    }
}

/// A clone goes its own way, and is not recorded.
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

    fn received(&self, frame: &Frame) -> FrameRecord {
        if frame.len() > self.message_bytes_max {
            return FrameRecord::unreadable(frame);
        }
        FrameRecord::received(frame, &*self.codec, self.payloads)
    }
}

/// An action as the recording has it.
pub(super) fn told(action: &Action, codec: &dyn Codec, payloads: bool) -> What {
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

/// What a recording has of a command that is accepted and returns nothing.
pub(super) fn accepted((): &()) -> String {
    "accepted".to_owned()
}

/// The answer to a command as the recording has it.
pub(super) fn answer_in_words<T, E: fmt::Display>(
    answer: &Result<T, E>,
    in_words: impl FnOnce(&T) -> String,
) -> String {
    match answer {
        Ok(accepted) => in_words(accepted),
        Err(error) => format!("refused: {error}"),
    }
}
