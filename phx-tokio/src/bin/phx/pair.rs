//! Arguments of the form `NAME=VALUE` and `NAME=FILE`.

use std::ffi::OsStr;
use std::path::PathBuf;

use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::{Arg, Command, Error};

use crate::source::rest;

/// Parses a pair. Unlike other errors of clap, its error does not repeat the argument, which may contain a
/// secret, as in `--header "authorization: Bearer s3cret"`.
#[derive(Clone)]
pub(crate) struct Pair<T>(fn(&OsStr) -> Result<(String, T), &'static str>);

impl Pair<String> {
    /// `NAME=VALUE`, or `NAME=VARIABLE`.
    pub(crate) const VALUE: Self = Self(|argument| {
        let text = argument.to_str().ok_or("the argument is not UTF-8")?;
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
            _ => Err("expected NAME=…"),
        }
    });
}

impl Pair<PathBuf> {
    /// `NAME=FILE`. The name of the file may have bytes that are not UTF-8.
    pub(crate) const FILE: Self = Self(|argument| {
        let bytes = argument.as_encoded_bytes();
        let end = bytes.iter().position(|byte| *byte == b'=').filter(|end| *end > 0);
        let end = end.ok_or("expected NAME=…")?;
        let name = core::str::from_utf8(&bytes[..end]).map_err(|_| "the name is not UTF-8")?;
        Ok((name.to_owned(), rest(argument, end + 1)))
    });
}

impl<T: Clone + Send + Sync + 'static> TypedValueParser for Pair<T> {
    type Value = (String, T);

    fn parse_ref(
        &self,
        command: &Command,
        option: Option<&Arg>,
        argument: &OsStr,
    ) -> Result<Self::Value, Error> {
        (self.0)(argument).map_err(|problem| {
            let option = option.map(ToString::to_string).unwrap_or_default();
            let message = format!("invalid value for '{option}': {problem}\n");
            Error::raw(ErrorKind::ValueValidation, message).with_cmd(command)
        })
    }
}
