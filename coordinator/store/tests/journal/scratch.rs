use std::path::{Path, PathBuf};
use std::process::Command;

/// A directory that is removed after the test, possibly with a file system in it.
pub(crate) struct Scratch {
    path: PathBuf,
    mounted: bool,
}

impl Scratch {
    pub(crate) fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("farpool-journal-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("cannot create a directory");
        Scratch { path, mounted: false }
    }

    /// Makes a file system of this many KiB; `None`: this user may not mount one.
    pub(crate) fn small_disk(name: &str, kib: u32) -> Option<Scratch> {
        let mut scratch = Scratch::new(name);
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={kib}k"), "tmpfs"]).arg(&scratch.path);
        scratch.mounted = mount.output().is_ok_and(|output| output.status.success());
        scratch.mounted.then_some(scratch)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.mounted {
            let _ = Command::new("umount").arg("-l").arg(&self.path).status();
        }
        let _ = std::fs::remove_dir_all(&self.path);
    }
}
