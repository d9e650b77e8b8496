//! Uploads this program to the coordinator.

use std::fmt::Display;
use std::io;
use std::pin::Pin;

use super::connect::Connection;
use crate::cluster::executable::Executable;
use crate::error::{Error, ErrorKind};

/// Sends the program whenever the coordinator requests it, one upload at a time.
pub(super) struct Upload {
    /// `None`: there is nothing to send.
    program: Option<Executable>,
    running: Option<Pin<Box<dyn Future<Output = bool> + Send>>>,
    /// The program was requested during an upload. The coordinator may have refused this upload before it knew that an
    /// agent needs the program, so a second one follows. If the coordinator has the program by then, the second one
    /// ends with its first piece.
    wanted_again: bool,
    /// The last upload was cut off: the connection is about to be lost, too.
    cut_off: bool,
}

impl Upload {
    pub(super) fn new(program: Option<Executable>) -> Self {
        Self { program, running: None, wanted_again: false, cut_off: false }
    }

    /// Returns whether this is the program's digest.
    pub(super) fn has(&self, digest: &[u8]) -> bool {
        self.program.as_ref().is_some_and(|program| program.digest.as_bytes() == digest)
    }

    /// Handles the coordinator's request for the program.
    pub(super) fn begin_if_free(&mut self, connection: &mut impl Connection) -> io::Result<()> {
        self.wanted_again = self.running.is_some();
        if let (false, Some(program)) = (self.wanted_again, &self.program) {
            self.cut_off = false;
            self.running = Some(Box::pin(connection.put_program(program.pieces()?)));
        }
        Ok(())
    }

    /// Waits until the current upload has ended; forever if there is none. May be dropped.
    pub(super) async fn ended(&mut self) {
        match &mut self.running {
            Some(running) => {
                self.cut_off = !running.await;
                self.running = None;
            }
            None => std::future::pending().await,
        }
    }

    /// Sends the program again if it was requested; call it when the upload has [ended](Self::ended).
    pub(super) fn continue_if_wanted(&mut self, connection: &mut impl Connection) -> io::Result<()> {
        if self.wanted_again { self.begin_if_free(connection) } else { Ok(()) }
    }

    /// Ends the upload because the connection was lost; returns whether the program was still wanted.
    pub(super) fn lose(&mut self) -> bool {
        let lost = std::mem::replace(self, Self::new(self.program.clone()));
        lost.running.is_some() || lost.cut_off
    }
}

/// The error if the program, which the coordinator at `address` needs, cannot be read.
pub(super) fn unreadable(address: impl Display, error: &io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, format!("cannot read the pool's program to send it to {address}: {error}"))
}
