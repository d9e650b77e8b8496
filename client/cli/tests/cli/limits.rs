//! Limits on file sizes (`ulimit -f`), and closed descriptors 0, 1 and 2.

use std::fs;
use std::os::unix::process::CommandExt;

use nix::sys::resource::{Resource, setrlimit};
use serde_json::Value;

use crate::support::{Call, folder, map};

/// More than workers need, and less than the tests write.
const LIMIT: u64 = 9 << 20;

/// Limits the file sizes of a call; its stdout is this file, if given.
fn limited(call: Call, stdout: Option<&str>) -> Call {
    let stdout = stdout.map(|path| fs::File::create(path).unwrap());
    call.change(|command| {
        let limit = move || {
            setrlimit(Resource::RLIMIT_FSIZE, LIMIT, LIMIT)?;
            if let Some(stdout) = &stdout {
                nix::unistd::dup2_stdout(stdout)?;
            }
            Ok(())
        };
        // SAFETY: two system calls, which may be made between fork and exec.
        unsafe { command.pre_exec(limit) };
    })
}

/// Returns this many long items, as lines.
fn long_items(count: usize) -> String {
    let line = |number| format!("{number:03}{}\n", "x".repeat(120 << 10));
    (0..count).map(line).collect()
}

fn indices(path: &str) -> Vec<u64> {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.ends_with('\n'), "the last line is whole");
    let index = |line| serde_json::from_str::<Value>(line).unwrap()["index"].as_u64().unwrap();
    let mut indices: Vec<u64> = text.lines().map(index).collect();
    indices.sort_unstable();
    indices
}

#[test]
fn results_beyond_the_limit_are_an_error_and_existing_lines_are_complete() {
    let folder = folder();
    let (results, log) = (folder.file("results"), folder.file("log"));
    let program = format!("item={{}}; printf '%s\\n' \"${{item%%x*}}\" >> {log}");
    let all = long_items(100);
    let done = limited(map(&program, ["--results", &results]), None).input(&*all).run();
    let message = format!("farpool: cannot write the results to {results}: File too large");
    assert!(done.code == Some(125) && done.stderr().starts_with(&message), "{:?} {}", done.code, done.stderr());
    let written = indices(&results);
    // All records that fit, except those that were written together with one that does not.
    assert!(!written.is_empty() && fs::metadata(&results).unwrap().len() <= LIMIT);
    map(&program, ["--results", &results, "--resume"]).input(&*all).run().assert_prints("");
    assert_eq!(indices(&results), (1..=100).collect::<Vec<_>>());
    // Items with a record did not run again.
    let runs = fs::read_to_string(&log).unwrap().lines().count();
    assert!(runs <= 200 - written.len(), "{runs} runs, {} results", written.len());
}

#[test]
fn output_beyond_the_limit_is_an_error_and_results_are_kept() {
    let folder = folder();
    for (name, program, options) in [
        ("small", "head -c 100000 /dev/zero | tr '\\0' x; : {}", &[][..]),
        ("large", "head -c 3000000 /dev/zero | tr '\\0' x; : {}", &[]),
        ("unordered", "head -c 100000 /dev/zero | tr '\\0' x; : {}", &["--unordered"]),
        (
            "by line",
            "for i in $(seq 10); do head -c 10000 /dev/zero | tr '\\0' x; echo; done; : {}",
            &["--line-buffer"],
        ),
    ] {
        let (out, results) = (folder.file(&format!("{name}.out")), folder.file(&format!("{name}.results")));
        let arguments = options.iter().copied().chain(["--results", &results]);
        let items: String = (1..=120).map(|number| format!("{number}\n")).collect();
        let done = limited(map(program, arguments), Some(&out)).input(items).run();
        let message = "farpool: cannot write to stdout: File too large";
        assert!(done.code == Some(125) && done.stderr().contains(message), "{name}: {:?} {}", done.code, done.stderr());
        assert_eq!(fs::metadata(&out).unwrap().len(), LIMIT, "{name}: not everything that fits was written");
        assert!(!indices(&results).is_empty(), "{name}");
    }
}

#[test]
fn a_spooled_output_beyond_the_limit_fails_its_item() {
    let program = "if [ {} = b ]; then head -c 20000000 /dev/zero; else head -c 2000000 /dev/zero; fi";
    let done = limited(map(program, ["--keep-going", "--", "a", "b", "c"]), None).run();
    assert!(done.code == Some(1) && done.stderr().contains("File too large"), "{:?} {}", done.code, done.stderr());
    assert!(done.stderr().starts_with("farpool: item 2 \"b\": "), "{}", done.stderr());
    assert_eq!(done.stdout.len(), 4_000_000);
}

/// Commands have the same limit and signal as without farpool.
#[test]
fn the_signal_ends_commands_as_usual() {
    let folder = folder();
    let program = format!("head -c 20000000 /dev/zero > {}; kill -l $?", folder.file("{}"));
    let done = limited(map(&program, ["--", "a"]), None).run();
    assert_eq!((done.code, &*done.stdout()), (Some(0), "XFSZ\n"), "{}", done.stderr());
}

/// Checks each descriptor, and each combination.
#[test]
fn closed_standard_descriptors() {
    for closed in 0..8 {
        for options in [&[][..], &["--line-buffer"], &["--tag", "--progress"]] {
            let folder = folder();
            let results = folder.file("results");
            let program = "printf out-{}; printf err-{} >&2; head -c 2000000 /dev/zero | tr '\\0' o; cat";
            let arguments = options.iter().copied().chain(["--results", &results, "--", "a", "b", "c"]);
            let close = move || {
                for descriptor in (0..3).filter(|descriptor| closed & 1 << descriptor != 0) {
                    nix::unistd::close(descriptor)?;
                }
                Ok(())
            };
            // SAFETY: a system call, which may be made between fork and exec.
            let call = map(program, arguments).change(|command| _ = unsafe { command.pre_exec(close) });
            let done = call.run();
            let (stdout_is_open, stderr_is_open) = (closed & 2 == 0, closed & 4 == 0);
            let about = format!("{closed:03b} {options:?}: {:?} {}", done.code, done.stderr());
            // Output to a closed stdout must not be lost silently.
            assert_eq!(done.code, Some(if stdout_is_open { 0 } else { 125 }), "{about}");
            if stdout_is_open {
                let mut rest = done.stdout.clone();
                rest.retain(|&byte| byte != b'o');
                assert_eq!(done.stdout.len() - rest.len(), 3 * 2_000_000 + 3, "{about}");
                let rest = String::from_utf8(rest).unwrap();
                assert_eq!(["ut-a", "ut-b", "ut-c"].map(|word| rest.matches(word).count()), [1; 3], "{about}");
            } else {
                assert!(done.stdout.is_empty(), "{about}");
                assert!(!stderr_is_open || done.stderr().contains("cannot write to stdout: Bad file"), "{about}");
            }
            assert!(!stdout_is_open || !stderr_is_open || done.stderr().contains("err-b"), "{about}");
            // The file has only records, and there is no other file.
            let there = fs::exists(&results).unwrap();
            let recorded = if there { indices(&results) } else { Vec::new() };
            assert!(recorded.len() <= 3 && (!stdout_is_open || recorded == [1, 2, 3]), "{about}");
            let files = fs::read_dir(std::path::Path::new(&results).parent().unwrap()).unwrap().count();
            assert_eq!(files, usize::from(there), "{about}");
        }
    }
}
