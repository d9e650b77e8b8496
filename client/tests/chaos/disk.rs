//! The disk with the coordinator's journal. Where mounts are permitted, it is a separate one, small enough to be filled up.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use farpool_testkit::random::Random;

use crate::hosts;

/// The journal's size limit. It has segments of an eighth of a MiB, and is full now and then.
pub(crate) const JOURNAL_SIZE: u64 = 16 << 20;
/// What it may take up beyond that: outcomes that were in flight when it was full, and segments that are being emptied.
const JOURNAL_SLACK: u64 = 2 << 20;
/// The size of the whole disk.
const DISK_SIZE: u64 = 24 << 20;

const SEGMENT: &str = "farpool-journal";

pub(crate) struct Disk {
    folder: PathBuf,
    is_mounted: bool,
}

impl Disk {
    /// Creates it in this folder, which is created too.
    pub(crate) fn at(folder: PathBuf) -> Disk {
        fs::create_dir_all(&folder).expect("cannot write the test's folder");
        let is_mounted = hosts::is_isolated();
        if is_mounted {
            hosts::mount(&folder, DISK_SIZE);
        }
        Disk { folder, is_mounted }
    }

    /// The folder for the journal.
    pub(crate) fn journal(&self) -> PathBuf {
        self.folder.join("journal")
    }

    /// Fills it up. Returns whether that is possible.
    pub(crate) fn fill(&self) -> bool {
        if !self.is_mounted {
            return false;
        }
        let mut ballast = File::create(self.ballast()).expect("cannot create the file");
        while ballast.write(&[0; 64 << 10]).is_ok() {}
        true
    }

    /// Makes room again.
    pub(crate) fn clear(&self) {
        fs::remove_file(self.ballast()).expect("cannot write the ballast");
    }

    /// Appends to the journal what a crash of the computer may leave: data that was being written after everything
    /// durable. It never includes a new, partial segment: a new segment states that the one before is whole, which is
    /// not certain after a failed write. Call it only while nothing writes there.
    pub(crate) fn tear(&self, which: u64) -> io::Result<()> {
        let mut random = Random::new(which);
        let last = self.segments().into_iter().map(|(path, _)| path).max();
        let last = last.ok_or(io::ErrorKind::NotFound)?;
        let length = random.within(1..5000) as usize;
        let left = match random.one_in(2) {
            true => vec![0; length],
            false => (0..length).map(|_| random.next() as u8).collect(),
        };
        OpenOptions::new().append(true).open(&last)?.write_all(&left)
    }

    /// Checks that the journal is within its limit.
    pub(crate) fn check(&self) -> Result<(), String> {
        let bytes: u64 = self.segments().into_iter().map(|(_, bytes)| bytes).sum();
        let most = JOURNAL_SIZE + JOURNAL_SLACK;
        (bytes <= most)
            .then_some(())
            .ok_or_else(|| format!("the journal has {bytes} bytes, but may have at most {most}"))
    }

    /// Copies the journal to where it outlives the test.
    pub(crate) fn keep(&self, folder: &Path) {
        let _ = fs::create_dir_all(folder);
        for (path, _) in self.segments() {
            // It only helps to find out what was wrong.
            let _ = path.file_name().map(|name| fs::copy(&path, folder.join(name)));
        }
    }

    fn segments(&self) -> Vec<(PathBuf, u64)> {
        let files = fs::read_dir(self.journal()).into_iter().flatten().flatten().map(|file| file.path());
        let segments = files.filter(|path| path.extension().is_some_and(|ending| ending == SEGMENT));
        // One that was just removed has no length.
        segments
            .filter_map(|path| Some((fs::metadata(&path).ok()?.len(), path)))
            .map(|(bytes, path)| (path, bytes))
            .collect()
    }

    fn ballast(&self) -> PathBuf {
        self.folder.join("ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.is_mounted {
            hosts::unmount(&self.folder);
        }
    }
}
