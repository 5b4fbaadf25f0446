//! Invariants of the connection.

use std::collections::BTreeMap;
use std::time::Duration;

use phx_proto::{Action, Cause, ChannelStatus, ConnectionId, Signal, Status, Time};

use super::{Checker, Moment};
use crate::ops::peer::Sent;
use crate::ops::world::Called;

/// There is at most one transport: a new one is dialled only after the old one failed, ended or was
/// dropped. Each is reported in order, and its end exactly once: as a failed attempt, or as the loss
/// of a connection that was open.
#[derive(Clone, Debug, Default)]
pub struct OneTransport {
    /// The transport, and whether its close handshake was started.
    transport: Option<(ConnectionId, bool)>,
    /// The connections for which there was a signal, and whether they were open.
    signalled: BTreeMap<ConnectionId, bool>,
    last: Option<ConnectionId>,
    /// The number of attempts that ended without a request of the application.
    failed: u64,
}

impl Checker for OneTransport {
    fn called(&mut self, called: &Called, _: &Moment<'_>) {
        if let Called::Ended { stale: false, id } = called {
            assert_eq!(self.transport.take().map(|(id, _)| id), Some(*id));
        }
    }

    fn decided(&mut self, action: &Action, _: &Moment<'_>) {
        match action {
            Action::Connect { id, .. } => {
                assert_eq!(self.transport, None, "{id:?} is a second transport");
                assert!(self.last < Some(*id), "ids grow");
                self.last = Some(*id);
                self.transport = Some((*id, false));
            }
            Action::Close { id, .. } => {
                assert_eq!(self.transport, Some((*id, false)), "there is one to close");
                self.transport = Some((*id, true));
            }
            Action::Abort { id } => {
                let known = self.transport.take();
                assert_eq!(known.map(|(id, _)| id), Some(*id), "there is one to drop");
            }
            Action::Signal(Signal::Connecting { id, .. }) => {
                assert_eq!(self.signalled.insert(*id, false), None);
                assert_eq!(self.signalled.len(), 1, "the earlier one has ended: {self:?}");
            }
            Action::Signal(Signal::Connected { id }) => {
                assert_eq!(self.signalled.insert(*id, true), Some(false), "{id:?}");
            }
            Action::Signal(Signal::ConnectFailed { id, cause, .. }) => {
                assert_eq!(
                    self.signalled.remove(id),
                    Some(false),
                    "{id:?} was open, or ended twice"
                );
                let by_request = matches!(cause, Cause::LocalDisconnect | Cause::Superseded);
                self.failed += u64::from(!by_request);
            }
            Action::Signal(Signal::Disconnected { id, .. }) => {
                assert_eq!(
                    self.signalled.remove(id),
                    Some(true),
                    "{id:?} never opened, or ended twice"
                );
            }
            _ => {}
        }
    }

    fn settled(&mut self, at: &Moment<'_>) {
        let status = at.socket.status();
        let held = self.transport.map(|(id, _)| id);
        assert_eq!(held, at.socket.connection_id(), "{status:?}");
        let expected = match status {
            Status::Connecting { .. } | Status::Open => Some(false),
            Status::Closing => Some(true),
            _ => None,
        };
        assert_eq!(self.transport.map(|(_, closing)| closing), expected, "{status:?}");
        assert_eq!(self.signalled.len(), usize::from(held.is_some()), "{status:?}: {self:?}");
        assert_eq!(at.socket.stats().failed_attempts, self.failed, "{self:?}");
    }
}

/// After `Closed` or `GaveUp`, the socket emits nothing and has no deadline until the next `connect`.
/// A `disconnect` after `GaveUp` may emit `Closed`.
#[derive(Clone, Debug, Default)]
pub struct QuietAfterEnd {
    ended: bool,
    disconnect: bool,
}

