//! The command for one item, and how it is started.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::{Deserialize, Serialize};

use super::item::Content;
use super::quotes::{self, Quoting};

/// A command to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum CommandLine {
    /// A line for `sh -c`.
    Shell(#[serde(with = "serde_bytes")] Vec<u8>),
    /// A program and its arguments.
    Words(Vec<Vec<u8>>),
}

impl CommandLine {
    /// Starts the command in a process group of its own, with stdout and stderr as pipes.
    pub(super) fn spawn(&self, input: Option<&Content>) -> io::Result<Child> {
        match self {
            Self::Shell(line) => start(b"/bin/sh", [&b"-c"[..], line], input),
            Self::Words(words) => {
                let (program, arguments) = words.split_first().ok_or(io::ErrorKind::NotFound)?;
                match start(program, arguments, input) {
                    // A script without a `#!` line: run it with sh, as a shell would.
                    Err(error) if error.raw_os_error() == Some(Errno::ENOEXEC as i32) => {
                        start(b"/bin/sh", words, input)
                    }
                    started => started,
                }
            }
        }
    }

    /// Describes why the command could not be started.
    pub(super) fn start_error(&self, error: &io::Error) -> String {
        match error.kind() {
            io::ErrorKind::ArgumentListTooLong => match self {
                Self::Shell(_) => "the command is longer than the 128 KiB that Linux allows".to_owned(),
                Self::Words(_) => "the arguments are longer than Linux allows".to_owned(),
            },
            io::ErrorKind::InvalidInput => {
                "the item contains a NUL byte, which is not allowed on a command line".to_owned()
            }
            io::ErrorKind::NotFound if !self.program().contains(&b'/') => {
                format!("cannot start {}: no such program in PATH", self.program().escape_ascii())
            }
            _ => format!("cannot start {}: {error}", self.program().escape_ascii()),
        }
    }

    /// Returns the command as one would type it.
    pub(super) fn shown(self) -> Vec<u8> {
        match self {
            Self::Shell(line) => line,
            Self::Words(words) => {
                let mut line = Vec::new();
                for (at, word) in words.iter().enumerate() {
                    if at > 0 {
                        line.push(b' ');
                    }
                    quotes::insert(word, Quoting::Nothing, &mut line);
                }
                line
            }
        }
    }

    fn program(&self) -> &[u8] {
        match self {
            Self::Shell(_) => b"/bin/sh",
            Self::Words(words) => words.first().map_or(b"", |word| word),
        }
    }
}

fn start<A: AsRef<[u8]>>(
    program: &[u8],
    arguments: impl IntoIterator<Item = A>,
    input: Option<&Content>,
) -> io::Result<Child> {
    let mut command = Command::new(OsStr::from_bytes(program));
    for argument in arguments {
        command.arg(OsStr::from_bytes(argument.as_ref()));
    }
    let stdin = input.map(memory_file).transpose()?.map_or_else(Stdio::null, Stdio::from);
    command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A process group of its own can be killed without this worker. Processes that leave the group are killed with the
    // pool.
    command.process_group(0).spawn()
}

/// Returns a file in memory with this content. Unlike a pipe, it takes all of it at once, even if the command does not
/// read it.
fn memory_file(content: &Content) -> io::Result<File> {
    let mut file = File::from(memfd_create(c"farpool-block", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(&content.0)?;
    file.rewind()?;
    Ok(file)
}
