//! A UTF-8 string that is a copy or a slice of a part of a frame.

use core::borrow::Borrow;
use core::cmp::Ordering;
use core::fmt;
use core::hash::{Hash, Hasher};
use core::ops::{Deref, Range};
use core::str::Utf8Error;

use bytes::Bytes;
use serde::{Serialize, Serializer};

/// A UTF-8 string of a frame. It is cheap to clone.
///
/// A string of at most 23 bytes, such as most topics and events, is stored in the value itself. A
/// longer one shares the memory of its frame (zero copy).
#[derive(Clone)]
pub struct ByteStr(Repr);

#[derive(Clone)]
enum Repr {
    /// The string is the first `len` bytes; the rest is arbitrary.
    Inline { len: u8, bytes: [u8; INLINE_MAX] },
    /// The string has more than [`INLINE_MAX`] bytes.
    Shared(Bytes),
}

/// The longest string that is stored in the value. With this length a [`ByteStr`] is as large as a
/// [`Bytes`]. A clone or a slice of a `Bytes` costs two atomic operations; a copy costs none.
const INLINE_MAX: usize = 23;

impl ByteStr {
    /// Creates a string from bytes.
    ///
    /// # Errors
    ///
    /// [`Utf8Error`] if the bytes are not UTF-8.
    pub fn new(bytes: Bytes) -> Result<Self, Utf8Error> {
        if !bytes.is_ascii() {
            core::str::from_utf8(&bytes)?;
        }
        Ok(Self::copied(bytes))
    }

    /// Creates a string from a part of a frame that is known to be ASCII.
    #[inline(always)]
    pub(super) fn ascii(frame: &Bytes, range: Range<usize>) -> Self {
        debug_assert!(frame[range.clone()].is_ascii());
        Self::part(frame, range)
    }

    /// Creates a string from a part of a frame that is known to be UTF-8.
    #[inline(always)]
    pub(super) fn part(frame: &Bytes, range: Range<usize>) -> Self {
        if range.len() > INLINE_MAX {
            return Self(Repr::Shared(frame.slice(range)));
        }
        let len = range.len() as u8;
        let bytes = match frame.get(range.start..).and_then(|rest| rest.first_chunk()) {
            // A copy of constant length needs no call of `memcpy`.
            Some(bytes) => *bytes,
            None => inline(&frame[range]),
        };
        Self(Repr::Inline { len, bytes })
    }

    /// Creates a string from bytes that are known to be UTF-8, such as a copy of another string.
    pub(super) fn copied(bytes: Bytes) -> Self {
        if bytes.len() > INLINE_MAX { Self(Repr::Shared(bytes)) } else { Self::short(&bytes) }
    }

    /// Creates a string of at most [`INLINE_MAX`] bytes.
    fn short(bytes: &[u8]) -> Self {
        Self(Repr::Inline { len: bytes.len() as u8, bytes: inline(bytes) })
    }

    /// Creates a string from a static one.
    #[inline]
    pub(super) fn from_static(text: &'static str) -> Self {
        if text.len() > INLINE_MAX {
            Self(Repr::Shared(Bytes::from_static(text.as_bytes())))
        } else {
            Self::short(text.as_bytes())
        }
    }

    /// Whether the string is stored in the value, so that it keeps no frame alive.
    pub(super) const fn is_inline(&self) -> bool {
        matches!(self.0, Repr::Inline { .. })
    }

    /// The bytes of the string. They are not checked again.
    #[must_use]
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Repr::Shared(bytes) => bytes,
        }
    }

    /// The string. Every call checks the UTF-8 again, because this crate has no unsafe code; topics and
    /// events are short.
    #[must_use]
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(self.as_bytes()).expect("the constructors accept UTF-8 only")
    }
}

/// Copies at most [`INLINE_MAX`] bytes, and fills the rest with zeros.
#[inline]
fn inline(text: &[u8]) -> [u8; INLINE_MAX] {
    let mut bytes = [0; INLINE_MAX];
    bytes[..text.len()].copy_from_slice(text);
    bytes
}

impl PartialEq for ByteStr {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for ByteStr {}

impl PartialOrd for ByteStr {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The order of `str`: UTF-8 sorts by bytes as it does by characters.
impl Ord for ByteStr {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl Deref for ByteStr {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for ByteStr {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

/// Hashes like `str`, which [`Borrow`] requires.
impl Hash for ByteStr {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl Borrow<str> for ByteStr {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl From<String> for ByteStr {
    fn from(text: String) -> Self {
        Self::copied(Bytes::from(text))
    }
}

impl From<&str> for ByteStr {
    fn from(text: &str) -> Self {
        if text.len() > INLINE_MAX {
            Self(Repr::Shared(Bytes::copy_from_slice(text.as_bytes())))
        } else {
            Self::short(text.as_bytes())
        }
    }
}

impl PartialEq<str> for ByteStr {
    fn eq(&self, other: &str) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl PartialEq<&str> for ByteStr {
    fn eq(&self, other: &&str) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl fmt::Debug for ByteStr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for ByteStr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for ByteStr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_types, reason = "a set of the test alone")]
mod tests {
    use std::collections::{BTreeSet, HashSet};

    use super::*;

    #[test]
    fn static_byte_str_has_any_length() {
        for text in ["ok", "a name of more than 23 bytes"] {
            assert_eq!(&*ByteStr::from_static(text), text);
        }
    }

    /// A string equals the same text however it is stored, and a clone of a frame's slice stays a
    /// slice.
    #[test]
    fn short_byte_str_is_inline() {
        if cfg!(target_pointer_width = "64") {
            assert_eq!(size_of::<ByteStr>(), size_of::<Bytes>());
        }
        let frame = Bytes::from("é is not ASCII, and this text is longer than a short string is");
        for end in [0, 2, 22, 23, 24, frame.len()] {
            let text = core::str::from_utf8(&frame[..end]).expect("UTF-8");
            let part = ByteStr::part(&frame, 0..end);
            assert_eq!((part.as_str(), part.is_inline()), (text, end <= 23));
            assert_eq!(AsRef::<str>::as_ref(&part), text);
            let tail = frame.len() - end..frame.len();
            if end < frame.len() {
                assert_eq!(ByteStr::part(&frame, tail.clone()).as_bytes(), &frame[tail]);
            }
            for other in [
                ByteStr::from(text),
                ByteStr::from(text.to_owned()),
                ByteStr::new(frame.slice(..end)).expect("UTF-8"),
                part.clone(),
            ] {
                assert!(other == part && other.is_inline() == part.is_inline());
                assert_eq!(other.cmp(&part), Ordering::Equal);
            }
        }
        let zeros = [ByteStr::from("a"), ByteStr::from("a\0")];
        assert!(zeros[0] != zeros[1] && zeros[0] < zeros[1]);
    }

    #[test]
    fn byte_str_equals_the_same_text_only() {
        let name = ByteStr::from("room:a");
        assert!(name == "room:a" && name == *"room:a");
        assert!(name != "room:b" && name != *"room:b");
    }

    /// [`Borrow`] requires the hash and the order of `str`, because a lookup by `&str` uses them.
    #[test]
    fn byte_str_hashes_like_str() {
        let names = ["", "room:a", "é", "a longer name than fits into a word"];
        let set: HashSet<ByteStr> = names.into_iter().map(ByteStr::from).collect();
        let tree: BTreeSet<ByteStr> = names.into_iter().map(ByteStr::from).collect();
        for name in names {
            assert!(set.contains(name), "{name:?}");
            assert!(tree.contains(name), "{name:?}");
        }
    }
}
