//! Identities: which connection, which push, which ref on the wire.

use core::fmt;

/// One attempt to hold a connection, from its dial to its end.
///
/// Every I/O input and action carries one. Ids only grow within a [`Socket`](crate::Socket), so
/// an input that belongs to an earlier connection is recognised and ignored.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub(crate) u64);

/// One accepted push, from the call to its outcome.
///
/// It does not change when the push waits through disconnects; the wire [`Ref`] is minted only
/// when the frame is written.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PushId(pub(crate) u64);

/// One caller's interest in a topic, made by [`Socket::join`](crate::Socket::join).
///
/// Several interests share one server join; the last one released leaves the topic.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterestId(pub(crate) u64);

/// A message reference on the wire: a decimal string there, a number here.
///
/// One counter per [`Socket`](crate::Socket), from 1, never reused; a join's ref is also the
/// `join_ref` of its channel.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ref(pub(crate) u64);

macro_rules! id {
    ($name:ident, $prefix:literal) => {
        impl $name {
            /// An id from its number, for replaying traces and writing fuzz inputs.
            #[must_use]
            pub const fn from_u64(number: u64) -> Self {
                Self(number)
            }

            /// The number of this id.
            #[must_use]
            pub const fn as_u64(self) -> u64 {
                self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

id!(ConnectionId, "conn#");
id!(PushId, "push#");
id!(InterestId, "interest#");
id!(Ref, "ref#");
