//! The log of the injected faults: a file, and counts.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

pub(crate) struct FaultLog {
    file: File,
    began: Instant,
    lines: Vec<String>,
    counts: BTreeMap<String, u64>,
}

impl FaultLog {
    pub(crate) fn new(folder: &Path) -> Self {
        let file = File::create(folder.join("faults")).expect("cannot write the test's folder");
        Self { file, began: Instant::now(), lines: Vec::new(), counts: BTreeMap::new() }
    }

    /// Counts a fault of this kind.
    pub(crate) fn count(&mut self, kind: &str) {
        *self.counts.entry(kind.to_owned()).or_default() += 1;
    }

    pub(crate) fn note(&mut self, what: impl Display) {
        let line = format!("{:9.3} {what}", self.began.elapsed().as_secs_f64());
        // The lines are in memory too.
        let _ = writeln!(self.file, "{line}");
        self.lines.push(line);
    }

    /// Returns the last lines.
    pub(crate) fn last(&self, count: usize) -> String {
        self.lines[self.lines.len().saturating_sub(count)..].join("\n")
    }

    /// Returns how often each kind was injected.
    pub(crate) fn summary(&self) -> String {
        let faults: u64 = self.counts.values().sum();
        let mut summary = format!("{faults} faults in {:.1} s:", self.began.elapsed().as_secs_f64());
        for (kind, count) in &self.counts {
            let _ = write!(summary, " {kind} {count},");
        }
        summary.truncate(summary.trim_end_matches(',').len());
        summary + "\n"
    }
}
