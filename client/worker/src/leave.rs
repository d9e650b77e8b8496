//! Ends a worker: at the agent's request, or because it cannot continue.

use nix::errno::Errno;

/// Exit codes for reasons of farpool's own; the agent describes them in errors.
pub(crate) use farpool_link::exit_code as code;

/// Exits at the agent's request, and runs the program's exit handlers.
pub(crate) fn leave() -> ! {
    std::process::exit(0)
}

/// Exits because the agent has closed the connection.
pub(crate) fn agent_gone() -> ! {
    exit(code::AGENT_GONE)
}

/// Exits because the connection to the agent is broken.
pub(crate) fn lost_connection(_: Errno) -> ! {
    exit(code::LOST_CONNECTION)
}

/// Exits because the shared memory is corrupt.
pub(crate) fn broken_link() -> ! {
    exit(code::BROKEN_LINK)
}

#[expect(
    unsafe_code,
    reason = "ends the process without running the program's exit handlers, which may use what is broken"
)]
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: _exit(2) may be called at any time and from any thread.
    unsafe { libc::_exit(code) }
}
