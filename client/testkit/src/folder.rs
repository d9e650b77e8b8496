//! Temporary folders of tests, in cargo's target folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::stat::Mode;

use crate::binaries;

/// A temporary folder, deleted when this is dropped.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Creates a folder whose name begins with this word.
    pub fn new(word: &str) -> Folder {
        Folder::within(&all(), word)
    }

    /// Creates one that other users can reach; cargo's folders may not be.
    pub fn for_everybody(word: &str) -> Folder {
        Folder::within(&std::env::temp_dir(), &format!("farpool-{word}"))
    }

    fn within(place: &Path, word: &str) -> Folder {
        static FOLDERS: AtomicU32 = AtomicU32::new(0);
        let name = format!("{word}.{}.{}", std::process::id(), FOLDERS.fetch_add(1, Ordering::Relaxed));
        let path = place.join(name);
        fs::create_dir_all(&path).expect("cannot create a folder");
        Folder(path)
    }

    /// Returns its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Returns the path of a file in it.
    pub fn file(&self, name: &str) -> String {
        text(self.0.join(name))
    }

    /// Writes a file into it.
    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, contents).expect("cannot write the folder");
        path
    }

    /// Creates a named pipe in it.
    pub fn pipe(&self, name: &str) -> String {
        let path = self.file(name);
        nix::unistd::mkfifo(Path::new(&path), Mode::S_IRWXU).expect("cannot create a named pipe");
        path
    }

    /// Returns the names in a subfolder; none if it does not exist.
    pub fn names_in(&self, folder: &str) -> Vec<String> {
        let files = self.0.join(folder).read_dir().into_iter().flatten();
        files
            .map(|file| file.expect("cannot list the file").file_name().into_string().expect("the name is not UTF-8"))
            .collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Returns the parent of all these folders: cargo's for integration tests, usually `target/tmp`.
pub fn all() -> PathBuf {
    binaries::folder().with_file_name("tmp")
}

/// Returns a path as a string, for arguments and variables.
pub fn text(path: PathBuf) -> String {
    path.into_os_string().into_string().expect("the path is not UTF-8")
}
