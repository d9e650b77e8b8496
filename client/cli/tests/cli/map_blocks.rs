//! `--pipe`: commands read blocks of the input.

use std::fs;
use std::io::Write;

use serde_json::Value;

use crate::support::{Call, farpool, folder, lines};

fn map<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Call {
    farpool(["map", "-j2", "--pipe"].into_iter().chain(arguments))
}

fn numbers(count: u32) -> String {
    (1..=count).map(|number| format!("{number}\n")).collect()
}

#[test]
fn blocks_arrive_complete_and_in_order() {
    let text = numbers(300_000);
    let done = map(["cat"]).input(text.clone()).run();
    assert!(done.code == Some(0) && done.stdout() == text, "{}", done.stderr());
    let done = map(["--block", "10kB", "wc", "-l"]).input(text.clone()).run();
    let counts: Vec<u32> = done.stdout().lines().map(|line| line.trim().parse().unwrap()).collect();
    assert!(counts.len() > 190 && counts.iter().sum::<u32>() == 300_000, "{counts:?}");
    let folder = folder();
    let file = folder.file("input");
    fs::write(&file, &text).unwrap();
    map(["-a", &file, "--block=1MB", "cksum | cut -d' ' -f2"])
        .input("not this")
        .run()
        .assert_prints("999998\n988897\n");
    map(["cat"]).input("").run().assert_prints("");
    map(["-0", "--block=1", "tr '\\0' .; echo"]).input("a\nb\0c\0").run().assert_prints("a\nb.\nc.\n");
}

#[test]
fn blocks_are_numbered_and_nothing_is_appended() {
    let input = "a\nb\nc\n";
    map(["--block=2", "sed s/^/{}-{#}-{1}-/"]).input(input).run().assert_prints("1-1-1-a\n2-2-2-b\n3-3-3-c\n");
    map(["--block=2", "--tag", "cat", "-"]).input(input).run().assert_prints("1\ta\n2\tb\n3\tc\n");
    map(["--block=2", "--dry-run", "cat"]).input(input).run().assert_prints("cat\ncat\ncat\n");
    let done = map(["--block=2", "--keep-going", "grep", "-v", "b"]).input(input).run();
    done.assert(1, "a\nc\n", "farpool: block 2: exit code 1\n");
}

#[test]
fn a_command_need_not_read_all_of_its_block() {
    let text = "x".repeat(500_000) + "\n" + &"y\n".repeat(10);
    map(["head", "-c", "3"]).input(text.clone()).run().assert_prints("xxx");
    map(["true"]).input(text).run().assert_prints("");
}

#[test]
fn a_long_line_is_a_block_of_its_own() {
    let text = format!("a\n{}\nb\nc\n", "x".repeat(100_000));
    map(["--block=1kB", "wc", "-c"]).input(text).run().assert_prints("2\n100001\n4\n");
}

#[test]
fn a_failed_block_is_retried_with_its_content() {
    let folder = folder();
    let log = folder.file("log-");
    let line = format!("cat; echo >> {log}{{#}}; test $(wc -l < {log}{{#}}) -ge 3");
    map(["--block=2", "--retries=2", &line]).input("a\nb\n").run().assert_prints("a\nb\n");
    // A block whose worker dies is retried, too.
    let line = format!("echo >> {log}x; test $(wc -l < {log}x) -ge 2 || kill -KILL $PPID; cat");
    map([&*line]).input("a\nb\n").run().assert_prints("a\nb\n");
}

#[test]
fn records_have_block_numbers_and_resume_compares_contents() {
    let folder = folder();
    let results = folder.file("results");
    let options = ["--block=4", "--results", &results];
    let call = |more: &[&str]| map(options.into_iter().chain(more.iter().copied()));
    call(&["cat"]).input("a\nb\nc\nd\ne\n").run().assert_prints("a\nb\nc\nd\ne\n");
    let text = fs::read_to_string(&results).unwrap();
    let first: Value = serde_json::from_str(text.lines().find(|line| line.contains("\"index\":1,")).unwrap()).unwrap();
    assert_eq!((&first["item"], &first["index"]), (&"1".into(), &1.into()));
    // Without the second record.
    let kept: String =
        text.lines().filter(|line| !line.contains("\"index\":2,")).map(|line| format!("{line}\n")).collect();
    fs::write(&results, kept).unwrap();
    call(&["--resume", "cat"]).input("a\nb\nc\nd\ne\n").run().assert_prints("c\nd\n");
    for (size, input) in [("--block=4", "a\nB\nc\nd\ne\n"), ("--block=2", "a\nb\nc\nd\ne\n")] {
        let done = map([size, "--results", &results, "--resume", "cat"]).input(input).run();
        let message = "block 1 of the input, --block or the command differs; nothing was run";
        assert!(done.code == Some(125) && done.stderr().contains(message), "{done:?}");
    }
    let done = call(&["--retry-failed", "cat"]).run();
    assert!(done.code == Some(125) && done.stderr().contains("with --pipe, use --resume"), "{done:?}");
}

/// Returns the peak resident memory of a process in bytes.
fn peak(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[test]
fn endless_input_takes_constant_memory() {
    let mut running = map(["wc", "-c"]).spawn();
    let pid = running.child.id();
    let mut stdin = running.child.stdin.take().unwrap();
    let line = [vec![b'x'; 1 << 16], vec![b'\n']].concat();
    let writer = std::thread::spawn(move || while stdin.write_all(&line).is_ok() {});
    let mut stdout = running.child.stdout.take().unwrap();
    lines(&mut stdout, 20);
    let before = peak(pid);
    lines(&mut stdout, 200);
    let after = peak(pid);
    // The kernel's peak is approximate: a later value may be slightly lower.
    assert!(
        after < 96 << 20 && after.saturating_sub(before) < 24 << 20,
        "the peak memory grew from {before} to {after} bytes"
    );
    drop(stdout);
    assert_eq!(running.end().code, Some(141));
    writer.join().unwrap();
}
