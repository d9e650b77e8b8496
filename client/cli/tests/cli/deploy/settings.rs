//! Checks the example settings: they contain every setting, and every line is valid.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use farpool_testkit::binaries;
use farpool_testkit::folder::Folder;

use crate::deploy::tools::{deployed, run};

/// Flags that are not settings.
const NO_SETTINGS: [&str; 4] = ["config", "help", "print-config", "version"];

fn example(name: &str) -> String {
    fs::read_to_string(deployed(name)).expect("cannot read the example")
}

/// Returns the settings in comments, without their `#`.
fn commented(text: &str) -> Vec<&str> {
    let is_key = |key: &str| !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
    let lines = text.lines().filter_map(|line| line.strip_prefix("# "));
    lines.filter(|line| line.split_once(" = ").is_some_and(|(key, _)| is_key(key))).collect()
}

/// Returns the long flags in a binary's help.
fn flags(binary: &Path) -> BTreeSet<String> {
    let help = run(Command::new(binary).arg("--help")).stdout;
    let text = String::from_utf8(help).expect("the help is not UTF-8");
    let options = text.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    let long = options.filter_map(|line| Some(line.split_once("--")?.1.split([' ', '=']).next()?.to_owned()));
    long.filter(|flag| !NO_SETTINGS.contains(&flag.as_str())).collect()
}

fn both() -> [(PathBuf, &'static str); 2] {
    binaries::build_daemons();
    [(binaries::coordinator(), "coordinator.toml"), (binaries::agent(), "agent.toml")]
}

#[test]
fn every_setting_occurs_once() {
    for (binary, name) in both() {
        let text = example(name);
        let keys: Vec<&str> = commented(&text).iter().filter_map(|line| Some(line.split_once(" = ")?.0)).collect();
        let set: BTreeSet<String> = keys.iter().map(|key| (*key).to_owned()).collect();
        assert_eq!(set, flags(&binary), "{name}");
        assert_eq!(set.len(), keys.len(), "{name} has a setting twice");
    }
}

#[test]
fn all_settings_are_commented_out() {
    for (_, name) in both() {
        let text = example(name);
        let set: Vec<&str> = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
        assert_eq!(set, [""; 0], "{name}");
    }
}

/// Starts the binary with these settings, and returns the log line with the effective ones.
fn started_with(binary: &Path, settings: &Path, more: &[&str]) -> String {
    let mut child = Command::new(binary)
        .arg("--config")
        .arg(settings)
        .args(more)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program was not built");
    let mut line = String::new();
    BufReader::new(child.stderr.take().expect("stderr is not a pipe"))
        .read_line(&mut line)
        .expect("the output is not UTF-8");
    child.kill().expect("cannot kill the program");
    child.wait().expect("cannot wait for the program");
    line
}

#[test]
fn the_daemons_accept_the_examples() {
    let folder = Folder::new("deploy");
    for (binary, name) in both() {
        let text = example(name);
        let all = commented(&text).join("\n");
        // The paths in the examples need not exist on this machine, and their ports may be in use.
        let own = folder.path().join("programs");
        let own = own.to_str().expect("the target folder's path is not UTF-8");
        let more: &[&str] = match name {
            "coordinator.toml" => &["--listen", "127.0.0.1:0", "--programs", own],
            _ => &["--coordinator", "http://127.0.0.1:9", "--programs", own],
        };
        for settings in [folder.write(name, &text), folder.write("all.toml", &all)] {
            let line = started_with(&binary, &settings, more);
            assert!(line.contains("heartbeat-timeout=5s"), "{name}: {line}");
        }
        let shown = run(Command::new(&binary)
            .arg("--config")
            .arg(folder.write("shown.toml", &all))
            .args(more)
            .arg("--print-config"));
        assert!(shown.status.success(), "{name}: {shown:?}");
        let shown = String::from_utf8(shown.stdout).expect("the settings are not UTF-8");
        let line = started_with(&binary, &folder.write("again.toml", &shown), more);
        assert!(line.contains("heartbeat-timeout=5s"), "{name}: {line}");
        let line = started_with(&binary, &folder.write("wrong.toml", format!("{all}\nnonsense = 1\n")), more);
        assert!(line.contains("nonsense"), "{name}: {line}");
    }
}
