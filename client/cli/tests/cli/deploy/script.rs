//! Runs `deploy/local.sh`: a cluster on this machine.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use farpool_testkit::processes::{self, TAG};
use farpool_testkit::{binaries, folder, waiting};

/// How long it may take to exit. Agents that run items get a second, and then another.
const PATIENCE: Duration = Duration::from_secs(10);

/// The running script.
pub(crate) struct Local {
    pub(crate) child: Child,
    pub(crate) address: String,
    /// The tag in the environment of everything that it starts.
    pub(crate) tag: String,
}

impl Local {
    /// Starts the script; returns when all agents are connected.
    pub(crate) fn start(arguments: &[&str]) -> Local {
        let tag = new_tag();
        let command = script(&tag, arguments);
        Local::spawn(tag, command)
    }

    /// Starts the script for a value that is never dropped: the script deletes its own files.
    pub(crate) fn start_without_a_folder(arguments: &[&str]) -> Local {
        let tag = new_tag();
        let mut command = script(&tag, arguments);
        remove_folder(&tag);
        command.env("TMPDIR", folder::all());
        Local::spawn(tag, command)
    }

    fn spawn(tag: String, mut command: Command) -> Local {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("cannot run bash");
        let address = address_in(child.stdout.as_mut().expect("stdout is not a pipe"));
        Local { child, address, tag }
    }

    /// Closes its stdin, and waits until it and everything that it started has exited.
    #[track_caller]
    pub(crate) fn end(mut self) -> ExitStatus {
        drop(self.child.stdin.take());
        wait_until_gone(&self.tag);
        self.child.wait().expect("cannot wait for the script")
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        // Closes its stdin, if it is still open.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
        // If the script was killed, it could not do this itself.
        remove_folder(&self.tag);
    }
}

/// Returns a command for the script that starts the binaries of this build.
pub(crate) fn script(tag: &str, arguments: &[&str]) -> Command {
    binaries::build_daemons();
    let coordinator = binaries::coordinator();
    let root = binaries::workspace();
    let mut command = Command::new(root.join("deploy/local.sh"));
    fs::create_dir_all(folder(tag)).expect("cannot create a folder");
    command.args(arguments).env(TAG, tag).env("TMPDIR", folder(tag)).env_remove("FARPOOL_ADDRESS");
    command.env("FARPOOL_BINARIES", coordinator.parent().expect("the coordinator's path has no folder"));
    command
}

/// Deletes the temporary files of a script with this tag.
pub(crate) fn remove_folder(tag: &str) {
    let _ = fs::remove_dir_all(folder(tag));
}

fn folder(tag: &str) -> PathBuf {
    folder::all().join(tag)
}

/// Returns an unused tag.
pub(crate) fn new_tag() -> String {
    static SCRIPTS: AtomicU32 = AtomicU32::new(0);
    format!("local.{}.{}", std::process::id(), SCRIPTS.fetch_add(1, Ordering::Relaxed))
}

/// Reads the address from the line that the script prints.
pub(crate) fn address_in(stdout: &mut impl Read) -> String {
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).expect("the output is not UTF-8");
    let address = line.trim_end().strip_prefix("export FARPOOL_ADDRESS=");
    address.unwrap_or_else(|| panic!("the script printed {line:?}")).to_owned()
}

/// Waits until no process has this tag.
#[track_caller]
pub(crate) fn wait_until_gone(tag: &str) {
    waiting::until_gone(PATIENCE, || processes::tagged(tag));
}
