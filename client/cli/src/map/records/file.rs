//! The file behind `--results`: whole lines, one writer at a time, and no existing line is lost.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::super::MapError;
use super::Mode;
use crate::streams;

pub(super) struct LineFile {
    path: PathBuf,
    file: File,
    /// Lines to write next.
    waiting: Vec<u8>,
    /// The end of the last complete line, if it is a regular file.
    length: Option<u64>,
    /// Whether to truncate the file there before writing.
    cut: bool,
    /// Whether to delete the file if nothing is written.
    created: bool,
}

impl LineFile {
    pub(super) fn open(path: &Path, mode: Mode) -> Result<LineFile, MapError> {
        let refused = |why: &str| MapError::Failed(format!("{}: {why}", path.display()));
        let failed = |error: &io::Error| not_written(path, error);
        let stream = |file: File| {
            let path = path.to_owned();
            Ok(LineFile { path, file, waiting: Vec::new(), length: None, cut: false, created: false })
        };
        let metadata = match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            metadata => Some(metadata.map_err(|error| failed(&error))?),
        };
        // Opening the same file again would overwrite what the other descriptor writes.
        if let Some(own) = own_stream(path, metadata.as_ref()) {
            return stream(own.map_err(|error| failed(&error))?);
        }
        if let Some(metadata) = metadata.filter(|metadata| !metadata.is_file()) {
            if metadata.is_dir() {
                return Err(refused("--results takes a file, but this is a directory"));
            }
            if matches!(mode, Mode::Resume { .. }) {
                return Err(refused("--resume needs a regular file, but this is not one"));
            }
            return stream(OpenOptions::new().write(true).open(path).map_err(|error| failed(&error))?);
        }
        let mut options = OpenOptions::new();
        options.read(true).append(true);
        let (file, created) = match options.clone().create_new(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => (options.open(path), false),
            made => (made, true),
        };
        let file = file.map_err(|error| failed(&error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(refused("another farpool is writing its results there")),
            // This file system does not support locks.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(error)) => return Err(failed(&error)),
        }
        let length = file.metadata().map_err(|error| failed(&error))?.len();
        if mode == Mode::New && length > 0 {
            return Err(refused("it already has results; --resume continues from them, --overwrite replaces them"));
        }
        let (length, cut) = if mode == Mode::Overwrite { (0, length > 0) } else { (length, false) };
        Ok(LineFile { path: path.to_owned(), file, waiting: Vec::new(), length: Some(length), cut, created })
    }

    /// Reads the existing lines without their ends, numbered from 1. An unfinished last line does not count.
    pub(super) fn read(&mut self, mut take: impl FnMut(u64, &[u8]) -> Result<(), MapError>) -> Result<(), MapError> {
        let Some(length) = self.length else { return Ok(()) };
        self.file.seek(SeekFrom::Start(0)).map_err(|error| self.not_read(&error))?;
        let mut reader = io::BufReader::with_capacity(1 << 20, &self.file).take(length);
        let (mut line, mut number, mut whole) = (Vec::new(), 0, 0);
        loop {
            line.clear();
            let read = io::BufRead::read_until(&mut reader, b'\n', &mut line).map_err(|error| self.not_read(&error))?;
            if line.pop() != Some(b'\n') {
                break;
            }
            number += 1;
            whole += read as u64;
            take(number, &line)?;
        }
        (self.cut, self.length) = (whole < length, Some(whole));
        Ok(())
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn add(&mut self, line: &[u8]) {
        self.waiting.extend_from_slice(line);
        self.waiting.push(b'\n');
    }

    pub(super) fn flush(&mut self) -> Result<(), MapError> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        self.truncate_if_needed()?;
        if let Err(error) = self.file.write_all(&self.waiting) {
            // Remove the partially written line.
            if let Some(length) = self.length {
                let _ = self.file.set_len(self.whole_lines_of(length));
            }
            return Err(self.broken(&error));
        }
        self.length = self.length.map(|length| length + self.waiting.len() as u64);
        self.waiting.clear();
        self.created = false;
        Ok(())
    }

    pub(super) fn end(&mut self) -> Result<(), MapError> {
        self.flush()?;
        self.truncate_if_needed()?;
        self.created = false;
        Ok(())
    }

    pub(super) fn broken(&self, error: &io::Error) -> MapError {
        not_written(&self.path, error)
    }

    fn truncate_if_needed(&mut self) -> Result<(), MapError> {
        if std::mem::take(&mut self.cut)
            && let Some(length) = self.length
        {
            self.file.set_len(length).map_err(|error| self.broken(&error))?;
        }
        Ok(())
    }

    /// Returns the length up to the last complete line after a partial write.
    fn whole_lines_of(&self, length: u64) -> u64 {
        let now = self.file.metadata().map_or(length, |metadata| metadata.len());
        let written = usize::try_from(now.saturating_sub(length)).unwrap_or(0).min(self.waiting.len());
        let whole = self.waiting[..written].iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        length + whole as u64
    }

    fn not_read(&self, error: &io::Error) -> MapError {
        MapError::Failed(format!("cannot read the results in {}: {error}", self.path.display()))
    }
}

impl Drop for LineFile {
    fn drop(&mut self) {
        if self.created {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn not_written(path: &Path, error: &io::Error) -> MapError {
    MapError::Failed(format!("cannot write the results to {}: {error}", path.display()))
}

/// Returns stdout or stderr of this process, if the path names it.
fn own_stream(path: &Path, there: Option<&fs::Metadata>) -> Option<io::Result<File>> {
    // If it were closed, the path might name another file by now.
    if ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"].iter().any(|own| path == Path::new(own)) {
        return Some(streams::stdout());
    }
    let id = |metadata: &fs::Metadata| (metadata.dev(), metadata.ino(), metadata.rdev());
    let there = id(there?);
    let own = [streams::stdout(), io::stderr().as_fd().try_clone_to_owned().map(File::from)];
    own.into_iter().find(|own| own.as_ref().is_ok_and(|own| own.metadata().is_ok_and(|own| id(&own) == there)))
}
