//! Programs that do not call `farpool::init()` first, or at all, or too late for a fork.

use farpool_testkit::waiting;

use crate::failures::checks::seconds;
use crate::failures::client::Client;

crate::runner::cases![
    a_program_without_init,
    a_program_that_exits_before_init,
    a_program_with_threads_before_init,
    a_program_that_ignores_sigchld,
    an_error_that_main_returns_prints_its_message,
];

/// No process is started that would run the program's main, which would start another one, and so on.
fn a_program_without_init() {
    let mut client = Client::start("forgets init", &[]);
    let said = client.line();
    assert!(said.contains("farpool is not initialised: make `farpool::init();` the first line of main"), "{said}");
    assert_eq!(client.line(), "", "the message was printed once: no other process has come this far");
    assert!(client.end().success());
    assert!(client.processes().is_empty());
}

fn a_program_that_exits_before_init() {
    let mut client = Client::start("leaves before init", &[]);
    let said = client.line();
    for part in ["ended", "exit status: 7", "before it reached farpool::init()", "the first line of main"] {
        assert!(said.contains(part), "{part:?} is missing in {said:?}");
    }
    assert!(client.end().success());
    waiting::until_gone(seconds(1), || client.processes());
}

/// Workers cannot be forked then, so they are started by running the program again.
fn a_program_with_threads_before_init() {
    let mut client = Client::start("threads before init", &[]);
    assert_eq!(client.line(), "no error");
    assert!(client.end().success());
    assert!(client.processes().is_empty());
}

/// Programs inherit this disposition, which would hide exited workers from a fork server.
fn a_program_that_ignores_sigchld() {
    let mut client = Client::start("ignores SIGCHLD", &[]);
    assert_eq!(client.line(), "no error");
    assert!(client.end().success());
    assert!(client.processes().is_empty());
}

fn an_error_that_main_returns_prints_its_message() {
    let mut client = Client::start("returns a pool's error", &[]);
    let said = client.line();
    assert!(said.starts_with("apply, item 0: panicked at ") && said.contains("the story"), "{said}");
    assert!(client.end().success());
}
