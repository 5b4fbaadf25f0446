//! The driver: one future that carries out the core's actions.
//!
//! ```text
//!   poll ─▶ todo ─▶ provider, dial ─▶ read ─▶ expire ─▶ write, flush ─┐
//!     ▲                                                               │ something moved,
//!     └── timer, transport, handles wake ◀── Pending ◀────────────────┴ within the budget: again
//! ```
//!
//! Reading never waits for writing, nor writing for reading: every poll of the driver polls both, each
//! with its own budget. The driver pulls frames from the core only when the transport can take them, so it
//! never holds a frame while it waits. It gathers received frames and hands them to the core as one batch,
//! so for many frames it takes the lock once, and wakes each consumer once. The clock decides what
//! has expired; the timer only wakes the driver. The driver reads frames before it expires deadlines,
//! so an answer that was in a buffer while the executor was busy does not count as late.
//!
//! Transferred bytes extend deadlines. The driver reports the transport's totals to the core right
//! before it expires deadlines, twice a second while an answer is awaited, and before it writes frames
//! if [`REPORT_BYTES`] were written since the last report. Bytes that may have waited in a buffer while the process did not run
//! do not prove that the peer is alive, so they are not reported. After a gap in polling, reads
//! count again once the transport was found empty or [`CATCH_UP_BYTES`] were read.
//!
//! # What runs where
//!
//! | what | on which task | under the lock |
//! | --- | --- | --- |
//! | the core: commands, inputs, decoding and building of frames | the caller's, or the driver's | yes |
//! | codecs | the same as the core | yes, by their contract |
//! | credential providers, functions of join parameters | the driver's | no |
//! | the transport, the timer, dialling | the driver's | no |
//! | the clock | the driver's, or that of the caller of a command | no |
//! | wakers: cloned, woken, dropped | the driver's, a consumer's, or that of the caller of a command | no |
//! | drops of values that the application may own, such as payloads | the same as wakers | no |
//! | recorders and `tracing` subscribers | the driver's, or that of the caller of a command | no |
//!
//! Five counts bound the work of one poll: frames read (including control frames and reads without
//! a message), the bytes of the data frames, frames written, join parameters that were stale when they were supplied,
//! and rounds.
//! At a bound the driver wakes itself and returns.

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::collections::VecDeque;
use std::sync::Arc;

use super::runtime::{Clock, Received, Runtime, Timer, Transport};
use super::setup::{ConnectAttempt, Provided, Provider, ProviderCall};
use super::state::{Pulled, Shared, State, apply};
use super::waiters::Task;
use crate::event::action::Action;
use crate::event::applied::Supplied;
use crate::event::cause::Cause;
use crate::event::input::{Ended, Input, Progress};
use crate::event::ticket::JoinTicket;
use crate::id::ConnectionId;
use crate::time::Time;
use crate::wire::Frame;
use crate::wire::payload::Payload;

/// The number of frames that one poll may read, control frames included, and the number that it may
/// write.
const BUDGET: u32 = 128;

/// The number of bytes of frames after which one poll reads no further frame. The consumers read the
/// frames next, while they are in the processor's cache.
const BYTES_MAX: usize = 128 << 10;

/// A read without a complete message counts as this many frames, because it may have read a whole
/// buffer of the smallest fragments.
const PART: u32 = 16;

/// The number of bytes of frames after which a batch is handed to the core.
const GATHERED_MAX: usize = 64 << 10;

/// The bytes that a frame counts in addition to its length; see [`Transport::space`].
const FRAME_OVERHEAD: usize = 64;

/// The capacity to keep after a batch of `batch` frames: a busy connection keeps all of it, an idle
/// one shrinks.
const fn kept_capacity(batch: usize, capacity: usize) -> usize {
    if batch * 8 < capacity { 4 } else { capacity }
}

/// The maximum number of rounds in one poll.
const ROUNDS: u32 = 128;

/// The number of frames after which deadlines are handled even if there is more to read.
const POSTPONED_MAX: u32 = 8 * BUDGET;

/// How far the wall clock must run ahead of the monotonic clock before the driver assumes that the
/// machine was suspended.
const SUSPENDED: Duration = Duration::from_secs(2);

