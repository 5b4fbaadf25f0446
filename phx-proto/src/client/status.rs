//! A stream of the connection's states that holds only the latest one.

use core::pin::Pin;
use core::task::{Context, Poll};
use std::sync::Arc;

use futures_core::Stream;
use futures_core::stream::FusedStream;

use super::state::Shared;
use super::waiters::WaiterId;
use crate::socket::Status;

/// A stream of the states of a connection, from
/// [`Client::status_changes`](super::Client::status_changes).
///
/// The first item is the present state. The stream holds only the latest state, so a slow reader
/// misses the states in between. It ends when the driver ends, and does not keep the connection
/// open.
#[derive(Debug)]
#[must_use = "a stream does nothing unless it is read"]
pub struct StatusChanges {
    shared: Arc<Shared>,
    id: WaiterId,
    /// The last item that was returned.
    seen: Option<Status>,
    done: bool,
}

impl StatusChanges {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let id = shared.with_state(|state| state.await_status());
        Self { shared, id, seen: None, done: false }
    }

    /// The present state if it differs from the last item, otherwise the next state; `None` once
    /// the driver has ended. A disconnect is a state, not the end.
    ///
    /// Cancel safe: a state counts as seen only when it is returned.
    pub async fn next(&mut self) -> Option<Status> {
        core::future::poll_fn(|cx| self.poll_status(cx)).await
    }

    fn poll_status(&mut self, cx: &Context<'_>) -> Poll<Option<Status>> {
        if self.done {
            return Poll::Ready(None);
        }
        let (seen, id) = (&self.seen, self.id);
        let polled = self.shared.poll_waiter(cx, |state| {
            let status = state.socket.status();
            if seen.as_ref() != Some(&status) {
                return Ok(Some(status));
            }
            if state.driver_gone { Ok(None) } else { Err(id) }
        });
        if let Poll::Ready(status) = &polled {
            self.done = status.is_none();
            self.seen.clone_from(status);
        }
        polled
    }
}

impl Stream for StatusChanges {
    type Item = Status;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Status>> {
        self.get_mut().poll_status(cx)
    }
}

impl FusedStream for StatusChanges {
    fn is_terminated(&self) -> bool {
        self.done
    }
}

impl Drop for StatusChanges {
    fn drop(&mut self) {
        drop(self.shared.with_state(|state| state.waiters.remove(self.id)));
    }
}
