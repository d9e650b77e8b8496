//! Several hosts on one machine: network namespaces, connected by their own switch. The coordinator is in one, agents are in two
//! others, the client is in a fourth. Needs root and `ip`; without them, prints that and passes.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use farpool_testkit::binaries;
use farpool_testkit::cluster::{CONNECTED, LISTENS};
use farpool_testkit::daemon::Daemon;
use farpool_testkit::folder::Folder;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::factorial;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// The prefix of our namespaces; the test's process id follows.
const PREFIX: &str = "farpool-test-";

/// Hosts in a separate network.
struct Network {
    names: Vec<String>,
    // `ip netns exec` execs the program.
    daemons: Vec<Daemon>,
    folder: Folder,
}

impl Network {
    /// Creates this many hosts, 10.77.0.1 and so on; `None` if this machine does not permit it.
    fn of_hosts(count: usize) -> Option<Network> {
        if let Err(reason) = remove_orphans() {
            eprintln!("skipped: {reason}");
            return None;
        }
        let folder = Folder::new("namespaces");
        let mut network = Network { names: Vec::new(), daemons: Vec::new(), folder };
        if let Err(reason) = network.add_namespace("switch") {
            eprintln!("skipped: {reason}");
            return None;
        }
        let switch = network.names[0].clone();
        ip(&format!("-n {switch} link add bridge type bridge")).expect("cannot add a bridge");
        ip(&format!("-n {switch} link set bridge up")).expect("cannot start the bridge");
        for number in 1..=count {
            network.add_host(number);
        }
        Some(network)
    }

    fn add_namespace(&mut self, what: &str) -> Result<(), String> {
        let name = format!("{PREFIX}{}-{what}", std::process::id());
        ip(&format!("netns add {name}"))?;
        self.names.push(name);
        Ok(())
    }

    fn add_host(&mut self, number: usize) {
        self.add_namespace(&number.to_string()).expect("cannot add a namespace");
        let (switch, host) = (&self.names[0], &self.names[number]);
        for command in [
            format!("-n {switch} link add port{number} type veth peer name eth0 netns {host}"),
            format!("-n {switch} link set port{number} master bridge up"),
            format!("-n {host} address add {}/24 dev eth0", address(number)),
            format!("-n {host} link set eth0 up"),
            format!("-n {host} link set lo up"),
        ] {
            ip(&command).expect("cannot set up the host's network");
        }
    }

    /// Returns a command that runs a program on a host.
    fn command(&self, host: usize, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.names[host]]).arg(program);
        command.env_remove("FARPOOL_ADDRESS").stdin(Stdio::null());
        command
    }

    /// Starts a daemon on a host; returns when it has printed these words.
    fn start(&mut self, host: usize, program: &Path, arguments: &str, words: &str) {
        let programs = self.folder.path().join(host.to_string());
        let mut command = self.command(host, program);
        command.args(arguments.split(' ')).arg("--programs").arg(programs);
        let mut daemon = Daemon::start(&format!("the daemon on host {host}"), command);
        daemon.wait_for(words);
        self.daemons.push(daemon);
    }

    /// Runs a client on a host, and returns what it printed.
    fn run(&self, host: usize, program: &Path, arguments: &[&str]) -> Vec<u8> {
        let mut command = self.command(host, program);
        command.args(arguments).env("FARPOOL_ADDRESS", url()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().expect("cannot run ip");
        let pid = Pid::from_raw(child.id().cast_signed());
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || sender.send(child.wait_with_output()));
        let Ok(output) = receiver.recv_timeout(PATIENCE) else {
            let _ = kill(pid, Signal::SIGKILL);
            panic!("{arguments:?} did not exit in time");
        };
        let output = output.expect("cannot wait for a child");
        assert!(output.status.success(), "{output:?}");
        output.stdout
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.daemons.clear();
        for name in &self.names {
            let _ = ip(&format!("netns delete {name}"));
        }
    }
}

fn address(host: usize) -> String {
    format!("10.77.0.{host}")
}

/// Returns the coordinator's address.
fn url() -> String {
    format!("http://{}:7070", address(1))
}

fn ip(arguments: &str) -> Result<Output, String> {
    let output = Command::new("ip").args(arguments.split(' ')).output().map_err(|error| format!("ip: {error}"))?;
    match output.status.success() {
        true => Ok(output),
        false => Err(format!("ip {arguments}: {}", String::from_utf8_lossy(&output.stderr).trim_end())),
    }
}

/// Removes what killed tests have left behind.
fn remove_orphans() -> Result<(), String> {
    let list = ip("netns list")?.stdout;
    for name in String::from_utf8_lossy(&list).lines().filter_map(|line| line.split(' ').next()) {
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let pids = ip(&format!("netns pids {name}"))?.stdout;
            for pid in String::from_utf8_lossy(&pids).lines().filter_map(|pid| pid.parse().ok()) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            ip(&format!("netns delete {name}"))?;
        }
    }
    Ok(())
}

#[test]
fn the_same_program_runs_on_several_hosts() {
    let Some(mut network) = Network::of_hosts(4) else { return };
    network.start(1, &binaries::coordinator(), "--listen 10.77.0.1:7070 --insecure", LISTENS);
    for host in [2, 3] {
        let arguments = format!("--coordinator {} --insecure --slots 2 --host node{host}", url());
        network.start(host, &binaries::agent(), &arguments, CONNECTED);
    }

    let output = network.run(4, &factorial::factorial(), &[]);
    assert_eq!(factorial::results(&output), factorial::on_this_machine());

    // Both hosts got the program and have run items.
    let farpool = Path::new(env!("CARGO_BIN_EXE_farpool"));
    let naps = ["map", "sleep 0.2; echo", ":::", "1", "2", "3", "4"];
    assert_eq!(String::from_utf8_lossy(&network.run(4, farpool, &naps)), "1\n2\n3\n4\n");
    let agents = network.run(4, farpool, &["agents", "--json"]);
    let agents: serde_json::Value = serde_json::from_slice(&agents).expect("the output is not JSON");
    let agents = agents["agents"].as_array().expect("the agents are not a list");
    let worked = agents.iter().filter(|agent| agent["items_done"].as_u64() > Some(0));
    let worked: BTreeSet<_> = worked.filter_map(|agent| agent["host"].as_str()).collect();
    assert_eq!(worked, BTreeSet::from(["node2", "node3"]));
}
