//! How a worker leaves: at the agent's wish, or since it cannot go on.

use nix::errno::Errno;

/// Exit codes of workers that end for a reason of farpool's own; the agent's messages know them.
pub(crate) use farpool_link::exit_code as code;

/// The agent wants the worker to leave: what the program has registered to be run at its exit is run.
pub(crate) fn leave() -> ! {
    std::process::exit(0)
}

/// The agent has closed the connection: nobody wants this worker's results any more.
pub(crate) fn agent_gone() -> ! {
    exit(code::AGENT_GONE)
}

/// The connection to the agent does not work any more.
pub(crate) fn lost_connection(_: Errno) -> ! {
    exit(code::LOST_CONNECTION)
}

/// What lies in the shared memory makes no sense.
pub(crate) fn broken_link() -> ! {
    exit(code::BROKEN_LINK)
}

#[expect(
    unsafe_code,
    reason = "ends the process without running the program's exit handlers, which may want what is broken"
)]
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: _exit(2) may be called at any time and from any thread.
    unsafe { libc::_exit(code) }
}
