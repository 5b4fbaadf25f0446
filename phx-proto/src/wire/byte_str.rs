//! A UTF-8 string that is a slice of a frame.

use core::borrow::Borrow;
use core::fmt;
use core::hash::{Hash, Hasher};
use core::ops::Deref;
use core::str::Utf8Error;

use bytes::Bytes;
use serde::{Serialize, Serializer};

/// A UTF-8 string that shares the memory of its frame (zero copy).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteStr(Bytes);

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
        Ok(Self(bytes))
    }

    /// Creates a string from bytes that are known to be ASCII.
    pub(super) fn ascii(bytes: Bytes) -> Self {
        debug_assert!(bytes.is_ascii());
        Self(bytes)
    }

    /// Creates a string from bytes that are known to be UTF-8, such as a copy of another string.
    pub(super) const fn copied(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// Creates a string from a static one.
    pub(super) const fn from_static(text: &'static str) -> Self {
        Self(Bytes::from_static(text.as_bytes()))
    }

    /// The bytes of the string. They are not checked again.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The string. Every call checks the UTF-8 again, because this crate has no unsafe code; topics and
    /// events are short.
    #[must_use]
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(&self.0).expect("the constructors accept UTF-8 only")
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

/// The derived order is that of `str`: UTF-8 sorts by bytes as it does by characters.
impl Borrow<str> for ByteStr {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl From<String> for ByteStr {
    fn from(text: String) -> Self {
        Self(Bytes::from(text))
    }
}

impl From<&str> for ByteStr {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl PartialEq<str> for ByteStr {
    fn eq(&self, other: &str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl PartialEq<&str> for ByteStr {
    fn eq(&self, other: &&str) -> bool {
        self.0 == other.as_bytes()
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
