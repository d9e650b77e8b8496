//! Describes why a worker died.

use nix::libc;
use nix::sys::signal::Signal;

use farpool_link::exit_code;

/// Why the agent killed a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// The item at this position ran longer than its job allows: `limit` nanoseconds.
    TimedOut { position: u32, limit: u64 },
    /// It ran cancelled items.
    Cancelled,
    /// Its initializer did not return within `limit` nanoseconds.
    InitializerTimedOut { limit: u64 },
    /// It closed its connection but kept running.
    ClosedConnection,
    /// It wrote invalid data into the shared memory.
    BrokenLink,
    /// The pool is stopping.
    Stopped,
}

/// How a worker ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Death {
    /// The status from waitpid(2); `None` if the fork server died, because its workers die with it.
    pub(super) status: Option<i32>,
    /// Why the agent killed it, if it did.
    pub(super) reason: Option<Reason>,
}

impl Death {
    /// Describes the death in a lower-case fragment.
    pub(super) fn describe(self, memory_limit: u64) -> String {
        match self.reason {
            Some(Reason::ClosedConnection) => {
                return "the worker closed its connection to the agent while it was running: does the task close file descriptors that it did not open?".into();
            }
            Some(Reason::BrokenLink) => {
                return "the worker was killed because it corrupted the memory that it shares with the agent".into();
            }
            Some(Reason::TimedOut { .. }) => {
                return "the worker was killed because another of its items timed out".into();
            }
            Some(Reason::Cancelled) => {
                return "the worker was killed because another of its items was cancelled".into();
            }
            Some(Reason::InitializerTimedOut { limit }) => {
                return format!(
                    "the initializer did not return within {}: raise initializer_timeout if it needs longer",
                    format_nanoseconds(limit)
                );
            }
            Some(Reason::Stopped) => return "the pool was terminated".into(),
            None => {}
        }
        let Some(status) = self.status else {
            return "the worker died because its fork server was killed".into();
        };
        if libc::WIFSIGNALED(status) {
            return by_signal(libc::WTERMSIG(status), memory_limit);
        }
        match libc::WEXITSTATUS(status) {
            exit_code::LOST_CONNECTION => {
                "the worker lost its connection to the agent: does the task close file descriptors that it did not open?".into()
            }
            exit_code::BROKEN_LINK => "the worker exited because the memory that it shares with the agent was corrupted".into(),
            code => format!("the worker exited with code {code}: did the task call exit?"),
        }
    }
}

fn by_signal(number: i32, memory_limit: u64) -> String {
    let name = Signal::try_from(number)
        .map_or_else(|_| format!("signal {number}"), |signal| format!("signal {number} ({})", signal.as_str()));
    let hint = match Signal::try_from(number) {
        Ok(Signal::SIGKILL) => ": killed by another process, or by the kernel because memory ran out".to_owned(),
        Ok(Signal::SIGABRT) if memory_limit > 0 => {
            format!(
                ": it aborted (a panic that cannot unwind, a stack overflow, or memory beyond the limit of {memory_limit} bytes)"
            )
        }
        Ok(Signal::SIGABRT) => ": it aborted (a panic that cannot unwind, or a stack overflow)".to_owned(),
        Ok(Signal::SIGSEGV | Signal::SIGBUS) => ": it accessed invalid memory".to_owned(),
        _ => String::new(),
    };
    format!("the worker was killed by {name}{hint}")
}

/// Formats a duration, such as `1.5s`.
pub(super) fn format_nanoseconds(nanoseconds: u64) -> String {
    format!("{:?}", std::time::Duration::from_nanos(nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deaths_are_described_with_their_signal_or_code() {
        let cases = [
            (Death { status: Some(9), reason: None }, "signal 9 (SIGKILL)"),
            (Death { status: Some(11), reason: None }, "signal 11 (SIGSEGV)"),
            (Death { status: Some(3 << 8), reason: None }, "exited with code 3"),
            (Death { status: Some(exit_code::LOST_CONNECTION << 8), reason: None }, "close file descriptors"),
            (Death { status: None, reason: None }, "fork server"),
            (
                Death { status: Some(9), reason: Some(Reason::InitializerTimedOut { limit: 1_500_000_000 }) },
                "within 1.5s",
            ),
        ];
        for (death, expected) in cases {
            let description = death.describe(0);
            assert!(description.contains(expected), "{description}");
        }
    }
}
