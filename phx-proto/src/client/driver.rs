//! The driver: one future that carries out what the core decides.
//!
//! ```text
//!   poll ─▶ todo ─▶ ask, dial ─▶ read ─▶ clock ─▶ write ─▶ flush ─┐
//!     ▲                                                     │ something moved,
//!     └──── timer, transport, handles wake ◀── Pending ◀────┴ within the budget: again
//! ```
//!
//! Reading never waits for writing, nor writing for reading: both are polled in every round, with
//! a budget each. A frame is pulled from the core only when the transport takes one, so nothing is
//! ever held in between. What is read is gathered first and handed over as one batch, so the lock
//! is taken, and a consumer woken, once for many frames. The clock decides what has expired, after
//! what has arrived was read: an answer that waited in a buffer while the executor was busy is not
//! late. The timer only wakes.
//!
//! Bytes extend deadlines, so the driver reports the transport's totals to the core right before it
//! expires anything, twice a second while an answer is awaited, and for every [`REPORT_BYTES`] that
//! were written. Bytes that may have lain in a buffer while the process did not run are left out:
//! after a gap in polling, reads count again once the transport was found empty, or
//! [`CATCH_UP_BYTES`] were read.
//!
//! # What runs where
//!
//! | what | on which task | under the lock |
//! | --- | --- | --- |
//! | the core: every command, every input, every frame that is decoded or built | the caller's, or the driver's | yes |
//! | codecs | as the core | yes, by their contract |
//! | credential providers, functions of join parameters | the driver's | no |
//! | the transport, the timer, the clock, the dialling | the driver's | no |
//! | wakers: cloned, woken, dropped | the task that polls, or the caller of a command | no |
//! | drops of payloads, parameters, signals and messages of the application's | as the wakers | no |
//! | recorders and `tracing` subscribers | the driver's, or the caller's of a command | no |
//!
//! One poll is bounded: so many frames in, control frames and reads without a message included, so
//! many frames out, so many functions in vain, so many rounds. When one of the bounds is reached the
//! driver wakes itself and returns.

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::collections::VecDeque;
use std::sync::Arc;

use super::runtime::{Clock, Received, Runtime, Timer, Transport};
use super::setup::{Asking, ConnectAttempt, Provided, Provider};
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

/// Frames in, control frames included, and frames out, in one poll, before other tasks get their
/// turn.
const BUDGET: u32 = 64;

/// A read that completes no message counts as so many frames: it may be a whole buffer of the
/// smallest pieces.
const PART: u32 = 16;

/// How many bytes of frames are gathered before they are handed over; one frame always is.
const GATHERED_MAX: usize = 64 << 10;

/// How much room is left for the next batch, after one of so many frames: a busy connection keeps
/// what it has, one that has become idle does not.
const fn room_for(batch: usize, capacity: usize) -> usize {
    if batch * 8 < capacity { 4 } else { capacity }
}

/// Rounds in one poll.
const ROUNDS: u32 = 128;

/// For how many polls a flood of frames may keep the clock from being asked.
const POSTPONED_MAX: u32 = 16;

/// By how much the wall clock must outrun the monotonic one to mean that the machine slept.
const SUSPENDED: Duration = Duration::from_secs(2);

/// How often progress is reported while an answer is awaited.
const REPORT_INTERVAL: Duration = Duration::from_millis(500);

/// How many bytes are written before progress is reported once more: what an answer proves received
/// is known to that many.
const REPORT_BYTES: u64 = 16 << 10;

/// How long the driver may go without being polled, while an answer is awaited, before what it reads
/// may have lain in a buffer.
const GAP: Duration = Duration::from_secs(1);

/// How many bytes a receive buffer may have held: more than any ordinary system's.
const CATCH_UP_BYTES: u64 = 8 << 20;

/// The future that keeps one connection: poll it, or hand it to the runtime's `spawn`.
///
/// It completes when every handle is dropped and the connection is closed. After an explicit
/// `disconnect` it stays for a later `connect`. Dropping it ends everything that waits. It is `Send`
/// if the transport, the timer and the dialling of the runtime are.
#[must_use = "nothing happens unless the driver is polled"]
pub struct Driver<R: Runtime> {
    runtime: R,
    clock: R::Clock,
    provider: Option<Arc<Provider>>,
    shared: Arc<Shared>,
    asking: Option<(ConnectionId, Asking)>,
    dial: Option<(ConnectionId, R::Dial)>,
    link: Option<Link<R::Transport>>,
    timer: R::Timer,
    /// When the timer wakes: at the next deadline, or before it.
    timer_at: Option<Time>,
    /// Whom it wakes.
    timer_waker: Option<Waker>,
    /// In this poll, what was evaluated for a join was not wanted any more.
    stale: bool,
    /// A clone of the task's waker, to be parked under the lock.
    spare: Option<Waker>,
    /// Room for the wakers of a batch.
    wakers: Vec<Waker>,
    last_now: Time,
    last_wall: Time,
    /// When to report progress next, while an answer is awaited.
    report_at: Option<Time>,
    /// Polls in a row whose reading did not come to an end.
    postponed: u32,
    /// A poll has begun and not ended: it panicked, if this is seen outside of it.
    polling: bool,
}

