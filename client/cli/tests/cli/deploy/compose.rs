//! Checks the compose file against its schema, and against the binaries that it starts.

use std::path::PathBuf;
use std::process::Command;

use farpool_testkit::binaries;
use serde_json::Value;

use crate::deploy::tools::{deployed, run, tool};

/// Reads the file with the tool's own YAML parser.
fn file() -> Option<Value> {
    let checker = tool("check-jsonschema")?;
    let python = checker.with_file_name("python");
    let read = "import json, sys; from ruamel.yaml import YAML; json.dump(YAML(typ='safe').load(open(sys.argv[1])), sys.stdout)";
    let output = run(Command::new(python).args(["-c", read]).arg(deployed("compose.yaml")));
    assert!(output.status.success(), "{output:?}");
    Some(serde_json::from_slice(&output.stdout).expect("the output is not JSON"))
}

fn texts(list: &Value) -> Vec<&str> {
    let list = list.as_array().expect("the value is not a list");
    list.iter().map(|text| text.as_str().expect("the value is not text")).collect()
}

fn services(file: &Value) -> Vec<(&String, &Value)> {
    file["services"].as_object().expect("there are no services").iter().collect()
}

#[test]
fn the_compose_file_matches_the_schema() {
    let Some(checker) = tool("check-jsonschema") else { return };
    let output =
        run(Command::new(checker).args(["--builtin-schema", "vendor.compose-spec"]).arg(deployed("compose.yaml")));
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_coordinator_and_three_agents_share_a_private_network() {
    let Some(file) = file() else { return };
    assert_eq!(services(&file).len(), 2);
    assert_eq!(file["services"]["agent"]["deploy"]["replicas"], 3);
    assert_eq!(texts(&file["services"]["agent"]["networks"]), ["cluster"]);
    assert_eq!(file["networks"]["cluster"]["internal"], true);
    // --insecure is safe only while nothing else can reach it.
    for port in texts(&file["services"]["coordinator"]["ports"]) {
        assert!(port.starts_with("127.0.0.1:"), "{port}");
    }
    assert!(file["services"]["agent"]["ports"].is_null());
}

#[test]
fn referenced_names_are_declared() {
    let Some(file) = file() else { return };
    for (name, service) in services(&file) {
        for network in texts(&service["networks"]) {
            assert!(file["networks"].get(network).is_some(), "{name}: {network}");
        }
        for volume in service["volumes"].as_array().into_iter().flatten() {
            let volume = volume.as_str().and_then(|volume| volume.split(':').next()).expect("the volume is not text");
            assert!(file["volumes"].get(volume).is_some(), "{name}: {volume}");
        }
        for other in service["depends_on"].as_object().into_iter().flatten() {
            assert!(!file["services"][other.0]["healthcheck"].is_null(), "{name}: {}", other.0);
        }
    }
}

/// Checks that a binary knows these arguments: with `--help` after them, it still rejects unknown ones.
#[track_caller]
fn check(command: &[&str]) {
    binaries::build_daemons();
    let binary: PathBuf = match command[0] {
        "farpool-coordinator" => binaries::coordinator(),
        "farpool-agent" => binaries::agent(),
        "farpool" => env!("CARGO_BIN_EXE_farpool").into(),
        other => panic!("{other} is not in the image"),
    };
    let output = run(Command::new(binary).args(&command[1..]).arg("--help"));
    assert!(output.status.success(), "{command:?}: {output:?}");
}

#[test]
fn the_binaries_accept_their_arguments() {
    let Some(file) = file() else { return };
    for (_, service) in services(&file) {
        check(&texts(&service["command"]));
        assert!(texts(&service["command"]).contains(&"--insecure"));
        if let Some(test) = service["healthcheck"].get("test") {
            let test = texts(test);
            assert_eq!(test[0], "CMD");
            check(&test[1..]);
        }
    }
    // Agents find the coordinator by its name and port.
    let listen = texts(&file["services"]["coordinator"]["command"]);
    let connect = texts(&file["services"]["agent"]["command"]);
    assert!(listen.contains(&"0.0.0.0:7070") && connect.contains(&"http://coordinator:7070"));
}

#[test]
fn the_image_has_all_three_binaries() {
    let text = std::fs::read_to_string(deployed("Dockerfile")).expect("cannot read the Dockerfile");
    for binary in ["farpool-coordinator", "farpool-agent", "farpool"] {
        assert!(text.contains(&format!("target/release/{binary}")), "{binary} is not installed");
    }
    assert!(text.contains("\nUSER "), "the image runs as root");
}
