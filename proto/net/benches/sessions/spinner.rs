//! Processes that keep the cores awake and yield to all others.

use std::process::{Child, Command};

pub(crate) const ROLE: &str = "--spin";

/// The processes, which are killed when this is dropped.
pub(crate) struct Spinners(Vec<Child>);

pub(crate) fn one_on_each_core() -> Spinners {
    let program = std::env::current_exe().expect("the program has a path");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let start = |_| Command::new("nice").args(["-n", "19"]).arg(&program).arg(ROLE).spawn();
    Spinners((0..cores).map(|core| start(core).expect("a spinner can be started")).collect())
}

/// The work of such a process.
pub(crate) fn spin() -> ! {
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::SIGKILL).expect("a spinner can be tied to its parent");
    loop {
        std::hint::spin_loop();
    }
}

impl Drop for Spinners {
    fn drop(&mut self) {
        for spinner in &mut self.0 {
            let _ = spinner.kill();
            let _ = spinner.wait();
        }
    }
}
