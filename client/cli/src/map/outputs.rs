//! What is to become of what commands write, by the options and by where they run.

use std::io::{self, Write};
use std::rc::Rc;

use super::keep::Keeping;
use super::plan::Plan;
use super::spool::{Spool, SpoolFile};

/// Decides it for one item after the other.
pub(super) enum Outputs {
    /// On other machines.
    InMemory,
    Spooled(Spool),
    /// `lock`: if workers share where they print.
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
            let story = format!("keeping large outputs in memory: cannot create a file in {folder}: {error}");
            // Without a reader there is nobody to tell.
            let _ = writeln!(io::stderr(), "farpool: {story}; set TMPDIR to another directory");
            None
        });
        match file {
            lock if plan.line_buffer => Outputs::Lines { tag: plan.tag, lock },
            Some(_) => Outputs::Spooled(spool),
            None => Outputs::InMemory,
        }
    }

    /// What is to become of an item's, and the file that is to stay open as long as it may go there.
    pub(super) fn of(&mut self, item: &[u8]) -> (Keeping, Option<Rc<SpoolFile>>) {
        match self {
            Outputs::InMemory => (Keeping::InMemory, None),
            // Memory will do if there is no further file.
            Outputs::Spooled(spool) => {
                spool.file().map_or((Keeping::InMemory, None), |file| (Keeping::Spooled(file.path()), Some(file)))
            }
            Outputs::Lines { tag, lock } => {
                let tag = tag.then(|| item.to_vec());
                (Keeping::Lines { tag, lock: lock.as_ref().map(|lock| lock.path()) }, None)
            }
        }
    }
}
