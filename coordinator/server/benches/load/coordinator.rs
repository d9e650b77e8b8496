//! The coordinator's process.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;

use crate::figures;

/// The process, killed on drop.
pub(crate) struct Coordinator {
    process: Child,
    pub(crate) address: String,
}

impl Coordinator {
    pub(crate) fn start(program: &str) -> Self {
        // A port that was free a moment ago is most likely still free.
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = free.expect("no free port").to_string();
        let mut command = Command::new(program);
        command.args(["--listen", &address]).stdin(Stdio::null());
        if std::env::var_os("FARPOOL_BENCH_LOG").is_none() {
            command.stderr(Stdio::null()).stdout(Stdio::null());
        }
        let process = command.spawn().expect("cannot start the coordinator");
        Coordinator { process, address: format!("http://{address}") }
    }

    /// Returns its resident memory in bytes.
    pub(crate) fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kibibytes.expect("the coordinator has exited") << 10
    }

    pub(crate) fn processor_time(&self) -> Duration {
        let pid = Pid::from_raw(self.process.id().cast_signed());
        figures::time_of(clock_getcpuclockid(pid).expect("the coordinator has exited"))
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