/// How often progress is reported while an answer is awaited.
const REPORT_INTERVAL: Duration = Duration::from_millis(500);

/// The number of written bytes after which progress is reported before further frames are written. An
/// answer proves that the server has received the bytes written before the request, as far as they were
/// reported.
const REPORT_BYTES: u64 = 16 << 10;

/// If the driver was not polled for this time, the bytes that it reads next may have waited in a
/// buffer.
const GAP: Duration = Duration::from_secs(1);

/// The largest receive buffer of an operating system, in bytes: the default maximum of Linux since 6.16.
const CATCH_UP_BYTES: u64 = 32 << 20;

/// The future that runs one connection: poll it, or pass it to the runtime's `spawn`.
///
/// It completes when every handle is dropped and the connection is closed. After an explicit
/// `disconnect` it keeps running, for a later `connect`. When it completes or is dropped, every pending
/// future and stream of the connection ends. It is `Send` if the runtime, its transport, its timer and its
/// dial future are.
#[must_use = "nothing happens unless the driver is polled"]
pub struct Driver<R: Runtime> {
    runtime: R,
    clock: R::Clock,
    provider: Option<Arc<Provider>>,
    shared: Arc<Shared>,
    provider_call: Option<(ConnectionId, ProviderCall)>,
    dial: Option<(ConnectionId, R::Dial)>,
    link: Option<Link<R::Transport>>,
    timer: R::Timer,
    /// The time that the timer is set to: the next deadline or an earlier time.
    timer_at: Option<Time>,
    /// The waker that the timer was last polled with.
    timer_waker: Option<Waker>,
    /// In this poll, join parameters were already stale when they were supplied.
    stale: bool,
    /// A clone of the task's waker, to be parked under the lock.
    spare: Option<Waker>,
    /// A buffer for the wakers of a batch.
    wakers: Vec<Waker>,
    /// A buffer for the frames that are pulled under one lock, except the first.
    pulled: Vec<Frame>,
    last_now: Time,
    last_wall: Time,
    /// The time of the next progress report, while an answer is awaited.
    report_at: Option<Time>,
    /// The number of frames that were read by polls that handled no deadlines.
    postponed: u32,
    /// True during a poll. A driver that is dropped with it set has panicked.
    polling: bool,
}

struct Link<T> {
    id: ConnectionId,
    transport: T,
    /// Frames that were read and not yet handed to the core.
    gathered: VecDeque<Frame>,
    /// The end of the connection, which follows the frames in `gathered`. Nothing is read after it.
    ended: Option<Ended>,
    /// In this poll, the transport had nothing more to read; it wakes the driver when there is
    /// more.
    dry: bool,
    /// The progress that was last reported to the core.
    reported: Progress,
    /// A frame was sent whose flush has not been reported yet.
    sent: bool,
    /// The number of read bytes that do not prove that the peer is alive.
    stale: u64,
    /// The total of read bytes when a gap in polling was noticed. The bytes after it may have waited in a
    /// buffer, until everything that was in the buffer has been read.
    catching_up: Option<u64>,
    /// The value of `Input::Writable` that was last applied to the core.
    writable: bool,
    /// The transport takes no more frames; reading returns the cause.
    broken: bool,
    flush: bool,
    /// Call `poll_ready` once more after the flush.
    retry_ready: bool,
}

impl<R: Runtime> fmt::Debug for Driver<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").finish_non_exhaustive()
    }
}

/// The remaining read budget of one poll.
struct ReadBudget {
    frames: u32,
    bytes: usize,
}

impl ReadBudget {
    const fn new() -> Self {
        Self { frames: BUDGET, bytes: BYTES_MAX }
    }

    const fn is_spent(&self) -> bool {
        self.frames == 0 || self.bytes == 0
    }
}

impl<T> Link<T> {
    /// Whether there may be frames that the core has not received yet.
    fn has_more(&self) -> bool {
        !self.dry || !self.gathered.is_empty()
    }
}

impl<T: Transport> Link<T> {
    /// The transport's totals, without the read bytes that do not prove that the peer is alive.
    fn progress(&mut self) -> Progress {
        let progress = self.transport.progress();
        let fresh = self.catching_up.unwrap_or(progress.read);
        Progress { read: fresh.saturating_sub(self.stale), flushed: !self.flush, ..progress }
    }

