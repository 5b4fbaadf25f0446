//! What is wrong with a connections document: everything at once.

use core::fmt;

use super::variables::VariableProblem;
use crate::config::ConfigError;

/// A connections document that cannot be used. Nothing of it is.
///
/// It holds every problem that was found, each with the connection and the key it is about.
/// `Display` gives one line for each. No value of the document is repeated: many are secrets.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnectionsError {
    pub(super) problems: Vec<Problem>,
}

impl ConnectionsError {
    /// The problems, connection by connection: those that a key has alone, in the order of the document,
    /// then those between keys. Never empty.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for ConnectionsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl core::error::Error for ConnectionsError {}

/// One thing that is wrong with a document.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Problem {
    /// The connection, if it is about one.
    pub connection: Option<String>,
    /// The key, if it is about one: `uri`, `headers`.
    pub key: Option<String>,
    /// What is wrong and what to do about it.
    pub kind: ProblemKind,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(connection) = &self.connection {
            write!(f, "connection {connection:?}")?;
            f.write_str(if self.key.is_some() { ", " } else { ": " })?;
        }
        if let Some(key) = &self.key {
            write!(f, "key {key:?}: ")?;
        }
        write!(f, "{}", self.kind)
    }
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ProblemKind {
    /// The text is not a document of its format.
    #[error("the document cannot be read: {message}")]
    Unreadable {
        /// What the parser said.
        message: String,
    },
    /// A key that means nothing here.
    #[error("there is no such key{}", .suggestion.map(|known| format!("; did you mean {known:?}?")).unwrap_or_default())]
    UnknownKey {
        /// A known key that looks much like it.
        suggestion: Option<&'static str>,
    },
    /// The same key twice; which one counts would be a guess.
    #[error("it is there twice: remove one")]
    Duplicate,
    /// A key that must be there.
    #[error("it is missing: add it")]
    Missing,
    /// A value of the wrong type.
    #[error("it must be {expected}, and it is {found}")]
    WrongType {
        /// What it must be.
        expected: String,
        /// What it is.
        found: &'static str,
    },
    /// A variable that is not set.
    #[error("the variable {name} is not set: set it, or write ${{{name}:-default}}")]
    VariableMissing {
        /// Its name.
        name: String,
    },
    /// A variable that is set to nothing.
    #[error("the variable {name} is empty: give it a value, or write ${{{name}:-default}}")]
    VariableEmpty {
        /// Its name.
        name: String,
    },
    /// A `${` that starts no reference.
    #[error("a reference is written ${{NAME}} or ${{NAME:-default}}; write $${{ for a plain ${{")]
    BadReference,
    /// The name of an attribute that CloudEvents does not allow, or uses itself.
    #[error(
        "an attribute's name has 1 to 20 characters of a-z and 0-9, and is none of CloudEvents' own"
    )]
    AttributeName,
    /// A connection without a name.
    #[error("a connection needs a name that is not empty")]
    EmptyName,
    /// A value that cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A value that cannot be used here, for a reason of its own.
    #[error("{message}")]
    Invalid {
        /// The reason.
        message: String,
    },
}

impl From<VariableProblem> for ProblemKind {
    fn from(problem: VariableProblem) -> Self {
        match problem {
            VariableProblem::Missing { name } => Self::VariableMissing { name },
            VariableProblem::Empty { name } => Self::VariableEmpty { name },
            VariableProblem::Unclosed | VariableProblem::NotAName => Self::BadReference,
        }
    }
}
