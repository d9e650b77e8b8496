//! The settings of an agent.

use std::time::Duration;

use crate::fork_server::Program;

/// The settings of an agent.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// The name of the host in failures; `None`: its host name.
    pub host: Option<String>,
    /// The agent's id, if a coordinator knows it too. Programs that tasks have started use it to borrow slots.
    pub id: Option<u128>,
    /// How many workers run at once, across all pools.
    pub slots: u32,
    /// The program of pools whose `StartPool` names none; `None`: such pools are refused.
    pub program: Option<Program>,
    /// Most bytes of items that the agent wants to hold at once; 0: no limit.
    pub credit_bytes: u64,
    /// Whether workers' output is reported as events. Otherwise it goes to stdout and stderr of this process.
    pub forward_output: bool,
    /// Whether a pool retries with backoff, instead of failing, when its workers keep dying at startup. Such a pool
    /// fails only if no worker has ever become ready within `start_limit`. In local mode a pool fails soon, since no
    /// other host can run its items.
    pub retries_starts: bool,
    /// Time for a program to reach `farpool::init()`, and for a worker without an initializer to become ready.
    pub start_limit: Duration,
}

impl Settings {
    /// Returns the settings for a host of a cluster: programs come with their pools, and output goes to the clients.
    pub fn host(slots: u32) -> Settings {
        Settings {
            host: None,
            id: None,
            slots,
            program: None,
            credit_bytes: 256 << 20,
            forward_output: true,
            retries_starts: true,
            start_limit: Duration::from_secs(30),
        }
    }

    /// Returns the settings for the agent in a client's own process: workers run the client's program and share its
    /// stdout and stderr.
    pub fn local(slots: u32, program: Program) -> Settings {
        let program = Some(program);
        Settings { program, credit_bytes: 0, forward_output: false, retries_starts: false, ..Settings::host(slots) }
    }
}