    /// Called when the driver was not polled for a while: bytes that are read from here on may be
    /// old, until the transport has nothing more to read.
    fn begin_to_catch_up(&mut self) {
        let read = self.transport.progress().read;
        self.catching_up.get_or_insert(read);
        self.dry = false;
    }

    /// Counts read bytes again, once all bytes that may have waited in a buffer were read.
    fn catch_up(&mut self) {
        let Some(from) = self.catching_up else { return };
        let behind = self.transport.progress().read.saturating_sub(from);
        if self.dry || behind >= CATCH_UP_BYTES {
            self.stale += behind;
            self.catching_up = None;
        }
    }

    /// Returns the progress if it has changed or a flush must be reported, and records it as reported.
    fn take_news(&mut self) -> Option<(ConnectionId, Progress)> {
        let progress = self.progress();
        if progress == self.reported && !(self.sent && progress.flushed) {
            return None;
        }
        self.sent &= !progress.flushed;
        self.reported = progress;
        Some((self.id, progress))
    }

    /// Sends a frame, unless a write has failed.
    fn send(&mut self, frame: Frame) {
        if !self.broken {
            self.flush = true;
            self.sent = true;
            self.broken = self.transport.send(frame).is_err();
        }
    }

    /// Flushes the frames that were sent. Returns true when `poll_ready` must be called once more.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.flush || self.broken {
            return false;
        }
        match self.transport.poll_flush(cx) {
            Poll::Ready(Ok(())) => {
                self.flush = false;
                // After the flush the transport may take frames again, and no waker reports that. So
                // `poll_ready` is called once more; a transport that still takes none must wake the
                // driver itself.
                core::mem::replace(&mut self.retry_ready, false) && !self.writable
            }
            Poll::Ready(Err(_)) => {
                self.broken = true;
                false
            }
            Poll::Pending => false,
        }
    }

    /// Reads frames until the batch is full or nothing is left to read.
    fn gather(&mut self, budget: &mut ReadBudget, cx: &mut Context<'_>) {
        let mut bytes = 0;
        if self.gathered.capacity() == 0 {
            // An idle connection receives one frame at a time.
            self.gathered.reserve_exact(1);
        }
        while !budget.is_spent() && bytes < GATHERED_MAX && !self.dry && self.ended.is_none() {
            let Poll::Ready(received) = self.transport.poll_receive(cx) else {
                self.dry = true;
                break;
            };
            budget.frames -= 1;
            match received {
                Received::Control => {}
                Received::Part => budget.frames = budget.frames.saturating_sub(PART - 1),
                Received::Frame(frame) => {
                    bytes += frame.len();
                    budget.bytes = budget.bytes.saturating_sub(frame.len());
                    self.gathered.push_back(frame);
                }
                Received::Ended(ended) => {
                    self.ended = Some(ended);
                    self.broken = true;
                }
            }
        }
        self.catch_up();
    }
}

/// Nothing in a driver is structurally pinned: the traits require everything that it polls to be
/// `Unpin`.
impl<R: Runtime> Unpin for Driver<R> {}

impl<R: Runtime> Driver<R> {
    pub(super) fn new(runtime: R, provider: Option<Arc<Provider>>, shared: Arc<Shared>) -> Self {
        let clock = runtime.clock();
        Self {
            timer: runtime.timer(),
            timer_at: None,
            timer_waker: None,
            stale: false,
            spare: None,
            wakers: Vec::new(),
            pulled: Vec::new(),
            last_now: clock.now(),
            last_wall: clock.wall(),
            report_at: None,
            postponed: 0,
            polling: false,
            provider_call: None,
            dial: None,
            link: None,
            clock,
            runtime,
            provider,
            shared,
        }
    }

