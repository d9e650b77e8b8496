//! The records of detached jobs, in files that all processes of the test share. So the records of a killed process
//! remain, and any reader of a job knows what may have happened to it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use farpool_testkit::folder::text;
use farpool_testkit::random::Random;

use crate::job_spec::JobSpec;

/// A folder with the jobs of all clients.
#[derive(Clone, Debug)]
pub(crate) struct JobRecords {
    folder: PathBuf,
}

/// A mark on a job: what was done to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// Its detach has returned: from now on it exists.
    Detached,
    /// It is about to be cancelled: items may have no outcome.
    Cancelled,
    /// It is about to be discarded: it may be gone.
    Discarded,
}

impl Mark {
    fn ending(self) -> &'static str {
        match self {
            Mark::Detached => "detached",
            Mark::Cancelled => "cancelled",
            Mark::Discarded => "discarded",
        }
    }
}

impl JobRecords {
    /// Opens the records of the test whose files are in this folder.
    pub(crate) fn of(test: &Path) -> JobRecords {
        let folder = test.join("detached");
        fs::create_dir_all(&folder).expect("cannot write the test's folder");
        JobRecords { folder }
    }

    /// Draws and records a job that is about to be detached.
    pub(crate) fn create(&self, random: &mut Random, name: String) -> JobSpec {
        let log = self.file(&name, "runs");
        File::create(&log).expect("cannot write the test's folder");
        let job_spec = JobSpec::draw(random, name, text(log));
        let draft = self.file(&job_spec.name, "draft");
        let text = serde_json::to_string(&job_spec).expect("cannot write a job");
        fs::write(&draft, text).expect("cannot write the test's folder");
        // No process sees half of it.
        fs::rename(draft, self.file(&job_spec.name, "job_spec")).expect("cannot rename the file");
        job_spec
    }

    /// Returns all jobs that any client has begun to detach, by name.
    pub(crate) fn all(&self) -> Vec<JobSpec> {
        let files =
            fs::read_dir(&self.folder).expect("cannot read the test's folder").flatten().map(|file| file.path());
        let job_specs = files.filter(|path| path.extension().is_some_and(|ending| ending == "job_spec"));
        let read = |path| fs::read(path).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let mut all: Vec<JobSpec> = job_specs.map(|path| read(path).expect("a job file is incomplete")).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Marks a job. Returns whether it did not have the mark before.
    pub(crate) fn mark(&self, name: &str, mark: Mark) -> bool {
        OpenOptions::new().write(true).create_new(true).open(self.file(name, mark.ending())).is_ok()
    }

    pub(crate) fn has(&self, name: &str, mark: Mark) -> bool {
        self.file(name, mark.ending()).exists()
    }

    /// Returns the items that began to run, in order of their starts.
    pub(crate) fn began(&self, name: &str) -> Vec<u64> {
        let log = fs::read_to_string(self.file(name, "runs")).expect("cannot read the log");
        log.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// Records outcomes that were read.
    pub(crate) fn note_read(&self, name: &str, outcomes: &BTreeMap<u64, String>) {
        let lines: String = outcomes.iter().map(|(item, text)| format!("{item} {text}\n")).collect();
        let file = OpenOptions::new().append(true).create(true).open(self.file(name, "read"));
        file.and_then(|mut file| file.write_all(lines.as_bytes())).expect("cannot write the test's folder");
    }

    /// Returns what any process has read of each item.
    pub(crate) fn read(&self, name: &str) -> BTreeMap<u64, BTreeSet<String>> {
        let text = fs::read_to_string(self.file(name, "read")).unwrap_or_default();
        let mut all = BTreeMap::<u64, BTreeSet<String>>::new();
        for (item, text) in text.lines().filter_map(|line| line.split_once(' ')) {
            let item = item.parse().expect("the line does not begin with an item's index");
            all.entry(item).or_default().insert(text.to_owned());
        }
        all
    }

    fn file(&self, name: &str, ending: &str) -> PathBuf {
        self.folder.join(format!("{name}.{ending}"))
    }
}
