//! A directory for a test, which goes with it.

use std::path::{Path, PathBuf};

pub(crate) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    pub(crate) fn new() -> Scratch {
        let template = std::env::temp_dir().join("farpool-daemon-XXXXXX");
        Scratch { path: nix::unistd::mkdtemp(&template).expect("a directory can be made") }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The names of what is in a directory in it; none if that is not there.
    pub(crate) fn names_in(&self, directory: &str) -> Vec<String> {
        let files = self.path.join(directory).read_dir().into_iter().flatten();
        files.map(|file| file.expect("there").file_name().into_string().expect("text")).collect()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}
