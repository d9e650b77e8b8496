//! Storage of segments: a directory, or a simulated one when crashes are simulated.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, DirBuilder, File, Permissions, TryLockError};
use std::io::{self, IoSlice, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use farpool_common::time::Utc;
use nix::sys::uio::pwritev;

use crate::error::{JobStoreError, JobStoreErrorKind};
use crate::progress::Aside;

/// Segments by number. One thread writes; any thread may read.
pub(super) trait Storage: fmt::Debug + Send + Sync + 'static {
    /// Returns the segments, sorted.
    fn segments(&self) -> Vec<u32>;

    fn length(&self, segment: u32) -> io::Result<u64>;

    /// Reads until `to` is full or the segment ends. `NotFound`: the segment does not exist, or no longer does.
    fn read(&self, segment: u32, offset: u64, to: &mut [u8]) -> io::Result<usize>;

    /// Creates an empty segment durably, also in place of an existing one.
    fn create(&self, segment: u32) -> io::Result<()>;

    fn write(&self, segment: u32, offset: u64, parts: &mut [IoSlice<'_>]) -> io::Result<()>;

    /// Extends a segment to this length with zeros, which take no room, if it is shorter.
    fn extend(&self, segment: u32, length: u64) -> io::Result<()>;

    /// Makes durable what was written.
    fn sync(&self, segment: u32) -> io::Result<()>;

    fn truncate(&self, segment: u32, length: u64) -> io::Result<()>;

    /// Removes a segment, if it exists.
    fn remove(&self, segment: u32) -> io::Result<()>;

    /// Takes a segment out of the journal: its file gets another name, which is returned.
    fn set_aside(&self, segment: u32) -> io::Result<String>;

    /// Copies a segment's contents from a byte on into a file beside it, durably; returns its name.
    fn copy_aside(&self, segment: u32, from: u64) -> io::Result<String>;

    /// Returns what was set aside so far.
    fn aside(&self) -> Vec<Aside>;

    /// Returns the other files beside the journal, which are never changed.
    fn foreign(&self) -> Vec<String>;

    /// Notes up to which byte of the last segment everything is durable. The note may be lost; then an earlier one is
    /// found.
    fn note_synced(&self, segment: u32, end: u64);

    /// Durably lowers the note to this position, if it is higher: the rest is about to be cut off.
    fn lower_synced(&self, segment: u32, end: u64) -> io::Result<()>;

    /// Returns the last such note, if there is one.
    fn synced(&self) -> Option<(u32, u64)>;

    /// Returns the name that people know it by.
    fn name(&self, segment: u32) -> String;
}

/// A directory with a file for each segment.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    files: Mutex<BTreeMap<u32, Arc<File>>>,
    aside: Mutex<Vec<Aside>>,
    foreign: Vec<String>,
    /// The file with the note of what is durable; `None`: it cannot be noted.
    synced: Option<File>,
    /// Locked as long as this process has the journal.
    _lock: File,
}

impl Directory {
    /// Opens a directory for this process alone, or creates it if there is none.
    pub(super) fn open(path: &Path) -> Result<Self, JobStoreError> {
        let failed = |error: io::Error| {
            JobStoreError::new(
                JobStoreErrorKind::Io,
                format_args!("opening the journal in {}: {error}", path.display()),
            )
        };
        let path = std::path::absolute(path).map_err(failed)?;
        DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(failed)?;
        // A folder with other files keeps its permissions: the journal's own files are private in any case.
        if path.join(LOCK).exists() || fs::read_dir(&path).map_err(failed)?.next().is_none() {
            close_to_others(&path, 0o700).map_err(failed)?;
        }
        let lock = File::options().create(true).append(true).mode(0o600).open(path.join(LOCK)).map_err(failed)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => JobStoreError::new(
                JobStoreErrorKind::Locked,
                format_args!("the journal in {} is that of another coordinator that runs", path.display()),
            ),
            TryLockError::Error(error) => failed(error),
        })?;
        let (mut files, mut aside, mut foreign) = (BTreeMap::new(), Vec::new(), Vec::new());
        for entry in fs::read_dir(&path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            match kind_of(&entry.file_name().to_string_lossy()) {
                FileKind::Segment(segment) => {
                    let file = File::options().read(true).write(true).open(entry.path()).map_err(failed)?;
                    close_to_others(&entry.path(), 0o600).map_err(failed)?;
                    files.insert(segment, Arc::new(file));
                }
                FileKind::Aside => aside.push(aside_of(&entry.path(), entry.metadata().map_err(failed)?.len())),
                FileKind::Ours => {}
                FileKind::Foreign => foreign.push(entry.file_name().to_string_lossy().into_owned()),
            }
        }
        foreign.sort();
        aside.sort_by(|one: &Aside, other| one.name.cmp(&other.name));
        // Without this file, more counts as durable than may be.
        let synced = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join(SYNCED))
            .ok();
        Ok(Self { path, files: Mutex::new(files), aside: Mutex::new(aside), foreign, synced, _lock: lock })
    }

    /// Returns an unused name for a file set aside from a segment.
    fn aside_name(&self, segment: u32, what: &str) -> PathBuf {
        let name = format!("{segment:010}{SUFFIX}.{what}-{}", Utc::now().compact());
        let numbered = (2..).map(|number| format!("{name}-{number}"));
        let mut paths = std::iter::once(name.clone()).chain(numbered).map(|name| self.path.join(name));
        paths.find(|path| !path.exists()).expect("there are more names than files")
    }

    fn add_aside(&self, path: &Path, bytes: u64) {
        self.aside.lock().unwrap_or_else(PoisonError::into_inner).push(aside_of(path, bytes));
    }

    fn path_of(&self, segment: u32) -> PathBuf {
        self.path.join(format!("{segment:010}{SUFFIX}"))
    }

    fn file(&self, segment: u32) -> io::Result<Arc<File>> {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.get(&segment).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Makes the list of files durable.
    fn sync_names(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

const SUFFIX: &str = ".farpool-journal";
const LOCK: &str = "lock";
const SYNCED: &str = "synced";

/// Suffix of a segment's name when its file is set aside: all of it, or the bytes after its last whole record.
const DAMAGED: &str = "damaged";
const CUT_OFF: &str = "cut-off";

/// The highest number that counts as a segment's: there is room for as many after it.
const LAST_SEGMENT: u32 = u32::MAX / 2;

/// The kind of a file, by its name.
#[derive(Debug, PartialEq, Eq)]
enum FileKind {
    Segment(u32),
    /// A file that was set aside from a segment.
    Aside,
    /// Another file of a coordinator.
    Ours,
    Foreign,
}

fn kind_of(name: &str) -> FileKind {
    let Some((digits, rest)) = name.split_once(SUFFIX) else {
        let ours = [LOCK, SYNCED, "programs", "lost+found"].contains(&name);
        return if ours { FileKind::Ours } else { FileKind::Foreign };
    };
    let number = Some(digits).filter(|digits| digits.len() == 10 && digits.bytes().all(|byte| byte.is_ascii_digit()));
    let number = number.and_then(|digits| digits.parse().ok()).filter(|number| (1..=LAST_SEGMENT).contains(number));
    let kept = |what: &str| rest.strip_prefix('.').and_then(|rest| rest.strip_prefix(what)).is_some();
    match number {
        Some(number) if rest.is_empty() => FileKind::Segment(number),
        Some(_) if kept(DAMAGED) || kept(CUT_OFF) => FileKind::Aside,
        _ => FileKind::Foreign,
    }
}

/// Bytes of the note of what is durable: segment, byte, and a checksum of the two.
const NOTE: usize = 24;

fn note(segment: u32, end: u64) -> [u8; NOTE] {
    let mut note = [0; NOTE];
    note[..4].copy_from_slice(&segment.to_le_bytes());
    note[8..16].copy_from_slice(&end.to_le_bytes());
    let checksum = blake3::hash(&note[..16]);
    note[16..].copy_from_slice(&checksum.as_bytes()[..8]);
    note
}

fn noted(bytes: [u8; NOTE]) -> Option<(u32, u64)> {
    let segment = u32::from_le_bytes(*bytes.first_chunk()?);
    let end = u64::from_le_bytes(*bytes[8..].first_chunk()?);
    (note(segment, end) == bytes).then_some((segment, end))
}

fn aside_of(path: &Path, bytes: u64) -> Aside {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Aside { name, bytes }
}

impl Storage for Directory {
    fn segments(&self) -> Vec<u32> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    fn length(&self, segment: u32) -> io::Result<u64> {
        Ok(self.file(segment)?.metadata()?.len())
    }

    fn read(&self, segment: u32, offset: u64, to: &mut [u8]) -> io::Result<usize> {
        let file = self.file(segment)?;
        let mut filled = 0;
        while filled < to.len() {
            match file.read_at(&mut to[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn create(&self, segment: u32) -> io::Result<()> {
        let path = self.path_of(segment);
        let file = File::options().read(true).write(true).create(true).truncate(true).mode(0o600).open(path)?;
        self.sync_names()?;
        self.files.lock().unwrap_or_else(PoisonError::into_inner).insert(segment, Arc::new(file));
        Ok(())
    }

    fn write(&self, segment: u32, mut offset: u64, mut parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        let file = self.file(segment)?;
        while !parts.is_empty() {
            let some = parts.len().min(MAX_PARTS);
            match pwritev(&*file, &parts[..some], offset as i64) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    offset += count as u64;
                    IoSlice::advance_slices(&mut parts, count);
                }
                Err(nix::Error::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn extend(&self, segment: u32, length: u64) -> io::Result<()> {
        let file = self.file(segment)?;
        if file.metadata()?.len() < length { file.set_len(length) } else { Ok(()) }
    }

    fn sync(&self, segment: u32) -> io::Result<()> {
        self.file(segment)?.sync_data()
    }

    fn truncate(&self, segment: u32, length: u64) -> io::Result<()> {
        let file = self.file(segment)?;
        file.set_len(length)?;
        file.sync_all()
    }

    fn remove(&self, segment: u32) -> io::Result<()> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).remove(&segment);
        match fs::remove_file(self.path_of(segment)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => self.sync_names(),
        }
    }

    fn set_aside(&self, segment: u32) -> io::Result<String> {
        let to = self.aside_name(segment, DAMAGED);
        let bytes = match fs::rename(self.path_of(segment), &to) {
            Ok(()) => fs::metadata(&to)?.len(),
            // It was renamed earlier, and only making that durable had failed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        if self.files.lock().unwrap_or_else(PoisonError::into_inner).remove(&segment).is_some() {
            self.add_aside(&to, bytes);
        }
        self.sync_names()?;
        Ok(to.display().to_string())
    }

    fn copy_aside(&self, segment: u32, from: u64) -> io::Result<String> {
        let to = self.aside_name(segment, CUT_OFF);
        let mut source = File::open(self.path_of(segment))?;
        source.seek(SeekFrom::Start(from))?;
        let mut copy = File::options().write(true).create_new(true).mode(0o600).open(&to)?;
        let copied = io::copy(&mut source, &mut copy).and_then(|bytes| copy.sync_all().map(|()| bytes));
        let bytes = copied.and_then(|bytes| self.sync_names().map(|()| bytes)).inspect_err(|_| {
            // What could not be copied is still where it was.
            let _ = fs::remove_file(&to);
        })?;
        self.add_aside(&to, bytes);
        Ok(to.display().to_string())
    }

    fn aside(&self) -> Vec<Aside> {
        self.aside.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn foreign(&self) -> Vec<String> {
        self.foreign.clone()
    }

    fn note_synced(&self, segment: u32, end: u64) {
        // It is only a note: what is not noted counts as not durable.
        let _ = self.synced.as_ref().map(|file| file.write_all_at(&note(segment, end), 0));
    }

    fn lower_synced(&self, segment: u32, end: u64) -> io::Result<()> {
        match &self.synced {
            Some(file) if self.synced() > Some((segment, end)) => {
                file.write_all_at(&note(segment, end), 0)?;
                file.sync_data()
            }
            _ => Ok(()),
        }
    }

    fn synced(&self) -> Option<(u32, u64)> {
        let mut bytes = [0; NOTE];
        self.synced.as_ref()?.read_exact_at(&mut bytes, 0).ok()?;
        noted(bytes)
    }

    fn name(&self, segment: u32) -> String {
        self.path_of(segment).display().to_string()
    }
}

/// Items and results are private to this user: other users lose access to an existing folder or file.
fn close_to_others(path: &Path, mode: u32) -> io::Result<()> {
    if path.metadata()?.permissions().mode() & 0o077 == 0 {
        return Ok(());
    }
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(|error| {
        let text = format!("other users may look into {}, and it cannot be closed to them: {error}", path.display());
        io::Error::new(error.kind(), text)
    })
}

/// The most parts of one call (IOV_MAX).
const MAX_PARTS: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_become_private() {
        let path = std::env::temp_dir().join(format!("farpool-open-journal-{}", std::process::id()));
        fs::create_dir_all(&path).expect("cannot create a folder");
        let old = path.join("0000000001.farpool-journal");
        fs::write(&old, b"").expect("cannot write a file");
        fs::write(path.join(LOCK), b"").expect("cannot write a file");
        for (path, mode) in [(&path, 0o755), (&old, 0o644)] {
            fs::set_permissions(path, Permissions::from_mode(mode)).expect("cannot change the permissions");
        }
        let directory = Directory::open(&path).expect("cannot open the directory");
        directory.create(2).expect("cannot create a file");
        let mode = |path: &Path| path.metadata().expect("cannot access the file").permissions().mode() & 0o777;
        let new = path.join("0000000002.farpool-journal");
        assert_eq!([mode(&path), mode(&old), mode(&new)], [0o700, 0o600, 0o600]);
        fs::remove_dir_all(&path).expect("cannot remove the folder");
    }

    #[test]
    fn only_segment_names_count_as_segments() {
        assert_eq!(kind_of("0000000012.farpool-journal"), FileKind::Segment(12));
        for name in ["0000000012.farpool-journal.damaged-20261130T021338Z", "0000000012.farpool-journal.cut-off-x-2"] {
            assert_eq!(kind_of(name), FileKind::Aside, "{name}");
        }
        for name in ["lock", "synced", "programs"] {
            assert_eq!(kind_of(name), FileKind::Ours, "{name}");
        }
        let foreign = ["12.farpool-journal", "0000000012.farpool-journal~", "000000001x.farpool-journal"];
        for name in foreign.into_iter().chain(["0000000000.farpool-journal", "4294967295.farpool-journal", "notes.txt"])
        {
            assert_eq!(kind_of(name), FileKind::Foreign, "{name}");
        }
    }

    #[test]
    fn a_partial_note_is_invalid() {
        let whole = note(7, 1 << 33);
        assert_eq!(noted(whole), Some((7, 1 << 33)));
        assert_eq!(noted([0; NOTE]), None);
        for at in (0..NOTE).filter(|at| !(4..8).contains(at)) {
            let mut other = whole;
            other[at] ^= 1;
            assert_eq!(noted(other), None, "byte {at}");
        }
    }
}
