//! `--record FILE`: records what the client receives and does, for a bug report.

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use phx_tokio::recording::Recorder;

use crate::exit::Failed;
use crate::log::LAST_LINES;
use crate::source;
use crate::writer::{Gone, Writer, is_ready};

/// The total time for which the client waits for a file that is slower than the recording. The count starts
/// again when the file has caught up. When the time is used up, the recording ends, because a client that
/// waits can do nothing else, not even disconnect.
const STUCK: Duration = Duration::from_millis(500);

/// A recording that is being written. When it is dropped, the last lines are written.
pub(crate) struct Record {
    path: PathBuf,
    file: File,
    writer: Writer,
    /// Whether the recording ended early because the file was too slow.
    stuck: Arc<AtomicBool>,
}

impl Record {
    /// Creates the file, readable by its owner only, and the recorder that writes it. This may block, if
    /// the file is a pipe.
    pub(crate) fn create(path: &Path, payloads: bool) -> Result<(Self, Recorder), Failed> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(path).and_then(private);
        // The writer writes only whole lines with one call, so that the file ends with a whole line even if
        // the process is killed.
        let writer =
            file.and_then(|file| Ok((Writer::start("recording", file.try_clone()?)?, file)));
        let (writer, file) = writer.map_err(|error| source::bad(path, &error))?;
        let record = Self { path: path.to_owned(), file, writer, stuck: Arc::default() };
        let (writer, stuck) = (record.writer.clone(), Arc::clone(&record.stuck));
        let mut left = STUCK;
        let recorder = Recorder::new(move |line| {
            if stuck.load(Ordering::Relaxed) {
                return;
            }
            if writer.unwritten() == 0 {
                left = STUCK;
            }
            let start = Instant::now();
            let sent = writer.send_within(line.to_owned(), left);
            left = left.saturating_sub(start.elapsed());
            if sent.is_err() && writer.gone().is_none() {
                stuck.store(true, Ordering::Relaxed);
            }
        });
        Ok((record, if payloads { recorder.with_payloads() } else { recorder }))
    }

    /// Writes the last lines. Returns the error that ended the recording early, if there was one.
    pub(crate) fn finish(&self) -> Result<(), Failed> {
        self.flush();
        let problem = match self.writer.gone() {
            Some(Gone::Failed(why)) => why,
            Some(Gone::Reader) => "the reader has closed it".to_owned(),
            None if self.stuck.load(Ordering::Relaxed) => {
                "it is not read, or written too slowly".to_owned()
            }
            None => return Ok(()),
        };
        let path = source::shown(&self.path);
        Err(Failed::Local(format!("{path}: the recording is incomplete: {problem}")))
    }

    fn flush(&self) {
        if self.stuck.load(Ordering::Relaxed) {
            return;
        }
        self.writer.flush(LAST_LINES, || is_ready(&self.file));
        if self.writer.unwritten() > 0 {
            self.stuck.store(true, Ordering::Relaxed);
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.flush();
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
