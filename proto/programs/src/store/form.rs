use std::fs::File;
use std::io;

use super::super::compression;
use super::{Digest, digest_of};

/// How the programs of a directory lie there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As they are run.
    Executable,
    /// As they travel, so that they can be sent on as they are.
    Compressed,
}

/// How the name of a compressed program ends.
const COMPRESSED: &str = ".zst";

impl Form {
    /// The name of a program's file.
    pub(super) fn name_of(self, digest: &Digest) -> String {
        match self {
            Form::Executable => digest.to_string(),
            Form::Compressed => format!("{digest}{COMPRESSED}"),
        }
    }

    /// The rights of a program's file.
    pub(super) fn mode(self) -> u32 {
        match self {
            Form::Executable => 0o500,
            Form::Compressed => 0o400,
        }
    }

    /// The digest and the size of the executable that a file holds.
    pub(super) fn contents_of(self, file: &File) -> io::Result<(Digest, u64)> {
        match self {
            Form::Executable => Ok((digest_of(file)?, file.metadata()?.len())),
            Form::Compressed => compression::contents_of(file),
        }
    }
}

/// The program, in whatever form, whose file has this name.
pub(super) fn program_of(name: &str) -> Option<Digest> {
    name.strip_suffix(COMPRESSED).unwrap_or(name).parse().ok()
}
