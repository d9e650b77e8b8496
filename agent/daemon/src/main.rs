//! The daemon of a host: see `farpool-agent --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    farpool_agent_daemon::main()
}
