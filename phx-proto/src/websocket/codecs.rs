//! The codecs of compressed connections: one [`Scratch`] for each thread.
//!
//! A driver may move to another thread between two messages. That has no effect, because a codec keeps
//! nothing of a message.

use bytes::BytesMut;

use super::{Endpoint, Event, Fault};

/// Calls [`Endpoint::poll_event`] with the codecs of this thread.
#[cfg(not(feature = "deflate"))]
#[inline]
pub(crate) fn poll_event(
    endpoint: &mut Endpoint,
    buffer: &mut BytesMut,
) -> Result<Option<Event>, Fault> {
    endpoint.poll_event(buffer)
}

/// Calls [`Endpoint::poll_transmit`] with the codecs of this thread.
#[cfg(not(feature = "deflate"))]
#[inline]
pub(crate) fn poll_transmit(
    endpoint: &mut Endpoint,
    out: &mut BytesMut,
    max: usize,
    keys: impl FnMut() -> [u8; 4],
) -> usize {
    endpoint.poll_transmit(out, max, keys)
}

#[cfg(feature = "deflate")]
pub(crate) use self::with_scratch::{poll_event, poll_transmit};

#[cfg(feature = "deflate")]
mod with_scratch {
    use core::cell::RefCell;

    use super::{BytesMut, Endpoint, Event, Fault};
    use crate::websocket::Scratch;

    std::thread_local! {
        static SCRATCH: RefCell<Scratch> = RefCell::default();
    }

    #[inline]
    pub(crate) fn poll_event(
        endpoint: &mut Endpoint,
        buffer: &mut BytesMut,
    ) -> Result<Option<Event>, Fault> {
        if !endpoint.is_compressed() {
            return endpoint.poll_event(buffer);
        }
        SCRATCH.with_borrow_mut(|scratch| endpoint.poll_event_with(buffer, scratch))
    }

    #[inline]
    pub(crate) fn poll_transmit(
        endpoint: &mut Endpoint,
        out: &mut BytesMut,
        max: usize,
        keys: impl FnMut() -> [u8; 4],
    ) -> usize {
        if !endpoint.is_compressed() {
            return endpoint.poll_transmit(out, max, keys);
        }
        SCRATCH.with_borrow_mut(|scratch| endpoint.poll_transmit_with(out, max, keys, scratch))
    }
}
