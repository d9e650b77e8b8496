//! The cases. Each has a runtime of its own, and a time limit.

mod adoption;
mod bounds;
mod connections;
mod drain;
mod garbage;
mod programs;
mod sessions;
mod settings;

use std::pin::pin;
use std::time::Duration;

/// Far longer than any case takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// The name and function of a case.
pub(crate) type Case = (&'static str, fn());

pub(crate) fn all() -> Vec<Case> {
    [
        sessions::CASES,
        connections::CASES,
        adoption::CASES,
        programs::CASES,
        drain::CASES,
        garbage::CASES,
        bounds::CASES,
        settings::CASES,
    ]
    .concat()
}

/// Runs a case.
fn run(case: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("cannot create a runtime");
    runtime.block_on(async {
        let mut case = pin!(case);
        let done = tokio::time::timeout(PATIENCE, &mut case).await;
        // The case is dropped only after this: its daemons then print their output.
        assert!(done.is_ok(), "the case has not ended within {PATIENCE:?}");
    });
}

/// Lists asynchronous cases with their names.
macro_rules! cases {
    ($($case:ident),* $(,)?) => {
        pub(super) const CASES: &[super::Case] = &[$((stringify!($case), || super::run($case()))),*];
    };
}
use cases;