    /// Registers the driver's waker, which the next command wakes. Returns the work that is pending now.
    fn listen(&mut self, cx: &Context<'_>) -> PendingWork {
        if self.spare.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
            self.spare = Some(cx.waker().clone());
        }
        let mut task = Task::new(cx.waker(), self.spare.take());
        let pending = self.shared.with_state(|state| {
            let _ = state.listen(&mut task);
            PendingWork::of(state)
        });
        self.spare = task.into_spare();
        pending
    }

    /// Detects, before any deadline is checked, that the machine was suspended or that the driver
    /// was not polled for a while. Returns whether it was suspended.
    fn notice_sleep(&mut self, now: Time) -> bool {
        let wall = self.clock.wall();
        let gap = now.since(self.last_now);
        let slept = wall.since(self.last_wall) > gap + SUSPENDED;
        if let Some(link) = self.link.as_mut().filter(|_| slept || gap > GAP) {
            link.begin_to_catch_up();
        }
        (self.last_now, self.last_wall) = (now, wall);
        if slept {
            self.shared.input(now, |state| state.handle_wake(now));
        }
        slept
    }

    /// Whether deadlines are not handled in this round, because there is more to read first.
    fn reads_first(&self, reads: &ReadBudget) -> bool {
        let has_more = reads.is_spent() || self.link.as_ref().is_some_and(Link::has_more);
        has_more && self.postponed < POSTPONED_MAX
    }

    /// Expires deadlines that have passed. `next` is the earliest deadline.
    fn expire(&mut self, now: Time, next: Option<Time>) {
        self.postponed = 0;
        if next.is_none_or(|next| next > now) {
            return;
        }
        let news = self.link.as_mut().and_then(Link::take_news);
        self.shared.input(now, |state| {
            state.drain(now);
            if let Some((id, progress)) = news {
                state.apply(now, Input::Progress { id, progress });
            }
            if state.socket.poll_timeout().is_some_and(|next| next.at <= now) {
                state.apply(now, Input::Timeout);
            }
            state.expire_waiters(now);
        });
    }

    /// Carries out the actions that are not frames. It calls the runtime's dial function, so it
    /// does not hold the lock.
    fn carry_out(&mut self, now: Time) -> bool {
        let mut moved = false;
        while let Some(action) = self.shared.with_state(State::next_todo) {
            moved = true;
            match action {
                Action::Connect { id, attempt } => {
                    self.link = None;
                    self.dial = None;
                    self.provider_call = None;
                    self.begin(now, id, attempt);
                }
                Action::Abort { id } => {
                    self.provider_call.take_if(|(current, _)| *current == id);
                    self.dial.take_if(|(current, _)| *current == id);
                    self.link.take_if(|link| link.id == id);
                }
                Action::Close { id, code, reason } => {
                    match self.link.as_mut().filter(|link| link.id == id) {
                        Some(link) => {
                            link.transport.close(code, reason);
                            link.flush = true;
                        }
                        // The transport has already ended.
                        None => {
                            let message = "the connection had already ended".to_owned();
                            let ended = Ended::Lost { message };
                            self.shared
                                .input(now, |state| state.apply(now, Input::Closed { id, ended }));
                        }
                    }
                }
                Action::Send { .. }
                | Action::Join { .. }
                | Action::Signal(_)
                | Action::ReconnectAfter { .. }
                | Action::RejoinAfter { .. } => {
                    debug_assert!(false, "frames and signals are not queued in `todo`");
                }
            }
        }
        moved
    }

    /// Calls the credential provider, or dials if there is none.
    fn begin(&mut self, now: Time, id: ConnectionId, attempt: u32) {
        let Some(provider) = &self.provider else { return self.dial(now, id) };
        let after = self.shared.with_state(|state| state.last_cause.clone());
        match ProviderCall::new(&**provider, ConnectAttempt { attempt, after }) {
            Ok(provider_call) => self.provider_call = Some((id, provider_call)),
            Err(failure) => {
                self.shared
                    .input(now, |state| state.apply(now, Input::Failed { id, cause: failure }));
            }
        }
    }

    fn dial(&mut self, now: Time, id: ConnectionId) {
        let (request, config) = self.shared.input(now, |state| {
            state.apply(now, Input::Dialled { id });
            (state.socket.connect_request(), state.socket.config().clone())
        });
        match request {
            Ok(request) => {
                self.dial = Some((id, self.runtime.connect(request, &config)));
            }
            Err(error) => {
                let failure = Cause::Unsupported { message: error.to_string() };
                self.shared
                    .input(now, |state| state.apply(now, Input::Failed { id, cause: failure }));
            }
        }
    }

    fn poll_provider(&mut self, now: Time, cx: &mut Context<'_>) -> bool {
        let Some((id, provider_call)) = &mut self.provider_call else { return false };
        let id = *id;
        let Poll::Ready(answer) = provider_call.poll(cx) else { return false };
        self.provider_call = None;
        let goes_on = self.shared.input(now, |state| {
            match answer {
                Ok(Provided::Use(credentials)) => {
                    if let Err(error) = apply!(state, now, SetCredentials { 0: credentials }) {
                        let cause = Cause::CredentialsFailed { message: error.to_string() };
                        state.apply(now, Input::Failed { id, cause });
                    }
                }
                Ok(_) => state.apply(now, Input::CredentialsUnchanged { id }),
                Err(cause) => state.apply(now, Input::Failed { id, cause }),
            }
            state.socket.connection_id() == Some(id)
        });
        if goes_on {
            self.dial(now, id);
        }
        true
    }

    fn poll_dial(&mut self, now: Time, cx: &mut Context<'_>) -> bool {
        let Some((id, dial)) = &mut self.dial else { return false };
        let id = *id;
        let Poll::Ready(result) = Pin::new(dial).poll(cx) else { return false };
        self.dial = None;
        match result {
            Ok((transport, opened)) => {
                self.link = Some(Link {
                    id,
                    transport,
                    gathered: VecDeque::new(),
                    ended: None,
                    dry: false,
                    reported: Progress::default(),
                    sent: false,
                    stale: 0,
                    catching_up: None,
                    writable: true,
                    broken: false,
                    flush: false,
                    retry_ready: false,
                });
                self.shared.input(now, |state| state.handle_opened(now, id, opened));
            }
            Err(failure) => {
                self.shared
                    .input(now, |state| state.apply(now, Input::Failed { id, cause: failure }));
            }
        }
        true
    }

    /// Returns true when there is more to read, or when the connection has ended.
    fn poll_read(&mut self, now: Time, budget: &mut ReadBudget, cx: &mut Context<'_>) -> bool {
        let Some(link) = &mut self.link else { return false };
        link.gather(budget, cx);
        if link.gathered.is_empty() && link.ended.is_none() {
            return false;
        }
        let id = link.id;
        let batch = link.gathered.len();
        let mut over = false;
        let mut handled = 0;
        self.shared.batch(&mut self.wakers, |state| {
            // Actions that result from one frame are carried out before the next frame is handled.
            while state.todo.is_empty() {
                if let Some(frame) = link.gathered.get(handled) {
                    handled += 1;
                    state.handle_frame(now, id, frame);
                } else if let Some(ended) = link.ended.take() {
                    over = true;
                    state.apply(now, Input::Closed { id, ended });
                    state.drain(now);
                } else {
                    break;
                }
            }
        });
        // A frame may be a slice of the transport's memory. This may be the last reference to it, so it is
        // dropped after the lock is released.
        link.gathered.drain(..handled);
        if over {
            self.link = None;
            return true;
        }
        link.gathered.shrink_to(kept_capacity(batch, link.gathered.capacity()));
        self.wakers.shrink_to(kept_capacity(batch, self.wakers.capacity()));
        link.has_more()
    }

    /// Writes frames. Returns whether `poll_ready` must be called once more after a flush, and the pending
    /// work if that is known.
    fn poll_write(
        &mut self,
        now: Time,
        budget: &mut u32,
        cx: &mut Context<'_>,
    ) -> (bool, Option<PendingWork>) {
        let Some(link) = &mut self.link else { return (false, None) };
        let id = link.id;
        let mut pending = None;
        while *budget > 0 && !link.broken && pending.is_none() {
            match link.transport.poll_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => {
                    link.broken = true;
                    break;
                }
                Poll::Pending => {
                    if link.writable {
                        // The transport may need a flush before it has space.
                        link.flush = true;
                        link.retry_ready = true;
                        link.writable = false;
                        self.shared.input(now, |state| {
                            state.apply(now, Input::Writable { id, writable: false })
                        });
                    }
                    break;
                }
            }
            let regained = !core::mem::replace(&mut link.writable, true);
            let written = link.transport.progress().written.saturating_sub(link.reported.written);
            let news = if written >= REPORT_BYTES { link.take_news() } else { None };
            let space = link.transport.space();
            let more = &mut self.pulled;
            let (first, stopped) = self.shared.input(now, |state| {
                if regained {
                    state.apply(now, Input::Writable { id, writable: true });
                }
                if let Some((id, progress)) = news {
                    state.apply(now, Input::Progress { id, progress });
                }
                pull_batch(state, now, id, space, budget, more)
            });
            let batch = more.len();
            for frame in first.into_iter().chain(more.drain(..)) {
                link.send(frame);
            }
            more.shrink_to(kept_capacity(batch, more.capacity()));
            match stopped {
                Stopped::Full => {}
                Stopped::Empty(work) => pending = Some(work),
                Stopped::Evaluate(ticket) => match evaluate(&self.shared, &self.clock, &ticket) {
                    Supplied::Join(Action::Join { id: to, frame, .. }) if to == id => {
                        link.send(frame);
                    }
                    // If a function sets other parameters for its topic each time it is called, every
                    // result is stale. The driver stops after the second stale result of a poll, so
                    // that it does not block the executor.
                    Supplied::Stale if core::mem::replace(&mut self.stale, true) => *budget = 0,
                    _ => {}
                },
            }
        }
        if link.broken && core::mem::replace(&mut link.writable, false) {
            pending = None;
            self.shared
                .input(now, |state| state.apply(now, Input::Writable { id, writable: false }));
        }
        (link.poll_flush(cx), pending)
    }

    /// Reports progress when that is due. Returns the time of the next report, or `None` if no
    /// answer is awaited.
    fn report(&mut self, now: Time, awaits_answer: bool) -> Option<Time> {
        let link = self.link.as_mut().filter(|_| awaits_answer);
        self.report_at = match (self.report_at, link) {
            (_, None) => None,
            (Some(at), Some(_)) if now < at => Some(at),
            (_, Some(link)) => {
                if let Some((id, progress)) = link.take_news() {
                    self.shared
                        .input(now, |state| state.apply(now, Input::Progress { id, progress }));
                }
                Some(now + REPORT_INTERVAL)
            }
        };
        self.report_at
    }

    /// Sets and polls the timer. Returns true when it has already fired and the clock must be read
    /// again.
    fn poll_timer(&mut self, now: Time, next: Option<Time>, cx: &mut Context<'_>) -> bool {
        // Waking too early is harmless, so the timer is not set again when a deadline is removed or
        // moves later, as happens with every push.
        let Some(next) = next else { return false };
        let earlier = self.timer_at.is_none_or(|at| next < at);
        if earlier {
            self.timer.reset(Some(next));
            self.timer_at = Some(next);
        }
        let waits = !earlier
            && self.timer_at.is_some_and(|at| now < at)
            && self.timer_waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
        if waits {
            return false;
        }
        if self.timer.poll_expired(cx).is_ready() {
            // If it fired too early, the next round sets it again.
            self.timer_at = None;
            self.timer_waker = None;
            return true;
        }
        match &mut self.timer_waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        false
    }

    /// Ends every waiter and every stream.
    fn end(&self) {
        let now = self.clock.now();
        drop(self.shared.input(now, |state| state.end(now, self.polling)));
    }

    fn pending(&self) -> PendingWork {
        self.shared.with_state(|state| PendingWork::of(state))
    }
}

