//! The working directories of pools.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access, geteuid, mkdtemp};

/// Prefix of the directories of agents.
const PREFIX: &str = "farpool-agent-";

/// The directory for the pools' working directories. It is locked while the agent lives; the next agent on the host
/// removes the directories of dead ones.
#[derive(Debug)]
pub(super) struct Workplaces {
    path: PathBuf,
    _lock: File,
}

/// A pool's working directory: that of its client, if this host has it, or an empty one that is removed with the pool.
#[derive(Debug)]
pub(super) struct Workplace {
    path: PathBuf,
    is_scratch: bool,
}

impl Workplaces {
    /// Creates the agent's directory in `temporary`.
    pub(super) fn open(temporary: &Path) -> io::Result<Workplaces> {
        remove_stale(temporary);
        loop {
            let path = mkdtemp(&temporary.join(format!("{PREFIX}XXXXXX")))?;
            // Another agent that is starting may have removed it as stale.
            match File::open(&path) {
                Ok(lock) if lock.try_lock().is_ok() && path.exists() => return Ok(Workplaces { path, _lock: lock }),
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }

    /// Returns the client's directory if it exists here, or creates an empty one. Blocks.
    pub(super) fn find(&self, wanted: Vec<u8>) -> io::Result<Workplace> {
        let wanted = PathBuf::from(OsString::from_vec(wanted));
        if wanted.is_absolute() && wanted.is_dir() && access(&wanted, AccessFlags::X_OK).is_ok() {
            return Ok(Workplace { path: wanted, is_scratch: false });
        }
        let path = mkdtemp(&self.path.join("pool-XXXXXX"))?;
        Ok(Workplace { path, is_scratch: true })
    }
}

/// Removes the directories of dead agents. Errors leave them for the next agent.
fn remove_stale(temporary: &Path) {
    for entry in temporary.read_dir().into_iter().flatten().flatten() {
        let ours = entry.file_name().as_bytes().starts_with(PREFIX.as_bytes())
            && entry.metadata().is_ok_and(|found| found.is_dir() && found.uid() == geteuid().as_raw());
        if ours
            && let Ok(lock) = File::open(entry.path())
            && lock.try_lock().is_ok()
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

impl Drop for Workplaces {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

impl Workplace {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        if self.is_scratch {
            // Files that a worker has made unremovable stay.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_of_a_dead_agent_is_removed() {
        let temporary =
            mkdtemp(&std::env::temp_dir().join("farpool-workplaces-XXXXXX")).expect("cannot create the directory");
        let names = || {
            let mut names: Vec<_> =
                temporary.read_dir().expect("cannot read the directory").flatten().map(|file| file.path()).collect();
            names.sort();
            names
        };
        let left = temporary.join(format!("{PREFIX}left"));
        let others = temporary.join("others");
        for directory in [&left, &others] {
            fs::create_dir_all(directory.join("pool-x")).expect("cannot create the directory");
        }
        let living = Workplaces::open(&temporary).expect("cannot open the workplaces");
        let workplace = living.find(b"/nowhere/at/all".to_vec()).expect("cannot create the workplace");
        assert!(workplace.path().starts_with(&living.path) && workplace.path().is_dir());
        let another = Workplaces::open(&temporary).expect("cannot open the workplaces");
        assert!(!left.exists() && others.exists() && workplace.path().exists());
        drop((workplace, living, another));
        assert_eq!(names(), [others]);
        fs::remove_dir_all(temporary).expect("cannot remove the directory");
    }

    #[test]
    fn a_clients_directory_is_used_and_stays() {
        let temporary =
            mkdtemp(&std::env::temp_dir().join("farpool-workplaces-XXXXXX")).expect("cannot create the directory");
        let workplaces = Workplaces::open(&temporary).expect("cannot open the workplaces");
        let workplace = workplaces.find(temporary.as_os_str().as_bytes().to_vec()).expect("cannot read the directory");
        assert_eq!(workplace.path(), temporary);
        drop(workplace);
        assert!(temporary.exists());
        // A relative path has no base here.
        assert!(workplaces.find(b".".to_vec()).expect("cannot create the workplace").is_scratch);
        drop(workplaces);
        fs::remove_dir_all(temporary).expect("cannot remove the directory");
    }
}
