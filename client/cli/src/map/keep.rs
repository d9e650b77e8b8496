//! A worker keeps a command's output in memory, or in a spool file if it is large, or prints it at once to its own
//! stdout and stderr.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::spool::{Extent, SpoolWriter};
use super::tag::Tag;

/// How the outputs of a command are kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum OutputMode {
    /// In the outcome.
    InMemory,
    /// Small ones in the outcome, large ones in this file of the client on the same machine.
    Spooled(PathBuf),
    /// Printed line by line as they arrive. `lock`: a file to lock meanwhile, if workers share the destination.
    Lines { tag: Option<Vec<u8>>, lock: Option<PathBuf> },
}

/// stdout or stderr of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Output {
    Held(#[serde(with = "serde_bytes")] Vec<u8>),
    Spooled(Vec<Extent>),
}

/// An output that is being written.
pub(super) enum OutputWriter {
    Held(Vec<u8>),
    Spooled(SpoolWriter),
    Lines(LinePrinter),
}

/// Prints whole lines as they arrive.
pub(super) struct LinePrinter {
    to: File,
    tag: Option<Tag>,
    lock: Option<File>,
    /// The unfinished line.
    begun: Vec<u8>,
    /// Part of the line was printed already, because it is very long.
    within_line: bool,
}

/// Longer lines are printed in parts.
const MAX_LINE_BYTES: usize = 1 << 20;
/// Bytes read at once.
const PORTION_BYTES: usize = 64 << 10;

impl Output {
    /// Returns its size in memory.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Output::Held(bytes) => bytes.len(),
            Output::Spooled(extents) => size_of_val(&**extents),
        }
    }

    /// Returns its size in the spool file.
    pub(super) fn spooled(&self) -> u64 {
        match self {
            Output::Held(_) => 0,
            Output::Spooled(extents) => extents.iter().map(|extent| extent.length).sum(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Output::Held(bytes) if bytes.is_empty())
    }
}

impl OutputWriter {
    /// Reads once. Returns the number of bytes, 0 at the end. WouldBlock if there is nothing now.
    pub(super) fn take_from(&mut self, mut pipe: &File) -> io::Result<usize> {
        match self {
            OutputWriter::Held(bytes) => {
                let before = bytes.len();
                bytes.resize(before + PORTION_BYTES, 0);
                let read = pipe.read(&mut bytes[before..]);
                bytes.truncate(before + *read.as_ref().unwrap_or(&0));
                read
            }
            OutputWriter::Spooled(writer) => writer.take_from(pipe),
            OutputWriter::Lines(lines) => {
                let mut buffer = vec![0; PORTION_BYTES];
                let read = pipe.read(&mut buffer)?;
                lines.add(&buffer[..read])?;
                Ok(read)
            }
        }
    }

    /// Returns its size in memory, if it may grow.
    pub(super) fn held(&self) -> usize {
        if let OutputWriter::Held(bytes) = self { bytes.len() } else { 0 }
    }

    /// Moves the output from memory to a spool file.
    pub(super) fn spool(&mut self, path: &std::path::Path) -> io::Result<()> {
        if let OutputWriter::Held(bytes) = self {
            let mut writer = SpoolWriter::open(path)?;
            writer.write(bytes)?;
            *self = OutputWriter::Spooled(writer);
        }
        Ok(())
    }

    /// Completes the output.
    pub(super) fn end(self) -> io::Result<Output> {
        match self {
            OutputWriter::Held(bytes) => Ok(Output::Held(bytes)),
            OutputWriter::Spooled(writer) => Ok(Output::Spooled(writer.into_extents())),
            OutputWriter::Lines(lines) => lines.end().map(|()| Output::Held(Vec::new())),
        }
    }
}

impl LinePrinter {
    pub(super) fn new(to: impl AsFd, tag: Option<&[u8]>, lock: Option<&std::path::Path>) -> io::Result<LinePrinter> {
        let lock = lock.map(|path| File::options().write(true).open(path)).transpose()?;
        let to = to.as_fd().try_clone_to_owned()?.into();
        Ok(LinePrinter { to, tag: tag.map(Tag::new), lock, begun: Vec::new(), within_line: false })
    }

    fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        if whole == 0 {
            self.begun.extend_from_slice(bytes);
            return if self.begun.len() > MAX_LINE_BYTES { self.print() } else { Ok(()) };
        }
        self.begun.extend_from_slice(&bytes[..whole]);
        self.print()?;
        self.begun.extend_from_slice(&bytes[whole..]);
        Ok(())
    }

    /// Prints what was read, under the lock if there is one.
    fn print(&mut self) -> io::Result<()> {
        let bytes = std::mem::take(&mut self.begun);
        self.within_line = bytes.last().is_some_and(|&byte| byte != b'\n');
        let mut labelled = Vec::new();
        let text = match &mut self.tag {
            Some(tag) => {
                tag.write(&bytes, &mut labelled)?;
                &labelled
            }
            None => &bytes,
        };
        if let Some(lock) = &self.lock {
            lock.lock()?;
        }
        let written = self.to.write_all(text);
        if let Some(lock) = &self.lock {
            lock.unlock()?;
        }
        written
    }

    /// Ends an unfinished last line: the next output belongs to another item.
    fn end(mut self) -> io::Result<()> {
        if !self.begun.is_empty() || self.within_line {
            self.begun.push(b'\n');
            self.print()?;
        }
        Ok(())
    }
}
