//! Separate hosts on this machine: network namespaces, each at the end of a link that can be taken down. They are in a network,
//! mount and process namespace that end with this process, however it ends.

use std::env;
use std::path::Path;
use std::process::{self, Command};

/// Set if this program is in such a network: a number that is unique to the run.
const ISOLATED: &str = "FARPOOL_CHAOS_APART";

/// What a shell does in the new network before it runs the program. The shell stays: as the first process there, it reaps
/// orphans.
const PREPARE: &str =
    "mkdir -p /run/netns && mount -t tmpfs none /run/netns && ip link set lo up && \"$0\" \"$@\"; exit $?";

/// Process ids are separate too, so that a reused id is never that of an unrelated process, which would get our signals. If this
/// program is killed, all of its processes end.
const NAMESPACES: [&str; 6] = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];

/// Returns whether this process is in a separate network.
pub(crate) fn is_isolated() -> bool {
    env::var_os(ISOLATED).is_some()
}

/// Returns a number that no concurrent run has.
pub(crate) fn run_number() -> u32 {
    env::var(ISOLATED).ok().and_then(|number| number.parse().ok()).unwrap_or_else(process::id)
}

/// Returns the command that runs this program in a separate network, or why that is not permitted.
pub(crate) fn isolated_command() -> Result<Command, String> {
    let command = |program: &Path| {
        let mut command = Command::new("unshare");
        command.args(NAMESPACES).args(["sh", "-c", PREPARE]).arg(program).env(ISOLATED, process::id().to_string());
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
    /// Call it only in a separate network.
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

    /// Returns the coordinator's address from there.
    pub(crate) fn coordinator(&self, port: u16) -> String {
        format!("http://10.77.{}.1:{port}", self.number)
    }

    /// Returns the command that runs a program on it.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &format!("chaos{}", self.number)]).arg(program);
        command
    }

    /// Takes its link up or down.
    pub(crate) fn set_link(&self, up: bool) {
        ip(&format!("link set link{} {}", self.number, if up { "up" } else { "down" }));
    }
}

/// Mounts a disk of this many bytes, in memory. Call it only in a separate mount namespace.
pub(crate) fn mount(folder: &Path, bytes: u64) {
    let mut command = Command::new("mount");
    run(command.args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "none"]).arg(folder));
}

/// Unmounts it and drops its data.
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
