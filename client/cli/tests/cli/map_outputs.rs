//! The output of items is complete, in order, and goes to the right stream.

use std::fs;
use std::io::Write;

use crate::support::{folder, lines, map};

fn numbers(count: u32) -> String {
    (1..=count).map(|number| format!("{number}\n")).collect()
}

#[test]
fn outputs_come_in_the_order_of_the_input() {
    // The first item takes longest.
    let done = map("sleep 0.$((9 - {})); echo {}", []).input(numbers(8)).run();
    done.assert_prints(&numbers(8));
    map("echo {}", []).input(numbers(500)).run().assert_prints(&numbers(500));
}

#[test]
fn unordered_outputs_come_as_items_finish() {
    let folder = folder();
    let pipe = folder.pipe("gate");
    // The first item waits until the output of the second has been read.
    let program = format!("if [ {{}} = a ]; then read line < {pipe}; fi; echo {{}}");
    let mut running = map(&program, ["--unordered"]).spawn();
    running.child.stdin.take().unwrap().write_all(b"a\nb\n").unwrap();
    let stdout = running.child.stdout.as_mut().unwrap();
    assert_eq!(lines(stdout, 1), "b\n");
    fs::write(&pipe, "go\n").unwrap();
    running.end().assert_prints("a\n");
}