/// The reason why a batch ended.
enum Stopped {
    /// The transport's space or the budget of the poll is used up.
    Full,
    /// The core has nothing to write.
    Empty(PendingWork),
    /// The parameters of a join must be evaluated first.
    Evaluate(JoinTicket),
}

/// Pulls frames until `space` or `budget` is used up, and drops frames of other connections than `id`.
/// Returns the first frame and appends the others to `more`, so that a batch of one frame does not
/// allocate.
fn pull_batch(
    state: &mut State,
    now: Time,
    id: ConnectionId,
    mut space: usize,
    budget: &mut u32,
    more: &mut Vec<Frame>,
) -> (Option<Frame>, Stopped) {
    let mut first = None;
    loop {
        let Some(pulled) = state.pull(now) else {
            state.drain(now);
            return (first, Stopped::Empty(PendingWork::of(state)));
        };
        *budget -= 1;
        let (to, frame) = match pulled {
            Pulled::Frame(to, frame) => (to, frame),
            Pulled::Evaluate(ticket) => return (first, Stopped::Evaluate(ticket)),
        };
        space = space.saturating_sub(frame.len() + FRAME_OVERHEAD);
        match first {
            _ if to != id => {}
            None => first = Some(frame),
            Some(_) => more.push(frame),
        }
        if space == 0 || *budget == 0 {
            return (first, Stopped::Full);
        }
    }
}

