//! Executables that users have installed on a host.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use super::{Digest, digest_of};

/// Directories in which programs are found by their digest. Each file is read once, as long as it does not change.
#[derive(Debug)]
pub struct ProgramDirectories {
    directories: Vec<PathBuf>,
    known: Mutex<HashMap<PathBuf, (Stamp, Digest)>>,
}

/// The file has not changed as long as this is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    modified: Option<SystemTime>,
    size: u64,
}

impl ProgramDirectories {
    /// Searches these directories in order, but not their subdirectories.
    pub fn new(directories: impl IntoIterator<Item = PathBuf>) -> ProgramDirectories {
        // A worker starts in another directory: the paths of programs must not depend on this one.
        let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
        ProgramDirectories { directories: directories.into_iter().map(absolute).collect(), known: Mutex::default() }
    }

    /// Finds an executable of this size with this digest. Blocks while unknown files of this size are read; unreadable
    /// ones are skipped.
    pub fn find(&self, digest: &Digest, size: u64) -> Option<PathBuf> {
        // The map is consistent between any two statements.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let files = self.directories.iter().filter_map(|directory| directory.read_dir().ok()).flatten();
        files.filter_map(|file| Some(file.ok()?.path())).find(|path| {
            let metadata = path.metadata().ok().filter(|metadata| is_program(metadata) && metadata.len() == size);
            metadata.and_then(|metadata| digest_at(&mut known, path, &metadata)) == Some(*digest)
        })
    }
}

fn is_program(metadata: &Metadata) -> bool {
    metadata.is_file() && metadata.permissions().mode() & 0o111 != 0
}

fn digest_at(known: &mut HashMap<PathBuf, (Stamp, Digest)>, path: &Path, metadata: &Metadata) -> Option<Digest> {
    let stamp = Stamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        modified: metadata.modified().ok(),
        size: metadata.len(),
    };
    match known.get(path) {
        Some((then, digest)) if *then == stamp => Some(*digest),
        _ => {
            let digest = digest_of(&File::open(path).ok()?).ok()?;
            known.insert(path.to_owned(), (stamp, digest));
            Some(digest)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::time::Duration;

    use super::super::scratch::Scratch;
    use super::*;

    fn put(path: &Path, bytes: &[u8], mode: u32) -> Digest {
        fs::write(path, bytes).expect("written");
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("changed");
        blake3::hash(bytes).into()
    }

    #[test]
    fn programs_are_found_in_every_directory_in_order() {
        let (one, two) = (Scratch::new(), Scratch::new());
        let missing = one.path().join("not-there");
        let directories = ProgramDirectories::new([missing, one.path().to_owned(), two.path().to_owned()]);
        let digest = put(&one.path().join("a"), b"first", 0o755);
        assert_eq!(directories.find(&digest, 5), Some(one.path().join("a")));
        let digest = put(&two.path().join("b"), b"later", 0o500);
        assert_eq!(directories.find(&digest, 5), Some(two.path().join("b")));
        assert_eq!(directories.find(&digest, 6), None);
        let digest = put(&two.path().join("c"), b"no program", 0o644);
        assert_eq!(directories.find(&digest, 10), None);
    }

    #[test]
    fn a_file_that_changes_is_read_again() {
        let scratch = Scratch::new();
        let directories = ProgramDirectories::new([scratch.path().to_owned()]);
        let path = scratch.path().join("a");
        let before = put(&path, b"one", 0o755);
        assert_eq!(directories.find(&before, 3), Some(path.clone()));
        let after = put(&path, b"two", 0o755);
        File::open(&path).and_then(|file| file.set_modified(SystemTime::now() + Duration::from_secs(9))).expect("set");
        assert_eq!(directories.find(&before, 3), None);
        assert_eq!(directories.find(&after, 3), Some(path));
    }

    #[test]
    fn an_unchanged_file_is_read_once() {
        let scratch = Scratch::new();
        let directories = ProgramDirectories::new([scratch.path().to_owned()]);
        let path = scratch.path().join("a");
        let digest = put(&path, b"one", 0o755);
        let metadata = path.metadata().expect("the program exists");
        assert!(directories.find(&digest, 3).is_some());
        fs::write(&path, b"two").expect("written");
        File::open(&path).and_then(|file| file.set_modified(metadata.modified()?)).expect("set");
        assert!(directories.find(&digest, 3).is_some(), "the program looks as before, so it was not read");
    }
}