struct Link<T> {
    id: ConnectionId,
    transport: T,
    /// Read, and not yet handed to the core.
    gathered: VecDeque<Frame>,
    /// What follows it; nothing is read after that.
    ended: Option<Ended>,
    /// In this poll, nothing more was there to be read; the transport wakes us when there is.
    dry: bool,
    /// What was reported last.
    reported: Progress,
    /// A frame was sent since: that it was flushed is news.
    sent: bool,
    /// Bytes read that are no evidence of life.
    stale: u64,
    /// Since so many bytes were read, they may have come from a buffer.
    catching_up: Option<u64>,
    /// What the core was told last.
    writable: bool,
    /// The transport takes nothing more; reading says why.
    broken: bool,
    flush: bool,
    /// After the flush, ask once more whether it takes frames.
    retry_ready: bool,
}

impl<R: Runtime> fmt::Debug for Driver<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").finish_non_exhaustive()
    }
}

impl<T> Link<T> {
    /// Whether there may be something that the core was not told.
    fn has_more(&self) -> bool {
        !self.dry || !self.gathered.is_empty()
    }
}

impl<T: Transport> Link<T> {
    /// The bytes that the transport has moved, without those that are no evidence.
    fn progress(&mut self) -> Progress {
        let Progress { read, written, .. } = self.transport.progress();
        let fresh = self.catching_up.unwrap_or(read);
        Progress { read: fresh.saturating_sub(self.stale), written, flushed: !self.flush }
    }

    /// The driver was not polled for a while: what is there to be read may have been there before.
    fn begin_to_catch_up(&mut self) {
        let read = self.transport.progress().read;
        self.catching_up.get_or_insert(read);
    }

    /// What is read counts again, once all that may have waited was read.
    fn catch_up(&mut self) {
        let Some(from) = self.catching_up else { return };
        let behind = self.transport.progress().read.saturating_sub(from);
        if self.dry || behind >= CATCH_UP_BYTES {
            self.stale += behind;
            self.catching_up = None;
        }
    }

    /// What to report, if it is news.
    fn news(&mut self) -> Option<(ConnectionId, Progress)> {
        let progress = self.progress();
        if progress == self.reported && !(self.sent && progress.flushed) {
            return None;
        }
        self.sent &= !progress.flushed;
        self.reported = progress;
        Some((self.id, progress))
    }

