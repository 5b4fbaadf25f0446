//! `--record FILE`: records what the client receives and does, for a bug report.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use phx_tokio::recording::Recorder;

use crate::exit::Failed;
use crate::source;

/// A recording that is being written.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    path: PathBuf,
    /// The error that ended the recording early.
    failed: Arc<Mutex<Option<io::Error>>>,
}

impl Record {
    /// Creates the file, readable by its owner only, and the recorder that writes it.
    pub(crate) fn create(path: &Path, payloads: bool) -> Result<(Self, Recorder), Failed> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(path).and_then(private);
        let mut file: File = file.map_err(|error| source::bad(path, &error))?;
        let record = Self { path: path.to_owned(), failed: Arc::default() };
        let failed = Arc::clone(&record.failed);
        let recorder = Recorder::new(move |line| {
            let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
            if failed.is_none() {
                // Each line is written with one call, so that the file has only whole lines even if
                // the process is killed.
                *failed = file.write_all(format!("{line}\n").as_bytes()).err();
            }
        });
        Ok((record, if payloads { recorder.with_payloads() } else { recorder }))
    }

    /// Returns the error that ended the recording early, if there was one.
    pub(crate) fn finish(&self) -> Result<(), Failed> {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let path = source::shown(&self.path);
        match &*failed {
            Some(error) => {
                Err(Failed::Local(format!("{path}: the recording is incomplete: {error}")))
            }
            None => Ok(()),
        }
    }
}

/// Makes a file that existed before readable by its owner only. A device such as `/dev/null` is left as it
/// is.
#[cfg(unix)]
fn private(file: File) -> io::Result<File> {
    use std::os::unix::fs::PermissionsExt as _;
    if file.metadata()?.is_file() {
        file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    }
    Ok(file)
}

/// This platform has no such mode.
#[cfg(not(unix))]
fn private(file: File) -> io::Result<File> {
    Ok(file)
}
