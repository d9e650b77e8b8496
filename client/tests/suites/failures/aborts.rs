//! A program that was compiled with `panic = "abort"`.

use std::process::{Command, Stdio};

use farpool_testkit::processes;
use farpool_testkit::rustc;
use farpool_testkit::waiting;

use crate::failures::checks::seconds;
use crate::runner;

crate::runner::cases![an_aborting_panic_kills_its_worker_and_fails_only_its_item];

fn an_aborting_panic_kills_its_worker_and_fails_only_its_item() {
    let program = runner::scratch().join("abort");
    let source = rustc::fixture("panic_abort.rs");
    let compiled = rustc::compile(&source, &program, &["-Cpanic=abort"]);
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let child = Command::new(&program).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let pid = child.id();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    for part in [
        "map, item 5: the worker was killed by signal 6 (SIGABRT)",
        "after it panicked at ",
        "item 5 is refused",
        "2 attempts",
        "kind: WorkerDied",
        "and continues: [1, 2, 3]",
    ] {
        assert!(said.contains(part), "{part:?} is missing in: {said}");
    }
    waiting::until_gone(seconds(1), || processes::Process::of(pid).into_iter().collect());
}
