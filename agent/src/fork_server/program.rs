//! The executable that workers run.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use farpool_link::message::OWN_EXECUTABLE;
use nix::errno::Errno;
use nix::sys::statvfs::{FsFlags, statvfs};

use super::elf;

/// The executable that workers run, and how it is started.
#[derive(Clone, Debug)]
pub struct Program {
    /// The executable.
    pub path: PathBuf,
    /// Its arguments, beginning with the name under which it is shown.
    pub arguments: Vec<OsString>,
    /// Its whole environment, apart from the variable that tells its role; `None`: that of the agent.
    pub environment: Option<Vec<(OsString, OsString)>>,
    /// Its working directory; `None`: that of the agent.
    pub directory: Option<PathBuf>,
    /// Whether its fork server is kept for a while, for the next pool of this process, if its output is not captured.
    pub keep: bool,
}

/// Describes an error with [`OWN_EXECUTABLE`].
pub fn own_executable_failed(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::NotFound && !Path::new("/proc/self").exists() {
        return "/proc is not mounted, but workers are started from /proc/self/exe: mount it (mount -t proc proc /proc)"
            .to_owned();
    }
    error.to_string()
}

impl Program {
    /// Returns the program of this process, even if its file has been replaced since it started, with these arguments.
    pub fn current(arguments: Vec<OsString>) -> Program {
        Program { path: PathBuf::from(OWN_EXECUTABLE), arguments, environment: None, directory: None, keep: false }
    }

    /// Returns the name by which its user knows it, wherever the file is on this host.
    pub fn name(&self) -> String {
        let called = self.arguments.first().map_or(self.path.as_os_str(), OsString::as_os_str);
        let name = Path::new(called).file_name().unwrap_or(OsStr::new("the program"));
        name.to_string_lossy().into_owned()
    }

    /// Checks that it can run on this host. The error is a fragment that continues "the program ...".
    pub(crate) fn check(&self, host: &str) -> Result<(), String> {
        elf::check(&self.path, host)
    }

    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        if let Some((name, rest)) = self.arguments.split_first() {
            command.arg0(name).args(rest);
        }
        if let Some(environment) = &self.environment {
            command.env_clear().envs(environment.iter().map(|(name, value)| (name, value)));
        }
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        command.stdout(Stdio::null());
        command
    }

    /// Returns whether a failed start is the program's fault and not the host's. Then a retry is pointless.
    pub(crate) fn is_at_fault(&self, error: &io::Error) -> bool {
        // The same error for a missing directory is the host's fault.
        let directory = self.directory.as_ref().is_none_or(|directory| directory.is_dir());
        let errno = error.raw_os_error().map(Errno::from_raw);
        if self.may_not_run(error) {
            return false;
        }
        let faults = [Errno::ENOENT, Errno::EACCES, Errno::ENOEXEC, Errno::ELIBBAD, Errno::EINVAL, Errno::E2BIG];
        directory && (errno.is_some_and(|errno| faults.contains(&errno)) || error.kind() == io::ErrorKind::InvalidInput)
    }

    /// Returns whether it is on a file system that is mounted noexec.
    fn may_not_run(&self, error: &io::Error) -> bool {
        let on_noexec = || statvfs(&self.path).is_ok_and(|system| system.flags().contains(FsFlags::ST_NOEXEC));
        error.kind() == io::ErrorKind::PermissionDenied && on_noexec()
    }

    /// Describes an error at its start.
    pub(crate) fn describe(&self, error: &io::Error) -> String {
        if self.path == Path::new(OWN_EXECUTABLE) {
            return own_executable_failed(error);
        }
        if self.may_not_run(error) {
            let directory = self.path.parent().unwrap_or(&self.path).display();
            return format!(
                "{directory} is on a file system that is mounted noexec: give --programs another directory"
            );
        }
        if error.kind() == io::ErrorKind::NotFound && self.path.exists() {
            return "the loader that it names does not exist".to_owned();
        }
        error.to_string()
    }
}
