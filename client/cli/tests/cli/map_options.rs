//! The other options of `farpool map`.

use std::collections::HashSet;
use std::fs;

use crate::support::{farpool, folder, host, map};

fn numbers(count: u32) -> String {
    (1..=count).map(|number| format!("{number}\n")).collect()
}

#[test]
fn dry_runs_print_commands_and_run_nothing() {
    let folder = folder();
    let made = folder.file("made");
    let done = map(&format!("touch {made}; mv {{}} {{//}}/old-{{/}}"), ["--dry-run"]).input("a/b c.txt\nd\n").run();
    done.assert_prints(&format!("touch {made}; mv 'a/b c.txt' a/old-'b c.txt'\ntouch {made}; mv d ./old-d\n"));
    assert!(!fs::exists(&made).unwrap());
}

#[test]
fn results_have_a_line_of_json_for_each_item() {
    let folder = folder();
    let results = folder.file("results.jsonl");
    let program = "case {} in a*) exit 0;; b) exit 4;; c) kill -9 $$;; d) sleep 50;; esac";
    let options = ["--keep-going", "--retries=1", "--timeout=500ms", "--results", &results];
    let long = "x".repeat(200_000);
    let done = map(program, options).input(format!("a \"1\"\nb\nc\nd\n{long}\n")).run();
    assert_eq!(done.code, Some(4));
    let text = fs::read_to_string(&results).unwrap();
    let mut records: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    // They are in the order of completion.
    records.sort_by_key(|record| record["index"].as_u64());
    let row = |record: &serde_json::Value| {
        let keys = ["index", "exit_code", "signal", "timed_out", "host", "attempts"];
        serde_json::Value::from(keys.map(|key| record[key].clone()).to_vec())
    };
    let host = host();
    let expected = serde_json::json!([
        [1, 0, null, false, host, 1],
        [2, 4, null, false, host, 2],
        [3, null, 9, false, host, 2],
        [4, null, null, true, host, 2],
        [5, null, null, false, null, 0],
    ]);
    assert_eq!(serde_json::Value::from(records.iter().map(row).collect::<Vec<_>>()), expected);
    assert_eq!(records[0]["item"], "a \"1\"");
    assert_eq!((&records[0]["error"], &records[1]["error"]), (&serde_json::Value::Null, &"exit code 4".into()));
    assert!(records[3]["seconds"].as_f64().unwrap() >= 0.5 && records[4]["seconds"].is_null());
    let keys: Vec<&String> = records[0].as_object().unwrap().keys().collect();
    let promised = [
        "attempts",
        "digest",
        "error",
        "exit_code",
        "host",
        "index",
        "item",
        "program",
        "seconds",
        "signal",
        "timed_out",
    ];
    assert_eq!(keys, promised);
}

#[test]
fn processes_limit_concurrent_commands() {
    let folder = folder();
    let log = folder.file("log");
    let program = format!("echo + >> {log}; sleep 0.02; echo - >> {log}; : {{}}");
    for processes in [1, 3] {
        fs::write(&log, "").unwrap();
        let option = format!("--processes={processes}");
        farpool(["map", &option, &program]).input(numbers(12)).run().assert_prints("");
        let (mut now, mut most) = (0, 0);
        for line in fs::read_to_string(&log).unwrap().lines() {
            now += if line == "+" { 1 } else { -1 };
            most = most.max(now);
        }
        assert!(most <= processes && (processes == 1 || most > 1), "{most} at once");
    }
}

#[test]
fn a_chunk_stays_on_one_worker() {
    // The shell's parent is the worker.
    let done = map("echo $PPID; : {}", ["--chunksize", "5"]).input(numbers(20)).run();
    let text = done.stdout();
    let workers: Vec<&str> = text.lines().collect();
    assert_eq!((done.code, workers.len()), (Some(0), 20));
    for chunk in workers.chunks(5) {
        assert_eq!(chunk.iter().collect::<HashSet<_>>().len(), 1, "{workers:?}");
    }
}

#[test]
fn labels_of_this_machine_are_known() {
    let label = format!("os={}", std::env::consts::OS);
    map("echo", ["--require", &label]).input("x\n").run().assert_prints("x\n");
    let done = map("echo", ["--require", "gpu=a100"]).input("x\n").run();
    assert_eq!((done.code, done.stdout()), (Some(125), String::new()));
    assert!(done.stderr().contains("gpu"), "{done:?}");
}

#[test]
fn priorities_may_be_negative() {
    map("echo", ["--priority", "-3"]).input("x\n").run().assert_prints("x\n");
}