/// Evaluates the parameters of a join and supplies them. The function is application code, so no
/// lock is held while it runs.
fn evaluate(shared: &Shared, clock: &impl Clock, ticket: &JoinTicket) -> Supplied {
    let params = ticket.evaluate();
    // The core drops its reference to the payload under the lock; this one lives longer.
    let _kept = params.as_ref().ok().and_then(Payload::shared);
    let now = clock.now();
    shared.input(now, |state| state.supply(now, ticket, params))
}

/// The state of the connection after a round: what the driver still has to do or wait for.
struct PendingWork {
    finished: bool,
    next: Option<Time>,
    awaits_answer: bool,
    todo: bool,
}

impl PendingWork {
    fn of(state: &State) -> Self {
        let core = state.socket.poll_timeout().map(|next| next.at);
        Self {
            finished: state.is_finished(),
            next: [core, state.waiters.next_deadline()].into_iter().flatten().min(),
            awaits_answer: state.socket.awaits_answer(),
            todo: !state.todo.is_empty(),
        }
    }
}

impl<R: Runtime> Future for Driver<R> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        this.polling = true;
        let polled = this.poll_rounds(cx);
        this.polling = false;
        if polled.is_ready() {
            // The program may keep a driver that has completed.
            this.end();
        }
        polled
    }
}

