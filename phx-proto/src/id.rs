//! Identifiers of connections, pushes and interests, and the refs on the wire.

use core::fmt;

/// Identifies one connection attempt, from its dial to its end.
///
/// Every I/O input and action carries an id. Ids only grow within a [`Socket`](crate::Socket), so
/// the socket recognises an input that belongs to an earlier connection and ignores it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub(crate) u64);

/// Identifies one accepted push, from the call to its outcome.
///
/// It stays the same while the push waits through disconnects. The wire [`Ref`] is assigned when the
/// frame is built.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PushId(pub(crate) u64);

/// One caller's interest in a topic, made by [`Socket::join`](crate::Socket::join).
///
/// Several interests share one join on the server. Releasing the last one leaves the topic.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterestId(pub(crate) u64);

/// A message reference, which is a decimal string on the wire and a number here.
///
/// Each [`Socket`](crate::Socket) counts its refs from 1 and reuses none. The ref of a join is also
/// the `join_ref` of its channel.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ref(pub(crate) u64);

macro_rules! id {
    ($name:ident, $prefix:literal) => {
        impl $name {
            /// Creates an id from its number, for replaying traces and writing fuzz inputs.
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