    /// Reads frames until there are enough of them, or none is left.
    fn gather(&mut self, budget: &mut u32, cx: &mut Context<'_>) {
        let mut bytes = 0;
        while *budget > 0 && bytes < GATHERED_MAX && !self.dry && self.ended.is_none() {
            let Poll::Ready(received) = self.transport.poll_receive(cx) else {
                self.dry = true;
                break;
            };
            *budget -= 1;
            match received {
                Received::Control => {}
                Received::Part => *budget = budget.saturating_sub(PART - 1),
                Received::Frame(frame) => {
                    bytes += frame.len();
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

/// Nothing in a driver is pinned in place: what is polled is `Unpin` by its traits.
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
            last_now: clock.now(),
            last_wall: clock.wall(),
            report_at: None,
            postponed: 0,
            polling: false,
            asking: None,
            dial: None,
            link: None,
            clock,
            runtime,
            provider,
            shared,
        }
    }

    /// Has the driver woken by the next command.
    fn listen(&mut self, cx: &Context<'_>) {
        if self.spare.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
            self.spare = Some(cx.waker().clone());
        }
        let mut task = Task::new(cx.waker(), self.spare.take());
        let _ = self.shared.peek(|state| state.listen(&mut task));
        self.spare = task.into_spare();
    }

    /// Notices a suspended machine, or a driver that was not polled, before deadlines are looked at.
    fn notice_sleep(&mut self, now: Time) {
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
    }

    /// Expires what is due, unless more waits to be read first.
    fn expire(&mut self, now: Time, reads_left: u32) {
        if reads_left > 0 && self.link.as_ref().is_some_and(Link::has_more) {
            return; // the next round reads on
        }
        if reads_left == 0 && self.postponed < POSTPONED_MAX {
            self.postponed += 1;
            return;
        }
        self.postponed = 0;
        let may_be_due = self.timer_at.is_none_or(|at| at <= now);
        let news = self.link.as_mut().filter(|_| may_be_due).and_then(Link::news);
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

    /// Carries out what is no frame. Runs user code (the dial), so never under the lock.
    fn carry_out(&mut self, now: Time) -> bool {
        let mut moved = false;
        while let Some(action) = self.shared.peek(State::next_todo) {
            moved = true;
            match action {
                Action::Connect { id, attempt } => {
                    self.link = None;
                    self.dial = None;
                    self.asking = None;
                    self.begin(now, id, attempt);
                }
                Action::Abort { id } => {
                    self.asking.take_if(|(current, _)| *current == id);
                    self.dial.take_if(|(current, _)| *current == id);
                    self.link.take_if(|link| link.id == id);
                }
                Action::Close { id, code, reason } => {
                    match self.link.as_mut().filter(|link| link.id == id) {
                        Some(link) => {
                            link.transport.close(code, reason);
                            link.flush = true;
                        }
                        // The transport ended in the same moment.
                        None => {
                            let message = "the connection was already over".to_owned();
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
                    debug_assert!(false, "neither frames nor facts are put on the list");
                }
            }
        }
        moved
    }

    /// Asks for credentials, if there is a provider, or dials.
    fn begin(&mut self, now: Time, id: ConnectionId, attempt: u32) {
        let Some(provider) = &self.provider else { return self.dial(now, id) };
        let after = self.shared.peek(|state| state.last_cause.clone());
        match Asking::new(&**provider, ConnectAttempt { attempt, after }) {
            Ok(asking) => self.asking = Some((id, asking)),
            Err(failure) => {
                self.shared
                    .input(now, |state| state.apply(now, Input::Failed { id, cause: failure }));
            }
        }
    }

    fn dial(&mut self, now: Time, id: ConnectionId) {
        let (request, config) = self
            .shared
            .peek(|state| (state.socket.connect_request(), state.socket.config().clone()));
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

    fn poll_asking(&mut self, now: Time, cx: &mut Context<'_>) -> bool {
        let Some((id, asking)) = &mut self.asking else { return false };
        let id = *id;
        let Poll::Ready(answer) = asking.poll(cx) else { return false };
        self.asking = None;
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

    /// True when there is more to be read, or nothing any more.
    fn poll_read(&mut self, now: Time, budget: &mut u32, cx: &mut Context<'_>) -> bool {
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
            // What is to be done about one frame is done before the next is looked at.
            while state.todo.is_empty() {
                if let Some(frame) = link.gathered.get(handled) {
                    handled += 1;
                    state.handle_frame(now, id, frame.clone());
                } else if let Some(ended) = link.ended.take() {
                    over = true;
                    state.apply(now, Input::Closed { id, ended });
                } else {
                    break;
                }
                state.drain(now);
            }
        });
        // The memory behind a frame may be the transport's own, so the last of it is dropped here.
        link.gathered.drain(..handled);
        if over {
            self.link = None;
            return true;
        }
        link.gathered.shrink_to(room_for(batch, link.gathered.capacity()));
        self.wakers.shrink_to(room_for(batch, self.wakers.capacity()));
        link.has_more()
    }

    /// True when the transport, which refused a frame, must be asked once more.
    fn poll_write(&mut self, now: Time, budget: &mut u32, cx: &mut Context<'_>) -> bool {
        let Some(link) = &mut self.link else { return false };
        let id = link.id;
        let written = link.transport.progress().written.saturating_sub(link.reported.written);
        let mut news = (written >= REPORT_BYTES).then(|| link.news()).flatten();
        while *budget > 0 && !link.broken {
            match link.transport.poll_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => {
                    link.broken = true;
                    break;
                }
                Poll::Pending => {
                    if link.writable {
                        // A transport that waits for its flush to have room must be flushed.
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
            let pulled = self.shared.input(now, |state| {
                if regained {
                    state.apply(now, Input::Writable { id, writable: true });
                }
                if let Some((id, progress)) = news.take() {
                    state.apply(now, Input::Progress { id, progress });
                }
                state.pull(now)
            });
            let Some(pulled) = pulled else { break };
            *budget -= 1;
            let (to, frame) = match pulled {
                Pulled::Frame(to, frame) => (to, frame),
                Pulled::Evaluate(ticket) => match evaluate(&self.shared, &self.clock, &ticket) {
                    Supplied::Join(Action::Join { id, frame, .. }) => (id, frame),
                    // A function that changes what it is called for, time after time, must not keep
                    // the executor.
                    Supplied::Stale if core::mem::replace(&mut self.stale, true) => {
                        *budget = 0;
                        break;
                    }
                    _ => continue,
                },
            };
            if to == id {
                link.flush = true;
                link.sent = true;
                link.broken = link.transport.send(frame).is_err();
            }
        }
        if let Some((id, progress)) = news {
            self.shared.input(now, |state| state.apply(now, Input::Progress { id, progress }));
        }
        if link.broken && core::mem::replace(&mut link.writable, false) {
            self.shared
                .input(now, |state| state.apply(now, Input::Writable { id, writable: false }));
        }
        let mut again = false;
        if link.flush && !link.broken {
            match link.transport.poll_flush(cx) {
                Poll::Ready(Ok(())) => {
                    // It may take frames again, and nobody else will say so. Asked once: a
                    // transport that still refuses has to wake us itself.
                    again = link.retry_ready && !link.writable;
                    link.flush = false;
                    link.retry_ready = false;
                }
                Poll::Ready(Err(_)) => link.broken = true,
                Poll::Pending => {}
            }
        }
        again
    }

    /// Reports progress when that is due; when it is due next, while an answer is awaited.
    fn report(&mut self, now: Time, awaits_answer: bool) -> Option<Time> {
        let link = self.link.as_mut().filter(|_| awaits_answer);
        self.report_at = match (self.report_at, link) {
            (_, None) => None,
            (Some(at), Some(_)) if now < at => Some(at),
            (_, Some(link)) => {
                if let Some((id, progress)) = link.news() {
                    self.shared
                        .input(now, |state| state.apply(now, Input::Progress { id, progress }));
                }
                Some(now + REPORT_INTERVAL)
            }
        };
        self.report_at
    }

    /// Sets the timer; true when it is up already and the clock must be asked again.
    fn poll_timer(&mut self, now: Time, next: Option<Time>, cx: &mut Context<'_>) -> bool {
        // A timer that wakes too early only wakes; so it is not set anew for every deadline that
        // comes and goes, as that of every push does.
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
            // Set anew in the next round, should the clock find that it is early.
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

    fn outlook(&self) -> Outlook {
        self.shared.peek(|state| {
            let core = state.socket.poll_timeout().map(|next| next.at);
            Outlook {
                finished: state.is_finished(),
                next: [core, state.waiters.next_deadline()].into_iter().flatten().min(),
                awaits_answer: state.socket.awaits_answer(),
                todo: !state.todo.is_empty(),
            }
        })
    }
}

/// Evaluates the parameters of a join and supplies them. The function is the application's, so
/// nothing is locked while it runs.
fn evaluate(shared: &Shared, clock: &impl Clock, ticket: &JoinTicket) -> Supplied {
    let params = ticket.evaluate();
    // The core drops its payload under the lock; this one outlives it.
    let _kept = params.as_ref().ok().and_then(Payload::shared);
    let now = clock.now();
    shared.input(now, |state| state.supply(now, ticket, params))
}

/// What there is to wait for after a round.
struct Outlook {
    finished: bool,
    next: Option<Time>,
    awaits_answer: bool,
    todo: bool,
}

impl<R: Runtime> Future for Driver<R> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        this.polling = true;
        let polled = this.poll_rounds(cx);
        this.polling = false;
        polled
    }
}

impl<R: Runtime> Driver<R> {
    fn poll_rounds(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let this = self;
        this.listen(cx);
        if let Some(link) = &mut this.link {
            link.dry = false;
        }
        this.stale = false;
        let (mut reads, mut writes) = (BUDGET, BUDGET);
        let mut rounds = ROUNDS;
        loop {
            let now = this.clock.now();
            this.notice_sleep(now);
            let mut moved = this.carry_out(now);
            moved |= this.poll_asking(now, cx);
            moved |= this.poll_dial(now, cx);
            moved |= this.poll_read(now, &mut reads, cx);
            this.expire(now, reads);
            moved |= this.poll_write(now, &mut writes, cx);
            let outlook = this.outlook();
            if outlook.finished {
                this.link = None;
                return Poll::Ready(());
            }
            let report = this.report(now, outlook.awaits_answer);
            let next = outlook.next.into_iter().chain(report).min();
            moved |= this.poll_timer(now, next, cx);
            rounds -= 1;
            if reads == 0 || writes == 0 || rounds == 0 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if !moved && !outlook.todo {
                return Poll::Pending;
            }
        }
    }
}

impl<R: Runtime> Drop for Driver<R> {
    fn drop(&mut self) {
        let now = self.clock.now();
        drop(self.shared.input(now, |state| state.end(now, self.polling)));
    }
}
