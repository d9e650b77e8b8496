//! `deploy/local.sh`: a cluster for trying out farpool, and what ends it.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use farpool_testkit::folder::Folder;
use farpool_testkit::processes::tagged;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::deploy::script::{Local, address_in, new_tag, remove_folder, script, wait_until_gone};
use crate::deploy::tools::run;
use crate::factorial::{self, factorial};

/// Runs a client of the cluster, and returns what it printed.
fn call(local: &Local, program: &Path, arguments: &[&str]) -> String {
    let output = run(Command::new(program).args(arguments).env("FARPOOL_ADDRESS", &local.address));
    assert!(output.status.success(), "{program:?}: {output:?}");
    factorial::results(&output.stdout)
}

#[test]
fn the_factorial_example_prints_the_same_on_the_cluster() {
    let local = Local::start(&["3", "--slots", "2"]);
    assert_eq!(call(&local, &factorial(), &[]), factorial::on_this_machine());

    let farpool = Path::new(env!("CARGO_BIN_EXE_farpool"));
    let status: serde_json::Value = serde_json::from_str(&call(&local, farpool, &["agents", "--json"])).unwrap();
    let agents = status["agents"].as_array().unwrap();
    let mut hosts: Vec<_> = agents.iter().map(|agent| (agent["host"].as_str(), agent["slots"].as_u64())).collect();
    hosts.sort_unstable();
    assert_eq!(hosts, ["node1", "node2", "node3"].map(|host| (Some(host), Some(2))));
    assert_eq!(call(&local, farpool, &["map", "echo", ":::", "a", "b", "c"]), "a\nb\nc\n");

    // It exits at the end of its input.
    assert_eq!(local.end().code(), Some(0));
}

#[test]
fn signals_end_everything() {
    for (signal, code) in [(Signal::SIGINT, Some(130)), (Signal::SIGTERM, Some(143)), (Signal::SIGKILL, None)] {
        let local = Local::start(&["1"]);
        assert!(tagged(&local.tag).len() >= 3);
        kill(Pid::from_raw(local.child.id().cast_signed()), signal).unwrap();
        wait_until_gone(&local.tag);
        assert_eq!(local.end().code(), code, "{signal}");
    }
}

#[test]
fn an_idle_stdin_does_not_end_it() {
    let tag = new_tag();
    let mut child =
        script(&tag, &["1"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    address_in(child.stdout.as_mut().unwrap());
    // It checks its input twice in this time.
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert!(child.try_wait().unwrap().is_none() && tagged(&tag).len() >= 3);
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143));
    wait_until_gone(&tag);
}

#[test]
fn the_cluster_ends_with_its_parent() {
    let folder = Folder::new("deploy");
    let input = folder.path().join("input");
    nix::unistd::mkfifo(&input, nix::sys::stat::Mode::S_IRWXU).unwrap();
    // Held open, so that the script does not exit because of its input's end.
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
    wait_until_gone(&tag);
    remove_folder(&tag);
}

#[test]
fn invalid_arguments_are_rejected() {
    for arguments in [&["0"][..], &["x"], &["--slots"], &["--slots", "0"], &["--nonsense"], &["-1"]] {
        let tag = new_tag();
        let output = run(script(&tag, arguments).stdin(Stdio::null()));
        remove_folder(&tag);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).starts_with("local.sh: "), "{output:?}");
    }
    let tag = new_tag();
    let output = run(script(&tag, &["--help"]).stdin(Stdio::null()));
    remove_folder(&tag);
    assert!(String::from_utf8_lossy(&output.stdout).contains("Usage: deploy/local.sh"), "{output:?}");
}