#[test]
fn each_items_output_is_contiguous() {
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
fn huge_outputs_are_complete() {
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
fn tags_name_the_item_of_each_line() {
    let program = "printf '1\\n2'; echo wrong >&2; : {}";
    let done = map(program, ["--tag"]).input("a\nb c\n").run();
    done.assert(0, "a\t1\na\t2\nb c\t1\nb c\t2\n", "a\twrong\nb c\twrong\n");
    map("echo {#}; : {}", ["--tag", "-0"]).input("a\nb\0").run().assert_prints("a\\nb\t1\n");
}

/// The kernel does not report when a process leaves the group. farpool once waited forever for such a process.
#[test]
fn processes_that_leave_the_group_are_not_awaited() {
    let leaves = "(sleep 0.3; exec setsid sleep 600) > /dev/null 2>&1 & echo {}";
    map(leaves, ["--grace", "1h"]).input("x\n").run().assert_prints("x\n");
    map("setsid true > /dev/null 2>&1 & : {}", []).input("x\n".repeat(20)).run().assert_prints("");
}

#[test]
fn background_processes_are_awaited() {
    let folder = folder();
    let file = folder.file("out");
    // As in `... > >(gzip)`: the command exits first.
    let program = format!("(sleep 0.3; echo late; echo {{}} > {file}) & echo early");
    map(&program, []).input("x\n").run().assert_prints("early\nlate\n");
    assert_eq!(fs::read_to_string(file).unwrap(), "x\n");
    // Also processes whose parent has exited.
    map("(sh -c '(sleep 0.2; echo grandchild) & true') & : {}", []).input("x\n").run().assert_prints("grandchild\n");
}

#[test]
fn background_processes_beyond_the_grace_are_killed_and_named() {
    let start = std::time::Instant::now();
    let done = map("sleep 50 & echo {}; exit 3", ["--grace", "300ms"]).input("x\n").run();
    assert!(start.elapsed().as_secs() < 20);
    assert_eq!((done.code, &*done.stdout()), (Some(1), "x\n"));
    let stderr = done.stderr();
    let lines: Vec<&str> = stderr.lines().collect();
    assert!(lines[0].starts_with("farpool: item 1 \"x\" left processes in the background"), "{stderr}");
    assert!(lines[0].contains(": sleep (pid "), "{stderr}");
    assert!(lines[1].contains("exit code 3"), "{stderr}");
    // A grace of zero ends the wait, and so does a timeout that is shorter than the grace.
    for options in [&["--grace", "0"][..], &["--grace", "1h", "--timeout", "300ms"]] {
        let done = map("sleep 50 & echo {}", options.iter().copied()).input("x\n").run();
        assert_eq!((done.code, &*done.stdout()), (Some(0), "x\n"), "{done:?}");
        // The process may not run sleep yet.
        let named = |program: &str| done.stderr().contains(&format!("{program} (pid "));
        assert!(named("sleep") || named("sh"), "{done:?}");
    }
}

/// Runs `farpool` in a shell with this redirection. Returns its exit code and stderr.
fn redirected(arguments: &str, redirection: &str) -> (Option<i32>, String) {
    let shell = format!("{} {arguments} {redirection}", env!("CARGO_BIN_EXE_farpool"));
    let output = std::process::Command::new("sh").args(["-c", &shell]).env_remove("FARPOOL_ADDRESS").output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn output_that_cannot_be_written_is_an_error() {
    for (redirection, why) in [(">/dev/full", "No space left"), (">&-", "Bad file descriptor")] {
        for arguments in [
            "map echo ::: x",
            "map 'head -c 3000000 /dev/zero; : {}' ::: x",
            "map --line-buffer echo ::: x",
            "map --dry-run echo ::: x",
        ] {
            let (code, stderr) = redirected(arguments, redirection);
            let message = format!("farpool: cannot write to stdout: {why}");
            assert!(code == Some(125) && stderr.starts_with(&message), "{arguments} {redirection}: {code:?} {stderr}");
        }
        // There is nothing to write.
        assert_eq!(redirected("map true ::: x", redirection), (Some(0), String::new()));
    }
    let (code, _) = redirected("map 'echo {} >&2' ::: x", "2>/dev/full");
    assert_eq!(code, Some(125));
}

#[test]
fn a_failure_that_stops_a_map_is_reported_at_once() {
    let folder = folder();
    let pipe = folder.pipe("gate");
    let program = format!("if [ {{}} = a ]; then read line < {pipe}; else echo {{}} >&2; exit 3; fi; echo {{}}");
    let mut running = map(&program, []).spawn();
    running.child.stdin.take().unwrap().write_all(b"a\nb\n").unwrap();
    let message = lines(running.child.stderr.as_mut().unwrap(), 1);
    assert!(message.starts_with("farpool: item 2 \"b\": exit code 3"), "{message}");
    fs::write(&pipe, "go\n").unwrap();
    let done = running.end();
    // It is not printed again in its turn.
    assert_eq!((done.stdout(), done.stderr().matches("item 2").count()), ("a\n".to_owned(), 0));
    assert!(done.stderr().starts_with("b\n"), "{done:?}");
}

#[test]
fn lines_are_printed_as_they_are_written() {
    let folder = folder();
    let gates = [folder.pipe("gate-a"), folder.pipe("gate-b")];
    let gate = folder.file("gate-");
    let program = format!("echo one; printf 'half'; read line < {gate}{{}}; echo ' of it'; printf end; echo {{}} >&2");
    let mut running = map(&program, ["--line-buffer", "--tag"]).spawn();
    running.child.stdin.take().unwrap().write_all(b"a\nb\n").unwrap();
    let stdout = running.child.stdout.as_mut().unwrap();
    let first = lines(stdout, 2);
    let mut sorted: Vec<&str> = first.lines().collect();
    sorted.sort_unstable();
    assert_eq!(sorted, ["a\tone", "b\tone"]);
    // Each item waits at its own gate.
    gates.iter().for_each(|gate| fs::write(gate, "go\n").unwrap());
    let done = running.end();
    let text = done.stdout();
    let mut sorted: Vec<&str> = text.lines().collect();
    sorted.sort_unstable();
    assert_eq!(sorted, ["a\tend", "a\thalf of it", "b\tend", "b\thalf of it"], "{text}");
    let stderr = done.stderr();
    let mut sorted: Vec<&str> = stderr.lines().collect();
    sorted.sort_unstable();
    assert_eq!((done.code, sorted), (Some(0), vec!["a\ta", "b\tb"]));
}

#[test]
fn lines_of_many_items_do_not_mix() {
    let long = "x".repeat(20_000);
    let program = format!("for i in 1 2 3 4 5 6 7 8 9; do echo {{}} {long}; done");
    let done = map(&program, ["--line-buffer"]).input(numbers(40)).run();
    let text = done.stdout();
    assert_eq!((done.code, text.lines().count()), (Some(0), 360));
    for line in text.lines() {
        assert!(line.ends_with(&long) && line.len() <= 20_003, "{}", line.len());
    }
}
