//! The version, help, completions and manual pages.

use std::fs;

use crate::support::{farpool, folder};

const COMMANDS: [&str; 7] = ["map", "status", "agents", "jobs", "results", "cancel", "drain"];

#[test]
fn the_version_is_the_packages_version() {
    let done = farpool(["--version"]).run();
    let text = done.stdout();
    let rest = text.strip_prefix(&format!("farpool {}", env!("CARGO_PKG_VERSION"))).unwrap();
    // Release builds name their commit, too.
    let commit = rest.trim_end().strip_prefix(" (").and_then(|commit| commit.strip_suffix(')'));
    let is_commit = |commit: &str| commit.len() == 10 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    assert!(done.code == Some(0) && (rest == "\n" || commit.is_some_and(is_commit)), "{text}");
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
fn the_help_of_map_lists_placeholders_and_exit_codes() {
    let text = farpool(["map", "--help"]).run().stdout();
    assert!(text.contains("--program <LINE>") && text.contains("Deprecated"), "{text}");
    assert!(!farpool(["map", "-h"]).run().stdout().contains("--program"));
    for part in [
        ":::+",
        "--colsep",
        "--pipe",
        "{.}",
        "{/}",
        "{//}",
        "{/.}",
        "{#}",
        "101",
        "125",
        "141",
        "--keep-going",
        "HOME and LANG",
    ] {
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
        &["cancel", "--help"],
    ] {
        let text = farpool(arguments.iter().copied()).run().stdout();
        let longest = text.lines().max_by_key(|line| line.chars().count()).unwrap();
        assert!(longest.chars().count() <= 80, "{longest}");
    }
}

#[test]
fn usage_errors_exit_with_2_and_a_message() {
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

#[test]
fn completions_are_printed_for_each_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let done = farpool(["completions", shell]).run();
        assert_eq!((done.code, done.stderr()), (Some(0), String::new()));
        for part in ["farpool", "keep-going", "drain"] {
            assert!(done.stdout().contains(part), "{shell}: {part} is missing");
        }
    }
    assert_eq!(farpool(["completions", "cmd.exe"]).run().code, Some(2));
    let help = farpool(["--help"]).run().stdout();
    assert!(help.contains("farpool completions") && help.contains("farpool man"), "{help}");
    let short = farpool(["-h"]).run().stdout();
    assert!(!short.contains("completions"), "{short}");
}

#[test]
fn manual_pages_are_generated() {
    let done = farpool(["man"]).run();
    assert!(done.code == Some(0) && done.stdout().contains(".TH farpool 1"), "{done:?}");
    let folder = folder();
    let pages = folder.file("man1");
    farpool(["man", &pages]).run().assert_prints("");
    let mut names: Vec<_> =
        fs::read_dir(&pages).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    let mut expected: Vec<String> = COMMANDS.iter().map(|command| format!("farpool-{command}.1")).collect();
    expected.push("farpool.1".to_owned());
    expected.sort_unstable();
    assert_eq!(names, expected);
    let page = fs::read_to_string(format!("{pages}/farpool-map.1")).unwrap();
    for part in [".TH farpool-map 1", ".SH EXAMPLES\n.nf\n", "keep\\-going"] {
        assert!(page.contains(part), "{part} is missing in\n{page}");
    }
    let done = farpool(["man", "/dev/null/x"]).run();
    assert!(done.code == Some(1) && done.stderr().contains("/dev/null/x"), "{done:?}");
}
