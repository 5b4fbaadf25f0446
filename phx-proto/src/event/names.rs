//! A macro that gives each variant of an enum a name for logs, from one table next to the enum.

use core::fmt::{self, Write as _};

/// Implements `name` and `NAMES`, and `examples` if each row has an example. A variant without a row does
/// not compile.
macro_rules! names {
    ($Enum:ident { $($pattern:pat => $name:literal, $example:expr;)+ }) => {
        $crate::event::names::names! { $Enum { $($pattern => $name;)+ } }

        #[cfg(any(test, feature = "testing"))]
        impl $Enum {
            /// One example for every name, in the order of [`NAMES`](Self::NAMES), for tests.
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

            /// The name for logs, metrics and events, in snake case.
            #[must_use]
            #[allow(unused_variables, reason = "a larger table may use the bindings of the pattern")]
            pub const fn name(&self) -> &'static str {
                match self {
                    $($pattern => $name,)+
                }
            }
        }
    };
}

pub(crate) use names;

/// A name with spaces between its words: `join timed out`.
pub(crate) struct InWords(pub(crate) &'static str);

impl fmt::Display for InWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| f.write_char(if c == '_' { ' ' } else { c }))
    }
}
