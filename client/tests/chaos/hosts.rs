//! Hosts of their own on this machine: network namespaces, each at the end of a link that can be taken down. All of it is
//! in a network, a table of mounts and a list of processes that end with this process, whatever becomes of it.

use std::env;
use std::path::Path;
use std::process::{self, Command};

/// Tells this program that it is in such a network, and a number that no other run has.
const APART: &str = "FARPOOL_CHAOS_APART";

/// What a shell does in the new network before it runs the program. It stays: as the first of the processes there it is who
/// waits for those that have lost their parents.
const PREPARE: &str =
    "mkdir -p /run/netns && mount -t tmpfs none /run/netns && ip link set lo up && \"$0\" \"$@\"; exit $?";

/// Processes have numbers of their own too: a number that the kernel gives again is never that of somebody else's process,
/// who would suffer what was meant for ours. And should this program be killed, all of them go.
const NAMESPACES: [&str; 6] = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];

/// Whether this process is in a network of its own.
pub(crate) fn is_apart() -> bool {
    env::var_os(APART).is_some()
}

/// A number that no other run has that goes on at the same time.
pub(crate) fn run_number() -> u32 {
    env::var(APART).ok().and_then(|number| number.parse().ok()).unwrap_or_else(process::id)
}

/// This program in a network of its own; why not, where that is not permitted.
pub(crate) fn apart() -> Result<Command, String> {
    let command = |program: &Path| {
        let mut command = Command::new("unshare");
        command.args(NAMESPACES).args(["sh", "-c", PREPARE]).arg(program).env(APART, process::id().to_string());
        command
    };
    let mut try_it = command(Path::new("sh"));
    try_it.args(["-c", "ip netns add try && ip link add link0 type veth peer name eth0 netns try"]);
    let output = try_it.output().map_err(|error| format!("unshare: {error}"))?;
    match output.status.success() {
        true => Ok(command(&env::current_exe().map_err(|error| error.to_string())?)),
        false => Err(String::from_utf8_lossy(&output.stderr).trim_end().replace('\n', "; ")),
    }
}

/// A namespace and its link.
pub(crate) struct Host {
    number: usize,
}

impl Host {
    /// Only in a network of our own.
    pub(crate) fn new(number: usize) -> Host {
        for command in [
            format!("netns add chaos{number}"),
            format!("link add link{number} type veth peer name eth0 netns chaos{number}"),
            format!("address add 10.77.{number}.1/24 dev link{number}"),
            format!("link set link{number} up"),
            format!("-n chaos{number} address add 10.77.{number}.2/24 dev eth0"),
            format!("-n chaos{number} link set eth0 up"),
            format!("-n chaos{number} link set lo up"),
        ] {
            ip(&command);
        }
        Host { number }
    }

    /// Where the coordinator is, seen from it.
    pub(crate) fn coordinator(&self, port: u16) -> String {
        format!("http://10.77.{}.1:{port}", self.number)
    }

    /// A program on it.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &format!("chaos{}", self.number)]).arg(program);
        command
    }

    /// Takes its link up, or down.
    pub(crate) fn set_link(&self, up: bool) {
        ip(&format!("link set link{} {}", self.number, if up { "up" } else { "down" }));
    }
}

/// Puts a disk of so many bytes there, which is a part of the memory. Only in a table of mounts of our own.
pub(crate) fn mount(folder: &Path, bytes: u64) {
    let mut command = Command::new("mount");
    run(command.args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "none"]).arg(folder));
}

/// Takes it away again, with all that is on it.
pub(crate) fn unmount(folder: &Path) {
    let mut command = Command::new("umount");
    run(command.arg("--lazy").arg(folder));
}

fn ip(arguments: &str) {
    let mut command = Command::new("ip");
    run(command.args(arguments.split(' ')));
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
