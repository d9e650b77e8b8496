//! The program that pools of these tests run: it records how it was started, and then acts as a fork server.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// What the program records about itself, in the directory that its first argument names.
pub(crate) struct Start {
    pub(crate) pid: u32,
    pub(crate) environment: Vec<String>,
    pub(crate) arguments: Vec<String>,
    pub(crate) directory: String,
}

impl Start {
    /// Returns whether its process has ended.
    pub(crate) fn is_over(&self) -> bool {
        let pid = Pid::from_raw(i32::try_from(self.pid).expect("not a process id"));
        kill(pid, None::<Signal>).is_err()
    }
}

/// The program's `main`: its second argument selects how its workers behave.
pub(crate) fn serve() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, notes, behaviour, ..] = &arguments[..] else { return };
    let environment = fs::read("/proc/self/environ").expect("cannot read the environment");
    let directory = std::env::current_dir().expect("cannot get the working directory");
    let joined = arguments.join("\0");
    let note = [&environment[..], b"\n", joined.as_bytes(), b"\n", directory.as_os_str().as_bytes()];
    let path = Path::new(notes).join(std::process::id().to_string());
    fs::write(path.with_extension("part"), note.concat()).expect("cannot write the file");
    fs::rename(path.with_extension("part"), path).expect("cannot rename the file");
    farpool_testkit::workers::serve(behaviour);
}

/// Returns the records of all starts.
pub(crate) fn starts(notes: &Path) -> Vec<Start> {
    let files =
        notes.read_dir().expect("cannot read the notes' folder").map(|file| file.expect("cannot list the note").path());
    files.filter(|path| path.file_name().is_some_and(|name| name != "pipe")).map(|path| start(&path)).collect()
}

fn start(path: &Path) -> Start {
    let note = fs::read_to_string(path).expect("cannot read the note");
    let parts: Vec<&str> = note.split('\n').collect();
    let list = |text: &str| text.split('\0').filter(|text| !text.is_empty()).map(str::to_owned).collect();
    let pid = path.file_name().and_then(OsStr::to_str).and_then(|name| name.parse().ok()).expect("not a process id");
    Start { pid, environment: list(parts[0]), arguments: list(parts[1]), directory: parts[2].to_owned() }
}
