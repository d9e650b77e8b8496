//! The program that workers run: this executable.

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::{Mutex, PoisonError};

use farpool_agent::fork_server::own_executable_failed;
use farpool_link::message::OWN_EXECUTABLE;
use farpool_programs::{Digest, Pieces, digest_of, pieces};
use farpool_proto::v1::{Program, Variable};

use crate::error::{Error, ErrorKind};
use crate::fork::PerProcess;

/// What an agent needs to know to run this program, with so much of an environment.
pub(super) fn describe(environment: Vec<(OsString, OsString)>) -> Result<Program, Error> {
    let failed = |error: io::Error| {
        let why = own_executable_failed(&error);
        Error::new(ErrorKind::Unavailable, format!("reading this program, {OWN_EXECUTABLE}: {why}"))
    };
    let size = File::open(OWN_EXECUTABLE).and_then(|file| file.metadata()).map_err(failed)?.len();
    Ok(Program {
        digest: digest().map_err(failed)?.to_bytes(),
        size,
        arguments: farpool_worker::arguments().into_iter().map(|argument| argument.into_vec().into()).collect(),
        environment: environment.into_iter().map(variable).collect(),
        directory: env::current_dir().map(|path| path.as_os_str().as_bytes().to_vec()).unwrap_or_default().into(),
    })
}

fn variable((name, value): (OsString, OsString)) -> Variable {
    Variable { name: name.into_vec().into(), value: value.into_vec().into() }
}

/// The executable, to be sent.
pub(super) fn upload() -> io::Result<Pieces> {
    let file = File::open(OWN_EXECUTABLE)?;
    let size = file.metadata()?.len();
    Ok(pieces(file, digest()?, size))
}

/// The executable's digest, which is computed once. In a worker, the agent has said it.
pub(super) fn digest() -> io::Result<Digest> {
    static KNOWN: PerProcess<Mutex<Option<Digest>>> = PerProcess::new();
    // Whoever comes second waits, instead of reading the whole file too.
    let mut known = KNOWN.get().lock().unwrap_or_else(PoisonError::into_inner);
    match *known {
        Some(digest) => Ok(digest),
        None => {
            let told = farpool_worker::told_program().and_then(|digits| digits.parse().ok());
            let digest = told.map_or_else(|| digest_of(&File::open(OWN_EXECUTABLE)?), Ok)?;
            Ok(*known.insert(digest))
        }
    }
}