#[test]
fn no_progress_is_shown_if_stderr_is_not_a_terminal() {
    map("echo", ["--progress"]).input(numbers(50)).run().assert_prints(&numbers(50));
}

#[test]
fn invalid_options_are_rejected_with_their_own_code() {
    for arguments in [
        &["map"][..],
        &["map", "--program", ""],
        &["map", "--program", "  "],
        &["map", "--program", "echo 'x"],
        &["map", "--program", "echo", "--timeout", "0"],
        &["map", "--program", "echo", "--timeout", "soon"],
        &["map", "--program", "echo", "-j0"],
        &["map", "--program", "echo", "--chunksize=0"],
        &["map", "--program", "echo", "--retries=-1"],
        &["map", "--program", "echo", "--require", "gpu"],
        &["map", "--program", "echo", "--nonsense"],
        &["map", "--program", "echo", "-a", "list", "--", "x"],
        &["map", "--program", "echo", "-a", "/nonexistent/list"],
        &["map", "--program", "echo", "--results", "/nonexistent/results"],
        &["map", "--nonsense", "echo"],
        &["map", "--program", "echo", "echo"],
        &["map", "--program", "echo", "echo", "::: a"],
        &["map", ""],
        &["map", "echo 'x"],
        &["map", "", "x", ":::", "a"],
        &["map", ":::", "a"],
        &["map", "echo", ":::+", "a"],
        &["map", "echo", "::::"],
        &["map", "echo", "::::", "/nonexistent/list"],
        &["map", "-a", "list", "echo", ":::", "x"],
        &["map", "-n0", "echo", ":::", "x"],
        &["map", "-n2", "echo", ":::", "x", ":::", "y"],
        &["map", "--colsep", "", "echo", ":::", "x"],
        &["map", "--colsep", "\\s+", "echo", ":::", "x"],
        &["map", "--colsep", ",", "echo", ":::", "x", ":::", "y"],
        &["map", "--colsep", ",", "-n2", "echo", ":::", "x"],
        &["map", "echo {2}", ":::", "x"],
        &["map", "echo", "{3}", ":::", "x", ":::", "y"],
        &["map", "--pipe", "cat", ":::", "x"],
        &["map", "--pipe", "--block", "0", "cat"],
        &["map", "--pipe", "--block", "1GiB", "cat"],
        &["map", "--block", "1MiB", "cat"],
        &["map", "--pipe", "-n2", "cat"],
        &["map", "--pipe", "--results", "/nonexistent/results", "--retry-failed", "cat"],
    ] {
        let done = farpool(arguments.iter().copied()).run();
        assert_eq!((done.code, done.stdout()), (Some(125), String::new()), "{arguments:?}");
        assert!(!done.stderr().is_empty() && !done.stderr().contains("panicked"), "{done:?}");
    }
}

#[test]
fn numbers_that_are_wrong_are_explained() {
    for (option, words) in [
        ("-j=x", "a whole number from 1 to"),
        ("-n0", "a whole number from 1 to"),
        ("--chunksize=0", "a whole number from 1 to"),
        ("--retries=-1", "a whole number from 0 to"),
        ("--priority=high", "a whole number from -2147483648 to"),
    ] {
        let done = farpool(["map", option, "echo", ":::", "x"]).run();
        assert!(done.stderr().contains(words), "{option}: {done:?}");
    }
}

#[test]
fn an_unreachable_cluster_is_reported() {
    for arguments in [&["--address", "http://127.0.0.1:1"][..], &["--address=nonsense"]] {
        let done = map("echo", arguments.iter().copied()).input("x\n").run();
        assert_eq!((done.code, done.stdout()), (Some(125), String::new()), "{done:?}");
        assert!(done.stderr().starts_with("farpool: "), "{done:?}");
    }
    let call = map("echo", []).change(|command| {
        command.env("FARPOOL_ADDRESS", "");
    });
    call.input("x\n").run().assert_prints("x\n");
}

#[test]
fn a_terminal_shows_the_progress() {
    // script(1) provides a terminal.
    let command =
        format!("{} map --progress --keep-going 'test {{}} != 4' ::: 1 2 3 4 5", env!("CARGO_BIN_EXE_farpool"));
    let mut script = std::process::Command::new("script");
    script.args(["--quiet", "--return", "--command", &command, "/dev/null"]).env_remove("FARPOOL_ADDRESS");
    let Ok(output) = script.stdin(std::process::Stdio::null()).output() else {
        eprintln!("skipped: there is no script(1) here");
        return;
    };
    let shown = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{shown}");
    for part in ["5/5", "/s eta ", ", 1 failed", "item 4 \"4\": exit code 1"] {
        assert!(shown.contains(part), "{part:?} is missing in {shown:?}");
    }
}
