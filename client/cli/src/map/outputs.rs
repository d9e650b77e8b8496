//! Decides how outputs are kept, by the options and by where commands run.

use std::io::{self, Write};
use std::rc::Rc;

use super::keep::OutputMode;
use super::plan::Plan;
use super::spool::{Spool, SpoolFile};

/// Decides for one item after the other.
pub(super) enum Outputs {
    /// Commands run on other machines.
    InMemory,
    Spooled(Spool),
    /// `lock`: if workers share the destination.
    Lines {
        tag: bool,
        lock: Option<Rc<SpoolFile>>,
    },
}

impl Outputs {
    /// `here`: commands run on this machine.
    pub(super) fn new(plan: &Plan, here: bool) -> Outputs {
        let mut spool = Spool::new();
        let usable = if here { spool.file().map(Some) } else { Ok(None) };
        let file = usable.unwrap_or_else(|error| {
            let folder = spool.folder().display();
            let message = format!("keeping large outputs in memory: cannot create a file in {folder}: {error}");
            // Errors are ignored: there is nowhere to report them.
            let _ = writeln!(io::stderr(), "farpool: {message}; set TMPDIR to another directory");
            None
        });
        match file {
            lock if plan.line_buffer => Outputs::Lines { tag: plan.tag, lock },
            Some(_) => Outputs::Spooled(spool),
            None => Outputs::InMemory,
        }
    }

    /// Returns how to keep the outputs of an item, and the file that must stay open meanwhile.
    pub(super) fn of(&mut self, item: &[u8]) -> (OutputMode, Option<Rc<SpoolFile>>) {
        match self {
            Outputs::InMemory => (OutputMode::InMemory, None),
            // If no further file can be created, memory is used.
            Outputs::Spooled(spool) => {
                spool.file().map_or((OutputMode::InMemory, None), |file| (OutputMode::Spooled(file.path()), Some(file)))
            }
            Outputs::Lines { tag, lock } => {
                let tag = tag.then(|| item.to_vec());
                (OutputMode::Lines { tag, lock: lock.as_ref().map(|lock| lock.path()) }, None)
            }
        }
    }
}
