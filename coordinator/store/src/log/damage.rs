//! Damage to a journal's segments.

use std::fmt;

use farpool_common::units::ByteSize;
use farpool_proto::v1::journal_record::Sealed;

/// A damaged segment.
#[derive(Debug)]
pub(super) struct Damage {
    name: String,
    /// Bytes that are not whole records: start, end, and why.
    regions: Vec<(u64, u64, String)>,
    /// What else is wrong with it.
    pub(super) lacks: Option<String>,
    /// The jobs whose records it had; `None`: any job's.
    pub(super) seal: Option<Sealed>,
    /// Whether some of its bytes were not understood, or it cannot be continued.
    pub(super) is_set_aside: bool,
    /// The name under which its file is kept, if it was set aside.
    pub(super) aside: Option<String>,
    /// Its file is missing; this many bytes of it were durable.
    missing: Option<u64>,
}

/// The most regions that are listed individually.
const SHOWN: usize = 5;

impl Damage {
    pub(super) fn new(name: String) -> Self {
        Self { name, regions: Vec::new(), lacks: None, seal: None, is_set_aside: true, aside: None, missing: None }
    }

    /// Makes the damage of a segment without file, of which this many bytes were durable.
    pub(super) fn missing(name: String, bytes: u64) -> Self {
        Self { missing: Some(bytes), ..Self::new(name) }
    }

    pub(super) fn add(&mut self, from: u64, to: u64, why: impl Into<String>) {
        self.regions.push((from, to, why.into()));
    }

    pub(super) fn is_none(&self) -> bool {
        self.regions.is_empty() && self.lacks.is_none()
    }

    /// Whether the missing part may have had a record of this job.
    pub(super) fn affects(&self, job: u64) -> bool {
        self.seal.as_ref().is_none_or(|seal| seal.jobs.contains(&job) || seal.forgotten.contains(&job))
    }

    /// Whether the missing part may have had all records of a job. `is_known`: some record of the job exists.
    pub(super) fn may_hide_jobs(&self, is_known: impl Fn(u64) -> bool) -> bool {
        self.seal.as_ref().is_none_or(|seal| !seal.jobs.iter().all(|&job| is_known(job)))
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(bytes) = self.missing {
            let (name, bytes) = (&self.name, ByteSize(bytes));
            return write!(
                f,
                "{name} is missing, and {bytes} of it were durable. If you have the file, stop this coordinator and put it back \
                 before jobs are detached"
            );
        }
        write!(f, "{} is damaged: ", self.name)?;
        let mut parts =
            self.regions.iter().map(|(from, to, why)| format!("bytes {from} to {}: {why}", to.saturating_sub(1)));
        let shown: Vec<String> = parts.by_ref().take(SHOWN).chain(self.lacks.clone()).collect();
        f.write_str(&shown.join("; "))?;
        let more = parts.count();
        if more > 0 {
            write!(f, "; and {more} more regions")?;
        }
        match &self.aside {
            Some(aside) => write!(f, ". Nothing in it is whole. It is kept as {aside}"),
            None if self.is_set_aside => {
                let name = &self.name;
                write!(f, ". Its whole records are read and copied, and then it is kept as {name}.damaged-<time>")
            }
            None => f.write_str(". What is there was read"),
        }
    }
}
