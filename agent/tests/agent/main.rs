//! Tests of an agent with real processes: some follow the protocol, some violate it.
//!
//! The test executable is also the program that the agent starts.

mod misbehaving;
mod pools;

use farpool_link::message::{ROLE_FORK_SERVER, ROLE_VARIABLE};
use farpool_testkit::doses;
use farpool_testkit::workers;
use libtest_mimic::Arguments;

fn main() {
    let role = std::env::var(ROLE_VARIABLE).unwrap_or_default();
    let mut arguments = std::env::args();
    if role == ROLE_FORK_SERVER && arguments.next().is_some_and(|name| name == misbehaving::PROGRAM) {
        return workers::serve(&arguments.next().unwrap_or_default());
    }
    if pools::run_role(&role) {
        return;
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or_else(doses::threads);
    libtest_mimic::run(&arguments, [misbehaving::trials(), pools::trials()].into_iter().flatten().collect()).exit();
}
