//! `deploy/local.sh`: a cluster for trying, and what ends it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::binaries;
use crate::factorial::{self, factorial};
use crate::tools::{Folder, deployed, run};

const TAG: &str = "FARPOOL_TEST_TAG";
/// How long all of it may take to go; agents with work are given a second, and then another.
const PATIENCE: Duration = Duration::from_secs(10);

/// The script while it runs.
struct Local {
    child: Child,
    address: String,
    tag: String,
}

fn script(tag: &str, arguments: &[&str]) -> Command {
    binaries::make();
    let coordinator = binaries::coordinator();
    let mut command = Command::new(deployed("local.sh"));
    command.args(arguments).env(TAG, tag).env_remove("FARPOOL_ADDRESS");
    command.env("FARPOOL_BINARIES", coordinator.parent().expect("it is in a folder"));
    command
}

fn new_tag() -> String {
    static SCRIPTS: AtomicU32 = AtomicU32::new(0);
    format!("local.{}.{}", std::process::id(), SCRIPTS.fetch_add(1, Ordering::Relaxed))
}

impl Local {
    fn start(arguments: &[&str]) -> Local {
        let tag = new_tag();
        let mut command = script(&tag, arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("bash is there");
        let address = address_in(child.stdout.as_mut().expect("it is a pipe"));
        Local { child, address, tag }
    }

    fn call(&self, program: &std::path::Path, arguments: &[&str]) -> String {
        let output = run(Command::new(program).args(arguments).env("FARPOOL_ADDRESS", &self.address));
        assert!(output.status.success(), "{program:?}: {output:?}");
        factorial::results(&output.stdout)
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).expect("it runs");
    }

    /// Waits until it has ended, and all that it started.
    #[track_caller]
    fn end(mut self) -> ExitStatus {
        drop(self.child.stdin.take());
        assert_gone(&self.tag);
        self.child.wait().expect("it can be waited for")
    }
}

fn address_in(stdout: &mut impl std::io::Read) -> String {
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).expect("it is text");
    let address = line.trim_end().strip_prefix("export FARPOOL_ADDRESS=");
    address.unwrap_or_else(|| panic!("it printed {line:?}")).to_owned()
}

fn tagged(tag: &str) -> Vec<String> {
    let variable = format!("{TAG}={tag}");
    let carries = |pid: &u32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|&byte| byte == 0).any(|other| other == variable.as_bytes())
    };
    let entries = fs::read_dir("/proc").expect("there is a /proc");
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).filter(carries);
    pids.map(|pid| format!("{pid} {}", fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default())).collect()
}

#[track_caller]
fn assert_gone(tag: &str) {
    let start = Instant::now();
    while !tagged(tag).is_empty() {
        assert!(start.elapsed() < PATIENCE, "still there: {:?}", tagged(tag));
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn the_factorial_example_prints_the_same_on_it() {
    let local = Local::start(&["3", "--slots", "2"]);
    assert_eq!(local.call(factorial(), &[]), factorial::on_this_machine());

    let farpool = std::path::Path::new(env!("CARGO_BIN_EXE_farpool"));
    let status: serde_json::Value = serde_json::from_str(&local.call(farpool, &["agents", "--json"])).unwrap();
    let agents = status["agents"].as_array().unwrap();
    let mut hosts: Vec<_> = agents.iter().map(|agent| (agent["host"].as_str(), agent["slots"].as_u64())).collect();
    hosts.sort_unstable();
    assert_eq!(hosts, ["node1", "node2", "node3"].map(|host| (Some(host), Some(2))));
    assert_eq!(local.call(farpool, &["map", "--program", "echo", "--", "a", "b", "c"]), "a\nb\nc\n");

    // The end of its input is its end.
    assert_eq!(local.end().code(), Some(0));
}

#[test]
fn signals_end_all_of_it() {
    for (signal, code) in [(Signal::SIGINT, Some(130)), (Signal::SIGTERM, Some(143)), (Signal::SIGKILL, None)] {
        let local = Local::start(&["1"]);
        assert!(tagged(&local.tag).len() >= 3);
        local.signal(signal);
        let mut child = local.child;
        assert_gone(&local.tag);
        assert_eq!(child.wait().unwrap().code(), code, "{signal}");
    }
}

#[test]
fn it_ends_with_whoever_started_it() {
    let folder = Folder::new();
    let input = folder.file("output", "").with_file_name("input");
    nix::unistd::mkfifo(&input, nix::sys::stat::Mode::S_IRWXU).unwrap();
    // Held open, so that it is not the input's end that counts.
    let _input = fs::OpenOptions::new().read(true).write(true).open(&input).unwrap();
    let tag = new_tag();
    let inner = script(&tag, &["1"]);
    let mut parent = Command::new("sh");
    parent.arg("-c").arg("\"$0\" 1 < \"$1\" & read line; exit").arg(inner.get_program()).arg(&input);
    parent.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?)))).env_remove("FARPOOL_ADDRESS");
    let mut parent = parent.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    address_in(parent.stdout.as_mut().unwrap());
    assert!(tagged(&tag).len() >= 4);
    drop(parent.stdin.take());
    parent.wait().unwrap();
    assert_gone(&tag);
}

#[test]
fn arguments_without_a_meaning_are_refused() {
    for arguments in [&["0"][..], &["x"], &["--slots"], &["--slots", "0"], &["--nonsense"], &["-1"]] {
        let output = run(script(&new_tag(), arguments).stdin(Stdio::null()));
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).starts_with("local.sh: "), "{output:?}");
    }
    let output = run(script(&new_tag(), &["--help"]).stdin(Stdio::null()));
    assert!(String::from_utf8_lossy(&output.stdout).contains("Usage: deploy/local.sh"), "{output:?}");
}
