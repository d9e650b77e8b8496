//! What is known of detached jobs: files that all processes of the test share. So whoever is killed has said what it did,
//! and whoever picks up a job knows what may have become of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use farpool_testkit::folder::text;
use farpool_testkit::random::Random;

use crate::recipe::Recipe;

/// A folder with the jobs of all clients.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    folder: PathBuf,
}

/// What was done to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// Detaching it has returned: from now on it is there.
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

impl Ledger {
    /// That of the test whose files are in this folder.
    pub(crate) fn of(test: &Path) -> Ledger {
        let folder = test.join("detached");
        fs::create_dir_all(&folder).expect("the test's folder can be written");
        Ledger { folder }
    }

    /// A job that is about to be detached.
    pub(crate) fn enter(&self, random: &mut Random, name: String) -> Recipe {
        let log = self.file(&name, "runs");
        File::create(&log).expect("the test's folder can be written");
        let recipe = Recipe::draw(random, name, text(log));
        let draft = self.file(&recipe.name, "draft");
        let text = serde_json::to_string(&recipe).expect("a recipe can be written");
        fs::write(&draft, text).expect("the test's folder can be written");
        // Nobody sees half of it.
        fs::rename(draft, self.file(&recipe.name, "recipe")).expect("it was just made");
        recipe
    }

    /// All jobs that somebody has begun to detach, by name.
    pub(crate) fn all(&self) -> Vec<Recipe> {
        let files =
            fs::read_dir(&self.folder).expect("the test's folder can be read").flatten().map(|file| file.path());
        let recipes = files.filter(|path| path.extension().is_some_and(|ending| ending == "recipe"));
        let read = |path| fs::read(path).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let mut all: Vec<Recipe> = recipes.map(|path| read(path).expect("recipes are whole")).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Notes what is done to a job. Returns whether nobody has noted it before.
    pub(crate) fn mark(&self, name: &str, mark: Mark) -> bool {
        OpenOptions::new().write(true).create_new(true).open(self.file(name, mark.ending())).is_ok()
    }

    pub(crate) fn has(&self, name: &str, mark: Mark) -> bool {
        self.file(name, mark.ending()).exists()
    }

    /// The items that began to run, one after another.
    pub(crate) fn began(&self, name: &str) -> Vec<u64> {
        let log = fs::read_to_string(self.file(name, "runs")).expect("it was made before the job");
        log.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// Somebody has read these outcomes.
    pub(crate) fn note_read(&self, name: &str, outcomes: &BTreeMap<u64, String>) {
        let lines: String = outcomes.iter().map(|(item, told)| format!("{item} {told}\n")).collect();
        let file = OpenOptions::new().append(true).create(true).open(self.file(name, "read"));
        file.and_then(|mut file| file.write_all(lines.as_bytes())).expect("the test's folder can be written");
    }

    /// What anybody has read of each item.
    pub(crate) fn read(&self, name: &str) -> BTreeMap<u64, BTreeSet<String>> {
        let text = fs::read_to_string(self.file(name, "read")).unwrap_or_default();
        let mut all = BTreeMap::<u64, BTreeSet<String>>::new();
        for (item, told) in text.lines().filter_map(|line| line.split_once(' ')) {
            let item = item.parse().expect("it was written so");
            all.entry(item).or_default().insert(told.to_owned());
        }
        all
    }

    fn file(&self, name: &str, ending: &str) -> PathBuf {
        self.folder.join(format!("{name}.{ending}"))
    }
}
