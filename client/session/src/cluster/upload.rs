//! This program on its way to the coordinator.

use std::fmt::Display;
use std::io;
use std::pin::Pin;

use super::connect::Connection;
use crate::cluster::executable::Executable;
use crate::error::{Error, ErrorKind};

/// Sends the program whenever the coordinator wants it, once at a time.
pub(super) struct Upload {
    /// None: there is nothing to send.
    program: Option<Executable>,
    running: Option<Pin<Box<dyn Future<Output = bool> + Send>>>,
    /// It was wanted while it was being sent. The coordinator may have refused what was being sent before it knew that an agent
    /// needs the program, so it is sent once more; if the coordinator has it by then, that ends with the first piece.
    wanted_again: bool,
    /// What was sent last was cut off, as the connection will be.
    cut_off: bool,
}

impl Upload {
    pub(super) fn new(program: Option<Executable>) -> Self {
        Self { program, running: None, wanted_again: false, cut_off: false }
    }

    /// Whether this is the program's digest.
    pub(super) fn has(&self, digest: &[u8]) -> bool {
        self.program.as_ref().is_some_and(|program| program.digest.as_bytes() == digest)
    }

    /// The coordinator wants the program.
    pub(super) fn wanted(&mut self, connection: &mut impl Connection) -> io::Result<()> {
        self.wanted_again = self.running.is_some();
        if let (false, Some(program)) = (self.wanted_again, &self.program) {
            self.cut_off = false;
            self.running = Some(Box::pin(connection.put_program(program.pieces()?)));
        }
        Ok(())
    }

    /// Waits until what is being sent has ended; for ever if nothing is. May be dropped.
    pub(super) async fn ended(&mut self) {
        match &mut self.running {
            Some(running) => {
                self.cut_off = !running.await;
                self.running = None;
            }
            None => std::future::pending().await,
        }
    }

    /// Sends it once more if that is wanted; to be called when it has [ended](Self::ended).
    pub(super) fn go_on(&mut self, connection: &mut impl Connection) -> io::Result<()> {
        if self.wanted_again { self.wanted(connection) } else { Ok(()) }
    }

    /// The connection is lost; returns whether the program was still wanted on it.
    pub(super) fn lose(&mut self) -> bool {
        let lost = std::mem::replace(self, Self::new(self.program.clone()));
        lost.running.is_some() || lost.cut_off
    }
}

/// The error of whoever needs the coordinator at `address` to have this program, which cannot be read.
pub(super) fn unreadable(address: impl Display, error: &io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, format!("cannot read the pool's program to send it to {address}: {error}"))
}
