use std::fs::File;
use std::io;

use super::super::compression;
use super::{Digest, digest_of};

/// The form of programs in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Ready to run.
    Executable,
    /// Compressed, so that they can be sent unchanged.
    Compressed,
}

/// The suffix of a compressed program's name.
const COMPRESSED: &str = ".zst";

impl Form {
    /// Returns the name of a program's file.
    pub(super) fn name_of(self, digest: &Digest) -> String {
        match self {
            Form::Executable => digest.to_string(),
            Form::Compressed => format!("{digest}{COMPRESSED}"),
        }
    }

    /// Returns the permissions of a program's file.
    pub(super) fn mode(self) -> u32 {
        match self {
            Form::Executable => 0o500,
            Form::Compressed => 0o400,
        }
    }

    /// Returns the digest and the size of the executable in a file.
    pub(super) fn contents_of(self, file: &File) -> io::Result<(Digest, u64)> {
        match self {
            Form::Executable => Ok((digest_of(file)?, file.metadata()?.len())),
            Form::Compressed => compression::contents_of(file),
        }
    }
}

/// Returns the program, in either form, whose file has this name.
pub(super) fn program_of(name: &str) -> Option<Digest> {
    name.strip_suffix(COMPRESSED).unwrap_or(name).parse().ok()
}