impl<R: Runtime> Driver<R> {
    fn poll_rounds(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let this = self;
        let mut pending = this.listen(cx);
        if let Some(link) = &mut this.link {
            link.dry = false;
        }
        this.stale = false;
        let (mut reads, mut writes) = (ReadBudget::new(), BUDGET);
        let mut rounds = ROUNDS;
        loop {
            let now = this.clock.now();
            if this.notice_sleep(now) {
                pending = this.pending();
            }
            let mut moved = pending.todo && this.carry_out(now);
            moved |= this.poll_provider(now, cx);
            moved |= this.poll_dial(now, cx);
            let is_due = pending.next.is_some_and(|next| next <= now);
            if let Some(link) = this.link.as_mut().filter(|_| is_due) {
                // An answer may have arrived since an earlier round of this poll found nothing to read.
                link.dry = false;
            }
            moved |= this.poll_read(now, &mut reads, cx);
            let reads_first = this.reads_first(&reads);
            if !reads_first {
                this.expire(now, pending.next);
            }
            let (again, known) = this.poll_write(now, &mut writes, cx);
            moved |= again;
            pending = known.unwrap_or_else(|| this.pending());
            if pending.finished {
                this.link = None;
                return Poll::Ready(());
            }
            let was_awaited = this.report_at.is_some();
            let report = this.report(now, pending.awaits_answer);
            if was_awaited && report.is_none() {
                // Otherwise the timer would wake the task for a report that is no longer due.
                this.timer_at = None;
            }
            let next = pending.next.into_iter().chain(report).min();
            moved |= this.poll_timer(now, next, cx);
            rounds -= 1;
            if reads.is_spent() || writes == 0 || rounds == 0 {
                if reads_first {
                    this.postponed += BUDGET - reads.frames;
                }
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if !moved && !pending.todo {
                return Poll::Pending;
            }
        }
    }
}

impl<R: Runtime> Drop for Driver<R> {
    fn drop(&mut self) {
        // If code of the application panicked right after a batch, its wakers have not been woken yet.
        self.wakers.drain(..).for_each(Waker::wake);
        self.end();
    }
}
