//! What items write: whole, in order, to where it belongs.

use std::fs;
use std::io::Write;

use crate::support::{Folder, lines, map};

fn numbers(count: u32) -> String {
    (1..=count).map(|number| format!("{number}\n")).collect()
}

#[test]
fn outputs_come_in_the_order_of_the_input() {
    // The first takes longest.
    let done = map("sleep 0.$((9 - {})); echo {}", []).input(numbers(8)).run();
    done.assert_prints(&numbers(8));
    map("echo {}", []).input(numbers(500)).run().assert_prints(&numbers(500));
}

#[test]
fn unordered_outputs_come_as_items_finish() {
    let folder = Folder::new();
    let pipe = folder.pipe("gate");
    // The first waits until the second was seen.
    let program = format!("if [ {{}} = a ]; then read line < {pipe}; fi; echo {{}}");
    let mut running = map(&program, ["--unordered"]).spawn();
    running.child.stdin.take().unwrap().write_all(b"a\nb\n").unwrap();
    let stdout = running.child.stdout.as_mut().unwrap();
    assert_eq!(lines(stdout, 1), "b\n");
    fs::write(&pipe, "go\n").unwrap();
    running.end().assert_prints("a\n");
}

#[test]
fn each_items_output_is_in_one_piece() {
    let done = map("for i in 1 2 3; do echo {}.$i; sleep 0.01; done", ["--unordered"]).input(numbers(20)).run();
    let text = done.stdout();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((done.code, lines.len()), (Some(0), 60));
    for part in lines.chunks(3) {
        let item = part[0].split('.').next().unwrap();
        assert_eq!(part, [format!("{item}.1"), format!("{item}.2"), format!("{item}.3")]);
    }
}

#[test]
fn stdout_and_stderr_stay_apart() {
    map("echo out {}; echo err {} >&2", []).input("1\n2\n").run().assert(0, "out 1\nout 2\n", "err 1\nerr 2\n");
    map("echo out {} >/dev/stdout; echo err {} >/dev/stderr", []).input("1\n").run().assert(0, "out 1\n", "err 1\n");
}

#[test]
fn huge_outputs_come_whole() {
    let done = map("head -c 70000000 /dev/zero | tr '\\0' {}", []).input("a\nb\nc\n").run();
    assert_eq!((done.code, done.stdout.len()), (Some(0), 210_000_000));
    for (part, byte) in done.stdout.chunks(70_000_000).zip(*b"abc") {
        assert!(part.iter().all(|other| *other == byte));
    }
}

#[test]
fn both_streams_may_be_full() {
    let program = "head -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2; head -c 1000000 /dev/zero";
    let done = map(&format!("{program} # {{}}"), []).input("x\n").run();
    assert_eq!((done.code, done.stdout.len(), done.stderr.len()), (Some(0), 2_000_000, 1_000_000));
}

#[test]
fn tags_tell_whose_a_line_is() {
    let program = "printf '1\\n2'; echo wrong >&2; : {}";
    let done = map(program, ["--tag"]).input("a\nb c\n").run();
    done.assert(0, "a\t1\na\t2\nb c\t1\nb c\t2\n", "a\twrong\nb c\twrong\n");
    map("echo {#}; : {}", ["--tag", "-0"]).input("a\nb\0").run().assert_prints("a\\nb\t1\n");
}

#[test]
fn what_stays_in_the_background_ends_with_its_item() {
    let start = std::time::Instant::now();
    map("sleep 50 & echo {}", []).input("x\n").run().assert_prints("x\n");
    assert!(start.elapsed().as_secs() < 20);
}

#[test]
fn a_full_disk_is_told() {
    let shell = format!("{} map --program echo -- x >/dev/full", env!("CARGO_BIN_EXE_farpool"));
    let output = std::process::Command::new("sh").args(["-c", &shell]).env_remove("FARPOOL_ADDRESS").output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.starts_with("farpool: cannot write to stdout: No space left"), "{stderr}");
}
