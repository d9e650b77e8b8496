//! Notes that items write when they begin: when and where.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use farpool_testkit::machine::monotonic_ns;

/// A line that an item wrote.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Note {
    pub(crate) item: u64,
    pub(crate) pid: u32,
    pub(crate) at_ns: u64,
}

/// The file of notes.
pub(crate) struct Notes(String);

impl Notes {
    pub(crate) fn new(folder: &Path) -> Notes {
        let path = folder.join("notes");
        fs::write(&path, "").expect("cannot write the run's folder");
        Notes(path.into_os_string().into_string().expect("temporary folders have names"))
    }

    /// Returns the path, for items.
    pub(crate) fn path(&self) -> String {
        self.0.clone()
    }

    pub(crate) fn all(&self) -> Vec<Note> {
        let text = fs::read_to_string(&self.0).expect("the notes were written before");
        let note = |line: &str| {
            let mut words = line.split(' ');
            let (item, pid) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            Some(Note { item, pid, at_ns: words.next()?.parse().ok()? })
        };
        text.lines().filter_map(note).collect()
    }

    /// Waits until `look` finds something in the notes.
    pub(crate) fn wait<T>(&self, look: impl Fn(&[Note]) -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(found) = look(&self.all()) {
                return found;
            }
            assert!(start.elapsed() < Duration::from_secs(60), "what the case waits for does not happen");
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The function of items: notes that the item begins, and sleeps.
pub(crate) fn nap(path: String, item: u64, milliseconds: u64) -> (u64, u32) {
    let pid = std::process::id();
    let mut file = OpenOptions::new().append(true).open(path).expect("the run's folder exists");
    file.write_all(format!("{item} {pid} {}\n", monotonic_ns()).as_bytes()).expect("cannot write the note");
    thread::sleep(Duration::from_millis(milliseconds));
    (item, pid)
}
