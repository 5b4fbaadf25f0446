//! What the variants of an enum are called, as one table beside them.

use core::fmt::{self, Write as _};

/// Implements `name` and `NAMES`. A variant without a row does not compile; with an example in each
/// row, `examples` has one of every name.
macro_rules! names {
    ($Enum:ident { $($pattern:pat => $name:literal, $example:expr;)+ }) => {
        $crate::event::names::names! { $Enum { $($pattern => $name;)+ } }

        #[cfg(any(test, feature = "testing"))]
        impl $Enum {
            /// One of every name, in the order of [`NAMES`](Self::NAMES), for tests of whatever
            /// treats them.
            #[must_use]
            pub fn examples() -> Vec<Self> {
                vec![$($example),+]
            }
        }
    };
    ($Enum:ident { $($pattern:pat => $name:literal;)+ }) => {
        impl $Enum {
            #[doc = concat!("Every [name](Self::name):", $(" `", $name, "`",)+ ".")]
            pub const NAMES: &'static [&'static str] = &[$($name),+];

            /// The name for logs, metrics and events, in small letters with `_` between words.
            #[must_use]
            #[allow(unused_variables, reason = "a pattern may be that of a larger table")]
            pub const fn name(&self) -> &'static str {
                match self {
                    $($pattern => $name,)+
                }
            }
        }
    };
}

pub(crate) use names;

/// A name in words: `join timed out`.
pub(crate) struct InWords(pub(crate) &'static str);

impl fmt::Display for InWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| f.write_char(if c == '_' { ' ' } else { c }))
    }
}
