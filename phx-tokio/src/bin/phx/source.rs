//! Readers of values from environment variables, files and standard input. Secrets do not belong on
//! the command line, because every user of the machine can read it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use phx_tokio::Payload;
use phx_tokio::config::Secret;
use serde_json::value::RawValue;

use crate::exit::Failed;

/// The maximum size of a file with a secret, in bytes. Tokens have a few kilobytes.
const SECRET_MAX: u64 = 64 << 10;
/// The maximum size of a payload, of a document and of a TLS file, in bytes. It is more than the default
/// `max_push_bytes`.
const TEXT_MAX: u64 = 64 << 20;

/// A byte order mark, which some editors write at the start of a file.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Reads the secret in the environment variable that this option names. An argument that is not the name of
/// one is not shown, because it may be the secret itself, as in `--token-env $TOKEN`.
pub(crate) fn variable(option: &str, name: &str) -> Result<Secret, Failed> {
    let problem = match std::env::var(name) {
        Ok(value) if !value.is_empty() => return Ok(Secret::from(value)),
        Ok(_) => format!("the variable {name} is empty"),
        Err(std::env::VarError::NotPresent) => {
            "not the name of a variable that is set; pass a name, such as \
             TOKEN, and not the value, $TOKEN"
                .to_owned()
        }
        Err(std::env::VarError::NotUnicode(_)) => format!("the variable {name} is not UTF-8"),
    };
    Err(Failed::Usage(format!("{option}: {problem}")))
}

/// Reads the secret in a file, without the line break at its end.
pub(crate) fn secret_file(path: &Path) -> Result<Secret, Failed> {
    let bytes = file(path, SECRET_MAX)?;
    let text = text_of(bytes, path)?;
    let secret = text.strip_suffix('\n').unwrap_or(&text);
    let secret = secret.strip_suffix('\r').unwrap_or(secret);
    if secret.is_empty() {
        return Err(bad(path, &"the file is empty"));
    }
    Ok(Secret::from(secret))
}

/// Opens a file that is read piece by piece.
pub(crate) fn open(path: &Path) -> Result<File, Failed> {
    File::open(path).map_err(|error| bad(path, &error))
}

/// Reads the text of a document, without a byte order mark.
pub(crate) fn document(path: &Path) -> Result<String, Failed> {
    text_of(file(path, TEXT_MAX)?, path)
}

/// Reads a file with certificates or a key.
pub(crate) fn pem(path: &Path) -> io::Result<Vec<u8>> {
    File::open(path).and_then(|file| limited(file, TEXT_MAX))
}

/// Reads the bytes of a file with a payload.
pub(crate) fn payload_file(path: &Path) -> Result<Vec<u8>, Failed> {
    file(path, TEXT_MAX)
}

/// The bytes of an argument: `-` is standard input, `@FILE` a file, anything else its own text.
pub(crate) fn bytes(argument: &OsStr) -> Result<Vec<u8>, Failed> {
    if argument == "-" {
        let stdin = Path::new("standard input");
        return limited(io::stdin().lock(), TEXT_MAX).map_err(|error| bad(stdin, &error));
    }
    let bytes = argument.as_encoded_bytes();
    if bytes.starts_with(b"@") {
        return file(&rest(argument, 1), TEXT_MAX);
    }
    Ok(bytes.to_vec())
}

/// An argument without its first `from` bytes, which are UTF-8, as a path.
#[cfg(unix)]
pub(crate) fn rest(argument: &OsStr, from: usize) -> PathBuf {
    use std::os::unix::ffi::OsStrExt as _;
    PathBuf::from(OsStr::from_bytes(&argument.as_bytes()[from..]))
}

/// As on Unix, but a file whose name is not Unicode is not found.
#[cfg(not(unix))]
pub(crate) fn rest(argument: &OsStr, from: usize) -> PathBuf {
    PathBuf::from(&argument.to_string_lossy()[from..])
}

/// JSON as a payload with the same text, byte for byte.
pub(crate) fn json(bytes: &[u8]) -> Result<Payload, String> {
    let text = core::str::from_utf8(without_mark(bytes)).map_err(|error| error.to_string())?;
    let raw: &RawValue = serde_json::from_str(text).map_err(|error| error.to_string())?;
    Payload::json(raw).map_err(|error| error.to_string())
}

fn file(path: &Path, max: u64) -> Result<Vec<u8>, Failed> {
    let read = File::open(path).and_then(|file| limited(file, max));
    read.map_err(|error| bad(path, &error))
}

fn limited(input: impl Read, max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = input.take(max.saturating_add(1)).read_to_end(&mut bytes)?;
    if read as u64 > max {
        return Err(io::Error::other(format!("it has more than {max} bytes")));
    }
    Ok(bytes)
}

fn text_of(bytes: Vec<u8>, path: &Path) -> Result<String, Failed> {
    let text = String::from_utf8(without_mark(&bytes).to_vec());
    text.map_err(|_| bad(path, &"the text is not UTF-8"))
}

pub(crate) fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes)
}

/// The error for a file.
pub(crate) fn bad(path: &Path, error: &dyn core::fmt::Display) -> Failed {
    Failed::File(vec![format!("{}: {error}", shown(path))])
}

/// A path as text. One that is empty or not UTF-8 is quoted, with escapes, so that different paths look
/// different.
pub(crate) fn shown(path: &Path) -> String {
    path.to_str().filter(|text| !text.is_empty()).map_or_else(|| format!("{path:?}"), str::to_owned)
}
