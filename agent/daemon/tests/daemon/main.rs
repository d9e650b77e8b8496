//! The daemon as a process, in sessions with a fake coordinator.
//!
//! The test executable is also the program that the daemon starts: as a fork server it runs fake workers on threads, as
//! in the tests of the agent alone.

mod cases;
mod coordinator;
mod daemon;
mod pipe;
mod pool;
mod program;
mod running;

use farpool_link::message::{ROLE_FORK_SERVER, ROLE_VARIABLE};
use farpool_testkit::doses;
use libtest_mimic::{Arguments, Trial};

fn main() {
    if std::env::var_os(ROLE_VARIABLE).is_some_and(|role| role == ROLE_FORK_SERVER) {
        return program::serve();
    }
    let trials = cases::all().into_iter().map(|(name, case)| {
        Trial::test(name, move || {
            case();
            Ok(())
        })
    });
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or_else(doses::threads);
    libtest_mimic::run(&arguments, trials.collect()).exit();
}
