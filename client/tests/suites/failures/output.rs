//! Output of tasks.

use std::io::Read;
use std::thread;

use farpool::ErrorKind;

use crate::failures::checks::{check_error, pool, seconds, still_works, within};
use crate::failures::client::Client;

crate::runner::cases![
    large_output_passes_directly,
    an_unread_pipe_blocks_only_the_writer,
    the_end_of_stderr_is_reported_with_a_death,
    a_panic_does_not_report_output_of_others,
    raw_bytes_and_partial_lines_are_reported,
];

const MEBIBYTES: usize = 8 << 20;

fn large_output_passes_directly() {
    let bytes = MEBIBYTES / 100 * 100;
    let (mut client, mut stderr) = Client::start_with_stderr("prints", &[&bytes.to_string()]);
    let errors = thread::spawn(move || {
        let mut errors = Vec::new();
        stderr.read_to_end(&mut errors).unwrap();
        errors
    });
    let mut output = Vec::new();
    client.stdout().read_to_end(&mut output).unwrap();
    let errors = errors.join().unwrap();
    assert!(client.end().success());
    for printed in [output, errors] {
        assert_eq!(printed.len(), 2 * bytes);
        assert!(printed.iter().all(|byte| matches!(byte, b'x' | b'\n')));
    }
}

fn an_unread_pipe_blocks_only_the_writer() {
    let (mut client, stderr) = Client::start_with_stderr("prints for ever", &[]);
    assert_eq!(within(seconds(20), || client.line()), "the others are done");
    // It can exit, though its output was not read.
    client.resume();
    assert!(client.end().success());
    assert!(client.processes().is_empty());
    drop(stderr);
}

fn the_end_of_stderr_is_reported_with_a_death() {
    let pool = pool(2);
    let last_words = |lines: u64| -> () {
        for line in 0..lines {
            eprintln!("line {line} of many");
        }
        eprint!("the last words");
        std::process::exit(9);
    };
    for lines in [0, 3, 100_000] {
        let error = pool.job(last_words).retries(0).apply((lines,)).unwrap_err();
        check_error(
            &error,
            ErrorKind::WorkerDied,
            0,
            1,
            &["exited with code 9", "the worker's last output on stderr:"],
        );
        let stderr = error.stderr().unwrap();
        assert!(stderr.ends_with("the last words"), "{stderr:?}");
        assert!(stderr.len() <= 8 << 10, "{} bytes were kept", stderr.len());
        assert!(lines == 0 || stderr.contains(&format!("line {} of many", lines - 1)));
    }
    still_works(&pool);
}

fn a_panic_does_not_report_output_of_others() {
    let pool = pool(1);
    pool.apply(|| eprintln!("printed by the item before"), ()).unwrap();
    let error = pool.apply(|| -> () { panic!("a panic") }, ()).unwrap_err();
    assert_eq!(error.stderr(), None);
}

fn raw_bytes_and_partial_lines_are_reported() {
    let pool = pool(1);
    let raw = || -> () {
        let _ = std::io::Write::write_all(&mut std::io::stderr(), b"half \xff\xfe a line");
        std::process::abort();
    };
    let error = pool.job(raw).retries(0).apply(()).unwrap_err();
    check_error(&error, ErrorKind::WorkerDied, 0, 1, &["half ", " a line"]);
}
