//! What the binary tells about itself.

use crate::support::farpool;

const COMMANDS: [&str; 7] = ["map", "status", "agents", "jobs", "results", "cancel", "drain"];

#[test]
fn the_version_is_that_of_the_package() {
    farpool(["--version"]).run().assert_prints(&format!("farpool {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn help_names_every_command_and_has_examples() {
    let done = farpool(["--help"]).run();
    assert_eq!((done.code, done.stderr()), (Some(0), String::new()));
    for part in COMMANDS.iter().chain(&["Examples:", "FARPOOL_ADDRESS", "--address <URL>", "Exit codes"]) {
        assert!(done.stdout().contains(part), "{part} is missing in\n{}", done.stdout());
    }
    for command in COMMANDS {
        let done = farpool([command, "--help"]).run();
        assert_eq!((done.code, done.stderr()), (Some(0), String::new()));
        assert!(done.stdout().contains("Examples:\n  "), "{command}: {}", done.stdout());
        assert!(done.stdout().contains(&format!("farpool {command}")), "{command}: {}", done.stdout());
    }
}

#[test]
fn the_help_of_map_tells_placeholders_and_exit_codes() {
    let text = farpool(["map", "--help"]).run().stdout();
    for part in ["{.}", "{/}", "{//}", "{/.}", "{#}", "101", "125", "141", "--keep-going", "HOME and LANG"] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
}

#[test]
fn lines_of_help_fit_a_terminal() {
    for arguments in [
        &["--help"][..],
        &["map", "--help"],
        &["map", "-h"],
        &["status", "--help"],
        &["results", "--help"],
        &["results", "-h"],
        &["drain", "--help"],
    ] {
        let text = farpool(arguments.iter().copied()).run().stdout();
        let longest = text.lines().max_by_key(|line| line.chars().count()).unwrap();
        assert!(longest.chars().count() <= 100, "{longest}");
    }
}

#[test]
fn usage_errors_have_code_2_and_say_what_is_wrong() {
    for (arguments, part) in [
        (&["nonsense"][..], "nonsense"),
        (&["stats"], "status"),
        (&["status", "--nonsense"], "--nonsense"),
        (&["cancel"], "<JOB>"),
        (&["drain"], "<AGENT>"),
        (&["jobs", "7"], "7"),
        (&["--address"], "--address"),
    ] {
        let done = farpool(arguments.iter().copied()).run();
        assert_eq!((done.code, done.stdout()), (Some(2), String::new()), "{arguments:?}");
        assert!(done.stderr().contains(part), "{arguments:?}: {}", done.stderr());
    }
    assert_eq!(farpool([]).run().code, Some(2));
}