impl Checker for QuietAfterEnd {
    fn called(&mut self, called: &Called, _: &Moment<'_>) {
        self.disconnect = *called == Called::Disconnect;
        if *called == Called::Connect {
            self.ended = false;
        }
    }

    fn decided(&mut self, action: &Action, _: &Moment<'_>) {
        let closed = *action == Action::Signal(Signal::Closed);
        assert!(!self.ended || (self.disconnect && closed), "after the end: {action:?}");
        if closed || matches!(action, Action::Signal(Signal::GaveUp { .. })) {
            self.ended = true;
        }
    }

    fn written(&mut self, sent: &Sent, _: &Moment<'_>) {
        assert!(!self.ended, "after the end: {sent:?}");
    }

    fn settled(&mut self, at: &Moment<'_>) {
        let ended = matches!(at.socket.status(), Status::Closed | Status::GaveUp { .. });
        assert_eq!(self.ended, ended, "the end is signalled");
        if ended && at.drained {
            assert_eq!(at.socket.poll_timeout(), None, "nothing runs after the end");
        }
    }
}

/// At most one heartbeat is unanswered until its timeout. A heartbeat that was requested is the next
/// frame. A connection ends because of a missing answer only if there was time to answer.
#[derive(Clone, Debug, Default)]
pub struct Heartbeats {
    /// The refs of unanswered heartbeats, oldest first. A reply to one also answers those before it.
    unanswered: Vec<u64>,
    /// Whether a heartbeat may be due that could not be written.
    owed: bool,
    /// Whether a heartbeat was requested and must be the next frame.
    probed: bool,
    /// When the oldest unanswered heartbeat was written.
    written: Time,
    /// Whether every frame of this connection could be written at once.
    prompt: bool,
    /// The last time at which a join was unanswered.
    joining: Time,
}

impl Checker for Heartbeats {
    fn called(&mut self, called: &Called, _: &Moment<'_>) {
        if let Called::Reply { topic, msg_ref, .. } = called {
            if topic == "phoenix" && self.unanswered.contains(msg_ref) {
                self.unanswered.retain(|unanswered| unanswered > msg_ref);
            }
        }
        self.probed |= *called == Called::Probe { taken: true } && self.unanswered.is_empty();
    }

    fn decided(&mut self, action: &Action, at: &Moment<'_>) {
        match action {
            Action::Connect { .. } => {
                (self.probed, self.prompt) = (false, true);
                self.unanswered.clear();
            }
            Action::ReconnectAfter { cause: Cause::HeartbeatTimeout, .. } => {
                assert!(!self.unanswered.is_empty() || self.owed, "every heartbeat was answered");
                // A heartbeat may be written up to half its timeout late. A longer delay counts as a
                // sleep.
                let fair = at.now >= self.written + Duration::from_secs(5);
                assert!(fair || !self.prompt, "no time to answer: {self:?} at {}", at.now);
                let fair = at.now >= self.joining + Duration::from_secs(5);
                assert!(fair, "no time to answer after a join: {self:?} at {}", at.now);
            }
            _ => {}
        }
    }

    fn written(&mut self, sent: &Sent, at: &Moment<'_>) {
        let probed = std::mem::take(&mut self.probed);
        assert!(!probed || sent.is_heartbeat(), "a heartbeat is overtaken by {sent:?}");
        if sent.is_heartbeat() {
            if self.unanswered.is_empty() {
                self.written = at.now;
            } else {
                // A heartbeat may be written up to half its timeout late. A longer delay counts as a
                // sleep.
                let over = at.now >= self.written + Duration::from_secs(5);
                assert!(over || !self.prompt, "one at a time: {sent:?}, {self:?}");
            }
            self.unanswered.push(sent.msg_ref);
        }
    }

    fn settled(&mut self, at: &Moment<'_>) {
        self.owed = !at.dry || !at.writable;
        self.prompt &= !self.owed;
        if at.socket.channels().any(|(_, status)| status == ChannelStatus::Joining) {
            self.joining = at.now;
        }
    }
}
