//! Endless inputs and outputs, readers that exit, and interrupts.

use std::fs;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

use farpool_testkit::folder::Folder;
use nix::sys::signal::Signal;

use crate::support::{folder, lines, map};

/// Returns the peak resident memory of a process in bytes.
fn peak(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[test]
fn endless_input_takes_constant_memory() {
    let mut running = map("echo {#}", []).spawn();
    let pid = running.child.id();
    let mut stdin = running.child.stdin.take().unwrap();
    // Until the reader exits.
    let writer =
        std::thread::spawn(
            move || while stdin.write_all(&[b'x'; 1 << 16]).and_then(|()| stdin.write_all(b"\n")).is_ok() {},
        );
    let mut stdout = running.child.stdout.take().unwrap();
    assert!(lines(&mut stdout, 100).ends_with("\n100\n"));
    let before = peak(pid);
    assert!(lines(&mut stdout, 1500).ends_with("\n1600\n"));
    // 1500 items of 64 KiB are 94 MiB.
    let after = peak(pid);
    assert!(after.saturating_sub(before) < 24 << 20, "the peak memory grew from {before} to {after} bytes");
    drop(stdout);
    let done = running.end();
    assert_eq!((done.code, done.stderr()), (Some(141), String::new()));
    writer.join().unwrap();
}

#[test]
fn a_reader_that_exits_ends_it_quietly() {
    let mut running = map("echo {}", []).spawn();
    let mut stdin = running.child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || while stdin.write_all(b"y\n").is_ok() {});
    let mut stdout = running.child.stdout.take().unwrap();
    assert_eq!(lines(&mut stdout, 3), "y\ny\ny\n");
    drop(stdout);
    let done = running.end();
    assert_eq!((done.code, done.stderr()), (Some(141), String::new()));
    writer.join().unwrap();
}

#[test]
fn outcomes_do_not_wait_for_a_slow_input() {
    for option in ["--unordered", "--keep-going"] {
        let mut running = map("echo {}", [option]).spawn();
        let mut stdin = running.child.stdin.take().unwrap();
        let mut stdout = running.child.stdout.take().unwrap();
        for number in 0..20 {
            writeln!(stdin, "{number}").unwrap();
            assert_eq!(lines(&mut stdout, 1), format!("{number}\n"));
        }
        drop(stdin);
        running.end().assert_prints("");
    }
}

#[test]
fn a_slow_item_does_not_block_others() {
    let folder = folder();
    let (pipe, log) = (folder.pipe("gate"), folder.file("log"));
    let program = format!("if [ {{}} = 1 ]; then read line < {pipe}; else echo >> {log}; fi; echo {{}}");
    let input: String = (1..=300).map(|number| format!("{number}\n")).collect();
    let expected = input.clone();
    let mut running = map(&program, []).spawn();
    running.child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    // Opening blocks until the first item opens it.
    let mut gate = fs::OpenOptions::new().write(true).open(&pipe).unwrap();
    let deadline = Instant::now() + Duration::from_secs(50);
    while fs::read_to_string(&log).unwrap_or_default().lines().count() < 299 {
        assert!(Instant::now() < deadline, "the others wait for the first");
        std::thread::sleep(Duration::from_millis(5));
    }
    gate.write_all(b"go\n").unwrap();
    running.end().assert_prints(&expected);
}

/// Starts commands that write a line to a pipe and then run for long; returns when two of them run.
fn two_that_run(folder: &Folder) -> crate::support::Running {
    let pipe = folder.pipe("begun");
    let program = format!("echo {{}} > {pipe}; sleep 50 & sleep 51");
    let mut running = map(&program, []).spawn();
    running.child.stdin.take().unwrap().write_all(b"a\nb\nc\nd\n").unwrap();
    let mut begun = fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
    lines(&mut begun, 2);
    running
}

#[test]
fn an_interrupt_ends_everything_within_a_second() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let folder = folder();
        let running = two_that_run(&folder);
        assert!(running.processes().len() >= 5, "{:?}", running.processes());
        let start = Instant::now();
        running.signal(signal);
        // This fails if anything is left after a second.
        let done = running.end();
        assert_eq!(done.code, None);
        assert!(start.elapsed() < Duration::from_secs(2));
    }
}

#[test]
fn written_results_are_complete_after_an_interrupt() {
    let folder = folder();
    let results = folder.file("results");
    let mut running = map("echo {}", ["--results", &results]).spawn();
    let mut stdin = running.child.stdin.take().unwrap();
    stdin.write_all(b"1\n2\n3\n").unwrap();
    let mut stdout = running.child.stdout.take().unwrap();
    lines(&mut stdout, 3);
    // The last line of output may be printed before its record is written.
    stdin.write_all(b"4\n").unwrap();
    lines(&mut stdout, 1);
    running.signal(Signal::SIGINT);
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    running.end();
    let text = fs::read_to_string(&results).unwrap();
    assert!(text.lines().count() >= 3 && text.ends_with("}\n"), "{text:?}");
}

/// Runs a map whose commands write 64 MiB each, while the first one waits. Returns the peak memory of any of its processes.
fn memory_of_large_outputs(options: &[&str]) -> u64 {
    let folder = folder();
    let (pipe, begun) = (folder.pipe("gate"), folder.pipe("begun"));
    let program = format!(
        "head -c 67108864 /dev/zero | tr '\\0' {{}}; case {{}} in a) read line < {pipe};; *) echo done > {begun};; esac"
    );
    let mut running = map(&program, options.iter().copied()).spawn();
    running.child.stdin.take().unwrap().write_all(b"a\nb\nc\n").unwrap();
    let mut ends = fs::OpenOptions::new().read(true).write(true).open(&begun).unwrap();
    lines(&mut ends, 2);
    let taken = |pid: &u32| fs::exists(format!("/proc/{pid}/exe")).unwrap_or(false).then(|| peak(*pid));
    let most = running.processes().iter().filter_map(taken).max().unwrap();
    fs::write(&pipe, "go\n").unwrap();
    let done = running.end();
    assert_eq!((done.code, done.stdout.len()), (Some(0), 3 << 26));
    for (part, byte) in done.stdout.chunks(1 << 26).zip(*b"abc") {
        assert!(part.iter().all(|other| *other == byte));
    }
    most
}

#[test]
fn large_outputs_are_not_held_in_memory() {
    let most = memory_of_large_outputs(&[]);
    assert!(most < 48 << 20, "{most}");
}

#[test]
fn a_full_disk_fails_the_item_whose_output_does_not_fit() {
    let folder = folder();
    let disk = folder.file("disk");
    fs::create_dir(&disk).unwrap();
    let mounted = "mount -t tmpfs -o size=2m none \"$TMPDIR\" && exec \"$0\" \"$@\"";
    let arguments = ["map", "-j1", "--keep-going", "head -c {} /dev/zero", ":::", "9000000", "5"];
    let mut command = std::process::Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c", mounted, env!("CARGO_BIN_EXE_farpool")]).args(arguments);
    let output = command.env_remove("FARPOOL_ADDRESS").env("TMPDIR", &disk).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    if stderr.contains("unshare") || stderr.contains("mount:") {
        eprintln!("namespaces are not permitted here: {stderr}");
        return;
    }
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 5), "{stderr}");
    assert!(stderr.contains("item 1 \"9000000\": its output could not be kept in"), "{stderr}");
    assert!(stderr.contains("No space left") && stderr.contains("TMPDIR"), "{stderr}");
}
