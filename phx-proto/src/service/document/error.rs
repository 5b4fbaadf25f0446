//! The errors of a connections document, with every problem at once.

use core::fmt;

use super::variables::VariableProblem;
use crate::config::ConfigError;

/// A connections document has problems, so none of it is used.
///
/// The error contains every problem, each with its connection and key. `Display` writes one line
/// for each. Names are shown: those of keys, variables, topics, headers, attributes and hosts, also if a
/// part of them is the value of a variable. No other value of the document or of a variable is shown,
/// because many of them are secrets.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnectionsError {
    pub(super) problems: Vec<Problem>,
}

impl ConnectionsError {
    /// The problems, connection by connection: first the problems of single keys in the order of
    /// the document, then those of several keys together. There is at least one.
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

/// One problem of a document.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Problem {
    /// The name of the connection, if the problem has one.
    pub connection: Option<String>,
    /// The key, if the problem has one, such as `uri` or `headers`.
    pub key: Option<String>,
    /// The kind of the problem, which includes what to do about it.
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

/// The kind of a problem.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ProblemKind {
    /// The text is not a valid document of its format.
    #[error("the document cannot be read: {message}")]
    Unreadable {
        /// The message of the JSON parser, with the line and the column. For another format, a fixed text.
        message: String,
    },
    /// The key is unknown.
    #[error("unknown key{}", .suggestion.map(|known| format!("; did you mean {known:?}?")).unwrap_or_default())]
    UnknownKey {
        /// A known key with a similar name.
        suggestion: Option<&'static str>,
    },
    /// The same key or connection occurs twice.
    #[error("it occurs twice: remove one")]
    Duplicate,
    /// A required key is missing.
    #[error("it is missing: add it")]
    Missing,
    /// A value has the wrong type.
    #[error("it must be {expected}, not {found}")]
    WrongType {
        /// The expected type.
        expected: String,
        /// The type of the value.
        found: &'static str,
    },
    /// A variable is not set.
    #[error("the variable {name} is not set: set it, or write ${{{name}:-default}}")]
    VariableMissing {
        /// The name of the variable.
        name: String,
    },
    /// A variable is set and empty.
    #[error("the variable {name} is empty: set it to a value, or write ${{{name}:-default}}")]
    VariableEmpty {
        /// The name of the variable.
        name: String,
    },
    /// A `${` does not start a valid variable.
    #[error("invalid variable: write ${{NAME}} or ${{NAME:-default}}, and $${{ for a literal ${{")]
    BadReference,
    /// The name of an attribute is invalid or reserved in CloudEvents.
    #[error(
        "invalid attribute name: use 1 to 20 characters of a-z and 0-9, and no reserved name of CloudEvents"
    )]
    AttributeName,
    /// A connection has an empty name.
    #[error("the name of a connection must not be empty")]
    EmptyName,
    /// The configuration rejects a value.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A value is invalid for another reason.
    #[error("{message}")]
    Invalid {
        /// The reason in words.
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
