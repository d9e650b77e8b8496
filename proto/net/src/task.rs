//! How a program's only thread runs its main loop.

use std::panic::resume_unwind;

use tokio::runtime::Runtime;

/// Runs a future to its end, as a task of the runtime's own. What `Runtime::block_on` is given itself is polled only
/// after the kernel was asked for news, so each time that another task has something for it costs a system call.
pub fn block_on<F>(runtime: &Runtime, future: F) -> F::Output
where
    F: Future<Output: Send> + Send + 'static,
{
    // The task cannot be cancelled: nobody else has a handle.
    runtime.block_on(runtime.spawn(future)).unwrap_or_else(|error| resume_unwind(error.into_panic()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_gives_what_the_future_gives_and_passes_panics_on() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime can be made");
        assert_eq!(block_on(&runtime, async { 7 }), 7);
        let panics = std::panic::AssertUnwindSafe(|| block_on(&runtime, async { panic!("as it should") }));
        assert!(std::panic::catch_unwind(panics).is_err());
    }
}
