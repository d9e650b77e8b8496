//! The disk with the coordinator's journal. Where mounts are permitted it is one of its own, so small that it can be filled up.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use farpool_testkit::random::Random;

use crate::hosts;

/// What the journal may take up. It has segments of an eighth of a MiB, and is full now and then.
pub(crate) const JOURNAL_SIZE: u64 = 16 << 20;
/// What it may take up beyond that: outcomes that were on their way when it was full, and segments that are being emptied.
const BEYOND: u64 = 2 << 20;
/// And the whole disk.
const DISK_SIZE: u64 = 24 << 20;

const SEGMENT: &str = "farpool-journal";

pub(crate) struct Disk {
    folder: PathBuf,
    is_mounted: bool,
}

impl Disk {
    /// In this folder, which is made.
    pub(crate) fn at(folder: PathBuf) -> Disk {
        fs::create_dir_all(&folder).expect("the test's folder can be written");
        let is_mounted = hosts::is_apart();
        if is_mounted {
            hosts::mount(&folder, DISK_SIZE);
        }
        Disk { folder, is_mounted }
    }

    /// The folder for the journal.
    pub(crate) fn journal(&self) -> PathBuf {
        self.folder.join("journal")
    }

    /// Leaves no room for anything; whether that is possible.
    pub(crate) fn fill(&self) -> bool {
        if !self.is_mounted {
            return false;
        }
        let mut ballast = File::create(self.ballast()).expect("nothing is in its way");
        while ballast.write(&[0; 64 << 10]).is_ok() {}
        true
    }

    /// There is room again.
    pub(crate) fn clear(&self) {
        fs::remove_file(self.ballast()).expect("it was put there");
    }

    /// Leaves at the end of the journal what a computer that went down may have left: what was being written behind all
    /// that is durable. A segment that was being made is none of that: it says that the one before is whole, and after a write
    /// that failed it may not be. Only while nobody writes there.
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

    /// Whether the journal is as small as it is to be.
    pub(crate) fn check(&self) -> Result<(), String> {
        let bytes: u64 = self.segments().into_iter().map(|(_, bytes)| bytes).sum();
        let most = JOURNAL_SIZE + BEYOND;
        (bytes <= most)
            .then_some(())
            .ok_or_else(|| format!("the journal has {bytes} bytes, and is to have {most} at most"))
    }

    /// Copies the journal to where it outlives the test.
    pub(crate) fn keep(&self, folder: &Path) {
        let _ = fs::create_dir_all(folder);
        for (path, _) in self.segments() {
            // It is for whoever looks into what was wrong.
            let _ = path.file_name().map(|name| fs::copy(&path, folder.join(name)));
        }
    }

    fn segments(&self) -> Vec<(PathBuf, u64)> {
        let files = fs::read_dir(self.journal()).into_iter().flatten().flatten().map(|file| file.path());
        let segments = files.filter(|path| path.extension().is_some_and(|ending| ending == SEGMENT));
        // One that has just gone has no length.
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
