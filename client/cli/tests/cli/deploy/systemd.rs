//! Checks the units with systemd.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use farpool_testkit::binaries;
use farpool_testkit::folder::Folder;

use crate::deploy::tools::{assert_succeeds_silently, deployed, run, tool_of_this_machine};

const UNITS: [&str; 2] = ["farpool-coordinator.service", "farpool-agent.service"];

fn text_of(unit: &str) -> String {
    fs::read_to_string(deployed("systemd").join(unit)).expect("cannot read the unit")
}

/// Copies a unit and names the binaries of this build, since systemd requires that they exist.
fn copy(folder: &Folder, unit: &str, more: &str) -> PathBuf {
    binaries::build_daemons();
    let built = binaries::coordinator();
    let built = built
        .parent()
        .expect("the coordinator's path has no folder")
        .to_str()
        .expect("the target folder's path is not UTF-8");
    folder.write(unit, &(text_of(unit).replace("/usr/local/bin", built) + more))
}

#[test]
fn systemd_accepts_the_units() {
    let Some(analyze) = tool_of_this_machine("systemd-analyze") else { return };
    let folder = Folder::new("deploy");
    for unit in UNITS {
        assert_succeeds_silently(Command::new(&analyze).args(["verify", "--man=no"]).arg(copy(&folder, unit, "")));
    }
}

#[test]
fn systemd_reports_an_unknown_key() {
    // It exits with 0 on keys that it does not know.
    let Some(analyze) = tool_of_this_machine("systemd-analyze") else { return };
    let folder = Folder::new("deploy");
    let unit = copy(&folder, UNITS[0], "[Service]\nNonsense=yes\n");
    let output = run(Command::new(analyze).args(["verify", "--man=no"]).arg(unit));
    assert!(String::from_utf8_lossy(&output.stderr).contains("Nonsense"), "{output:?}");
}

#[test]
fn units_start_existing_binaries() {
    for (unit, binary, settings) in
        [(UNITS[0], binaries::coordinator(), "coordinator.toml"), (UNITS[1], binaries::agent(), "agent.toml")]
    {
        let name = binary.file_name().and_then(|name| name.to_str()).expect("the binary has no name");
        let line = format!("ExecStart=/usr/local/bin/{name} --config /etc/farpool/{settings}\n");
        assert!(text_of(unit).contains(&line), "{unit} lacks {line}");
        assert!(deployed(settings).is_file());
    }
}

#[test]
fn agents_may_drain_and_outlive_their_workers() {
    let text = text_of(UNITS[1]);
    for line in ["KillMode=mixed", "OOMPolicy=continue", "Restart=on-failure"] {
        assert!(text.lines().any(|other| other == line), "{line} is missing");
    }
}
